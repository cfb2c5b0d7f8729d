"""The covariance of a multilevel factor model as linear algebra, linear in the number of features."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlfm.arrays import floating_array
from mlfm.covariance.cholesky import ExpandedCholesky
from mlfm.covariance.conditional import Conditional
from mlfm.covariance.lowrank import MultilevelLowRank, given_ranks
from mlfm.covariance.operator import Axis, Floats
from mlfm.covariance.precision import MultilevelPrecision
from mlfm.covariance.refinement import Solver
from mlfm.covariance.root import MultilevelRoot
from mlfm.covariance.selection import select_once
from mlfm.covariance.terms import Terms
from mlfm.exceptions import ConditionWarning, warn_caller
from mlfm.hierarchy import Hierarchy
from mlfm.likelihood import LOG_2PI
from mlfm.linear import divide_by_paths, eliminate, scatter
from mlfm.parameters import loadings_array, uniqueness_array
from mlfm.ranks import Ranks
from mlfm.sweep import Elimination, Totals, Workers
from mlfm.wording import listing

EPS = float(np.finfo(float).eps)
POOR = 1e-10  # backward error from which a solution gets a warning
FEWEST_DIGITS = 1e-8  # relative error from which anything else does


class MultilevelCovariance(MultilevelLowRank):
    """Covariance of a multilevel factor model as linear algebra, linear in the number of features.

    Sigma = F_1 F_1' + .. + F_L F_L' + D, with F_l block diagonal over the groups of level l. Nothing of size n x n is
    ever formed (but by :meth:`to_dense`): products, solves, the log-determinant and the diagonals cost O(n r) to O(n
    r^2) for n features with r factors each. It is a symmetric positive definite
    :class:`~scipy.sparse.linalg.LinearOperator`, and all that can be done with a :class:`MultilevelLowRank` can be
    done with it. Objects are frozen.

    Parameters
    ----------
    hierarchy : Hierarchy
        The groups of the n features.
    loadings : DataFrame or array, n x r
        Compressed loadings in feature order: row j holds feature j's loadings on the factors of its own groups,
        level after level. A DataFrame has columns (level, factor) and is aligned by feature name.
    uniquenesses : Series or array, n
        The diagonal D; all positive.
    ranks : mapping or sequence, optional
        Factors of each level's groups; needed when ``loadings`` is an array.

    Raises
    ------
    ValueError, TypeError
        If shapes or labels do not match the hierarchy, a number is not finite, or a uniqueness is not positive.

    References
    ----------
    Parshakova, Hastie and Boyd, *Fitting Multilevel Factor Models* (arXiv 2409.12067), sections 3 and 4.

    Examples
    --------
    >>> import pandas as pd
    >>> from mlfm import Hierarchy, MultilevelCovariance
    >>> labels = pd.DataFrame({"sector": ["T", "E", "T"]}, index=["AMD", "BP", "SAP"])
    >>> sigma = MultilevelCovariance(
    ...     Hierarchy(labels), [[1.0, 0.5], [1.0, 1.0], [1.0, 2.0]], [1.0, 1.0, 1.0], ranks={"global": 1, "sector": 1}
    ... )
    >>> sigma.to_dense()
    array([[2.25, 1.  , 2.  ],
           [1.  , 3.  , 1.  ],
           [2.  , 1.  , 6.  ]])
    >>> round(sigma.logdet(), 6)
    3.188417
    >>> sigma["AMD", {"sector": "T"}]
    AMD    2.25
    SAP    2.00
    Name: AMD, dtype: float64
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        loadings: pd.DataFrame | ArrayLike,
        uniquenesses: pd.Series | ArrayLike,
        ranks: Ranks | None = None,
    ) -> None:
        by_level = given_ranks(hierarchy, loadings, ranks, "loadings")
        F = loadings_array(loadings, hierarchy, by_level)[hierarchy.permutation]
        D = uniqueness_array(uniquenesses, hierarchy)[hierarchy.permutation]
        self._hold_covariance(hierarchy, by_level, F, D)

    def _hold_covariance(
        self, hierarchy: Hierarchy, ranks: tuple[int, ...], F: Floats, D: Floats, axis: Axis | None = None
    ) -> None:
        with np.errstate(over="ignore", divide="ignore"):
            bad = ~((D > 0) & np.isfinite(D) & np.isfinite(1 / D))
        if bad.any():
            features = hierarchy.features[hierarchy.permutation[bad]]
            raise ValueError(
                f"out of the range of double precision, at {listing(features)}: the numbers, or "
                "what they are multiplied with, are too large or too small; use other units"
            )
        self._hold(hierarchy, Terms.of(hierarchy.offsets, ranks, F, F, 1.0, D), axis)

    @classmethod
    def _covariance_of(
        cls, hierarchy: Hierarchy, ranks: tuple[int, ...], F: Floats, D: Floats, axis: Axis | None = None
    ) -> MultilevelCovariance:
        """From arrays in group order."""
        made = cls.__new__(cls)
        made._hold_covariance(hierarchy, ranks, F, D, axis)
        return made

    def _with(self, ranks: tuple[int, ...], F: Floats, D: Floats) -> MultilevelCovariance:
        """Another covariance of the same features, from arrays in group order."""
        return self._covariance_of(self._hierarchy, ranks, F, D, self._rows)

    def _with_features(self, where: NDArray[np.intp], F: Floats, D: Floats) -> MultilevelCovariance:
        """A covariance of some of the features, by position in the user's order; so are the rows of F and D."""
        hierarchy = self._hierarchy.reindex(self._hierarchy.features[where])
        order = hierarchy.permutation
        return self._covariance_of(hierarchy, self._terms.ranks, F[order], D[order])

    @property
    def loadings(self) -> pd.DataFrame:
        """Compressed loadings, features x (level, factor)."""
        return self._factor_frame(self._terms.left)

    @property
    def uniquenesses(self) -> pd.Series:
        """The diagonal D."""
        return self._feature_series(self._terms.diag, "uniqueness")

    # The inverse

    def solve(self, b: Any, *, refine: int | None = None, return_residual: bool = False) -> Any:
        """Sigma^-1 b.

        One sweep over the tree, and where that loses digits iterative refinement: the residual b - Sigma x is solved
        for too, and added. It loses digits where uniquenesses are tiny against the loadings and b is nearly a
        combination of the factors' loadings.

        Parameters
        ----------
        b : array, Series or DataFrame
            A vector of length n or a matrix n x k. Series and DataFrames are aligned by feature name and come back
            as what they are.
        refine : int, optional
            Steps of refinement at most, fewer where they gain nothing; by default none where no digits were lost and up
            to 8 elsewhere; 0 for none at all.
        return_residual : bool
            Also return the relative residual ||b - Sigma x|| / ||b||.

        Returns
        -------
        x : array, Series or DataFrame
        residual : float, or a value a column of b as an array or a Series
            If asked for.

        Raises
        ------
        numpy.linalg.LinAlgError
            If Sigma is singular to rounding.

        Warns
        -----
        ConditionWarning
            If the backward error, ||b - Sigma x|| relative to ||Sigma|| ||x|| + ||b|| on the scale of correlations,
            is above 1e-10 even so. (With ``refine=0`` nothing is checked.)

        Notes
        -----
        A small backward error means that x solves a system very near to this one. The error of x itself can be larger,
        by up to the condition number of Sigma, and so can the relative residual.
        """
        if refine is not None and (isinstance(refine, bool) or not isinstance(refine, (int, np.integer)) or refine < 0):
            raise ValueError(f"refine: a number of steps from 0 on is needed, or None, not {refine!r}")
        B, hand_back = self._rows.take(b, "b")
        with Workers() as workers:
            X = self._solved(B, refine, workers)
            solution = hand_back(X, self._rows)
            if not return_residual:
                return solution
            residual = self._solver.residual(B, X, workers)
        sizes = np.abs(B).max(axis=0, initial=0.0)
        sizes = np.where(sizes > 0, sizes, 1.0)
        share = np.linalg.norm(residual / sizes, axis=0) / np.maximum(np.linalg.norm(B / sizes, axis=0), EPS)
        if np.ndim(b) == 1:
            return solution, float(share[0])
        return solution, pd.Series(share, index=b.columns) if isinstance(b, pd.DataFrame) else share

    def _solved(self, B: Floats, refine: int | None, workers: Workers) -> Floats:
        """Sigma^-1 B in group order."""
        X, worst = self._solver.solve(B, refine, workers)
        if worst > POOR:
            self._warn(f"the solution has a backward error of {worst:.1g}")
        return X

    @cached_property
    def _solver(self) -> Solver:
        return Solver(self._terms, *self._eliminated)

    @cached_property
    def _eliminated(self) -> tuple[Elimination, float]:
        return self._eliminate(self._terms.left)

    def _eliminate(self, F: Floats) -> tuple[Elimination, float]:
        """R and A with these loadings, and what the elimination may lose."""
        with Workers() as workers:
            try:
                return eliminate(self._terms.tree, F, self._terms.diag, workers)
            except FloatingPointError:
                raise np.linalg.LinAlgError(
                    "singular to working precision: uniquenesses are too small against the loadings, or numbers too "
                    f"large; the smallest uniquenesses are those of {listing(self._smallest())}"
                ) from None

    def _known_well(self) -> Elimination:
        """R and A for what is not refined, with a warning where they are poor."""
        known, inflation = self._eliminated
        self._warn_above_few_digits(inflation * EPS)
        return known

    def _warn_above_few_digits(self, error: float) -> None:
        if not error <= FEWEST_DIGITS:
            self._warn(f"results are accurate to about {min(error, 1.0):.1g}")

    def _warn(self, what: str) -> None:
        share = float((self._terms.diag / self._whole_diagonal).min())
        warn_caller(
            f"{what}: uniquenesses are tiny against the loadings, down to {share:.1g} of the variance, so that digits "
            f"are lost; the smallest are those of {listing(self._smallest())}",
            ConditionWarning,
        )

    def _smallest(self) -> pd.Index:
        smallest = np.argsort(self._terms.diag / self._whole_diagonal, kind="stable")[:3]
        return self._hierarchy.features[self._hierarchy.permutation[smallest]]

    def inv(self) -> MultilevelPrecision:
        """The inverse D^-1 - H_1 H_1' - .. - H_L H_L', as a multilevel low rank matrix; H is its ``factors``.

        Examples
        --------
        >>> import pandas as pd
        >>> from mlfm import Hierarchy, MultilevelCovariance
        >>> labels = pd.DataFrame({"sector": ["T", "E", "T"]}, index=["AMD", "BP", "SAP"])
        >>> sigma = MultilevelCovariance(Hierarchy(labels), [[1.0, 0.5], [1, 1], [1, 2]], [1.0, 1, 1], ranks=[1, 1])
        >>> sigma.inv().diagonal().round(4)
        array([0.701 , 0.3918, 0.2371])
        """
        known, precisions = self._known_well(), 1 / self._terms.diag
        with Workers() as workers:
            H = divide_by_paths(self._terms.tree, known, precisions, self._terms.left, workers)
        if (self._terms.diag * FEWEST_DIGITS < self._whole_diagonal * EPS).any():
            # D^-1 and H H' may cancel: what is left of a diagonal element is at least its variance's reciprocal.
            left = 1 - self._terms.diag * np.einsum("jk,jk->j", H, H)
            self._warn_above_few_digits(EPS / max(float(left.min()), EPS))
        return MultilevelPrecision(self, H, precisions)

    def logdet(self) -> float:
        """Natural logarithm of the determinant."""
        return float(np.log(self._terms.diag).sum() + self._known_well().logdet)

    def slogdet(self) -> tuple[float, float]:
        """Sign (1) and natural logarithm of the determinant, as :func:`numpy.linalg.slogdet`."""
        return 1.0, self.logdet()

    def cholesky(self) -> ExpandedCholesky:
        """The Cholesky factorisation of the expanded matrix [[D, F], [F', -I]]."""
        return ExpandedCholesky(self, self._known_well())

    # Roots and samples

    def sqrt(self) -> MultilevelRoot:
        """A square root S, Sigma = S S', as an operator with ``@``, ``.T`` and ``solve``."""
        terms = self._terms
        return MultilevelRoot(self._rows, terms.tree, self._known_well(), terms.left, terms.diag)

    def sqrt_matvec(self, x: Any) -> Any:
        """S x with Sigma = S S'; :meth:`sqrt` gives S itself, for more than one product.

        Parameters
        ----------
        x : array, Series or DataFrame
            A vector of length n or a matrix n x k; aligned by feature name.
        """
        return self.sqrt() @ x

    def sample(self, size: int, rng: Any = None) -> pd.DataFrame:
        """Independent draws from N(0, Sigma).

        Parameters
        ----------
        size : int
            Number of draws.
        rng : int, Generator or None
            Whatever :func:`numpy.random.default_rng` takes; the same seed gives the same draws.

        Returns
        -------
        DataFrame, size x n
            Draws in rows, features in columns.

        Examples
        --------
        >>> import pandas as pd
        >>> from mlfm import Hierarchy, MultilevelCovariance
        >>> labels = pd.DataFrame({"sector": ["T", "E", "T"]}, index=["AMD", "BP", "SAP"])
        >>> sigma = MultilevelCovariance(Hierarchy(labels), [[1.0, 0.5], [1, 1], [1, 2]], [1.0, 1, 1], ranks=[1, 1])
        >>> sigma.sample(100_000, rng=1).cov().round(1)
             AMD   BP  SAP
        AMD  2.2  1.0  2.0
        BP   1.0  3.0  1.0
        SAP  2.0  1.0  6.0
        """
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 0:
            raise ValueError(f"size: a number of draws from 0 on is needed, not {size!r}")
        terms, generator = self._terms, np.random.default_rng(rng)
        totals = Totals(terms.tree, int(size))
        for b in totals.b:
            generator.standard_normal(out=b)
        noise = generator.standard_normal((len(self._rows), int(size)))
        with Workers() as workers:
            draws = scatter(totals, terms.left, noise, np.sqrt(terms.diag), 1.0, np.ones(len(noise)), workers)
        return pd.DataFrame(self._rows.outwards(draws).T, columns=self._hierarchy.features)

    # Other covariances

    def scale(self, by: pd.Series | ArrayLike, right: pd.Series | ArrayLike | None = None) -> MultilevelLowRank:
        """diag(by) Sigma diag(by), the covariance of features that are multiplied by numbers.

        Parameters
        ----------
        by : Series, array or number
            Multipliers, none of them 0; a Series is aligned by feature name.
        right : Series, array or number, optional
            Other multipliers for the columns; the result is then no covariance, but a :class:`MultilevelLowRank`.
        """
        if right is not None:
            return super().scale(by, right)
        d = self._vector(by, "by")
        if (d == 0).any():
            raise ValueError("by: a feature multiplied by 0 has no variance; use marginal() to leave features out")
        return self._in_units(d)

    def correlation(self) -> MultilevelCovariance:
        """The correlation matrix, as a covariance of features with variance 1."""
        return self._in_units(1 / np.sqrt(self._whole_diagonal))

    def _in_units(self, d: Floats) -> MultilevelCovariance:
        """diag(d) Sigma diag(d)."""
        with np.errstate(over="ignore", under="ignore"):
            largest = np.abs(d) * np.sqrt(self._whole_diagonal)  # no loading exceeds it
            D = np.where(np.isfinite(largest), d**2 * self._terms.diag, np.inf)
            return self._with(self._terms.ranks, d[:, None] * self._terms.left, D)

    def marginal(self, features: Any) -> MultilevelCovariance:
        """The covariance of some of the features.

        Parameters
        ----------
        features
            As in :meth:`submatrix`; none may be named twice. They keep the order in which they are named.
        """
        where = select_once(self._hierarchy, features, "features")
        if not len(where):
            raise ValueError("features: none are left")
        rows = self._rows.place[where]
        return self._with_features(where, self._terms.left[rows], self._terms.diag[rows])

    def conditional(self, observed: Any) -> Conditional:
        """The distribution of the rest of the features given some of them.

        Parameters
        ----------
        observed
            The features that are given, as in :meth:`submatrix`.

        Returns
        -------
        Conditional
            With the mean map and the covariance of the rest.
        """
        where = select_once(self._hierarchy, observed, "observed")
        if not len(where):
            raise ValueError("observed: none are named")
        rest = np.setdiff1d(np.arange(len(self._rows)), where)
        if not len(rest):
            raise ValueError("observed: these are all features; none are left")
        return Conditional(self, where, rest)

    def __add__(self, x: Any) -> Any:
        """With another covariance a covariance: that of the sum of independent variables."""
        total = super().__add__(x)
        if not isinstance(x, MultilevelCovariance):
            return total
        terms = total._terms
        return self._covariance_of(total._hierarchy, terms.ranks, terms.left, terms.diag, total._rows)

    __radd__ = __add__

    def _scaled_by(self, factor: float) -> MultilevelLowRank:
        if factor <= 0:
            return super()._scaled_by(factor)
        return self._in_units(np.full(len(self._rows), np.sqrt(factor)))

    # Likelihoods

    def loglike(self, Y: pd.DataFrame | ArrayLike) -> float:
        """Total log-likelihood, in nats, of the rows of Y as independent draws from N(0, Sigma).

        Parameters
        ----------
        Y : DataFrame or array, nobs x n
            Observations in rows, features in columns, mean removed. A DataFrame is aligned by feature name.
        """
        rows = Y if isinstance(Y, pd.DataFrame) else floating_array(Y, "Y")
        if rows.ndim != 2:
            raise ValueError(f"Y: a matrix with a row an observation is needed, not {rows.ndim} dimensions")
        if rows.shape[1] != len(self._rows):
            raise ValueError(f"Y: shape (nobs, {len(self._rows)}) is needed, not {rows.shape}")
        data, _ = self._rows.take(rows.T, "Y")
        with Workers() as workers:
            X = self._solved(data, None, workers)
        return -0.5 * (data.shape[1] * (len(data) * LOG_2PI + self.logdet()) + float(np.vdot(data, X)))

    def expected_loglike(self, other: MultilevelCovariance) -> float:
        """Expected log-likelihood of one observation, in nats, where it is drawn from N(0, other).

        It is largest where the two are equal, and minus the entropy of N(0, Sigma) there.
        """
        return -0.5 * (len(self._rows) * LOG_2PI + self.logdet() + self._trace_of_solved(other))

    def kl_divergence(self, other: MultilevelCovariance) -> float:
        """Kullback-Leibler divergence from N(0, Sigma) to N(0, other) in nats: E log(p_Sigma / p_other) under Sigma."""
        _covariance(other)
        found = 0.5 * (other._trace_of_solved(self) - len(self._rows) + other.logdet() - self.logdet())
        return max(found, 0.0)  # it is not negative; rounding may be

    def _trace_of_solved(self, other: MultilevelCovariance) -> float:
        """tr(Sigma^-1 other)."""
        trace = self.inv().inner(_covariance(other))
        # The diagonal of D^-1 other is what the rest is taken off.
        variances = pd.Series(other.diagonal(), index=other.hierarchy.features)
        whole = float((variances / self.uniquenesses).sum())  # matched by name
        self._warn_above_few_digits(EPS * whole / len(self._rows))
        return trace


def _covariance(other: Any) -> MultilevelCovariance:
    if not isinstance(other, MultilevelCovariance):
        raise TypeError(f"other must be a MultilevelCovariance, not {type(other).__name__}")
    return other
