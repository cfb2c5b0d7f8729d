"""Factors that few features load on."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.hierarchy import Hierarchy
from mlfm.wording import plain

Floats = NDArray[np.float64]

SIZEABLE = 0.3  # of a standardised loading: a tenth of the feature's variance
FEW = 3  # sizeable loadings that a factor needs to be told from a correlation of two features


class WeakFactor(NamedTuple):
    """A factor with few sizeable loadings.

    Attributes
    ----------
    level, group : hashable
        Where it stands; the group is named as in :meth:`Hierarchy.paths`.
    factor : int
        Its number, counted from 1.
    sizeable : int
        Features of the group whose standardised loading is 0.3 or more in size.
    """

    level: Hashable
    group: Hashable
    factor: int
    sizeable: int

    def __str__(self) -> str:
        return f"{self.level} {plain(self.group)} {self.factor} ({self.sizeable})"


def weak_factors(hierarchy: Hierarchy, ranks: Sequence[int], F: Floats, variances: Floats) -> list[WeakFactor]:
    """Factors with fewer than three standardised loadings of 0.3 or more; arrays are in feature order."""
    standardised = F / np.sqrt(variances)[:, None]
    sizeable = (np.abs(standardised) >= SIZEABLE)[hierarchy.permutation].astype(np.intp)
    found, first = [], 0
    for level, rank, bounds in zip(hierarchy.levels, ranks, hierarchy.offsets, strict=True):
        if rank:
            counts = np.add.reduceat(sizeable[:, first : first + rank], bounds[:-1], axis=0)
            paths = hierarchy.paths(level)
            found += [WeakFactor(level, paths[g], int(k) + 1, int(counts[g, k])) for g, k in np.argwhere(counts < FEW)]
        first += rank
    return found
