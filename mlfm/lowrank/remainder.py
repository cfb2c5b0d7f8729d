"""What the factors of a fit leave of the matrix, as products with its blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlfm.lowrank.factors import Factors
from mlfm.lowrank.sources import Source
from mlfm.sweep import Workers

Floats = NDArray[np.float64]


class Remainder:
    """What factors leave of a matrix in the blocks of a level; the factors of one level may be left out of them."""

    def __init__(self, source: Source, factors: Factors, level: int, without: int | None, workers: Workers) -> None:
        self._source, self._factors, self._level, self._without = source, factors, level, without
        self._workers = workers
        grid = source.grid
        self.rows, self.columns = grid.rows.offsets[level], grid.columns.offsets[level]
        self.shape = grid.shape

    def times(self, X: Floats) -> Floats:
        """R_k X_k of every block."""
        out = self._source.times(self._level, X, self._workers)
        self._factors.subtract(self._level, X, out, self._without)
        return out

    def transposed_times(self, X: Floats) -> Floats:
        """R_k' X_k of every block."""
        out = self._source.transposed_times(self._level, X, self._workers)
        self._factors.transposed.subtract(self._level, X, out, self._without)
        return out


def left_over(source: Source, factors: Factors, workers: Workers) -> float:
    """The sum of squares of what factors leave of a matrix, ||A||^2 - 2 <A, M> + ||M||^2: to 1e-16 of ||A||^2."""
    total = source.squared_norm + factors.squared_norm()
    for level, (B, C) in enumerate(zip(factors.left, factors.right, strict=True)):
        if B.shape[1]:
            total -= 2 * float(np.vdot(source.times(level, C, workers), B))
    if factors.diag is not None:
        total -= 2 * float(source.diagonal @ factors.diag)
    return max(total, 0.0)
