"""Makes infer requests, most of them nearly right, and says by a simple model what each of them must become."""

from __future__ import annotations

import json
import math
import struct
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import strategies as st

from penstock.serving.joining import Joining
from penstock.serving.manifest import DataType, Signature, TensorSpec

_WHOLE: Final = {
    DataType.UINT8: ("B", 0, 2**8), DataType.UINT16: ("H", 0, 2**16), DataType.UINT32: ("I", 0, 2**32),
    DataType.UINT64: ("Q", 0, 2**64), DataType.INT8: ("b", -(2**7), 2**7), DataType.INT16: ("h", -(2**15), 2**15),
    DataType.INT32: ("i", -(2**31), 2**31), DataType.INT64: ("q", -(2**63), 2**63),
}  # fmt: skip
_REAL: Final = {DataType.FP16: "e", DataType.FP32: "f", DataType.FP64: "d"}
_MAX_AXES: Final = 32
_LONGEST: Final = 1 << 24


class RefusedError(Exception):
    """The model says: 400."""


@dataclass
class Meaning:
    """What a request asks."""

    inputs: dict[str, tuple[list[int], list[Any]]] = field(default_factory=dict)
    """Shape and elements in row-major order."""
    outputs: list[tuple[str, bool]] = field(default_factory=list)
    id: str | None = None
    timeout_seconds: float | None = None
    priority: int = 8


def batchable(signature: Signature) -> bool:
    """Whether every tensor's first axis is open."""
    return all(each.shape[:1] == (-1,) for each in (*signature.inputs, *signature.outputs))


def joining_of(signature: Signature) -> Joining | None:
    """As if it had been proved: the first axis of all tensors counts rows where all leave it open."""
    if not batchable(signature):
        return None
    inputs, outputs = ({spec.name: 0 for spec in specs} for specs in (signature.inputs, signature.outputs))
    return Joining(inputs=inputs, outputs=outputs)


def meaning(signature: Signature, body: bytes, json_length: int | None) -> Meaning:
    """What a body asks of a model.

    Raises:
        RefusedError: nothing that can be answered.
    """
    text, binary = (body, b"") if json_length is None else (body[:json_length], body[json_length:])
    if json_length is not None and json_length > len(body):
        raise RefusedError
    document = _object(_parsed(text))
    found = Meaning()
    left = _inputs(signature, document, binary, found)
    if left:
        raise RefusedError
    if document.get("id") is not None:
        found.id = document["id"]
        _require(type(found.id) is str)
    parameters = _object(document.get("parameters"), {})
    _timing(parameters, found)
    everything = _flag(parameters, "binary_data_output") or False
    outputs = document.get("outputs")
    _require(outputs is None or type(outputs) is list)
    found.outputs = [(spec.name, everything) for spec in signature.outputs]
    if outputs:
        found.outputs = [_output(signature, each, binary=everything) for each in outputs]
        _require(len({name for name, _ in found.outputs}) == len(found.outputs))
    return found


def _parsed(text: bytes) -> Any:
    def refuse(_: str) -> Any:
        raise RefusedError

    def real(written: str) -> float:
        value = float(written)
        _require(math.isfinite(value))
        return value

    def whole(written: str) -> int | float:
        value = int(written)
        return value if -(2**63) <= value < 2**64 else real(written)

    try:
        return json.loads(text.decode(), parse_constant=refuse, parse_float=real, parse_int=whole)
    except (ValueError, RecursionError) as error:
        raise RefusedError from error


def _require(condition: object) -> None:
    if not condition:
        raise RefusedError


def _object(value: Any, default: Any = None) -> dict[str, Any]:
    value = default if value is None else value
    _require(type(value) is dict)
    found: dict[str, Any] = value
    return found


def _flag(parameters: dict[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    _require(value is None or type(value) is bool)
    return value


def _timing(parameters: dict[str, Any], found: Meaning) -> None:
    timeout, priority = parameters.get("timeout"), parameters.get("priority")
    _require(timeout is None or (type(timeout) is int and timeout >= 0))
    _require(priority is None or (type(priority) is int and 0 <= priority <= 16))
    found.timeout_seconds = timeout / 1e6 if timeout else None
    found.priority = priority or 8


def _output(signature: Signature, item: Any, *, binary: bool) -> tuple[str, bool]:
    item = _object(item)
    name = item.get("name")
    _require(any(name == spec.name for spec in signature.outputs))
    parameters = _object(item.get("parameters"), {})
    asked = _flag(parameters, "binary_data")
    _require(parameters.get("classification") in (None, 0) and not parameters.get("shared_memory_region"))
    return name, binary if asked is None else asked


def _inputs(signature: Signature, document: dict[str, Any], binary: bytes, found: Meaning) -> bytes:
    listed = document.get("inputs")
    _require(type(listed) is list)
    known = {spec.name: spec for spec in (*signature.inputs, *signature.optional)}
    required = {spec.name for spec in signature.inputs}
    rows = set()
    for item in listed or ():
        name = _object(item).get("name")
        _require(type(name) is str and name in known and name not in found.inputs)
        shape, elements, binary = _tensor(item, known[name], binary)
        found.inputs[name] = shape, elements
        if batchable(signature) and name in required:
            rows.add(shape[0])
    _require(required <= set(found.inputs))
    _require(not batchable(signature) or len(rows) == 1)
    return binary


def _tensor(item: dict[str, Any], spec: TensorSpec, binary: bytes) -> tuple[list[int], list[Any], bytes]:
    _require(item.get("datatype") == spec.datatype)
    shape = item.get("shape")
    if type(shape) is not list or len(shape) > _MAX_AXES:
        raise RefusedError
    _require(all(type(each) is int and each >= 0 for each in shape))
    fits = len(shape) == len(spec.shape) and all(
        wanted in (-1, each) for wanted, each in zip(spec.shape, shape, strict=True)
    )
    _require(fits or spec.any_rank)
    count = math.prod(shape)
    _require(count or math.prod(max(each, 1) for each in shape) <= _LONGEST)
    parameters = _object(item.get("parameters"), {})
    _require(not parameters.get("shared_memory_region"))
    data, size = item.get("data"), parameters.get("binary_data_size")
    has_data = data is not None and data != []
    if size is not None:
        _require(type(size) is int and 0 <= size <= len(binary))
        if size or not has_data:
            _require(not has_data)
            return shape, _read(binary[:size], spec.datatype, count), binary[size:]
    if type(data) is not list:
        raise RefusedError
    nested = _nesting(data)
    elements = _flat(data)
    _require(len(elements) == count)
    _require(len(nested) == 1 or nested == shape or (count == 0 and nested == shape[: len(nested)]))
    return shape, [_element(each, spec.datatype) for each in elements], binary


def _nesting(data: Any) -> list[int]:
    """The lengths of regularly nested lists."""
    if type(data) is not list:
        return []
    inner = [_nesting(each) for each in data]
    _require(all(each == inner[0] for each in inner))
    return [len(data), *(inner[0] if inner else [])]


def _flat(data: Any) -> list[Any]:
    return [leaf for each in data for leaf in _flat(each)] if type(data) is list else [data]


def _element(value: Any, datatype: DataType) -> Any:
    kind = type(value)
    if datatype is DataType.BYTES:
        _require(kind is str)
        return value.encode()
    if datatype is DataType.BOOL:
        _require(kind is bool)
    elif datatype in _WHOLE:
        _, low, end = _WHOLE[datatype]
        _require(kind is int and low <= value < end)
    else:
        _require(kind in (int, float))
        try:
            struct.pack("<" + _REAL.get(datatype, "f"), value)
        except OverflowError as error:
            raise RefusedError from error
        _require(datatype is not DataType.BF16 or abs(value) < 3.3895313892515355e38)
        return float(value)
    return value


def _read(data: bytes, datatype: DataType, count: int) -> list[Any]:
    if datatype is DataType.BYTES:
        found = []
        for _ in range(count):
            _require(len(data) >= 4)
            size = int.from_bytes(data[:4], "little")
            _require(len(data) >= 4 + size)
            found.append(data[4 : 4 + size])
            data = data[4 + size :]
        _require(not data)
        return found
    code = "?" if datatype is DataType.BOOL else _REAL.get(datatype) or (_WHOLE.get(datatype) or "H")[0]
    _require(len(data) == count * struct.calcsize(f"<{code}"))
    values = list(struct.unpack(f"<{count}{code}", data))
    if datatype is DataType.BF16:
        return [struct.unpack("<f", struct.pack("<I", value << 16))[0] for value in values]
    return values


# Making them.

datatypes = st.sampled_from(list(DataType))


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    """Models of one to three inputs of any kind."""
    batched = draw(st.booleans())
    batch = (-1,) if batched else ()
    axes = st.lists(st.sampled_from([-1, 0, 1, 2, 3]), max_size=2).map(tuple)

    def spec(name: str) -> TensorSpec:
        if not batched and draw(st.integers(0, 4)) == 0:
            return TensorSpec(name=name, datatype=draw(datatypes), shape=(), any_rank=True)
        return TensorSpec(name=name, datatype=draw(datatypes), shape=batch + draw(axes))

    return Signature(
        inputs=tuple(spec(f"x{i}") for i in range(draw(st.integers(1, 2)))),
        outputs=tuple(spec(f"y{i}") for i in range(draw(st.integers(1, 2)))),
        optional=tuple(spec("own") for _ in range(draw(st.integers(0, 1)))),
    )


def values(datatype: DataType) -> st.SearchStrategy[Any]:
    """Elements as JSON has them."""
    if datatype is DataType.BYTES:
        return st.text(max_size=4)
    if datatype is DataType.BOOL:
        return st.booleans()
    if datatype in _WHOLE:
        _, low, end = _WHOLE[datatype]
        return st.integers(low, end - 1)
    return st.one_of(
        st.floats(-1e4, 1e4, width=16), st.integers(-1000, 1000), st.floats(allow_nan=False, allow_infinity=False)
    )


junk: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-2, 40), st.integers(-(2**70), 2**70),
        st.floats(allow_nan=True), st.text(max_size=3), st.just([]), st.just({}),
        st.sampled_from(["x0", "y0", "FP32", "BYTES", "own", 0, 1, -1, 2**63, -(2**63), 1e39, 65520.0, [[]], [0]]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["name", "shape", "data", "parameters", "binary_data_size"]), inner, max_size=3),
    ),
    max_leaves=5,
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn, signature: Signature) -> tuple[bytes, int | None]:
    """A body, and the length of its JSON where that is said. Half of them are right; the rest is wrong in a few places."""
    rows = draw(st.integers(0 if draw(st.integers(0, 9)) == 0 else 1, 3))
    blobs: list[bytes] = []
    inputs = []
    for spec in signature.inputs + tuple(each for each in signature.optional if draw(st.booleans())):
        own = spec in signature.optional
        inputs.append(draw(_tensors(spec, None if own or not batchable(signature) else rows, blobs)))
    document: dict[str, Any] = {"inputs": draw(st.permutations(inputs)) if not blobs else inputs}
    if draw(st.booleans()):
        document["id"] = draw(st.one_of(st.none(), st.text(max_size=3)))
    if draw(st.booleans()):
        document["parameters"] = draw(_parameters())
    if draw(st.booleans()):
        document["outputs"] = draw(_outputs(signature))
    binary = b"".join(blobs)
    if draw(st.booleans()):
        # What was drawn belongs to the strategies, which draw it again.
        document = deepcopy(document)
        for _ in range(draw(st.integers(1, 3))):
            _spoil(draw, document)
        if blobs and draw(st.integers(0, 3)) == 0:
            binary = binary[: draw(st.integers(0, len(binary)))] + draw(st.binary(max_size=2))
    text = draw(_written(document))
    length = len(text) if binary or draw(st.booleans()) else None
    if length is not None and draw(st.integers(0, 15)) == 0:
        length = draw(st.integers(0, len(text) + len(binary) + 3))
    return text + binary, length


def _written(document: Any) -> st.SearchStrategy[bytes]:
    return st.sampled_from(
        [
            json.dumps(document).encode(),
            json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass"),
            json.dumps(document, indent=1).encode(),
        ]
    )


def _parameters() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {},
            optional={
                "timeout": st.one_of(st.none(), st.integers(0, 10**7)),
                "priority": st.one_of(st.none(), st.integers(0, 16)),
                "binary_data_output": st.one_of(st.none(), st.booleans()),
                "sequence_id": st.integers(0, 3),
            },
        ),
    )


def _outputs(signature: Signature) -> st.SearchStrategy[Any]:
    parameters = st.one_of(
        st.none(), st.fixed_dictionaries({}, optional={"binary_data": st.booleans(), "classification": st.just(0)})
    )
    each = st.fixed_dictionaries(
        {"name": st.sampled_from([spec.name for spec in signature.outputs])}, optional={"parameters": parameters}
    )
    return st.one_of(st.none(), st.lists(each, max_size=2, unique_by=lambda item: str(item["name"])))


@st.composite
def _tensors(draw: st.DrawFn, spec: TensorSpec, rows: int | None, blobs: list[bytes]) -> dict[str, Any]:
    axes = draw(st.lists(st.integers(0, 2), max_size=3)) if spec.any_rank else spec.shape
    shape = [draw(st.integers(0, 3)) if axis == -1 else axis for axis in axes]
    if rows is not None:
        shape[0] = rows
    count = math.prod(shape)
    data = draw(st.lists(values(spec.datatype), min_size=count, max_size=count))
    item: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype.value, "shape": shape}
    form = draw(st.sampled_from(["flat", "nested", "binary"]))
    if form == "binary":
        blob = draw(_binary(spec.datatype, count))
        blobs.append(blob)
        item["parameters"] = {"binary_data_size": len(blob)}
        if draw(st.booleans()):
            item["data"] = draw(st.sampled_from([None, []]))
        return item
    item["data"] = _shaped(data, shape) if form == "nested" and shape else data
    if draw(st.booleans()):
        item["parameters"] = draw(st.sampled_from([None, {}, {"binary_data_size": None}, {"binary_data_size": 0}]))
    return item


def _shaped(data: list[Any], shape: list[int]) -> list[Any]:
    if len(shape) == 1:
        return data
    step = math.prod(shape[1:])
    return [_shaped(data[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def _binary(datatype: DataType, count: int) -> st.SearchStrategy[bytes]:
    if datatype is DataType.BYTES:
        pieces = st.lists(st.binary(max_size=5), min_size=count, max_size=count)
        return pieces.map(lambda each: b"".join(struct.pack("<I", len(piece)) + piece for piece in each))
    code = "?" if datatype is DataType.BOOL else _REAL.get(datatype) or (_WHOLE.get(datatype) or "H")[0]
    size = count * struct.calcsize(f"<{code}")
    return st.binary(min_size=size, max_size=size)


def _spoil(draw: st.DrawFn, document: Any) -> None:
    """Put something else in a place of a document."""
    here = document
    while True:
        keys = list(here) if type(here) is dict else list(range(len(here)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        inner = here[key]
        if type(inner) in (dict, list) and inner and draw(st.integers(0, 3)):
            here = inner
            continue
        if draw(st.integers(0, 4)) == 0:
            del here[key]
        else:
            here[key] = deepcopy(draw(junk))
        return
