"""A replica's routes, batcher and cache behind the real HTTP front, with an engine that tells what it was given."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.documents import RefusedError, batchable, joining_of, meaning, requests, signatures
from tests.fuzz.front import Transport, answers

from penstock.errors import Invalid
from penstock.protocol.datatypes import Array
from penstock.serving.control import ReplicaSettings
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock.serving.settings import BatchingSettings, CacheMode, CacheSettings
from penstock_runtime.joining import Trial
from penstock_runtime.spans import SpanSink
from penstock_serving.replica.codec.documents import RequestDecoder
from penstock_serving.replica.front.connection import HttpConnection
from penstock_serving.replica.front.http import HttpFront
from penstock_serving.replica.model.loading import LoadedModel
from penstock_serving.replica.service import InferenceService

_LOOP: Final = asyncio.new_event_loop()
_TURNS: Final = 200


class Telling:
    """An engine whose output is, for each row, a checksum of that row of every input."""

    platform = "telling"

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run."""
        return {"y": checksums(inputs, self.signature)}


def checksums(inputs: Mapping[str, Array], signature: Signature) -> Array:
    """What `Telling` gives."""
    own = [name for name in inputs if any(name == spec.name for spec in signature.optional)]
    names = sorted(name for name in inputs if name not in own)
    rows = inputs[names[0]].shape[0] if batchable(signature) else 1
    return np.array(
        [
            zlib.crc32(
                repr(
                    [
                        (name, inputs[name][row : row + 1].tolist() if batchable(signature) else inputs[name].tolist())
                        for name in names
                    ]
                    + [(name, inputs[name].tolist()) for name in own]
                ).encode()
            )
            for row in range(rows)
        ],
        np.int64,
    )


@given(st.data())
def answering(data: st.DataObject) -> None:
    """Several clients at once: each gets its own answer or 400, and never 500."""
    _LOOP.run_until_complete(_answering(data))


async def _answering(data: st.DataObject) -> None:
    drawn = data.draw(signatures())
    output = TensorSpec(name="y", datatype=DataType.INT64, shape=(-1,) if batchable(drawn) else (1,))
    signature = drawn.model_copy(update={"outputs": (output,)})
    service, front = make_replica(signature, cached=data.draw(st.booleans()))
    try:
        bodies = [data.draw(requests(signature)) for _ in range(data.draw(st.integers(1, 4)))]
        bodies += [data.draw(st.sampled_from(bodies)) for _ in range(data.draw(st.integers(0, 3)))]
        codings = [data.draw(st.sampled_from((b"", b"gzip", b"deflate"))) for _ in bodies]
        transports = [_ask(front, body, length, coding) for (body, length), coding in zip(bodies, codings, strict=True)]
        for _ in range(_TURNS):
            if all(transport.written for transport in transports):
                break
            await asyncio.sleep(0)
        for (body, length), transport in zip(bodies, transports, strict=True):
            _judge(signature, body, length, bytes(transport.written))
    finally:
        service.executor.close()


def make_replica(signature: Signature, *, cached: bool) -> tuple[InferenceService, HttpFront]:
    """A replica of a model that gives checksums of its inputs, without a socket."""
    settings = ReplicaSettings(
        namespace="default",
        model="m",
        revision="r",
        replica_id="r-1",
        storage_uri="file:///",
        batching=BatchingSettings(max_batch_size=8),
        cache=CacheSettings(mode=CacheMode.EXACT if cached else CacheMode.OFF),
    )
    model = LoadedModel(
        cast(Any, Telling(signature)), "sha256:0", signature, cast(Any, None), Trial(joining_of(signature), "made")
    )
    service = InferenceService(settings, model, SpanSink.from_env("replica", {}))
    for size in range(64):
        service.executor.observe_warm_up(size, 1e-9)
    return service, HttpFront(settings, model, service)


def _ask(front: HttpFront, body: bytes, length: int | None, coding: bytes) -> Transport:
    transport = Transport()
    connection: HttpConnection = front.connection()
    connection.connection_made(transport)
    said = b"" if length is None else b"Inference-Header-Content-Length: %d\r\n" % length
    if coding:
        body = zlib.compress(body, wbits=31 if coding == b"gzip" else 15)
        said += b"Content-Encoding: %b\r\n" % coding
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: %d\r\n%b\r\n" % (len(body), said)
    connection.data_received(head + body)
    return transport


def _judge(signature: Signature, body: bytes, length: int | None, written: bytes) -> None:
    ((status, answer, _),) = answers(written, [])
    try:
        wanted = meaning(signature, body, length)
    except RefusedError:
        assert status == 400, (status, answer, body)
        assert json.loads(answer)["error"]
        return
    if status == HTTPStatus.GATEWAY_TIMEOUT and wanted.timeout_seconds is not None:
        return
    assert status == HTTPStatus.OK, (status, answer, body)
    try:
        inputs = RequestDecoder(signature, joining_of(signature)).decode(body, length).inputs
    except Invalid as error:
        raise AssertionError(body) from error
    binary = dict(wanted.outputs)["y"]
    head = answer[: answer.index(b"}]}") + 3] if binary else answer
    (output,) = json.loads(head)["outputs"]
    got = np.frombuffer(answer[len(head) :], np.int64).tolist() if binary else output["data"]
    assert got == checksums(inputs, signature).tolist(), (answer, body)
