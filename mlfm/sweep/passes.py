"""The two passes of the sweep: up, the likelihood; down, the posterior of the factors (PHB, section 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.tree import backward, eliminate, forward, path_covariance
from mlfm.sweep.route import ONLY, Handed, Products, Route
from mlfm.sweep.tasks import Task
from mlfm.sweep.threads import Workers
from mlfm.sweep.tree import Tree

Floats = NDArray[np.float64]


class Moments(NamedTuple):
    """C = F'D^-1 F and B = F'D^-1 Y of a task's leaf groups; B of the factors of its host's path once for all."""

    C: Floats  # leaves x r x r, lower triangles
    B_shared: Floats  # shared x columns
    B_inner: Floats  # leaves x (r - shared) x columns


class Posterior(NamedTuple):
    """Posterior means Z and covariances P of the factors of a task's leaf groups; Z of the host's path once for all."""

    Z_shared: Floats  # shared x columns
    Z_inner: Floats  # leaves x (r - shared) x columns
    P: Floats  # leaves x r x r


#: Fills the moments of a task, zeros at first.
FillMoments = Callable[[Task, Moments], None]
#: Takes a task's number, the task, and the posterior of its leaf groups.
Visitor = Callable[[int, Task, Posterior], None]
#: Fills the moments of the next sweep from the posterior of this one.
Renewal = Callable[[Task, Posterior, Moments], None]
#: Takes a run of nodes of one level and the posterior covariances of their paths (nodes x path x path).
Watcher = Callable[[int, slice, Floats], None]


def _watch_nothing(level: int, nodes: slice, P: Floats) -> None:
    pass


class Elimination:
    """R, A and the log-determinant of every node of a tree: the parameters' part of a sweep."""

    def __init__(self, tree: Tree) -> None:
        nodes = [tree.n_nodes(level) for level in range(len(tree.ranks))]
        self.R = [np.empty((p, o, o)) for p, o in zip(nodes, tree.ranks, strict=True)]
        self.A = [np.empty((p, o, c)) for p, o, c in zip(nodes, tree.ranks, tree.columns[:-1], strict=True)]
        self.logdets = [np.empty(p) for p in nodes]

    @property
    def logdet(self) -> float:
        """log det(I + ...) of all nodes: log det Sigma less the sum of log D."""
        return float(sum(level.sum() for level in self.logdets))


class Sweep(Route):
    """The walk that integrates the factors out, and the two passes that make and use R, A and b of every node.

    ``upward`` and ``downward`` do all of it; where R and A are known, ``forward`` and ``backward`` alone take other
    right-hand sides through.

    Parameters
    ----------
    tree : Tree
    columns : int
        Columns of the right-hand sides B: observations of data, or vectors to solve for; 0 for the
        parameters' part alone (R, A and the log-determinant).
    width : int, optional
        Features that a task should have.
    elimination : Elimination, optional
        R and A that are known already.
    """

    def __init__(
        self, tree: Tree, columns: int, width: int | None = None, elimination: Elimination | None = None
    ) -> None:
        super().__init__(tree, columns, width)
        self.elimination = Elimination(tree) if elimination is None else elimination
        self.R, self.A = self.elimination.R, self.elimination.A

    @property
    def logdet(self) -> float:
        """log det(I + ...) of all nodes: log det Sigma less the sum of log D."""
        return self.elimination.logdet

    @property
    def explained(self) -> float:
        """The sum of ||b||^2 over all nodes: what the factors take off the quadratic form."""
        return float(sum(np.vdot(b, b) for b in self.b))

    def explained_by_column(self) -> Floats:
        """The same, column by column of the right-hand sides."""
        total = np.zeros(self.columns)
        for b in self.b:
            total += np.einsum("kon,kon->n", b, b)
        return total

    def upward(self, fill: FillMoments, workers: Workers) -> None:
        """From the leaf groups' moments to R, A, b and the log-determinant of every node."""

        def ascend(task: Task) -> Handed:
            moments = self._room_for_moments(task)
            fill(task, moments)
            return self._ascend(task, moments)

        self._gather(ascend, self._ascend_one, workers)

    def downward(self, visit: Visitor, workers: Workers, watch: Watcher = _watch_nothing) -> None:
        """From R, A and b to the posterior of every leaf group's path, handed to ``visit`` task by task.

        ``watch`` sees the posterior covariance of every node on the way, each node once.
        """
        means, covariances = self._descend_top(), self._covariances_of_top(watch)

        def descend(i: int) -> None:
            task = self.tasks[i]
            visit(i, task, self._posterior(task, means, covariances, watch))

        workers.run(descend, len(self.tasks))

    def turn(self, renew: Renewal, workers: Workers) -> None:
        """Downward and upward again in one visit to every task: ``renew`` makes the next moments of the posterior."""
        means, covariances = self._descend_top(), self._covariances_of_top(_watch_nothing)

        def descend_and_ascend(task: Task) -> Handed:
            moments = self._room_for_moments(task)
            renew(task, self._posterior(task, means, covariances, _watch_nothing), moments)
            return self._ascend(task, moments)

        self._gather(descend_and_ascend, self._ascend_one, workers)

    def _room_for_moments(self, task: Task) -> Moments:
        r = self.tree.n_factors
        return Moments(np.zeros((task.n_leaves, r, r)), *self._room_for_products(task))

    def _ascend(self, task: Task, moments: Moments) -> Handed:
        """From the moments of a task's leaf groups to what it hands up to its host."""
        C, B_shared, B_inner = moments
        for level, nodes, parents, above in self._upwards(task):
            C = self._eliminate(level, nodes, parents, above, C)
        return C[0], self._climb(task, Products(B_shared, B_inner))

    def _ascend_one(self, level: int, node: int, C: Floats, B: Floats) -> Handed:
        """What a node of the top hands to its parent."""
        (up,) = self._eliminate(level, slice(node, node + 1), ONLY, 1, C[None])
        return up, self._pass_one_up(level, node, B)

    def _eliminate(self, level: int, nodes: slice, parents: NDArray[np.intp], n_parents: int, C: Floats) -> Floats:
        known, c = self.elimination, self.tree.columns[level]
        C_parent = np.zeros((n_parents, c, c))
        eliminate(
            C, parents, known.R[level][nodes], known.A[level][nodes], self._room_for_messages(level, nodes),
            known.logdets[level][nodes], C_parent,
        )  # fmt: skip
        return C_parent

    def _room_for_messages(self, level: int, nodes: slice) -> Floats:
        """Room for what nodes tell their ancestors about themselves, a precision over their factors; not kept here."""
        c = self.tree.columns[level]
        return np.empty((nodes.stop - nodes.start, c, c))

    def _pass_up(
        self, level: int, nodes: slice, parents: NDArray[np.intp], B: Floats, B_parent: Floats, B_shared: Floats
    ) -> None:
        forward(B, parents, self.R[level][nodes], self.A[level][nodes], self.b[level][nodes], B_parent, B_shared)

    def _pass_down(
        self, level: int, nodes: slice, parents: NDArray[np.intp], Z_shared: Floats, Z_parent: Floats, Z: Floats
    ) -> None:
        backward(self.R[level][nodes], self.A[level][nodes], self.b[level][nodes], parents, Z_shared, Z_parent, Z)

    def _posterior(
        self, task: Task, means: dict[tuple[int, int], Floats], covariances: dict[tuple[int, int], Floats],
        watch: Watcher,
    ) -> Posterior:  # fmt: skip
        """Posterior of the paths of a task's leaf groups, from that of its host."""
        P = covariances[task.host]
        for level, nodes, parents in self._downwards(task):
            P = self._covariance(level, nodes, parents, P)
            watch(level, nodes, P)
        return Posterior(*self._descend(task, means), P)

    def _covariances_of_top(self, watch: Watcher) -> dict[tuple[int, int], Floats]:
        """Posterior covariances of the paths of the nodes above the tasks."""

        def step(level: int, nodes: slice, above: Floats) -> Floats:
            P = self._covariance(level, nodes, ONLY, above)
            watch(level, nodes, P)
            return P

        return self._spread(step, np.empty((1, 0, 0)))

    def _covariance(self, level: int, nodes: slice, parents: NDArray[np.intp], P_parent: Floats) -> Floats:
        m = self.tree.columns[level + 1]
        P = np.empty((nodes.stop - nodes.start, m, m))
        path_covariance(self.R[level][nodes], self.A[level][nodes], parents, P_parent, np.ones(len(P)), P)
        return P


class RecordingSweep(Sweep):
    """A sweep that keeps what each node tells its ancestors: with tiny groups that is more than the loadings."""

    def __init__(self, tree: Tree, columns: int, width: int | None = None) -> None:
        super().__init__(tree, columns, width)
        self.message = [np.empty((tree.n_nodes(level), c, c)) for level, c in enumerate(tree.columns[:-1])]

    def _room_for_messages(self, level: int, nodes: slice) -> Floats:
        return self.message[level][nodes]
