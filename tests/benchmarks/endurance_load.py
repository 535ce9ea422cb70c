"""The clients of `endurance`, in a process of their own: kept connections, each request followed by the next, each answer judged.

    python -m tests.benchmarks.endurance_load REVISIONS CONNECTIONS CALLS [WRONG ...]

CONNECTIONS of JSON and as many of binary tensors, and CALLS of gRPC at a time over two connections. It is told by JSON lines how
things stand (`gateways`, `revisions`, `happening`; `finish` at the end), and says each second by one how far it is. A client does
what the protocol asks of any: it opens its next connection where it is told that one ends, and sends again only those calls of
which HTTP/2 says that they were not begun.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import uvloop
from tests.benchmarks.endurance_cases import BINARY, GRPC, JSON, Answers
from tests.benchmarks.endurance_crowd import Client, Crowd, Make
from tests.benchmarks.endurance_rest import RestClient
from tests.benchmarks.endurance_rpc import RpcClient

_RPC_CONNECTIONS: Final = 2


def clients(calls: int) -> Make:
    """Makes the client of each kind, those of gRPC with so many calls at a time."""

    def make(crowd: Crowd, kind: str, first: Sequence[int]) -> Client:
        return RpcClient(crowd, calls, first) if kind == GRPC else RestClient(crowd, kind)

    return make


async def run(revisions: int, connections: int, calls: int, wrong: Sequence[int]) -> None:
    """Follow standard input to its end."""
    wanted = {JSON: connections, BINARY: connections, GRPC: _RPC_CONNECTIONS}
    crowd = Crowd(Answers(revisions, wrong), wanted, clients(max(1, calls // _RPC_CONNECTIONS)))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)

    async def follow() -> None:
        async for line in lines:
            crowd.take(line)
        crowd.finish()

    following = asyncio.create_task(follow())
    await crowd.watch()
    following.cancel()
    print(json.dumps({"result": summarize(crowd)}), flush=True)


def summarize(crowd: Crowd) -> dict[str, Any]:
    """All that the judge has seen, for JSON."""
    judge = crowd.judge
    rows = []
    for kind, took in judge.seconds.items():
        ordered = sorted(took)
        at = lambda share, ordered=ordered: ordered[int(share * (len(ordered) - 1))] * 1000 if ordered else 0.0  # noqa: E731
        failed = sum(count for what, count in judge.failed.items() if what.startswith(f"{kind}: "))
        rows.append(
            {
                "protocol": kind, "requests": len(took) + failed + judge.wrong[kind], "failed": failed,
                "wrong": judge.wrong[kind], "p50 ms": round(at(0.5), 2), "p99 ms": round(at(0.99), 2), "longest ms": round(at(1.0), 1),
            }
        )  # fmt: skip
    return {
        "rows": rows, "seconds": crowd.now(), "failed": dict(judge.failed), "cpu_seconds": time.process_time(), "told": judge.told, "longest": judge.longest, "moved": judge.moved,
        "by_revision": {str(revision): count for revision, count in sorted(judge.by_revision.items())},
    }  # fmt: skip


if __name__ == "__main__":
    _revisions, _connections, _calls, *_wrong = map(int, sys.argv[1:])
    uvloop.run(run(_revisions, _connections, _calls, _wrong))
