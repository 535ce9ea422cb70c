"""The one writer of a Ray cluster's applications.

A PUT replaces the whole list. Reconciles that want to change theirs at the same time are joined into one PUT: the first
becomes the leader, gathers the others for a moment, reads the list, replaces what was asked for, and writes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from penstock.api.conditions import Reason
from penstock.errors import Unavailable
from penstock.planning.application import ServeApplication
from penstock.planning.arguments import Owner
from penstock.planning.observed import Application, ApplicationState
from penstock.planning.pool import Aggregate, OwnerKey, merge
from penstock_operator.clients.ray import RayClient, ServeDetails, application

_GATHER_SECONDS: Final = 0.05
_WAIT_SECONDS: Final = 180.0
_FRESH_SECONDS: Final = 0.5
_SILENT_SECONDS: Final = 2.0
"""A cluster that did not answer is not asked again for so long."""
_SLOW_SECONDS: Final = 8.0
"""A replica that starts for longer is looked up among Ray's actors."""


class PoolWriter:
    """Reads and writes one Ray cluster's applications. Safe for several threads.

    Args:
        client: the cluster.
        serve_address: where Serve's proxy is to listen, if it is not up yet.
        may_write: asked before each PUT; False where the lease is lost.
        clock: monotonic seconds.
        wall_clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        client: RayClient,
        serve_address: str,
        *,
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.client = client
        self.serve_address = serve_address
        self._clock = clock
        self._wall_clock = wall_clock
        self._may_write = may_write
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._pending: dict[OwnerKey, tuple[tuple[ServeApplication, ...], Future[None]]] = {}
        self._seen: tuple[float, tuple[Application, ...]] | None = None
        self._failed: tuple[float, Unavailable] | None = None

    def applications(self) -> tuple[Application, ...]:
        """What the cluster runs, at most half a second old. Raises `Unavailable`."""
        with self._reading:
            if self._failed is not None and self._clock() - self._failed[0] < _SILENT_SECONDS:
                # Each of a pool's deployments waiting out the same timeout in turn would take minutes.
                raise Unavailable(self._failed[1].reason, self._failed[1].message)
            if self._seen is None or self._clock() - self._seen[0] > _FRESH_SECONDS:
                started = self._clock()
                try:
                    self._seen = started, self._placed(_applications(self.client.serve()))
                except Unavailable as error:
                    self._failed = self._clock(), error
                    raise
                self._failed = None
            return self._seen[1]

    def _placed(self, applications: tuple[Application, ...]) -> tuple[Application, ...]:
        """Of the replicas that have been starting for long, tell those without a node from those that load."""
        now = self._wall_clock()
        if not any(
            each.waiting_since is not None and now - each.waiting_since > _SLOW_SECONDS for each in applications
        ):
            return applications
        unplaced = self.client.unplaced()
        return tuple(
            each if any(f"::{each.name}#" in name for name in unplaced) else replace(each, waiting_since=None)
            for each in applications
        )

    def declare(self, owner: OwnerKey, applications: tuple[ServeApplication, ...]) -> None:
        """Make these all the applications that an owner has. Returns once they are declared.

        Raises:
            Unavailable: the cluster does not answer.
            Invalid: Serve refuses the list.
        """
        done: Future[None] = Future()
        with self._lock:
            replaced = self._pending.get(owner)
            self._pending[owner] = (applications, done)
        if replaced is not None:
            replaced[1].set_exception(Unavailable(Reason.PENDING, "a newer declaration took this one's place"))
        with self._writing:
            if not done.done():
                time.sleep(_GATHER_SECONDS)
                self._write_pending()
        try:
            done.result(_WAIT_SECONDS)
        except TimeoutError as error:
            raise Unavailable(Reason.POOL_UNREACHABLE, f"{self.client.address} took no applications") from error

    def replace_all(self, applications: Sequence[ServeApplication]) -> None:
        """Make these all that the cluster runs, whoever they are of. Raises `Unavailable`, or `Invalid` as `declare`."""
        with self._writing:
            details = self.client.serve()
            deployed = {
                each.name: dict(each.config)
                for each in _applications(details)
                if each.config is not None and each.state is not ApplicationState.DELETING
            }
            if deployed == {each["name"]: each for each in applications}:
                return
            ordered = tuple(sorted(applications, key=lambda each: str(each["name"])))
            self._send(details, Aggregate(ordered, changed=True))

    def drop_orphans(self, orphaned: Callable[[Owner], bool]) -> bool:
        """Drop what belongs to owners that are gone; whether there was anything. Raises `Unavailable`."""
        with self._writing:
            return self._put(self.client.serve(), {}, orphaned).changed

    def _write_pending(self) -> None:
        with self._lock:
            batch, self._pending = self._pending, {}
        try:
            wanted = {owner: applications for owner, (applications, _) in batch.items()}
            self._put(self.client.serve(), wanted, lambda _: False)
        except Exception as error:  # noqa: BLE001  # whatever it is, those who wait must hear it
            for _, done in batch.values():
                done.set_exception(error)
        else:
            for _, done in batch.values():
                done.set_result(None)

    def _put(
        self,
        details: ServeDetails,
        wanted: dict[OwnerKey, tuple[ServeApplication, ...]],
        orphaned: Callable[[Owner], bool],
    ) -> Aggregate:
        aggregate = merge(_applications(details), wanted, orphaned)
        if aggregate.changed:
            self._send(details, aggregate)
        return aggregate

    def _send(self, details: ServeDetails, aggregate: Aggregate) -> None:
        if not self._may_write():
            raise Unavailable(Reason.PENDING, "this process holds the lease no more")
        self.client.declare(_config(details, aggregate, self.serve_address))
        with self._reading:
            self._seen = None


def _applications(details: ServeDetails) -> tuple[Application, ...]:
    return tuple(application(each) for each in details.applications.values())


def _config(details: ServeDetails, aggregate: Aggregate, serve_address: str) -> dict[str, Any]:
    """A whole `ServeDeploySchema`. Serve's options cannot change once it runs, so they are sent as they are."""
    config: dict[str, Any] = {"applications": list(aggregate.applications)}
    if details.http_options is None:
        parts = urlsplit(serve_address)
        loopback = parts.hostname in {"127.0.0.1", "localhost", "::1"}
        config["http_options"] = {"host": "127.0.0.1" if loopback else "0.0.0.0", "port": parts.port or 8000}  # noqa: S104  # a proxy on another machine is reached by that machine's address
        config["proxy_location"] = "HeadOnly"
        return config
    config["http_options"] = details.http_options
    if details.proxy_location is not None:
        config["proxy_location"] = details.proxy_location
    if details.grpc_options is not None:
        config["grpc_options"] = details.grpc_options
    return config
