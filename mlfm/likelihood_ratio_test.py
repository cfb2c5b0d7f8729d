"""lr_test: one fit against that of a smaller model, with a p-value also where twice the gain is not chi-square."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from mlfm.exceptions import BootstrapWarning, LowerMaximumWarning, warn_caller
from mlfm.inference.likelihood_ratio import (
    BootstrapLikelihoodRatio,
    LikelihoodRatio,
    bootstrap_pvalue,
    likelihood_ratio,
    statistic,
)
from mlfm.inference.resampling import checked_counts, each, simulation
from mlfm.progress import counting_bar
from mlfm.results import MultilevelFactorResults
from mlfm.results.likelihood_ratio import nested
from mlfm.seeds import generators
from mlfm.wording import count, listing

METHODS = ("bootstrap", "chi2")


def lr_test(
    restricted: MultilevelFactorResults,
    full: MultilevelFactorResults,
    method: str = "bootstrap",
    n_reps: int = 199,
    rng: Any = None,
    n_jobs: int | None = 1,
    disp: bool = False,
) -> LikelihoodRatio | BootstrapLikelihoodRatio:
    """Likelihood-ratio test of a fit against that of a larger model.

    Parameters
    ----------
    restricted, full : MultilevelFactorResults
        Fits of the same data, the first of a model that is a special case of the second's: fewer covariates (or
        combinations of the second's), smaller ranks, or a coarser hierarchy.
    method : {"bootstrap", "chi2"}
        "bootstrap": data are drawn from the restricted fit (as by :meth:`MultilevelFactorResults.bootstrap`,
        parametric), both models fitted to them, and the p-value is the share of statistics as large as the one
        observed, itself among them. "chi2": that of the chi-square distribution, valid in large samples where both
        models have the same factors; see :meth:`MultilevelFactorResults.compare_lr_test`.
    n_reps : int
        Number of data sets drawn. The smallest p-value that can come out is 1 / (n_reps + 1).
    rng : int or numpy Generator, optional
        Seed; None is 0. Each replicate has a generator of its own, spawned from it.
    n_jobs : int, optional
        Threads, a replicate on each; None for as many as the process may use. Results do not depend on it.
    disp : bool
        Show a progress bar.

    Returns
    -------
    BootstrapLikelihoodRatio or LikelihoodRatio
        ``statistic``, ``pvalue``, ``df_diff``; with "bootstrap" also how the replicates came out.

    Raises
    ------
    ValueError
        If the fits are of different data, did not converge, their models do not nest, or the larger model has the lower
        log-likelihood; for "chi2" if the larger model has more factors; if no replicate is left.

    Warns
    -----
    LowerMaximumWarning
        If the larger model has a higher maximum than that of ``full``; the statistic is then that of the higher one.
    BootstrapWarning
        If replicates are left out, as one of the fits failed, did not converge, or ended too low.

    Notes
    -----
    With one rank against another the chi-square does not hold, as loadings of factors that are not there are not
    identified. In a replicate the restricted model is fitted from the estimates on, the larger one both from where that
    ended and from its default starts, and the higher of the two is taken: with few features a group either is often the
    lower one. A fit from many more starts than these can make the p-value too small. Davison and Hinkley (1997),
    *Bootstrap Methods and their Application*, section 4.2.

    Examples
    --------
    >>> import mlfm
    >>> data = mlfm.datasets.load("abilities")
    >>> less = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 0]).fit()
    >>> more = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
    >>> test = mlfm.lr_test(less, more, n_reps=9)
    >>> print(f"{test.statistic:.0f}, p = {test.pvalue:.2f}")
    756, p = 0.10
    """
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {listing(METHODS)}, not {method!r}")
    checked_counts(n_reps, 1, n_jobs)
    nesting = nested(restricted, full)
    if method == "bootstrap":
        with counting_bar(disp, n_reps, "lr_test") as show:
            return _bootstrap_test(restricted, full, nesting.df_diff, int(n_reps), rng, n_jobs, show)
    if not nesting.same_factors:
        raise ValueError(
            'method: "chi2" is not valid here: the larger model has more factors, whose loadings are not identified '
            'where they are not there; use method="bootstrap"'
        )
    return likelihood_ratio(restricted.llf, full.llf, nesting.df_diff)


def _bootstrap_test(
    restricted: MultilevelFactorResults,
    full: MultilevelFactorResults,
    df_diff: int,
    n_reps: int,
    rng: Any,
    n_jobs: int | None,
    show: Callable[[], None],
) -> BootstrapLikelihoodRatio:
    observed = statistic(restricted.llf, _highest(restricted, full))
    small, large = (fit._with_data("the test")._each_in_a_row() for fit in (restricted, full))
    columns = restricted.hierarchy.features.get_indexer(full.hierarchy.features)
    draw, seeds = simulation(restricted, small), generators(rng, n_reps)
    values, on_floor, outcomes = np.full(n_reps, np.nan), np.zeros(n_reps, dtype=bool), [""] * n_reps

    def replicate(i: int) -> None:
        data = draw(seeds[i])
        try:
            # Searched as the fits of the data were; also from where these ended, and the larger model from the smaller.
            less = _higher(small._of_other_data(values=data), restricted, restricted)
            more = _higher(large._of_other_data(values=data[:, columns]), full, less)
        except ValueError as error:  # that of data that allow no fit
            outcomes[i] = f"failed ({error})"
            return
        if not (less.converged and more.converged):
            outcomes[i] = "did not converge"
        elif more.record.llf < less.record.llf - less.record.tol - more.record.tol:
            outcomes[i] = "ended at a lower maximum of the larger model"
        else:
            values[i] = statistic(less.llf, more.llf)
            on_floor[i] = len(less.on_floor) or len(more.on_floor)

    each(replicate, n_reps, n_jobs, show)
    used = ~np.isnan(values)
    lost = Counter(outcome for outcome in outcomes if outcome)
    reasons = "; ".join(f"{number} {outcome}" for outcome, number in lost.items())
    if not used.any():
        raise ValueError(f"all of {count(n_reps, 'replicate')} are lost: {reasons}")
    if lost:
        warn_caller(f"{n_reps - used.sum()} of {count(n_reps, 'replicate')} left out: {reasons}", BootstrapWarning)
    values = values[used]
    return BootstrapLikelihoodRatio(
        observed,
        bootstrap_pvalue(observed, values),
        df_diff,
        n_reps=len(values),
        n_left_out=n_reps - len(values),
        n_on_floor=int(on_floor.sum()),
        replicates=values,
    )


def _higher(model: Any, like: MultilevelFactorResults, start: MultilevelFactorResults) -> MultilevelFactorResults:
    """A fit of the model as another one was made, or the one that begins where ``start`` ended, if that is higher."""
    return max((model._refit(like, own) for own in (start, None)), key=lambda fit: fit.record.llf)


def _highest(restricted: MultilevelFactorResults, full: MultilevelFactorResults) -> float:
    """The larger model's log-likelihood, found as in the replicates: also from where the restricted fit ended."""
    again = full._with_data("the test")._refit(like=full, start=restricted)
    here, there = full.record.llf, again.record.llf  # what was maximised
    if there > here + again.record.tol + full.record.tol:
        warn_caller(
            f"the fit of the larger model is at a lower maximum, {here:.4f}, than the one that is reached from the "
            f"restricted fit, {there:.4f}; the statistic is that of the higher. Fit it with start=restricted",
            LowerMaximumWarning,
        )
    return max(full, again, key=lambda fit: fit.record.llf).llf
