"""MultilevelFactorModel: checks the input once and wires the rest."""

from __future__ import annotations

import numbers
import time
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from statsmodels.base.model import LikelihoodModel

from mlfm.alignment import positions
from mlfm.endog import checked_values, match_hierarchy
from mlfm.estimation import METHODS, STARTS, Evaluation, FitRecord, Problem, Search, filling, maximise
from mlfm.exceptions import ConvergenceWarning, IdentificationWarning, UniquenessFloorWarning
from mlfm.hierarchy import Hierarchy
from mlfm.inference.counts import Unidentified, unidentified
from mlfm.likelihood import condition, loglike, loglike_by_column, score
from mlfm.linear import solve
from mlfm.parameters import Layout, Parameters, finite_vector, loadings_array, parameter_names, uniqueness_array
from mlfm.progress import progress_bar
from mlfm.ranks import Ranks, factor_columns, ranks_by_level, refuse_more_than_features
from mlfm.results import MultilevelFactorResults
from mlfm.rotation import canonical
from mlfm.standardised import Reals, Standardised
from mlfm.sweep import Sweep, Tree, Workers
from mlfm.warm import warm_start
from mlfm.wording import count, listing

Floats = NDArray[np.float64]
TRENDS = ("c", "n")
# Uniquenesses much smaller than the rounding of the variances they are part of are numbers without a meaning.
LEAST_FLOOR = 1e-10


class MultilevelFactorModel(LikelihoodModel):
    """Multilevel factor model for features in nested groups, fitted by maximum likelihood.

    y = mu + F_1 z_1 + .. + F_L z_L + e. The features sit in nested groups: level 1 is the global group of all
    features, each later level refines the one before. Every group of level l has ``ranks[l]`` factors of its own, on
    which only its features load, so

        Sigma = F_1 F_1' + .. + F_L F_L' + D

    with F_l block diagonal and D diagonal. Factors are independent N(0, 1), e ~ N(0, D).

    Parameters
    ----------
    endog : DataFrame or array, observations x features
        The data. One copy is made, of single precision where the data are, and the data themselves are not kept.
    hierarchy : Hierarchy, DataFrame, MultiIndex, list of level names, or None
        The groups of the features. A DataFrame holds labels, indexed by feature, columns coarse to fine. None
        takes the levels of endog's column MultiIndex, whose last level names the features; a list names some of
        them. With plain columns None means a flat model: the global group only.
    ranks : mapping or sequence
        Factors of each group: by level name (absent levels have none), or one number a level from global to
        finest. Zero is allowed anywhere.
    trend : {"c", "n"}
        "c": every feature has a mean, estimated. "n": the data are taken as centred.
    missing : {"raise", "drop"}
        Missing values are an error, or their observations are left out, with a warning that says how many.
    uniqueness_floor : float
        Smallest uniqueness allowed, as a share of the feature's variance; between 1e-10 and 1.

    Raises
    ------
    ValueError, TypeError
        For data, labels or ranks that do not fit together; the message names the argument and the labels.

    Warns
    -----
    IdentificationWarning
        If a group's features are those of its parent, or too few for its rank.

    Notes
    -----
    "Level" means a level of the hierarchy of features (columns), never of observations (rows), as it would in a
    mixed model.

    References
    ----------
    Parshakova, Hastie and Boyd, *Fitting Multilevel Factor Models* (arXiv 2409.12067).

    Examples
    --------
    >>> import mlfm
    >>> data = mlfm.datasets.load("abilities")
    >>> model = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks={"global": 1, "ability": 1})
    >>> results = model.fit()
    >>> results.converged
    True
    >>> print(f"{results.llf:.1f}")
    -9673.1
    """

    def __init__(
        self,
        endog: pd.DataFrame | ArrayLike,
        *,
        hierarchy: Hierarchy | pd.DataFrame | pd.Index | Sequence[Hashable] | None = None,
        ranks: Ranks,
        trend: str = "c",
        missing: str = "raise",
        uniqueness_floor: float = 1e-4,
    ) -> None:
        if trend not in TRENDS:
            raise ValueError(f"trend must be one of {listing(TRENDS)}, not {trend!r}")
        if not _is_number(uniqueness_floor) or not LEAST_FLOOR <= float(uniqueness_floor) < 1:
            raise ValueError(f"uniqueness_floor must lie between {LEAST_FLOOR:g} and 1, not {uniqueness_floor!r}")
        if hasattr(endog, "to_pandas"):
            endog = endog.to_pandas()  # Arrow, Polars
        self.hierarchy = match_hierarchy(endog, hierarchy)
        self._ranks = ranks_by_level(ranks, self.hierarchy)
        refuse_more_than_features(self._ranks, self.hierarchy)
        values, index = checked_values(endog, self.hierarchy.features, missing)
        nobs = len(values)
        for level, rank in zip(self.hierarchy.levels, self._ranks, strict=True):
            if rank > nobs:
                raise ValueError(f"ranks: level {level!r} has rank {rank}, more than the {nobs} observations")
        # statsmodels would keep the data a second time, join the labels of a column MultiIndex and squeeze a single
        # column: it gets the observations' numbers instead.
        super().__init__(np.arange(nobs), None, missing="none")
        self.data.endog = self.data.orig_endog = None
        self._data = Standardised.of(values, self.hierarchy.permutation, trend == "c")
        self.nobs = nobs
        self.row_labels = index
        self.trend = trend
        self.uniqueness_floor = float(uniqueness_floor)
        self._tree = Tree.of(self.hierarchy.offsets, self._ranks)
        n = self.hierarchy.n_features
        self._layout = Layout(n, self._tree.n_factors, n if trend == "c" else 0)
        self.unidentified: list[Unidentified] = list(unidentified(self.hierarchy, self._ranks))
        if self.unidentified:
            warnings.warn(
                f"{count(len(self.unidentified), 'group')} not identified: "
                f"{listing(self.unidentified, show=str)}; use a smaller rank or other groups, "
                "or read only the covariance",
                IdentificationWarning,
                stacklevel=2,
            )

    @property
    def endog(self) -> Reals:
        """The data, observations x features, made anew on every call from what the model keeps: equal to rounding."""
        return self._data.observations()

    @endog.setter
    def endog(self, values: object) -> None:
        # statsmodels sets the attribute while the model is made, and to nothing in remove_data.
        if "_data" in self.__dict__ and values is not None:
            raise AttributeError("the data of a model cannot be replaced; make another model")

    @property
    def ranks(self) -> pd.Series:
        """Factors of each group, by level."""
        return pd.Series(self._ranks, index=pd.Index(self.hierarchy.levels, name="level"), name="rank")

    @property
    def endog_names(self) -> list[str]:
        """Names of the features."""
        return [str(feature) for feature in self.hierarchy.features]

    @property
    def param_names(self) -> list[str]:
        """Names of the parameters, in the order of the parameter vector."""
        columns = factor_columns(self.hierarchy, self._ranks)
        return parameter_names(self.hierarchy.features, columns, self.trend == "c")

    @property
    def start_params(self) -> Floats:
        """Parameters at which :meth:`fit` may begin: the "top-down" start."""
        with Workers() as workers:
            problem = self._problem()
            F, D = problem.to_units(*STARTS["top-down"](problem, np.random.default_rng(0), workers))
        return self._layout.pack(self._mean_or_none(), self._to_user(F), self._to_user(D))

    def pack(
        self,
        loadings: pd.DataFrame | ArrayLike,
        uniquenesses: pd.Series | ArrayLike,
        mean: pd.Series | ArrayLike | None = None,
    ) -> Floats:
        """One flat vector of parameters: means, loadings row by row, uniquenesses, in feature order.

        Parameters
        ----------
        loadings : DataFrame or array, features x factors
            Compressed loadings; see :class:`mlfm.MultilevelCovariance`.
        uniquenesses : Series or array
        mean : Series or array, optional
            With trend "c"; by default the sample means.
        """
        F = loadings_array(loadings, self.hierarchy, self._ranks)
        D = uniqueness_array(uniquenesses, self.hierarchy)
        if self.trend == "n":
            if mean is not None:
                raise ValueError('mean: the model has none, as trend="n"')
            return self._layout.pack(None, F, D)
        return self._layout.pack(
            self._to_user(self._data.mean) if mean is None else finite_vector(mean, self.hierarchy, "mean"), F, D
        )

    def unpack(self, params: ArrayLike) -> Parameters:
        """The parts of a parameter vector, labelled; ``model.pack(*model.unpack(params))`` gives it back."""
        mean, F, D = self._split(params)
        features = self.hierarchy.features
        return Parameters(
            pd.DataFrame(F.copy(), index=features, columns=factor_columns(self.hierarchy, self._ranks)),
            pd.Series(D.copy(), index=features, name="uniqueness"),
            pd.Series(mean.copy(), index=features, name="mean") if self.trend == "c" else None,
        )

    def loglike(self, params: ArrayLike) -> float:
        """Log-likelihood of all observations, in nats, with all constants.

        Parameters
        ----------
        params : array
            As from :meth:`pack`.
        """
        with Workers() as workers:
            sweep, _, D, Y = self._conditioned(params, workers)
            return loglike(sweep, D, np.einsum("jn,jn->j", Y, Y), self.nobs)

    def loglikeobs(self, params: ArrayLike) -> Floats:
        """Log-likelihood of every observation; they sum to :meth:`loglike`."""
        with Workers() as workers:
            sweep, _, D, Y = self._conditioned(params, workers)
            return loglike_by_column(sweep, D, Y)

    def score(self, params: ArrayLike) -> Floats:
        """Gradient of :meth:`loglike`, analytic, in the order of the parameters."""
        with Workers() as workers:
            sweep, F, D, Y = self._conditioned(params, workers)
            dF, dD = score(sweep, F, D, Y, np.einsum("jn,jn->j", Y, Y), self.nobs, workers)
            dmean = None
            if self.trend == "c":
                # Sigma^-1 sum_i (y_i - mu)
                total = Y.sum(axis=1, keepdims=True)
                known = Sweep(self._tree, 1, elimination=sweep.elimination)
                dmean = self._to_user(solve(known, F, D, total, workers)[:, 0])
        return self._layout.pack(dmean, self._to_user(dF), self._to_user(dD))

    def fit(
        self,
        start: str | MultilevelFactorResults | None = None,
        start_params: ArrayLike | None = None,
        method: str = "scoring",
        maxiter: int | None = None,
        tol: float | None = None,
        n_threads: int | None = None,
        disp: bool = False,
        callback: Callable[[Evaluation], object] | None = None,
        rng: int | np.random.Generator | None = None,
        n_starts: int = 1,
    ) -> MultilevelFactorResults:
        """Maximise the likelihood.

        Parameters
        ----------
        start : {"top-down", "pca", "frobenius", "random"} or MultilevelFactorResults, optional
            Where to begin. "top-down": level by level, the principal components of each group in what the levels
            above leave, less noise. "pca": principal components of all the data. "frobenius": as top-down, with
            nothing taken off for noise. "random": random loadings. By default twenty evaluations from "pca", then
            on from "top-down" unless it falls behind: the likelihood can have several maxima. Results of another fit
            (of other data, other ranks, a coarser hierarchy) are taken where features, levels and factors match.
        start_params : array, optional
            Begin at these parameters instead; their means are not used (the sample means are the maximum).
        method : {"scoring", "px-em", "em"}
            Block Fisher scoring with a quasi-Newton memory; parameter-expanded EM; plain EM. Scoring needs tens of
            evaluations where the EM methods need thousands. The likelihood never falls with any of them.
        maxiter : int, optional
            Most evaluations of the likelihood from a start, after the first; by default 1000, for the EM methods
            50 000. With the default start, as with ``n_starts``, each start has so many.
        tol : float, optional
            Stop once the log-likelihood still to be gained (total, in nats) is expected to be less than this, three
            times in a row. By default 1e-4, for the EM methods 0.01. The expectation is half the Newton decrement
            for scoring, Aitken's extrapolation for the EM methods; on a plateau both can be too small.
        n_threads : int, optional
            Threads; by default as many as the process may use. Results do not depend on it.
        disp : bool
            Show a progress bar with the log-likelihood and the projected gain.
        callback : callable, optional
            Called with an :class:`mlfm.estimation.Evaluation` after every evaluation; each start counts from 0.
        rng : int or numpy Generator, optional
            For random starts; None is seed 0, so that two runs agree.
        n_starts : int
            Fit from this many starts, each to its end, and keep the highest: the one asked for, or "top-down", "pca"
            and "frobenius", then random ones. ``results.record.starts`` has the log-likelihood of each.

        Returns
        -------
        MultilevelFactorResults

        Warns
        -----
        ConvergenceWarning
            If ``maxiter`` evaluations did not suffice.
        UniquenessFloorWarning
            If uniquenesses ended on their floor (Heywood cases).
        """
        warm = isinstance(start, MultilevelFactorResults)
        if start is not None and not warm and (not isinstance(start, str) or start not in STARTS):
            raise ValueError(f"start must be one of {listing(STARTS)}, or results of a fit, not {start!r}")
        n_starts = _whole_number("n_starts", n_starts, 1)
        if not isinstance(method, str) or method not in METHODS:
            raise ValueError(f"method must be one of {listing(METHODS)}, not {method!r}")
        climb, usual_maxiter, usual_tol = METHODS[method]
        maxiter = usual_maxiter if maxiter is None else maxiter
        tol = usual_tol if tol is None else tol
        maxiter = _whole_number("maxiter", maxiter, 0)
        if not _is_number(tol) or not tol >= 0:
            raise ValueError(f"tol must be 0 or more, not {tol!r}")
        if n_threads is not None:
            n_threads = _whole_number("n_threads", n_threads, 1)
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be a function of an Evaluation, not {callback!r}")
        try:
            seeded = np.random.default_rng(0 if rng is None else rng)
        except (TypeError, ValueError) as error:
            raise ValueError(f"rng must be a seed (a whole number, 0 or more) or a numpy Generator: {error}") from error
        if start_params is not None:
            if start is not None:
                raise ValueError("start and start_params both say where to begin; give one of them")
            _, F, D = self._split(start_params, "start_params")

        began = time.perf_counter()
        with Workers(n_threads) as workers, progress_bar(disp) as show:
            problem = self._problem()
            begin: Any = start
            named = start if isinstance(start, str) else ""
            if start_params is not None:
                named, begin = "start_params", problem.from_units(self._to_group(F), self._to_group(D))
            elif isinstance(start, MultilevelFactorResults):
                named, begin = "results", self._warm(start, problem, seeded)
            record = FitRecord(method, named, maxiter, tol, workers.n_threads)

            def watch(entry: Evaluation) -> None:
                show(entry)
                if callback is not None:
                    callback(entry)

            point = maximise(Search(problem, climb, workers, watch, seeded), begin, n_starts, record)
            on_floor = problem.on_floor(point[1])
            F, D = problem.to_units(*point)
            F = canonical(self._tree, F, D)
        record.seconds = time.perf_counter() - began

        results = MultilevelFactorResults(
            self,
            self._layout.pack(self._mean_or_none(), self._to_user(F), self._to_user(D)),
            record,
            on_floor=self.hierarchy.features[self._to_user(on_floor)],
        )
        if not record.converged:
            warnings.warn(
                f"the fit did not converge: {record.reason}, and the log-likelihood is still expected to gain "
                f"{record.projected_gain:.2g}; raise maxiter or begin at these results' params",
                ConvergenceWarning,
                stacklevel=2,
            )
        if len(results.on_floor):
            warnings.warn(
                f"{count(len(results.on_floor), 'uniqueness', 'uniquenesses')} on the floor of "
                f"{self.uniqueness_floor:g} of the variance: {listing(results.on_floor)}",
                UniquenessFloorWarning,
                stacklevel=2,
            )
        return results

    def __repr__(self) -> str:
        ranks = ", ".join(f"{level} {rank}" for level, rank in self.ranks.items())
        return f"<MultilevelFactorModel: {self.nobs} x {self.hierarchy.n_features}; ranks: {ranks}>"

    def _mean_or_none(self) -> Floats | None:
        return self._to_user(self._data.mean) if self.trend == "c" else None

    def _problem(self) -> Problem:
        return Problem.of(self._tree, self._data, self.uniqueness_floor)

    def _warm(
        self, results: MultilevelFactorResults, problem: Problem, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """Another fit's estimates as a point of the problem."""
        F, D = (self._to_user(part) for part in problem.to_units(filling(problem, rng), np.ones(len(problem.Y))))
        columns = factor_columns(self.hierarchy, self._ranks)
        F, D = warm_start(results.loadings, results.uniquenesses, self.hierarchy.features, columns, F, D)
        return problem.from_units(self._to_group(F), self._to_group(D))

    def _conditioned(self, params: ArrayLike, workers: Workers) -> tuple[Sweep, Floats, Floats, Floats]:
        """A sweep at these parameters, with loadings, uniquenesses and centred data in group order."""
        mean, F, D = self._split(params)
        Y = self._data.less(self._to_group(mean) if self.trend == "c" else np.zeros_like(D))
        F, D = self._to_group(F), self._to_group(D)
        sweep = Sweep(self._tree, self.nobs)
        condition(sweep, F, D, Y, workers)
        return sweep, F, D, Y

    def _split(self, params: Any, name: str = "params") -> tuple[Floats, Floats, Floats]:
        """Means, loadings and uniquenesses of a parameter vector; a Series is aligned by its names."""
        if isinstance(params, pd.Series):
            params = params.iloc[positions(params.index, pd.Index(self.param_names), name)]
        return self._layout.split(params, name)

    def hessian(self, params: ArrayLike) -> Floats:
        """Not there yet."""
        raise NotImplementedError("the Hessian is not available in this version of mlfm")

    def information(self, params: ArrayLike) -> Floats:
        """Not there yet."""
        raise NotImplementedError("the information matrix is not available in this version of mlfm")

    def predict(self, params: ArrayLike, exog: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Not there yet."""
        raise NotImplementedError("predictions are not available in this version of mlfm")

    @classmethod
    def from_formula(cls, *args: Any, **kwargs: Any) -> MultilevelFactorModel:
        """Not there yet."""
        raise NotImplementedError("formulas are not available in this version of mlfm; call the class itself")

    def _to_group(self, array: Any) -> Any:
        return np.ascontiguousarray(array[self.hierarchy.permutation])

    def _to_user(self, array: Any) -> Any:
        out = np.empty_like(array)
        out[self.hierarchy.permutation] = array
        return out


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _whole_number(name: str, value: Any, least: int) -> int:
    if not _is_number(value) or value != value // 1 or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, not {value!r}")
    return int(value)
