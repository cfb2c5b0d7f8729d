"""The information about all parameters, and the score of each observation, from the n x n covariance in full.

For problems of up to a few thousand parameters. Parameters stand as in a parameter vector, features in group order:
coefficients row by row, loadings row by row, uniquenesses. Let M = Sigma^-1, E = M F and G = F'E, where F is n x s with
a column for each of all groups' factors. Then the expected information of an observation is (second derivatives of a
normal likelihood by parameters of the covariance; Magnus and Neudecker, Matrix Differential Calculus, ch. 15)

    F_ja, F_lb:  M_jl G_ab + E_jb E_la      F_ja, D_l:  M_jl E_la      D_j, D_l:  M_jl^2 / 2
    B_jk, B_lm:  M_jl x_k x_m

and the observed information adds what M S M, S the second moments of the residuals, differs from M by. Observations
that miss the same values share M, with rows and columns of zeros at what they miss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from mlfm.parameters import Layout
from mlfm.patterns import Patterns
from mlfm.standardised import Standardised
from mlfm.sweep import Tree

Floats = NDArray[np.float64]
TOGETHER = 1 << 22  # entries of the scores of observations that are made at once


class Precision(NamedTuple):
    """M = Sigma^-1 of what some observations observe, E = M F, G = F'E; which these are, and what they count."""

    M: Floats
    E: Floats
    G: Floats
    rows: slice
    nobs: float
    squares: Floats  # second moments of their covariates, q x q


class Residuals(NamedTuple):
    """The data less their means, in the units of the information; observations in the order of their patterns."""

    values: Floats  # n x nobs, zeros where values are missing
    design: Floats  # nobs x q, orthonormal in the weights
    weights: Floats

    @classmethod
    def of(cls, data: Standardised, B: Floats, scale: Floats, back: Floats) -> Residuals:
        """At coefficients in the user's units; ``design @ back`` is orthonormal, features are divided by ``scale``."""
        values = data.less(B) / scale[:, None]
        if data.patterns is not None:
            for s in range(len(data.patterns)):
                own = slice(data.patterns.starts[s], data.patterns.starts[s + 1])
                values[data.patterns.missing_by(s), own] = 0
        return cls(values, data.design @ back, data.weights)


@dataclass(frozen=True, eq=False)
class Dense:
    """A model at some parameters, for the derivatives of its likelihood in full.

    Parameters are in units in which the covariates are orthonormal. Without residuals only the expected information of
    ``nobs`` complete observations can be had.
    """

    tree: Tree
    F: Floats  # n x r, compressed
    D: Floats
    n_covariates: int
    nobs: float
    residuals: Residuals | None = None
    patterns: Patterns | None = None

    @property
    def layout(self) -> Layout:
        """Where each parameter stands."""
        return Layout(len(self.D), self.tree.n_factors, self.n_covariates)

    @cached_property
    def columns(self) -> NDArray[np.intp]:
        """The factor, counted over all groups level by level, on which feature j's loading a is: n x r."""
        first, parts = 0, []
        for bounds, rank in zip(self.tree.offsets, self.tree.ranks, strict=True):
            group = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
            parts.append(first + group[:, None] * rank + np.arange(rank))
            first += (len(bounds) - 1) * rank
        return np.concatenate(parts, axis=1)

    @cached_property
    def wide(self) -> Floats:
        """Loadings on all groups' factors, n x s."""
        wide = np.zeros((len(self.D), int(self.columns.max(initial=-1)) + 1))
        np.put_along_axis(wide, self.columns, self.F, axis=1)
        return wide

    def precisions(self) -> Iterator[Precision]:
        """Pattern by pattern of missing values."""
        covariance = self.wide @ self.wide.T
        covariance[np.diag_indices_from(covariance)] += self.D
        if self.patterns is None:
            yield self._precision(covariance, slice(None), slice(None), self.nobs, np.eye(self.n_covariates))
            return
        assert self.residuals is not None
        for s in range(len(self.patterns)):
            seen = np.ones(len(self.D), dtype=bool)
            seen[self.patterns.missing_by(s)] = False
            rows = slice(int(self.patterns.starts[s]), int(self.patterns.starts[s + 1]))
            weights, X = self.residuals.weights[rows], self.residuals.design[rows]
            yield self._precision(covariance, seen, rows, float(weights.sum()), (X * weights[:, None]).T @ X)

    def _precision(
        self, covariance: Floats, seen: slice | NDArray[np.bool_], rows: slice, nobs: float, squares: Floats
    ) -> Precision:
        own = np.arange(len(self.D))[seen]
        inverse = linalg.cho_solve(linalg.cho_factor(covariance[np.ix_(own, own)], lower=True), np.eye(len(own)))
        M = np.zeros_like(covariance)
        M[np.ix_(own, own)] = inverse
        E = M @ self.wide
        return Precision(M, E, self.wide.T @ E, rows, nobs, squares)

    def expected(self) -> Floats:
        """The expected information given which values are observed."""
        total = _Total(self)
        for precision in self.precisions():
            total.add_expected(precision)
        return total.matrix()

    def expected_and_observed(self) -> tuple[Floats, Floats]:
        """That, and less the second derivatives of the log-likelihood."""
        assert self.residuals is not None
        expected, difference = _Total(self), _Total(self)
        for precision in self.precisions():
            M, rows = precision.M, precision.rows
            R, weights = self.residuals.values[:, rows], self.residuals.weights[rows]
            expected.add_expected(precision)
            U = M @ (R * np.sqrt(weights))
            difference.add_difference(precision, U @ U.T - precision.nobs * M)
            difference.add_cross(precision, M @ ((R * weights) @ self.residuals.design[rows]))
        first = expected.matrix()
        return first, first + difference.matrix()

    def outer_product(self, squares: Floats) -> Floats:
        """The sum over observations of ``squares`` times the outer products of their scores."""
        assert self.residuals is not None
        out = np.zeros((self.layout.size, self.layout.size))
        together = max(1, TOGETHER // self.layout.size)
        for precision in self.precisions():
            start, stop, _ = precision.rows.indices(len(squares))
            for first in range(start, stop, together):
                rows = slice(first, min(first + together, stop))
                scores = self._scores(precision, self.residuals.values[:, rows], self.residuals.design[rows])
                scores *= np.sqrt(squares[rows])
                out += scores @ scores.T
        return out

    def _scores(self, precision: Precision, R: Floats, X: Floats) -> Floats:
        """Derivatives of the log-likelihoods of some observations, parameters x observations."""
        M, E = precision.M, precision.E
        U = M @ R
        V = self.wide.T @ U
        each = np.arange(len(M))[:, None]
        dB = U[:, None, :] * X.T
        dF = U[:, None, :] * V[self.columns] - E[each, self.columns][:, :, None]
        dD = (U**2 - np.diag(M)[:, None]) / 2
        return np.concatenate([part.reshape(-1, U.shape[1]) for part in (dB, dF, dD)])


class _Total:
    """The information of all observations, to which patterns are added one by one.

    It is kept in blocks of features x features, one for each two of a feature's parameters: coefficients (from 0),
    loadings (from q) and the uniqueness (q + r).
    """

    def __init__(self, dense: Dense) -> None:
        self.columns, self.wide = dense.columns.T, dense.wide
        self.n, self.r, self.q = dense.layout
        self.size = dense.layout.size
        self.blocks: dict[tuple[int, int], Floats] = {}

    def add_expected(self, precision: Precision) -> None:
        """The expected information of some observations."""
        M, E, G, _, nobs, squares = precision
        q, D = self.q, self.q + self.r
        for k in range(q):
            for m in range(k + 1):
                self._add(k, m, squares[k, m] * M)
        weighted, mine = nobs * M, self._gathered(E)
        for a, own in enumerate(self.columns):
            for b, other in enumerate(self.columns[: a + 1]):
                block = weighted * G[np.ix_(own, other)]
                block += nobs * mine[b].T * mine[a]
                self._add(q + a, q + b, block)
            self._add(q + a, D, weighted * mine[a])
        self._add(D, D, weighted * M / 2)

    def add_difference(self, precision: Precision, T: Floats) -> None:
        """What the observed information has beyond the expected, T = M S M less its expectation."""
        M, E, G, *_ = precision
        q, D = self.q, self.q + self.r
        TF = T @ self.wide
        FTF = self.wide.T @ TF
        mine, turned = self._gathered(E), self._gathered(TF)
        for a, own in enumerate(self.columns):
            for b, other in enumerate(self.columns[: a + 1]):
                block = T * G[np.ix_(own, other)]
                block += M * FTF[np.ix_(own, other)]
                block += turned[b].T * mine[a]
                block += mine[b].T * turned[a]
                if a == b:  # the second derivative of Sigma
                    block -= T * (own[:, None] == own)
                self._add(q + a, q + b, block)
            self._add(q + a, D, T * mine[a] + M * turned[a])
        self._add(D, D, T * M)

    def add_cross(self, precision: Precision, U: Floats) -> None:
        """Between coefficients and the rest; U is M times the sum of residuals times covariates, n x q."""
        FU = self.wide.T @ U
        for k in range(self.q):
            for a, own in enumerate(self.columns):
                self._add(k, self.q + a, precision.M * FU[own, k] + precision.E[:, own] * U[:, k])
            self._add(k, self.q + self.r, precision.M * U[:, k])

    def _gathered(self, X: Floats) -> list[Floats]:
        """X_l,a(j) for features j (rows) and l, one array for each of a feature's factors a."""
        turned = np.ascontiguousarray(X.T)
        return [turned[own] for own in self.columns]

    def matrix(self) -> Floats:
        """All of it, parameters in their order."""
        out = np.zeros((self.size, self.size))
        for (row, column), block in self.blocks.items():
            out[self._of(row), self._of(column)] = block
            out[self._of(column), self._of(row)] = block.T
        return out

    def _add(self, row: int, column: int, block: Floats) -> None:
        if (row, column) in self.blocks:
            self.blocks[row, column] += block
        else:
            self.blocks[row, column] = block

    def _of(self, kind: int) -> slice:
        """Where one parameter of every feature stands among all."""
        n, r, q = self.n, self.r, self.q
        if kind < q:
            return slice(kind, n * q, q)
        if kind < q + r:
            return slice(n * q + kind - q, n * (q + r), r)
        return slice(n * (q + r), None)
