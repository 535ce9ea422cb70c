"""Arrays that evidence is reckoned with: the first axis is the rollout, one in an operator, a thousand in a simulation."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]


def share(part: Array, whole: Array) -> Array:
    """`part / whole`, and 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def clip(value: Array, least: float, most: float) -> Array:
    """What `np.clip` gives, in a fifth of the time for a few numbers."""
    return np.minimum(np.maximum(value, least), most)
