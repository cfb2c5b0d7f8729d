"""Where a fit begins: functions from a problem (unit variances, group order) to loadings and uniquenesses."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.sparse.linalg import eigsh

from mlfm.estimation.problem import Problem

Floats = NDArray[np.float64]
Start = Callable[[Problem, np.random.Generator], tuple[Floats, Floats]]

LEAST_UNIQUE = 0.05  # share of the variance that a start leaves to each uniqueness at least
LEAST_SIGNAL = 0.02  # share of an eigenvalue that is left when noise is taken off
NEGLIGIBLE = 1e-8  # eigenvalue, per feature of unit variance, below which a component is nothing but rounding
DENSE = 1000  # largest matrix of which all eigenvectors may be computed to have a few


def _leading(gram: Floats, k: int) -> tuple[Floats, Floats]:
    """The k largest eigenvalues of a symmetric matrix, decreasing, and their eigenvectors."""
    m = len(gram)
    if m > DENSE and 10 * k < m:
        # ARPACK's own first vector differs from run to run.
        values, vectors = eigsh(gram, k, v0=np.random.default_rng(0).standard_normal(m))
    else:
        values, vectors = linalg.eigh(gram, subset_by_index=[m - k, m - 1])
    order = np.argsort(values)[::-1]
    return np.maximum(values[order], 0), vectors[:, order]


def _principal(Y: Floats, nobs: int, k: int) -> tuple[Floats, Floats]:
    """Leading k eigenpairs of Y Y'/nobs, less those that are rounding: values, and vectors in columns.

    From the smaller of the two Gram matrices.
    """
    n, m = Y.shape
    k = min(k, n, m)
    if k == 0:
        return np.empty(0), np.empty((n, 0))
    values, vectors = _leading(Y @ Y.T / nobs if n <= m else Y.T @ Y / nobs, k)
    kept = values > NEGLIGIBLE * n
    values, vectors = values[kept], vectors[:, kept]
    return values, vectors if n <= m else Y @ vectors / np.sqrt(nobs * values)


def filling(problem: Problem, rng: np.random.Generator) -> Floats:
    """Small random loadings, for columns that get no others: at 0 they would stay so in every later step."""
    shape = (len(problem.Y), problem.tree.n_factors)
    return 0.1 * rng.standard_normal(shape) / np.sqrt(max(shape[1], 1))


def _at_least_unique(D: Floats, problem: Problem) -> Floats:
    return np.maximum(D, np.maximum(LEAST_UNIQUE, problem.floor))


def pca(problem: Problem, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Principal components of all the data, one for every column of the compressed loadings."""
    F = filling(problem, rng)
    values, vectors = _principal(problem.Y, problem.nobs, F.shape[1])
    F[:, : len(values)] = vectors * np.sqrt(values)
    return F, _at_least_unique(1 - np.einsum("jk,jk->j", F, F), problem)


def top_down(problem: Problem, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Principal components of each group in what the levels above leave, less their share of noise.

    As :func:`frobenius`, but with the mean of the remaining eigenvalues taken off those of the components.
    """
    return _by_level(problem, rng, _less_noise)


def frobenius(problem: Problem, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """One top-down pass of block truncations: what is left of the sample covariance by the levels above is
    truncated, group by group, to the level's rank (Parshakova, Hastie, Darve and Boyd, section 4).
    """
    return _by_level(problem, rng, _whole)


def _by_level(
    problem: Problem, rng: np.random.Generator, lengths: Callable[[Floats, float, int], Floats]
) -> tuple[Floats, Floats]:
    """Level by level the leading components of what is left inside each group, scaled to ``lengths`` of loadings."""
    tree, left = problem.tree, problem.Y.copy()
    F = filling(problem, rng)
    for level, rank in enumerate(tree.ranks):
        first = tree.columns[level]
        for a, b in itertools.pairwise(tree.offsets[level]):
            values, vectors = _principal(left[a:b], problem.nobs, rank)
            total = float(np.vdot(left[a:b], left[a:b])) / problem.nobs
            F[a:b, first : first + len(values)] = vectors * np.sqrt(lengths(values, total, min(left[a:b].shape)))
            left[a:b] -= vectors @ (vectors.T @ left[a:b])
    return F, _at_least_unique(np.einsum("jn,jn->j", left, left) / problem.nobs, problem)


def _whole(values: Floats, total: float, number: int) -> Floats:
    return values


def _less_noise(values: Floats, total: float, number: int) -> Floats:
    """Eigenvalues less the mean of the others, of which there are ``number`` with the sum ``total`` in all."""
    noise = (total - values.sum()) / max(number - len(values), 1)
    return np.maximum(values - noise, LEAST_SIGNAL * values)


def random(problem: Problem, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Normal loadings that explain half of each variance on average."""
    shape = (len(problem.Y), problem.tree.n_factors)
    F = rng.standard_normal(shape) / np.sqrt(2 * max(shape[1], 1))
    return F, np.maximum(np.full(shape[0], 0.5), problem.floor)


STARTS: dict[str, Start] = {"top-down": top_down, "pca": pca, "frobenius": frobenius, "random": random}
