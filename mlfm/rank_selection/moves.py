"""Ranks by level, global first, and the moves from some to others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from mlfm.ranks import ByLevel, moved


def neighbours(ranks: ByLevel, most: ByLevel, keep_total: bool) -> Iterator[ByLevel]:
    """One factor more at a level, one less (neither where the total is kept), and one less at a level for one more at
    another; never below 0 or above ``most``.
    """
    steps = [0, 1, -1] if not keep_total else [0]
    for level, step in itertools.product(range(len(ranks)), steps):
        if step:
            yield from _within(moved(ranks, {level: step}), most)
    for more, less in itertools.permutations(range(len(ranks)), 2):
        yield from _within(moved(ranks, {more: 1, less: -1}), most)


def _within(ranks: ByLevel, most: ByLevel) -> Iterator[ByLevel]:
    if all(0 <= rank <= top for rank, top in zip(ranks, most, strict=True)):
        yield ranks


def contains(larger: ByLevel, smaller: ByLevel) -> bool:
    """Whether a model of the larger ranks has all factors of one of the smaller, and more."""
    return larger != smaller and all(a >= b for a, b in zip(larger, smaller, strict=True))


def uniform(total: int, most: ByLevel) -> ByLevel:
    """A total dealt out one by one, coarsest level first, to levels that have room."""
    ranks, left = [0] * len(most), total
    while left:
        for level, top in enumerate(most):
            if left and ranks[level] < top:
                ranks[level], left = ranks[level] + 1, left - 1
    return tuple(ranks)


def coarsest_first(total: int, most: ByLevel) -> ByLevel:
    """As much as there is room for at the coarsest level, then at the next."""
    ranks, left = [], total
    for top in most:
        ranks.append(min(top, left))
        left -= ranks[-1]
    return tuple(ranks)


def finest_first(total: int, most: ByLevel) -> ByLevel:
    """As much as there is room for at the finest level, then at the one above."""
    return coarsest_first(total, most[::-1])[::-1]
