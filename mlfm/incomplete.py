"""The likelihood where values are missing: exact under missing at random, from one sweep over all patterns.

Missing values are left out of C and B (documentation: "Missing values"). The gradient is that of complete data, with
what is expected of the missing values in place of them: E y = f z, E y z' = f (P + z z'), E y^2 = f (P + z z') f' + D.

Arrays are in group order, and in the units of a fit: features of variance 1, residuals of first coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import combine, gradient, leaf_moments, leaf_products, rotate
from mlfm._kernels.gaps import fill_gaps, residuals, sum_of_products, variant_moments
from mlfm._kernels.variants import sum_over
from mlfm.likelihood import LOG_2PI
from mlfm.patterns import Patterns, spread
from mlfm.standardised import Reals, Standardised, triangle
from mlfm.sweep import IncompleteSweep, Means, Products, Task, Tree, Variants, Workers

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Incomplete:
    """Data with missing values: columns are observations, or rows of anything with the same sums of products.

    Of S patterns, pattern s has some of the columns and stands for counts[s] observations.
    """

    tree: Tree
    Y: Reals  # n x columns, zeros where values are missing
    X: Floats  # columns x q, the covariates
    counts: Floats  # S
    observed: Floats  # n, observations of each feature
    gaps: tuple[Integers, Integers]  # the columns where each feature is missing
    variants: Variants

    @classmethod
    def row_by_row(cls, tree: Tree, data: Standardised, patterns: Patterns) -> Incomplete:
        """Every column an observation, whatever its weight."""
        return cls._of(tree, data.Y, data.design, patterns, patterns.starts, np.ones(data.Y.shape[1]))

    @classmethod
    def summed_up(cls, tree: Tree, data: Standardised, patterns: Patterns) -> Incomplete:
        """Observations times the roots of their weights; those of a pattern, where there are more of them than of
        its observed features and covariates, replaced by a triangular factor.
        """
        Y, X, starts = _summed_up(data, patterns)
        return cls._of(tree, Y, X, patterns, starts, data.weights)

    @classmethod
    def _of(cls, tree: Tree, Y: Reals, X: Floats, patterns: Patterns, starts: Integers, weights: Floats) -> Incomplete:
        counts = patterns.sums(weights)
        first, which = patterns.by_feature(len(Y))
        missing = np.concatenate([[0.0], np.cumsum(counts[which])])
        observed = counts.sum() - (missing[first[1:]] - missing[first[:-1]])
        variants = Variants.of(tree, patterns.first, patterns.features, starts, counts)
        return cls(tree, Y, X, counts, observed, spread(starts, first, which), variants)

    @property
    def nobs(self) -> float:
        return float(self.counts.sum())


def _summed_up(data: Standardised, patterns: Patterns) -> tuple[Reals, Floats, Integers]:
    """Y, X and the columns of each pattern with as few columns as have the same sums of products."""
    n, q = data.coefficients.shape
    roots, starts = np.sqrt(data.weights), patterns.starts
    sizes = np.minimum(np.diff(starts), q + n - np.diff(patterns.first))
    if (sizes == np.diff(starts)).all():
        return data.weighted(), data.design * roots[:, None], starts
    new = np.concatenate([[0], np.cumsum(sizes)])
    Y, X = np.zeros((n, new[-1])), np.empty((new[-1], q))
    shorter = sizes < np.diff(starts)
    as_they_are = np.flatnonzero(~shorter)
    whole = np.array([0, len(as_they_are)])
    given, own = spread(starts, whole, as_they_are)[1], spread(new, whole, as_they_are)[1]
    X[own], Y[:, own] = data.design[given] * roots[given, None], data.Y[:, given] * roots[given]
    for s in np.flatnonzero(shorter).tolist():
        rows_given, rows_own = slice(starts[s], starts[s + 1]), slice(new[s], new[s + 1])
        seen = np.delete(np.arange(n), patterns.missing_by(s))
        rows = np.concatenate([data.design[rows_given], data.Y[seen, rows_given].T], axis=1)
        rows = triangle(rows * roots[rows_given, None])
        X[rows_own], Y[seen, rows_own] = rows[:, :q], rows[:, q:].T
    return Y, X, new


#: Sees a task's gradients by loadings, uniquenesses and coefficients.
TakeSlopes = Callable[[int, Task, Floats, Floats, Floats], None]


class Unseen(NamedTuple):
    """By feature: what is expected of the squares of its missing values, summed; its leverage f P f' / D, on average
    over the observations that have it.
    """

    squares: Floats
    leverages: Floats


def as_it_is(task: Task) -> None:
    pass


class Surface:
    """The log-likelihood of incomplete data around a point (F, D, B): loadings, uniquenesses, coefficients."""

    def __init__(self, data: Incomplete, workers: Workers) -> None:
        self.data, self.workers = data, workers
        self.sweep = IncompleteSweep(data.tree, data.variants, data.Y.shape[1])
        self.tasks = self.sweep.tasks
        first = [first_leaf(data.tree, task) for task in self.tasks]
        self._leaves = {task: slice(k, k + task.n_leaves) for task, k in zip(self.tasks, first, strict=True)}
        self._squares = np.empty(len(data.Y))

    def loglike(self, F: Floats, D: Floats, B: Floats, prepare: Callable[[Task], None] = as_it_is) -> float:
        """The log-likelihood of all observations; ``prepare`` may fill a task's rows of F first."""
        whole = self._condition(F, D, B, prepare)
        quadratic = whole - float(sum(np.vdot(b, b) for b in self.sweep.b))
        #: Of the sum of y'D^-1 y the share that the factors leave.
        self.share_left = quadratic / whole
        return -0.5 * (float(self.data.observed @ (LOG_2PI + np.log(D))) + self.sweep.logdet + quadratic)

    def loglike_by_column(self, F: Floats, D: Floats, B: Floats) -> Floats:
        """The log-likelihood of every column."""
        self._condition(F, D, B, as_it_is)
        E = self._residuals(slice(None), B)
        quadratic = np.einsum("jn,jn,j->n", E, E, 1 / D)
        for b in self.sweep.b:
            quadratic -= np.einsum("kon,kon->n", b, b)
        each = LOG_2PI + np.log(D)
        missing = np.bincount(self.data.gaps[1], np.repeat(each, np.diff(self.data.gaps[0])), minlength=len(quadratic))
        return -0.5 * (each.sum() - missing + self.sweep.logdet_by_column() + quadratic)

    def slopes(self, F: Floats, D: Floats, B: Floats, take: TakeSlopes) -> Unseen:
        """Derivatives of the log-likelihood at the point just evaluated, task by task."""
        S = self.sweep.covariances(self.workers)
        P = self._by_leaf(S)
        unseen = Unseen(np.empty(len(D)), np.empty(len(D)))

        def visit(i: int, means: Means) -> None:
            task = self.tasks[i]
            own, tile, leaves, variants = task.features, self.sweep.tile, self._leaves[task], self.data.variants
            rows = slice(own.start, own.stop + 1)
            first_gap, gap = self.data.gaps
            E, squares = self._residuals(own, B), np.empty_like(D[own])
            fill_gaps(F[own], *means, task.leaves, first_gap[rows], gap, E, squares)
            g, gD, m = np.empty_like(F[own]), np.empty_like(D[own]), np.empty_like(F[own])
            seen = squares + self._squares[own]
            gradient(E, F[own], D[own], *means, P[leaves], seen, 1.0, task.leaves, tile, g, gD)
            # The kernel took what was filled in for observed values, and the sums of covariances for those of one
            # observation.
            own_variants = slice(*variants.levels[-1].first[[leaves.start, leaves.stop]].tolist())
            first, missing = variants.missing
            first = first[own_variants.start : own_variants.stop + 1]
            sum_of_products(F[own], own.start, S[own_variants], first, missing, m)
            g += m / D[own, None]
            lost = np.einsum("jk,jk->j", F[own], m)
            gD += 0.5 * (1 - self.data.observed[own] - lost / D[own]) / D[own]
            unseen.squares[own] = squares + lost + (self.data.nobs - self.data.observed[own]) * D[own]
            whole = np.empty_like(F[own])
            rotate(F[own], P[leaves], task.leaves, whole)
            seen_only = np.einsum("jk,jk->j", F[own], whole) - lost
            unseen.leverages[own] = seen_only / (D[own] * self.data.observed[own])
            gB = np.empty_like(B[own])
            if gB.shape[1]:
                X, ones = self.data.X, np.ones_like(D[own])
                ZX = Means(means.Z_shared @ X, means.Z_inner @ X)
                combine(F[own], *ZX, task.leaves, tile, E @ X, ones, -1.0, 1 / D[own], gB)
            take(i, task, g, gD, gB)

        self._backward(visit)
        return unseen

    def second_moments(self, take: Callable[[int, Task, Floats], None]) -> None:
        """Expected second moments of the factors of each leaf group's path, at the point just evaluated."""
        P = self._by_leaf(self.sweep.covariances(self.workers))

        def visit(i: int, means: Means) -> None:
            task = self.tasks[i]
            Z = whole_paths(means)
            take(i, task, P[self._leaves[task]] + Z @ Z.transpose(0, 2, 1))

        self._backward(visit)

    def scores(self, take: Callable[[Task, Floats], None]) -> None:
        """Posterior means of the factors of each leaf group's path: leaves x r x columns."""
        self.sweep.backward(lambda task, means: take(task, whole_paths(means)), self.workers)

    @property
    def squares(self) -> Floats:
        """Sums of squares of the features' residuals at the point just evaluated."""
        return self._squares

    def _condition(self, F: Floats, D: Floats, B: Floats, prepare: Callable[[Task], None]) -> float:
        """R, A and b of all nodes; returns the sum of squares of the residuals over the uniquenesses."""
        tree, r = self.data.tree, self.data.tree.n_factors
        parts: list[Floats] = [np.empty(0)] * len(self.tasks)
        nothing = np.empty((len(D), 0))

        def moments(i: int) -> None:
            task = self.tasks[i]
            own, k = task.features, task.n_leaves
            prepare(task)
            parts[i] = np.zeros((k, r, r))
            no_products = np.empty((0, 0)), np.empty((k, r, 0))
            leaf_moments(F[own], D[own], nothing[own], task.leaves, self.sweep.tile, parts[i], *no_products)

        self.workers.run(moments, len(self.tasks))
        whole = np.zeros((len(tree.leaves) - 1, r, r))
        for task, part in zip(self.tasks, parts, strict=True):
            whole[self._leaves[task]] += part
        first, missing = self.data.variants.missing
        node = self.data.variants.levels[-1].node

        def observed(own: slice, C: Floats) -> None:
            variant_moments(F, D, tree.leaves, whole, node[own], first[own.start : own.stop + 1], missing, C)

        self.sweep.eliminate(observed, self.workers)
        precisions = 1 / D

        def products(task: Task, out: Products) -> None:
            own = task.features
            E = self._residuals(own, B)
            self._squares[own] = np.einsum("jn,jn->j", E, E)
            leaf_products(F[own], precisions[own], E, task.leaves, self.sweep.tile, *out)

        self.sweep.forward(products, self.workers)
        return float(self._squares @ precisions)

    def _residuals(self, own: slice, B: Floats) -> Floats:
        data = self.data
        first, gap = data.gaps
        start, stop, _ = own.indices(len(data.Y))
        E = np.empty((stop - start, data.Y.shape[1]))
        residuals(data.Y[own], B[own], data.X, first[start : stop + 1], gap, E)
        return E

    def _backward(self, visit: Callable[[int, Means], None]) -> None:
        number = {task: i for i, task in enumerate(self.tasks)}
        self.sweep.backward(lambda task, means: visit(number[task], means), self.workers)

    def _by_leaf(self, S: Floats) -> Floats:
        """Sums over the variants of each leaf group."""
        first = self.data.variants.levels[-1].first
        out = np.empty((len(first) - 1, *S.shape[1:]))
        sum_over(S, first, np.arange(len(S)), out)
        return out


def first_leaf(tree: Tree, task: Task) -> int:
    """The leaf group that a task begins in."""
    return int(np.searchsorted(tree.leaves, task.features.start, side="right")) - 1


def whole_paths(means: Means) -> Floats:
    """Values of the factors of the leaf groups' whole paths."""
    shared, inner = means
    return np.concatenate([np.broadcast_to(shared, (len(inner), *shared.shape)), inner], axis=1)
