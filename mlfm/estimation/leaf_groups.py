"""Small leaf groups at their maximum, given the factors above them, all groups at once (documentation: "The model").

With the factors above a leaf group as the missing data of an EM step, and its own factors integrated out, its part of
the expected log-likelihood is that of a flat factor model of a few features with regressors (an ECME step: Liu and
Rubin 1994; expanded like the EM step). Its maximum takes nothing but the group's moments, so that every group takes the
steps it needs, from its last maximum and from a start of its own, while the data are read once. Where the factors
above are well known, as they are with many small groups, a few such turns are a fit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.leaf_groups import cross_products, maximise
from mlfm.standardised import Reals
from mlfm.sweep import Task, Tree
from mlfm.sweep.tasks import SMALLEST

Floats = NDArray[np.float64]

LARGEST = SMALLEST  # features of a small group: a task holds it whole


class LeafGroups:
    """The leaf groups that are small, and the sums of squares and products of their features.

    A group of m features is small where its own decomposition (m^3) takes no longer than its part of an evaluation
    (m r columns).
    """

    def __init__(self, tree: Tree, Y: Reals) -> None:
        sizes, own = np.diff(tree.leaves), tree.ranks[tree.leaf_level]
        small = (sizes <= LARGEST) & (sizes**2 <= tree.n_factors * Y.shape[1]) & (own > 0)
        squares = np.where(small, sizes**2, 0)
        first = np.concatenate([[0], np.cumsum(squares)])
        self._own, self._leaves = own, tree.leaves
        self._places = np.where(small, first[:-1], -1)
        self._products = np.empty(first[-1])
        for group in np.flatnonzero(small):
            rows = Y[tree.leaves[group] : tree.leaves[group + 1]].astype(np.float64, copy=False)
            cross_products(rows, self._products[first[group] : first[group + 1]])
        self.any = bool(small.any())

    def small_in(self, task: Task) -> tuple[bool, bool]:
        """Whether some of a task's leaf groups are small, and whether all are."""
        small = self._places[self._numbers(task)] >= 0
        return bool(small.any()), bool(small.all())

    def maximise(
        self, task: Task, V: Floats, W: Floats, nobs: float, floor: Floats, penalty: float,
        F_old: Floats, D_old: Floats,
        F: Floats, D: Floats, *, afresh: bool,
    ) -> float:  # fmt: skip
        """A task's small groups at their maximum, in F and D; what their own parts of the log-likelihood gain.

        V are the moments of data and factors, W second moments of the factors, ``penalty`` is the penalty's weight; all
        arrays are the task's rows.
        """
        places = self._places[self._numbers(task)]
        return maximise(
            V, W, self._products, places, nobs, floor, penalty, task.leaves, self._own,
            F_old, D_old, afresh, F, D,
        )  # fmt: skip

    def _numbers(self, task: Task) -> slice:
        first = int(np.searchsorted(self._leaves, task.features.start, side="right")) - 1
        return slice(first, first + task.n_leaves)
