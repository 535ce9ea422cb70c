"""What stands around `tracing`: a receiver of traces and a scraper of metrics, each a process of its own.

    python -m tests.benchmarks.tracing_parts receive FOLDER
    python -m tests.benchmarks.tracing_parts scrape URL ...

The receiver says where it listens, and for each line that it reads, how many spans have come so far. The scraper asks each URL
once a second until its standard input ends, and then says how often it did.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock_cli.standalone.collector import Collector, TraceFile

_EVERY_SECONDS = 1.0
_SHORTEST = 1000


class CountedTraces(TraceFile):
    """A file of traces that knows how many spans were written to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.spans = 0

    def append(self, request: dict[str, Any]) -> None:
        self.spans += sum(
            len(scope.get("spans", ())) for group in request["resourceSpans"] for scope in group["scopeSpans"]
        )
        super().append(request)


class Helper:
    """One of the two, as its parent sees it."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def read(self) -> Any:
        """What it says next."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"a helper ended with status {self._child.wait(10)}")
        return json.loads(line)

    def ask(self) -> Any:
        """The number of spans so far."""
        assert self._child.stdin is not None
        self._child.stdin.write(b"\n")
        self._child.stdin.flush()
        return self.read()

    def end(self) -> Any:
        """End it; what it said at last."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        said = self.read()
        self._child.wait(30)
        return said


@contextmanager
def helper(cpus: str, *arguments: str) -> Iterator[Helper]:
    """A helper on some CPUs."""
    command = ["taskset", "-c", cpus, sys.executable, "-m", "tests.benchmarks.tracing_parts", *arguments]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Helper(child)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait(10)


def receive(folder: Path) -> None:
    """Take traces until standard input ends."""
    collector = Collector(folder / "traces.jsonl")
    counted = CountedTraces(folder / "traces.jsonl")
    collector._server.trace_file = counted
    print(json.dumps(collector.endpoint), flush=True)
    for _ in sys.stdin:
        print(json.dumps(counted.spans), flush=True)
    collector.stop()
    print(json.dumps(counted.spans), flush=True)


def scrape(urls: Sequence[str]) -> None:
    """Read metrics until standard input ends."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    rounds = 0
    while not ended.is_set():
        for url in urls:
            with urllib.request.urlopen(url, timeout=10) as answer:
                if len(answer.read()) < _SHORTEST:
                    raise RuntimeError(f"{url} shows no metrics")
        rounds += 1
        ended.wait(_EVERY_SECONDS)
    print(json.dumps(rounds), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(Path(sys.argv[2]))
    else:
        scrape(sys.argv[2:])
