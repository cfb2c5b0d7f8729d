"""Left factors by least squares, the right ones held fixed; turned round, the right factors from the left.

Rows that share a path, from the global group to a leaf group g, are regressed on one matrix X_g with as many columns as
there are ranks: side by side, what the right factors of the path's blocks hold (Parshakova, Hastie, Darve and Boyd,
section 4). Its Gram matrix is a sum over the tree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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


class Paths(NamedTuple):
    """The levels that have factors, all their left factors side by side, and X_g' X_g of every leaf group."""

    levels: list[int]
    bounds: Integers  # of the levels' columns
    B: Floats
    G: Floats
    offsets: Integers  # of the leaf groups' rows

    @classmethod
    def of(cls, factors: Factors) -> Paths:
        levels = [level for level, rank in enumerate(factors.ranks) if rank]
        rights = [factors.right[level] for level in levels]
        G = _gram(rights, levels, factors.grid.columns.offsets)
        B = np.hstack([factors.left[level] for level in levels])
        bounds = np.cumsum([0, *(C.shape[1] for C in rights)])
        return cls(levels, bounds, B, G, factors.grid.rows.offsets[levels[-1]])


def regress_left(times: Times, factors: Factors, workers: Workers) -> float:
    """All left factors at their best, the right ones and the diagonal held fixed; 2 <A - D, B C'> - ||B C'||^2 then."""
    if not any(factors.ranks):
        return 0.0
    levels, bounds, B, G, offsets = Paths.of(factors)
    P = np.hstack([times(level, factors.right[level], workers) for level in levels])
    if factors.diag is not None:
        P -= factors.diag[:, None] * np.hstack([factors.right[level] for level in levels])
    rest = P.copy()
    add_expanded(B, G, offsets, -1.0, rest)  # half the gradient
    # B + (P - B G) G^-1, which is P G^-1; the ridge on the change leaves directions alone that G lacks.
    regress(G, RIDGE, offsets, rest)
    B += rest
    for level, first, last in zip(levels, bounds[:-1], bounds[1:], strict=True):
        factors.left[level] = np.ascontiguousarray(B[:, first:last])
    return 2 * float(np.vdot(P, B)) - float(np.vdot(expanded(B, G, offsets), B))


def missed(factors: Factors) -> dict[int, Floats]:
    """What each column of each block would be missed by, blocks x rank for every level that has factors.

    That is how much the sum of squares of what is left rises when the column is left out and the left factors are
    regressed anew, on the other columns of their paths: b_ij^2 / ((X_g' X_g)^-1)_jj, summed over the rows i of the
    block, for factors that are at their best.
    """
    levels, bounds, B, G, offsets = Paths.of(factors)
    squares = np.einsum("kii->ki", G)
    scale = np.sqrt(np.where(squares > 0, squares, 1.0))
    unit = G / (scale[:, :, None] * scale[:, None, :]) + RIDGE * np.eye(G.shape[1])
    inverse = np.einsum("kii->ki", np.linalg.inv(unit)) / scale**2
    leaves = np.add.reduceat(B * B, offsets[:-1], axis=0) / inverse
    found = {}
    for level, first, last in zip(levels, bounds[:-1], bounds[1:], strict=True):
        begins = np.searchsorted(offsets, factors.grid.rows.offsets[level][:-1])
        found[level] = np.add.reduceat(leaves[:, first:last], begins, axis=0)
    return found


def _gram(rights: list[Floats], levels: list[int], offsets: tuple[Integers, ...]) -> Floats:
    """X_g' X_g for every leaf group g."""
    bounds, leaf = np.cumsum([0, *(C.shape[1] for C in rights)]), levels[-1]
    first = offsets[leaf][:-1]
    G = np.empty((len(first), bounds[-1], bounds[-1]))
    for j, finer in enumerate(levels):
        node = np.searchsorted(offsets[finer], first, side="right") - 1
        for i in range(j + 1):
            of_nodes = products(rights[i], rights[j], offsets[finer])[node]
            G[:, bounds[i] : bounds[i + 1], bounds[j] : bounds[j + 1]] = of_nodes
            G[:, bounds[j] : bounds[j + 1], bounds[i] : bounds[i + 1]] = of_nodes.swapaxes(1, 2)
    return G
