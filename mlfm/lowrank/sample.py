"""The sample covariance of data, as a matrix that is never formed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlfm.arrays import as_pandas, real_array
from mlfm.covariance.operator import Axis, FrozenOperator
from mlfm.wording import count, listing

Floats = NDArray[np.float64]


class SampleCovariance(FrozenOperator):
    """Y'Y / N for the centred data Y (N observations x n features): a matrix given by its data.

    Products with it cost two products with the data; nothing n x n is formed. It is what
    :func:`mlfm.lowrank.fit` takes for a covariance, and a SciPy :class:`~scipy.sparse.linalg.LinearOperator`.

    Parameters
    ----------
    endog : DataFrame or array, observations x features
        Without missing values. One copy is made.
    demean : bool
        Whether to take the means off first. If not, the data are taken as centred.
    correlation : bool
        Whether to scale the features to unit variance.

    Raises
    ------
    ValueError
        If values are missing or infinite, a name occurs twice, or a feature does not vary where it is to be scaled.

    Examples
    --------
    >>> import mlfm
    >>> data = mlfm.datasets.load("abilities")
    >>> S = mlfm.lowrank.SampleCovariance(data.endog)
    >>> S.shape, S.nobs
    ((24, 24), 301)
    >>> round(float(S.diagonal()[0]), 2), round(float(data.endog.var(ddof=0).iloc[0]), 2)
    (1.15, 1.15)
    """

    def __init__(self, endog: pd.DataFrame | ArrayLike, *, demean: bool = True, correlation: bool = False) -> None:
        endog = as_pandas(endog)
        values = real_array(endog, "endog")
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(f"endog: observations x features are needed, not shape {values.shape}")
        features = endog.columns if isinstance(endog, pd.DataFrame) else pd.RangeIndex(values.shape[1])
        if isinstance(features, pd.MultiIndex):  # groups above names, as a model takes them
            features = features.get_level_values(-1)
        if features.has_duplicates:
            raise ValueError(f"endog: columns occur twice: {listing(features[features.duplicated()].unique())}")
        bad = ~np.isfinite(values).all(axis=0)
        if bad.any():
            raise ValueError(
                f"endog: values are missing or infinite in {count(int(bad.sum()), 'column')}: "
                f"{listing(features[bad])}; drop these observations, or fit by maximum "
                "likelihood, which takes missing values"
            )
        if demean:
            values -= values.mean(axis=0)
        if correlation:
            scale = np.sqrt((values**2).mean(axis=0))
            if (scale == 0).any():
                raise ValueError(f"endog: columns do not vary: {listing(features[scale == 0])}; drop them")
            values /= scale
        super().__init__(Axis(features), Axis(features))
        self._Y = np.ascontiguousarray(values.T)
        self._Y.setflags(write=False)
        self._freeze()

    @property
    def nobs(self) -> int:
        """Number of observations."""
        return self._Y.shape[1]

    @property
    def features(self) -> pd.Index:
        """Names of the features."""
        return self._rows.labels

    def diagonal(self) -> Floats:
        """The variances."""
        return np.asarray(np.einsum("jn,jn->j", self._Y, self._Y) / self.nobs)

    def _times(self, X: Floats) -> Floats:
        return np.asarray(self._Y @ (self._Y.T @ X) / self.nobs)

    def _transposed_times(self, X: Floats) -> Floats:
        return self._times(X)

    def transpose(self) -> SampleCovariance:
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._Y.setflags(write=False)
