"""A soft penalty on small uniquenesses: no Heywood cases (Sterzinger, Kosmidis and Moustaki 2026).

The log-likelihood less w sum_j s_jj / D_j, with s_jj the variance of what the covariates leave of feature j, is bounded
above, and falls without bound as a uniqueness goes to 0, so that at its maximum none is 0. With w = N rho / 2 this is
the penalty of Hirose et al. (2011). It is soft, and estimates have the asymptotic distribution of maximum likelihood,
where w is small beside the square root of N: w = sqrt(2 / N), as Sterzinger et al. have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlfm.wording import listing

Floats = NDArray[np.float64]

#: Penalties by name.
PENALTIES = ("none", "soft")


def checked_penalty(penalty: str | None) -> str:
    """The penalty that is asked for; a ValueError if there is no such."""
    if penalty is None:
        return "none"
    if not isinstance(penalty, str) or penalty not in PENALTIES:
        raise ValueError(f"penalty must be one of {listing(PENALTIES)}, not {penalty!r}")
    return penalty


@dataclass(frozen=True)
class Penalty:
    """``weight`` times the sum of 1 / D, of features of variance 1."""

    weight: float = 0.0

    @classmethod
    def named(cls, name: str, nobs: float) -> Penalty:
        """A penalty by its name, for so many observations."""
        return cls(float(np.sqrt(2 / nobs)) if name == "soft" else 0.0)

    @property
    def squares(self) -> float:
        """What it adds to every feature's sum of squares, where these enter as (y'y / D) / 2."""
        return 2 * self.weight

    def of(self, D: Floats) -> float:
        """What is taken off the log-likelihood."""
        return self.weight * float((1 / D).sum())

    def slopes(self, D: Floats) -> Floats:
        """What is added to the gradient by D."""
        return self.weight / D**2

    def variances(self, variances: Floats, D: Floats, nobs: float) -> Floats:
        """The inverse information of every D, an observation, with the penalty's curvature in it."""
        return variances / (1 + variances * (2 * self.weight / nobs) / D**3) if self.weight else variances
