"""Held-out log-likelihood: what a fit says of observations that it has not seen."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.estimation import METHODS, FitRecord, checked_penalty, usual_search
from mlfm.evidence import evidence_of
from mlfm.exceptions import ConvergenceWarning, warn_caller
from mlfm.patterns import Patterns
from mlfm.seeds import generator
from mlfm.standardised import Standardised
from mlfm.sweep import Workers
from mlfm.wording import count, listing, plain

if TYPE_CHECKING:
    from mlfm.model import MultilevelFactorModel
    from mlfm.results import MultilevelFactorResults

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


class Split(NamedTuple):
    """Positions of the observations to fit and of those held out."""

    train: Integers
    test: Integers


class _Fold(NamedTuple):
    loglikeobs: Floats  # of the observations held out
    converged: bool
    reason: str


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Held-out log-likelihood, made by :func:`mlfm.cross_validate`.

    Attributes
    ----------
    mean : float
        Log-likelihood of an observation that was held out, in nats, on average over them (by their weights).
    std_error : float
        Its standard error, from how much the observations differ. As fits share most of their data it is somewhat too
        small.
    folds : DataFrame
        One row a fold: ``train`` and ``test``, observations that count; ``mean``, their log-likelihood an observation;
        ``converged``.
    loglikeobs : Series
        By fold and observation. The difference of two models' is best looked at observation by observation.
    weights : Series
        What each of them counts.
    """

    mean: float
    std_error: float
    folds: pd.DataFrame
    loglikeobs: pd.Series
    weights: pd.Series

    def __str__(self) -> str:
        head = f"Held-out log-likelihood per observation: {self.mean:.4f} (standard error {self.std_error:.4f})"
        return f"{head}\n{self.folds.to_string(float_format='{:.4f}'.format)}"

    __repr__ = __str__


def cross_validate(
    model: MultilevelFactorModel,
    n_splits: int | Iterable[tuple[Any, Any]] = 5,
    rng: int | np.random.Generator | None = None,
    n_jobs: int | None = 1,
    *,
    method: str = "scoring",
    maxiter: int | None = None,
    tol: float | None = None,
    penalty: str | None = None,
) -> CrossValidation:
    """Log-likelihood of observations held out, per observation, by fits of the others.

    It compares models of any ranks and hierarchies of the same data, with no assumption about degrees of freedom, and
    where there are more features than observations. More is better.

    Parameters
    ----------
    model : MultilevelFactorModel
    n_splits : int, iterable of pairs, or splitter
        How many folds, of observations at random; or the folds: pairs of arrays (train, test) of positions of
        observations, or an object with ``split`` as scikit-learn has them (``TimeSeriesSplit``, say).
    rng : int or numpy Generator, optional
        For the folds; None is seed 0. The same seed makes the same folds for all models.
    n_jobs : int or None
        Fits at a time, each on one thread; None takes all processors. Results do not depend on it.
    method, maxiter, tol, penalty
        As for :meth:`mlfm.MultilevelFactorModel.fit`.

    Returns
    -------
    CrossValidation

    Raises
    ------
    ValueError
        If there are fewer observations than folds, a fold holds out what it fits, names no observation, or leaves too
        little to fit.

    Warns
    -----
    ConvergenceWarning
        If fits did not converge.

    Notes
    -----
    An observation that was seen several times (``freq_weights``) is in one fold with all of them. Observations of
    weight zero are neither fitted nor held out. Held-out observations count by their weights. Each fit begins from the
    default starts, and nothing of what is held out has a part in it.

    References
    ----------
    Hastie, Tibshirani and Friedman, *The Elements of Statistical Learning*, section 7.10.

    Examples
    --------
    >>> import mlfm
    >>> data = mlfm.datasets.load("abilities")
    >>> for ranks in ([1, 0], [1, 1], [2, 1]):
    ...     model = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=ranks)
    ...     print(ranks, round(mlfm.cross_validate(model, n_splits=10).mean, 2))
    [1, 0] -33.78
    [1, 1] -32.59
    [2, 1] -32.55
    """
    if not hasattr(model, "_of_other_data"):
        hint = "; give its model" if hasattr(model, "llf") else ""
        raise TypeError(f"model must be a MultilevelFactorModel, not {type(model).__name__}{hint}")
    checked_jobs(n_jobs)
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {listing(METHODS)}, not {method!r}")
    _, usual_maxiter, usual_tol = METHODS[method]
    maxiter, tol = usual_maxiter if maxiter is None else maxiter, usual_tol if tol is None else tol
    if isinstance(maxiter, bool) or not isinstance(maxiter, numbers.Integral) or maxiter < 0:
        raise ValueError(f"maxiter must be a whole number, 0 or more, not {maxiter!r}")
    if isinstance(tol, bool) or not isinstance(tol, numbers.Real) or not float(tol) >= 0:
        raise ValueError(f"tol must be 0 or more, not {tol!r}")
    # What a fit of the same kind takes from another one is how it was asked for.
    asked = checked_penalty(penalty)
    record = FitRecord(method, "", int(maxiter), float(tol), 1, search=usual_search(method), penalty=asked)
    like = cast("MultilevelFactorResults", SimpleNamespace(record=record))

    frequency = model._frequency if model._frequency is not None else np.ones(len(model.row_labels))
    importance = model._importance if model._importance is not None else np.ones(len(model.row_labels))
    splits = splits_of(n_splits, model, rng)

    folds: list[_Fold] = [_Fold(np.empty(0), False, "")] * len(splits)

    def run(k: int) -> None:
        own = np.zeros_like(frequency)
        own[splits[k].train] = frequency[splits[k].train]
        try:
            training = model._of_other_data(frequency=own)
            too_many = model.ranks[model.ranks > training.nobs]
            if len(too_many):
                raise ValueError(f"ranks of {listing(too_many.index)} exceed {count(training.nobs, 'observation')}")
            results = training._refit(like, None)
        except ValueError as error:
            raise ValueError(f"split {k} of n_splits cannot be fitted: {error}") from error
        each = training.loglikeobs(results.params.to_numpy())[splits[k].test]
        folds[k] = _Fold(each, results.converged, results.record.reason)

    with Workers(n_jobs) as workers:
        workers.run(run, len(splits))
    failed = [k for k, fold in enumerate(folds) if not fold.converged]
    if failed:
        warn_caller(
            f"{count(len(failed), 'fit')} of {len(folds)} did not converge, of splits {listing(failed)}: "
            f"{folds[failed[0]].reason}; raise maxiter",
            ConvergenceWarning,
        )
    return _collected(model.row_labels, splits, folds, frequency, importance)


def checked_jobs(n_jobs: Any) -> None:
    """A ValueError unless it is a number of threads, or None."""
    if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, numbers.Integral) or n_jobs < 1):
        raise ValueError(f"n_jobs must be a whole number, 1 or more, or None, not {n_jobs!r}")


def splits_of(n_splits: Any, model: MultilevelFactorModel, rng: Any) -> list[Split]:
    """The observations of a model that count, split; each split with some to fit and some to hold out."""
    ones = np.ones(len(model.row_labels))
    frequency, importance = (ones if own is None else own for own in (model._frequency, model._importance))
    weights = frequency * importance
    splits = [_that_count(split, weights) for split in _splits(n_splits, weights, rng)]
    for k, split in enumerate(splits):
        for what, own in (("to fit", split.train), ("to hold out", split.test)):
            if not len(own):
                raise ValueError(f"n_splits: split {k} leaves no observations {what}")
    return splits


def _collected(
    labels: pd.Index, splits: list[Split], folds: list[_Fold], frequency: Floats, importance: Floats
) -> CrossValidation:
    weights = frequency * importance
    test = np.concatenate([split.test for split in splits])
    fold_numbers = np.repeat(np.arange(len(splits)), [len(split.test) for split in splits])
    index = pd.MultiIndex.from_arrays([fold_numbers, labels.take(test)], names=["fold", labels.name or "observation"])
    each, own = np.concatenate([fold.loglikeobs for fold in folds]), weights[test]
    mean, error = mean_and_error(each, frequency[test], importance[test])
    table = pd.DataFrame(
        {
            "train": [int(frequency[split.train].sum()) for split in splits],
            "test": [int(frequency[split.test].sum()) for split in splits],
            "mean": [
                float(np.average(fold.loglikeobs, weights=weights[split.test]))
                for fold, split in zip(folds, splits, strict=True)
            ],
            "converged": [fold.converged for fold in folds],
        },
        index=pd.RangeIndex(len(folds), name="fold"),
    )
    return CrossValidation(
        mean,
        error,
        table,
        pd.Series(each, index=index, name="loglike"),
        pd.Series(own, index=index, name="weight"),
    )


def mean_and_error(values: Floats, frequency: Floats, importance: Floats) -> tuple[float, float]:
    """A weighted mean and its standard error; a value that was seen f times is f values."""
    weights, total = frequency * importance, frequency.sum()
    mean = float(np.average(values, weights=weights))
    if total < 2:
        return mean, float("nan")
    squares = float((weights * importance) @ (values - mean) ** 2)
    return mean, float(np.sqrt(squares * total / (total - 1)) / weights.sum())


def _that_count(split: Split, weights: Floats) -> Split:
    """Without observations of weight zero."""
    return Split(*(own[weights[own] > 0] for own in split))


def held_out_loglikeobs(results: MultilevelFactorResults, values: Floats, exog: pd.DataFrame | None) -> Floats:
    """Log-likelihood of new observations (rows; features in the user's order, NaN where missing) at the estimates."""
    model = results._with_data("the log-likelihood of new observations")
    design = _design(model, len(values), exog)
    missing = np.isnan(values)
    order, scale = model.hierarchy.permutation, model._data.scale
    patterns = Patterns.of(missing[:, order]) if missing.any() else None
    rows = np.arange(len(values)) if patterns is None else patterns.rows
    # As they are, and not less the least squares of their own.
    Y = np.ascontiguousarray(np.where(missing, 0.0, values)[rows][:, order].T) / scale[:, None]
    nothing = np.zeros((len(scale), design.shape[1]))
    data = Standardised(Y, design[rows], np.ones(len(values)), nothing, scale, order, patterns)
    with Workers() as workers:
        parts = model._group_parts(results.params.to_numpy())
        return evidence_of(model._tree, data).loglike_by_observation(*parts, workers)


def _design(model: MultilevelFactorModel, nobs: int, exog: pd.DataFrame | None) -> Floats:
    """The covariates of new observations, by name; a constant need not be given."""
    own, out = model.exog, np.ones((nobs, len(model.covariates)))
    for k, name in enumerate(model.covariates):
        if exog is not None and name in exog.columns:
            out[:, k] = exog[name].to_numpy(dtype=np.float64)
        elif not (own[:, k] == 1).all():
            raise ValueError(
                f"held_out_exog: the model has the covariate {plain(name)}, whose values for the observations held out "
                f"are needed; its covariates are {listing(model.covariates)}"
            )
    return out


def _splits(n_splits: Any, weights: Floats, rng: Any) -> Iterator[Split]:
    n = len(weights)
    if hasattr(n_splits, "split") and not isinstance(n_splits, str):
        n_splits = n_splits.split(np.empty((n, 0)))
    if isinstance(n_splits, numbers.Integral) and not isinstance(n_splits, bool):
        counted = np.flatnonzero(weights > 0)
        if not 2 <= int(n_splits) <= len(counted):
            raise ValueError(
                f"n_splits: from 2 folds to as many as there are observations, {len(counted)}, not {n_splits}"
            )
        for test in np.array_split(generator(rng).permutation(counted), int(n_splits)):
            yield Split(np.setdiff1d(counted, test), np.sort(test))
        return
    if isinstance(n_splits, (str, numbers.Number)) or not isinstance(n_splits, Iterable):
        raise TypeError(
            "n_splits must be a number of folds, pairs of arrays (train, test), or an object with split(), not "
            f"{n_splits!r}"
        )
    given = list(n_splits)
    if not given:
        raise ValueError("n_splits: there are no splits")
    for k, pair in enumerate(given):
        try:
            train, test = pair
        except (TypeError, ValueError):
            raise ValueError(f"n_splits: split {k} is not a pair of arrays (train, test)") from None
        split = Split(*(_positions(own, n, f"{what} of split {k}") for what, own in (("train", train), ("test", test))))
        both = np.intersect1d(*split)
        if len(both):
            raise ValueError(
                f"n_splits: split {k} holds out what it fits: {count(len(both), 'observation')}, at {listing(both)}"
            )
        yield split


def _positions(given: Any, n: int, what: str) -> Integers:
    own = np.asarray(given)
    if own.ndim != 1 or (len(own) and own.dtype.kind not in "iu"):
        raise TypeError(f"n_splits: {what} must be a vector of positions of observations (whole numbers)")
    own = own.astype(np.intp)
    strange = own[(own < 0) | (own >= n)]
    if len(strange):
        raise ValueError(
            f"n_splits: {what} has positions that are none of the {count(n, 'observation')}: {listing(strange)}"
        )
    if len(np.unique(own)) < len(own):
        raise ValueError(f"n_splits: {what} names an observation twice")
    return own
