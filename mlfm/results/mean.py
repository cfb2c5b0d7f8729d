"""Covariates of the mean: coefficients and their standard errors, tests, fitted and predicted values."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mlfm.arrays import as_pandas, floating_array
from mlfm.covariates import covariates
from mlfm.inference.coefficients import chosen_terms, table, wald_table
from mlfm.inference.tables import check_alpha
from mlfm.results.uncertainty import UncertaintyResults
from mlfm.wording import count, listing


class MeanResults(UncertaintyResults):
    """What a fit says about the mean."""

    @property
    def fittedvalues(self) -> pd.DataFrame:
        """The mean of each observation, observations x features: covariates times coefficients."""
        model = self._with_data("fitted values")
        return self._of_observations(model.exog @ self.coefficients.to_numpy().T)

    @property
    def resid(self) -> pd.DataFrame:
        """The data less :attr:`fittedvalues`; missing where they are."""
        return self._of_observations(self._with_data("residuals").endog) - self.fittedvalues

    def predict(self, exog: Any = None) -> pd.DataFrame:
        """The mean of new observations.

        Parameters
        ----------
        exog : DataFrame, Series or array, optional
            New observations x covariates, without the constant that the model added. After a formula, a DataFrame of
            the variables that its mean terms use; results loaded from a file take the design matrix's own columns
            instead. By default the observations of the model.

        Returns
        -------
        DataFrame
            Observations x features.

        Raises
        ------
        ValueError, TypeError
            If covariates are absent, missing or infinite.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> first, rest = data.groups.index[0], data.groups.index[1:]
        >>> endog, groups = data.endog[rest], data.groups.loc[rest]
        >>> results = mlfm.MultilevelFactorModel(endog, data.endog[[first]], hierarchy=groups, ranks=[1, 1]).fit()
        >>> results.predict([[0.0], [1.0]]).iloc[:, :2].round(2)
        feature  t21_numbpuzz  t22_probreas
        0                2.94          2.35
        1                3.36          2.73
        """
        if exog is None:
            return self.fittedvalues
        design = self._new_design(as_pandas(exog))
        values = design.to_numpy() @ self.coefficients.to_numpy().T
        return pd.DataFrame(values, index=design.index, columns=self.coefficients.index)

    def _new_design(self, exog: Any) -> pd.DataFrame:
        """Covariates of new observations, the constant among them."""
        names = self.coefficients.columns
        if isinstance(exog, pd.Series):
            exog = exog.to_frame("x1" if exog.name is None else exog.name)
        framed = isinstance(exog, pd.DataFrame)
        if self.design is not None and self.design.rule is not None:
            if not framed:
                raise TypeError(
                    f"exog: after a formula, a DataFrame of the variables of {self.design.text!r} is needed, not "
                    f"{type(exog).__name__}"
                )
            return self.design.of(exog)
        if self.design is not None and not (framed and set(names) <= set(exog.columns)):
            return self.design.of(exog)  # which says what it needs
        constant = self.trend == "c"
        wanted = names[1:] if constant else names
        if framed:
            absent = wanted.difference(exog.columns, sort=False)
            if len(absent):
                needed = listing(wanted, most=20)
                raise ValueError(f"exog: covariates are absent: {listing(absent)}; needed are {needed}")
            exog = exog[list(wanted)]
        elif floating_array(exog, "exog").ndim not in (1, 2):
            raise ValueError(f"exog: observations x {listing(wanted, most=20)} are needed, not {exog!r}")
        index = exog.index if framed else pd.RangeIndex(len(exog))
        frame = covariates(exog, index, False, constant)
        if frame.shape[1] != len(names):
            raise ValueError(
                f"exog: {count(frame.shape[1] - constant, 'column')}, but the model has "
                f"{count(len(wanted), 'covariate')}: {listing(wanted, most=20)}"
            )
        return frame.set_axis(names, axis=1)

    @cached_property
    def coefficients_bse(self) -> pd.DataFrame:
        """Standard errors of the coefficients: those of :attr:`bse`, features x covariates.

        With complete data and an information matrix Var(vec B) = Sigma (x) (X'X)^-1. With importance weights they are
        those of so many effective observations.

        Raises
        ------
        ValueError
            With missing values, if there are more than 4000 coefficients, or if the results were loaded from a file and
            the standard errors not worked out before they were saved.
        """
        errors = np.sqrt(self._coefficient_covariance.variances)
        return pd.DataFrame(errors, index=self.coefficients.index, columns=self.coefficients.columns)

    def coefficients_table(self, alpha: float = 0.05) -> pd.DataFrame:
        """The coefficients with standard errors, z statistics, p-values and intervals.

        Parameters
        ----------
        alpha : float
            One less the coverage of the intervals.

        Returns
        -------
        DataFrame
            Indexed by feature and covariate.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> first, rest = data.groups.index[0], data.groups.index[1:]
        >>> model = mlfm.MultilevelFactorModel(
        ...     data.endog[rest], data.endog[first], hierarchy=data.groups.loc[rest], ranks=[1, 1]
        ... )
        >>> model.fit().coefficients_table().head(2).round(3)
                                     coef  std err       z  P>|z|  [0.025  0.975]
        feature      covariate
        t21_numbpuzz const          2.944    0.104  28.402    0.0   2.741   3.147
                     t20_deduction  0.414    0.056   7.346    0.0   0.304   0.524
        """
        check_alpha(alpha)
        return table(self.coefficients, self.coefficients_bse, alpha)

    def wald_test_terms(self, terms: Any = None) -> pd.DataFrame:
        """Wald tests of covariates: that the coefficients of a term are zero for all features.

        Parameters
        ----------
        terms : mapping from names to lists of covariates, optional
            By default the terms of the formula, all columns of a category or a spline together; without a formula each
            covariate is a term.

        Returns
        -------
        DataFrame
            ``chi2``, ``df`` and ``P>chi2`` by term.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> first, rest = data.groups.index[0], data.groups.index[1:]
        >>> endog, groups = data.endog[rest], data.groups.loc[rest]
        >>> results = mlfm.MultilevelFactorModel(endog, data.endog[[first]], hierarchy=groups, ranks=[1, 1]).fit()
        >>> results.wald_test_terms().round(1)
                          chi2  df  P>chi2
        term
        const          13659.7  23     0.0
        t20_deduction    178.5  23     0.0
        """
        if terms is None and self.design is not None:
            terms = self.design.terms
        values, chosen = self.coefficients.to_numpy(), chosen_terms(terms, self.coefficients.columns)
        return wald_table({name: self._coefficient_covariance.wald(values, own) for name, own in chosen.items()})
