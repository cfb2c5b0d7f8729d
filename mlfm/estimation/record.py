"""The record of a fit: what happened, evaluation by evaluation, and why it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd


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
        The kind of step that led here: "start", "resumed", "quasi-newton", "scoring", "px-em" or "em".
    accepted : bool
        False for a step that gained too little and was taken back.
    """

    evaluation: int
    llf: float
    projected_gain: float
    step: str
    accepted: bool


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
    starts : dict
        Log-likelihood reached from each start that was tried.
    elsewhere : int
        Evaluations spent on starts that were given up.
    seconds : float
        Wall-clock time.
    n_starts : int
        Starts that were asked for; each of several is followed to its end.
    score_norm : float
        Largest derivative of the log-likelihood, per observation, at the end, by parameters in units of their
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
    starts: dict[str, float] = field(default_factory=dict)
    elsewhere: int = 0
    score_norm: float = float("nan")
    seconds: float = float("nan")
    n_starts: int = 1

    @property
    def history(self) -> pd.DataFrame:
        """One row an evaluation: log-likelihood, projected remaining gain, kind of step, whether it was kept."""
        frame = pd.DataFrame(self.evaluations, columns=list(Evaluation._fields))
        return frame.set_index("evaluation")

    @property
    def llf(self) -> float:
        """The log-likelihood where the fit ended."""
        return next(entry.llf for entry in reversed(self.evaluations) if entry.accepted)

    @property
    def projected_gain(self) -> float:
        """The log-likelihood still to be gained, as expected at the end."""
        return self.evaluations[-1].projected_gain if self.evaluations else float("inf")


#: Whether a climb that has come so far may be given up for another.
Hopeless = Callable[[FitRecord], bool]


def never(record: FitRecord) -> bool:
    """Nothing is given up."""
    return False
