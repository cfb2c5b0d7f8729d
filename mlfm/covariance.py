"""The covariance of a multilevel factor model as linear algebra, linear in the number of features."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlfm._kernels.blocks import expand, inverse_factors, project
from mlfm.alignment import positions
from mlfm.arrays import real_array
from mlfm.hierarchy import Hierarchy
from mlfm.likelihood import condition, loglike, solve
from mlfm.parameters import loadings_array, uniqueness_array
from mlfm.ranks import Ranks, factor_columns, ranks_by_level
from mlfm.sweep import Sweep, Tree, Workers
from mlfm.wording import listing

Floats = NDArray[np.float64]


class MultilevelCovariance:
    """Covariance of a multilevel factor model as linear algebra, linear in the number of features.

    Sigma = F_1 F_1' + .. + F_L F_L' + D, with F_l block diagonal over the groups of level l. Nothing of size n x n is
    ever formed (but by :meth:`to_dense`): products, solves, the log-determinant and the diagonals cost O(n r) to O(n
    r^2) for n features with r factors each. Objects are frozen.

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
    """

    __slots__ = ("_F", "_D", "_hierarchy", "_ranks", "_tree")  # noqa: RUF023 (as in the formula)

    def __init__(
        self,
        hierarchy: Hierarchy,
        loadings: pd.DataFrame | ArrayLike,
        uniquenesses: pd.Series | ArrayLike,
        ranks: Ranks | None = None,
    ) -> None:
        if not isinstance(hierarchy, Hierarchy):
            raise TypeError(f"hierarchy must be a Hierarchy, not {type(hierarchy).__name__}")
        self._hierarchy = hierarchy
        if ranks is None:
            if not isinstance(loadings, pd.DataFrame):
                raise TypeError(
                    "ranks: needed when loadings is an array, to tell which column belongs to which level "
                    "(a DataFrame's columns say so themselves)"
                )
            ranks = _ranks_from_columns(loadings, hierarchy)
        self._ranks = ranks_by_level(ranks, hierarchy)
        F = loadings_array(loadings, hierarchy, self._ranks)
        D = uniqueness_array(uniquenesses, hierarchy)
        self._F = np.ascontiguousarray(F[hierarchy.permutation])
        self._D = np.ascontiguousarray(D[hierarchy.permutation])
        self._F.setflags(write=False)
        self._D.setflags(write=False)
        self._tree = Tree.of(hierarchy.offsets, self._ranks)

    @property
    def hierarchy(self) -> Hierarchy:
        """The groups of the features."""
        return self._hierarchy

    @property
    def ranks(self) -> pd.Series:
        """Factors of each group, by level."""
        return pd.Series(self._ranks, index=pd.Index(self._hierarchy.levels, name="level"), name="rank")

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (len(self._D), len(self._D))

    @property
    def loadings(self) -> pd.DataFrame:
        """Compressed loadings, features x (level, factor)."""
        return pd.DataFrame(
            self._to_user(self._F),
            index=self._hierarchy.features,
            columns=factor_columns(self._hierarchy, self._ranks),
        )

    @property
    def uniquenesses(self) -> pd.Series:
        """The diagonal D."""
        return self._series(self._D, "uniqueness")

    def matvec(self, x: Any) -> Any:
        """Sigma x.

        Parameters
        ----------
        x : array, Series or DataFrame
            A vector of length n or a matrix n x k. Series and DataFrames are aligned by feature name and come back
            as what they are.
        """
        X, restore = self._incoming(x, "x")
        tree = self._tree
        T = np.zeros((len(tree.leaves) - 1, tree.n_factors, X.shape[1]))
        project(self._F, X, tree.leaves, T)
        # Each node's factors see the sum over its leaf groups, and hand it back to every one of them.
        for level in range(tree.leaf_level):
            first = np.searchsorted(tree.leaves, tree.offsets[level])
            own = tree.own(level)
            sums = np.add.reduceat(T[:, own], first[:-1], axis=0)
            T[:, own] = np.repeat(sums, np.diff(first), axis=0)
        out = self._D[:, None] * X
        expand(self._F, np.empty((0, T.shape[2])), T, tree.leaves, 1.0, out)
        return restore(out)

    def __matmul__(self, x: Any) -> Any:
        return self.matvec(x)

    def solve(self, b: Any) -> Any:
        """Sigma^-1 b, by one sweep.

        Parameters
        ----------
        b : array, Series or DataFrame
            A vector of length n or a matrix n x k. Series and DataFrames are aligned by feature name and come back
            as what they are.
        """
        B, restore = self._incoming(b, "b")
        with Workers(1) as workers:
            return restore(solve(Sweep(self._tree, B.shape[1]), self._F, self._D, B, workers))

    def logdet(self) -> float:
        """Natural logarithm of the determinant."""
        return float(np.log(self._D).sum() + self._factored().logdet)

    def diagonal(self) -> NDArray[np.float64]:
        """The variances: the diagonal of Sigma, in feature order."""
        return self._to_user(self._D + np.einsum("jk,jk->j", self._F, self._F))

    def inverse_diagonal(self) -> NDArray[np.float64]:
        """The diagonal of Sigma^-1, in feature order."""
        sweep, tree = self._factored(), self._tree
        H = self._F / self._D[:, None]
        for level in reversed(range(len(tree.ranks))):
            inverse_factors(H, tree.offsets[level], sweep.R[level], sweep.A[level])
        return self._to_user(1 / self._D - np.einsum("jk,jk->j", H, H))

    def to_dense(self) -> NDArray[np.float64]:
        """Sigma as an n x n array, in feature order."""
        n = len(self._D)
        sigma = np.zeros((n, n))
        tree = self._tree
        for level, bounds in enumerate(tree.offsets):
            own = self._F[:, tree.own(level)]
            for a, b in itertools.pairwise(bounds):
                sigma[a:b, a:b] += own[a:b] @ own[a:b].T
        sigma[np.diag_indices(n)] += self._D
        back = np.empty(n, dtype=np.intp)
        back[self._hierarchy.permutation] = np.arange(n)
        return sigma[np.ix_(back, back)]

    def loglike(self, Y: pd.DataFrame | ArrayLike) -> float:
        """Total log-likelihood, in nats, of the rows of Y as independent draws from N(0, Sigma).

        Parameters
        ----------
        Y : DataFrame or array, nobs x n
            Observations in rows, features in columns, mean removed. A DataFrame is aligned by feature name.
        """
        if isinstance(Y, pd.DataFrame):
            data, _ = self._incoming(Y.T, "Y")
        else:
            array = real_array(Y, "Y")
            if array.ndim != 2:
                raise ValueError(f"Y: a matrix with a row an observation is needed, not {array.ndim} dimensions")
            data, _ = self._incoming(array.T, "Y")
        with Workers(1) as workers:
            sweep = Sweep(self._tree, data.shape[1])
            condition(sweep, self._F, self._D, data, workers)
            return loglike(sweep, self._D, np.einsum("jn,jn->j", data, data), data.shape[1])

    def __repr__(self) -> str:
        ranks = ", ".join(f"{level} {rank}" for level, rank in zip(self._hierarchy.levels, self._ranks, strict=True))
        return f"<MultilevelCovariance of {len(self._D)} features; ranks: {ranks}>"

    def _factored(self) -> Sweep:
        """The parameters' part of the sweep: R, A and the log-determinant."""
        sweep = Sweep(self._tree, 0)
        with Workers(1) as workers:
            condition(sweep, self._F, self._D, np.empty((len(self._D), 0)), workers)
        return sweep

    def _incoming(self, x: Any, name: str) -> tuple[Floats, Callable[[Floats], Any]]:
        """An argument as an n x k array in group order, and the way back to what it was."""
        features = self._hierarchy.features
        if isinstance(x, (pd.Series, pd.DataFrame)):
            where: NDArray[np.intp] | None = positions(x.index, features, name)
            values = real_array(x, name)[where]
        else:
            where = None
            values = real_array(x, name)
        if values.ndim not in (1, 2) or values.shape[0] != len(features):
            wanted = f"({len(features)},) or ({len(features)}, k)"
            raise ValueError(f"{name}: shape {wanted} is needed, not {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: {int((~np.isfinite(values)).sum())} values are missing or infinite")
        flat = values.ndim == 1
        array = np.ascontiguousarray((values[:, None] if flat else values)[self._hierarchy.permutation])

        def restore(out: Floats) -> Any:
            result = self._to_user(out)
            result = result[:, 0] if flat else result
            if where is None:
                return result
            placed = np.empty_like(result)
            placed[where] = result
            if isinstance(x, pd.Series):
                return pd.Series(placed, index=x.index, name=x.name)
            return pd.DataFrame(placed, index=x.index, columns=x.columns)

        return array, restore

    def _to_user(self, array: Floats) -> Floats:
        out = np.empty_like(array)
        out[self._hierarchy.permutation] = array
        return out

    def _series(self, values: Floats, name: str) -> pd.Series:
        return pd.Series(self._to_user(values), index=self._hierarchy.features, name=name)


def _ranks_from_columns(loadings: pd.DataFrame, hierarchy: Hierarchy) -> dict[Any, int]:
    if not isinstance(loadings.columns, pd.MultiIndex) or loadings.columns.nlevels != 2:
        raise ValueError("loadings: the columns of a DataFrame must be a MultiIndex (level, factor), or give ranks")
    levels = loadings.columns.get_level_values(0)
    ranks = {level: int((levels == level).sum()) for level in dict.fromkeys(levels)}
    order = [hierarchy.position(level) for level in levels]
    if order != sorted(order):
        raise ValueError(f"loadings: columns must follow the levels from coarse to fine: {listing(hierarchy.levels)}")
    return ranks
