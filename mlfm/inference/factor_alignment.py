"""Loadings brought onto others of the same groups, of which they differ by a rotation inside each group at most.

F_k Q_k ~ target_k in every group k, in the metric of D^-1: ||D_k^-1/2 (F_k Q_k - target_k)|| is smallest where the
trace of Q_k' F_k' D_k^-1 target_k is largest, so that the products F_k' D_k^-1 target_k are all that is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mlfm._kernels.blocks import rotate

Floats = NDArray[np.float64]
#: From the products F_k' D_k^-1 target_k of every group (groups x rank x rank) to the Q_k.
Alignment = Callable[[Floats], Floats]


def signed_permutation(products: Floats) -> Floats:
    """Factors are put in the other ones' order and given their signs: the assignment problem, group by group."""
    if products.shape[1] == 1:
        return np.where(products < 0, -1.0, 1.0)
    Q = np.zeros_like(products)
    for k, own in enumerate(products):
        rows, columns = linear_sum_assignment(np.abs(own), maximize=True)
        Q[k, rows, columns] = np.where(own[rows, columns] < 0, -1.0, 1.0)
    return Q


def procrustes(products: Floats) -> Floats:
    """Any rotation or reflection (orthogonal Procrustes: Schoenemann 1966, Psychometrika 31): U V' of U S V'."""
    U, _, V = np.linalg.svd(products)
    return np.ascontiguousarray(U @ V)


ALIGNMENTS: Mapping[str, Alignment] = {"signs": signed_permutation, "procrustes": procrustes}


def aligned(
    F: Floats, target: Floats, D: Floats, offsets: Sequence[NDArray[np.intp]], ranks: Sequence[int], find: Alignment
) -> Floats:
    """Compressed loadings F Q, all in group order."""
    out, first = np.empty_like(F), 0
    for bounds, rank in zip(offsets, ranks, strict=True):
        own = slice(first, first + rank)
        first += rank
        if rank == 0:
            continue
        mine, theirs = np.ascontiguousarray(F[:, own]), target[:, own] / D[:, None]
        # One column of the target at a time: never more than features x factors.
        sums = [np.add.reduceat(mine * column[:, None], bounds[:-1], axis=0) for column in theirs.T]
        turned = np.empty_like(mine)
        rotate(mine, find(np.stack(sums, axis=2)), bounds, turned)
        out[:, own] = turned
    return out
