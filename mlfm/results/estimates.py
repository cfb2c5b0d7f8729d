"""What was estimated, with the labels put back, and how the fit ended; what all results are based on."""

from __future__ import annotations

import copy
import numbers
import pickle
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from statsmodels.base.model import LikelihoodModelResults

from mlfm.covariance import MultilevelCovariance
from mlfm.estimation import FitRecord
from mlfm.hierarchy import UNIQUE
from mlfm.inference import criteria
from mlfm.inference.coefficients import root
from mlfm.inference.counts import free_loadings
from mlfm.parameters import Parameters, parameter_names

if TYPE_CHECKING:
    from mlfm.model import MultilevelFactorModel


class Estimates(LikelihoodModelResults):
    """Parameters, criteria, and what follows from the parameters alone."""

    model: MultilevelFactorModel | None

    def __init__(self, model: MultilevelFactorModel, params: np.ndarray, record: FitRecord, on_floor: pd.Index) -> None:
        super().__init__(model, params)
        estimates: Parameters = model.unpack(params)
        self.loadings, self.uniquenesses, self.coefficients = estimates
        self.hierarchy, self.ranks = model.hierarchy, model.ranks
        self.nobs, self.effective_nobs, self.trend = model.nobs, model.effective_nobs, model.trend
        self.n_missing, self.missing_share = model.n_missing, model.n_missing / model._data.Y.size
        self.formula, self.design, self.mean_alone = model.formula, model.design, model.mean_alone
        self._covariates_root = root(model._data)
        self.uniqueness_floor = model.uniqueness_floor
        self.unidentified = model.unidentified
        self.record, self.on_floor = record, on_floor

    def initialize(self, model: Any, params: Any, **kwargs: Any) -> None:
        """statsmodels' hook; the parameters are kept as their labelled parts (see :attr:`params`)."""
        self.model = model

    @cached_property
    def params(self) -> pd.Series:
        """All parameters, named: coefficients and loadings row by row, uniquenesses, in feature order."""
        parts = [part.to_numpy().ravel() for part in (self.coefficients, self.loadings, self.uniquenesses)]
        names = parameter_names(
            self.hierarchy.features, self.loadings.columns, self.coefficients.columns, self.mean_alone
        )
        return pd.Series(np.concatenate(parts), index=names)

    @property
    def mean(self) -> pd.Series | None:
        """Feature means; None unless a constant is the only covariate."""
        if not self.mean_alone:
            return None
        return self.coefficients.iloc[:, 0].rename("mean")

    @property
    def llf(self) -> float:
        """Log-likelihood of all observations, in nats, at the estimates; each counts as often as its weight says.

        Without a penalty: with one it was ``llf - record.penalty_taken`` that was maximised.
        """
        return self.record.llf + self.record.penalty_taken

    @property
    def df_model(self) -> int:
        """Free parameters: loadings up to rotations inside groups, uniquenesses and coefficients."""
        return sum(free_loadings(self.hierarchy, self.ranks)) + len(self.uniquenesses) + self.coefficients.size

    @property
    def aic(self) -> float:
        """Akaike's information criterion, -2 llf + 2 df_model."""
        return -2 * self.llf + 2 * self.df_model

    @property
    def bic(self) -> float:
        """Schwarz' information criterion, -2 llf + log(effective_nobs) df_model."""
        return -2 * self.llf + float(np.log(self.effective_nobs)) * self.df_model

    @property
    def sabic(self) -> float:
        """Sample-size adjusted BIC, -2 llf + log((effective_nobs + 2) / 24) df_model (Sclove 1987)."""
        return criteria.sabic(self.llf, self.df_model, self.effective_nobs)

    def ebic(self, gamma: float = 0.5) -> float:
        """Extended BIC: bic + 4 gamma log(n) E, where E is the number of free loadings.

        It charges for the many models of as many loadings that n features have, where BIC alone tends to choose too
        large a model: for n comparable to, or larger than, the number of observations.

        Parameters
        ----------
        gamma : float
            From 0 (the same as ``bic``) to 1.

        Returns
        -------
        float
            Less is better.

        Notes
        -----
        Foygel and Drton's form for graphs, with loadings in the place of edges: both are the parameters that make
        features dependent.

        References
        ----------
        Chen and Chen (2008, Biometrika 95, p. 759); Foygel and Drton (2010, *Advances in Neural Information Processing
        Systems* 23).

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> round(results.bic, 1), round(results.ebic(), 1)
        (19894.0, 20199.1)
        """
        if isinstance(gamma, bool) or not isinstance(gamma, numbers.Real) or not 0 <= float(gamma) <= 1:
            raise ValueError(f"gamma must lie between 0 and 1, not {gamma!r}")
        loadings = sum(free_loadings(self.hierarchy, self.ranks))
        n = self.hierarchy.n_features
        return criteria.ebic(self.llf, self.df_model, self.effective_nobs, float(gamma), loadings, n)

    def free_parameters(self) -> pd.Series:
        """Number of free parameters: of each level's loadings, up to rotations; of uniquenesses; of the mean.

        Returns
        -------
        Series
            By level, then "unique" and "mean" (all coefficients of covariates). The sum is ``df_model``.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        >>> results.free_parameters()
        global     24
        ability    24
        unique     24
        mean       24
        Name: parameters, dtype: int64
        """
        labels = pd.Index([*self.hierarchy.levels, UNIQUE, "mean"], dtype=object, tupleize_cols=False)
        counts = [*free_loadings(self.hierarchy, self.ranks), len(self.uniquenesses), self.coefficients.size]
        return pd.Series(counts, index=labels, name="parameters")

    @property
    def converged(self) -> bool:
        """Whether the fit met its criterion."""
        return self.record.converged

    @property
    def history(self) -> pd.DataFrame:
        """One row an evaluation: log-likelihood, projected remaining gain, kind of step, whether it was kept."""
        return self.record.history

    @property
    def starts(self) -> pd.DataFrame:
        """Every climb of the fit, in order, by where it began; log-likelihoods are less the penalty if there is one.

        Starts have their names ("pca"). "sector +1" went to ranks with one factor more at level sector and came back;
        in "sector redrawn" the loadings of sector and of all finer levels were drawn at random; "crossing with .." took
        of two maxima, group by group, what is higher. Columns: ``llf`` where the climb stopped; ``behind``, in nats
        below the highest, and 0 for climbs that came back to it; ``evaluations``, those at other ranks and of crossings
        too; ``ended``, whether it was followed to an end (loosely, unless it is the highest): climbs that come back to
        where they began, or stay far below, are given up; ``reached``, whether it came to the highest maximum;
        ``on_floor``, uniquenesses on their floor where it stopped (Heywood cases).
        """
        return self.record.starts

    @property
    def mle_retvals(self) -> dict[str, Any]:
        """How the fit ended."""
        record = self.record
        return {
            "converged": record.converged,
            "reason": record.reason,
            "iterations": len(record.evaluations) - 1,
            "fcalls": record.fcalls,
            "starts": {climb.start: climb.llf for climb in record.climbs},
            "projected_gain": record.projected_gain,
            "score_norm": record.score_norm,
            "seconds": record.seconds,
        }

    @property
    def mle_settings(self) -> dict[str, Any]:
        """What the fit was asked to do."""
        record = self.record
        return {
            "method": record.method,
            "start": record.start,
            "n_starts": record.n_starts,
            "search": record.search,
            "penalty": record.penalty,
            "maxiter": record.maxiter,
            "tol": record.tol,
            "n_threads": record.n_threads,
        }

    @cached_property
    def covariance(self) -> MultilevelCovariance:
        """The fitted covariance, as linear algebra."""
        return MultilevelCovariance(self.hierarchy, self.loadings, self.uniquenesses, ranks=self.ranks)

    @property
    def communalities(self) -> pd.Series:
        """Share of each feature's fitted variance that its factors explain."""
        explained = (self.loadings**2).sum(axis=1)
        return (explained / (explained + self.uniquenesses)).rename("communality")

    def variance_explained(self, by: str = "level") -> pd.DataFrame:
        """How the fitted variance splits, by level or by group.

        Parameters
        ----------
        by : {"level", "group"}

        Returns
        -------
        DataFrame
            By level, with a last row "unique": ``variance``, the sum over features; ``share`` of the total
            variance; ``mean_share``, the average over features of each one's share, which does not depend on
            units. By group, indexed by level and group: ``features``, ``variance``, ``share`` of the total
            variance, and ``share_within``, of the variance of the group's own features.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> model = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1])
        >>> model.fit().variance_explained()["share"].round(2)
        level
        global     0.25
        ability    0.21
        unique     0.54
        Name: share, dtype: float64
        """
        squares, D = self.loadings.to_numpy() ** 2, self.uniquenesses.to_numpy()
        ends = np.cumsum(self.ranks)
        # Features x levels: what the factors of each level explain of each feature.
        parts = np.stack([squares[:, e - k : e].sum(axis=1) for e, k in zip(ends, self.ranks, strict=True)], axis=1)
        total = parts.sum(axis=1) + D
        if by == "level":
            parts = np.column_stack([parts, D])
            return pd.DataFrame(
                {
                    "variance": parts.sum(axis=0),
                    "share": parts.sum(axis=0) / total.sum(),
                    "mean_share": (parts / total[:, None]).mean(axis=0),
                },
                index=pd.Index([*self.hierarchy.levels, UNIQUE], name="level", dtype=object, tupleize_cols=False),
            )
        if by == "group":
            order = self.hierarchy.permutation
            levels, names, rows = [], [], []
            for depth, (level, bounds) in enumerate(zip(self.hierarchy.levels, self.hierarchy.offsets, strict=True)):
                variance = np.add.reduceat(parts[order, depth], bounds[:-1])
                within = np.add.reduceat(total[order], bounds[:-1])
                rows.append([np.diff(bounds), variance, variance / total.sum(), variance / within])
                names += list(self.hierarchy.paths(level))
                levels += [level] * len(variance)
            index = pd.MultiIndex.from_arrays(
                [pd.Index(labels, dtype=object, tupleize_cols=False) for labels in (levels, names)],
                names=["level", "group"],
            )
            columns = ["features", "variance", "share", "share_within"]
            table = {
                name: np.concatenate(column) for name, column in zip(columns, zip(*rows, strict=True), strict=True)
            }
            return pd.DataFrame(table, index=index)
        raise ValueError(f"by must be 'level' or 'group', not {by!r}")

    def _of_observations(self, values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, index=self._with_data("this").row_labels, columns=self.hierarchy.features)

    def _with_data(self, what: str) -> MultilevelFactorModel:
        if self.model is None:
            raise ValueError(f"{what} cannot be had: these results were loaded from a file, or had their data removed")
        return self.model

    def remove_data(self) -> None:
        """Drop the model, and with it the data; loglike and further fits go with it."""
        self.model = None
        if self.design is not None:
            self.design = self.design.without_data()

    def __repr__(self) -> str:
        state = "converged" if self.converged else "NOT converged"
        features = self.hierarchy.n_features
        return f"<MultilevelFactorResults: {self.nobs} x {features}, log-likelihood {self.llf:.3f}, {state}>"

    def save(self, fname: str | Path, remove_data: bool = True) -> None:
        """Write the results to a file.

        Read them again with :func:`mlfm.load`, from files you trust only: the format is Python's pickle.

        Parameters
        ----------
        fname : str or Path
        remove_data : bool
            Leave out the model, and with it the data, so that the file is small.
        """
        results = copy.copy(self)
        if remove_data:
            results.model = None
        for derived in ("params", "covariance", "_coefficient_covariance", "_parameter_covariance", "unrotated"):
            results.__dict__.pop(derived, None)
        with Path(fname).open("wb") as file:
            pickle.dump(results, file, protocol=5)

    @classmethod
    def load(cls, fname: str | Path) -> Self:
        """Read results written by :meth:`save`."""
        with Path(fname).open("rb") as file:
            try:
                results = pickle.load(file)
            except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, ValueError) as error:
                raise ValueError(f"{fname} cannot be read as results of mlfm: {error}") from error
        if not isinstance(results, cls):
            raise TypeError(f"{fname} does not hold results of mlfm, but a {type(results).__name__}")
        return results
