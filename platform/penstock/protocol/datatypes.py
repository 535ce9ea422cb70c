"""Element types: how each travels as JSON and as bytes, and what array holds it.

BF16 has no numpy type: its array is of uint16 and holds the upper half of the FP32 with the same value. BYTES is an array of
Python `bytes` objects.
"""

from __future__ import annotations

import struct
import warnings
from array import array
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock.protocol.refusals import bad_request
from penstock.serving.manifest import DataType

Array = npt.NDArray[Any]

DTYPES: Final[dict[DataType, np.dtype[Any]]] = {
    DataType.BOOL: np.dtype(np.bool_),
    DataType.UINT8: np.dtype("<u1"),
    DataType.UINT16: np.dtype("<u2"),
    DataType.UINT32: np.dtype("<u4"),
    DataType.UINT64: np.dtype("<u8"),
    DataType.INT8: np.dtype("<i1"),
    DataType.INT16: np.dtype("<i2"),
    DataType.INT32: np.dtype("<i4"),
    DataType.INT64: np.dtype("<i8"),
    DataType.FP16: np.dtype("<f2"),
    DataType.BF16: np.dtype("<u2"),
    DataType.FP32: np.dtype("<f4"),
    DataType.FP64: np.dtype("<f8"),
    DataType.BYTES: np.dtype(object),
}
"""The array type of each datatype."""

FLOATS: Final = frozenset({DataType.FP16, DataType.BF16, DataType.FP32, DataType.FP64})
_LENGTH: Final = struct.Struct("<I")
_UNGUARDED: Final = 1 << 27
"""Square of the length of a JSON text in which every second character might be an element as long as half of the text."""
_MOST_AXES: Final = 64
_FEW: Final = 4096
_SMALL_SQUARES: Final = 1e76
"""A sum of squares below this is of numbers below 1e38 alone."""
# Looked up at the enumeration, these names would cost a request more than what is asked of them.
_BYTES, _BOOL, _FP32 = DataType.BYTES, DataType.BOOL, DataType.FP32
_SINGLE: Final = DTYPES[DataType.FP32]
# What is past it is looked at again. numpy would say so for each process once.
warnings.filterwarnings("ignore", "overflow encountered in dot", RuntimeWarning, __name__.replace(".", r"\."))
_MOST_LOOKS: Final = 64
_COLON: Final = ord(":")
_BF16_LIMIT: Final = float(np.array([0x7F7F0000], dtype=np.uint32).view(np.float32)[0])


def array_from_json(data: Any, datatype: DataType, where: str, text: bytes | bytearray | None = None) -> Array:
    """An array from JSON data, nested or flat.

    Args:
        data: what JSON gave.
        datatype: the elements' type.
        where: names the tensor in errors.
        text: the JSON that held the data; None: it is not at hand.

    Returns:
        An array of the data's own nesting; its elements are of the datatype.

    Raises:
        Invalid: the data is no list, is ragged, or an element is not of the datatype or out of its range.
    """
    if type(data) is not list:
        raise bad_request(f"{where}: 'data' must be a list, flat or nested as the shape says")
    if datatype is _BYTES:
        return _strings(data, where)
    numeric = datatype is not _BOOL
    if numeric and (text is None or _mentions_booleans(text)) and _holds_booleans(data):
        # Among numbers, numpy and `array` take `true` for 1.
        raise bad_request(f"{where}: {datatype} takes numbers, but 'data' has booleans")
    found = _regular_numbers(data) if numeric and data else None
    if found is None:
        found = _to_array(data, len(text) if text is not None else None, where)
    if datatype is _FP32 and _is_within_single(found):
        return found.astype(_SINGLE)
    if datatype is DataType.UINT64 and found.dtype.kind == "f":
        found = _widen(data, found, where)
    return _convert(found, datatype, where)


def _regular_numbers(data: list[Any]) -> Array | None:
    """Numbers in regular lists as FP64, or as INT64 where all are whole; None where it is something else.

    This is faster than numpy, which looks at all before it begins; and a string cannot be among them.
    """
    rows, shape = [data], [len(data)]
    try:
        while type(rows[0][0]) is list:
            rows = list(chain.from_iterable(rows))
            (length,) = set(map(len, rows))
            shape.append(length)
        flat = _numbers(rows)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if len(shape) == 1:
        return flat
    return flat.reshape(shape) if len(shape) <= _MOST_AXES else None


def _numbers(rows: list[list[Any]]) -> Array:
    whole = type(rows[0][0]) is int
    try:
        values: array[Any] = array("q" if whole else "d")
        for row in rows:
            values.fromlist(row)
    except TypeError:
        if not whole:
            raise
        values = array("d")
        for row in rows:
            values.fromlist(row)
    return np.frombuffer(values, dtype=values.typecode)


def _is_within_single(found: Array) -> bool:
    """Whether these are numbers within FP32's range for certain. Of few it costs less to know than numpy's watch over overflow."""
    kind = found.dtype.kind
    if kind != "f" or found.size > _FEW:
        return kind in "iu"
    flat = found if found.ndim == 1 else found.reshape(-1)
    return bool(flat.dot(flat) < _SMALL_SQUARES)


def _to_array(data: list[Any], characters: int | None, where: str) -> Array:
    """What numpy makes of a list.

    Raises:
        Invalid: it is ragged, or holds text and more elements than may be made as long as that.
    """
    # For numpy every element is as long as the longest string: few bytes of JSON would take gigabytes.
    if (characters is None or characters**2 > _UNGUARDED) and not _can_be_added(data):
        raise bad_request(f"{where}: 'data' is ragged, or has strings, null or objects")
    try:
        return np.array(data)
    except (ValueError, OverflowError) as error:
        raise bad_request(
            f"{where}: 'data' is ragged or nested too deeply: all lists at a level must be as long"
        ) from error


def _can_be_added(data: list[Any]) -> bool:
    """Whether a list holds numbers alone, or lists that do."""
    pending = [data]
    while pending:
        each = pending.pop()
        try:
            sum(each)
        except TypeError:
            if not all(type(inner) is list for inner in each):
                return False
            pending += each
    return True


def _mentions_booleans(text: bytes | bytearray) -> bool:
    """Whether `true` or `false` may stand in a list. A flag's, after a colon, does not count. Costs next to nothing."""
    # No number has these letters, so that a fast search for them passes over all data.
    at = text.find(b"u")
    looks = _MOST_LOOKS
    while at >= 0:
        if text[at - 2 : at + 2] == b"true" and _is_in_list(text, at - 2):
            return True
        looks -= 1
        if not looks:
            return True
        at = text.find(b"u", at + 1)
    at = text.find(b"f")
    while at >= 0:
        if text[at : at + 5] == b"false" and _is_in_list(text, at):
            return True
        looks -= 1
        if not looks:
            return True
        at = text.find(b"f", at + 1)
    return False


def _is_in_list(text: bytes | bytearray, at: int) -> bool:
    return text[at - 1] != _COLON and text[max(at - 8, 0) : at].rstrip()[-1:] != b":"


def _holds_booleans(data: list[Any]) -> bool:
    pending = [data]
    while pending:
        each = pending.pop()
        kinds = set(map(type, each))
        if bool in kinds:
            return True
        if list in kinds:
            pending += [inner for inner in each if type(inner) is list]
    return False


def _widen(data: list[Any], found: Array, where: str) -> Array:
    """UINT64 values: numpy takes a mixture of those above and below 2^63 for FP64."""
    exact = np.array(data, dtype=object)
    if not all(type(element) is int for element in exact.ravel()):
        return found
    try:
        return exact.astype(np.uint64)
    except OverflowError as error:
        raise bad_request(f"{where}: a number is out of UINT64's range of 0 to {2**64 - 1}") from error


def _convert(found: Array, datatype: DataType, where: str) -> Array:
    kind = found.dtype.kind
    dtype = DTYPES[datatype]
    if datatype in FLOATS:
        if kind not in "fiu":
            raise _mismatch(datatype, "numbers", found, where)
        return _floats(found, datatype, where)
    if not found.size:
        return found.astype(dtype)
    if datatype is DataType.BOOL:
        if kind != "b":
            raise _mismatch(datatype, "true and false", found, where)
        return found
    if kind not in "iu":
        raise _mismatch(datatype, "whole numbers", found, where)
    limits = np.iinfo(dtype)
    low, high = int(found.min()), int(found.max())
    if low < limits.min or high > limits.max:
        bad = low if low < limits.min else high
        raise bad_request(f"{where}: {bad} is out of {datatype}'s range of {limits.min} to {limits.max}")
    return found.astype(dtype)


def _floats(found: Array, datatype: DataType, where: str) -> Array:
    if datatype is DataType.FP64:
        return found.astype(DTYPES[datatype])
    try:
        with np.errstate(over="raise"):
            if datatype is not DataType.BF16:
                return found.astype(DTYPES[datatype])
            single = found.astype(np.float32)
    except FloatingPointError as error:
        raise bad_request(f"{where}: a number is out of {datatype}'s range") from error
    if np.any(np.abs(single) > _BF16_LIMIT):
        raise bad_request(f"{where}: a number is out of {datatype}'s range")
    bits = single.view(np.uint32)
    # Round to nearest, ties to even, as IEEE 754 does.
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _mismatch(datatype: DataType, wanted: str, found: Array, where: str) -> Exception:
    match found.dtype.kind:
        case "O":
            got = "null, an object, a number too large, or values of several types"
        case "U":
            got = "strings (NaN and infinities can be sent in binary form alone)"
        case "b":
            got = "booleans"
        case "f":
            got = "numbers with a decimal point, or beyond 64 bits"
        case _:
            got = "other numbers"
    return bad_request(f"{where}: {datatype} takes {wanted}, but 'data' has {got}")


def _strings(data: list[Any], where: str) -> Array:
    found = np.array(data, dtype=object)
    flat = found.ravel()
    for index, element in enumerate(flat):
        if type(element) is not str:
            ragged = " (are all lists at a level as long?)" if type(element) is list else ""
            raise bad_request(
                f"{where}: BYTES takes strings, but element {index} is a {type(element).__name__}{ragged}"
            )
        flat[index] = element.encode()
    return found


def array_from_bytes(data: memoryview, datatype: DataType, count: int, where: str) -> Array:
    """A flat, read-only array of `count` elements from their binary form (little-endian; BYTES prefixed by 4-byte lengths).

    Raises:
        Invalid: the bytes are not exactly that many elements.
    """
    if datatype is DataType.BYTES:
        return _byte_strings(data, count, where)
    dtype = DTYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise bad_request(
            f"{where}: {count} elements of {datatype} are {count * dtype.itemsize} bytes, but there are {len(data)}"
        )
    if datatype is DataType.BOOL:
        # Any other byte than 0 and 1 in a numpy boolean is undefined behaviour further on.
        return np.frombuffer(data, dtype=np.uint8).astype(np.bool_)
    return np.frombuffer(data, dtype=dtype)


def _byte_strings(data: memoryview, count: int, where: str) -> Array:
    if count * _LENGTH.size > len(data):
        raise bad_request(f"{where}: {len(data)} bytes cannot hold {count} elements with their 4-byte lengths")
    flat = np.empty(count, dtype=object)
    offset = 0
    for index in range(count):
        start = offset + _LENGTH.size
        if start > len(data):
            raise bad_request(f"{where}: the binary data ends before element {index}")
        offset = start + _LENGTH.unpack_from(data, offset)[0]
        if offset > len(data):
            raise bad_request(f"{where}: element {index} is longer than the binary data that is left")
        flat[index] = bytes(data[start:offset])
    if offset != len(data):
        raise bad_request(f"{where}: {len(data) - offset} bytes are left over after {count} elements")
    return flat


def array_to_bytes(values: Array, datatype: DataType) -> bytes:
    """The binary form of an array's elements in row-major order.

    Raises:
        UnicodeEncodeError: a text has half of a surrogate pair, which no bytes stand for.
    """
    if datatype is not DataType.BYTES:
        return values.tobytes()
    parts: list[bytes] = []
    for element in values.ravel():
        raw = text_bytes(element)
        parts += (_LENGTH.pack(len(raw)), raw)
    return b"".join(parts)


def text_bytes(element: str | bytes) -> bytes:
    """The bytes of a BYTES element.

    Raises:
        UnicodeEncodeError: a text has half of a surrogate pair, which no bytes stand for.
    """
    return element.encode("utf-8", "surrogateescape") if isinstance(element, str) else bytes(element)


def array_to_json(values: Array, datatype: DataType) -> Array | list[str]:
    """What orjson writes as the array's flat data.

    Raises:
        UnicodeDecodeError: a BYTES element is not UTF-8.
    """
    if datatype is DataType.BYTES:
        return [element if isinstance(element, str) else bytes(element).decode() for element in values.ravel()]
    if datatype is DataType.BF16:
        return (values.astype(np.uint32).ravel() << 16).view(np.float32)
    return np.ascontiguousarray(values).reshape(-1)
