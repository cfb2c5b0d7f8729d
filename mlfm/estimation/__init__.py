"""Maximum likelihood: the problem, starts, the EM maps, stopping, and the record of a fit."""

from mlfm.estimation.em import UPDATES, ascend
from mlfm.estimation.problem import Problem
from mlfm.estimation.record import Evaluation, FitRecord
from mlfm.estimation.starts import STARTS

__all__ = ["STARTS", "UPDATES", "Evaluation", "FitRecord", "Problem", "ascend"]
