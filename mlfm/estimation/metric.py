"""The inverse of the block Fisher information, loadings: a block for each node's.

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

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import project
from mlfm._kernels.metric import extend, observe, squared_length, sum_over_children
from mlfm._kernels.scoring import scoring_step
from mlfm.sweep import RecordingSweep, Workers

Floats = NDArray[np.float64]
#: Does something with a task, by its number, before or after the metric has.
Aside = Callable[[int], None]

LEAST_UNIQUE_SHARE = 1e-3  # 1 - h is held above this


def _nothing(i: int) -> None:
    pass


def uniqueness_variances(D: Floats, h: Floats) -> Floats:
    """The inverse information, an observation, of every uniqueness, from its leverage h = f P f' / D."""
    variances: Floats = 2 * D**2 / np.maximum(1 - h, LEAST_UNIQUE_SHARE) ** 2
    return variances


class Metric:
    """The inverse block information at a point; see the module's docstring.

    ``least_information`` bounds the eigenvalues of C, which lie between 0 (no information about a direction of a
    group's factors) and 1, from below: it shortens steps where the information is small, as it is for factors that
    hardly load on anything. At 1 the steps are much like those of EM.

    Filled by :meth:`observe` on the way down the tree, completed by :meth:`at`.
    """

    def __init__(self, sweep: RecordingSweep, least_information: float) -> None:
        self._least_information = least_information
        self._sweep, self._tree = sweep, sweep.tree
        self._columns = np.array(sweep.tree.columns, dtype=np.intp)
        nodes = [sweep.tree.n_nodes(level) for level in range(len(sweep.tree.ranks))]
        self._outer = [np.empty_like(message) for message in sweep.message]
        self._inner = [np.empty((p, o, o)) for p, o in zip(nodes, sweep.tree.ranks, strict=True)]

    @property
    def columns(self) -> NDArray[np.intp]:
        """Boundaries of the levels' columns of the compressed loadings."""
        return self._columns

    def observe(self, level: int, nodes: slice, P: Floats) -> None:
        """Take the posterior covariances of a run of nodes' paths."""
        message, inner, outer = self._sweep.message[level], self._inner[level], self._outer[level]
        observe(P, message[nodes], self._least_information, inner[nodes], outer[nodes])

    def at(self, F: Floats, D: Floats, GF: Floats, products: Sequence[tuple[Floats, Floats]]) -> None:
        """Complete the metric with the loadings and uniquenesses of its point, and the gradient by the loadings there.

        ``products`` are T = F'G and M = G'D G (blocks by level) of every task's leaf groups.
        """
        self._F, self._D, self._GF, self._products = F, D, GF, products

    def squared_length(self, workers: Workers) -> float:
        """The product of the gradient with its scoring step: the squared Newton decrement."""
        parts = np.empty(len(self._products))

        def measure(i: int, S: Floats, Q: Floats) -> None:
            T, M = self._products[i]
            parts[i] = squared_length(T, M, S, Q, self._columns)

        self._walk([T for T, _ in self._products], measure, workers)
        return float(parts.sum())

    def step(self, out: Floats, workers: Workers) -> None:
        """The scoring step that the gradient of the point asks for."""

        def scale(i: int, S: Floats, Q: Floats) -> None:
            own = self._sweep.tasks[i].features
            out[own] = self._GF[own]
            self._scale(i, S, Q, out)

        self._walk([T for T, _ in self._products], scale, workers)

    def apply(self, GF: Floats, workers: Workers, before: Aside = _nothing, after: Aside = _nothing) -> None:
        """The scoring step that any gradient asks for, in its place.

        ``before`` and ``after`` see every task while its rows of GF are in the cache.
        """
        tasks, r = self._sweep.tasks, self._tree.n_factors
        products = [np.empty((task.n_leaves, r, r)) for task in tasks]

        def ascend(i: int) -> None:
            own = tasks[i].features
            before(i)
            project(self._F[own], GF[own], tasks[i].leaves, products[i])

        def scale(i: int, S: Floats, Q: Floats) -> None:
            self._scale(i, S, Q, GF)
            after(i)

        workers.run(ascend, len(tasks))
        self._walk(products, scale, workers)

    def _scale(self, i: int, S: Floats, Q: Floats, G: Floats) -> None:
        task = self._sweep.tasks[i]
        own = task.features
        scoring_step(self._F[own], self._D[own], S, Q, self._columns, task.leaves, self._sweep.tile, G[own])

    def _walk(self, products: Sequence[Floats], visit: Callable[[int, Floats, Floats], None], workers: Workers) -> None:
        """From the products T = F'G of every task's leaf groups to S and Q such that the step is (D G + F S) Q."""
        tree, tasks, r = self._tree, self._sweep.tasks, self._tree.n_factors
        # F'G over the features of every node: summed from the leaf groups towards the root.
        inside: list[list[Floats]] = []
        top: dict[tuple[int, int], Floats] = {}
        for task, T in zip(tasks, products, strict=True):
            sums = [T]
            for parents in reversed(task.parents):
                total = np.empty((int(parents[-1]) + 1, r, r))
                sum_over_children(sums[-1], parents, total)
                sums.append(total)
            inside.append(sums[::-1])
            top[task.host] = top.get(task.host, 0) + sums[-1]
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
            visit(i, S, Q)

        workers.run(descend, len(tasks))

    def _extend(
        self, level: int, nodes: slice, parents: NDArray[np.intp], T: Floats, S_parent: Floats, Q_parent: Floats
    ) -> tuple[Floats, Floats]:
        """S and Q of a run of nodes from those of their parents, T being F'G over their features."""
        S, Q = np.empty_like(T), np.empty_like(T)
        extend(T, self._inner[level][nodes], self._outer[level][nodes], parents, S_parent, Q_parent, S, Q)
        return S, Q
