"""What a request may ask for at most."""

from __future__ import annotations

from typing import Final

DEFAULT_PRIORITY: Final = 8
"""The priority of a request that names none, or 0."""
LAST_PRIORITY: Final = 16
SHADOW_PRIORITY: Final = LAST_PRIORITY + 1
"""Of requests that no client waits for. None can ask for it."""
MOST_AXES: Final = 32
"""Of a tensor."""
MOST_CLASSES: Final = 10_000
"""Of a classification. Each is a string of its own, so a word of a request must not make millions."""
