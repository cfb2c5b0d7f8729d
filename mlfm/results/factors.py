"""The factors of each observation, and what they say about values that are missing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mlfm.evidence import IncompleteEvidence
from mlfm.results.estimates import Estimates
from mlfm.sweep import Workers


class Imputed(NamedTuple):
    """Data with missing values replaced by their conditional means, and the standard deviations of these."""

    values: pd.DataFrame
    sd: pd.DataFrame


class FactorResults(Estimates):
    """What a fit says about the factors and about values given others."""

    def scores(self) -> pd.DataFrame:
        """Posterior means of the factors (regression scores): what is expected of them given the observed values.

        Returns
        -------
        DataFrame
            Observations x (level, group, factor).

        Raises
        ------
        ValueError
            If the results hold no data (loaded from a file, say).

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
        """
        model = self._with_data("scores")
        tree = model._tree
        with Workers() as workers:
            Z = model._evidence.factor_scores(*model._group_parts(self.params.to_numpy()), workers)
        levels = [level for level, rank in zip(self.hierarchy.levels, self.ranks, strict=True) if rank > 0]
        parts = [part for part, rank in zip(Z, tree.ranks, strict=True) if rank > 0]
        labels: list[tuple[Any, Any, int]] = []
        for level, part in zip(levels, parts, strict=True):
            labels += [(level, g, k + 1) for g in self.hierarchy.paths(level) for k in range(part.shape[1])]
        values = [part.reshape(-1, len(model.row_labels)) for part in parts]
        columns = [pd.Index(column, dtype=object, tupleize_cols=False) for column in zip(*labels, strict=True)] or [
            []
        ] * 3
        return pd.DataFrame(
            np.concatenate(values).T if values else np.empty((len(model.row_labels), 0)),
            index=model.row_labels,
            columns=pd.MultiIndex.from_arrays(columns, names=["level", "group", "factor"]),
        )

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
