"""What a fit is given, in the units and the order it works in; nothing here changes during a fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from mlfm.standardised import Reals, Standardised
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
    Y: Reals  # n x min(nobs, n)
    squares: Floats  # n, sums of squares of the features
    nobs: int
    scale: Floats  # n, what the features were divided by
    floor: Floats  # n, smallest uniqueness allowed

    @classmethod
    def of(cls, tree: Tree, data: Standardised, uniqueness_floor: float) -> Problem:
        """The problem of a model's data, which are shared, not copied."""
        n, nobs = data.Y.shape
        Y = data.Y if nobs <= n else _triangle(data.Y)
        squares = np.einsum("jn,jn->j", Y, Y, dtype=np.float64)
        return cls(tree, Y, squares, nobs, data.scale, np.full(n, uniqueness_floor))

    @property
    def loglike_shift(self) -> float:
        """What to add to a log-likelihood here to have that of the data in the user's units."""
        return -self.nobs * float(np.log(self.scale).sum())

    def on_floor(self, D: Floats) -> NDArray[np.bool_]:
        """Which uniquenesses stand on their floor."""
        return self.floor * (1 + 1e-9) >= D

    def pressed(self, D: Floats, dD: Floats) -> NDArray[np.bool_]:
        """Which uniquenesses stand on their floor and would go below it; dD is the gradient by them."""
        return self.on_floor(D) & (dD < 0)

    def from_units(self, F: Floats, D: Floats) -> tuple[Floats, Floats]:
        """Parameters in the user's units as parameters of the problem; uniquenesses held above the floor."""
        return F / self.scale[:, None], np.maximum(D / self.scale**2, self.floor)

    def to_units(self, F: Floats, D: Floats) -> tuple[Floats, Floats]:
        """Parameters of the problem in the user's units."""
        return F * self.scale[:, None], D * self.scale**2


def _triangle(Y: Reals) -> Floats:
    """L (n x n) with L L' = Y Y', Y of more columns than rows; a run of columns at a time, in double precision."""
    n, nobs = Y.shape
    width = max(4 * n, 4096)
    triangle = np.empty((0, n))
    for first in range(0, nobs, width):
        stacked = np.concatenate([triangle, Y[:, first : first + width].T])
        triangle = linalg.qr(stacked, mode="r", overwrite_a=True, check_finite=False)[0][:n]
    return np.ascontiguousarray(triangle.T, dtype=np.float64)
