"""The gateway as a process of this machine."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from penstock.routing.identities import GATEWAY_NAME
from penstock.routing.tokens import admin_token
from penstock.serving.settings import DEFAULT_MAX_BODY_BYTES
from penstock_cli.standalone.certificate import trust_of
from penstock_cli.standalone.child import Child, ChildProgram
from penstock_cli.standalone.http import get
from penstock_cli.standalone.ports import LOOPBACK, free_ports, next_free_port
from penstock_cli.standalone.state import StateFolder
from penstock_runtime.authority import PlatformAuthority, client_context

_START_SECONDS = 60.0


class GatewayProcess:
    """The agent and its HAProxy.

    Args:
        state: where its secret and its log are.
        environment: of the process.
        wanted: the port for clients, if it is free; else the first free one after it.
        max_body_bytes: of a request.
        authority: whose certificate it has, beside that file; None: clients speak plain HTTP.
        replica_tls: whether it, replicas and operator speak TLS to each other.

    Raises:
        Unavailable: no port is free.
    """

    def __init__(
        self,
        state: StateFolder,
        environment: Mapping[str, str],
        wanted: int,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        authority: Path | None = None,
        *,
        replica_tls: bool = False,
    ) -> None:
        secret = state.secret(state.gateway_secret_file)
        self._token = admin_token(secret)
        self._agent_trust = client_context(PlatformAuthority(secret).pem) if replica_tls else None
        self._state = state
        self._environment = environment
        self._wanted = wanted
        self._max_body_bytes = max_body_bytes
        self._authority = authority
        self.replica_tls = replica_tls
        self.trust = None if authority is None else trust_of(authority)
        """Of its clients."""
        self.child = Child(self._program())

    def _program(self) -> ChildProgram:
        """The gateway on ports that are free now."""
        self.port = next_free_port(self._wanted)
        control_port, tls_port, probe_port = free_ports(3)
        self._metrics_url = f"http://{LOOPBACK}:{probe_port}"
        self.url = f"{'http' if self._authority is None else 'https'}://{LOOPBACK}:{self.port}"
        scheme, port = ("https", tls_port) if self.replica_tls else ("http", control_port)
        self.agent_url = f"{scheme}://{LOOPBACK}:{port}"
        # HAProxy's sockets lie here, and a socket's path must be short. The operator declares all routes again.
        scratch = Path(tempfile.mkdtemp(prefix="penstock-gateway-"))
        return ChildProgram(
            name="The gateway",
            argv=[
                sys.executable, "-m", "penstock_serving.gateway.main",
                "--host", LOOPBACK, "--port", str(self.port),
                "--control-host", LOOPBACK, "--control-port", str(control_port),
                "--probe-host", LOOPBACK, "--probe-port", str(probe_port),
                "--secret-file", str(self._state.gateway_secret_file),
                "--state-dir", str(scratch),
                "--max-body-bytes", str(self._max_body_bytes),
                *(["--tls-certificate", str(self._authority.parent)] if self._authority is not None else []),
                *(["--control-tls-port", str(tls_port), "--require-control-tls"] if self.replica_tls else []),
            ],
            environment=self._environment,
            log=self._state.logs / "gateway.log",
            scratch=scratch,
        )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until the gateway answers clients; only then do its port and addresses stay as they are.

        Raises:
            Unavailable: it ended, on other ports too, or was not ready in time.
        """
        self.child.wait_started(self._answers, _START_SECONDS, self._program)
        self._state.note_metrics("gateway", self._metrics_url)

    def _answers(self) -> bool:
        # Its agent takes our token, so it is ours; it answers only where no other program had the port for clients.
        name = GATEWAY_NAME if self.replica_tls else None
        if get(f"{self.agent_url}/v1/routes", self._token, None, self._agent_trust, name)[0] != HTTPStatus.OK:
            return False
        return get(f"{self.url}/v2/health/live", trust=self.trust)[0] == HTTPStatus.OK
