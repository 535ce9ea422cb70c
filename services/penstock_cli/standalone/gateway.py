"""The gateway as a process of this machine."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from penstock_cli.standalone.child import Child, Program
from penstock_cli.standalone.http import get
from penstock_cli.standalone.ports import LOOPBACK
from penstock_cli.standalone.state import StateFolder

_START_SECONDS = 60.0


class Gateway:
    """The agent and its HAProxy."""

    def __init__(self, state: StateFolder, environment: Mapping[str, str], port: int, control_port: int) -> None:
        state.secret(state.gateway_secret_file)
        self.url = f"http://{LOOPBACK}:{port}"
        self.agent_url = f"http://{LOOPBACK}:{control_port}"
        # HAProxy's sockets lie here, and a socket's path must be short. The operator declares all routes again.
        scratch = Path(tempfile.mkdtemp(prefix="penstock-gateway-"))
        self.child = Child(
            Program(
                name="The gateway",
                argv=[
                    sys.executable, "-m", "penstock_serving.gateway.main",
                    "--host", LOOPBACK, "--port", str(port),
                    "--control-host", LOOPBACK, "--control-port", str(control_port),
                    "--secret-file", str(state.gateway_secret_file),
                    "--state-dir", str(scratch),
                ],
                environment=environment,
                log=state.logs / "gateway.log",
                scratch=scratch,
            )
        )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until the gateway answers clients.

        Raises:
            Unavailable: it ended, or was not ready in time.
        """
        self.child.wait_until(lambda: get(f"{self.url}/v2/health/live")[0] == HTTPStatus.OK, _START_SECONDS)
