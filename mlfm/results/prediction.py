"""New observations: the features that are not known given those that are, and draws from the fitted model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mlfm.inference.new_data import some_features
from mlfm.inference.prediction import Prediction, predict
from mlfm.results.factors import FactorResults
from mlfm.seeds import generator
from mlfm.wording import count


class PredictionResults(FactorResults):
    """What a fit expects of observations that are not there."""

    def conditional(self, observed: Any, exog: Any = None) -> Prediction:
        """The other features of new observations, given some of their features.

        Parameters
        ----------
        observed : DataFrame, observations x some of the features, or Series
            Known values in the units of the data, matched by feature label; a Series is one observation. Where values
            are missing the rest of the observation is used.
        exog : optional
            The covariates of these observations, as in :meth:`predict`.

        Returns
        -------
        Prediction
            ``mean``, ``sd`` and ``interval(alpha)`` of all features that are not known throughout. They are of the
            normal model at the estimates: the uncertainty of the parameters is not in them.

        Raises
        ------
        ValueError, TypeError
            If labels are no features, all features are known, or covariates are absent or of other rows.

        Notes
        -----
        The covariance of the rest given some features, whatever their values, is
        ``results.covariance.conditional(features).covariance``.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> prediction = results.conditional(data.endog.iloc[:2, 2:])
        >>> prediction.mean.round(2)
        feature  t20_deduction  t21_numbpuzz
        child
        0                 1.15          3.07
        1                 0.82          2.65
        >>> prediction.interval(alpha=0.05).upper.round(2)
        feature  t20_deduction  t21_numbpuzz
        child
        0                 2.92          4.87
        1                 2.58          4.44
        """
        frame = some_features(observed, self.hierarchy.features, "observed")
        if not frame.shape[1]:
            raise ValueError("observed: no features are named; simulate() and predict() need none")
        if frame.shape[1] == self.hierarchy.n_features and not frame.isna().any(axis=None):
            raise ValueError("observed: these are all features; none are left to predict")
        return predict(self.covariance, self._mean_of(frame, exog, "observed"), frame)

    def simulate(self, nobs: int | None = None, rng: Any = None, exog: Any = None) -> pd.DataFrame:
        """New data from the fitted model: independent normal draws around the mean.

        Parameters
        ----------
        nobs : int, optional
            Number of observations; by default one for each row of ``exog``, or of the model's own data.
        rng : int, Generator or None
            Seed or generator of the random numbers; None is seed 0. The same seed gives the same data.
        exog : optional
            Covariates of the new observations, as in :meth:`predict`; needed with ``nobs`` where the model has any.

        Returns
        -------
        DataFrame
            Observations x features.

        Raises
        ------
        ValueError
            If covariates are needed or do not fit, or if there are no data to take the number of observations from.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> results.simulate(1000, rng=1).iloc[:, :2].mean().round(1)
        feature
        t20_deduction    1.5
        t21_numbpuzz     3.5
        dtype: float64
        """
        if nobs is not None and (isinstance(nobs, bool) or not isinstance(nobs, (int, np.integer)) or nobs < 0):
            raise ValueError(f"nobs: a number of observations from 0 on is needed, not {nobs!r}")
        if exog is not None:
            if self.mean_alone or not self.coefficients.shape[1]:
                raise ValueError("exog: the model has no covariates")
            mean = self.predict(exog)
            if nobs is not None and nobs != len(mean):
                raise ValueError(f"nobs: {nobs}, but exog has {count(len(mean), 'row')}; give one of the two")
        elif nobs is None:
            self._with_data("as many observations as the data have (give nobs)")
            mean = self.fittedvalues
        else:
            values = np.broadcast_to(self._constant_mean("nobs"), (int(nobs), self.hierarchy.n_features))
            mean = pd.DataFrame(values, columns=self.hierarchy.features)
        draws = self.covariance.sample(len(mean), generator(rng))
        return pd.DataFrame(mean.to_numpy() + draws.to_numpy(), index=mean.index, columns=self.hierarchy.features)
