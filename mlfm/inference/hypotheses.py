"""Linear hypotheses about named parameters: text, names, or a matrix -> R theta = q on the parameters it is about."""

from __future__ import annotations

import difflib
import re
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.alignment import positions
from mlfm.arrays import real_array
from mlfm.formula.engines import engine_in_use
from mlfm.wording import listing

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
NAMES = 100_000  # names that are searched for one that is near
A_NAME = re.compile(r"(?:mean|coefficient|loading|uniqueness)\[[^\]]*\]?")


class Hypothesis(NamedTuple):
    """R theta = q, R over the parameters ``where`` alone, with a name for each row."""

    where: Places
    R: Floats
    q: Floats
    labels: list[str]


def linear_hypothesis(r_matrix: Any, names: pd.Index, name: str = "r_matrix") -> Hypothesis:
    """From a text such as ``"loading[a, global, 1] = loading[b, global, 1]"``, names, each to be zero, or a matrix with
    a column for each parameter (matched by label if it has any); or a pair of a matrix and values.

    ``name`` is that of the argument, for errors.
    """
    if names.has_duplicates:
        twice = names[names.duplicated()].unique()
        raise ValueError(f"{name}: parameters of features with like names cannot be told apart: {listing(twice)}")
    if isinstance(r_matrix, str):
        return _from_text(r_matrix, names)
    if isinstance(r_matrix, tuple):
        if len(r_matrix) != 2:
            raise ValueError(f"{name}: a pair of a matrix and values is needed, not {len(r_matrix)} things")
        r_matrix, values = r_matrix
    else:
        values = 0.0
    if _are_names(r_matrix):
        return _from_names(list(r_matrix), names, name)
    R, q = _matrix(r_matrix, names, name), real_array(values, name)
    if q.ndim > 1 or q.shape not in ((), (1,), (len(R),)) or not (np.isfinite(R).all() and np.isfinite(q).all()):
        raise ValueError(f"{name}: {len(R)} finite values are needed beside the matrix, and finite numbers in it")
    if not (R != 0).any(axis=1).all():
        raise ValueError(f"{name}: rows of zeros say nothing of any parameter")
    where = np.flatnonzero((R != 0).any(axis=0))
    return Hypothesis(where, R[:, where], np.broadcast_to(q.ravel(), (len(R),)), [f"c{i}" for i in range(len(R))])


def chosen(columns: Any, names: pd.Index, name: str) -> Places:
    """Where the parameters with these names stand; ``name`` is that of the argument."""
    wanted = [columns] if isinstance(columns, str) else columns
    if not _are_names(wanted):
        raise TypeError(f"{name}: a name or names of parameters are needed, as in results.params, not {columns!r}")
    return _from_names(list(wanted), names, name).where


def _are_names(values: Any) -> bool:
    listed = isinstance(values, (list, pd.Index, np.ndarray, pd.Series)) and np.ndim(values) == 1
    return listed and len(values) > 0 and all(isinstance(value, str) for value in values)


def _from_names(wanted: list[str], names: pd.Index, name: str) -> Hypothesis:
    where = names.get_indexer(wanted)
    if (where < 0).any():
        raise ValueError(unknown([own for own, i in zip(wanted, where, strict=True) if i < 0], names, name))
    return Hypothesis(where, np.eye(len(where)), np.zeros(len(where)), wanted)


def _matrix(r_matrix: Any, names: pd.Index, name: str) -> Floats:
    """Hypotheses x parameters, in the order of the parameters."""
    if isinstance(r_matrix, pd.Series):
        r_matrix = r_matrix.to_frame().T
    if isinstance(r_matrix, pd.DataFrame):
        r_matrix = r_matrix.iloc[:, positions(r_matrix.columns, names, name)]
    R = np.atleast_2d(real_array(r_matrix, name))
    if R.ndim != 2 or R.shape[1] != len(names):
        raise ValueError(f"{name}: {len(names)} columns are needed, one for each parameter, not shape {R.shape}")
    return R


def held_at_zero(hypothesis: Hypothesis) -> Places:
    """The parameters that are zero if all of the hypotheses hold, by position."""
    if hypothesis.q.any() or not len(hypothesis.where):
        return np.empty(0, dtype=np.intp)
    _, values, basis = np.linalg.svd(hypothesis.R, full_matrices=False)
    basis = basis[values > 1e-10 * values.max()]
    # A parameter is held where its own direction lies in the space of the rows.
    return hypothesis.where[np.einsum("ij,ij->j", basis, basis) > 1 - 1e-10]


def _from_text(text: str, names: pd.Index) -> Hypothesis:
    # The engines do not know brackets in names: each parameter gets a plain name, longer ones first.
    found = sorted((name for name in names if name in text), key=len, reverse=True)
    plain = text
    for i, name in enumerate(found):
        plain = plain.replace(name, f" parameter{i}_ ")
    left = A_NAME.findall(plain)
    if left or not found:
        raise ValueError(unknown(left or [text], names, "r_matrix"))
    if any(part.count("=") > 1 for part in plain.split(",")):
        raise ValueError(
            f"r_matrix: more than one = in a hypothesis of {text!r}; write them apart, with a comma between"
        )
    try:
        R, q = engine_in_use().constraints(plain, [f"parameter{i}_" for i in range(len(found))])
    except Exception:  # each engine has errors of its own, which know our names for the parameters only
        raise ValueError(
            f"r_matrix: {text!r} cannot be read as linear hypotheses: names of parameters, numbers, + - * / and =, "
            "with commas between hypotheses"
        ) from None
    parts = [part.strip() for part in re.split(r",(?![^\[]*\])", text)]
    labels = parts if len(parts) == len(R) else [f"c{i}" for i in range(len(R))]
    return Hypothesis(names.get_indexer(found), R, q, labels)


def unknown(wanted: list[str], names: pd.Index, name: str) -> str:
    """What to say of names that no parameter has."""
    kind, inside = wanted[0].partition("[")[::2]
    alike = [own for own in names if own.startswith(f"{kind}[")] if inside else []
    near = difflib.get_close_matches(wanted[0], (alike or names.tolist())[:NAMES], n=3, cutoff=0.5)
    if alike and not near:
        near = alike[:3]
    hint = f"; near are {listing(near)}" if near else f"; the first are {listing(names[:3])}"
    return f"{name}: unknown parameters: {listing(wanted)}{hint}. Names are those of results.params"
