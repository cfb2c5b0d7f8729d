"""Sweeps with momentum: each begins beyond where the last one ended, and goes back where that does not help.

Nesterov's extrapolation with restarts takes alternating least squares, which creeps along valleys, two to four times
as fast (Mitchell, Ye and De Sterck 2020, for tensors). Factors are determined up to a rotation of each block's
columns, so that they are turned towards those before first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlfm.lowrank.blockwise import expanded, products
from mlfm.lowrank.factors import Factors
from mlfm.lowrank.methods import Problem, Sweep, bcd_afresh
from mlfm.lowrank.structures import signs, symmetric

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

MIXED = 1e-8  # of columns of one sign, in those of the other, that is no rounding


class Descent:
    """Factors on their way down; ``squares`` is the sum of squares of what they leave, infinite before the first sweep.

    Factors handed in are not changed.
    """

    def __init__(self, problem: Problem, sweep: Sweep, factors: Factors) -> None:
        self.problem, self.sweep = problem, sweep
        self.factors, self.squares = factors.copy(), np.inf
        self._before: Factors | None = None
        self._steps = 0  # since the last restart

    def step(self) -> None:
        """One sweep; where it does not lower the sum of squares, another one without momentum."""
        found = self._beyond()
        squares = self.sweep(self.problem, found)
        if squares > self.squares and self._steps:
            self._before, self._steps = None, 0
            found = self.factors.copy()
            squares = self.sweep(self.problem, found)
        self._before = _turned(found, self.factors, self.problem.structure.best is symmetric)
        self.factors, self.squares = found, squares
        self._steps += 1

    def look_afresh(self) -> None:
        """One sweep that looks for new directions too, if it lowers the sum of squares; momentum is lost then."""
        found = self.factors.copy()
        squares = bcd_afresh(self.problem, found)
        if squares < self.squares:
            self.factors, self.squares, self._before, self._steps = found, squares, None, 0

    def _beyond(self) -> Factors:
        """Factors beyond the last ones, in the direction from those before them."""
        if self._before is None or self._steps < 2:
            return self.factors.copy()
        share = (self._steps - 1) / (self._steps + 2)
        now, before = self.factors, self._before
        left = [B + share * (B - P) for B, P in zip(now.left, before.left, strict=True)]
        right = [
            B if C is own else C + share * (C - P)
            for B, own, C, P in zip(left, now.left, now.right, before.right, strict=True)
        ]
        return Factors(now.grid, left, right, now.diag)


def _turned(factors: Factors, before: Factors, signed: bool) -> Factors:
    """Turn the columns of every block towards those before, as close as they come (Procrustes); and those before.

    Columns of ``signed`` factors, C = B diag(signs), are turned among those of one sign. Where a block has other signs
    than before there is no way from one to the other, and it counts as if it had not changed.
    """
    rows, columns = factors.grid.rows.offsets, factors.grid.columns.offsets
    before = before.copy()
    for level, (B, C) in enumerate(zip(factors.left, factors.right, strict=True)):
        if B.shape[1] == 0:
            continue
        P, Q = before.left[level], before.right[level]
        M = products(B, P, rows[level]) + products(C, Q, columns[level])
        if signed:
            now, then = signs(B, C, rows[level]), signs(P, Q, rows[level])
            M[now[:, :, None] != then[:, None, :]] = 0
        U, _, V = np.linalg.svd(M)
        T = U @ V
        if signed:
            apart = now[:, :, None] != then[:, None, :]
            mixed = np.abs(np.where(apart, T, 0.0)).max(axis=(1, 2)) > MIXED
            other = mixed | (np.sort(now, axis=1) != np.sort(then, axis=1)).any(axis=1)
            T = np.where(apart, 0.0, T)
        left = expanded(B, T, rows[level])
        right = left if C is B else expanded(C, T, columns[level])
        if signed:
            right = left * np.repeat(then, np.diff(rows[level]), axis=0)  # B with signs to the last digit
            unlike = np.repeat(other, np.diff(rows[level]))[:, None]
            left, right = np.where(unlike, B, left), np.where(unlike, C, right)
            before.left[level], before.right[level] = np.where(unlike, B, P), np.where(unlike, C, Q)
        factors.left[level], factors.right[level] = left, right
    return before
