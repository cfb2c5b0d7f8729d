"""MultilevelFactorModel: checks the input once and wires the rest."""

from __future__ import annotations

import copy
import numbers
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from statsmodels.base.model import LikelihoodModel

from mlfm.alignment import positions
from mlfm.arrays import as_pandas, real_array
from mlfm.covariates import covariates, refuse_collinear
from mlfm.endog import checked_values, match_hierarchy, row_labels
from mlfm.estimation import (
    METHODS,
    SEARCHES,
    STARTS,
    AnyProblem,
    Evaluation,
    FitRecord,
    IncompleteProblem,
    Neighbourhood,
    Point,
    Problem,
    Search,
    checked_penalty,
    filling,
    starts_of,
    usual_search,
)
from mlfm.evidence import Evidence, IncompleteEvidence, evidence_of
from mlfm.exceptions import (
    ConvergenceWarning,
    FitInterrupted,
    IdentificationWarning,
    SeveralMaximaWarning,
    UniquenessFloorWarning,
    warn_caller,
)
from mlfm.formula import Design, formula_of, long_inputs, wide_inputs
from mlfm.hierarchy import Hierarchy
from mlfm.inference.coefficients import root
from mlfm.inference.connected import unconnected
from mlfm.inference.counts import Unidentified, unidentified
from mlfm.inference.parameter_covariance import Estimate, information_matrix
from mlfm.parameters import (
    Layout,
    Parameters,
    coefficients_array,
    loadings_array,
    parameter_names,
    uniqueness_array,
)
from mlfm.patterns import Patterns
from mlfm.progress import progress_bar
from mlfm.ranks import ByLevel, Ranks, factor_columns, ranks_by_level, refuse_more_than_features
from mlfm.results import MultilevelFactorResults, checked_cov_type
from mlfm.rotation import canonical
from mlfm.seeds import generator
from mlfm.standardised import NothingLeft, Reals, Standardised, Undetermined
from mlfm.sweep import Tree, Workers
from mlfm.warm import warm_coefficients, warm_start
from mlfm.weights import Counted, counted, frequencies, importances
from mlfm.wording import count, listing

Floats = NDArray[np.float64]
TRENDS = ("c", "n")
# Uniquenesses much smaller than the rounding of the variances they are part of are numbers without a meaning.
LEAST_FLOOR = 1e-10


class MultilevelFactorModel(LikelihoodModel):
    """Multilevel factor model for features in nested groups, fitted by maximum likelihood.

    y = B x + F_1 z_1 + .. + F_L z_L + e, x being covariates, by default a constant alone. The features sit in nested
    groups: level 1 is the global group of all features, each later level refines the one before. Every group of level l
    has ``ranks[l]`` factors of its own, on which only its features load, so

        Sigma = F_1 F_1' + .. + F_L F_L' + D

    with F_l block diagonal and D diagonal. Factors are independent N(0, 1), e ~ N(0, D).

    Parameters
    ----------
    endog : DataFrame or array, observations x features
        The data; Polars and Arrow tables are taken too. One copy is made, of single precision where the data are, and
        the data themselves are not kept.
    exog : DataFrame, Series or array, observations x covariates, optional
        Covariates of the mean: every feature has a coefficient for each. Matched with endog by label where both have
        labels.
    hierarchy : Hierarchy, DataFrame, MultiIndex, list of level names, or None
        The groups of the features. A DataFrame holds labels, indexed by feature, columns coarse to fine. None
        takes the levels of endog's column MultiIndex, whose last level names the features; a list names some of
        them. With plain columns None means a flat model: the global group only.
    ranks : mapping or sequence
        Factors of each group: by level name (absent levels have none), or one number a level from global to
        finest. Zero is allowed anywhere.
    trend : {"c", "n"}
        "c": a constant, "const", goes in front of the covariates, so that every feature has a mean. "n": none; without
        covariates the data are taken as centred.
    missing : {"ml", "drop", "raise"}
        What to do where values of endog are missing. "ml": exact maximum likelihood from what is observed, valid if
        values are missing at random. "drop": leave these observations out, with a warning that says how many. "raise":
        an error that says where.
    weights : Series or array, optional
        How much each observation matters (see :func:`mlfm.exponential_weights`). They are scaled to sum to the
        effective number of observations, (sum w)^2 / sum w^2, on which the log-likelihood and the criteria are based.
    freq_weights : Series or array, optional
        How often each observation was seen, in whole numbers: the same as so many equal rows.
    uniqueness_floor : float
        Smallest uniqueness allowed, as a share of the feature's variance; between 1e-10 and 1.

    Raises
    ------
    ValueError, TypeError
        For data, labels or ranks that do not fit together; the message names the argument and the labels.

    Warns
    -----
    IdentificationWarning
        If a group's features are those of its parent, too few for its rank, or in parts that are never observed
        together.
    DroppedObservationsWarning
        If observations were left out, with ``missing="drop"``.

    Notes
    -----
    "Level" means a level of the hierarchy of features (columns), never of observations (rows), as it would in a
    mixed model.

    References
    ----------
    Parshakova, Hastie and Boyd, *Fitting Multilevel Factor Models* (arXiv 2409.12067). The effective number of weighted
    observations: Kish (1965), *Survey Sampling*.

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
        exog: pd.DataFrame | pd.Series | ArrayLike | None = None,
        *,
        hierarchy: Hierarchy | pd.DataFrame | pd.Index | Sequence[Hashable] | None = None,
        ranks: Ranks,
        trend: str = "c",
        missing: str = "ml",
        weights: pd.Series | ArrayLike | None = None,
        freq_weights: pd.Series | ArrayLike | None = None,
        uniqueness_floor: float = 1e-4,
    ) -> None:
        if trend not in TRENDS:
            raise ValueError(f"trend must be one of {listing(TRENDS)}, not {trend!r}")
        if not _is_number(uniqueness_floor) or not LEAST_FLOOR <= float(uniqueness_floor) < 1:
            raise ValueError(f"uniqueness_floor must lie between {LEAST_FLOOR:g} and 1, not {uniqueness_floor!r}")
        given, endog = endog, as_pandas(endog)
        self.hierarchy = match_hierarchy(endog, hierarchy)
        self._ranks = ranks_by_level(ranks, self.hierarchy)
        refuse_more_than_features(self._ranks, self.hierarchy)
        index, labelled = row_labels(endog, given)
        design = covariates(exog, index, labelled, constant=trend == "c")
        importance, frequency = importances(weights, index, labelled), frequencies(freq_weights, index, labelled)
        values, kept, incomplete = checked_values(endog, index, self.hierarchy.features, missing)
        if not kept.all():
            index, design = index[kept], design[kept]
            importance, frequency = (x if x is None else x[kept] for x in (importance, frequency))
        self._importance, self._frequency = importance, frequency
        counts = counted(importance, frequency, len(values))
        for level, rank in zip(self.hierarchy.levels, self._ranks, strict=True):
            if rank > counts.nobs:
                raise ValueError(f"ranks: level {level!r} has rank {rank}, more than the {counts.nobs} observations")
        refuse_collinear(design, counts.each)
        # statsmodels would keep the data a second time, join the labels of a column MultiIndex and squeeze a single
        # column: it gets the observations' numbers instead.
        super().__init__(np.arange(len(values)), None, missing="none")
        self.data.endog = self.data.orig_endog = None
        self._tree = Tree.of(self.hierarchy.offsets, self._ranks)
        self.row_labels = index
        self.trend, self.covariates = trend, design.columns
        patterns = self._hold(values, design.to_numpy(), counts, incomplete)
        self.mean_alone = design.shape[1] == 1 and bool((design == 1).all(axis=None))
        self.design: Design | None = None
        self._formula: str | None = None
        self.uniqueness_floor = float(uniqueness_floor)
        self._layout = Layout(self.hierarchy.n_features, self._tree.n_factors, design.shape[1])
        self.unidentified = self._unidentified(patterns)
        self._warn_of_unidentified()

    def _unidentified(self, patterns: Patterns | None) -> list[Unidentified]:
        found = list(unidentified(self.hierarchy, self._ranks))
        return found if patterns is None else found + list(unconnected(self.hierarchy, self._ranks, patterns))

    def _warn_of_unidentified(self) -> None:
        if self.unidentified:
            warn_caller(
                f"{count(len(self.unidentified), 'group')} not identified: "
                f"{listing(self.unidentified, show=str)}; use a smaller rank or other groups, "
                "or read only the covariance",
                IdentificationWarning,
            )

    def _hold(self, values: Reals, design: Floats, counts: Counted, incomplete: bool) -> Patterns | None:
        """Take the data in; the patterns of their missing values, None where there are none."""
        patterns, self.n_missing = None, 0
        if incomplete:
            gaps = np.isnan(values)
            patterns, self.n_missing = Patterns.of(gaps[:, self.hierarchy.permutation]), int(gaps.sum())
        self._data = self._standardised(values, design, counts.each, patterns)
        self.nobs, self.effective_nobs = counts.nobs, counts.effective
        self._evidence: Evidence = evidence_of(self._tree, self._data)
        return patterns

    def _of_other_data(self, values: Reals | None = None, frequency: Floats | None = None) -> MultilevelFactorModel:
        """The same model of other values of the features, or with other frequencies of the observations."""
        model = copy.copy(self)
        if frequency is not None:
            model._frequency = frequency
        counts = counted(model._importance, model._frequency, len(self.row_labels))
        values = self.endog if values is None else values
        model._hold(values, self.exog, counts, bool(np.isnan(values).any()))
        return model

    def _of_other_ranks(self, ranks: tuple[int, ...]) -> MultilevelFactorModel:
        """A model of the same data, which both share, with other ranks; it says nothing of what is not identified."""
        model = copy.copy(self)
        model._ranks, model._formula = ranks, None
        model._tree = Tree.of(self.hierarchy.offsets, ranks)
        model._evidence = evidence_of(model._tree, self._data)
        model._layout = Layout(self.hierarchy.n_features, model._tree.n_factors, len(self.covariates))
        model.unidentified = model._unidentified(self._data.patterns)
        return model

    def _each_in_a_row(self) -> MultilevelFactorModel:
        """The same model with an observation that was seen f times as f rows."""
        if self._frequency is None:
            return self
        rows = np.repeat(np.arange(len(self.row_labels)), self._frequency.astype(np.intp))
        model = copy.copy(self)
        model.row_labels, model._frequency = self.row_labels[rows], None
        model._importance = None if self._importance is None else self._importance[rows]
        values = self.endog[rows]
        counts = counted(model._importance, None, len(rows))
        model._hold(values, self.exog[rows], counts, bool(np.isnan(values).any()))
        return model

    def _standardised(self, values: Reals, design: Floats, weights: Floats, patterns: Patterns | None) -> Standardised:
        """The data as they are kept, or what is wrong with covariates and data together."""
        features = self.hierarchy.features
        try:
            with Workers(1):  # BLAS on one thread: the same digits everywhere, and these products are short
                return Standardised.of(values, self.hierarchy.permutation, design, weights, patterns)
        except Undetermined as error:
            raise ValueError(
                "exog: columns (the constant among them) are collinear in the observations of "
                f"{listing(features[np.sort(error.columns)])}, too few or too much alike to determine their "
                "coefficients; drop these features, or covariates"
            ) from None
        except NothingLeft as error:
            raise ValueError(
                f"endog: columns do not vary beyond the covariates: {listing(features[np.sort(error.columns)])}, or "
                "have no more values than there are covariates, the constant among them (observations of weight zero "
                "do not count); drop these columns, or covariates"
            ) from None

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
    def exog(self) -> Floats:
        """The design: observations x covariates, the constant among them."""
        return self._data.design[self._data.places]

    @exog.setter
    def exog(self, values: object) -> None:
        if "_data" in self.__dict__ and values is not None:
            raise AttributeError("the covariates of a model cannot be replaced; make another model")

    @property
    def exog_names(self) -> list[str]:
        """Names of the covariates, the constant among them."""
        return [str(covariate) for covariate in self.covariates]

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
        return parameter_names(self.hierarchy.features, columns, self.covariates, self.mean_alone)

    @property
    def start_params(self) -> Floats:
        """Parameters at which :meth:`fit` may begin: the "top-down" start, and least squares of what is observed."""
        with Workers() as workers:
            problem = self._problem
            point = STARTS["top-down"](problem.stand_in, np.random.default_rng(0), workers)
            return self._pack_group(*problem.to_units(*problem.with_coefficients(*point)))

    def pack(
        self,
        loadings: pd.DataFrame | ArrayLike,
        uniquenesses: pd.Series | ArrayLike,
        coefficients: pd.DataFrame | pd.Series | ArrayLike | None = None,
    ) -> Floats:
        """One flat vector of parameters: coefficients and loadings row by row, uniquenesses, in feature order.

        Parameters
        ----------
        loadings : DataFrame or array, features x factors
            Compressed loadings; see :class:`mlfm.MultilevelCovariance`.
        uniquenesses : Series or array
        coefficients : DataFrame or array, features x covariates, optional
            Of the mean; where the constant is the only covariate, a Series or vector of means will do. By default
            those of least squares.
        """
        F = loadings_array(loadings, self.hierarchy, self._ranks)
        D = uniqueness_array(uniquenesses, self.hierarchy)
        if coefficients is None:
            return self._layout.pack(self._to_user(self._data.coefficients), F, D)
        if not len(self.covariates):
            if np.size(coefficients):
                raise ValueError('coefficients: the model has none, as trend="n" and there are no covariates')
            return self._layout.pack(np.empty((len(D), 0)), F, D)
        return self._layout.pack(coefficients_array(coefficients, self.hierarchy, self.covariates), F, D)

    def unpack(self, params: ArrayLike) -> Parameters:
        """The parts of a parameter vector, labelled; ``model.pack(*model.unpack(params))`` gives it back."""
        B, F, D = self._split(params)
        features = self.hierarchy.features
        return Parameters(
            pd.DataFrame(F.copy(), index=features, columns=factor_columns(self.hierarchy, self._ranks)),
            pd.Series(D.copy(), index=features, name="uniqueness"),
            pd.DataFrame(B.copy(), index=features, columns=self.covariates),
        )

    def loglike(self, params: ArrayLike) -> float:
        """Log-likelihood of all observations, in nats, with all constants; each counts as often as its weight says.

        Parameters
        ----------
        params : array
            As from :meth:`pack`.
        """
        with Workers() as workers:
            return self._evidence.loglike(*self._group_parts(params), workers)

    def loglikeobs(self, params: ArrayLike) -> Floats:
        """Log-likelihood of every observation, whatever its weight; times the weights they sum to :meth:`loglike`."""
        with Workers() as workers:
            return self._evidence.loglike_by_observation(*self._group_parts(params), workers)

    def score(self, params: ArrayLike) -> Floats:
        """Gradient of :meth:`loglike`, analytic, in the order of the parameters."""
        with Workers() as workers:
            slopes = self._evidence.score(*self._group_parts(params), workers)
        return self._pack_group(*slopes)

    @property
    def _score_weights(self) -> Floats:
        """What each observation counts in a sum of products of scores: frequency times importance squared."""
        weights = self._data.weights
        if self._importance is None:
            return weights
        if self._frequency is None:
            return weights**2
        frequency = self._frequency if self._data.patterns is None else self._frequency[self._data.patterns.rows]
        return np.divide(weights**2, frequency, out=np.zeros_like(weights), where=frequency > 0)

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
        cov_type: str | None = None,
        search: str | None = None,
        penalty: str | None = None,
    ) -> MultilevelFactorResults:
        """Maximise the likelihood.

        Parameters
        ----------
        start : {"pca", "top-down", "frobenius", "random"} or MultilevelFactorResults, optional
            Where to begin. "pca": principal components of all the data. "top-down": level by level, the principal
            components of each group in what the levels above leave, less noise. "frobenius": as top-down, with nothing
            taken off for noise. "random": random loadings. By default "pca", and "top-down" where a climb takes so
            long that little is searched: it takes fewer evaluations. Results of another fit
            (of other data, other ranks, a coarser hierarchy) are taken where features, levels and factors match.
        start_params : array, optional
            Begin at these parameters instead; where nothing is missing their coefficients are not used (those of least
            squares are the maximum).
        method : {"scoring", "px-em", "em"}
            Block Fisher scoring with a quasi-Newton memory; parameter-expanded EM; plain EM. Scoring needs tens of
            evaluations where the EM methods need thousands. The likelihood never falls with any of them.
        maxiter : int, optional
            Most evaluations of the likelihood in a climb, after the first; by default 1000, for the EM methods
            50 000. Where they do not suffice nothing is searched.
        tol : float, optional
            Stop once the log-likelihood still to be gained (total, in nats) is expected to be less than this, three
            times in a row. By default 1e-4, for the EM methods 0.01. The expectation is half the Newton decrement
            for scoring, Aitken's extrapolation for the EM methods; on a plateau both can be too small.
        n_threads : int, optional
            Threads; by default as many as the process may use. Results do not depend on it.
        disp : bool
            Show a progress bar with the log-likelihood and the projected gain, climb by climb.
        callback : callable, optional
            Called with an :class:`mlfm.estimation.Evaluation` after every evaluation with the ranks of the model; each
            climb counts from 0.
        rng : int or numpy Generator, optional
            For random starts and loadings drawn anew; None is seed 0, so that two runs agree.
        n_starts : int
            Climb from this many starts, each to its end, and go on from the highest: the one asked for, or "pca",
            "top-down" and "frobenius", then random ones.
        cov_type : {"expected", "oim", "opg", "robust", "asymptotic"}, optional
            How standard errors are worked out; see :attr:`MultilevelFactorResults.cov_type`. It changes nothing else,
            and ``results.with_cov_type`` gives others without a fit.
        search : {"default", "thorough", "none"}, optional
            The likelihood can have several maxima. "none": the end of the climb from the start. "default": from there
            excursions to neighbouring ranks and back, and groups whose loadings are drawn anew; where they come to is
            crossed with the highest so far, and what is higher is gone on from. They take up to eight times the work
            of the first climb, and less where that is long: then it may be the first climb alone. "thorough": up to
            forty times. :attr:`MultilevelFactorResults.starts` says what was found. For the EM methods "none" is the
            default; where they search, all climbs but the first and the last are by scoring.
        penalty : {"none", "soft"}, optional
            "soft": take :math:`\\sqrt{2 / N} \\sum_j s_{jj} / D_j` off the log-likelihood, :math:`s_{jj}` being the
            variance of what the covariates leave of feature j. No uniqueness ends on its floor then (no Heywood cases),
            and estimates have the same distribution as those of maximum likelihood in large samples (Sterzinger,
            Kosmidis and Moustaki 2026, with the penalty of Hirose et al. 2011; documentation: "Is it the maximum?").
            The log-likelihood, criteria and standard errors of the results are without the
            penalty, at these estimates; the record of the fit counts what is maximised. Whatever fits again as these
            results were (``results.bootstrap``, :func:`lr_test`, :func:`compare`) is penalised alike.

        Returns
        -------
        MultilevelFactorResults

        Warns
        -----
        ConvergenceWarning
            If ``maxiter`` evaluations did not suffice.
        SeveralMaximaWarning
            If the default search came only once to the highest maximum that it found, and to others.
        UniquenessFloorWarning
            If uniquenesses ended on their floor (Heywood cases).

        Raises
        ------
        FitInterrupted
            A KeyboardInterrupt (Ctrl-C) after the first climb had ended: its ``results`` are the highest so far.
        """
        warm = isinstance(start, MultilevelFactorResults)
        if start is not None and not warm and (not isinstance(start, str) or start not in STARTS):
            raise ValueError(f"start must be one of {listing(STARTS)}, or results of a fit, not {start!r}")
        n_starts = _whole_number("n_starts", n_starts, 1)
        if search is None:
            search = usual_search(method)
        elif not isinstance(search, str) or search not in SEARCHES:
            raise ValueError(f"search must be one of {listing(SEARCHES)}, not {search!r}")
        penalty = checked_penalty(penalty)
        cov_type = checked_cov_type(cov_type)
        if not isinstance(method, str) or method not in METHODS:
            raise ValueError(f"method must be one of {listing(METHODS)}, not {method!r}")
        _, usual_maxiter, usual_tol = METHODS[method]
        maxiter = usual_maxiter if maxiter is None else maxiter
        tol = usual_tol if tol is None else tol
        maxiter = _whole_number("maxiter", maxiter, 0)
        if not _is_number(tol) or not tol >= 0:
            raise ValueError(f"tol must be 0 or more, not {tol!r}")
        if n_threads is not None:
            n_threads = _whole_number("n_threads", n_threads, 1)
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be a function of an Evaluation, not {callback!r}")
        seeded = generator(rng)
        if start_params is not None:
            if start is not None:
                raise ValueError("start and start_params both say where to begin; give one of them")
            B, F, D = (self._to_group(part) for part in self._split(start_params, "start_params"))

        with Workers(n_threads) as workers, progress_bar(disp) as show:

            def watch(entry: Evaluation) -> None:
                show(entry)
                if callback is not None:
                    callback(entry)

            began = time.perf_counter()
            climbing = Search(self._neighbourhood(penalty), METHODS[method], workers, watch, seeded)
            begin: Any = start
            named = start if isinstance(start, str) else ""
            if start_params is not None:
                named, begin = "start_params", climbing.problem.from_units(B, F, D)
            elif isinstance(start, MultilevelFactorResults):
                named, begin = "results", self._warm(start, climbing.problem, seeded)
            record = FitRecord(
                method, named, maxiter, tol, workers.n_threads, n_starts=n_starts, search=search, penalty=penalty
            )
            try:
                results = self._maximised(climbing, starts_of(climbing.problem, begin, named, n_starts), record)
            except KeyboardInterrupt:
                if climbing.best is None:
                    raise
                results = self._results_at(climbing.problem, climbing.so_far(record), record)
                record.seconds = time.perf_counter() - began
                raise FitInterrupted(results) from None
            record.seconds = time.perf_counter() - began
        results._asked_cov_type = cov_type
        self._warn_of_outcome(results)
        return results

    def _warn_of_outcome(self, results: MultilevelFactorResults) -> None:
        record = results.record
        if not record.converged:
            warn_caller(
                f"the fit did not converge: {record.reason}, and the log-likelihood is still expected to gain "
                f"{record.projected_gain:.2g}; raise maxiter or begin at these results' params",
                ConvergenceWarning,
            )
        if record.search == "default" and record.reached == 1 and record.other_maxima:
            warn_caller(
                f"the likelihood has several maxima, and only one of {count(len(record.climbs), 'climb')} reached the "
                'highest that was found: there may be a higher one; search="thorough" looks further, and '
                "results.starts has all climbs",
                SeveralMaximaWarning,
            )
        if len(results.on_floor):
            warn_caller(
                f"{count(len(results.on_floor), 'uniqueness', 'uniquenesses')} on the floor of "
                f"{self.uniqueness_floor:g} of the variance: {listing(results.on_floor)}",
                UniquenessFloorWarning,
            )

    def _maximised(
        self, search: Search, starts: Sequence[tuple[str, str | Point]], record: FitRecord
    ) -> MultilevelFactorResults:
        """The results of a search, which fills ``record``."""
        return self._results_at(search.problem, search.maximise(starts, record), record)

    def _results_at(self, problem: AnyProblem, point: Point, record: FitRecord) -> MultilevelFactorResults:
        """The results at a point of the problem."""
        B, F, D = problem.to_units(*point)
        on_floor = problem.on_floor(D / problem.scale**2)
        record.penalty_taken = problem.penalty.of(D / problem.scale**2)
        return MultilevelFactorResults(
            self,
            self._pack_group(B, canonical(self._tree, F, D), D),
            record,
            on_floor=self.hierarchy.features[self._to_user(on_floor)],
        )

    def _refit(self, like: MultilevelFactorResults, start: MultilevelFactorResults | None) -> MultilevelFactorResults:
        """A fit on one thread as another one was made: searched like it, or a climb from where ``start`` ended.

        It says nothing: what did not go well is in the record of the results.
        """
        asked, rng = like.record, np.random.default_rng(0)
        with Workers(1) as workers:
            around = self._neighbourhood(asked.penalty)
            search = Search(around, METHODS[asked.method], workers, lambda entry: None, rng)
            begin = None if start is None else self._warm(start, search.problem, rng)
            depth = asked.search if start is None else "none"
            record = FitRecord(asked.method, "", asked.maxiter, asked.tol, 1, search=depth, penalty=asked.penalty)
            return self._maximised(search, starts_of(search.problem, begin, "results", 1), record)

    def _fit_quietly(
        self,
        start: tuple[Floats, Floats, Floats] | None = None,
        n_starts: int = 1,
        penalty: str = "none",
    ) -> MultilevelFactorResults:
        """A climb on one thread, from coefficients, loadings and uniquenesses in group order or from the usual starts.

        It says nothing: what did not go well is in the record of the results.
        """
        method = METHODS["scoring"]
        with Workers(1) as workers:
            around, rng = self._neighbourhood(penalty), np.random.default_rng(0)
            climbing = Search(around, method, workers, lambda entry: None, rng)
            begin = None if start is None else climbing.problem.from_units(*start)
            record = FitRecord("scoring", "", method.maxiter, method.tol, 1, n_starts=n_starts, penalty=penalty)
            return self._maximised(climbing, starts_of(climbing.problem, begin, "start_params", n_starts), record)

    def _search_quietly(
        self, start: tuple[Floats, Floats, Floats], penalty: str
    ) -> tuple[MultilevelFactorResults, dict[ByLevel, tuple[Floats, Floats, Floats, float]]]:
        """A default search on one thread, from parameters in group order; and where it came to at other ranks, with
        log-likelihoods.
        """
        method = METHODS["scoring"]
        with Workers(1) as workers:
            around, rng = self._neighbourhood(penalty), np.random.default_rng(0)
            climbing = Search(around, method, workers, lambda entry: None, rng)
            begin = climbing.problem.from_units(*start)
            record = FitRecord("scoring", "", method.maxiter, method.tol, 1, search="default", penalty=penalty)
            results = self._maximised(climbing, starts_of(climbing.problem, begin, "start_params", 1), record)
        units = climbing.problem.to_units
        return results, {ranks: (*units(*point), llf) for ranks, (llf, point) in climbing.elsewhere.items()}

    def __repr__(self) -> str:
        ranks = ", ".join(f"{level} {rank}" for level, rank in self.ranks.items())
        return f"<MultilevelFactorModel: {self.nobs} x {self.hierarchy.n_features}; ranks: {ranks}>"

    @property
    def _problem(self) -> AnyProblem:
        return self._penalised("none")

    def _penalised(self, penalty: str) -> AnyProblem:
        """The problem, with a penalty."""
        if isinstance(self._evidence, IncompleteEvidence):
            return IncompleteProblem.of(self._evidence.summed_up, self._data, self.uniqueness_floor, penalty)
        return Problem.of(self._tree, self._data, self.uniqueness_floor, penalty)

    def _neighbourhood(self, penalty: str = "none") -> Neighbourhood:
        """The problem, and those of the same data at other ranks."""
        hierarchy, home = self.hierarchy, self._penalised(penalty)

        def at(ranks: tuple[int, ...]) -> AnyProblem:
            if ranks == self._ranks:
                return home
            if isinstance(home, Problem):
                return replace(home, tree=Tree.of(hierarchy.offsets, ranks))
            return self._of_other_ranks(ranks)._penalised(penalty)

        return Neighbourhood(self._ranks, list(hierarchy.levels), hierarchy.offsets, at)

    def _warm(self, results: MultilevelFactorResults, problem: AnyProblem, rng: np.random.Generator) -> Point:
        """Another fit's estimates as a point of the problem."""
        scale = problem.scale
        F, D = self._to_user(filling(problem, rng) * scale[:, None]), self._to_user(scale**2)
        columns = factor_columns(self.hierarchy, self._ranks)
        F, D = warm_start(results.covariance.loadings, results.uniquenesses, self.hierarchy.features, columns, F, D)
        B = self._to_user(self._data.coefficients)
        B = warm_coefficients(results.coefficients, self.hierarchy.features, self.covariates, B)
        return problem.from_units(*(self._to_group(part) for part in (B, F, D)))

    def _group_parts(self, params: Any) -> tuple[Floats, Floats, Floats]:
        """Coefficients, loadings and uniquenesses of a parameter vector, in group order."""
        B, F, D = self._split(params)
        return self._to_group(B), self._to_group(F), self._to_group(D)

    def _pack_group(self, B: Floats, F: Floats, D: Floats) -> Floats:
        """A parameter vector from its parts in group order."""
        return self._layout.pack(self._to_user(B), self._to_user(F), self._to_user(D))

    def _split(self, params: Any, name: str = "params") -> tuple[Floats, Floats, Floats]:
        """Coefficients, loadings and uniquenesses of a parameter vector; a Series is aligned by its names."""
        if isinstance(params, pd.Series):
            params = params.iloc[positions(params.index, pd.Index(self.param_names), name)]
        return self._layout.split(params, name)

    def hessian(self, params: ArrayLike) -> Floats:
        """Second derivatives of :meth:`loglike`, analytic, in the order of the parameters.

        Singular along rotations of the factors inside groups.

        Raises
        ------
        ValueError
            For more than 6000 parameters.
        """
        return -information_matrix(self._estimate(params), observed=True)

    def information(self, params: ArrayLike) -> Floats:
        """The expected information about the parameters, given which values are observed.

        Singular along rotations of the factors inside groups.

        Raises
        ------
        ValueError
            For more than 6000 parameters.
        """
        return information_matrix(self._estimate(params), observed=False)

    def _estimate(self, params: ArrayLike) -> Estimate:
        """Parameters as the information about them is worked out."""
        B, F, D = self._group_parts(params)
        free = np.zeros(len(D), dtype=bool)
        order, nobs = self.hierarchy.permutation, self.effective_nobs
        return Estimate(self._tree, order, B, F, D, free, nobs, root(self._data), self._data, self._score_weights)

    def predict(self, params: ArrayLike, exog: pd.DataFrame | ArrayLike | None = None) -> Floats:
        """The mean of every observation at some parameters, observations x features.

        Parameters
        ----------
        params : array
            As from :meth:`pack`.
        exog : DataFrame or array, optional
            Observations x covariates, the constant among them; by default those of the model. Columns of a DataFrame
            are matched by name.
        """
        B = self._split(params)[0]
        exog = as_pandas(exog)
        if isinstance(exog, pd.DataFrame):
            exog = exog.iloc[:, positions(exog.columns, self.covariates, "exog")]
        X = self.exog if exog is None else real_array(exog, "exog")
        if X.ndim != 2 or X.shape[1] != B.shape[1]:
            raise ValueError(f"exog: {B.shape[1]} columns are needed ({listing(self.covariates)}), not shape {X.shape}")
        return X @ B.T

    @classmethod
    def from_formula(
        cls,
        formula: str,
        data: pd.DataFrame | None = None,
        *,
        endog: pd.DataFrame | ArrayLike | None = None,
        hierarchy: Hierarchy | pd.DataFrame | pd.Index | Sequence[Hashable] | None = None,
        unit: Hashable | None = None,
        feature: Hashable | None = None,
        weights: Hashable | pd.Series | ArrayLike | None = None,
        freq_weights: Hashable | pd.Series | ArrayLike | None = None,
        missing: str = "ml",
        uniqueness_floor: float = 1e-4,
        eval_env: Mapping[str, Any] | None = None,
    ) -> MultilevelFactorModel:
        """A model from a formula such as ``"~ 1 + market + latent(1, d=5) + latent(sector/industry, d=(3, 2))"``.

        Parameters
        ----------
        formula : str
            Mean terms, in the language of the formula engine that statsmodels is set to use (patsy or formulaic), and
            latent terms. ``latent(g, d=k)`` gives every group of level g k factors: g is ``1`` (the global level), the
            name of a level, ``a:b`` (level b within a) or ``a/b`` (both a and a:b, d one number for each). The shape
            ``(k | g)`` of lme4 is taken too. Names that are not plain words go in backticks.
        data : DataFrame, optional
            Wide data: the variables of the mean terms, observations x variables. Long data: one row an observed value.
        endog : DataFrame, observations x features
            Wide data: the features; matched with ``data`` by label. The left of ``~`` is empty.
        hierarchy : optional
            Wide data: the groups of the features, as for the class.
        unit, feature : column names
            Long data: the columns of ``data`` that name the observation and the feature of each value, which stands in
            the column on the left of ``~``. Group labels are columns too, constant within a feature; variables of the
            mean terms are constant within a unit. Pairs that are absent are missing values.
        weights, freq_weights : optional
            As for the class, or the name of a column of ``data`` (long data: constant within a unit). Arrays for long
            data are in the order of the sorted units.
        missing, uniqueness_floor
            As for the class.
        eval_env : mapping, optional
            Where functions in the formula are looked up by name; by default what the caller sees.

        Returns
        -------
        MultilevelFactorModel

        Raises
        ------
        ValueError
            If the formula cannot be read (with a caret under the place), a level or variable is unknown, groups are not
            nested as written, a level is given twice, long data are not what they should be, or the data do not fit.
        TypeError
            If arguments of wide and long data are mixed, or are of a wrong type.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> model = mlfm.MultilevelFactorModel.from_formula(
        ...     "~ latent(1, d=1) + latent(ability, d=1)", endog=data.endog, hierarchy=data.groups
        ... )
        >>> model.formula
        '~ 1 + latent(1, d=1) + latent(ability, d=1)'
        """
        if eval_env is None:
            caller = sys._getframe(1)
            eval_env = {**caller.f_globals, **caller.f_locals}
        if unit is None and feature is None:
            inputs = wide_inputs(formula, data, endog, hierarchy, eval_env)
        elif unit is None or feature is None or data is None:
            raise TypeError("long data need all of data=, unit= and feature=")
        elif endog is not None or hierarchy is not None:
            raise TypeError("unit= and feature= are for long data, where endog= and hierarchy= are columns of data")
        else:
            inputs = long_inputs(formula, data, unit, feature, eval_env)
        model = cls(
            inputs.endog,
            inputs.design.matrix,
            hierarchy=inputs.hierarchy,
            ranks=inputs.ranks,
            trend="n",
            missing=missing,
            weights=inputs.column(weights, "weights"),
            freq_weights=inputs.column(freq_weights, "freq_weights"),
            uniqueness_floor=uniqueness_floor,
        )
        model._formula, model.design = inputs.formula, inputs.design
        return model

    @property
    def formula(self) -> str:
        """The model as a formula in canonical form."""
        if self._formula is not None:
            return self._formula
        constant = self.trend == "c"
        return formula_of(list(self.covariates[constant:]), constant, self.ranks)

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
