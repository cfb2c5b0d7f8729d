"""EM and parameter-expanded EM (PHB, section 3; Liu, Rubin and Wu 1998): one pass over the data an evaluation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlfm.estimation.problem import Problem
from mlfm.estimation.record import Evaluation, FitRecord, Hopeless, never
from mlfm.estimation.stopping import AitkenGain, Stays
from mlfm.likelihood import condition, loglike, score
from mlfm.sweep import Moments, Posterior, Sweep, Task, Workers

Floats = NDArray[np.float64]
#: A step's kernel (see mlfm._kernels.em): from a task's data and posterior to F, D, and the next moments.
Pass = Callable[..., None]


def ascend(
    problem: Problem,
    start: tuple[Floats, Floats],
    record: FitRecord,
    workers: Workers,
    watch: Callable[[Evaluation], None],
    hopeless: Hopeless = never,
    *,
    kernel: Pass,
) -> tuple[Floats, Floats]:
    """Climb from ``start`` until the projected gain stays below ``record.tol`` or ``record.maxiter`` steps are done.

    Takes the start's arrays over, fills ``record`` and tells ``watch`` of every evaluation; returns the
    parameters of the last one.
    """
    F, D = start
    sweep = Sweep(problem.tree, problem.Y.shape[1])
    condition(sweep, F, D, problem.Y, workers)
    gain, small_for_long = AitkenGain(), Stays(record.tol)
    steps = record.maxiter - len(record.evaluations) + 1
    for taken in range(max(steps, 1)):
        llf = loglike(sweep, D, problem.squares, problem.nobs) + problem.loglike_shift
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
        if hopeless(record):
            record.reason = "another start was higher"
            break
        if taken < steps - 1:
            step(problem, sweep, kernel, F, D, workers)
    else:
        record.reason = f"maxiter = {record.maxiter} evaluations were made"
    record.score_norm = _score_norm(problem, sweep, F, D, workers)
    return F, D


def step(problem: Problem, sweep: Sweep, kernel: Pass, F: Floats, D: Floats, workers: Workers) -> None:
    """One step from the parameters that the sweep was conditioned on; F, D and the sweep are those after it."""

    def renew(task: Task, posterior: Posterior, moments: Moments) -> None:
        own = task.features
        kernel(
            problem.Y[own], *posterior, problem.squares[own], problem.nobs, problem.floor[own], task.leaves, sweep.tile,
            F[own], D[own], *moments,
        )  # fmt: skip

    sweep.turn(renew, workers)


def _score_norm(problem: Problem, sweep: Sweep, F: Floats, D: Floats, workers: Workers) -> float:
    dF, dD = score(sweep, F, D, problem.Y, problem.squares, problem.nobs, workers)
    largest = max(np.abs(dF).max(initial=0), np.abs(dD[~problem.pressed(D, dD)]).max(initial=0))
    return float(largest) / problem.nobs
