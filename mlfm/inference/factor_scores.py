"""What observed values say of the factors, at given parameters, for any observations.

Regression scores are the factors' posterior means, Bartlett scores those of weighted least squares,
(F'D^-1 F)^-1 F'D^-1 (y - mean) over all factors together (Bartlett 1937, British Journal of Psychology 28): the same
sweep with R R' = C_oo in place of I + C_oo, a prior without any precision. Missing values are left out of F'D^-1,
pattern by pattern. Arrays are in group order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import leaf_moments
from mlfm.incomplete import first_leaf, whole_paths
from mlfm.linear import eliminate, gather
from mlfm.patterns import Patterns
from mlfm.sweep import Elimination, Means, Posterior, Sweep, Task, Tree, Workers
from mlfm.tiles import tile_rows

Floats = NDArray[np.float64]
#: Of a factor's information by itself, what must be left of it beside the other factors.
LEAST_LEFT = 1e-10


class Undetermined(ValueError):
    """Groups whose factors the observed features cannot tell from each other; holds their level and numbers."""

    def __init__(self, level: int, nodes: NDArray[np.intp]) -> None:
        super().__init__("factors are not determined")
        self.level, self.nodes = level, nodes
        #: Observations of the pattern where it was found out.
        self.rows: NDArray[np.intp] = np.empty(0, dtype=np.intp)


class Known(NamedTuple):
    """Observations that miss the same features, which they observe, and R and A of all nodes given these."""

    rows: NDArray[np.intp]
    seen: Floats  # n, 1 where observed and 0 elsewhere
    elimination: Elimination


def by_pattern(
    tree: Tree, F: Floats, D: Floats, missing: NDArray[np.bool_], prior: bool, workers: Workers
) -> Iterator[Known]:
    """R and A for each pattern of missing values (observations x features), with or without the factors' prior."""
    patterns = Patterns.of(missing)
    for s in range(len(patterns)):
        rows = patterns.rows[patterns.starts[s] : patterns.starts[s + 1]]
        seen = np.ones(len(D))
        seen[patterns.missing_by(s)] = 0
        observed = F * seen[:, None]
        try:
            known = eliminate(tree, observed, D, workers)[0] if prior else _without_prior(tree, observed, D)
        except Undetermined as error:
            error.rows = rows
            raise
        yield Known(rows, seen, known)


def posterior_means(tree: Tree, F: Floats, D: Floats, E: Floats, prior: bool, workers: Workers) -> list[Floats]:
    """Scores, level by level: nodes x own factors x observations. E is n x observations, residuals of the mean,
    missing where values are.
    """
    missing = np.isnan(E.T)
    out = [np.empty((tree.n_nodes(level), rank, E.shape[1])) for level, rank in enumerate(tree.ranks)]
    for rows, seen, known in by_pattern(tree, F, D, missing, prior, workers):
        Y = np.ascontiguousarray(np.where(seen[:, None] > 0, E[:, rows], 0.0))
        sweep = Sweep(tree, len(rows), elimination=known)
        gather(sweep, F, seen / D, Y, workers)
        for whole, part in zip(out, _own_means(sweep, workers), strict=True):
            whole[:, :, rows] = part
    return out


def own_covariances(tree: Tree, known: Elimination, workers: Workers) -> list[Floats]:
    """Covariances of the scores' errors among a node's own factors, level by level: nodes x own x own."""
    out = [np.zeros((tree.n_nodes(level), rank, rank)) for level, rank in enumerate(tree.ranks)]

    def watch(level: int, nodes: slice, P: Floats) -> None:
        own = tree.own(level)
        out[level][nodes] = P[:, own, own]

    def visit(i: int, task: Task, posterior: Posterior) -> None:
        pass

    sweep = Sweep(tree, 0, elimination=known)
    sweep.downward(visit, workers, watch)
    return out


def _own_means(sweep: Sweep, workers: Workers) -> list[Floats]:
    """Values of every node's own factors, from b of every node."""
    tree = sweep.tree
    out = [np.empty((tree.n_nodes(level), rank, sweep.columns)) for level, rank in enumerate(tree.ranks)]

    def take(task: Task, means: Means) -> None:
        paths, first = whole_paths(means), first_leaf(tree, task)
        starts = tree.leaves[first : first + len(paths)]
        for level, own in enumerate(out):
            own[np.searchsorted(tree.offsets[level], starts, side="right") - 1] = paths[:, tree.own(level)]

    sweep.backward(take, workers)
    return out


def _without_prior(tree: Tree, F: Floats, D: Floats) -> Elimination:
    """R R' = C_oo and A = R^-1 C_oa of every node; Undetermined where C_oo is singular."""
    r = tree.n_factors
    C = np.zeros((len(tree.leaves) - 1, r, r))
    no_products = np.empty((0, 0)), np.empty((len(C), r, 0))
    leaf_moments(F, D, np.empty((len(F), 0)), tree.leaves, tile_rows(0, r), C, *no_products)
    C = np.tril(C) + np.tril(C, -1).transpose(0, 2, 1)
    alone = np.einsum("kii->ki", C)
    known = Elimination(tree)
    for level in reversed(range(len(tree.ranks))):
        c = tree.columns[level]
        first_leaves = np.searchsorted(tree.leaves, tree.offsets[level][:-1])
        information = np.add.reduceat(alone[:, tree.own(level)], first_leaves, axis=0)
        own, across = C[:, c:, c:], C[:, c:, :c]
        _refuse_singular(level, own, information)
        known.R[level][...] = np.linalg.cholesky(own)
        known.A[level][...] = np.linalg.solve(known.R[level], across)
        known.logdets[level][...] = 2 * np.log(np.einsum("kii->ki", known.R[level])).sum(axis=1)
        if level:
            message = C[:, :c, :c] - known.A[level].transpose(0, 2, 1) @ known.A[level]
            C = np.add.reduceat(message, tree.children[level - 1][:-1], axis=0)
    return known


def _refuse_singular(level: int, own: Floats, information: Floats) -> None:
    if not own.shape[1]:
        return
    bare = information <= 0
    sizes = np.sqrt(np.where(bare, 1.0, information))
    left = np.linalg.eigvalsh(own / (sizes[:, :, None] * sizes[:, None, :]))[:, 0]
    singular = (left < LEAST_LEFT) | bare.any(axis=1)
    if singular.any():
        raise Undetermined(level, np.flatnonzero(singular))
