"""A closed loop of real HTTP requests: each connection sends its next image when the last answer has come."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from penstock.serving.manifest import TensorSpec

_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came of one request."""

    status: int
    """HTTP status; 0 where no answer came."""
    seconds: float
    predicted: int | None
    """The class with the largest output."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of all requests."""

    answers: tuple[HttpAnswer, ...]
    """In the order of the images."""
    seconds: float

    @property
    def failed(self) -> tuple[HttpAnswer, ...]:
        """Those without a prediction."""
        return tuple(answer for answer in self.answers if answer.predicted is None)

    @property
    def requests_per_second(self) -> float:
        """Answers over wall time."""
        return len(self.answers) / self.seconds if self.seconds else 0.0

    def percentile_milliseconds(self, percent: float) -> float:
        """Latency in milliseconds that `percent` of the requests did not exceed."""
        return float(np.percentile([answer.seconds for answer in self.answers], percent)) * 1e3


def request_body(tensor: TensorSpec, image: NDArray[np.float32]) -> bytes:
    """An Open Inference Protocol v2 request with one row, in JSON."""
    values = [round(float(value), 4) for value in image.ravel()]
    shape = [1, *image.shape]
    entry = {"name": tensor.name, "shape": shape, "datatype": tensor.datatype.value, "data": values}
    return json.dumps({"inputs": [entry]}, separators=(",", ":")).encode()


def predicted_class(body: bytes) -> int:
    """The index of the largest value in the first output.

    Raises:
        ValueError: the body is no answer with an output.
    """
    try:
        answer: dict[str, Any] = json.loads(body)
        return int(np.argmax(answer["outputs"][0]["data"]))
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"not an infer answer: {body[:200]!r}") from error


def send(
    url: str, body: bytes, headers: Mapping[str, str] | None = None, trust: ssl.SSLContext | None = None
) -> HttpAnswer:
    """Send one request on a connection of its own."""
    connection = _Connection(url, trust)
    try:
        return connection.infer(body, headers or {})
    finally:
        connection.close()


def run_load(url: str, bodies: list[bytes], connections: int, trust: ssl.SSLContext | None = None) -> LoadResult:
    """Send every body once, over that many keep-alive connections.

    Args:
        url: the model's infer URL.
        bodies: one request each.
        connections: how many at once.
        trust: whose certificate an `https:` gateway has.
    """
    answers: list[HttpAnswer | None] = [None] * len(bodies)
    numbers = count()

    def work() -> None:
        connection = _Connection(url, trust)
        try:
            while (number := next(numbers)) < len(bodies):
                answers[number] = connection.infer(bodies[number], {})
        finally:
            connection.close()

    workers = [threading.Thread(target=work, name=f"load-{n}", daemon=True) for n in range(connections)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    elapsed = time.perf_counter() - started
    return LoadResult(tuple(a or HttpAnswer(0, 0.0, None, "never sent") for a in answers), elapsed)


class _Connection:
    """A keep-alive connection to one URL, past any proxy that the environment names."""

    def __init__(self, url: str, trust: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        host = parts.hostname or ""
        self._connection = (
            http.client.HTTPSConnection(host, parts.port or 443, timeout=_TIMEOUT_SECONDS, context=trust)
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port or 80, timeout=_TIMEOUT_SECONDS)
        )

    def infer(self, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        started = time.perf_counter()
        try:
            self._connection.request("POST", self._path, body, {"Content-Type": "application/json", **headers})
            response = self._connection.getresponse()
            answer = response.read()
            seconds = time.perf_counter() - started
            if response.status != HTTPStatus.OK:
                return HttpAnswer(response.status, seconds, None, answer[:300].decode(errors="replace"))
            return HttpAnswer(response.status, seconds, predicted_class(answer))
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            return HttpAnswer(0, time.perf_counter() - started, None, f"{type(error).__name__}: {error}")

    def close(self) -> None:
        self._connection.close()
