"""Nested partitions from the top down: groups are cut in two, the one that is best cut first, level by level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mlfm.spectral import Affinity, Array, affinity_of_data, crosswise, halves, regrouped

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


class Group(NamedTuple):
    """Positions of rows and of columns (the same array where they are one)."""

    rows: Integers
    columns: Integers


class Parts(NamedTuple):
    """Two parts of a group, and what it costs to cut it so."""

    first: Group
    second: Group
    cost: float


def top_down(
    start: Group,
    n_groups: Sequence[int],
    cut: Callable[[Group], Parts | None],
    fitted: Callable[[int, Group], None] = lambda level, group: None,
    refined: Callable[[int, list[Group]], list[Group]] = lambda level, groups: groups,
) -> Iterator[list[Group]]:
    """Groups of level after level: of those that can be cut the cheapest is, until there are as many as wanted.

    ``fitted`` is told of every group of a level before any of them is cut, and ``refined`` gets the parts of each.
    """
    groups = [start]
    for level, wanted in enumerate(n_groups):
        for group in groups:
            fitted(level, group)
        parts = [cut(group) for group in groups]
        parents = list(range(len(groups)))
        while len(groups) < wanted:
            ready = [(found.cost, k) for k, found in enumerate(parts) if found is not None]
            if not ready:
                return
            _, k = min(ready)
            found = parts[k]
            assert found is not None
            groups[k : k + 1] = [found.first, found.second]
            parts[k : k + 1] = [cut(found.first), cut(found.second)]
            parents[k : k + 1] = [parents[k]] * 2
        families = [[groups[k] for k in range(len(groups)) if parents[k] == p] for p in sorted(set(parents))]
        groups = [group for family in families for group in refined(level, family)]
        yield list(groups)


def _numbers(groups: Sequence[Integers], n: int) -> Integers:
    partition = np.empty(n, dtype=np.intp)
    for k, own in enumerate(groups):
        partition[own] = k
    return partition


def data_partitions(
    Y: Floats, n_groups: Sequence[int], ranks: Sequence[int], balanced: bool, rng: np.random.Generator
) -> list[Integers]:
    """Nested partitions of features by squared covariances, less ``ranks[l]`` components of each group of level l.

    Y is features x observations. Level 0 is that of all features; partitions are of the levels below it.
    """
    left = Y.copy()

    def fitted(level: int, group: Group) -> None:
        left[group.rows] = _less_components(left[group.rows], ranks[level])

    return _by_affinities(len(Y), lambda own: affinity_of_data(left[own], rng), n_groups, balanced, rng, fitted)


def symmetric_partitions(
    S: Floats, n_groups: Sequence[int], balanced: bool, rng: np.random.Generator
) -> list[Integers]:
    """Nested partitions of features, from their affinities (n x n, symmetric, not negative; an array or sparse)."""
    return _by_affinities(S.shape[0], lambda own: Array(_block(S, own, own)), n_groups, balanced, rng)


def _block(S: Any, rows: Integers, columns: Integers) -> Any:
    return S[rows][:, columns] if sparse.issparse(S) else S[rows[:, None], columns]


def _by_affinities(
    n: int,
    affinity: Callable[[Integers], Affinity],
    n_groups: Sequence[int],
    balanced: bool,
    rng: np.random.Generator,
    fitted: Callable[[int, Group], None] = lambda level, group: None,
) -> list[Integers]:
    """Nested partitions of n features, from the affinities of those of any group."""

    def cut(group: Group) -> Parts | None:
        own = group.rows
        if len(own) < 2:
            return None
        found = halves(affinity(own), balanced, rng)
        first, second = own[found.side], own[~found.side]
        return Parts(Group(first, first), Group(second, second), -len(own) if balanced else found.cost)

    def refined(level: int, family: list[Group]) -> list[Group]:
        if balanced or len(family) < 2:
            return family
        own = np.concatenate([group.rows for group in family])
        place = np.repeat(np.arange(len(family)), [len(group.rows) for group in family])
        number = regrouped(affinity(own), place)
        return [Group(own[number == k], own[number == k]) for k in range(len(family))]

    every = np.arange(n)
    levels = top_down(Group(every, every), n_groups, cut, fitted, refined)
    return [_numbers([group.rows for group in groups], n) for groups in levels]


def _less_components(Y: Floats, rank: int) -> Floats:
    """Rows of Y without their ``rank`` leading principal components."""
    if rank == 0:
        return Y
    if min(Y.shape) <= rank:
        return np.zeros_like(Y)
    gram = Y.T @ Y if Y.shape[1] <= len(Y) else Y @ Y.T
    vectors = np.linalg.eigh(gram)[1][:, -rank:]
    found = (Y @ vectors) @ vectors.T if Y.shape[1] <= len(Y) else vectors @ (vectors.T @ Y)
    return np.asarray(Y - found)


def cross_partitions(
    S: Any, n_groups: Sequence[int], balanced: bool, rng: np.random.Generator
) -> tuple[list[Integers], list[Integers]]:
    """Nested partitions of rows and columns that go together, from affinities (an array or a sparse matrix, m x n)."""
    m, n = S.shape

    def cut(group: Group) -> Parts | None:
        rows, columns = group
        if min(len(rows), len(columns)) < 2:
            return None
        found = crosswise(_block(S, rows, columns), balanced, rng)
        first = Group(rows[found.rows], columns[found.columns])
        second = Group(rows[~found.rows], columns[~found.columns])
        return Parts(first, second, -min(len(rows), len(columns)))

    start = Group(np.arange(m), np.arange(n))
    levels = list(top_down(start, n_groups, cut))
    by_rows = [_numbers([group.rows for group in groups], m) for groups in levels]
    return by_rows, [_numbers([group.columns for group in groups], n) for groups in levels]
