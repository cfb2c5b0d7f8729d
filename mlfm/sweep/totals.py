"""Sums over the groups: up, F'Y summed over every group's features; down, to each leaf group what its path has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlfm.sweep.route import Route

Floats = NDArray[np.float64]


class Totals(Route):
    """The walk with independent factors: what a sweep is where R is the identity and A nothing."""

    def _pass_up(
        self, level: int, nodes: slice, parents: NDArray[np.intp], B: Floats, B_parent: Floats, B_shared: Floats
    ) -> None:
        inner = B_parent.shape[1]
        self.b[level][nodes] = B[:, inner:]
        # Children of a node stand one after the other, and every node has some.
        B_parent += np.add.reduceat(B[:, :inner], np.searchsorted(parents, np.arange(len(B_parent))), axis=0)

    def _pass_down(
        self, level: int, nodes: slice, parents: NDArray[np.intp], Z_shared: Floats, Z_parent: Floats, Z: Floats
    ) -> None:
        inner = Z_parent.shape[1]
        Z[:, :inner] = Z_parent[parents]
        Z[:, inner:] = self.b[level][nodes]
