"""A point on the way up, its gradient and metric, and the steps from it.

All likelihoods and gradients here are per observation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import leaf_moments, rotate
from mlfm._kernels.em import px_em_update
from mlfm._kernels.scoring import slopes
from mlfm.estimation.memory import Direction, Memory
from mlfm.estimation.metric import Aside, Metric, uniqueness_variances
from mlfm.estimation.problem import Point, Problem, Scaled
from mlfm.incomplete import as_it_is
from mlfm.likelihood import loglike_of
from mlfm.sweep import Moments, Posterior, RecordingSweep, Task, Workers

Floats = NDArray[np.float64]

MEMORY = 5  # pairs; 10 and 20 were no better on ten problems, real and simulated
SHRINK, GROW, REVIVE = 0.1, 5.0, 0.1  # D stays in [SHRINK D, max(GROW D, REVIVE v)]
# Least eigenvalue of the information of a group's factors (see Metric): raised when a scoring step fails.
LEAST_DAMPING, FIRST_DAMPING, DAMP, EASE = 1e-8, 1e-3, 10.0, 3.0
SUFFICIENT = 1e-4  # share of the predicted gain that a step must have
ROUNDING = 1e-13  # relative; losses below this are rounding
# Of the sum of y'D^-1 y, most of which the factors may explain: what is left and less than this has no meaning.
MEANINGLESS = 1e-14


class Climber(ABC):
    """A point on the way up, and the steps from it; all arrays of the size of the loadings live here, and move once.

    ``F`` and ``x`` are the point: loadings, and the rest, which is the uniquenesses D and, with missing values, what
    the mean adds (see :class:`IncompleteClimber`). ``llf`` is the log-likelihood there, ``gF, gx`` the gradient and
    ``metric`` the loadings' metric. ``trial`` first takes what the metric makes of a gradient, then, with steps from
    memory and F itself, becomes the loadings that the step leads to.
    """

    metric: Metric  # of the loadings, at the point
    free: Floats  # 1 for what of the rest may move, 0 for uniquenesses pressed against their floor

    def __init__(self, problem: Scaled, start: Point, workers: Workers) -> None:
        self.problem, self.workers = problem, workers
        self.F, self.x = start
        n, r = self.F.shape
        self.gF, self.gx = np.empty((n, r)), np.empty_like(self.x)
        self.trial = np.empty((n, r))
        self.damping = LEAST_DAMPING
        self.tasks = self._prepare()
        self.memory = Memory(MEMORY, n, r, len(self.x), self.tasks, workers)
        self.llf = self._loglike(self.F, self.x, as_it_is)
        if not np.isfinite(self.llf):
            raise FloatingPointError("the log-likelihood of the start is not finite")
        self._look_around(None)

    @property
    def D(self) -> Floats:
        """The uniquenesses at the point."""
        return self.x[: len(self.F)]

    @property
    def gD(self) -> Floats:
        """The gradient by the uniquenesses."""
        return self.gx[: len(self.F)]

    @property
    def slope(self) -> Floats:
        """The gradient by the rest of the parameters that are free to move."""
        return self.gx * self.free

    @abstractmethod
    def _prepare(self) -> list[Task]:
        """Room for the evaluations to come; the tasks that they are made of."""

    @abstractmethod
    def _loglike(self, F: Floats, x: Floats, prepare: Callable[[Task], None]) -> float:
        """The log-likelihood at a point, each task's rows of F being prepared first; -inf where it has no meaning."""

    @abstractmethod
    def _look_around(self, before: Floats | None) -> None:
        """Gradient and metric at the point just evaluated, and with the loadings of ``before`` the loadings' part of a
        new pair.
        """

    @abstractmethod
    def _scaled(self, slope: Floats) -> Floats:
        """The scoring step of the rest of the parameters."""

    @abstractmethod
    def _expand(self) -> float:
        """The parameter-expanded EM step from the point; its log-likelihood. The point is left where it fails."""

    def propose_leaf_groups(self, *, afresh: bool) -> float:
        """Make the trial point that of the small leaf groups' turn; what it gains at least.

        ``afresh`` is whether every group descends from a start of its own too.
        """
        return 0.0

    def try_leaf_groups(self) -> float:
        """Go to the point that :meth:`propose_leaf_groups` made, unless it is lower; the gain."""
        raise NotImplementedError

    def _mobile(self) -> Floats:
        """1 for parameters of the rest that may move; 0 for uniquenesses pressed against their floor."""
        free = np.ones_like(self.x)
        free[: len(self.F)][self.problem.pressed(self.D, self.gD)] = 0.0
        return free

    def decrement(self) -> float:
        """The gradient times the scoring step."""
        self._along_loadings = self.metric.squared_length(self.workers)
        return self._along_loadings + float(self.slope @ self._scaled(self.slope))

    def scoring_direction(self) -> Direction:
        """The plain scoring step, after :meth:`decrement`."""
        self.metric.step(self.trial, self.workers)
        dx: Floats = self._scaled(self.slope) * self.free
        along = self._along_loadings + float(self.slope @ dx)
        return Direction(dx, along, self._along_loadings, np.empty(0, dtype=np.intp), np.empty(0))

    def quasi_newton_direction(self) -> Direction:
        """The step that the pairs in memory make of the metric."""

        def apply(GF: Floats, Gx: Floats, before: Aside, after: Aside) -> Floats:
            self.metric.apply(GF, self.workers, before, after)
            return self._scaled(Gx)

        return self.memory.direction(self.gF, self.slope, self.free, apply, self.trial)

    def try_step(self, direction: Direction) -> tuple[float, Floats, bool]:
        """A full step, D within its bounds: log-likelihood and rest there, and whether it gained enough."""
        x, n = self.x + direction.rest, len(self.F)
        lowest = np.maximum(self.problem.floor, SHRINK * self.D)
        highest = np.maximum(GROW * self.D, REVIVE)  # features have variance 1
        np.clip(x[:n], lowest, highest, out=x[:n])

        def prepare(task: Task) -> None:
            own = task.features
            F = self.trial[own]
            F += self.F[own]
            self.memory.add_steps(direction, own, F)

        try:
            llf = self._loglike(self.trial, x, prepare)
        except FloatingPointError:  # out of all bounds
            return -np.inf, x, False
        predicted = direction.along_loadings + float(self.gx @ (x - self.x))
        return llf, x, llf >= self.llf + SUFFICIENT * max(predicted, 0.0) - ROUNDING * abs(self.llf)

    def accept(self, llf: float, x: Floats, dx: Floats) -> None:
        """Go to the trial point and learn from the step there; dx is its rest before clipping."""
        slope, step = self.slope, x - self.x
        # What the model expected of the rest: of each the share of its step that was not clipped.
        share = np.clip(np.divide(step, dx, out=np.ones_like(step), where=dx != 0), 0, 1)
        self.F, self.trial = self.trial, self.F
        self.x, self.llf = x, llf
        self.damping = max(self.damping / EASE, LEAST_DAMPING)
        self.memory.open_slot()
        self._look_around(self.trial)
        self.memory.close_slot(step, slope - self.slope, slope * share, self.gF)

    def px_em(self) -> float:
        """The parameter-expanded EM step. Returns the gain, which is less than 0 only where nothing is to be gained in
        floating point; then it stays.
        """
        self.damping = min(max(DAMP * self.damping, FIRST_DAMPING), 1.0)
        try:
            return self._expand()
        except FloatingPointError:  # a point where even this step is rounding
            return -np.inf

    def score_norm(self) -> float:
        """Largest derivative by a free parameter, per observation."""
        return float(max(np.abs(self.gF).max(initial=0), np.abs(self.slope).max(initial=0)))


class CompleteClimber(Climber):
    """Where no value is missing: the mean is out of the data for good, and the rest is the uniquenesses."""

    problem: Problem

    def _prepare(self) -> list[Task]:
        self.sweep = RecordingSweep(self.problem.tree, self.problem.Y.shape[1])
        self._W: list[Floats] = [np.empty(0)] * len(self.sweep.tasks)
        return self.sweep.tasks

    def _loglike(self, F: Floats, x: Floats, prepare: Callable[[Task], None]) -> float:
        problem, sweep = self.problem, self.sweep

        def fill(task: Task, moments: Moments) -> None:
            own = task.features
            prepare(task)
            leaf_moments(F[own], x[own], problem.Y[own], task.leaves, sweep.tile, *moments)

        sweep.upward(fill, self.workers)
        whole = float((problem.penalised_squares / x).sum())
        left = whole - sweep.explained
        value = loglike_of(sweep, x, left, problem.nobs) / problem.nobs
        return value if np.isfinite(value) and left > MEANINGLESS * whole else -np.inf

    def _look_around(self, before: Floats | None) -> None:
        problem, F, D, sweep = self.problem, self.F, self.x, self.sweep
        h, metric = np.empty(len(D)), Metric(sweep, self.damping)
        products: list[tuple[Floats, Floats]] = [(np.empty(0), np.empty(0))] * len(self.tasks)
        squares = problem.penalised_squares

        def visit(i: int, task: Task, posterior: Posterior) -> None:
            own = task.features
            g, W, T, M = np.empty_like(F[own]), *(np.empty_like(posterior.P) for _ in range(3))
            slopes(
                problem.Y[own], F[own], D[own], *posterior, squares[own], problem.nobs, metric.columns, task.leaves,
                sweep.tile, W, g, self.gx[own], h[own], T, M,
            )  # fmt: skip
            if before is not None:
                self.memory.record(i, F[own], before[own], g, self.gF[own])
            self.gF[own], self._W[i], products[i] = g, W, (T, M)

        sweep.downward(visit, self.workers, metric.observe)
        metric.at(F, D, self.gF, products)
        self.metric = metric
        self._variances = problem.penalty.variances(uniqueness_variances(D, h), D, problem.nobs)
        self.free = self._mobile()

    def _scaled(self, slope: Floats) -> Floats:
        return slope * self._variances

    def _expand(self) -> float:
        problem, D = self.problem, np.empty_like(self.x)
        squares = problem.penalised_squares

        def step(i: int) -> None:
            task = self.tasks[i]
            own = task.features
            V = self.trial[own]
            self._moments(i, V)
            px_em_update(self._W[i], squares[own], problem.nobs, problem.floor[own], task.leaves, V, D[own])

        self.workers.run(step, len(self.tasks))
        self.memory.keep(0)
        return self._move(D)

    def propose_leaf_groups(self, *, afresh: bool) -> float:
        groups, problem = self.problem.leaf_groups, self.problem
        if not groups.any:
            return 0.0
        self._D_next, gains = np.empty_like(self.x), np.zeros(len(self.tasks))
        squares, nobs, penalty = problem.penalised_squares, problem.nobs, problem.penalty.weight

        def step(i: int) -> None:
            task, W = self.tasks[i], self._W[i]
            own, (some, every) = task.features, groups.small_in(self.tasks[i])
            V, D = self.trial[own], self._D_next[own]
            self._moments(i, V)
            moments = V.copy() if some else V
            if not every:
                px_em_update(W.copy(), squares[own], nobs, problem.floor[own], task.leaves, V, D)
            if some:
                gains[i] = groups.maximise(
                    task, moments, W, nobs, problem.floor[own], penalty, self.F[own], self.x[own], V, D, afresh=afresh
                )

        self.workers.run(step, len(self.tasks))
        return float(gains.sum()) / problem.nobs

    def try_leaf_groups(self) -> float:
        gain = self._move(self._D_next)
        if gain >= 0:
            self.memory.renew(self.gF)
        return gain

    def _moments(self, i: int, V: Floats) -> None:
        """A task's moments of data and factors, from those that the gradient was made of: V = D dl/dF + F W."""
        task = self.tasks[i]
        own = task.features
        rotate(self.F[own], self._W[i], task.leaves, V)
        V += self.gF[own] * (self.problem.nobs * self.x[own, None])

    def _move(self, D: Floats) -> float:
        """Go to the trial point, unless it is lower; the gain."""
        llf = self._loglike(self.trial, D, as_it_is)
        gain = llf - self.llf
        if gain >= 0:
            self.F, self.trial = self.trial, self.F
            self.x, self.llf = D, llf
            self._look_around(None)
        return gain
