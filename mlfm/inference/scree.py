"""Eigenvalues of what the coarser levels leave of each group's sample correlation: how many factors a level wants.

For group k the matrix is S_kk - sum over coarser levels of F_a F_a', S the sample correlation and F_a the fitted
loadings of standardised features, n_k x n_k. It is A J A' with A = [Y_k, F_a] and J = diag(1, -1): for any R with
R'R = A'A its eigenvalues other than zero are those of R J R', which has N + r rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Floats = NDArray[np.float64]


def eigenvalues(Y: Floats, F: Floats, most: int) -> Floats:
    """The largest eigenvalues of Y Y' - F F', decreasing; at most as many as there are features."""
    n, nobs = Y.shape
    if n <= nobs + F.shape[1]:
        return _largest(Y @ Y.T - F @ F.T, most)
    A = np.hstack([Y, F])
    squares, V = np.linalg.eigh(A.T @ A)
    R = np.sqrt(np.maximum(squares, 0))[:, None] * V.T
    signs = np.concatenate([np.ones(nobs), -np.ones(F.shape[1])])
    with_zeros = np.concatenate([_largest((R * signs) @ R.T, most), np.zeros(min(n - len(R), most))])
    return np.asarray(-np.sort(-with_zeros)[:most], dtype=np.float64)


def _largest(M: Floats, most: int) -> Floats:
    """The largest eigenvalues of a symmetric matrix, decreasing."""
    size = len(M)
    values = linalg.eigh(M, eigvals_only=True, subset_by_index=[max(size - most, 0), size - 1])
    return np.asarray(values[::-1], dtype=np.float64)


def noise_edge(n: int, nobs: float, variance: float) -> float:
    """The largest eigenvalue that independent noise of this variance has in large samples (Marchenko and Pastur)."""
    return float(variance * (1 + np.sqrt(n / nobs)) ** 2)
