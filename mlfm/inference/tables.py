"""Tables of estimates: standard errors, z statistics, p-values and intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


def check_alpha(alpha: Any) -> None:
    """A ValueError where no interval has the coverage 1 - alpha."""
    if not isinstance(alpha, (int, float, np.number)) or not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha!r}")


def z_columns(alpha: float) -> list[str]:
    """Names of the columns, the ends of the interval among them."""
    return ["coef", "std err", "z", "P>|z|", f"[{alpha / 2:g}", f"{1 - alpha / 2:g}]"]


def z_table(value: Floats, error: Floats, alpha: float, index: pd.Index) -> pd.DataFrame:
    """One row an estimate: value, standard error, z, p-value, and the ends of the interval; normal distribution.

    An estimate without a standard error (missing, or 0 of one that cannot vary) has no z and no p-value.
    """
    known = error > 0
    z = np.divide(value, error, out=np.full(len(value), np.nan), where=known)
    half = stats.norm.isf(alpha / 2) * np.where(known, error, np.nan)
    numbers = [value, error, z, 2 * stats.norm.sf(np.abs(z)), value - half, value + half]
    return pd.DataFrame(dict(zip(z_columns(alpha), numbers, strict=True)), index=index)
