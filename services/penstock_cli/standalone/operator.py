"""The operator as a process of this machine, on the embedded store."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from penstock.serving.settings import DEFAULT_MAX_BODY_BYTES
from penstock_cli.standalone.child import Child, ChildProgram
from penstock_cli.standalone.http import get
from penstock_cli.standalone.ports import LOOPBACK, free_ports
from penstock_cli.standalone.state import StateFolder
from penstock_runtime.signing import make_keys

_START_SECONDS = 60.0


class OperatorProcess:
    """The same operator as in a cluster, against the store in the state folder.

    Args:
        state: where everything is kept.
        environment: of the process, and of the searches that it runs.
        agent_url: the gateway agent's.
        workspace: where searches keep what they found.
        max_body_bytes: of a request, as the gateway is told.
    """

    def __init__(
        self,
        state: StateFolder,
        environment: Mapping[str, str],
        agent_url: str,
        workspace: Path,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    ) -> None:
        state.public_key_file.write_text(make_keys(state.signing_key_file), encoding="ascii")
        state.artifacts.mkdir(exist_ok=True)
        self._state = state
        self._environment = environment
        self._agent_url = agent_url
        self._workspace = workspace
        self._max_body_bytes = max_body_bytes
        self.child = Child(self._program())

    def _program(self) -> ChildProgram:
        """The operator, with its probes on a port that is free now."""
        (health_port,) = free_ports(1)
        state = self._state
        self._health_url = f"http://{LOOPBACK}:{health_port}/readyz"
        return ChildProgram(
            name="The operator",
            argv=[
                sys.executable, "-m", "penstock_operator.main",
                "--standalone", str(state.store),
                "--gateway-over-tls" if self._agent_url.startswith("https:") else "--gateway", self._agent_url,
                "--gateway-secret-file", str(state.gateway_secret_file),
                "--health-port", str(health_port),
                "--artifact-store", state.artifacts.absolute().as_uri(),
                "--signing-key-file", str(state.signing_key_file),
                "--trusted-key-file", str(state.public_key_file),
                "--optimizer-workspace", str(self._workspace),
                "--max-body-bytes", str(self._max_body_bytes),
            ],
            environment=self._environment,
            log=state.logs / "operator.log",
        )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until the operator's caches are filled.

        Raises:
            Unavailable: it ended, on other ports too, or was not ready in time.
        """
        self.child.wait_started(lambda: get(self._health_url)[0] == HTTPStatus.OK, _START_SECONDS, self._program)
        self._state.note_metrics("operator", self._health_url.removesuffix("/readyz"))
