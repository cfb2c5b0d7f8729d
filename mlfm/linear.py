"""Linear maps that the tree makes cheap: F'Y, F Z, Sigma^-1 Y and the factors of Sigma^-1.

Arrays are in group order; F holds compressed loadings. A :class:`~mlfm.sweep.Totals` takes the factors as they are, a
:class:`~mlfm.sweep.Sweep` as they are given the data.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import combine, divide_by_roots, leaf_moments, leaf_products, take_from_ancestors
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
    return sweep.elimination, inflation


def solve(sweep: Sweep, F: Floats, D: Floats, Y: Floats, workers: Workers) -> Floats:
    """Sigma^-1 Y = D^-1 (Y - F Z), with R and A known: the posterior mean of the unique parts over their variances."""
    precisions = 1 / D
    gather(sweep, F, precisions, Y, workers)
    return scatter(sweep, F, Y, np.ones_like(D), -1.0, precisions, workers)


def divide_by_paths(tree: Tree, known: Elimination, X: Floats, workers: Workers) -> Floats:
    """X_g U_g^-1 for every leaf group, U_g with R' of its path's nodes on the diagonal and A below.

    With X = D^-1 F these are the factors H of Sigma^-1 = D^-1 - H H' (the recursive Sherman-Morrison-Woodbury identity
    of PHB, section 4). The factors' covariance given the data is P_g = U_g^-1 U_g^-T.
    """

    quotient = np.empty_like(X)

    def divide(i: int) -> None:
        own = tasks[i].features
        quotient[own] = X[own]
        for level, nodes, offsets in finest_first(tree, tasks[i]):
            divide_by_roots(quotient[own], tree.columns[level], offsets, known.R[level][nodes])
            take_from_ancestors(quotient[own], offsets, known.A[level][nodes])

    tasks = cut(tree, task_width(tree, 0))
    workers.run(divide, len(tasks))
    return quotient
