"""Fits of many ranks to the same data, each made once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlfm.evidence import evidence_of
from mlfm.inference.counts import free_loadings
from mlfm.rank_selection.criteria import CRITERIA, CV_PRICE
from mlfm.rank_selection.moves import contains
from mlfm.rank_selection.outlook import Beginning
from mlfm.ranks import ByLevel
from mlfm.sweep import Workers
from mlfm.validation import CrossValidation, Split, cross_validate

if TYPE_CHECKING:
    from mlfm.model import MultilevelFactorModel
    from mlfm.results import MultilevelFactorResults

#: By how much less a criterion must be to be better: what two log-likelihoods may be off, and some.
MARGIN = 1e-3
#: By how much a search may be hoped to lower a criterion: fits that are no more than this behind the best are searched.
CONTENDERS = 30.0


class Asked(NamedTuple):
    """Ranks to fit: how the search comes to them, and where to begin besides the default starts."""

    ranks: ByLevel
    move: str
    beginnings: dict[ByLevel, Beginning]  # by the ranks of the fit that they come from


@dataclass
class Candidate:
    """A fit, and how the search came by it."""

    results: MultilevelFactorResults
    validated: CrossValidation | None
    climb: int
    step: int
    move: str
    begun: set[ByLevel] = field(default_factory=set)  # fits that this one was begun from
    accepted: bool = False
    searched: bool = False  # for the highest maximum

    @property
    def converged(self) -> bool:
        """Of the fit and, where there are any, all fits of the cross-validation."""
        return self.results.converged and (self.validated is None or bool(self.validated.folds["converged"].all()))


class Candidates:
    """Fits by ranks. ``n_jobs`` of them are made at a time, on a thread each; they do not depend on it.

    A fit is the higher one of that from where a neighbour ended and that from the default starts: either is lower often
    enough. One that ends below that of smaller ranks is begun from there too. Where there will be no smaller ranks,
    ``n_starts`` of the usual starts are better followed to their ends.
    """

    def __init__(
        self, model: MultilevelFactorModel, criterion: str, splits: Sequence[Split], n_starts: int, n_jobs: int | None,
        penalty: str, show: Callable[[], None],
    ) -> None:  # fmt: skip
        self.model, self.criterion = model, criterion
        self._splits, self._n_starts, self._n_jobs, self._show = list(splits), n_starts, n_jobs, show
        self._penalty = penalty
        self.known: dict[ByLevel, Candidate] = {}

    def value(self, ranks: ByLevel) -> float:
        """The criterion, less being better, of ranks that were fitted; infinite where the fit did not converge."""
        candidate = self.known[ranks]
        return self._value(candidate) if candidate.converged else np.inf

    def _value(self, candidate: Candidate) -> float:
        if candidate.validated is not None:
            return -2 * candidate.validated.mean * self.model.effective_nobs
        return CRITERIA[self.criterion].of(candidate.results)

    def better(self, ranks: ByLevel, than: ByLevel) -> bool:
        """Whether the criterion is better by more than fits are off."""
        return self.value(ranks) < self.value(than) - MARGIN

    def best(self) -> ByLevel:
        """The ranks with the least criterion; of fits that did not converge only if none did."""
        return min(self.known, key=lambda ranks: (self.value(ranks), self._value(self.known[ranks])))

    def expected(self, ranks: ByLevel, beginning: Beginning) -> float:
        """The criterion to expect, less what is the same for all ranks."""
        price = CV_PRICE if self._splits else CRITERIA[self.criterion].price(self.model)
        return -2 * beginning.llf + price * sum(free_loadings(self.model.hierarchy, ranks))

    def fit(self, asked: Sequence[Asked], climb: int, step: int) -> None:
        """Make fits of ranks that are not yet known."""
        models = {ranks: self.model._of_other_ranks(ranks) for ranks, _, _ in asked}
        starts = [(own.ranks, start) for own in asked for start in (None, *own.beginnings.values())]
        fits = self._fits(models, starts)
        validated: dict[ByLevel, CrossValidation | None] = dict.fromkeys(models)
        if self._splits:
            ranks = list(models)

            def validate(i: int) -> None:
                validated[ranks[i]] = cross_validate(models[ranks[i]], self._splits, penalty=self._penalty)

            self._run(validate, len(ranks))
        for own in asked:
            best = _higher([fit for fit, (ranks, _) in zip(fits, starts, strict=True) if ranks == own.ranks])
            candidate = Candidate(best, validated[own.ranks], climb, step, own.move, set(own.beginnings))
            self.known[own.ranks] = candidate
            self._show()
        self._raise_those_below_smaller_ones()

    def begin_again(self, asked: Sequence[Asked]) -> None:
        """Begin fits that are known elsewhere too, and keep the higher."""
        models = {ranks: self.known[ranks].results._with_data("the selection of ranks") for ranks, _, _ in asked}
        starts = [(own.ranks, start) for own in asked for start in own.beginnings.values()]
        for fit, (ranks, _) in zip(self._fits(models, starts), starts, strict=True):
            self.known[ranks].results = _higher([self.known[ranks].results, fit])
        for own in asked:
            self.known[own.ranks].begun.update(own.beginnings)
        self._raise_those_below_smaller_ones()

    def contenders(self) -> list[ByLevel]:
        """The best ranks, and those that may be better once their highest maximum has been searched for."""
        best = self.value(self.best())
        return [
            ranks
            for ranks, candidate in self.known.items()
            if not candidate.searched and candidate.converged and self.value(ranks) <= best + CONTENDERS
        ]

    def search(self, contenders: Sequence[ByLevel]) -> None:
        """Search for higher maxima of fits that are known, from where they are."""
        found: dict[int, MultilevelFactorResults] = {}
        elsewhere: dict[int, dict[ByLevel, Beginning]] = {}

        def make(i: int) -> None:
            results = self.known[contenders[i]].results
            model = results._with_data("the selection of ranks")
            found[i], around = model._search_quietly(model._group_parts(results.params.to_numpy()), self._penalty)
            elsewhere[i] = {ranks: Beginning(*there) for ranks, there in around.items()}

        self._run(make, len(contenders))
        for i, ranks in enumerate(contenders):
            candidate = self.known[ranks]
            candidate.results, candidate.searched = _higher([candidate.results, found[i]]), True
            self._show()
        self._raise([elsewhere[i] for i in range(len(contenders))])
        self._raise_those_below_smaller_ones()

    def _raise(self, found: Sequence[dict[ByLevel, Beginning]]) -> None:
        """Begin fits again where searches at other ranks have come higher on their way."""
        higher: dict[ByLevel, Beginning] = {}
        for ranks, there in (pair for one in found for pair in one.items()):
            least = higher[ranks].llf if ranks in higher else self._height(ranks) if ranks in self.known else np.inf
            if there.llf > least + MARGIN / 2:
                higher[ranks] = there
        models = {ranks: self.known[ranks].results._with_data("the selection of ranks") for ranks in higher}
        starts = list(higher.items())
        for fit, (ranks, _) in zip(self._fits(models, starts), starts, strict=True):
            self.known[ranks].results = _higher([self.known[ranks].results, fit])

    def _fits(
        self, models: dict[ByLevel, MultilevelFactorModel], starts: Sequence[tuple[ByLevel, Beginning | None]]
    ) -> list[MultilevelFactorResults]:
        found: dict[int, MultilevelFactorResults] = {}

        def make(i: int) -> None:
            ranks, start = starts[i]
            if start is None:
                found[i] = models[ranks]._fit_quietly(n_starts=self._n_starts, penalty=self._penalty)
            else:
                found[i] = models[ranks]._fit_quietly((start.B, start.F, start.D), penalty=self._penalty)

        self._run(make, len(starts))
        for model in models.values():  # data with missing values, summed up, are as large as the data
            model._evidence = evidence_of(model._tree, model._data)
        return [found[i] for i in range(len(starts))]

    def _raise_those_below_smaller_ones(self) -> None:
        """Begin fits with a lower likelihood than one of smaller ranks where that one ended."""
        while pairs := self._below_smaller_ones():
            found: dict[int, MultilevelFactorResults] = {}

            def again(
                i: int,
                pairs: list[tuple[ByLevel, ByLevel]] = pairs,
                found: dict[int, MultilevelFactorResults] = found,
            ) -> None:
                larger, start = pairs[i][0], self.known[pairs[i][1]].results
                found[i] = self.model._of_other_ranks(larger)._refit(like=start, start=start)

            self._run(again, len(pairs))
            for i, (larger, smaller) in enumerate(pairs):
                candidate = self.known[larger]
                candidate.begun.add(smaller)
                candidate.results = _higher([candidate.results, found[i]])

    def _below_smaller_ones(self) -> list[tuple[ByLevel, ByLevel]]:
        """Ranks with such a fit, and the smaller ones with the highest."""
        pairs = []
        for larger, candidate in self.known.items():
            within = [ranks for ranks in self.known if contains(larger, ranks) and ranks not in candidate.begun]
            highest = max(within, key=self._height, default=None)
            if highest is not None and self._height(highest) > self._height(larger) + MARGIN / 2:
                pairs.append((larger, highest))
        return pairs

    def _height(self, ranks: ByLevel) -> float:
        """What their fit maximised."""
        return self.known[ranks].results.record.llf

    def _run(self, task: Callable[[int], None], count: int) -> None:
        # Candidates say nothing: the one that is chosen will. Filters are the process's, so they are set out here.
        with warnings.catch_warnings(), Workers(self._n_jobs) as workers:
            warnings.simplefilter("ignore")
            workers.run(task, count)


def _higher(fits: Sequence[MultilevelFactorResults]) -> MultilevelFactorResults:
    """The fit with the higher likelihood; one that did not converge only if none did."""
    return max(fits, key=lambda fit: (fit.converged, fit.record.llf))
