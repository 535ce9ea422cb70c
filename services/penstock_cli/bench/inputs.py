"""Requests to send: made up from what a server says of its model, or the user's own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from penstock.errors import Invalid
from penstock.protocol.datatypes import DTYPES, Array, array_to_bytes, array_to_json
from penstock.serving.manifest import DataType
from penstock_cli.addresses import split_url

OPEN_AXIS: Final = 16
"""Length of an axis that the model leaves open, beside the first, where the user names none."""
_FEWEST_ROWS: Final = 1
_LARGEST_ID: Final = 100
_WORDS: Final = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog")
_TAIL: Final = "/infer"
_MOST_VALUES: Final = 2**27
"""Of all requests together."""


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How inputs are made up."""

    rows: int = _FEWEST_ROWS
    """Length of the first axis where the model leaves it open."""
    shapes: Mapping[str, tuple[int, ...]] | None = None
    """Of inputs by name, without the first axis."""
    distinct: int = 64
    """Different requests, sent in turn, so that no cache answers all of them."""
    binary: bool = False
    """Tensors as bytes (the binary data extension) in place of JSON."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class RequestBody:
    """What is posted."""

    content: bytes
    headers: Mapping[str, str]


def make_requests(metadata: Mapping[str, Any], options: InputOptions) -> list[RequestBody]:
    """Random requests for a model.

    Numbers are of the standard normal distribution, integers below 100, BYTES words.

    Args:
        metadata: the answer to `GET /v2/models/NAME`.
        options: how many, how large, and in which form.

    Raises:
        Invalid: the metadata names no inputs, or such as cannot be made up, or not the one that a shape is given for; or rows
            are asked for where the model fixes them; or the requests would be too large to keep.
    """
    listed = metadata.get("inputs")
    if not isinstance(listed, list) or not listed:
        raise Invalid("NoMetadata", "the server's metadata names no inputs: give a request with --body FILE")
    required = [each for each in listed if not (each.get("parameters") or {}).get("optional")]
    names = [str(each.get("name")) for each in required]
    for given in options.shapes or ():
        if given not in names:
            raise Invalid(
                "UnknownInput", f"--shape {given}: the model needs no such input; it needs {', '.join(names)}"
            )
    if options.rows > _FEWEST_ROWS and not any(_has_open_rows(each.get("shape")) for each in required):
        raise Invalid(
            "FixedRows",
            f"--rows {options.rows}: the model leaves the first axis of no input open: each request has the rows that it says",
        )
    _check_size([shape_of(str(each.get("name")), each.get("shape"), options) for each in required], options.distinct)
    random = np.random.default_rng(options.seed)
    return [_body([_tensor(each, options, random) for each in required], options) for _ in range(options.distinct)]


def _has_open_rows(described: Sequence[int] | None) -> bool:
    """Whether a request may have as many rows as it likes."""
    return described is None or (len(described) > 0 and described[0] < 0)


def _check_size(shapes: Sequence[Sequence[int]], distinct: int) -> None:
    values = sum(math.prod(shape) for shape in shapes)
    if values * distinct > _MOST_VALUES:
        fewer = f", or --distinct {_MOST_VALUES // values}" if values <= _MOST_VALUES else ""
        raise Invalid(
            "RequestsTooLarge",
            f"{distinct} different requests of {values:,} values each are more than can be kept: give a smaller --rows, "
            f"a shorter --shape{fewer}",
        )


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    datatype: DataType
    values: Array


def _tensor(described: Mapping[str, Any], options: InputOptions, random: np.random.Generator) -> _Tensor:
    name = str(described.get("name"))
    try:
        datatype = DataType(str(described.get("datatype")))
    except ValueError:
        raise Invalid(
            "UnknownDatatype",
            f"input {name}: datatype {described.get('datatype')!r} is none of the protocol's: give --body FILE",
        ) from None
    shape = shape_of(name, described.get("shape"), options)
    return _Tensor(name, datatype, _values(datatype, shape, random))


def shape_of(name: str, described: Sequence[int] | None, options: InputOptions) -> tuple[int, ...]:
    """The shape to send.

    Raises:
        Invalid: the model leaves the number of axes open and the user names none.
    """
    given = (options.shapes or {}).get(name)
    if described is None:
        if given is None:
            raise Invalid(
                "UnknownShape", f"input {name} may have any number of axes: give --shape {name}=LENGTHxLENGTH"
            )
        return (options.rows, *given)
    if not described:
        return ()
    first = options.rows if described[0] < 0 else described[0]
    rest = given if given is not None else tuple(OPEN_AXIS if axis < 0 else axis for axis in described[1:])
    return (first, *rest)


def _values(datatype: DataType, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    if datatype is DataType.BYTES:
        words = random.choice(_WORDS, size=shape)
        return np.array([str(word).encode() for word in words.ravel()], dtype=object).reshape(shape)
    if datatype is DataType.BOOL:
        return random.integers(0, 2, shape).astype(np.bool_)
    if datatype is DataType.BF16:
        single: Array = random.standard_normal(shape).astype("<f4").view("<u4")
        return (single >> 16).astype("<u2")
    if DTYPES[datatype].kind == "f":
        # As many digits as people's clients send, not as many as a float has.
        return np.round(random.standard_normal(shape), 4).astype(DTYPES[datatype])
    return random.integers(0, _LARGEST_ID, shape).astype(DTYPES[datatype])


def _body(tensors: Sequence[_Tensor], options: InputOptions) -> RequestBody:
    entries: list[dict[str, Any]] = []
    tail = b""
    for each in tensors:
        entry: dict[str, Any] = {"name": each.name, "shape": list(each.values.shape), "datatype": each.datatype.value}
        if options.binary:
            content = array_to_bytes(each.values, each.datatype)
            entry["parameters"] = {"binary_data_size": len(content)}
            tail += content
        else:
            found = array_to_json(each.values, each.datatype)
            entry["data"] = found if isinstance(found, list) else _flat(found)
        entries.append(entry)
    document: dict[str, Any] = {"inputs": entries}
    if not options.binary:
        return RequestBody(json.dumps(document, separators=(",", ":")).encode(), {"Content-Type": "application/json"})
    document["parameters"] = {"binary_data_output": True}
    head = json.dumps(document, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return RequestBody(head + tail, headers)


def _flat(found: Array) -> list[Any]:
    # A 32-bit float as the shortest decimal that is it, not as the double beside it.
    if found.dtype.kind == "f":
        return [float(str(value)) for value in found.ravel()]
    return list(found.ravel().tolist())


def http_request(url: str, body: RequestBody, headers: Mapping[str, str]) -> bytes:
    """A whole POST to a model's infer URL, as it goes over the wire."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}"]
    every = {**body.headers, **headers, "Content-Length": str(len(body.content))}
    lines += [f"{name}: {value}" for name, value in every.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body.content


def infer_url(url: str) -> str:
    """A model's infer URL, from it or from the model's own URL.

    Raises:
        Invalid: it is no URL of a model.
    """
    wrong = f"{url}: write http://HOST:PORT/[NAMESPACE/]v2/models/NAME, or a deployment's name"
    parts = split_url(url, wrong)
    path = parts.path.rstrip("/")
    if "/v2/models/" not in f"{path}/":
        raise Invalid("InvalidURL", wrong)
    return parts._replace(path=path if path.endswith(_TAIL) else path + _TAIL, fragment="").geturl()
