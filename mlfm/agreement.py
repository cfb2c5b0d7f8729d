"""How far two partitions of the same features agree: the adjusted Rand index of Hubert and Arabie (1985)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.intp]


def adjusted_rand(first: Integers, second: Integers) -> float:
    """Agreement of two partitions: 1 for the same groups, 0 in the mean for groups drawn at random.

    Of the T pairs of features, A are together in the first, B in the second, S in both; by chance, group sizes given,
    E S = A B / T, and the index is (S - A B / T) / ((A + B) / 2 - A B / T).
    """
    n = len(first)
    both = _pairs(first.astype(np.int64) * (int(second.max()) + 1) + second)
    a, b, every = _pairs(first), _pairs(second), n * (n - 1) // 2
    most = every * (a + b) - 2 * a * b
    # No room for chance: both have all features in one group, or each in a group of its own.
    return 2 * (every * both - a * b) / most if most else 1.0


def _pairs(groups: NDArray[np.integer]) -> int:
    """Pairs of features in the same group; a whole number of any size, as products of two of them are."""
    sizes = np.unique(groups, return_counts=True)[1].astype(np.int64)
    return int((sizes * (sizes - 1) // 2).sum())
