"""Numbers at the door: whatever a user gives as an array of real numbers, made a new float64 array or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def real_array(argument: Any, name: str) -> NDArray[np.float64]:
    """A new C-contiguous array; a TypeError or ValueError that names the argument where it is not of real numbers."""
    if isinstance(argument, np.ma.MaskedArray):
        raise TypeError(f"{name}: a masked array's mask would be lost; fill it first")
    try:
        array = np.asarray(argument)
    except ValueError as error:
        raise ValueError(f"{name}: an array of numbers is needed: {error}") from error
    if array.dtype.kind not in "biufO":
        raise TypeError(f"{name}: real numbers are needed, not {array.dtype}")
    try:
        return np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: real numbers are needed, not {type(argument).__name__}: {error}") from error
