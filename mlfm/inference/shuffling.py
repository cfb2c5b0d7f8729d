"""Parallel analysis level by level: eigenvalues inside the groups against those of shuffled data (Horn 1965).

Factors of a level are what makes the parts of its groups go along: the groups of the next finer level inside them, or
single features at the finest. So a group's data are shuffled part by part, each part's observations in an order of its
own: what the parts have in common is destroyed, what goes on inside them, which finer levels are to explain, is not. A
group that is its own only part has nothing to be shuffled against, and no say.

A level sees what the leading principal components of the coarser levels leave. Without u'E rows of noise are not
independent any more: in a small group, to be seen in its eigenvalues. So what was shuffled loses them, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Floats = NDArray[np.float64]
Bounds = NDArray[np.intp]
#: Runs tasks 0 .. n - 1, maybe side by side.
Run = Callable[[Callable[[int], None], int], None]

TOGETHER = 1 << 22  # entries of groups of one size that are handled at once
SMALL = 64  # eigenvalues of smaller matrices are all found, many matrices at once
HALF = 0.5 - 1e-12  # less what a sum of shares may be off


class Verdict(NamedTuple):
    """Of one level: the rank, and number by number (from 1) the eigenvalues of the median group, of its data and of the
    shuffled ones, and the share of the features in groups that ask for so many factors.
    """

    rank: int
    observed: Floats
    shuffled: Floats
    share: Floats


class Components(NamedTuple):
    """Unit vectors of every group of a level, one below the other."""

    bounds: Bounds
    U: Floats  # n x rank

    def take_out(self, E: Floats) -> None:
        """Every group's data less what they have of its vectors."""
        for a, b in itertools.pairwise(self.bounds):
            U = self.U[a:b]
            E[a:b] -= U @ (U.T @ E[a:b])


@dataclass(frozen=True)
class Shuffling:
    """How the data are shuffled: how often, which quantile of what comes out must be exceeded, with what seeds."""

    times: int
    quantile: float
    seeds: Callable[[int], Sequence[np.random.Generator]]
    run: Run


def by_level(
    E: Floats, roots: Floats, offsets: Sequence[Bounds], most: Sequence[int], how: Shuffling
) -> Iterator[Verdict]:
    """From the coarsest level to the finest; E (n x nobs, group order, unit variances) is used up.

    ``roots`` of the observations' weights. Every group of a level loses as many components as is the level's rank.
    """
    lost: list[Components] = []
    for level, (bounds, top) in enumerate(zip(offsets, most, strict=True)):
        parts = offsets[level + 1] if level + 1 < len(offsets) else np.arange(len(E) + 1)
        verdict = _level(E, roots, bounds, parts, lost, top, how)
        yield verdict
        if verdict.rank and level + 1 < len(offsets):
            lost.append(_leading_components(E * roots, bounds, verdict.rank))
            lost[-1].take_out(E)


def _level(
    E: Floats, roots: Floats, bounds: Bounds, parts: Bounds, lost: Sequence[Components], most: int, how: Shuffling
) -> Verdict:
    """The rank that groups with at least half of the features want: a factor more costs as many loadings as its groups
    have features, and groups that do not want it pay too.
    """
    sizes, several = np.diff(bounds), np.diff(np.searchsorted(parts, bounds)) > 1
    if not most or not several.any():
        nothing = np.empty(0)
        return Verdict(0, nothing, nothing, nothing)
    observed = _leading(E * roots, bounds, most)
    limits = _of_shuffled(E, roots, bounds, parts, lost, most, how)
    wanted = np.cumprod(observed > limits, axis=1).sum(axis=1)
    weights = np.where(several, sizes, 0) / sizes[several].sum()
    share = np.array([weights[wanted >= number].sum() for number in range(1, most + 1)])
    rank = int((share >= HALF).sum())
    shown = min(rank + 1, most)
    middle, limit = (np.median(values[several], axis=0)[:shown] for values in (observed, limits))
    return Verdict(rank, middle, limit, share[:shown])


def _of_shuffled(
    E: Floats, roots: Floats, bounds: Bounds, parts: Bounds, lost: Sequence[Components], most: int, how: Shuffling
) -> Floats:
    """The quantile of the eigenvalues of shuffled data, groups x most."""
    values, seeds = np.empty((how.times, len(bounds) - 1, most)), how.seeds(how.times)
    squares = _squares(E * roots)

    def shuffle(i: int) -> None:
        out = _shuffled(E, parts, seeds[i])
        for components in lost:
            components.take_out(out)
        out *= roots
        if lost:
            own = _squares(out)
            out *= np.sqrt(np.divide(squares, own, out=np.zeros_like(own), where=own > 0))[:, None]
        values[i] = _leading(out, bounds, most)

    how.run(shuffle, how.times)
    return np.asarray(np.quantile(values, how.quantile, axis=0), dtype=np.float64)


def _squares(Y: Floats) -> Floats:
    return np.asarray(np.einsum("jn,jn->j", Y, Y), dtype=np.float64)


def _shuffled(left: Floats, parts: Bounds, rng: np.random.Generator) -> Floats:
    """The rows of every part with their columns in an order of the part's own."""
    if len(parts) == len(left) + 1:
        return rng.permuted(left, axis=1)
    out = np.empty_like(left)
    for a, b in itertools.pairwise(parts):
        out[a:b] = left[a:b, rng.permutation(left.shape[1])]
    return out


def _of_one_size(bounds: Bounds, columns: int) -> Iterator[tuple[Bounds, Bounds]]:
    """Groups of the same size, together as long as they are not too many, and their rows (groups x size)."""
    sizes = np.diff(bounds)
    for size in np.unique(sizes):
        groups = np.flatnonzero(sizes == size)
        together = max(1, TOGETHER // (int(size) * columns))
        for own in np.split(groups, range(together, len(groups), together)):
            yield own, bounds[own][:, None] + np.arange(size)


def _leading(Y: Floats, bounds: Bounds, most: int) -> Floats:
    """The largest eigenvalues of Y_k Y_k' for every group, decreasing; zeros beyond as many as there are."""
    out = np.zeros((len(bounds) - 1, most))
    for groups, rows in _of_one_size(bounds, Y.shape[1]):
        values = _eigenvalues(Y[rows], most)
        out[groups, : values.shape[1]] = values
    return out


def _eigenvalues(stack: Floats, most: int) -> Floats:
    gram = _gram(stack)
    size = gram.shape[1]
    if size <= SMALL:
        return np.asarray(np.linalg.eigvalsh(gram)[:, ::-1][:, :most], dtype=np.float64)
    range_ = (max(size - most, 0), size - 1)
    return np.stack([linalg.eigh(one, eigvals_only=True, subset_by_index=range_)[::-1] for one in gram])


def _gram(stack: Floats) -> Floats:
    """The smaller product of each matrix with its transpose."""
    turned = stack.transpose(0, 2, 1)
    return np.asarray(stack @ turned if stack.shape[1] <= stack.shape[2] else turned @ stack, dtype=np.float64)


def _leading_components(Y: Floats, bounds: Bounds, rank: int) -> Components:
    """The leading principal components of every group's data, as many as there are."""
    U = np.zeros((len(Y), rank))
    for a, b in itertools.pairwise(bounds):
        own = Y[a:b]
        if b - a <= own.shape[1]:
            found = _vectors(own @ own.T, rank)
        else:
            found = np.linalg.qr(own @ _vectors(own.T @ own, rank))[0]
        U[a:b, : found.shape[1]] = found
    return Components(bounds, U)


def _vectors(gram: Floats, rank: int) -> Floats:
    size = len(gram)
    return np.asarray(linalg.eigh(gram, subset_by_index=(max(size - rank, 0), size - 1))[1], dtype=np.float64)
