"""The methods by name: functions of a problem, a start, the fit's record, workers, a watcher, a reason to give up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from mlfm._kernels.em import em_pass, em_update, px_em_pass, px_em_update
from mlfm.estimation.climber import Climber, CompleteClimber
from mlfm.estimation.em import CompleteStair, Pass, ascend
from mlfm.estimation.incomplete import IncompleteClimber, IncompleteProblem, IncompleteStair
from mlfm.estimation.problem import Point, Problem
from mlfm.estimation.record import Evaluation, FitRecord, GiveUp, never
from mlfm.estimation.scoring import scoring
from mlfm.sweep import Workers

AnyProblem = Problem | IncompleteProblem
Watch = Callable[[Evaluation], None]
Climb = Callable[..., Point]


class Method(NamedTuple):
    """How to climb, and unless told otherwise how many evaluations it may take, and when it is there.

    A climb takes over the arrays of its start: they are its own to overwrite.

    The EM methods creep where scoring steps: the same tolerance would keep them for hours.
    """

    climb: Climb
    maxiter: int
    tol: float


def _by_scoring(
    problem: AnyProblem,
    start: Point,
    record: FitRecord,
    workers: Workers,
    watch: Watch,
    give_up: GiveUp = never,
) -> Point:
    if isinstance(problem, IncompleteProblem):
        climber: Climber = IncompleteClimber(problem, start, workers)
    else:
        climber = CompleteClimber(problem, start, workers)
    return scoring(climber, record, watch, give_up)


def _by_em(
    problem: AnyProblem, start: Point, record: FitRecord, workers: Workers, watch: Watch,
    give_up: GiveUp = never, *, one_pass: Pass, update: Pass,
) -> Point:  # fmt: skip
    if isinstance(problem, IncompleteProblem):
        return ascend(IncompleteStair(problem, start, workers, update), record, watch, give_up)
    return ascend(CompleteStair(problem, start, workers, one_pass), record, watch, give_up)


METHODS: dict[str, Method] = {
    "scoring": Method(_by_scoring, 1_000, 1e-4),
    "px-em": Method(partial(_by_em, one_pass=px_em_pass, update=px_em_update), 50_000, 1e-2),
    "em": Method(partial(_by_em, one_pass=em_pass, update=em_update), 50_000, 1e-2),
}
