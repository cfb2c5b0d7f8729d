"""Exchange moves: one rank more at a level for one less at another, with what either is expected to change.

Parshakova, Hastie, Darve and Boyd, section 5. One more rank at a level can lower the sum of squares of what is left by
the largest squared singular value of each of its blocks. One less raises it by what the column of each block is missed
by that can best be spared: that is a bound where blocks may be anything, and an estimate where they are symmetric. What
the columns of other levels can stand in for is no loss, so that levels which share a direction do not keep each other's
ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.lowrank.descent import Descent
from mlfm.lowrank.factors import Factors
from mlfm.lowrank.methods import Problem
from mlfm.lowrank.regression import missed
from mlfm.lowrank.remainder import Remainder
from mlfm.lowrank.structures import Step, Structure

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


class Exchange(NamedTuple):
    """One more here, one less there, and a descent that begins there."""

    more: int
    less: int
    expected: float
    descent: Descent


def exchanges(descent: Descent, most: Sequence[int], tried: int) -> Iterator[Exchange]:
    """The pairs of levels that promise most, the best first."""
    problem, factors = descent.problem, descent.factors.copy()
    ranks = factors.ranks
    losses = least_missed(factors, problem.structure)
    gains = {level: _one_more(problem, factors, level) for level, rank in enumerate(ranks) if rank < most[level]}
    pairs = [(gain.squares - loss, i, j) for i, gain in gains.items() for j, loss in losses.items() if i != j]
    for expected, i, j in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:tried]:
        changed = factors.copy()
        for side, column in ((changed.left, gains[i].left), (changed.right, gains[i].right)):
            side[i], side[j] = np.hstack([side[i], column]), np.ascontiguousarray(side[j][:, :-1])
        yield Exchange(i, j, expected, Descent(problem, descent.sweep, changed))


def least_missed(factors: Factors, structure: Structure) -> dict[int, float]:
    """Put last, in every block, the column that can best be spared; by how much each level's last ones are missed."""
    for level, (B, C) in enumerate(zip(factors.left, factors.right, strict=True)):
        if B.shape[1]:  # sweeps have turned the columns
            rows, columns = factors.grid.rows.offsets[level], factors.grid.columns.offsets[level]
            factors.left[level], factors.right[level] = structure.ordered(B, C, rows, columns)
    found, other_way = missed(factors), missed(factors.transposed)
    losses = {}
    for level, by_left in found.items():
        by = np.minimum(by_left, other_way[level])  # neither regression can do better than both
        losses[level] = float(by.min(axis=1).sum())
        B, C = factors.left[level], factors.right[level]
        order = np.argsort(np.arange(by.shape[1]) == by.argmin(axis=1)[:, None], axis=1, kind="stable")
        factors.left[level] = _permuted(B, order, factors.grid.rows.offsets[level])
        factors.right[level] = (
            factors.left[level] if C is B else _permuted(C, order, factors.grid.columns.offsets[level])
        )
    return losses


def _permuted(X: Floats, order: Integers, offsets: Integers) -> Floats:
    """Columns of every block in an order of its own."""
    return np.take_along_axis(X, np.repeat(order, np.diff(offsets), axis=0), axis=1)


def _one_more(problem: Problem, factors: Factors, level: int) -> Step:
    """The best column that can be added to a level."""
    rest = Remainder(problem.source, factors, level, None, problem.workers)
    m, n = factors.grid.shape
    return problem.structure.best(rest, np.zeros((m, 1)), np.zeros((n, 1)), problem.rng)
