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
    if problem.structure is STRUCTURES["psd"]:
        whole.right = list(whole.left)
        return whole
    if problem.structure is STRUCTURES["symmetric"]:
        _mirror(whole, thin, kept)
        if whole.diag is not None:
            whole.diag = problem.source.diagonal - whole.low_rank_diagonal()
    turned = whole.transposed
    regress_left(problem.source.transposed_times, turned, problem.workers)
    whole.right = turned.left
    if problem.structure is STRUCTURES["symmetric"]:  # two regressions are no mirror images; halfway between them
        for level, (B, C) in enumerate(zip(whole.left, whole.right, strict=True)):
            if B.shape[1]:
                offsets = grid.rows.offsets[level]
                whole.left[level], whole.right[level] = problem.structure.ordered(B, C, offsets, offsets)
    return whole


def _mirror(whole: Factors, thin: Factors, kept: Sequence[int]) -> None:
    """Right factors that are the left ones with the signs of the thinned ones."""
    for k, (level, B, C) in enumerate(zip(kept, thin.left, thin.right, strict=True)):
        of_blocks = signs(B, C, thin.grid.rows.offsets[k])
        further = whole.left[level].shape[1] - B.shape[1]
        by_row = np.repeat(np.pad(of_blocks, ((0, 0), (0, further))), whole.grid.sizes(level)[0], axis=0)
        whole.right[level] = whole.left[level] * by_row
