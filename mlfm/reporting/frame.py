"""Estimates with standard errors, tests and intervals as a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlfm.inference.tables import check_alpha, z_table
from mlfm.reporting.standard_errors import standard_errors_of

if TYPE_CHECKING:
    from mlfm.results import MultilevelFactorResults

PARTS = ("coefficients", "loadings", "uniquenesses")


def summary_frame(results: MultilevelFactorResults, which: Any, alpha: float) -> pd.DataFrame:
    """One row a parameter; only the estimates where there are no standard errors, and the reason in ``attrs``."""
    check_alpha(alpha)
    if which is not None and which not in PARTS:
        raise ValueError(f"which must be None, {', '.join(map(repr, PARTS[:2]))} or {PARTS[2]!r}, not {which!r}")
    own, index = _part(results, which)
    values = _values(results)[own]
    errors = standard_errors_of(results)
    if isinstance(errors, str):
        frame = pd.DataFrame({"coef": values}, index=index)
        frame.attrs["no_standard_errors"] = errors
        return frame
    return z_table(values, errors.to_numpy(dtype=np.float64)[own], alpha, index)


def _values(results: MultilevelFactorResults) -> np.ndarray:
    parts = (results.coefficients, results.loadings, results.uniquenesses)
    return np.concatenate([part.to_numpy().ravel() for part in parts])


def _part(results: MultilevelFactorResults, which: str | None) -> tuple[slice, pd.Index]:
    """Where a part's parameters are in the vector of all, and their labels."""
    if which is None:
        return slice(None), results.params.index
    first, last = results.coefficients.size, results.coefficients.size + results.loadings.size
    features = results.hierarchy.features
    if which == "coefficients":
        return slice(0, first), _pairs(features, results.coefficients.columns, ["covariate"])
    if which == "loadings":
        return slice(first, last), _pairs(features, results.loadings.columns, ["level", "factor"])
    return slice(last, None), features.rename(features.name or "feature")


def _pairs(features: pd.Index, columns: pd.Index, names: list[str]) -> pd.MultiIndex:
    """Every feature with every column, from codes: labels are not looked at."""
    n, k = len(features), len(columns)
    if isinstance(columns, pd.MultiIndex):
        levels, codes = list(columns.levels), [np.asarray(code) for code in columns.codes]
    else:
        levels, codes = [columns], [np.arange(k)]
    return pd.MultiIndex(
        levels=[features, *levels],
        codes=[np.repeat(np.arange(n), k), *(np.tile(code, n) for code in codes)],
        names=[features.name or "feature", *names],
        verify_integrity=False,
    )
