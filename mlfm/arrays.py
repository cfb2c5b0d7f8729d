"""Numbers at the door: whatever a user gives as an array of real numbers, made one of floating point or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def real_array(argument: Any, name: str) -> NDArray[np.float64]:
    """A new C-contiguous array; a TypeError or ValueError that names the argument where it is not of real numbers."""
    return np.array(floating_array(argument, name), dtype=np.float64, order="C")


def floating_array(argument: Any, name: str) -> NDArray[np.float32] | NDArray[np.float64]:
    """The argument itself where it is an array in single or double precision, a new one in double precision else."""
    if isinstance(argument, np.ma.MaskedArray):
        raise TypeError(f"{name}: a masked array's mask would be lost; fill it first")
    if hasattr(argument, "toarray"):
        raise TypeError(f"{name}: a sparse {type(argument).__name__} is not taken; toarray() makes an array of it")
    try:
        array = np.asarray(argument)
    except ValueError as error:
        raise ValueError(f"{name}: an array of numbers is needed: {error}") from error
    if array.dtype.kind not in "biufO":
        raise TypeError(f"{name}: real numbers are needed, not {array.dtype}")
    if array.dtype == np.float32:
        return array
    try:
        return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: real numbers are needed, not {type(argument).__name__}: {error}") from error


def as_pandas(argument: Any, index: pd.Index | None = None) -> Any:
    """What an argument's own ``to_pandas()`` (Polars, Arrow) makes of it, or the argument itself.

    Such tables mostly have no labels for their rows: they get those of ``index``, by position.
    """
    if not hasattr(argument, "to_pandas"):
        return argument
    converted = argument.to_pandas()
    if index is not None and not has_labels(converted) and len(converted) == len(index):
        return converted.set_axis(index)
    return converted


def has_labels(data: pd.DataFrame | pd.Series) -> bool:
    """Whether rows have labels, and not only numbers that pandas gave them."""
    return not data.index.equals(pd.RangeIndex(len(data)))


def is_real(dtype: Any) -> bool:
    """Whether a column of this type holds real numbers."""
    return bool(pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype))
