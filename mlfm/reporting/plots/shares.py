"""How the fitted variance splits: bars by level, or for each group a bar of the shares of all levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlfm.reporting.layout import group_names
from mlfm.reporting.plots.canvas import REST, TICKS, axes_of, colour, figure_of, size_of_ticks, tick_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

    from mlfm.results import MultilevelFactorResults

BARS = 60  # groups up to which each has a bar of its own, with gaps between them


def variance_shares(results: MultilevelFactorResults, by: Any, ax: Axes | FigureBase | None) -> Figure:
    """The plot of either kind."""
    if by == "level":
        return _by_level(results, ax)
    if by == "group":
        return _by_group(results, ax)
    raise ValueError(f"by must be 'level' or 'group', not {by!r}")


def _colours(levels: int) -> list[str]:
    return [*(colour(k) for k in range(levels)), REST]


def _by_level(results: MultilevelFactorResults, ax: Axes | FigureBase | None) -> Figure:
    shares = results.variance_explained()["share"]
    places = np.arange(len(shares))
    ax = axes_of(ax, 6.4, 1.4 + 0.4 * len(shares))
    ax.barh(places, shares.to_numpy(), color=_colours(len(shares) - 1))
    for place, share in zip(places, shares, strict=True):
        ax.text(float(share), float(place), f" {100 * share:.1f} %", va="center", fontsize=9)
    tick_labels(ax.yaxis, places, list(shares.index))
    ax.invert_yaxis()
    ax.set_xlim(0, min(1.0, 1.18 * float(shares.max())))
    ax.set_xlabel("share of the total fitted variance")
    ax.set_ylabel("level")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title("Variance by level")
    return figure_of(ax)


def _by_group(results: MultilevelFactorResults, ax: Axes | FigureBase | None) -> Figure:
    """A bar for each group of the finest level that has factors."""
    hierarchy, ranks = results.hierarchy, results.ranks.to_numpy()
    with_factors = np.flatnonzero(ranks)
    depth = int(with_factors[-1]) if len(with_factors) else 0
    level, bounds = hierarchy.levels[depth], hierarchy.offsets[depth]
    squares = results.covariance.loadings.to_numpy()[hierarchy.permutation] ** 2
    ends = np.cumsum(ranks)
    parts = [squares[:, end - rank : end].sum(axis=1) for end, rank in zip(ends, ranks, strict=True)]
    parts.append(results.uniquenesses.to_numpy()[hierarchy.permutation])
    by_group = np.add.reduceat(np.stack(parts, axis=1), bounds[:-1], axis=0)
    shares = by_group / by_group.sum(axis=1, keepdims=True)

    names, n = group_names(list(hierarchy.paths(level))), len(bounds) - 1
    ax = axes_of(ax, 7.4, float(np.clip(1.8 + 0.24 * n, 2.6, 8)))
    left = np.zeros(n)
    labels = [*hierarchy.levels, "unique"]
    for k, (label, tint) in enumerate(zip(labels, _colours(len(ranks)), strict=True)):
        if k < len(ranks) and not ranks[k]:
            continue
        right = left + shares[:, k]
        if n <= BARS:
            ax.barh(np.arange(n), shares[:, k], left=left, color=tint, label=str(label))
        else:
            edges = np.arange(n + 1) - 0.5
            ax.stairs(right, edges, baseline=left, orientation="horizontal", fill=True, color=tint, label=str(label))
        left = right
    tick_labels(ax.yaxis, np.arange(n), names, BARS if n <= BARS else TICKS)
    ax.tick_params(axis="y", labelsize=size_of_ticks(min(n, BARS)))
    ax.set_ylim(n - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of the variance of the group's features")
    ax.set_ylabel(str(level) if n <= BARS else f"{n:,} groups of {level}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(f"Variance by group: {level}")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    return figure_of(ax)
