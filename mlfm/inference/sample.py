"""The sample covariance of the data, without the matrix: its log-determinant, its norm, and the likelihoods it gives.

Y holds the residuals of the covariates, of variance 1, so that R = Y diag(w) Y' / sum(w) is the sample correlation and
the sample covariance is R in the features' scales. All of it is for data without missing values but
:func:`independence_llf`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlfm.likelihood import LOG_2PI
from mlfm.standardised import Standardised, triangle
from mlfm.sweep import Workers

Floats = NDArray[np.float64]
WIDTH = 512  # rows or columns of a block of products


def observed_weights(data: Standardised) -> Floats:
    """What the observations of each feature count, in group order."""
    counts = np.full(len(data.Y), data.nobs)
    if data.patterns is not None:
        for s, weight in enumerate(data.patterns.sums(data.weights)):
            counts[data.patterns.missing_by(s)] -= weight
    return counts


def independence_llf(data: Standardised) -> float:
    """Largest log-likelihood without any covariance: each feature with its own mean and variance, of what is observed
    of it.
    """
    return float(-0.5 * (observed_weights(data) @ (LOG_2PI + 1 + 2 * np.log(data.scale))))


def saturated_llf(data: Standardised) -> float | None:
    """Largest log-likelihood with any covariance, that of the sample; None where it is singular.

    -W/2 (n log 2 pi + log|S| + n), W the weights' sum; log|S| from the triangular factor of the data themselves.
    """
    n = len(data.Y)
    if np.count_nonzero(data.weights) - data.design.shape[1] < n:
        return None
    with Workers(1):  # BLAS on one thread: the same digits everywhere
        pivots = np.abs(np.diag(triangle(data.weighted().T))) / np.sqrt(data.nobs)
    # A pivot is what a feature of variance 1 leaves beside those before it.
    if pivots.min() <= 64 * np.sqrt(n) * np.finfo(data.Y.dtype).eps:
        return None
    logdet = 2 * float(np.log(pivots).sum() + np.log(data.scale).sum())
    return -0.5 * data.nobs * (n * (LOG_2PI + 1) + logdet)


def squared_norm(data: Standardised, workers: Workers) -> float:
    """||R||^2, the sum of squares of all sample correlations, the ones of the diagonal included.

    Y Y' and Y'Y have the same norm: the smaller of the two is worked out, block by block.
    """
    Y = data.weighted()
    Y = Y if len(Y) <= Y.shape[1] else Y.T
    starts = range(0, len(Y), WIDTH)
    sums = np.zeros(len(starts))

    def add(i: int) -> None:
        rows = Y[starts[i] : starts[i] + WIDTH].astype(np.float64)
        for b in starts[i:]:
            # Symmetric: blocks off the diagonal count twice.
            product = rows @ Y[b : b + WIDTH].astype(np.float64).T
            sums[i] += float(np.vdot(product, product)) * (1 if b == starts[i] else 2)

    workers.run(add, len(starts))
    return float(sums.sum()) / data.nobs**2
