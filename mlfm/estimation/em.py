"""EM and parameter-expanded EM (PHB, section 3; Liu, Rubin and Wu 1998): one pass over the data an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlfm.estimation.problem import Point, Problem, Scaled
from mlfm.estimation.record import Evaluation, FitRecord, GiveUp, never
from mlfm.estimation.stopping import AitkenGain, Stays
from mlfm.likelihood import condition, loglike, score
from mlfm.sweep import Moments, Posterior, Sweep, Task, Workers

Floats = NDArray[np.float64]
#: A step's kernel (see mlfm._kernels.em): from a task's data and posterior to F, D, and the next moments.
Pass = Callable[..., None]


class Stair(Protocol):
    """A point, and EM steps from it. The arrays of the start are taken over."""

    @property
    def problem(self) -> Scaled:
        """What is maximised."""

    def loglike(self) -> float:
        """The log-likelihood at the point."""

    def step(self) -> None:
        """One step."""

    def slopes(self) -> tuple[Floats, Floats]:
        """Derivatives by the loadings and by the rest of the parameters."""

    @property
    def point(self) -> Point:
        """The parameters."""


class CompleteStair:
    """Where no value is missing: downward, the step, and upward again in one visit to the data."""

    def __init__(self, problem: Problem, start: Point, workers: Workers, kernel: Pass) -> None:
        self._problem, self._workers, self._kernel = problem, workers, kernel
        self._F, self._D = start
        self._sweep = Sweep(problem.tree, problem.Y.shape[1])
        condition(self._sweep, *start, problem.Y, workers)

    @property
    def problem(self) -> Problem:
        return self._problem

    @property
    def point(self) -> Point:
        return self._F, self._D

    def loglike(self) -> float:
        return loglike(self._sweep, self._D, self.problem.penalised_squares, self.problem.nobs)

    def step(self) -> None:
        problem, F, D, tile = self.problem, self._F, self._D, self._sweep.tile
        squares = problem.penalised_squares

        def renew(task: Task, posterior: Posterior, moments: Moments) -> None:
            own = task.features
            self._kernel(
                problem.Y[own], *posterior, squares[own], problem.nobs, problem.floor[own], task.leaves, tile,
                F[own], D[own], *moments,
            )  # fmt: skip

        self._sweep.turn(renew, self._workers)

    def slopes(self) -> tuple[Floats, Floats]:
        problem = self.problem
        return score(self._sweep, *self.point, problem.Y, problem.penalised_squares, problem.nobs, self._workers)


def ascend(stair: Stair, record: FitRecord, watch: Callable[[Evaluation], None], give_up: GiveUp = never) -> Point:
    """Climb until the projected gain stays below ``record.tol`` or ``record.maxiter`` steps are done.

    Fills ``record`` and tells ``watch`` of every evaluation; returns the parameters of the last one.
    """
    gain, small_for_long = AitkenGain(), Stays(record.tol)
    steps = record.maxiter - len(record.evaluations) + 1
    for taken in range(max(steps, 1)):
        llf = stair.loglike() + stair.problem.loglike_shift
        if not np.isfinite(llf):
            raise FloatingPointError(f"the log-likelihood is {llf} after {taken} steps")
        kind = record.method if taken else "resumed" if record.evaluations else "start"
        entry = Evaluation(len(record.evaluations), llf, gain.after(llf), kind, True)
        record.evaluations.append(entry)
        watch(entry)
        if small_for_long(entry.projected_gain):
            record.converged = True
            record.reason = f"the projected gain stayed below tol = {record.tol:g}"
            break
        if reason := give_up(record, stair.point):
            record.reason = reason
            break
        if taken < steps - 1:
            stair.step()
    else:
        record.reason = f"maxiter = {record.maxiter} evaluations were made"
    record.score_norm = _score_norm(stair)
    return stair.point


def _score_norm(stair: Stair) -> float:
    """Largest derivative by a free parameter, per observation."""
    dF, dx = stair.slopes()
    D = stair.point[1][: len(dF)]
    free = np.ones(len(dx), dtype=bool)
    free[: len(D)] = ~stair.problem.pressed(D, dx[: len(D)])
    return float(max(np.abs(dF).max(initial=0), np.abs(dx[free]).max(initial=0))) / stair.problem.nobs
