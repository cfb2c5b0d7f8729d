"""Long data, one row for each observed (unit, feature) value, made wide: units x features."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.formula.design import as_frame, check_once, mentioned
from mlfm.wording import count, listing, plain


class Wide(NamedTuple):
    """Long data made wide.

    Attributes
    ----------
    endog : DataFrame
        Units x features, NaN where a pair is absent.
    labels : DataFrame
        The group labels, indexed by feature, in the order asked for.
    covariates : DataFrame
        Every other column that is constant within units, indexed by unit.
    varying : Index
        The names of the other columns that are not.
    """

    endog: pd.DataFrame
    labels: pd.DataFrame
    covariates: pd.DataFrame
    varying: pd.Index


class Coded(NamedTuple):
    """A column as numbers: which of its labels each row has, and the first row that each label has."""

    codes: NDArray[np.intp]
    labels: pd.Index
    first: NDArray[np.intp]


def widen(values: pd.Series, data: Any, unit: Hashable, feature: Hashable, groups: Sequence[Hashable]) -> Wide:
    """Make long data wide; ``values`` has one for each row of ``data``, missing ones as good as absent rows."""
    frame = as_frame(data)
    _check_columns(frame, unit, feature, groups)
    numbers = _numbers(values, len(frame))
    units, features = _coded(frame[unit]), _coded(frame[feature])
    cells = units.codes * len(features.labels) + features.codes

    endog = np.full(len(units.labels) * len(features.labels), np.nan, dtype=numbers.dtype)
    _check_pairs(cells, endog.size, frame, unit, feature)
    endog[cells] = numbers
    for group in groups:
        _check_group(frame[group], features, feature)

    named = [unit, feature, *groups]
    others = np.array([place for place, name in enumerate(frame.columns) if name not in named], dtype=np.intp)
    constant = np.array([_is_constant(frame.iloc[:, place], units) for place in others], dtype=bool)
    return Wide(
        pd.DataFrame(
            endog.reshape(len(units.labels), len(features.labels)),
            index=units.labels,
            columns=features.labels,
            copy=False,
        ),
        frame[list(groups)].iloc[features.first].set_axis(features.labels),
        frame.iloc[units.first, others[constant]].set_axis(units.labels),
        frame.columns[others[~constant]],
    )


def refuse_varying(mean: str, wide: Wide, data: Any, unit: Hashable) -> None:
    """The mean has one value for each unit, so a column that varies within units cannot be one of its terms."""
    varying = mentioned(mean, wide.varying)
    if not varying:
        return
    frame = as_frame(data)
    check_once(frame, varying)
    name = varying[0]
    units = _coded(frame[unit])
    try:
        row = int(np.flatnonzero(_differs(frame[name], units))[0])
    except TypeError as error:
        raise TypeError(f"formula: {name!r} has values that cannot be compared, and cannot be a mean term") from error
    first = units.first[units.codes[row]]
    raise ValueError(
        f"formula: {listing(varying)} in the mean terms {mean!r} {'vary' if len(varying) > 1 else 'varies'} within "
        f"{plain(unit)}: {name!r} is {plain(frame[name].iloc[first])} and {plain(frame[name].iloc[row])} where "
        f"{plain(unit)} is {plain(units.labels[units.codes[row]])}; the mean terms must be constant within "
        f"{plain(unit)}: take an average, or leave them out"
    )


def _check_columns(frame: pd.DataFrame, unit: Hashable, feature: Hashable, groups: Sequence[Hashable]) -> None:
    named = [unit, feature, *groups]
    absent = [name for name in named if name not in frame.columns]
    if absent:
        raise ValueError(
            f"data: columns are absent: {listing(absent)}; columns that are there: {listing(frame.columns, most=20)}"
        )
    again = pd.Index(named, tupleize_cols=False)
    if again.has_duplicates:
        raise ValueError(
            f"unit, feature and groups must be different columns; named more than once: "
            f"{listing(again[again.duplicated()].unique())}"
        )
    check_once(frame, named)
    for name in named:
        missing = frame[name].isna().to_numpy()
        if missing.any():
            raise ValueError(
                f"data: {plain(name)} has {count(int(missing.sum()), 'missing value')}, at rows "
                f"{listing(frame.index[missing])}; fill them or drop these rows"
            )


def _numbers(values: pd.Series, n_rows: int) -> NDArray[Any]:
    """The values as floating point numbers: single precision is kept, everything else becomes double."""
    if len(values) != n_rows:
        raise ValueError(f"values: {count(len(values), 'value')} for {count(n_rows, 'row')} of data")
    dtype = values.dtype
    if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_complex_dtype(dtype):
        raise TypeError(f"values: {plain(values.name)} is not numeric but {dtype}; convert it")
    single = getattr(dtype, "numpy_dtype", dtype) == np.float32
    return values.to_numpy(dtype=np.float32 if single else np.float64, na_value=np.nan)


def _coded(column: pd.Series) -> Coded:
    """Labels in the order of their categories, else sorted, else (where they have no order) as they first appear."""
    codes, labels = _ordered(column)
    first = np.empty(len(labels), dtype=np.intp)
    # Where a label is assigned to more than once the last counts: backwards, that is its first row.
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return Coded(codes, labels.rename(column.name), first)


def _ordered(column: pd.Series) -> tuple[NDArray[np.intp], pd.Index]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        every = column.cat.codes.to_numpy().astype(np.intp)
        present = np.zeros(len(column.cat.categories), dtype=bool)
        present[every] = True
        return (np.cumsum(present) - 1)[every], column.cat.categories[present]
    try:
        codes, labels = pd.factorize(column, sort=True)
    except TypeError:
        codes, labels = pd.factorize(column)
    return codes, labels


def _check_pairs(cells: NDArray[np.intp], n_cells: int, frame: pd.DataFrame, unit: Hashable, feature: Hashable) -> None:
    seen = np.zeros(n_cells, dtype=bool)
    seen[cells] = True
    surplus = len(cells) - int(np.count_nonzero(seen))
    if not surplus:
        return
    again = pd.Series(cells).duplicated().to_numpy()
    rows = frame.iloc[np.flatnonzero(again)]
    pairs = dict.fromkeys(zip(rows[unit], rows[feature], strict=True))
    raise ValueError(
        f"data: ({plain(unit)}, {plain(feature)}) pairs have more than one row: {listing(pairs)}; "
        f"{count(surplus, 'row')} too many: drop or average them"
    )


def _check_group(column: pd.Series, features: Coded, feature: Hashable) -> None:
    differs = _differs(column, features)
    if not differs.any():
        return
    # One row for each feature with more than one label.
    codes, where = np.unique(features.codes[differs], return_index=True)
    others = column.iloc[np.flatnonzero(differs)[where]]
    firsts = column.iloc[features.first[codes]]
    examples = zip(features.labels[codes], firsts, others, strict=True)
    raise ValueError(
        f"data: {plain(column.name)} must be constant within {plain(feature)}, and is not for "
        f"{listing(examples, show=_two_labels)}"
    )


def _two_labels(example: Iterable[Any]) -> str:
    name, one, other = example
    return f"{plain(name)} ({plain(one)} and {plain(other)})"


def _is_constant(column: pd.Series, units: Coded) -> bool:
    try:
        return not _differs(column, units).any()
    except TypeError:  # lists and such, which cannot be compared at speed and are no covariates
        return False


def _differs(column: pd.Series, by: Coded) -> NDArray[np.bool_]:
    """The rows where a column has another value than in the first row of the same label; NaN equals NaN."""
    codes = pd.factorize(column)[0]
    return codes != codes[by.first][by.codes]
