"""Fitting where values are missing: the same methods, with the coefficients of the mean among the parameters.

The rest of the parameters is D and, feature by feature, the coefficients B of the covariates, in an orthonormal basis
of these. The metric is that of complete data whose features are observed as much as here on average: feature j,
observed in a share w_j of the observations, counts with uniqueness D_j / w_j. For B it is F F' over all observations,
and D over the information of those that have the feature; with F F' + D over all of them a step is that of EM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import leaf_moments, project, rotate
from mlfm._kernels.em import px_em_update
from mlfm.estimation.climber import MEANINGLESS, Climber
from mlfm.estimation.metric import Metric, uniqueness_variances
from mlfm.estimation.penalty import Penalty
from mlfm.estimation.problem import Point, Problem, Scaled
from mlfm.incomplete import Incomplete, Surface, as_it_is
from mlfm.linear import gather, scatter
from mlfm.standardised import Standardised
from mlfm.sweep import Moments, Posterior, RecordingSweep, Task, Totals, Tree, Workers, task_width

Floats = NDArray[np.float64]
#: From second moments of the factors, squares, nobs, floors, leaf groups and V to loadings (in place of V) and D.
Update = Callable[..., None]


@dataclass(frozen=True, eq=False)
class IncompleteProblem(Scaled):
    """Data of unit variance with missing values; covariates in an orthonormal basis, X'X = nobs I."""

    data: Incomplete
    basis: Floats  # q x q: coefficients of the covariates are B basis

    @classmethod
    def of(
        cls, data: Incomplete, kept: Standardised, uniqueness_floor: float, penalty: str = "none"
    ) -> IncompleteProblem:
        """The problem of a model's data."""
        nobs = data.nobs
        R = np.linalg.qr(data.X, mode="r") / np.sqrt(nobs)
        X = np.linalg.solve(R.T, data.X.T).T
        basis = np.linalg.inv(R).T
        floor = np.full(len(kept.scale), uniqueness_floor)
        data = replace(data, X=np.ascontiguousarray(X))
        penalised = Penalty.named(penalty, nobs)
        return cls(data.tree, nobs, kept.scale, floor, kept.coefficients, data, basis, penalty=penalised)

    @property
    def loglike_shift(self) -> float:
        """What to add to a log-likelihood here to have that of the data in the user's units."""
        return -float(self.data.observed @ np.log(self.scale))

    @property
    def shares(self) -> Floats:
        """The share of the observations in which each feature is observed."""
        return self.data.observed / self.nobs

    @property
    def stand_in(self) -> Problem:
        """Complete data to take a start from: missing values at their mean, features scaled back to variance 1."""
        Y = self.data.Y / np.sqrt(self.shares)[:, None]
        return Problem(self.tree, self.nobs, self.scale, self.floor, self.coefficients, Y, np.einsum("jn,jn->j", Y, Y))

    def loglike(self, point: Point, workers: Workers) -> float:
        """What is maximised at a point, of the data in the user's units; -inf where it has no meaning."""
        F, x = point
        try:
            value = Surface(self.data, workers).loglike(F, *self.split(x)) - self.penalty.of(self.split(x)[0])
        except FloatingPointError:
            return -np.inf
        return value + self.loglike_shift if np.isfinite(value) else -np.inf

    @cached_property
    def coefficient_variances(self) -> Floats:
        """nobs times the inverse cross products of the covariates over the rows that have each feature: n x q x q."""
        X, (first, gap) = self.data.X, self.data.gaps
        n, q = len(first) - 1, X.shape[1]
        feature = np.repeat(np.arange(n), np.diff(first))
        information = np.empty((n, q, q))
        for k in range(q):
            for m in range(k + 1):
                lost = np.bincount(feature, (X[:, k] * X[:, m])[gap], minlength=n) / self.nobs
                information[:, k, m] = information[:, m, k] = float(k == m) - lost
        return np.asarray(np.linalg.inv(information), dtype=np.float64)

    def split(self, x: Floats) -> tuple[Floats, Floats]:
        """Uniquenesses and coefficients (views)."""
        n = len(self.floor)
        return x[:n], x[n:].reshape(n, len(self.basis))

    def with_coefficients(self, F: Floats, D: Floats) -> Point:
        """A point with the first coefficients."""
        return F, np.concatenate([D, np.zeros(len(D) * len(self.basis))])

    def from_units(self, B: Floats, F: Floats, D: Floats) -> Point:
        F, D = super().from_units(B, F, D)
        own = np.linalg.solve(self.basis.T, ((B - self.coefficients) / self.scale[:, None]).T).T
        return F, np.concatenate([D, own.ravel()])

    def to_units(self, F: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
        first, F, D = super().to_units(F, x)
        return first + self.split(x)[1] @ self.basis * self.scale[:, None], F, D


class IncompleteClimber(Climber):
    """Where values are missing: every evaluation is one sweep over all patterns."""

    problem: IncompleteProblem

    def _prepare(self) -> list[Task]:
        tree, columns = self.problem.tree, self.problem.data.Y.shape[1]
        self.surface = Surface(self.problem.data, self.workers)
        self._average = RecordingSweep(tree, 0, task_width(tree, columns))
        return self.surface.tasks

    def _loglike(self, F: Floats, x: Floats, prepare: Callable[[Task], None]) -> float:
        problem = self.problem
        D, B = problem.split(x)
        value = (self.surface.loglike(F, D, B, prepare) - problem.penalty.of(D)) / problem.nobs
        return value if np.isfinite(value) and self.surface.share_left > MEANINGLESS else -np.inf

    def _look_around(self, before: Floats | None) -> None:
        problem, F = self.problem, self.F
        n, nobs, nothing = len(F), problem.nobs, np.empty((len(F), 0))
        D, B = problem.split(self.x)
        average = D / problem.shares
        tile = self.surface.sweep.tile
        metric = Metric(self._average, self.damping)

        def fill(task: Task, moments: Moments) -> None:
            own = task.features
            leaf_moments(F[own], average[own], nothing[own], task.leaves, tile, *moments)

        self._average.upward(fill, self.workers)
        self._average.downward(_not_needed, self.workers, metric.observe)

        products: list[tuple[Floats, Floats]] = [(np.empty(0), np.empty(0))] * len(self.tasks)
        gB = np.empty_like(B)

        def take(i: int, task: Task, g: Floats, gD: Floats, g_mean: Floats) -> None:
            own, k, r = task.features, task.n_leaves, F.shape[1]
            g /= nobs
            self.gx[own], gB[own] = (gD + problem.penalty.slopes(D[own])) / nobs, g_mean / nobs
            if before is not None:
                self.memory.record(i, F[own], before[own], g, self.gF[own])
            self.gF[own] = g
            T, M = np.empty((k, r, r)), np.zeros((k, r, r))
            project(F[own], g, task.leaves, T)
            no_products = np.empty((0, 0)), np.empty((k, r, 0))
            leaf_moments(g, 1 / average[own], nothing[own], task.leaves, tile, M, *no_products)
            products[i] = T, np.tril(M) + np.tril(M, -1).transpose(0, 2, 1)

        unseen = self.surface.slopes(F, D, B, take)
        self._filled = unseen.squares
        variances = uniqueness_variances(D, unseen.leverages) / problem.shares
        self._variances = problem.penalty.variances(variances, D, nobs)
        self.gx[n:] = gB.ravel()
        metric.at(F, average, self.gF, products)
        self.metric = metric
        self.free = self._mobile()

    def _scaled(self, slope: Floats) -> Floats:
        n, slope_B = len(self.F), self.problem.split(slope)[1]
        # Sigma, as if nothing were missing, but with what of it is a feature's own over the information of the rows
        # that have the feature.
        own = (self.problem.coefficient_variances @ slope_B[:, :, None])[:, :, 0] * self.D[:, None]
        means = times_covariance(self.problem.tree, self.F, np.zeros(n), slope_B, self.workers) + own
        return np.concatenate([slope[:n] * self._variances, means.ravel()])

    def _expand(self) -> float:
        before, problem = self.llf, self.problem
        self._loglike(self.F, self.x, as_it_is)  # steps that failed left the sweep elsewhere
        D = expand(
            self.surface, self.F, self.D, self.gF * problem.nobs, self._filled, problem, px_em_update, self.trial
        )
        x = self.x.copy()
        x[: len(D)] = D
        llf = self._loglike(self.trial, x, as_it_is)
        if llf < before:
            return llf - before
        self._go_to(llf, x)
        if len(problem.basis):
            self._raise_mean()
        return self.llf - before

    def _raise_mean(self) -> None:
        """The EM step of the coefficients."""
        problem = self.problem
        B = times_covariance(problem.tree, self.F, self.D, problem.split(self.gx)[1], self.workers)
        x = self.x.copy()
        x[len(self.F) :] += B.ravel()
        self.trial[:] = self.F
        try:
            llf = self._loglike(self.trial, x, as_it_is)
        except FloatingPointError:
            return
        if llf >= self.llf:
            self._go_to(llf, x)

    def _go_to(self, llf: float, x: Floats) -> None:
        self.F, self.trial = self.trial, self.F
        self.x, self.llf = x, llf
        self.memory.keep(0)
        self._look_around(None)


class IncompleteStair:
    """EM steps where values are missing: loadings and uniquenesses first, then, all expected anew, coefficients
    (an alternating expectation and conditional maximization: Meng and van Dyk 1997).
    """

    def __init__(self, problem: IncompleteProblem, start: Point, workers: Workers, update: Update) -> None:
        self._problem, self._workers, self._update = problem, workers, update
        self._F, self._x = start
        self._surface = Surface(problem.data, workers)
        self._llf = self._evaluate()

    @property
    def problem(self) -> IncompleteProblem:
        return self._problem

    @property
    def point(self) -> Point:
        return self._F, self._x

    def loglike(self) -> float:
        return self._llf

    def step(self) -> None:
        problem, F = self.problem, self._F
        dF, _, filled = self._slopes()
        V = np.empty_like(F)
        D, B = problem.split(self._x)
        D[:] = expand(self._surface, F, D, dF, filled, problem, self._update, V)
        self._F = V
        self._llf = self._evaluate()
        if B.shape[1]:
            _, dx, _ = self._slopes()
            slope = problem.split(dx)[1] / problem.nobs
            B += times_covariance(problem.tree, self._F, D, slope, self._workers)
            self._llf = self._evaluate()

    def slopes(self) -> tuple[Floats, Floats]:
        return self._slopes()[:2]

    def _evaluate(self) -> float:
        D, B = self.problem.split(self._x)
        return self._surface.loglike(self._F, D, B) - self.problem.penalty.of(D)

    def _slopes(self) -> tuple[Floats, Floats, Floats]:
        dF, dx = np.empty_like(self._F), np.empty_like(self._x)
        dD, dB = self.problem.split(dx)

        def take(i: int, task: Task, g: Floats, gD: Floats, gB: Floats) -> None:
            own = task.features
            dF[own], dD[own], dB[own] = g, gD, gB

        D, B = self.problem.split(self._x)
        unseen = self._surface.slopes(self._F, D, B, take)
        dD += self.problem.penalty.slopes(D)
        return dF, dx, unseen.squares


def expand(
    surface: Surface, F: Floats, D: Floats, dF: Floats, filled: Floats, problem: IncompleteProblem, update: Update,
    V: Floats,
) -> Floats:  # fmt: skip
    """An EM step from the point that the surface was evaluated at: new loadings in V, new uniquenesses returned.

    Missing values count as complete data that were not seen: the step is that of complete data from their expected
    moments V = D dl/dF + F W, and squares with what is expected of the missing ones (``filled``).
    """
    D_new, squares = np.empty_like(D), surface.squares + filled + problem.penalty.squares

    def step(i: int, task: Task, W: Floats) -> None:
        own = task.features
        rotate(F[own], W, task.leaves, V[own])
        V[own] += dF[own] * D[own, None]
        update(W, squares[own], problem.nobs, problem.floor[own], task.leaves, V[own], D_new[own])

    surface.second_moments(step)
    return D_new


def times_covariance(tree: Tree, F: Floats, D: Floats, X: Floats, workers: Workers) -> Floats:
    """(F F' + D) X."""
    route, ones = Totals(tree, X.shape[1]), np.ones_like(D)
    gather(route, F, ones, X, workers)
    return scatter(route, F, X, D, 1.0, ones, workers)


def _not_needed(i: int, task: Task, posterior: Posterior) -> None:
    pass
