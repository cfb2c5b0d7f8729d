"""Scores of the factors over the observations: a lane for each factor, or a heatmap of many."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlfm.reporting.layout import cut, group_names
from mlfm.reporting.plots.canvas import axes_of, colour, figure_of, heatmap, limit_of, size_of_ticks, tick_labels
from mlfm.wording import listing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

    from mlfm.results import MultilevelFactorResults

LANES = 12  # factors up to which each has a line of its own
APART = 6.0  # standard deviations between two lanes
MANY = 4000  # observations above which lines are kept as pixels, and a heatmap shows means of several


def scores(
    results: MultilevelFactorResults, level: Hashable | None, columns: Any, ax: Axes | FigureBase | None
) -> Figure:
    """Lines or heatmap of the chosen factors' scores."""
    frame = _chosen(results, level, columns)
    names = _names(frame)
    if frame.shape[1] <= LANES:
        return _lanes(frame, names, ax)
    return _heatmap(frame, names, ax)


def _chosen(results: MultilevelFactorResults, level: Hashable | None, columns: Any) -> pd.DataFrame:
    if level is not None and columns is not None:
        raise ValueError("level and columns both say which factors are meant; give one of them")
    hierarchy, ranks = results.hierarchy, results.ranks.to_numpy()
    if not ranks.any():
        raise ValueError("there are no factors, and so no scores to show")
    every = results.scores()
    if columns is not None:
        wanted = list(columns)
        known = set(every.columns)
        unknown = [column for column in wanted if column not in known]
        if unknown or not wanted:
            raise ValueError(
                f"columns: (level, group, factor) as in scores() are needed, not {listing(unknown) or 'none'}"
            )
        places = [list(every.columns).index(column) for column in wanted]
        return every.iloc[:, places]
    depth = int(np.flatnonzero(ranks)[0]) if level is None else hierarchy.position(level)
    if not ranks[depth]:
        raise ValueError(f"level {level!r} has no factors")
    own = [i for i, column in enumerate(every.columns) if column[0] == hierarchy.levels[depth]]
    return every.iloc[:, own]


def _names(frame: pd.DataFrame) -> list[str]:
    levels = frame.columns.get_level_values("level")
    groups, factors = list(frame.columns.get_level_values("group")), list(frame.columns.get_level_values("factor"))
    names = groups_of = [str(group) for group in groups]
    if levels.nunique() == 1:
        several = dict(zip(dict.fromkeys(groups), group_names(list(dict.fromkeys(groups))), strict=True))
        names = groups_of = [several[group] for group in groups]
    if max(factors) > 1:
        names = [f"{cut(group, 15)} {factor}" for group, factor in zip(groups_of, factors, strict=True)]
    return names


def _lanes(frame: pd.DataFrame, names: list[str], ax: Axes | FigureBase | None) -> Figure:
    number = frame.shape[1]
    ax = axes_of(ax, 8.4, 2.2 + 0.62 * number)
    x = _positions(frame.index)
    shift = -APART * np.arange(number)
    for k in range(number):
        ax.axhline(shift[k], color="#dddddd", linewidth=0.8, zorder=0)
        ax.plot(x, frame.iloc[:, k].to_numpy() + shift[k], color=colour(k), linewidth=0.8, rasterized=len(frame) > MANY)
    if number > 1:
        tick_labels(ax.yaxis, shift, names)
        ax.set_ylabel(f"score (factor's sd; lanes are {APART:g} apart)")
    else:
        ax.set_ylabel("score (factor's sd)")
    ax.margins(x=0.01)
    _finish(ax, frame, names)
    return figure_of(ax)


def _heatmap(frame: pd.DataFrame, names: list[str], ax: Axes | FigureBase | None) -> Figure:
    values = frame.to_numpy().T
    width = -(-len(frame) // MANY)
    starts = np.arange(0, len(frame), width)
    values = np.add.reduceat(values, starts, axis=1) / np.diff([*starts, len(frame)])
    ax = axes_of(ax, 8.4, float(np.clip(1.8 + 0.17 * len(names), 3, 8)))
    heatmap(ax, values, limit_of(values), "score (factor's sd)")
    tick_labels(ax.yaxis, range(len(names)), names, 50)
    ax.tick_params(axis="y", labelsize=size_of_ticks(min(len(names), 50)))
    ticks = np.linspace(0, len(starts) - 1, min(8, len(starts))).astype(int)
    ax.set_xticks(ticks, [_short(frame.index[starts[i]]) for i in ticks], rotation=30, ha="right")
    ax.set_ylabel("factor")
    _finish(ax, frame, names)
    return figure_of(ax)


def _finish(ax: Axes, frame: pd.DataFrame, names: list[str]) -> None:
    ax.set_xlabel("observation" if frame.index.name is None else str(frame.index.name))
    levels = list(dict.fromkeys(frame.columns.get_level_values("level")))
    of = names[0] if len(names) == 1 else str(levels[0]) if len(levels) == 1 else "chosen factors"
    ax.set_title(f"Scores: {cut(of, 40)}")
    ax.spines[["top", "right"]].set_visible(False)


def _positions(index: pd.Index) -> Any:
    """Dates and numbers as they are, other labels by their number."""
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex):
        return index.to_numpy()
    if pd.api.types.is_numeric_dtype(index.dtype) and index.is_monotonic_increasing:
        return index.to_numpy()
    return np.arange(len(index))


def _short(label: Any) -> str:
    return f"{label:%Y-%m-%d}" if isinstance(label, pd.Timestamp) else cut(str(label), 14)
