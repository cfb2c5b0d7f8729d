"""Leading principal components of groups of features: of many small groups at once, or of a large one tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mlfm.standardised import Reals
from mlfm.sweep import Workers

Floats = NDArray[np.float64]

# Groups of more than SMALL (rank + EXTRA) features and observations are sampled (Halko, Martinsson and Tropp 2011,
# algorithm 4.4): a start need not be exact, and all of their smaller Gram matrix would cost more.
SMALL, EXTRA, POWERS = 6, 10, 2
# Eigenvalue, per feature of unit variance, below which a component is nothing but rounding.
NEGLIGIBLE = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-5}


class Components(NamedTuple):
    """Of a stack of p groups of m features, k components each; those that are rounding are all zero.

    The group's data less ``vectors @ scores`` are what the components leave.
    """

    values: Floats  # p x k, eigenvalues of the sample covariance, decreasing
    vectors: Reals  # p x m x k
    scores: Reals  # p x k x columns


class Block(Protocol):
    """A stack of p matrices (m x columns) that can be multiplied from both sides."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def times(self, X: Reals) -> Reals:
        """p x m x q, from X: p x columns x q, or columns x q."""

    def transposed_times(self, X: Reals) -> Reals:
        """p x columns x q, from X: p x m x q."""

    def gram(self) -> Floats:
        """The smaller one of the two products with the transpose."""


class Dense:
    """Small groups, of one size."""

    def __init__(self, rows: Reals) -> None:
        self._rows = rows
        p, m, columns = rows.shape
        self.shape = (p, m, columns)
        self.dtype = rows.dtype

    def times(self, X: Reals) -> Reals:
        product: Reals = self._rows @ X
        return product

    def transposed_times(self, X: Reals) -> Reals:
        product: Reals = self._rows.transpose(0, 2, 1) @ X
        return product

    def gram(self) -> Floats:
        rows, columns = self._rows, self._rows.transpose(0, 2, 1)
        _, m, width = self.shape
        product = rows @ columns if m <= width else columns @ rows
        return product.astype(np.float64)


class Tiled:
    """One large group, whose rows ``read`` makes a run at a time."""

    TILE = 1024

    def __init__(
        self, read: Callable[[slice], Reals], m: int, columns: int, dtype: np.dtype[Any], workers: Workers
    ) -> None:
        self._read, self._workers, self.dtype = read, workers, dtype
        self.shape = (1, m, columns)
        self._tiles = [slice(a, min(a + self.TILE, m)) for a in range(0, m, self.TILE)]

    def times(self, X: Reals) -> Reals:
        q = X.shape[-1]
        right, out = X.reshape(self.shape[2], q), np.empty((1, self.shape[1], q), dtype=self.dtype)

        def part(i: int) -> None:
            out[0, self._tiles[i]] = self._read(self._tiles[i]) @ right

        self._workers.run(part, len(self._tiles))
        return out

    def transposed_times(self, X: Reals) -> Reals:
        def part(tile: slice) -> Reals:
            product: Reals = self._read(tile).T @ X[0, tile]
            return product

        return self._sum(part, X.shape[2]).astype(self.dtype)

    def gram(self) -> Floats:
        if self.shape[1] <= self.shape[2]:
            return Dense(self._read(slice(0, self.shape[1]))[None]).gram()

        def part(tile: slice) -> Reals:
            rows = self._read(tile)
            product: Reals = rows.T @ rows
            return product

        return self._sum(part, self.shape[2])

    def _sum(self, part: Callable[[slice], Reals], width: int) -> Floats:
        """The sum over tiles of a matrix of ``width`` columns; always of the same sums, whatever the threads."""
        runs = [self._tiles[i::16] for i in range(min(16, len(self._tiles)))]
        sums = np.zeros((len(runs), self.shape[2], width))

        def add(i: int) -> None:
            for tile in runs[i]:
                sums[i] += part(tile)

        self._workers.run(add, len(runs))
        return sums.sum(axis=0, keepdims=True)


def components(block: Block, k: int, nobs: float) -> Components:
    """The k leading components, or as many as there can be."""
    _, m, columns = block.shape
    k = min(k, m, columns)
    if SMALL * (k + EXTRA) < min(m, columns):
        values, vectors, scores = _sampled(block, k, nobs)
    else:
        values, vectors, scores = _exact(block, k, nobs)
    real = values > NEGLIGIBLE[block.dtype] * m
    return Components(
        np.where(real, values, 0.0), np.where(real[:, None], vectors, 0), np.where(real[:, :, None], scores, 0)
    )


def _exact(block: Block, k: int, nobs: float) -> tuple[Floats, Reals, Reals]:
    _, m, columns = block.shape
    values, vectors = np.linalg.eigh(block.gram() / nobs)
    values = np.maximum(values[:, ::-1][:, :k], 0)
    vectors = vectors[:, :, ::-1][:, :, :k].astype(block.dtype)
    if m <= columns:
        return values, vectors, block.transposed_times(vectors).transpose(0, 2, 1)
    lengths = np.sqrt(nobs * np.where(values > 0, values, 1.0)).astype(block.dtype)
    return values, block.times(vectors) / lengths[:, None], vectors.transpose(0, 2, 1) * lengths[:, :, None]


def _sampled(block: Block, k: int, nobs: float) -> tuple[Floats, Reals, Reals]:
    # The sample is the same in every fit: a start is no place for chance.
    directions = np.random.default_rng(0).standard_normal((block.shape[2], k + EXTRA)).astype(block.dtype)
    Q = np.linalg.qr(block.times(directions))[0]
    for _ in range(POWERS):
        Q = np.linalg.qr(block.times(np.linalg.qr(block.transposed_times(Q))[0]))[0]
    inside = block.transposed_times(Q).transpose(0, 2, 1)
    values, turn = np.linalg.eigh((inside @ inside.transpose(0, 2, 1)).astype(np.float64) / nobs)
    values, turn = np.maximum(values[:, ::-1][:, :k], 0), turn[:, :, ::-1][:, :, :k].astype(block.dtype)
    return values, Q @ turn, turn.transpose(0, 2, 1) @ inside
