"""A square root of a covariance as a product of one simple factor a level."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.covariance.operator import Axis, FrozenOperator
from mlfm.linear import gather, scatter, whitened
from mlfm.sweep import Elimination, Totals, Tree, Workers

Floats = NDArray[np.float64]


class MultilevelRoot(FrozenOperator):
    """A square root S of a covariance, Sigma = S S', as an operator.

    S = D^(1/2) (I + V_L K_L V_L') .. (I + V_1 K_1 V_1'): one factor a level, with V block diagonal like the loadings
    and K = (I + R)^-1 in every group, R the Cholesky factor of I + V'V. (Multiply out: K + K' + K V'V K' = I.) S is
    n x n and not symmetric. It is made by :meth:`MultilevelCovariance.sqrt`.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from mlfm import Hierarchy, MultilevelCovariance
    >>> labels = pd.DataFrame({"sector": ["T", "E", "T"]}, index=["AMD", "BP", "SAP"])
    >>> sigma = MultilevelCovariance(Hierarchy(labels), [[1.0, 0.5], [1, 1], [1, 2]], [1.0, 1, 1], ranks=[1, 1])
    >>> root = sigma.sqrt()
    >>> np.allclose(root @ (root.T @ np.eye(3)), sigma.to_dense())
    True
    >>> np.allclose(root.solve(root @ [1.0, 2, 3]), [1, 2, 3])
    True
    """

    def __init__(self, axis: Axis, tree: Tree, known: Elimination, F: Floats, D: Floats) -> None:
        super().__init__(axis, axis)
        self._roots = np.sqrt(D)
        with Workers() as workers:
            V = whitened(tree, known, 1 / self._roots, F, workers)
        self._levels = [_Level.of(tree, level, V, known.R[level]) for level, rank in enumerate(tree.ranks) if rank > 0]
        self._freeze()

    def _times(self, X: Floats) -> Floats:
        for level in self._levels:
            X = level.added_to(X, level.K)
        return self._roots[:, None] * X

    def _transposed_times(self, X: Floats) -> Floats:
        X = self._roots[:, None] * X
        for level in reversed(self._levels):
            X = level.added_to(X, level.K.swapaxes(1, 2))
        return X

    def solve(self, b: Any) -> Any:
        """S^-1 b: what is left of observations that have this covariance is uncorrelated, with variances 1.

        Parameters
        ----------
        b : array, Series or DataFrame
            A vector of length n or a matrix n x k; aligned by feature name.
        """
        X, hand_back = self._rows.take(b, "b")
        X = X / self._roots[:, None]
        for level in reversed(self._levels):
            X = level.added_to(X, -level.inverse_K)
        return hand_back(X, self._columns)


class _Level(NamedTuple):
    """One level's factor I + V K V'; its inverse is I - V (K^-1 + V'V)^-1 V', with K^-1 + V'V = R (I + R')."""

    tree: Tree  # of the level alone, below an empty root
    V: Floats  # n x o
    K: Floats  # groups x o x o
    inverse_K: Floats  # groups x o x o

    @classmethod
    def of(cls, tree: Tree, level: int, V: Floats, R: Floats) -> _Level:
        alone = Tree.of((tree.offsets[0], tree.offsets[level]), (0, tree.ranks[level]))
        one = np.eye(tree.ranks[level])
        K = np.asarray(np.linalg.inv(one + R), dtype=np.float64)
        return cls(alone, np.ascontiguousarray(V[:, tree.own(level)]), K, K.swapaxes(1, 2) @ np.linalg.inv(R))

    def added_to(self, X: Floats, W: Floats) -> Floats:
        """X + V W V'X, group by group."""
        totals, ones = Totals(self.tree, X.shape[1]), np.ones(len(X))
        with Workers() as workers:
            gather(totals, self.V, ones, X, workers)
            totals.b[-1][:] = W @ totals.b[-1]
            return scatter(totals, self.V, X, ones, 1.0, ones, workers)
