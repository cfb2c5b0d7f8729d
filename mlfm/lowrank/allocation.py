"""Rank allocation: how a given number of ranks, and so of numbers to store, is best shared between the levels."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mlfm.lowrank.descent import Descent
from mlfm.lowrank.exchange import Exchange, exchanges
from mlfm.lowrank.factors import Factors
from mlfm.lowrank.fitting import LowRankFit, checked_stopping, checked_structure, checked_threads, checked_tol, fitted
from mlfm.lowrank.grid import Grid
from mlfm.lowrank.inputs import checked_ranks, largest_rank, refuse_unbounded, source_of
from mlfm.lowrank.methods import METHODS, Problem
from mlfm.lowrank.sample import SampleCovariance
from mlfm.lowrank.sources import Dense, Gram, Source
from mlfm.lowrank.structures import STRUCTURES
from mlfm.lowrank.thinning import prolonged
from mlfm.progress import counting_bar
from mlfm.ranks import Ranks, ranks_by_level
from mlfm.seeds import generator
from mlfm.sweep import Workers
from mlfm.wording import listing, plain

STARTS = ("uniform", "bottom", "top")
TRIED = 5  # pairs of levels that promise most
#: Sweeps that a trial gets: few while much is to be gained, then more.
FIRST, THEN = 4, 12
#: How many times longer than its last step those that a trial has left may become.
HOPE = 2
#: Sweeps of each end, after which exchanges are tried again, and how often at most; sweeps of the whole matrix.
ROUND, ROUNDS, LAST = 30, 5, 60
#: Rows and columns up to which sweeps cost next to nothing, and a trial gets so many times as many.
FEW, MORE = 256, 4
#: Rows and columns up to which all of the matrix takes part in the search from every start.
SMALL = 800


@dataclass(frozen=True, eq=False)
class RankAllocation:
    """Ranks of a given total, made by :func:`mlfm.lowrank.allocate_ranks`.

    Attributes
    ----------
    fit : LowRankFit
        With the ranks that were found, to its end.
    path : DataFrame
        One row a trial: ``start``; ``thinned``, of how many rows (and columns) one took part; ``more`` and ``less``,
        the levels between which a rank was exchanged; the ranks, a column a level; ``relative_error`` after the
        trial's few sweeps; ``accepted``; ``seconds`` since the start.
    starts : tuple of str
        Where the search began.
    """

    fit: LowRankFit
    path: pd.DataFrame
    starts: tuple[str, ...]

    @property
    def ranks(self) -> pd.Series:
        """Ranks by level."""
        return self.fit.ranks

    def __str__(self) -> str:
        return f"{self.fit}\nsearch          from {listing(self.starts, show=str)}"

    __repr__ = __str__


def allocate_ranks(
    A: Any,
    rows: Any = None,
    cols: Any = None,
    total: int | None = None,
    *,
    start: str | Ranks | None = None,
    structure: str | None = None,
    diagonal: bool = False,
    max_rank: int | Mapping[Any, int] | Sequence[int] | None = None,
    search_tol: float = 1e-3,
    tol: float = 1e-4,
    maxiter: int = 1000,
    rng: int | np.random.Generator | None = None,
    n_threads: int | None = None,
    progress: bool = False,
) -> RankAllocation:
    """Ranks by level, of a given total, for which a multilevel low rank matrix comes close to A.

    Every rank takes as many numbers to store, m + n, whatever its level. Ranks are exchanged between levels, one at a
    time: what one more rank can gain at each level is set against what one less loses at each other, as far as other
    levels cannot stand in for it; the few pairs that promise most are tried from where the fit stands, and the first
    that lowers the error is kept. The end is where none of them does, and no proof that no other ranks do better.

    Parameters
    ----------
    A, rows, cols, structure, diagonal
        As for :func:`mlfm.lowrank.fit`.
    total : int
        Sum of the ranks of all levels.
    start : {"uniform", "bottom", "top"} or ranks, optional
        Where to begin: the total shared evenly, all at the finest level that can take it, or all at the global level;
        or ranks by level. By default from each of the three, and the best end is taken.
    max_rank : int, or by level, optional
        Largest rank of a level. It is never more than the largest block of the level can have.
    search_tol : float
        Least share of the error's square by which a trial must lower it.
    tol, maxiter
        Of the final fit.
    rng : int or numpy Generator, optional
        For the first directions; None is seed 0.
    n_threads : int, optional
        Results do not depend on it.
    progress : bool
        Whether to show a bar that counts trials.

    Returns
    -------
    RankAllocation

    Raises
    ------
    ValueError, TypeError
        As for :func:`mlfm.lowrank.fit`; and if the total is less than 1 or more than ``max_rank`` allows.

    Notes
    -----
    Of a dense matrix, or of data, with 1600 rows and columns or more every second (third, ...) of each takes part in
    the search from the several starts; the best of the ends is carried over to the whole matrix by regression, and the
    search goes on there.

    References
    ----------
    Parshakova, Hastie, Darve and Boyd, *Factor Fitting, Rank Allocation, and Partitioning in Multilevel Low Rank
    Matrices* (arXiv 2310.19214), section 5.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from mlfm import Hierarchy, lowrank
    >>> x = np.linspace(0, 1, 64)
    >>> A = np.exp(-100 * (x[:, None] - x) ** 2)
    >>> groups = Hierarchy(pd.DataFrame({"half": x > 0.5, "quarter": np.minimum(np.floor(4 * x), 3)}))
    >>> found = lowrank.allocate_ranks(A, groups, total=3)
    >>> print(found.fit)
    Multilevel low rank fit of a 64 x 64 matrix (symmetric)
    ranks           global 0, half 1, quarter 2
    storage         192 numbers (4.69% of the matrix)
    relative error  0.2178
    method          bcd, converged
    """
    began = time.perf_counter()
    source = source_of(A, rows, cols)
    structure = checked_structure(structure, source, isinstance(A, SampleCovariance), cols)
    if diagonal and not source.grid.square:
        raise ValueError("diagonal: only where rows and columns have one hierarchy; leave cols out, or give cols=rows")
    most = _most(max_rank, source.grid)
    wanted = _checked_total(total, most)
    search_tol = checked_tol(search_tol, "search_tol")
    tol, maxiter = checked_stopping(tol, maxiter)
    begins = _begins(start, wanted, most, source.grid)
    with Workers(checked_threads(n_threads)) as workers, counting_bar(progress, None, "trials") as show:
        refuse_unbounded(source)
        problem = Problem(source, STRUCTURES[structure], generator(rng), workers)
        search = _Search(problem, bool(diagonal), most, search_tol, began, show)
        method = problem.structure.method
        done = fitted(Descent(problem, METHODS[method], search.best(begins)), method, structure, tol, maxiter)
    return RankAllocation(done, search.path(), tuple(begins))


class _Stage(NamedTuple):
    """The search from one start: with one of every so many rows and columns, at the levels that are kept then."""

    start: str
    every: int
    kept: tuple[int, ...]
    problem: Problem
    most: list[int]
    waiting: list[int]  # ranks, of all levels, that do not take part

    def ranks_of_all(self, factors: Factors) -> list[int]:
        """Ranks of all levels, those that do not take part included."""
        ranks = list(self.waiting)
        for level, rank in zip(self.kept, factors.ranks, strict=True):
            ranks[level] += rank
        return ranks


class _Search:
    """Exchanges from several starts, with a record of all trials."""

    def __init__(
        self,
        problem: Problem,
        diagonal: bool,
        most: Sequence[int],
        tol: float,
        began: float,
        show: Callable[[], None],
    ) -> None:
        self._problem, self._diagonal, self._most, self._tol = problem, diagonal, tuple(most), tol
        self._began, self._show = began, show
        self._levels = problem.source.grid.rows.hierarchy.levels
        self._rows: list[dict[str, Any]] = []
        self._sweep = METHODS[problem.structure.method]

    def best(self, begins: Mapping[str, Sequence[int]]) -> Factors:
        """The factors at the best of the ends."""
        more = MORE if max(self._problem.source.grid.shape) <= FEW else 1
        phases = (more * FIRST, more * THEN)
        every = _thinning(self._problem.source)
        thinned, kept = _thinned(self._problem, every)
        ends = []
        for name, ranks in begins.items():
            stage, kept_ranks = self._stage(name, ranks, every, kept, thinned)
            begin = Factors.nothing(thinned.source.grid, kept_ranks, self._diagonal)
            ends.append((stage, self._searched(stage, begin, phases)))
        stage, descent = min(ends, key=lambda end: end[1].squares)
        levels = range(len(self._levels))
        whole, _ = self._stage(stage.start, stage.ranks_of_all(descent.factors), 1, levels, self._problem)
        return self._exchanged(self._of_all(stage, descent.factors), phases[-1], whole).factors

    def _of_all(self, stage: _Stage, end: Factors) -> Descent:
        """The whole matrix, from the end of a search or from nothing: what it went through can be a worse begin."""
        ranks = stage.ranks_of_all(end)
        if stage.every > 1:
            end = prolonged(self._problem, end, stage.kept, stage.every, ranks)
        nothing = Factors.nothing(self._problem.source.grid, ranks, self._diagonal)
        last = [_swept(Descent(self._problem, self._sweep, begin), LAST) for begin in (end, nothing)]
        return min(last, key=lambda descent: descent.squares)

    def _stage(
        self, name: str, ranks: Sequence[int], every: int, kept: Sequence[int], problem: Problem
    ) -> tuple[_Stage, list[int]]:
        """One start with every so manieth row and column, and its ranks there."""
        most = [min(self._most[level], largest_rank(problem.source.grid, k)) for k, level in enumerate(kept)]
        kept_ranks, waiting = _squeezed(ranks, kept, most)
        return _Stage(name, every, tuple(kept), problem, most, waiting), kept_ranks

    def _searched(self, stage: _Stage, begin: Factors, phases: Sequence[int]) -> Descent:
        """The end of the search from some factors."""
        descent = Descent(stage.problem, self._sweep, begin)
        for sweeps in phases:
            descent = self._exchanged(_swept(descent, sweeps), sweeps, stage)
        for _ in range(ROUNDS):  # what looked no better from where the fit stood may do so from where it ends
            ranks = descent.factors.ranks
            descent = self._exchanged(_swept(descent, ROUND), phases[-1], stage)
            if descent.factors.ranks == ranks:
                break
        return descent

    def _exchanged(self, descent: Descent, sweeps: int, stage: _Stage) -> Descent:
        """Exchanges until no pair that is tried helps, and neither do further sweeps."""
        while True:
            goal = descent.squares * (1 - self._tol)
            for trial in exchanges(descent, stage.most, TRIED):
                better = _swept(trial.descent, sweeps, goal).squares < goal
                self._record(stage, trial, better)
                if better:
                    descent = trial.descent
                    break
            else:
                before = descent.squares
                if _swept(descent, sweeps).squares >= before * (1 - 10 * self._tol):
                    return descent

    def _record(self, stage: _Stage, trial: Exchange, accepted: bool) -> None:
        norm = float(np.sqrt(trial.descent.problem.source.squared_norm))
        self._rows.append(
            {
                "start": stage.start,
                "thinned": stage.every,
                "more": self._levels[stage.kept[trial.more]],
                "less": self._levels[stage.kept[trial.less]],
                **dict(zip(self._levels, stage.ranks_of_all(trial.descent.factors), strict=True)),  # type: ignore[arg-type]
                "relative_error": float(np.sqrt(trial.descent.squares)) / norm if norm else 0.0,
                "accepted": accepted,
                "seconds": time.perf_counter() - self._began,
            }
        )
        self._show()

    def path(self) -> pd.DataFrame:
        """All trials, in the order in which they were made."""
        names = ["start", "thinned", "more", "less", *self._levels, "relative_error", "accepted", "seconds"]
        frame = pd.DataFrame(self._rows, columns=pd.Index(names, dtype=object))
        frame.index = pd.RangeIndex(1, len(frame) + 1, name="trial")
        return frame


def _swept(descent: Descent, sweeps: int, goal: float = np.inf) -> Descent:
    """After sweeps, or fewer where steps would have to become longer for the others to reach a goal."""
    for left in reversed(range(sweeps)):
        before = descent.squares
        descent.step()
        if descent.squares - goal > HOPE * left * (before - descent.squares):
            break
    return descent


def _thinning(source: Source) -> int:
    """Of how many rows and columns one takes part in the search from several starts."""
    if not isinstance(source, (Dense, Gram)):
        return 1
    return max(1, min(source.grid.shape) // SMALL)


def _thinned(problem: Problem, every: int) -> tuple[Problem, tuple[int, ...]]:
    """The problem of every so manieth row and column, and the levels that are kept."""
    source = problem.source
    if every == 1:
        return problem, tuple(range(source.grid.n_levels))
    assert isinstance(source, (Dense, Gram))
    grid, kept = source.grid.thinned(every)
    return problem._replace(source=source.thinned(grid, every)), kept


def _squeezed(ranks: Sequence[int], kept: Sequence[int], most: Sequence[int]) -> tuple[list[int], list[int]]:
    """Ranks of the kept levels, and those, by level, for which there is no room there and which have to wait.

    The ranks of a level that is not kept go to the next coarser ones that are, as far as these can take them.
    """
    room, out, waiting = dict(zip(kept, most, strict=True)), dict.fromkeys(kept, 0), [0] * len(ranks)
    for level, rank in enumerate(ranks):
        left = rank
        for other in sorted((other for other in kept if other <= level), reverse=True):
            taken = min(left, room[other] - out[other])
            out[other] += taken
            left -= taken
        waiting[level] = left
    return list(out.values()), waiting


def _most(max_rank: Any, grid: Grid) -> tuple[int, ...]:
    """The largest rank of each level."""
    possible = [largest_rank(grid, level) for level in range(grid.n_levels)]
    if max_rank is None:
        return tuple(possible)
    hierarchy = grid.rows.hierarchy
    if isinstance(max_rank, (int, np.integer)) and not isinstance(max_rank, bool):
        if max_rank < 1:
            raise ValueError(f"max_rank must be 1 or more, not {max_rank}")
        given = (int(max_rank),) * grid.n_levels
    elif isinstance(max_rank, (Mapping, pd.Series)):
        usual = dict(zip(hierarchy.levels, possible, strict=True))
        given = ranks_by_level({**usual, **dict(max_rank)}, hierarchy, "max_rank")
    else:
        given = ranks_by_level(max_rank, hierarchy, "max_rank")
    return tuple(min(a, b) for a, b in zip(given, possible, strict=True))


def _checked_total(total: Any, most: Sequence[int]) -> int:
    if total is None:
        raise TypeError("total: needed, the sum of the ranks of all levels")
    if isinstance(total, bool) or not isinstance(total, (int, np.integer)):
        raise TypeError(f"total must be a whole number, not {total!r}")
    if total < 1:
        raise ValueError(f"total: at least one rank is needed, not {total}")
    if total > sum(most):
        raise ValueError(f"total: {total} ranks, but the levels can take {sum(most)} at most ({listing(most)})")
    return int(total)


def _begins(start: Any, total: int, most: Sequence[int], grid: Grid) -> dict[str, Sequence[int]]:
    """Ranks to begin at, by name."""
    if start is not None and not isinstance(start, str):
        ranks = checked_ranks(start, grid, "start")
        if sum(ranks) != total:
            raise ValueError(f"start: ranks that sum to {sum(ranks)}, but total is {total}")
        over = [level for level, rank in enumerate(ranks) if rank > most[level]]
        if over:
            names = [grid.rows.hierarchy.levels[level] for level in over]
            raise ValueError(f"start: ranks of {listing(names)} exceed max_rank")
        return {"given": ranks}
    if start is not None and start not in STARTS:
        raise ValueError(f"start must be one of {listing(STARTS)}, or ranks by level, not {plain(start)}")
    levels = len(most)
    orders = {"uniform": None, "bottom": range(levels - 1, -1, -1), "top": range(levels)}
    made = {
        name: _evenly(total, most) if order is None else _in_turn(total, most, order) for name, order in orders.items()
    }
    return {name: made[name] for name in (STARTS if start is None else (start,))}


def _evenly(total: int, most: Sequence[int]) -> list[int]:
    """One rank after the other to the level that has fewest and can take more, coarse levels first."""
    ranks = [0] * len(most)
    for _ in range(total):
        level = min((level for level in range(len(most)) if ranks[level] < most[level]), key=lambda k: (ranks[k], k))
        ranks[level] += 1
    return ranks


def _in_turn(total: int, most: Sequence[int], order: Sequence[int]) -> list[int]:
    """As many ranks as each level can take, level after level."""
    ranks = [0] * len(most)
    for level in order:
        ranks[level] = min(most[level], total - sum(ranks))
    return ranks
