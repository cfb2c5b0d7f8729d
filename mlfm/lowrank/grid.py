"""Rows and columns in groups that go together: block k of a level is group k of the rows by group k of the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlfm.hierarchy import Hierarchy
from mlfm.wording import listing

Integers = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Side:
    """The rows, or the columns, in group order: positions in the user's order, and boundaries of groups by level."""

    hierarchy: Hierarchy
    order: Integers
    offsets: tuple[Integers, ...]

    def __len__(self) -> int:
        return len(self.order)

    @cached_property
    def place(self) -> Integers:
        """Where in group order each of the user's positions stands."""
        place = np.empty_like(self.order)
        place[self.order] = np.arange(len(self.order))
        return place

    def part(self, which: slice, offsets: Sequence[Integers]) -> Side:
        """Some positions of group order, in groups of their own."""
        return Side(self.hierarchy, self.order[which], tuple(offsets))

    def group_of(self, level: int) -> Integers:
        """The group of each position of group order."""
        return np.repeat(np.arange(len(self.offsets[level]) - 1), np.diff(self.offsets[level]))


@dataclass(frozen=True, eq=False)
class Grid:
    """The blocks of a matrix."""

    rows: Side
    columns: Side

    @classmethod
    def of(cls, rows: Hierarchy, columns: Hierarchy) -> Grid:
        """Groups of rows and columns are paired by name, level by level."""
        first = Side(rows, rows.permutation, rows.offsets)
        if columns is rows or columns == rows:
            return cls(first, first)
        if columns.levels != rows.levels:
            raise ValueError(
                f"cols: its levels are {listing(columns.levels)}, those of rows are {listing(rows.levels)}; blocks are "
                "groups of rows by groups of columns of the same name, so that both need the same levels"
            )
        return cls(first, Side(columns, *_paired(rows, columns)))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    @property
    def square(self) -> bool:
        """Whether rows and columns are the same features in the same groups."""
        return self.rows is self.columns

    @property
    def n_levels(self) -> int:
        return len(self.rows.offsets)

    def n_blocks(self, level: int) -> int:
        return len(self.rows.offsets[level]) - 1

    def sizes(self, level: int) -> tuple[Integers, Integers]:
        """Rows and columns of each block of a level."""
        return np.diff(self.rows.offsets[level]), np.diff(self.columns.offsets[level])

    def thinned(self, every: int) -> tuple[Grid, tuple[int, ...]]:
        """The grid of every so manieth row and column of group order, and the levels whose groups all keep some.

        Groups are not empty at these levels; the others, finer ones, are left out.
        """
        rows = [-(-bounds // every) for bounds in self.rows.offsets]
        columns = [-(-bounds // every) for bounds in self.columns.offsets]
        kept = tuple(
            level
            for level, pair in enumerate(zip(rows, columns, strict=True))
            if all((np.diff(bounds) > 0).all() for bounds in pair)
        )
        first = self.rows.part(slice(None, None, every), [rows[level] for level in kept])
        if self.square:
            return Grid(first, first), kept
        return Grid(first, self.columns.part(slice(None, None, every), [columns[level] for level in kept])), kept

    @property
    def transposed(self) -> Grid:
        return Grid(self.columns, self.rows)


def _paired(rows: Hierarchy, columns: Hierarchy) -> tuple[Integers, tuple[Integers, ...]]:
    """An order of the columns in which their groups stand as those of the rows do, and its boundaries."""
    codes = np.zeros(columns.n_features, dtype=np.intp)  # the rows' number of each column's group
    offsets = [np.array([0, columns.n_features], dtype=np.intp)]
    for depth, level in enumerate(rows.levels[1:], start=1):
        mine, theirs = rows.paths(level), columns.paths(level)
        number = mine.get_indexer(theirs)
        absent = mine[theirs.get_indexer(mine) < 0]
        if (number < 0).any() or len(absent):
            raise ValueError(
                f"cols: groups of level {level!r} are not those of the rows; only among the columns: "
                f"{listing(theirs[number < 0]) or 'none'}; only among the rows: {listing(absent) or 'none'}; every "
                "block needs a group of rows and a group of columns of the same name"
            )
        group = np.empty(columns.n_features, dtype=np.intp)
        group[columns.permutation] = np.repeat(number, np.diff(columns.offsets[depth]))
        codes = group
        offsets.append(np.concatenate([[0], np.cumsum(np.bincount(group, minlength=len(mine)))]).astype(np.intp))
    return np.argsort(codes, kind="stable").astype(np.intp), tuple(offsets)
