"""Every answer of a replica is the engine's own: tiny graphs of every kind, asked alone and by sixteen callers at once.

The replica's server runs in this process: codec, batcher, trial, engine and HTTP are all its own. What is right is what ONNX
Runtime says directly to the same request alone, element by element.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
from tests.integration.battery_graphs import battery

from penstock.protocol.datatypes import DTYPES
from penstock.serving.control import ReplicaSettings
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock.serving.settings import BatchingSettings
from penstock_runtime.spans import SpanSink
from penstock_serving.replica.front.http import HttpFront
from penstock_serving.replica.model.loading import load
from penstock_serving.replica.service import InferenceService

CALLERS = 16
REQUESTS = 3
SEED = 11
PARTS = 4
"""So that several workers can share them."""

Inputs = dict[str, np.ndarray[Any, Any]]
Axes = Mapping[str, tuple[str, ...]]


@dataclass
class Tally:
    """What came of all requests to a graph."""

    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    right: int = 0
    refused: int = 0
    joined: bool = False
    together: int = 0
    """Requests that ran beside another."""


def pytest_generate_tests(metafunc: Any) -> None:
    if "part" in metafunc.fixturenames:
        metafunc.parametrize("part", range(PARTS))


def test_every_answer_is_what_onnx_runtime_says_to_the_request_alone(part: int, tmp_path: Path) -> None:
    items = list(battery(SEED))
    assert len(items) >= 60
    found = {
        item.name: asyncio.run(_asked(item.save(tmp_path / f"{index}.onnx"), index))
        for index, item in enumerate(items)
        if index % PARTS == part
    }
    problems = {
        name: (tally.wrong[:2], tally.failed[:2]) for name, tally in found.items() if tally.wrong or tally.failed
    }
    assert not problems, problems
    expected = {item.name: item.joined for item in items}
    other = {name: tally.joined for name, tally in found.items() if expected[name] not in (None, tally.joined)}
    assert not other, other
    assert all(tally.right for tally in found.values()), "each graph answered"
    assert not any(tally.together for tally in found.values() if not tally.joined)
    # Else all of this would show nothing of joining.
    assert sum(tally.together for tally in found.values()) > CALLERS


async def _asked(path: Path, seed: int) -> Tally:
    """Serve a graph, and ask it alone and at once."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = (*session.get_inputs(), *session.get_overridable_initializers())
    axes = {each.name: tuple(str(axis) if isinstance(axis, str) else "" for axis in each.shape) for each in taken}
    # ONNX Runtime's recurrent operators end the process where a tensor has no elements.
    ends = _recurrent(path)
    tally = Tally()
    async with _served(path) as (service, signature, host, port):
        tally.joined = service.joining.joined
        await _call(tally, (session, signature, axes, ends), (host, port), np.random.default_rng(seed))
        before = sum(service.metrics.batch_rows.counts)
        asked = tally.right + tally.refused
        await asyncio.gather(
            *(
                _call(tally, (session, signature, axes, ends), (host, port), np.random.default_rng([seed, caller]))
                for caller in range(CALLERS)
            )
        )
        runs = sum(service.metrics.batch_rows.counts) - before
        tally.together = max(tally.right + tally.refused - asked - runs, 0)
        assert service.executor.apart is None, service.executor.apart
    return tally


def _recurrent(path: Path) -> bool:
    return any(kind in path.read_bytes() for kind in (b"LSTM", b"GRU"))


@contextlib.asynccontextmanager
async def _served(path: Path) -> AsyncIterator[tuple[InferenceService, Signature, str, int]]:
    settings = ReplicaSettings(
        namespace="default", model="m", revision="r", replica_id="i", storage_uri=path.as_uri(),
        batching=BatchingSettings(max_delay_milliseconds=2),
    )  # fmt: skip
    model = load(settings)
    service = InferenceService(settings, model, SpanSink(None, None))
    front = HttpFront(settings, model, service)
    listener, address = await front.listen("127.0.0.1", 0)
    host, _, port = address.rpartition(":")
    try:
        yield service, model.signature, host, int(port)
    finally:
        listener.close()
        front.abort()
        service.executor.close()
        model.held.close()


async def _call(
    tally: Tally,
    model: tuple[ort.InferenceSession, Signature, Axes, bool],
    place: tuple[str, int],
    generator: np.random.Generator,
) -> None:
    """One caller: a few requests, one after the other, on one connection."""
    session, signature, axes, ends = model
    reader, writer = await asyncio.open_connection(*place)
    for turn in range(REQUESTS):
        inputs = _inputs(signature, axes, generator, empty=turn == REQUESTS - 1)
        try:
            right = (
                None if ends and not all(each.size for each in inputs.values()) else _direct(session, signature, inputs)
            )
        except Exception:  # noqa: BLE001 -- ONNX Runtime's errors have no common base
            right = None
        status, got = await _exchange(reader, writer, signature, inputs, binary=bool(turn % 2))
        if right is None:
            tally.refused += 1
            if status < 400:
                tally.wrong.append(f"{_shapes(inputs)}: answered what ONNX Runtime refuses")
        elif status != 200:
            tally.failed.append(f"{_shapes(inputs)}: {status} {got!r}")
        else:
            problem = _differs(right, got)
            if problem:
                tally.wrong.append(f"{_shapes(inputs)}: {problem}")
            tally.right += not problem
    writer.close()


def _shapes(inputs: Inputs) -> str:
    return ", ".join(f"{name}{list(array.shape)}" for name, array in inputs.items())


def _inputs(signature: Signature, axes: Axes, generator: np.random.Generator, *, empty: bool) -> Inputs:
    """A request: axes of one name have one length, and one of them may be 0. What may be left out comes every other time."""
    lengths: dict[str, int] = {}
    nothing = empty and generator.random() < 0.5
    given: Inputs = {}
    for spec in (*signature.inputs, *signature.optional):
        if spec in signature.optional and generator.random() < 0.5:
            continue
        shape = [2, 3] if spec.any_rank else []
        for axis, length in enumerate(spec.shape):
            name = axes[spec.name][axis] or f"{spec.name}{axis}"
            drawn = 0 if nothing and generator.random() < 0.5 else int(generator.integers(1, 5))
            shape.append(length if length >= 0 else lengths.setdefault(name, drawn))
        given[spec.name] = _values(spec, tuple(shape), generator)
    return given


def _values(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray[Any, Any]:
    if spec.datatype is DataType.BYTES:
        words = np.empty(shape, dtype=object)
        words.ravel()[:] = [b"%d" % each for each in generator.integers(0, 99, words.size)]
        return words
    dtype = DTYPES[spec.datatype]
    if dtype.kind == "f":
        return np.asarray(generator.normal(size=shape) * generator.choice([1, 1, 30]), dtype)
    most = 2 if dtype.kind in "iu" and spec.datatype in (DataType.INT64, DataType.INT32) else 100
    return np.asarray(generator.integers(0, 2 if spec.datatype is DataType.BOOL else most, shape), dtype)


def _direct(session: ort.InferenceSession, signature: Signature, inputs: Inputs) -> dict[str, Any]:
    """What ONNX Runtime says. Maps of classes become a matrix."""
    fed = {
        name: np.vectorize(bytes.decode, otypes=[object])(array) if array.dtype == object and array.size else array
        for name, array in inputs.items()
    }
    outputs = session.run([spec.name for spec in signature.outputs], fed)
    return {
        spec.name: (
            np.array([[row[name] for name in spec.classes] for row in output], np.float32).reshape(
                -1, len(spec.classes)
            )
            if spec.classes
            else output
        )
        for spec, output in zip(signature.outputs, outputs, strict=True)
    }


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, signature: Signature, inputs: Inputs, *, binary: bool
) -> tuple[int, Any]:
    """Send a request; the status, and the outputs or the error."""
    known = {spec.name: spec for spec in (*signature.inputs, *signature.optional)}
    tensors, blobs = [], []
    for name, array in inputs.items():
        item: dict[str, Any] = {"name": name, "datatype": known[name].datatype.value, "shape": list(array.shape)}
        if binary and array.dtype != object:
            blobs.append(array.tobytes())
            item["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            item["data"] = [
                each.decode() if isinstance(each, bytes) else each for each in array.ravel().tolist()
            ]  # fmt: skip
        tensors.append(item)
    # In binary form, since an answer may hold NaN.
    asked = [
        {"name": spec.name, "parameters": {"binary_data": spec.datatype is not DataType.BYTES}}
        for spec in signature.outputs
    ]
    head = orjson.dumps({"inputs": tensors, "outputs": asked})
    body = b"".join((head, *blobs))
    writer.write(
        b"POST /v2/models/m/infer HTTP/1.1\r\nHost: r\r\nContent-Length: %d\r\nInference-Header-Content-Length: %d\r\n\r\n"
        % (len(body), len(head))
        + body
    )
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    answer = await reader.readexactly(int(headers["content-length"]))
    size = int(headers.get("inference-header-content-length", len(answer)))
    document, rest = orjson.loads(answer[:size]), memoryview(answer)[size:]
    status = int(first.split()[1])
    return status, _read(document, rest) if "outputs" in document else document


def _read(document: dict[str, Any], rest: memoryview) -> dict[str, np.ndarray[Any, Any]]:
    found: dict[str, np.ndarray[Any, Any]] = {}
    for item in document["outputs"]:
        datatype = DataType(item["datatype"])
        size = item.get("parameters", {}).get("binary_data_size")
        if size is None:
            array = np.array(item["data"], dtype=object if datatype is DataType.BYTES else DTYPES[datatype])
        else:
            array, rest = np.frombuffer(rest[:size], DTYPES[datatype]), rest[size:]
        found[item["name"]] = array.reshape(item["shape"])
    return found


def _differs(right: Mapping[str, Any], got: Mapping[str, np.ndarray[Any, Any]]) -> str | None:
    for name, expected in right.items():
        array = got[name]
        if array.shape != expected.shape:
            return f"{name} has shape {array.shape} instead of {expected.shape}"
        if expected.dtype.kind != "f":
            same = np.array_equal(array, expected)
        else:
            scale = float(np.max(np.abs(expected[np.isfinite(expected)]), initial=0.0))
            close = {"e": 1e-3, "f": 1e-5, "d": 1e-12}[expected.dtype.char]
            same = np.allclose(array, expected, rtol=close, atol=close * scale, equal_nan=True)
        if not same:
            return f"{name} is {array.ravel()[:8].tolist()} instead of {expected.ravel()[:8].tolist()}"
    return None
