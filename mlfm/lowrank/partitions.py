"""Hierarchical partitioning: groups of rows and columns of a matrix that go together."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from mlfm.arrays import as_pandas, real_array
from mlfm.grouping import checked_n_groups
from mlfm.hierarchy import Hierarchy, level_names
from mlfm.lowrank.inputs import finite, finite_sparse
from mlfm.partitioning import cross_partitions, symmetric_partitions
from mlfm.seeds import generator

Floats = NDArray[np.float64]


class Partition(NamedTuple):
    """Groups of the rows and of the columns, of the same names: :func:`mlfm.lowrank.fit` takes both."""

    rows: Hierarchy
    cols: Hierarchy


def partition(
    A: Any,
    n_groups: Sequence[int] | None = None,
    *,
    affinity: Any = None,
    balanced: bool = True,
    levels: Sequence[Hashable] | None = None,
    rng: int | np.random.Generator | None = None,
) -> Partition:
    """Nested groups of rows and of columns of a matrix, so that its large elements are in the blocks.

    From the top down: rows and columns are cut in two together by the leading pair of singular vectors of the doubly
    centred affinities (of a symmetric matrix by the second eigenvector of the normalised Laplacian), and are then moved
    or swapped as long as more affinity comes to be inside the blocks.

    Parameters
    ----------
    A : DataFrame, array or SciPy sparse matrix, m x n
        A symmetric matrix (with the same labels of rows and columns) gets one hierarchy for both.
    n_groups : sequence of int, optional
        Number of groups at each level below the global one, coarse to fine, increasing. By default 2, 4, 8, .. and at
        last as many as the shorter side has.
    affinity : array or sparse matrix, m x n, optional
        How well row i and column j go together: the larger, the better. By default the squares of A, as what is
        outside of the blocks costs that much. Where elements fall off fast with some distance, a flatter function of
        them (``abs(A) ** 0.5``), or the negative distance itself, finds better groups.
    balanced : bool
        Whether groups are cut into halves of one size.
    levels : sequence of hashable, optional
        Names of the levels below the global one; by default "level_2", "level_3", ...
    rng : int or numpy Generator, optional
        Where the search for vectors begins; None is seed 0.

    Returns
    -------
    Partition
        ``rows`` and ``cols``, hierarchies with the same levels and names of groups; the same one where A is symmetric.

    Raises
    ------
    ValueError, TypeError
        If values are missing or infinite, the affinity is of another shape, or there are to be more groups than rows or
        columns.

    See Also
    --------
    mlfm.Hierarchy.from_data : Groups of the features of data.

    References
    ----------
    Parshakova, Hastie, Darve and Boyd, *Factor Fitting, Rank Allocation, and Partitioning in Multilevel Low Rank
    Matrices* (arXiv 2310.19214), section 6. Dhillon (2001), *Co-clustering documents and words using bipartite spectral
    graph partitioning*.

    Examples
    --------
    Points on a line, shuffled, and a kernel of their distances:

    >>> import numpy as np
    >>> from mlfm import lowrank
    >>> x = np.random.default_rng(0).permutation(16)
    >>> A = np.exp(-((x[:, None] - x) ** 2) / 8)
    >>> rows, cols = lowrank.partition(A, [2, 4])
    >>> rows is cols
    True
    >>> [sorted(x[names].tolist()) for names in rows.groups("level_2").values()]
    [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15]]
    """
    A = as_pandas(A)
    index, columns = (A.index, A.columns) if isinstance(A, pd.DataFrame) else (None, None)
    values = _checked(A, "A")
    m, n = values.shape
    S = _checked(affinity, "affinity") if affinity is not None else values**2
    if S.shape != (m, n):
        raise ValueError(f"affinity: shape {S.shape}, but A is {m} x {n}")
    wanted = _down_to_one(min(m, n)) if n_groups is None else checked_n_groups(n_groups, min(m, n))
    below = level_names(levels, len(wanted))
    i = pd.RangeIndex(m) if index is None else index
    j = pd.RangeIndex(n) if columns is None else columns
    seeded = generator(rng)
    if i.equals(j) and _symmetric(values) and _symmetric(S):
        least = float(S.min())
        if least < 0:  # what is absent from a sparse matrix is 0, and would be no more
            S = (S.toarray() if sparse.issparse(S) else S) - least
        one = _labelled(symmetric_partitions(S, wanted, balanced, seeded), i, below)
        return Partition(one, one)
    by_rows, by_columns = cross_partitions(S, wanted, balanced, seeded)
    return Partition(_labelled(by_rows, i, below), _labelled(by_columns, j, below))


def _labelled(partitions: Sequence[NDArray[np.intp]], names: pd.Index, levels: Sequence[Hashable]) -> Hierarchy:
    """Groups numbered from 1."""
    labels = pd.DataFrame({k: partition + 1 for k, partition in enumerate(partitions)}, index=names)
    labels.columns = pd.Index(levels, dtype=object, tupleize_cols=False)
    return Hierarchy(labels)


def _checked(A: Any, name: str) -> Any:
    if sparse.issparse(A):
        values = finite_sparse(A, name)
    else:
        values = finite(real_array(A, name), None, None, name)
    if len(values.shape) != 2 or 0 in values.shape:
        raise ValueError(f"{name}: a matrix is needed, not an array of shape {values.shape}")
    return values


def _symmetric(A: Any) -> bool:
    if A.shape[0] != A.shape[1]:
        return False
    return bool((abs(A - A.T).max()) <= 1e-10 * abs(A).max())


def _down_to_one(n: int) -> list[int]:
    """2, 4, 8, .. and n."""
    doubled = itertools.takewhile(lambda k: k < n, (2**level for level in itertools.count(1)))
    return [*doubled, n] if n > 1 else []
