"""Making nested groups where there are no labels: at random, or from a dendrogram.

A *partition* is an array with a whole number for each feature, its group; nested partitions are a list of them, from
coarse to fine, in which every group is a part of one group of the partition before. The global level is not in it.
"""

from __future__ import annotations

import heapq
import itertools
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.arrays import real_array
from mlfm.wording import count, listing, plain

Integers = NDArray[np.intp]


def random_partitions(n: int, n_groups: Sequence[int], balanced: bool, rng: np.random.Generator) -> list[Integers]:
    """Nested partitions of n features at random, group sizes as equal as they can be or random too."""
    order = rng.permutation(n)
    partitions = []
    for starts in _even_starts(n, n_groups) if balanced else _random_starts(n, n_groups, rng):
        in_a_row = np.zeros(n, dtype=np.intp)
        in_a_row[starts[1:]] = 1
        partition = np.empty(n, dtype=np.intp)
        partition[order] = np.cumsum(in_a_row)
        partitions.append(partition)
    return partitions


def _random_starts(n: int, n_groups: Sequence[int], rng: np.random.Generator) -> list[Integers]:
    """Where groups of features in a row begin: all ways to cut the row into so many are equally likely."""
    cuts = 1 + rng.permutation(n - 1)
    return [np.concatenate([[0], np.sort(cuts[: k - 1])]) for k in n_groups]


def _even_starts(n: int, n_groups: Sequence[int]) -> list[Integers]:
    """Where groups of features in a row begin, sizes at every level as equal as the level above allows."""
    sizes = np.array([n])
    every = []
    for k in n_groups:
        parts = _parts(sizes.tolist(), k)
        # As a size of 8 in three parts: 3, 3, 2.
        sizes = np.concatenate(
            [np.arange(size + many - 1, size - 1, -1) // many for size, many in zip(sizes, parts, strict=True)]
        )
        every.append(np.concatenate([[0], np.cumsum(sizes)[:-1]]))
    return every


def _parts(sizes: list[int], k: int) -> list[int]:
    """Into how many even parts to cut each group so that there are k in all, of the least variance in size.

    The sum of squares of the parts' sizes is convex in the number of parts, so that one more part at a time, where it
    lowers the sum most, ends at the least.
    """

    def gain(size: int, many: int) -> int:
        return _sum_of_squares(size, many) - _sum_of_squares(size, many + 1)

    parts = [1] * len(sizes)
    best = [(-gain(size, 1), group) for group, size in enumerate(sizes) if size > 1]
    heapq.heapify(best)
    for _ in range(k - len(sizes)):
        _, group = heapq.heappop(best)
        parts[group] += 1
        if parts[group] < sizes[group]:
            heapq.heappush(best, (-gain(sizes[group], parts[group]), group))
    return parts


def _sum_of_squares(size: int, many: int) -> int:
    """Of ``many`` whole numbers that are as equal as can be and sum to ``size``."""
    smaller, larger = divmod(size, many)
    return (many - larger) * smaller**2 + larger * (smaller + 1) ** 2


def linkage_partitions(merges: Integers, n_groups: Sequence[int]) -> list[Integers]:
    """Nested partitions by the first merges of a dendrogram, as many as leave so many groups.

    With ``merges`` as rows of two clusters, n + i the one that row i makes. By height a cut may give other numbers of
    groups (ties) or groups that do not nest (inversions, where a merge is lower than one before it).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(merges) + 1
    partitions = []
    for k in n_groups:
        done = n - k
        made = np.repeat(n + np.arange(done), 2)
        edges = coo_array((np.ones(2 * done), (merges[:done].ravel(), made)), shape=(n + done, n + done))
        partitions.append(connected_components(edges, directed=False)[1][:n].astype(np.intp))
    return partitions


def numbered(partitions: Sequence[Integers]) -> list[Integers]:
    """The same nested partitions with groups numbered from 1 over each whole level.

    The parts of one group stand together; other than that groups are in the order in which they first appear.
    """
    every: list[Integers] = []
    for partition in partitions:
        _, first, group = np.unique(partition, return_index=True, return_inverse=True)
        keys = (first, every[-1][first]) if every else (first,)
        number = np.empty(len(first), dtype=np.intp)
        number[np.lexsort(keys)] = 1 + np.arange(len(first))
        every.append(number[group])
    return every


def checked_n_groups(n_groups: Any, n: int) -> list[int]:
    """Numbers of groups of the levels below the global one, increasing, of n features."""
    if not isinstance(n_groups, (list, tuple, range, np.ndarray, pd.Series, pd.Index)):
        raise TypeError(
            "n_groups must be a list of numbers of groups, one for each level below the global one, coarse to fine, "
            f"not {n_groups!r}"
        )
    for k in n_groups:
        if isinstance(k, (bool, np.bool_)) or not isinstance(k, numbers.Integral):
            raise TypeError(f"n_groups must be whole numbers, not {plain(k)}")
    wanted = [int(k) for k in n_groups]
    if wanted and min(wanted) < 1:
        raise ValueError(f"n_groups: every level has 1 group or more, not {min(wanted)}")
    if wanted and max(wanted) > n:
        raise ValueError(f"n_groups: {count(max(wanted), 'group')}, but there are only {count(n, 'feature')} for them")
    if wanted[:1] == [1]:
        raise ValueError("n_groups: the one group of all features is the global level, always there; leave the 1 out")
    if any(finer <= coarser for coarser, finer in itertools.pairwise(wanted)):
        raise ValueError(f"n_groups must increase from level to level, coarse to fine, unlike {listing(wanted)}")
    return wanted


def checked_merges(Z: Any) -> Integers:
    """The merges of scipy's linkage, one a row: numbers of the two clusters."""
    from scipy.cluster.hierarchy import is_valid_linkage

    linkage = real_array(Z, "Z")
    try:
        is_valid_linkage(linkage, throw=True, name="Z")
    except (TypeError, ValueError) as error:
        raise ValueError(f"Z must be a dendrogram made by scipy.cluster.hierarchy.linkage: {error}") from error
    clusters = linkage[:, :2]
    if not (clusters == np.floor(clusters)).all():  # not with nan either
        raise ValueError(
            "Z must be a dendrogram made by scipy.cluster.hierarchy.linkage, whose first two columns are whole numbers"
        )
    return clusters.astype(np.intp)
