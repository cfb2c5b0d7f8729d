"""Solving with a covariance to the last digits: iterative refinement where the factors alone lose some.

Errors are measured on the scale of correlations, each feature in units of its standard deviation, so that they do not
depend on the features' units.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlfm.covariance.terms import Terms, diagonal, times
from mlfm.linear import column_products, solve
from mlfm.sweep import Elimination, Sweep, Workers

Floats = NDArray[np.float64]

#: A solution is refined where the elimination may lose this factor, or b'D^-1 b is so many times b'Sigma^-1 b.
REFINE_FROM = 100.0
STEPS = 8  # of refinement at most, where no number is asked for; one or two nearly always do
ACCURATE = 4 * float(np.finfo(float).eps)  # backward error at which refinement ends


class Solver:
    """Sigma^-1 B for a covariance whose R and A are known.

    Parameters
    ----------
    terms : Terms
    known : Elimination
    inflation : float
        What the elimination may lose; see :func:`mlfm.linear.eliminate`.
    """

    def __init__(self, terms: Terms, known: Elimination, inflation: float) -> None:
        self._terms, self._known, self._inflation = terms, known, inflation

    @cached_property
    def _variances(self) -> Floats:
        return diagonal(self._terms)

    def solve(self, B: Floats, refine: int | None, workers: Workers) -> tuple[Floats, float]:
        """The solution, and the largest backward error of a column; not a number where nobody looked."""
        sweep = Sweep(self._terms.tree, B.shape[1], elimination=self._known)
        X = solve(sweep, self._terms.left, self._terms.diag, B, workers)
        left = column_products(sweep, B, X, workers)  # b'Sigma^-1 b = b'D^-1 b less what the factors explain
        explained = sweep.explained_by_column()
        if not _far_from_the_limits(B, left, explained):
            sizes = np.abs(B).max(axis=0, initial=0.0)
            scale = np.where(sizes > 0, sizes, 1.0)
            if (scale != 1).any():
                X, worst = self.solve(B / scale, refine, workers)
                return X * scale, worst
        if not np.isfinite(left).all():
            raise np.linalg.LinAlgError("the solution is not finite: uniquenesses are too small, or numbers too large")
        if refine is None:
            at_risk = self._inflation > REFINE_FROM or bool((left * REFINE_FROM < left + explained).any())
            refine = STEPS if at_risk else 0
        if refine == 0:
            return X, float("nan")
        residual = self.residual(B, X, workers)
        for _ in range(refine):
            if (self._backward_errors(B, X, residual) <= ACCURATE).all():
                break
            better = X + solve(sweep, self._terms.left, self._terms.diag, residual, workers)
            of_better = self.residual(B, better, workers)
            gained = self._sizes(of_better) < self._sizes(residual)
            if not gained.any():
                break
            X, residual = np.where(gained, better, X), np.where(gained, of_better, residual)
        return X, float(self._backward_errors(B, X, residual).max(initial=0.0))

    def residual(self, B: Floats, X: Floats, workers: Workers) -> Floats:
        """B - Sigma X."""
        return B - times(self._terms, X, workers)

    def _sizes(self, residual: Floats) -> Floats:
        """Norms column by column."""
        return np.sqrt(np.einsum("jn,jn,j->n", residual, residual, 1 / self._variances))

    def _backward_errors(self, B: Floats, X: Floats, residual: Floats) -> Floats:
        """||b - Sigma x|| / (||Sigma|| ||x|| + ||b||) column by column."""
        solution = np.sqrt(np.einsum("jn,jn,j->n", X, X, self._variances))
        scale = self._norm * solution + self._sizes(B)
        return self._sizes(residual) / np.where(scale > 0, scale, 1)

    @cached_property
    def _norm(self) -> float:
        """A lower bound on the largest eigenvalue of the correlation matrix: the mean one of a group's part."""
        tree, largest = self._terms.tree, 1.0
        for own, bounds, rank in zip(map(tree.own, range(len(tree.ranks))), tree.offsets, tree.ranks, strict=True):
            if rank:
                share = np.einsum("jk,jk->j", self._terms.left[:, own], self._terms.left[:, own]) / self._variances
                largest = max(largest, float(np.add.reduceat(share, bounds[:-1]).max()) / rank)
        return largest


def _far_from_the_limits(B: Floats, left: Floats, explained: Floats) -> bool:
    """Whether sums of squares neither overflowed nor came near to nothing (but where b is nothing)."""
    total = left + explained
    return bool((np.isfinite(total) & (total > 1e-250) & (total < 1e250)).all())
