"""The summary in the layout of statsmodels' summary2: blocks of DataFrames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from mlfm.inference.tables import z_columns
from mlfm.reporting.escaping import Summary2
from mlfm.reporting.frame import summary_frame
from mlfm.reporting.largest import More, largest
from mlfm.reporting.layout import cut, number, places
from mlfm.reporting.notes import diagnostics, reading
from mlfm.reporting.standard_errors import kind_of_errors
from mlfm.reporting.summary import LEVEL_COLUMNS, TITLE, covariate_rows, header, level_rows

if TYPE_CHECKING:
    from mlfm.results import MultilevelFactorResults

LABEL = 15  # the width of names of groups and of features


def summary2(results: MultilevelFactorResults, alpha: float) -> Summary2:
    """Header, levels, covariates, and the largest loadings with their standard errors."""
    out = Summary2()
    out.add_title(TITLE)
    left, right = header(results)
    blank = [(" " * i, "") for i in range(1, 1 + abs(len(left) - len(right)))]
    left, right = (left, right + blank) if len(right) < len(left) else (left + blank, right)
    out.add_dict(dict(left + right))
    stubs, rows = level_rows(results)
    out.add_df(pd.DataFrame(rows, index=[cut(stub, 14) for stub in stubs], columns=LEVEL_COLUMNS))
    if not results.mean_alone and results.coefficients.size:
        names, columns, rows = covariate_rows(results)
        out.add_df(pd.DataFrame(rows, index=[cut(name, 16) for name in names], columns=columns))
    if results.loadings.shape[1]:
        out.add_df(_largest(results, alpha))
    for note in _notes(results):
        out.add_text(note)
    return out


def _largest(results: MultilevelFactorResults, alpha: float) -> pd.DataFrame:
    """One row a loading; the factor's name where it is the first of its own."""
    frame = summary_frame(results, "loadings", alpha)
    width = results.loadings.shape[1]
    values, rows, stubs = frame.to_numpy(), [], []
    for factor in largest(results):
        if isinstance(factor, More):
            stubs.append(cut(f"({factor.groups} more)", LABEL))
            rows.append([""] * (1 + values.shape[1]))
            continue
        numbered = "" if factor.number is None else f" {factor.number}"
        for i, j in enumerate(factor.features):
            row = values[j * width + factor.column]
            stubs.append("" if i else f"{cut(factor.name, LABEL - len(numbered))}{numbered}")
            rows.append([cut(str(results.hierarchy.features[j]), LABEL), *_texts(row)])
    return pd.DataFrame(rows, index=stubs, columns=["feature", *z_columns(alpha)[: values.shape[1]]])


def _texts(row: object) -> list[str]:
    value, *rest = map(float, row)  # type: ignore[call-overload]
    if not rest:
        return [number(value, places(value, 0.0))]
    error, z, p, low, high = rest
    decimals = places(value, error)
    return [
        number(value, decimals),
        number(error, decimals),
        number(z, 2),
        number(p, 3),
        number(low, decimals),
        number(high, decimals),
    ]


def _notes(results: MultilevelFactorResults) -> Iterator[str]:
    yield reading(results)
    yield kind_of_errors(results)[1]
    yield from diagnostics(results)
