"""Which features a user means: names, a mask, a slice of names, or a group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.alignment import positions
from mlfm.covariance.operator import feature_names
from mlfm.hierarchy import Hierarchy
from mlfm.wording import listing, plain


class Selection(NamedTuple):
    """Positions in the user's order of features; whether it was one name, and not a list of names."""

    where: NDArray[np.intp]
    single: bool


def select(hierarchy: Hierarchy, key: Any, name: str) -> Selection:
    """The features that ``key`` means.

    One name; a list, Index or array of names; a mask of booleans; a slice of names, both ends included; or a group,
    ``{level: group}``.
    """
    features = hierarchy.features
    if isinstance(key, slice):
        try:
            return Selection(np.arange(len(features))[features.slice_indexer(key.start, key.stop, key.step)], False)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{name}: a slice must begin and end with names of features: {error}") from None
    if isinstance(key, Mapping):
        return Selection(_group(hierarchy, key, name), False)
    if pd.api.types.is_scalar(key) or isinstance(key, tuple):
        try:
            return Selection(np.array([features.get_loc(key)], dtype=np.intp), True)
        except (KeyError, TypeError, pd.errors.InvalidIndexError):
            raise ValueError(f"{name}: no feature is called {plain(key)}") from None
    mask = _mask(features, key, name)
    if mask is not None:
        return Selection(np.flatnonzero(mask), False)
    try:
        wanted = feature_names(key if isinstance(key, pd.Index) else pd.Index(list(key)), features)
        where = features.get_indexer(wanted)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: a list of names of features is needed, not {key!r}: {error}") from None
    if (where < 0).any():
        raise ValueError(f"{name}: no features are called {listing(wanted[where < 0])}")
    return Selection(where, False)


def select_once(hierarchy: Hierarchy, key: Any, name: str) -> NDArray[np.intp]:
    """The same, for lists in which no feature may stand twice."""
    where, _ = select(hierarchy, key, name)
    features = hierarchy.features[where]
    if features.has_duplicates:
        raise ValueError(f"{name}: named more than once: {listing(features[features.duplicated()].unique())}")
    return where


def _mask(features: pd.Index, key: Any, name: str) -> NDArray[np.bool_] | None:
    values = key if isinstance(key, (pd.Series, pd.Index)) else np.asarray(key)
    if values.dtype != bool:
        return None
    if isinstance(key, pd.Series):
        return key.to_numpy()[positions(key.index, features, name)]
    if np.shape(values) != (len(features),):
        raise ValueError(f"{name}: a mask needs {len(features)} values, one a feature, not {np.shape(values)}")
    return np.asarray(values)


def _group(hierarchy: Hierarchy, key: Mapping[Any, Any], name: str) -> NDArray[np.intp]:
    if len(key) != 1:
        raise ValueError(f"{name}: a group is one level with one group of it, {{level: group}}, not {dict(key)!r}")
    ((level, group),) = key.items()
    paths = hierarchy.paths(level)
    k = [i for i, path in enumerate(paths) if path == group]
    if not k:
        meant = [path for path in paths if isinstance(path, tuple) and path[-1] == group]
        hint = f"the path is meant: {listing(meant)}" if meant else f"it has {listing(paths)}"
        raise ValueError(f"{name}: level {plain(level)} has no group {plain(group)}; {hint}")
    bounds = hierarchy.offsets[hierarchy.position(level)]
    return np.sort(hierarchy.permutation[bounds[k[0]] : bounds[k[0] + 1]])
