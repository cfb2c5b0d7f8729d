"""The matrix and the groups that a user gives, checked and put into group order once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

from mlfm.alignment import positions
from mlfm.arrays import as_pandas, real_array
from mlfm.covariance.operator import FrozenOperator, feature_names
from mlfm.hierarchy import Hierarchy
from mlfm.lowrank.grid import Grid, Side
from mlfm.lowrank.sample import SampleCovariance
from mlfm.lowrank.sources import Dense, Gram, Operator, Source, Sparse
from mlfm.ranks import Ranks, ranks_by_level
from mlfm.wording import listing, plain

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

ALIKE = 1e-10  # of the largest element, that A and A' may differ by


def source_of(A: Any, rows: Any, cols: Any) -> Source:
    """The matrix by its blocks, on the groups given; without groups there is one block.

    What has labels is matched with the features of the hierarchies by label, anything else by position.
    """
    A = as_pandas(A)
    if not isinstance(A, (LinearOperator, pd.DataFrame)) and not sparse.issparse(A):
        A = real_array(A, "A")
    if len(A.shape) != 2 or 0 in A.shape:
        raise ValueError(f"A: a matrix is needed, not an array of shape {A.shape}")
    index, columns = _labels(A)
    grid = _grid(rows, cols, index, columns, A.shape)
    i = _order(index, grid.rows, "rows")
    j = _order(columns, grid.columns, "cols")
    if isinstance(A, SampleCovariance) and grid.square:
        return Gram(np.ascontiguousarray(A._Y[i]), A.nobs, grid)
    if isinstance(A, LinearOperator):
        _refuse_one_way(A)
        return Operator(A, grid, i, j)
    if sparse.issparse(A):
        return Sparse(finite_sparse(A, "A")[i][:, j], grid)
    values = finite(real_array(A, "A") if isinstance(A, pd.DataFrame) else A, index, columns, "A")
    return Dense(_reordered(values, i, j), grid)


def _refuse_one_way(A: LinearOperator) -> None:
    """SciPy's own errors do not say what is missing."""
    try:
        A.rmatvec(np.zeros(A.shape[0]))
    except (TypeError, NotImplementedError) as error:
        raise TypeError(
            "A: products with the transpose are needed too; make the LinearOperator with rmatvec= (for a symmetric "
            "matrix the same function as matvec=)"
        ) from error


def _labels(A: Any) -> tuple[pd.Index | None, pd.Index | None]:
    if isinstance(A, pd.DataFrame):
        return A.index, A.columns
    if isinstance(A, FrozenOperator):
        return A._rows.labels, A._columns.labels
    return None, None


def _grid(rows: Any, cols: Any, index: pd.Index | None, columns: pd.Index | None, shape: tuple[int, int]) -> Grid:
    for name, given in (("rows", rows), ("cols", cols)):
        if given is not None and not isinstance(given, Hierarchy):
            raise TypeError(f"{name} must be a Hierarchy, not {type(given).__name__}")
    if rows is None and cols is not None:
        raise ValueError("rows: groups of the columns alone make no blocks; give the groups of the rows too")
    if rows is None:
        index = pd.RangeIndex(shape[0]) if index is None else index
        columns = pd.RangeIndex(shape[1]) if columns is None else columns
        rows = Hierarchy(index)
        # The same labels in another order are the same features.
        cols = None if len(index) == len(columns) and columns.isin(index).all() else Hierarchy(columns)
    grid = Grid.of(rows, rows if cols is None else cols)
    if grid.shape != shape:
        how = (
            "rows has {} features and cols {}".format(*grid.shape)
            if cols is not None
            else (f"rows has {grid.shape[0]} features, and without cols they are the columns too")
        )
        raise ValueError(f"A is {shape[0]} x {shape[1]}, but {how}; the hierarchies must have its rows and its columns")
    return grid


def _order(labels: pd.Index | None, side: Side, name: str) -> Integers:
    """Where in A each row (or column) of group order stands."""
    if labels is None:
        return side.order
    features = side.hierarchy.features
    return positions(feature_names(labels, features), features, name)[side.order]


def finite(values: Floats, index: pd.Index | None, columns: pd.Index | None, name: str) -> Floats:
    """The values, or a ValueError that says where they are not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):
            return values
    bad = ~np.isfinite(values)
    if bad.any():
        i, j = (np.flatnonzero(bad.any(axis=axis)) for axis in (1, 0))
        where = (i if index is None else index[i], j if columns is None else columns[j])
        raise ValueError(
            f"{name}: {int(bad.sum())} values are missing or infinite, in rows {listing(where[0])} and columns "
            f"{listing(where[1])}"
        )
    return values


def finite_sparse(A: Any, name: str) -> Any:
    if np.dtype(A.dtype).kind not in "biuf":
        raise TypeError(f"{name}: real numbers are needed, not {A.dtype}")
    A = sparse.csr_array(sparse.coo_array(A), dtype=np.float64)  # elements given in parts are summed
    if not np.isfinite(A.data).all():
        raise ValueError(f"{name}: {int((~np.isfinite(A.data)).sum())} values are missing or infinite")
    return A


def _reordered(A: Floats, i: Integers, j: Integers) -> Floats:
    if (i == np.arange(len(i))).all() and (j == np.arange(len(j))).all():
        return A
    return A[i[:, None], j]


def refuse_unbounded(source: Source) -> None:
    """A ValueError where the sum of squares is not finite: products with nan in them, or numbers that are too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(source.squared_norm):
            raise ValueError(
                "A: its sum of squares is not finite; some elements are missing, infinite or too large: divide A by a "
                "number, or look at its products"
            )


def refuse_asymmetric(source: Source) -> None:
    """A ValueError where the matrix is not symmetric, as far as its products with a few vectors say."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((source.grid.shape[0], 4))
    from mlfm.sweep import Workers

    with Workers() as workers:
        left, right = source.times(0, x, workers), source.transposed_times(0, x, workers)
    if np.abs(left - right).max() > ALIKE * np.abs(left).max():
        raise ValueError(
            "A is not symmetric, as it must be where cols is not given; give cols=rows for a general square matrix"
        )


def checked_ranks(ranks: Ranks, grid: Grid, argument: str = "ranks") -> tuple[int, ...]:
    """Ranks by level, which must fit the blocks."""
    by_level = ranks_by_level(ranks, grid.rows.hierarchy, argument)
    for level, (name, rank) in enumerate(zip(grid.rows.hierarchy.levels, by_level, strict=True)):
        largest = largest_rank(grid, level)
        if rank > largest:
            raise ValueError(
                f"{argument}: level {plain(name)} has rank {rank}, but its largest block has rank {largest} at most"
            )
    return by_level


def largest_rank(grid: Grid, level: int) -> int:
    """The largest rank that some block of a level can have."""
    return int(np.minimum(*grid.sizes(level)).max())
