"""When to stop: on the log-likelihood that is still to be gained, never on small changes."""

from __future__ import annotations

import math
import sys


class AitkenGain:
    """Projected remaining gain of a linearly converging sequence, by Aitken's extrapolation.

    With increments d_t that shrink by a factor a = d_t / d_(t-1), the sum of those to come is d_t a / (1 - a).
    """

    def __init__(self) -> None:
        self._last = math.nan
        self._increment = math.nan

    def after(self, llf: float) -> float:
        """The gain still to come once the sequence has reached ``llf``; infinite while it cannot be told."""
        increment = llf - self._last
        before, self._increment, self._last = self._increment, increment, llf
        if math.isnan(before):
            return math.inf
        if abs(increment) <= 8 * sys.float_info.epsilon * abs(llf):
            return 0.0  # nothing but rounding
        if not 0 < increment < before:
            return math.inf
        rate = increment / before
        return increment * rate / (1 - rate)


class Stays:
    """True once a value has stayed below a bound a number of times in a row."""

    def __init__(self, bound: float, times: int = 3) -> None:
        self._bound, self._times, self._seen = bound, times, 0

    def __call__(self, value: float) -> bool:
        self._seen = self._seen + 1 if value < self._bound else 0
        return self._seen >= self._times
