"""Products, orthonormal bases and spectra of all blocks of a level at once.

A level's factor is n x q: the rows of group k are the factor of block k. Arrays k x q x q hold a small matrix a block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import add_expanded, project

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

#: Squared length, of the longest of columns of length one, below which a direction is rounding and left out.
NOTHING = 1e-14
LARGE = 1e100  # elements whose squares could overflow in sums


def products(X: Floats, Y: Floats, offsets: Integers) -> Floats:
    """X_k' Y_k of every block."""
    out = np.zeros((len(offsets) - 1, X.shape[1], Y.shape[1]))
    project(X, Y, offsets, out)
    return out


def expanded(X: Floats, T: Floats, offsets: Integers) -> Floats:
    """X_k T_k of every block."""
    out = np.zeros((len(X), T.shape[2]))
    add_expanded(X, np.ascontiguousarray(T), offsets, 1.0, out)
    return out


def orthonormal(X: Floats, offsets: Integers) -> Floats:
    """An orthonormal basis of the columns of every X_k, in as many columns; those that are not needed are zero."""
    largest = float(np.abs(X).max(initial=0.0))
    Q = _halfway(X / largest if largest > LARGE else X, offsets)
    return _halfway(Q, offsets)  # the first has lost digits where columns were nearly dependent


def _halfway(X: Floats, offsets: Integers) -> Floats:
    G = products(X, X, offsets)
    # Columns of length one first: products with a small matrix, or its weak directions, are not rounding.
    lengths = np.sqrt(np.einsum("kii->ki", G))
    lengths = np.where(lengths > 0, lengths, 1.0)
    squares, V = np.linalg.eigh(G / (lengths[:, :, None] * lengths[:, None, :]))
    real = squares > NOTHING * np.maximum(squares[:, -1:], np.finfo(float).tiny)
    T = np.where(real[:, None, :], V / np.sqrt(np.where(real, squares, 1.0))[:, None, :], 0.0)
    return expanded(X, T[:, :, ::-1] / lengths[:, :, None], offsets)


def is_signed(B: Floats, C: Floats, offsets: Integers) -> bool:
    """Whether C is B but for a sign of each column of each block, so that every B_k C_k' is symmetric."""
    if B.shape[1] == 0:
        return True
    same, opposite = (np.logical_and.reduceat(signed == C, offsets[:-1], axis=0) for signed in (B, -B))
    return bool((same | opposite).all())


def evened(B: Floats, C: Floats, rows: Integers, columns: Integers) -> tuple[Floats, Floats]:
    """Factors of the same blocks of which each column is as long on the left as it is on the right."""
    left, right = (np.add.reduceat(X * X, offsets[:-1], axis=0) ** 0.25 for X, offsets in ((B, rows), (C, columns)))
    both = (left > 0) & (right > 0)
    scale = np.where(both, right, 1.0) / np.where(both, left, 1.0)
    return B * np.repeat(scale, np.diff(rows), axis=0), C / np.repeat(scale, np.diff(columns), axis=0)


def balanced(B: Floats, C: Floats, rows: Integers, columns: Integers) -> tuple[Floats, Floats]:
    """Factors of the same blocks, B_k = U_k S_k^1/2 and C_k = V_k S_k^1/2, singular values decreasing."""
    U, V = orthonormal(B, rows), orthonormal(C, columns)
    core = products(U, B, rows) @ products(V, C, columns).swapaxes(1, 2)
    left, values, right = np.linalg.svd(core)
    roots = np.sqrt(values)[:, None, :]
    return expanded(U, left * roots, rows), expanded(V, right.swapaxes(1, 2) * roots, columns)
