"""The factors of a fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import add_expanded
from mlfm.lowrank.blockwise import products
from mlfm.lowrank.grid import Grid

Floats = NDArray[np.float64]


class Factors:
    """sum_l B_l C_l' + D: for every level B_l (m x r_l) and C_l (n x r_l) in group order, and a diagonal or none."""

    def __init__(self, grid: Grid, left: Sequence[Floats], right: Sequence[Floats], diag: Floats | None) -> None:
        self.grid, self.left, self.right, self.diag = grid, list(left), list(right), diag

    @classmethod
    def nothing(cls, grid: Grid, ranks: Sequence[int], diagonal: bool) -> Factors:
        m, n = grid.shape
        left = [np.zeros((m, rank)) for rank in ranks]
        right = left.copy() if grid.square else [np.zeros((n, rank)) for rank in ranks]
        return cls(grid, left, right, np.zeros(n) if diagonal else None)

    def copy(self) -> Factors:
        """Other lists of the same arrays; arrays are replaced and never written to."""
        return Factors(self.grid, self.left, self.right, self.diag)

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(B.shape[1] for B in self.left)

    @property
    def transposed(self) -> Factors:
        return Factors(self.grid.transposed, self.right, self.left, self.diag)

    def low_rank_diagonal(self) -> Floats:
        """The diagonal of sum_l B_l C_l'."""
        pairs = zip(self.left, self.right, strict=True)
        return np.asarray(sum((np.einsum("jr,jr->j", B, C) for B, C in pairs), np.zeros(len(self.left[0]))))

    def subtract(self, level: int, X: Floats, out: Floats, without: int | None = None) -> None:
        """Take from ``out`` the products of these factors' part of every block of a level with X_k.

        Inside a block of level l a coarser term has its rows of B_j and C_j, a finer one the blocks of its own.
        """
        rows, columns = self.grid.rows.offsets, self.grid.columns.offsets
        for other, (B, C) in enumerate(zip(self.left, self.right, strict=True)):
            if other != without and B.shape[1]:
                finer = max(other, level)
                add_expanded(B, products(C, X, columns[finer]), rows[finer], -1.0, out)
        if self.diag is not None:
            out -= self.diag[:, None] * X

    def inner(self, i: int, j: int) -> float:
        """The sum of products of elements of the terms of two levels: sum over blocks of <B_i' B_j, C_i' C_j>."""
        rows, columns = self.grid.rows.offsets[max(i, j)], self.grid.columns.offsets[max(i, j)]
        lefts = products(self.left[i], self.left[j], rows)
        return float(np.vdot(lefts, products(self.right[i], self.right[j], columns)))

    def squared_norm(self) -> float:
        """The sum of squares of all elements."""
        levels = range(len(self.left))
        total = sum(self.inner(i, j) * (1 if i == j else 2) for i in levels for j in levels if i <= j)
        if self.diag is not None:
            total += float(self.diag @ (self.diag + 2 * self.low_rank_diagonal()))
        return total

    def take_from(self, rows: slice, out: Floats) -> None:
        """Take a run of rows of the matrix, element by element, from ``out``."""
        for level, (B, C) in enumerate(zip(self.left, self.right, strict=True)):
            if B.shape[1] == 0:
                continue
            heights, widths = self.grid.rows.offsets[level], self.grid.columns.offsets[level]
            first, last = np.searchsorted(heights, [rows.start, rows.stop - 1], side="right") - 1
            for k in range(first, last + 1):
                top, bottom = max(heights[k], rows.start), min(heights[k + 1], rows.stop)
                own = slice(widths[k], widths[k + 1])
                out[top - rows.start : bottom - rows.start, own] -= B[top:bottom] @ C[own].T
        if self.diag is not None:
            inside = np.arange(rows.start, rows.stop)
            out[inside - rows.start, inside] -= self.diag[rows]
