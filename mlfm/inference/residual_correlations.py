"""The largest residual correlations: sample correlation less the model's, block by block.

Where values are missing a pair's sample correlation is that of the observations that have both features, about the
fitted means: sum w y_i y_j / sqrt(sum w y_i^2 sum w y_j^2).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.covariance import MultilevelCovariance
from mlfm.covariance.terms import block
from mlfm.standardised import Standardised
from mlfm.sweep import Workers

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
ROWS, COLUMNS = 512, 2048  # of a block


class Pairs(NamedTuple):
    """Pairs of features, by position in group order, with what is known of each; the largest residuals first."""

    first: Integers
    second: Integers
    sample: Floats
    fitted: Floats
    counts: Floats  # what the observations that have both come to

    @property
    def residual(self) -> Floats:
        return self.sample - self.fitted

    def z(self, n_coefficients: int) -> Floats:
        """Fisher's: by how many standard errors of a sample correlation the two differ."""
        limit = 1 - np.finfo(float).eps
        apart = np.arctanh(np.clip(self.sample, -limit, limit)) - np.arctanh(np.clip(self.fitted, -limit, limit))
        return apart * np.sqrt(np.maximum(self.counts - n_coefficients - 2, 0))

    def largest(self, top: int) -> Pairs:
        """The first of them; ties stand in the order of the features."""
        order = np.lexsort((self.second, self.first, -np.abs(self.residual)))[:top]
        return Pairs(self.first[order], self.second[order], self.sample[order], self.fitted[order], self.counts[order])


def largest_residuals(
    covariance: MultilevelCovariance, data: Standardised, coefficients: Floats, top: int, least: float
) -> Pairs:
    """The ``top`` pairs with the largest residuals, of those whose common observations count at least ``least``.

    The covariance's hierarchy has the group order of the data; coefficients are in that order too.
    """
    sample = _Sample(data, coefficients)
    correlation = covariance.correlation()._terms
    n = len(data.Y)
    starts = range(0, n, ROWS)
    found: list[Pairs] = [_none()] * len(starts)

    def search(i: int) -> None:
        rows = np.arange(starts[i], min(starts[i] + ROWS, n))
        kept = _none()
        for first in range(starts[i], n, COLUMNS):
            columns = np.arange(first, min(first + COLUMNS, n))
            values, counts = sample.block(slice(rows[0], rows[-1] + 1), slice(first, columns[-1] + 1))
            fitted = block(correlation, rows, columns)
            size = np.abs(values - fitted)
            size[columns <= rows[:, None]] = -1  # each pair once
            size[counts < least] = -1
            bar = 0.0 if len(kept.first) < top else float(np.abs(kept.residual).min())
            a, b = np.nonzero(size >= bar)
            if len(a) > 4 * top:
                # What is as large as the last that is wanted.
                bar = np.partition(size[a, b], -top)[-top]
                a, b = np.nonzero(size >= bar)
            new = Pairs(rows[a], columns[b], values[a, b], fitted[a, b], np.broadcast_to(counts, size.shape)[a, b])
            kept = _joined([kept, new]).largest(top)
        found[i] = kept

    with Workers() as workers:
        workers.run(search, len(starts))
    return _joined(found).largest(top)


class _Sample:
    """Sample correlations, a block at a time, and what their observations count."""

    def __init__(self, data: Standardised, coefficients: Floats) -> None:
        self._nobs, self._weights = data.nobs, data.weights
        self._seen: Floats | None = None  # 1 where a value was
        if data.patterns is None:
            self._Y = data.weighted()
            return
        Y = data.less(coefficients) / data.scale[:, None]
        seen = np.ones(Y.shape)
        for s in range(len(data.patterns)):
            own = slice(data.patterns.starts[s], data.patterns.starts[s + 1])
            seen[data.patterns.missing_by(s), own] = 0
        self._Y, self._seen = Y * seen * np.sqrt(data.weights), seen

    def block(self, rows: slice, columns: slice) -> tuple[Floats, Floats]:
        products = (self._Y[rows] @ self._Y[columns].T).astype(np.float64)
        if self._seen is None:
            return products / self._nobs, np.array(self._nobs)
        # Y holds the roots of the weights: sums of w y^2 where both were seen, and of w.
        first = self._Y[rows] ** 2 @ self._seen[columns].T
        second = self._seen[rows] @ (self._Y[columns] ** 2).T
        counts = (self._seen[rows] * self._weights) @ self._seen[columns].T
        with np.errstate(divide="ignore", invalid="ignore"):
            values = products / np.sqrt(first * second)
        return np.where(np.isfinite(values), values, 0.0), counts


def _none() -> Pairs:
    empty = np.empty(0)
    return Pairs(empty.astype(np.intp), empty.astype(np.intp), empty, empty, empty)


def _joined(parts: list[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
