"""Whether a model is a special case of another: covariates that are combinations, factors that have a place there."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.hierarchy import Hierarchy
from mlfm.wording import count, listing, plain

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


def spans(X: Floats, columns: Floats) -> bool:
    """Whether every one of the columns is a combination of those of X."""
    if not columns.shape[1]:
        return True
    lengths = np.linalg.norm(columns, axis=0)
    left = columns - X @ np.linalg.lstsq(X, columns, rcond=None)[0] if X.shape[1] else columns
    return bool((np.linalg.norm(left, axis=0) <= 1e-8 * lengths).all())


class Factors:
    """Levels that have factors, those with the same groups as one: what the covariance of a model can be."""

    def __init__(self, hierarchy: Hierarchy, ranks: Sequence[int], features: pd.Index) -> None:
        """With the features in the order of ``features``."""
        places = features.get_indexer(hierarchy.features[hierarchy.permutation])
        self.levels: list[list[Hashable]] = []
        self.groups: list[Integers] = []  # the group of each feature
        self.ranks: list[int] = []
        for level, bounds, rank in zip(hierarchy.levels, hierarchy.offsets, ranks, strict=True):
            groups = np.empty(len(features), dtype=np.intp)
            groups[places] = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
            if rank and self.levels and same_groups(groups, self.groups[-1]):
                self.levels[-1].append(level)
                self.ranks[-1] += rank
            elif rank:
                self.levels.append([level])
                self.groups.append(groups)
                self.ranks.append(rank)

    def same_as(self, other: Factors) -> bool:
        """Whether these are as many factors of the same groups."""
        return self.ranks == other.ranks and all(map(same_groups, self.groups, other.groups))

    def refuse_unless_within(self, full: Factors) -> None:
        """A ValueError, which names the level, unless all of these factors have a place among those of ``full``.

        A factor has a place at a level with its group, or at a coarser one, whose factors may load on some features
        only: there every group needs as many factors as all of the groups within it have together, or as it has
        features; none if it has a single one, whose uniqueness takes them in.
        """
        finest = [full._finest_above(groups) for groups in self.groups]
        over = np.zeros(0, dtype=np.intp)  # by group of the level below: factors that have found no place
        for depth in reversed(range(len(full.levels))):
            groups = full.groups[depth]
            needed = np.zeros(groups.max() + 1, dtype=np.intp)
            if depth + 1 < len(full.levels):
                np.add.at(needed, _of_each(full.groups[depth + 1], groups), over)
            for mine, rank, place in zip(self.groups, self.ranks, finest, strict=True):
                if place == depth:
                    np.add.at(needed, _of_each(mine, groups), np.minimum(rank, _most(mine)))
            over = np.maximum(np.minimum(needed, _most(groups)) - full.ranks[depth], 0)
        if over.any() or -1 in finest:
            raise ValueError(f"restricted: {self._without_place(full)}; it is not a special case of the larger model")

    def _finest_above(self, groups: Integers) -> int:
        """The finest of these levels whose groups hold the given ones whole; -1 where none does."""
        found = -1
        for depth, mine in enumerate(self.groups):
            pairs = len(np.unique(np.stack([groups, mine]), axis=1).T)
            if pairs == groups.max() + 1:
                found = depth
        return found

    def _without_place(self, full: Factors) -> str:
        for levels, groups, rank in reversed(list(zip(self.levels, self.groups, self.ranks, strict=True))):
            there = [r for theirs, r in zip(full.groups, full.ranks, strict=True) if same_groups(groups, theirs)]
            if not there:
                return f"the groups of {_named(levels)} are not those of a level with factors there"
            if rank > there[0]:
                return f"{_named(levels)} has {count(rank, 'factor')} a group, there it is {there[0]}"
        raise AssertionError("every level has a place")


def _named(levels: Sequence[Hashable]) -> str:
    if len(levels) == 1:
        return f"its level {plain(levels[0])}"
    return f"its level {plain(levels[0])} (taken with {listing(levels[1:])}, whose groups are the same)"


def same_groups(one: Integers, other: Integers) -> bool:
    """Whether groups are the same but for their numbers."""
    pairs = len(np.unique(np.stack([one, other]), axis=1).T)
    return bool(pairs == one.max() + 1 == other.max() + 1)


def _of_each(groups: Integers, coarser: Integers) -> Integers:
    """The coarser group that holds each group."""
    return coarser[np.unique(groups, return_index=True)[1]]


def _most(groups: Integers) -> Integers:
    """The most factors that a group can need."""
    sizes = np.bincount(groups)
    return np.where(sizes > 1, sizes, 0)
