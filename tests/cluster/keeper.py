"""The process on the host that owns a test cluster: boots it, and clears up after it however it ends.

    python -m tests.cluster.keeper PLAN [OWNER]

It stays until it is told to stop (SIGTERM), until the process OWNER is gone, or until the cluster's first process dies.
Should it be killed itself, the cluster dies with it, and the next boot, or `down`, removes what is left.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from tests.cluster import cgroups, forward
from tests.cluster.certificates import make_cluster_identities
from tests.cluster.configuration import write_configuration
from tests.cluster.init import Plan
from tests.cluster.layout import API_PORT, CONTROL_ADDRESS, Layout
from tests.cluster.supervise import python

_END_SECONDS = 30.0


def sweep(layout: Layout) -> None:
    """Remove what a cluster that is dead left on the host: control groups and its folder. Its lock must be held."""
    cgroups.remove(layout.cgroup)
    shutil.rmtree(layout.state, ignore_errors=True)
    for folder in (layout.state.parent, layout.state.parent.parent):
        with suppress(OSError):  # not empty, or not there
            folder.rmdir()


def try_lock(layout: Layout) -> IO[str] | None:
    """The cluster's lock, which says that no keeper lives; None where one does."""
    layout.cache.mkdir(parents=True, exist_ok=True)
    file = layout.lock.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def main() -> int:
    """Keep one cluster."""
    plan = Plan.read(Path(sys.argv[1]))
    owner = int(sys.argv[2]) if len(sys.argv) > 2 else None
    layout = plan.layout
    lock = try_lock(layout)
    if lock is None:
        return 3
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    stopped = _stop_signals()
    descriptor = os.pidfd_open(owner) if owner is not None else None
    sweep(layout)
    try:
        return _keep(plan, layout, stopped, descriptor)
    finally:
        sweep(layout)


def _keep(plan: Plan, layout: Layout, stopped: socket.socket, owner: int | None) -> int:
    """Boot, and wait for a reason to end; 1 where the cluster ended by itself."""
    layout.logs.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        nodes = [(node.name, node.address) for node in layout.nodes]
        write_configuration(
            layout, make_cluster_identities(layout.pki, (CONTROL_ADDRESS, "10.96.0.1"), nodes), url,
            overlay=_supports_overlay(layout.cache),
        )  # fmt: skip
        plan.write(layout.state / "plan.json")
        process = _start_init(layout)
        init: int | None = None
        try:
            pid = _child_of(process)
            init = os.pidfd_open(pid)
            layout.init_pid.write_text(str(pid))
            forwarder = forward.start(listener, Path(f"/proc/{pid}/ns/net"), CONTROL_ADDRESS, API_PORT)
            ended_by_itself = (init, os.pidfd_open(forwarder.pid))
            asked = (stopped.fileno(), *([owner] if owner is not None else []))
            ready, _, _ = select.select((*ended_by_itself, *asked), [], [])
            return int(not set(ready) & set(asked))
        finally:
            process.kill()  # the kernel ends its child, and that child's whole PID namespace
            process.wait(_END_SECONDS)
            if init is not None:
                select.select((init,), [], [], _END_SECONDS)


def _stop_signals() -> socket.socket:
    """A socket that becomes readable when this process is asked to end."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer.detach())
    return reader


def _start_init(layout: Layout) -> subprocess.Popen[bytes]:
    """Start the first process in new namespaces. `unshare` has it killed when it dies itself, as it does with us."""
    with (layout.logs / "init.log").open("wb") as log:
        return subprocess.Popen(
            [
                "setpriv", "--pdeathsig", "KILL",
                "unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child",
                *python("tests.cluster.init", str(layout.state / "plan.json")),
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def _child_of(process: subprocess.Popen[bytes]) -> int:
    """The process id of the only child."""
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    raise RuntimeError("the cluster's first process did not start")


def _supports_overlay(folder: Path) -> bool:
    """Whether overlayfs can write there: not on another overlay, as inside a container."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, timeout=30, check=True
    )
    return kind.stdout.strip() != "overlayfs"


if __name__ == "__main__":
    sys.exit(main())
