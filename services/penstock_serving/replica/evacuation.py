"""Empties a worker before its pod goes: `python -m penstock_serving.replica.evacuation`, as the container's preStop hook.

Kubernetes takes pods for its own reasons: a node is drained, a pool shrinks or is deleted. Ray would learn of it when the
raylet is dead, and requests with it. So Ray is asked to drain its node: Serve starts each replica elsewhere, then ends it
here, which leaves the gateways first. Where there is no time left, or no head to ask, the replicas are told to leave.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.addresses import split_port
from penstock.errors import Invalid

log = logging.getLogger(__name__)

_REPLICA: Final = b"penstock_serving.replica"
_MIGRATION_SECONDS: Final = 120.0
"""For replicas to be started elsewhere: less than the pod's grace by what follows."""
_LEAVING_SECONDS: Final = 35.0
"""For replicas that were told to leave to answer what came to them."""
_POLL_SECONDS: Final = 0.5
_CONNECT_SECONDS: Final = 2.0
_MISSES: Final = 3
"""Attempts to reach the head that fail before it counts as gone."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an evacuation sees and does outside."""

    replicas: Callable[[], tuple[int, ...]]
    """Process ids of the replica servers here."""
    drain: Callable[[float], str | None]
    """Ask Ray to drain this node within so many seconds; None: it will; else why not."""
    head_answers: Callable[[], bool]
    tell_to_leave: Callable[[int], None]
    """Tell one replica server to leave the gateways, answer what came, and end."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


def evacuate(around: Surroundings) -> bool:
    """Empty this worker; whether no replica is left."""
    if not around.replicas():
        return True
    # Ray's own client would wait for a head that is gone.
    refusal = around.drain(_MIGRATION_SECONDS) if around.head_answers() else "its head does not answer"
    if refusal is None:
        if _wait_until_empty(around, _MIGRATION_SECONDS):
            return True
    else:
        log.warning("Ray does not drain this node: %s", refusal)
    told: set[int] = set()
    deadline = around.clock() + _LEAVING_SECONDS
    while (left := around.replicas()) and around.clock() < deadline:
        for process in left:
            if process not in told:  # a second word would end it at once
                told.add(process)
                around.tell_to_leave(process)
        around.sleep(_POLL_SECONDS)
    return not around.replicas()


def _wait_until_empty(around: Surroundings, seconds: float) -> bool:
    """Wait until no replica is left; False when the time is over, or the head that was to see to it is gone."""
    deadline, misses = around.clock() + seconds, 0
    while around.clock() < deadline:
        if not around.replicas():
            return True
        misses = 0 if around.head_answers() else misses + 1
        if misses >= _MISSES:
            log.warning("the head of the Ray cluster is gone")
            return False
        around.sleep(_POLL_SECONDS)
    return not around.replicas()


def replica_servers(processes: Path = Path("/proc")) -> tuple[int, ...]:
    """Process ids of the replica servers of this pod."""
    found = []
    for entry in processes.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        if b"-m" in arguments and _REPLICA in arguments:
            found.append(int(entry.name))
    return tuple(found)


def _drain(seconds: float) -> str | None:
    """As `ray drain-node` does it."""
    import ray  # noqa: PLC0415 - slow, and needed only where replicas run
    from ray.core.generated import autoscaler_pb2  # noqa: PLC0415

    address = os.environ.get("RAY_ADDRESS", "")
    try:
        own = _own_addresses()
        client = ray._raylet.GcsClient(address=address)  # noqa: SLF001 - Ray has no public call to drain a node
        nodes = client.get_all_node_info(timeout=_CONNECT_SECONDS * 5)
        mine = [each for each, info in nodes.items() if info.node_manager_address in own and _is_alive(info)]
        if not mine:
            return f"it knows no live node with an address of {', '.join(sorted(own))}"
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline = int((time.time() + seconds) * 1000)
        accepted, why = client.drain_node(mine[0].hex(), reason, "The pod is being deleted.", deadline)
    except (RuntimeError, OSError, ray.exceptions.RayError) as error:
        return str(error)
    return None if accepted else str(why)


def _own_addresses() -> frozenset[str]:
    """This pod's, of both families. Raises `OSError` where it has no name."""
    found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    return frozenset(str(each[4][0]).partition("%")[0] for each in found)


def _is_alive(info: object) -> bool:
    """`GcsNodeInfo.GcsNodeState`: 0 is alive."""
    return getattr(info, "state", None) == 0


def _head_answers() -> bool:
    try:
        with socket.create_connection(split_port(os.environ.get("RAY_ADDRESS", "")), _CONNECT_SECONDS):
            return True
    except (OSError, Invalid):
        return False


def _tell_to_leave(process: int) -> None:
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        log.info("replica server %d has ended", process)


def main() -> int:
    """Run an evacuation; the exit status."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    return 0 if evacuate(Surroundings(replica_servers, _drain, _head_answers, _tell_to_leave)) else 1


if __name__ == "__main__":
    sys.exit(main())
