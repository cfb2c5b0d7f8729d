"""Maximum likelihood: the problem, starts, the methods, stopping, and the record of a fit."""

from mlfm.estimation.maximise import Search, maximise
from mlfm.estimation.methods import METHODS
from mlfm.estimation.problem import Problem
from mlfm.estimation.record import Evaluation, FitRecord
from mlfm.estimation.starts import STARTS, filling

__all__ = ["METHODS", "STARTS", "Evaluation", "FitRecord", "Problem", "Search", "filling", "maximise"]
