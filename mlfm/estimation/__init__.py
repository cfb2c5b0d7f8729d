"""Maximum likelihood: the problem, starts, the methods, stopping, and the record of a fit."""

from mlfm.estimation.incomplete import IncompleteProblem
from mlfm.estimation.maximise import Search, maximise
from mlfm.estimation.methods import METHODS, AnyProblem
from mlfm.estimation.problem import Point, Problem
from mlfm.estimation.record import Evaluation, FitRecord
from mlfm.estimation.starts import STARTS, filling

__all__ = [
    "METHODS",
    "STARTS",
    "AnyProblem",
    "Evaluation",
    "FitRecord",
    "IncompleteProblem",
    "Point",
    "Problem",
    "Search",
    "filling",
    "maximise",
]
