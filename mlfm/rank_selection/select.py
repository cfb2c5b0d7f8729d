"""select_ranks: how many factors each level has, by likelihood."""

from __future__ import annotations

import numbers
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mlfm.estimation import checked_penalty
from mlfm.first_guess import most_by_level, parallel_ranks, without_factors
from mlfm.hierarchy import Hierarchy
from mlfm.model import MultilevelFactorModel
from mlfm.progress import counting_bar
from mlfm.rank_selection.candidates import Candidates
from mlfm.rank_selection.criteria import CRITERIA, CROSS_VALIDATION
from mlfm.rank_selection.moves import coarsest_first, finest_first, uniform
from mlfm.rank_selection.search import Bounds, Search
from mlfm.rank_selection.selection import RankSelection
from mlfm.ranks import ByLevel, ranks_by_level
from mlfm.ranks import Ranks as RanksGiven
from mlfm.validation import checked_jobs, splits_of
from mlfm.wording import count, listing


def select_ranks(
    endog: pd.DataFrame | ArrayLike,
    hierarchy: Hierarchy | pd.DataFrame | pd.Index | Sequence[Hashable] | None = None,
    criterion: str = "bic",
    *,
    total: int | None = None,
    max_rank: int | Mapping[Any, int] | None = None,
    start: RanksGiven | None = None,
    n_splits: int | Iterable[tuple[Any, Any]] = 5,
    rng: int | np.random.Generator | None = None,
    n_jobs: int | None = 1,
    progress: bool | None = None,
    exog: pd.DataFrame | pd.Series | ArrayLike | None = None,
    trend: str = "c",
    missing: str = "ml",
    weights: pd.Series | ArrayLike | None = None,
    freq_weights: pd.Series | ArrayLike | None = None,
    uniqueness_floor: float = 1e-4,
    penalty: str | None = None,
) -> RankSelection:
    """How many factors each level has: the ranks with the best criterion, by a search from neighbour to neighbour.

    Parameters
    ----------
    endog, hierarchy, exog, trend, missing, weights, freq_weights, uniqueness_floor
        As for :class:`mlfm.MultilevelFactorModel`.
    criterion : {"bic", "aic", "sabic", "ebic", "cv"}
        An information criterion, or "cv": the log-likelihood of observations held out (:func:`mlfm.cross_validate`),
        by the same folds for all ranks, with ``n_splits + 1`` times as many fits.
    total : int, optional
        A sum of ranks to keep, for a choice among models of about the same size: a factor more costs a loading of every
        feature at any level. Only exchanges between levels are tried then.
    max_rank : int or mapping, optional
        Most factors of each group, of all levels or by level; by default as many as can be identified in the level's
        largest group, at most 10, and at all levels together no more than half of the observations.
    start : mapping or sequence, optional
        Ranks where the search begins, instead of its own starts.
    n_splits : int, iterable of pairs, or splitter
        Folds for "cv", as for :func:`mlfm.cross_validate`.
    rng : int or numpy Generator, optional
        For the folds and for the parallel analysis; None is seed 0.
    n_jobs : int or None
        Fits at a time, each on one thread; None takes all processors. Results do not depend on it.
    progress : bool, optional
        Show how many ranks have been tried; by default on a terminal.
    penalty : {"none", "soft"}, optional
        As for :meth:`mlfm.MultilevelFactorModel.fit`; criteria are of log-likelihoods without the penalty.

    Returns
    -------
    RankSelection
        With ``ranks``, ``results`` (the fit with them) and ``path`` (all that was tried).

    Raises
    ------
    ValueError, TypeError
        For data that the model does not take, an unknown criterion, ranks that cannot be, or a total that there is no
        room for.

    Warns
    -----
    IdentificationWarning, ConvergenceWarning, UniquenessFloorWarning
        Of the fit with the ranks that are chosen. What the other fits would say is not said.

    Notes
    -----
    Neighbours of ranks have one factor more at a level, one less, or one more at one level and one less at another (all
    groups of a level have as many). The search tries those first that should be best by what the log-likelihood is
    expected to gain and lose, two at a time, and moves on when one is better than where it stands. It ends when all
    neighbours have been fitted and none is better: at ranks that are the best within one move. Ranks further away may
    be better yet. So it is made twice, from no factors at all and from what :func:`mlfm.parallel_analysis` says; with
    ``total`` three times, from ranks that are as equal as can be, and from all that there is room for at the finest and
    at the coarsest level.

    No ranks are tried twice. Each are fitted from principal components and from where the neighbour's fit ended (with
    the loadings of the new factor that raise the likelihood most, all else held), and the higher end is kept; where a
    fit ends below that of smaller ranks, it is begun there, too. (With ``total`` there are none, and "top-down" is a
    start as well.) At the end the highest maximum of the best ranks, and of all that are close behind, is searched for
    as :meth:`MultilevelFactorModel.fit` does; where these searches come higher at other ranks on their way, the fits
    there are begun again. Fits that do not converge are not chosen, unless all do not.

    Standard errors, tests and intervals of the fit that is chosen take its ranks as known.

    References
    ----------
    Parshakova, Hastie, Darve and Boyd, *Factor Fitting, Rank Allocation, and Partitioning in Multilevel Low Rank
    Matrices* (arXiv 2310.19214): exchanges that lower the Frobenius norm of what is left.

    Examples
    --------
    >>> import mlfm
    >>> data = mlfm.datasets.load("abilities")
    >>> selection = mlfm.select_ranks(data.endog, data.groups)
    >>> print(selection)
    Ranks by BIC: global 1, ability 1 (of 8 fits)
    <BLANKLINE>
                          llf df_model       bic   behind converged
    global ability
    1      1         -9673.07       96  19894.02     0.00       yes
    2      1         -9613.91      119  19906.98    12.96       yes
    1      2         -9645.36      115  19947.05    53.03       yes
    2      0         -9786.62       95  20115.42   221.40       yes
    0      1         -9919.23       72  20249.37   355.35       yes
    0      2         -9889.39       91  20298.13   404.11       yes
    1      0        -10051.17       72  20513.26   619.24       yes
    0      0        -10948.10       48  22170.14  2276.12       yes
    """
    if not isinstance(criterion, str) or criterion not in (*CRITERIA, CROSS_VALIDATION):
        raise ValueError(f"criterion must be one of {listing((*CRITERIA, CROSS_VALIDATION))}, not {criterion!r}")
    checked_jobs(n_jobs)
    penalty = checked_penalty(penalty)
    model = without_factors(
        endog, hierarchy, exog=exog, trend=trend, missing=missing, weights=weights, freq_weights=freq_weights,
        uniqueness_floor=uniqueness_floor,
    )  # fmt: skip
    splits = splits_of(n_splits, model, rng) if criterion == CROSS_VALIDATION else []
    most = most_by_level(max_rank, model)
    keep = _total(total, most, model)
    starts = _starts(start, keep, most, model, rng, n_jobs)
    with counting_bar(progress, None, "select_ranks") as show:
        candidates = Candidates(model, criterion, splits, 1 if keep is None else 2, n_jobs, penalty, show)
        search = Search(candidates, Bounds(most, keep is not None))
        for name, ranks in starts:
            search.climb(f"start: {name}", ranks)
        chosen = search.finish()
    results = candidates.known[chosen].results
    own = results._with_data("the selection of ranks")
    own._warn_of_unidentified()
    own._warn_of_outcome(results)
    notes = tuple(_notes(candidates, chosen, most, max_rank is None))
    return RankSelection(own.ranks, results, criterion, _path(candidates), search.routes, notes)


def _total(total: Any, most: ByLevel, model: MultilevelFactorModel) -> int | None:
    if total is None:
        return None
    if isinstance(total, bool) or not isinstance(total, numbers.Integral) or total < 1:
        raise ValueError(f"total must be a whole number, 1 or more, or None, not {total!r}")
    if int(total) > sum(most):
        room = ", ".join(f"{level} {top}" for level, top in zip(model.hierarchy.levels, most, strict=True))
        raise ValueError(f"total: there is room for {sum(most)} factors only ({room}), not {total}; raise max_rank")
    return int(total)


def _starts(
    start: Any, total: int | None, most: ByLevel, model: MultilevelFactorModel, rng: Any, n_jobs: int | None
) -> list[tuple[str, ByLevel]]:
    """Where the search begins, by name."""
    if start is not None:
        return [("as asked", _given_start(start, total, most, model))]
    if total is not None:
        return [
            ("uniform", uniform(total, most)),
            ("finest levels first", finest_first(total, most)),
            ("coarsest levels first", coarsest_first(total, most)),
        ]
    return [
        ("no factors", (0,) * len(most)),
        ("parallel analysis", parallel_ranks(model, most, rng, n_jobs)),
    ]


def _given_start(start: Any, total: int | None, most: ByLevel, model: MultilevelFactorModel) -> ByLevel:
    ranks = ranks_by_level(start, model.hierarchy, "start")
    over = [
        f"{level!r} ({rank}, at most {top})"
        for level, rank, top in zip(model.hierarchy.levels, ranks, most, strict=True)
        if rank > top
    ]
    if over:
        raise ValueError(f"start: more factors than max_rank allows at level {', '.join(over)}")
    if total is not None and sum(ranks) != total:
        raise ValueError(f"start: these are {count(sum(ranks), 'factor')}, and total is {total}")
    return ranks


def _path(candidates: Candidates) -> pd.DataFrame:
    rows = []
    for candidate in candidates.known.values():
        fit, validated = candidate.results, candidate.validated
        row: dict[str, Any] = {"climb": candidate.climb, "step": candidate.step, "move": candidate.move}
        row |= {"llf": fit.llf, "df_model": fit.df_model, "aic": fit.aic, "bic": fit.bic}
        row |= {"sabic": fit.sabic, "ebic": fit.ebic()}
        if validated is not None:
            row |= {"cv": validated.mean, "cv_se": validated.std_error}
        rows.append(row | {"converged": candidate.converged, "accepted": candidate.accepted})
    levels = list(candidates.model.hierarchy.levels)
    index = pd.MultiIndex.from_tuples(list(candidates.known), names=levels)
    return pd.DataFrame(rows, index=index)


def _notes(candidates: Candidates, chosen: ByLevel, most: ByLevel, by_default: bool) -> list[str]:
    notes = []
    levels = candidates.model.hierarchy.levels
    at_most = [level for level, rank, top in zip(levels, chosen, most, strict=True) if top and rank == top]
    if at_most:
        limit = "the default max_rank" if by_default else "max_rank"
        notes.append(f"ended on {limit} at level {listing(at_most)}: a larger one may be better")
    failed = [ranks for ranks, candidate in candidates.known.items() if not candidate.converged]
    if failed:
        notes.append(f"did not converge, and so could not be chosen: {listing(failed)}")
    return notes
