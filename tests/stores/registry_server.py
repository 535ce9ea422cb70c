"""A real OCI registry, distribution/distribution, built from its Go module once; and what puts models into it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from tests.cluster.binary import Program, build
from tests.cluster.tools import say
from tests.ports import free_port
from tests.stores.meddler import Meddler, meddling
from tests.stores.served_program import served
from tests.stores.web_server import serving

PROGRAM = Program(
    "registry",
    Path(__file__).resolve().parent / "registry",
    "an OCI registry",
    package="github.com/distribution/distribution/v3/cmd/registry",
)
USER, PASSWORD = "penstock-tests", "penstock-tests-secret"
REPOSITORY = "models/all"
_HASHED = "$2b$04$tsbd6RtYnOo.ZA/YVysH6u0QlMp1eMbGnLoGOQyCuM2PL8JFW6dAu"
"""The password by bcrypt, as `htpasswd -B` writes it."""
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"


class Login(StrEnum):
    """What a registry asks for."""

    NONE = "none"
    BASIC = "basic"
    TOKEN = "token"


@dataclass(frozen=True)
class Layer:
    """A blob of an artifact."""

    content: bytes
    media_type: str
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class Registry:
    """A registry that is up, behind a meddler."""

    meddler: Meddler
    direct: str
    """host:port of the registry itself."""
    session: requests.Session

    def push(self, repository: str, tag: str, layers: Sequence[Layer], artifact_type: str | None = None) -> str:
        """Put an artifact there, by the registry's own API. Returns its digest."""
        described = [
            {**self._blob(repository, each.content, each.media_type), "annotations": dict(each.annotations)}
            for each in layers
        ]
        manifest: dict[str, Any] = {
            "schemaVersion": 2, "mediaType": _MANIFEST, "config": self._blob(repository, b"{}", _EMPTY), "layers": described,
        }  # fmt: skip
        if artifact_type:
            manifest["artifactType"] = artifact_type
        return self.put_manifest(repository, tag, manifest)

    def put_manifest(self, repository: str, tag: str, manifest: Mapping[str, Any]) -> str:
        """Put a manifest or an index there. Returns its digest."""
        body = json.dumps(manifest).encode()
        url = f"http://{self.direct}/v2/{repository}/manifests/{tag}"
        answer = self.session.put(url, data=body, headers={"Content-Type": str(manifest["mediaType"])}, timeout=10)
        answer.raise_for_status()
        return f"sha256:{hashlib.sha256(body).hexdigest()}"

    def _blob(self, repository: str, content: bytes, media_type: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        start = self.session.post(f"http://{self.direct}/v2/{repository}/blobs/uploads/", timeout=10)
        start.raise_for_status()
        self.session.put(
            start.headers["Location"], params={"digest": digest}, data=content, timeout=10
        ).raise_for_status()
        return {"mediaType": media_type, "digest": digest, "size": len(content)}


def tar(files: Mapping[str, bytes], *, compressed: bool = True) -> bytes:
    """A tar archive of plain files."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(body.getvalue(), mtime=0) if compressed else body.getvalue()


@contextmanager
def registry_server(folder: Path, login: Login = Login.NONE) -> Iterator[Registry]:
    """A registry, until the block ends."""
    port = free_port()
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    session = requests.Session()
    with ExitStack() as stack:
        if login is Login.BASIC:
            (folder / "htpasswd").write_text(f"{USER}:{_HASHED}\n")
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
            session.auth = (USER, PASSWORD)
        if login is Login.TOKEN:
            tokens = stack.enter_context(serving(TokenService()))
            (folder / "jwks.json").write_text(json.dumps({"keys": [tokens.public_key]}))
            config["auth"] = {
                "token": {
                    "realm": f"http://127.0.0.1:{tokens.server_port}/token", "service": "registry", "issuer": "tests",
                    "jwks": str(folder / "jwks.json"), "signingalgorithms": ["ES256"],
                }
            }  # fmt: skip
            session.headers["Authorization"] = f"Bearer {tokens.token([f'repository:{REPOSITORY}:pull,push'])}"
        (folder / "config.yml").write_text(yaml.safe_dump(config))
        command = [str(build(say, PROGRAM)), "serve", str(folder / "config.yml")]
        stack.enter_context(served(command, port, folder / "log"))
        yield Registry(stack.enter_context(meddling(port)), f"127.0.0.1:{port}", session)


class TokenService(ThreadingHTTPServer):
    """Gives tokens for a user and password, as distribution's specification of them wants; it stands for a registry's own.

    The registry checks the tokens, so it is the registry that says whether they are right.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self._key = ec.generate_private_key(ec.SECP256R1())
        numbers = self._key.public_key().public_numbers()
        self.public_key = {
            "kty": "EC", "crv": "P-256", "kid": "tests", "alg": "ES256", "use": "sig",
            "x": _base64(numbers.x.to_bytes(32, "big")), "y": _base64(numbers.y.to_bytes(32, "big")),
        }  # fmt: skip

    def token(self, scopes: Sequence[str]) -> str:
        """A token for some scopes."""
        now = int(time.time())
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (s.split(":") for s in scopes)
        ]
        claims = {
            "iss": "tests", "sub": USER, "aud": "registry", "iat": now, "nbf": now - 5, "exp": now + 300, "jti": str(now),
            "access": access,
        }  # fmt: skip
        parts = [{"typ": "JWT", "alg": "ES256", "kid": "tests"}, claims]
        signed = ".".join(_base64(json.dumps(each).encode()) for each in parts)
        r, s = utils.decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class _TokenHandler(BaseHTTPRequestHandler):
    server: TokenService

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers["Authorization"] != wanted:
            self.send_response(401)
            self.end_headers()
            return
        body = json.dumps({"token": self.server.token(parse_qs(urlsplit(self.path).query).get("scope", []))}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
