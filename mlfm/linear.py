"""Linear maps that the tree makes cheap: F'Y, F Z, Sigma^-1 Y and the factors of Sigma^-1.

Arrays are in group order; F holds compressed loadings. A :class:`~mlfm.sweep.Totals` takes the factors as they are, a
:class:`~mlfm.sweep.Sweep` as they are given the data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import (
    combine,
    divide_by_roots,
    leaf_moments,
    leaf_products,
    multiply_paths,
    take_from_ancestors,
    weigh,
)
from mlfm.sweep import (
    Elimination,
    Means,
    Moments,
    Products,
    Route,
    Sweep,
    Task,
    Tree,
    Workers,
    cut,
    finest_first,
    task_width,
)
from mlfm.tiles import tile_rows

Floats = NDArray[np.float64]


def gather(route: Route, F: Floats, weights: Floats, Y: Floats, workers: Workers) -> None:
    """b of every node from F' diag(weights) Y."""

    def fill(task: Task, products: Products) -> None:
        own = task.features
        leaf_products(F[own], weights[own], Y[own], task.leaves, route.tile, *products)

    route.forward(fill, workers)


def scatter(route: Route, F: Floats, Y: Floats, before: Floats, sign: float, after: Floats, workers: Workers) -> Floats:
    """after (before Y + sign F Z), row by row, with the values Z that b of every node stand for."""
    out = np.empty_like(Y)

    def take(task: Task, means: Means) -> None:
        own = task.features
        combine(F[own], *means, task.leaves, route.tile, Y[own], before[own], sign, after[own], out[own])

    route.backward(take, workers)
    return out


def eliminate(tree: Tree, F: Floats, D: Floats, workers: Workers) -> tuple[Elimination, float]:
    """R and A of Sigma = F F' + D, and how much larger than its pivot a factor's information can be.

    That ratio, max (1 + [F'D^-1 F]_ii) / R_ii^2, is by how much the variance of a factor given the data grows by not
    knowing the others. Its logarithm is about the number of digits that the elimination loses.
    """
    sweep, no_data = Sweep(tree, 0), np.empty((len(D), 0))
    diagonals: dict[Task, Floats] = {}

    def fill(task: Task, moments: Moments) -> None:
        own = task.features
        leaf_moments(F[own], D[own], no_data[own], task.leaves, sweep.tile, *moments)
        diagonals[task] = np.einsum("kii->ki", moments.C).copy()

    sweep.upward(fill, workers)
    information = np.zeros((len(tree.leaves) - 1, tree.n_factors))
    for task in sweep.tasks:
        first = int(np.searchsorted(tree.leaves, task.features.start, side="right")) - 1
        information[first : first + task.n_leaves] += diagonals[task]
    inflation = 1.0
    for level, R in enumerate(sweep.R):
        first_leaves = np.searchsorted(tree.leaves, tree.offsets[level][:-1])
        total = np.add.reduceat(information[:, tree.own(level)], first_leaves, axis=0)
        pivots = np.einsum("kii->ki", R) ** 2
        inflation = max(inflation, float(((1 + total) / pivots).max(initial=1.0)))
    for array in (*sweep.R, *sweep.A):
        array.setflags(write=False)
    return sweep.elimination, inflation


def solve(sweep: Sweep, F: Floats, D: Floats, Y: Floats, workers: Workers) -> Floats:
    """Sigma^-1 Y = D^-1 (Y - F Z), with R and A known: the posterior mean of the unique parts over their variances."""
    precisions = 1 / D
    gather(sweep, F, precisions, Y, workers)
    return scatter(sweep, F, Y, np.ones_like(D), -1.0, precisions, workers)


def divide_by_paths(tree: Tree, known: Elimination, weights: Floats, F: Floats, workers: Workers) -> Floats:
    """diag(weights) F_g U_g^-1 for every leaf group, U_g with R' of its path's nodes on the diagonal and A below.

    With weights D^-1 these are the factors H of Sigma^-1 = D^-1 - H H' (the recursive Sherman-Morrison-Woodbury
    identity of PHB, section 4). The factors' covariance given the data is P_g = U_g^-1 U_g^-T.
    """
    roots = [_inverted(R) for R in known.R]
    shares = [root.swapaxes(1, 2) @ A for root, A in zip(roots, known.A, strict=True)]

    def below(level: int, node: int, above: Floats) -> Floats:
        """U^-1 of a node's path: R^-T on the diagonal, -R^-T A times that of its parent to the left of it."""
        c, o = tree.columns[level], tree.ranks[level]
        inverse = np.zeros((c + o, c + o))
        inverse[:c, :c] = above
        inverse[c:, :c] = -shares[level][node] @ above
        inverse[c:, c:] = roots[level][node].T
        return inverse

    def one_level(level: int, nodes: slice, offsets: NDArray[np.intp], X: Floats) -> None:
        divide_by_roots(X, tree.columns[level], offsets, known.R[level][nodes])
        take_from_ancestors(X, offsets, known.A[level][nodes])

    return _path_by_path(tree, weights, F, one_level, below, workers)


def whitened(tree: Tree, known: Elimination, weights: Floats, F: Floats, workers: Workers) -> Floats:
    """diag(weights) F with the factors of the finer levels divided out of each level's columns; weights D^(-1/2).

    From the finest level on V_o stands in the level's own columns, and X_a -= V_o (I + R')^-1 A for its ancestors'.
    """
    shares = [
        np.asarray(np.linalg.solve(np.eye(R.shape[1]) + R.swapaxes(1, 2), A), dtype=np.float64)
        for R, A in zip(known.R, known.A, strict=True)
    ]

    def below(level: int, node: int, above: Floats) -> Floats:
        c, o = tree.columns[level], tree.ranks[level]
        product = np.eye(c + o)
        product[:c, :c] = above
        product[c:, :c] = -shares[level][node] @ above
        return product

    def one_level(level: int, nodes: slice, offsets: NDArray[np.intp], X: Floats) -> None:
        take_from_ancestors(X, offsets, shares[level][nodes])

    return _path_by_path(tree, weights, F, one_level, below, workers)


def _path_by_path(
    tree: Tree,
    weights: Floats,
    F: Floats,
    one_level: Callable[[int, slice, NDArray[np.intp], Floats], None],
    below: Callable[[int, int, Floats], Floats],
    workers: Workers,
) -> Floats:
    """diag(weights) F, right of it what ``one_level`` does from the finest level to the coarsest.

    Inside a task level by level; the path of its host, which all of it shares, in one product with what ``below``
    makes of it from the top down.
    """
    tasks, out = cut(tree, task_width(tree, 0)), np.empty_like(F)
    paths: dict[tuple[int, int], Floats] = {}

    def path(level: int, node: int) -> Floats:
        if (level, node) not in paths:
            above = path(level - 1, int(tree.parents[level][node])) if level else np.empty((0, 0))
            paths[level, node] = below(level, node, above)
        return paths[level, node]

    hosts = [path(*task.host) for task in tasks]
    tile = tile_rows(0, tree.n_factors)

    ones = np.ones(len(F))

    def work(i: int) -> None:
        own, split = tasks[i].features, _split(tree, tasks[i].host[0])
        if not tasks[i].nodes:
            multiply_paths(weights[own], F[own], hosts[i], split, tile, out[own])
            return
        weigh(weights[own], F[own], out[own])
        for level, nodes, offsets in finest_first(tree, tasks[i]):
            one_level(level, nodes, offsets, out[own])
        multiply_paths(ones[own], out[own], hosts[i], split, tile, out[own])

    workers.run(work, len(tasks))
    return out


def _split(tree: Tree, level: int) -> int:
    """Where to part the columns of a path, so that the fewest products with zeros are made."""
    m = tree.columns[level + 1]
    return min(tree.columns[: level + 2], key=lambda c: m * c + (m - c) ** 2)


def _inverted(R: Floats) -> Floats:
    """Inverses of lower triangular matrices."""
    return np.tril(np.asarray(np.linalg.inv(R), dtype=np.float64))


def column_products(route: Route, X: Floats, Y: Floats, workers: Workers) -> Floats:
    """x'y of corresponding columns, summed in the order of the tasks."""
    parts = np.empty((len(route.tasks), X.shape[1]))

    def multiply(i: int) -> None:
        own = route.tasks[i].features
        np.einsum("jn,jn->n", X[own], Y[own], out=parts[i])

    workers.run(multiply, len(parts))
    return parts.sum(axis=0)
