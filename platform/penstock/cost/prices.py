"""What a CPU-hour, a gigabyte-hour, an accelerator-hour and a kilowatt-hour cost: the user's list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, ValidationError

from penstock.cost.usage import EnergySource
from penstock.errors import Invalid
from penstock.models import Frozen

HOUR: Final = 3600.0
MONTH: Final = 730 * HOUR
"""Seconds. The clouds' own month, a twelfth of a year."""
GIB: Final = float(1 << 30)
_KILOWATT_HOUR: Final = 3.6e6
ANY_KIND: Final = "*"
"""Stands in a price list for accelerators of kinds that it does not name."""

_Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PriceList(Frozen):
    """Prices. What is left out is taken from no other list: it costs nothing."""

    currency: Annotated[str, Field(min_length=1, max_length=8)] = "USD"
    cpu_hour: _Price = 0.0
    memory_gib_hour: _Price = 0.0
    accelerator_hours: dict[Annotated[str, Field(min_length=1, max_length=63)], _Price] = Field(default={})
    """By kind, as `spec.resources.accelerator.type` says it; `*`: any other."""
    kilowatt_hour: _Price = 0.0
    """0 where energy is part of the other prices, as in a cloud."""

    def accelerator_price(self, kind: str) -> float:
        """The price of an hour of one accelerator; 0 where the list knows none of that kind."""
        return self.accelerator_hours.get(kind, self.accelerator_hours.get(ANY_KIND, 0.0))


EXAMPLE_PRICES: Final = PriceList(cpu_hour=0.031611, memory_gib_hour=0.004237, accelerator_hours={ANY_KIND: 0.95})
"""OpenCost's defaults for a cluster whose prices it does not know: an example, and nobody's actual rates."""


def read_prices(document: object, where: str) -> PriceList:
    """A price list from a document.

    Args:
        document: as read from YAML.
        where: it is from, such as a file's name.

    Raises:
        Invalid: it is none; the message names each field that is wrong.
    """
    if not isinstance(document, dict):
        raise Invalid(
            "InvalidPrices", f"{where}: a price list is a mapping such as {{cpuHour: 0.03, memoryGibHour: 0.004}}"
        )
    try:
        return PriceList.model_validate(document, by_name=False)
    except ValidationError as error:
        known = ", ".join(field.alias or name for name, field in PriceList.model_fields.items())
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: "
            + (f"is no price; there are {known}" if each["type"] == "extra_forbidden" else each["msg"])
            for each in error.errors()
        )
        raise Invalid("InvalidPrices", f"{where}: {wrong}") from error


def cost_of(
    prices: PriceList,
    *,
    cpu_seconds: float = 0.0,
    memory_byte_seconds: float = 0.0,
    accelerator_seconds: float = 0.0,
    accelerator: str = "",
) -> float:
    """What so much costs, in the list's currency, without energy."""
    return (
        cpu_seconds / HOUR * prices.cpu_hour
        + memory_byte_seconds / GIB / HOUR * prices.memory_gib_hour
        + accelerator_seconds / HOUR * prices.accelerator_price(accelerator)
    )


def cost_of_energy(prices: PriceList, joules: Mapping[EnergySource, float]) -> float:
    """What energy costs, from wherever its figure comes."""
    return sum(joules.values()) / _KILOWATT_HOUR * prices.kilowatt_hour
