"""Warnings of mlfm, each with a class of its own so that each can be filtered on its own; and an interruption."""

import sys
import warnings
from pathlib import Path
from typing import Any

HOME = str(Path(__file__).parent)


class MlfmWarning(UserWarning):
    """Base class of all warnings that mlfm gives."""


class ConvergenceWarning(MlfmWarning):
    """A fit stopped before it met its criterion."""


class UniquenessFloorWarning(MlfmWarning):
    """Some uniquenesses ended on their floor (Heywood cases)."""


class IdentificationWarning(MlfmWarning):
    """The data cannot tell some group's factors apart from other parts of the model."""


class DroppedObservationsWarning(MlfmWarning):
    """Observations with missing values were left out, as asked with ``missing="drop"``."""


class RotationWarning(MlfmWarning):
    """Some groups' loadings could not be rotated, or the search for the rotation did not end."""


class ConditionWarning(MlfmWarning):
    """A covariance is so close to singular that a result has lost many of its digits."""


class BootstrapWarning(MlfmWarning):
    """Replicates of a bootstrap failed or did not converge, and were left out."""


class IrregularTestWarning(MlfmWarning):
    """Twice the difference of two log-likelihoods is not chi-square, so that no p-value is given."""


class LowerMaximumWarning(MlfmWarning):
    """A fit is at a lower maximum of the likelihood than another fit of the same model to the same data."""


class SeveralMaximaWarning(MlfmWarning):
    """The likelihood has several maxima, and the search came only once to the highest that it found."""


class FitInterrupted(KeyboardInterrupt):
    """A fit was interrupted after the first climb had ended: ``results`` are those of the highest maximum so far.

    Parameters
    ----------
    results : MultilevelFactorResults
        Its record says that it did not converge where the last digits are missing.
    """

    def __init__(self, results: Any) -> None:
        super().__init__(
            f"the fit was interrupted after {len(results.record.climbs)} climbs; the results of the highest so far are "
            "the attribute results of this exception (at a prompt: sys.last_value.results)"
        )
        self.results = results

    def __reduce__(self) -> tuple[type, tuple[Any]]:
        return type(self), (self.results,)


def warn_caller(message: str, category: type[MlfmWarning]) -> None:
    """Warn at the line outside mlfm that led here, however deep inside it is found out."""
    depth = 1
    while sys._getframe(depth).f_back is not None and sys._getframe(depth).f_code.co_filename.startswith(HOME):
        depth += 1
    warnings.warn(message, category, stacklevel=depth + 1)
