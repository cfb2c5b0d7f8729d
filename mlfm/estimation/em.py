"""EM and parameter-expanded EM (PHB, section 3; Liu, Rubin and Wu 1998): two sweeps an evaluation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlfm.estimation.problem import Problem
from mlfm.estimation.record import Evaluation, FitRecord
from mlfm.estimation.stopping import AitkenGain, Stays
from mlfm.likelihood import condition, loglike, posterior_moments, score
from mlfm.sweep import Sweep, Task, Workers

Floats = NDArray[np.float64]
#: Loadings and uniquenesses of a task's features from the moments V and W (see mlfm._kernels.blocks).
Update = Callable[[Floats, Floats, Floats, float, Floats, NDArray[np.intp], Floats, Floats], None]


def ascend(
    problem: Problem,
    start: tuple[Floats, Floats],
    record: FitRecord,
    workers: Workers,
    watch: Callable[[Evaluation], None],
    *,
    update: Update,
) -> tuple[Floats, Floats]:
    """Climb from ``start`` until the projected gain stays below ``record.tol`` or ``record.maxiter`` steps are done.

    Fills ``record`` and tells ``watch`` of every evaluation; returns the parameters of the last one.
    """
    F, D = start
    sweep = Sweep(problem.tree, problem.Y.shape[1])
    gain, small_for_long = AitkenGain(), Stays(record.tol)
    steps = record.maxiter - len(record.evaluations) + 1
    for taken in range(max(steps, 1)):
        condition(sweep, F, D, problem.Y, workers)
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
        if taken < steps - 1:
            F, D = step(problem, sweep, update, workers)
    else:
        record.reason = f"maxiter = {record.maxiter} evaluations were made"
    record.score_norm = _score_norm(problem, sweep, F, D, workers)
    return F, D


def step(problem: Problem, sweep: Sweep, update: Update, workers: Workers) -> tuple[Floats, Floats]:
    """One step from the parameters that the sweep was conditioned on."""
    F, D = np.empty((len(problem.Y), problem.tree.n_factors)), np.empty(len(problem.Y))

    def visit(i: int, task: Task, Z: Floats, P: Floats) -> None:
        own = task.features
        V, W = posterior_moments(task, Z, P, problem.Y, problem.nobs)
        update(V, W, problem.squares[own], problem.nobs, problem.floor[own], task.leaves, F[own], D[own])

    sweep.downward(visit, workers)
    return F, D


def _score_norm(problem: Problem, sweep: Sweep, F: Floats, D: Floats, workers: Workers) -> float:
    dF, dD = score(sweep, F, D, problem.Y, problem.squares, problem.nobs, workers)
    pressed = problem.on_floor(D) & (dD < 0)
    largest = max(np.abs(dF).max(initial=0), np.abs(dD[~pressed]).max(initial=0))
    return float(largest) / problem.nobs
