"""Results of a fit: one module for each kind of question."""

from mlfm.inference.prediction import Interval, Prediction
from mlfm.results.factors import Imputed
from mlfm.results.results import MultilevelFactorResults
from mlfm.results.rotated import RotatedResults
from mlfm.results.uncertainty import checked_cov_type

__all__ = ["Imputed", "Interval", "MultilevelFactorResults", "Prediction", "RotatedResults", "checked_cov_type"]
