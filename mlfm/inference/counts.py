"""How many free parameters a model has, and which groups its data cannot identify."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.hierarchy import Hierarchy
from mlfm.wording import count, plain


class Unidentified(NamedTuple):
    """A group whose loadings the data cannot tell from other parts of the model, and why."""

    level: Hashable
    group: Hashable
    why: str

    def __str__(self) -> str:
        return f"{self.level} {plain(self.group)} ({self.why})"


def free_loadings(hierarchy: Hierarchy, ranks: Sequence[int]) -> list[int]:
    """Free loadings of each level: n_k r less the r (r - 1) / 2 of a rotation, over its groups.

    In a group of fewer features than factors a rotation leaves no more than a triangle of loadings.
    """
    free = []
    for offsets, rank in zip(hierarchy.offsets, ranks, strict=True):
        sizes = np.diff(offsets)
        effective = np.minimum(sizes, rank)
        free.append(int((sizes * effective - effective * (effective - 1) // 2).sum()))
    return free


def unidentified(hierarchy: Hierarchy, ranks: Sequence[int]) -> Iterator[Unidentified]:
    """Groups that are as large as the group that holds them (and has factors), or too small for their rank.

    Too small: r factors and n uniquenesses cannot be had from n (n + 1) / 2 covariances when
    (n - r)^2 < n + r (Ledermann 1937).
    """
    for level, offsets, rank, (small, same) in zip(
        hierarchy.levels, hierarchy.offsets, ranks, doubtful(hierarchy.offsets, ranks), strict=True
    ):
        if small.any() or same.any():
            names, sizes = hierarchy.paths(level), np.diff(offsets)
            for k in np.flatnonzero(small | same):
                size = count(int(sizes[k]), "feature")
                why = f"{size} for {count(rank, 'factor')}" if small[k] else "the same features as its parent"
                yield Unidentified(level, names[k], why)


def most_identified(hierarchy: Hierarchy, level: int) -> int:
    """The largest rank that is not too large for the largest group of a level, by number (see :func:`unidentified`)."""
    size, rank = int(np.diff(hierarchy.offsets[level]).max()), 0
    while not too_small(np.array(size), rank + 1):
        rank += 1
    return rank


def too_small(sizes: NDArray[np.intp], rank: int) -> NDArray[np.bool_]:
    """Which groups have too few features for a rank."""
    return np.asarray(((sizes - rank) ** 2 < sizes + rank) | (sizes < rank))


class Doubtful(NamedTuple):
    """Groups of a level that are too small for their rank, and groups as large as the one that holds them."""

    small: NDArray[np.bool_]
    same: NDArray[np.bool_]


def doubtful(offsets: Sequence[NDArray[np.intp]], ranks: Sequence[int]) -> Iterator[Doubtful]:
    """Level by level which groups the data cannot identify; none where there are no factors."""
    above = None  # the nearest coarser level with factors
    for bounds, rank in zip(offsets, ranks, strict=True):
        sizes = np.diff(bounds)
        small, same = np.zeros(len(sizes), dtype=bool), np.zeros(len(sizes), dtype=bool)
        if rank:
            small = too_small(sizes, rank)
            if above is not None:
                parents = np.searchsorted(above, bounds[:-1], side="right") - 1
                same = np.diff(above)[parents] == sizes
            above = bounds
        yield Doubtful(small, same)
