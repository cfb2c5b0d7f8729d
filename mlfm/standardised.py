"""The data as a model keeps them: one copy, in the order and the units that the kernels want."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: Data may be in single precision.
Reals = NDArray[np.float32] | NDArray[np.float64]

CHUNK = 1 << 20  # entries that are moved at once, in double precision


@dataclass(frozen=True, eq=False)
class Standardised:
    """Features in group order, each a row, of mean 0 (unless the data were taken as centred) and variance 1."""

    Y: Reals  # n x nobs
    mean: Floats  # n, taken off; zeros where nothing was
    scale: Floats  # n, divided by
    order: NDArray[np.intp]  # n, the column of the given data that is feature j here

    @classmethod
    def of(cls, values: Reals, order: NDArray[np.intp], centre: bool) -> Standardised:
        """From observations x features; a new array of the same precision, and no other of that size on the way."""
        nobs, n = values.shape
        Y = np.empty((n, nobs), dtype=values.dtype)
        mean, scale = np.zeros(n), np.empty(n)
        for own in _chunks(n, nobs):
            rows = values[:, order[own]].T.astype(np.float64)
            if centre:
                mean[own] = rows.mean(axis=1)
                rows -= mean[own, None]
            scale[own] = np.sqrt(np.einsum("jn,jn->j", rows, rows) / nobs)
            rows /= scale[own, None]
            Y[own] = rows
        return cls(Y, mean, scale, order)

    def rows(self, own: slice, mean: Floats) -> Floats:
        """Some features in their own units, less ``mean``; a new array in double precision."""
        rows = self.Y[own].astype(np.float64)
        rows *= self.scale[own, None]
        rows += (self.mean[own] - mean[own])[:, None]
        return rows

    def less(self, mean: Floats) -> Floats:
        """All features in their own units, less ``mean``; a new array in double precision."""
        n, nobs = self.Y.shape
        out = np.empty((n, nobs))
        for own in _chunks(n, nobs):
            out[own] = self.rows(own, mean)
        return out

    def observations(self) -> Reals:
        """The data as they were given, to rounding: observations x features, a new array of their precision."""
        n, nobs = self.Y.shape
        out, nothing = np.empty((nobs, n), dtype=self.Y.dtype), np.zeros(n)
        for own in _chunks(n, nobs):
            out[:, self.order[own]] = self.rows(own, nothing).T
        return out


def _chunks(n: int, nobs: int) -> list[slice]:
    """Runs of features of about CHUNK entries."""
    width = max(CHUNK // max(nobs, 1), 1)
    return [slice(a, min(a + width, n)) for a in range(0, n, width)]
