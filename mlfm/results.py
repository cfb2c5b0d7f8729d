"""MultilevelFactorResults: what a fit found, with the labels put back."""

from __future__ import annotations

import copy
import pickle
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from statsmodels.base.model import LikelihoodModelResults

from mlfm.arrays import as_pandas, floating_array
from mlfm.covariance import MultilevelCovariance
from mlfm.covariates import covariates
from mlfm.estimation import FitRecord
from mlfm.evidence import IncompleteEvidence
from mlfm.hierarchy import UNIQUE
from mlfm.inference.coefficients import (
    chosen_terms,
    full_covariance,
    root,
    table,
    wald_complete,
    wald_full,
    wald_table,
)
from mlfm.inference.counts import free_loadings
from mlfm.inference.likelihood_ratio import LikelihoodRatio, likelihood_ratio, spans
from mlfm.parameters import Parameters, parameter_names
from mlfm.report.summary import summary as build_summary
from mlfm.sweep import Workers
from mlfm.wording import count, listing

if TYPE_CHECKING:
    from statsmodels.iolib.summary import Summary

    from mlfm.model import MultilevelFactorModel


class Imputed(NamedTuple):
    """Data with missing values replaced by their conditional means, and the standard deviations of these."""

    values: pd.DataFrame
    sd: pd.DataFrame


class MultilevelFactorResults(LikelihoodModelResults):
    """Results of fitting a :class:`mlfm.MultilevelFactorModel`; made by its ``fit``.

    Loadings are reported in canonical rotation: in every group k, F_k' D^-1 F_k is diagonal and decreasing, and
    each factor's loadings sum to a positive number, so that two runs print the same table.

    Attributes
    ----------
    model : MultilevelFactorModel or None
        The model; None in results that were loaded from a file, which hold no data.
    hierarchy : Hierarchy
    ranks : Series
        Factors of each group, by level.
    nobs : int
        Number of observations, as often as they were seen.
    effective_nobs : float
        What their weights come to; ``nobs`` where there are none.
    n_missing : int
        Missing values in the data.
    missing_share : float
        Their share of all values.
    loadings : DataFrame
        Features x (level, factor): each feature's loadings on the factors of its own groups.
    uniquenesses : Series
        The diagonal D: each feature's variance that no factor explains.
    coefficients : DataFrame
        Features x covariates, the constant among them: each feature's mean is ``coefficients @ x``.
    on_floor : Index
        Features whose uniqueness ended on its floor.
    unidentified : list
        Groups that the data cannot identify, with the reason.
    uniqueness_floor : float
        Smallest uniqueness allowed, as a share of the feature's variance.
    trend : str
        "c" if means were estimated, else "n".
    record : FitRecord
        How the fit went.
    """

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
        """Log-likelihood of all observations, in nats, at the estimates; each counts as often as its weight says."""
        return self.record.llf

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
    def converged(self) -> bool:
        """Whether the fit met its criterion."""
        return self.record.converged

    @property
    def history(self) -> pd.DataFrame:
        """One row an evaluation: log-likelihood, projected remaining gain, kind of step, whether it was kept."""
        return self.record.history

    @property
    def mle_retvals(self) -> dict[str, Any]:
        """How the fit ended."""
        record = self.record
        return {
            "converged": record.converged,
            "reason": record.reason,
            "iterations": len(record.evaluations) - 1,
            "fcalls": len(record.evaluations) + record.elsewhere,
            "starts": dict(record.starts),
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

    def cov_params(self, *arguments: Any, **options: Any) -> Any:
        """Not there yet, and so neither are standard errors, tests and intervals."""
        raise NotImplementedError(
            "standard errors and tests of loadings and uniquenesses are not available in this version of mlfm; for "
            "those of coefficients see coefficients_bse, coefficients_table() and wald_test_terms()"
        )

    t_test = f_test = wald_test = t_test_pairwise = conf_int = cov_params

    @property
    def bse(self) -> pd.Series:
        """Not there yet."""
        return self.cov_params()

    @property
    def fittedvalues(self) -> pd.DataFrame:
        """The mean of each observation, observations x features: covariates times coefficients."""
        model = self._with_data("fitted values")
        return self._of_observations(model.exog @ self.coefficients.to_numpy().T)

    @property
    def resid(self) -> pd.DataFrame:
        """The data less :attr:`fittedvalues`; missing where they are."""
        return self._of_observations(self._with_data("residuals").endog) - self.fittedvalues

    def predict(self, exog: Any = None) -> pd.DataFrame:
        """The mean of new observations.

        Parameters
        ----------
        exog : DataFrame, Series or array, optional
            New observations x covariates, without the constant that the model added. After a formula, a DataFrame of
            the variables that its mean terms use; results loaded from a file take the design matrix's own columns
            instead. By default the observations of the model.

        Returns
        -------
        DataFrame
            Observations x features.

        Raises
        ------
        ValueError, TypeError
            If covariates are absent, missing or infinite.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> first, rest = data.endog.columns[0], data.endog.columns[1:]
        >>> endog, groups = data.endog[rest], data.groups.loc[rest]
        >>> results = mlfm.MultilevelFactorModel(endog, data.endog[[first]], hierarchy=groups, ranks=[1, 1]).fit()
        >>> results.predict([[0.0], [1.0]]).iloc[:, :2].round(2)
        feature  t21_numbpuzz  t22_probreas
        0                2.94          2.35
        1                3.36          2.73
        """
        if exog is None:
            return self.fittedvalues
        design = self._new_design(as_pandas(exog))
        values = design.to_numpy() @ self.coefficients.to_numpy().T
        return pd.DataFrame(values, index=design.index, columns=self.coefficients.index)

    def _new_design(self, exog: Any) -> pd.DataFrame:
        """Covariates of new observations, the constant among them."""
        names = self.coefficients.columns
        if isinstance(exog, pd.Series):
            exog = exog.to_frame("x1" if exog.name is None else exog.name)
        framed = isinstance(exog, pd.DataFrame)
        if self.design is not None and self.design.rule is not None:
            if not framed:
                raise TypeError(
                    f"exog: after a formula, a DataFrame of the variables of {self.design.text!r} is needed, not "
                    f"{type(exog).__name__}"
                )
            return self.design.of(exog)
        if self.design is not None and not (framed and set(names) <= set(exog.columns)):
            return self.design.of(exog)  # which says what it needs
        constant = self.trend == "c"
        wanted = names[1:] if constant else names
        if framed:
            absent = wanted.difference(exog.columns, sort=False)
            if len(absent):
                needed = listing(wanted, most=20)
                raise ValueError(f"exog: covariates are absent: {listing(absent)}; needed are {needed}")
            exog = exog[list(wanted)]
        elif floating_array(exog, "exog").ndim not in (1, 2):
            raise ValueError(f"exog: observations x {listing(wanted, most=20)} are needed, not {exog!r}")
        index = exog.index if framed else pd.RangeIndex(len(exog))
        frame = covariates(exog, index, False, constant)
        if frame.shape[1] != len(names):
            raise ValueError(
                f"exog: {count(frame.shape[1] - constant, 'column')}, but the model has "
                f"{count(len(wanted), 'covariate')}: {listing(wanted, most=20)}"
            )
        return frame.set_axis(names, axis=1)

    @cached_property
    def coefficients_bse(self) -> pd.DataFrame:
        """Standard errors of the coefficients: Var(vec B) = Sigma (x) (X'X)^-1, or with missing values the inverse of
        the expected information given what is observed. With importance weights they are those of so many effective
        observations.

        Raises
        ------
        ValueError
            With missing values, if there are more than 4000 coefficients, or if the results were loaded from a file and
            the standard errors not worked out before they were saved.
        """
        if self.n_missing:
            errors = np.sqrt(np.einsum("ikik->ik", self._coefficients_covariance))
        else:
            lengths = np.linalg.norm(np.linalg.inv(self._covariates_root), axis=1)
            errors = np.outer(np.sqrt(self.covariance.diagonal()), lengths)
        return pd.DataFrame(errors, index=self.coefficients.index, columns=self.coefficients.columns)

    @cached_property
    def _coefficients_covariance(self) -> np.ndarray:
        model = self._with_data("standard errors with missing values")
        assert model._data.patterns is not None
        _, F, D = model._group_parts(self.params.to_numpy())
        return full_covariance(model._tree, F, D, model._data, model._data.patterns)

    def coefficients_table(self, alpha: float = 0.05) -> pd.DataFrame:
        """The coefficients with standard errors, z statistics, p-values and intervals.

        Parameters
        ----------
        alpha : float
            One less the coverage of the intervals.

        Returns
        -------
        DataFrame
            Indexed by feature and covariate.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> first, rest = data.endog.columns[0], data.endog.columns[1:]
        >>> model = mlfm.MultilevelFactorModel(
        ...     data.endog[rest], data.endog[first], hierarchy=data.groups.loc[rest], ranks=[1, 1]
        ... )
        >>> model.fit().coefficients_table().head(2).round(3)
                                     coef  std err       z  P>|z|  [0.025  0.975]
        feature      covariate
        t21_numbpuzz const          2.944    0.104  28.403    0.0   2.741   3.147
                     t20_deduction  0.414    0.056   7.346    0.0   0.304   0.524
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, not {alpha!r}")
        return table(self.coefficients, self.coefficients_bse, alpha)

    def wald_test_terms(self, terms: Any = None) -> pd.DataFrame:
        """Wald tests of covariates: that the coefficients of a term are zero for all features.

        Parameters
        ----------
        terms : mapping from names to lists of covariates, optional
            By default the terms of the formula, all columns of a category or a spline together; without a formula each
            covariate is a term.

        Returns
        -------
        DataFrame
            ``chi2``, ``df`` and ``P>chi2`` by term.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> first, rest = data.endog.columns[0], data.endog.columns[1:]
        >>> endog, groups = data.endog[rest], data.groups.loc[rest]
        >>> results = mlfm.MultilevelFactorModel(endog, data.endog[[first]], hierarchy=groups, ranks=[1, 1]).fit()
        >>> results.wald_test_terms().round(1)
                          chi2  df  P>chi2
        term
        const          13657.9  23     0.0
        t20_deduction    178.6  23     0.0
        """
        if terms is None and self.design is not None:
            terms = self.design.terms
        values, statistics = self.coefficients.to_numpy(), {}
        inverse: np.ndarray = np.linalg.inv(self._covariates_root)
        for name, own in chosen_terms(terms, self.coefficients.columns).items():
            if self.n_missing:
                statistics[name] = wald_full(values[:, own], self._coefficients_covariance[:, own][:, :, :, own])
            else:
                statistics[name] = wald_complete(values[:, own], self.covariance, inverse[own])
        return wald_table(statistics)

    def compare_lr_test(self, restricted: MultilevelFactorResults) -> LikelihoodRatio:
        """Likelihood-ratio test of covariates: this fit against one with fewer of them.

        Parameters
        ----------
        restricted : MultilevelFactorResults
            A fit of the same data, groups and ranks, whose covariates are combinations of those here.

        Returns
        -------
        LikelihoodRatio
            ``statistic``, ``pvalue``, ``df_diff``.

        Raises
        ------
        ValueError
            If the fits are of different data, groups or ranks, did not converge, or their covariates do not nest; or if
            the larger model has the lower log-likelihood.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> first, rest = data.endog.columns[0], data.endog.columns[1:]
        >>> endog, groups = data.endog[rest], data.groups.loc[rest]
        >>> results = mlfm.MultilevelFactorModel(endog, data.endog[[first]], hierarchy=groups, ranks=[1, 1]).fit()
        >>> without = mlfm.MultilevelFactorModel(endog, hierarchy=groups, ranks=[1, 1]).fit()
        >>> print(results.compare_lr_test(without))
        Likelihood-ratio test: chi2(23) = 139.877, p = 9.761e-19
        """
        if not isinstance(restricted, MultilevelFactorResults):
            raise TypeError(f"restricted must be results of a fit, not {type(restricted).__name__}")
        full_model, less = self._with_data("the test"), restricted._with_data("the test")
        if not full_model._data.same_as(less._data):
            raise ValueError("restricted: a fit of other data, or weights; both must be of the same observations")
        if self.hierarchy != restricted.hierarchy or not self.ranks.equals(restricted.ranks):
            raise ValueError(
                "restricted: a fit with other groups or ranks, or features in another order; the chi-square is that of "
                "covariates only, as loadings that are not there are not identified. Compare such fits by their "
                "criteria (aic, bic)"
            )
        if self.uniqueness_floor != restricted.uniqueness_floor:
            raise ValueError(
                f"restricted: its uniqueness_floor is {restricted.uniqueness_floor:g}, here it is "
                f"{self.uniqueness_floor:g}; both fits need the same"
            )
        for who, results in (("this fit", self), ("restricted", restricted)):
            if not results.converged:
                raise ValueError(f"{who} did not converge: {results.record.reason}")
        df_diff = self.coefficients.size - restricted.coefficients.size
        if df_diff <= 0 or not spans(full_model.exog, less.exog):
            raise ValueError(
                f"restricted: its covariates ({listing(restricted.coefficients.columns)}) must be fewer than, and "
                f"combinations of, those here ({listing(self.coefficients.columns)})"
            )
        if self.llf < restricted.llf - self.record.tol:
            raise ValueError(
                f"the log-likelihood with more covariates is lower, {self.llf:.4f} against {restricted.llf:.4f}: one "
                "of the fits is at a lower maximum; fit with n_starts=5, say, or start=restricted"
            )
        return likelihood_ratio(restricted.llf, self.llf, df_diff)

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

    def summary(self) -> Summary:
        """Tables of the fit: header, levels, largest loadings, notes.

        Returns
        -------
        statsmodels.iolib.summary.Summary
            With ``as_text``, ``as_html`` and ``as_latex``.
        """
        return build_summary(self)

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
        for derived in ("params", "covariance", "_coefficients_covariance"):
            results.__dict__.pop(derived, None)
        with Path(fname).open("wb") as file:
            pickle.dump(results, file, protocol=5)

    @classmethod
    def load(cls, fname: str | Path) -> MultilevelFactorResults:
        """Read results written by :meth:`save`."""
        with Path(fname).open("rb") as file:
            try:
                results = pickle.load(file)
            except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, ValueError) as error:
                raise ValueError(f"{fname} cannot be read as results of mlfm: {error}") from error
        if not isinstance(results, cls):
            raise TypeError(f"{fname} does not hold results of mlfm, but a {type(results).__name__}")
        return results
