"""The likelihood-ratio test of a model against the saturated covariance: any covariance, with the same mean."""

from __future__ import annotations

from typing import NamedTuple

from scipy import stats


class SaturatedTest(NamedTuple):
    """The test of a model against any covariance.

    Attributes
    ----------
    statistic : float
        Twice the difference in log-likelihood, multiplied by ``correction``.
    pvalue : float
        Of the chi-square distribution.
    df : int
        Covariances less the parameters that describe them.
    correction : float
        Bartlett's, 1 without it.
    """

    statistic: float
    pvalue: float
    df: int
    correction: float

    def __str__(self) -> str:
        by = "" if self.correction == 1 else f", Bartlett's correction {self.correction:.4f}"
        return f"Saturated test: chi2({self.df}) = {self.statistic:.3f}, p = {self.pvalue:.4g}{by}"


def against_saturated(llf: float, saturated: float, df: int, correction: float) -> SaturatedTest:
    """The test from two log-likelihoods; a statistic of less than 0 by rounding is 0."""
    statistic = max(2 * (saturated - llf), 0.0) * correction
    return SaturatedTest(statistic, float(stats.chi2.sf(statistic, df)), df, correction)


def bartlett_correction(nobs: float, n_coefficients: int, n_features: int, n_factors: int) -> float:
    """(nobs - q - (2n + 5) / 6 - 2k / 3) / nobs: q coefficients of each feature, n features with k factors each.

    Bartlett (1951, Biometrika 38, p. 337) for a flat model; in a multilevel model k are the factors of a path.
    """
    return (nobs - n_coefficients - (2 * n_features + 5) / 6 - 2 * n_factors / 3) / nobs
