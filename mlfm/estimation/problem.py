"""What a fit is given, in the units and the order it works in; nothing here changes during a fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlfm.estimation.leaf_groups import LeafGroups
from mlfm.estimation.penalty import Penalty
from mlfm.likelihood import condition, loglike
from mlfm.standardised import Reals, Standardised, triangle
from mlfm.sweep import Sweep, Tree, Workers

Floats = NDArray[np.float64]
#: Loadings, and the rest of the parameters: uniquenesses and, with missing values, coefficients of the mean.
Point = tuple[Floats, Floats]


@dataclass(frozen=True, eq=False)
class Scaled:
    """What every problem has: a tree, and features in units of their standard deviations.

    Working on unit variances frees the floor and the starts of units and makes the estimates equivariant.
    """

    tree: Tree
    nobs: float  # what the observations count in all
    scale: Floats  # n, what the features were divided by
    floor: Floats  # n, smallest uniqueness allowed
    coefficients: Floats  # n x q, of the covariates, in the user's units: taken off the data
    penalty: Penalty = field(default=Penalty(), kw_only=True)  # taken off the log-likelihood

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

    def from_units(self, B: Floats, F: Floats, D: Floats) -> Point:
        """Parameters in the user's units as a point of the problem; uniquenesses held above the floor."""
        return F / self.scale[:, None], np.maximum(D / self.scale**2, self.floor)

    def to_units(self, F: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Coefficients, loadings and uniquenesses in the user's units."""
        return self.coefficients, F * self.scale[:, None], x[: len(F)] * self.scale**2


@dataclass(frozen=True, eq=False)
class Problem(Scaled):
    """Data of unit variance, feature by feature in group order, for one tree.

    The likelihood depends on Y only through Y Y', so with more observations than features Y is replaced by the
    triangular factor of its QR decomposition: n columns instead of nobs.
    """

    Y: Reals  # n x min(nobs, n)
    squares: Floats  # n, sums of squares of the features

    @classmethod
    def of(cls, tree: Tree, data: Standardised, uniqueness_floor: float, penalty: str = "none") -> Problem:
        """The problem of a model's data, which are shared, not copied, unless they are weighted or summed up."""
        n, columns = data.Y.shape
        Y = data.weighted()
        if columns > n:
            Y = _triangle(Y)
        squares = np.einsum("jn,jn->j", Y, Y, dtype=np.float64)
        floor, penalised = np.full(n, uniqueness_floor), Penalty.named(penalty, data.nobs)
        return cls(tree, data.nobs, data.scale, floor, data.coefficients, Y, squares, penalty=penalised)

    @cached_property
    def penalised_squares(self) -> Floats:
        """The sums of squares with what the penalty adds to them: of y'y / D it is a part."""
        return self.squares + self.penalty.squares

    @cached_property
    def leaf_groups(self) -> LeafGroups:
        """The small leaf groups, their cross products made once for all climbs."""
        return LeafGroups(self.tree, self.Y)

    @property
    def stand_in(self) -> Problem:
        """Complete data to take a start from: these."""
        return self

    def loglike(self, point: Point, workers: Workers) -> float:
        """What is maximised at a point, of the data in the user's units; -inf where it has no meaning."""
        sweep = Sweep(self.tree, self.Y.shape[1])
        try:
            condition(sweep, *point, self.Y, workers)
        except FloatingPointError:
            return -np.inf
        value = loglike(sweep, point[1], self.penalised_squares, self.nobs) + self.loglike_shift
        return value if np.isfinite(value) else -np.inf

    def with_coefficients(self, F: Floats, D: Floats) -> Point:
        """A point as it is."""
        return F, D


def _triangle(Y: Reals) -> Floats:
    """L (n x n) with L L' = Y Y', Y of more columns than rows."""
    return np.ascontiguousarray(triangle(Y.T).T)
