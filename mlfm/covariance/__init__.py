"""Multilevel low rank matrices and the covariances of multilevel factor models as fast linear algebra."""

from mlfm.covariance.cholesky import ExpandedCholesky
from mlfm.covariance.conditional import Conditional
from mlfm.covariance.covariance import MultilevelCovariance
from mlfm.covariance.lowrank import MultilevelLowRank
from mlfm.covariance.precision import MultilevelPrecision
from mlfm.covariance.root import MultilevelRoot

__all__ = [
    "Conditional",
    "ExpandedCholesky",
    "MultilevelCovariance",
    "MultilevelLowRank",
    "MultilevelPrecision",
    "MultilevelRoot",
]
