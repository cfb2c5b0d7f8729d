"""Mean terms and data -> a design matrix, by whichever formula engine statsmodels is set to use."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.arrays import as_pandas
from mlfm.covariates import INTERCEPT
from mlfm.formula.engines import ENGINES, Engine, engine_in_use
from mlfm.wording import count, listing

# Where names stand in a formula: not in strings, not after a dot, not as the name of an argument.
STRING = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
TICKED = r"`(?P<ticked>[^`]*)`"
NAMES = re.compile(
    rf"""{TICKED}
    | \bQ\(\s*(?P<quoted>{STRING})\s*\)
    | {STRING}
    | \d[\w.]*
    | \.\s*[^\W\d]\w*
    | (?P<word>[^\W\d]\w*)\s*(?P<after>\(|=(?!=))?""",
    re.VERBOSE,
)
TICKED_OR_STRING = re.compile(rf"{TICKED}|{STRING}")
COLOUR = re.compile(r"\x1b\[\d+(?:;\d+)*m|[⧛⧚]")  # formulaic's marks in its messages


class Names(NamedTuple):
    """The names in a formula: of variables, and of functions that are called."""

    variables: frozenset[str]
    functions: frozenset[str]


def names(text: str) -> Names:
    """The names in a formula; one in backticks, or within Q("..."), is as good as a bare one."""
    variables, functions = set(), set()
    for found in NAMES.finditer(text):
        if found["ticked"] is not None:
            variables.add(found["ticked"])
        elif found["quoted"] is not None:
            variables.add(ast.literal_eval(found["quoted"]))
            functions.add("Q")
        elif found["word"] is not None and found["after"] is None:
            variables.add(found["word"])
        elif found["word"] is not None and found["after"] == "(":
            functions.add(found["word"])
    return Names(frozenset(variables), frozenset(functions))


def mentioned(text: str, columns: Iterable[Hashable]) -> list[str]:
    """Those of the columns that a formula uses, in their order."""
    variables = names(text).variables
    return [column for column in columns if isinstance(column, str) and column in variables]


def as_frame(data: Any) -> pd.DataFrame:
    """The data as a pandas DataFrame: itself, or what its own ``to_pandas()`` (Polars, Arrow) makes of it."""
    frame = as_pandas(data)
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"data: a DataFrame (pandas, Polars or Arrow) is needed, not {type(data).__name__}; "
            "pandas.DataFrame(data) may make one"
        )
    return frame


def check_once(frame: pd.DataFrame, columns: Iterable[Hashable]) -> None:
    """A column that is used must be one: its name may not occur more than once."""
    again = set(frame.columns[frame.columns.duplicated()])
    twice = [name for name in columns if name in again]
    if twice:
        raise ValueError(f"data: columns occur more than once: {listing(twice)}; rename or drop them")


@dataclass(frozen=True, eq=False)
class Rule:
    """How an engine makes the design matrix: what it learnt from the data, and none of the data itself."""

    engine: str
    spec: Any
    env: dict[str, Any]
    dtypes: dict[str, Any]  # of the columns used


@dataclass(frozen=True, eq=False)
class Design:
    """The design matrix of the mean terms, and the rule that makes that of new data.

    Attributes
    ----------
    text : str
        The mean terms, such as ``"1 + market + C(regime)"``.
    matrix : DataFrame
        Observations x columns, named by the formula engine. Without rows when loaded from a file.
    intercept : str or None
        The name of the intercept column, if there is one.
    canonical : str
        The mean terms, one by one, the intercept (or a 0 where there is none) in front.
    terms : dict
        The columns of each term.
    """

    text: str
    matrix: pd.DataFrame
    intercept: str | None
    canonical: str
    terms: dict[str, list[str]]
    rule: Rule | None = field(repr=False)

    def of(self, data: Any) -> pd.DataFrame:
        """The design matrix of new data, with the knots, means and categories of the data it was first made of."""
        if self.rule is None:
            raise ValueError(
                "exog: results without data, as those loaded from a file, cannot work out the mean terms of new data; "
                f"give the columns of the design matrix themselves: {listing(self.matrix.columns, most=20)}"
            )
        frame = as_frame(data)
        absent = [name for name in self.rule.dtypes if name not in frame.columns]
        if absent:
            raise ValueError(
                f"exog: columns that {self.text!r} needs are absent: {listing(absent)}; "
                f"columns: {listing(frame.columns, most=20)}"
            )
        used = _like(_used(frame, list(self.rule.dtypes)), self.rule.dtypes)
        with _no_warnings():
            try:
                made = ENGINES[self.rule.engine].make(self.rule.spec, _positional(used), self.rule.env)
            except Exception as error:
                raise _refusal(error, self.rule.engine, self.text, frame.columns) from error
        return _checked(made.matrix, self.matrix.columns, frame.index)

    def __copy__(self) -> Design:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Design:
        return self  # frozen, and a copy of what the engine learnt would not work

    def without_data(self) -> Design:
        """The names alone: neither rows of the data nor the engine's own objects, which cannot all be pickled."""
        columns = self.matrix.columns
        rowless = pd.DataFrame(np.empty((0, len(columns))), columns=columns)
        return replace(self, matrix=rowless, rule=None)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self.without_data())


def design(text: str, data: Any, env: Mapping[str, Any]) -> Design:
    """The design matrix of the mean terms: one row an observation, none dropped.

    ``env`` is the namespace of whoever wrote the formula, where functions such as ``np.log`` or their own are found.
    """
    frame = as_frame(data)
    if not text.strip():
        raise ValueError("formula: there are no mean terms; write 1 for an intercept alone, 0 for a mean of zero")
    engine = engine_in_use()
    # After a leading ~ there is but one side, whatever ~ is within it, as in I(~flag).
    formula = f"~ {_without_backticks(text.strip())}"
    _read(engine, formula, text)
    used = _used(frame, mentioned(text, frame.columns))
    for name in used.select_dtypes("category"):
        used[name] = used[name].cat.remove_unused_categories()  # without observations they have no coefficients
    known = _namespace(text, env, used)
    with _no_warnings():
        try:
            made = engine.make(formula, _positional(used), known)
        except Exception as error:
            if INTERCEPT in used:
                raise ValueError(
                    f"formula: a column called {INTERCEPT!r} cannot stand beside the intercept; rename it"
                ) from error
            raise _refusal(error, engine.name, text, frame.columns) from error
    checked = _checked(made.matrix, made.columns, frame.index)
    intercept = INTERCEPT if made.intercept else None
    terms = {INTERCEPT if name == "1" else name: list(checked.columns[own]) for name, own in made.terms.items()}
    empty = [name for name, columns in terms.items() if not columns]
    if empty:
        raise ValueError(
            f"formula: terms make no column: {listing(empty)}; a variable with a single category says nothing: leave "
            "it out"
        )
    canonical = " + ".join(
        ["0" if intercept is None else "1", *(name for name in terms if name not in (INTERCEPT, "1"))]
    )
    return Design(text, checked, intercept, canonical, terms, Rule(engine.name, made.spec, known, dict(used.dtypes)))


def response(text: str, data: Any, env: Mapping[str, Any]) -> pd.Series:
    """The left-hand side of a formula, a value for every row of the data: missing ones stay missing, as NaN."""
    frame = as_frame(data)
    formula = _without_backticks(text.strip())
    if not _is_one_term(formula):
        raise ValueError(
            f"formula: the left-hand side must be one term, such as ret or np.log(ret), not {text.strip()!r}; "
            "write I(...) around a sum, difference or other arithmetic of columns"
        )
    engine = engine_in_use()
    formula = f"~ 0 + {formula}"
    _read(engine, formula, text)
    columns = mentioned(text, frame.columns)
    check_once(frame, columns)
    used = _numpy_columns(frame, columns)
    used = used.astype(dict.fromkeys(used.select_dtypes(bool), float))  # patsy would take flags for categories
    known = _namespace(text, env, used)
    with _no_warnings():
        try:
            made = engine.make(formula, _positional(used), known, keep_missing=True)
        except Exception as error:
            if _unknown_name(error, text) is None:
                _refuse_labels(used)
            raise _refusal(error, engine.name, text, frame.columns) from error
    # The columns of a categorical variable have names of their own; one of numbers is called as its term.
    if made.columns != list(made.terms):
        _refuse_labels(used)
        raise TypeError(
            f"formula: the left-hand side {text.strip()!r} must be one column of numbers, not {listing(made.columns)}"
        )
    return pd.Series(np.asarray(made.matrix, dtype=np.float64)[:, 0], index=frame.index, name=text.strip())


def _refuse_labels(used: pd.DataFrame) -> None:
    """The left-hand side failed: most often because one of its columns holds text."""
    labels = [name for name, dtype in used.dtypes.items() if not pd.api.types.is_numeric_dtype(dtype)]
    if labels:
        raise TypeError(f"formula: columns of the left-hand side are not numeric: {listing(labels)}; convert them")


def _without_backticks(text: str) -> str:
    """Names in backticks written as Q("..."): patsy knows no backticks, and formulaic knows both."""

    def quoted(found: re.Match[str]) -> str:
        name = found["ticked"]
        if name is None:
            return found[0]
        return name if name.isidentifier() else f"Q({name!r})"

    return TICKED_OR_STRING.sub(quoted, text)


def _is_one_term(text: str) -> bool:
    """To the engines, a - b is the term a without b, and a**2 is a; as a response neither is what it says."""
    try:
        return isinstance(ast.parse(text, mode="eval").body, (ast.Name, ast.Call, ast.Attribute, ast.Subscript))
    except SyntaxError:
        return False


def _namespace(text: str, env: Mapping[str, Any], used: pd.DataFrame) -> dict[str, Any]:
    """What the formula names in the caller's namespace, and no more of it, for a design keeps it."""
    variables, functions = names(text)
    return {name: env[name] for name in sorted(variables.difference(used) | functions) if name in env}


def _read(engine: Engine, formula: str, text: str) -> None:
    with _no_warnings():
        try:
            engine.read(formula)
        except Exception as error:
            raise ValueError(f"formula: {engine.name} cannot read {text!r}: {_message(error)}") from error


def _used(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The columns that a formula uses, without missing values, as types that both engines know."""
    check_once(frame, columns)
    missing = frame[columns].isna()
    gaps = [name for name in columns if missing[name].to_numpy().any()]
    if gaps:
        raise ValueError(f"exog: {'; '.join(_gap(name, missing[name]) for name in gaps)}; fill them or drop these rows")
    return _numpy_columns(frame, columns)


def _gap(name: str, missing: pd.Series) -> str:
    where = missing.index[missing.to_numpy()]
    return f"{name!r} has {count(len(where), 'missing value')}, at {_rows(where)}"


def _rows(index: pd.Index) -> str:
    return f"{'row' if len(index) == 1 else 'rows'} {listing(index)}"


def _numpy_columns(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({name: _numpy_column(frame[name]) for name in columns}, index=frame.index)


def _numpy_column(column: pd.Series) -> pd.Series:
    """A nullable or Arrow column as one of numpy's types, which are all the engines know besides categories."""
    dtype = column.dtype
    if not isinstance(dtype, pd.api.extensions.ExtensionDtype) or isinstance(dtype, pd.CategoricalDtype):
        return column
    flags = pd.api.types.is_bool_dtype(dtype)
    if flags or pd.api.types.is_numeric_dtype(dtype):
        if (flags or pd.api.types.is_integer_dtype(dtype)) and not column.isna().any():
            return column.astype(np.bool_ if flags else np.int64)
        return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), index=column.index)
    if pd.api.types.is_string_dtype(dtype) or isinstance(dtype, pd.ArrowDtype):
        return column.astype(object)
    return column


def _like(used: pd.DataFrame, dtypes: Mapping[str, Any]) -> pd.DataFrame:
    """New data in the types of the old: the same categories in the same order, numbers where there were numbers."""
    return pd.DataFrame({name: _like_column(used[name], dtype) for name, dtype in dtypes.items()}, index=used.index)


def _like_column(column: pd.Series, dtype: Any) -> pd.Series:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if isinstance(dtype, pd.CategoricalDtype):
        unknown = pd.Index(column.unique()).difference(dtype.categories, sort=False)
        if len(unknown):
            raise ValueError(
                f"exog: {column.name!r} has unknown categories: {listing(unknown)}; "
                f"known ones: {listing(dtype.categories)}"
            )
        return column.astype(dtype)
    column = _numpy_column(column)
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_numeric_dtype(column.dtype):
        raise ValueError(f"exog: {column.name!r} must be numeric, as it was in the data, not {column.dtype}")
    return column


def _positional(used: pd.DataFrame) -> pd.DataFrame:
    """Rows numbered where labels repeat, since formulaic drops or matches by label. Otherwise terms may use labels."""
    return used if used.index.is_unique else used.reset_index(drop=True)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """The engines' warnings and numpy's are silent, for what they warn of is checked; but a category that formulaic
    does not know would become a row of zeros with no more than a warning, and is an error."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="Data has categories outside")
        yield


def _checked(matrix: Any, columns: Iterable[str], index: pd.Index) -> pd.DataFrame:
    """The engine's matrix as a plain DataFrame of finite numbers, a row for every row of the data."""
    labels = pd.Index(list(columns), dtype=object if not list(columns) else None)
    if labels.has_duplicates:
        raise ValueError(
            f"formula: columns of the design matrix occur more than once: "
            f"{listing(labels[labels.duplicated()].unique())}; rename columns of the data"
        )
    try:
        values: NDArray[np.float64] = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:  # formulaic repeats a single value, of whatever type, over the rows
        raise ValueError(f"formula: the terms make columns that are not of numbers: {error}") from error
    if values.shape != (len(index), len(labels)):
        raise ValueError(
            f"formula: the terms make a matrix of shape {values.shape} out of {count(len(index), 'row')} and "
            f"{count(len(labels), 'column')}; each term must have a value for every row"
        )
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise ValueError(
            f"exog: columns of the design matrix are infinite or not a number: "
            f"{listing(labels[wrong.any(axis=0)])}, at {_rows(index[wrong.any(axis=1)])}"
        )
    return pd.DataFrame(values, index=index, columns=labels)


def _refusal(error: Exception, engine: str, text: str, columns: pd.Index) -> ValueError:
    unknown = _unknown_name(error, text)
    if unknown is not None:
        return ValueError(
            f"formula: {unknown!r}, in {text!r}, is neither a column nor a name known here; "
            f"columns: {listing(columns, most=20) or 'none; give a DataFrame of the variables as data='}"
        )
    cannot = "read" if isinstance(error, SyntaxError) else "work out"  # patsy leaves each term to Python
    words = _message(error)
    if "missing" in words or "null" in words:
        words += "; where a term makes missing values, as lags do, make it a column and leave its first rows out"
    return ValueError(f"formula: {engine} cannot {cannot} {text!r}: {words}")


def _unknown_name(error: Exception, text: str) -> str | None:
    """The name in the formula that an engine did not find, if that is what went wrong."""
    cause = error.__cause__ or error
    if isinstance(cause, NameError):
        quoted = re.search(r"['`]([^'`]+)['`]", str(cause))
        name = cause.name or (quoted[1] if quoted else None)
    elif isinstance(cause, KeyError) and cause.args:  # formulaic's Q("...")
        name = cause.args[0]
    else:
        return None
    variables, functions = names(text)
    return name if name in variables | functions else None


def _message(error: Exception) -> str:
    """The engine's own words on one line, with the piece of the formula that patsy points at."""
    message = getattr(error, "message", None) or str(error)
    origin = getattr(error, "origin", None)
    piece = f" ({origin.relevant_code()})" if origin is not None else ""
    if isinstance(error, Warning):
        message = message.partition(". ")[0]  # what follows tells what formulaic would go on to do
    return " ".join(COLOUR.sub("", message).split()) + piece
