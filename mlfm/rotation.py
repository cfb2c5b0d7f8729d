"""Loadings are determined up to a rotation inside each group; the canonical one makes results comparable."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import leaf_moments, rotate
from mlfm.sweep import Tree
from mlfm.tiles import tile_rows

Floats = NDArray[np.float64]

# Of the largest eigenvalue of F_k'D^-1F_k: less than this is rounding.
ROUNDING = 1e-14


def canonical(tree: Tree, F: Floats, D: Floats) -> Floats:
    """Loadings with F_k' D^-1 F_k diagonal and decreasing in every group k, each factor's sum not negative.

    Loadings of a factor that is there by rounding alone are 0.
    """
    out = np.empty_like(F)
    no_data = np.empty((len(F), 0))
    for level, offsets in enumerate(tree.offsets):
        own, rank, nodes = tree.own(level), tree.ranks[level], tree.n_nodes(level)
        if rank == 0:
            continue
        mine = np.ascontiguousarray(F[:, own])
        gram = np.zeros((nodes, rank, rank))  # lower triangles, which is what eigh reads
        leaf_moments(mine, D, no_data, offsets, tile_rows(0, rank), gram, np.empty((0, 0)), np.empty((nodes, rank, 0)))
        values, vectors = np.linalg.eigh(gram)
        rounding = values <= ROUNDING * values[:, -1:]
        Q = np.ascontiguousarray(np.where(rounding[:, None], 0.0, vectors)[:, :, ::-1])
        turned = np.empty_like(mine)
        rotate(mine, Q, offsets, turned)
        signs = np.where(np.add.reduceat(turned, offsets[:-1], axis=0) < 0, -1.0, 1.0)
        out[:, own] = turned * np.repeat(signs, np.diff(offsets), axis=0)
    return out
