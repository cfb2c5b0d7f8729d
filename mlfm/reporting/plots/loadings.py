"""Standardised loadings as a heatmap: features in group order, factors level by level."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np

from mlfm.inference.block_means import runs
from mlfm.reporting.plots.canvas import LINES, axes_of, figure_of, heatmap, limit_of
from mlfm.reporting.plots.groups import FEATURES, draw_boundaries, label_features

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

    from mlfm.results import MultilevelFactorResults

ROWS = 500


def loadings(results: MultilevelFactorResults, level: Hashable | None, ax: Axes | FigureBase | None) -> Figure:
    """The heatmap; above some 500 features each row is the mean of several."""
    hierarchy, columns = results.hierarchy, results.loadings.columns
    chosen = np.arange(len(columns))
    if level is not None:
        depth = hierarchy.position(level)
        last = np.cumsum(results.ranks.to_numpy())
        chosen = np.arange(last[depth] - results.ranks.iloc[depth], last[depth])
    if not len(chosen):
        raise ValueError("level: there are no factors to show" if level is None else f"level {level!r} has no factors")
    F = results.loadings.to_numpy()[hierarchy.permutation]
    spread = np.sqrt(results.covariance.diagonal())[hierarchy.permutation]
    standardised = (F / spread[:, None])[:, chosen]
    bounds = runs(len(F), ROWS)
    shown = np.add.reduceat(standardised, bounds[:-1], axis=0) / np.diff(bounds)[:, None]

    n = len(F)
    ax = axes_of(ax, 3.2 + min(0.45 * len(chosen), 7), np.clip(1.6 + 0.2 * n, 3.5, 9 if n <= FEATURES else 8))
    heatmap(ax, shown, limit_of(shown), "standardised loading", "nearest")
    ax.set_ylabel(label_features(ax.yaxis, hierarchy, bounds))
    draw_boundaries(ax, hierarchy, bounds, across=False)
    names = [f"{columns[i][0]} {columns[i][1]}" for i in chosen]
    step = -(-len(names) // 30)
    ax.set_xticks(range(0, len(names), step), names[::step], rotation=45, ha="right", rotation_mode="anchor")
    for place in np.flatnonzero(np.diff(columns.codes[0][chosen])) + 0.5:
        ax.axvline(place, color=LINES, linewidth=1.2)
    ax.set_xlabel("factors of each feature's own groups")
    ax.set_title("Loadings" if level is None else f"Loadings: {level}")
    return figure_of(ax)
