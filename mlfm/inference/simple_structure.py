"""Rotation of a group's loadings to simple structure, or towards a target.

Criteria are those of Bernaards and Jennrich (2005), *Gradient projection algorithms and software for arbitrary rotation
criteria in factor analysis*, Educational and Psychological Measurement 65(5), without matrices of features x features.

Loadings F become L = F M, factors z become M^-1 z, whose covariance Phi = (M'M)^-1 has ones on its diagonal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from statsmodels.multivariate.factor_rotation import procrustes

from mlfm.inference.gradient_projection import Criterion, Oblique, Orthogonal, descend

Floats = NDArray[np.float64]
#: Of the largest singular value of a group's loadings, or of M, what its smallest must have.
LEAST_LENGTH = 1e-8


class Turn(NamedTuple):
    """M of a group, and whether the search for it met its criterion."""

    M: Floats
    converged: bool


class Search(NamedTuple):
    """How a criterion is made small: gradient projection from no rotation and from random ones."""

    n_starts: int
    maxiter: int
    tol: float
    rng: np.random.Generator


def oblimin(gamma: float) -> Criterion:
    """1/4 <L^2, (I - gamma 1 1'/n) L^2 N>, N zero on its diagonal and one elsewhere (Jennrich and Sampson 1966).

    With orthogonal rotations it is the orthomax criterion less a constant: quartimax (0), varimax (1).
    """

    def criterion(L: Floats) -> tuple[float, Floats]:
        squares = L * L
        others = squares.sum(axis=1, keepdims=True) - squares
        others -= gamma * others.mean(axis=0)
        return float(np.vdot(squares, others)) / 4, L * others

    return criterion


def towards(target: Floats) -> Criterion:
    """1/2 ||L - target||^2 over the elements that are specified; the others are missing (Browne 2001)."""
    specified = ~np.isnan(target)
    wanted = np.where(specified, target, 0.0)

    def criterion(L: Floats) -> tuple[float, Floats]:
        off = specified * (L - wanted)
        return float(np.vdot(off, off)) / 2, off

    return criterion


def least(A: Floats, criterion: Criterion, oblique: bool, search: Search) -> Turn:
    """The best of the rotations that the starts lead to."""
    r = A.shape[1]
    best, found = np.inf, Turn(np.eye(r), False)
    rotations = Oblique() if oblique else Orthogonal()
    for start in range(search.n_starts):
        T = np.eye(r) if start == 0 else _random_rotation(r, search.rng)
        try:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                point, converged = descend(A, criterion, rotations, T, search.maxiter, search.tol)
        except np.linalg.LinAlgError:  # an oblique rotation that ran away
            continue
        if point.value < best:
            M = np.asarray(np.linalg.inv(point.T.T)) if oblique else point.T
            best, found = point.value, Turn(M, converged)
    return found


def promax(A: Floats, F: Floats, power: float, search: Search) -> Turn:
    """Varimax, then least squares towards its loadings, their sizes raised to a power (Hendrickson and White 1964).

    As in R: varimax sees A, with rows normalised perhaps, and the target is V |V|^(power - 1) with V rotated from F.
    """
    first = least(A, oblimin(1.0), False, search)
    V = F @ first.M
    S = procrustes(V, V * np.abs(V) ** (power - 1))
    return Turn(first.M @ S * np.sqrt(np.diag(np.linalg.inv(S.T @ S))), first.converged)


def tidy(F: Floats, turn: Turn) -> Turn:
    """The rotated factors ordered by the sums of squares of standardised loadings F, whose sums are made positive."""
    L = F @ turn.M
    order = np.argsort(-np.einsum("jk,jk->k", L, L), kind="stable")
    signs = np.where(L.sum(axis=0) < 0, -1.0, 1.0)
    return turn._replace(M=(turn.M * signs)[:, order])


def upright(F: Floats, turn: Turn, target: Floats) -> Turn:
    """Factors of which the target says no more than zeros, and so no sign, with loadings of positive sums."""
    open_sign = (np.isnan(target) | (target == 0)).all(axis=0)
    signs = np.where(open_sign & ((F @ turn.M).sum(axis=0) < 0), -1.0, 1.0)
    return turn._replace(M=turn.M * signs)


def full_rank(A: Floats) -> bool:
    """Whether no combination of the columns is zero."""
    if len(A) < A.shape[1]:
        return False
    lengths = np.linalg.svd(np.linalg.qr(A, mode="r"), compute_uv=False)
    return bool(lengths[-1] > LEAST_LENGTH * lengths[0])


def _random_rotation(r: int, rng: np.random.Generator) -> Floats:
    Q, R = np.linalg.qr(rng.standard_normal((r, r)))
    return np.asarray(Q * np.sign(np.diag(R)), dtype=np.float64)
