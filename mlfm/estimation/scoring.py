"""Block Fisher scoring with a quasi-Newton memory (documentation: "The model", Fitting).

The inverse block information (see mlfm.estimation.metric) is the metric of a damped L-BFGS in the coordinates
(F, D). Steps have length 1 and no line search; what keeps them safe:

- pairs are used only near a maximum (Newton decrement below a bound), a plain scoring step elsewhere;
- D moves by bounded factors; a D pressed against its floor is fixed;
- a quasi-Newton direction whose predicted gain is far from the scoring step's loses its memory, half by half;
- a step that does not gain enough is taken back: from quasi-Newton to scoring, from scoring to PX-EM, which needs
  only moments in hand and never lowers the likelihood.

Between the steps the small leaf groups take their turns (see mlfm.estimation.leaf_groups).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from mlfm.estimation.climber import Climber
from mlfm.estimation.memory import Direction
from mlfm.estimation.problem import Point
from mlfm.estimation.record import Evaluation, FitRecord, GiveUp, never
from mlfm.estimation.stopping import Stays
from mlfm.estimation.turns import Turns

NEAR = 1e-2  # a feature: Newton decrement below which pairs are used; 1e-3 takes a sixth more evaluations on real data
LEAST_RATIO = 0.05  # of a quasi-Newton direction's predicted gain to the scoring step's
FIRST_RATIO, MOST_RATIO = 2.0, 1e4  # the largest, doubled at each success
QUASI_NEWTON = "quasi-newton"


def scoring(
    climber: Climber,
    record: FitRecord,
    watch: Callable[[Evaluation], None],
    give_up: GiveUp = never,
) -> Point:
    """Climb until the projected gain stays below ``record.tol`` or ``record.maxiter`` is reached.

    Fills ``record`` and tells ``watch`` of every evaluation; returns the parameters at the end.
    """
    problem = climber.problem
    nobs, n = problem.nobs, len(problem.floor)
    small_for_long, largest_ratio, turns = Stays(record.tol), FIRST_RATIO, Turns()

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

    def leaf_groups_turn(expected: float, *, afresh: bool) -> float | None:
        """What their turn gains; None where they stay."""
        try:
            promised = climber.propose_leaf_groups(afresh=afresh) * nobs
            if not (promised > 0 and promised >= record.tol):
                return None
            gain = climber.try_leaf_groups()
        except FloatingPointError:  # a point where they have no maximum
            return None
        note(climber.llf + min(gain, 0.0), expected, "leaf groups", gain >= 0)
        return gain * nobs if gain >= 0 else None

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
                attempts.insert(0, (QUASI_NEWTON, partial(_given, quasi_newton)))
                break
            climber.memory.keep(len(climber.memory) // 2)
        expected = 0.5 * max(predicted, decrement) * nobs
        record.evaluations[-1] = record.evaluations[-1]._replace(projected_gain=expected)
        watch(record.evaluations[-1])
        ending = small_for_long(expected)
        if (ending or turns.due(expected)) and not spent():
            gain = leaf_groups_turn(expected, afresh=ending or turns.early)
            turns.taken(gain or 0.0)
            if gain is not None:
                if gain >= record.tol:
                    small_for_long = Stays(record.tol)
                continue
            if attempts[0][0] == QUASI_NEWTON:  # what they would have moved to lies where the direction was
                attempts[0] = QUASI_NEWTON, climber.quasi_newton_direction
        if ending:
            return end(f"the projected gain stayed below tol = {record.tol:g}", True)
        if reason := give_up(record, (climber.F, climber.x)):
            return end(reason, False)

        largest_ratio = min(2 * largest_ratio, MOST_RATIO)
        for kind, propose in attempts:
            if spent():
                return end(used_up, False)
            direction = propose()
            llf, x, enough = climber.try_step(direction)
            note(llf, expected, kind, enough)
            if enough:
                climber.accept(llf, x, direction.rest)
                turns.stepped()
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
