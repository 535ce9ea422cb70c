"""Infer requests, whatever form they came in: named arrays that fit the model's signature, and what is asked of the answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.protocol.datatypes import Array
from penstock.protocol.limits import DEFAULT_PRIORITY, LAST_PRIORITY, MOST_AXES
from penstock.protocol.refusals import bad_request
from penstock.serving.joining import Joining
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_serving.replica.codec.classification import Classification, read_classification

SHARED_MEMORY: Final = "shared_memory_region"
_LONGEST_WITHOUT_ELEMENTS: Final = 1 << 24
"""Product of the other axes of a tensor without elements. Sixty bytes of request must not make an engine fill gigabytes."""
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(slots=True)
class RequestedOutput:
    """An output that the client asked for, and in which form."""

    name: str
    datatype: DataType
    """As it is answered: of classes, BYTES."""
    binary: bool
    classes: Classification | None = None
    """Answered in place of the tensor."""


@dataclass(slots=True)
class InferRequest:
    """A decoded request.

    `bucket` is equal for two requests that may run in one batch; `rows` is the length of the batch axis, 1 where
    none is known. `timeout_seconds` counts from the request's arrival. Priority 1 goes first.
    """

    inputs: dict[str, Array]
    rows: int
    bucket: tuple[tuple[int, ...], ...]
    outputs: tuple[RequestedOutput, ...]
    id: str | None = None
    timeout_seconds: float | None = None
    priority: int = DEFAULT_PRIORITY
    classified: bool = False
    """Whether an output is asked for as classes."""

    def present(self, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """The model's outputs by name, those as classes that are asked for so."""
        if not self.classified:
            return outputs
        return {
            each.name: outputs[each.name] if each.classes is None else each.classes.classify(outputs[each.name])
            for each in self.outputs
        }


class RequestReader:
    """Fits requests to one model: what every form of them has in common. Each form has a subclass that reads its tensors.

    Args:
        signature: what the model takes and gives.
        joining: which axis of each tensor counts rows; None: that is not known, and nothing is asked of any axis.
    """

    def __init__(self, signature: Signature, joining: Joining | None = None) -> None:
        self._axes = joining.inputs if joining is not None else {}
        self._output_axes = joining.outputs if joining is not None else {}
        self._ragged = joining is not None and joining.ragged
        self._required = tuple(spec.name for spec in signature.inputs)
        self._inputs = {spec.name: spec for spec in (*signature.inputs, *signature.optional)}
        self._outputs = {spec.name: spec for spec in signature.outputs}
        self._varies = any(
            length == -1 and axis != self._axes.get(spec.name)
            for spec in signature.inputs
            for axis, length in enumerate(spec.shape)
        )
        # No shape has negative lengths: a bucket of these is no other request's.
        self._alone = itertools.count(-1, -1)
        simple = len(self._axes) == 1 and not self._varies and not signature.optional
        self._only = next(iter(self._axes.items())) if simple else None
        """The one axis to look at, where there is no more to it."""
        self._default = {
            binary: tuple(RequestedOutput(spec.name, spec.datatype, binary) for spec in signature.outputs)
            for binary in (False, True)
        }

    def input_spec(self, index: int, name: str) -> TensorSpec:
        """What the model says of an input.

        Raises:
            Invalid: it has no such input.
        """
        spec = self._inputs.get(name)
        if spec is None:
            known = ", ".join(f"'{known}'" for known in self._inputs)
            raise bad_request(f"inputs[{index}] '{name}': the model has no such input; it has {known}")
        return spec

    def build(self, inputs: dict[str, Array], identity: Any, parameters: Any, outputs: Any) -> InferRequest:
        """The request that has these tensors.

        Args:
            inputs: by name, each fit for its `input_spec`.
            identity: the request's `id`; None: it has none.
            parameters: the request's, as a mapping; None: it has none.
            outputs: a list of mappings with `name` and `parameters`; None or empty: all.

        Raises:
            Invalid: with what is wrong and where.
        """
        if len(inputs) != len(self._inputs):
            missing = ", ".join(f"'{name}'" for name in self._required if name not in inputs)
            if missing:
                raise bad_request(f"inputs: {missing} missing")
        request = InferRequest(inputs, *self._place(inputs), self._default[False])
        if identity is not None:
            if type(identity) is not str:
                raise bad_request("'id' must be a string")
            request.id = identity
        if parameters is not None:
            _apply_parameters(request, parameters)
            if _flag(parameters, "binary_data_output", "parameters"):
                request.outputs = self._default[True]
        if outputs is not None and outputs != []:
            request.outputs = self._parse_outputs(outputs, binary=request.outputs is self._default[True])
            request.classified = any(each.classes is not None for each in request.outputs)
        return request

    def _place(self, inputs: dict[str, Array]) -> tuple[int, tuple[tuple[int, ...], ...]]:
        """How many rows a request has, and the bucket of those that it may run with."""
        if self._only is not None and (length := inputs[self._only[0]].shape[self._only[1]]):
            return length, ()
        if not self._axes:
            return 1, ()
        rows = -1
        alone = len(inputs) != len(self._required)
        for name, axis in self._axes.items():
            length = inputs[name].shape[axis]
            if rows not in (-1, length):
                if not self._ragged:
                    raise bad_request(f"input '{name}': its batch axis is {length}, but the inputs before have {rows}")
                alone = True
            rows = length
        if alone or not rows:
            # What replaces a value of the model's own would replace it for all others of the batch; and inputs of different
            # lengths, or of no rows, were no part of the proof.
            return rows, ((next(self._alone),),)
        if not self._varies:
            return rows, ()
        shapes = ((axis, inputs[name].shape) for name, axis in self._axes.items())
        return rows, tuple(shape[:axis] + shape[axis + 1 :] for axis, shape in shapes)

    def _parse_outputs(self, listed: Any, *, binary: bool) -> tuple[RequestedOutput, ...]:
        if type(listed) is not list:
            raise bad_request("'outputs' must be a list")
        chosen: dict[str, RequestedOutput] = {}
        for index, item in enumerate(listed):
            name = item.get("name") if type(item) is dict else None
            if type(name) is not str:
                raise bad_request(f"outputs[{index}]: must be an object with a 'name'")
            where = f"outputs[{index}] '{name}'"
            spec = self._outputs.get(name)
            if spec is None:
                known = ", ".join(f"'{known}'" for known in self._outputs)
                raise bad_request(f"{where}: the model has no such output; it has {known}")
            if name in chosen:
                raise bad_request(f"{where}: asked for twice")
            parameters = item.get("parameters")
            if parameters is None:
                parameters = _NOTHING
            elif type(parameters) is not dict:
                raise bad_request(f"{where}: 'parameters' must be an object")
            asked = _flag(parameters, "binary_data", where)
            classes = read_classification(parameters.get("classification"), spec, self._output_axes.get(name), where)
            if parameters.get(SHARED_MEMORY):
                raise bad_request(f"{where}: shared memory is not supported")
            datatype = spec.datatype if classes is None else DataType.BYTES
            chosen[name] = RequestedOutput(name, datatype, binary if asked is None else asked, classes)
        return tuple(chosen.values())


def check_shape(shape: Any, spec: TensorSpec, where: str) -> int:
    """The number of elements of a shape that fits the model's.

    Raises:
        Invalid: it does not fit, or is no list of whole numbers.
    """
    wanted = spec.shape
    if shape is None:
        raise bad_request(f"{where}: 'shape' is missing")
    if type(shape) is not list or len(shape) > MOST_AXES:
        raise bad_request(f"{where}: 'shape' must be a list of at most {MOST_AXES} whole numbers")
    count = 1
    fits = len(shape) == len(wanted)
    for index, length in enumerate(shape):
        if type(length) is not int or length < 0:
            raise bad_request(f"{where}: 'shape' must hold whole numbers from 0, not {length!r}")
        count *= length
        fits = fits and wanted[index] in (-1, length)
    if not fits and not spec.any_rank:
        raise bad_request(f"{where}: shape {shape} does not fit the model's {list(wanted)}")
    if count == 0 and math.prod(max(length, 1) for length in shape) > _LONGEST_WITHOUT_ELEMENTS:
        raise bad_request(f"{where}: shape {shape} has no elements, but axes that are too long")
    return count


def _flag(parameters: Any, name: str, where: str) -> bool | None:
    if type(parameters) is not dict:
        raise bad_request(f"{where}: 'parameters' must be an object")
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise bad_request(f"{where}: parameter '{name}' must be true or false, not {value!r}")
    return value


def _apply_parameters(request: InferRequest, parameters: Any) -> None:
    if type(parameters) is not dict:
        raise bad_request("'parameters' must be an object")
    timeout = parameters.get("timeout")
    if timeout is not None:
        if type(timeout) is not int or timeout < 0:
            raise bad_request(f"parameter 'timeout' must be whole microseconds from 0, not {timeout!r}")
        request.timeout_seconds = timeout / 1e6 if timeout else None
    priority = parameters.get("priority")
    if priority is not None:
        if type(priority) is not int or not 0 <= priority <= LAST_PRIORITY:
            raise bad_request(
                f"parameter 'priority' must be a whole number from 0 to {LAST_PRIORITY}, not {priority!r}"
            )
        request.priority = priority or DEFAULT_PRIORITY
