"""Heatmaps of features by features in group order: the fitted covariance, and what it leaves of the sample's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlfm.hierarchy import Hierarchy
from mlfm.inference.block_means import Places, fitted_means, runs, sample_means
from mlfm.reporting.plots.canvas import axes_of, figure_of, heatmap, limit_of
from mlfm.reporting.plots.groups import draw_boundaries, label_features
from mlfm.reporting.plots.residuals import unit_residuals
from mlfm.sweep import Workers
from mlfm.wording import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

    from mlfm.results import MultilevelFactorResults

Floats = NDArray[np.float64]


def covariance(
    results: MultilevelFactorResults, correlation: bool, ax: Axes | FigureBase | None, max_cells: Any
) -> Figure:
    """The fitted covariance or correlation; of more features than cells a side, means of blocks."""
    bounds = runs(results.hierarchy.n_features, _checked(max_cells))
    values = _fitted(results, bounds, correlation)
    what = "correlation" if correlation else "covariance"
    # On the scale of what is off the diagonal: the diagonal itself would make all else pale.
    off = values[~np.eye(len(values), dtype=bool)]
    limit = limit_of(off if len(off) else values)
    return _show(results.hierarchy, values, bounds, limit, f"Fitted {what}", what, ax)


def residual_correlations(results: MultilevelFactorResults, ax: Axes | FigureBase | None, max_cells: Any) -> Figure:
    """Sample less fitted correlations; of more features than cells a side, means of blocks."""
    bounds = runs(results.hierarchy.n_features, _checked(max_cells))
    Y = unit_residuals(results, "residual correlations")
    with Workers(1):  # BLAS on one thread: the same digits everywhere
        values = sample_means(Y, bounds) - _fitted(results, bounds, True)
    title = "Residual correlation: sample less fitted"
    return _show(results.hierarchy, values, bounds, limit_of(values), title, "residual correlation", ax)


def _fitted(results: MultilevelFactorResults, bounds: Places, correlation: bool) -> Floats:
    order = results.hierarchy.permutation
    F, D = results.covariance.loadings.to_numpy()[order], results.uniquenesses.to_numpy()[order]
    if correlation:
        variances = (F**2).sum(axis=1) + D
        F, D = F / np.sqrt(variances)[:, None], D / variances
    return fitted_means(F, D, results.hierarchy.offsets, list(results.ranks), bounds)


def _show(
    hierarchy: Hierarchy,
    values: Floats,
    bounds: Places,
    limit: float,
    title: str,
    what: str,
    ax: Axes | FigureBase | None,
) -> Figure:
    ax = axes_of(ax, 7.4, 6.2)
    heatmap(ax, values, limit, what)
    label = label_features(ax.yaxis, hierarchy, bounds)
    label_features(ax.xaxis, hierarchy, bounds)
    ax.tick_params(axis="x", rotation=90)
    draw_boundaries(ax, hierarchy, bounds, across=True)
    width = int(np.diff(bounds).max())
    ax.set_ylabel(label)
    ax.set_xlabel(label if width == 1 else f"{label}; a cell is the mean over {count(width, 'feature')} a side")
    ax.set_title(title)
    return figure_of(ax)


def _checked(max_cells: Any) -> int:
    if isinstance(max_cells, bool) or not isinstance(max_cells, (int, np.integer)) or max_cells < 2:
        raise ValueError(f"max_cells: a whole number of cells a side from 2 on is needed, not {max_cells!r}")
    return int(max_cells)
