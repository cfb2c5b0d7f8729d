"""What some features of an observation say of the others, in the normal model at given parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mlfm.covariance import MultilevelCovariance
from mlfm.covariance.conditional import Conditional
from mlfm.inference.tables import check_alpha
from mlfm.patterns import Patterns
from mlfm.wording import count

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """Ends of intervals, observations x features each."""

    lower: pd.DataFrame
    upper: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Prediction:
    """The distribution of features given others, observation by observation, as ``results.conditional`` finds it.

    Normal, at the estimates: that the parameters are not known exactly is not in it, so that with few observations a
    fit's intervals are somewhat too short. Values that are known stand for themselves, with a standard deviation of 0.

    Attributes
    ----------
    mean : DataFrame, observations x features
        Conditional means.
    sd : DataFrame, observations x features
        Conditional standard deviations.
    """

    mean: pd.DataFrame
    sd: pd.DataFrame

    def interval(self, alpha: float = 0.05) -> Interval:
        """Prediction intervals, each feature by itself.

        Parameters
        ----------
        alpha : float
            One less the coverage.

        Returns
        -------
        Interval
            ``lower`` and ``upper``, observations x features.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> lower, upper = results.conditional(data.endog.iloc[:2, 1:]).interval(alpha=0.1)
        >>> round(float(lower.iloc[0, 0]), 2), round(float(upper.iloc[0, 0]), 2)
        (-0.29, 2.66)
        """
        check_alpha(alpha)
        half = stats.norm.isf(alpha / 2) * self.sd
        return Interval(self.mean - half, self.mean + half)

    def __repr__(self) -> str:
        rows, columns = self.mean.shape
        return f"<Prediction of {count(columns, 'feature')} for {count(rows, 'observation')}>"


def predict(covariance: MultilevelCovariance, mean: Floats, observed: pd.DataFrame) -> Prediction:
    """Features given those observed, pattern by pattern of missing values.

    ``mean`` is observations x features or one row for all, in the order of the features; ``observed`` has some of the
    features, in any order.
    """
    features, nobs = covariance.hierarchy.features, len(observed)
    where = features.get_indexer(observed.columns)
    mean, values = np.broadcast_to(mean, (nobs, len(features))), observed.to_numpy()
    patterns = Patterns.of(np.isnan(values))
    unknown = np.ones(len(features), dtype=bool)
    unknown[where] = np.isnan(values).any(axis=0)
    shown = np.flatnonzero(unknown)
    place = np.full(len(features), -1)
    place[shown] = np.arange(len(shown))
    means, sds = mean[:, shown].copy(), np.zeros((nobs, len(shown)))
    for s in range(len(patterns)):
        rows = patterns.rows[patterns.starts[s] : patterns.starts[s + 1]]
        known = np.delete(np.arange(len(where)), patterns.missing_by(s))
        seen = where[known]
        rest = np.setdiff1d(shown, seen)
        given = values[np.ix_(rows, known)]
        again = place[seen] >= 0  # observed here and missing elsewhere
        means[np.ix_(rows, place[seen[again]])] = given[:, again]
        if not len(rest):
            continue
        if len(seen):
            conditional = Conditional(covariance, seen, rest)
            means[np.ix_(rows, place[rest])] += conditional.mean((given - mean[np.ix_(rows, seen)]).T).T
            variances = conditional.covariance.diagonal()
        else:
            variances = covariance.diagonal()[rest]
        sds[np.ix_(rows, place[rest])] = np.sqrt(variances)
    labels = {"index": observed.index, "columns": features[shown]}
    return Prediction(pd.DataFrame(means, **labels), pd.DataFrame(sds, **labels))
