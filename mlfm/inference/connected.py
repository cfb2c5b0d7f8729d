"""Groups that the pattern of missing values takes apart: features that no observation has together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mlfm.hierarchy import Hierarchy
from mlfm.inference.counts import Unidentified
from mlfm.patterns import Patterns
from mlfm.wording import plain


def unconnected(hierarchy: Hierarchy, ranks: Sequence[int], patterns: Patterns) -> Iterator[Unidentified]:
    """Groups whose features fall in parts that are never observed together, not even through others of the group.

    The signs (rotations) of a group's loadings in one part and in the other then have nothing to do with each other.
    """
    missing = [patterns.missing_by(s) for s in range(len(patterns))]
    if not all(len(features) for features in missing):
        return  # some observations are complete
    # Those that miss least connect most: few of them will do.
    order = np.argsort([len(features) for features in missing], kind="stable")
    for level, rank, bounds in zip(hierarchy.levels, ranks, hierarchy.offsets, strict=True):
        if rank == 0:
            continue
        for k in np.flatnonzero(np.diff(bounds) > 1):
            parts = _parts(int(bounds[k]), int(bounds[k + 1]), missing, order)
            if parts is not None:
                names = [plain(hierarchy.features[hierarchy.permutation[j]]) for j in parts]
                why = (
                    f"{names[0]} and {names[1]} are never observed together, nor connected by others of the group: "
                    "what it adds to their covariance is arbitrary too"
                )
                yield Unidentified(level, hierarchy.paths(level)[k], why)


def _parts(
    start: int, stop: int, missing: Sequence[NDArray[np.intp]], order: NDArray[np.intp]
) -> tuple[int, int] | None:
    """Two features, start <= j < stop, that are not connected; None where all are."""
    label = np.arange(start, stop)  # of the part that each feature is in
    for s in order:
        first, last = np.searchsorted(missing[s], [start, stop])
        seen = np.ones(stop - start, dtype=bool)
        seen[missing[s][first:last] - start] = False
        joined = np.unique(label[seen])
        if len(joined) > 1:
            label[np.isin(label, joined)] = joined[0]
            if (label == label[0]).all():
                return None
    other = np.flatnonzero(label != label[0])
    return (start, start + int(other[0])) if len(other) else None
