"""The matrix that is to be fitted, however it is given, as products with its diagonal blocks.

All that a fit asks of a matrix A is A_kk X_k for every block k of a level, X_k being the rows of X that belong to the
block: so A may be an array, sparse, a LinearOperator, or the covariance of data, which is never formed. Everything
here is in group order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

from mlfm.lowrank.factors import Factors
from mlfm.lowrank.grid import Grid, Side
from mlfm.sweep import Workers

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

TILE = 512  # rows that one task multiplies
SMALL = 4096  # numbers of a block up to which blocks of one shape are multiplied together
MANY = 16  # blocks of a level from which that is worth while
WORTH = 4_000_000  # multiplications from which threads are worth their while
ROOM = 1 << 22  # numbers of a temporary array


class Source(Protocol):
    """A matrix, by its blocks."""

    grid: Grid

    def times(self, level: int, X: Floats, workers: Workers) -> Floats:
        """A_kk X_k, block below block: m x q, from X: n x q."""

    def transposed_times(self, level: int, X: Floats, workers: Workers) -> Floats:
        """A_kk' X_k: n x q, from X: m x q."""

    @property
    def squared_norm(self) -> float:
        """The sum of squares of all elements."""

    @property
    def diagonal(self) -> Floats:
        """Of a square matrix."""


class _Batch(NamedTuple):
    """Blocks of one shape a x b."""

    rows: Integers  # blocks x a
    columns: Integers  # blocks x b
    blocks: Floats  # blocks x a x b
    transposed: Floats  # blocks x b x a


class Dense:
    """A matrix that is there as an array."""

    def __init__(self, A: Floats, grid: Grid) -> None:
        self.grid, self.A = grid, A
        self._batches: dict[int, list[_Batch]] = {}
        self._cuts: dict[tuple[int, bool], list[tuple[slice, slice]]] = {}

    def times(self, level: int, X: Floats, workers: Workers) -> Floats:
        rows, columns = self.grid.rows, self.grid.columns
        out = np.empty((len(rows), X.shape[1]))
        if self._in_batches(level):
            for batch in self._batches_of(level):
                out[batch.rows] = batch.blocks @ X[batch.columns]
            return out
        tiles = self._tiles(rows, columns, level, False)

        def multiply(i: int) -> None:
            own, block = tiles[i]
            out[own] = (X[block].T @ self.A[own, block].T).T  # BLAS likes few rows better than few columns

        side_by_side(multiply, len(tiles), X.shape[1] * self._work(level), workers)
        return out

    def transposed_times(self, level: int, X: Floats, workers: Workers) -> Floats:
        rows, columns = self.grid.rows, self.grid.columns
        out = np.empty((len(columns), X.shape[1]))
        if self._in_batches(level):
            for batch in self._batches_of(level):
                out[batch.columns] = batch.transposed @ X[batch.rows]
            return out
        tiles = self._tiles(columns, rows, level, True)

        def multiply(i: int) -> None:
            own, block = tiles[i]
            out[own] = (X[block].T @ self.A[block, own]).T

        side_by_side(multiply, len(tiles), X.shape[1] * self._work(level), workers)
        return out

    @cached_property
    def squared_norm(self) -> float:
        return float(sum(np.vdot(row, row) for row in self.A))

    @property
    def diagonal(self) -> Floats:
        return np.diagonal(self.A).copy()

    def thinned(self, grid: Grid, every: int) -> Dense:
        """Every so manieth row and column, on their grid."""
        return Dense(np.ascontiguousarray(self.A[::every, ::every]), grid)

    def left_over(self, factors: Factors) -> float:
        """The sum of squares of what factors leave, element by element, some rows at a time."""
        total = 0.0
        for start in range(0, len(self.A), TILE):
            rows = slice(start, min(start + TILE, len(self.A)))
            rest = self.A[rows].copy()
            factors.take_from(rows, rest)
            total += float(np.vdot(rest, rest))
        return total

    def _in_batches(self, level: int) -> bool:
        heights, widths = self.grid.sizes(level)
        return len(heights) >= MANY and int((heights * widths).max()) <= SMALL

    def _work(self, level: int) -> int:
        """Numbers in the blocks of a level."""
        return int(np.dot(*self.grid.sizes(level)))

    def _tiles(self, rows: Side, columns: Side, level: int, transposed: bool) -> list[tuple[slice, slice]]:
        if (level, transposed) not in self._cuts:
            self._cuts[level, transposed] = list(_tiles(rows, columns, level))
        return self._cuts[level, transposed]

    def _batches_of(self, level: int) -> list[_Batch]:
        if level not in self._batches:
            found = []
            for _, rows, columns in same_shape(self.grid, level):
                blocks = self.A[rows[:, :, None], columns[:, None, :]]
                found.append(_Batch(rows, columns, blocks, np.ascontiguousarray(blocks.swapaxes(1, 2))))
            self._batches[level] = found
        return self._batches[level]


def side_by_side(function: Callable[[int], None], tasks: int, work: int, workers: Workers) -> None:
    """Run tasks on threads, or one after the other where they are not worth handing out."""
    if work < WORTH:
        for i in range(tasks):
            function(i)
    else:
        workers.run(function, tasks)


def same_shape(grid: Grid, level: int) -> Iterator[tuple[Integers, Integers, Integers]]:
    """Runs of blocks of one shape: their numbers, and the rows and columns of each."""
    heights, widths = grid.sizes(level)
    shapes, which = np.unique(np.stack([heights, widths], axis=1), axis=0, return_inverse=True)
    for shape, (a, b) in enumerate(shapes):
        own = np.flatnonzero(which.ravel() == shape)
        rows = grid.rows.offsets[level][own][:, None] + np.arange(a)
        columns = grid.columns.offsets[level][own][:, None] + np.arange(b)
        yield own, rows, columns


def _tiles(rows: Side, columns: Side, level: int) -> Iterator[tuple[slice, slice]]:
    """Runs of rows of each block, and the block's columns."""
    bounds = zip(itertools.pairwise(rows.offsets[level]), itertools.pairwise(columns.offsets[level]), strict=True)
    for (first, last), (left, right) in bounds:
        for start in range(int(first), int(last), TILE):
            yield slice(start, min(start + TILE, int(last))), slice(int(left), int(right))


class Sparse:
    """A sparse matrix. Its blocks of one level are a sparse matrix too: what lies outside of them is left out."""

    def __init__(self, A: Any, grid: Grid) -> None:
        self.grid = grid
        self.A = sparse.coo_array(A)
        self._levels: dict[int, Any] = {}

    def times(self, level: int, X: Floats, workers: Workers) -> Floats:
        return np.asarray(self._blocks(level) @ X)

    def transposed_times(self, level: int, X: Floats, workers: Workers) -> Floats:
        return np.asarray(self._blocks(level).T @ X)

    @cached_property
    def squared_norm(self) -> float:
        return float(np.vdot(self.A.data, self.A.data))

    @property
    def diagonal(self) -> Floats:
        return np.asarray(self.A.diagonal(), dtype=np.float64)

    def _blocks(self, level: int) -> Any:
        if level not in self._levels:
            i, j = self.A.coords
            inside = self.grid.rows.group_of(level)[i] == self.grid.columns.group_of(level)[j]
            kept = (self.A.data[inside], (i[inside], j[inside]))
            self._levels[level] = sparse.csr_array(kept, shape=self.grid.shape)
        return self._levels[level]


class Operator:
    """A matrix that is known by its products alone.

    Products with the blocks of a level need a column for every block and every column of X; the norm and the diagonal
    need a product with every column of the identity.
    """

    def __init__(self, A: LinearOperator, grid: Grid, rows: Integers, columns: Integers) -> None:
        self.grid, self._A = grid, A
        self._rows, self._columns = rows, columns  # where in A each row and column of group order stands

    def times(self, level: int, X: Floats, workers: Workers) -> Floats:
        left, right = self.grid.rows.offsets[level], self.grid.columns.offsets[level]
        return _by_blocks(self._A.matmat, self._rows, self._columns, left, right, X)

    def transposed_times(self, level: int, X: Floats, workers: Workers) -> Floats:
        left, right = self.grid.columns.offsets[level], self.grid.rows.offsets[level]
        return _by_blocks(self._A.rmatmat, self._columns, self._rows, left, right, X)

    @property
    def squared_norm(self) -> float:
        return self._norm_and_diagonal[0]

    @property
    def diagonal(self) -> Floats:
        return self._norm_and_diagonal[1]

    @cached_property
    def _norm_and_diagonal(self) -> tuple[float, Floats]:
        m, n = self.grid.shape
        total, diagonal = 0.0, np.zeros(n)
        together = max(1, ROOM // max(m, n))
        partner = np.empty(n, dtype=np.intp)  # where in A the row stands that is the feature of each column
        partner[self._columns] = self._rows if m == n else 0
        for start in range(0, n, together):
            stop = min(start + together, n)
            identity = np.zeros((n, stop - start))
            identity[np.arange(start, stop), np.arange(stop - start)] = 1
            columns = np.asarray(self._A.matmat(identity), dtype=np.float64)
            total += float(np.vdot(columns, columns))
            if m == n:
                diagonal[start:stop] = columns[partner[start:stop], np.arange(stop - start)]
        return total, diagonal[self._columns]


def _by_blocks(product: Any, rows: Integers, columns: Integers, left: Integers, right: Integers, X: Floats) -> Floats:
    """Products with the blocks of a level from products with the whole matrix, which knows the user's order."""
    q, out = X.shape[1], np.empty((len(rows), X.shape[1]))
    together = max(1, ROOM // (max(len(rows), len(columns)) * max(q, 1)))
    for first in range(0, len(left) - 1, together):
        last = min(first + together, len(left) - 1)
        wide = np.zeros((len(columns), (last - first) * q))
        for k in range(first, last):
            own = slice(right[k], right[k + 1])
            wide[columns[own], (k - first) * q : (k - first + 1) * q] = X[own]
        found = np.asarray(product(wide), dtype=np.float64)
        for k in range(first, last):
            own = slice(left[k], left[k + 1])
            out[own] = found[rows[own], (k - first) * q : (k - first + 1) * q]
    return out


class Gram:
    """Y Y' / nobs for data Y, features x observations: products cost what products with Y cost."""

    def __init__(self, Y: Floats, nobs: float, grid: Grid) -> None:
        self.grid, self.Y, self.nobs = grid, Y, nobs

    def times(self, level: int, X: Floats, workers: Workers) -> Floats:
        out = np.empty_like(X)
        batches = list(self._batches(level, X.shape[1]))

        def multiply(i: int) -> None:
            rows = batches[i]
            Y = self.Y[rows]
            out[rows] = Y @ (Y.swapaxes(1, 2) @ X[rows]) / self.nobs

        side_by_side(multiply, len(batches), self.Y.size * X.shape[1], workers)
        bounds = self.grid.rows.offsets[level]
        for k in np.flatnonzero(np.diff(bounds) > TILE):
            self._large(slice(bounds[k], bounds[k + 1]), X, out, workers)
        return out

    def transposed_times(self, level: int, X: Floats, workers: Workers) -> Floats:
        return self.times(level, X, workers)

    @cached_property
    def squared_norm(self) -> float:
        n, N = self.Y.shape
        small = self.Y.T @ self.Y if n >= N else self.Y @ self.Y.T
        return float(np.vdot(small, small)) / self.nobs**2

    @cached_property
    def diagonal(self) -> Floats:
        return np.einsum("jn,jn->j", self.Y, self.Y) / self.nobs

    def thinned(self, grid: Grid, every: int) -> Gram:
        """Every so manieth feature, on their grid."""
        return Gram(np.ascontiguousarray(self.Y[::every]), self.nobs, grid)

    def _batches(self, level: int, q: int) -> Iterator[Integers]:
        """Features of blocks of one size, not large, as many together as there is room for."""
        N = self.Y.shape[1]
        for own, rows, _ in same_shape(self.grid, level):
            size = rows.shape[1]
            if size > TILE:
                continue
            together = max(1, ROOM // (N * (size + q)))
            for start in range(0, len(own), together):
                yield rows[start : start + together]

    def _large(self, own: slice, X: Floats, out: Floats, workers: Workers) -> None:
        """One large block, tile by tile; sums are taken in the order of the tiles, whatever the threads."""
        tiles = [slice(a, min(a + TILE, own.stop)) for a in range(int(own.start), int(own.stop), TILE)]
        parts = np.empty((len(tiles), self.Y.shape[1], X.shape[1]))

        def gather(i: int) -> None:
            np.matmul(self.Y[tiles[i]].T, X[tiles[i]], out=parts[i])

        workers.run(gather, len(tiles))
        total = parts.sum(axis=0) / self.nobs

        def scatter(i: int) -> None:
            np.matmul(self.Y[tiles[i]], total, out=out[tiles[i]])

        workers.run(scatter, len(tiles))
