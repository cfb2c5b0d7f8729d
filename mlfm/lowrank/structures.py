"""One step of block coordinate descent: the best factors of a level's blocks, everything else held fixed.

The best factors of rank r of a block are its truncated singular value decomposition, or, where B_k C_k' must be
symmetric or positive semidefinite, its truncated eigendecomposition (Parshakova, Hastie, Darve and Boyd, section 4).
Blocks are known by their products, so these are found by subspace iteration: from random directions the first time
(Halko, Martinsson and Tropp 2011), and later from where the level stood, with one step for each visit; no such step
can do worse than the factors that it begins at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.lowrank.blockwise import balanced, expanded, orthonormal, products
from mlfm.lowrank.remainder import Remainder

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

EXTRA, POWERS = 4, 2  # directions beyond the rank, and repeated products, of the first visit


class Step(NamedTuple):
    """New factors of a level, and the sum of squares of the blocks that they make."""

    left: Floats
    right: Floats
    squares: float


class Structure(NamedTuple):
    """What blocks may be: the step that makes the best of them, the order of their columns, a least diagonal, a method.

    The step is made from what the others leave, the level's factors so far, and random numbers. In order, orthogonal
    columns of every block stand by what they explain: the first few of them are the best of their number. Least squares
    of all levels together are mostly quicker and end lower, but only where blocks may be anything.
    """

    best: Callable[[Remainder, Floats, Floats, np.random.Generator], Step]
    ordered: Callable[[Floats, Floats, Integers, Integers], tuple[Floats, Floats]]
    least_diagonal: float
    method: str


def general(rest: Remainder, B: Floats, C: Floats, rng: np.random.Generator) -> Step:
    """The truncated singular value decomposition of every block."""
    if not _lacks_directions(C):
        X = rest.times(C)
    else:
        X = rest.times(np.hstack([C[:, np.abs(C).any(axis=0)], _random(rest.columns, C.shape[1], rng)]))
        for _ in range(POWERS):
            X = rest.times(orthonormal(rest.transposed_times(orthonormal(X, rest.rows)), rest.columns))
    U = orthonormal(X, rest.rows)
    W = rest.transposed_times(U)  # U_k W_k' is the block, projected on the rows that U spans
    squares, E = np.linalg.eigh(products(W, W, rest.columns))
    squares, E = _leading(np.maximum(squares, 0.0), E, squares, B.shape[1])
    roots = squares**0.25
    inverse = np.where(roots > 0, 1 / np.where(roots > 0, roots, 1.0), 0.0)
    left = expanded(U, E * roots[:, None, :], rest.rows)
    right = expanded(W, E * inverse[:, None, :], rest.columns)
    return Step(left, right, float(squares.sum()))


def symmetric(rest: Remainder, B: Floats, C: Floats, rng: np.random.Generator) -> Step:
    """The eigenvalues that are largest in absolute value, of every block; C is B with signs."""
    values, vectors = _eigen(rest, B, rng, np.abs)
    left = expanded(vectors, _diagonal(np.sqrt(np.abs(values))), rest.rows)
    right = expanded(left, _diagonal(np.sign(values)), rest.rows)
    return Step(left, right, float((values**2).sum()))


def positive(rest: Remainder, B: Floats, C: Floats, rng: np.random.Generator) -> Step:
    """The largest eigenvalues of every block as far as they are positive; C is B."""
    values, vectors = _eigen(rest, B, rng, lambda values: values)
    values = np.maximum(values, 0.0)
    left = expanded(vectors, _diagonal(np.sqrt(values)), rest.rows)
    return Step(left, left, float((values**2).sum()))


def _symmetric_in_order(B: Floats, C: Floats, offsets: Integers, _: Integers) -> tuple[Floats, Floats]:
    """Eigenvectors of every B_k C_k', by absolute eigenvalue."""
    U = orthonormal(B, offsets)
    core = products(U, B, offsets) @ products(U, C, offsets).swapaxes(1, 2)
    eigenvalues, vectors = np.linalg.eigh((core + core.swapaxes(1, 2)) / 2)
    values, E = _leading(eigenvalues, vectors, np.abs(eigenvalues), B.shape[1])
    left = expanded(U, E @ _diagonal(np.sqrt(np.abs(values))), offsets)
    return left, expanded(left, _diagonal(np.sign(values)), offsets)


def _positive_in_order(B: Floats, C: Floats, offsets: Integers, _: Integers) -> tuple[Floats, Floats]:
    left = _symmetric_in_order(B, C, offsets, offsets)[0]
    return left, left


STRUCTURES = {
    "general": Structure(general, balanced, -np.inf, "als"),
    "symmetric": Structure(symmetric, _symmetric_in_order, -np.inf, "bcd"),
    "psd": Structure(positive, _positive_in_order, 0.0, "bcd"),
}


def signs(B: Floats, C: Floats, offsets: Integers) -> Floats:
    """The sign of each block's columns, blocks x rank, where C is B with signs."""
    return np.asarray(np.sign(np.add.reduceat(B * C, offsets[:-1], axis=0)))


def _lacks_directions(C: Floats) -> bool:
    """Whether some column is zero in every block: a first visit, or a column that was added."""
    return bool((np.abs(C).max(axis=0, initial=0.0) == 0).any())


def _random(offsets: Integers, rank: int, rng: np.random.Generator) -> Floats:
    """Random directions: some more than the rank, but never more than the largest block has dimensions."""
    return rng.standard_normal((int(offsets[-1]), min(rank + EXTRA, int(np.diff(offsets).max()))))


def _leading(values: Floats, vectors: Floats, wanted: Floats, rank: int) -> tuple[Floats, Floats]:
    """The ``rank`` pairs that are wanted most of every block, filled up with zeros where there are fewer."""
    order = np.argsort(-wanted, axis=1, kind="stable")[:, :rank]
    values = np.take_along_axis(values, order, axis=1)
    vectors = np.take_along_axis(vectors, order[:, None, :], axis=2)
    absent = rank - values.shape[1]
    return np.pad(values, ((0, 0), (0, absent))), np.pad(vectors, ((0, 0), (0, 0), (0, absent)))


def _diagonal(values: Floats) -> Floats:
    """A diagonal matrix a block."""
    return values[:, :, None] * np.eye(values.shape[1])


def _eigen(
    rest: Remainder, B: Floats, rng: np.random.Generator, wanted: Callable[[Floats], Floats]
) -> tuple[Floats, Floats]:
    """The eigenvalues that are ``wanted`` most, blocks x rank, and their vectors.

    They are those of the block on a subspace (Rayleigh and Ritz), which holds the columns of B.
    """
    rank, offsets = B.shape[1], rest.rows
    V = orthonormal(B, offsets)
    if _lacks_directions(B):
        X = _random(offsets, rank, rng)
        for _ in range(POWERS if X.shape[1] < int(np.diff(offsets).max()) else 0):
            X = np.hstack([X, rest.times(orthonormal(X, offsets))])[:, -2 * X.shape[1] :]
        X = np.hstack([V, X])
    else:
        X = np.hstack([V, rest.times(V)])
    Q = orthonormal(X, offsets)
    core = products(Q, rest.times(Q), offsets)
    values, E = np.linalg.eigh((core + core.swapaxes(1, 2)) / 2)
    values, E = _leading(values, E, wanted(values), rank)
    return values, expanded(Q, E, offsets)
