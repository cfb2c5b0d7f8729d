"""How much a search may do: counted work, never the clock, so that results do not depend on the machine."""

from __future__ import annotations

from typing import NamedTuple

from mlfm.estimation.incomplete import IncompleteProblem
from mlfm.estimation.methods import AnyProblem

#: What one climb may take before a search does less than it would: on slow machines about a second.
SHORT = 4e9
LONGER = 0.5  # from there on the multiple falls with this power of the work
LEAST = 0.5  # of the first climb: what must be left for another one to begin
#: Evaluations of a climb that does not begin near a maximum.
USUAL = 60
#: The work of such a climb from which on there is time for little else.
LONG = 1e11


class Effort(NamedTuple):
    """The work of a whole search in climbs from the first start, where these are short, and the rounds without a higher
    maximum after which it ends.
    """

    climbs: float
    patience: int

    def most(self, first: float) -> float:
        """The work that may be done when the first climb took ``first``; none beyond it where that is long."""
        multiple = self.climbs * min(1.0, (SHORT / first) ** LONGER)
        return first * multiple if multiple >= 1 + LEAST else 0.0


#: The searches by name.
SEARCHES: dict[str, Effort | None] = {"none": None, "default": Effort(8.0, 1), "thorough": Effort(40.0, 10)}


def usual_search(method: str) -> str:
    """The search where none is asked for: EM creeps, and so would every climb of a search."""
    return "default" if method == "scoring" else "none"


def usual_start(problem: AnyProblem) -> str:
    """Where a fit begins unless it is told: "pca" mostly ends higher, and a search goes on from it; "top-down" mostly
    takes fewer evaluations, which is what counts where there is no time for a search.
    """
    return "pca" if USUAL * work(problem) < LONG else "top-down"


def work(problem: AnyProblem) -> float:
    """One evaluation: n features, r factors on a path, the data and the groups' own matrices."""
    columns = (problem.data.Y if isinstance(problem, IncompleteProblem) else problem.Y).shape[1]
    n, r = len(problem.floor), problem.tree.n_factors
    return float(n * (r + 1) * (columns + 3 * r + 1))
