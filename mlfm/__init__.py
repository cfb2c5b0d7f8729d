"""Multilevel factor models by maximum likelihood, in time linear in the number of features.

Sigma = sum over levels of (block-diagonal low rank) + diagonal
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlfm import datasets as datasets
    from mlfm.covariance import MultilevelCovariance, MultilevelLowRank, MultilevelPrecision
    from mlfm.exceptions import (
        ConditionWarning,
        ConvergenceWarning,
        DroppedObservationsWarning,
        IdentificationWarning,
        MlfmWarning,
        UniquenessFloorWarning,
    )
    from mlfm.hierarchy import Hierarchy
    from mlfm.model import MultilevelFactorModel
    from mlfm.reporting.page import report
    from mlfm.results import MultilevelFactorResults
    from mlfm.weights import exponential_weights

__version__ = "0.1.0"

__all__ = [
    "ConditionWarning",
    "ConvergenceWarning",
    "DroppedObservationsWarning",
    "Hierarchy",
    "IdentificationWarning",
    "MlfmWarning",
    "MultilevelCovariance",
    "MultilevelFactorModel",
    "MultilevelFactorResults",
    "MultilevelLowRank",
    "MultilevelPrecision",
    "UniquenessFloorWarning",
    "__version__",
    "datasets",
    "exponential_weights",
    "load",
    "report",
]

# Imported when first asked for, so that "import mlfm" costs next to nothing.
_HOMES = {
    "ConditionWarning": "mlfm.exceptions",
    "ConvergenceWarning": "mlfm.exceptions",
    "DroppedObservationsWarning": "mlfm.exceptions",
    "Hierarchy": "mlfm.hierarchy",
    "IdentificationWarning": "mlfm.exceptions",
    "MlfmWarning": "mlfm.exceptions",
    "MultilevelCovariance": "mlfm.covariance",
    "MultilevelFactorModel": "mlfm.model",
    "MultilevelFactorResults": "mlfm.results",
    "MultilevelLowRank": "mlfm.covariance",
    "MultilevelPrecision": "mlfm.covariance",
    "UniquenessFloorWarning": "mlfm.exceptions",
    "exponential_weights": "mlfm.weights",
    "report": "mlfm.reporting.page",
}


def load(fname: Any) -> MultilevelFactorResults:
    """Read results written by :meth:`MultilevelFactorResults.save`, from files you trust only (a pickle).

    Parameters
    ----------
    fname : str or Path

    Raises
    ------
    TypeError
        If the file holds something else.
    """
    from mlfm.results import MultilevelFactorResults

    return MultilevelFactorResults.load(fname)


def __getattr__(name: str) -> Any:
    if name == "datasets":
        return importlib.import_module("mlfm.datasets")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mlfm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
