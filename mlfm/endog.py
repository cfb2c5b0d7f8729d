"""Data at the door: a DataFrame or an array, checked against its hierarchy before any work is done."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.alignment import match
from mlfm.arrays import as_pandas, floating_array, has_labels, is_real
from mlfm.exceptions import DroppedObservationsWarning, warn_caller
from mlfm.hierarchy import Hierarchy
from mlfm.standardised import Reals
from mlfm.wording import count, listing

MISSING = ("ml", "drop", "raise")
# Beyond these, sums of squares of a feature leave the range of floating point numbers.
LARGEST, SMALLEST = 1e140, 1e-140


def match_hierarchy(
    endog: Any, hierarchy: Hierarchy | pd.DataFrame | pd.Index | Sequence[Hashable] | None
) -> Hierarchy:
    """The hierarchy of the data's columns, in their order.

    Labels in a table without labels for its rows (Polars, Arrow) are those of the columns in their order.
    """
    if not isinstance(endog, pd.DataFrame) and hasattr(endog, "columns"):
        raise TypeError(f"endog: a pandas DataFrame or an array is needed, not {type(endog).__module__} data")
    if isinstance(endog, pd.DataFrame):
        columns = endog.columns
        if hierarchy is None:
            return Hierarchy(columns)
        if isinstance(hierarchy, (list, tuple)):
            return Hierarchy(columns, levels=hierarchy)
        features = columns.get_level_values(-1) if isinstance(columns, pd.MultiIndex) else columns
        given = _as_hierarchy(as_pandas(hierarchy, features))
        if features.has_duplicates:
            twice = features[features.duplicated()].unique()
            raise ValueError(f"endog: feature names occur more than once: {listing(twice)}")
        _, strange, absent = match(features, given.features)
        if len(strange) or len(absent):
            raise ValueError(
                f"hierarchy: does not match the columns of endog; in endog and not in the hierarchy: "
                f"{listing(strange) or 'none'}; in the hierarchy and not in endog: {listing(absent) or 'none'}"
            )
        return given.reindex(features)
    ndim = np.ndim(endog) if not isinstance(endog, (dict, str)) else 0
    if ndim != 2:
        raise ValueError(
            f"endog: a matrix is needed (observations x features), not {type(endog).__name__} of {ndim} dimensions"
        )
    array = np.asarray(endog)
    if hierarchy is None or isinstance(hierarchy, (list, tuple)):
        raise TypeError(
            "hierarchy: needed when endog is an array, whose columns have no labels; "
            "for a flat model give Hierarchy(pd.RangeIndex(number_of_columns))"
        )
    given = _as_hierarchy(as_pandas(hierarchy))
    if array.shape[1] != given.n_features:
        raise ValueError(f"endog: {array.shape[1]} columns, but the hierarchy has {count(given.n_features, 'feature')}")
    return given


def _as_hierarchy(hierarchy: Any) -> Hierarchy:
    if isinstance(hierarchy, Hierarchy):
        return hierarchy
    if isinstance(hierarchy, (pd.DataFrame, pd.Index)):
        return Hierarchy(hierarchy)
    raise TypeError(
        "hierarchy must be a Hierarchy, a DataFrame of labels indexed by feature, a MultiIndex, or a list of level "
        f"names of endog's columns, not {type(hierarchy).__name__}"
    )


def row_labels(endog: Any, given: Any) -> tuple[pd.Index, bool]:
    """The observations' labels, and whether they are the data's own; ``given`` is the data before pandas had them."""
    if isinstance(endog, pd.DataFrame):
        return endog.index, endog is given or has_labels(endog)
    return pd.RangeIndex(len(endog)), False


class Observed(NamedTuple):
    """The data (observations x features), which rows of those given they are, and whether values are missing."""

    values: Reals
    kept: NDArray[np.bool_]
    incomplete: bool


def checked_values(endog: Any, index: pd.Index, features: pd.Index, missing: str) -> Observed:
    """The data checked.

    Single precision is kept, everything else becomes double. The array may be the caller's own: it is only read.
    """
    if missing not in MISSING:
        raise ValueError(f"missing must be one of {listing(MISSING)}, not {missing!r}")
    values: Reals
    if isinstance(endog, pd.DataFrame):
        odd = [dtype for dtype in set(endog.dtypes) if not is_real(dtype)]
        if odd:
            wrong = features[endog.dtypes.isin(odd).to_numpy()]
            raise TypeError(f"endog: columns are not numeric: {listing(wrong)}; convert or drop them")
        single = {getattr(dtype, "numpy_dtype", dtype) for dtype in set(endog.dtypes)} == {np.dtype(np.float32)}
        values = endog.to_numpy(dtype=np.float32 if single else np.float64, na_value=np.nan)
    else:
        values = floating_array(endog, "endog")

    kept, incomplete = _treat_missing(values, index, features, missing)
    if not kept.all():
        values = values[kept]
    if len(values) < 2:
        raise ValueError(f"endog: at least 2 observations are needed, not {len(values)}")
    lowest, highest = (np.fmin, np.fmax) if incomplete else (np.minimum, np.maximum)
    low, high = lowest.reduce(values, axis=0).astype(np.float64), highest.reduce(values, axis=0).astype(np.float64)
    size, extent = np.maximum(np.abs(low), np.abs(high)), high - low
    extreme = (size > LARGEST) | ((extent > 0) & (extent < SMALLEST))
    if extreme.any():
        raise ValueError(
            f"endog: columns with values beyond {LARGEST:g}, or that vary by less than {SMALLEST:g}: "
            f"{listing(features[extreme])}; use other units"
        )
    constant = extent <= 8 * np.finfo(values.dtype).eps * size
    if constant.any():
        raise ValueError(
            f"endog: columns do not vary: {listing(features[constant])}; drop them (or, if they vary by less than "
            f"{values.dtype} can tell, centre them)"
        )
    return Observed(values, kept, incomplete)


def _treat_missing(values: Reals, index: pd.Index, features: pd.Index, missing: str) -> tuple[NDArray[np.bool_], bool]:
    """Which rows to keep, and whether values are missing in them."""
    everything = np.ones(len(values), dtype=bool)
    if not len(values):
        return everything, False
    # The largest value is nan where any is; no array of the data's size is made where all is well.
    infinite = np.isinf(values.max(axis=0)) | np.isinf(values.min(axis=0))
    incomplete_columns = np.isnan(values.max(axis=0))
    infinite[incomplete_columns] = np.isinf(values[:, incomplete_columns]).any(axis=0)
    if infinite.any():
        raise ValueError(
            f"endog: infinite values in columns {listing(features[infinite])}; make them missing, or leave them out"
        )
    if not incomplete_columns.any():
        return everything, False
    gaps = np.isnan(values)
    empty = gaps.all(axis=0)
    if empty.any():
        raise ValueError(f"endog: columns have no values at all: {listing(features[empty])}; drop them")
    incomplete = gaps.any(axis=1)
    where = f"in columns {listing(features[gaps.any(axis=0)])}"
    if missing == "raise":
        raise ValueError(
            f"endog: {count(int(gaps.sum()), 'value')} missing, in {count(int(incomplete.sum()), 'observation')}, "
            f"{where}; fill them, use missing='ml' (maximum likelihood with what there is) or missing='drop' to leave "
            "these observations out"
        )
    if missing == "drop":
        warn_caller(
            f"{count(int(incomplete.sum()), 'observation')} of {len(values)} left out for missing values {where}",
            DroppedObservationsWarning,
        )
        return np.logical_not(incomplete), False
    bare = gaps.all(axis=1)
    if bare.any():
        raise ValueError(
            f"endog: {count(int(bare.sum()), 'row')} without any value: {listing(index[bare])}; leave them out, as in "
            "endog.dropna(how='all')"
        )
    return everything, True
