"""Exchange moves: one rank more at a level for one less at another, with what either is expected to change.

Parshakova, Hastie, Darve and Boyd, section 5: one more rank at a level can lower the sum of squares of what is left by
the largest squared singular value of each of its blocks; one less raises it by the smallest squared singular value of
what each block has. The pairs that promise most are tried, warm, and the first that does better is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mlfm.lowrank.blockwise import squared_norms
from mlfm.lowrank.descent import Descent
from mlfm.lowrank.factors import Factors
from mlfm.lowrank.methods import Problem
from mlfm.lowrank.remainder import Remainder
from mlfm.lowrank.structures import Step, Structure


class Exchange(NamedTuple):
    """One more here, one less there, and where that led."""

    more: int
    less: int
    expected: float
    descent: Descent


def weakest(factors: Factors, structure: Structure) -> list[float]:
    """Put columns of every level in the order of what they explain; what the last one of each does, inf for none."""
    found = []
    for level, (B, C) in enumerate(zip(factors.left, factors.right, strict=True)):
        rows, columns = factors.grid.rows.offsets[level], factors.grid.columns.offsets[level]
        if B.shape[1] == 0:
            found.append(np.inf)
            continue
        # Sweeps with momentum have turned them.
        factors.left[level], factors.right[level] = structure.ordered(B, C, rows, columns)
        b, c = (np.ascontiguousarray(X[:, -1:]) for X in (factors.left[level], factors.right[level]))
        found.append(float(squared_norms(b, c, rows, columns).sum()))
    return found


def exchanges(descent: Descent, most: Sequence[int], tried: int, sweeps: int) -> Iterator[Exchange]:
    """The pairs of levels that promise most, the best first, each after some sweeps."""
    problem, factors = descent.problem, descent.factors.copy()
    ranks = factors.ranks
    losses = weakest(factors, problem.structure)
    gains = {level: _one_more(problem, factors, level) for level, rank in enumerate(ranks) if rank < most[level]}
    pairs = [
        (gain.squares - losses[j], i, j) for i, gain in gains.items() for j, rank in enumerate(ranks) if rank and i != j
    ]
    for expected, i, j in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:tried]:
        changed = factors.copy()
        for side, column in ((changed.left, gains[i].left), (changed.right, gains[i].right)):
            side[i], side[j] = np.hstack([side[i], column]), np.ascontiguousarray(side[j][:, :-1])
        trial = Descent(problem, descent.sweep, changed)
        for _ in range(sweeps):
            trial.step()
        yield Exchange(i, j, expected, trial)


def _one_more(problem: Problem, factors: Factors, level: int) -> Step:
    """The best column that can be added to a level."""
    rest = Remainder(problem.source, factors, level, None, problem.workers)
    m, n = factors.grid.shape
    return problem.structure.best(rest, np.zeros((m, 1)), np.zeros((n, 1)), problem.rng)
