"""Rectangular multilevel low rank matrices, whose rows and columns have groups of their own."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlfm.arrays import real_array
from mlfm.covariance import MultilevelLowRank
from mlfm.covariance.operator import Axis, FrozenOperator
from mlfm.hierarchy import Hierarchy
from mlfm.lowrank.blockwise import is_signed
from mlfm.lowrank.factors import Factors
from mlfm.lowrank.grid import Grid
from mlfm.lowrank.systems import Bordered, Expanded, expanded_form, least_squares
from mlfm.parameters import finite_vector, loadings_array
from mlfm.ranks import Ranks, factor_columns, ranks_by_level, ranks_from_columns

Floats = NDArray[np.float64]

DENSE = 100_000_000  # numbers up to which a dense matrix is made without being told: 800 MB


class MultilevelMatrix(FrozenOperator):
    """A multilevel low rank (MLR) matrix: M = B_1 C_1' + .. + B_L C_L' + diag, with groups of rows and of columns.

    At every level, block k is a group of rows by the group of columns of the same name; B_l and C_l are block diagonal
    (m x n, each row of B and of C holds r numbers). It takes (m + n) r numbers to store and 2 (m + n) r
    multiplications to apply. It is a SciPy :class:`~scipy.sparse.linalg.LinearOperator`; vectors and matrices may be
    labelled, and are then aligned by label. Objects are frozen.

    Parameters
    ----------
    rows : Hierarchy
        The groups of the m rows.
    cols : Hierarchy, optional
        The groups of the n columns: the same levels, and at each level the same names of groups. By default those of
        the rows, for a square matrix.
    left : DataFrame or array, m x r
        The compressed B: row i holds the numbers of row i in its own blocks, level after level. A DataFrame has
        columns (level, column number) and is aligned by label.
    right : DataFrame or array, n x r
        The compressed C, in the same way.
    diag : Series, array or number, optional
        A diagonal term, of a square matrix on one hierarchy.
    ranks : mapping or sequence, optional
        Columns of each level's blocks; needed when ``left`` is an array.

    Raises
    ------
    ValueError, TypeError
        If shapes, labels or groups do not match, or a number is not finite.

    See Also
    --------
    MultilevelLowRank : Square matrices on one hierarchy, with sums, products, norms and parts.

    References
    ----------
    Parshakova, Hastie, Darve and Boyd, *Factor Fitting, Rank Allocation, and Partitioning in Multilevel Low Rank
    Matrices* (arXiv 2310.19214), section 2.

    Examples
    --------
    >>> import pandas as pd
    >>> from mlfm import Hierarchy
    >>> from mlfm.lowrank import MultilevelMatrix
    >>> shops = Hierarchy(pd.DataFrame({"region": ["N", "S", "N"]}, index=["Oslo", "Rome", "Kiel"]))
    >>> goods = Hierarchy(pd.DataFrame({"region": ["S", "N"]}, index=["ice", "coat"]))
    >>> M = MultilevelMatrix(shops, goods, [[1, 1], [1, 2], [1, 3]], [[1, 1], [2, 1]], ranks=[1, 1])
    >>> M.to_frame()
          ice  coat
    Oslo  1.0   3.0
    Rome  3.0   2.0
    Kiel  1.0   5.0
    >>> M @ [1.0, 1.0]
    array([4., 5., 6.])
    >>> M.storage
    10
    """

    def __init__(
        self,
        rows: Hierarchy,
        cols: Hierarchy | None,
        left: pd.DataFrame | ArrayLike,
        right: pd.DataFrame | ArrayLike,
        diag: pd.Series | ArrayLike | float | None = None,
        *,
        ranks: Ranks | None = None,
    ) -> None:
        for name, given in (("rows", rows), ("cols", cols)):
            if not isinstance(given, Hierarchy) and not (name == "cols" and given is None):
                raise TypeError(f"{name} must be a Hierarchy, not {type(given).__name__}")
        grid = Grid.of(rows, rows if cols is None else cols)
        if ranks is None:
            if not isinstance(left, pd.DataFrame):
                raise TypeError(
                    "ranks: needed when left is an array, to tell which column belongs to which level (a DataFrame's "
                    "columns say so themselves)"
                )
            ranks = ranks_from_columns(left.columns, rows, "left")
        by_level = ranks_by_level(ranks, rows)
        B = loadings_array(left, rows, by_level, "left")[grid.rows.order]
        C = loadings_array(right, grid.columns.hierarchy, by_level, "right")[grid.columns.order]
        d = None
        if diag is not None:
            if not grid.square:
                raise ValueError("diag: only a square matrix whose rows and columns have one hierarchy can have one")
            values = diag if isinstance(diag, pd.Series) else real_array(diag, "diag")
            values = np.full(len(grid.rows), values) if np.ndim(values) == 0 else values
            d = finite_vector(values, rows, "diag")[grid.rows.order]
        bounds = np.cumsum([0, *by_level])[1:-1]
        self._hold(Factors(grid, np.split(B, bounds, axis=1), np.split(C, bounds, axis=1), d))

    def _hold(self, factors: Factors) -> None:
        grid = factors.grid
        sides = (grid.rows, grid.columns)
        super().__init__(*(Axis(side.hierarchy.features, side.order) for side in sides))
        diag = None if factors.diag is None else factors.diag.copy()
        left = [np.array(B, order="C") for B in factors.left]
        pairs = zip(factors.left, factors.right, left, strict=True)
        right = [made if C is B else np.array(C, order="C") for B, C, made in pairs]
        for array in (*left, *right, *(() if diag is None else (diag,))):
            array.setflags(write=False)
        self._factors = Factors(grid, left, right, diag)
        self._freeze()

    @classmethod
    def _of(cls, factors: Factors) -> MultilevelMatrix:
        made = cls.__new__(cls)
        made._hold(factors)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {"factors": self._factors}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._hold(state["factors"])

    @property
    def rows(self) -> Hierarchy:
        """The groups of the rows."""
        return self._factors.grid.rows.hierarchy

    @property
    def cols(self) -> Hierarchy:
        """The groups of the columns."""
        return self._factors.grid.columns.hierarchy

    @property
    def ranks(self) -> pd.Series:
        """Columns of the blocks of each level."""
        return pd.Series(self._factors.ranks, index=pd.Index(self.rows.levels, name="level"), name="rank")

    @property
    def left(self) -> pd.DataFrame:
        """The compressed B, rows x (level, column)."""
        return self._frame(self._factors.left, self._rows)

    @property
    def right(self) -> pd.DataFrame:
        """The compressed C, columns x (level, column)."""
        return self._frame(self._factors.right, self._columns)

    @property
    def diag(self) -> pd.Series | None:
        """The diagonal term, or None."""
        if self._factors.diag is None:
            return None
        return pd.Series(self._rows.outwards(self._factors.diag).copy(), index=self._rows.labels, name="diag")

    def _frame(self, factors: list[Floats], axis: Axis) -> pd.DataFrame:
        columns = factor_columns(self.rows, self._factors.ranks)
        return pd.DataFrame(axis.outwards(np.hstack(factors)).copy(), index=axis.labels, columns=columns)

    @property
    def storage(self) -> int:
        """Numbers that it takes to store the matrix: (m + n) r, and the diagonal.

        At levels where C is B it is n r_l, and where C is B with a sign for each column of each block n r_l and the
        signs.
        """
        m, n = self.shape
        total = 0 if self._factors.diag is None else n
        for level, (B, C) in enumerate(zip(*self._sides(), strict=True)):
            rank = B.shape[1]
            bounds = self._factors.grid.rows.offsets[level]
            if not self._factors.grid.square or not is_signed(B, C, bounds):
                total += (m + n) * rank
            elif np.array_equal(B, C):
                total += n * rank
            else:
                total += (n + self._factors.grid.n_blocks(level)) * rank
        return total

    # Products

    def _times(self, X: Floats) -> Floats:
        out = np.zeros((self.shape[0], X.shape[1]))
        self._factors.subtract(0, X, out)
        return -out

    def _transposed_times(self, X: Floats) -> Floats:
        out = np.zeros((self.shape[1], X.shape[1]))
        self._factors.transposed.subtract(0, X, out)
        return -out

    def transpose(self) -> MultilevelMatrix:
        return MultilevelMatrix._of(self._factors.transposed)

    def norm(self) -> float:
        """The Frobenius norm; what cancels between levels leaves an error of about 1e-8 of its size."""
        return float(np.sqrt(max(self._factors.squared_norm(), 0.0)))

    # The whole

    def to_dense(self, *, max_size: int | None = DENSE) -> Floats:
        """The matrix as an m x n array.

        Parameters
        ----------
        max_size : int or None
            Refuse above this many numbers; None never refuses.
        """
        m, n = self.shape
        if max_size is not None and m * n > max_size:
            raise ValueError(
                f"max_size: {m} x {n} numbers take {8e-9 * m * n:.3g} GB; products with a few columns of the identity "
                "give parts of the matrix, max_size=None the whole"
            )
        whole = np.zeros((m, n))
        self._factors.take_from(slice(0, m), whole)
        return -whole[np.ix_(self._rows.place, self._columns.place)]

    def to_frame(self, *, max_size: int | None = DENSE) -> pd.DataFrame:
        """The matrix as a DataFrame; see :meth:`to_dense`."""
        return pd.DataFrame(self.to_dense(max_size=max_size), index=self._rows.labels, columns=self._columns.labels)

    def to_sparse(self) -> Expanded:
        """The expanded sparse form: M = left @ right.T, with a column for every column of every block.

        Returns
        -------
        Expanded
            ``left`` (m x s) and ``right`` (n x s), SciPy sparse arrays in the user's order of rows and columns, s
            being the sum over blocks of their ranks; a diagonal term is a last level of blocks of one.
        """
        grid = self._factors.grid
        found = expanded_form(self._factors)
        return Expanded(found.left[grid.rows.place], found.right[grid.columns.place])

    def to_multilevel_low_rank(self) -> MultilevelLowRank:
        """The same matrix as a :class:`MultilevelLowRank`, which knows sums, products, parts and norms.

        Raises
        ------
        ValueError
            If rows and columns are not the same features in the same groups.
        """
        if not self._factors.grid.square:
            raise ValueError("rows and columns differ; a MultilevelLowRank is square, on one hierarchy")
        symmetric = all(B is C or np.array_equal(B, C) for B, C in zip(*self._sides(), strict=True))
        diag = 0.0 if self.diag is None else self.diag
        return MultilevelLowRank(self.rows, self.left, None if symmetric else self.right, diag, ranks=self.ranks)

    def _sides(self) -> tuple[list[Floats], list[Floats]]:
        return self._factors.left, self._factors.right

    # Systems

    def solve(self, b: Any) -> Any:
        """x with M x = b, for a square matrix.

        The unknowns are x and its sums z = C' x over the blocks: [[D, B], [C', -I]] [x; z] = [b; 0], a sparse system
        that SciPy factorises once (SuperLU).

        Parameters
        ----------
        b : array, Series or DataFrame
            A right-hand side, or several as columns; aligned with the rows by label.

        Returns
        -------
        array, Series or DataFrame
            Labelled by the columns of the matrix.

        Raises
        ------
        ValueError
            If the matrix is not square.
        numpy.linalg.LinAlgError
            If it is singular.

        Warns
        -----
        ConditionWarning
            If it is so close to singular that the solution is not one to half of the digits.

        Examples
        --------
        >>> import numpy as np
        >>> from mlfm import Hierarchy
        >>> from mlfm.lowrank import MultilevelMatrix
        >>> M = MultilevelMatrix(Hierarchy.random(3, []), None, [[1.0], [2], [3]], [[1.0], [0], [1]], 1.0, ranks=[1])
        >>> np.round(M @ M.solve([1.0, 2.0, 3.0]), 12)
        array([1., 2., 3.])
        """
        m, n = self.shape
        if m != n:
            raise ValueError(f"only a square matrix can be solved with, not one of {m} x {n}; lstsq() takes any")
        right, hand_back = self._rows.take(b, "b")
        return hand_back(self._bordered.solve(right), self._columns)

    @cached_property
    def _bordered(self) -> Bordered:
        return Bordered(self._factors)

    def lstsq(self, b: Any) -> Any:
        """x that makes the sum of squares of b - M x least; of several the shortest.

        Where M has full column rank, from the sparse system of the normal equations with their residuals kept apart,
        which is factorised once; else by LSMR (Fong and Saunders 2011), which finds the shortest.

        Parameters
        ----------
        b : array, Series or DataFrame
            A right-hand side, or several as columns; aligned with the rows by label.
        """
        right, hand_back = self._rows.take(b, "b")
        return hand_back(least_squares(self._factors, right), self._columns)

    def __repr__(self) -> str:
        ranks = ", ".join(f"{level} {rank}" for level, rank in self.ranks.items())
        return f"<{type(self).__name__}, {self.shape[0]} x {self.shape[1]}; ranks: {ranks}>"
