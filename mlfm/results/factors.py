"""The factors of each observation, and what they say about values that are missing."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.evidence import IncompleteEvidence
from mlfm.inference.factor_scores import Undetermined, by_pattern, own_covariances, posterior_means
from mlfm.inference.new_data import new_values, refuse_other_rows
from mlfm.results.mean import MeanResults
from mlfm.sweep import Workers
from mlfm.wording import count, listing

Floats = NDArray[np.float64]
METHODS = ("regression", "bartlett")


class Imputed(NamedTuple):
    """Data with missing values replaced by their conditional means, and the standard deviations of these."""

    values: pd.DataFrame
    sd: pd.DataFrame


class FactorResults(MeanResults):
    """What a fit says about the factors and about values given others."""

    #: What makes the factors shown of the canonical ones, by level: nodes x own x own; None where they are the same.
    _turns: list[Floats] | None = None

    def scores(self, method: str = "regression", data: Any = None, exog: Any = None) -> pd.DataFrame:
        """The factors of each observation, as its observed values tell them.

        Parameters
        ----------
        method : {"regression", "bartlett"}
            "regression": the factors' posterior means, E(z | y), which are drawn towards 0 as far as y leaves them
            open (Thurstone). "bartlett": weighted least squares over all factors together, (F'D^-1 F)^-1 F'D^-1 (y -
            mean), which are unbiased for each observation's factors but vary more (Bartlett 1937). They exist only
            where the observed features can tell all factors from each other.
        data : DataFrame, Series or array, optional
            New observations x features, in the units of the data of the fit; values may be missing. A DataFrame is
            matched by feature label, and a Series is one observation. By default the observations of the model.
        exog : optional
            The covariates of new observations, as in :meth:`predict`.

        Returns
        -------
        DataFrame
            Observations x (level, group, factor).

        Raises
        ------
        ValueError
            If the results hold no data (loaded from a file, say) and none are given, if data or covariates do not fit
            the model, or if Bartlett scores do not exist: the message names the groups.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> results.scores().iloc[:2, :3].round(2)
        level  global ability
        group  global    math memory
        factor      1       1      1
        child
        0       -0.60   -0.08  -0.31
        1       -1.11   -0.11   0.69
        >>> results.scores("bartlett", data=data.endog.iloc[[0]]).iloc[:, :3].round(2)
        level  global ability
        group  global    math memory
        factor      1       1      1
        child
        0       -0.63   -0.31  -0.45
        """
        self._check(method)
        with Workers() as workers:
            if data is None and method == "regression":
                _refuse_exog_alone(exog)
                model = self._with_data("scores")
                index = model.row_labels
                Z = model._evidence.factor_scores(*model._group_parts(self.params.to_numpy()), workers)
            else:
                frame = self._residuals_of(data, exog)
                index, terms = frame.index, self.covariance._terms
                E = np.ascontiguousarray(frame.to_numpy().T[self.hierarchy.permutation])
                try:
                    Z = posterior_means(terms.tree, terms.left, terms.diag, E, method == "regression", workers)
                except Undetermined as error:
                    raise self._undetermined(error, index) from None
        if self._turns is not None:
            Z = [turn @ part for turn, part in zip(self._turns, Z, strict=True)]
        values = [part.reshape(part.shape[0] * part.shape[1], len(index)) for part in Z]
        return pd.DataFrame(np.concatenate(values).T, index=index, columns=self._factors())

    def scores_se(self, method: str = "regression", data: Any = None) -> pd.DataFrame:
        """Standard errors of :meth:`scores`, at the estimates: the uncertainty of the parameters is not in them.

        Parameters
        ----------
        method : {"regression", "bartlett"}
            "regression": the factors' posterior standard deviations. "bartlett": the roots of the diagonal of (F'D^-1
            F)^-1.
        data : optional
            As for :meth:`scores`. The standard errors depend on which values are missing alone.

        Returns
        -------
        DataFrame
            Observations x (level, group, factor); rows are equal where observations miss the same values.

        Raises
        ------
        ValueError
            As :meth:`scores`.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> results.scores_se().iloc[:2, :3].round(2)
        level  global ability
        group  global    math memory
        factor      1       1      1
        child
        0        0.35    0.87   0.62
        1        0.35    0.87   0.62
        """
        self._check(method)
        if data is None:
            model = self._with_data("standard errors of scores")
            index, patterns = model.row_labels, model._data.patterns
            missing = np.zeros((len(index), self.hierarchy.n_features), dtype=bool)
            if patterns is not None:
                for s in range(len(patterns)):
                    rows = patterns.rows[patterns.starts[s] : patterns.starts[s + 1]]
                    missing[np.ix_(rows, patterns.missing_by(s))] = True
        else:
            frame = new_values(data, self.hierarchy.features, "data")
            index, missing = frame.index, frame.isna().to_numpy()[:, self.hierarchy.permutation]
        terms = self.covariance._terms
        columns = self._factors()
        errors = np.empty((len(index), len(columns)))
        with Workers() as workers:
            try:
                for rows, _, known in by_pattern(
                    terms.tree, terms.left, terms.diag, missing, method == "regression", workers
                ):
                    P = own_covariances(terms.tree, known, workers)
                    if self._turns is not None:
                        P = [T @ part @ T.transpose(0, 2, 1) for T, part in zip(self._turns, P, strict=True)]
                    errors[rows] = np.concatenate([np.sqrt(np.einsum("kii->ki", part)).ravel() for part in P])
            except Undetermined as error:
                raise self._undetermined(error, index) from None
        return pd.DataFrame(errors, index=index, columns=columns)

    def impute(self) -> Imputed:
        """The data with what the fit expects in place of missing values.

        Returns
        -------
        Imputed
            ``values``: the data, missing ones replaced by their conditional means given what is observed of the
            same observation. ``sd``: the standard deviations of these, 0 for values that were observed.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("stocks")
        >>> model = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks={"global": 1, "sector": 1})
        >>> imputed = model.fit().impute()
        >>> int(data.endog.isna().sum().sum()), int(imputed.values.isna().sum().sum())
        (212, 0)
        """
        model = self._with_data("imputed values")
        values = np.array(model.endog, dtype=np.float64)
        sd = np.zeros_like(values)
        if isinstance(model._evidence, IncompleteEvidence):
            parts = model._group_parts(self.params.to_numpy())
            with Workers() as workers:
                for rows, columns, means, variances in model._evidence.gaps(*parts, workers):
                    values[np.ix_(rows, columns)] = means
                    sd[np.ix_(rows, columns)] = np.sqrt(variances)
        return Imputed(self._of_observations(values), self._of_observations(sd))

    @staticmethod
    def _check(method: str) -> None:
        if method not in METHODS:
            raise ValueError(f"method must be one of {listing(METHODS)}, not {method!r}")

    def _factors(self) -> pd.MultiIndex:
        """All factors: level, group, number in the group."""
        labels = [
            (level, group, factor + 1)
            for level, rank in zip(self.hierarchy.levels, self.ranks, strict=True)
            if rank > 0
            for group in self.hierarchy.paths(level)
            for factor in range(rank)
        ]
        columns = [pd.Index(column, dtype=object, tupleize_cols=False) for column in zip(*labels, strict=True)]
        return pd.MultiIndex.from_arrays(columns or [[], [], []], names=["level", "group", "factor"])

    def _residuals_of(self, data: Any, exog: Any) -> pd.DataFrame:
        """New observations, or by default those of the model, less their means."""
        if data is None:
            _refuse_exog_alone(exog)
            model = self._with_data("scores")
            values = model.endog - model.exog @ self.coefficients.to_numpy().T
            return pd.DataFrame(values, index=model.row_labels, columns=self.hierarchy.features)
        frame = new_values(data, self.hierarchy.features, "data")
        return frame - self._mean_of(frame, exog, "data")

    def _mean_of(self, frame: pd.DataFrame, exog: Any, name: str) -> np.ndarray:
        """The mean of new observations of all features, a row for each or one for all."""
        if exog is not None:
            if self.mean_alone or not self.coefficients.shape[1]:
                raise ValueError("exog: the model has no covariates")
            mean = self.predict(exog)
            refuse_other_rows(mean, exog, frame, name)
            return mean.to_numpy()
        return self._constant_mean(name)

    def _constant_mean(self, name: str) -> np.ndarray:
        if self.mean_alone:
            return self.coefficients.to_numpy()[:, 0]
        if self.coefficients.shape[1]:
            raise ValueError(
                f"exog: needed with {name}, as the mean of the model depends on covariates: "
                f"{listing(self.coefficients.columns)}"
            )
        return np.zeros(self.hierarchy.n_features)

    def _undetermined(self, error: Undetermined, index: pd.Index) -> ValueError:
        """What to say where Bartlett scores do not exist."""
        level = self.hierarchy.levels[self.covariance._terms.tree_levels()[error.level]]
        groups = self.hierarchy.paths(level)[error.nodes]
        where = "" if len(error.rows) == len(index) else f", in observations {listing(index[error.rows])}"
        return ValueError(
            f"method: Bartlett scores do not exist for {count(len(groups), 'group')} of level {level!r}: "
            f"{listing(groups)}{where}. Too few features with loadings are observed there to tell their factors from "
            "each other and from those of the groups inside them; use method='regression'"
        )


def _refuse_exog_alone(exog: Hashable) -> None:
    if exog is not None:
        raise ValueError("exog: goes with data; the model's own observations have covariates already")
