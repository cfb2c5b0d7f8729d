"""Factors of a whole matrix from those of every so manieth row and column of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlfm.lowrank.factors import Factors
from mlfm.lowrank.methods import Problem
from mlfm.lowrank.regression import regress_left
from mlfm.lowrank.structures import STRUCTURES, signs


def prolonged(problem: Problem, thin: Factors, kept: Sequence[int], every: int, ranks: Sequence[int]) -> Factors:
    """Factors of all levels, of which the kept ones explain all rows as the thinned ones do some.

    With rows of zeros where there are none, the thinned right factors make a regression on the columns that they know.
    """
    grid = problem.source.grid
    whole = Factors.nothing(grid, ranks, thin.diag is not None)
    for level, C in zip(kept, thin.right, strict=True):
        right = np.zeros_like(whole.right[level])
        right[::every, : C.shape[1]] = C
        whole.right[level] = right
    if thin.diag is not None:
        whole.diag = np.zeros(len(grid.rows))
        whole.diag[::every] = thin.diag
    regress_left(problem.source.times, whole, problem.workers)
    if problem.structure is STRUCTURES["general"]:
        turned = whole.transposed
        regress_left(problem.source.transposed_times, turned, problem.workers)
        whole.right = turned.left
        return whole
    whole.right = list(whole.left)
    for k, (level, B, C) in enumerate(zip(kept, thin.left, thin.right, strict=True)):
        if C is not B and B.shape[1]:
            of_blocks = np.pad(signs(B, C, thin.grid.rows.offsets[k]), ((0, 0), (0, ranks[level] - B.shape[1])))
            whole.right[level] = whole.left[level] * np.repeat(of_blocks, grid.sizes(level)[0], axis=0)
    return whole
