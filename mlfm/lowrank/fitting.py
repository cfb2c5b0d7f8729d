"""Factor fitting: the multilevel low rank matrix of given ranks on given groups that is closest to a matrix."""

from __future__ import annotations

import numbers
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.covariance import MultilevelCovariance
from mlfm.exceptions import ConvergenceWarning, warn_caller
from mlfm.lowrank.blockwise import is_signed
from mlfm.lowrank.descent import Descent
from mlfm.lowrank.factors import Factors
from mlfm.lowrank.inputs import checked_ranks, refuse_asymmetric, refuse_unbounded, source_of
from mlfm.lowrank.matrix import MultilevelMatrix
from mlfm.lowrank.methods import METHODS, Problem
from mlfm.lowrank.remainder import left_over
from mlfm.lowrank.sample import SampleCovariance
from mlfm.lowrank.sources import Dense, Source
from mlfm.lowrank.structures import STRUCTURES
from mlfm.ranks import Ranks
from mlfm.seeds import generator
from mlfm.sweep import Workers
from mlfm.wording import count, listing, plain

Floats = NDArray[np.float64]

EXACT = 1e-14  # of the norm: what is left is rounding
SLOW = 3  # sweeps in a row that lower the error by little before an end: one does where momentum is lost and made again


@dataclass(frozen=True, eq=False)
class LowRankFit:
    """A matrix fitted in the Frobenius norm, made by :func:`mlfm.lowrank.fit`.

    Attributes
    ----------
    matrix : MultilevelMatrix
        The fit.
    norm : float
        Frobenius norm of A.
    error : float
        Frobenius norm of what is left, A - matrix.
    method, structure : str
        How it was fitted, and what was asked of the blocks.
    converged : bool
        Whether the last sweeps lowered the error by less than the tolerance.
    history : DataFrame
        One row a sweep: ``relative_error``, ``decrease`` (of it, relative to the sweep before), ``seconds`` since the
        start.
    """

    matrix: MultilevelMatrix
    norm: float
    error: float
    method: str
    structure: str
    converged: bool
    history: pd.DataFrame

    @property
    def relative_error(self) -> float:
        """Error over norm."""
        return self.error / self.norm if self.norm else 0.0

    @property
    def ranks(self) -> pd.Series:
        """Columns of the blocks of each level."""
        return self.matrix.ranks

    @property
    def covariance(self) -> MultilevelCovariance:
        """The fit as a covariance: of a factor model fitted in the Frobenius norm and not by maximum likelihood.

        Raises
        ------
        ValueError
            If the structure is not "psd", or the diagonal is absent or not positive: no covariance has a uniqueness
            of zero.
        """
        if self.structure != "psd" or self.matrix.diag is None:
            raise ValueError('a covariance needs a fit with structure="psd" and diagonal=True')
        diag = self.matrix.diag
        if not (diag > 0).all():
            raise ValueError(
                f"the diagonal is zero for {count(int((diag <= 0).sum()), 'feature')}: "
                f"{listing(diag.index[diag <= 0])}; use smaller ranks, or make "
                "MultilevelCovariance from matrix.left and a larger diagonal"
            )
        return MultilevelCovariance(self.matrix.rows, self.matrix.left, diag, ranks=self.matrix.ranks)

    def __str__(self) -> str:
        m, n = self.matrix.shape
        ranks = ", ".join(f"{level} {rank}" for level, rank in self.ranks.items())
        diagonal = "" if self.matrix.diag is None else ", and a diagonal"
        state = "converged" if self.converged else "did not converge"
        return "\n".join(
            [
                f"Multilevel low rank fit of a {m} x {n} matrix ({self.structure})",
                f"ranks           {ranks}{diagonal}",
                f"storage         {self.matrix.storage:,} numbers ({self.matrix.storage / (m * n):.2%} of the matrix)",
                f"relative error  {self.relative_error:.4f}",
                f"method          {self.method}, {state}",
            ]
        )

    __repr__ = __str__


def fit(
    A: Any,
    rows: Any = None,
    cols: Any = None,
    ranks: Ranks | None = None,
    method: str | None = None,
    *,
    structure: str | None = None,
    diagonal: bool = False,
    start: LowRankFit | MultilevelMatrix | None = None,
    tol: float = 1e-4,
    maxiter: int = 1000,
    rng: int | np.random.Generator | None = None,
    n_threads: int | None = None,
) -> LowRankFit:
    """The multilevel low rank matrix on given groups that comes close to A in the Frobenius norm.

    The problem is not convex: what is found is a local minimum, in which no level by itself can be improved.

    Parameters
    ----------
    A : DataFrame, array, SciPy sparse matrix, LinearOperator or SampleCovariance, m x n
        The matrix. Where it has labels they are matched with the features of the hierarchies. A
        :class:`~mlfm.lowrank.SampleCovariance` is given by its data and never formed. Of a LinearOperator a sweep
        needs about as many products as there are columns in all blocks, and the error needs n more.
    rows : Hierarchy, optional
        The groups of the rows; by default one of all.
    cols : Hierarchy, optional
        The groups of the columns: the same levels and, at each, the same names of groups. Not given, they are those
        of the rows, and A must be symmetric.
    ranks : mapping or sequence
        Rank of the blocks of each level, global to finest, or by name of the level (absent levels have rank 0).
    method : {"bcd", "als"}, optional
        "bcd": block coordinate descent, which makes the best of one level after the other, top-down and bottom-up, by
        truncated singular value (or eigen-) decompositions of what the others leave of each block. "als": alternating
        least squares, all left factors together and then all right ones; for general matrices only, for which it is
        the default: mostly it is quicker and ends lower. For the others the default is "bcd".
    structure : {"general", "symmetric", "psd"}, optional
        What every block B_k C_k' must be: anything, symmetric, or positive semidefinite. By default "general" where
        ``cols`` is given, "psd" for a SampleCovariance, else "symmetric".
    diagonal : bool
        Whether to fit a diagonal as well (rows and columns must have one hierarchy); with "psd" it is kept from
        falling below zero.
    start : LowRankFit or MultilevelMatrix, optional
        Where to begin (a warm start), on the same hierarchies; its blocks must have the structure. Of levels whose rank
        is smaller now the columns that explain most are taken; further columns begin at zero.
    tol : float
        Stop when three sweeps in a row each lower the error by less than this, relative to it, and neither does a last
        one that looks for new directions.
    maxiter : int
        Sweeps at most.
    rng : int or numpy Generator, optional
        For the first directions; None is seed 0.
    n_threads : int, optional
        Results do not depend on it. By default as many as there are processors.

    Returns
    -------
    LowRankFit

    Raises
    ------
    ValueError, TypeError
        If values are missing, shapes, labels or groups do not match, A is not symmetric where it has to be, or a rank
        is larger than every block of its level.

    Warns
    -----
    ConvergenceWarning
        If ``maxiter`` sweeps did not suffice.

    Notes
    -----
    A sweep costs 4 m n sum_l r_l / p_l multiplications for a dense matrix, p_l being the number of blocks of level l,
    and 4 N n r for the covariance of N observations: linear in n. The error is worked out from norms and inner
    products, so that below 1e-8 of the norm it is rounding; of a dense matrix it is exact.

    References
    ----------
    Parshakova, Hastie, Darve and Boyd, *Factor Fitting, Rank Allocation, and Partitioning in Multilevel Low Rank
    Matrices* (arXiv 2310.19214), section 4.

    Examples
    --------
    A kernel matrix of points on a line, in 2 and 4 intervals:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from mlfm import Hierarchy, lowrank
    >>> x = np.linspace(0, 1, 64)
    >>> A = np.exp(-100 * (x[:, None] - x) ** 2)
    >>> halves = Hierarchy(pd.DataFrame({"half": x > 0.5, "quarter": np.minimum(np.floor(4 * x), 3)}))
    >>> print(lowrank.fit(A, halves, ranks=[0, 1, 2]))
    Multilevel low rank fit of a 64 x 64 matrix (symmetric)
    ranks           global 0, half 1, quarter 2
    storage         192 numbers (4.69% of the matrix)
    relative error  0.2178
    method          bcd, converged
    """
    if ranks is None:
        raise TypeError("ranks: needed, one rank for each level of rows")
    source = source_of(A, rows, cols)
    structure = checked_structure(structure, source, isinstance(A, SampleCovariance), cols)
    if method is None:
        method = STRUCTURES[structure].method
    if method not in METHODS:
        raise ValueError(f"method must be one of {listing(METHODS)}, not {method!r}")
    if method == "als" and structure != "general":
        raise ValueError(
            f'method: "als" does not keep blocks {structure}; use "bcd", or structure="general" for blocks of any kind'
        )
    if diagonal and not source.grid.square:
        raise ValueError("diagonal: only where rows and columns have one hierarchy; leave cols out, or give cols=rows")
    by_level = checked_ranks(ranks, source.grid)
    tol, maxiter = checked_stopping(tol, maxiter)
    factors = Factors.nothing(source.grid, by_level, bool(diagonal))
    if start is not None:
        begin_at(factors, start, structure)
    with Workers(checked_threads(n_threads)) as workers:
        refuse_unbounded(source)
        problem = Problem(source, STRUCTURES[structure], generator(rng), workers)
        return fitted(Descent(problem, METHODS[method], factors), method, structure, tol, maxiter)


def fitted(descent: Descent, method: str, structure: str, tol: float, maxiter: int) -> LowRankFit:
    """Sweeps until they stop helping."""
    began, source = time.perf_counter(), descent.problem.source
    norm = float(np.sqrt(source.squared_norm))
    descent.squares = left_over(source, descent.factors, descent.problem.workers)
    error = float(np.sqrt(descent.squares))
    rows: list[tuple[float, float, float]] = []
    converged, slow = error <= EXACT * norm, 0
    while not converged and len(rows) < maxiter:
        if slow < SLOW:
            descent.step()
        else:
            descent.look_afresh()  # before it counts as the end
        before, error = error, float(np.sqrt(descent.squares))
        rows.append((error / norm if norm else 0.0, 1 - error / before, time.perf_counter() - began))
        slow = slow + 1 if before - error < tol * before else 0
        converged = slow > SLOW or error <= EXACT * norm
    if not converged:
        if not rows:
            end = "no sweep was made; raise maxiter"
        elif slow:
            end = "the last ones lowered it by little, but none looked for new directions yet; raise maxiter"
        else:
            end = (
                f"the last one lowered the error by {rows[-1][1]:.1e} of it; raise maxiter or tol, or go on with start="
            )
        warn_caller(f"the fit did not converge in {count(maxiter, 'sweep')}: {end}", ConvergenceWarning)
    history = pd.DataFrame(rows, columns=["relative_error", "decrease", "seconds"])
    history.index = pd.RangeIndex(1, len(rows) + 1, name="sweep")
    matrix = MultilevelMatrix._of(descent.factors)
    return LowRankFit(matrix, norm, _error(descent), method, structure, converged, history)


def _error(descent: Descent) -> float:
    """The norm of what is left: of a matrix that is there element by element."""
    source = descent.problem.source
    if isinstance(source, Dense):
        return float(np.sqrt(source.left_over(descent.factors)))
    return float(np.sqrt(left_over(source, descent.factors, descent.problem.workers)))


def begin_at(factors: Factors, start: LowRankFit | MultilevelMatrix, structure: str) -> None:
    """Put a start's columns, as far as there is room for them, into empty factors."""
    matrix = start.matrix if isinstance(start, LowRankFit) else start
    if not isinstance(matrix, MultilevelMatrix):
        raise TypeError(f"start must be a LowRankFit or a MultilevelMatrix, not {type(start).__name__}")
    grid, other = factors.grid, matrix._factors.grid
    mine, theirs = ((side.hierarchy for side in (g.rows, g.columns)) for g in (grid, other))
    if any(a != b for a, b in zip(mine, theirs, strict=True)):
        raise ValueError("start: its hierarchies are not those of this fit")
    for level, (B, C) in enumerate(zip(matrix._factors.left, matrix._factors.right, strict=True)):
        bounds, name = grid.rows.offsets[level], grid.rows.hierarchy.levels[level]
        alike = {"general": True, "symmetric": grid.square and is_signed(B, C, bounds), "psd": np.array_equal(B, C)}
        if not alike[structure]:
            raise ValueError(f"start: its blocks of level {plain(name)} need not be {structure}, as structure asks")
        wanted = factors.left[level].shape[1]
        if wanted < B.shape[1]:
            B, C = STRUCTURES[structure].ordered(B, C, bounds, grid.columns.offsets[level])
        left, right = (np.pad(X[:, :wanted], ((0, 0), (0, max(wanted - X.shape[1], 0)))) for X in (B, C))
        factors.left[level], factors.right[level] = left, left if structure == "psd" else right
    diag = matrix._factors.diag
    if factors.diag is not None and diag is not None:
        if (diag < STRUCTURES[structure].least_diagonal).any():
            raise ValueError(f"start: its diagonal falls below zero, but structure is {structure!r}")
        factors.diag = diag


def checked_structure(structure: str | None, source: Source, covariance: bool, cols: Any) -> str:
    """What blocks have to be; the matrix must be symmetric for them to be so."""
    if structure is None:
        structure = "general" if cols is not None or not source.grid.square else "psd" if covariance else "symmetric"
    if structure not in STRUCTURES:
        raise ValueError(f"structure must be one of {listing(STRUCTURES)}, not {structure!r}")
    if structure != "general":
        if not source.grid.square:
            raise ValueError(f"structure: {structure!r} needs rows and columns on one hierarchy; leave cols out")
        if not covariance:
            refuse_asymmetric(source)
    return structure


def checked_stopping(tol: Any, maxiter: Any) -> tuple[float, int]:
    if isinstance(maxiter, bool) or not isinstance(maxiter, numbers.Integral) or maxiter < 0:
        raise ValueError(f"maxiter must be a whole number, 0 or more, not {maxiter!r}")
    return checked_tol(tol), int(maxiter)


def checked_tol(tol: Any, argument: str = "tol") -> float:
    if isinstance(tol, bool) or not isinstance(tol, numbers.Real) or not float(tol) >= 0:
        raise ValueError(f"{argument} must be a number, 0 or more, not {tol!r}")
    return float(tol)


def checked_threads(n_threads: Any) -> int | None:
    if n_threads is None:
        return None
    if isinstance(n_threads, bool) or not isinstance(n_threads, numbers.Integral) or n_threads < 1:
        raise ValueError(f"n_threads must be a whole number, 1 or more, or None, not {n_threads!r}")
    return int(n_threads)
