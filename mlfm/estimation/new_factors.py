"""What one factor more at a level would do to the log-likelihood, before any fit of it.

With P = Sigma^-1, S the sample covariance and Q = P S P, let k be a group and f loadings of one more factor of its own.
All else held,

    loglike(Sigma + f f') - loglike(Sigma) = N / 2 [f'Q f / (1 + f'P f) - log(1 + f'P f)]

is largest along the leading eigenvector of Q_kk v = theta P_kk v, with f'P f = theta - 1, where it is

    N / 2 (theta - 1 - log theta).

The gain of a level is the sum over its groups, which hardly know of each other. The eigenvector is looked for among the
leading principal components of the group's D^1/2 P Y, in which whatever the model misses stands out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.estimation.components import Dense, Tiled, components
from mlfm.estimation.problem import Problem
from mlfm.linear import divide_by_paths, eliminate, solve
from mlfm.sweep import Sweep, Tree, Workers

Floats = NDArray[np.float64]
Bounds = NDArray[np.intp]

COMPONENTS = 3  # among which the eigenvector is looked for
LEAST = 1.01  # theta of a new factor: at 1 its loadings would be 0, and stay so
TOGETHER = 1 << 20  # entries of groups of one size that are handled at once
SKETCHED = 1 << 26  # entries of the data beyond which SKETCH mixtures of the observations do instead
SKETCH = 64


class Factorised(NamedTuple):
    """Sigma^-1 = D^-1 - H_1 H_1' - .. - H_L H_L' in group order, with its groups and ranks by level."""

    offsets: Sequence[Bounds]
    ranks: Sequence[int]
    H: Floats  # n x r, compressed
    D: Floats  # n

    def own(self, level: int) -> slice:
        """A level's columns."""
        first = sum(self.ranks[:level])
        return slice(first, first + self.ranks[level])

    def quadratic(self, level: int, V: Floats) -> Floats:
        """V_k' (Sigma^-1)_kk V_k of every group of a level, of vectors V (n x m) cut into the groups' rows."""
        bounds = self.offsets[level]
        out = _sums(V[:, :, None] * V[:, None, :] / self.D[:, None, None], bounds)
        for other, rank in enumerate(self.ranks):
            if rank:
                finer = self.offsets[max(other, level)]
                products = _sums(self.H[:, self.own(other), None] * V[:, None, :], finer)
                squares = products.transpose(0, 2, 1) @ products
                out -= np.add.reduceat(squares, np.searchsorted(finer, bounds[:-1]), axis=0)
        return out


def gains(
    offsets: Sequence[Bounds],
    ranks: Sequence[int],
    F: Floats,
    D: Floats,
    problem: Problem,
    levels: Sequence[int],
    rng: np.random.Generator,
    workers: Workers,
) -> list[tuple[float, Floats]]:
    """Level by level what one factor more of each of its groups gains, and its loadings, at a point of a problem."""
    tree = Tree.of(offsets, ranks)
    Y: Any = problem.Y
    if Y.size > SKETCHED and Y.shape[1] > SKETCH:
        Y = Y @ (rng.standard_normal((Y.shape[1], SKETCH)) / np.sqrt(SKETCH)).astype(Y.dtype)
    Y = Y.astype(np.float64, copy=False)
    known, _ = eliminate(tree, F, D, workers)
    inverse = Factorised(offsets, ranks, divide_by_paths(tree, known, 1 / D, F, workers), D)
    solved = solve(Sweep(tree, Y.shape[1], elimination=known), F, D, Y, workers)
    return [gain(inverse, level, solved, problem.nobs) for level in levels]


def gain(inverse: Factorised, level: int, solved: Floats, nobs: float) -> tuple[float, Floats]:
    """What the log-likelihood gains by one more factor of each group of a level, and its loadings (n).

    ``solved`` is Sigma^-1 Y, n x columns, with Y Y' = nobs S.
    """
    roots, bounds = np.sqrt(inverse.D), inverse.offsets[level]
    V, Q = np.zeros((len(roots), COMPONENTS)), np.zeros((len(bounds) - 1, COMPONENTS))
    for groups in _of_one_size(bounds, solved.shape[1]):
        _lead(solved, roots, bounds, groups, nobs, V, Q)
    V *= roots[:, None]
    P = inverse.quadratic(level, V)
    P[:, range(COMPONENTS), range(COMPONENTS)] += Q == 0  # of components that are not there
    L = np.linalg.inv(np.linalg.cholesky(P))
    theta, turns = np.linalg.eigh((L * Q[:, None, :]) @ L.transpose(0, 2, 1))
    best = np.maximum(theta[:, -1], LEAST)
    coefficients = (L.transpose(0, 2, 1) @ turns[:, :, -1:])[:, :, 0] * np.sqrt(best - 1)[:, None]
    group = np.repeat(np.arange(len(best)), np.diff(bounds))
    f = np.einsum("jm,jm->j", V, coefficients[group])
    best = np.maximum(theta[:, -1], 1)
    return nobs / 2 * float((best - 1 - np.log(best)).sum()), f


def _lead(
    solved: Floats, roots: Floats, bounds: Bounds, groups: Bounds, nobs: float, V: Floats, Q: Floats
) -> None:  # fmt: skip
    """Leading components of D^1/2 P Y of some groups of one size, into V (rows) and Q (groups)."""
    first, last = bounds[groups[0]], bounds[groups[0] + 1]
    rows = bounds[groups][:, None] + np.arange(last - first)
    if len(groups) > 1 or rows.size * solved.shape[1] <= TOGETHER:
        found = components(Dense(solved[rows] * roots[rows][:, :, None]), COMPONENTS, nobs)
    else:

        def read(own: slice) -> Floats:
            tile = slice(first + own.start, first + own.stop)
            return np.asarray(solved[tile] * roots[tile, None])

        with Workers(1) as workers:
            tiled = Tiled(read, int(last - first), solved.shape[1], solved.dtype, workers)
            found = components(tiled, COMPONENTS, nobs)
    k = found.values.shape[1]
    V[rows, :k] = found.vectors
    Q[groups, :k] = found.values


def _of_one_size(bounds: Bounds, columns: int) -> list[Bounds]:
    """Groups of the same size, together as long as they are not too many."""
    sizes, out = np.diff(bounds), []
    for size in np.unique(sizes):
        groups = np.flatnonzero(sizes == size)
        together = max(1, TOGETHER // (int(size) * max(columns, 1)))
        out += [groups[a : a + together] for a in range(0, len(groups), together)]
    return out


def _sums(rows: Floats, bounds: Bounds) -> Floats:
    """Sums of the rows of every group."""
    return np.asarray(np.add.reduceat(rows, bounds[:-1], axis=0), dtype=np.float64)
