"""The same data at other ranks, and points carried from some ranks to others."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from mlfm.estimation.methods import AnyProblem
from mlfm.estimation.new_factors import gains
from mlfm.estimation.problem import Point
from mlfm.ranks import ByLevel
from mlfm.rotation import canonical
from mlfm.sweep import Tree, Workers

Floats = NDArray[np.float64]


class Neighbourhood:
    """A problem, and those of the same data with more or fewer factors.

    Parameters
    ----------
    ranks : tuple of int
        Factors of each group by level, all levels of the hierarchy.
    levels : sequence
        Their names.
    offsets : sequence of int arrays
        Boundaries of the groups of each level.
    problem_of : callable
        From ranks to the problem.
    """

    def __init__(
        self,
        ranks: ByLevel,
        levels: Sequence[Hashable],
        offsets: Sequence[NDArray[np.intp]],
        problem_of: Callable[[ByLevel], AnyProblem],
    ) -> None:
        self.ranks, self.levels, self.offsets = ranks, levels, offsets
        self._problem_of = problem_of
        self.home = problem_of(ranks)

    def problem(self, ranks: ByLevel) -> AnyProblem:
        """The problem at some ranks."""
        return self.home if ranks == self.ranks else self._problem_of(ranks)

    def carry(
        self, point: Point, old: ByLevel, new: ByLevel, problem: AnyProblem, rng: np.random.Generator, workers: Workers
    ) -> Point:
        """A point at some ranks as one to begin with at others, of which ``problem`` is one.

        The weakest factors of every group (the last in canonical rotation) go first: what they explained is left to the
        uniquenesses. Then come new ones, with the loadings that raise the log-likelihood most while all else is held.
        """
        F, x = point
        n = len(F)
        F, x = canonical(Tree.of(self.offsets, old), F, x[:n]), x.copy()
        blocks = np.split(F, np.cumsum(old)[:-1], axis=1)
        for level, (before, after) in enumerate(zip(old, new, strict=True)):
            if after < before:
                x[:n] += np.einsum("jk,jk->j", blocks[level][:, after:], blocks[level][:, after:])
                blocks[level] = blocks[level][:, :after]
        for level, after in enumerate(new):
            while blocks[level].shape[1] < after:
                f = self._new_factor(blocks, x[:n], level, problem, rng, workers)
                blocks[level] = np.column_stack([blocks[level], f])
        return np.ascontiguousarray(np.hstack(blocks)), x

    def _new_factor(
        self,
        blocks: Sequence[Floats],
        D: Floats,
        level: int,
        problem: AnyProblem,
        rng: np.random.Generator,
        workers: Workers,
    ) -> Floats:
        """Loadings of one more factor of each group of a level."""
        ranks, F = tuple(block.shape[1] for block in blocks), np.ascontiguousarray(np.hstack(blocks))
        return gains(self.offsets, ranks, F, D, problem.stand_in, [level], rng, workers)[0][1]
