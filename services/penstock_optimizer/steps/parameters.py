"""Reading a step's parameters: known names only, each of its type."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.optimization.recipes import Step
from penstock_optimizer.building.draft import CannotDo

Value = str | int | float | bool


class Parameters:
    """A step's parameters over their defaults.

    Args:
        step: as the recipe has it.
        defaults: the value of each parameter that the step knows; its type is the parameter's.

    Raises:
        CannotDo: a parameter is not known or of another type.
    """

    def __init__(self, step: Step, defaults: Mapping[str, Value]) -> None:
        unknown = sorted(set(step.parameters) - set(defaults))
        if unknown:
            raise CannotDo(
                f"{step.label} has no parameter '{unknown[0]}'; it has {', '.join(sorted(defaults)) or 'none'}"
            )
        self._values = dict(defaults) | dict(step.parameters)
        self._label = step.label

    def boolean(self, name: str) -> bool:
        """A switch."""
        value = self._values[name]
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def integer(self, name: str) -> int:
        """A whole number."""
        value = self._values[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, "a whole number")
        return value

    def number(self, name: str) -> float:
        """A number."""
        value = self._values[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number")
        return float(value)

    def choice(self, name: str, among: tuple[str, ...]) -> str:
        """One of some words, in any case."""
        found = next((word for word in among if word.lower() == str(self._values[name]).lower()), None)
        if found is None:
            raise self._wrong(name, f"one of {', '.join(among)}")
        return found

    def words(self, name: str) -> tuple[str, ...]:
        """Words between commas."""
        return tuple(word.strip() for word in str(self._values[name]).split(",") if word.strip())

    def _wrong(self, name: str, wanted: str) -> CannotDo:
        return CannotDo(f"{self._label}: '{name}' is {self._values[name]!r}: expected {wanted}")
