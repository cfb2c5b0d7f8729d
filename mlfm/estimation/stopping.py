"""When to stop: on the log-likelihood that is still to be gained, never on small changes."""

from __future__ import annotations

import math
import sys


class AitkenGain:
    """Projected remaining gain of a linearly converging sequence, by Aitken's extrapolation.

    If the sequence gains d over the last k steps and gained d / a over the k steps before them, it will gain
    d a / (1 - a) from here on. The stretch k grows with the sequence: single steps near the end are little more
    than rounding, and the slowest mode, which decides, shows best over many.
    """

    SHARE = 8  # a stretch is this part of the whole sequence
    ROUNDING = 64 * sys.float_info.epsilon  # relative; less than this over a whole stretch is no gain

    def __init__(self) -> None:
        self._values: list[float] = []

    def after(self, value: float) -> float:
        """The gain still to come once the sequence has reached ``value``; infinite while it cannot be told."""
        self._values.append(value)
        last = len(self._values) - 1
        stretch = max(1, last // self.SHARE)
        if last < 2 * stretch:
            return math.inf
        middle, first = self._values[last - stretch], self._values[last - 2 * stretch]
        gained, before = value - middle, middle - first
        if abs(gained) <= self.ROUNDING * abs(value):
            return 0.0
        if not 0 < gained < before:
            return math.inf
        ratio = gained / before
        return gained * ratio / (1 - ratio)


class Stays:
    """True once a value has stayed below a bound a number of times in a row."""

    def __init__(self, bound: float, times: int = 3) -> None:
        self._bound, self._times, self._seen = bound, times, 0

    def __call__(self, value: float) -> bool:
        self._seen = self._seen + 1 if value < self._bound else 0
        return self._seen >= self._times
