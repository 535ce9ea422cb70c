"""A load in which a share of the inputs repeats: one row a request, some of them out of 64 that come again and again.

    python -m tests.benchmarks.repeating URL CONNECTIONS SECONDS REPEATED RUN INPUT SHAPE [PID ...]

prints one JSON line: `LoadResult`. SHAPE is such as 1x64; RUN makes the rows that do not repeat other ones.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
import sys
from collections.abc import Callable

import uvloop
from tests.benchmarks.load import drive, render_request

HOT_ROWS = 64
_DIGITS = 6


def request_source(
    url: str, tensor_name: str, shape: tuple[int, ...], repeated: float, run_number: int
) -> Callable[[], bytes]:
    """Gives one request after the other; its first two numbers say whether its row is new."""
    size = math.prod(shape)
    fill = random.Random(1)
    tail = [round(fill.random(), 4) for _ in range(size - 2)]
    first, second = "1" * _DIGITS, "2" * _DIGITS
    tensor = {"name": tensor_name, "shape": list(shape), "datatype": "FP32", "data": ["first", "second", *tail]}
    body = json.dumps({"inputs": [tensor]}).replace('"first"', f"0.{first}").replace('"second"', f"0.{second}")
    request = render_request(url, body.encode())
    head, _, rest = request.partition(first.encode())
    middle, _, end = rest.partition(second.encode())
    hot = [b"%b%06d%b%06d%b" % (head, 0, middle, number, end) for number in range(HOT_ROWS)]
    draw, pick = random.Random(run_number), itertools.cycle(range(HOT_ROWS))
    again = itertools.cycle([draw.random() < repeated for _ in range(10_000)])
    fresh = itertools.count(1)
    start = b"%b%06d%b" % (head, run_number, middle)

    def next_request() -> bytes:
        if next(again):
            return hot[next(pick)]
        return b"%b%06d%b" % (start, next(fresh), end)

    return next_request


def main() -> None:
    """Be the client of one run."""
    url, connections, seconds, repeated, number, name, shape, *pids = sys.argv[1:]
    axes = tuple(int(axis) for axis in shape.split("x"))
    result = uvloop.run(
        drive(
            url,
            b"",
            connections=int(connections),
            seconds=float(seconds),
            pids=[int(pid) for pid in pids],
            next_request=request_source(url, name, axes, float(repeated), int(number)),
        )
    )
    print(json.dumps(dataclasses.asdict(result)))


if __name__ == "__main__":
    main()
