"""How ranks were chosen: the criterion of every fit of the search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlfm.reporting.plots.canvas import LINES, REST, axes_of, colour, figure_of, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase


def rank_path(
    path: pd.DataFrame, behind: pd.Series, routes: Sequence[Sequence[tuple[int, ...]]], near: float, name: str,
    best: str, ax: Axes | FigureBase | None,
) -> Figure:  # fmt: skip
    """How far fits are behind the best: a line along the route of every climb, dots for fits where none went.

    Distances up to ``near`` are drawn as they are, and their logarithms beyond.
    """
    places = np.arange(1, len(path) + 1)
    above = behind.to_numpy(dtype=np.float64)
    kept, converged = path["accepted"].to_numpy(dtype=bool), path["converged"].to_numpy(dtype=bool)
    ax = axes_of(ax, 6.8, 4.2)
    others = ~kept & converged
    ax.plot(places[others], above[others], "o", color=REST, markersize=4, linestyle="none", label="tried")
    if not converged.all():
        ax.plot(places[~converged], above[~converged], "x", color=colour(5), linestyle="none", label="did not converge")
    where = {ranks: place for place, ranks in enumerate(path.index)}
    for k, route in enumerate(routes):
        own = [where[ranks] for ranks in route]
        label = f"went there, climb {k + 1}" if len(routes) > 1 else "went there"
        ax.plot(places[own], above[own], color=colour(k), marker="o", markersize=5, linewidth=1.5, label=label)
    ax.axhline(0, color=LINES, linewidth=1, linestyle="--", label=f"chosen: {best}")
    ax.set_yscale("symlog", linthresh=near)
    ax.set_ylim(min(float(above.min()), 0.0) - near / 5, 2 * max(float(above.max()), near))
    whole_numbers(ax.xaxis)
    ax.set_xlabel("fit")
    ax.set_ylabel(f"{name}, behind the best")
    ax.set_title(f"Choosing the ranks: {name}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)
    return figure_of(ax)
