"""What each observation counts: how often it was seen, and how much it matters."""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.alignment import rows_of
from mlfm.arrays import as_pandas, is_real, real_array
from mlfm.wording import count, listing

Floats = NDArray[np.float64]


class Counted(NamedTuple):
    """What each observation counts in the likelihood, and what they come to."""

    each: Floats
    nobs: int  # observations, as often as they were seen
    effective: float  # the sum of what they count


def exponential_weights(nobs: int, halflife: float) -> Floats:
    """Weights that halve every ``halflife`` observations, back from the last, which has weight 1.

    Parameters
    ----------
    nobs : int
        Number of observations, the oldest first.
    halflife : float
        Observations after which a weight is halved; positive.

    Returns
    -------
    array
        For the argument ``weights`` of :class:`mlfm.MultilevelFactorModel`.

    Raises
    ------
    ValueError
        If ``nobs`` is not a whole number, 1 or more, or ``halflife`` is not positive.

    Examples
    --------
    >>> import mlfm
    >>> mlfm.exponential_weights(5, halflife=2).round(3)
    array([0.25 , 0.354, 0.5  , 0.707, 1.   ])
    """
    if isinstance(nobs, bool) or not isinstance(nobs, numbers.Integral) or nobs < 1:
        raise ValueError(f"nobs must be a whole number, 1 or more, not {nobs!r}")
    if isinstance(halflife, bool) or not isinstance(halflife, numbers.Real) or not halflife > 0:
        raise ValueError(f"halflife must be a positive number of observations, not {halflife!r}")
    return np.exp2(-np.arange(nobs - 1, -1, -1) / float(halflife))


def counted(importance: Floats | None, frequency: Floats | None, n: int) -> Counted:
    """What n observations count, from importance weights and frequencies, either of which may be None.

    Importance weights are scaled to sum to the effective number of observations, (sum w)^2 / sum w^2 (Kish 1965):
    equal weights are no weights, and their unit does not matter.
    """
    frequency = np.ones(n) if frequency is None else frequency
    if not (frequency if importance is None else frequency * importance).any():
        raise ValueError("weights, freq_weights: no observation is left whose weight is not zero")
    nobs = int(frequency.sum())
    if importance is None:
        return Counted(frequency, nobs, float(nobs))
    importance = importance / importance.max()  # so that no square leaves the range of numbers
    each = frequency * importance
    each = each * (each.sum() / float(frequency @ importance**2))
    return Counted(each, nobs, float(each.sum()))


def frequencies(freq_weights: Any, index: pd.Index, labelled: bool) -> Floats | None:
    """How often each row was seen, in the order of the rows."""
    values = importances(freq_weights, index, labelled, "freq_weights")
    if values is not None:
        broken = values != np.floor(values)
        if broken.any():
            raise ValueError(
                f"freq_weights: must be whole numbers, how often each row was seen; not so at rows "
                f"{listing(index[broken])}; for importance weights use weights="
            )
    return values


def importances(weights: Any, index: pd.Index, labelled: bool, name: str = "weights") -> Floats | None:
    """One weight for each row, in the order of the rows."""
    if weights is None:
        return None
    weights = as_pandas(weights, index)
    if isinstance(weights, pd.DataFrame):
        raise TypeError(f"{name}: one number a row is needed, not a DataFrame; choose a column of it")
    if isinstance(weights, pd.Series):
        if not is_real(weights.dtype):
            raise TypeError(f"{name}: real numbers are needed, not {weights.dtype}")
        rows = rows_of(weights.index, index, name, labelled)
        weights = weights.iloc[rows].to_numpy(dtype=np.float64, na_value=np.nan)
    values = real_array(weights, name)
    if values.shape != (len(index),):
        raise ValueError(
            f"{name}: one number for each of the {count(len(index), 'row')} is needed, not shape {values.shape}"
        )
    for what, bad in (("missing or infinite", ~np.isfinite(values)), ("negative", values < 0)):
        if bad.any():
            raise ValueError(f"{name}: {count(int(bad.sum()), 'weight')} {what}, at rows {listing(index[bad])}")
    if not values.any():
        raise ValueError(f"{name}: all of them are zero")
    return values
