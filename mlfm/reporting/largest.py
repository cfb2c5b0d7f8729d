"""The largest loadings of each factor."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.reporting.layout import group_names

if TYPE_CHECKING:
    from mlfm.results import MultilevelFactorResults

FEATURES_A_FACTOR = 3
FACTORS_A_LEVEL = 30


class Factor(NamedTuple):
    """A factor of a group, its column in the compressed loadings, and the features that load most on it."""

    level: Hashable
    name: str
    number: int | None  # None where the group has no other
    column: int
    features: NDArray[np.intp]  # positions in the user's order


class More(NamedTuple):
    """So many groups of a level are not shown."""

    level: Hashable
    groups: int


def largest(results: MultilevelFactorResults) -> Iterator[Factor | More]:
    """Factors level by level, at most some thirty of each, each with the features of largest standardised loadings."""
    hierarchy, F = results.hierarchy, np.abs(results.loadings.to_numpy())
    F = F / np.sqrt(results.covariance.diagonal())[:, None]
    column = 0
    for level, rank, bounds in zip(hierarchy.levels, results.ranks, hierarchy.offsets, strict=True):
        if rank == 0:
            continue
        names = group_names(list(hierarchy.paths(level)))
        shown = max(1, FACTORS_A_LEVEL // rank)
        for g, name in enumerate(names[:shown]):
            members = np.sort(hierarchy.permutation[bounds[g] : bounds[g + 1]])
            for k in range(rank):
                top = np.argsort(-F[members, column + k], kind="stable")[:FEATURES_A_FACTOR]
                yield Factor(level, name, k + 1 if rank > 1 else None, column + k, members[top])
        if len(names) > shown:
            yield More(level, len(names) - shown)
        column += rank
