"""Sweeps that lower the sum of squares of what is left: block coordinate descent, and alternating least squares."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mlfm.lowrank.blockwise import evened
from mlfm.lowrank.factors import Factors
from mlfm.lowrank.regression import regress_left
from mlfm.lowrank.remainder import Remainder, left_over
from mlfm.lowrank.sources import Source
from mlfm.lowrank.structures import Structure
from mlfm.sweep import Workers

ROUNDING = 1e-12  # of a diagonal element, when the factors' share is taken from it


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


def bcd_afresh(problem: Problem, factors: Factors) -> float:
    """Levels at their best, top-down, looked for in new directions too.

    Products with the columns that are there, which is all that sweeps look at, never leave their span where it is that
    of singular vectors, though not of the leading ones.
    """
    for level, rank in enumerate(factors.ranks):
        if rank:
            B, C = factors.left[level], factors.right[level]
            left = np.pad(B, ((0, 0), (0, 1)))
            factors.left[level], factors.right[level] = left, left if C is B else np.pad(C, ((0, 0), (0, 1)))
            _improve(problem, factors, level)  # a column of zeros asks for them; what comes is in order
            B, C = factors.left[level], factors.right[level]
            left = np.ascontiguousarray(B[:, :rank])
            factors.left[level], factors.right[level] = left, left if C is B else np.ascontiguousarray(C[:, :rank])
    _improve_diagonal(problem, factors)
    return left_over(problem.source, factors, problem.workers)


def als(problem: Problem, factors: Factors) -> float:
    """Alternating least squares: all left factors at their best, then all right ones."""
    source, workers = problem.source, problem.workers
    _fill(factors, problem.rng)
    regress_left(source.times, factors, workers)
    turned = factors.transposed
    explained = regress_left(source.transposed_times, turned, workers)
    factors.right = turned.left
    _even(factors)
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
        diagonal = problem.source.diagonal
        wanted = diagonal - factors.low_rank_diagonal()
        wanted[np.abs(wanted) <= ROUNDING * np.abs(diagonal)] = 0.0  # a uniqueness of 1e-16 would be none
        factors.diag = np.maximum(wanted, problem.structure.least_diagonal)


def _even(factors: Factors) -> None:
    """Columns of equal length on both sides: left alone, one side would grow, and sums lose digits."""
    rows, columns = factors.grid.rows.offsets, factors.grid.columns.offsets
    for level, (B, C) in enumerate(zip(factors.left, factors.right, strict=True)):
        if B.shape[1]:
            factors.left[level], factors.right[level] = evened(B, C, rows[level], columns[level])


def _fill(factors: Factors, rng: np.random.Generator) -> None:
    """Random right factors where there are none: least squares has nothing else to begin with."""
    for level, C in enumerate(factors.right):
        absent = np.abs(C).max(axis=0, initial=0.0) == 0
        if absent.any():
            filled, left = C.copy(), factors.left[level].copy()
            filled[:, absent] = rng.standard_normal((len(C), int(absent.sum())))
            left[:, absent] = 0.0
            factors.right[level], factors.left[level] = filled, left
