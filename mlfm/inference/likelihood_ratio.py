"""What likelihood-ratio tests of one fit against another say."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mlfm.wording import count


class LikelihoodRatio(NamedTuple):
    """A likelihood-ratio test: twice the gain in log-likelihood, its p-value, and the difference in parameters.

    Attributes
    ----------
    statistic : float
    pvalue : float
        NaN where the statistic is not chi-square.
    df_diff : int
    """

    statistic: float
    pvalue: float
    df_diff: int

    def __str__(self) -> str:
        if np.isnan(self.pvalue):
            return (
                f"Likelihood-ratio test: statistic = {self.statistic:.3f}, {count(self.df_diff, 'more parameter')}; "
                'not chi-square, for a p-value: mlfm.lr_test(restricted, full, method="bootstrap")'
            )
        return f"Likelihood-ratio test: chi2({self.df_diff}) = {self.statistic:.3f}, p = {self.pvalue:.4g}"


class BootstrapLikelihoodRatio(NamedTuple):
    """A likelihood-ratio test whose p-value comes from data drawn from the restricted fit.

    Attributes
    ----------
    statistic : float
        Twice the gain in log-likelihood.
    pvalue : float
        (1 + replicates with a statistic as large) / (1 + replicates).
    df_diff : int
        Parameters that the larger model has more.
    n_reps : int
        Replicates that are used.
    n_left_out : int
        Replicates that are not: one of the fits failed, did not converge, or the larger model's ended lower.
    n_on_floor : int
        Replicates with uniquenesses on their floor (Heywood cases) in one of the fits; they are used.
    replicates : array
        The statistic of each replicate used.
    """

    statistic: float
    pvalue: float
    df_diff: int
    n_reps: int
    n_left_out: int
    n_on_floor: int
    replicates: NDArray[np.float64]

    def __str__(self) -> str:
        left_out = f", {self.n_left_out} left out" if self.n_left_out else ""
        on_floor = f", {self.n_on_floor} with uniquenesses on their floor" if self.n_on_floor else ""
        return (
            f"Likelihood-ratio test: statistic = {self.statistic:.3f}, {count(self.df_diff, 'more parameter')}, "
            f"p = {self.pvalue:.4g} (parametric bootstrap, {count(self.n_reps, 'replicate')}{left_out}{on_floor})"
        )


def statistic(restricted: float, full: float) -> float:
    """Twice the gain in log-likelihood; less than 0 by rounding is 0."""
    return max(2 * (full - restricted), 0.0)


def likelihood_ratio(restricted: float, full: float, df_diff: int) -> LikelihoodRatio:
    """The chi-square test from two log-likelihoods."""
    value = statistic(restricted, full)
    return LikelihoodRatio(value, float(stats.chi2.sf(value, df_diff)), df_diff)


def bootstrap_pvalue(observed: float, replicates: NDArray[np.float64]) -> float:
    """The share of statistics as large, the observed one among them (Davison and Hinkley 1997, section 4.2)."""
    return float((1 + np.sum(replicates >= observed)) / (1 + len(replicates)))
