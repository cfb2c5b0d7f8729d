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

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import gradient, leverages, px_em_update, rotate
from mlfm.estimation.memory import Memory
from mlfm.estimation.metric import Metric
from mlfm.estimation.problem import Problem
from mlfm.estimation.record import Evaluation, FitRecord
from mlfm.estimation.stopping import Stays
from mlfm.likelihood import condition, loglike, posterior_moments
from mlfm.sweep import Sweep, Task, Workers

Floats = NDArray[np.float64]

MEMORY = 5  # pairs; 10 and 20 were no better on ten problems, real and simulated
NEAR = 1e-3  # a feature: Newton decrement below which pairs are used
LEAST_RATIO = 0.05  # of a quasi-Newton direction's predicted gain to the scoring step's
FIRST_RATIO, MOST_RATIO = 2.0, 1e4  # the largest, doubled at each success
SHRINK, GROW, REVIVE = 0.1, 5.0, 0.1  # D stays in [SHRINK D, max(GROW D, REVIVE v)]
# Least eigenvalue of the information of a group's factors (see Metric): raised when a scoring step fails.
LEAST_DAMPING, FIRST_DAMPING, DAMP, EASE = 1e-8, 1e-3, 10.0, 3.0
SUFFICIENT = 1e-4  # share of the predicted gain that a step must have
ROUNDING = 1e-13  # relative; losses below this are rounding


class Climber:
    """A point on the way up, and the steps from it; all arrays of the size of the loadings live here, and move once.

    ``F, D, llf`` are the point, ``gF, gD`` the gradient there and ``metric`` its metric; ``direction`` is what the next
    step follows, ``trial`` where it leads.
    """

    def __init__(self, problem: Problem, start: tuple[Floats, Floats], workers: Workers) -> None:
        self.problem, self.workers = problem, workers
        self.sweep = Sweep(problem.tree, problem.Y.shape[1])
        self.tasks = self.sweep.tasks
        n, r = len(problem.Y), problem.tree.n_factors
        self.memory = Memory(MEMORY, n, r, self.tasks, workers)
        self.F, self.D = start[0].copy(), start[1]
        self.gF, self.gD = np.empty((n, r)), np.empty(n)
        self.direction, self.trial = np.empty((n, r)), np.empty((n, r))
        self._W: list[Floats] = [np.empty(0)] * len(self.tasks)
        self.damping = LEAST_DAMPING
        self.llf = self._loglike(self.F, self.D)
        if not np.isfinite(self.llf):
            raise FloatingPointError("the log-likelihood of the start is not finite")
        self._look_around(None)

    def _loglike(self, F: Floats, D: Floats) -> float:
        """The upward pass; -inf where the parameters are out of all bounds."""
        try:
            condition(self.sweep, F, D, self.problem.Y, self.workers)
        except FloatingPointError:
            return -np.inf
        value = loglike(self.sweep, D, self.problem.squares, self.problem.nobs) / self.problem.nobs
        return value if np.isfinite(value) else -np.inf

    def _look_around(self, before: Floats | None) -> None:
        """The downward pass at the point just evaluated: gradient and metric, and with the loadings of ``before`` the
        loadings' part of a new pair.
        """
        problem, F, D = self.problem, self.F, self.D
        h, metric = np.empty(len(D)), Metric(self.sweep, self.damping)

        def visit(i: int, task: Task, Z: Floats, P: Floats) -> None:
            own = task.features
            V, W = posterior_moments(task, Z, P, problem.Y, problem.nobs)
            g = np.empty_like(V)
            gradient(F[own], D[own], V, W, problem.squares[own], problem.nobs, task.leaves, g, self.gD[own])
            leverages(F[own], D[own], P, task.leaves, V, h[own])
            g /= problem.nobs
            if before is not None:
                self.memory.record(i, F[own], before[own], g, self.gF[own])
            self.gF[own], self._W[i] = g, W

        self.sweep.downward(visit, self.workers, metric.observe)
        self.gD /= problem.nobs
        metric.at(F, D, h)
        self.metric = metric
        # A uniqueness pressed against its floor stays there.
        self.free: Floats = np.where(problem.on_floor(D) & (self.gD < 0), 0.0, 1.0)

    @property
    def slopeD(self) -> Floats:
        """The gradient by the uniquenesses that are free to move."""
        slope: Floats = self.gD * self.free
        return slope

    def decrement(self) -> float:
        """The gradient times the scoring step."""
        return self.metric.decrement(self.gF, self.slopeD, self.workers)

    def scoring_direction(self) -> Floats:
        """The plain scoring step into ``direction``; its uniquenesses' part is returned."""
        self.direction[:] = self.gF
        dD: Floats = self.metric.apply(self.direction, self.slopeD, self.workers) * self.free
        return dD

    def quasi_newton_direction(self) -> tuple[Floats, float]:
        """The quasi-Newton step likewise, and its product with the gradient."""

        def apply(GF: Floats, GD: Floats) -> Floats:
            return self.metric.apply(GF, GD, self.workers)

        return self.memory.direction(self.gF, self.slopeD, self.free, apply, self.direction)

    def try_step(self, dD: Floats) -> tuple[float, Floats, bool]:
        """A full step along ``direction``, D within its bounds: log-likelihood, D, and whether it gained enough."""
        lowest = np.maximum(self.problem.floor, SHRINK * self.D)
        highest = np.maximum(GROW * self.D, REVIVE)  # features have variance 1
        D = np.clip(self.D + dD, lowest, highest)
        parts = np.empty(len(self.tasks))

        def move(i: int) -> None:
            own = self.tasks[i].features
            np.add(self.F[own], self.direction[own], out=self.trial[own])
            parts[i] = np.vdot(self.gF[own], self.direction[own])

        self.workers.run(move, len(self.tasks))
        predicted = float(parts.sum() + self.gD @ (D - self.D))
        llf = self._loglike(self.trial, D)
        return llf, D, llf >= self.llf + SUFFICIENT * predicted - ROUNDING * abs(self.llf)

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
            V = self.gF[own] * (problem.nobs * self.D[own, None])
            product = np.empty_like(V)
            rotate(self.F[own], self._W[i], task.leaves, product)
            V += product
            px_em_update(
                V,
                self._W[i],
                problem.squares[own],
                problem.nobs,
                problem.floor[own],
                task.leaves,
                self.trial[own],
                D[own],
            )

        self.workers.run(step, len(self.tasks))
        llf = self._loglike(self.trial, D)
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
) -> tuple[Floats, Floats]:
    """Climb from ``start`` until the projected gain stays below ``record.tol`` or ``record.maxiter`` is reached.

    Fills ``record`` and tells ``watch`` of every evaluation; returns the parameters at the end.
    """
    nobs, n = problem.nobs, len(problem.Y)
    small_for_long, largest_ratio = Stays(record.tol), FIRST_RATIO

    def note(llf: float, gain: float, step: str, accepted: bool) -> None:
        entry = Evaluation(len(record.evaluations), llf * nobs + problem.loglike_shift, gain, step, accepted)
        record.evaluations.append(entry)
        if not accepted:
            watch(entry)

    climber = Climber(problem, start, workers)
    note(climber.llf, np.inf, "resumed" if record.evaluations else "start", True)
    while True:
        decrement = climber.decrement()
        near = decrement < NEAR * n
        kinds, predicted, dD = ["scoring"], decrement, np.empty(0)
        while near and len(climber.memory):
            dD, along = climber.quasi_newton_direction()
            if LEAST_RATIO * decrement < along < largest_ratio * decrement:
                kinds, predicted = ["quasi-newton", "scoring"], along
                break
            climber.memory.keep(len(climber.memory) // 2)
        expected = 0.5 * max(predicted, decrement) * nobs
        record.evaluations[-1] = record.evaluations[-1]._replace(projected_gain=expected)
        watch(record.evaluations[-1])
        if small_for_long(expected):
            record.converged = True
            record.reason = f"the projected gain stayed below tol = {record.tol:g}"
            break
        if len(record.evaluations) > record.maxiter:
            record.reason = f"maxiter = {record.maxiter} evaluations were made"
            break

        largest_ratio = min(2 * largest_ratio, MOST_RATIO)
        for kind in kinds:
            if kind == "scoring":
                dD = climber.scoring_direction()
            llf, D, enough = climber.try_step(dD)
            note(llf, expected, kind, enough)
            if enough:
                break
            largest_ratio = FIRST_RATIO
            climber.memory.keep(0)
        if enough:
            climber.accept(llf, D, dD)
            if not near:
                climber.memory.keep(min(1, len(climber.memory)))
        else:
            gain = climber.px_em()
            note(climber.llf + min(gain, 0), expected, "px-em", gain >= 0)
            if gain < 0:
                record.converged = expected < record.tol
                record.reason = "no step raised the log-likelihood any more"
                break
            if gain * nobs >= record.tol:
                small_for_long = Stays(record.tol)
    record.score_norm = climber.score_norm()
    return climber.F, climber.D
