"""The covariance of all estimates, in the order of the parameter vector: in full, or in closed form for many features.

Kinds, by the names that statsmodels, lavaan and the econometric literature give them:

- "expected": the inverse of the expected information, given which values are observed;
- "oim": the inverse of the observed information, less the second derivatives of the log-likelihood;
- "opg": the inverse of the sum of outer products of the observations' scores;
- "robust": the sandwich of the last two, right if the model of the covariance is, normal data or not (Huber 1967,
  White 1982);
- "asymptotic": closed forms for many features (see :mod:`mlfm.inference.many_features`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlfm.inference.coefficients import CoefficientCovariance
from mlfm.inference.identification import (
    NotAMaximum,
    constrained_inverse,
    flat_directions,
    rotation_constraints,
)
from mlfm.inference.information import Dense, Residuals
from mlfm.inference.many_features import ManyFeatures
from mlfm.parameters import Layout
from mlfm.standardised import Standardised
from mlfm.sweep import Tree, Workers

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Places = NDArray[np.intp]

#: What each kind is called in a summary.
KINDS = {
    "expected": "expected information",
    "oim": "observed information",
    "opg": "outer product of the scores",
    "robust": "sandwich of observed information and scores",
    "asymptotic": "closed forms for many features",
}


#: Parameters up to which a matrix of them all is worked out unless asked otherwise (a second), and at all (a minute).
FEW, MOST = 2000, 6000


@dataclass(frozen=True, eq=False)
class Estimate:
    """A fit as the standard errors need it, features in group order and in the user's units."""

    tree: Tree
    order: Places  # the user's position of each feature
    B: Floats
    F: Floats
    D: Floats
    fixed: Bools  # features whose uniqueness is on its floor, and so is not estimated
    nobs: float
    root: Floats  # R'R = X'X, observations weighted
    data: Standardised | None = None
    squares: Floats | None = None  # what each observation's score counts in an outer product

    @property
    def layout(self) -> Layout:
        return Layout(len(self.D), self.tree.n_factors, len(self.root))

    def places(self) -> Places:
        """Where each parameter of group order stands in the user's parameter vector."""
        n, r, q = self.layout
        coefficients, loadings = (self.order[:, None] * width + np.arange(width) for width in (q, r))
        return np.concatenate([coefficients.ravel(), n * q + loadings.ravel(), n * (q + r) + self.order])


class ParameterCovariance(ABC):
    """Variances and covariances of estimates; NaN for what is not estimated or not identified."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @property
    @abstractmethod
    def variances(self) -> Floats:
        """Of all parameters."""

    @abstractmethod
    def among(self, where: Places) -> Floats:
        """Covariances of some parameters, by their positions."""

    @abstractmethod
    def of_communalities(self) -> Floats:
        """Variances of the features' communalities, in the user's order (the delta method)."""

    @abstractmethod
    def of_sums(self) -> Floats:
        """Covariances of the sum of squared loadings of each level that has factors, and the sum of uniquenesses."""


class FullCovariance(ParameterCovariance):
    """A matrix of all parameters."""

    def __init__(self, estimate: Estimate, matrix: Floats, fixed: Bools, flat: Bools) -> None:
        super().__init__(estimate.layout)
        self.matrix, self._fixed, self._flat = matrix, fixed, flat
        self._tree, place = estimate.tree, np.argsort(estimate.order)
        self._F, self._D = estimate.F[place], estimate.D[place]

    @property
    def variances(self) -> Floats:
        return self._shown(np.diag(self.matrix).copy())

    def among(self, where: Places) -> Floats:
        block = self.matrix[np.ix_(where, where)].copy()
        unknown = (self._fixed | self._flat)[where]
        block[unknown], block[:, unknown] = np.nan, np.nan
        return block

    def _shown(self, values: Floats) -> Floats:
        values[self._fixed | self._flat] = np.nan
        return values

    def _of_slopes(self, slopes: Floats) -> Floats:
        """Covariances of functions of loadings and uniquenesses with these derivatives, a row each."""
        first = self.layout.n_features * self.layout.n_covariates
        covariances = slopes @ self.matrix[first:, first:] @ slopes.T
        lost = (np.abs(slopes) @ self._flat[first:]) > 0
        covariances[lost], covariances[:, lost] = np.nan, np.nan
        return np.asarray(covariances)

    def of_communalities(self) -> Floats:
        n, r, q = self.layout
        explained = np.einsum("ja,ja->j", self._F, self._F)
        total = (explained + self._D) ** 2
        slopes = np.concatenate([2 * self._F * (self._D / total)[:, None], -(explained / total)[:, None]], axis=1)
        own = np.concatenate([n * q + np.arange(n * r).reshape(n, r), n * (q + r) + np.arange(n)[:, None]], axis=1)
        blocks = self.matrix[own[:, :, None], own[:, None, :]]
        variances = np.einsum("ja,jab,jb->j", slopes, blocks, slopes)
        variances[self._flat[own].any(axis=1)] = np.nan
        return np.asarray(variances)

    def of_sums(self) -> Floats:
        n, r, _ = self.layout
        levels = [level for level, rank in enumerate(self._tree.ranks) if rank]
        slopes = np.zeros((len(levels) + 1, n * (r + 1)))
        for row, level in enumerate(levels):
            of_level = np.zeros((n, r))
            of_level[:, self._tree.own(level)] = 2 * self._F[:, self._tree.own(level)]
            slopes[row, : n * r] = of_level.ravel()
        slopes[-1, n * r :] = 1
        return self._of_slopes(slopes)


def full_parameter_covariance(kind: str, estimate: Estimate) -> FullCovariance:
    """The covariance of all parameters from the information in full, for the kinds that are no closed forms.

    Raises
    ------
    ValueError
        If there are too many parameters, fewer observations than parameters for "opg", or the fit is at no maximum.
    """
    layout = estimate.layout
    if layout.size > MOST:
        raise ValueError(
            f"cov_type={kind!r} needs a matrix of all {layout.size} parameters, and is there for at most {MOST}; use "
            "cov_type='asymptotic'"
        )
    dense, scale, back = _standardised(estimate)
    fixed = np.zeros(layout.size, dtype=bool)
    fixed[-layout.n_features :] = estimate.fixed
    matrix, flat, free = np.zeros((layout.size, layout.size)), np.zeros(layout.size, dtype=bool), ~fixed
    C = rotation_constraints(estimate.tree, layout, dense.F, dense.D)[:, free]
    with Workers(1):  # BLAS on one thread: the same digits everywhere
        matrix[np.ix_(free, free)], flat[free] = _by_kind(kind, dense, estimate.squares, C, free)
    _to_units(matrix, layout, scale, back)
    _to_units(matrix.T, layout, scale, back)
    place = np.argsort(estimate.places())
    return FullCovariance(estimate, matrix[np.ix_(place, place)], fixed[place], flat[place])


def information_matrix(estimate: Estimate, observed: bool) -> Floats:
    """The observed or expected information of all parameters, in the user's units and order."""
    layout = estimate.layout
    if layout.size > MOST:
        raise ValueError(f"params: {layout.size} of them; the matrix is there for at most {MOST}")
    dense, scale, _ = _standardised(estimate)
    with Workers(1):
        matrix = dense.expected_and_observed()[1] if observed else dense.expected()
    _to_units(matrix, layout, 1 / scale, estimate.root.T)
    _to_units(matrix.T, layout, 1 / scale, estimate.root.T)
    place = np.argsort(estimate.places())
    return matrix[np.ix_(place, place)]


def _standardised(estimate: Estimate) -> tuple[Dense, Floats, Floats]:
    """The model of features of variance 1 and orthonormal covariates; what features and covariates were divided by."""
    scale = np.sqrt(np.einsum("ja,ja->j", estimate.F, estimate.F) + estimate.D)
    back = np.asarray(np.linalg.inv(estimate.root), dtype=np.float64)
    F, D, data = estimate.F / scale[:, None], estimate.D / scale**2, estimate.data
    residuals = None if data is None else Residuals.of(data, estimate.B, scale, back)
    patterns = None if data is None else data.patterns
    dense = Dense(estimate.tree, F, D, estimate.layout.n_covariates, estimate.nobs, residuals, patterns)
    return dense, np.asarray(scale, dtype=np.float64), back


def _by_kind(kind: str, dense: Dense, squares: Floats | None, C: Floats, free: Bools) -> tuple[Floats, Bools]:
    """The covariance of the free parameters, and which of them are not identified."""
    if kind in ("oim", "robust"):
        expected, observed = (matrix[np.ix_(free, free)] for matrix in dense.expected_and_observed())
    else:
        expected = dense.expected()[np.ix_(free, free)]
    directions, flat = flat_directions(expected, C)
    # What the data do not identify is held where it is: what they do identify is not changed by it.
    C = np.concatenate([C, directions])
    if kind == "expected":
        return constrained_inverse(expected, C), flat
    assert squares is not None
    if kind == "opg":
        observations, parameters = int((squares > 0).sum()), len(expected) - len(C)
        if observations < parameters:
            raise ValueError(
                f"cov_type='opg' needs more observations than free parameters, not {observations} for {parameters}; "
                "use another cov_type"
            )
        return constrained_inverse(dense.outer_product(squares)[np.ix_(free, free)], C), flat
    try:
        bread = constrained_inverse(observed, C)
    except NotAMaximum:
        raise ValueError(
            f"cov_type={kind!r}: the observed information is not positive definite, so the fit is at no maximum; fit "
            "with a smaller tol or from other starts, leave out what is not identified, or use cov_type='expected'"
        ) from None
    if kind == "oim":
        return bread, flat
    return bread @ dense.outer_product(squares)[np.ix_(free, free)] @ bread, flat


def _to_units(rows: Floats, layout: Layout, scale: Floats, back: Floats) -> None:
    """Rows of a matrix over all parameters, from standardised features and covariates to the user's units."""
    n, r, q = layout
    of_B, of_F, of_D = rows[: n * q], rows[n * q : n * (q + r)], rows[n * (q + r) :]
    of_B[:] = (scale[:, None, None] * np.einsum("km,jmp->jkp", back, of_B.reshape(n, q, len(rows)))).reshape(
        n * q, len(rows)
    )
    of_F *= np.repeat(scale, r)[:, None]
    of_D *= scale[:, None] ** 2


class ClosedForms(ParameterCovariance):
    """For many features; coefficients apart from the rest."""

    def __init__(self, estimate: Estimate, coefficients: CoefficientCovariance | None) -> None:
        super().__init__(estimate.layout)
        # Without the data, which nobody needs any more.
        self._estimate, self._coefficients = replace(estimate, data=None, squares=None), coefficients
        data, counts = estimate.data, np.full(len(estimate.D), estimate.nobs)
        if data is not None and data.patterns is not None:
            counts = np.array(counts)
            for s in range(len(data.patterns)):
                rows = slice(data.patterns.starts[s], data.patterns.starts[s + 1])
                counts[data.patterns.missing_by(s)] -= data.weights[rows].sum()
        tree, F, D = estimate.tree, estimate.F, estimate.D
        self._many = ManyFeatures(tree, F, D, estimate.nobs, counts, estimate.fixed)

    @property
    def variances(self) -> Floats:
        of_F, of_D = self._many.variances()
        of_D[self._estimate.fixed] = np.nan
        place = np.argsort(self._estimate.order)
        if self._coefficients is None:
            of_B = np.full(self.layout.n_features * self.layout.n_covariates, np.nan)
        else:
            of_B = self._coefficients.variances.ravel()
        values = np.concatenate([of_B, of_F[place].ravel(), of_D[place]])
        values[~np.isfinite(values)] = np.nan
        return values

    def among(self, where: Places) -> Floats:
        first = self.layout.n_features * self.layout.n_covariates
        of_mean = where < first
        out = np.zeros((len(where), len(where)))
        out[np.ix_(~of_mean, ~of_mean)] = self._among_others(where[~of_mean])
        if of_mean.any():
            features, covariates = np.divmod(where[of_mean], self.layout.n_covariates)
            known = self._coefficients
            out[np.ix_(of_mean, of_mean)] = np.nan if known is None else known.among(features, covariates)
        return out

    def _among_others(self, where: Places) -> Floats:
        n, r, q = self.layout
        first, last = n * q, n * (q + r)
        of_unique = where >= last
        features = np.where(of_unique, where - last, (where - first) // max(r, 1))
        which = np.where(of_unique, r, (where - first) % max(r, 1))
        place = np.argsort(self._estimate.order)
        covariances = self._many.covariance(place[features], which)
        fixed = of_unique & self._estimate.fixed[place[features]]
        covariances[fixed], covariances[:, fixed] = np.nan, np.nan
        covariances[~np.isfinite(covariances)] = np.nan
        return covariances

    def of_communalities(self) -> Floats:
        return self._many.of_explained()[np.argsort(self._estimate.order)]

    def of_sums(self) -> Floats:
        kept = [level for level, rank in enumerate(self._estimate.tree.ranks) if rank]
        kept.append(len(self._estimate.tree.ranks))
        return self._many.of_sums()[np.ix_(kept, kept)]
