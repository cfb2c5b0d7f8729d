"""Covariates at the door: a row an observation, aligned with the data by label, none missing, none collinear."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.alignment import rows_of
from mlfm.arrays import as_pandas, floating_array, is_real
from mlfm.wording import count, listing

Floats = NDArray[np.float64]
CONST = "const"
INTERCEPT = "Intercept"  # what formula engines call it
# Columns are collinear where a combination of them, each of length 1, is shorter than this.
SHORTEST = 1e-10


def covariates(exog: Any, index: pd.Index, labelled: bool, constant: bool) -> pd.DataFrame:
    """The design: a constant in front, if there is to be one, and the covariates.

    ``index`` is that of the data; where the data are ``labelled`` (a DataFrame) so are the covariates matched.
    """
    frame = _frame(exog, index, labelled)
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()].unique()
        raise ValueError(f"exog: columns occur more than once: {listing(twice)}")
    if constant:
        if CONST in frame.columns:
            raise ValueError(
                f"exog: there is a column {CONST!r} already; leave it out, or use trend='n' (the model adds a constant)"
            )
        frame.insert(0, CONST, 1.0)
    return frame


def _frame(exog: Any, index: pd.Index, labelled: bool) -> pd.DataFrame:
    """A new DataFrame of floating point numbers."""
    if exog is None:
        return pd.DataFrame(index=index)
    exog = as_pandas(exog, index)
    if isinstance(exog, pd.Series):
        exog = exog.to_frame("x1" if exog.name is None else exog.name)
    if isinstance(exog, pd.DataFrame):
        odd = [name for name, dtype in exog.dtypes.items() if not is_real(dtype)]
        if odd:
            raise TypeError(
                f"exog: columns are not numeric: {listing(odd)}; convert them, or use a formula, which makes "
                "columns of categories"
            )
        if isinstance(exog.columns, pd.MultiIndex):
            raise TypeError("exog: columns must have plain names, not a MultiIndex")
        values = exog.to_numpy(dtype=np.float64, na_value=np.nan)
        rows, names = rows_of(exog.index, index, "exog", labelled), list(exog.columns)
        values = values[rows]
    else:
        array = np.asarray(floating_array(exog, "exog"), dtype=np.float64)
        values = array[:, None] if array.ndim == 1 else array
        if values.ndim != 2 or len(values) != len(index):
            raise ValueError(
                f"exog: a row for each of the {count(len(index), 'observation')} is needed, not shape {array.shape}"
            )
        names = [f"x{k + 1}" for k in range(values.shape[1])]
    _refuse_gaps(values, names, index)
    return pd.DataFrame(values, index=index, columns=pd.Index(names, tupleize_cols=False))


def _refuse_gaps(values: Floats, names: list[Hashable], index: pd.Index) -> None:
    for what, bad in (("missing", np.isnan(values)), ("infinite", np.isinf(values))):
        if bad.any():
            columns = [names[k] for k in np.flatnonzero(bad.any(axis=0))]
            raise ValueError(
                f"exog: {count(int(bad.sum()), 'value')} {what} in columns {listing(columns)}, at rows "
                f"{listing(index[bad.any(axis=1)])}; fill them, or leave these observations out"
            )


def refuse_collinear(design: pd.DataFrame, weights: Floats) -> None:
    """A ValueError that names the columns of a combination that is always 0."""
    if design.shape[1] == 0:
        return
    if design.shape[1] >= len(design):
        raise ValueError(
            f"exog: {count(design.shape[1], 'column')}, the constant among them, for "
            f"{count(len(design), 'observation')}: {listing(design.columns)}; leave some out (in a formula, a column "
            "of text or of dates makes one for each value)"
        )
    values = design.to_numpy() * np.sqrt(weights)[:, None]
    largest = np.abs(values).max(axis=0)
    if (largest == 0).any():
        raise ValueError(f"exog: columns are zero everywhere: {listing(design.columns[largest == 0])}; drop them")
    values /= largest  # so that no square leaves the range of numbers
    lengths = np.sqrt(np.einsum("ik,ik->k", values, values))
    # Of a triangle, for all rows would be a matrix of rows x rows on the left.
    _, short, combinations = np.linalg.svd(np.linalg.qr(values / lengths, mode="r"), full_matrices=True)
    n_short = design.shape[1] - int((short > SHORTEST * short[0]).sum())
    if not n_short:
        return
    involved = (np.abs(combinations[-n_short:]) > 1e-6).any(axis=0)
    raise ValueError(
        f"exog: columns are collinear: {listing(design.columns[involved], most=10)}; drop one of them, or the constant"
    )
