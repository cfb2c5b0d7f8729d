"""Multilevel factor models by maximum likelihood, in time linear in the number of features.

Sigma = sum over levels of (block-diagonal low rank) + diagonal
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlfm import datasets as datasets
    from mlfm import lowrank as lowrank
    from mlfm.comparison import compare
    from mlfm.covariance import MultilevelCovariance, MultilevelLowRank, MultilevelPrecision
    from mlfm.exceptions import (
        BootstrapWarning,
        ConditionWarning,
        ConvergenceWarning,
        DroppedObservationsWarning,
        FitInterrupted,
        IdentificationWarning,
        IrregularTestWarning,
        LowerMaximumWarning,
        MlfmWarning,
        RotationWarning,
        SeveralMaximaWarning,
        UniquenessFloorWarning,
    )
    from mlfm.first_guess import parallel_analysis
    from mlfm.hierarchy import Hierarchy
    from mlfm.likelihood_ratio_test import lr_test
    from mlfm.model import MultilevelFactorModel
    from mlfm.rank_selection import select_ranks
    from mlfm.reporting.page import report
    from mlfm.results import MultilevelFactorResults
    from mlfm.validation import cross_validate
    from mlfm.weights import exponential_weights

__version__ = "0.1.0"

__all__ = [
    "BootstrapWarning",
    "ConditionWarning",
    "ConvergenceWarning",
    "DroppedObservationsWarning",
    "FitInterrupted",
    "Hierarchy",
    "IdentificationWarning",
    "IrregularTestWarning",
    "LowerMaximumWarning",
    "MlfmWarning",
    "MultilevelCovariance",
    "MultilevelFactorModel",
    "MultilevelFactorResults",
    "MultilevelLowRank",
    "MultilevelPrecision",
    "RotationWarning",
    "SeveralMaximaWarning",
    "UniquenessFloorWarning",
    "__version__",
    "compare",
    "cross_validate",
    "datasets",
    "exponential_weights",
    "load",
    "lowrank",
    "lr_test",
    "parallel_analysis",
    "report",
    "select_ranks",
]

# Imported when first asked for, so that "import mlfm" costs next to nothing.
_HOMES = {
    "BootstrapWarning": "mlfm.exceptions",
    "ConditionWarning": "mlfm.exceptions",
    "ConvergenceWarning": "mlfm.exceptions",
    "DroppedObservationsWarning": "mlfm.exceptions",
    "FitInterrupted": "mlfm.exceptions",
    "Hierarchy": "mlfm.hierarchy",
    "IdentificationWarning": "mlfm.exceptions",
    "IrregularTestWarning": "mlfm.exceptions",
    "LowerMaximumWarning": "mlfm.exceptions",
    "MlfmWarning": "mlfm.exceptions",
    "MultilevelCovariance": "mlfm.covariance",
    "MultilevelFactorModel": "mlfm.model",
    "MultilevelFactorResults": "mlfm.results",
    "MultilevelLowRank": "mlfm.covariance",
    "MultilevelPrecision": "mlfm.covariance",
    "RotationWarning": "mlfm.exceptions",
    "SeveralMaximaWarning": "mlfm.exceptions",
    "UniquenessFloorWarning": "mlfm.exceptions",
    "compare": "mlfm.comparison",
    "cross_validate": "mlfm.validation",
    "exponential_weights": "mlfm.weights",
    "lr_test": "mlfm.likelihood_ratio_test",
    "parallel_analysis": "mlfm.first_guess",
    "report": "mlfm.reporting.page",
    "select_ranks": "mlfm.rank_selection",
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
    if name in ("datasets", "lowrank"):
        return importlib.import_module(f"mlfm.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mlfm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
