"""What every operator here has in common: labels in and out, SciPy's interface, and that it never changes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from mlfm.alignment import positions
from mlfm.arrays import floating_array
from mlfm.hierarchy import Hierarchy
from mlfm.wording import listing

Floats = NDArray[np.float64]


class Frozen:
    """Objects that cannot be changed once they are made.

    Copies and pickles hold what an object was given before it was frozen; what it works out when first asked is worked
    out again.
    """

    _held: frozenset[str]  # names of attributes

    def _freeze(self, foreign: Iterable[str] = ()) -> None:
        """Nothing more is given; ``foreign`` are attributes that are not this object's to copy."""
        vars(self)["_held"] = frozenset(vars(self)).difference(foreign)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name in self._held}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._freeze()

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_change()
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse_change()
        super().__delattr__(name)

    def _refuse_change(self) -> None:
        if "_held" in vars(self):
            raise AttributeError(f"a {type(self).__name__} cannot be changed; make a new one")


def number(x: Any) -> float:
    """A finite real number, or an error."""
    value = x.item() if isinstance(x, (np.generic, np.ndarray)) else x
    if not isinstance(value, (int, float)):
        raise TypeError(f"a real number is needed, not {x!r}")
    if not math.isfinite(value):
        raise ValueError(f"a finite number is needed, not {x!r}")
    return float(value)


class Axis(Frozen):
    """The rows or the columns of an operator: their labels, and the order in which arrays are worked on.

    Parameters
    ----------
    labels : Index
        In the user's order.
    order : int array, optional
        ``labels[order]`` is the working order; by default the user's.
    """

    def __init__(self, labels: pd.Index, order: NDArray[np.intp] | None = None) -> None:
        self.labels = labels
        same = order is None or bool((order == np.arange(len(labels))).all())
        self.order = None if same else order
        self._freeze()

    @classmethod
    def of(cls, hierarchy: Hierarchy) -> Axis:
        """Features, worked on in group order."""
        return cls(hierarchy.features, hierarchy.permutation)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def place(self) -> NDArray[np.intp]:
        """Where each label stands in the working order."""
        place = np.arange(len(self.labels))
        if self.order is not None:
            place[self.order] = np.arange(len(self.labels))
        return place

    def inwards(self, array: Floats) -> Floats:
        """From the user's order of rows to the working order."""
        return array if self.order is None else array[self.order]

    def outwards(self, array: Floats) -> Floats:
        """From the working order of rows to the user's; the array itself where they are the same."""
        return array if self.order is None else array[self.place]

    def take(self, x: Any, name: str) -> tuple[Floats, Callable[[Floats, Axis], Any]]:
        """An argument with these rows as an n x k array in working order, and the way to hand back what is made of it.

        What has the same rows as the argument comes back in the argument's order, anything else in the user's.
        """
        labelled = isinstance(x, (pd.Series, pd.DataFrame))
        where = positions(feature_names(x.index, self.labels), self.labels, name) if labelled else None
        values = np.asarray(floating_array(x, name), dtype=np.float64)
        n = len(self)
        if values.ndim not in (1, 2) or values.shape[0] != n:
            raise ValueError(f"{name}: shape ({n},) or ({n}, k) is needed, not {values.shape}")
        refuse_gaps(values, name, x.index if labelled else self.labels)
        flat = values.ndim == 1
        if where is not None:
            values = values[where]
        array = np.ascontiguousarray(self.inwards(values[:, None] if flat else values))

        def hand_back(out: Floats, axis: Axis) -> Any:
            result = axis.outwards(out)
            result = result[:, 0] if flat else result
            if not labelled:
                return result
            index = axis.labels
            if where is not None and axis.labels.equals(self.labels):
                placed = np.empty_like(result)
                placed[where] = result
                result, index = placed, x.index
            if isinstance(x, pd.Series):
                return pd.Series(result, index=index, name=x.name)
            return pd.DataFrame(result, index=index, columns=x.columns)

        return array, hand_back


def feature_names(index: pd.Index, features: pd.Index) -> pd.Index:
    """Names of features in an index: its last level where it holds groups as well, as in a hierarchy's MultiIndex."""
    if isinstance(index, pd.MultiIndex) and not isinstance(features, pd.MultiIndex):
        return index.get_level_values(-1)
    return index


def refuse_gaps(values: Floats, name: str, labels: pd.Index) -> None:
    """A ValueError where values are missing or infinite."""
    # A sum is one pass without an array of its own; it may overflow, so that only a finite one decides.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):
            return
    bad = ~np.isfinite(values)
    if bad.any():
        rows = labels[bad if bad.ndim == 1 else bad.any(axis=1)]
        raise ValueError(f"{name}: {int(bad.sum())} values are missing or infinite, at {listing(rows)}")


class FrozenOperator(Frozen, LinearOperator):
    """A LinearOperator with labelled rows and columns that cannot be changed.

    Vectors and matrices, also as Series and DataFrames, which are aligned by label; a vector gives a vector. Products
    and sums with operators of other kinds are SciPy's and know no labels.
    """

    def __init__(self, rows: Axis, columns: Axis) -> None:
        own = set(vars(self))
        super().__init__(np.dtype(np.float64), (len(rows), len(columns)))
        self._of_scipy = set(vars(self)) - own
        self._rows, self._columns = rows, columns

    def _freeze(self, foreign: Iterable[str] = ()) -> None:
        # What SciPy keeps in an operator differs from version to version: it is made anew, never copied.
        super()._freeze({*foreign, *self._of_scipy, "_of_scipy"})

    def __setstate__(self, state: dict[str, Any]) -> None:
        FrozenOperator.__init__(self, state["_rows"], state["_columns"])
        super().__setstate__(state)

    @abstractmethod
    def _times(self, X: Floats) -> Floats:
        """The product with an n x k array, everything in working order."""

    @abstractmethod
    def _transposed_times(self, X: Floats) -> Floats:
        """The product of the transpose with an n x k array, everything in working order."""

    def __array__(self, *_: Any, **__: Any) -> Floats:
        # pandas asks for an array where a Series or DataFrame stands on the left of a product.
        raise TypeError(
            f"a {type(self).__name__} is not an array: put it on the left of a product, (A.T @ frame.T).T for "
            "frame @ A; to_dense() of a matrix makes an array of it"
        )

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"<{type(self).__name__}, {rows} x {columns}>"

    def dot(self, x: Any) -> Any:
        """The product with a vector or a matrix; with another operator, an operator; with a number, a multiple.

        Parameters
        ----------
        x : array, Series, DataFrame, LinearOperator or number
            A vector of length n or a matrix n x k. Series and DataFrames are aligned by label, and the result is
            labelled.
        """
        from mlfm.covariance.composition import Multiple, Product

        if isinstance(x, FrozenOperator) and self._columns.labels.equals(x._rows.labels):
            return Product(self, x)
        if isinstance(x, LinearOperator):
            return super().dot(x)
        return Multiple(number(x), self) if np.ndim(x) == 0 else self._labelled_times(x)

    def __rmul__(self, x: Any) -> Any:
        return self.dot(x) if np.ndim(x) == 0 else self.rdot(x)

    def __rmatmul__(self, x: Any) -> Any:
        if np.ndim(x) == 0:
            raise ValueError("a number is not multiplied by @, but by *")
        return self.rdot(x)

    def __neg__(self) -> Any:
        return self.dot(-1.0)

    def __truediv__(self, x: Any) -> Any:
        if np.ndim(x):
            raise TypeError("a matrix can be divided by a number; scale(1 / d) divides rows and columns by theirs")
        divisor = number(x)
        if divisor == 0:
            raise ZeroDivisionError("a matrix divided by 0")
        return self.dot(1 / divisor)

    def __add__(self, x: Any) -> Any:
        from mlfm.covariance.composition import Sum

        if isinstance(x, FrozenOperator):
            mine, theirs = (self._rows, self._columns), (x._rows, x._columns)
            if all(a.labels.equals(b.labels) for a, b in zip(mine, theirs, strict=True)):
                return Sum(self, x)
        if isinstance(x, LinearOperator):
            return super().__add__(x)
        if np.ndim(x) == 0 and number(x) == 0:  # where sum() begins
            return self
        raise TypeError(
            f"{type(x).__name__} cannot be added to a {type(self).__name__}, only another operator can; to_dense() of "
            "a matrix makes an array of it"
        )

    __radd__ = __add__

    def __sub__(self, x: Any) -> Any:
        return self + (-x if isinstance(x, LinearOperator) else x)

    def __rsub__(self, x: Any) -> Any:
        return -self + x

    def matvec(self, x: Any) -> Any:
        """The product with a vector (n or n x 1), labelled if the vector is."""
        if np.ndim(x) != 1 and np.shape(x)[1:] != (1,):
            raise ValueError(f"x: a vector is needed, not an array of shape {np.shape(x)}; use @ for matrices")
        return self._labelled_times(x)

    def matmat(self, X: Any) -> Any:
        """The product with a matrix n x k, labelled if the matrix is."""
        if np.ndim(X) != 2:
            raise ValueError(f"X: a matrix is needed, not an array of shape {np.shape(X)}; use @ for vectors")
        return self._labelled_times(X)

    def rmatvec(self, x: Any) -> Any:
        """The product of the transpose with a vector."""
        return self.T.matvec(x)

    def rmatmat(self, X: Any) -> Any:
        """The product of the transpose with a matrix."""
        return self.T.matmat(X)

    def _labelled_times(self, x: Any, name: str = "x") -> Any:
        array, hand_back = self._columns.take(x, name)
        return hand_back(self._times(array), self._rows)

    def _matmat(self, X: Any) -> Any:  # SciPy asks for it; everything comes in by the methods above
        return self._labelled_times(X)

    def rdot(self, x: Any) -> Any:
        """x @ self: with a vector or a matrix on the left, an operator, or a number.

        Parameters
        ----------
        x : array, Series, DataFrame, LinearOperator or number
            A vector of as many elements as there are rows, or a matrix with a column for each. A Series is aligned by
            label, and a DataFrame by the labels of its columns.
        """
        if isinstance(x, LinearOperator):
            return x.dot(self)
        if not hasattr(x, "ndim"):
            x = np.asarray(x)
        if x.ndim == 0:
            return self.dot(x)
        if x.ndim > 2:
            raise ValueError(f"x: a vector or a matrix is needed, not {x.ndim} dimensions")
        return self.T.dot(x) if x.ndim == 1 else self.T.dot(x.T).T

    def transpose(self) -> LinearOperator:
        """The transpose, an operator."""
        return Transposed(self)

    @property
    def T(self) -> Any:
        """The transpose."""
        return self.transpose()

    def adjoint(self) -> LinearOperator:
        """The adjoint, which is the transpose."""
        return self.transpose()

    @property
    def H(self) -> Any:
        """The adjoint, which is the transpose."""
        return self.transpose()

    def _adjoint(self) -> LinearOperator:  # SciPy asks for it
        return self.transpose()


class Transposed(FrozenOperator):
    """The transpose of an operator."""

    def __init__(self, operator: FrozenOperator) -> None:
        super().__init__(operator._columns, operator._rows)
        self._operator = operator
        self._freeze()

    def _times(self, X: Floats) -> Floats:
        return self._operator._transposed_times(X)

    def _transposed_times(self, X: Floats) -> Floats:
        return self._operator._times(X)

    def transpose(self) -> LinearOperator:
        return self._operator
