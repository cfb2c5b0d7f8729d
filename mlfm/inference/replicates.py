"""Replicates of some quantities, and what they say of the estimates: standard errors, bias, intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mlfm.inference.tables import check_alpha, z_columns
from mlfm.wording import count, listing

Floats = NDArray[np.float64]
#: Numbers whose covariance is worked out in full.
MOST = 4000
#: Lower and upper ends from the estimates, the replicates and alpha.
Interval = Callable[[Floats, Floats, float], tuple[Floats, Floats]]


def percentile(estimate: Floats, values: Floats, alpha: float) -> tuple[Floats, Floats]:
    """The alpha / 2 and 1 - alpha / 2 quantiles of the replicates (Efron and Tibshirani 1993, chapter 13)."""
    if alpha * (len(values) + 1) < 2:
        raise ValueError(
            f"alpha: {count(len(values), 'replicate')} are too few for percentile intervals with alpha={alpha:g}; at "
            f"least {int(np.ceil(2 / alpha)) - 1} are needed, or method='normal'"
        )
    lower, upper = np.quantile(values, [alpha / 2, 1 - alpha / 2], axis=0, method="weibull")
    return lower, upper


def normal(estimate: Floats, values: Floats, alpha: float) -> tuple[Floats, Floats]:
    """The estimates and so many standard errors to both sides."""
    width = stats.norm.isf(alpha / 2) * values.std(axis=0, ddof=1)
    return estimate - width, estimate + width


INTERVALS: Mapping[str, Interval] = {"percentile": percentile, "normal": normal}


class Replicates:
    """Estimates, and what they are in each replicate of a bootstrap.

    Attributes
    ----------
    estimate : Series
        What the fit says.
    """

    def __init__(self, estimate: pd.Series, values: Floats) -> None:
        self.estimate, self._values = estimate, values

    @property
    def values(self) -> pd.DataFrame:
        """Replicates x quantities."""
        return pd.DataFrame(self._values, columns=self.estimate.index)

    @cached_property
    def bse(self) -> pd.Series:
        """Standard errors: the replicates' standard deviations."""
        return pd.Series(self._values.std(axis=0, ddof=1), index=self.estimate.index, name="std err")

    @cached_property
    def bias(self) -> pd.Series:
        """The replicates' mean less the estimate; nothing is taken off the estimates for it."""
        return pd.Series(self._values.mean(axis=0) - self.estimate, index=self.estimate.index, name="bias")

    def cov(self) -> pd.DataFrame:
        """Covariance of the replicates, quantities x quantities.

        Raises
        ------
        ValueError
            If there are more than 4000 quantities.
        """
        if len(self.estimate) > MOST:
            raise ValueError(
                f"the covariance of {len(self.estimate):,} quantities would not be small; it is worked out for at most "
                f"{MOST}; take those of interest from the replicates: values[names].cov()"
            )
        covariance = np.cov(self._values, rowvar=False, ddof=1).reshape(2 * (len(self.estimate),))
        return pd.DataFrame(covariance, index=self.estimate.index, columns=self.estimate.index)

    def conf_int(self, alpha: float = 0.05, method: str = "percentile") -> pd.DataFrame:
        """Intervals.

        Parameters
        ----------
        alpha : float
            One less the coverage.
        method : {"percentile", "normal"}
            Quantiles of the replicates, or the estimates and so many standard errors to both sides.

        Returns
        -------
        DataFrame
            Columns "lower" and "upper".

        Raises
        ------
        ValueError
            If there are fewer than 2 / alpha - 1 replicates, for percentiles.
        """
        if not isinstance(method, str) or method not in INTERVALS:
            raise ValueError(f"method must be one of {listing(INTERVALS)}, not {method!r}")
        check_alpha(alpha)
        lower, upper = INTERVALS[method](self.estimate.to_numpy(), self._values, alpha)
        return pd.DataFrame({"lower": lower, "upper": upper}, index=self.estimate.index)

    def table(self, alpha: float = 0.05, method: str = "percentile") -> pd.DataFrame:
        """Estimates, bias, standard errors and intervals (see :meth:`conf_int`)."""
        ends = self.conf_int(alpha, method).set_axis(z_columns(alpha)[-2:], axis=1)
        return pd.DataFrame({"estimate": self.estimate, "bias": self.bias, "std err": self.bse}).join(ends)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Replicates: {len(self)} of {count(len(self.estimate), 'quantity', 'quantities')}>"
