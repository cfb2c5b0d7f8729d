"""From starts to the highest maximum that can be found: climbs, excursions from the best of them, and crossings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mlfm.estimation.crossing import crossed, distance
from mlfm.estimation.effort import LEAST, SEARCHES, USUAL, Effort, usual_start, work
from mlfm.estimation.excursions import Detour, Excursion, drawn_anew, redrawn, round_trip
from mlfm.estimation.methods import METHODS, AnyProblem, Method
from mlfm.estimation.neighbourhood import Neighbourhood
from mlfm.estimation.problem import Point
from mlfm.estimation.record import Climb, Evaluation, FitRecord, GiveUp, never
from mlfm.estimation.starts import STARTS
from mlfm.ranks import ByLevel
from mlfm.sweep import Workers

#: The starts of which several are taken, before random ones.
SEVERAL = ("pca", "top-down", "frobenius")
#: Nats by which a maximum is higher than another one.
HIGHER = 0.05
#: Tolerances of climbs that are not the last one: at other ranks, where at most AWAY evaluations are made because only
#: the direction counts; back at the ranks asked for; from there where it is not clear which maximum this is; and from a
#: crossing.
LOOSE_AWAY, AWAY, LOOSE_BACK, LESS_LOOSE, LOOSE_CROSSING = 1.0, 25, 0.1, 1e-3, 0.03
#: A climb is back at a maximum when it is so few nats below, and no feature differs by this share of its variance.
CLOSE, SAME = 1.0, 0.03
#: A climb is far below when it would need so many times the gain that it expects, TIMES in a row. On the way past a
#: saddle a climb that will end higher expects little for long, so that the number must be large.
FAR, TIMES = 1000.0, 3


class Peak(NamedTuple):
    """Where a climb has come to."""

    record: FitRecord
    point: Point

    @property
    def llf(self) -> float:
        return self.record.llf


class Search:
    """The climbs of one fit.

    The first ones go from the starts to their ends. From the highest end go excursions (:mod:`.excursions`); where they
    come to is crossed with the highest so far (:mod:`.crossing`), and what is higher takes its place. All of these are
    loose, and given up when they come back to where they were. The last digits are for the highest.

    ``best`` is the highest so far, also while the search is going on. ``elsewhere`` has, by neighbouring ranks, the
    highest that an excursion came to on its way, with its log-likelihood.
    """

    def __init__(
        self,
        neighbourhood: Neighbourhood,
        method: Method,
        workers: Workers,
        watch: Callable[[Evaluation], None],
        rng: np.random.Generator,
    ) -> None:
        self._around, self._method, self._workers, self._watch = neighbourhood, method, workers, watch
        self.problem, self.rng = neighbourhood.home, rng
        self.best: Peak | None = None
        self.elsewhere: dict[ByLevel, tuple[float, Point]] = {}
        self._spent = 0.0

    def maximise(self, starts: Sequence[tuple[str, str | Point]], record: FitRecord) -> Point:
        """The highest point found from the starts (name, start); fills ``record``."""
        for name, start in starts:
            self._begin_at(name, start, record)
            if len(record.climbs) == 1:
                # A climb from near a maximum, or from the start that takes few, says little of how long others are.
                least = 0 if start == SEVERAL[0] else USUAL
                first = max(record.climbs[0].evaluations, least) * work(self.problem)
        effort = SEARCHES[record.search]
        if effort is not None and self._highest.record.converged and any(self._around.ranks):
            self._look_further(effort, first, record)
        return self.finish(record)

    def finish(self, record: FitRecord) -> Point:
        """From the highest so far to its end; ``record`` becomes that of the way there."""
        own, point = self._highest
        self.so_far(record)
        if own.tol > record.tol:
            before = len(record.evaluations)
            point = point[0].copy(), point[1].copy()  # the best so far stays what it is, should this be interrupted
            point = self._method.climb(self.problem, point, record, self._workers, self._watch, never)
            i = next(i for i, climb in enumerate(record.climbs) if climb.start == own.start)
            more = record.climbs[i].evaluations + len(record.evaluations) - before
            record.climbs[i] = record.climbs[i]._replace(llf=record.llf, evaluations=more, ended=record.converged)
        return point

    def so_far(self, record: FitRecord) -> Point:
        """The highest point so far; ``record`` becomes that of the way there."""
        own, point = self._highest
        record.found_by, record.evaluations, record.reason = own.start, list(own.evaluations), own.reason
        record.converged, record.score_norm = own.converged and own.tol <= record.tol, own.score_norm
        return point

    @property
    def _highest(self) -> Peak:
        assert self.best is not None
        return self.best

    def _begin_at(self, name: str, start: str | Point, record: FitRecord) -> None:
        """Climb from a start by name, or from a point, to the end."""
        if isinstance(start, str):
            start = self.problem.with_coefficients(*STARTS[start](self.problem.stand_in, self.rng, self._workers))
        own = replace(record, start=name, evaluations=[], climbs=[])
        point = self._method.climb(self.problem, start, own, self._workers, self._watch, never)
        peak = Peak(own, point)
        self._spent += len(own.evaluations) * work(self.problem)
        record.climbs.append(self._climb(peak, len(own.evaluations), ended=own.converged))
        if self.best is None or peak.llf > self.best.llf:
            self.best, record.start = peak, name

    def _climb(self, peak: Peak, evaluations: int, *, ended: bool, returned: bool = False) -> Climb:
        on_floor = int(self.problem.on_floor(peak.point[1][: len(peak.point[0])]).sum())
        return Climb(peak.record.start, peak.llf, evaluations, ended, returned, on_floor)

    def _look_further(self, effort: Effort, first: float, record: FitRecord) -> None:
        """Rounds of excursions, until none has brought anything or enough has been done."""
        around, most, stale = self._around, effort.most(first), 0
        sizes = [np.diff(offsets) for offsets in around.offsets]
        excursions = list(round_trip(around.ranks, [len(own) for own in sizes], [int(own.max()) for own in sizes]))
        gone: set[Detour] = set()  # from the highest so far: going again would lead to the same place
        while stale < effort.patience:
            before = self._highest.llf
            for excursion in excursions if not stale else drawn_anew(around.ranks):
                if excursion in gone:
                    continue
                if self._spent + LEAST * first > most:
                    record.cut_short = True
                    return
                height = self._highest.llf
                self._go(excursion, record)
                if self._highest.llf > height + HIGHER:
                    gone.clear()
                elif isinstance(excursion, Detour):
                    gone.add(excursion)
            stale = 0 if self._highest.llf > before + HIGHER else stale + 1

    def _go(self, excursion: Excursion, record: FitRecord) -> None:
        """One excursion from the highest so far, and the crossing with where it comes to."""
        name = _numbered(excursion.name(self._around.ranks, self._around.levels), record.climbs)
        own = replace(record, start=name, tol=max(LOOSE_BACK, record.tol), evaluations=[], climbs=[])
        home, before = self.problem, self._highest
        taken = 0
        try:
            begin, taken = self._beginning(excursion)
            point, returned = self._climb_back(own, begin, before)
        except (FloatingPointError, np.linalg.LinAlgError):  # where it leads the likelihood has no meaning
            record.climbs.append(Climb(name, -np.inf, taken + len(own.evaluations), False, False, 0))
            return
        peak = Peak(own, point)
        self._spent += len(own.evaluations) * work(home)
        record.climbs.append(self._climb(peak, taken + len(own.evaluations), ended=own.converged, returned=returned))
        if not returned:
            self._take_if_higher(peak, record)
            self._cross(peak if self._highest is before else before, name, record)

    def _beginning(self, excursion: Excursion) -> tuple[Point, int]:
        """Where an excursion comes back to the ranks asked for, and the evaluations on the way."""
        around, here = self._around, self._highest.point
        if not isinstance(excursion, Detour):
            first = sum(around.ranks[: excursion.level])
            return redrawn(here, first, self.problem.floor, self.rng), 0
        there = around.problem(excursion.ranks)
        away = FitRecord("scoring", "", AWAY, LOOSE_AWAY, self._workers.n_threads)
        point = around.carry(here, around.ranks, excursion.ranks, there, self.rng, self._workers)
        point = METHODS["scoring"].climb(there, point, away, self._workers, _silent, never)
        self._spent += len(away.evaluations) * work(there)
        if excursion.ranks not in self.elsewhere or away.llf > self.elsewhere[excursion.ranks][0]:
            self.elsewhere[excursion.ranks] = away.llf, point
        back = around.carry(point, excursion.ranks, around.ranks, self.problem, self.rng, self._workers)
        return back, len(away.evaluations)

    def _climb_back(self, own: FitRecord, begin: Point, best: Peak) -> tuple[Point, bool]:
        """A loose climb, given up when it is back at the best or far below; whether it is back there."""
        tree, far, returned = self.problem.tree, 0, False

        def same(so_far: FitRecord, point: Point) -> bool:
            return best.llf - so_far.llf < CLOSE and bool(distance(tree, point, best.point).max(initial=0.0) < SAME)

        def give_up(so_far: FitRecord, point: Point) -> str:
            nonlocal far, returned
            if so_far.llf > best.llf + HIGHER:
                return ""
            if same(so_far, point):
                returned = True
                return "it came back to a maximum that is known"
            far = far + 1 if best.llf + HIGHER - so_far.llf > FAR * so_far.projected_gain else 0
            return "it was far below a maximum that is known" if far >= TIMES else ""

        point = self._loosely(begin, own, give_up)
        if own.converged and abs(best.llf - own.llf) < CLOSE and own.tol > LESS_LOOSE:
            own.tol, own.converged = LESS_LOOSE, False
            point = self._loosely(point, own, give_up)
        return point, returned or (own.llf <= best.llf + HIGHER and same(own, point))

    def _loosely(self, begin: Point, own: FitRecord, give_up: GiveUp) -> Point:
        return METHODS["scoring"].climb(self.problem, begin, own, self._workers, self._watch, give_up)

    def _take_if_higher(self, peak: Peak, record: FitRecord) -> None:
        if peak.llf > self._highest.llf + HIGHER:
            # What came back before came back to a lower maximum.
            record.climbs[:] = [climb._replace(returned=False) for climb in record.climbs]
        if peak.llf > self._highest.llf:
            self.best = peak

    def _cross(self, other: Peak, name: str, record: FitRecord) -> None:
        """Cross the highest so far with another one, and climb from what comes of it."""
        home, best, tried = self.problem, self._highest, 0

        def loglike(point: Point) -> float:
            nonlocal tried
            tried += 1
            return home.loglike(point, self._workers)

        child = crossed(home.tree, best.point, best.llf, other.point, loglike)
        evaluations = -(-tried // 2)  # without a gradient one is half as much work
        self._spent += evaluations * work(home)
        if child is None:
            record.climbs[-1] = record.climbs[-1]._replace(evaluations=record.climbs[-1].evaluations + evaluations)
            return
        start = _numbered(f"crossing with {name}", record.climbs)
        own = replace(record, start=start, tol=max(LOOSE_CROSSING, record.tol), evaluations=[], climbs=[])
        peak = Peak(own, self._loosely(child[0], own, never))
        self._spent += len(own.evaluations) * work(home)
        record.climbs.append(self._climb(peak, evaluations + len(own.evaluations), ended=own.converged))
        self._take_if_higher(peak, record)


def _numbered(name: str, climbs: Sequence[Climb]) -> str:
    """The name, with a number where it has been used."""
    used = {climb.start for climb in climbs}
    if name not in used:
        return name
    return next(f"{name} ({i})" for i in range(2, len(used) + 3) if f"{name} ({i})" not in used)


def _silent(entry: Evaluation) -> None:
    """Evaluations at other ranks are not those of the fit."""


def starts_of(
    problem: AnyProblem, start: str | Point | None, name: str, n_starts: int
) -> list[tuple[str, str | Point]]:
    """Starts by name: the one asked for, or the usual ones, and then random ones."""
    asked = [] if start is None else [(name, start)]
    if n_starts == 1:
        usual = usual_start(problem)
        return asked or [(usual, usual)]
    several = asked or [(usual, usual) for usual in SEVERAL[:n_starts]]
    return [*several, *((f"random {i + 1}", "random") for i in range(n_starts - len(several)))]
