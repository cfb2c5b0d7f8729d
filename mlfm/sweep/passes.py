"""The two passes of the sweep: up, the likelihood; down, the posterior of the factors (PHB, section 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.tree import eliminate, substitute
from mlfm.sweep.tasks import Task, cut, task_width
from mlfm.sweep.threads import Workers
from mlfm.sweep.tree import Tree
from mlfm.tiles import tile_rows

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


#: Fills the moments of a task.
Fill = Callable[[Task, Moments], None]
#: Takes a task's number, the task, and the posterior of its leaf groups.
Visitor = Callable[[int, Task, Posterior], None]
#: Fills the moments of the next sweep from the posterior of this one.
Renewal = Callable[[Task, Posterior, Moments], None]
#: Takes a run of nodes of one level and the posterior covariances of their paths (nodes x path x path).
Watcher = Callable[[int, slice, Floats], None]


def _watch_nothing(level: int, nodes: slice, P: Floats) -> None:
    pass


class Sweep:
    """R, A and b of every node of a tree, and the two passes that write and read them.

    Parameters
    ----------
    tree : Tree
    columns : int
        Columns of the right-hand sides B: observations of data, or vectors to solve for; 0 for the
        parameters' part alone (R, A and the log-determinant).
    """

    def __init__(self, tree: Tree, columns: int, width: int | None = None) -> None:
        self.tree, self.columns = tree, columns
        self.tasks = cut(tree, task_width(tree, columns) if width is None else width)
        nodes = [tree.n_nodes(level) for level in range(len(tree.ranks))]
        self.R = [np.empty((p, o, o)) for p, o in zip(nodes, tree.ranks, strict=True)]
        self.A = [np.empty((p, o, c)) for p, o, c in zip(nodes, tree.ranks, tree.columns[:-1], strict=True)]
        self.b = [np.empty((p, o, columns)) for p, o in zip(nodes, tree.ranks, strict=True)]
        #: Rows of data to handle at once.
        self.tile = tile_rows(columns, tree.n_factors)
        #: What each node tells its ancestors about themselves: a precision over their factors.
        self.message = [np.empty((p, c, c)) for p, c in zip(nodes, tree.columns[:-1], strict=True)]
        self._logdet = [np.empty(p) for p in nodes]
        # Nodes above the tasks, by level: all hosts and their ancestors.
        above: set[tuple[int, int]] = set()
        for task in self.tasks:
            level, node = task.host
            while (level, node) not in above:
                above.add((level, node))
                if level:
                    level, node = level - 1, int(tree.parents[level][node])
        self.top = [sorted(node for level, node in above if level == wanted) for wanted in range(len(tree.ranks))]

    @property
    def logdet(self) -> float:
        """log det(I + ...) of all nodes: log det Sigma less the sum of log D."""
        return float(sum(level.sum() for level in self._logdet))

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

    def upward(self, fill: Fill, workers: Workers) -> None:
        """From the leaf groups' moments to R, A, b and the log-determinant of every node."""
        handed_up: list[tuple[Floats, Floats]] = [(np.empty(0), np.empty(0))] * len(self.tasks)

        def ascend(i: int) -> None:
            task = self.tasks[i]
            moments = self._room_for_moments(task)
            fill(task, moments)
            handed_up[i] = self._ascend(task, moments)

        workers.run(ascend, len(self.tasks))
        self._ascend_top(handed_up)

    def downward(self, visit: Visitor, workers: Workers, watch: Watcher = _watch_nothing) -> None:
        """From R, A and b to the posterior of every leaf group's path, handed to ``visit`` task by task.

        ``watch`` sees the posterior covariance of every node on the way, each node once.
        """
        top = self._descend_top(watch)

        def descend(i: int) -> None:
            visit(i, self.tasks[i], self._descend(self.tasks[i], top, watch))

        workers.run(descend, len(self.tasks))

    def turn(self, renew: Renewal, workers: Workers) -> None:
        """Downward and upward again in one visit to every task: ``renew`` makes the next moments of the posterior."""
        top = self._descend_top(_watch_nothing)
        handed_up: list[tuple[Floats, Floats]] = [(np.empty(0), np.empty(0))] * len(self.tasks)

        def descend_and_ascend(i: int) -> None:
            task = self.tasks[i]
            moments = self._room_for_moments(task)
            renew(task, self._descend(task, top, _watch_nothing), moments)
            handed_up[i] = self._ascend(task, moments)

        workers.run(descend_and_ascend, len(self.tasks))
        self._ascend_top(handed_up)

    def _room_for_moments(self, task: Task) -> Moments:
        r, shared = self.tree.n_factors, self._shared(task)
        return Moments(
            np.zeros((task.n_leaves, r, r)),
            np.empty((shared, self.columns)),
            np.empty((task.n_leaves, r - shared, self.columns)),
        )

    def _shared(self, task: Task) -> int:
        """Factors of the host's path, which all of a task's leaf groups share."""
        return self.tree.columns[task.host[0] + 1]

    def _ascend(self, task: Task, moments: Moments) -> tuple[Floats, Floats]:
        """From the moments of a task's leaf groups to what it hands up to its host."""
        C, B_shared, B = moments
        for depth in reversed(range(len(task.nodes))):
            above = task.nodes[depth - 1].stop - task.nodes[depth - 1].start if depth else 1
            level = task.host[0] + 1 + depth
            C, B = self._eliminate(level, task.nodes[depth], task.parents[depth], above, C, B, B_shared)
        return C[0], B_shared

    def _ascend_top(self, handed_up: list[tuple[Floats, Floats]]) -> None:
        """The top of the tree: few nodes, one after the other, sums in task order."""
        tree = self.tree
        sums: dict[tuple[int, int], tuple[Floats, Floats]] = {}

        def add(host: tuple[int, int], C: Floats, B: Floats) -> None:
            if host in sums:
                sums[host][0].__iadd__(C)
                sums[host][1].__iadd__(B)
            else:
                sums[host] = C, B

        for task, (C, B) in zip(self.tasks, handed_up, strict=True):
            add(task.host, C, B)
        only, nothing_shared = np.zeros(1, dtype=np.intp), np.empty((0, self.columns))
        for level in reversed(range(len(tree.ranks))):
            for node in self.top[level]:
                C, B = sums.pop((level, node))
                up_C, up_B = self._eliminate(level, slice(node, node + 1), only, 1, C[None], B[None], nothing_shared)
                if level:
                    add((level - 1, int(tree.parents[level][node])), up_C[0], up_B[0])

    def _eliminate(
        self, level: int, nodes: slice, parents: NDArray[np.intp], n_parents: int, C: Floats, B: Floats,
        B_shared: Floats,
    ) -> tuple[Floats, Floats]:  # fmt: skip
        c, shared = self.tree.columns[level], len(B_shared)
        up_C, up_B = np.zeros((n_parents, c, c)), np.zeros((n_parents, c - shared, self.columns))
        eliminate(
            C, B, parents, self.R[level][nodes], self.A[level][nodes], self.b[level][nodes],
            self.message[level][nodes], self._logdet[level][nodes], up_C, up_B, B_shared,
        )  # fmt: skip
        return up_C, up_B

    def _descend_top(self, watch: Watcher) -> dict[tuple[int, int], tuple[Floats, Floats]]:
        """Posterior of the paths of the nodes above the tasks."""
        no_factors = np.empty((1, 0, self.columns)), np.empty((1, 0, 0))
        top: dict[tuple[int, int], tuple[Floats, Floats]] = {}
        only, nothing_shared = np.zeros(1, dtype=np.intp), np.empty((0, self.columns))
        for level, nodes in enumerate(self.top):
            for node in nodes:
                above = top[level - 1, int(self.tree.parents[level][node])] if level else no_factors
                top[level, node] = self._substitute(level, slice(node, node + 1), only, nothing_shared, *above)
                watch(level, slice(node, node + 1), top[level, node][1])
        return top

    def _descend(self, task: Task, top: dict[tuple[int, int], tuple[Floats, Floats]], watch: Watcher) -> Posterior:
        """Posterior of the paths of a task's leaf groups, from that of its host."""
        (Z_shared,), P = top[task.host]
        Z = np.empty((1, 0, self.columns))
        for depth, (nodes, parents) in enumerate(zip(task.nodes, task.parents, strict=True)):
            Z, P = self._substitute(task.host[0] + 1 + depth, nodes, parents, Z_shared, Z, P)
            watch(task.host[0] + 1 + depth, nodes, P)
        return Posterior(Z_shared, Z, P)

    def _substitute(
        self, level: int, nodes: slice, parents: NDArray[np.intp], Z_shared: Floats, Z_parent: Floats,
        P_parent: Floats,
    ) -> tuple[Floats, Floats]:  # fmt: skip
        k, m = nodes.stop - nodes.start, self.tree.columns[level + 1]
        Z, P = np.empty((k, m - len(Z_shared), self.columns)), np.empty((k, m, m))
        substitute(
            self.R[level][nodes], self.A[level][nodes], self.b[level][nodes], parents, Z_shared, Z_parent, P_parent,
            Z, P,
        )  # fmt: skip
        return Z, P
