"""Ranks by level, global first, and the moves from some to others."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence

Ranks = tuple[int, ...]


def neighbours(ranks: Ranks, most: Ranks, keep_total: bool) -> Iterator[Ranks]:
    """One factor more at a level, one less (neither where the total is kept), and one less at a level for one more at
    another; never below 0 or above ``most``.
    """
    steps = [0, 1, -1] if not keep_total else [0]
    for level, step in itertools.product(range(len(ranks)), steps):
        if step:
            yield from _within(_moved(ranks, {level: step}), most)
    for more, less in itertools.permutations(range(len(ranks)), 2):
        yield from _within(_moved(ranks, {more: 1, less: -1}), most)


def _moved(ranks: Ranks, steps: dict[int, int]) -> Ranks:
    return tuple(rank + steps.get(level, 0) for level, rank in enumerate(ranks))


def _within(ranks: Ranks, most: Ranks) -> Iterator[Ranks]:
    if all(0 <= rank <= top for rank, top in zip(ranks, most, strict=True)):
        yield ranks


def in_words(old: Ranks, new: Ranks, levels: Sequence[Hashable]) -> str:
    """``sector +1, global -1``."""
    changes = sorted(
        ((b - a, str(level)) for a, b, level in zip(old, new, levels, strict=True) if a != b), key=lambda x: -x[0]
    )
    return ", ".join(f"{level} {change:+d}" for change, level in changes)


def contains(larger: Ranks, smaller: Ranks) -> bool:
    """Whether a model of the larger ranks has all factors of one of the smaller, and more."""
    return larger != smaller and all(a >= b for a, b in zip(larger, smaller, strict=True))


def uniform(total: int, most: Ranks) -> Ranks:
    """A total dealt out one by one, coarsest level first, to levels that have room."""
    ranks, left = [0] * len(most), total
    while left:
        for level, top in enumerate(most):
            if left and ranks[level] < top:
                ranks[level], left = ranks[level] + 1, left - 1
    return tuple(ranks)


def coarsest_first(total: int, most: Ranks) -> Ranks:
    """As much as there is room for at the coarsest level, then at the next."""
    ranks, left = [], total
    for top in most:
        ranks.append(min(top, left))
        left -= ranks[-1]
    return tuple(ranks)


def finest_first(total: int, most: Ranks) -> Ranks:
    """As much as there is room for at the finest level, then at the one above."""
    return coarsest_first(total, most[::-1])[::-1]
