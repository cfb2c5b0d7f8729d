"""Starting from another fit: of other data, other ranks, or a coarser or finer hierarchy of the same features."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.alignment import match

Floats = NDArray[np.float64]


def warm_start(
    loadings: pd.DataFrame, uniquenesses: pd.Series, features: pd.Index, columns: pd.MultiIndex, F: Floats, D: Floats
) -> tuple[Floats, Floats]:
    """Loadings and uniquenesses of a fit where they have a place in the model, F and D elsewhere.

    Factors are matched by level and number. What factors that the model does not have explained is left to the
    uniquenesses, so that each feature keeps its variance.
    """
    where, _, absent = match(loadings.index, features)
    if len(absent) == len(features):
        raise ValueError("start: these results and the model have no feature in common")
    known = where >= 0
    old = loadings.to_numpy()[where[known]]
    from_column = loadings.columns.get_indexer(columns)
    to_column = np.flatnonzero(from_column >= 0)
    F, D = F.copy(), D.copy()
    F[np.ix_(known, to_column)] = old[:, from_column[to_column]]
    dropped = np.delete(old, from_column[to_column], axis=1)
    D[known] = uniquenesses.to_numpy()[where[known]] + np.einsum("jk,jk->j", dropped, dropped)
    return F, D


def warm_coefficients(old: pd.DataFrame, features: pd.Index, covariates: pd.Index, B: Floats) -> Floats:
    """The coefficients of a fit where the model has its features, B elsewhere; B alone if the model lacks covariates
    of the fit. Covariates that the fit lacks begin at 0, so that its mean is the one begun with.
    """
    if len(old.columns.difference(covariates)):
        return B
    where = match(old.index, features)[0]
    known, B = where >= 0, B.copy()
    B[known] = old.reindex(columns=covariates, fill_value=0.0).to_numpy()[where[known]]
    return B
