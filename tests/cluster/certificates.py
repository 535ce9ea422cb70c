"""The test cluster's certificates: one authority, and what each component and the administrator present."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = dt.timedelta(days=7)
_SERVER_NAMES = ("127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Identities:
    """Everything that the control plane's components authenticate with."""

    authority: Path
    server: Pair
    admin: Pair
    controller_manager: Pair
    service_account_key: Path


class _Authority:
    """Signs certificates into one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name("penstock-test-authority")
        certificate = self._sign(self._subject, self._key.public_key(), authority=True)
        self.path = folder / "ca.crt"
        _write(self.path, certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, file: str, common_name: str, *, organization: str | None = None, server: Sequence[str] = ()
    ) -> Pair:
        """A client's pair, or a server's with the names and addresses that it answers to."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(_name(common_name, organization), key.public_key(), server=server)
        pair = Pair(self._folder / f"{file}.crt", self._folder / f"{file}.key")
        _write(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        _write(pair.key, _pem(key))
        return pair

    def write_key(self) -> Path:
        """The authority's own key as a file, for the controller that signs requests."""
        path = self._folder / "ca.key"
        _write(path, _pem(self._key))
        return path

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool = False, server: Sequence[str] = ()
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + _LIFETIME)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if server:
            names = x509.SubjectAlternativeName([_alternative(name) for name in server])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


@dataclass(frozen=True)
class NodeIdentity:
    """What one node's kubelet authenticates with, to the API server and towards it."""

    client: Pair
    server: Pair


@dataclass(frozen=True)
class ClusterIdentities(Identities):
    """What a cluster with nodes needs besides."""

    authority_key: Path
    scheduler: Pair
    proxy: Pair
    watcher: Pair
    kubelet_client: Pair
    """What the API server shows kubelets."""
    nodes: tuple[NodeIdentity, ...]


def make_identities(folder: Path) -> Identities:
    """Make an authority and all certificates in `folder`, readable by this user only."""
    folder.mkdir(mode=0o700)
    authority = _Authority(folder)
    service_account_key = folder / "service-account.key"
    _write(service_account_key, _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
    return Identities(
        authority=authority.path,
        server=authority.issue("apiserver", "kube-apiserver", server=_SERVER_NAMES),
        admin=authority.issue("admin", "penstock-test-admin", organization="system:masters"),
        controller_manager=authority.issue("controller-manager", "system:kube-controller-manager"),
        service_account_key=service_account_key,
    )


def make_cluster_identities(
    folder: Path, server_addresses: Sequence[str], nodes: Sequence[tuple[str, str]]
) -> ClusterIdentities:
    """Make everything for a cluster whose API server has further addresses, and with nodes of (name, address)."""
    folder.mkdir(mode=0o700)
    authority = _Authority(folder)
    service_account_key = folder / "service-account.key"
    _write(service_account_key, _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
    masters = "system:masters"
    return ClusterIdentities(
        authority=authority.path,
        authority_key=authority.write_key(),
        server=authority.issue("apiserver", "kube-apiserver", server=(*_SERVER_NAMES, *server_addresses)),
        admin=authority.issue("admin", "penstock-test-admin", organization=masters),
        controller_manager=authority.issue("controller-manager", "system:kube-controller-manager"),
        scheduler=authority.issue("scheduler", "system:kube-scheduler"),
        proxy=authority.issue("proxy", "system:kube-proxy"),
        watcher=authority.issue("watcher", "penstock-test-watcher"),
        kubelet_client=authority.issue("kubelet-client", "kube-apiserver-kubelet-client", organization=masters),
        service_account_key=service_account_key,
        nodes=tuple(_node_identity(authority, name, address) for name, address in nodes),
    )


def _node_identity(authority: _Authority, name: str, address: str) -> NodeIdentity:
    user = f"system:node:{name}"
    return NodeIdentity(
        client=authority.issue(f"{name}-client", user, organization="system:nodes"),
        server=authority.issue(f"{name}-server", user, server=(name, address)),
    )


def write_kubeconfig(path: Path, url: str, authority: Path, user: dict[str, str], namespace: str = "default") -> Path:
    """Write a kubeconfig with one cluster and one user (the `user` entry: token or client certificate data)."""
    fields = "\n".join(f"    {name}: {value}" for name, value in user.items())
    text = f"""apiVersion: v1
kind: Config
current-context: test
clusters:
- name: test
  cluster:
    server: {url}
    certificate-authority-data: {base64_of(authority)}
contexts:
- name: test
  context:
    cluster: test
    user: test
    namespace: {namespace}
users:
- name: test
  user:
{fields}
"""
    _write(path, text.encode())
    return path


def client_certificate(pair: Pair) -> dict[str, str]:
    """The `user` entry of a kubeconfig that authenticates by certificate."""
    return {"client-certificate-data": base64_of(pair.certificate), "client-key-data": base64_of(pair.key)}


def base64_of(path: Path) -> str:
    """A file's content in base64."""
    return base64.b64encode(path.read_bytes()).decode()


def _name(common_name: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    form = (
        serialization.PrivateFormat.TraditionalOpenSSL
        if isinstance(key, rsa.RSAPrivateKey)
        else serialization.PrivateFormat.PKCS8
    )
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
