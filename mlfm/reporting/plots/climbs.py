"""Where the climbs of a fit came to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlfm.reporting.plots.canvas import LINES, REST, axes_of, colour, figure_of, tick_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

    from mlfm.results import MultilevelFactorResults

LINEAR = 0.1  # nats up to which the axis is linear


def climbs(results: MultilevelFactorResults, ax: Axes | FigureBase | None) -> Figure:
    """Every climb a dot: how far below the highest maximum it stopped."""
    starts = results.starts
    places = np.arange(len(starts))
    behind = starts["behind"].to_numpy(dtype=np.float64)
    reached, ended = starts["reached"].to_numpy(dtype=bool), starts["ended"].to_numpy(dtype=bool)
    known = np.isfinite(behind)
    ax = axes_of(ax, 6.8, 1.6 + 0.22 * min(len(starts), 40))
    for shown, label, tint, marker in (
        (reached, "reached the highest", colour(0), "o"),
        (ended & ~reached, "ended lower", colour(1), "o"),
        (~ended & ~reached & known, "given up", REST, "x"),
    ):
        if shown.any():
            ax.plot(behind[shown], places[shown], color=tint, marker=marker, linestyle="none", label=label)
    ax.set_xscale("symlog", linthresh=LINEAR)
    ax.set_xlim(left=-LINEAR / 2)
    ax.axvline(0, color=LINES, linewidth=0.8)
    tick_labels(ax.yaxis, places, list(starts.index))
    ax.invert_yaxis()
    ax.set_ylabel("climb")
    ax.set_xlabel("log-likelihood below the highest (nats)")
    ax.set_title(f"Climbs: {int(reached.sum())} of {len(starts)} reached the highest maximum")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)
    return figure_of(ax)
