"""The record of a fit: what happened, evaluation by evaluation, and why it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from mlfm.estimation.problem import Point

#: Nats below the highest maximum within which a climb has reached it.
REACHED = 0.1


class Evaluation(NamedTuple):
    """One evaluation of the log-likelihood during a fit.

    Attributes
    ----------
    evaluation : int
        Counted from 0, the start.
    llf : float
        Log-likelihood of all observations, in nats.
    projected_gain : float
        The log-likelihood that the fit expects still to gain from here; infinite while nothing can be said.
    step : str
        The kind of step that led here: "start", "resumed", "quasi-newton", "scoring", "leaf groups", "px-em" or
        "em".
    accepted : bool
        False for a step that gained too little and was taken back.
    """

    evaluation: int
    llf: float
    projected_gain: float
    step: str
    accepted: bool


class Climb(NamedTuple):
    """One of the climbs of a fit.

    Attributes
    ----------
    start : str
        Where it began: a start by name ("pca"), neighbouring ranks ("sector +1"), loadings drawn anew ("sector
        redrawn"), or a crossing of two maxima.
    llf : float
        The log-likelihood where it stopped.
    evaluations : int
        What it took, at neighbouring ranks too.
    ended : bool
        Whether it was followed to an end. One that comes back to the best maximum, or stays far below it, is given up.
    returned : bool
        Whether it came back to the maximum that was the best at that time.
    on_floor : int
        Uniquenesses on their floor where it stopped.
    """

    start: str
    llf: float
    evaluations: int
    ended: bool
    returned: bool
    on_floor: int


@dataclass
class FitRecord:
    """How a fit went.

    Attributes
    ----------
    method, start : str
        The method, and where it began.
    maxiter, tol : int, float
        When to give up, and when to stop.
    n_threads : int
        Threads that were used; they change the time and nothing else.
    converged : bool
        True only if the projected gain was below ``tol``: three times in a row, or where no step raised the
        log-likelihood any more.
    reason : str
        Why the fit stopped, in words.
    evaluations : list of Evaluation
        One entry an evaluation of the log-likelihood, on the way from the start to the end.
    climbs : list of Climb
        Every climb that was made, in order.
    found_by : str
        The climb that found the highest maximum.
    search : str
        How much was searched: "none", "default" or "thorough".
    cut_short : bool
        Whether the search ended because it had done as much work as it may, before it had been everywhere.
    seconds : float
        Wall-clock time.
    n_starts : int
        Starts that were asked for; each of several is followed to its end.
    penalty : str
        What was taken off the log-likelihood: "none" or "soft". With a penalty what is called a log-likelihood here, in
        evaluations and climbs, is what is left of it, which is maximised.
    penalty_taken : float
        The penalty at the end.
    score_norm : float
        Largest derivative of what is maximised, per observation, at the end, by parameters in units of their
        feature's standard deviation (variance); a uniqueness that is pressed against its floor does not count.
    """

    method: str
    start: str
    maxiter: int
    tol: float
    n_threads: int
    converged: bool = False
    reason: str = ""
    evaluations: list[Evaluation] = field(default_factory=list)
    climbs: list[Climb] = field(default_factory=list)
    found_by: str = ""
    search: str = "none"
    cut_short: bool = False
    score_norm: float = float("nan")
    seconds: float = float("nan")
    n_starts: int = 1
    penalty: str = "none"
    penalty_taken: float = 0.0

    @property
    def history(self) -> pd.DataFrame:
        """One row an evaluation: log-likelihood, projected remaining gain, kind of step, whether it was kept."""
        frame = pd.DataFrame(self.evaluations, columns=list(Evaluation._fields))
        return frame.set_index("evaluation")

    @property
    def llf(self) -> float:
        """The log-likelihood where the fit ended, less the penalty if there is one."""
        return next(entry.llf for entry in reversed(self.evaluations) if entry.accepted)

    @property
    def projected_gain(self) -> float:
        """The log-likelihood still to be gained, as expected at the end."""
        return self.evaluations[-1].projected_gain if self.evaluations else float("inf")

    @property
    def fcalls(self) -> int:
        """Evaluations of the log-likelihood in all climbs."""
        return sum(climb.evaluations for climb in self.climbs)

    @property
    def starts(self) -> pd.DataFrame:
        """One row a climb; see :attr:`mlfm.MultilevelFactorResults.starts`."""
        frame = pd.DataFrame(self.climbs, columns=list(Climb._fields)).set_index("start")
        frame.insert(1, "behind", (self.llf - frame["llf"]).where(~frame["returned"], 0.0))
        frame["reached"] = [self._came_to_the_highest(climb) for climb in self.climbs]
        return frame[["llf", "behind", "evaluations", "ended", "reached", "on_floor"]]

    @property
    def reached(self) -> int:
        """Climbs that came to the highest maximum."""
        return sum(self._came_to_the_highest(climb) for climb in self.climbs)

    @property
    def other_maxima(self) -> int:
        """Climbs that ended at lower ones."""
        return sum(climb.ended and not self._came_to_the_highest(climb) for climb in self.climbs)

    def _came_to_the_highest(self, climb: Climb) -> bool:
        return climb.returned or self.llf - climb.llf < max(REACHED, self.tol)


#: Why a climb that has come so far is given up; nothing if it is not.
GiveUp = Callable[[FitRecord, Point], str]


def never(record: FitRecord, point: Point) -> str:
    """Nothing is given up."""
    return ""
