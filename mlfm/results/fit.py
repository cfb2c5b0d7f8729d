"""Tests of one fit against another."""

from __future__ import annotations

from mlfm.inference.likelihood_ratio import LikelihoodRatio, likelihood_ratio, spans
from mlfm.results.estimates import Estimates
from mlfm.wording import listing


class FitResults(Estimates):
    """How well a model fits, and against others."""

    def compare_lr_test(self, restricted: Estimates) -> LikelihoodRatio:
        """Likelihood-ratio test of covariates: this fit against one with fewer of them.

        Parameters
        ----------
        restricted : MultilevelFactorResults
            A fit of the same data, groups and ranks, whose covariates are combinations of those here.

        Returns
        -------
        LikelihoodRatio
            ``statistic``, ``pvalue``, ``df_diff``.

        Raises
        ------
        ValueError
            If the fits are of different data, groups or ranks, did not converge, or their covariates do not nest; or if
            the larger model has the lower log-likelihood.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> first, rest = data.endog.columns[0], data.endog.columns[1:]
        >>> endog, groups = data.endog[rest], data.groups.loc[rest]
        >>> results = mlfm.MultilevelFactorModel(endog, data.endog[[first]], hierarchy=groups, ranks=[1, 1]).fit()
        >>> without = mlfm.MultilevelFactorModel(endog, hierarchy=groups, ranks=[1, 1]).fit()
        >>> print(results.compare_lr_test(without))
        Likelihood-ratio test: chi2(23) = 139.877, p = 9.761e-19
        """
        if not isinstance(restricted, Estimates):
            raise TypeError(f"restricted must be results of a fit, not {type(restricted).__name__}")
        full_model, less = self._with_data("the test"), restricted._with_data("the test")
        if not full_model._data.same_as(less._data):
            raise ValueError("restricted: a fit of other data, or weights; both must be of the same observations")
        if self.hierarchy != restricted.hierarchy or not self.ranks.equals(restricted.ranks):
            raise ValueError(
                "restricted: a fit with other groups or ranks, or features in another order; the chi-square is that of "
                "covariates only, as loadings that are not there are not identified. Compare such fits by their "
                "criteria (aic, bic)"
            )
        if self.uniqueness_floor != restricted.uniqueness_floor:
            raise ValueError(
                f"restricted: its uniqueness_floor is {restricted.uniqueness_floor:g}, here it is "
                f"{self.uniqueness_floor:g}; both fits need the same"
            )
        for who, results in (("this fit", self), ("restricted", restricted)):
            if not results.converged:
                raise ValueError(f"{who} did not converge: {results.record.reason}")
        df_diff = self.coefficients.size - restricted.coefficients.size
        if df_diff <= 0 or not spans(full_model.exog, less.exog):
            raise ValueError(
                f"restricted: its covariates ({listing(restricted.coefficients.columns)}) must be fewer than, and "
                f"combinations of, those here ({listing(self.coefficients.columns)})"
            )
        if self.llf < restricted.llf - self.record.tol:
            raise ValueError(
                f"the log-likelihood with more covariates is lower, {self.llf:.4f} against {restricted.llf:.4f}: one "
                "of the fits is at a lower maximum; fit with n_starts=5, say, or start=restricted"
            )
        return likelihood_ratio(restricted.llf, self.llf, df_diff)
