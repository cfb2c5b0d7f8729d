"""The data as a model keeps them: one copy, in the order and the units that the kernels want."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from mlfm.patterns import Patterns

Floats = NDArray[np.float64]
#: Data may be in single precision.
Reals = NDArray[np.float32] | NDArray[np.float64]

CHUNK = 1 << 20  # entries that are moved at once, in double precision
LEAST_INFORMATION = 1e-10  # of all observations' about a coefficient, that those of a feature must have


class Undetermined(ValueError):
    """Covariates that are collinear in the observations of some features; holds the features' columns."""

    def __init__(self, columns: NDArray[np.intp]) -> None:
        super().__init__("coefficients are not determined")
        self.columns = columns


class NothingLeft(ValueError):
    """Features that do not vary beyond the covariates, in the observations that count; holds their columns."""

    def __init__(self, columns: NDArray[np.intp]) -> None:
        super().__init__("nothing is left of some features")
        self.columns = columns


@dataclass(frozen=True, eq=False)
class Standardised:
    """Features in group order, each a row: residuals of the covariates, of variance 1.

    Observations stand in the order of their patterns of missing values, at which there are zeros. Where none are
    missing, least squares take the covariates off for good; otherwise these are coefficients to begin with.
    """

    Y: Reals  # n x nobs
    design: Floats  # nobs x q, the covariates
    weights: Floats  # nobs, what each observation counts
    coefficients: Floats  # n x q, in the data's units
    scale: Floats  # n, divided by
    order: NDArray[np.intp]  # n, the column of the given data that is feature j here
    patterns: Patterns | None  # None where nothing is missing

    @classmethod
    def of(
        cls, values: Reals, order: NDArray[np.intp], design: Floats, weights: Floats, patterns: Patterns | None
    ) -> Standardised:
        """From observations x features; a new array of the same precision, and no other of that size on the way."""
        nobs, n = values.shape
        if patterns is not None:
            design, weights = design[patterns.rows], weights[patterns.rows]
        roots, plain = np.sqrt(weights), bool((weights == 1).all())
        Q, R = np.linalg.qr(design * roots[:, None])
        basis = np.linalg.solve(R.T, design.T)  # q x nobs, orthonormal in the weights
        Y = np.empty((n, nobs), dtype=values.dtype)
        turned, scale = np.empty((n, len(R))), np.empty(n)
        for own in _chunks(n, nobs):
            rows = values[:, order[own]].T.astype(np.float64)
            if patterns is None:
                turned[own], counts = rows @ (Q * roots[:, None]), weights.sum()
                rows -= turned[own] @ basis
            else:
                rows = rows[:, patterns.rows]
                gaps = np.isnan(rows)
                counts = (~gaps) @ weights
                # With as many coefficients as observations nothing is left but rounding.
                few = (~gaps) @ (weights > 0).astype(np.float64) <= design.shape[1]
                if few.any():
                    raise NothingLeft(order[own][few])
                rows[gaps] = 0
                turned[own] = _solved(gaps, Q, rows @ (Q * roots[:, None]), order[own])
                rows -= turned[own] @ basis
                rows[gaps] = 0
            counted = rows if plain else rows * roots
            left = np.einsum("jn,jn->j", counted, counted)
            before = left + np.einsum("jk,jk->j", turned[own], turned[own])
            explained = left <= (16 * np.finfo(values.dtype).eps) ** 2 * before
            if explained.any():
                raise NothingLeft(order[own][explained])
            scale[own] = np.sqrt(left / counts)
            rows /= scale[own, None]
            Y[own] = rows
        coefficients = np.linalg.solve(R, turned.T).T
        return cls(Y, design, weights, coefficients, scale, order, patterns)

    @property
    def nobs(self) -> float:
        """The weights' sum."""
        return float(self.weights.sum())

    def weighted(self) -> Reals:
        """Y, every observation times the root of its weight: Y itself where all weigh the same."""
        if (self.weights == 1).all():
            return self.Y
        Y: Reals = np.multiply(self.Y, np.sqrt(self.weights), dtype=self.Y.dtype, casting="same_kind")
        return Y

    def same_as(self, other: Standardised, columns: NDArray[np.intp] | slice = slice(None)) -> bool:
        """Whether these are the same observations with the same weights, whatever the covariates.

        ``columns``: which of the other data's features each of these is, if they are in another order.
        """
        if self.Y.shape != other.Y.shape:
            return False
        mine, theirs = self.observations(), other.observations()[:, columns]
        difference = np.abs(np.nan_to_num(mine - theirs))
        return bool(
            np.allclose(self.weights[self.places], other.weights[other.places], rtol=1e-10, atol=0)
            and np.array_equal(np.isnan(mine), np.isnan(theirs))
            and (difference[:, self.order] < 1e-6 * self.scale).all()
        )

    def less(self, coefficients: Floats) -> Floats:
        """All features in their own units, less the covariates times these coefficients; a new array.

        Where values are missing it has no meaning.
        """
        n, nobs = self.Y.shape
        out = np.empty((n, nobs))
        for own in _chunks(n, nobs):
            out[own] = self._rows(own, coefficients)
        return out

    def observations(self) -> Reals:
        """The data as they were given, to rounding: observations x features, a new array of their precision."""
        n, nobs = self.Y.shape
        out, nothing = np.empty((nobs, n), dtype=self.Y.dtype), np.zeros_like(self.coefficients)
        places = self.places
        for own in _chunks(n, nobs):
            out[:, self.order[own]] = self._rows(own, nothing).T[places]
        if self.patterns is not None:
            for s in range(len(self.patterns)):
                rows = self.patterns.rows[self.patterns.starts[s] : self.patterns.starts[s + 1]]
                out[np.ix_(rows, self.order[self.patterns.missing_by(s)])] = np.nan
        return out

    @property
    def places(self) -> NDArray[np.intp]:
        """Where each of the given observations stands."""
        if self.patterns is None:
            return np.arange(self.Y.shape[1])
        return np.argsort(self.patterns.rows)

    def _rows(self, own: slice, coefficients: Floats) -> Floats:
        rows = self.Y[own].astype(np.float64)
        rows *= self.scale[own, None]
        rows += (self.coefficients[own] - coefficients[own]) @ self.design.T
        return rows


def _solved(gaps: NDArray[np.bool_], Q: Floats, products: Floats, columns: NDArray[np.intp]) -> Floats:
    """Coefficients of the columns of Q from products with the observed rows; Q'Q = I over all rows."""
    incomplete, q = np.flatnonzero(gaps.any(axis=1)), Q.shape[1]
    if not len(incomplete) or not q:
        return products
    pairs = np.einsum("na,nb->nab", Q, Q).reshape(len(Q), q * q)
    information = np.eye(q) - (gaps[incomplete] @ pairs).reshape(-1, q, q)
    undetermined = np.linalg.eigvalsh(information)[:, 0] < LEAST_INFORMATION
    if undetermined.any():
        raise Undetermined(columns[incomplete[undetermined]])
    products[incomplete] = np.linalg.solve(information, products[incomplete][:, :, None])[:, :, 0]
    return products


def _chunks(n: int, nobs: int) -> list[slice]:
    """Runs of features of about CHUNK entries."""
    width = max(CHUNK // max(nobs, 1), 1)
    return [slice(a, min(a + width, n)) for a in range(0, n, width)]


def triangle(rows: Reals) -> Floats:
    """A triangular matrix with the same products of columns, from more rows than columns; a run of rows at a time,
    in double precision.
    """
    size = rows.shape[1]
    width, out = max(4 * size, 4096), np.empty((0, size))
    for first in range(0, len(rows), width):
        stacked = np.concatenate([out, rows[first : first + width]])
        out = linalg.qr(stacked, mode="r", overwrite_a=True, check_finite=False)[0][:size]
    return out
