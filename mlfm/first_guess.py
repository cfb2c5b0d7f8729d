"""Parallel analysis: a quick first guess of how many factors each level has."""

from __future__ import annotations

import numbers
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mlfm.hierarchy import Hierarchy
from mlfm.inference.counts import most_identified
from mlfm.inference.resampling import checked_counts
from mlfm.inference.shuffling import Shuffling, Verdict, by_level
from mlfm.model import MultilevelFactorModel
from mlfm.ranks import ranks_by_level
from mlfm.seeds import generator, generators
from mlfm.sweep import Workers
from mlfm.wording import count, listing

TIMES, QUANTILE = 20, 0.95
MOST = 10  # factors that a level may have, unless told otherwise


@dataclass(frozen=True, eq=False)
class ParallelAnalysis:
    """Ranks by level as a first guess, made by :func:`mlfm.parallel_analysis`.

    Attributes
    ----------
    ranks : Series
        Factors of each group, by level.
    table : DataFrame
        By level and number of the factor, up to the first that is not there: ``observed`` and ``shuffled``, the
        eigenvalues of the median group, of its data and of shuffled data (of these the quantile); ``share``, that of
        the features in groups that ask for so many factors. A level is not there if none of its groups has several
        parts, or it may have no factors.
    """

    ranks: pd.Series
    table: pd.DataFrame

    def __str__(self) -> str:
        found = ", ".join(f"{level} {rank}" for level, rank in self.ranks.items())
        return f"Parallel analysis: {found}\n\n{self.table.to_string(sparsify=False, float_format='{:.3f}'.format)}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.table.to_html(sparsify=False, float_format="{:.3f}".format))


def parallel_analysis(
    endog: pd.DataFrame | ArrayLike,
    hierarchy: Hierarchy | pd.DataFrame | pd.Index | Sequence[Hashable] | None = None,
    *,
    n_permutations: int = TIMES,
    quantile: float = QUANTILE,
    max_rank: int | Mapping[Any, int] | None = None,
    rng: int | np.random.Generator | None = None,
    n_jobs: int | None = 1,
    exog: pd.DataFrame | pd.Series | ArrayLike | None = None,
    trend: str = "c",
    missing: str = "ml",
    weights: pd.Series | ArrayLike | None = None,
    freq_weights: pd.Series | ArrayLike | None = None,
) -> ParallelAnalysis:
    """How many factors each level has, level by level, by eigenvalues against those of shuffled data.

    Nothing is fitted: a first guess, for :func:`mlfm.select_ranks` or a model of one's own to begin with.

    Parameters
    ----------
    endog, hierarchy, exog, trend, missing, weights, freq_weights
        As for :class:`mlfm.MultilevelFactorModel`. Values that are missing count as their means.
    n_permutations : int
        How often the data are shuffled.
    quantile : float
        Of the eigenvalues of shuffled data, that those of the data must exceed.
    max_rank : int or mapping, optional
        Most factors of each group, of all levels or by level; by default as many as can be identified in the level's
        largest group, at most 10, and at all levels together no more than half of the observations.
    rng : int or numpy Generator, optional
        Seed; None is 0.
    n_jobs : int or None
        Threads; None for as many as the process may use. Results do not depend on it.

    Returns
    -------
    ParallelAnalysis
        With ``ranks`` by level.

    Raises
    ------
    ValueError, TypeError
        For data that the model does not take, or numbers that make no sense.

    Notes
    -----
    Factors of a level are what the parts of its groups have in common, the groups of the next finer level inside them
    or, at the finest, single features. So the observations of each part are put in an order of its own. That destroys
    what parts have in common, and leaves what goes on inside them, which large eigenvalues may come from as well but
    which is for finer levels to explain. (Shuffled feature by feature at the global level, as in Horn's flat analysis,
    data would always seem to have as many global factors as there are groups.) From the coarsest level to the finest,
    each sees what the principal components of the coarser ones leave, of the data and of what was shuffled.

    All groups of a level have as many factors. The level's rank is the largest that groups with at least half of its
    features ask for: one more costs a loading of every feature, whether its group asks for it or not.

    A first guess errs: with many observations a few eigenvalues more than there are factors stand out, as principal
    components of the coarser levels are not quite their factors.

    References
    ----------
    Horn (1965), *A rationale and test for the number of factors in factor analysis*, Psychometrika 30, p. 179.

    Examples
    --------
    >>> import mlfm
    >>> data = mlfm.datasets.load("abilities")
    >>> print(mlfm.parallel_analysis(data.endog, data.groups))
    Parallel analysis: global 1, ability 1
    <BLANKLINE>
                    observed  shuffled  share
    level   number
    global  1          7.282     3.983  1.000
    global  2          2.401     2.956  0.000
    ability 1          1.306     0.982  0.792
    ability 2          0.652     0.874  0.000
    """
    checked_counts(n_permutations, 1, n_jobs, "n_permutations")
    if isinstance(quantile, bool) or not isinstance(quantile, numbers.Real) or not 0 < float(quantile) < 1:
        raise ValueError(f"quantile must lie between 0 and 1, not {quantile!r}")
    model = without_factors(
        endog, hierarchy, exog=exog, trend=trend, missing=missing, weights=weights, freq_weights=freq_weights
    )
    most = most_by_level(max_rank, model)
    return _analysed(model, most, int(n_permutations), float(quantile), generator(rng), n_jobs)


def parallel_ranks(
    model: MultilevelFactorModel, most: Sequence[int], rng: int | np.random.Generator | None, n_jobs: int | None
) -> tuple[int, ...]:
    """The ranks that the parallel analysis of a model's data guesses."""
    return tuple(int(rank) for rank in _analysed(model, most, TIMES, QUANTILE, generator(rng), n_jobs).ranks)


def _analysed(
    model: MultilevelFactorModel, most: Sequence[int], times: int, quantile: float, rng: np.random.Generator,
    n_jobs: int | None,
) -> ParallelAnalysis:  # fmt: skip
    model = model._each_in_a_row()
    data, hierarchy = model._data, model.hierarchy
    E = data.Y.astype(np.float64)
    E -= (E @ data.weights / data.nobs)[:, None] if model.trend == "c" else 0.0
    roots = np.sqrt(data.weights / data.nobs)
    E /= np.sqrt(np.einsum("jn,n->j", E**2, data.weights / data.nobs))[:, None]  # less where values are missing
    with Workers(n_jobs) as workers:
        how = Shuffling(times, quantile, lambda number: generators(rng, number), workers.run)
        verdicts = list(by_level(E, roots, hierarchy.offsets, most, how))
    levels = pd.Index(hierarchy.levels, name="level", tupleize_cols=False)
    ranks = pd.Series([verdict.rank for verdict in verdicts], index=levels, name="rank")
    return ParallelAnalysis(ranks, _table(hierarchy.levels, verdicts))


def _table(levels: Sequence[Hashable], verdicts: Sequence[Verdict]) -> pd.DataFrame:
    def rows() -> Iterator[tuple[Any, ...]]:
        for level, verdict in zip(levels, verdicts, strict=True):
            for k, numbers_ in enumerate(zip(verdict.observed, verdict.shuffled, verdict.share, strict=True), start=1):
                yield (level, k, *map(float, numbers_))

    frame = pd.DataFrame(rows(), columns=["level", "number", "observed", "shuffled", "share"])
    return frame.set_index(["level", "number"])


def without_factors(
    endog: pd.DataFrame | ArrayLike,
    hierarchy: Hierarchy | pd.DataFrame | pd.Index | Sequence[Hashable] | None,
    **options: Any,
) -> MultilevelFactorModel:
    """A model of the data before its ranks are known."""
    return MultilevelFactorModel(endog, hierarchy=hierarchy, ranks={}, **options)


def most_by_level(max_rank: int | Mapping[Any, int] | None, model: MultilevelFactorModel) -> tuple[int, ...]:
    """The largest rank of each level that may be chosen.

    A number for all levels is lowered to what a level can have; a mapping must be possible as it is, and levels that it
    does not name are as by default.
    """
    hierarchy = model.hierarchy
    can = [min(int(np.diff(bounds).max()), model.nobs) for bounds in hierarchy.offsets]
    # With nearly as many factors as observations, in all, any data are fitted to the last digit.
    few = max((model.nobs - 1) // (2 * len(can)), 1)
    usual = [min(MOST, few, most_identified(hierarchy, level), top) for level, top in enumerate(can)]
    if max_rank is None:
        return tuple(usual)
    if isinstance(max_rank, (Mapping, pd.Series)):
        given = dict(max_rank)
        ranks = ranks_by_level(given, hierarchy, "max_rank")
        over = [level for level, rank, top in zip(hierarchy.levels, ranks, can, strict=True) if rank > top]
        if over:
            raise ValueError(
                f"max_rank: more factors than the largest group has features, or than there are observations "
                f"({count(model.nobs, 'observation')}), at level {listing(over)}"
            )
        return tuple(
            rank if level in given else top for level, rank, top in zip(hierarchy.levels, ranks, usual, strict=True)
        )
    if isinstance(max_rank, bool) or not isinstance(max_rank, numbers.Integral) or max_rank < 0:
        raise ValueError(
            f"max_rank must be a whole number, 0 or more, or a mapping from level to one, not {max_rank!r}"
        )
    return tuple(min(int(max_rank), top) for top in can)
