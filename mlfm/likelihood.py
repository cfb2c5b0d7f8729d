"""The Gaussian log-likelihood of a multilevel factor model and its derivatives, at any parameters.

Arrays are in group order. Y holds the data feature by feature (n x columns), means removed. Its columns are the
observations, or the rows of anything with the same Y Y' (their triangular factor), so ``nobs`` comes apart.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import gradient, leaf_moments
from mlfm.standardised import Reals
from mlfm.sweep import Moments, Posterior, Sweep, Task, Workers

Floats = NDArray[np.float64]
LOG_2PI = math.log(2 * math.pi)


def condition(sweep: Sweep, F: Floats, D: Floats, Y: Reals, workers: Workers) -> None:
    """The upward pass at (F, D): fills the sweep's R, A, b and log-determinants."""

    def fill(task: Task, moments: Moments) -> None:
        own = task.features
        leaf_moments(F[own], D[own], Y[own], task.leaves, sweep.tile, *moments)

    sweep.upward(fill, workers)


def loglike(sweep: Sweep, D: Floats, squares: Floats, nobs: float) -> float:
    """Total log-likelihood in nats, after :func:`condition`; ``squares`` are the features' sums of squares."""
    return loglike_of(sweep, D, float((squares / D).sum()) - sweep.explained, nobs)


def loglike_by_column(sweep: Sweep, D: Floats, Y: Floats) -> Floats:
    """Log-likelihood of every observation (column of Y), after :func:`condition`."""
    return loglike_of(sweep, D, np.einsum("jn,jn,j->n", Y, Y, 1 / D) - sweep.explained_by_column(), 1)


def loglike_of(sweep: Sweep, D: Floats, quadratic: Any, nobs: float) -> Any:
    """The same from the quadratic form y' Sigma^-1 y: of ``nobs`` observations in all, or one by one of each."""
    logdet = float(np.log(D).sum()) + sweep.logdet
    return -0.5 * (nobs * (len(D) * LOG_2PI + logdet) + quadratic)


def score(
    sweep: Sweep, F: Floats, D: Floats, Y: Reals, squares: Floats, nobs: float, workers: Workers
) -> tuple[Floats, Floats]:
    """Derivatives of the total log-likelihood by F (n x r) and D (n), after :func:`condition`."""
    dF, dD = np.empty_like(F), np.empty_like(D)

    def visit(i: int, task: Task, posterior: Posterior) -> None:
        own = task.features
        gradient(Y[own], F[own], D[own], *posterior, squares[own], nobs, task.leaves, sweep.tile, dF[own], dD[own])

    sweep.downward(visit, workers)
    return dF, dD
