"""Gradient projection: the T that makes a criterion of rotated loadings small, orthogonal or oblique.

Bernaards and Jennrich (2005), *Gradient projection algorithms and software for arbitrary rotation criteria in factor
analysis*, Educational and Psychological Measurement 65(5): a step down the gradient, projected on the tangent space,
and back to the matrices that are allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: The value of a criterion at rotated loadings, to be made small, and its derivative.
Criterion = Callable[[Floats], tuple[float, Floats]]
STEPS = 11  # tried in one direction, each half as long as the one before


class Point(NamedTuple):
    """T, the loadings that it makes, and the criterion there."""

    T: Floats
    L: Floats
    value: float
    slope: Floats  # d criterion / dL


class Rotations(Protocol):
    """The matrices T that are allowed."""

    def loadings(self, A: Floats, T: Floats) -> Floats:
        """L, the loadings A rotated."""

    def gradient(self, A: Floats, point: Point) -> Floats:
        """d criterion / dT."""

    def tangent(self, T: Floats, G: Floats) -> Floats:
        """The part of G that leads along the matrices allowed."""

    def nearest(self, X: Floats) -> Floats:
        """The matrix allowed that is nearest to X."""


class Orthogonal:
    """L = A T, T'T = I."""

    def loadings(self, A: Floats, T: Floats) -> Floats:
        return A @ T

    def gradient(self, A: Floats, point: Point) -> Floats:
        return A.T @ point.slope

    def tangent(self, T: Floats, G: Floats) -> Floats:
        M = T.T @ G
        return G - T @ ((M + M.T) / 2)

    def nearest(self, X: Floats) -> Floats:
        U, _, V = np.linalg.svd(X, full_matrices=False)
        return np.asarray(U @ V)


class Oblique:
    """L = A T^-T, the columns of T of length 1."""

    def loadings(self, A: Floats, T: Floats) -> Floats:
        return np.asarray(A @ np.linalg.inv(T).T)

    def gradient(self, A: Floats, point: Point) -> Floats:
        return np.asarray(-(point.L.T @ point.slope @ np.linalg.inv(point.T)).T)

    def tangent(self, T: Floats, G: Floats) -> Floats:
        return np.asarray(G - T * (T * G).sum(axis=0))

    def nearest(self, X: Floats) -> Floats:
        return X / np.linalg.norm(X, axis=0)


def descend(
    A: Floats, criterion: Criterion, rotations: Rotations, T: Floats, maxiter: int, tol: float
) -> tuple[Point, bool]:
    """Down from T until the projected gradient is shorter than tol, and whether it came to be within maxiter steps."""

    def at(T: Floats) -> Point:
        L = rotations.loadings(A, T)
        return Point(T, L, *criterion(L))

    point, step = at(T), 1.0
    for _ in range(maxiter):
        down = rotations.tangent(point.T, rotations.gradient(A, point))
        length = float(np.linalg.norm(down))
        if length < tol:
            return point, True
        step *= 2
        for _ in range(STEPS):
            trial = at(rotations.nearest(point.T - step * down))
            if trial.value < point.value - step * length**2 / 2:
                break
            step /= 2
        point = trial
    return point, False
