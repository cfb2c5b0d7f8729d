"""Maximum likelihood: the problem, starts, the methods, stopping, and the record of a fit."""

from mlfm.estimation.effort import SEARCHES, usual_search
from mlfm.estimation.incomplete import IncompleteProblem
from mlfm.estimation.methods import METHODS, AnyProblem
from mlfm.estimation.neighbourhood import Neighbourhood
from mlfm.estimation.penalty import PENALTIES, checked_penalty
from mlfm.estimation.problem import Point, Problem
from mlfm.estimation.record import Climb, Evaluation, FitRecord
from mlfm.estimation.search import Search, starts_of
from mlfm.estimation.starts import STARTS, filling

__all__ = [
    "METHODS",
    "PENALTIES",
    "SEARCHES",
    "STARTS",
    "AnyProblem",
    "Climb",
    "Evaluation",
    "FitRecord",
    "IncompleteProblem",
    "Neighbourhood",
    "Point",
    "Problem",
    "Search",
    "checked_penalty",
    "filling",
    "starts_of",
    "usual_search",
]
