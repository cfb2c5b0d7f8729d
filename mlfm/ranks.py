"""Ranks: how many factors every group of a level has."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlfm.hierarchy import Hierarchy
from mlfm.wording import listing

Ranks = Mapping[Any, int] | Sequence[int]


def _whole(rank: Any, level: Hashable) -> int:
    if isinstance(rank, (bool, np.bool_)) or not np.isscalar(rank):
        raise TypeError(f"ranks: the rank of level {level!r} must be a whole number, not {rank!r}")
    try:
        whole = int(rank)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"ranks: the rank of level {level!r} must be a whole number, not {rank!r}") from None
    if whole != rank:
        raise ValueError(f"ranks: the rank of level {level!r} must be a whole number, not {rank!r}")
    if whole < 0:
        raise ValueError(f"ranks: the rank of level {level!r} must not be negative, but is {whole}")
    return whole


def ranks_by_level(ranks: Ranks, hierarchy: Hierarchy) -> tuple[int, ...]:
    """One rank a level, global to finest, from a mapping (absent levels have rank 0) or a sequence.

    Raises
    ------
    ValueError, TypeError
        For an unknown level, a sequence of the wrong length, or a rank that is not a whole number, is negative or
        exceeds the largest group of its level.
    """
    levels = hierarchy.levels
    if isinstance(ranks, pd.Series):
        ranks = ranks.to_dict()
    if isinstance(ranks, Mapping):
        unknown = [level for level in ranks if level not in levels]
        if unknown:
            raise ValueError(f"ranks: unknown level {listing(unknown)}; the levels are {listing(levels, most=20)}")
        by_level = [_whole(ranks.get(level, 0), level) for level in levels]
    elif isinstance(ranks, (str, bytes)) or not isinstance(ranks, (Sequence, np.ndarray)):
        raise TypeError(
            "ranks must map level names to numbers of factors, or be a sequence of them from global to finest, "
            f"not {ranks!r}"
        )
    elif len(ranks) != len(levels):
        raise ValueError(
            f"ranks: {len(ranks)} numbers for {len(levels)} levels ({listing(levels, most=20)}); "
            "give one a level, global first, or a mapping from level to rank"
        )
    else:
        by_level = [_whole(rank, level) for rank, level in zip(ranks, levels, strict=True)]
    for level, rank, offsets in zip(levels, by_level, hierarchy.offsets, strict=True):
        largest = int(np.diff(offsets).max())
        if rank > largest:
            raise ValueError(
                f"ranks: level {level!r} has rank {rank}, more than the {largest} features of its largest group"
            )
    return tuple(by_level)


def factor_columns(hierarchy: Hierarchy, ranks: Sequence[int]) -> pd.MultiIndex:
    """Labels of the compressed loadings' columns: level, and factor counted from 1 inside the level."""
    pairs = [(level, factor + 1) for level, rank in zip(hierarchy.levels, ranks, strict=True) for factor in range(rank)]
    if not pairs:
        return pd.MultiIndex.from_arrays([[], []], names=["level", "factor"])
    return pd.MultiIndex.from_tuples(pairs, names=["level", "factor"])
