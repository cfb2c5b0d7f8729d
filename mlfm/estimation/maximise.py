"""From starts to a maximum: the one start asked for, or the better of two after a few evaluations of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlfm.estimation.methods import Climb
from mlfm.estimation.problem import Problem
from mlfm.estimation.record import Evaluation, FitRecord
from mlfm.estimation.starts import STARTS
from mlfm.sweep import Workers

Floats = NDArray[np.float64]
Point = tuple[Floats, Floats]

#: The starts that are compared where none is asked for: the first is the fastest, the second often ends higher.
COMPARED = ("top-down", "pca")
#: Evaluations from each of them before the better one goes on alone.
PROBE = 10


def maximise(
    problem: Problem,
    start: str | Point | None,
    climb: Climb,
    record: FitRecord,
    workers: Workers,
    watch: Callable[[Evaluation], None],
    rng: np.random.Generator,
) -> Point:
    """Climb from a start by name, from a point, or (None) from the better of two; fills ``record``."""
    if start is None:
        point = _better(problem, climb, record, workers, watch, rng)
        if record.converged or len(record.evaluations) > record.maxiter:
            return point
    else:
        point = STARTS[start](problem, rng) if isinstance(start, str) else start
    point = climb(problem, point, record, workers, watch)
    record.starts[record.start] = record.llf
    return point


def _better(
    problem: Problem,
    climb: Climb,
    record: FitRecord,
    workers: Workers,
    watch: Callable[[Evaluation], None],
    rng: np.random.Generator,
) -> Point:
    """A few evaluations from each start; the record becomes that of the better one."""
    ends: list[tuple[FitRecord, Point]] = []
    for name in COMPARED:
        trial = replace(record, start=name, maxiter=min(PROBE, record.maxiter), evaluations=[], starts={})
        point = climb(problem, STARTS[name](problem, rng), trial, workers, watch)
        ends.append((trial, point))
    best, point = max(ends, key=lambda end: end[0].llf)
    record.elsewhere = sum(len(trial.evaluations) for trial, _ in ends if trial is not best)
    record.starts = {trial.start: trial.llf for trial, _ in ends}
    record.start, record.evaluations = best.start, best.evaluations
    record.converged, record.score_norm = best.converged, best.score_norm
    record.reason = best.reason
    return point
