"""Multiples, products and sums of operators that keep their labels."""

from __future__ import annotations

from mlfm.covariance.operator import Floats, FrozenOperator, Transposed


class Multiple(FrozenOperator):
    """A number times an operator."""

    def __init__(self, factor: float, operator: FrozenOperator) -> None:
        super().__init__(operator._rows, operator._columns)
        self._factor, self._operator = factor, operator
        self._freeze()

    def _times(self, X: Floats) -> Floats:
        return self._factor * self._operator._times(X)

    def _transposed_times(self, X: Floats) -> Floats:
        return self._factor * self._operator._transposed_times(X)


class Product(FrozenOperator):
    """One operator after another, of the same features in between."""

    def __init__(self, first: FrozenOperator, second: FrozenOperator) -> None:
        super().__init__(first._rows, second._columns)
        self._first, self._second = first, second
        self._freeze()

    def _times(self, X: Floats) -> Floats:
        between = self._second._rows.outwards(self._second._times(X))
        return self._first._times(self._first._columns.inwards(between))

    def _transposed_times(self, X: Floats) -> Floats:
        between = self._first._columns.outwards(self._first._transposed_times(X))
        return self._second._transposed_times(self._second._rows.inwards(between))


class Sum(FrozenOperator):
    """Two operators with the same rows and the same columns, side by side."""

    def __init__(self, first: FrozenOperator, second: FrozenOperator) -> None:
        super().__init__(first._rows, first._columns)
        self._first, self._second = first, second
        self._freeze()

    def _times(self, X: Floats) -> Floats:
        return _added(self._first, self._second, X)

    def _transposed_times(self, X: Floats) -> Floats:
        return _added(Transposed(self._first), Transposed(self._second), X)


def _added(first: FrozenOperator, second: FrozenOperator, X: Floats) -> Floats:
    theirs = second._times(second._columns.inwards(first._columns.outwards(X)))
    return first._times(X) + first._rows.inwards(second._rows.outwards(theirs))
