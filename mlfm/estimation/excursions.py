"""Where a search goes from a maximum: to neighbouring ranks and back, and to groups whose loadings are drawn anew."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.estimation.problem import Point
from mlfm.ranks import ByLevel, in_words, moved

Floats = NDArray[np.float64]


class Detour(NamedTuple):
    """To other ranks and back."""

    ranks: ByLevel

    def name(self, home: ByLevel, levels: Sequence[Hashable]) -> str:
        """``sector +1``."""
        return in_words(home, self.ranks, levels)


class Redraw(NamedTuple):
    """Random loadings on a level and on all finer ones, those of the levels above being kept."""

    level: int

    def name(self, home: ByLevel, levels: Sequence[Hashable]) -> str:
        """``sector redrawn``."""
        return f"{levels[self.level]} redrawn"


Excursion = Detour | Redraw


def round_trip(ranks: ByLevel, n_groups: Sequence[int], largest: Sequence[int]) -> Iterator[Excursion]:
    """One round of a search, what pays most first; groups have no more factors than the ``largest`` has features.

    The groups of a level are drawn anew all at once: they hardly know of each other, and those that end higher are kept
    (see :mod:`mlfm.estimation.crossing`). One level of one group (ordinary factor analysis) has one maximum almost
    always, so that a look at one factor more and one less is enough.
    """
    active = [level for level, rank in enumerate(ranks) if rank]
    grouped = [Redraw(level) for level in active if n_groups[level] > 1]
    flat = len(active) == 1 and not grouped

    def allowed(*steps: dict[int, int]) -> list[Excursion]:
        there = (moved(ranks, step) for step in steps)
        return [Detour(new) for new in there if sum(new) and all(a <= b for a, b in zip(new, largest, strict=True))]

    more = allowed(*({level: 1} for level in active))
    less = allowed(*({level: -1} for level in active))
    if flat:
        yield from more
        yield from less
        return
    yield from more
    yield from less
    yield from grouped
    yield from allowed(*({level: 2} for level in active))
    yield from grouped
    yield from allowed(*({a: 1, b: -1} for a in active for b in active if a != b))
    yield from grouped


def drawn_anew(ranks: ByLevel) -> list[Redraw]:
    """A round after one that has brought nothing: chance alone leads to new places, the first level's to anywhere."""
    return [Redraw(level) for level, rank in enumerate(ranks) if rank]


def redrawn(point: Point, first: int, floor: Floats, rng: np.random.Generator) -> Point:
    """Normal loadings from a column on; with the uniquenesses they share evenly what was not explained before it."""
    F, x = point[0].copy(), point[1].copy()
    D = x[: len(F)]
    variances = np.einsum("jk,jk->j", F[:, first:], F[:, first:]) + D
    drawn = rng.standard_normal((len(F), F.shape[1] - first))
    lengths = np.einsum("jk,jk->j", drawn, drawn)
    F[:, first:] = drawn * np.sqrt(0.5 * variances / lengths)[:, None]
    D[:] = np.maximum(0.5 * variances, floor)
    return F, x
