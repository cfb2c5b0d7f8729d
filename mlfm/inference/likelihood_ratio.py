"""The likelihood-ratio test of one fit against another, where twice the difference is chi-square."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats


class LikelihoodRatio(NamedTuple):
    """A likelihood-ratio test: twice the gain in log-likelihood, its p-value, and the difference in parameters.

    Attributes
    ----------
    statistic : float
    pvalue : float
    df_diff : int
    """

    statistic: float
    pvalue: float
    df_diff: int

    def __str__(self) -> str:
        return f"Likelihood-ratio test: chi2({self.df_diff}) = {self.statistic:.3f}, p = {self.pvalue:.4g}"


def likelihood_ratio(restricted: float, full: float, df_diff: int) -> LikelihoodRatio:
    """The test from two log-likelihoods; a statistic of less than 0 by rounding is 0."""
    statistic = max(2 * (full - restricted), 0.0)
    return LikelihoodRatio(statistic, float(stats.chi2.sf(statistic, df_diff)), df_diff)


def spans(X: NDArray[np.float64], columns: NDArray[np.float64]) -> bool:
    """Whether every one of the columns is a combination of those of X."""
    if not columns.shape[1]:
        return True
    lengths = np.linalg.norm(columns, axis=0)
    left = columns - X @ np.linalg.lstsq(X, columns, rcond=None)[0] if X.shape[1] else columns
    return bool((np.linalg.norm(left, axis=0) <= 1e-8 * lengths).all())
