"""Cutting the tree into tasks: pieces of work of about the same size that threads can do in any order.

The cut depends on the tree alone, never on the number of threads, and sums over tasks are taken in task order: so
results do not depend on the number of threads either.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlfm.sweep.tree import Tree

SMALLEST = 256  # features: below this a task is not worth handing out
WORTH = 10_000_000  # features x factors x columns that a task should have: a millisecond or so
ROOM = 1 << 20  # numbers that the matrices of a task's leaf groups may take
READING = 8  # multiplications that a loading could enter while the next one is read
MOST = 64  # tasks aimed at, whatever the number of features


@dataclass(frozen=True, eq=False)
class Task:
    """A run of features and the part of the tree that lies wholly inside it, below a host node.

    The host is either a leaf group, of which the task is a piece, or an inner node, and then the task is a run of
    its children with everything below them.
    """

    host: tuple[int, int]  # level and number of the node
    features: slice
    nodes: tuple[slice, ...]  # of the levels below the host's; empty where the host is a leaf group
    parents: tuple[NDArray[np.intp], ...]  # of those nodes, counted from the task's first node a level above
    leaves: NDArray[np.intp]  # boundaries of the leaf groups, counted from the task's first feature

    @property
    def n_leaves(self) -> int:
        return len(self.leaves) - 1


def _piece_of_leaf(host: tuple[int, int], start: int, stop: int) -> Task:
    return Task(host, slice(start, stop), (), (), np.array([0, stop - start], dtype=np.intp))


def _run_of_children(tree: Tree, host: tuple[int, int], first: int, last: int) -> Task:
    level = host[0] + 1
    start, stop = tree.offsets[level][first], tree.offsets[level][last]
    nodes = [slice(first, last)]
    parents = [np.zeros(last - first, dtype=np.intp)]
    for deeper in range(level + 1, len(tree.ranks)):
        above = nodes[-1]
        below = slice(int(tree.children[deeper - 1][above.start]), int(tree.children[deeper - 1][above.stop]))
        nodes.append(below)
        parents.append(tree.parents[deeper][below] - above.start)
    leaves = tree.leaves[nodes[-1].start : nodes[-1].stop + 1] - start
    return Task(host, slice(int(start), int(stop)), tuple(nodes), tuple(parents), leaves)


def finest_first(tree: Tree, task: Task) -> Iterator[tuple[int, slice, NDArray[np.intp]]]:
    """The nodes inside a task, level by level: level, nodes, and their boundaries in the task."""
    for depth in reversed(range(len(task.nodes))):
        nodes, level = task.nodes[depth], task.host[0] + 1 + depth
        yield level, nodes, tree.offsets[level][nodes.start : nodes.stop + 1] - task.features.start


def task_width(tree: Tree, columns: int) -> int:
    """Features that a task should have, for data of so many columns.

    Without many columns the work is that of the moments of the loadings, or of reading them.
    """
    width = max(SMALLEST, -(-tree.n_features // MOST), WORTH // _work(tree.n_factors, columns))
    if columns:
        return width
    # Small groups: their matrices are what a task holds.
    return min(width, max(SMALLEST, ROOM * tree.n_features // (len(tree.leaves) * max(tree.n_factors, 1) ** 2)))


def _work(factors: int, columns: int) -> int:
    """Multiplications a feature, or what takes as long."""
    return max(factors * max(columns or factors, READING), 1)


def cut(tree: Tree, width: int) -> list[Task]:
    """Tasks of at most about ``width`` features each, in feature order.

    A node of more than half of that is a host of its own: all of its factors are then shared in its task.
    """
    tasks: list[Task] = []
    pending = [(0, 0)]  # nodes to cut, the first in feature order on top
    while pending:
        level, node = pending.pop()
        start, stop = (int(x) for x in tree.offsets[level][node : node + 2])
        if level == tree.leaf_level:
            pieces = max(1, -(-(stop - start) // width))
            bounds = start + (np.arange(pieces + 1) * (stop - start)) // pieces
            tasks += [_piece_of_leaf((level, node), int(a), int(b)) for a, b in itertools.pairwise(bounds)]
            continue
        child, last = (int(x) for x in tree.children[level][node : node + 2])
        bounds = tree.offsets[level + 1]
        large: list[tuple[int, int]] = []
        while child < last:
            first = child
            whole = level + 1 == tree.leaf_level
            while child < last and bounds[child + 1] - bounds[first] <= width:
                if not whole and 2 * (bounds[child + 1] - bounds[child]) > width:
                    break
                child += 1
            if child > first:
                tasks.append(_run_of_children(tree, (level, node), first, child))
            else:
                large.append((level + 1, child))
                child += 1
        pending += reversed(large)
    tasks.sort(key=lambda task: task.features.start)
    return tasks
