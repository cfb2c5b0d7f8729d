"""Crossing two maxima: of each group the part that makes the log-likelihood higher.

Maxima that differ often agree in the factors that groups share and differ in the own factors of some groups, which
hardly know of each other. So of two maxima the lower one may still be better in a group. The groups that differ are
exchanged one by one; those that raise the log-likelihood are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.estimation.problem import Point
from mlfm.sweep import Tree

Floats = NDArray[np.float64]

DIFFERENT = 0.02  # shares of a variance by which a group's parts differ
MOST = 40  # exchanges that are tried, those of the largest differences
RAISED = 1e-3  # nats


class Part(NamedTuple):
    """A group's rows, and the first of the columns that are exchanged."""

    difference: float
    rows: slice
    first: int


def crossed(
    tree: Tree, point: Point, llf: float, other: Point, loglike: Callable[[Point], float]
) -> tuple[Point, float] | None:
    """The point with what of the other raises its log-likelihood, and the log-likelihood; None if nothing does."""
    aligned = _aligned(tree, point[0], other[0]), other[1]
    tried = [(loglike(_exchanged(point, aligned, part)), part) for part in _different(tree, point, aligned)]
    taken: list[Part] = []
    for value, part in sorted(tried, key=lambda pair: -pair[0]):
        if value <= llf + RAISED and not taken:
            return None
        if any(_overlap(part.rows, own.rows) for own in taken):
            continue
        trial = _exchanged(point, aligned, part)
        trial_llf = loglike(trial) if taken else value
        if trial_llf > llf + RAISED:
            point, llf = trial, trial_llf
            taken.append(part)
        elif value <= llf:
            break
    return (point, llf) if taken else None


def distance(tree: Tree, point: Point, other: Point) -> Floats:
    """How far apart two points are, feature by feature: the largest difference of what a level's factors or the
    uniqueness are of the variance. Rotations make none.
    """
    n = len(point[0])
    apart = np.abs(point[1][:n] - other[1][:n])
    for level in range(len(tree.ranks)):
        own = tree.own(level)
        squares = [np.einsum("jk,jk->j", F[:, own], F[:, own]) for F in (point[0], other[0])]
        np.maximum(apart, np.abs(squares[0] - squares[1]), out=apart)
    return apart


def _aligned(tree: Tree, F: Floats, other: Floats) -> Floats:
    """The other loadings, rotated inside each group to come closest to F (Procrustes)."""
    out = np.empty_like(other)
    for level, offsets in enumerate(tree.offsets):
        own = tree.own(level)
        products = np.add.reduceat(other[:, own, None] * F[:, None, own], offsets[:-1], axis=0)
        U, _, V = np.linalg.svd(products)
        turn = np.repeat(U @ V, np.diff(offsets), axis=0)
        out[:, own] = np.einsum("jk,jkl->jl", other[:, own], turn)
    return out


def _different(tree: Tree, point: Point, other: Point) -> list[Part]:
    """Groups in which two points differ, with the loadings on the factors above them and without."""
    apart, parts = distance(tree, point, other), []
    for level in range(1, len(tree.ranks)):
        offsets = tree.offsets[level]
        largest = np.maximum.reduceat(apart, offsets[:-1])
        for node in np.flatnonzero(largest > DIFFERENT).tolist():
            rows = slice(int(offsets[node]), int(offsets[node + 1]))
            firsts = {0, tree.columns[level]}
            parts += [Part(float(largest[node]), rows, first) for first in sorted(firsts)]
    return sorted(parts, key=lambda part: -part.difference)[:MOST]


def _exchanged(point: Point, other: Point, part: Part) -> Point:
    F, x = point[0].copy(), point[1].copy()
    rows, n = part.rows, len(F)
    F[rows, part.first :] = other[0][rows, part.first :]
    # The rest is the uniquenesses and, where values are missing, each feature's coefficients.
    x[:n][rows] = other[1][:n][rows]
    x[n:].reshape(n, -1)[rows] = other[1][n:].reshape(n, -1)[rows]
    return F, x


def _overlap(a: slice, b: slice) -> bool:
    return bool(a.start < b.stop and b.start < a.stop)
