"""What a user asks for who wants groups found in data, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.grouping import checked_n_groups
from mlfm.wording import count, listing

#: Ways to find groups in data.
METHODS = ("spectral",)


def column_names(endog: Any, n: int) -> Any:
    """Names of the features of data; of a column MultiIndex its last level, as a model takes them."""
    if not isinstance(endog, pd.DataFrame):
        return n
    return endog.columns.get_level_values(-1) if isinstance(endog.columns, pd.MultiIndex) else endog.columns


def unit_variances(values: NDArray[np.float64], names: pd.Index) -> NDArray[np.float64]:
    """Features x observations, centred and scaled."""
    bad = ~np.isfinite(values).all(axis=0)
    if bad.any():
        raise ValueError(
            f"endog: values are missing or infinite in {count(int(bad.sum()), 'column')}: {listing(names[bad])}; drop "
            "these observations or columns, or fill them in"
        )
    Y = np.ascontiguousarray((values - values.mean(axis=0)).T)
    scale = np.sqrt((Y**2).mean(axis=1))
    still = scale <= 1e-12 * np.abs(values).max(axis=0)
    if still.any():
        raise ValueError(f"endog: columns do not vary: {listing(names[still])}; drop them")
    return np.asarray(Y / scale[:, None])


def doubling(n_levels: int | None, n_groups: Any, n: int) -> list[int]:
    """Numbers of groups of the levels below the global one."""
    if n_levels is None and n_groups is None:
        raise TypeError("n_levels, or n_groups, is needed")
    if n_levels is not None and (isinstance(n_levels, bool) or not isinstance(n_levels, (int, np.integer))):
        raise TypeError(f"n_levels must be a whole number, not {n_levels!r}")
    if n_levels is not None and n_levels < 1:
        raise ValueError(f"n_levels: there is always the global level; 1 or more, not {n_levels}")
    if n_groups is None and n_levels is not None:
        if n_levels > 1 and 2 ** (n_levels - 1) > n:
            raise ValueError(f"n_levels: {n_levels} levels that double need {2 ** (n_levels - 1)} features, not {n}")
        return [2**level for level in range(1, n_levels)]
    wanted = checked_n_groups(n_groups, n)
    if n_levels is not None and len(wanted) != n_levels - 1:
        raise ValueError(
            f"n_groups: {count(len(wanted), 'number')} for {count(n_levels - 1, 'level')} below the global one"
        )
    return wanted


def components_by_level(ranks: Any, levels: int) -> list[int]:
    """How many components are taken out of the groups of each level."""
    given = [ranks] * levels if isinstance(ranks, (int, np.integer)) else ranks
    if isinstance(given, (str, bytes)) or not isinstance(given, (Sequence, np.ndarray)):
        raise TypeError(f"ranks must be a whole number, or one for each level, not {ranks!r}")
    for rank in given:
        if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or rank < 0:
            raise ValueError(f"ranks must be whole numbers, 0 or more, not {rank!r}")
    if len(given) not in (levels - 1, levels):
        raise ValueError(
            f"ranks: {count(len(given), 'number')} for {count(levels, 'level')}, the global one among them"
        )
    return [int(rank) for rank in given] + [0] * (levels - len(given))
