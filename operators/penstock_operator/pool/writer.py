"""The one writer of a Ray cluster's applications.

A PUT replaces the whole list. Reconciles that want to change theirs at the same time are joined into one PUT: the first
becomes the leader, gathers the others for a moment, reads the list, replaces what was asked for, and writes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from penstock.addresses import any_address, is_ipv6
from penstock.api.conditions import Reason
from penstock.errors import Unavailable
from penstock.serving.arguments import Owner
from penstock_operator.clients.ray import RayClient, ServeDetails, application
from penstock_operator.deployment.application import ServeApplication
from penstock_operator.deployment.observed import ApplicationState, Node, ObservedApplication
from penstock_operator.pool.budget import MemoryBudget
from penstock_operator.pool.serve import Aggregate, OwnerKey, merge
from penstock_operator.runtime.copies.cache import Recent

_GATHER_SECONDS: Final = 0.05
_WAIT_SECONDS: Final = 120.0
_TURN_SECONDS: Final = 5.0
"""A reconcile waits so long for another's exchange with the same cluster, and then makes room for other clusters' keys."""
_FRESH_SECONDS: Final = 0.5
_NODES_SECONDS: Final = 5.0
_SILENT_SECONDS: Final = 2.0
"""A cluster that did not answer is not asked again for so long, or for `_SHARE_OF_TIME` times as long as it took."""
_SHARE_OF_TIME: Final = 3.0
_LONGEST_SILENT_SECONDS: Final = 45.0
_SLOW_SECONDS: Final = 8.0
"""A replica that starts for longer is looked up among Ray's actors."""


class PoolBusy(Unavailable):
    """Another reconcile is asking the same cluster, which is slow to answer. It says nothing of the pool: try again."""

    def __init__(self, address: str) -> None:
        super().__init__(Reason.PENDING, f"{address} is slow to answer, and is being asked by another reconcile")


class PoolWriter:
    """Reads and writes one Ray cluster's applications. Safe for several threads.

    Args:
        client: the cluster.
        serve_address: where Serve's proxy is to listen, if it is not up yet.
        may_write: asked before each PUT; False where the lease is lost.
        clock: monotonic seconds.
        budget: bounds what all writers keep.
        turn_seconds: to wait for another thread's exchange with the cluster.
        ipv6: whether a Service's address is IPv6, which the proxy is reached by.
    """

    def __init__(
        self,
        client: RayClient,
        serve_address: str,
        *,
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        budget: MemoryBudget | None = None,
        turn_seconds: float = _TURN_SECONDS,
        ipv6: bool = False,
    ) -> None:
        self._ipv6 = ipv6
        self._budget = budget or MemoryBudget()
        self._turn_seconds = turn_seconds
        self.client = client
        self.serve_address = serve_address
        self._clock = clock
        self._may_write = may_write
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._pending: dict[OwnerKey, tuple[tuple[ServeApplication, ...], Future[None]]] = {}
        self._seen: Recent[str, tuple[ObservedApplication, ...]] = Recent(_FRESH_SECONDS, clock)
        self._nodes: Recent[str, tuple[Node, ...]] = Recent(_NODES_SECONDS, clock)
        self._silent: tuple[float, Unavailable] | None = None
        """Until when it is not asked, and what it did last."""

    def applications(self) -> tuple[ObservedApplication, ...]:
        """What the cluster runs, at most half a second old.

        Raises:
            PoolBusy: another thread has been asking for long.
            Unavailable: it does not answer.
        """
        with self._turn(self._reading):
            if self._silent is not None and self._clock() < self._silent[0]:
                # Each of a pool's deployments waiting out the same timeout in turn would take minutes.
                raise Unavailable(self._silent[1].reason, self._silent[1].message)
            return self._seen.obtain(self.client.address, self._look)

    def _look(self) -> tuple[ObservedApplication, ...]:
        started = self._clock()
        try:
            details = self.client.serve()
            seen = self._tell_placed(_applications(details))
        except Unavailable as error:
            now = self._clock()
            pause = min(max(_SILENT_SECONDS, _SHARE_OF_TIME * (now - started)), _LONGEST_SILENT_SECONDS)
            self._silent = now + pause, error
            raise
        self._silent = None
        self._budget.charge(self, details.weight)
        return seen

    def nodes(self) -> tuple[Node, ...]:
        """The cluster's nodes, some seconds old: for what has time. Raises as `applications`."""
        with self._turn(self._reading):
            return self._nodes.obtain(self.client.address, self.client.nodes)

    def forget(self) -> None:
        """Keep no longer what the cluster said; the next look asks. Waits for nothing."""
        self._seen.outdate(self.client.address)

    @contextmanager
    def _turn(self, lock: threading.Lock) -> Iterator[None]:
        """Hold a lock. Raises `PoolBusy` where another thread has it for long."""
        if not lock.acquire(timeout=self._turn_seconds):
            raise PoolBusy(self.client.address)
        try:
            yield
        finally:
            lock.release()

    def _tell_placed(self, applications: tuple[ObservedApplication, ...]) -> tuple[ObservedApplication, ...]:
        """Of the replicas that have been starting for long, tell those without a node from those that load."""
        now = time.time()
        if not any(
            each.waiting_since is not None and now - each.waiting_since > _SLOW_SECONDS for each in applications
        ):
            return applications
        unplaced = self.client.unplaced_actors()
        return tuple(
            each if any(f"::{each.name}#" in name for name in unplaced) else replace(each, waiting_since=None)
            for each in applications
        )

    def declare(self, owner: OwnerKey, applications: tuple[ServeApplication, ...]) -> None:
        """Make these all the applications that an owner has. Returns once they are declared.

        Raises:
            PoolBusy: another thread has been writing for long.
            Unavailable: the cluster does not answer.
            Invalid: Serve refuses the list.
        """
        done: Future[None] = Future()
        with self._lock:
            replaced = self._pending.get(owner)
            self._pending[owner] = (applications, done)
        if replaced is not None:
            replaced[1].set_exception(Unavailable(Reason.PENDING, "a newer declaration took this one's place"))
        try:
            with self._turn(self._writing):
                if not done.done():
                    time.sleep(_GATHER_SECONDS)
                    self._write_pending()
        except PoolBusy:
            with self._lock:
                if self._pending.get(owner, (None, None))[1] is done:
                    del self._pending[owner]  # by the next time something else may be wanted
            raise
        try:
            done.result(_WAIT_SECONDS)
        except TimeoutError as error:
            raise Unavailable(Reason.POOL_UNREACHABLE, f"{self.client.address} took no applications") from error

    def replace_all(self, applications: Sequence[ServeApplication]) -> None:
        """Make these all that the cluster runs, whoever they are of. Raises `Unavailable`, or `Invalid` as `declare`."""
        with self._turn(self._writing):
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
        with self._turn(self._writing):
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
        self.client.declare(_config(details, aggregate, self.serve_address, ipv6=self._ipv6))
        self.forget()


def _proxy_host(host: str, *, ipv6: bool) -> str:
    """Where Serve's proxy listens, so that it is reached by this host; on another machine by whatever address that has."""
    if host in {"127.0.0.1", "::1"}:
        return host
    return "127.0.0.1" if host == "localhost" else any_address(ipv6=ipv6 or is_ipv6(host))


def _applications(details: ServeDetails) -> tuple[ObservedApplication, ...]:
    return tuple(application(each) for each in details.applications.values())


def _config(details: ServeDetails, aggregate: Aggregate, serve_address: str, *, ipv6: bool) -> dict[str, Any]:
    """A whole `ServeDeploySchema`. Serve's options cannot change once it runs, so they are sent as they are."""
    config: dict[str, Any] = {"applications": list(aggregate.applications)}
    if details.http_options is None:
        parts = urlsplit(serve_address)
        config["http_options"] = {"host": _proxy_host(parts.hostname or "", ipv6=ipv6), "port": parts.port or 8000}
        config["proxy_location"] = "HeadOnly"
        return config
    config["http_options"] = details.http_options
    if details.proxy_location is not None:
        config["proxy_location"] = details.proxy_location
    if details.grpc_options is not None:
        config["grpc_options"] = details.grpc_options
    return config
