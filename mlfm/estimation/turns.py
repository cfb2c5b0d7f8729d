"""When the small leaf groups take their turn."""

from __future__ import annotations

import math

TURNS, PERIOD = 12, 10  # turns of the leaf groups in a row at most; steps from one to the next
EARLY = 3  # turns in which leaf groups descend from starts of their own too


class Turns:
    """When the small leaf groups take their turn (:mod:`mlfm.estimation.leaf_groups`).

    First, for as long as a turn gains more than a scoring step expects to; then now and then; and before the end, where
    they look once more whether another start of their own leads higher.
    """

    def __init__(self) -> None:
        self._taken, self._since, self._gained = 0, 0, math.inf

    def due(self, expected: float) -> bool:
        """Whether it is their turn, where a scoring step expects to gain so much."""
        first = self._since == 0 and self._taken < TURNS and self._gained > expected
        return first or self._since >= PERIOD

    @property
    def early(self) -> bool:
        """Whether so few have been taken that groups descend from starts of their own too."""
        return self._taken < EARLY

    def stepped(self) -> None:
        """A step of another kind was made."""
        self._since += 1

    def taken(self, gained: float) -> None:
        """A turn gained so much."""
        self._taken, self._since, self._gained = self._taken + 1, 0, gained
