"""Linear hypotheses about named parameters: text, names, or a matrix -> R theta = q on the parameters it is about."""

from __future__ import annotations

import difflib
import re
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.formula._manager import FormulaManager

from mlfm.arrays import real_array
from mlfm.wording import listing

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
A_NAME = re.compile(r"(?:mean|coefficient|loading|uniqueness)\[[^\]]*\]?")


class Hypothesis(NamedTuple):
    """R theta = q, R over the parameters ``where`` alone, with a name for each row."""

    where: Places
    R: Floats
    q: Floats
    labels: list[str]


def linear_hypothesis(r_matrix: Any, names: pd.Index) -> Hypothesis:
    """From a text such as ``"loading[a, global, 1] = loading[b, global, 1]"``, a list of names, each to be zero, or a
    matrix with a column for each parameter; a pair of a matrix and values is taken too, as in statsmodels.
    """
    if isinstance(r_matrix, str):
        return _from_text(r_matrix, names)
    if isinstance(r_matrix, (list, pd.Index)) and len(r_matrix) and all(isinstance(name, str) for name in r_matrix):
        where = names.get_indexer(r_matrix)
        if (where < 0).any():
            raise ValueError(unknown([name for name, i in zip(r_matrix, where, strict=True) if i < 0], names))
        return Hypothesis(where, np.eye(len(where)), np.zeros(len(where)), list(r_matrix))
    values: Any = 0.0
    if isinstance(r_matrix, tuple):
        r_matrix, values = r_matrix
    R = np.atleast_2d(real_array(r_matrix, "r_matrix"))
    if R.ndim != 2 or R.shape[1] != len(names):
        raise ValueError(f"r_matrix: {len(names)} columns are needed, one for each parameter, not shape {R.shape}")
    q = np.broadcast_to(real_array(values, "r_matrix").ravel() if np.ndim(values) else np.float64(values), (len(R),))
    where = np.flatnonzero((R != 0).any(axis=0))
    return Hypothesis(where, R[:, where], np.asarray(q, dtype=np.float64), [f"c{i}" for i in range(len(R))])


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
        raise ValueError(unknown(left or [text], names))
    if any(part.count("=") > 1 for part in plain.split(",")):
        raise ValueError(
            f"r_matrix: more than one = in a hypothesis of {text!r}; write them apart, with a comma between"
        )
    try:
        known = FormulaManager().get_linear_constraints(plain, [f"parameter{i}_" for i in range(len(found))])
    except Exception as error:  # each engine has errors of its own
        raise ValueError(f"r_matrix: {text!r} cannot be read as linear hypotheses: {error}") from None
    R = np.asarray(known.constraint_matrix, dtype=np.float64)
    q = np.asarray(known.constraint_values, dtype=np.float64).ravel()
    parts = [part.strip() for part in re.split(r",(?![^\[]*\])", text)]
    labels = parts if len(parts) == len(R) else [f"c{i}" for i in range(len(R))]
    return Hypothesis(names.get_indexer(found), R, q, labels)


def unknown(wanted: list[str], names: pd.Index) -> str:
    """What to say of names that no parameter has."""
    near = difflib.get_close_matches(wanted[0], names.astype(str).tolist()[:5000], n=3, cutoff=0.5)
    hint = f"; near are {listing(near)}" if near else f"; the first are {listing(names[:3])}"
    return f"unknown parameters: {listing(wanted)}{hint}. Names are those of results.params"
