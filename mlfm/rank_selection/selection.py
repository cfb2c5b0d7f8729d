"""What a search for ranks found, to be read, printed and plotted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from textwrap import fill
from typing import TYPE_CHECKING, Any

import pandas as pd

from mlfm.reporting.plots.rank_path import rank_path
from mlfm.results import MultilevelFactorResults
from mlfm.wording import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

SHOWN = 8  # fits that are printed
NAMES = {
    "aic": "AIC", "bic": "BIC", "sabic": "SABIC", "ebic": "EBIC", "cv": "held-out log-likelihood per observation",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class RankSelection:
    """Ranks that were chosen, made by :func:`mlfm.select_ranks`.

    Attributes
    ----------
    ranks : Series
        Factors of each group, by level.
    results : MultilevelFactorResults
        The fit with these ranks.
    criterion : str
        What they were chosen by.
    path : DataFrame
        One row a fit, in the order in which they were made, indexed by the ranks of the levels: ``climb`` and ``step``,
        the search from which start, and how many moves were looked for before; ``move``, in words, from the ranks the
        search had come to; ``llf``, ``df_model``, ``aic``, ``bic``, ``sabic``, ``ebic``, as those of the results (less
        is better); by cross-validation also ``cv`` and ``cv_se``, the held-out log-likelihood an observation (more is
        better) with its standard error; ``converged``; ``accepted``, whether the search went there.
    routes : list of lists of tuples
        Where each climb went, from its start on; a climb ends at ranks that another one has been to, or at the best
        within one move.
    notes : tuple of str
        What to know about the choice.
    """

    ranks: pd.Series
    results: MultilevelFactorResults
    criterion: str
    path: pd.DataFrame
    routes: list[list[tuple[int, ...]]]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        notes = (f"\n{fill(f'Note: {note}', 80)}" for note in self.notes)
        return "\n".join([self._head(), "", self._shown().to_string(sparsify=False), *notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<p>{escape(self._head())}</p>{self._shown().to_html(sparsify=False)}{notes}"

    def plot(self, ax: Axes | FigureBase | None = None) -> Figure:
        """The criterion of every fit: a line through those that a climb went to, dots for those that none did.

        Parameters
        ----------
        ax : matplotlib axes or figure, optional

        Returns
        -------
        matplotlib.figure.Figure
            Distances from the best ranks; beyond 10 (of the held-out log-likelihood, a tenth) the scale is logarithmic.
        """
        near = 0.1 if self.criterion == "cv" else 10.0
        return rank_path(self.path, self._behind(), self.routes, near, NAMES[self.criterion], self._words(), ax)

    def _behind(self) -> pd.Series:
        """How far the criterion of every fit is behind that of the ranks chosen."""
        values = -self.path["cv"] if self.criterion == "cv" else self.path[self.criterion]
        return values - values.loc[tuple(int(rank) for rank in self.ranks)]

    def _head(self) -> str:
        by = NAMES[self.criterion]
        return f"Ranks by {by}: {self._words()} (of {count(len(self.path), 'fit')})"

    def _words(self) -> str:
        return ", ".join(f"{level} {rank}" for level, rank in self.ranks.items())

    def _shown(self) -> pd.DataFrame:
        """The best fits, the best one first."""
        behind = self._behind()
        order = behind.where(self.path["converged"], float("inf")).to_numpy().argsort(kind="stable")[:SHOWN]
        best = self.path.iloc[order]

        def columns() -> Iterator[tuple[str, list[Any]]]:
            yield "llf", [f"{value:.2f}" for value in best["llf"]]
            yield "df_model", [str(value) for value in best["df_model"]]
            digits = 4 if self.criterion == "cv" else 2
            yield self.criterion, [f"{value:.{digits}f}" for value in best[self.criterion]]
            if self.criterion == "cv":
                yield "cv_se", [f"{value:.4f}" for value in best["cv_se"]]
            yield "behind", [f"{value:.{digits}f}" for value in behind.iloc[order]]
            yield "converged", ["yes" if value else "NO" for value in best["converged"]]

        return pd.DataFrame(dict(columns()), index=best.index)
