"""Results of a fit: one module for each kind of question."""

from mlfm.results.factors import Imputed
from mlfm.results.results import MultilevelFactorResults

__all__ = ["Imputed", "MultilevelFactorResults"]
