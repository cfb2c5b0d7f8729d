"""The two libraries that read mean terms, patsy and formulaic, behind one interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import statsmodels.formula
from numpy.typing import NDArray

Env = Mapping[str, Any]


class Made(NamedTuple):
    """What an engine makes of a formula and data."""

    matrix: Any  # array-like, rows x columns
    columns: list[str]
    terms: dict[str, slice]  # the columns of each term
    intercept: bool
    spec: Any  # the engine's own: what it learnt from the data


class Engine(Protocol):
    """Reads one-sided formulas, ``~ terms``."""

    name: str

    def read(self, formula: str) -> None:
        """The engine's own error where the formula cannot be read."""

    def make(self, formula: Any, data: pd.DataFrame, env: Env, keep_missing: bool = False) -> Made:
        """The matrix of a formula, or of a spec made before; every row stays, missing values are errors or stay."""

    def constraints(self, text: str, names: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """R and q of linear hypotheses R theta = q about named parameters."""


class Patsy:
    """patsy, which statsmodels uses by default."""

    name = "patsy"

    def read(self, formula: str) -> None:
        import patsy

        patsy.ModelDesc.from_formula(formula)

    def make(self, formula: Any, data: pd.DataFrame, env: Env, keep_missing: bool = False) -> Made:
        import patsy

        missing = patsy.NAAction(on_NA="raise", NA_types=[] if keep_missing else ["None", "NaN"])
        known = patsy.EvalEnvironment([dict(env)])
        matrix = patsy.dmatrix(formula, data, eval_env=known, NA_action=missing, return_type="dataframe")
        spec = matrix.design_info
        return Made(matrix, list(spec.column_names), dict(spec.term_name_slices), patsy.INTERCEPT in spec.terms, spec)

    def constraints(self, text: str, names: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        import patsy

        known = patsy.DesignInfo(names).linear_constraint(text)
        return np.asarray(known.coefs), np.asarray(known.constants).ravel()


class Formulaic:
    """formulaic, which statsmodels from 0.15 on can be set to use; columns come in the order of patsy's by default."""

    name = "formulaic"

    def read(self, formula: str) -> None:
        import formulaic

        formulaic.Formula(formula)

    def make(self, formula: Any, data: pd.DataFrame, env: Env, keep_missing: bool = False) -> Made:
        import formulaic

        missing = "ignore" if keep_missing else "raise"

        def matrix_of(terms: Any) -> Any:
            return formulaic.model_matrix(terms, data, context=dict(env), output="pandas", na_action=missing)

        if isinstance(formula, str):
            ordering = statsmodels.formula.options.ordering
            formula = self._parsed(formula, "none" if ordering == "legacy" else ordering)
            if ordering == "legacy":
                formula = formulaic.Formula(in_order_of_patsy(matrix_of(formula).model_spec), _ordering="none")
        matrix = matrix_of(formula)
        spec = matrix.model_spec
        terms = {str(term): columns for term, columns in spec.term_slices.items()}
        return Made(matrix, list(spec.column_names), terms, any(map(_is_intercept, spec.terms)), spec)

    def _parsed(self, formula: str, ordering: str) -> Any:
        import formulaic.parser

        parser = formulaic.parser.DefaultFormulaParser
        # Formula documents these keywords; their underscores keep them apart from names of sides.
        return formulaic.Formula(
            formula, _ordering=ordering, _parser=parser(feature_flags=parser.FeatureFlags.TWOSIDED)
        )

    def constraints(self, text: str, names: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        from formulaic.utils.constraints import LinearConstraints

        known = LinearConstraints.from_spec(text, variable_names=names)
        return np.asarray(known.constraint_matrix), np.asarray(known.constraint_values).ravel()


def _is_intercept(term: Any) -> bool:
    return term.degree == 0 and str(term) == "1"


def in_order_of_patsy(spec: Any) -> list[Any]:
    """The terms as patsy orders them: the intercept, terms of categories, then those of each set of numerical factors
    as the sets first appear; within a set by degree.
    """
    categorical = set(map(str, spec.factor_contrasts))
    numerical = [frozenset(map(str, term.factors)) - categorical for term in spec.terms]
    first = {factors: place for place, factors in reversed(list(enumerate(numerical)))}

    def place(which: int) -> tuple[bool, bool, int, int]:
        term, factors = spec.terms[which], numerical[which]
        return term.degree > 0, bool(factors), first[factors], term.degree

    return [spec.terms[which] for which in sorted(range(len(spec.terms)), key=place)]


ENGINES: dict[str, Engine] = {engine.name: engine for engine in (Patsy(), Formulaic())}


def engine_in_use() -> Engine:
    """The engine that statsmodels is set to use; before 0.15 there was patsy alone."""
    options = getattr(statsmodels.formula, "options", None)
    return ENGINES["patsy" if options is None else options.formula_engine]
