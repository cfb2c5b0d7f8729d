"""Tables, pages and plots of a fit."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, cast

import pandas as pd

from mlfm.inference.tables import check_alpha
from mlfm.inference.weak_factors import WeakFactor, weak_factors
from mlfm.reporting.frame import summary_frame
from mlfm.reporting.level_summary import level_summary
from mlfm.reporting.plots import Plots
from mlfm.reporting.summary import summary
from mlfm.reporting.summary2 import summary2
from mlfm.results.estimates import Estimates

if TYPE_CHECKING:
    from statsmodels.iolib.summary import Summary
    from statsmodels.iolib.summary2 import Summary as Summary2

    from mlfm.results.results import MultilevelFactorResults


class ReportResults(Estimates):
    """What is shown of a fit."""

    @property
    def _whole(self) -> MultilevelFactorResults:
        """The results with all that the other mixins say of them."""
        return cast("MultilevelFactorResults", self)

    def summary(self, level: Hashable | None = None, alpha: float = 0.05) -> Summary:
        """Tables of the fit.

        Parameters
        ----------
        level : hashable, optional
            By default an overview: header, levels, covariates, the largest loadings of each factor, and notes that say
            what is doubtful. With a level's name ("global" is the first) every group of that level: its features'
            loadings on its factors, their uniquenesses with the share of their variance that all factors explain, each
            with standard error, z, p-value and interval. Of groups of more than 40 features those with the largest
            loadings, and of many groups the first; the table says how many more there are.
        alpha : float
            One less the coverage of the intervals.

        Returns
        -------
        statsmodels.iolib.summary.Summary
            With ``as_text`` (within 80 columns), ``as_html`` and ``as_latex``; labels are escaped.

        Raises
        ------
        ValueError
            If there is no such level.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> [line for line in results.summary("ability").as_text().splitlines() if "features;" in line][1].strip()
        'memory: 6 features; share of variance 0.2001'
        """
        check_alpha(alpha)
        if level is None:
            return summary(self._whole)
        return level_summary(self._whole, level, alpha)

    def summary2(self, alpha: float = 0.05) -> Summary2:
        """The overview in the layout of statsmodels' ``summary2``, with standard errors of the largest loadings.

        Parameters
        ----------
        alpha : float
            One less the coverage of the intervals.

        Returns
        -------
        statsmodels.iolib.summary2.Summary
            With ``as_text``, ``as_html`` and ``as_latex``, and its ``tables`` as DataFrames.
        """
        check_alpha(alpha)
        return summary2(self._whole, alpha)

    def summary_frame(self, which: str | None = None, alpha: float = 0.05) -> pd.DataFrame:
        """The estimates with standard errors, z statistics, p-values and intervals.

        Parameters
        ----------
        which : {None, "coefficients", "loadings", "uniquenesses"}
            All parameters, named as in :attr:`params`; or those of one kind, indexed by feature and covariate, by
            feature, level and factor, or by feature.
        alpha : float
            One less the coverage of the intervals.

        Returns
        -------
        DataFrame
            Columns "coef", "std err", "z", "P>|z|" and the two ends of the interval. Where standard errors cannot be
            had (results that hold no data, say), "coef" alone, and ``attrs["no_standard_errors"]`` says why.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> results.summary_frame("loadings")["coef"].head(2).round(2)
        feature        level    factor
        t20_deduction  global   1         0.63
                       ability  1        -0.03
        Name: coef, dtype: float64
        """
        return summary_frame(self._whole, which, alpha)

    @property
    def plot(self) -> Plots:
        """Plots of the fit: ``loadings``, ``covariance``, ``residual_correlations``, ``variance_shares``, ``scree``,
        ``convergence`` and ``scores``.
        """
        return Plots(self._whole)

    def weak_factors(self) -> list[WeakFactor]:
        """Factors with fewer than three sizeable loadings, which the data can hardly tell from a correlation of two.

        A loading is sizeable where the standardised one, its correlation with the feature, is 0.3 or more in size, so
        that the factor explains a tenth of the feature's variance. Groups of one or two features always count. Where
        a group has several factors the answer depends on their rotation.

        Returns
        -------
        list of WeakFactor
            ``level``, ``group``, ``factor`` (from 1) and ``sizeable``, the number of such loadings.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> results.weak_factors()
        [WeakFactor(level='ability', group='math', factor=1, sizeable=0)]
        """
        return weak_factors(self.hierarchy, list(self.ranks), self.loadings.to_numpy(), self.covariance.diagonal())
