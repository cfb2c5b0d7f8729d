"""Parameters at the door: labelled or plain arrays checked against a hierarchy, and one flat vector of them all."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.hierarchy import Hierarchy
from mlfm.wording import listing

Floats = NDArray[np.float64]


class Parameters(NamedTuple):
    """Loadings (features x (level, factor)), uniquenesses and means; ``mean`` is None where it is not estimated."""

    loadings: pd.DataFrame
    uniquenesses: pd.Series
    mean: pd.Series | None


class Layout(NamedTuple):
    """Where the parts of a flat parameter vector lie: means (if any), loadings row by row, uniquenesses."""

    n_features: int
    n_factors: int
    n_means: int

    @property
    def size(self) -> int:
        return self.n_means + self.n_features * (self.n_factors + 1)

    def pack(self, mean: Floats | None, F: Floats, D: Floats) -> Floats:
        parts = [F.ravel(), D] if mean is None else [mean, F.ravel(), D]
        return np.concatenate(parts)

    def split(self, params: Any) -> tuple[Floats, Floats, Floats]:
        """Means, loadings and uniquenesses as views; a ValueError where the vector cannot be parameters."""
        vector = np.asarray(params, dtype=float)
        if vector.shape != (self.size,):
            raise ValueError(
                f"params: a vector of {self.size} numbers is needed ({self.n_means} means, "
                f"{self.n_features} x {self.n_factors} loadings, {self.n_features} uniquenesses), "
                f"not an array of shape {vector.shape}"
            )
        if not np.isfinite(vector).all():
            raise ValueError(f"params: {int((~np.isfinite(vector)).sum())} of them are missing or infinite")
        mean, F, D = self.parts(vector)
        if (D <= 0).any():
            raise ValueError(f"params: uniquenesses must be positive; {int((D <= 0).sum())} of them are not")
        return mean, F, D

    def parts(self, vector: Floats) -> tuple[Floats, Floats, Floats]:
        """The parts of any vector of this layout (a gradient, say): means, loadings, uniquenesses."""
        last = self.n_means + self.n_features * self.n_factors
        loadings = vector[self.n_means : last].reshape(self.n_features, self.n_factors)
        return vector[: self.n_means], loadings, vector[last:]


def loadings_array(loadings: Any, hierarchy: Hierarchy, ranks: tuple[int, ...]) -> Floats:
    """Compressed loadings in the hierarchy's feature order, as a new array."""
    wanted = (hierarchy.n_features, sum(ranks))
    F = _values(loadings, hierarchy, "loadings")
    if F.shape != wanted:
        raise ValueError(
            f"loadings: shape {wanted} is needed (features, and the sum of the ranks {list(ranks)}), not {F.shape}"
        )
    if not np.isfinite(F).all():
        raise ValueError(f"loadings: {int((~np.isfinite(F)).sum())} values are missing or infinite")
    return F


def uniqueness_array(uniquenesses: Any, hierarchy: Hierarchy) -> Floats:
    """Uniquenesses in the hierarchy's feature order, as a new array."""
    D = _vector(uniquenesses, hierarchy, "uniquenesses")
    bad = ~(np.isfinite(D) & (D > 0))
    if bad.any():
        raise ValueError(f"uniquenesses: must be positive and finite; not so for {listing(hierarchy.features[bad])}")
    return D


def mean_array(mean: Any, hierarchy: Hierarchy) -> Floats:
    """Means in the hierarchy's feature order, as a new array."""
    values = _vector(mean, hierarchy, "mean")
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(f"mean: must be finite; not so for {listing(hierarchy.features[bad])}")
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
    return np.array(argument, dtype=float)


def positions(index: pd.Index, features: pd.Index, name: str) -> NDArray[np.intp]:
    """Where in ``index`` each feature stands; a ValueError unless both hold the same labels, once each."""
    if index.has_duplicates:
        twice = index[index.duplicated()].unique()
        raise ValueError(f"{name}: features occur more than once: {listing(twice)}")
    strange, absent = index[~index.isin(features)], features[~features.isin(index)]
    if len(strange) or len(absent):
        raise ValueError(
            f"{name}: features do not match those of the hierarchy; not in the hierarchy: "
            f"{listing(strange) or 'none'}; missing: {listing(absent) or 'none'}"
        )
    return index.get_indexer(features)
