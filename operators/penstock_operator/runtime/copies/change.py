"""What became of an object, and whether what matters of it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from penstock_operator.runtime.cluster import Manifest

Aspect = Callable[[Manifest], object]
"""What matters of an object to others."""


@dataclass(frozen=True, slots=True)
class Change:
    """An object as it is and as it was last seen. A listing tells of each object, also of those that are what they were."""

    now: Manifest | None
    """None: it went."""
    before: Manifest | None
    """None: it was not seen before, or not by this process."""

    @property
    def objects(self) -> tuple[Manifest, ...]:
        """Both, as far as they are there: an object may have pointed elsewhere before, and those there must look again too."""
        return tuple(each for each in (self.now, self.before) if each is not None)

    def concerns(self, aspect: Aspect) -> bool:
        """Whether the object came, went, or differs in this aspect. Raises what the aspect of the present object does."""
        if self.now is None or self.before is None:
            return True
        if self.now is self.before:
            return False
        now = aspect(self.now)
        try:
            return aspect(self.before) != now
        except Exception:  # noqa: BLE001 -- it was of another form than any, and no longer is
            return True
