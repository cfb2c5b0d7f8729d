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
    """The information has negative curvature: the estimates are at no maximum."""


class Constrained(NamedTuple):
    """The covariance of estimates; parameters that the data do not identify have none, and stand in ``flat``."""

    covariance: Floats
    flat: NDArray[np.bool_]


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


def constrained_inverse(H: Floats, C: Floats) -> Constrained:
    """Z (Z'HZ)^-1 Z' for Z a basis of {C t = 0}, in a form that needs no Z.

    With A = H + C'C it is A^-1 - A^-1 C' (C A^-1 C')^-1 C A^-1. Parameters are scaled to curvature 1 first.
    """
    curvature = np.diag(H)
    if (curvature < 0).any():
        raise NotAMaximum
    unit = 1 / np.sqrt(np.where(curvature > 0, curvature, 1))
    H = H * unit * unit[:, None]
    # Orthonormal rows, as the space is all that matters; rows of zeros (groups too small for their rank) fall away.
    C = _row_space(C * unit)
    A = H + C.T @ C
    flat = np.zeros(len(H), dtype=bool)
    try:
        root = linalg.cho_factor(A, lower=True)
        # A pivot is what a parameter's curvature of 1 leaves once those before it are known.
        if np.diag(root[0]).min() ** 2 < FLAT:
            raise linalg.LinAlgError
        inverse = linalg.cho_solve(root, np.eye(len(A)))
    except linalg.LinAlgError:
        values, vectors = np.linalg.eigh(A)
        if values[0] < -FLAT * values[-1]:
            raise NotAMaximum from None
        lost = values < FLAT * values[-1]
        flat = np.einsum("ij,ij->i", vectors[:, lost], vectors[:, lost]) > TOUCHED
        inverse = (vectors[:, ~lost] / values[~lost]) @ vectors[:, ~lost].T
    if len(C):
        CA = C @ inverse
        inverse -= CA.T @ linalg.solve(CA @ C.T, CA, assume_a="pos")
    inverse *= unit
    inverse *= unit[:, None]
    return Constrained(inverse, flat)


def _row_space(C: Floats) -> Floats:
    """An orthonormal basis of the space of the rows."""
    C = C[np.abs(C).max(axis=1, initial=0.0) > 0]
    if not len(C):
        return C
    return np.ascontiguousarray(linalg.qr(C.T, mode="economic")[0].T)
