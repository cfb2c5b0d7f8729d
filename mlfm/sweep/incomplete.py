"""The sweep where observations miss features: R and A for every variant of a node, columns in runs of one variant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.tree import eliminate, path_covariance
from mlfm._kernels.variants import backward_runs, forward_runs, sum_over
from mlfm.sweep.route import Route
from mlfm.sweep.tasks import ROOM
from mlfm.sweep.threads import Workers
from mlfm.sweep.tree import Tree
from mlfm.sweep.variants import Variants

Floats = NDArray[np.float64]
#: Fills C of a run of variants of leaf groups (lower triangles).
FillVariants = Callable[[slice, Floats], None]


class IncompleteSweep(Route):
    """The walk that integrates the factors out where values are missing.

    First :meth:`eliminate`, which makes R and A of every variant; then ``forward`` and ``backward`` take right-hand
    sides through, every run of columns with those of its variant.
    """

    def __init__(self, tree: Tree, variants: Variants, columns: int) -> None:
        super().__init__(tree, columns)
        self.variants = variants
        sizes = [
            (len(level.node), o, c) for level, o, c in zip(variants.levels, tree.ranks, tree.columns, strict=False)
        ]
        self.R = [np.empty((v, o, o)) for v, o, c in sizes]
        self.A = [np.empty((v, o, c)) for v, o, c in sizes]
        self.logdets = [np.empty(v) for v, o, c in sizes]

    @property
    def logdet(self) -> float:
        """log det(I + ...) of all nodes, summed over the observations."""
        return float(sum(known @ level.count for known, level in zip(self.logdets, self.variants.levels, strict=True)))

    def logdet_by_column(self) -> Floats:
        """log det(I + ...) of all nodes for each column."""
        # Runs of a node cover all columns: sums of the changes from one to the next.
        changes = np.zeros(self.columns + 1)
        for known, level in zip(self.logdets, self.variants.levels, strict=True):
            changes += np.bincount(level.bounds[::2], known[level.variant], minlength=len(changes))
            changes -= np.bincount(level.bounds[1::2], known[level.variant], minlength=len(changes))
        return np.cumsum(changes)[:-1]

    def eliminate(self, fill: FillVariants, workers: Workers) -> None:
        """From C of the leaf groups' variants to R, A and the log-determinant of all variants."""
        message = self._eliminate_level(self.tree.leaf_level, fill, workers)
        for depth in reversed(range(self.tree.leaf_level)):
            message = self._eliminate_level(depth, self._children_of(depth, message), workers)

    def _children_of(self, depth: int, message: Floats) -> FillVariants:
        """C of the variants of a level: what those of their children hand up, summed."""
        first, term = self.variants.levels[depth].below

        def fill(own: slice, C: Floats) -> None:
            sum_over(message, first[own.start : own.stop + 1], term, C)

        return fill

    def _eliminate_level(self, depth: int, fill: FillVariants, workers: Workers) -> Floats:
        level, m, c = self.variants.levels[depth], self.tree.columns[depth + 1], self.tree.columns[depth]
        message = np.empty((len(level.node), c, c))
        runs = _runs(len(level.node), m)

        def step(i: int) -> None:
            own = runs[i]
            C = np.empty((own.stop - own.start, m, m))
            fill(own, C)
            nobody, unused = np.zeros(len(C), dtype=np.intp), np.zeros((1, c, c))
            known = self.R[depth][own], self.A[depth][own], message[own], self.logdets[depth][own]
            eliminate(C, nobody, *known, unused)

        workers.run(step, len(runs))
        return message

    def covariances(self, workers: Workers) -> Floats:
        """Posterior covariances of the paths of the leaf groups' variants, summed over each one's observations."""
        S = np.empty((0, 0, 0))
        for depth in range(len(self.tree.ranks)):
            S = self._covariances_of_level(depth, S, workers)
        return S

    def _covariances_of_level(self, depth: int, above: Floats, workers: Workers) -> Floats:
        level, m, c = self.variants.levels[depth], self.tree.columns[depth + 1], self.tree.columns[depth]
        first, term = level.above
        S = np.empty((len(level.node), m, m))
        runs = _runs(len(level.node), m)

        def step(i: int) -> None:
            own = runs[i]
            parents = np.zeros((own.stop - own.start, c, c))
            if depth:
                sum_over(above, first[own.start : own.stop + 1], term, parents)
            each = np.arange(len(parents))
            path_covariance(self.R[depth][own], self.A[depth][own], each, parents, level.count[own], S[own])

        workers.run(step, len(runs))
        return S

    def leaf_paths_of_column(self, column: int, leaves: NDArray[np.intp]) -> Floats:
        """Posterior covariances of the paths of some leaf groups, given what is observed in one column."""
        nodes = leaves
        above = []
        for depth in reversed(range(len(self.tree.ranks))):
            nodes, place = np.unique(nodes, return_inverse=True)
            above.append((depth, nodes, place))
            nodes = self.tree.parents[depth][nodes]
        P, parents = np.empty((1, 0, 0)), np.zeros(len(above[-1][1]), dtype=np.intp)
        for depth, nodes, place in reversed(above):
            variant = self._variants_of_column(depth, nodes, column)
            m = self.tree.columns[depth + 1]
            below = np.empty((len(nodes), m, m))
            path_covariance(self.R[depth][variant], self.A[depth][variant], parents, P, np.ones(len(nodes)), below)
            P, parents = below, place
        return P[parents]

    def _variants_of_column(self, depth: int, nodes: NDArray[np.intp], column: int) -> NDArray[np.intp]:
        level = self.variants.levels[depth]
        runs = []
        for node in nodes:
            first, last = level.runs[node], level.runs[node + 1]
            runs.append(int(first + np.searchsorted(level.bounds[2 * first : 2 * last : 2], column, "right")) - 1)
        return level.variant[runs]

    def _pass_up(
        self, level: int, nodes: slice, parents: NDArray[np.intp], B: Floats, B_parent: Floats, B_shared: Floats
    ) -> None:
        forward_runs(
            B, parents, *self._columns(level, nodes), self.R[level], self.A[level], self.b[level][nodes], B_parent,
            B_shared,
        )  # fmt: skip

    def _pass_down(
        self, level: int, nodes: slice, parents: NDArray[np.intp], Z_shared: Floats, Z_parent: Floats, Z: Floats
    ) -> None:
        backward_runs(
            self.R[level], self.A[level], self.b[level][nodes], parents, *self._columns(level, nodes), Z_shared,
            Z_parent, Z,
        )  # fmt: skip

    def _columns(self, level: int, nodes: slice) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        known = self.variants.levels[level]
        return known.runs[nodes.start : nodes.stop + 1], known.bounds, known.variant


def _runs(count: int, size: int) -> list[slice]:
    """Runs of variants whose matrices have room."""
    step = max(1, ROOM // (16 * max(size, 1) ** 2))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
