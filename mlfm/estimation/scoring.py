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
from mlfm.estimation.metric import Aside, Metric
from mlfm.estimation.problem import Problem
from mlfm.estimation.record import Evaluation, FitRecord, Hopeless, never
from mlfm.estimation.stopping import Stays
from mlfm.likelihood import condition, loglike_of
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

    ``F, D, llf`` are the point, ``gF, gD`` the gradient there and ``metric`` its metric. ``trial`` first takes what the
    metric makes of a gradient, then, with steps from memory and F itself, becomes the point that the step leads to.
    """

    def __init__(self, problem: Problem, start: tuple[Floats, Floats], workers: Workers) -> None:
        self.problem, self.workers = problem, workers
        self.sweep = RecordingSweep(problem.tree, problem.Y.shape[1])
        self.tasks = self.sweep.tasks
        n, r = len(problem.Y), problem.tree.n_factors
        self.memory = Memory(MEMORY, n, r, self.tasks, workers)
        self.F, self.D = start
        self.gF, self.gD = np.empty((n, r)), np.empty(n)
        self.trial = np.empty((n, r))
        self._W: list[Floats] = [np.empty(0)] * len(self.tasks)
        self.damping = LEAST_DAMPING
        condition(self.sweep, self.F, self.D, problem.Y, workers)
        self.llf = self._loglike(self.D)
        if not np.isfinite(self.llf):
            raise FloatingPointError("the log-likelihood of the start is not finite")
        self._look_around(None)

    def _loglike(self, D: Floats) -> float:
        """The log-likelihood of the parameters that the sweep was conditioned on; -inf where it has no meaning."""
        problem = self.problem
        whole = float((problem.squares / D).sum())
        left = whole - self.sweep.explained
        value = loglike_of(self.sweep, D, left, problem.nobs) / problem.nobs
        return value if np.isfinite(value) and left > MEANINGLESS * whole else -np.inf

    def _look_around(self, before: Floats | None) -> None:
        """The downward pass at the point just evaluated: gradient and metric, and with the loadings of ``before`` the
        loadings' part of a new pair.
        """
        problem, F, D, sweep = self.problem, self.F, self.D, self.sweep
        h, metric = np.empty(len(D)), Metric(sweep, self.damping)
        products: list[tuple[Floats, Floats]] = [(np.empty(0), np.empty(0))] * len(self.tasks)

        def visit(i: int, task: Task, posterior: Posterior) -> None:
            own = task.features
            g, W, T, M = np.empty_like(F[own]), *(np.empty_like(posterior.P) for _ in range(3))
            slopes(
                problem.Y[own], F[own], D[own], *posterior, problem.squares[own], problem.nobs, metric.columns,
                task.leaves, sweep.tile, W, g, self.gD[own], h[own], T, M,
            )  # fmt: skip
            if before is not None:
                self.memory.record(i, F[own], before[own], g, self.gF[own])
            self.gF[own], self._W[i], products[i] = g, W, (T, M)

        sweep.downward(visit, self.workers, metric.observe)
        metric.at(F, D, h, self.gF, products)
        self.metric = metric
        # A uniqueness pressed against its floor stays there.
        self.free: Floats = np.where(problem.pressed(D, self.gD), 0.0, 1.0)

    @property
    def slopeD(self) -> Floats:
        """The gradient by the uniquenesses that are free to move."""
        slope: Floats = self.gD * self.free
        return slope

    def decrement(self) -> float:
        """The gradient times the scoring step."""
        self._along_loadings, uniquenesses = self.metric.squared_lengths(self.slopeD, self.workers)
        return self._along_loadings + uniquenesses

    def scoring_direction(self) -> Direction:
        """The plain scoring step, after :meth:`decrement`."""
        dD: Floats = self.metric.step(self.slopeD, self.trial, self.workers) * self.free
        along = self._along_loadings + float(self.slopeD @ dD)
        return Direction(dD, along, self._along_loadings, np.empty(0, dtype=np.intp), np.empty(0))

    def quasi_newton_direction(self) -> Direction:
        """The step that the pairs in memory make of the metric."""

        def apply(GF: Floats, GD: Floats, before: Aside, after: Aside) -> Floats:
            return self.metric.apply(GF, GD, self.workers, before, after)

        return self.memory.direction(self.gF, self.slopeD, self.free, apply, self.trial)

    def try_step(self, direction: Direction) -> tuple[float, Floats, bool]:
        """A full step, D within its bounds: log-likelihood and D there, and whether it gained enough."""
        lowest = np.maximum(self.problem.floor, SHRINK * self.D)
        highest = np.maximum(GROW * self.D, REVIVE)  # features have variance 1
        D = np.clip(self.D + direction.dD, lowest, highest)

        def fill(task: Task, moments: Moments) -> None:
            own = task.features
            F = self.trial[own]
            F += self.F[own]
            self.memory.add_steps(direction, own, F)
            leaf_moments(F, D[own], self.problem.Y[own], task.leaves, self.sweep.tile, *moments)

        try:
            self.sweep.upward(fill, self.workers)
        except FloatingPointError:  # out of all bounds
            return -np.inf, D, False
        llf = self._loglike(D)
        predicted = direction.along_loadings + float(self.gD @ (D - self.D))
        return llf, D, llf >= self.llf + SUFFICIENT * max(predicted, 0.0) - ROUNDING * abs(self.llf)

    def accept(self, llf: float, D: Floats, dD: Floats) -> None:
        """Go to the trial point and learn from the step there; dD is its uniquenesses' part before clipping."""
        slope, sD = self.slopeD, D - self.D
        # What the model expected of the uniquenesses: of each the share of its step that was not clipped.
        share = np.clip(np.divide(sD, dD, out=np.ones_like(sD), where=dD != 0), 0, 1)
        self.F, self.trial = self.trial, self.F
        self.D, self.llf = D, llf
        self.damping = max(self.damping / EASE, LEAST_DAMPING)
        self.memory.open_slot()
        self._look_around(self.trial)
        self.memory.close_slot(sD, slope - self.slopeD, slope * share, self.gF)

    def px_em(self) -> float:
        """The parameter-expanded EM step, from the moments that the gradient was made of: V = D dl/dF + F W.

        Returns the gain, which is less than 0 only where nothing is to be gained in floating point; then it stays.
        """
        problem, D = self.problem, np.empty_like(self.D)

        def step(i: int) -> None:
            task = self.tasks[i]
            own = task.features
            V = self.trial[own]
            rotate(self.F[own], self._W[i], task.leaves, V)
            V += self.gF[own] * (problem.nobs * self.D[own, None])
            px_em_update(
                self._W[i], problem.squares[own], problem.nobs, problem.floor[own], task.leaves, V, D[own]
            )  # fmt: skip

        try:
            self.workers.run(step, len(self.tasks))
            condition(self.sweep, self.trial, D, problem.Y, self.workers)
        except FloatingPointError:  # a point where even this step is rounding
            return -np.inf
        llf = self._loglike(D)
        gain = llf - self.llf
        self.damping = min(max(DAMP * self.damping, FIRST_DAMPING), 1.0)
        if gain >= 0:
            self.F, self.trial = self.trial, self.F
            self.D, self.llf = D, llf
            self.memory.keep(0)
            self._look_around(None)
        return gain

    def score_norm(self) -> float:
        """Largest derivative by a free parameter, per observation."""
        return float(max(np.abs(self.gF).max(initial=0), np.abs(self.slopeD).max(initial=0)))


def scoring(
    problem: Problem,
    start: tuple[Floats, Floats],
    record: FitRecord,
    workers: Workers,
    watch: Callable[[Evaluation], None],
    hopeless: Hopeless = never,
) -> tuple[Floats, Floats]:
    """Climb from ``start`` until the projected gain stays below ``record.tol`` or ``record.maxiter`` is reached.

    Takes the start's arrays over, fills ``record`` and tells ``watch`` of every evaluation; returns the
    parameters at the end.
    """
    nobs, n = problem.nobs, len(problem.Y)
    small_for_long, largest_ratio = Stays(record.tol), FIRST_RATIO

    def note(llf: float, gain: float, step: str, accepted: bool) -> None:
        entry = Evaluation(len(record.evaluations), llf * nobs + problem.loglike_shift, gain, step, accepted)
        record.evaluations.append(entry)
        if not accepted:
            watch(entry)

    def spent() -> bool:
        return len(record.evaluations) > record.maxiter

    def end(reason: str, converged: bool) -> tuple[Floats, Floats]:
        record.reason, record.converged, record.score_norm = reason, converged, climber.score_norm()
        return climber.F, climber.D

    used_up = f"maxiter = {record.maxiter} evaluations were made"
    climber = Climber(problem, start, workers)
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
            llf, D, enough = climber.try_step(direction)
            note(llf, expected, kind, enough)
            if enough:
                climber.accept(llf, D, direction.dD)
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
