"""Quasi-Newton memory: pairs of steps and gradient changes (Nocedal and Wright, section 7.2), damped (Powell 1978)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Pair(NamedTuple):
    """A step s and the fall y of the gradient along it."""

    s: Floats
    y: Floats


class Memory:
    """The last pairs, and the ascent direction that they make of a gradient and a metric."""

    DAMPING = 0.2  # s'y is held above this share of s'Bs
    FLAT = 1e-9  # pairs with a smaller cosine between s and y say nothing

    def __init__(self, size: int) -> None:
        self._size = size
        self._pairs: list[Pair] = []

    def __len__(self) -> int:
        return len(self._pairs)

    def keep(self, number: int) -> None:
        """Drop all but the last ``number`` pairs."""
        self._pairs = self._pairs[len(self._pairs) - number :] if number else []

    def add(self, s: Floats, y: Floats, Bs: Floats) -> None:
        """Add a pair, damped towards Bs, what the model expected the gradient to fall by; changes y.

        A pair that shows no curvature at all clears the memory: it comes from another region.
        """
        sBs, sy = float(s @ Bs), float(s @ y)
        if sBs > 0 and sy < self.DAMPING * sBs:
            mix = (1 - self.DAMPING) * sBs / (sBs - sy)
            y *= mix
            y += (1 - mix) * Bs
            sy = float(s @ y)
        if sy > 0:
            self._pairs = [*self._pairs, Pair(s, y)][-self._size :]
        else:
            self._pairs = []

    def direction(self, gradient: Floats, fixed: NDArray[np.intp], metric: Callable[[Floats], Floats]) -> Floats:
        """The two-loop recursion on the coordinates that are not fixed (positions in the vectors).

        ``gradient`` is 0 at the fixed coordinates, and so is what ``metric`` returns.
        """
        q = gradient.copy()
        used: list[tuple[Pair, float, float]] = []
        for pair in reversed(self._pairs):
            sy = _free_product(pair.s, pair.y, fixed)
            if sy <= self.FLAT * np.sqrt(_free_product(pair.s, pair.s, fixed) * _free_product(pair.y, pair.y, fixed)):
                continue
            along = float(pair.s @ q) / sy
            q -= along * pair.y
            q[fixed] = 0
            used.append((pair, sy, along))
        direction = metric(q)
        for pair, sy, along in reversed(used):
            direction += (along - float(pair.y @ direction) / sy) * pair.s
            direction[fixed] = 0
        return direction


def _free_product(x: Floats, y: Floats, fixed: NDArray[np.intp]) -> float:
    """x'y without the fixed coordinates."""
    return float(x @ y) - float(x[fixed] @ y[fixed])
