"""Values of features that were not in the data of a fit: aligned by label and checked, however few they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.alignment import match
from mlfm.arrays import as_pandas, floating_array, has_labels, is_real
from mlfm.covariance.operator import feature_names
from mlfm.wording import count, listing

Floats = NDArray[np.float64]


def new_values(data: Any, features: pd.Index, name: str) -> pd.DataFrame:
    """Observations x features, in the features' order; an array has them in that order already.

    A Series is one observation, labelled by feature. Values may be missing.
    """
    data = as_pandas(data)
    if isinstance(data, pd.Series):
        data = data.to_frame(0 if data.name is None else data.name).T.infer_objects()
    if not isinstance(data, pd.DataFrame):
        values = np.asarray(floating_array(data, name), dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(features):
            raise ValueError(
                f"{name}: observations x {count(len(features), 'feature')} are needed, not an array of shape "
                f"{values.shape}; a Series or a DataFrame is matched by label"
            )
        return _finite(pd.DataFrame(values, columns=features), name)
    frame = some_features(data, features, name)
    where, _, absent = match(frame.columns, features)
    if len(absent):
        raise ValueError(
            f"{name}: features are absent: {listing(absent)}; if they were not observed, say so: "
            f"{name}.reindex(columns=results.hierarchy.features) makes them missing values"
        )
    return frame.iloc[:, where].set_axis(features, axis=1)


def some_features(data: Any, features: pd.Index, name: str) -> pd.DataFrame:
    """Observations x some of the features, in the order given; values may be missing."""
    data = as_pandas(data)
    if isinstance(data, pd.Series):
        data = data.to_frame(0 if data.name is None else data.name).T.infer_objects()
    if not isinstance(data, pd.DataFrame):
        raise TypeError(
            f"{name}: a DataFrame (observations x features) or a Series (one observation, indexed by feature) is "
            f"needed, so that it says which features these are, not {type(data).__name__}"
        )
    columns = feature_names(data.columns, features)
    if columns.has_duplicates:
        raise ValueError(f"{name}: features occur more than once: {listing(columns[columns.duplicated()].unique())}")
    strange = match(columns, features).strange
    if len(strange):
        raise ValueError(f"{name}: labels that are no features of the model: {listing(strange)}; leave them out")
    # A column of None alone has no type that would say what it holds, and holds nothing.
    odd = np.array([not is_real(dtype) for dtype in data.dtypes], dtype=bool)
    odd[odd] = [column.dtype != object or column.notna().any() for _, column in data.loc[:, odd].items()]
    if odd.any():
        raise TypeError(f"{name}: columns are not numeric: {listing(columns[odd])}; convert them")
    values = data.to_numpy(dtype=np.float64, na_value=np.nan)
    return _finite(pd.DataFrame(values, index=data.index, columns=columns), name)


def _finite(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    infinite = np.isinf(frame.to_numpy())
    if infinite.any():
        raise ValueError(
            f"{name}: infinite values in columns {listing(frame.columns[infinite.any(axis=0)])}; make them missing, or "
            "leave them out"
        )
    return frame


def refuse_other_rows(mean: pd.DataFrame, exog: Any, frame: pd.DataFrame, name: str) -> None:
    """A ValueError unless the mean by covariates has as many rows as the data and, where both have labels, the same."""
    if len(mean) != len(frame):
        raise ValueError(f"exog: {count(len(mean), 'row')}, but {name} has {len(frame)}; a row for each is needed")
    labelled = isinstance(exog, (pd.DataFrame, pd.Series)) and has_labels(exog) and has_labels(frame)
    if labelled and not mean.index.equals(frame.index):
        raise ValueError(
            f"exog: its index differs from that of {name}; give it the same rows in the same order, as in "
            f"exog.loc[{name}.index]"
        )
