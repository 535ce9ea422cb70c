"""Small greyscale images as text, two pixels in one character."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
_INK = 0.45


def picture(image: NDArray[np.float32]) -> list[str]:
    """An image of shape (height, width), from 0 to 1, as half as many lines of `width` characters."""
    dark = np.asarray(image) >= _INK
    if dark.shape[0] % 2:
        dark = np.vstack([dark, np.zeros((1, dark.shape[1]), dtype=bool)])
    return [
        "".join(_HALVES[bool(upper), bool(lower)] for upper, lower in zip(dark[row], dark[row + 1], strict=True))
        for row in range(0, len(dark), 2)
    ]
