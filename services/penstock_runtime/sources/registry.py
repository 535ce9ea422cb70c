"""Models in an OCI registry: `oci://REGISTRY/REPOSITORY:TAG` or `…@sha256:DIGEST`, by oras.

Three kinds are read:

- ModelPack, the CNCF's format (https://github.com/modelpack/model-spec): layers of `application/vnd.cncf.model.…`, raw
  with the path in an annotation, or tar archives. The older name of the format, `vnd.cnai`, is read as well.
- Any artifact whose layers carry `org.opencontainers.image.title`, as `oras push` makes them.
- A ModelCar: an image with the model below `/models`.

`OCI_USERNAME` and `OCI_PASSWORD`, or `OCI_DOCKER_CONFIG` with the path of a Docker `config.json`, are for registries that
ask for a login. Registries on this machine and those in `OCI_PLAIN_HTTP` (host:port, by commas) are spoken to without TLS.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import oras.provider
import requests

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock_runtime.filesystems import normalize_path
from penstock_runtime.sources.http import add_deadlines, check_response, headers, pieces, read_whole
from penstock_runtime.sources.source import (
    TRIES,
    Algorithm,
    Archive,
    Checksum,
    Packing,
    RemoteFile,
    RemoteListing,
    sort_files,
)

_REFERENCE: Final = re.compile(
    r"oci://(?P<registry>[\w.-]+(?::\d+)?|\[[0-9a-fA-F:]+\](?::\d+)?)"
    r"/(?P<repository>[a-z0-9._-]+(?:/[a-z0-9._-]+)*)"
    r"(?::(?P<tag>[\w][\w.-]*))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MODEL: Final = re.compile(r"application/vnd\.(cncf|cnai)\.model\..*\.(?P<packing>raw|tar|tar\+gzip|tar\+zstd)$")
_LAYER: Final = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.(?P<oci>tar|tar\+gzip|tar\+zstd)"
    r"|docker\.image\.rootfs\.diff\.tar\.(?P<docker>gzip))$"
)
_PATHS: Final = ("org.cncf.model.filepath", "org.cnai.model.filepath", "org.opencontainers.image.title")
_INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    *_INDEXES,
)
_UNPACK: Final = "io.deis.oras.content.unpack"
"""On layers that `oras push` made of a folder."""
_MODELCAR: Final = "models"
_MOST_LAYERS: Final = 1000
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""As images name them, by the kernel's name."""
_ORIGIN: Final = "the registry"


@dataclass(frozen=True, slots=True)
class Reference:
    """The parts of an `oci://` URI. A digest goes before a tag."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    def manifest(self, name: str) -> str:
        """Where a manifest is, by tag or digest."""
        return f"{self.registry}/v2/{self.repository}/manifests/{name}"

    def blob(self, digest: str) -> str:
        """Where a blob is."""
        return f"{self.registry}/v2/{self.repository}/blobs/{digest}"


class RegistrySource:
    """An artifact or an image.

    Args:
        uri: `oci://` and a reference.

    Raises:
        Invalid: UnsupportedStorage; the reference names no registry, repository or tag.
    """

    tries = TRIES

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._reference = reference(uri)
        self._client = _Client(self._reference.registry)

    def listing(self) -> RemoteListing:
        """The layers that hold the model."""
        manifest = self._manifest(self._reference.digest or self._reference.tag or "latest", self._reference.digest)
        if manifest.get("mediaType") in _INDEXES or "manifests" in manifest:
            chosen = self._choose_manifest(manifest)
            manifest = self._manifest(chosen, chosen)
        layers = manifest.get("layers")
        if not isinstance(layers, list) or not layers or len(layers) > _MOST_LAYERS:
            raise _unknown_layout(self.uri, f"its manifest has no layers, or more than {_MOST_LAYERS}")
        files = tuple(file for each in layers if (file := _file(each)) is not None)
        if not files:
            raise _unknown_layout(self.uri, f"its layers are of type {layers[0].get('mediaType')!r}")
        # Layers of an image build on each other; single files do not.
        return RemoteListing(files if any(each.archive for each in files) else sort_files(files))

    def read_small(self, path: str) -> bytes | None:
        """A layer that is a file of its own, whole."""
        for each in self.listing().files:
            if each.path == path and each.archive is None:
                return read_whole(self._blob(each.address, 0), f"{self.uri}/{path}")
        return None

    def stream(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """A layer's content."""
        return pieces(self._blob(file.address, offset), offset)

    def _blob(self, digest: str, offset: int) -> requests.Response:
        return check_response(self._client.ask(self._reference.blob(digest), headers(offset)))

    def _manifest(self, name: str, digest: str | None) -> dict[str, Any]:
        """A manifest, which must have the digest that it was asked for by."""
        answer = self._client.ask(self._reference.manifest(name), {"Accept": ", ".join(_MANIFESTS)})
        body = read_whole(check_response(answer), self.uri)
        found = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if digest is not None and digest != found:
            raise Invalid(
                Reason.DIGEST_MISMATCH,
                f"the manifest of {self.uri} has digest {found}, but {digest} was asked for: "
                "the registry, or what lies between, changed it; push the model again",
            )
        try:
            manifest = json.loads(body)
        except ValueError as error:
            raise _unknown_layout(self.uri, "its manifest is not JSON") from error
        if not isinstance(manifest, dict):
            raise _unknown_layout(self.uri, "its manifest is not a JSON object")
        return manifest

    def _choose_manifest(self, index: Mapping[str, Any]) -> str:
        """The manifest for this machine, or the only one."""
        entries = [each for each in index.get("manifests", []) if isinstance(each, dict) and "digest" in each]
        real = [each for each in entries if each.get("platform", {}).get("os") != "unknown"]
        mine = _ARCHITECTURES.get(platform.machine(), platform.machine())
        fitting = [each for each in real if each.get("platform", {}).get("architecture") == mine]
        if not fitting and len(real) != 1:
            raise _unknown_layout(self.uri, f"its index has {len(real)} manifests and none for {mine}")
        return str((fitting or real)[0]["digest"])


class _Client:
    """oras's session and its tokens, with a deadline for each request and the retries left to the caller."""

    def __init__(self, registry: str) -> None:
        self._registry = oras.provider.Registry(registry, insecure=_is_plaintext(registry))
        add_deadlines(self._registry.session)
        self._login = _login(registry)
        if self._login is not None:
            self._registry.auth.set_basic_auth(*self._login)

    def ask(self, address: str, fields: Mapping[str, str]) -> requests.Response:
        """GET an address of the registry, logging in where it asks for it."""
        url = f"{self._registry.prefix}://{address}"
        known = self._registry.auth.get_auth_header()
        answer = self._get(url, {**fields, **known})
        if answer.status_code != requests.codes.unauthorized:
            return answer
        challenge = answer.headers.get("Www-Authenticate", "")
        answer.close()
        if challenge.lower().startswith("basic"):
            if self._login is None:
                raise PermissionError("the registry asks for a login")
            pair = base64.b64encode(":".join(self._login).encode()).decode()
            return self._get(url, {**fields, "Authorization": f"Basic {pair}"})
        changed, granted = self._registry.auth.authenticate_request(answer, dict(fields), refresh=True)
        if not granted:
            raise PermissionError("the registry's token service gives no token for this login")
        return self._get(url, changed)

    def _get(self, url: str, fields: Mapping[str, str]) -> requests.Response:
        response: requests.Response = self._registry.session.get(url, headers=dict(fields), stream=True)
        return response


def reference(uri: str) -> Reference:
    """The parts of an `oci://` URI.

    Raises:
        Invalid: UnsupportedStorage; it names no registry, no repository, or neither tag nor digest.
    """
    match = _REFERENCE.fullmatch(uri)
    if match is None or not (match["tag"] or match["digest"]):
        raise Invalid(
            Reason.UNSUPPORTED_STORAGE,
            f"{uri!r} names no artifact: write oci://REGISTRY/REPOSITORY:TAG or oci://REGISTRY/REPOSITORY@sha256:DIGEST",
        )
    return Reference(match["registry"], match["repository"], match["tag"], match["digest"])


def _is_plaintext(registry: str) -> bool:
    """Whether a registry is spoken to without TLS."""
    if registry in os.environ.get("OCI_PLAIN_HTTP", "").split(","):
        return True
    host = registry.rsplit(":", 1)[0] if not registry.endswith("]") else registry
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _login(registry: str) -> tuple[str, str] | None:
    """User and password for a registry. Helper programs that a Docker config may name are not run.

    Raises:
        Invalid: StorageDenied; the Docker config is none.
    """
    user = os.environ.get("OCI_USERNAME")
    if user:
        return user, os.environ.get("OCI_PASSWORD", "")
    config = os.environ.get("OCI_DOCKER_CONFIG")
    if not config:
        return None
    try:
        entries = json.loads(Path(config).read_bytes()).get("auths", {})
        entry = next((entries[each] for each in (registry, f"https://{registry}") if each in entries), None)
        if entry is None:
            return None
        if "auth" in entry:
            name, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
            return name, password
        return str(entry["username"]), str(entry["password"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise Invalid(
            Reason.STORAGE_DENIED,
            f"the Docker config of the credentials cannot be read ({type(error).__name__}): "
            "make the Secret by kubectl create secret docker-registry",
        ) from error


def _file(layer: Mapping[str, Any]) -> RemoteFile | None:
    """What a layer is to the model; None for one that has no part in it."""
    digest, kind, size = str(layer.get("digest", "")), str(layer.get("mediaType", "")), layer.get("size")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest) or not isinstance(size, int) or size < 0:
        return None
    notes = layer.get("annotations") or {}
    path = next((str(notes[each]) for each in _PATHS if notes.get(each)), None)
    archive = _archive(kind, named=path is not None, unpack=notes.get(_UNPACK) == "true")
    if archive is None and path is None:
        return None
    name = normalize_path(path) if path and archive is None else digest
    checksum = Checksum(Algorithm.SHA256, digest.removeprefix("sha256:"), _ORIGIN)
    return RemoteFile(path=name, address=digest, size=size, checksums=(checksum,), archive=archive)


def _archive(kind: str, *, named: bool, unpack: bool) -> Archive | None:
    """How a layer of a media type is packed; None for one that is a file as it is.

    oras gives a file the media type of an image's layer, and its name as an annotation.
    """
    model, layer = _MODEL.fullmatch(kind), _LAYER.fullmatch(kind)
    if model is not None:
        return None if model["packing"] == "raw" else Archive(Packing(model["packing"]))
    if layer is None or (named and not unpack):
        return None
    packing = Packing(layer["oci"] or f"tar+{layer['docker']}")
    return Archive(packing) if unpack else Archive(packing, below=_MODELCAR, layered=True)


def _unknown_layout(uri: str, what: str) -> Invalid:
    return Invalid(
        Reason.MODEL_INVALID,
        f"{uri} holds no model that can be read: {what}. Push a ModelPack, an image with the model below /models, "
        "or files by oras push",
    )
