"""The canonical rotation as constraints on parameters, and the covariance of estimates that obey them.

In every group F_k' D^-1 F_k is diagonal. With H the information, singular along rotations inside groups, and C the
derivatives of the constraints, the estimates' covariance is that of the tangent space {C t = 0}: Z (Z'HZ)^-1 Z', Z its
basis (Silvey 1959, Annals of Mathematical Statistics 30; Jennrich 1974, Psychometrika 39, for rotated loadings).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from mlfm.parameters import Layout
from mlfm.sweep import Tree

Floats = NDArray[np.float64]
FLAT = 1e-9  # of the largest curvature, below which a direction is not identified
TOUCHED = 1e-6  # share of a parameter in such directions, above which it is not identified either


class NotAMaximum(ValueError):
    """The information has negative curvature, or none, where it should have some: the estimates are at no maximum."""


class Flat(NamedTuple):
    """What the data do not identify though the constraints hold: directions, a row each, and parameters in them."""

    directions: Floats
    parameters: NDArray[np.bool_]


def rotation_constraints(tree: Tree, layout: Layout, F: Floats, D: Floats) -> Floats:
    """Derivatives of the elements of F_k' D^-1 F_k off the diagonal, a row each, by all parameters."""
    first, last = layout.n_features * layout.n_covariates, layout.size - layout.n_features
    rows = []
    for level, bounds in enumerate(tree.offsets):
        own = tree.own(level)
        for start, stop in itertools.pairwise(bounds):
            members = np.arange(start, stop)
            for a, b in itertools.combinations(range(own.start, own.stop), 2):
                f, g, d = F[members, a], F[members, b], D[members]
                row = np.zeros(layout.size)
                row[first + members * layout.n_factors + a] = g / d
                row[first + members * layout.n_factors + b] = f / d
                row[last + members] = -f * g / d**2
                rows.append(row)
    return np.array(rows).reshape(-1, layout.size)


def flat_directions(H: Floats, C: Floats) -> Flat:
    """Where the expected information H is flat, beyond rotations inside groups."""
    unit = _units(H)
    A, _ = _confined(H, C, unit)
    try:
        # A pivot is what is left of a parameter's curvature of 1 once those before it are known.
        known = np.diag(linalg.cholesky(A, lower=True)).min() ** 2 > FLAT
    except linalg.LinAlgError:
        known = False
    if known:
        return Flat(np.empty((0, len(H))), np.zeros(len(H), dtype=bool))
    values, vectors = np.linalg.eigh(A)
    lost = vectors[:, values < FLAT * values[-1]]
    return Flat(lost.T / unit, np.einsum("ij,ij->i", lost, lost) > TOUCHED)


def constrained_inverse(H: Floats, C: Floats) -> Floats:
    """Z (Z'HZ)^-1 Z' for Z a basis of {C t = 0}, in a form that needs no Z; parameters are scaled to curvature 1 first.

    With the rows of Q an orthonormal basis of those of C, A = (I - Q'Q) H (I - Q'Q) + Q'Q has the inverse
    Z (Z'HZ)^-1 Z' + Q'Q.
    """
    unit = _units(H)
    A, Q = _confined(H, C, unit)
    try:
        inverse = np.asarray(linalg.cho_solve(linalg.cho_factor(A, lower=True), np.eye(len(A))), dtype=np.float64)
    except linalg.LinAlgError:
        raise NotAMaximum from None
    inverse -= Q.T @ Q
    inverse *= unit
    inverse *= unit[:, None]
    return inverse


def _units(H: Floats) -> Floats:
    """Units of the parameters in which each has curvature 1, or 0."""
    curvature = np.diag(H)
    if (curvature < 0).any():
        raise NotAMaximum
    return np.asarray(1 / np.sqrt(np.where(curvature > 0, curvature, 1)), dtype=np.float64)


def _confined(H: Floats, C: Floats, unit: Floats) -> tuple[Floats, Floats]:
    """A and Q of :func:`constrained_inverse`."""
    H, Q = H * unit * unit[:, None], _row_space(C * unit)
    QH = Q @ H
    half = Q.T @ (QH - (QH @ Q.T / 2 + np.eye(len(Q)) / 2) @ Q)
    return H - half - half.T, Q


def _row_space(C: Floats) -> Floats:
    """An orthonormal basis of the space of the rows."""
    C = C[np.abs(C).max(axis=1, initial=0.0) > 0]
    if not len(C):
        return C
    return np.ascontiguousarray(linalg.qr(C.T, mode="economic")[0].T)
