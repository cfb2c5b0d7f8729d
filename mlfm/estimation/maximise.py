"""From starts to a maximum: from one start, from the better of two after a few evaluations, or the best of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlfm.estimation.methods import AnyProblem, Climb
from mlfm.estimation.problem import Point
from mlfm.estimation.record import Evaluation, FitRecord, Hopeless, never
from mlfm.estimation.starts import STARTS
from mlfm.sweep import Workers

#: The starts that are compared where none is asked for: the one mostly goes on from where it is, the other may end
#: higher, and takes longer to show it.
FAVOURITE, CHALLENGER = "top-down", "pca"
#: Evaluations after which they are compared. Of 25 problems, real and simulated, of which 11 have two ends, 10 choose
#: the lower one in five, 20 in three, and 30 in three.
PROBE = 20
#: The starts of which several are taken, before random ones.
SEVERAL = ("top-down", "pca", "frobenius")


@dataclass(frozen=True, eq=False)
class Search:
    """What every climb of one fit shares."""

    problem: AnyProblem
    climb: Climb
    workers: Workers
    watch: Callable[[Evaluation], None]
    rng: np.random.Generator

    def from_start(self, start: str | Point, record: FitRecord, hopeless: Hopeless = never) -> Point:
        """Climb from a start by name, or from a point; fills ``record``."""
        point = start
        if isinstance(point, str):
            start_from = STARTS[point.split()[0]]
            point = self.problem.with_coefficients(*start_from(self.problem.stand_in, self.rng, self.workers))
        point = self.climb(self.problem, point, record, self.workers, self.watch, hopeless)
        record.starts[record.start] = record.llf
        return point

    def best_of(self, starts: Sequence[tuple[str, str | Point]], record: FitRecord) -> Point:
        """Climb from each of the starts (name, start) to its end; ``record`` becomes that of the highest."""
        trials: list[FitRecord] = []
        best: tuple[FitRecord, Point] | None = None
        for name, start in starts:
            trials.append(_trial(record, name, record.maxiter))
            point = self.from_start(start, trials[-1])
            if best is None or trials[-1].llf > best[0].llf:
                best = trials[-1], point
        assert best is not None
        _take(record, best[0], trials)
        return best[1]

    def better_of_two(self, record: FitRecord) -> Point:
        """Some evaluations from the challenger, then from the favourite to its end, unless it falls behind."""
        probe = min(PROBE, record.maxiter)
        challenger, favourite = _trial(record, CHALLENGER, probe), _trial(record, FAVOURITE, record.maxiter)
        beginning = self.from_start(CHALLENGER, challenger)

        def behind(so_far: FitRecord) -> bool:
            return len(so_far.evaluations) > probe and so_far.llf < challenger.llf

        point = self.from_start(FAVOURITE, favourite, behind)
        if favourite.llf >= challenger.llf:
            _take(record, favourite, [challenger, favourite])
            return point
        _take(record, challenger, [challenger, favourite])
        if record.converged or len(record.evaluations) > record.maxiter:
            return beginning
        return self.from_start(beginning, record)


def _trial(record: FitRecord, start: str, maxiter: int) -> FitRecord:
    """A record of its own for one of several starts."""
    return replace(record, start=start, maxiter=maxiter, evaluations=[], starts={})


def _take(record: FitRecord, best: FitRecord, trials: Sequence[FitRecord]) -> None:
    """``record`` becomes that of the best of several starts, and knows of the others."""
    record.start, record.evaluations, record.reason = best.start, best.evaluations, best.reason
    record.converged, record.score_norm = best.converged, best.score_norm
    record.starts = {trial.start: trial.llf for trial in trials}
    record.elsewhere = sum(len(trial.evaluations) for trial in trials if trial is not best)


def maximise(search: Search, start: str | Point | None, n_starts: int, record: FitRecord) -> Point:
    """The fit of a problem, from ``start`` (None: the default ones) and, with ``n_starts`` above 1, from others too."""
    asked = [] if start is None else [(record.start, start)]
    if n_starts > 1:
        several = asked or [(name, name) for name in SEVERAL[:n_starts]]
        several += [(f"random {i + 1}", "random") for i in range(n_starts - len(several))]
        return search.best_of(several, record)
    if start is not None:
        return search.from_start(start, record)
    return search.better_of_two(record)
