"""Means of blocks of correlations, for pictures of matrices that are too large to show or to make.

Features stand in group order and are taken together in runs. With P the n x m indicator of the runs, the sums of a
block are P' M P: of F_k F_k' the products of sums of its rows, of Y Y' those of the data's. Nothing n x n is made.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Places = NDArray[np.intp]


def runs(n: int, most: int) -> Places:
    """Boundaries of at most so many runs of n features, all of one length but the last; of single ones if they fit."""
    if n <= most:
        return np.arange(n + 1)
    width = -(-n // most)
    bounds = [*range(0, n, width), n]
    if bounds[-1] - bounds[-2] == 1:  # a run of one feature has no pairs
        del bounds[-2]
    return np.array(bounds, dtype=np.intp)


def fitted_means(F: Floats, D: Floats, offsets: Sequence[Places], ranks: Sequence[int], bounds: Places) -> Floats:
    """Means over the blocks of Sigma, parameters in group order; of different features only, where a run has two."""
    sums = np.zeros((len(bounds) - 1, len(bounds) - 1))
    first = 0
    for rank, groups in zip(ranks, offsets, strict=True):
        if rank:
            sums += _sums_of_level(np.ascontiguousarray(F[:, first : first + rank]), groups, bounds)
        first += rank
    variances = np.add.reduceat((F**2).sum(axis=1) + D, bounds[:-1])
    sums[np.diag_indices_from(sums)] += np.add.reduceat(D, bounds[:-1])
    return _means(sums, variances, bounds)


def sample_means(Y: Floats, bounds: Places) -> Floats:
    """Means over the blocks of Y Y', features in group order in rows; of different features only."""
    totals = np.add.reduceat(Y, bounds[:-1], axis=0)
    variances = np.add.reduceat(np.einsum("jn,jn->j", Y, Y), bounds[:-1])
    return _means(totals @ totals.T, variances, bounds)


def _sums_of_level(F: Floats, groups: Places, bounds: Places) -> Floats:
    """Sums over the blocks of one level's F_l F_l': a run's rows of one group are summed, then multiplied."""
    pieces = np.union1d(groups, bounds)[:-1]
    rank = F.shape[1]
    totals = np.add.reduceat(F, pieces, axis=0)
    run = np.searchsorted(bounds, pieces, side="right") - 1
    group = np.searchsorted(groups, pieces, side="right") - 1
    columns = (group[:, None] * rank + np.arange(rank)).ravel()
    A = sparse.csr_array(
        (totals.ravel(), (np.repeat(run, rank), columns)), shape=(len(bounds) - 1, (len(groups) - 1) * rank)
    )
    return np.asarray((A @ A.T).toarray(), dtype=np.float64)


def _means(sums: Floats, variances: Floats, bounds: Places) -> Floats:
    sizes = np.diff(bounds).astype(np.float64)
    pairs = np.outer(sizes, sizes)
    several = np.flatnonzero(sizes > 1)
    sums[several, several] -= variances[several]
    pairs[several, several] -= sizes[several]
    return np.asarray(sums / pairs, dtype=np.float64)


def boundaries(groups: Places, bounds: Places) -> Floats:
    """Where groups begin and end, counted in runs."""
    return np.interp(groups, bounds, np.arange(len(bounds)))


def centres(groups: Places, bounds: Places) -> Floats:
    """The middles of groups, counted in runs."""
    edges = boundaries(groups, bounds)
    return np.array([(a + b) / 2 for a, b in itertools.pairwise(edges)])
