"""Parameters at the door: labelled or plain arrays checked against a hierarchy, and one flat vector of them all."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.alignment import positions
from mlfm.arrays import real_array
from mlfm.hierarchy import Hierarchy
from mlfm.ranks import factor_columns
from mlfm.wording import listing

Floats = NDArray[np.float64]


class Parameters(NamedTuple):
    """Loadings (features x (level, factor)), uniquenesses, and coefficients of the mean (features x covariates)."""

    loadings: pd.DataFrame
    uniquenesses: pd.Series
    coefficients: pd.DataFrame


class Layout(NamedTuple):
    """Where the parts of a flat parameter vector lie: coefficients and loadings row by row, uniquenesses."""

    n_features: int
    n_factors: int
    n_covariates: int

    @property
    def size(self) -> int:
        return self.n_features * (self.n_covariates + self.n_factors + 1)

    def pack(self, B: Floats, F: Floats, D: Floats) -> Floats:
        return np.concatenate([B.ravel(), F.ravel(), D])

    def split(self, params: Any, name: str) -> tuple[Floats, Floats, Floats]:
        """Coefficients, loadings and uniquenesses as views; a ValueError where the vector cannot be parameters."""
        vector = real_array(params, name)
        if vector.shape != (self.size,):
            raise ValueError(
                f"{name}: a vector of {self.size} numbers is needed ({self.n_features} x {self.n_covariates} "
                f"coefficients, {self.n_features} x {self.n_factors} loadings, {self.n_features} uniquenesses), "
                f"not an array of shape {vector.shape}"
            )
        if not np.isfinite(vector).all():
            raise ValueError(f"{name}: {int((~np.isfinite(vector)).sum())} of them are missing or infinite")
        B, F, D = self.parts(vector)
        if (D <= 0).any():
            raise ValueError(f"{name}: uniquenesses must be positive; {int((D <= 0).sum())} of them are not")
        return B, F, D

    def parts(self, vector: Floats) -> tuple[Floats, Floats, Floats]:
        """The parts of any vector of this layout (a gradient, say): coefficients, loadings, uniquenesses."""
        first = self.n_features * self.n_covariates
        last = first + self.n_features * self.n_factors
        coefficients = vector[:first].reshape(self.n_features, self.n_covariates)
        return coefficients, vector[first:last].reshape(self.n_features, self.n_factors), vector[last:]


def parameter_names(features: pd.Index, columns: pd.MultiIndex, covariates: pd.Index, mean_alone: bool) -> list[str]:
    """Names of a flat vector's parameters, in the order of its :class:`Layout`.

    Where a constant is the only covariate (``mean_alone``), its coefficients are means.
    """
    every, factors = features.tolist(), columns.tolist()
    if mean_alone:
        names = [f"mean[{feature}]" for feature in every]
    else:
        names = [f"coefficient[{feature}, {covariate}]" for feature in every for covariate in covariates]
    names += [f"loading[{feature}, {level}, {factor}]" for feature in every for level, factor in factors]
    return names + [f"uniqueness[{feature}]" for feature in every]


def coefficients_array(coefficients: Any, hierarchy: Hierarchy, covariates: pd.Index) -> Floats:
    """Coefficients, features x covariates, in the hierarchy's feature order, as a new array."""
    name = "coefficients"
    if isinstance(coefficients, pd.DataFrame):
        coefficients = coefficients.iloc[:, positions(coefficients.columns, covariates, name)]
    B = _values(coefficients, hierarchy, name)
    if B.ndim == 1 and len(covariates) == 1:
        B = B[:, None]
    wanted = (hierarchy.n_features, len(covariates))
    if B.shape != wanted:
        raise ValueError(f"{name}: shape {wanted} is needed (features, {listing(covariates)}), not {B.shape}")
    bad = ~np.isfinite(B).all(axis=1)
    if bad.any():
        raise ValueError(f"{name}: must be finite; not so for {listing(hierarchy.features[bad])}")
    return B


def loadings_array(loadings: Any, hierarchy: Hierarchy, ranks: tuple[int, ...], name: str = "loadings") -> Floats:
    """Compressed loadings in the hierarchy's feature order, as a new array."""
    wanted = (hierarchy.n_features, sum(ranks))
    if isinstance(loadings, pd.DataFrame):
        loadings = loadings.iloc[:, _column_order(loadings.columns, hierarchy, ranks, name)]
    F = _values(loadings, hierarchy, name)
    if F.shape != wanted:
        raise ValueError(
            f"{name}: shape {wanted} is needed (features, and the sum of the ranks {list(ranks)}), not {F.shape}"
        )
    if not np.isfinite(F).all():
        raise ValueError(f"{name}: {int((~np.isfinite(F)).sum())} values are missing or infinite")
    return F


def _column_order(columns: pd.Index, hierarchy: Hierarchy, ranks: tuple[int, ...], name: str) -> NDArray[np.intp]:
    """Where each factor's column stands among labelled columns.

    They may be labelled (level, factor) in any order, or have names of factors of their own where the levels stand
    in their order.
    """
    wanted = factor_columns(hierarchy, ranks)
    if isinstance(columns, pd.MultiIndex) and columns.nlevels == 2 and len(columns) == len(wanted):
        where = columns.get_indexer(wanted) if columns.is_unique else np.full(len(wanted), -1)
        if (where >= 0).all():
            return where
        if list(columns.get_level_values(0)) == list(wanted.get_level_values(0)):
            return np.arange(len(wanted))
    raise ValueError(
        f"{name}: the columns of a DataFrame must be (level, factor), here {listing(wanted)}, not {listing(columns)}"
    )


def uniqueness_array(uniquenesses: Any, hierarchy: Hierarchy) -> Floats:
    """Uniquenesses in the hierarchy's feature order, as a new array."""
    D = _vector(uniquenesses, hierarchy, "uniquenesses")
    bad = ~(np.isfinite(D) & (D > 0))
    if bad.any():
        raise ValueError(f"uniquenesses: must be positive and finite; not so for {listing(hierarchy.features[bad])}")
    return D


def finite_vector(argument: Any, hierarchy: Hierarchy, name: str) -> Floats:
    """A number for each feature in the hierarchy's feature order, as a new array."""
    values = _vector(argument, hierarchy, name)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(f"{name}: must be finite; not so for {listing(hierarchy.features[bad])}")
    return values


def _vector(values: Any, hierarchy: Hierarchy, name: str) -> Floats:
    vector = _values(values, hierarchy, name)
    if vector.shape != (hierarchy.n_features,):
        raise ValueError(f"{name}: shape ({hierarchy.n_features},) is needed, not {vector.shape}")
    return vector


def _values(argument: Any, hierarchy: Hierarchy, name: str) -> Floats:
    """A new array of an argument's values; a Series or DataFrame is put in the hierarchy's feature order."""
    if isinstance(argument, (pd.Series, pd.DataFrame)):
        argument = argument.iloc[positions(argument.index, hierarchy.features, name)]
    return real_array(argument, name)
