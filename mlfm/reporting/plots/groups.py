"""Groups along an axis whose features stand in group order: where they begin, and what they are called."""

from __future__ import annotations

import bisect
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlfm.hierarchy import Hierarchy
from mlfm.inference.block_means import Places, boundaries, centres
from mlfm.reporting.layout import group_names
from mlfm.reporting.plots.canvas import LINES, TICKS, size_of_ticks, tick_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEATURES = 60  # features up to which each one's name is written
LEAST = 6.5  # points that a label needs at least
BOUNDARIES = 40  # groups up to which lines are drawn between them


def level_to_name(hierarchy: Hierarchy) -> Hashable:
    """The finest level whose groups' names can all be written, below the global one where there is such a level."""
    fitting = [level for level, number in hierarchy.n_groups.items() if 1 < number <= TICKS]
    return fitting[-1] if fitting else hierarchy.levels[min(1, len(hierarchy.levels) - 1)]


def label_features(axis: Any, hierarchy: Hierarchy, bounds: Places) -> str:
    """Names of the features, or of groups at their middles where there is no room for them; what the axis shows."""
    n, room = hierarchy.n_features, points(axis)
    if n <= FEATURES and len(bounds) == n + 1 and LEAST * n <= room:
        tick_labels(axis, np.arange(n), list(hierarchy.features[hierarchy.permutation]), FEATURES)
        axis.set_tick_params(labelsize=min(9.0, 0.85 * room / n))
        return "features"
    level = level_to_name(hierarchy)
    names = group_names(list(hierarchy.paths(level)))
    offsets = hierarchy.offsets[hierarchy.position(level)]
    middles = centres(offsets, bounds) - 0.5
    kept = apart(middles, np.diff(offsets), 1.6 * LEAST * (len(bounds) - 1) / room)
    tick_labels(axis, middles[kept], [names[g] for g in kept])
    axis.set_tick_params(labelsize=size_of_ticks(min(len(names), TICKS)), length=0)
    return f"{n:,} features by {level}"


def points(axis: Any) -> float:
    """The length of an axis, in points."""
    box = axis.axes.bbox
    return float((box.height if axis.axis_name == "y" else box.width) * 72 / axis.axes.figure.dpi)


def apart(places: NDArray[np.float64], sizes: NDArray[np.intp], least: float) -> list[int]:
    """Those of increasing places that stand so far from all others that are kept, the largest first."""
    kept: list[int] = []
    for i in np.argsort(-sizes, kind="stable").tolist():
        after = bisect.bisect(kept, i)
        if all(abs(places[i] - places[j]) >= least for j in kept[max(after - 1, 0) : after + 1]):
            kept.insert(after, i)
    return kept


def draw_boundaries(ax: Axes, hierarchy: Hierarchy, bounds: Places, across: bool) -> None:
    """Lines between groups, the thicker the coarser their level; of levels with few groups only."""
    drawn: set[float] = set()
    for depth in range(1, len(hierarchy.levels)):
        offsets = hierarchy.offsets[depth]
        if len(offsets) - 1 > BOUNDARIES:
            break
        for edge in boundaries(offsets[1:-1], bounds):
            if edge in drawn:
                continue
            drawn.add(edge)
            style: dict[str, Any] = {"color": LINES, "linewidth": 1.2 / depth}
            ax.axhline(edge - 0.5, **style)
            if across:
                ax.axvline(edge - 0.5, **style)
