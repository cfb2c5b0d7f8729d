"""From a formula and data, wide or long, to what a model is made of."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mlfm.arrays import as_pandas
from mlfm.endog import match_hierarchy, row_labels
from mlfm.formula.design import Design, as_frame, design, mentioned, response
from mlfm.formula.long import refuse_varying, widen
from mlfm.formula.nesting import levels_in_order, levels_of
from mlfm.formula.terms import Formula, canonical, mistake, parse, written
from mlfm.hierarchy import GLOBAL, Hierarchy
from mlfm.wording import listing

Env = Mapping[str, Any]


class Inputs(NamedTuple):
    """What a formula says of a model."""

    endog: Any
    hierarchy: Hierarchy
    ranks: dict[Hashable, int]
    design: Design
    formula: str  # in canonical form
    data: pd.DataFrame  # one row an observation: the variables of the mean terms, and weights by name
    varying: pd.Index  # columns of long data that have no one value for an observation

    def column(self, weights: Any, name: str) -> Any:
        """Weights themselves, or the column of the data that is called so."""
        if weights is None or np.ndim(weights) or hasattr(weights, "to_pandas"):
            return weights
        if weights in self.varying:
            raise ValueError(f"{name}: the column {weights!r} has different values in rows of the same observation")
        if weights not in self.data.columns:
            columns = listing(self.data.columns, most=20) or "none"
            raise ValueError(f"{name}: {weights!r} is not a column of the data; there are {columns}")
        return self.data[weights]


def wide_inputs(text: str, data: Any, endog: Any, hierarchy: Any, env: Env) -> Inputs:
    """From covariates (observations x variables) and endog (observations x features)."""
    formula = parse(text)
    if formula.response is not None and endog is None:
        raise TypeError(
            f"for long data, with values {formula.response!r}, name the columns of observations and features: "
            "unit= and feature="
        )
    if formula.response is not None:
        raise mistake(
            text,
            (0, text.index("~")),
            "with endog= the left-hand side is empty, as the features are the response; for long data, one row an "
            "observed value, say unit= and feature= in place of endog=",
        )
    if endog is None:
        raise TypeError(
            "endog is missing: give the features (observations x features) as endog=, or for long data, one row an "
            "observed value, the columns that name observations and features as unit= and feature="
        )
    labels = match_hierarchy(as_pandas(endog), hierarchy).to_frame()
    index, _ = row_labels(as_pandas(endog), endog)
    frame = pd.DataFrame(index=index) if data is None else as_frame(as_pandas(data, index))
    return _inputs(formula, endog, labels, frame, index[:0], env)


def long_inputs(text: str, data: Any, unit: Hashable, feature: Hashable, env: Env) -> Inputs:
    """From one row an observed (unit, feature) value, with groups and covariates in further columns."""
    formula = parse(text)
    if formula.response is None:
        raise mistake(
            text, (0, text.index("~") + 1), "name the column of values on the left of ~, as in 'value ~ 1 + ..'"
        )
    frame = as_frame(data)
    for name, column in (("unit", unit), ("feature", feature)):
        if not isinstance(column, Hashable):
            raise TypeError(f"{name}: the name of one column is needed, not {column!r}")
        if column not in frame.columns and column in frame.index.names:
            raise ValueError(f"{name}: {column!r} is in the index of data; data.reset_index() makes it a column")
    groups = _group_columns(formula, frame)
    wide = widen(response(formula.response, frame, env), frame, unit, feature, groups)
    refuse_varying(formula.mean, wide, frame, unit)
    labels = mentioned(formula.mean, [feature, *groups])
    if labels:
        raise ValueError(
            f"formula: {listing(labels)} in the mean terms {formula.mean!r} belongs to features; mean terms have one "
            f"value for each {unit!r}, and every feature has coefficients of its own"
        )
    covariates = wide.covariates
    if isinstance(unit, str) and mentioned(formula.mean, [unit]):
        covariates = covariates.assign(**{unit: covariates.index})
    bare = wide.endog.isna().all(axis=1)
    if bare.any():
        raise ValueError(
            f"data: every value of {formula.response} is missing where {unit!r} is "
            f"{listing(wide.endog.index[bare])}; leave these rows out"
        )
    return _inputs(formula, wide.endog, wide.labels, covariates, wide.varying, env)


def _group_columns(formula: Formula, frame: pd.DataFrame) -> list[Hashable]:
    """The columns of the levels that a formula names, coarse to fine."""
    by_text = {str(column): column for column in frame.columns}
    return [by_text[name] for name in levels_in_order(formula, frame)]


def _inputs(
    formula: Formula, endog: Any, labels: pd.DataFrame, data: pd.DataFrame, varying: pd.Index, env: Env
) -> Inputs:
    hierarchy, ranks = levels_of(formula, labels)
    made = design(formula.mean, data, env)
    order = [str(column) for column in labels.columns]
    terms = [(tuple(sorted(term.names, key=order.index)), term.rank) for term in formula.latent]
    terms.sort(key=lambda term: [order.index(name) for name in reversed(term[0])])
    text = canonical(formula.response, made.canonical, terms)
    return Inputs(endog, hierarchy, ranks, made, text, data, varying)


def formula_of(covariates: Sequence[Hashable], constant: bool, ranks: pd.Series) -> str:
    """The formula of a model that was made without one: ranks by level, coarse to fine."""
    mean = ["1" if constant else "0", *(written([str(name)]) for name in covariates)]
    levels = [str(level) for level in ranks.index if level != GLOBAL]
    paths = itertools.accumulate(([name] for name in levels), lambda above, own: above + own)
    every = [(), *(tuple(path) for path in paths)]
    # A level without factors is named too, as it is one of the model's; the global one is there anyway.
    terms = [(path, int(rank)) for path, rank in zip(every, ranks, strict=True) if rank or path or len(every) == 1]
    return canonical(None, " + ".join(mean), terms)
