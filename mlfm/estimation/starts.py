"""Where a fit begins: functions from a problem (unit variances, group order) to loadings and uniquenesses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.sparse.linalg import eigsh

from mlfm.estimation.problem import Problem

Floats = NDArray[np.float64]
Start = Callable[[Problem, np.random.Generator], tuple[Floats, Floats]]

LEAST_UNIQUE = 0.05  # share of the variance that a start leaves to each uniqueness at least
DENSE = 1000  # largest matrix of which all eigenvectors may be computed to have a few


def _leading(gram: Floats, k: int) -> tuple[Floats, Floats]:
    """The k largest eigenvalues of a symmetric matrix, decreasing, and their eigenvectors."""
    m = len(gram)
    if m > DENSE and 10 * k < m:
        values, vectors = eigsh(gram, k, v0=np.ones(m))  # a fixed v0: ARPACK's own is random
    else:
        values, vectors = linalg.eigh(gram, subset_by_index=[m - k, m - 1])
    order = np.argsort(values)[::-1]
    return np.maximum(values[order], 0), vectors[:, order]


def _principal(Y: Floats, nobs: int, k: int) -> tuple[Floats, Floats, Floats]:
    """Leading k eigenpairs of Y Y'/nobs: values, vectors (n x k), and Y'vectors (columns x k).

    From the smaller of the two Gram matrices.
    """
    n, m = Y.shape
    if n <= m:
        values, vectors = _leading(Y @ Y.T / nobs, k)
        return values, vectors, Y.T @ vectors
    values, right = _leading(Y.T @ Y / nobs, k)
    norms = np.sqrt(nobs * np.maximum(values, np.finfo(float).tiny))
    return values, Y @ right / norms, right * norms


def _fill(F: Floats, first: int, rng: np.random.Generator) -> None:
    """Small random loadings from a column on: columns of zeros would stay so in every later step."""
    F[:, first:] = 0.1 * rng.standard_normal(F[:, first:].shape) / np.sqrt(F.shape[1])


def pca(problem: Problem, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Principal components of all the data, one for every column of the compressed loadings."""
    Y, r = problem.Y, problem.tree.n_factors
    F = np.zeros((len(Y), r))
    k = min(r, *Y.shape)
    if k:
        values, vectors, _ = _principal(Y, problem.nobs, k)
        F[:, :k] = vectors * np.sqrt(values)
    _fill(F, k, rng)
    return F, _rest(F, problem)


def frobenius(problem: Problem, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """One top-down pass of block truncations: what is left of the sample covariance by the levels above is
    truncated, group by group, to the level's rank (Parshakova, Hastie, Darve and Boyd, section 4).
    """
    tree, left = problem.tree, problem.Y.copy()
    F = np.zeros((len(left), tree.n_factors))
    _fill(F, 0, rng)
    for level, rank in enumerate(tree.ranks):
        first = tree.columns[level]
        for a, b in zip(tree.offsets[level][:-1], tree.offsets[level][1:], strict=True):
            k = min(rank, b - a, left.shape[1])
            if k:
                values, vectors, right = _principal(left[a:b], problem.nobs, k)
                F[a:b, first : first + k] = vectors * np.sqrt(values)
                left[a:b] -= vectors @ right.T
    D = np.einsum("jn,jn->j", left, left) / problem.nobs
    return F, np.maximum(D, np.maximum(LEAST_UNIQUE, problem.floor))


def random(problem: Problem, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Normal loadings that explain half of each variance on average."""
    shape = (len(problem.Y), problem.tree.n_factors)
    F = rng.standard_normal(shape) / np.sqrt(2 * max(shape[1], 1))
    return F, np.maximum(np.full(shape[0], 0.5), problem.floor)


def _rest(F: Floats, problem: Problem) -> Floats:
    """The variance that loadings leave, at least a share of the whole."""
    D = 1 - np.einsum("jk,jk->j", F, F)
    return np.maximum(D, np.maximum(LEAST_UNIQUE, problem.floor))


STARTS: dict[str, Start] = {"pca": pca, "frobenius": frobenius, "random": random}
