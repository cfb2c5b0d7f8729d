"""Block Fisher scoring with a quasi-Newton memory (documentation: "The model", Fitting).

The inverse block information (see mlfm.estimation.metric) is the metric of a damped L-BFGS in the coordinates
(F, D). Steps have length 1 and no line search; what keeps them safe:

- pairs are used only near a maximum (Newton decrement below a bound), a plain scoring step elsewhere;
- D moves by bounded factors; a D pressed against its floor is fixed;
- a quasi-Newton direction whose predicted gain is far from the scoring step's loses its memory, half by half;
- a step that does not gain enough is taken back: from quasi-Newton to scoring, from scoring to PX-EM, which needs
  only moments in hand and never lowers the likelihood.

All likelihoods and gradients here are per observation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import leaf_moments, rotate
from mlfm._kernels.em import px_em_update
from mlfm._kernels.scoring import slopes
from mlfm.estimation.memory import Direction, Memory
from mlfm.estimation.metric import Aside, Metric, uniqueness_variances
from mlfm.estimation.problem import Point, Problem, Scaled
from mlfm.estimation.record import Evaluation, FitRecord, Hopeless, never
from mlfm.estimation.stopping import Stays
from mlfm.likelihood import loglike_of
from mlfm.sweep import Moments, Posterior, RecordingSweep, Task, Workers

Floats = NDArray[np.float64]

MEMORY = 5  # pairs; 10 and 20 were no better on ten problems, real and simulated
NEAR = 1e-2  # a feature: Newton decrement below which pairs are used; 1e-3 takes a sixth more evaluations on real data
LEAST_RATIO = 0.05  # of a quasi-Newton direction's predicted gain to the scoring step's
FIRST_RATIO, MOST_RATIO = 2.0, 1e4  # the largest, doubled at each success
SHRINK, GROW, REVIVE = 0.1, 5.0, 0.1  # D stays in [SHRINK D, max(GROW D, REVIVE v)]
# Least eigenvalue of the information of a group's factors (see Metric): raised when a scoring step fails.
LEAST_DAMPING, FIRST_DAMPING, DAMP, EASE = 1e-8, 1e-3, 10.0, 3.0
SUFFICIENT = 1e-4  # share of the predicted gain that a step must have
ROUNDING = 1e-13  # relative; losses below this are rounding
# Of the sum of y'D^-1 y, most of which the factors may explain: what is left and less than this has no meaning.
MEANINGLESS = 1e-14


class Climber:
    """A point on the way up, and the steps from it; all arrays of the size of the loadings live here, and move once.

    ``F`` and ``x`` are the point: loadings, and the rest, which is the uniquenesses D and, with missing values, what
    the mean adds (see :class:`IncompleteClimber`). ``llf`` is the log-likelihood there, ``gF, gx`` the gradient and
    ``metric`` the loadings' metric. ``trial`` first takes what the metric makes of a gradient, then, with steps from
    memory and F itself, becomes the loadings that the step leads to.
    """

    def __init__(self, problem: Scaled, start: Point, workers: Workers) -> None:
        self.problem, self.workers = problem, workers
        self.F, self.x = start
        n, r = self.F.shape
        self.gF, self.gx = np.empty((n, r)), np.empty_like(self.x)
        self.trial = np.empty((n, r))
        self.damping = LEAST_DAMPING
        self.tasks = self._prepare()
        self.memory = Memory(MEMORY, n, r, len(self.x), self.tasks, workers)
        self.llf = self._loglike(self.F, self.x, _as_it_is)
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

    def _prepare(self) -> list[Task]:
        """Room for the evaluations to come; the tasks that they are made of."""
        raise NotImplementedError

    def _loglike(self, F: Floats, x: Floats, prepare: Callable[[Task], None]) -> float:
        """The log-likelihood at a point, each task's rows of F being prepared first; -inf where it has no meaning."""
        raise NotImplementedError

    def _look_around(self, before: Floats | None) -> None:
        """Gradient and metric at the point just evaluated, and with the loadings of ``before`` the loadings' part of a
        new pair.
        """
        raise NotImplementedError

    def _scaled(self, slope: Floats) -> Floats:
        """The scoring step of the rest of the parameters."""
        raise NotImplementedError

    def _expand(self) -> float:
        """The parameter-expanded EM step from the point; its log-likelihood. The point is left where it fails."""
        raise NotImplementedError

    def _free(self) -> Floats:
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
        whole = float((problem.squares / x).sum())
        left = whole - sweep.explained
        value = loglike_of(sweep, x, left, problem.nobs) / problem.nobs
        return value if np.isfinite(value) and left > MEANINGLESS * whole else -np.inf

    def _look_around(self, before: Floats | None) -> None:
        problem, F, D, sweep = self.problem, self.F, self.x, self.sweep
        h, metric = np.empty(len(D)), Metric(sweep, self.damping)
        products: list[tuple[Floats, Floats]] = [(np.empty(0), np.empty(0))] * len(self.tasks)

        def visit(i: int, task: Task, posterior: Posterior) -> None:
            own = task.features
            g, W, T, M = np.empty_like(F[own]), *(np.empty_like(posterior.P) for _ in range(3))
            slopes(
                problem.Y[own], F[own], D[own], *posterior, problem.squares[own], problem.nobs, metric.columns,
                task.leaves, sweep.tile, W, g, self.gx[own], h[own], T, M,
            )  # fmt: skip
            if before is not None:
                self.memory.record(i, F[own], before[own], g, self.gF[own])
            self.gF[own], self._W[i], products[i] = g, W, (T, M)

        sweep.downward(visit, self.workers, metric.observe)
        metric.at(F, D, self.gF, products)
        self.metric = metric
        self._variances = uniqueness_variances(D, h)
        self.free = self._free()

    def _scaled(self, slope: Floats) -> Floats:
        return slope * self._variances

    def _expand(self) -> float:
        # From the moments that the gradient was made of: V = D dl/dF + F W.
        problem, D = self.problem, np.empty_like(self.x)

        def step(i: int) -> None:
            task = self.tasks[i]
            own = task.features
            V = self.trial[own]
            rotate(self.F[own], self._W[i], task.leaves, V)
            V += self.gF[own] * (problem.nobs * self.x[own, None])
            px_em_update(self._W[i], problem.squares[own], problem.nobs, problem.floor[own], task.leaves, V, D[own])

        self.workers.run(step, len(self.tasks))
        llf = self._loglike(self.trial, D, _as_it_is)
        gain = llf - self.llf
        if gain >= 0:
            self.F, self.trial = self.trial, self.F
            self.x, self.llf = D, llf
            self.memory.keep(0)
            self._look_around(None)
        return gain


def _as_it_is(task: Task) -> None:
    pass


def scoring(
    climber: Climber,
    record: FitRecord,
    watch: Callable[[Evaluation], None],
    hopeless: Hopeless = never,
) -> Point:
    """Climb until the projected gain stays below ``record.tol`` or ``record.maxiter`` is reached.

    Fills ``record`` and tells ``watch`` of every evaluation; returns the parameters at the end.
    """
    problem = climber.problem
    nobs, n = problem.nobs, len(problem.floor)
    small_for_long, largest_ratio = Stays(record.tol), FIRST_RATIO

    def note(llf: float, gain: float, step: str, accepted: bool) -> None:
        entry = Evaluation(len(record.evaluations), llf * nobs + problem.loglike_shift, gain, step, accepted)
        record.evaluations.append(entry)
        if not accepted:
            watch(entry)

    def spent() -> bool:
        return len(record.evaluations) > record.maxiter

    def end(reason: str, converged: bool) -> Point:
        record.reason, record.converged, record.score_norm = reason, converged, climber.score_norm()
        return climber.F, climber.x

    used_up = f"maxiter = {record.maxiter} evaluations were made"
    note(climber.llf, np.inf, "resumed" if record.evaluations else "start", True)
    while True:
        decrement = climber.decrement()
        near = decrement < NEAR * n
        predicted = decrement
        attempts: list[tuple[str, Callable[[], Direction]]] = [("scoring", climber.scoring_direction)]
        while near and len(climber.memory):
            quasi_newton = climber.quasi_newton_direction()
            if LEAST_RATIO * decrement < quasi_newton.along < largest_ratio * decrement:
                predicted = quasi_newton.along
                attempts.insert(0, ("quasi-newton", partial(_given, quasi_newton)))
                break
            climber.memory.keep(len(climber.memory) // 2)
        expected = 0.5 * max(predicted, decrement) * nobs
        record.evaluations[-1] = record.evaluations[-1]._replace(projected_gain=expected)
        watch(record.evaluations[-1])
        if small_for_long(expected):
            return end(f"the projected gain stayed below tol = {record.tol:g}", True)
        if hopeless(record):
            return end("another start was higher", False)

        largest_ratio = min(2 * largest_ratio, MOST_RATIO)
        for kind, propose in attempts:
            if spent():
                return end(used_up, False)
            direction = propose()
            llf, x, enough = climber.try_step(direction)
            note(llf, expected, kind, enough)
            if enough:
                climber.accept(llf, x, direction.rest)
                if not near:
                    climber.memory.keep(min(1, len(climber.memory)))
                break
            largest_ratio = FIRST_RATIO
            climber.memory.keep(0)
        else:
            if spent():
                return end(used_up, False)
            gain = climber.px_em()
            note(climber.llf + min(gain, 0.0), expected, "px-em", gain >= 0)
            if gain < 0:
                return end("no step raised the log-likelihood any more", expected < record.tol)
            if gain * nobs >= record.tol:
                small_for_long = Stays(record.tol)


def _given(direction: Direction) -> Direction:
    return direction
