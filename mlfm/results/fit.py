"""How well a model fits: against any covariance, and pair by pair of features."""

from __future__ import annotations

import numbers
from typing import NamedTuple

import numpy as np
import pandas as pd

from mlfm.exceptions import UniquenessFloorWarning, warn_caller
from mlfm.inference import fit_measures as measures
from mlfm.inference.counts import free_loadings
from mlfm.inference.fit_measures import FitMeasures
from mlfm.inference.residual_correlations import largest_residuals
from mlfm.inference.sample import independence_llf, saturated_llf
from mlfm.inference.saturated import SaturatedTest, against_saturated, bartlett_correction
from mlfm.results.estimates import Estimates
from mlfm.wording import count, listing

NAN = float("nan")
LEAST = 10  # observations that a pair of features must share for its correlation to be looked at


class Saturated(NamedTuple):
    """The saturated log-likelihood and the degrees of freedom that the model leaves; or why there is no test."""

    llf: float
    df: int
    why_not: str


class FitResults(Estimates):
    """How well a model fits."""

    def _saturated(self) -> Saturated:
        """Any covariance with the same mean terms."""
        model = self._with_data("the saturated log-likelihood")
        n = self.hierarchy.n_features
        df = n * (n + 1) // 2 + self.coefficients.size - self.df_model
        if self.n_missing:
            why = (
                f"{count(self.n_missing, 'value')} missing, and with missing values the saturated likelihood is not "
                "worked out; fit with missing='drop' for it"
            )
            return Saturated(NAN, df, why)
        largest = saturated_llf(model._data)
        if largest is None:
            rows = int(np.count_nonzero(model._data.weights))
            why = (
                f"the sample covariance of {count(n, 'feature')} is singular with {count(rows, 'observation')}: there "
                "must be more of these than features and mean terms together, and no feature may be a combination of "
                "others; compare models by their criteria (bic, ebic) or by cross-validation"
            )
            return Saturated(NAN, df, why)
        return Saturated(largest, df, self._why_no_chi_square(df))

    def _why_no_chi_square(self, df: int) -> str:
        if self.unidentified:
            return (
                f"{count(len(self.unidentified), 'group')} not identified, so that there is no number of degrees of "
                f"freedom: {listing(self.unidentified, show=str)}; use a smaller rank or other groups"
            )
        if df <= 0:
            return (
                f"the model has as many free parameters as there are covariances, or more (df = {df}), and nothing is "
                "left to test; use smaller ranks"
            )
        return ""

    def _refuse_not_converged(self, what: str) -> None:
        if not self.converged:
            raise ValueError(f"{what}: this fit did not converge: {self.record.reason}; fit it to its end first")

    def test_saturated(self, bartlett: bool = True) -> SaturatedTest:
        """Likelihood-ratio test of the model against any covariance: does the model fit?

        Parameters
        ----------
        bartlett : bool
            Multiply the statistic by Bartlett's correction, (N - q - (2n + 5) / 6 - 2k / 3) / N, for N observations and
            n features with q coefficients and k factors each. Without it the test rejects far too often unless N is
            many times n.

        Returns
        -------
        SaturatedTest
            ``statistic``, ``pvalue``, ``df`` and ``correction``.

        Raises
        ------
        ValueError
            If there are not more observations than features and mean terms, a feature is a combination of others,
            values are missing, the fit did not converge, a group is not identified, or no degrees of freedom are left.

        Warns
        -----
        UniquenessFloorWarning
            If uniquenesses are on their floor: at such a boundary the statistic is not quite chi-square.

        Notes
        -----
        For a flat model the correction is Bartlett's (1951) for k factors, as in R's ``factanal``.
        For groups, k is the number of factors of a feature, the sum of the ranks. With the number of all factors of all
        groups, as is usual for confirmatory models (Nevitt and Hancock 2004), the test hardly ever rejects. In
        simulations of a true model with a global factor and one for each group (normal data), a test of 5 % rejected

        ========  ============  ==========
        features  observations  rejections
        ========  ============  ==========
        24        100           5 to 6 %
        24        60            6 to 11 %
        100       1000          7 %
        100       300           6 %
        200       600           15 %
        400       1200          56 %
        ========  ============  ==========

        and without the correction 37 and 77 % in the first two. With hundreds of features believe it only
        where observations are many times as many: what the correction leaves is small against the degrees of freedom,
        but not against their square root.

        With importance weights N is the effective number of observations, and the test approximate.

        References
        ----------
        Bartlett (1951), Biometrika 38, p. 337; Lawley and Maxwell (1971), *Factor Analysis as a Statistical Method*,
        chapter 4; Nevitt and Hancock (2004), Multivariate Behavioral Research 39, p. 439.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> print(results.test_saturated(bartlett=False))
        Saturated test: chi2(228) = 442.720, p = 6.583e-16
        """
        if not isinstance(bartlett, (bool, np.bool_)):
            raise TypeError(f"bartlett must be True or False, not {bartlett!r}")
        self._refuse_not_converged("the test")
        saturated = self._saturated()
        if saturated.why_not:
            raise ValueError(f"no test against the saturated covariance: {saturated.why_not}")
        if len(self.on_floor):
            warn_caller(
                f"{count(len(self.on_floor), 'uniqueness', 'uniquenesses')} on the floor: "
                f"{listing(self.on_floor)}; the statistic is not quite chi-square there",
                UniquenessFloorWarning,
            )
        n, q = self.coefficients.shape
        correction = bartlett_correction(self.effective_nobs, q, n, int(self.ranks.sum())) if bartlett else 1.0
        if correction <= 0:
            raise ValueError(
                f"bartlett: {self.effective_nobs:.4g} observations are too few for the correction, with "
                f"{count(n, 'feature')}; the test without it (bartlett=False) rejects far too often"
            )
        return against_saturated(self.llf, saturated.llf, saturated.df, correction)

    def fit_measures(self) -> FitMeasures:
        """Measures of fit, defined as in R's lavaan: chi-squares, CFI, TLI, RMSEA, SRMR and information criteria.

        Returns
        -------
        FitMeasures
            Measures as attributes; ``to_series()`` has all of them by name, ``print`` a table. Those that need the
            saturated likelihood are NaN where there is none, and ``notes`` says why.

        Raises
        ------
        ValueError
            If the fit did not converge, or the results hold no data.

        Notes
        -----
        Chi-squares are not corrected here (see :meth:`test_saturated`). With covariates all measures are about what
        they leave, the saturated and the independence model having the same mean terms. N is the effective number of
        observations. Time and memory are linear in the number of features, but for the saturated likelihood, which
        exists for more observations than features only.

        SRMR is the root mean square of the residual covariances, variances included, in the features' sample standard
        deviations (lavaan's ``srmr``, that of Bentler). With missing values there is none, as sample covariances of
        what happens to be observed are biased where values are missing at random; see :meth:`residual_correlations`.

        References
        ----------
        Hu and Bentler (1999), Structural Equation Modeling 6, p. 1; Browne and Cudeck (1993), in *Testing Structural
        Equation Models*, p. 136.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> results.fit_measures().to_series()[["chi2", "df", "cfi", "tli", "rmsea", "srmr"]].round(3)
        chi2     442.720
        df       228.000
        cfi        0.921
        tli        0.904
        rmsea      0.056
        srmr       0.056
        Name: fit, dtype: float64
        """
        self._refuse_not_converged("measures of fit")
        data, saturated = self._with_data("measures of fit")._data, self._saturated()
        n, nobs = self.hierarchy.n_features, self.effective_nobs
        independence, free = independence_llf(data), sum(free_loadings(self.hierarchy, self.ranks))
        pairs = n * (n - 1) // 2
        gain = max(2 * (self.llf - independence), 0.0)
        notes = [f"no saturated model, nor what is based on it: {saturated.why_not}"] if saturated.why_not else []
        if len(self.on_floor):
            notes.append(
                f"{count(len(self.on_floor), 'uniqueness', 'uniquenesses')} on the floor: {listing(self.on_floor)}; "
                "chi-square does not quite have its distribution there"
            )
        chi2 = p = cfi = tli = rmsea = lower = upper = close = NAN
        if not saturated.why_not:
            chi2, p, df, _ = against_saturated(self.llf, saturated.llf, saturated.df, 1.0)
            rmsea, close = measures.rmsea(chi2, df, nobs), measures.close_fit(chi2, df, nobs)
            lower, upper = measures.rmsea_interval(chi2, df, nobs)
        baseline = baseline_p = NAN
        if not np.isnan(saturated.llf) and pairs:
            baseline, baseline_p, _, _ = against_saturated(independence, saturated.llf, pairs, 1.0)
        if not saturated.why_not:
            cfi, tli = (f(chi2, saturated.df, baseline, pairs) for f in (measures.cfi, measures.tli))
        srmr = srmr_nomean = NAN
        if self.n_missing:
            notes.append("no SRMR: the sample covariance is not known where values are missing")
        else:
            squares = measures.residual_squares(self.covariance, data)
            srmr = measures.srmr(squares, n, with_means=self.coefficients.shape[1] > 0)
            srmr_nomean = measures.srmr(squares, n, with_means=False)
        return FitMeasures(
            nobs=nobs,
            n_parameters=self.df_model,
            llf=self.llf,
            llf_saturated=saturated.llf,
            llf_independence=independence,
            aic=self.aic,
            bic=self.bic,
            sabic=self.sabic,
            ebic=self.ebic(),
            chi2=chi2,
            df=saturated.df if not saturated.why_not else NAN,
            pvalue=p,
            baseline_chi2=baseline,
            baseline_df=pairs if not np.isnan(baseline) else NAN,
            baseline_pvalue=baseline_p,
            independence_chi2=gain,
            independence_df=free,
            cfi=cfi,
            tli=tli,
            rmsea=rmsea,
            rmsea_lower=lower,
            rmsea_upper=upper,
            rmsea_pvalue=close,
            srmr=srmr,
            srmr_nomean=srmr_nomean,
            notes=tuple(notes),
        )

    def residual_correlations(self, top: int = 20) -> pd.DataFrame:
        """The pairs of features whose correlation the model misses most.

        Parameters
        ----------
        top : int
            How many pairs.

        Returns
        -------
        DataFrame
            One row a pair, the largest residual first: ``first`` and ``second``, the features; ``sample``, their
            correlation in the data, covariates taken off; ``fitted``, the model's; ``residual``, the difference; ``z``,
            the difference of Fisher's transforms in standard errors of a sample correlation; ``nobs``, the (effective)
            number of observations that have both.

        Raises
        ------
        ValueError
            If the results hold no data, or there is no pair.

        Notes
        -----
        ``z`` takes the model's correlation as known. As it was fitted to the same data, and as these are the largest
        of many pairs, it is a measure of size and not a test.

        Where values are missing, a pair's sample correlation is that of the observations that have both, about the
        fitted means. Unlike the fit itself, it is biased where what is missing depends on other features. Pairs that
        fewer than 10 observations have are left out.

        All pairs are looked at, block by block, and no more than a block of them is kept.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> results.residual_correlations(top=3).drop(columns=["z", "nobs"]).round(2)
                 first        second  sample  fitted  residual
        0  t17_objnumb  t10_addition    0.33    0.07      0.26
        1  t17_objnumb      t11_code    0.34    0.12      0.22
        2    t24_woody  t10_addition    0.38    0.17      0.20
        """
        if isinstance(top, bool) or not isinstance(top, numbers.Integral) or top < 1:
            raise ValueError(f"top must be a whole number of pairs, 1 or more, not {top!r}")
        model, n = self._with_data("residual correlations"), self.hierarchy.n_features
        if n < 2:
            raise ValueError("residual correlations: there is a single feature, and no pair")
        coefficients = self.coefficients.to_numpy()[self.hierarchy.permutation]
        least = LEAST if self.n_missing else 0.0
        pairs = largest_residuals(self.covariance, model._data, coefficients, min(int(top), n * (n - 1) // 2), least)
        # Each pair in the order of the user's features.
        a, b = (self.hierarchy.permutation[part] for part in (pairs.first, pairs.second))
        names = np.empty(n, dtype=object)
        names[:] = list(self.hierarchy.features)
        return pd.DataFrame(
            {
                "first": pd.Series(names[np.minimum(a, b)], dtype=object),
                "second": pd.Series(names[np.maximum(a, b)], dtype=object),
                "sample": pairs.sample,
                "fitted": pairs.fitted,
                "residual": pairs.residual,
                "z": pairs.z(self.coefficients.shape[1]),
                "nobs": pairs.counts,
            }
        )
