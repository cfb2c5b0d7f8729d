"""Sweeps that lower the sum of squares of what is left: block coordinate descent, and alternating least squares."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import add_expanded
from mlfm.lowrank.blockwise import expanded, products
from mlfm.lowrank.factors import Factors
from mlfm.lowrank.remainder import Remainder, left_over
from mlfm.lowrank.sources import Source
from mlfm.lowrank.structures import Structure
from mlfm.sweep import Workers

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
#: Products with the blocks of a level.
Times = Callable[[int, Floats, Workers], Floats]

NOTHING = 1e-200  # squared length of a column that is no column
RIDGE = 1e-12  # of the least squares' matrices, which are singular where columns are not needed


class Problem(NamedTuple):
    """What is fitted, what its blocks have to be, and with what."""

    source: Source
    structure: Structure
    rng: np.random.Generator
    workers: Workers


#: Changes factors for the better; the sum of squares of what they leave then.
Sweep = Callable[[Problem, Factors], float]


def bcd(problem: Problem, factors: Factors) -> float:
    """Block coordinate descent: the levels one after the other, top-down and then bottom-up, each at its best.

    Parshakova, Hastie, Darve and Boyd, section 4.
    """
    levels = [level for level, rank in enumerate(factors.ranks) if rank]
    for level in levels:
        _improve(problem, factors, level)
    _improve_diagonal(problem, factors)
    for level in reversed(levels[:-1]):
        _improve(problem, factors, level)
    return left_over(problem.source, factors, problem.workers)


def als(problem: Problem, factors: Factors) -> float:
    """Alternating least squares: all left factors at their best, then all right ones.

    With the right factors fixed, the rows of the matrix that share a path are regressed on one r-column matrix, whose
    Gram matrix is a sum over the tree (Parshakova, Hastie, Darve and Boyd, section 4).
    """
    source, workers = problem.source, problem.workers
    _fill(factors, problem.rng)
    _least_squares(source.times, factors, workers)
    turned = factors.transposed
    explained = _least_squares(source.transposed_times, turned, workers)
    factors.right = turned.left
    if factors.diag is None:
        return max(source.squared_norm - explained, 0.0)
    _improve_diagonal(problem, factors)
    return left_over(source, factors, workers)


METHODS: dict[str, Sweep] = {"bcd": bcd, "als": als}


def _improve(problem: Problem, factors: Factors, level: int) -> None:
    """One level at its best."""
    rest = Remainder(problem.source, factors, level, level, problem.workers)
    step = problem.structure.best(rest, factors.left[level], factors.right[level], problem.rng)
    factors.left[level], factors.right[level] = step.left, step.right


def _improve_diagonal(problem: Problem, factors: Factors) -> None:
    """The diagonal at its best."""
    if factors.diag is not None:
        wanted = problem.source.diagonal - factors.low_rank_diagonal()
        factors.diag = np.maximum(wanted, problem.structure.least_diagonal)


def _least_squares(times: Times, factors: Factors, workers: Workers) -> float:
    """All left factors at their best, the right ones and the diagonal held fixed; 2 <A - D, B C'> - ||B C'||^2 then."""
    rows, columns = factors.grid.rows.offsets, factors.grid.columns.offsets
    levels = [level for level, rank in enumerate(factors.ranks) if rank]
    if not levels:
        return 0.0
    rights, leaf = [factors.right[level] for level in levels], levels[-1]
    P = np.hstack([times(level, C, workers) for level, C in zip(levels, rights, strict=True)])
    if factors.diag is not None:
        P -= factors.diag[:, None] * np.hstack(rights)
    G = _path_gram(rights, levels, columns)
    B = np.hstack([factors.left[level] for level in levels])
    rest = P.copy()
    add_expanded(B, G, rows[leaf], -1.0, rest)  # half the gradient
    # B + (P - B G) G^-1, which is P G^-1; the ridge on the change leaves directions alone that G lacks.
    squares = np.einsum("kii->ki", G)
    scale = np.sqrt(np.where(squares > NOTHING, squares, 1.0))
    scales = scale[:, :, None] * scale[:, None, :]
    B = B + expanded(rest, np.linalg.inv(G / scales + RIDGE * np.eye(G.shape[1])) / scales, rows[leaf])
    bounds = np.cumsum([0, *(C.shape[1] for C in rights)])
    for level, first, last in zip(levels, bounds[:-1], bounds[1:], strict=True):
        factors.left[level] = np.ascontiguousarray(B[:, first:last])
    return 2 * float(np.vdot(P, B)) - float(np.vdot(expanded(B, G, rows[leaf]), B))


def _path_gram(rights: list[Floats], levels: list[int], offsets: tuple[Integers, ...]) -> Floats:
    """X_g' X_g for every leaf group g: X_g holds, side by side, the right factors of the blocks on its path."""
    bounds, leaf = np.cumsum([0, *(C.shape[1] for C in rights)]), levels[-1]
    first = offsets[leaf][:-1]
    G = np.empty((len(first), bounds[-1], bounds[-1]))
    for j, finer in enumerate(levels):
        node = np.searchsorted(offsets[finer], first, side="right") - 1
        for i in range(j + 1):
            of_nodes = products(rights[i], rights[j], offsets[finer])[node]
            G[:, bounds[i] : bounds[i + 1], bounds[j] : bounds[j + 1]] = of_nodes
            G[:, bounds[j] : bounds[j + 1], bounds[i] : bounds[i + 1]] = of_nodes.swapaxes(1, 2)
    return G


def _fill(factors: Factors, rng: np.random.Generator) -> None:
    """Random right factors where there are none: least squares has nothing else to begin with."""
    for level, C in enumerate(factors.right):
        absent = np.abs(C).max(axis=0, initial=0.0) == 0
        if absent.any():
            filled, left = C.copy(), factors.left[level].copy()
            filled[:, absent] = rng.standard_normal((len(C), int(absent.sum())))
            left[:, absent] = 0.0
            factors.right[level], factors.left[level] = filled, left
