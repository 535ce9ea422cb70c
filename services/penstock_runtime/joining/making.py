"""Requests to a model that nobody sends: made from its signature, one after the other, as the trial's are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Final

from penstock.serving.manifest import DataType, Signature
from penstock_runtime.engines import Array
from penstock_runtime.joining.candidates import AxisNames
from penstock_runtime.joining.inputs import LENGTHS, NUMBERS_AS_TEXT, TEXT, Lengths, Values, lengths, request
from penstock_runtime.joining.plan import Fill

_FILLS: Final = (Fill.RANDOM, Fill.POSITIVE, Fill.RANDOM, Fill.NEGATIVE, Fill.RANDOM, Fill.SMALL)
_MOST_ROWS: Final = 4
_NO_AXIS: Final = -1
_WIDE: Final = Values(most=100, extreme=100)


class RequestMaker:
    """Makes requests that a model should take. Whoever shows them says which it took: lengths and values follow from that.

    Args:
        signature: of the model.
        names: of its axes, as far as they are known.
        axes: by input, which axis counts rows; none: that is not known.
        checks_ids: whether the engine refuses ids that are outside a table, so that larger ones may be tried.
    """

    def __init__(
        self, signature: Signature, names: AxisNames, axes: Mapping[str, int], *, checks_ids: bool = False
    ) -> None:
        self._signature = signature
        self._axes = {spec.name: axes.get(spec.name, _NO_AXIS) for spec in signature.inputs}
        self._ways = _ways(signature, names, self._axes, checks_ids=checks_ids)
        self._way = 0
        self._took = False
        self._made = 0

    @property
    def exhausted(self) -> bool:
        """Whether the model took none, in whatever way they were made."""
        return self._way >= len(self._ways)

    def make(self) -> dict[str, Array]:
        """The next request. No two are the same, but for inputs that leave no choice."""
        self._made += 1
        open_axes, values = self._ways[min(self._way, len(self._ways) - 1)]
        fill = _FILLS[self._made % len(_FILLS)]
        rows = 1 + self._made % _MOST_ROWS
        return request(
            self._signature, self._axes, open_axes, name=f"made {self._made}", fill=fill, rows=rows, values=values
        )

    def observe(self, *, took: bool) -> None:
        """Whether the model took the last one. Until it took one, the next is made in another way."""
        self._took = self._took or took
        if not self._took:
            self._way += 1


def _ways(
    signature: Signature, names: AxisNames, axes: Mapping[str, int], *, checks_ids: bool
) -> list[tuple[Lengths, Values]]:
    """Lengths and values to be tried, the likeliest first."""
    types = {spec.datatype for spec in signature.inputs}
    values = [TEXT, NUMBERS_AS_TEXT] if DataType.BYTES in types else [TEXT]
    if checks_ids and types & {DataType.INT32, DataType.INT64}:
        values.insert(0, _WIDE)
    ways: list[tuple[Lengths, Values]] = []
    for base, spread in itertools.product(LENGTHS, (True, False)):
        open_axes = lengths(signature, names, axes, base, spread=spread)
        ways.extend((open_axes, each) for each in values if (open_axes, each) not in ways)
    return ways
