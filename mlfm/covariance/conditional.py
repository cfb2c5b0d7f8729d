"""What some features say about the others: a mean map and the covariance that is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlfm.covariance.operator import Axis, Frozen, FrozenOperator
from mlfm.covariance.terms import times
from mlfm.linear import divide_by_paths
from mlfm.sweep import Workers

if TYPE_CHECKING:
    from mlfm.covariance.covariance import MultilevelCovariance

Floats = NDArray[np.float64]
EPS = float(np.finfo(float).eps)


class Conditional(Frozen):
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
        known, inflation = whole._eliminate(terms.left * seen[:, None])
        whole._warn_above_few_digits(inflation * EPS)
        with Workers() as workers:
            # Given the observed features a path's factors are U^-1 times independent ones.
            left = divide_by_paths(terms.tree, known, np.ones_like(seen), terms.left, workers)
        rows = axis.place[rest]
        self.mean_map = ConditionalMean(whole, observed, rest)
        self.covariance = whole._with_features(rest, left[rows], terms.diag[rows])
        self._freeze()

    def mean(self, y: Any) -> Any:
        """The conditional mean of the rest: ``mean_map @ y``.

        Parameters
        ----------
        y : array, Series or DataFrame
            Values of the observed features, their means removed: a vector, or a matrix with a column an observation.
            A Series or DataFrame is aligned by feature name.
        """
        return self.mean_map._labelled_times(y, "y")

    def __repr__(self) -> str:
        return f"<Conditional of {len(self.features)} features given {len(self.observed)}>"


class ConditionalMean(FrozenOperator):
    """Sigma_rest,observed Sigma_observed^-1: a solution, refined where it must be, and what the factors make of it."""

    def __init__(self, whole: MultilevelCovariance, observed: NDArray[np.intp], rest: NDArray[np.intp]) -> None:
        features, place = whole.hierarchy.features, whole._rows.place
        self._seen = whole.marginal(features[observed])
        super().__init__(Axis(features[rest]), self._seen._rows)
        self._terms = whole._terms
        self._observed, self._rest = place[observed][self._seen.hierarchy.permutation], place[rest]
        self._freeze()

    def _times(self, X: Floats) -> Floats:
        with Workers() as workers:
            return self._across(self._observed, self._seen._solved(X, None, workers), self._rest, workers)

    def _transposed_times(self, X: Floats) -> Floats:
        with Workers() as workers:
            return self._seen._solved(self._across(self._rest, X, self._observed, workers), None, workers)

    def _across(self, source: NDArray[np.intp], X: Floats, target: NDArray[np.intp], workers: Workers) -> Floats:
        """Sigma_target,source X: there the factors are all that the two have in common."""
        Y = np.zeros((len(self._terms.diag), X.shape[1]))
        Y[source] = X
        return np.ascontiguousarray(times(self._terms._replace(diag=np.zeros(len(Y))), Y, workers)[target])
