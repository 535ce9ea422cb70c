"""Starts the whole platform on this machine, and ends all of it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from penstock_cli.standalone.certificate import issue_certificate
from penstock_cli.standalone.child import Child, ChildProgram
from penstock_cli.standalone.collector import Collector
from penstock_cli.standalone.gateway import GatewayProcess
from penstock_cli.standalone.operator import OperatorProcess
from penstock_cli.standalone.ray_head import RayHead
from penstock_cli.standalone.state import StateFolder, optimizer_workspace

_OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_OTLP_TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_TRAINING_SECONDS = 300.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None


@dataclass(frozen=True, slots=True)
class StackSettings:
    """What to start."""

    state: StateFolder
    port: int
    """The gateway's, for clients, if it is free; else the first free one after it."""
    cache: Path
    """The user's, for models and for what searches found."""
    max_body_bytes: int
    """Of a request."""
    tls: bool = False
    """Whether clients speak TLS to the gateway."""
    replica_tls: bool = False
    """Whether gateway, replicas and operator speak TLS to each other."""


class Stack:
    """The platform's processes. Leaving the context ends every one that it started."""

    def __init__(self, settings: StackSettings) -> None:
        self._settings = settings
        self._children: list[Child] = []
        self._collector: Collector | None = None
        self._signals: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Self:
        """Start the trace collector unless the user has one, and take signals as a request to end."""
        for number in _ENDING:
            self._signals[number] = signal.signal(number, _interrupt)
        if _OTLP_ENDPOINT not in os.environ and _OTLP_TRACES_ENDPOINT not in os.environ:
            self._collector = Collector(self._settings.state.traces)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything, last started first, all at once."""
        # A second Ctrl-C must not cut the clean-up short: every step of it has a deadline.
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        for child in reversed(self._children):
            child.begin_stop()
        for child in reversed(self._children):
            child.stop()
        if self._collector is not None:
            self._collector.stop()
        for number, handler in self._signals.items():
            signal.signal(number, handler)

    @property
    def collects_traces(self) -> bool:
        """Whether spans come to this process; else to the endpoint that the user named."""
        return self._collector is not None

    def start_ray(self) -> RayHead:
        """Begin to start Ray; `wait_ready` on what is returned."""
        head = RayHead(self._settings.state, self._environment())
        self._children.append(head.child)
        return head

    def start_gateway(self) -> GatewayProcess:
        """Begin to start the gateway."""
        settings = self._settings
        authority = issue_certificate(settings.state.tls) if settings.tls else None
        gateway = GatewayProcess(
            settings.state, self._environment(), settings.port, settings.max_body_bytes, authority,
            replica_tls=settings.replica_tls,
        )  # fmt: skip
        self._children.append(gateway.child)
        return gateway

    def start_operator(self, gateway: GatewayProcess) -> OperatorProcess:
        """Begin to start the operator."""
        workspace = optimizer_workspace(self._settings.cache)
        operator = OperatorProcess(
            self._settings.state, self._environment(), gateway.agent_url, workspace, self._settings.max_body_bytes
        )
        self._children.append(operator.child)
        return operator

    def start_training(self) -> Callable[[], None]:
        """Begin to train the digits model into the cache; the call that is returned waits for it."""
        child = Child(
            ChildProgram(
                name="Training",
                argv=[sys.executable, "-m", "penstock_optimizer.digits", str(self._settings.cache)],
                environment=self._environment(),
                log=self._settings.state.logs / "training.log",
            )
        )
        self._children.append(child)
        return lambda: child.wait(_TRAINING_SECONDS)

    def _environment(self) -> Mapping[str, str]:
        found = {**os.environ, "PYTHONUNBUFFERED": "1"}
        # The platform's parts speak to each other on loopback, which no proxy reaches.
        local = "127.0.0.1,localhost"
        for name in ("NO_PROXY", "no_proxy"):
            found[name] = f"{found[name]},{local}" if found.get(name) else local
        if self._collector is not None:
            found[_OTLP_ENDPOINT] = self._collector.endpoint
            found["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
        return found

    def check(self) -> None:
        """Raise if something that must run has ended.

        Raises:
            Unavailable: with the end of its log.
        """
        for child in self._children:
            child.check()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Every ending signal is as Ctrl-C: an exception that leaves every context."""
    raise KeyboardInterrupt
