"""How well a model fits: RMSEA, CFI and TLI from chi-squares, SRMR from residual correlations; defined as in lavaan."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from html import escape
from textwrap import fill

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from mlfm.covariance import MultilevelCovariance
from mlfm.inference.sample import squared_norm
from mlfm.standardised import Standardised
from mlfm.sweep import Workers

Floats = NDArray[np.float64]
LEVEL = 0.90  # of the interval of RMSEA
CLOSE = 0.05  # the RMSEA of a close fit
CHUNK = 1 << 22  # numbers of the data that are copied at once


@dataclass(frozen=True)
class FitMeasures:
    """Measures of fit, made by ``results.fit_measures()``; NaN where ``notes`` says why there is none.

    Attributes
    ----------
    nobs, n_parameters : float, int
        Effective number of observations; free parameters.
    llf, llf_saturated, llf_independence : float
        Log-likelihoods: of the model, with any covariance, and with none. All have the same mean terms.
    aic, bic, sabic, ebic : float
        Information criteria; see the attributes of the results.
    chi2, df, pvalue : float
        The model against the saturated covariance, uncorrected.
    baseline_chi2, baseline_df, baseline_pvalue : float
        Independence against the saturated covariance.
    independence_chi2, independence_df : float
        Twice the gain in log-likelihood over independence, and the loadings that it took. There is no p-value:
        rotations and loadings of 0 make the chi-square distribution invalid.
    cfi, tli : float
        Comparative fit index (Bentler 1990) and Tucker-Lewis index (1973).
    rmsea, rmsea_lower, rmsea_upper, rmsea_pvalue : float
        Root mean square error of approximation (Steiger and Lind 1980), its 90 % interval, and the p-value of the
        hypothesis that it is at most 0.05 (Browne and Cudeck 1993).
    srmr, srmr_nomean : float
        Root mean square of the residual covariances in the features' sample standard deviations, variances included
        (Bentler 1995). As in lavaan ``srmr`` averages over the means too, whose residuals are 0, if there are any.
    notes : tuple of str
        What is missing, and why.
    """

    nobs: float
    n_parameters: int
    llf: float
    llf_saturated: float
    llf_independence: float
    aic: float
    bic: float
    sabic: float
    ebic: float
    chi2: float
    df: float
    pvalue: float
    baseline_chi2: float
    baseline_df: float
    baseline_pvalue: float
    independence_chi2: float
    independence_df: float
    cfi: float
    tli: float
    rmsea: float
    rmsea_lower: float
    rmsea_upper: float
    rmsea_pvalue: float
    srmr: float
    srmr_nomean: float
    notes: tuple[str, ...] = ()

    def to_series(self) -> pd.Series:
        """All measures by name."""
        names = [field.name for field in fields(self) if field.name != "notes"]
        return pd.Series([float(getattr(self, name)) for name in names], index=names, name="fit")

    def __str__(self) -> str:
        lines = []
        for label, text in self._rows():
            lines.append(f"{label:<46}{text:>18}" if text else f"\n{label}")
        return "\n".join([*lines, *(f"\n{fill(f'Note: {note}', 80)}" for note in self.notes)]).strip("\n")

    def _repr_html_(self) -> str:
        cells = (
            f"<tr><td>{escape(label)}</td><td style='text-align: right'>{text}</td></tr>"
            if text
            else f"<tr><th colspan='2' style='text-align: left'>{label}</th></tr>"
            for label, text in self._rows()
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<table>{''.join(cells)}</table>{notes}"

    def _rows(self) -> list[tuple[str, str]]:
        """Labels and numbers, a dash for what there is not; a heading has no number."""
        return [(label, "-" if text == "nan" else text) for label, text in self._texts()]

    def _texts(self) -> list[tuple[str, str]]:

        def test(chi2: float, df: float, pvalue: float | None) -> list[tuple[str, str]]:
            p = [] if pvalue is None else [("  P-value", f"{pvalue:.4g}")]
            return [("  Chi-square", f"{chi2:.3f}"), ("  Degrees of freedom", f"{df:.0f}"), *p]

        return [
            ("Against the saturated covariance", ""),
            *test(self.chi2, self.df, self.pvalue),
            ("Baseline: independence against saturated", ""),
            *test(self.baseline_chi2, self.baseline_df, self.baseline_pvalue),
            ("Gain over independence", ""),
            *test(self.independence_chi2, self.independence_df, None),
            ("Indices", ""),
            ("  CFI", f"{self.cfi:.4f}"),
            ("  TLI", f"{self.tli:.4f}"),
            ("  RMSEA", f"{self.rmsea:.4f}"),
            ("  RMSEA, 90 % interval, lower", f"{self.rmsea_lower:.4f}"),
            ("  RMSEA, 90 % interval, upper", f"{self.rmsea_upper:.4f}"),
            ("  P-value of RMSEA <= 0.05", f"{self.rmsea_pvalue:.4g}"),
            ("  SRMR", f"{self.srmr:.4f}"),
            ("Likelihood and criteria", ""),
            ("  Log-likelihood", f"{self.llf:.3f}"),
            ("  Log-likelihood, saturated", f"{self.llf_saturated:.3f}"),
            ("  Log-likelihood, independence", f"{self.llf_independence:.3f}"),
            ("  Observations", f"{self.nobs:g}"),
            ("  Free parameters", f"{self.n_parameters}"),
            ("  AIC", f"{self.aic:.3f}"),
            ("  BIC", f"{self.bic:.3f}"),
            ("  Sample-size adjusted BIC", f"{self.sabic:.3f}"),
            ("  Extended BIC", f"{self.ebic:.3f}"),
        ]


def cfi(chi2: float, df: float, baseline: float, baseline_df: float) -> float:
    """Bentler (1990): one less the excess of chi-square over that of the baseline."""
    excess = max(chi2 - df, 0.0)
    largest = max(excess, baseline - baseline_df)
    return 1.0 if largest == 0 else 1 - excess / largest


def tli(chi2: float, df: float, baseline: float, baseline_df: float) -> float:
    """Tucker and Lewis (1973): the same of chi-squares by degree of freedom, not held between 0 and 1."""
    excess = baseline / baseline_df - 1
    return 1.0 if excess == 0 else 1 - (chi2 / df - 1) / excess


def rmsea(chi2: float, df: float, nobs: float) -> float:
    """Steiger and Lind (1980)."""
    return math.sqrt(max(chi2 / df - 1, 0.0) / nobs)


def rmsea_interval(chi2: float, df: float, nobs: float, level: float = LEVEL) -> tuple[float, float]:
    """From the noncentralities at which chi-square is at the ends of an interval of this level (Steiger 1990)."""
    ends = [_noncentrality(chi2, df, probability) for probability in ((1 + level) / 2, (1 - level) / 2)]
    lower, upper = (math.sqrt(end / (nobs * df)) for end in ends)
    return lower, upper


def _noncentrality(chi2: float, df: float, probability: float) -> float:
    """Where P(chi-square(df, noncentrality) <= chi2) is this probability; 0 where even 0 is too much."""

    def excess(noncentrality: float) -> float:
        return float(stats.ncx2.cdf(chi2, df, noncentrality)) - probability

    if float(stats.chi2.cdf(chi2, df)) <= probability:
        return 0.0
    # At this noncentrality the mean is 8 and more standard deviations above chi2.
    largest = chi2 + 20 * math.sqrt(chi2) + 100
    return float(optimize.brentq(excess, 1e-12 * largest, largest, xtol=1e-12 * largest, rtol=1e-12))


def close_fit(chi2: float, df: float, nobs: float, close: float = CLOSE) -> float:
    """P-value of an RMSEA of at most ``close`` (Browne and Cudeck 1993)."""
    return float(stats.ncx2.sf(chi2, df, nobs * df * close**2))


def residual_squares(covariance: MultilevelCovariance, data: Standardised) -> float:
    """Sum over pairs i >= j of squared residuals (s_ij - sigma_ij)^2 / (s_ii s_jj), s being the sample's.

    From ||R - C||^2 = ||R||^2 - 2 <R, C> + ||C||^2 with C the model's covariance in the sample's standard deviations:
    <R, C> is a mean of quadratic forms of the observations, so that nothing of size n x n is formed.
    """
    scale = np.empty_like(data.scale)
    scale[data.order] = data.scale
    C = covariance.scale(1 / scale)
    with Workers() as workers:
        squares = squared_norm(data, workers)
    width = max(CHUNK // len(data.Y), 1)
    cross = 0.0
    for first in range(0, data.Y.shape[1], width):
        own = slice(first, first + width)
        rows = np.empty((len(data.Y), len(data.weights[own])))
        rows[data.order] = data.Y[:, own]
        cross += float(C.quad_form(rows) @ data.weights[own])
    whole = squares - 2 * cross / data.nobs + C.inner(C)
    diagonal = 1 - C.diagonal()
    return max(0.5 * (whole + float(diagonal @ diagonal)), 0.0)


def srmr(squares: float, n_features: int, with_means: bool) -> float:
    """Root of the mean over n (n + 1) / 2 covariances and, with means, n zeros."""
    return math.sqrt(squares / (n_features * (n_features + 1) / 2 + n_features * with_means))
