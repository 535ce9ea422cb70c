"""`ray start` whose workers are forked from a process whose imports are done: each would import Ray twice, and Serve, a second of a core.

The raylet starts `ask_for_worker.py` with the command of a worker, which asks this process by a socket. A worker is Ray's own
`default_worker.py` all the same, with the arguments, environment and streams that the raylet gave it (`tests/preloaded.py`).

    python -m tests.integration.forked_workers SOCKET start --head …      (the arguments are `ray`'s)
"""

from __future__ import annotations

import marshal
import os
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from ray._private import services
from ray.scripts.scripts import main
from tests import preloaded

_CLIENT = Path(__file__).with_name("ask_for_worker.py")
_WORKER = "tests.integration.forked_worker"
_LONGEST = 1 << 17
_COMMAND = "--python_worker_command="
_READ_EARLY = ("RAY_JOB_ID", "RAY_RAYLET_PID")
"""What Ray's compiled part reads from the environment when it is imported."""


def _start_those_asked_for(listener: socket.socket) -> None:
    started = []
    while True:
        asking, _ = listener.accept()
        with asking:
            message, streams, _, _ = socket.recv_fds(asking, _LONGEST, 3)
            command, environment = marshal.loads(message)  # from a process of ours
            # One thread: what is forked has no others.
            early = {name: environment[name] for name in _READ_EARLY if name in environment} | {"OMP_NUM_THREADS": "1"}
            with_streams = (streams[0], streams[1], streams[2])
            started.append(preloaded.start(_WORKER, command, environment, with_streams, tuple(early.items())))
            for each in streams:
                os.close(each)
            asking.send(b"started")


def _have_workers_asked_for(address: str) -> None:
    start: Callable[..., Any] = services.start_ray_process
    ask = shlex.join([sys.executable, "-I", "-S", "-B", str(_CLIENT), address])

    def started(command: list[str], *others: Any, **more: Any) -> Any:
        words = [word.replace(_COMMAND, f"{_COMMAND}{ask} ") for word in command]
        return start(words, *others, **more)

    services.start_ray_process = started


def _main() -> None:
    address = sys.argv.pop(1)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(64)
    Thread(target=_start_those_asked_for, args=(listener,), daemon=True).start()
    _have_workers_asked_for(address)
    main()


if __name__ == "__main__":
    _main()
