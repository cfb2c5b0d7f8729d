"""How the fit went: the log-likelihood still to gain, evaluation by evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlfm.reporting.plots.canvas import LINES, axes_of, colour, figure_of, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

    from mlfm.results import MultilevelFactorResults


def convergence(results: MultilevelFactorResults, ax: Axes | FigureBase | None) -> Figure:
    """What was still to gain, as it turned out and as the fit expected it, and the tolerance."""
    history, record = results.history, results.record
    places, kept = history.index.to_numpy(), history["accepted"].to_numpy(dtype=bool)
    to_gain = record.llf - history["llf"].to_numpy(dtype=np.float64)
    expected = history["projected_gain"].to_numpy(dtype=np.float64)
    ax = axes_of(ax, 6.8, 4.2)
    ax.set_yscale("log")
    for values, shown, label, tint in (
        (to_gain, kept & (to_gain > 0), "log-likelihood below the end", colour(0)),
        (expected, kept & np.isfinite(expected) & (expected > 0), "gain expected by the fit", colour(1)),
    ):
        ax.plot(places[shown], values[shown], color=tint, marker="o", markersize=3, linewidth=1.3, label=label)
    taken_back = ~kept & (to_gain > 0)
    if taken_back.any():
        ax.plot(
            places[taken_back],
            to_gain[taken_back],
            color=colour(5),
            marker="x",
            linestyle="none",
            label="steps taken back",
        )
    ax.axhline(record.tol, color=LINES, linewidth=1, linestyle="--", label=f"tolerance {record.tol:g}")
    whole_numbers(ax.xaxis)
    ax.set_xlabel("evaluation")
    ax.set_ylabel("log-likelihood (nats)")
    ending = "converged" if results.converged else "NOT converged"
    ax.set_title(f"Convergence: {record.method} from {record.found_by}, {ending}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)
    return figure_of(ax)
