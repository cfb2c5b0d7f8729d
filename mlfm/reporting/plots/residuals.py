"""The data less their mean, each feature of length 1, so that products are sample correlations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mlfm.results import MultilevelFactorResults

Floats = NDArray[np.float64]


def unit_residuals(results: MultilevelFactorResults, what: str) -> Floats:
    """Features in group order x observations: Y with Y Y' the sample correlation, observations weighted.

    Missing values are their conditional means given the observed ones, as :meth:`impute` has them.
    """
    data = results._with_data(what)._data
    if data.patterns is None:
        return np.asarray(data.weighted(), dtype=np.float64) / np.sqrt(data.nobs)
    Y = (results.impute().values.to_numpy() - results.fittedvalues.to_numpy())[:, data.order].T
    Y *= np.sqrt(data.weights[data.places])
    lengths = np.linalg.norm(Y, axis=1)
    return np.asarray(Y / lengths[:, None], dtype=np.float64)
