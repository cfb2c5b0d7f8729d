"""The covariance of a multilevel factor model as linear algebra, linear in the number of features."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlfm.arrays import floating_array
from mlfm.covariance import terms as algebra
from mlfm.covariance.cholesky import ExpandedCholesky
from mlfm.covariance.conditional import Conditional
from mlfm.covariance.lowrank import MultilevelLowRank, given_ranks
from mlfm.covariance.operator import Floats
from mlfm.covariance.precision import MultilevelPrecision
from mlfm.covariance.root import MultilevelRoot
from mlfm.covariance.selection import select_once
from mlfm.covariance.terms import Terms, column_slices
from mlfm.exceptions import ConditionWarning
from mlfm.hierarchy import Hierarchy
from mlfm.likelihood import LOG_2PI
from mlfm.linear import column_products, divide_by_paths, eliminate, scatter, solve
from mlfm.parameters import loadings_array, uniqueness_array
from mlfm.ranks import Ranks
from mlfm.sweep import Elimination, Sweep, Totals, Workers
from mlfm.wording import listing

EPS = float(np.finfo(float).eps)

#: A solution is refined where the elimination may lose this factor, or b'D^-1 b is so many times b'Sigma^-1 b.
REFINE_FROM = 100.0
STEPS = 8  # of refinement at most, where no number is asked for; one or two nearly always do
ACCURATE = 4 * EPS  # backward error at which refinement ends
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
        self._hold(hierarchy, Terms.of(hierarchy.offsets, by_level, F, F, 1.0, D))

    def _with(self, ranks: tuple[int, ...], F: Floats, D: Floats) -> MultilevelCovariance:
        """Another covariance of the same features, from arrays in group order."""
        made = MultilevelCovariance.__new__(MultilevelCovariance)
        made._hold(self._hierarchy, Terms.of(self._hierarchy.offsets, ranks, F, F, 1.0, D), self._rows)
        return made

    def _with_features(self, where: NDArray[np.intp], F: Floats, D: Floats) -> MultilevelCovariance:
        """A covariance of some of the features, by position in the user's order; so are the rows of F and D."""
        hierarchy = self._hierarchy.reindex(self._hierarchy.features[where])
        F, D = F[hierarchy.permutation], D[hierarchy.permutation]
        made = MultilevelCovariance.__new__(MultilevelCovariance)
        made._hold(hierarchy, Terms.of(hierarchy.offsets, self._terms.ranks, F, F, 1.0, D))
        return made

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
        residual : float, or array with a value a column of b
            If asked for.

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
            X, residual = self._solved(B, refine, return_residual, workers)
        solution = hand_back(X, self._rows)
        if not return_residual or residual is None:
            return solution
        sizes = np.linalg.norm(B, axis=0)
        share = np.linalg.norm(residual, axis=0) / np.where(sizes > 0, sizes, 1)
        return solution, float(share[0]) if np.ndim(b) == 1 else share

    def _solved(self, B: Floats, refine: int | None, checked: bool, workers: Workers) -> tuple[Floats, Floats | None]:
        """Sigma^-1 B in group order, and the residual where it was looked at."""
        F, D = self._terms.left, self._terms.diag
        sweep = Sweep(self._terms.tree, B.shape[1], elimination=self._known)
        X = solve(sweep, F, D, B, workers)
        if refine is None:
            steps = STEPS if self._digits_at_risk(B, X, sweep, workers) else 0
        else:
            steps = refine
        if not (steps or checked):
            return X, None
        residual = B - algebra.times(self._terms, X, workers)
        for _ in range(steps):
            if (self._backward_errors(B, X, residual) <= ACCURATE).all():
                break
            better = X + solve(sweep, F, D, residual, workers)
            of_better = B - algebra.times(self._terms, better, workers)
            gained = self._sizes(of_better) < self._sizes(residual)
            if not gained.any():
                break
            X, residual = np.where(gained, better, X), np.where(gained, of_better, residual)
        if steps:
            worst = float(self._backward_errors(B, X, residual).max(initial=0.0))
            if not worst <= POOR:
                self._warn(f"the solution has a backward error of {worst:.1g}", np.sqrt(self._whole_diagonal()))
        return X, residual

    def _digits_at_risk(self, B: Floats, X: Floats, sweep: Sweep, workers: Workers) -> bool:
        """Whether the elimination, or the difference of b and what the factors explain of it, lost digits."""
        if self._inflation > REFINE_FROM:
            return True
        left = column_products(sweep, B, X, workers)  # b'Sigma^-1 b = b'D^-1 b less what the factors explain
        return bool((left * REFINE_FROM < left + sweep.explained_by_column()).any())

    def _sizes(self, residual: Floats) -> Floats:
        """Norms on the scale of correlations, column by column."""
        return np.sqrt(np.einsum("jn,jn,j->n", residual, residual, 1 / self._whole_diagonal()))

    def _backward_errors(self, B: Floats, X: Floats, residual: Floats) -> Floats:
        """||b - Sigma x|| / (||Sigma|| ||x|| + ||b||) on the scale of correlations, column by column."""
        solution = np.sqrt(np.einsum("jn,jn,j->n", X, X, self._whole_diagonal()))
        scale = self._correlation_norm * solution + self._sizes(B)
        return self._sizes(residual) / np.where(scale > 0, scale, 1)

    @cached_property
    def _correlation_norm(self) -> float:
        """A lower bound on the largest eigenvalue of the correlation matrix: the mean one of a group's part."""
        share = self._terms.left**2 / self._whole_diagonal()[:, None]
        mean = [
            np.add.reduceat(share[:, own].sum(axis=1), bounds[:-1]).max() / rank
            for own, bounds, rank in zip(
                column_slices(self._terms.ranks), self._hierarchy.offsets, self._terms.ranks, strict=True
            )
            if rank
        ]
        return max(1.0, *mean)

    @cached_property
    def _eliminated(self) -> tuple[Elimination, float]:
        with Workers() as workers:
            try:
                return eliminate(self._terms.tree, self._terms.left, self._terms.diag, workers)
            except FloatingPointError:
                raise np.linalg.LinAlgError(
                    "singular to working precision: uniquenesses are too small against the loadings, or numbers too "
                    f"large; the smallest uniquenesses are those of {listing(self._smallest())}"
                ) from None

    @property
    def _known(self) -> Elimination:
        return self._eliminated[0]

    @property
    def _inflation(self) -> float:
        return self._eliminated[1]

    def _known_well(self) -> Elimination:
        """R and A for what is not refined, with a warning where they are poor."""
        if self._inflation * EPS > FEWEST_DIGITS:
            self._warn(f"results are accurate to about {self._inflation * EPS:.1g}", np.sqrt(self._whole_diagonal()))
        return self._known

    def _smallest(self) -> pd.Index:
        smallest = np.argsort(self._terms.diag / self._whole_diagonal(), kind="stable")[:3]
        order = np.arange(len(self._rows)) if self._rows.order is None else self._rows.order
        return self._hierarchy.features[order[smallest]]

    def _warn(self, what: str, scale: Floats) -> None:
        share = float((self._terms.diag / scale**2).min())
        warnings.warn(
            f"{what}: the covariance is nearly singular, with uniquenesses down to {share:.1g} of the variance; the "
            f"smallest are those of {listing(self._smallest())}",
            ConditionWarning,
            stacklevel=4,
        )

    def inv(self) -> MultilevelPrecision:
        """The inverse D^-1 - H_1 H_1' - .. - H_L H_L', as a multilevel low rank matrix.

        Examples
        --------
        >>> import pandas as pd
        >>> from mlfm import Hierarchy, MultilevelCovariance
        >>> labels = pd.DataFrame({"sector": ["T", "E", "T"]}, index=["AMD", "BP", "SAP"])
        >>> sigma = MultilevelCovariance(Hierarchy(labels), [[1.0, 0.5], [1, 1], [1, 2]], [1.0, 1, 1], ranks=[1, 1])
        >>> sigma.inv().diagonal().round(4)
        array([0.701 , 0.3918, 0.2371])
        """
        precisions = 1 / self._terms.diag
        known = self._known_well()
        with Workers() as workers:
            H = divide_by_paths(self._terms.tree, known, precisions, self._terms.left, workers)
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
        return self._with(self._terms.ranks, d[:, None] * self._terms.left, d**2 * self._terms.diag)

    def correlation(self) -> MultilevelCovariance:
        """The correlation matrix, as a covariance of features with variance 1."""
        d = 1 / np.sqrt(self._whole_diagonal())
        return self._with(self._terms.ranks, d[:, None] * self._terms.left, d**2 * self._terms.diag)

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
        rest = np.setdiff1d(np.arange(len(self._rows)), where)
        if not len(rest):
            raise ValueError("observed: these are all features; none are left")
        return Conditional(self, where, rest)

    def __add__(self, x: Any) -> Any:
        """With another covariance a covariance: that of the sum of independent variables."""
        total = super().__add__(x)
        if isinstance(x, MultilevelCovariance):
            made = MultilevelCovariance.__new__(MultilevelCovariance)
            made._hold(total._hierarchy, total._terms, total._rows)
            return made
        return total

    def _scaled_by(self, factor: float) -> MultilevelLowRank:
        if factor <= 0:
            return super()._scaled_by(factor)
        return self._with(self._terms.ranks, np.sqrt(factor) * self._terms.left, factor * self._terms.diag)

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
        data, _ = self._rows.take(rows.T, "Y")
        with Workers() as workers:
            X, _ = self._solved(data, None, False, workers)
        return -0.5 * (data.shape[1] * (len(data) * LOG_2PI + self.logdet()) + float(np.vdot(data, X)))

    def expected_loglike(self, other: MultilevelCovariance) -> float:
        """Expected log-likelihood of one observation, in nats, where it is drawn from N(0, other).

        It is largest where the two are equal, and minus the entropy of N(0, Sigma) there.
        """
        return -0.5 * (len(self._rows) * LOG_2PI + self.logdet() + self._trace_of_solved(other))

    def kl_divergence(self, other: MultilevelCovariance) -> float:
        """Kullback-Leibler divergence from N(0, Sigma) to N(0, other) in nats: E log(p_Sigma / p_other) under Sigma."""
        _covariance(other)
        return 0.5 * (other._trace_of_solved(self) - len(self._rows) + other.logdet() - self.logdet())

    def _trace_of_solved(self, other: MultilevelCovariance) -> float:
        """tr(Sigma^-1 other)."""
        return self.inv().inner(_covariance(other))


def _covariance(other: Any) -> MultilevelCovariance:
    if not isinstance(other, MultilevelCovariance):
        raise TypeError(f"other must be a MultilevelCovariance, not {type(other).__name__}")
    return other
