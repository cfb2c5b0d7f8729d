"""The likelihood-ratio test of one fit against another."""

from __future__ import annotations

from typing import NamedTuple

from mlfm.exceptions import IrregularTestWarning, warn_caller
from mlfm.inference.likelihood_ratio import LikelihoodRatio, likelihood_ratio, statistic
from mlfm.inference.nested import Factors, spans
from mlfm.results.estimates import Estimates
from mlfm.wording import listing


class Nesting(NamedTuple):
    """How a restricted model sits in a larger one."""

    df_diff: int
    same_factors: bool  # so that they differ in terms of the mean alone


class LikelihoodRatioResults(Estimates):
    """How a fit compares with one of a smaller model."""

    def compare_lr_test(self, restricted: Estimates) -> LikelihoodRatio:
        """Likelihood-ratio test of this fit against one of a smaller model.

        Parameters
        ----------
        restricted : MultilevelFactorResults
            A fit of the same data whose model is a special case of this one: fewer covariates (or combinations of
            those here), smaller ranks, or a coarser hierarchy.

        Returns
        -------
        LikelihoodRatio
            ``statistic``, ``pvalue``, ``df_diff``. With the same factors in both models the statistic is chi-square in
            large samples. Where the larger model has more factors it is not, as the loadings that are not there are not
            identified: the p-value is NaN, and :func:`mlfm.lr_test` works one out.

        Raises
        ------
        ValueError
            If the fits are of different data, did not converge, their models do not nest, or the larger model has the
            lower log-likelihood.

        Warns
        -----
        IrregularTestWarning
            If the statistic is not chi-square.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> first, rest = data.endog.columns[0], data.endog.columns[1:]
        >>> endog, groups = data.endog[rest], data.groups.loc[rest]
        >>> results = mlfm.MultilevelFactorModel(endog, data.endog[[first]], hierarchy=groups, ranks=[1, 1]).fit()
        >>> without = mlfm.MultilevelFactorModel(endog, hierarchy=groups, ranks=[1, 1]).fit()
        >>> print(results.compare_lr_test(without))
        Likelihood-ratio test: chi2(23) = 139.877, p = 9.762e-19
        """
        nesting = nested(restricted, self)
        if nesting.same_factors:
            return likelihood_ratio(restricted.llf, self.llf, nesting.df_diff)
        floor = sorted({*restricted.on_floor, *self.on_floor}, key=self.hierarchy.features.get_loc)
        boundary = f"; nor would it be with uniquenesses on their floor: {listing(floor)}" if floor else ""
        warn_caller(
            "the larger model has more factors, whose loadings are not identified where they are not there: the "
            f"statistic is not chi-square, and no p-value is given{boundary}; use mlfm.lr_test(restricted, full, "
            'method="bootstrap"), or compare aic and bic',
            IrregularTestWarning,
        )
        return LikelihoodRatio(statistic(restricted.llf, self.llf), float("nan"), nesting.df_diff)


def nested(restricted: Estimates, full: Estimates) -> Nesting:
    """How one fit's model sits in the other's; a ValueError where it does not, or the fits cannot be compared."""
    for name, results in (("restricted", restricted), ("full", full)):
        if not isinstance(results, Estimates):
            raise TypeError(f"{name} must be results of a fit, not {type(results).__name__}")
    larger, less = full._with_data("the test"), restricted._with_data("the test")
    features, theirs = full.hierarchy.features, restricted.hierarchy.features
    columns = theirs.get_indexer(features)
    if len(features) != len(theirs) or (columns < 0).any():
        strange = [*features.difference(theirs, sort=False), *theirs.difference(features, sort=False)]
        raise ValueError(f"restricted: a fit of other data; the features {listing(strange)} are in one of the two only")
    if not larger._data.same_as(less._data, columns):
        raise ValueError("restricted: a fit of other data, or weights; both must be of the same observations")
    if full.uniqueness_floor != restricted.uniqueness_floor:
        raise ValueError(
            f"restricted: its uniqueness_floor is {restricted.uniqueness_floor:g}, that of the larger model is "
            f"{full.uniqueness_floor:g}; both fits need the same"
        )
    if full.record.penalty != restricted.record.penalty:
        raise ValueError(
            f"restricted: its penalty is {restricted.record.penalty!r}, that of the larger model is "
            f"{full.record.penalty!r}; both fits need the same"
        )
    for who, results in (("the fit of the larger model", full), ("restricted", restricted)):
        if not results.converged:
            raise ValueError(f"{who} did not converge: {results.record.reason}")
    mine, others = (Factors(fit.hierarchy, list(fit.ranks), features) for fit in (full, restricted))
    others.refuse_unless_within(mine)
    if not spans(larger.exog, less.exog):
        raise ValueError(
            f"restricted: its covariates ({listing(restricted.coefficients.columns)}) must be combinations of those of "
            f"the larger model ({listing(full.coefficients.columns)})"
        )
    df_diff = full.df_model - restricted.df_model
    if df_diff <= 0:
        raise ValueError(
            f"restricted: its model has {restricted.df_model} parameters, and the larger one has {full.df_model}: "
            "there is nothing to test; restricted must be the fit with fewer covariates or factors"
        )
    most, least = full.record.llf, restricted.record.llf  # what was maximised
    if most < least - full.record.tol - restricted.record.tol:
        raise ValueError(
            f"the log-likelihood of the larger model is lower, {most:.4f} against {least:.4f}: one of the "
            "fits is at a lower maximum; fit with n_starts=5, say, or start=restricted"
        )
    return Nesting(df_diff, mine.same_as(others))
