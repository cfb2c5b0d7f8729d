"""Multilevel low rank matrices: sums of block-diagonal low-rank terms on one hierarchy, and a diagonal."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlfm.alignment import positions
from mlfm.arrays import real_array
from mlfm.covariance import terms as algebra
from mlfm.covariance.compression import rebuilt, spectra, without_rounding
from mlfm.covariance.operator import Axis, FrozenOperator, number
from mlfm.covariance.selection import select
from mlfm.covariance.terms import Terms
from mlfm.hierarchy import Hierarchy
from mlfm.parameters import finite_vector, loadings_array
from mlfm.ranks import Ranks, factor_columns, ranks_by_level, ranks_from_columns
from mlfm.sweep import Workers
from mlfm.wording import listing

Floats = NDArray[np.float64]

DENSE = 10_000  # features up to which a dense matrix is made without being told: 800 MB


class MultilevelLowRank(FrozenOperator):
    """A multilevel low rank (MLR) matrix: M = B_1 C_1' + .. + B_L C_L' + diag, every B_l and C_l block diagonal.

    The blocks are the groups of one hierarchy. Products, sums, traces and norms cost O(n r) to O(n r^2) for n features
    with r columns on each path, and give MLR matrices again where the result is one. It is a SciPy
    :class:`~scipy.sparse.linalg.LinearOperator`, so SciPy's iterative solvers and eigensolvers take it. Objects are
    frozen: nothing can be assigned, and arrays handed in are copied.

    Parameters
    ----------
    hierarchy : Hierarchy
        The groups of the n features.
    left : DataFrame or array, n x r
        The compressed B in feature order: row j holds the blocks' rows of feature j, for its own groups, level after
        level. A DataFrame has columns (level, column number) and is aligned by feature name.
    right : DataFrame or array, n x r, optional
        The compressed C; by default the matrix is symmetric, C = B.
    diag : Series, array or number, optional
        The diagonal term; by default 0.
    ranks : mapping or sequence, optional
        Columns of each level's blocks; needed when ``left`` is an array. A rank may exceed the size of a group.

    Raises
    ------
    ValueError, TypeError
        If shapes or labels do not match the hierarchy, or a number is not finite.

    Notes
    -----
    Features are always meant by name, and in arrays by position in ``hierarchy.features``. Sums and products need both
    matrices on one hierarchy, or one on a hierarchy that is the other's with levels left out
    (:meth:`Hierarchy.coarsen`); features may stand in another order.

    References
    ----------
    Parshakova, Hastie, Darve and Boyd, *Factor Fitting, Rank Allocation, and Partitioning in Multilevel Low Rank
    Matrices* (arXiv 2310.19214), sections 2 and 3, and the appendix on products.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from mlfm import Hierarchy, MultilevelLowRank
    >>> labels = pd.DataFrame({"sector": ["T", "E", "T"]}, index=["AMD", "BP", "SAP"])
    >>> M = MultilevelLowRank(Hierarchy(labels), [[1.0, 0.5], [1, 1], [1, 2]], diag=1.0, ranks=[1, 1])
    >>> M.to_frame()
          AMD   BP  SAP
    AMD  2.25  1.0  2.0
    BP   1.00  3.0  1.0
    SAP  2.00  1.0  6.0
    >>> M @ np.ones(3)
    array([5.25, 5.  , 9.  ])
    >>> square = M @ M
    >>> square
    <MultilevelLowRank of 3 features; ranks: global 2, sector 2>
    >>> square["AMD", "SAP"]
    17.5
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        left: pd.DataFrame | ArrayLike,
        right: pd.DataFrame | ArrayLike | None = None,
        diag: pd.Series | ArrayLike | float = 0.0,
        *,
        ranks: Ranks | None = None,
    ) -> None:
        by_level = given_ranks(hierarchy, left, ranks, "left")
        B = loadings_array(left, hierarchy, by_level, "left")
        C = B if right is None else loadings_array(right, hierarchy, by_level, "right")
        d = diag if isinstance(diag, pd.Series) else real_array(diag, "diag")
        if np.ndim(d) == 0:
            d = np.full(hierarchy.n_features, d)
        d = finite_vector(d, hierarchy, "diag")
        order = hierarchy.permutation
        B_ordered = B[order]
        C_ordered = B_ordered if C is B else C[order]
        self._hold(hierarchy, Terms.of(hierarchy.offsets, by_level, B_ordered, C_ordered, 1.0, d[order]))

    def _hold(self, hierarchy: Hierarchy, terms: Terms, axis: Axis | None = None) -> None:
        axis = Axis.of(hierarchy) if axis is None else axis
        super().__init__(axis, axis)
        self._hierarchy, self._terms = hierarchy, terms
        self._freeze()

    @classmethod
    def _of(cls, like: MultilevelLowRank, terms: Terms) -> MultilevelLowRank:
        """From terms in group order, on the hierarchy of another one."""
        made = cls.__new__(cls)
        cls._hold(made, like._hierarchy, terms, like._rows)
        return made

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._terms.seal()

    @property
    def hierarchy(self) -> Hierarchy:
        """The groups of the features."""
        return self._hierarchy

    @property
    def ranks(self) -> pd.Series:
        """Columns of the blocks of each level."""
        return pd.Series(self._terms.ranks, index=pd.Index(self._hierarchy.levels, name="level"), name="rank")

    @property
    def left(self) -> pd.DataFrame:
        """The compressed B, features x (level, column)."""
        return self._factor_frame(self._terms.weighted_left)

    @property
    def right(self) -> pd.DataFrame:
        """The compressed C, features x (level, column)."""
        return self._factor_frame(self._terms.right)

    @property
    def diag(self) -> pd.Series:
        """The diagonal term; the whole matrix' diagonal is :meth:`diagonal`."""
        return self._feature_series(self._terms.diag, "diag")

    # Products and sums

    def _times(self, X: Floats) -> Floats:
        with Workers() as workers:
            return algebra.times(self._terms, X, workers)

    def _transposed_times(self, X: Floats) -> Floats:
        with Workers() as workers:
            return algebra.times(self._terms.transposed, X, workers)

    def dot(self, x: Any) -> Any:
        """The product with a vector, a matrix, another MLR matrix (then an MLR matrix), or a number.

        Parameters
        ----------
        x : array, Series, DataFrame, MultilevelLowRank, LinearOperator or number
            A vector of length n or a matrix n x k. Series and DataFrames are aligned by feature name and come back in
            their own order. With another MLR matrix the product has the ranks of both added; :meth:`compress` it.
        """
        if isinstance(x, MultilevelLowRank):
            home, first, second = _on_one_hierarchy(self, x)
            with Workers() as workers:
                return MultilevelLowRank._of(home, algebra.product(first, second, home._hierarchy.offsets, workers))
        return self._scaled_by(number(x)) if np.ndim(x) == 0 else super().dot(x)

    def __pow__(self, p: int) -> Any:
        """The product with itself, p times in all."""
        if isinstance(p, bool) or not isinstance(p, (int, np.integer)) or p < 1:
            raise ValueError(f"a power must be a whole number from 1 on, not {p!r}")
        return self if p == 1 else self @ self ** (p - 1)

    def _scaled_by(self, factor: float) -> MultilevelLowRank:
        terms = self._terms
        diag = factor * terms.diag
        diag.setflags(write=False)
        return MultilevelLowRank._of(self, terms._replace(weight=factor * terms.weight, diag=diag))

    def __add__(self, x: Any) -> Any:
        if not isinstance(x, MultilevelLowRank):
            return super().__add__(x)
        home, first, second = _on_one_hierarchy(self, x)
        with Workers() as workers:
            return MultilevelLowRank._of(home, algebra.added(first, second, home._hierarchy.offsets, workers))

    __radd__ = __add__

    def transpose(self) -> MultilevelLowRank:
        return self if self._terms.symmetric else MultilevelLowRank._of(self, self._terms.transposed)

    def scale(self, by: pd.Series | ArrayLike, right: pd.Series | ArrayLike | None = None) -> MultilevelLowRank:
        """diag(by) M diag(right): every row and every column multiplied by a number of its own.

        Parameters
        ----------
        by : Series, array or number
            The rows' multipliers; a Series is aligned by feature name.
        right : Series, array or number, optional
            The columns' multipliers, by default the rows'.
        """
        d = self._vector(by, "by")
        e = d if right is None else self._vector(right, "right")
        terms = self._terms
        if right is None and terms.symmetric:
            B = C = d[:, None] * terms.left
        else:
            B, C = d[:, None] * terms.left, e[:, None] * terms.right
        made = Terms.of(self._hierarchy.offsets, terms.ranks, B, C, terms.weight, d * terms.diag * e)
        return MultilevelLowRank._of(self, made)

    def compress(self, rtol: float = 1e-12, atol: float = 0.0) -> MultilevelLowRank:
        """The matrix with as few columns as a tolerance allows: every group's block by its truncated SVD.

        The level's rank is that of the group that needs most. What is at the level of rounding is always left out.

        Parameters
        ----------
        rtol, atol : float
            The Frobenius norm of what is left out is at most max(atol, rtol times that of the matrix).

        Examples
        --------
        >>> import pandas as pd
        >>> from mlfm import Hierarchy, MultilevelLowRank
        >>> labels = pd.DataFrame({"sector": ["T", "E", "T"]}, index=["AMD", "BP", "SAP"])
        >>> M = MultilevelLowRank(Hierarchy(labels), [[1.0, 0.5], [1, 1], [1, 2]], diag=1.0, ranks=[1, 1])
        >>> (M + M - M).compress().ranks.tolist()
        [1, 1]
        """
        rtol, atol = number(rtol), number(atol)
        if rtol < 0 or atol < 0:
            raise ValueError(f"rtol, atol: numbers from 0 on are needed, not {rtol} and {atol}")
        offsets = self._hierarchy.offsets
        terms, size = algebra.of_size_one(self._terms)
        blocks = spectra(terms, offsets)
        with Workers() as workers:
            norm = algebra.norm(without_rounding(terms, blocks, offsets), workers)
        allowed = max(atol / size, rtol * norm) / max(len(blocks), 1)
        small = rebuilt(terms, blocks, [block.rank(allowed) for block in blocks], offsets)
        return MultilevelLowRank._of(self, small)._scaled_by(size)

    # Numbers

    def trace(self) -> float:
        """The sum of the diagonal."""
        return float(self._whole_diagonal.sum())

    def diagonal(self) -> Floats:
        """The diagonal of the whole matrix, in feature order."""
        return self._rows.outwards(self._whole_diagonal).copy()

    @cached_property
    def _whole_diagonal(self) -> Floats:
        return algebra.diagonal(self._terms)

    def inner(self, other: MultilevelLowRank) -> float:
        """The Frobenius inner product with another MLR matrix: the sum of products of their elements."""
        if not isinstance(other, MultilevelLowRank):
            raise TypeError(f"other must be a MultilevelLowRank, not {type(other).__name__}")
        _, first, second = _on_one_hierarchy(self, other)
        with Workers() as workers:
            return algebra.inner(first, second, workers)

    def trace_of_product(self, other: MultilevelLowRank) -> float:
        """tr(M other), without forming the product."""
        return self.T.inner(other)

    def norm(self) -> float:
        """The Frobenius norm.

        Terms that cancel inside a level are put together first, so that the norm of a small difference of large
        matrices is as accurate as the difference. What cancels between levels, or between the levels and the diagonal,
        leaves an error of about 1e-8 of its size.
        """
        terms, size = algebra.of_size_one(self._terms)
        if not terms.symmetric:
            offsets = self._hierarchy.offsets
            terms = without_rounding(terms, spectra(terms, offsets), offsets)
        with Workers() as workers:
            return size * algebra.norm(terms, workers)

    def quad_form(self, x: Any) -> Any:
        """x' M x.

        Parameters
        ----------
        x : array, Series or DataFrame
            A vector of length n, or a matrix n x k for the k values of its columns; aligned by feature name.

        Returns
        -------
        float, or array or Series of the k values
        """
        array, _ = self._columns.take(x, "x")
        with Workers() as workers:
            values = algebra.quadratic_forms(self._terms, array, workers)
        if np.ndim(x) == 1:
            return float(values[0])
        return pd.Series(values, index=x.columns) if isinstance(x, pd.DataFrame) else values

    # Parts, and the whole

    def submatrix(self, rows: Any, columns: Any = None) -> pd.DataFrame:
        """Some rows and columns, dense, without anything larger.

        Parameters
        ----------
        rows, columns
            Features, by name: one name; a list, Index or array of names; a mask; a slice of names; or a group,
            ``{level: group}``, with the group's name as in :meth:`Hierarchy.paths`. Columns are by default the rows.

        Returns
        -------
        DataFrame

        Raises
        ------
        ValueError
            If a name is unknown.

        Examples
        --------
        >>> import pandas as pd
        >>> from mlfm import Hierarchy, MultilevelLowRank
        >>> labels = pd.DataFrame({"sector": ["T", "E", "T"]}, index=["AMD", "BP", "SAP"])
        >>> M = MultilevelLowRank(Hierarchy(labels), [[1.0, 0.5], [1, 1], [1, 2]], diag=1.0, ranks=[1, 1])
        >>> M.submatrix(["BP", "AMD"], {"sector": "T"})
              AMD  SAP
        BP   1.00  1.0
        AMD  2.25  2.0
        """
        i, _ = select(self._hierarchy, rows, "rows")
        j = i if columns is None else select(self._hierarchy, columns, "columns").where
        features = self._hierarchy.features
        return pd.DataFrame(self._part(i, j), index=features[i], columns=features[j])

    def __getitem__(self, key: tuple[Any, Any]) -> Any:
        """``M[rows, columns]``: a DataFrame; a Series where one of them is one name, a number where both are."""
        if not isinstance(key, tuple) or len(key) != 2:
            raise TypeError("two selections are needed, M[rows, columns]")
        (i, one_row), (j, one_column) = (
            select(self._hierarchy, part, name) for part, name in zip(key, ("rows", "columns"), strict=True)
        )
        block, features = self._part(i, j), self._hierarchy.features
        if one_row and one_column:
            return float(block[0, 0])
        if one_row:
            return pd.Series(block[0], index=features[j], name=features[i[0]])
        if one_column:
            return pd.Series(block[:, 0], index=features[i], name=features[j[0]])
        return pd.DataFrame(block, index=features[i], columns=features[j])

    def _block(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> Floats:
        place = self._rows.place
        return algebra.block(self._terms, place[i], place[j])

    def _part(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> Floats:
        if len(i) * len(j) > DENSE**2:
            raise ValueError(
                f"rows, columns: {len(i)} x {len(j)} numbers would take {8e-9 * len(i) * len(j):.3g} GB; select fewer, "
                "or make the whole with to_dense(max_features=None)"
            )
        return self._block(i, j)

    def to_dense(self, *, max_features: int | None = DENSE) -> Floats:
        """The matrix as an n x n array, in feature order.

        Parameters
        ----------
        max_features : int or None
            Refuse above this number of features; None never refuses.
        """
        n = len(self._rows)
        if max_features is not None and n > max_features:
            raise ValueError(
                f"max_features: {n} features make a dense matrix of {8e-9 * n * n:.3g} GB; submatrix(rows, columns) "
                "gives parts of it, max_features=None the whole"
            )
        return self._block(np.arange(n), np.arange(n))

    def to_frame(self, *, max_features: int | None = DENSE) -> pd.DataFrame:
        """The matrix as an n x n DataFrame; see :meth:`to_dense`."""
        features = self._hierarchy.features
        return pd.DataFrame(self.to_dense(max_features=max_features), index=features, columns=features)

    def __repr__(self) -> str:
        ranks = ", ".join(
            f"{level} {rank}" for level, rank in zip(self._hierarchy.levels, self._terms.ranks, strict=True)
        )
        return f"<{type(self).__name__} of {len(self._rows)} features; ranks: {ranks}>"

    def _vector(self, values: Any, name: str) -> Floats:
        """A number for each feature, in group order."""
        array = values if isinstance(values, pd.Series) else real_array(values, name)
        if np.ndim(array) == 0:
            array = np.full(len(self._rows), array)
        return self._rows.inwards(finite_vector(array, self._hierarchy, name))

    def _factor_frame(self, values: Floats) -> pd.DataFrame:
        return pd.DataFrame(
            self._rows.outwards(values).copy(),
            index=self._hierarchy.features,
            columns=factor_columns(self._hierarchy, self._terms.ranks),
        )

    def _feature_series(self, values: Floats, name: str) -> pd.Series:
        return pd.Series(self._rows.outwards(values).copy(), index=self._hierarchy.features, name=name)


def given_ranks(hierarchy: Hierarchy, factors: Any, ranks: Ranks | None, name: str) -> tuple[int, ...]:
    """Ranks by level, from themselves or from the columns of labelled factors."""
    if not isinstance(hierarchy, Hierarchy):
        raise TypeError(f"hierarchy must be a Hierarchy, not {type(hierarchy).__name__}")
    if ranks is None:
        if not isinstance(factors, pd.DataFrame):
            raise TypeError(
                f"ranks: needed when {name} is an array, to tell which column belongs to which level "
                "(a DataFrame's columns say so themselves)"
            )
        ranks = ranks_from_columns(factors.columns, hierarchy, name)
    return ranks_by_level(ranks, hierarchy)


def _on_one_hierarchy(first: MultilevelLowRank, second: MultilevelLowRank) -> tuple[MultilevelLowRank, Terms, Terms]:
    """Both matrices' terms on the hierarchy of one of them, and that one; features are matched by name."""
    mine, theirs = first._hierarchy, second._hierarchy
    if mine is not theirs and not mine.features.equals(theirs.features):
        match = positions(theirs.features, mine.features, "other")
        second = _reordered(second, match)
        theirs = second._hierarchy
    if mine is theirs or mine == theirs:
        return first, first._terms, second._terms
    if len(theirs.levels) < len(mine.levels):
        return first, first._terms, _refined(second, first)
    return second, _refined(first, second), second._terms


def _reordered(matrix: MultilevelLowRank, where: NDArray[np.intp]) -> MultilevelLowRank:
    """The same matrix with its features in another order."""
    hierarchy = matrix._hierarchy.reindex(matrix._hierarchy.features[where])
    rows = matrix._rows.place[where][hierarchy.permutation]
    terms = matrix._terms
    left = terms.left[rows]
    right = left if terms.symmetric else terms.right[rows]
    made = MultilevelLowRank.__new__(MultilevelLowRank)
    made._hold(hierarchy, Terms.of(hierarchy.offsets, terms.ranks, left, right, terms.weight, terms.diag[rows]))
    return made


def _refined(coarse: MultilevelLowRank, fine: MultilevelLowRank) -> Terms:
    """Terms on a hierarchy with more levels, where they have rank 0."""
    levels: tuple[Hashable, ...] = coarse._hierarchy.levels
    finer = fine._hierarchy
    known = set(finer.levels)
    if not set(levels) <= known or finer.coarsen(levels) != coarse._hierarchy:
        raise ValueError(
            "other: the two matrices must have the same groups, or one those of the other with levels left out; "
            f"levels {listing(levels)} and {listing(finer.levels)}"
            + ("" if set(levels) - known else ", and the groups of a level differ")
        )
    rank = dict(zip(levels, coarse._terms.ranks, strict=True))
    ranks = tuple(rank.get(level, 0) for level in finer.levels)
    terms = coarse._terms

    def moved(array: Floats) -> Floats:
        return fine._rows.inwards(coarse._rows.outwards(array))

    left = moved(terms.left)
    right = left if terms.symmetric else moved(terms.right)
    return Terms.of(finer.offsets, ranks, left, right, terms.weight, moved(terms.diag))
