"""sum_l B_l C_l' + diag as arrays in group order, and the algebra of such sums: O(n r^2) each.

The compressed B and C hold a row for each feature: its loadings on the columns of its own groups, level after level.
A product of a term of level l with one of level m is a term of the coarser of the two, since the finer one keeps inside
the groups of the coarser (PHDB, appendix on products of multilevel low rank matrices).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.linear import gather, scatter
from mlfm.sweep import Totals, Tree, Workers

Floats = NDArray[np.float64]
ROWS = 4096  # copied at a time
#: Says of each column's level whether it is wanted beside rows of a given level.
Wanted = Callable[[NDArray[np.intp], int], NDArray[np.bool_]]


class Terms(NamedTuple):
    """weight (sum_l B_l C_l') + diag."""

    ranks: tuple[int, ...]  # of every level of the hierarchy, 0 included
    tree: Tree
    left: Floats  # B, n x r
    right: Floats  # C, n x r; B itself where the sum is symmetric
    weight: float
    diag: Floats  # n

    @classmethod
    def of(
        cls, offsets: Sequence[NDArray[np.intp]], ranks: tuple[int, ...], left: Floats, right: Floats, weight: float,
        diag: Floats,
    ) -> Terms:  # fmt: skip
        left = np.ascontiguousarray(left)
        right = left if right is left else np.ascontiguousarray(right)
        made = cls(ranks, Tree.of(offsets, ranks), left, right, weight, diag)
        made.seal()
        return made

    def seal(self) -> None:
        """Let nobody write into the arrays."""
        for array in (self.left, self.right, self.diag):
            array.setflags(write=False)

    @property
    def symmetric(self) -> bool:
        return self.right is self.left

    @property
    def weighted_left(self) -> Floats:
        return self.left if self.weight == 1 else self.weight * self.left

    @property
    def transposed(self) -> Terms:
        return self._replace(left=self.right, right=self.left)

    @property
    def column_levels(self) -> NDArray[np.intp]:
        """The level that each column of B and C belongs to."""
        return np.repeat(np.arange(len(self.ranks)), self.ranks)

    def tree_levels(self) -> list[int]:
        """The level that each level of the tree is: levels without columns are left out of it, but for the first."""
        return [level for level, rank in enumerate(self.ranks) if rank > 0 or level == 0]


def times(terms: Terms, X: Floats, workers: Workers) -> Floats:
    """(weight sum_l B_l C_l' + diag) X."""
    totals, ones = Totals(terms.tree, X.shape[1]), np.ones(len(X))
    gather(totals, terms.right, ones, X, workers)
    return scatter(totals, terms.left, X, terms.diag, terms.weight, ones, workers)


def coarser(columns: NDArray[np.intp], level: int) -> NDArray[np.bool_]:
    return columns < level


def coarser_or_same(columns: NDArray[np.intp], level: int) -> NDArray[np.bool_]:
    return columns <= level


def _sums(
    terms: Terms, factors: Floats, X: Floats, columns: NDArray[np.intp], wanted: Wanted, workers: Workers
) -> Totals:
    """B_k' X over every node k, for the wanted columns of X alone: those whose group holds all of the node."""
    totals = Totals(terms.tree, X.shape[1])
    gather(totals, factors, np.ones(len(X)), X, workers)
    for level, b in zip(terms.tree_levels(), totals.b, strict=True):
        b[:, :, ~wanted(columns, level)] = 0
    return totals


def _finer_times(
    terms: Terms, X: Floats, columns: NDArray[np.intp], wanted: Wanted, scale: float, workers: Workers
) -> Floats:
    """scale (weight sum over the wanted levels B_m C_m' + diag) X_l, for the columns X_l of every level l."""
    totals = _sums(terms, terms.right, X, columns, wanted, workers)
    return scatter(totals, terms.left, X, terms.diag, terms.weight, np.full(len(X), scale), workers)


def product(first: Terms, second: Terms, offsets: Sequence[NDArray[np.intp]], workers: Workers) -> Terms:
    """The product as terms of the summed ranks.

    Level l: B1_l times what the second has at l and finer, and what the first has finer than l times B2_l; the diagonal
    counts as finer than all levels.
    """
    left = _finer_times(first, second.left, second.column_levels, coarser, second.weight, workers)
    right = _finer_times(second.transposed, first.right, first.column_levels, coarser_or_same, first.weight, workers)
    left = stacked(first, first.left, second, left, workers)
    right = stacked(first, right, second, second.right, workers)
    ranks = tuple(a + b for a, b in zip(first.ranks, second.ranks, strict=True))
    return Terms.of(offsets, ranks, left, right, 1.0, first.diag * second.diag)


def stacked(first: Terms, X: Floats, second: Terms, Y: Floats, workers: Workers) -> Floats:
    """The columns of X and Y side by side, level by level."""
    out = np.empty((len(X), X.shape[1] + Y.shape[1]))
    pairs = list(zip(column_slices(first.ranks), column_slices(second.ranks), strict=True))

    def copy(i: int) -> None:
        rows = slice(i * ROWS, (i + 1) * ROWS)
        for mine, theirs in pairs:
            middle = mine.stop + theirs.start
            out[rows, mine.start + theirs.start : middle] = X[rows, mine]
            out[rows, middle : mine.stop + theirs.stop] = Y[rows, theirs]

    workers.run(copy, -(-len(X) // ROWS))
    return out


def added(first: Terms, second: Terms, offsets: Sequence[NDArray[np.intp]], workers: Workers) -> Terms:
    """The sum as terms of the summed ranks."""
    ranks = tuple(a + b for a, b in zip(first.ranks, second.ranks, strict=True))
    diag = first.diag + second.diag
    if first.symmetric and second.symmetric and first.weight == second.weight:
        both = stacked(first, first.left, second, second.left, workers)
        return Terms.of(offsets, ranks, both, both, first.weight, diag)
    left = stacked(first, first.weighted_left, second, second.weighted_left, workers)
    return Terms.of(offsets, ranks, left, stacked(first, first.right, second, second.right, workers), 1.0, diag)


def inner(first: Terms, second: Terms, workers: Workers) -> float:
    """The sum of products of corresponding elements, tr(first' second).

    Terms of levels l and m meet inside the groups of the finer of the two, and there
    <B1 C1', B2 C2'> = sum of the elements of (B1'B2) * (C1'C2).
    """
    low_rank = 0.0
    for a, b, wanted in ((first, second, coarser_or_same), (second, first, coarser)):
        lefts = _sums(a, a.left, b.left, b.column_levels, wanted, workers).b
        rights = (
            lefts if a.symmetric and b.symmetric else _sums(a, a.right, b.right, b.column_levels, wanted, workers).b
        )
        low_rank += sum(float(np.vdot(x, y)) for x, y in zip(lefts, rights, strict=True))
    return (
        first.weight * second.weight * low_rank
        + first.weight * float(diagonal_of_low_rank(first) @ second.diag)
        + second.weight * float(diagonal_of_low_rank(second) @ first.diag)
        + float(first.diag @ second.diag)
    )


def of_size_one(terms: Terms) -> tuple[Terms, float]:
    """Terms whose numbers can be squared, and what they are to be multiplied with again."""
    largest = [float(np.abs(array).max(initial=0.0)) for array in (terms.left, terms.right, terms.diag)]
    left, right = (value if value > 0 else 1.0 for value in largest[:2])
    size = max(abs(terms.weight) * left * right if min(largest[:2]) > 0 else 0.0, largest[2])
    if (1e-100 < size < 1e100 and 1e-100 < left * right < 1e100) or size == 0:
        return terms, 1.0
    scaled = terms.left / left
    other = scaled if terms.symmetric else terms.right / right
    return terms._replace(
        left=scaled, right=other, weight=terms.weight * left * right / size, diag=terms.diag / size
    ), size


def norm(terms: Terms, workers: Workers) -> float:
    """The Frobenius norm."""
    return math.sqrt(max(inner(terms, terms, workers), 0.0))


def diagonal(terms: Terms) -> Floats:
    """The diagonal of the whole."""
    return terms.diag + terms.weight * diagonal_of_low_rank(terms)


def diagonal_of_low_rank(terms: Terms) -> Floats:
    """f_j . c_j, row by row."""
    return np.einsum("jk,jk->j", terms.left, terms.right)


def quadratic_forms(terms: Terms, X: Floats, workers: Workers) -> Floats:
    """x' (..) x for every column x."""
    totals, ones = Totals(terms.tree, X.shape[1]), np.ones(len(X))
    gather(totals, terms.right, ones, X, workers)
    rights = totals.b
    if not terms.symmetric:
        totals = Totals(terms.tree, X.shape[1])
        gather(totals, terms.left, ones, X, workers)
    low_rank = sum(np.einsum("kon,kon->n", x, y) for x, y in zip(totals.b, rights, strict=True))
    return terms.weight * low_rank + np.einsum("jn,j,jn->n", X, terms.diag, X)


def block(terms: Terms, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Floats:
    """Some rows and columns as a dense array; positions are those of group order, in any order."""
    by_row, by_column = np.argsort(rows, kind="stable"), np.argsort(columns, kind="stable")
    i, j = rows[by_row], columns[by_column]
    out = np.zeros((len(i), len(j)))
    for level, bounds in enumerate(terms.tree.offsets):
        own = terms.tree.own(level)
        B, C = terms.left[i, own], terms.right[j, own]
        first_rows, first_columns = np.searchsorted(i, bounds), np.searchsorted(j, bounds)
        held = (np.diff(first_rows) > 0) & (np.diff(first_columns) > 0)
        for k in np.flatnonzero(held):
            a, b = slice(*first_rows[k : k + 2]), slice(*first_columns[k : k + 2])
            out[a, b] += terms.weight * (B[a] @ C[b].T)
    # The diagonal, wherever a row is a column; either may occur more than once.
    first, last = np.searchsorted(j, i, side="left"), np.searchsorted(j, i, side="right")
    for at, (a, b) in enumerate(zip(first, last, strict=True)):
        out[at, a:b] += terms.diag[i[at]]
    place_rows, place_columns = np.empty_like(by_row), np.empty_like(by_column)
    place_rows[by_row], place_columns[by_column] = np.arange(len(i)), np.arange(len(j))
    return out[np.ix_(place_rows, place_columns)]


def column_slices(ranks: Sequence[int]) -> list[slice]:
    """Each level's columns of the compressed B and C."""
    bounds = [0, *itertools.accumulate(ranks)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]
