"""The errors of a leaf group's own parameters given all others: its loadings on its whole path, and uniquenesses.

In a group of few features their errors hang together: the group's factors are known by them alone. The information of
the group's parameters is that of :mod:`mlfm.inference.information` with what the sweep knows of a leaf group,
E = D^-1 F P, M = D^-1 - D^-1 F P F' D^-1 and G = I - P, P the covariance of the path's factors given the data. It
inverts under the constraints of the group's own rotation; those of coarser groups are held by the other features.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from mlfm.inference.identification import FLAT, constrained_inverse, flat_directions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def covariances(F: Floats, D: Floats, P: Floats, own: slice, fixed: Bools) -> Floats:
    """Of one observation, for leaf groups of one size: groups x m (r + 1) x m (r + 1), loadings row by row and then
    uniquenesses; 0 for those that are fixed, NaN for what is not identified.

    F (groups x m x r) and D (groups x m) are the parameters, ``own`` the columns of the groups' own factors.
    """
    H, C = _information(F, D, P), _constraints(F, D, own)
    groups, m, r = F.shape
    held = np.concatenate([np.zeros((groups, m * r), dtype=bool), fixed], axis=1)
    H[held[:, :, None] | held[:, None, :]] = 0
    C[np.broadcast_to(held[:, None, :], C.shape)] = 0
    g, i = np.nonzero(held)
    H[g, i, i] = 1
    V = _constrained_inverses(H, C)
    V[held[:, :, None] | held[:, None, :]] = 0
    return V


def _information(F: Floats, D: Floats, P: Floats) -> Floats:
    groups, m, r = F.shape
    E = F @ P / D[:, :, None]
    M = -E @ (F / D[:, :, None]).swapaxes(1, 2)
    each = np.arange(m)
    M[:, each, each] += 1 / D
    G = np.eye(r) - P
    H = np.empty((groups, m * (r + 1), m * (r + 1)))
    FF = (
        M[:, :, None, :, None] * G[:, None, :, None, :] + E[:, :, None, None, :] * E.swapaxes(1, 2)[:, None, :, :, None]
    )
    FD = M[:, :, None, :] * E.swapaxes(1, 2)[:, None, :, :]
    H[:, : m * r, : m * r] = FF.reshape(groups, m * r, m * r)
    H[:, : m * r, m * r :] = FD.reshape(groups, m * r, m)
    H[:, m * r :, : m * r] = H[:, : m * r, m * r :].swapaxes(1, 2)
    H[:, m * r :, m * r :] = M**2 / 2
    return H


def _constraints(F: Floats, D: Floats, own: slice) -> Floats:
    """Derivatives of the elements of F_k' D^-1 F_k off the diagonal, F_k the loadings on the group's own factors."""
    groups, m, r = F.shape
    pairs = list(itertools.combinations(range(own.start, own.stop), 2))
    C = np.zeros((groups, len(pairs), m * (r + 1)))
    each = np.arange(m)
    for row, (a, b) in enumerate(pairs):
        f, g = F[:, :, a], F[:, :, b]
        C[:, row, each * r + a] = g / D
        C[:, row, each * r + b] = f / D
        C[:, row, m * r + each] = -f * g / D**2
    return C


def _constrained_inverses(H: Floats, C: Floats) -> Floats:
    """:func:`mlfm.inference.identification.constrained_inverse` of many; one by one where one is not regular."""
    curvature = np.einsum("kii->ki", H)
    regular = bool((curvature > 0).all())
    if regular:
        unit = 1 / np.sqrt(curvature)
        A = H * unit[:, :, None] * unit[:, None, :]
        Q = np.linalg.qr((C * unit[:, None, :]).swapaxes(1, 2))[0].swapaxes(1, 2)
        QA = Q @ A
        half = Q.swapaxes(1, 2) @ (QA - (QA @ Q.swapaxes(1, 2) / 2 + np.eye(Q.shape[1]) / 2) @ Q)
        A -= half + half.swapaxes(1, 2)
        try:
            pivots = np.einsum("kii->ki", np.linalg.cholesky(A))
            regular = bool((pivots**2 > FLAT).all())
        except np.linalg.LinAlgError:
            regular = False
    if not regular:
        return np.stack([_one_by_one(*pair) for pair in zip(H, C, strict=True)])
    V = np.asarray(np.linalg.inv(A), dtype=np.float64) - Q.swapaxes(1, 2) @ Q
    V *= unit[:, :, None]
    V *= unit[:, None, :]
    return V


def _one_by_one(H: Floats, C: Floats) -> Floats:
    directions, flat = flat_directions(H, C)
    V = constrained_inverse(H, np.concatenate([C, directions]))
    V[flat], V[:, flat] = np.nan, np.nan
    return V
