"""The inverse of the block Fisher information: a block for each node's loadings, one for each uniqueness.

See the documentation page "The model", Fitting. The expected information of one node's loadings inverts in closed
form. With the node's own loadings F_o, its ancestors' F_a over its features, and the posterior covariance P of its
path,

    C    = I - P_oo                                            = F_o' (Sigma^-1)_kk F_o
    Pout = (P_aa^-1 - message)^-1                              the ancestors' covariance given everybody else
    K G  = D.G + F_o F_o'G + sum over deeper levels m of blockdiag(F_m F_m') G + F_a Pout F_a'G
    step = (K G - 1/2 F_o C^-1 F_o'G) C^-1

where K is the inverse of the node's block of Sigma^-1. All of F'G that this needs are sums over the leaf groups
below each node, so that one application takes one product of F' with G, a walk over the tree, and one product back.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import project, scoring_step, weighted_norms
from mlfm.sweep import Sweep, Task, Workers

Floats = NDArray[np.float64]

LEAST_UNIQUE_SHARE = 1e-3  # 1 - h is held above this


class Metric:
    """The inverse block information at a point; see the module's docstring.

    ``least_information`` bounds the eigenvalues of C, which lie between 0 (no information about a direction of a
    group's factors) and 1, from below: it shortens steps where the information is small, as it is for factors that
    hardly load on anything. At 1 the steps are much like those of EM.

    Filled by :meth:`observe` on the way down the tree, completed by :meth:`at`.
    """

    def __init__(self, sweep: Sweep, least_information: float) -> None:
        self._least_information = least_information
        self._sweep, self._tree = sweep, sweep.tree
        self._columns = np.array(sweep.tree.columns, dtype=np.intp)
        nodes = [sweep.tree.n_nodes(level) for level in range(len(sweep.tree.ranks))]
        self._outer = [np.empty_like(message) for message in sweep.message]
        self._inner = [np.empty((p, o, o)) for p, o in zip(nodes, sweep.tree.ranks, strict=True)]

    def observe(self, level: int, nodes: slice, P: Floats) -> None:
        """Take the posterior covariances of a run of nodes' paths."""
        c = self._tree.columns[level]
        if P.shape[1] == c:
            return  # a root without factors
        values, vectors = np.linalg.eigh(np.eye(P.shape[1] - c) - P[:, c:, c:])
        inverse = (vectors / np.maximum(values, self._least_information)[:, None, :]) @ vectors.transpose(0, 2, 1)
        self._inner[level][nodes] = inverse
        if c:
            above, message = P[:, :c, :c], self._sweep.message[level][nodes]
            outer = np.linalg.solve(np.eye(c) - above @ message, above)
            self._outer[level][nodes] = (outer + outer.transpose(0, 2, 1)) / 2

    def at(self, F: Floats, D: Floats, h: Floats) -> None:
        """Complete the metric with the loadings, uniquenesses and leverages of its point."""
        self._F, self._D = F, D
        self._variances = 2 * D**2 / np.maximum(1 - h, LEAST_UNIQUE_SHARE) ** 2

    def apply(self, GF: Floats, GD: Floats, workers: Workers) -> Floats:
        """The scoring step that a gradient by loadings and uniquenesses asks for: GF is overwritten by the loadings'
        part, and the uniquenesses' part is returned.
        """

        def visit(task: Task, T: Floats, S: Floats, Q: Floats) -> None:
            own = task.features
            step = np.empty_like(GF[own])
            scoring_step(self._F[own], self._D[own], GF[own], Q, S, self._columns, task.leaves, step)
            GF[own] = step

        self._walk(GF, workers, visit)
        return GD * self._variances

    def decrement(self, GF: Floats, GD: Floats, workers: Workers) -> float:
        """The product of a gradient with its scoring step (the squared Newton decrement), without the step."""
        parts: dict[int, float] = {}

        def visit(task: Task, T: Floats, S: Floats, Q: Floats) -> None:
            own = task.features
            norms = np.empty(own.stop - own.start)
            weighted_norms(self._D[own], GF[own], Q, self._columns, task.leaves, np.empty_like(GF[own]), norms)
            parts[own.start] = float(norms.sum() + np.vdot(T, S))

        self._walk(GF, workers, visit)
        return sum(parts[task.features.start] for task in self._sweep.tasks) + float(GD**2 @ self._variances)

    def _walk(self, GF: Floats, workers: Workers, visit: Callable[[Task, Floats, Floats, Floats], None]) -> None:
        """Hand ``visit`` each task's T = F'G of leaf groups, and S and Q such that the step is D G Q + F S."""
        tree, tasks = self._tree, self._sweep.tasks
        r = tree.n_factors
        # F'G over the features of every node: of leaf groups first, then summed towards the root.
        inside: list[list[Floats]] = [[] for _ in tasks]

        def ascend(i: int) -> None:
            task = tasks[i]
            T = np.zeros((task.n_leaves, r, r))
            project(self._F[task.features], GF[task.features], task.leaves, T)
            sums = [T]
            for parents in reversed(task.parents):
                firsts = np.searchsorted(parents, np.arange(parents[-1] + 1))
                sums.append(np.add.reduceat(sums[-1], firsts, axis=0))
            inside[i] = sums[::-1]

        workers.run(ascend, len(tasks))
        top: dict[tuple[int, int], Floats] = {}
        for task, sums in zip(tasks, inside, strict=True):
            top[task.host] = top.get(task.host, 0) + sums[0]
        for level in range(tree.leaf_level, 0, -1):
            for node in self._sweep.top[level]:
                parent = level - 1, int(tree.parents[level][node])
                top[parent] = top.get(parent, 0) + top[level, node]

        # Coefficients S of F, and Q = blockdiag(C^-1), over every path: from the root to the leaf groups.
        nothing = np.zeros((1, r, r)), np.zeros((1, r, r))
        only = np.zeros(1, dtype=np.intp)
        coefficients: dict[tuple[int, int], tuple[Floats, Floats]] = {}
        for level, nodes in enumerate(self._sweep.top):
            for node in nodes:
                above = coefficients[level - 1, int(tree.parents[level][node])] if level else nothing
                coefficients[level, node] = self._extend(level, slice(node, node + 1), only, top[level, node], *above)

        def descend(i: int) -> None:
            task = tasks[i]
            S, Q = coefficients[task.host]
            for depth, (nodes, parents) in enumerate(zip(task.nodes, task.parents, strict=True)):
                S, Q = self._extend(task.host[0] + 1 + depth, nodes, parents, inside[i][depth + 1], S, Q)
            visit(task, inside[i][-1], S @ Q, Q)

        workers.run(descend, len(tasks))

    def _extend(
        self, level: int, nodes: slice, parents: NDArray[np.intp], T: Floats, S_parent: Floats, Q_parent: Floats
    ) -> tuple[Floats, Floats]:
        """S and Q of a run of nodes from those of their parents, T being F'G over their features."""
        c, own = self._tree.columns[level], self._tree.own(level)
        S, Q = S_parent[parents], Q_parent[parents]
        S[:, :c, own] = self._outer[level][nodes] @ T[:, :c, own]
        S[:, own, :c] = T[:, own, :c]
        S[:, own, own] = T[:, own, own] - 0.5 * self._inner[level][nodes] @ T[:, own, own]
        Q[:, own, own] = self._inner[level][nodes]
        return S, Q
