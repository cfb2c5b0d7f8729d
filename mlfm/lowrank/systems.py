"""Linear systems with a multilevel low rank matrix, by SciPy's sparse solvers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import structural_rank
from scipy.sparse.linalg import LinearOperator, MatrixRankWarning, lsmr, splu

from mlfm.exceptions import ConditionWarning, warn_caller
from mlfm.lowrank.factors import Factors

Floats = NDArray[np.float64]

HALF = 1e-8  # of the right-hand side, that a residual may be before there is a warning
#: Of a vector, that may be lost when it is multiplied by the matrix and solved for again: all of it comes back in
#: another way where the matrix is singular, whether or not a pivot is exactly zero.
LOST, SOME = 0.1, 1e-5


class Expanded(NamedTuple):
    """M = left @ right.T, both sparse."""

    left: Any
    right: Any


def expanded_form(factors: Factors) -> Expanded:
    """Every block's columns side by side, in group order; the diagonal term as blocks of one."""
    grid = factors.grid
    lefts = [_spread(B, grid.rows.group_of(level), grid.n_blocks(level)) for level, B in enumerate(factors.left)]
    rights = [_spread(C, grid.columns.group_of(level), grid.n_blocks(level)) for level, C in enumerate(factors.right)]
    if factors.diag is not None:
        lefts.append(sparse.diags_array(factors.diag))
        rights.append(sparse.eye_array(len(factors.diag)))
    return Expanded(sparse.hstack(lefts, format="csr"), sparse.hstack(rights, format="csr"))


def _spread(X: Floats, group: NDArray[np.intp], groups: int) -> Any:
    """n x (groups r), each row's numbers in the columns of its group."""
    n, rank = X.shape
    columns = group[:, None] * rank + np.arange(rank)
    rows = np.repeat(np.arange(n), rank)
    return sparse.csr_array((X.ravel(), (rows, columns.ravel())), shape=(n, groups * rank))


class Bordered:
    """[[D, B], [C', -I]], of which M = D + B C' is the Schur complement, factorised."""

    def __init__(self, factors: Factors) -> None:
        low_rank = Factors(factors.grid, factors.left, factors.right, None)
        form = expanded_form(low_rank)
        n, s = form.left.shape
        diag = np.zeros(n) if factors.diag is None else factors.diag
        whole = sparse.block_array(
            [[sparse.diags_array(diag), form.left], [form.right.T, -sparse.eye_array(s)]], format="csc"
        )
        self._factors, self._n = factors, n
        self._solver = _factorised(whole)
        if self._solver is None or not _lost(factors, self._refined) < LOST:
            raise np.linalg.LinAlgError(
                "the matrix is singular; lstsq() finds the shortest of the vectors that come closest"
            )

    def solve(self, right: Floats) -> Floats:
        """x of M x = right, with one step of refinement."""
        x = self._refined(right)
        left_over = np.linalg.norm(self._residual(x, right), axis=0)
        if not (left_over <= HALF * np.linalg.norm(right, axis=0)).all():
            warn_caller(
                "the matrix is close to singular: the solution meets the equations to "
                f"{np.max(left_over / np.maximum(np.linalg.norm(right, axis=0), np.finfo(float).tiny)):.1e} only; "
                "lstsq() finds the shortest that comes closest",
                ConditionWarning,
            )
        return x

    def _refined(self, right: Floats) -> Floats:
        x = self._once(right)
        return x + self._once(self._residual(x, right))

    def _once(self, right: Floats) -> Floats:
        zeros = np.zeros((self._solver.shape[0] - self._n, right.shape[1]))
        return np.ascontiguousarray(self._solver.solve(np.vstack([right, zeros]))[: self._n])

    def _residual(self, x: Floats, right: Floats) -> Floats:
        out = right.copy()
        self._factors.subtract(0, x, out)
        return out


def _factorised(matrix: Any) -> Any:
    """SciPy's LU factors, or None where the matrix is singular: SuperLU is not asked where its pattern says so."""
    if structural_rank(matrix) < matrix.shape[0]:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", MatrixRankWarning)
        try:
            return splu(matrix)
        except (RuntimeError, MatrixRankWarning):
            return None


def _lost(factors: Factors, solve: Callable[[Floats], Floats]) -> float:
    """How far a vector is from what is solved for from its product, relative to it."""
    x = np.random.default_rng(0).standard_normal((factors.grid.shape[1], 1))
    product = np.zeros((factors.grid.shape[0], 1))
    factors.subtract(0, x, product)
    return float(np.linalg.norm(solve(-product) - x) / np.linalg.norm(x))


def least_squares(factors: Factors, right: Floats) -> Floats:
    """x that makes the sum of squares of right - M x least.

    With residuals e = b - M x, z = C' x and w = B' e, for M = B C': e + B z = b, C w = 0, C' x = z and B' e = w.
    """
    m, n = factors.grid.shape
    form = expanded_form(factors)
    s = form.left.shape[1]
    if m >= n:
        whole = sparse.block_array(
            [
                [sparse.eye_array(m), None, form.left, None],
                [None, None, None, form.right],
                [None, form.right.T, -sparse.eye_array(s), None],
                [form.left.T, None, None, -sparse.eye_array(s)],
            ],
            format="csc",
        )
        solver = _factorised(whole)

        def solve(right: Floats) -> Floats:
            known = np.vstack([right, np.zeros((n + 2 * s, right.shape[1]))])
            unknown = solver.solve(known)
            unknown += solver.solve(known - whole @ unknown)
            return np.ascontiguousarray(unknown[m : m + n])

        # Where the rank is not full one of many solutions comes out, and not the shortest.
        if solver is not None and _lost(factors, solve) < SOME:
            x = solve(right)
            if _is_stationary(factors, x, right):
                return x
    return np.stack([_shortest(factors, b) for b in right.T], axis=1)


def _is_stationary(factors: Factors, x: Floats, right: Floats) -> bool:
    """Whether M'(right - M x) is rounding."""
    left_over = right.copy()
    factors.subtract(0, x, left_over)
    gradient, size = np.zeros_like(x), np.zeros_like(x)
    factors.transposed.subtract(0, left_over, gradient)
    factors.transposed.subtract(0, right, size)
    return bool((np.linalg.norm(gradient, axis=0) <= HALF * np.linalg.norm(size, axis=0) + 1e-300).all())


def _shortest(factors: Factors, b: Floats) -> Floats:
    m, n = factors.grid.shape

    def times(x: Floats) -> Floats:
        out = np.zeros((m, 1))
        factors.subtract(0, np.ascontiguousarray(x.reshape(n, 1)), out)
        return -out[:, 0]

    def transposed_times(x: Floats) -> Floats:
        out = np.zeros((n, 1))
        factors.transposed.subtract(0, np.ascontiguousarray(x.reshape(m, 1)), out)
        return -out[:, 0]

    operator = LinearOperator((m, n), matvec=times, rmatvec=transposed_times, dtype=np.float64)
    x, reason, *_ = lsmr(operator, b, atol=1e-14, btol=1e-14, conlim=1e14, maxiter=20 * (m + n))
    if reason not in (0, 1, 2, 4, 5):
        warn_caller(
            "the matrix is so close to singular that the least squares are not met to all digits", ConditionWarning
        )
    return np.asarray(x, dtype=np.float64)
