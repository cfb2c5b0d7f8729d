"""From starts to a maximum: from one start, from the better of two after a few evaluations, or the best of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
#: The starts of which several are taken, before random ones.
SEVERAL = ("top-down", "pca", "frobenius")


@dataclass(frozen=True, eq=False)
class Search:
    """What every climb of one fit shares."""

    problem: Problem
    climb: Climb
    workers: Workers
    watch: Callable[[Evaluation], None]
    rng: np.random.Generator

    def from_start(self, start: str | Point, record: FitRecord) -> Point:
        """Climb from a start by name, or from a point; fills ``record``."""
        point = start if not isinstance(start, str) else STARTS[start.split()[0]](self.problem, self.rng, self.workers)
        point = self.climb(self.problem, point, record, self.workers, self.watch)
        record.starts[record.start] = record.llf
        return point

    def best_of(self, starts: Sequence[tuple[str, str | Point]], maxiter: int, record: FitRecord) -> Point:
        """Climb from each of the starts (name, start); ``record`` becomes that of the one that ends highest."""
        ends: list[tuple[FitRecord, Point]] = []
        for name, start in starts:
            trial = replace(record, start=name, maxiter=maxiter, evaluations=[], starts={})
            ends.append((trial, self.from_start(start, trial)))
        best, point = max(ends, key=lambda end: end[0].llf)
        record.start, record.evaluations, record.reason = best.start, best.evaluations, best.reason
        record.converged, record.score_norm = best.converged, best.score_norm
        record.starts = {trial.start: trial.llf for trial, _ in ends}
        record.elsewhere = sum(len(trial.evaluations) for trial, _ in ends if trial is not best)
        return point


def maximise(search: Search, start: str | Point | None, n_starts: int, record: FitRecord) -> Point:
    """The fit of a problem, from ``start`` (None: the default ones) and, with ``n_starts`` above 1, from others too."""
    asked = [] if start is None else [(record.start, start)]
    if n_starts > 1:
        several = asked or [(name, name) for name in SEVERAL[:n_starts]]
        several += [(f"random {i + 1}", "random") for i in range(n_starts - len(several))]
        return search.best_of(several, record.maxiter, record)
    if start is not None:
        return search.from_start(start, record)
    point = search.best_of([(name, name) for name in COMPARED], min(PROBE, record.maxiter), record)
    if record.converged or len(record.evaluations) > record.maxiter:
        return point
    return search.from_start(point, record)
