"""Fewer columns for the same sum: a truncated singular value decomposition of every group's block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlfm.covariance.terms import Terms, column_slices

Floats = NDArray[np.float64]

ROUNDING = 8 * float(np.finfo(float).eps)  # of a block's norm: below it a singular value is rounding


class Spectrum:
    """The blocks B_k C_k' of one level as U_k diag(s_k) V_k', singular values decreasing; those of rounding are 0."""

    def __init__(self, B: Floats, C: Floats, offsets: NDArray[np.intp]) -> None:
        n, rank = B.shape
        sizes = np.diff(offsets)
        self.sizes = sizes
        self.U, self.V = np.zeros((n, rank)), np.zeros((n, rank))
        self.values = np.zeros((len(sizes), rank))
        if rank == 0:
            return
        # Groups of about the same size at once, filled up with zeros.
        order = np.argsort(sizes, kind="stable")
        start = 0
        while start < len(order):
            smallest = sizes[order[start]]
            stop = int(np.searchsorted(sizes[order], max(2 * smallest, 8), side="right"))
            batch = max(1, 2_000_000 // (int(sizes[order[stop - 1]]) * max(rank, 1)))
            stop = min(stop, start + batch)
            self._decompose(B, C, offsets, order[start:stop])
            start = stop

    def _decompose(self, B: Floats, C: Floats, offsets: NDArray[np.intp], groups: NDArray[np.intp]) -> None:
        size = int(self.sizes[groups].max())
        rows = offsets[groups][:, None] + np.arange(size)
        inside = np.arange(size) < self.sizes[groups][:, None]
        rows = np.where(inside, rows, 0)
        left = np.where(inside[:, :, None], B[rows], 0.0)
        right = np.where(inside[:, :, None], C[rows], 0.0)
        (Q, R), (S, T) = np.linalg.qr(left), np.linalg.qr(right)
        U, values, Vt = np.linalg.svd(R @ T.swapaxes(1, 2))
        largest = np.linalg.norm(R, axis=(1, 2)) * np.linalg.norm(T, axis=(1, 2))
        values[values <= ROUNDING * largest[:, None]] = 0
        kept = values.shape[1]
        self.values[groups, :kept] = values
        self.U[rows[inside], :kept] = (Q @ U)[inside]
        self.V[rows[inside], :kept] = (S @ Vt.swapaxes(1, 2))[inside]

    def rank(self, largest_error: float) -> int:
        """Columns to keep so that what is left out has at most this Frobenius norm."""
        left_out = np.sqrt(np.cumsum((self.values**2).sum(axis=0)[::-1]))[::-1]  # by columns from k on
        return int((left_out > largest_error).sum())

    def factors(self, rank: int) -> tuple[Floats, Floats]:
        """B and C of the first columns, the singular values shared between them."""
        roots = np.repeat(np.sqrt(self.values[:, :rank]), self.sizes, axis=0)
        return self.U[:, :rank] * roots, self.V[:, :rank] * roots


def spectra(terms: Terms, offsets: tuple[NDArray[np.intp], ...]) -> list[Spectrum]:
    """The blocks of every level, the weight in U."""
    left = terms.weighted_left
    return [
        Spectrum(left[:, own], terms.right[:, own], bounds)
        for own, bounds in zip(column_slices(terms.ranks), offsets, strict=True)
    ]


def without_rounding(terms: Terms, blocks: list[Spectrum], offsets: tuple[NDArray[np.intp], ...]) -> Terms:
    """The sum with every block put together, and nothing left out but rounding."""
    return rebuilt(terms, blocks, [block.rank(0.0) for block in blocks], offsets)


def rebuilt(terms: Terms, blocks: list[Spectrum], ranks: list[int], offsets: tuple[NDArray[np.intp], ...]) -> Terms:
    """The sum with the first columns of every block."""
    factors = [block.factors(rank) for block, rank in zip(blocks, ranks, strict=True)]
    left = np.concatenate([B for B, _ in factors], axis=1)
    right = np.concatenate([C for _, C in factors], axis=1)
    return Terms.of(offsets, tuple(ranks), left, right, 1.0, terms.diag)
