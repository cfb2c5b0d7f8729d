"""Factors of a whole matrix from those of every so manieth row and column of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlfm.lowrank.factors import Factors
from mlfm.lowrank.grid import Grid
from mlfm.lowrank.regression import regress_left
from mlfm.lowrank.sources import Dense
from mlfm.sweep import Workers


def prolong(thin: Factors, kept: Sequence[int], whole: Factors, source: Dense, every: int, workers: Workers) -> None:
    """Put into the factors of the kept levels what regression makes of thinned ones: all rows, then all columns."""
    grid = whole.grid
    rows = grid.rows.part(slice(None), [grid.rows.offsets[level] for level in kept])
    tall = Grid(rows, thin.grid.columns)
    m = len(rows)
    half = Factors(tall, [np.zeros((m, rank)) for rank in thin.ranks], thin.right, None)
    some = Dense(np.ascontiguousarray(source.A[:, ::every]), tall)
    regress_left(some.times, half, workers)
    for level, B in zip(kept, half.left, strict=True):
        whole.left[level] = np.pad(B, ((0, 0), (0, whole.left[level].shape[1] - B.shape[1])))
    turned = whole.transposed
    regress_left(source.transposed_times, turned, workers)
    whole.right = turned.left
