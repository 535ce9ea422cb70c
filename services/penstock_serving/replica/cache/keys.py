"""What two requests must have in common to get one answer."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock.protocol.datatypes import array_to_bytes
from penstock.serving.manifest import DataType, Signature, TensorSpec

Array = npt.NDArray[Any]

_VERBATIM_BYTES: Final = 512
"""Inputs of up to so many bytes are their own key: that costs less than a digest, and can be confused with nothing."""
_WHOLE_BYTES: Final = 1024
_SAMPLED_ELEMENTS: Final = 17


class InputKeys:
    """Makes keys for the inputs of one model and one tenant.

    Two keys are equal only where model digest, tenant, and every input's name, datatype, shape and bytes are: SHA-256
    stands for all of them, or the bytes do themselves. Whether an input came as JSON or as bytes makes no difference, nor
    do the outputs that were asked for, since the engine computes all of them.

    Args:
        digest: the model's.
        tenant: who may share answers.
        signature: the model's. Its inputs' order is the keys', whatever a request's is.
    """

    def __init__(self, digest: str, tenant: str, signature: Signature) -> None:
        inputs = [[spec.name, spec.datatype, spec.shape] for spec in (*signature.inputs, *signature.optional)]
        self._scope = hashlib.sha256(json.dumps(["v1", digest, tenant, inputs]).encode()).digest()
        self._tensors = tuple((spec.name, spec.datatype is DataType.BYTES, _packer(spec)) for spec in signature.inputs)
        self._optional = tuple(
            (spec.name, spec.datatype is DataType.BYTES, _packer(spec)) for spec in signature.optional
        )

    def key(self, inputs: Mapping[str, Array]) -> bytes:
        """The key of a request.

        Args:
            inputs: every input of the model, optional ones where given; shapes and datatypes fit its signature.

        Returns:
            32 bytes, or more than 32 where the inputs are in it as they are.
        """
        parts: list[bytes | memoryview] = [self._scope]
        size = 0
        for name, strings, pack in self._tensors:
            array = inputs[name]
            data = _bytes_of(array, strings=strings)
            size += len(data)
            # The shape delimits what follows it: each element is of a known size, or has its length before it.
            parts += (pack(*array.shape), data)
        for name, strings, pack in self._optional:
            given = inputs.get(name)
            if given is None:
                parts.append(b"\0")
                continue
            data = _bytes_of(given, strings=strings)
            size += len(data)
            parts += (b"\1", pack(*given.shape), data)
        if size <= _VERBATIM_BYTES:
            return b"".join(parts)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        return digest.digest()

    def sample(self, inputs: Mapping[str, Array]) -> int:
        """A number that equal inputs share, and most others do not, for less than a key costs. Says nothing for sure."""
        found = 0
        for name, strings, _ in self._tensors:
            array = inputs[name]
            if not strings and array.nbytes <= _WHOLE_BYTES:
                part = hash(array.tobytes())
            else:
                flat = array.reshape(-1)
                # Odd, so that it is in step with no even row length and does not look at one column of an image.
                few = flat[:: flat.size // _SAMPLED_ELEMENTS | 1]
                part = hash(tuple(few)) if strings else hash(few.tobytes())
            found = found * 31 + part
        return found


def _packer(spec: TensorSpec) -> Callable[..., bytes]:
    """Writes a shape; where the number of axes is open, that number too."""
    if spec.any_rank:
        return lambda *shape: struct.pack(f"<{1 + len(shape)}q", len(shape), *shape)
    return struct.Struct(f"<{len(spec.shape)}q").pack


def _bytes_of(array: Array, *, strings: bool) -> bytes | memoryview:
    """The elements' bytes in row-major order; large arrays are not copied."""
    if strings:
        return array_to_bytes(array, DataType.BYTES)
    if array.nbytes <= _VERBATIM_BYTES:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
