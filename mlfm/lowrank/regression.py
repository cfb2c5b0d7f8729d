"""Left factors by least squares, the right ones held fixed; turned round, the right factors from the left.

Rows that share a path, from the global group to a leaf group g, are regressed on one matrix X_g with as many columns as
there are ranks: side by side, what the right factors of the path's blocks hold (Parshakova, Hastie, Darve and Boyd,
section 4). Its Gram matrix is a sum over the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import add_expanded, regress
from mlfm.lowrank.blockwise import expanded, products
from mlfm.lowrank.factors import Factors
from mlfm.sweep import Workers

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
#: Products with the blocks of a level.
Times = Callable[[int, Floats, Workers], Floats]

RIDGE = 1e-8  # of the Gram matrices, which are singular where columns are not needed
NO_COLUMN = 1e-200  # squared length of what is no column, here and in the kernel
ROOM = 1 << 22  # numbers of Gram matrices at a time


class _Paths:
    """All left factors side by side, and X_g' X_g of the leaf groups g of the finest level that has factors."""

    def __init__(self, factors: Factors) -> None:
        self.levels = [level for level, rank in enumerate(factors.ranks) if rank]
        self.bounds = np.cumsum([0, *(factors.ranks[level] for level in self.levels)])
        self.B = np.hstack([factors.left[level] for level in self.levels])
        self.offsets = factors.grid.rows.offsets[self.levels[-1]]
        columns = factors.grid.columns.offsets
        first = columns[self.levels[-1]][:-1]
        # Of every leaf group, its group of each level; of every group, products with the levels above.
        self._nodes = [np.searchsorted(columns[level], first, side="right") - 1 for level in self.levels]
        rights = [factors.right[level] for level in self.levels]
        self._products = [
            [products(rights[i], rights[j], columns[level]) for i in range(j + 1)]
            for j, level in enumerate(self.levels)
        ]

    def __iter__(self) -> Iterator[tuple[slice, slice, Integers, Floats]]:
        """Leaf groups, as many together as there is room for; their rows, boundaries counted from there, and grams."""
        k, r = len(self.offsets) - 1, int(self.bounds[-1])
        together = max(1, ROOM // r**2)
        for start in range(0, k, together):
            leaves = slice(start, min(start + together, k))
            bounds = self.offsets[leaves.start : leaves.stop + 1]
            yield leaves, slice(int(bounds[0]), int(bounds[-1])), bounds - bounds[0], self._gram(leaves)

    def of_levels(self) -> Iterator[tuple[int, slice]]:
        """Levels and their columns."""
        for level, first, last in zip(self.levels, self.bounds[:-1], self.bounds[1:], strict=True):
            yield level, slice(int(first), int(last))

    def _gram(self, leaves: slice) -> Floats:
        r, bounds = int(self.bounds[-1]), self.bounds
        G = np.empty((leaves.stop - leaves.start, r, r))
        for j, (nodes, with_others) in enumerate(zip(self._nodes, self._products, strict=True)):
            own = slice(bounds[j], bounds[j + 1])
            for i, of_nodes in enumerate(with_others):
                other, of_leaves = slice(bounds[i], bounds[i + 1]), of_nodes[nodes[leaves]]
                G[:, other, own] = of_leaves
                G[:, own, other] = of_leaves.swapaxes(1, 2)
        return G


def regress_left(times: Times, factors: Factors, workers: Workers) -> float:
    """All left factors at their best, the right ones and the diagonal held fixed; 2 <A - D, B C'> - ||B C'||^2 then."""
    if not any(factors.ranks):
        return 0.0
    paths, explained = _Paths(factors), 0.0
    P = np.hstack([times(level, factors.right[level], workers) for level in paths.levels])
    if factors.diag is not None:
        P -= factors.diag[:, None] * np.hstack([factors.right[level] for level in paths.levels])
    for _, rows, offsets, G in paths:
        B, rest = paths.B[rows], P[rows].copy()
        add_expanded(B, G, offsets, -1.0, rest)  # half the gradient
        # B + (P - B G) G^-1, which is P G^-1; the ridge on the change leaves directions alone that G lacks.
        regress(G, RIDGE, offsets, rest)
        B += rest
        explained += 2 * float(np.vdot(P[rows], B)) - float(np.vdot(expanded(B, G, offsets), B))
    for level, own in paths.of_levels():
        factors.left[level] = np.ascontiguousarray(paths.B[:, own])
    return explained


def missed(factors: Factors) -> dict[int, Floats]:
    """What each column of each block would be missed by, blocks x rank for every level that has factors.

    That is how much the sum of squares of what is left rises when the column is left out and the left factors are
    regressed anew, on the other columns of their paths: b_ij^2 / ((X_g' X_g)^-1)_jj, summed over the rows i of the
    block, for factors that are at their best.
    """
    paths = _Paths(factors)
    by_leaf = np.add.reduceat(paths.B**2, paths.offsets[:-1], axis=0)
    for leaves, _, _, G in paths:
        squares = np.einsum("kii->ki", G)
        scale = np.sqrt(np.where(squares > NO_COLUMN, squares, 1.0))
        unit = G / (scale[:, :, None] * scale[:, None, :]) + RIDGE * np.eye(G.shape[1])
        by_leaf[leaves] *= scale**2 / np.einsum("kii->ki", np.linalg.inv(unit))
    found = {}
    for level, own in paths.of_levels():
        first = np.searchsorted(paths.offsets, factors.grid.rows.offsets[level][:-1])
        found[level] = np.add.reduceat(by_leaf[:, own], first, axis=0)
    return found
