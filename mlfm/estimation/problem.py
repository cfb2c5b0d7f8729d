"""What a fit is given, in the units and the order it works in; nothing here changes during a fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from mlfm.sweep import Tree

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """Data of unit variance, feature by feature in group order, for one tree.

    Working on unit variances frees the floor and the starts of units and makes the estimates equivariant. The
    likelihood depends on Y only through Y Y', so with more observations than features Y is replaced by the
    triangular factor of its QR decomposition: n columns instead of nobs.
    """

    tree: Tree
    Y: Floats  # n x min(nobs, n)
    squares: Floats  # n, sums of squares of the features
    nobs: int
    scale: Floats  # n, what the features were divided by
    floor: Floats  # n, smallest uniqueness allowed

    @classmethod
    def of(cls, tree: Tree, centred: Floats, uniqueness_floor: float) -> Problem:
        """From data with the mean removed, n x nobs; the array is overwritten."""
        n, nobs = centred.shape
        scale = np.sqrt(np.einsum("jn,jn->j", centred, centred) / nobs)
        centred /= scale[:, None]
        if nobs > n:
            triangle = linalg.qr(centred.T, mode="r", overwrite_a=True, check_finite=False)[0][:n]
            centred = np.ascontiguousarray(triangle.T)
        squares = np.full(n, float(nobs))
        return cls(tree, centred, squares, nobs, scale, np.full(n, uniqueness_floor))

    @property
    def loglike_shift(self) -> float:
        """What to add to a log-likelihood here to have that of the data in the user's units."""
        return -self.nobs * float(np.log(self.scale).sum())

    def on_floor(self, D: Floats) -> NDArray[np.bool_]:
        """Which uniquenesses stand on their floor."""
        return self.floor * (1 + 1e-9) >= D

    def from_units(self, F: Floats, D: Floats) -> tuple[Floats, Floats]:
        """Parameters in the user's units as parameters of the problem; uniquenesses held above the floor."""
        return F / self.scale[:, None], np.maximum(D / self.scale**2, self.floor)

    def to_units(self, F: Floats, D: Floats) -> tuple[Floats, Floats]:
        """Parameters of the problem in the user's units."""
        return F * self.scale[:, None], D * self.scale**2
