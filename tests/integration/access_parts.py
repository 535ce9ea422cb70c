"""Keys, tokens and a real token issuer over HTTPS, for the gateway's tests of access."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import ssl
import time
from contextlib import AsyncExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID

AUDIENCE = "penstock"


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def key_entry(secret: str, name: str = "alice", **more: Any) -> dict[str, Any]:
    """A key as a route declares it."""
    return {"name": name, "sha256": sha256(secret), **more}


def guarded(*keys: dict[str, Any], **more: Any) -> dict[str, Any]:
    """`access` of a route that needs a key."""
    return {"required": True, "keys": list(keys), **more}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1 and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "issuer.crt", folder / "issuer.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def new_key(algorithm: str) -> PrivateKeyTypes:
    """A private key fit for an algorithm."""
    if algorithm.startswith("ES"):
        curve = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}[algorithm]
        return ec.generate_private_key(curve)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


class Issuer:
    """An OpenID Connect provider: discovery and keys over HTTPS, and tokens signed by those keys."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, Any]] = {}
        self.url = ""
        self.asked: list[str] = []
        self.discovery: dict[str, Any] | bytes | None = None
        self.status = 200
        self.redirect = ""
        self.nameless: set[str] = set()
        """Keys that are published without their `kid`."""

    async def start(self, stack: AsyncExitStack, folder: Path) -> Path:
        """Listen; the certificate to trust."""
        crt, key = certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(crt, key)
        application = web.Application()
        application.router.add_get("/.well-known/openid-configuration", self._discover)
        application.router.add_get("/keys", self._keys)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        return crt

    async def _discover(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if self.redirect:
            raise web.HTTPFound(self.redirect)
        found = self.discovery or {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return web.Response(body=found if isinstance(found, bytes) else json.dumps(found), status=self.status)

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        return web.json_response({"keys": [self.jwk(kid) for kid in self.keys]}, status=self.status)

    def add_key(self, kid: str, algorithm: str = "RS256") -> None:
        self.keys[kid] = algorithm, new_key(algorithm)

    def jwk(self, kid: str) -> dict[str, Any]:
        algorithm, key = self.keys[kid]
        kind = jwt.get_algorithm_by_name(algorithm)
        named = {} if kid in self.nameless else {"kid": kid}
        return {**kind.to_jwk(key.public_key(), as_dict=True), **named, "use": "sig", "alg": algorithm}

    def token(self, kid: str = "k", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token that is good for ten minutes; a claim or header that is None is left out."""
        algorithm, key = self.keys[kid]
        now = int(time.time())
        every = {"iss": self.url, "sub": "alice", "aud": AUDIENCE, "exp": now + 600, **claims}
        return jwt.encode(_given(every), key, algorithm=algorithm, headers=_given({"kid": kid, **(headers or {})}))

    def entry(self, **more: Any) -> dict[str, Any]:
        """This issuer as a route declares it."""
        return {"issuer": self.url, "audiences": [AUDIENCE], **more}
