"""The walk through a tree of groups, task by task: up with sums for every node, down with every node's answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.sweep.tasks import Task, cut, task_width
from mlfm.sweep.threads import Workers
from mlfm.sweep.tree import Tree
from mlfm.tiles import tile_rows

Floats = NDArray[np.float64]


class Products(NamedTuple):
    """B = F'Y of a task's leaf groups; of the factors of its host's path once for all."""

    B_shared: Floats  # shared x columns
    B_inner: Floats  # leaves x (r - shared) x columns


class Means(NamedTuple):
    """Values Z of the factors of a task's leaf groups; of the host's path once for all."""

    Z_shared: Floats  # shared x columns
    Z_inner: Floats  # leaves x (r - shared) x columns


#: Fills the products of a task, zeros at first.
Fill = Callable[[Task, Products], None]
#: Takes a task and the values of its leaf groups' factors.
Take = Callable[[Task, Means], None]
#: What a task or a node hands up to its host or its parent, to be summed there.
Handed = tuple[Floats, ...]

ONLY = np.zeros(1, dtype=np.intp)  # the parent of a single node


class Route(ABC):
    """The tasks of a tree and the nodes above them, walked with the same number of columns each time.

    Parameters
    ----------
    tree : Tree
    columns : int
        Columns of the right-hand sides: observations of data, or vectors; 0 for none.
    width : int, optional
        Features that a task should have.
    """

    def __init__(self, tree: Tree, columns: int, width: int | None = None) -> None:
        self.tree, self.columns = tree, columns
        self.tasks = cut(tree, task_width(tree, columns) if width is None else width)
        #: Rows of data to handle at once.
        self.tile = tile_rows(columns, tree.n_factors)
        #: A value for each factor, level by level: nodes x own factors x columns.
        self.b = [np.empty((tree.n_nodes(level), rank, columns)) for level, rank in enumerate(tree.ranks)]
        # Nodes above the tasks, by level: all hosts and their ancestors.
        above: set[tuple[int, int]] = set()
        for task in self.tasks:
            level, node = task.host
            while (level, node) not in above:
                above.add((level, node))
                if level:
                    level, node = level - 1, int(tree.parents[level][node])
        self.top = [sorted(node for level, node in above if level == wanted) for wanted in range(len(tree.ranks))]

    def forward(self, fill: Fill, workers: Workers) -> None:
        """From the leaf groups' products to b of every node."""

        def ascend(task: Task) -> Handed:
            products = self._room_for_products(task)
            fill(task, products)
            return (self._climb(task, products),)

        self._gather(ascend, lambda level, node, B: (self._pass_one_up(level, node, B),), workers)

    def backward(self, take: Take, workers: Workers) -> None:
        """From b of every node to the values of every leaf group's path, handed to ``take`` task by task."""
        top = self._descend_top()
        workers.run(lambda i: take(self.tasks[i], self._descend(self.tasks[i], top)), len(self.tasks))

    @abstractmethod
    def _pass_up(
        self, level: int, nodes: slice, parents: NDArray[np.intp], B: Floats, B_parent: Floats, B_shared: Floats
    ) -> None:
        """b of a run of nodes from B of their paths, and what it leaves to their parents."""

    @abstractmethod
    def _pass_down(
        self, level: int, nodes: slice, parents: NDArray[np.intp], Z_shared: Floats, Z_parent: Floats, Z: Floats
    ) -> None:
        """Values of the paths of a run of nodes from those of their parents."""

    def _room_for_products(self, task: Task) -> Products:
        shared = self._shared(task)
        inner = self.tree.n_factors - shared
        return Products(np.zeros((shared, self.columns)), np.zeros((task.n_leaves, inner, self.columns)))

    def _shared(self, task: Task) -> int:
        """Factors of the host's path, which all of a task's leaf groups share."""
        return self.tree.columns[task.host[0] + 1]

    def _upwards(self, task: Task) -> Iterator[tuple[int, slice, NDArray[np.intp], int]]:
        """The runs of nodes inside a task, finest first: level, nodes, their parents, how many of these."""
        for depth in reversed(range(len(task.nodes))):
            above = task.nodes[depth - 1].stop - task.nodes[depth - 1].start if depth else 1
            yield task.host[0] + 1 + depth, task.nodes[depth], task.parents[depth], above

    def _downwards(self, task: Task) -> Iterator[tuple[int, slice, NDArray[np.intp]]]:
        """The runs of nodes inside a task, coarsest first: level, nodes, their parents."""
        for depth, (nodes, parents) in enumerate(zip(task.nodes, task.parents, strict=True)):
            yield task.host[0] + 1 + depth, nodes, parents

    def _gather(self, ascend: Callable[[Task], Handed], at_top: Callable[..., Handed], workers: Workers) -> None:
        """Run the tasks; then the top of the tree, few nodes, one after the other: sums in task order."""
        handed_up: list[Handed] = [()] * len(self.tasks)

        def run(i: int) -> None:
            handed_up[i] = ascend(self.tasks[i])

        workers.run(run, len(self.tasks))
        sums: dict[tuple[int, int], Handed] = {}

        def add(host: tuple[int, int], arrays: Handed) -> None:
            if host in sums:
                for total, array in zip(sums[host], arrays, strict=True):
                    total.__iadd__(array)
            else:
                sums[host] = arrays

        for task, arrays in zip(self.tasks, handed_up, strict=True):
            add(task.host, arrays)
        for level in reversed(range(len(self.tree.ranks))):
            for node in self.top[level]:
                arrays = at_top(level, node, *sums.pop((level, node)))
                if level:
                    add((level - 1, int(self.tree.parents[level][node])), arrays)

    def _climb(self, task: Task, products: Products) -> Floats:
        """From the products of a task's leaf groups to what it hands up to its host."""
        B_shared, B = products
        for level, nodes, parents, above in self._upwards(task):
            B_parent = np.zeros((above, self.tree.columns[level] - len(B_shared), self.columns))
            self._pass_up(level, nodes, parents, B, B_parent, B_shared)
            B = B_parent
        return B_shared

    def _pass_one_up(self, level: int, node: int, B: Floats) -> Floats:
        """What a node of the top hands to its parent."""
        B_parent = np.zeros((1, self.tree.columns[level], self.columns))
        self._pass_up(level, slice(node, node + 1), ONLY, B[None], B_parent, np.empty((0, self.columns)))
        return B_parent[0]

    def _descend_top(self) -> dict[tuple[int, int], Floats]:
        """Values of the paths of the nodes above the tasks."""

        def pass_down(level: int, nodes: slice, above: Floats) -> Floats:
            Z = np.empty((1, self.tree.columns[level + 1], self.columns))
            self._pass_down(level, nodes, ONLY, np.empty((0, self.columns)), above, Z)
            return Z

        return self._spread(pass_down, np.empty((1, 0, self.columns)))

    def _spread(self, step: Callable[[int, slice, Floats], Floats], origin: Floats) -> dict[tuple[int, int], Floats]:
        """Something of every node of the top, made by ``step`` from that of its parent."""
        top: dict[tuple[int, int], Any] = {}
        for level, nodes in enumerate(self.top):
            for node in nodes:
                above = top[level - 1, int(self.tree.parents[level][node])] if level else origin
                top[level, node] = step(level, slice(node, node + 1), above)
        return top

    def _descend(self, task: Task, top: dict[tuple[int, int], Floats]) -> Means:
        """Values of the paths of a task's leaf groups, from those of its host."""
        (Z_shared,) = top[task.host]
        Z = np.empty((1, 0, self.columns))
        for level, nodes, parents in self._downwards(task):
            Z_parent = Z
            Z = np.empty((nodes.stop - nodes.start, self.tree.columns[level + 1] - len(Z_shared), self.columns))
            self._pass_down(level, nodes, parents, Z_shared, Z_parent, Z)
        return Means(Z_shared, Z)
