"""Several fits of the same data in one table."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.alignment import positions
from mlfm.arrays import as_pandas, real_array
from mlfm.inference.saturated import against_saturated
from mlfm.results import MultilevelFactorResults
from mlfm.validation import cross_validate, held_out_loglikeobs, mean_and_error
from mlfm.wording import count, listing, plain

Floats = NDArray[np.float64]
DIGITS = {"llf": 2, "aic": 2, "bic": 2, "sabic": 2, "ebic": 2, "chi2": 2, "held_out": 4, "cross_validated": 4}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Fits side by side, made by :func:`mlfm.compare`.

    Attributes
    ----------
    table : DataFrame
        One row a fit: ``groups`` and ``ranks`` of each level, the global one first; ``llf``, the log-likelihood;
        ``df_model``, free parameters; ``aic``, ``bic``, ``sabic``, ``ebic`` (less is better); ``chi2``, ``chi2_df``,
        ``pvalue`` against the saturated covariance, NaN where there is no such test; ``held_out`` and
        ``cross_validated``, where asked for: log-likelihood an observation (more is better), with standard errors
        ``held_out_se`` and ``cross_validated_se``.
    nobs, n_features : int
        Of the data.
    notes : tuple of str
        What is missing, and why.
    """

    table: pd.DataFrame
    nobs: int
    n_features: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        head = f"Comparison of {count(len(self.table), 'fit')}: {self.nobs} observations, {self.n_features} features"
        notes = (f"\n{fill(f'Note: {note}', 80)}" for note in self.notes)
        return "\n".join([head, "", self._shown().to_string(), *notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._shown().to_html() + "".join(f"<p>{escape(note)}</p>" for note in self.notes)

    def _shown(self) -> pd.DataFrame:
        """A column a fit, numbers with as many digits as matter."""

        def text(name: str, value: Any) -> str:
            if isinstance(value, str):
                return value
            if np.isnan(value):
                return "-"
            if name in ("df_model", "chi2_df"):
                return f"{value:.0f}"
            return f"{value:.{DIGITS[name]}f}" if name in DIGITS else f"{value:.4g}"

        columns = {
            column: [text(str(column), value) for value in self.table[column]]
            for column in self.table.columns
            if not self.table[column].isna().all()
        }
        return pd.DataFrame(columns, index=self.table.index).T


def compare(
    *results: MultilevelFactorResults | Mapping[Hashable, MultilevelFactorResults],
    names: Iterable[Hashable] | None = None,
    held_out: pd.DataFrame | None = None,
    held_out_exog: pd.DataFrame | None = None,
    n_splits: Any = None,
    rng: int | np.random.Generator | None = None,
    n_jobs: int | None = 1,
) -> Comparison:
    """Fits of the same data in one table: likelihood, parameters, criteria, chi-square, held-out likelihood.

    Parameters
    ----------
    *results : MultilevelFactorResults, or one mapping of names to them
        Fits of the same observations of the same features (in any order), by any hierarchy, ranks and covariates.
    names : iterable, optional
        Their names; by default their numbers, from 1.
    held_out : DataFrame, optional
        Observations that were not fitted, with the same features as columns: their log-likelihood is a column
        ``held_out``. Values may be missing.
    held_out_exog : DataFrame, optional
        Their covariates, by name, for fits with covariates.
    n_splits : optional
        Cross-validate all models, by the same folds, with this many of them (see :func:`mlfm.cross_validate`): a column
        ``cross_validated``.
    rng, n_jobs
        For the cross-validation.

    Returns
    -------
    Comparison
        With ``table``, a row a fit; ``comparison.table["bic"].idxmin()`` names the best.

    Raises
    ------
    ValueError
        If a fit is of other data, or did not converge, or holds no data; or if the observations held out do not match.

    Notes
    -----
    Criteria do not test anything: for one model against another see
    :meth:`MultilevelFactorResults.compare_lr_test`. Chi-squares are not corrected (see
    :meth:`MultilevelFactorResults.test_saturated`).

    Examples
    --------
    >>> import mlfm
    >>> data = mlfm.datasets.load("abilities")
    >>> fits = {
    ...     name: mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=ranks).fit()
    ...     for name, ranks in {"flat": [1, 0], "two levels": [1, 1]}.items()
    ... }
    >>> print(mlfm.compare(fits))
    Comparison of 2 fits: 301 observations, 24 features
    <BLANKLINE>
    fit             flat two levels
    groups          1, 5       1, 5
    ranks           1, 0       1, 1
    llf        -10051.17   -9673.07
    df_model          72         96
    aic         20246.35   19538.14
    bic         20513.26   19894.02
    sabic       20284.92   19589.56
    ebic        20665.81   20199.11
    chi2         1198.93     442.72
    chi2_df          252        228
    pvalue    5.041e-123  6.583e-16
    """
    named = _named(results, names)
    first = _same_data(named)
    values = None if held_out is None else _held_out(held_out, first.hierarchy.features)
    if values is None and held_out_exog is not None:
        raise ValueError("held_out_exog: these are covariates of held_out, which is not given")
    exog = None if values is None else _held_out_exog(held_out_exog, held_out)
    if n_splits is not None and isinstance(n_splits, Iterable) and not hasattr(n_splits, "split"):
        n_splits = list(n_splits)  # for one model after another
    if isinstance(rng, np.random.Generator):
        rng = int(rng.integers(2**63))  # the same folds for all
    rows: list[dict[str, Any]] = []
    notes: dict[str, list[Hashable]] = {}  # and whose they are
    for name, fit in named.items():
        saturated = fit._saturated()
        row: dict[str, Any] = {
            "groups": ", ".join(str(groups) for groups in fit.hierarchy.n_groups),
            "ranks": ", ".join(str(rank) for rank in fit.ranks),
            "llf": fit.llf,
            "df_model": fit.df_model,
            "aic": fit.aic,
            "bic": fit.bic,
            "sabic": fit.sabic,
            "ebic": fit.ebic(),
            "chi2": np.nan,
            "chi2_df": np.nan,
            "pvalue": np.nan,
        }
        if saturated.why_not:
            notes.setdefault(f"no chi-square: {saturated.why_not}", []).append(name)
        else:
            test = against_saturated(fit.llf, saturated.llf, saturated.df, 1.0)
            row |= {"chi2": test.statistic, "chi2_df": test.df, "pvalue": test.pvalue}
        if values is not None:
            own = first.hierarchy.features.get_indexer(fit.hierarchy.features)
            each = held_out_loglikeobs(fit, values[:, own], exog)
            row["held_out"], row["held_out_se"] = mean_and_error(each, np.ones(len(each)), np.ones(len(each)))
        if n_splits is not None:
            record = fit.record
            validated = cross_validate(
                fit._with_data("cross-validation"), n_splits, rng, n_jobs,
                method=record.method, maxiter=record.maxiter, tol=record.tol, penalty=record.penalty,
            )  # fmt: skip
            row["cross_validated"], row["cross_validated_se"] = validated.mean, validated.std_error
        rows.append(row)
    index = pd.Index(list(named), name="fit", tupleize_cols=False)
    told = tuple(f"{listing(whose)}: {note}" if len(whose) < len(named) else note for note, whose in notes.items())
    return Comparison(pd.DataFrame(rows, index=index), first.nobs, first.hierarchy.n_features, told)


def _named(results: tuple[Any, ...], names: Iterable[Hashable] | None) -> dict[Hashable, MultilevelFactorResults]:
    if len(results) == 1 and isinstance(results[0], (list, tuple)):
        results = tuple(results[0])
    if len(results) == 1 and isinstance(results[0], Mapping):
        if names is not None:
            raise ValueError("names: the mapping of results has names already")
        named = dict(results[0])
    else:
        labels = list(range(1, len(results) + 1)) if names is None else list(names)
        if len(labels) != len(results) or len(set(labels)) < len(labels):
            raise ValueError(
                f"names: a different name for each of the {count(len(results), 'fit')} is needed, not {listing(labels)}"
            )
        named = dict(zip(labels, results, strict=True))
    if not named:
        raise ValueError("results: there is nothing to compare")
    for name, fit in named.items():
        if not isinstance(fit, MultilevelFactorResults):
            raise TypeError(f"{plain(name)} must be results of a fit, not {type(fit).__name__}")
    return named


def _same_data(named: Mapping[Hashable, MultilevelFactorResults]) -> MultilevelFactorResults:
    """The first fit, once all are known to be of its data."""
    (first_name, first), *_ = named.items()
    data, features = first._with_data("the comparison")._data, first.hierarchy.features
    for name, fit in named.items():
        if not fit.converged:
            raise ValueError(f"{plain(name)} did not converge: {fit.record.reason}; fit it to its end first")
        own = fit.hierarchy.features
        columns = features.get_indexer(own)
        if (columns < 0).any() or len(own) != len(features):
            strange = [*own[columns < 0], *features[own.get_indexer(features) < 0]]
            raise ValueError(
                f"{plain(name)} has other features than {plain(first_name)}: {listing(strange)} are in one of the two "
                "only; criteria of different data cannot be compared"
            )
        if fit.nobs != first.nobs:
            raise ValueError(
                f"{plain(name)} has {fit.nobs} observations, {plain(first_name)} has {first.nobs}; criteria of "
                "different data cannot be compared (rows may have been dropped for missing values)"
            )
        if fit is not first and not fit._with_data("the comparison")._data.same_as(data, columns):
            raise ValueError(
                f"{plain(name)} is of other data, or weights, than {plain(first_name)}; criteria of different data "
                "cannot be compared"
            )
    return first


def _held_out(held_out: Any, features: pd.Index) -> Floats:
    frame = as_pandas(held_out)
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"held_out must be a DataFrame with the features as columns, not {type(held_out).__name__}")
    columns = frame.columns.get_level_values(-1) if isinstance(frame.columns, pd.MultiIndex) else frame.columns
    values = real_array(frame.iloc[:, positions(columns, features, "held_out")], "held_out")
    if not len(values):
        raise ValueError("held_out: there are no observations")
    if np.isinf(values).any():
        raise ValueError("held_out: values are infinite")
    empty = np.isnan(values).all(axis=1)
    if empty.any():
        raise ValueError(f"held_out: nothing is observed at rows {listing(frame.index[empty])}; leave them out")
    return values


def _held_out_exog(exog: Any, held_out: Any) -> pd.DataFrame | None:
    if exog is None:
        return None
    exog, held_out = as_pandas(exog), as_pandas(held_out)
    if not isinstance(exog, pd.DataFrame):
        raise TypeError(f"held_out_exog must be a DataFrame with covariates as columns, not {type(exog).__name__}")
    if not exog.index.equals(held_out.index):
        raise ValueError("held_out_exog: its index differs from that of held_out")
    if exog.isna().any(axis=None):
        raise ValueError("held_out_exog: values are missing")
    return exog
