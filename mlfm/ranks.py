"""Ranks: how many factors every group of a level has."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlfm.hierarchy import Hierarchy
from mlfm.wording import listing

#: As users give them.
Ranks = Mapping[Any, int] | Sequence[int]
#: One number a level, global to finest.
ByLevel = tuple[int, ...]


def _whole(rank: Any, level: Hashable, name: str) -> int:
    if isinstance(rank, (bool, np.bool_)) or not np.isscalar(rank):
        raise TypeError(f"{name}: the rank of level {level!r} must be a whole number, not {rank!r}")
    try:
        whole = int(rank)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name}: the rank of level {level!r} must be a whole number, not {rank!r}") from None
    if whole != rank:
        raise ValueError(f"{name}: the rank of level {level!r} must be a whole number, not {rank!r}")
    if whole < 0:
        raise ValueError(f"{name}: the rank of level {level!r} must not be negative, but is {whole}")
    return whole


def ranks_by_level(ranks: Ranks, hierarchy: Hierarchy, name: str = "ranks") -> tuple[int, ...]:
    """One rank a level, global to finest, from a mapping (absent levels have rank 0) or a sequence.

    Errors speak of the argument by its ``name``.

    Raises
    ------
    ValueError, TypeError
        For an unknown level, a sequence of the wrong length, or a rank that is not a whole number or is negative.
    """
    levels = hierarchy.levels
    if isinstance(ranks, pd.Series):
        ranks = ranks.to_dict()
    if isinstance(ranks, Mapping):
        unknown = [level for level in ranks if level not in levels]
        if unknown:
            raise ValueError(f"{name}: unknown level {listing(unknown)}; the levels are {listing(levels, most=20)}")
        by_level = [_whole(ranks.get(level, 0), level, name) for level in levels]
    elif isinstance(ranks, (str, bytes)) or not isinstance(ranks, (Sequence, np.ndarray)):
        raise TypeError(
            f"{name} must map level names to numbers of factors, or be a sequence of them from global to finest, "
            f"not {ranks!r}"
        )
    elif len(ranks) != len(levels):
        raise ValueError(
            f"{name}: {len(ranks)} numbers for {len(levels)} levels ({listing(levels, most=20)}); "
            "give one a level, global first, or a mapping from level to rank"
        )
    else:
        by_level = [_whole(rank, level, name) for rank, level in zip(ranks, levels, strict=True)]
    return tuple(by_level)


def moved(ranks: ByLevel, steps: Mapping[int, int]) -> ByLevel:
    """Ranks with so many more (or fewer) at some levels, these by number."""
    return tuple(rank + steps.get(level, 0) for level, rank in enumerate(ranks))


def in_words(old: ByLevel, new: ByLevel, levels: Sequence[Hashable]) -> str:
    """``sector +1, global -1``."""
    changes = sorted(
        ((b - a, str(level)) for a, b, level in zip(old, new, levels, strict=True) if a != b), key=lambda x: -x[0]
    )
    return ", ".join(f"{level} {change:+d}" for change, level in changes)


def refuse_more_than_features(ranks: Sequence[int], hierarchy: Hierarchy) -> None:
    """A ValueError where the groups of a level have more factors than the largest of them has features."""
    for level, rank, offsets in zip(hierarchy.levels, ranks, hierarchy.offsets, strict=True):
        largest = int(np.diff(offsets).max())
        if rank > largest:
            raise ValueError(
                f"ranks: level {level!r} has rank {rank}, more than the {largest} features of its largest group"
            )


def ranks_from_columns(columns: pd.Index, hierarchy: Hierarchy, name: str) -> dict[Any, int]:
    """Ranks by level from labelled columns (level, factor) that follow the levels."""
    if not isinstance(columns, pd.MultiIndex) or columns.nlevels != 2:
        raise ValueError(f"{name}: the columns of a DataFrame must be a MultiIndex (level, factor), or give ranks")
    levels = columns.get_level_values(0)
    order = [hierarchy.position(level) for level in levels]
    if order != sorted(order):
        raise ValueError(f"{name}: columns must follow the levels from coarse to fine: {listing(hierarchy.levels)}")
    return {level: int((levels == level).sum()) for level in dict.fromkeys(levels)}


def factor_columns(hierarchy: Hierarchy, ranks: Sequence[int]) -> pd.MultiIndex:
    """Labels of the compressed loadings' columns: level, and factor counted from 1 inside the level."""
    pairs = [(level, factor + 1) for level, rank in zip(hierarchy.levels, ranks, strict=True) for factor in range(rank)]
    if not pairs:
        return pd.MultiIndex.from_arrays([[], []], names=["level", "factor"])
    return pd.MultiIndex.from_tuples(pairs, names=["level", "factor"])
