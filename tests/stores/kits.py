"""One kit for each kind of store: a server behind a meddler, and how a test puts a model there."""

from __future__ import annotations

import hashlib
import itertools
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import fsspec
import requests
from tests.stores.gcs_server import gcs_server
from tests.stores.hub_standin import HubStandIn
from tests.stores.meddler import Meddler, meddling
from tests.stores.registry_server import PASSWORD, REPOSITORY, USER, Layer, Login, Registry, registry_server, tar
from tests.stores.s3_server import s3_server
from tests.stores.web_server import FolderServer, serving

from penstock.serving.manifest import DataType, ModelFile, ModelManifest, Signature, TensorSpec
from penstock_runtime.fetching import ModelCacheSettings, fetch_into_cache

_NUMBERS = itertools.count()


class Kit(ABC):
    """A kind of store."""

    lone = True
    """Whether a URI may name a single file."""
    checks_manifest = True
    """Whether files are checked against `manifest.json` while they stream."""

    def __init__(self, meddler: Meddler, environment: Mapping[str, str]) -> None:
        self.meddler = meddler
        self.environment = dict(environment)

    @abstractmethod
    def put(self, files: Mapping[str, bytes], replacing: str | None = None) -> str:
        """A new folder, or another content of an old one. Returns its URI."""

    @abstractmethod
    def missing(self) -> str:
        """A URI of nothing."""

    @abstractmethod
    def denied(self) -> tuple[str, dict[str, str]]:
        """A URI that the store refuses to who has this environment."""

    def unreachable(self) -> tuple[str, dict[str, str]]:
        """A URI of a server that is not up, and the environment that says so."""
        uri = self.put({"model.onnx": b"x"})
        gone = "127.0.0.1:9"
        return uri.replace(self.meddler.address, gone), {
            name: value.replace(self.meddler.address, gone) for name, value in self.environment.items()
        }


class S3Kit(Kit):
    def put(self, files: Mapping[str, bytes], replacing: str | None = None) -> str:
        uri = replacing or f"s3://models/folder-{next(_NUMBERS)}"
        for name, content in files.items():
            self._files.pipe_file(f"{uri}/{name}", content)
        return uri

    @cached_property
    def _files(self) -> fsspec.AbstractFileSystem:
        """The server itself, past the meddler."""
        return fsspec.filesystem(
            "s3", key=self.environment["AWS_ACCESS_KEY_ID"], secret=self.environment["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=f"http://127.0.0.1:{self.meddler.upstream}", skip_instance_cache=True,
        )  # fmt: skip

    def missing(self) -> str:
        return "s3://models/nothing-here"

    def denied(self) -> tuple[str, dict[str, str]]:
        return self.put({"model.onnx": b"x"}), {**self.environment, "AWS_SECRET_ACCESS_KEY": "wrong"}


class GcsKit(Kit):
    closed_port = 0
    """Of a server that answers 403 to everything."""

    def put(self, files: Mapping[str, bytes], replacing: str | None = None) -> str:
        uri = replacing or f"gs://models/folder-{next(_NUMBERS)}"
        for name, content in files.items():
            path = urllib.parse.quote(f"{uri.removeprefix('gs://models/')}/{name}", safe="")
            url = f"http://127.0.0.1:{self.meddler.upstream}/upload/storage/v1/b/models/o?uploadType=media&name={path}"
            requests.post(url, data=content, timeout=10).raise_for_status()
        return uri

    def missing(self) -> str:
        return "gs://models/nothing-here"

    def denied(self) -> tuple[str, dict[str, str]]:
        # This server lets everybody in; one that refuses all stands for Google's.
        return "gs://models/x", {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{self.closed_port}"}


class WebKit(Kit):
    def __init__(self, server: FolderServer, meddler: Meddler) -> None:
        super().__init__(meddler, {})
        self.server = server
        server.token = "opens"

    def put(self, files: Mapping[str, bytes], replacing: str | None = None) -> str:
        name = replacing.rsplit("/", 1)[-1] if replacing else f"folder-{next(_NUMBERS)}"
        _write(self.server.root / name, files)
        return f"http://{self.meddler.address}/{name}"

    def missing(self) -> str:
        return f"http://{self.meddler.address}/nothing-here"

    def denied(self) -> tuple[str, dict[str, str]]:
        _write(self.server.root / "private" / "m", {"model.onnx": b"x"})
        return f"http://{self.meddler.address}/private/m/model.onnx", {"HTTP_BEARER_TOKEN": "wrong"}


class HubKit(Kit):
    def __init__(self, server: HubStandIn, meddler: Meddler) -> None:
        super().__init__(meddler, {"HF_ENDPOINT": f"http://{meddler.address}"})
        self.server = server

    def put(self, files: Mapping[str, bytes], replacing: str | None = None) -> str:
        repo = replacing.removeprefix("hf://") if replacing else f"org/repo-{next(_NUMBERS)}"
        _write(self.server.root / repo / "main", files)
        return f"hf://{repo}"

    def missing(self) -> str:
        return "hf://org/nothing-here"

    def denied(self) -> tuple[str, dict[str, str]]:
        _write(self.server.root / "private" / "m" / "main", {"model.onnx": b"x"})
        return "hf://private/m", {**self.environment, "HF_TOKEN": "hf_wrong"}


class RegistryKit(Kit):
    lone = False

    def __init__(self, registry: Registry, layers: Callable[[Mapping[str, bytes]], list[Layer]]) -> None:
        super().__init__(registry.meddler, {"OCI_USERNAME": USER, "OCI_PASSWORD": PASSWORD})
        self.registry = registry
        self._layers = layers

    def put(self, files: Mapping[str, bytes], replacing: str | None = None) -> str:
        uri = replacing or f"oci://{self.meddler.address}/{REPOSITORY}:t{next(_NUMBERS)}"
        self.registry.push(REPOSITORY, uri.rsplit(":", 1)[1], self._layers(files))
        return uri

    def missing(self) -> str:
        return f"oci://{self.meddler.address}/{REPOSITORY}:nothing-here"

    def denied(self) -> tuple[str, dict[str, str]]:
        return self.put({"model.onnx": b"x"}), {**self.environment, "OCI_PASSWORD": "wrong"}


def model_pack(files: Mapping[str, bytes]) -> list[Layer]:
    """A ModelPack with a raw layer for each file."""
    return [
        Layer(content, "application/vnd.cncf.model.weight.v1.raw", {"org.cncf.model.filepath": name})
        for name, content in files.items()
    ]


def model_car(files: Mapping[str, bytes]) -> list[Layer]:
    """An image with the model below /models, on a layer that has nothing to do with it."""
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    below = {f"models/{name}": content for name, content in files.items()}
    return [Layer(tar({"bin/true": b"not ours"}), kind, {}), Layer(tar(below), kind, {})]


@contextmanager
def kit(name: str, folder: Path) -> Iterator[Kit]:
    """The kit of a kind of store, until the block ends."""
    match name:
        case "S3":
            with s3_server(folder) as server, meddling(int(server.url.rsplit(":", 1)[1])) as meddler:
                yield S3Kit(meddler, {**server.environment, "AWS_ENDPOINT_URL": f"http://{meddler.address}"})
        case "Google Cloud Storage":
            with gcs_server(folder) as meddler, serving(FolderServer(folder)) as closed:
                closed.closed = True
                google = GcsKit(meddler, {"STORAGE_EMULATOR_HOST": f"http://{meddler.address}"})
                google.closed_port = closed.server_port
                yield google
        case "a web server":
            with serving(FolderServer(folder)) as web, meddling(web.server_port) as meddler:
                yield WebKit(web, meddler)
        case "the Hub":
            with serving(HubStandIn(folder)) as hub, meddling(hub.server_port) as meddler:
                yield HubKit(hub, meddler)
        case "ModelPack":
            with registry_server(folder, Login.TOKEN) as registry:
                yield RegistryKit(registry, model_pack)
        case "ModelCar":
            with registry_server(folder, Login.BASIC) as registry:
                images = RegistryKit(registry, model_car)
                images.checks_manifest = False
                yield images
        case _:
            raise ValueError(name)


KITS = ("S3", "Google Cloud Storage", "a web server", "the Hub", "ModelPack", "ModelCar")


def model_files(
    body: bytes = b"weights", *, says: bytes | None = None, more: Mapping[str, str] | None = None
) -> dict[str, bytes]:
    """A model folder: a manifest that names all, a file in a folder of its own, and a signature.

    Args:
        body: of `model.onnx`.
        says: what the manifest takes its content for; None: what it is.
        more: further files that the manifest names, and their SHA-256.
    """
    spec = TensorSpec(name="x", datatype=DataType.FP32, shape=(-1,))
    described = {name: ModelFile(sha256=digest, size_bytes=1) for name, digest in (more or {}).items()}
    for name, content in {"model.onnx": body if says is None else says, "report/report.json": b"{}"}.items():
        described[name] = ModelFile(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    manifest = ModelManifest(name="m", signature=Signature(inputs=(spec,), outputs=(spec,)), files=described)
    return {
        "model.onnx": body,
        "report/report.json": b"{}",
        "model.sig": b"signed",
        "manifest.json": manifest.model_dump_json().encode(),
    }


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def fetch(uri: str, cache: Path, digest: str | None = None) -> Path:
    held, found = fetch_into_cache(uri, ModelCacheSettings(cache), digest)
    with held:
        return held.path / found.lone if found.lone else held.path


def contents(path: Path) -> dict[str, bytes]:
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in path.rglob("*") if each.is_file()}
