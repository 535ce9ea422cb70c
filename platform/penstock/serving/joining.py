"""Which axis of which tensor counts a request's rows, so that several requests can become one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from penstock.models import Frozen

_Axis = Annotated[int, Field(ge=0, lt=32)]


class Joining(Frozen):
    """The batch axis of every tensor by name. Without any: requests are never joined, each is a run of its own."""

    inputs: dict[str, _Axis] = Field(default={})
    outputs: dict[str, _Axis] = Field(default={})
    ragged: bool = False
    """Whether the model also takes inputs whose batch axes differ (it broadcasts): such a request runs alone."""

    @property
    def never(self) -> bool:
        """Whether each request is a run of its own."""
        return not self.inputs

    def __str__(self) -> str:
        """`x[0], state[1] → y[0]`."""
        if self.never:
            return "never"
        takes, gives = (
            ", ".join(f"{name}[{axis}]" for name, axis in each.items()) for each in (self.inputs, self.outputs)
        )
        return f"{takes} → {gives}"


def part(array: npt.NDArray[Any], axis: int, start: int, stop: int) -> npt.NDArray[Any]:
    """The rows from `start` to before `stop` on an axis, without a copy."""
    return array[start:stop] if axis == 0 else array[(slice(None),) * axis + (slice(start, stop),)]


def joined(each: list[Mapping[str, npt.NDArray[Any]]], axes: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    """Several requests' inputs as those of one run."""
    return {name: np.concatenate([inputs[name] for inputs in each], axis=axis) for name, axis in axes.items()}
