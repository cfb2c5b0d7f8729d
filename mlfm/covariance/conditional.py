"""What some features say about the others: a mean map and the covariance that is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.covariance.operator import Axis, FrozenOperator
from mlfm.linear import divide_by_paths, eliminate, gather, scatter
from mlfm.sweep import Elimination, Sweep, Workers

if TYPE_CHECKING:
    from mlfm.covariance.covariance import MultilevelCovariance

Floats = NDArray[np.float64]


class Conditional:
    """The normal distribution of the rest of the features given some of them, centred.

    It is made by :meth:`MultilevelCovariance.conditional`.

    Attributes
    ----------
    observed : Index
        The features that are given.
    features : Index
        The rest.
    mean_map : LinearOperator, rest x observed
        Sigma_rest,observed Sigma_observed^-1: the conditional mean is ``mean_map @ y``.
    covariance : MultilevelCovariance
        Of the rest given the observed; it does not depend on their values, and has the groups and ranks of the
        unconditional one.

    Examples
    --------
    >>> import pandas as pd
    >>> from mlfm import Hierarchy, MultilevelCovariance
    >>> labels = pd.DataFrame({"sector": ["T", "E", "T"]}, index=["AMD", "BP", "SAP"])
    >>> sigma = MultilevelCovariance(Hierarchy(labels), [[1.0, 0.5], [1, 1], [1, 2]], [1.0, 1, 1], ranks=[1, 1])
    >>> given = sigma.conditional(["SAP"])
    >>> given.mean(pd.Series({"SAP": 3.0}))
    AMD    1.0
    BP     0.5
    dtype: float64
    >>> given.covariance.to_frame().round(3)
           AMD     BP
    AMD  1.583  0.667
    BP   0.667  2.833
    """

    def __init__(self, whole: MultilevelCovariance, observed: NDArray[np.intp], rest: NDArray[np.intp]) -> None:
        terms, axis = whole._terms, whole._rows
        features = whole.hierarchy.features
        self.observed, self.features = features[observed], features[rest]
        seen = np.zeros(len(features))
        seen[axis.place[observed]] = 1
        with Workers() as workers:
            known, _ = eliminate(terms.tree, terms.left * seen[:, None], terms.diag, workers)
            # Given the observed features a path's factors are U^-1 times independent ones.
            left = divide_by_paths(terms.tree, known, np.ones_like(seen), terms.left, workers)
        rows = axis.place[rest]
        self.mean_map = ConditionalMean(whole, known, observed, rest)
        self.covariance = whole._with_features(rest, left[rows], terms.diag[rows])

    def mean(self, y: Any) -> Any:
        """The conditional mean of the rest: ``mean_map @ y``.

        Parameters
        ----------
        y : array, Series or DataFrame
            Values of the observed features, their means removed: a vector, or a matrix with a column an observation.
            A Series or DataFrame is aligned by feature name.
        """
        return self.mean_map @ y

    def __repr__(self) -> str:
        return f"<Conditional of {len(self.features)} features given {len(self.observed)}>"


class ConditionalMean(FrozenOperator):
    """Sigma_rest,observed Sigma_observed^-1 = F_rest P F_observed' D^-1, P the factors' covariance given these."""

    def __init__(
        self, whole: MultilevelCovariance, known: Elimination, observed: NDArray[np.intp], rest: NDArray[np.intp]
    ) -> None:
        features, place = whole.hierarchy.features, whole._rows.place
        super().__init__(Axis(pd.Index(features[rest])), Axis(pd.Index(features[observed])))
        self._terms, self._known = whole._terms, known
        self._observed, self._rest = place[observed], place[rest]
        self._freeze()

    def _times(self, X: Floats) -> Floats:
        return self._through(self._observed, X, self._terms.diag, np.ones_like(self._terms.diag), self._rest)

    def _transposed_times(self, X: Floats) -> Floats:
        return self._through(self._rest, X, np.ones_like(self._terms.diag), self._terms.diag, self._observed)

    def _through(
        self, source: NDArray[np.intp], X: Floats, before: Floats, after: Floats, target: NDArray[np.intp]
    ) -> Floats:
        """From some features by the factors to others; a division by ``before`` and one by ``after``."""
        terms = self._terms
        Y = np.zeros((len(terms.diag), X.shape[1]))
        Y[source] = X
        sweep = Sweep(terms.tree, X.shape[1], elimination=self._known)
        with Workers() as workers:
            gather(sweep, terms.left, 1 / before, Y, workers)
            out = scatter(sweep, terms.left, Y, np.zeros_like(before), 1.0, 1 / after, workers)
        return out[target]
