"""The search: from some ranks to better neighbours until there are none."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from mlfm.exceptions import MlfmWarning
from mlfm.rank_selection.candidates import Asked, Candidates
from mlfm.rank_selection.moves import contains, neighbours
from mlfm.rank_selection.outlook import Beginning, Outlook
from mlfm.ranks import ByLevel, in_words

#: Neighbours that are fitted before the best of them may be moved to. On real and simulated data two need the fewest
#: fits.
FEW = 2


class Bounds(NamedTuple):
    """Where the search may go."""

    most: ByLevel
    keep_total: bool

    def around(self, ranks: ByLevel) -> list[ByLevel]:
        """The neighbours within bounds."""
        return list(neighbours(ranks, self.most, self.keep_total))


class Search:
    """Moves to a better neighbour, the likely ones tried first, until all neighbours are known and none is better.

    After Parshakova, Hastie, Darve and Boyd (arXiv 2310.19214), where ranks are exchanged between levels to lower the
    Frobenius norm of what is left.
    """

    def __init__(self, candidates: Candidates, bounds: Bounds) -> None:
        self._candidates, self._bounds = candidates, bounds
        self._visited: set[ByLevel] = set()
        self._step = 0
        self.routes: list[list[ByLevel]] = []  # where each climb went, from its start on

    def climb(self, name: str, ranks: ByLevel) -> None:
        """From some ranks, until they have been visited before or no neighbour is better."""
        self.routes.append([])
        if ranks not in self._candidates.known:
            self._candidates.fit([Asked(ranks, name, {})], len(self.routes), self._step)
        self._go_on(ranks)

    def finish(self) -> ByLevel:
        """The best of all fits, begun from all of its neighbours too, none of which is better."""
        while True:
            best = self._candidates.best()
            known, around = self._candidates.known, self._bounds.around(best)
            if best not in self._visited or any(ranks not in known for ranks in around):
                # It was raised after it had been passed by.
                self._visited.discard(best)
                self.routes.append([])
                self._go_on(best)
            elif contenders := self._candidates.contenders():
                self._candidates.search(contenders)
            elif others := [ranks for ranks in around if ranks not in known[best].begun]:
                self._candidates.begin_again(
                    [Asked(best, "", {ranks: self._from(ranks, [best])[best] for ranks in others})]
                )
            else:
                return best

    def _go_on(self, ranks: ByLevel) -> None:
        while ranks not in self._visited:
            self._visited.add(ranks)
            self.routes[-1].append(ranks)
            self._candidates.known[ranks].accepted = True
            ranks = self._better(ranks)
        if self.routes[-1][-1:] != [ranks]:
            self.routes[-1].append(ranks)

    def _better(self, ranks: ByLevel) -> ByLevel:
        """A better neighbour, or the same ranks where there is none."""
        candidates, known = self._candidates, self._candidates.known
        around = self._bounds.around(ranks)
        unknown = [other for other in around if other not in known]
        # One factor more often gets highest from here, so larger ranks that are known are begun from here too.
        larger = [
            other for other in around if other in known and contains(other, ranks) and ranks not in known[other].begun
        ]
        expected = self._from(ranks, unknown + larger)
        if larger:
            candidates.begin_again([Asked(other, "", {ranks: expected[other]}) for other in larger])
        waiting = sorted(unknown, key=lambda other: (candidates.expected(other, expected[other]), other))
        self._step += 1
        while True:
            few, waiting = waiting[:FEW], waiting[FEW:]
            levels = candidates.model.hierarchy.levels
            asked = [Asked(other, in_words(ranks, other, levels), {ranks: expected[other]}) for other in few]
            if asked:
                candidates.fit(asked, len(self.routes), self._step)
            best = min((other for other in around if other in known), key=candidates.value, default=ranks)
            if candidates.better(best, ranks):
                return best
            if not waiting:
                return ranks

    def _from(self, ranks: ByLevel, others: list[ByLevel]) -> dict[ByLevel, Beginning]:
        """Where to begin neighbours, coming from some ranks."""
        if not others:
            return {}
        outlook = Outlook(self._candidates.known[ranks].results)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MlfmWarning)
            return {other: outlook.of(other) for other in others}
