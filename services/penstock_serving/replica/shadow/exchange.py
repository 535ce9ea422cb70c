"""What is sent to another replica, and what its answer says: the protocol's binary form, seen from the other side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from penstock.errors import Invalid
from penstock.protocol.datatypes import Array, array_from_bytes, array_to_bytes
from penstock.protocol.limits import MOST_AXES
from penstock.protocol.refusals import bad_request
from penstock.routing.shadowing import SHADOW_HEADER, Shown, shadow_words
from penstock.routing.tokens import data_token, gateway_word
from penstock.serving.manifest import DataType, Signature
from penstock_serving.replica.shadow.comparing import AnsweredTensor

_OK: Final = 200
_TELLING_NOTHING: Final = frozenset({401, 403, 404, 408, 413, 429, 503, 504})
"""Statuses of who is busy, leaves, or is not whom it was thought to be: its address may be another's by now; or has other limits."""
_MOST_SAID: Final = 200


@dataclass(frozen=True, slots=True)
class PeerReply:
    """What another replica has answered."""

    status: int
    body: bytes
    json_length: int | None = None
    """How much of the body is JSON; None: all."""


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """What that means: outputs, or why there are none though there should be; neither: it tells nothing."""

    outputs: Mapping[str, AnsweredTensor] | None = None
    failure: str = ""


NOTHING: Final = PeerAnswer()


class ShadowRequests:
    """Writes requests that replicas of one model show each other.

    Args:
        namespace: of the model.
        model: its name.
        registration: the token that the replica registers with.
        signature: what the model takes.
    """

    def __init__(self, namespace: str, model: str, registration: str, signature: Signature) -> None:
        self._datatypes = {spec.name: spec.datatype for spec in (*signature.inputs, *signature.optional)}
        token = data_token(registration)
        shown = f"x-penstock-gateway: {gateway_word(namespace, token)}\r\n" if token else ""
        self._heads = {
            why: f"POST /v2/models/{model}/infer HTTP/1.1\r\n{shown}{SHADOW_HEADER}: {word}\r\n"
            for why, word in shadow_words(registration).items()
        }

    @property
    def possible(self) -> bool:
        """Whether other replicas would know them: who registers by a former release's token has no word for that."""
        return bool(self._heads)

    def encode(self, inputs: Mapping[str, Array]) -> tuple[bytes, ...]:
        """The body in parts, JSON first. All outputs are asked for, in binary form.

        Args:
            inputs: by name, as the model takes them.
        """
        blobs = {name: array_to_bytes(array, self._datatypes[name]) for name, array in inputs.items()}
        listed = [
            {
                "name": name,
                "datatype": self._datatypes[name].value,
                "shape": inputs[name].shape,
                "parameters": {"binary_data_size": len(blob)},
            }
            for name, blob in blobs.items()
        ]
        document = orjson.dumps({"inputs": listed, "parameters": {"binary_data_output": True}})
        return document, *blobs.values()

    def head(self, why: Shown, host: str, body: tuple[bytes, ...]) -> bytes:
        """All before the body.

        Args:
            why: the request is shown.
            host: the other replica's address.
            body: of `encode`.
        """
        lengths = f"Inference-Header-Content-Length: {len(body[0])}\r\nContent-Length: {sum(map(len, body))}\r\n"
        return f"{self._heads[why]}Host: {host}\r\n{lengths}\r\n".encode()


def read_reply(reply: PeerReply) -> PeerAnswer:
    """What a reply tells: a refusal of who is busy or gone is nothing, and any other is a failure; so is an answer that is none."""
    if reply.status in _TELLING_NOTHING:
        return NOTHING
    if reply.status != _OK:
        said = reply.body[:_MOST_SAID].decode("utf-8", "replace")
        return PeerAnswer(failure=f"HTTP {reply.status} {said}")
    try:
        return PeerAnswer(_read_outputs(reply))
    except Invalid as error:
        return PeerAnswer(failure=f"its answer cannot be read: {error.message}")


def _read_outputs(reply: PeerReply) -> dict[str, AnsweredTensor]:
    """The outputs of an answer in binary form.

    Raises:
        Invalid: it is none.
    """
    length = reply.json_length
    if length is None or not 0 <= length <= len(reply.body):
        raise bad_request("it does not say how much of it is JSON")
    try:
        listed = orjson.loads(reply.body[:length])["outputs"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise bad_request("it has no JSON with 'outputs'") from error
    if type(listed) is not list:
        raise bad_request("'outputs' is no list")
    binary = memoryview(reply.body)[length:]
    outputs: dict[str, AnsweredTensor] = {}
    for item in listed:
        name, tensor, used = _read_output(item, binary)
        outputs[name] = tensor
        binary = binary[used:]
    if binary:
        raise bad_request(f"{len(binary)} bytes belong to no output")
    return outputs


def _read_output(item: Any, binary: memoryview) -> tuple[str, AnsweredTensor, int]:
    try:
        name, datatype, shape = str(item["name"]), DataType(item["datatype"]), item["shape"]
        size = item["parameters"]["binary_data_size"]
    except (KeyError, TypeError, ValueError) as error:
        raise bad_request("an output lacks its name, datatype, shape or size") from error
    lengths = shape if type(shape) is list and len(shape) <= MOST_AXES else [-1]
    if not all(type(length) is int and length >= 0 for length in lengths):
        raise bad_request(f"output '{name}' has no shape")
    if type(size) is not int or not 0 <= size <= len(binary):
        raise bad_request(f"output '{name}' has no size that fits")
    count = 1
    for length in lengths:
        count *= length
    array = array_from_bytes(binary[:size], datatype, count, f"output '{name}'")
    try:
        return name, AnsweredTensor(datatype, array.reshape(lengths)), size
    except ValueError as error:  # of no elements, numpy does not take every shape
        raise bad_request(f"output '{name}' has no shape") from error
