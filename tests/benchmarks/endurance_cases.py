"""What `endurance` asks and what the model gives: whole numbers, so that an answer is exact whatever batch it was in.

Each revision has weights of its own, so an answer tells which revision gave it, and each input has an answer of its own, so
that one which was meant for somebody else is seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper
from tests.integration.replica_process import save_model

from penstock_serving.rpc.schema import ModelInferRequest, ModelInferResponse

JSON: Final = "REST, JSON"
BINARY: Final = "REST, binary tensors"
GRPC: Final = "gRPC"
KINDS: Final = (JSON, BINARY, GRPC)
MODEL: Final = "tiny"
PATH: Final = f"/v2/models/{MODEL}/infer"
INPUTS: Final = 64
WRONG: Final = -1
_IN, _OUT, _LARGE = 64, 10, 256
_REMEMBERED = 64
Whole = np.ndarray[Any, np.dtype[np.int64]]


def weights(revision: int) -> Whole:
    """A revision's weights, [64, 10]."""
    return np.random.default_rng([1, revision]).integers(-8, 9, (_IN, _OUT))


def save_revision(path: Path, revision: int) -> Path:
    """The model y = x · w of a revision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"x": (TensorProto.FLOAT, ["n", _IN])}, {"y": (TensorProto.FLOAT, ["n", _OUT])}
    return save_model(
        path, [helper.make_node("MatMul", ["x", "w"], ["y"])], *shape, {"w": weights(revision).astype(np.float32)}
    )


def inputs() -> list[Whole]:
    """Each of one to three rows, but for the first, whose request is larger than a gateway can keep for a repetition."""
    source = np.random.default_rng(2)
    return [source.integers(-8, 9, (_LARGE if n == 0 else 1 + n % 3, _IN)) for n in range(INPUTS)]


def render(kind: str, rows: Whole, host: str) -> bytes:
    """A whole request of REST; of gRPC, the message."""
    tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": list(rows.shape)}
    data = rows.astype(np.float32).tobytes()
    if kind == GRPC:
        # A message that is no larger than a window needs no flow control in a client.
        return bytes(
            ModelInferRequest(model_name=MODEL, inputs=[tensor], raw_input_contents=[data]).SerializeToString()
        )
    if kind == JSON:
        head, lines = json.dumps({"inputs": [tensor | {"data": rows.ravel().tolist()}]}).encode(), []
        data = b""
    else:
        tensor["parameters"] = {"binary_data_size": len(data)}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        lines = [f"Inference-Header-Content-Length: {len(head)}"]
    said = [f"POST {PATH} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(head) + len(data)}", *lines, "", ""]
    return "\r\n".join(said).encode() + head + data


def numbers_of(kind: str) -> range:
    """Which inputs a kind of request has: the large one is not for gRPC."""
    return range(1 if kind == GRPC else 0, INPUTS)


def read_answer(kind: str, head: bytes, body: bytes) -> np.ndarray[Any, Any]:
    """The tensor in an answer.

    Args:
        kind: of the request.
        head: the answer's header of HTTP, in lower case; of gRPC, empty.
        body: its body; of gRPC, the message.

    Raises:
        ValueError: there is none, or not one.
    """
    if kind == GRPC:
        message = ModelInferResponse.FromString(body)
        (raw,), (output,) = message.raw_output_contents, message.outputs
        return np.frombuffer(raw, np.float32).reshape(tuple(output.shape))
    if kind == JSON:
        (output,) = json.loads(body)["outputs"]
        return np.array(output["data"], np.float32).reshape(output["shape"])
    _, _, told = head.partition(b"inference-header-content-length:")
    length = int(told.split(b"\r\n", 1)[0])
    (output,) = json.loads(body[:length])["outputs"]
    return np.frombuffer(body[length:], np.float32).reshape(output["shape"])


class Answers:
    """Says of an answer which revision gave it.

    Args:
        revisions: how many there are.
        wrong: whose weights the judge is told wrongly, as a control: all its answers must count as wrong.
    """

    def __init__(self, revisions: int, wrong: Sequence[int] = ()) -> None:
        known = [weights(each + 1000 if each in wrong else each) for each in range(revisions)]
        self._expected = [[rows @ each for each in known] for rows in inputs()]
        self._seen: dict[tuple[str, int], dict[bytes, int]] = {
            (kind, number): {} for kind in KINDS for number in range(INPUTS)
        }
        """What was read once need not be read again."""

    def revision(self, kind: str, number: int, head: bytes, body: bytes) -> int:
        """The revision that answers an input so; `WRONG` where none does."""
        seen = self._seen[kind, number]
        found = seen.get(body)
        if found is None:
            found = self._read(kind, number, head, body)
            if len(seen) < _REMEMBERED:
                seen[body] = found
        return found

    def _read(self, kind: str, number: int, head: bytes, body: bytes) -> int:
        try:
            tensor = read_answer(kind, head, body)
        except (ValueError, KeyError, TypeError, DecodeError):
            return WRONG
        for revision, expected in enumerate(self._expected[number]):
            if tensor.shape == expected.shape and bool((tensor == expected).all()):
                return revision
        return WRONG
