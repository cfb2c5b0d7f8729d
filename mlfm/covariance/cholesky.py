"""The Cholesky factor of the expanded matrix, as sparse as the matrix itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csc_array

from mlfm._kernels.blocks import leaf_products
from mlfm.covariance.operator import Axis, Frozen
from mlfm.linear import scatter
from mlfm.sweep import Elimination, Means, Products, Sweep, Task, Tree, Workers

if TYPE_CHECKING:
    from mlfm.covariance.covariance import MultilevelCovariance

Floats = NDArray[np.float64]


class ExpandedCholesky(Frozen):
    """The factorisation E = L J L' of the expanded matrix of a covariance Sigma = F F' + D,

        E = [[D, F], [F', -I]],        F = [F_L, .., F_1],

    with the n features first and then the s = p_L r_L + .. + p_1 r_1 factors, finest level first, group by group. L is
    lower triangular and J diagonal, n times 1 and s times -1. Sigma is the Schur complement of the factors' block -I in
    E, and the determinant of E is that of Sigma but for the sign.

    L is kept compressed: D and F, and for each group the R and A of the sweep. In L a feature's column holds its own
    row and the rows of the r factors of its path; a factor's column holds the rows of the later factors of its group
    (itself included) and of the groups above. So L has

        n (1 + r) + sum over levels of p_l [r_l (r_l + 1) / 2 + r_l (r_1 + .. + r_(l-1))]

    entries, and elimination fills in nothing but the groups' own triangles and their ancestors' columns. It is made by
    :meth:`MultilevelCovariance.cholesky`.

    References
    ----------
    Parshakova, Hastie and Boyd, *Fitting Multilevel Factor Models* (arXiv 2409.12067), the section on the Cholesky
    factorisation of the expanded matrix.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from mlfm import Hierarchy, MultilevelCovariance
    >>> labels = pd.DataFrame({"sector": ["T", "E", "T"]}, index=["AMD", "BP", "SAP"])
    >>> sigma = MultilevelCovariance(Hierarchy(labels), [[1.0, 0.5], [1, 1], [1, 2]], [1.0, 1, 1], ranks=[1, 1])
    >>> cholesky = sigma.cholesky()
    >>> L = cholesky.to_sparse()
    >>> L.shape, L.nnz
    ((6, 6), 14)
    >>> np.allclose((L * cholesky.signs) @ L.T.toarray(), cholesky.expanded().toarray())
    True
    """

    def __init__(self, covariance: MultilevelCovariance, known: Elimination) -> None:
        self._covariance, self._known = covariance, known
        tree = covariance._terms.tree
        counts = [tree.n_nodes(level) * rank for level, rank in enumerate(tree.ranks)]
        n = len(covariance._rows)
        # Where each level's factors begin, finest level first.
        self._first = [n + sum(counts[level + 1 :]) for level in range(len(counts))]
        self._size = n + sum(counts)
        self._freeze()

    @property
    def shape(self) -> tuple[int, int]:
        """(n + s, n + s)."""
        return self._size, self._size

    def __repr__(self) -> str:
        n = len(self._covariance._rows)
        return f"<ExpandedCholesky of {n} features and {self._size - n} factors>"

    @property
    def signs(self) -> Floats:
        """The diagonal of J: the signs of the pivots, n positive and s negative."""
        signs = np.full(self._size, -1.0)
        signs[: len(self._covariance._rows)] = 1
        return signs

    @property
    def labels(self) -> pd.Index:
        """Names of the rows: the features, then (level, group, factor)."""
        hierarchy, terms = self._covariance.hierarchy, self._covariance._terms
        names: list[Any] = list(hierarchy.features)
        for level in reversed(terms.tree_levels()):
            name = hierarchy.levels[level]
            factors = range(1, terms.ranks[level] + 1)
            names += [(name, group, factor) for group in hierarchy.paths(name) for factor in factors]
        return pd.Index(names, dtype=object, tupleize_cols=False)

    def schur_complement(self) -> MultilevelCovariance:
        """Sigma = D - F (-I)^-1 F', the Schur complement of the factors' block."""
        return self._covariance

    def logdet(self) -> float:
        """Natural logarithm of the determinant's absolute value: that of Sigma."""
        return self._covariance.logdet()

    def slogdet(self) -> tuple[float, float]:
        """Sign and natural logarithm of the absolute value of det E, as :func:`numpy.linalg.slogdet`."""
        factors = self._size - len(self._covariance._rows)
        return (-1.0 if factors % 2 else 1.0), self.logdet()

    def expanded(self) -> csc_array:
        """E, in the order of :attr:`labels`."""
        n, terms = len(self._covariance._rows), self._covariance._terms
        paths, axis = self._paths(), self._covariance._rows
        features = np.repeat(np.arange(n), paths.shape[1])
        F = terms.left[:, self._finest_first(len(terms.tree.ranks))]
        i, values = paths.ravel(), axis.outwards(F).ravel()
        both = np.arange(self._size)
        diagonal = np.concatenate([axis.outwards(terms.diag), np.full(self._size - n, -1.0)])
        rows, columns = np.concatenate([both, i, features]), np.concatenate([both, features, i])
        return csc_array((np.concatenate([diagonal, values, values]), (rows, columns)), shape=self.shape)

    def to_sparse(self) -> csc_array:
        """L, in the order of :attr:`labels`; every place of the claimed pattern is stored, also where it holds 0."""
        terms, axis = self._covariance._terms, self._covariance._rows
        tree, r = terms.tree, terms.tree.n_factors
        n = len(axis)
        roots = np.sqrt(terms.diag)
        of_features = np.column_stack([roots, terms.left[:, self._finest_first(len(tree.ranks))] / roots[:, None]])
        rows = [np.column_stack([np.arange(n), self._paths()]).ravel()]
        values = [axis.outwards(of_features).ravel()]
        sizes = [np.full(n, 1 + r)]
        for level in reversed(range(len(tree.ranks))):
            rank, nodes, above = tree.ranks[level], tree.n_nodes(level), self._ancestors(level)
            if rank == 0:
                continue
            own = self._first[level] + np.arange(nodes * rank).reshape(nodes, rank)
            R, A = self._known.R[level], self._known.A[level][:, :, self._finest_first(level)]
            # Node by node, and in it column by column: from the diagonal down, then the ancestors.
            rows.append(np.concatenate([part for i in range(rank) for part in (own[:, i:], above)], axis=1).ravel())
            values.append(
                np.concatenate([part for i in range(rank) for part in (R[:, i:, i], A[:, i])], axis=1).ravel()
            )
            sizes.append(np.tile(rank - np.arange(rank) + above.shape[1], nodes))
        pointers = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
        return csc_array((np.concatenate(values), np.concatenate(rows), pointers), shape=self.shape)

    def _paths(self) -> NDArray[np.intp]:
        """Rows of E of the r factors of every feature's path, finest level first; features in the user's order."""
        tree = self._covariance._terms.tree
        last = tree.leaf_level
        own = self._first[last] + np.arange(tree.n_nodes(last) * tree.ranks[last]).reshape(tree.n_nodes(last), -1)
        of_leaves = np.concatenate([own, self._ancestors(last)], axis=1)
        return np.repeat(of_leaves, np.diff(tree.leaves), axis=0)[self._covariance._rows.place]

    def _ancestors(self, level: int) -> NDArray[np.intp]:
        """Rows of E of the factors above every node of a level, finest level first."""
        tree = self._covariance._terms.tree
        nodes = np.arange(tree.n_nodes(level))
        columns = [np.empty((len(nodes), 0), dtype=np.intp)]
        while level:
            nodes, level = tree.parents[level][nodes], level - 1
            rank = tree.ranks[level]
            columns.append(self._first[level] + nodes[:, None] * rank + np.arange(rank))
        return np.concatenate(columns, axis=1)

    def _finest_first(self, below: int) -> NDArray[np.intp]:
        """Columns of the compressed loadings of the levels above ``below``, finest level first."""
        tree = self._covariance._terms.tree
        every = [np.arange(tree.columns[level], tree.columns[level + 1]) for level in reversed(range(below))]
        return np.concatenate([np.empty(0, dtype=np.intp), *every])

    def _by_node(self, values: Floats) -> list[Floats]:
        """Values of all factors, in the order of E, as nodes x factors x columns by level."""
        tree, n = self._covariance._terms.tree, len(self._covariance._rows)
        return [
            values[first - n : first - n + nodes * rank].reshape(nodes, rank, values.shape[1])
            for first, nodes, rank in zip(
                self._first, map(tree.n_nodes, range(len(tree.ranks))), tree.ranks, strict=True
            )
        ]

    def solve(self, b: Any) -> Any:
        """E^-1 b.

        Parameters
        ----------
        b : array, Series or DataFrame
            n + s values, or as many rows, in the order of :attr:`labels` (a Series or DataFrame is aligned by them).
        """
        terms, n = self._covariance._terms, len(self._covariance._rows)
        rows = Axis(self.labels)
        array, hand_back = rows.take(b, "b")
        Y = np.ascontiguousarray(self._covariance._rows.inwards(array[:n]))
        of_nodes = self._by_node(array[n:])
        sweep, tree = Sweep(terms.tree, Y.shape[1], elimination=self._known), terms.tree
        precisions = 1 / terms.diag

        def fill(task: Task, products: Products) -> None:
            # (I + F'D^-1 F) z = F'D^-1 b - c: a node's c enters with the first of its leaf groups.
            own = task.features
            leaf_products(terms.left[own], precisions[own], Y[own], task.leaves, sweep.tile, *products)
            for level, nodes, leaves in _first_met(tree, task):
                factors = tree.own(level)
                if factors.stop <= len(products.B_shared):
                    products.B_shared[factors] -= of_nodes[level][nodes[0]]
                else:
                    products.B_inner[leaves, _after(factors, products.B_shared)] -= of_nodes[level][nodes]

        z = [np.empty_like(c) for c in of_nodes]

        def keep(task: Task, means: Means) -> None:
            for level, nodes, leaves in _first_met(tree, task):
                factors = tree.own(level)
                if factors.stop <= len(means.Z_shared):
                    z[level][nodes[0]] = means.Z_shared[factors]
                else:
                    z[level][nodes] = means.Z_inner[leaves, _after(factors, means.Z_shared)]

        with Workers() as workers:
            sweep.forward(fill, workers)
            sweep.backward(keep, workers)
            x = scatter(sweep, terms.left, Y, np.ones(n), -1.0, precisions, workers)
        parts = [self._covariance._rows.outwards(x)]
        parts += [z[level].reshape(-1, Y.shape[1]) for level in reversed(range(len(tree.ranks)))]
        return hand_back(np.concatenate(parts), rows)


def _first_met(tree: Tree, task: Task) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.intp]]]:
    """Nodes whose first feature is in a task: level, nodes, and which of the task's leaf groups they begin with."""
    for level, bounds in enumerate(tree.offsets):
        first, last = np.searchsorted(bounds[:-1], [task.features.start, task.features.stop])
        nodes = np.arange(first, last)
        if len(nodes) and tree.ranks[level]:
            yield level, nodes, np.searchsorted(task.leaves, bounds[nodes] - task.features.start)


def _after(factors: slice, shared: Floats) -> slice:
    """Columns counted from the first that is not shared."""
    return slice(factors.start - len(shared), factors.stop - len(shared))
