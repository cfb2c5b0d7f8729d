"""How many free parameters a model has, and which groups its data cannot identify."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

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
    above = None  # the nearest coarser level with factors
    for level, offsets, rank in zip(hierarchy.levels, hierarchy.offsets, ranks, strict=True):
        if rank == 0:
            continue
        sizes = np.diff(offsets)
        small = (sizes - rank) ** 2 < sizes + rank
        small |= sizes < rank
        same = np.zeros(len(sizes), dtype=bool)
        if above is not None:
            parents = np.searchsorted(above, offsets[:-1], side="right") - 1
            same = np.diff(above)[parents] == sizes
        if small.any() or same.any():
            names = hierarchy.paths(level)
            for k in np.flatnonzero(small | same):
                size = count(int(sizes[k]), "feature")
                why = f"{size} for {count(rank, 'factor')}" if small[k] else "the same features as its parent"
                yield Unidentified(level, names[k], why)
        above = offsets
