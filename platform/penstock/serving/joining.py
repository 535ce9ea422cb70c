"""Which axis of which tensor counts a request's rows, so that several requests can become one run."""

from __future__ import annotations

from typing import Annotated

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
    def is_forbidden(self) -> bool:
        """Whether each request is a run of its own."""
        return not self.inputs

    def __str__(self) -> str:
        """`x[0], state[1] → y[0]`."""
        if self.is_forbidden:
            return "never"
        takes, gives = (
            ", ".join(f"{name}[{axis}]" for name, axis in each.items()) for each in (self.inputs, self.outputs)
        )
        return f"{takes} → {gives}"
