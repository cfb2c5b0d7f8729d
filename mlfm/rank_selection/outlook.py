"""From a fit to its neighbours: how high they are likely to get, and where to start them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm.estimation.new_factors import gains
from mlfm.ranks import ByLevel
from mlfm.sweep import Workers

if TYPE_CHECKING:
    from mlfm.model import MultilevelFactorModel
    from mlfm.results import MultilevelFactorResults

Floats = NDArray[np.float64]


class Beginning(NamedTuple):
    """Parameters to begin a fit at, in group order and the user's units, and the log-likelihood expected there."""

    B: Floats
    F: Floats
    D: Floats
    llf: float


class Outlook:
    """What is to be expected of the neighbours of a fit.

    Without a level's weakest factor (the last in canonical rotation), what it explained is left to the uniquenesses,
    and the log-likelihood evaluated. One factor more gains what :mod:`mlfm.estimation.new_factors` says, from there or
    from the fit. Both are less than the maximum, as everything else stays where it was (the gain of large data is
    that of a sketch).
    """

    def __init__(self, results: MultilevelFactorResults) -> None:
        self._model: MultilevelFactorModel = results._with_data("the selection of ranks")
        self._ranks: ByLevel = self._model._ranks
        self._fit = Beginning(*self._model._group_parts(results.params.to_numpy()), results.llf)
        self._from: dict[int | None, tuple[Beginning, list[tuple[float, Floats]]]] = {}

    def of(self, ranks: ByLevel) -> Beginning:
        """Where to begin with a neighbour's ranks."""
        changes = [new - old for new, old in zip(ranks, self._ranks, strict=True)]
        less = changes.index(-1) if -1 in changes else None
        if 1 not in changes:
            return self._without(less)
        if less not in self._from:
            beginning = self._without(less)
            self._from[less] = beginning, self._gains(beginning, less)
        (B, F, D, llf), gains = self._from[less]
        more = changes.index(1)
        gained, f = gains[more]
        columns = np.split(F, np.cumsum(self._reduced(less))[:-1], axis=1)
        columns[more] = np.column_stack([columns[more], f])
        return Beginning(B, np.ascontiguousarray(np.hstack(columns)), D, llf + gained)

    def _reduced(self, less: int | None) -> ByLevel:
        return tuple(rank - (level == less) for level, rank in enumerate(self._ranks))

    def _without(self, less: int | None) -> Beginning:
        """The fit less the last factor of a level."""
        if less is None:
            return self._fit
        B, F, D, _ = self._fit
        last = sum(self._ranks[: less + 1]) - 1
        F, D = np.delete(F, last, axis=1), D + F[:, last] ** 2
        model = self._model._of_other_ranks(self._reduced(less))
        with Workers() as workers:
            return Beginning(B, F, D, model._evidence.loglike(B, F, D, workers))

    def _gains(self, beginning: Beginning, less: int | None) -> list[tuple[float, Floats]]:
        """Level by level the gain of one factor more, and its loadings."""
        problem, ranks = self._model._problem.stand_in, self._reduced(less)
        F, D = beginning.F / problem.scale[:, None], beginning.D / problem.scale**2
        offsets, rng = self._model.hierarchy.offsets, np.random.default_rng(0)
        with Workers(1) as workers:  # BLAS on one thread: the same digits everywhere
            found = gains(offsets, ranks, F, D, problem, range(len(ranks)), rng, workers)
        return [(gained, f * problem.scale) for gained, f in found]
