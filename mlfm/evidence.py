"""What a model's data say about any parameters: log-likelihood, gradient, and the factors of every observation.

Parameters are in group order and in the user's units: coefficients B, loadings F, uniquenesses D.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.incomplete import Incomplete, Surface, first_leaf, whole_paths
from mlfm.likelihood import condition, loglike, loglike_by_column, score
from mlfm.linear import solve
from mlfm.patterns import Patterns
from mlfm.standardised import Standardised
from mlfm.sweep import Means, Sweep, Task, Tree, Workers

Floats = NDArray[np.float64]
#: Takes the first leaf group of a task and the factors of its leaf groups' paths: leaves x r x observations.
TakePaths = Callable[[int, Floats], None]


class Gap(NamedTuple):
    """Missing values of observations that miss the same: where they stand in the data given, means, variances."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    means: Floats  # rows x columns
    variances: Floats  # columns


class Evidence(ABC):
    """A model's data, ready to be asked about parameters."""

    def __init__(self, tree: Tree, data: Standardised) -> None:
        self.tree, self.data = tree, data

    @abstractmethod
    def loglike(self, B: Floats, F: Floats, D: Floats, workers: Workers) -> float:
        """The log-likelihood of all observations, each as often as its weight says."""

    @abstractmethod
    def loglike_by_observation(self, B: Floats, F: Floats, D: Floats, workers: Workers) -> Floats:
        """The log-likelihood of each observation, in the order of the data given, whatever its weight."""

    @abstractmethod
    def score(self, B: Floats, F: Floats, D: Floats, workers: Workers) -> tuple[Floats, Floats, Floats]:
        """Derivatives of the log-likelihood by B, F and D."""

    def factor_scores(self, B: Floats, F: Floats, D: Floats, workers: Workers) -> list[Floats]:
        """Posterior means of the factors, level by level: nodes x own factors x observations, these in the order of
        the data given.
        """
        tree, places = self.tree, self.data.places
        Z = [np.empty((tree.n_nodes(level), rank, len(places))) for level, rank in enumerate(tree.ranks)]

        def take(leaf: int, paths: Floats) -> None:
            firsts = tree.leaves[leaf : leaf + len(paths)]
            for level, out in enumerate(Z):
                nodes = np.searchsorted(tree.offsets[level], firsts, side="right") - 1
                out[nodes] = paths[:, tree.own(level)][:, :, places]

        self._paths(B, F, D, take, workers)
        return Z

    @abstractmethod
    def _paths(self, B: Floats, F: Floats, D: Floats, take: TakePaths, workers: Workers) -> None:
        """Posterior means of the factors of all paths, task by task; observations in the order of the places."""


class CompleteEvidence(Evidence):
    """Where no value is missing."""

    def loglike(self, B: Floats, F: Floats, D: Floats, workers: Workers) -> float:
        sweep, Y = self._conditioned(B, F, D, workers)
        return loglike(sweep, D, np.einsum("jn,jn->j", Y, Y), self.data.nobs)

    def loglike_by_observation(self, B: Floats, F: Floats, D: Floats, workers: Workers) -> Floats:
        Y = self.data.less(B)
        sweep = Sweep(self.tree, Y.shape[1])
        condition(sweep, F, D, Y, workers)
        return loglike_by_column(sweep, D, Y)

    def score(self, B: Floats, F: Floats, D: Floats, workers: Workers) -> tuple[Floats, Floats, Floats]:
        sweep, Y = self._conditioned(B, F, D, workers)
        dF, dD = score(sweep, F, D, Y, np.einsum("jn,jn->j", Y, Y), self.data.nobs, workers)
        # Sigma^-1 sum_i (y_i - B x_i) x_i'
        total = Y @ (self.data.design * np.sqrt(self.data.weights)[:, None])
        known = Sweep(self.tree, total.shape[1], elimination=sweep.elimination)
        return solve(known, F, D, total, workers), dF, dD

    def _conditioned(self, B: Floats, F: Floats, D: Floats, workers: Workers) -> tuple[Sweep, Floats]:
        """A sweep at these parameters, and the residuals times the roots of the weights."""
        Y = self.data.less(B)
        if (self.data.weights != 1).any():
            Y *= np.sqrt(self.data.weights)
        sweep = Sweep(self.tree, Y.shape[1])
        condition(sweep, F, D, Y, workers)
        return sweep, Y

    def _paths(self, B: Floats, F: Floats, D: Floats, take: TakePaths, workers: Workers) -> None:
        Y = self.data.less(B)
        sweep = Sweep(self.tree, Y.shape[1])
        condition(sweep, F, D, Y, workers)

        def hand(task: Task, means: Means) -> None:
            take(first_leaf(self.tree, task), whole_paths(means))

        sweep.backward(hand, workers)


class IncompleteEvidence(Evidence):
    """Where values are missing."""

    def __init__(self, tree: Tree, data: Standardised, patterns: Patterns) -> None:
        super().__init__(tree, data)
        self._patterns = patterns

    def __getstate__(self) -> dict[str, Any]:
        # What is made of the data when first needed is made again.
        return {"tree": self.tree, "data": self.data, "_patterns": self._patterns}

    @cached_property
    def summed_up(self) -> Incomplete:
        """The data of the likelihood, with as few columns as will do."""
        return Incomplete.summed_up(self.tree, self.data, self._patterns)

    @cached_property
    def _row_by_row(self) -> Incomplete:
        return Incomplete.row_by_row(self.tree, self.data, self._patterns)

    def loglike(self, B: Floats, F: Floats, D: Floats, workers: Workers) -> float:
        data = self.summed_up
        value = Surface(data, workers).loglike(*self._in_units(B, F, D))
        return value - float(data.observed @ np.log(self.data.scale))

    def loglike_by_observation(self, B: Floats, F: Floats, D: Floats, workers: Workers) -> Floats:
        data, logs = self._row_by_row, np.log(self.data.scale)
        each = Surface(data, workers).loglike_by_column(*self._in_units(B, F, D))
        first, gap = data.gaps
        missing = np.bincount(gap, np.repeat(logs, np.diff(first)), minlength=len(each))
        return (each - logs.sum() + missing)[self.data.places]

    def score(self, B: Floats, F: Floats, D: Floats, workers: Workers) -> tuple[Floats, Floats, Floats]:
        surface, scale = Surface(self.summed_up, workers), self.data.scale[:, None]
        dB, dF, dD = np.empty_like(B), np.empty_like(F), np.empty_like(D)

        def take(i: int, task: Task, g: Floats, gD: Floats, gB: Floats) -> None:
            own = task.features
            dF[own], dD[own], dB[own] = g / scale[own], gD / scale[own, 0] ** 2, gB / scale[own]

        point = self._in_units(B, F, D)
        surface.loglike(*point)
        surface.slopes(*point, take)
        return dB, dF, dD

    def gaps(self, B: Floats, F: Floats, D: Floats, workers: Workers) -> Iterator[Gap]:
        """The missing values given the observed ones, pattern by pattern."""
        patterns, order, data = self._patterns, self.data.order, self.data
        surface = Surface(self._row_by_row, workers)
        surface.loglike(*self._in_units(B, F, D))
        paths = np.empty((len(self.tree.leaves) - 1, self.tree.n_factors, len(data.design)))

        def keep(task: Task, Z: Floats) -> None:
            first = first_leaf(self.tree, task)
            paths[first : first + len(Z)] = Z

        surface.scores(keep)
        leaf = np.searchsorted(self.tree.leaves, np.arange(len(D)), side="right") - 1
        for s in range(len(patterns)):
            features, own = patterns.missing_by(s), slice(patterns.starts[s], patterns.starts[s + 1])
            if not len(features):
                continue
            leaves, which = np.unique(leaf[features], return_inverse=True)
            P = surface.sweep.leaf_paths_of_column(own.start, leaves)
            rows = F[features]
            here = paths[:, :, own]  # a view: only what is needed of it is copied
            means = B[features] @ data.design[own].T + np.einsum("jk,jkn->jn", rows, here[leaf[features]])
            variances = np.einsum("jk,jkl,jl->j", rows, P[which], rows) + D[features]
            yield Gap(patterns.rows[own], order[features], means.T, variances)

    def _in_units(self, B: Floats, F: Floats, D: Floats) -> tuple[Floats, Floats, Floats]:
        """Parameters in the units of the data kept: loadings, uniquenesses, coefficients beyond the first ones."""
        scale = self.data.scale
        return F / scale[:, None], D / scale**2, (B - self.data.coefficients) / scale[:, None]

    def _paths(self, B: Floats, F: Floats, D: Floats, take: TakePaths, workers: Workers) -> None:
        surface = Surface(self._row_by_row, workers)
        surface.loglike(*self._in_units(B, F, D))
        surface.scores(lambda task, paths: take(first_leaf(self.tree, task), paths))


def evidence_of(tree: Tree, data: Standardised) -> Evidence:
    """The evidence in data with or without missing values."""
    if data.patterns is None:
        return CompleteEvidence(tree, data)
    return IncompleteEvidence(tree, data, data.patterns)
