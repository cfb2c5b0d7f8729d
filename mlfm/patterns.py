"""Patterns of missing values: observations that miss the same features are handled together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Patterns:
    """Observations ordered by what they miss; those that miss nothing, if any, are the first pattern.

    Of S patterns, pattern s holds places starts[s] .. starts[s + 1] of that order, and misses the features
    features[first[s] .. first[s + 1]], in increasing order.
    """

    rows: Integers  # nobs, the observation at each place
    starts: Integers  # S + 1
    first: Integers  # S + 1
    features: Integers

    @classmethod
    def of(cls, missing: NDArray[np.bool_]) -> Patterns:
        """From observations x features, true where a value is missing."""
        # Rows as strings of bytes: sorted, those that agree in their first features stand together.
        packed = np.ascontiguousarray(np.packbits(missing, axis=1))
        keys = packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]
        _, examples, pattern = np.unique(keys, return_index=True, return_inverse=True)
        rows = np.argsort(pattern, kind="stable")
        starts = np.searchsorted(pattern[rows], np.arange(len(examples) + 1))
        which, features = np.nonzero(missing[examples])
        return cls(rows, starts, np.searchsorted(which, np.arange(len(examples) + 1)), features)

    def __len__(self) -> int:
        return len(self.first) - 1

    def missing_by(self, s: int) -> Integers:
        """The features that a pattern misses."""
        return self.features[self.first[s] : self.first[s + 1]]

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums over the observations of each pattern, of values in the order of the places."""
        return np.add.reduceat(values, self.starts[:-1], axis=0)

    def by_feature(self, n: int) -> tuple[Integers, Integers]:
        """The patterns that miss each of n features: boundaries, and patterns in increasing order."""
        which = np.repeat(np.arange(len(self)), np.diff(self.first))
        order = np.argsort(self.features, kind="stable")
        return np.searchsorted(self.features[order], np.arange(n + 1)), which[order]


def spread(starts: Integers, first: Integers, which: Integers) -> tuple[Integers, Integers]:
    """Lists of runs as lists of what is in them: run k is starts[k] .. starts[k + 1]."""
    lengths = np.diff(starts)[which]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    inside = np.arange(ends[-1]) - np.repeat(ends[:-1], lengths)
    return ends[first], np.repeat(starts[:-1][which], lengths) + inside
