"""Where a fit begins: functions from a problem (unit variances, group order) to loadings and uniquenesses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlfm.estimation.components import Block, Dense, Tiled, components
from mlfm.estimation.problem import Problem, Scaled
from mlfm.standardised import Reals
from mlfm.sweep import Workers

Floats = NDArray[np.float64]
Start = Callable[[Problem, np.random.Generator, Workers], tuple[Floats, Floats]]
#: Squared lengths of loadings from eigenvalues, what they and the others sum to, and how many there are in all.
Lengths = Callable[[Floats, Floats, int], Floats]

LEAST_UNIQUE = 0.05  # share of the variance that a start leaves to each uniqueness at least
LEAST_SIGNAL = 0.02  # share of an eigenvalue that is left when noise is taken off
TOGETHER = 1 << 20  # entries of small groups that are handled at once


def filling(problem: Scaled, rng: np.random.Generator) -> Floats:
    """Small random loadings, for columns that get no others: at 0 they would stay so in every later step."""
    shape = (len(problem.floor), problem.tree.n_factors)
    return 0.1 * rng.standard_normal(shape) / np.sqrt(max(shape[1], 1))


def _at_least_unique(D: Floats, problem: Problem) -> Floats:
    return np.maximum(D, np.maximum(LEAST_UNIQUE, problem.floor))


def pca(problem: Problem, rng: np.random.Generator, workers: Workers) -> tuple[Floats, Floats]:
    """Principal components of all the data, one for every column of the compressed loadings."""
    F = filling(problem, rng)
    n, columns = problem.Y.shape
    found = components(
        Tiled(lambda own: problem.Y[own], n, columns, problem.Y.dtype, workers), F.shape[1], problem.nobs
    )
    _fill(F[:, : found.values.shape[1]], found.vectors[0], found.values[0])
    return F, _at_least_unique(1 - np.einsum("jk,jk->j", F, F), problem)


def top_down(problem: Problem, rng: np.random.Generator, workers: Workers) -> tuple[Floats, Floats]:
    """Principal components of each group in what the levels above leave, less their share of noise.

    As :func:`frobenius`, but with the mean of the remaining eigenvalues taken off those of the components.
    """
    return _by_level(problem, rng, workers, _less_noise)


def frobenius(problem: Problem, rng: np.random.Generator, workers: Workers) -> tuple[Floats, Floats]:
    """One top-down pass of block truncations: what is left of the sample covariance by the levels above is
    truncated, group by group, to the level's rank (Parshakova, Hastie, Darve and Boyd, section 4).
    """
    return _by_level(problem, rng, workers, _whole)


def _by_level(problem: Problem, rng: np.random.Generator, workers: Workers, lengths: Lengths) -> tuple[Floats, Floats]:
    """Level by level the leading components of what is left inside each group, scaled to ``lengths`` of loadings."""
    left = _Left(problem, filling(problem, rng))
    for level, rank in enumerate(problem.tree.ranks):
        if rank:
            left.take_level(level, lengths, workers)
    return left.F, _at_least_unique(left.variances, problem)


def _batches(sizes: NDArray[np.intp], above: int, columns: int) -> Iterator[NDArray[np.intp]]:
    """Groups of one size that can be handled together, with what is kept of the ``above`` factors of their paths."""
    for size in np.unique(sizes):
        groups = np.flatnonzero(sizes == size)
        together = max(1, TOGETHER // (max(int(size), above) * max(columns, 1)))
        yield from np.split(groups, range(together, len(groups), together))


class _Left:
    """What components found so far leave of the data, never all of it at once.

    Loadings are unit vectors times the roots of their lengths, so that the data less F T are left, T being the
    components' scores over these roots.
    """

    def __init__(self, problem: Problem, filled: Floats) -> None:
        tree, columns = problem.tree, problem.Y.shape[1]
        self._problem, self._tree, self.F = problem, tree, filled
        self._T = [
            np.zeros((tree.n_nodes(level), rank, columns), dtype=problem.Y.dtype)
            for level, rank in enumerate(tree.ranks[:-1])  # nothing is below the last
        ]
        self.variances = problem.squares / problem.nobs

    def take_level(self, level: int, lengths: Lengths, workers: Workers) -> None:
        """The components of all groups of a level: of large ones one after the other, of small ones many at once."""
        columns = self._problem.Y.shape[1]
        batches = list(_batches(np.diff(self._tree.offsets[level]), self._tree.columns[level], columns))
        small = [nodes for nodes in batches if self._size(level, nodes) <= TOGETHER]

        def take(i: int) -> None:
            self._take(level, small[i], self._small(level, small[i]), lengths)

        workers.run(take, len(small))
        for nodes in batches:
            if self._size(level, nodes) > TOGETHER:
                self._take(level, nodes, self._large(level, nodes, workers), lengths)

    def _size(self, level: int, nodes: NDArray[np.intp]) -> int:
        """Entries of the data of some groups of one size."""
        first, last = (int(x) for x in self._tree.offsets[level][nodes[0] : nodes[0] + 2])
        return len(nodes) * (last - first) * self._problem.Y.shape[1]

    def _rows(self, level: int, nodes: NDArray[np.intp]) -> NDArray[np.intp]:
        """Features of some groups of one size, a group a row."""
        starts = self._tree.offsets[level][nodes]
        return starts[:, None] + np.arange(self._tree.offsets[level][nodes[0] + 1] - starts[0])

    def _above(self, level: int, nodes: NDArray[np.intp]) -> Reals:
        """T of the paths above some groups: nodes x c x columns."""
        above = np.empty((len(nodes), self._tree.columns[level], self._problem.Y.shape[1]), dtype=self._problem.Y.dtype)
        for upper in reversed(range(level)):
            nodes = self._tree.parents[upper + 1][nodes]
            above[:, self._tree.own(upper)] = self._T[upper][nodes]
        return above

    def _small(self, level: int, nodes: NDArray[np.intp]) -> Block:
        """What is left of some groups of one size."""
        rows = self._rows(level, nodes)
        left: Reals = self._problem.Y[rows]
        if level:
            loadings: Any = self.F[rows, : self._tree.columns[level]].astype(left.dtype)
            left -= loadings @ self._above(level, nodes)
        return Dense(left)

    def _large(self, level: int, nodes: NDArray[np.intp], workers: Workers) -> Block:
        """What is left of one group."""
        first, last = (int(x) for x in self._tree.offsets[level][nodes[0] : nodes[0] + 2])
        Y, c = self._problem.Y, self._tree.columns[level]
        above = self._above(level, nodes)[0] if level else np.empty((0, Y.shape[1]), dtype=Y.dtype)

        def read(own: slice) -> Reals:
            rows = slice(first + own.start, first + own.stop)
            return Y[rows] - self.F[rows, :c].astype(Y.dtype) @ above if c else Y[rows]

        return Tiled(read, last - first, Y.shape[1], Y.dtype, workers)

    def _take(self, level: int, nodes: NDArray[np.intp], block: Block, lengths: Lengths) -> None:
        """The level's components of some groups of one size become loadings, and are left no more."""
        rows, first = self._rows(level, nodes), self._tree.columns[level]
        found = components(block, self._tree.ranks[level], self._problem.nobs)
        k = found.values.shape[1]
        long = lengths(found.values, self.variances[rows].sum(axis=1), min(block.shape[1:]))
        roots = np.sqrt(np.where(long > 0, long, 1.0))
        if level < self._tree.leaf_level:
            self._T[level][nodes, :k] = found.scores / roots[:, :, None]
        self.variances[rows] -= np.einsum("pmk,pk->pm", found.vectors.astype(np.float64) ** 2, found.values)
        for group, vectors, length in zip(rows, found.vectors, long, strict=True):
            _fill(self.F[group[0] : group[-1] + 1, first : first + k], vectors, length)


def _fill(F: Floats, vectors: Reals, lengths: Floats) -> None:
    """Loadings from unit vectors and squared lengths; columns of length 0 are left as they are."""
    found = lengths > 0
    F[:, found] = vectors[:, found] * np.sqrt(lengths[found])


def _whole(values: Floats, total: Floats, number: int) -> Floats:
    return values


def _less_noise(values: Floats, total: Floats, number: int) -> Floats:
    """Eigenvalues less the mean of the others, of which there are ``number`` with the sum ``total`` in all."""
    found = (values > 0).sum(axis=1)
    noise = (total - values.sum(axis=1)) / np.maximum(number - found, 1)
    return np.where(values > 0, np.maximum(values - noise[:, None], LEAST_SIGNAL * values), 0.0)


def random(problem: Problem, rng: np.random.Generator, workers: Workers) -> tuple[Floats, Floats]:
    """Normal loadings that explain half of each variance on average."""
    shape = (len(problem.Y), problem.tree.n_factors)
    F = rng.standard_normal(shape) / np.sqrt(2 * max(shape[1], 1))
    return F, np.maximum(np.full(shape[0], 0.5), problem.floor)


STARTS: dict[str, Start] = {"top-down": top_down, "pca": pca, "frobenius": frobenius, "random": random}
