"""Sweeps that lower the sum of squares of what is left: block coordinate descent, and alternating least squares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import add_expanded
from mlfm.lowrank.blockwise import expanded, products
from mlfm.lowrank.factors import Factors
from mlfm.lowrank.remainder import Remainder
from mlfm.lowrank.sources import Source
from mlfm.lowrank.structures import Structure
from mlfm.sweep import Workers

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
#: Products with the blocks of a level.
Times = Callable[[int, Floats, Workers], Floats]
#: From the matrix, the factors (which it changes), the structure and random numbers: by how much a sweep lowers the
#: sum of squares of what is left.
Sweep = Callable[[Source, Factors, Structure, np.random.Generator, Workers], float]

RIDGE = 1e-12  # of the least squares' matrices, which are singular where columns are not needed


def bcd(source: Source, factors: Factors, structure: Structure, rng: np.random.Generator, workers: Workers) -> float:
    """Block coordinate descent: the levels one after the other, top-down and then bottom-up, each at its best.

    Parshakova, Hastie, Darve and Boyd, section 4.
    """
    levels = [level for level, rank in enumerate(factors.ranks) if rank]
    gain = 0.0
    for level in levels:
        gain += _best(source, factors, level, structure, rng, workers)
    gain += _best_diagonal(source, factors, structure)
    for level in reversed(levels[:-1]):
        gain += _best(source, factors, level, structure, rng, workers)
    return gain


def als(source: Source, factors: Factors, structure: Structure, rng: np.random.Generator, workers: Workers) -> float:
    """Alternating least squares: all left factors at their best, then all right ones.

    With the right factors fixed, the rows of the matrix that share a path are regressed on one r-column matrix, whose
    Gram matrix is a sum over the tree (Parshakova, Hastie, Darve and Boyd, section 4).
    """
    _fill(factors, rng)
    gain = _least_squares(source.times, factors, workers)
    turned = factors.transposed
    gain += _least_squares(source.transposed_times, turned, workers)
    factors.right = turned.left
    return gain + _best_diagonal(source, factors, structure)


METHODS: dict[str, Sweep] = {"bcd": bcd, "als": als}


def _best(
    source: Source, factors: Factors, level: int, structure: Structure, rng: np.random.Generator, workers: Workers
) -> float:
    """One level at its best."""
    rest = Remainder(source, factors, level, level, workers)
    step = structure.best(rest, factors.left[level], factors.right[level], rng)
    factors.left[level], factors.right[level] = step.left, step.right
    return step.gain


def _best_diagonal(source: Source, factors: Factors, structure: Structure) -> float:
    """The diagonal at its best."""
    if factors.diag is None:
        return 0.0
    wanted = source.diagonal - factors.low_rank_diagonal()
    best = np.maximum(wanted, structure.least_diagonal)
    gain = float(((wanted - factors.diag) ** 2).sum() - ((wanted - best) ** 2).sum())
    factors.diag = best
    return gain


def _least_squares(times: Times, factors: Factors, workers: Workers) -> float:
    """All left factors at their best, the right ones and the diagonal held fixed."""
    rows, columns = factors.grid.rows.offsets, factors.grid.columns.offsets
    levels = [level for level, rank in enumerate(factors.ranks) if rank]
    if not levels:
        return 0.0
    rights, leaf = [factors.right[level] for level in levels], levels[-1]
    P = np.hstack([times(level, C, workers) for level, C in zip(levels, rights, strict=True)])
    if factors.diag is not None:
        P -= factors.diag[:, None] * np.hstack(rights)
    old = np.hstack([factors.left[level] for level in levels])
    G = _path_gram(rights, levels, columns)
    # (P - B G) of the old factors is half the gradient; a ridge on the change leaves directions alone that G lacks.
    scale = np.sqrt(np.maximum(np.einsum("kii->ki", G), np.finfo(float).tiny))
    scaled = G / (scale[:, :, None] * scale[:, None, :]) + RIDGE * np.eye(G.shape[1])
    inverse = np.linalg.inv(scaled) / (scale[:, :, None] * scale[:, None, :])
    gradient = P.copy()
    add_expanded(old, G, rows[leaf], -1.0, gradient)
    change = expanded(gradient, inverse, rows[leaf])
    new = old + change
    # ||R||^2 falls by 2 <gradient, change> - <change G, change>
    gain = 2 * float(np.vdot(gradient, change)) - float(np.vdot(expanded(change, G, rows[leaf]), change))
    bounds = np.cumsum([0, *(C.shape[1] for C in rights)])
    for level, first, last in zip(levels, bounds[:-1], bounds[1:], strict=True):
        factors.left[level] = np.ascontiguousarray(new[:, first:last])
    return gain


def _path_gram(rights: list[Floats], levels: list[int], offsets: tuple[Integers, ...]) -> Floats:
    """X_g' X_g for every leaf group g: X_g holds, side by side, the right factors of the blocks on its path."""
    bounds, leaf = np.cumsum([0, *(C.shape[1] for C in rights)]), levels[-1]
    first = offsets[leaf][:-1]
    G = np.empty((len(first), bounds[-1], bounds[-1]))
    for j, finer in enumerate(levels):
        node = np.searchsorted(offsets[finer], first, side="right") - 1
        for i in range(j + 1):
            products_of_nodes = products(rights[i], rights[j], offsets[finer])[node]
            G[:, bounds[i] : bounds[i + 1], bounds[j] : bounds[j + 1]] = products_of_nodes
            G[:, bounds[j] : bounds[j + 1], bounds[i] : bounds[i + 1]] = products_of_nodes.swapaxes(1, 2)
    return G


def _fill(factors: Factors, rng: np.random.Generator) -> None:
    """Random right factors where there are none: least squares has nothing else to begin with."""
    for level, C in enumerate(factors.right):
        absent = np.abs(C).max(axis=0, initial=0.0) == 0
        if absent.any():
            filled = C.copy()
            filled[:, absent] = rng.standard_normal((len(C), int(absent.sum())))
            factors.right[level] = filled
            left = factors.left[level].copy()
            left[:, absent] = 0.0
            factors.left[level] = left
