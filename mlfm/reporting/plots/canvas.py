"""Figures and axes, colours and ticks. matplotlib is imported where a figure is made, never before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlfm.reporting.layout import cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

Floats = NDArray[np.float64]

#: Okabe and Ito's colours, which can be told apart with any colour vision.
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
REST = "#999999"
DIVERGING = "RdBu_r"  # for numbers on both sides of 0, which is white
LINES = "#333333"
TICKS = 40  # labels that stay readable along an axis
LABEL = 24
FEW_BEYOND = 5000  # values from which a few outliers may not make all others pale


def axes_of(ax: Axes | FigureBase | None, width: float, height: float) -> Axes:
    """The axes given, new ones of the figure given, or those of a new figure that belongs to nobody: pyplot never knows
    of it.
    """
    try:
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure, FigureBase
    except ImportError as error:
        raise ImportError('plots need matplotlib; install it with: pip install "mlfm[plot]"') from error
    if ax is None:
        return Figure(figsize=(width, height), layout="constrained").add_subplot()
    if isinstance(ax, FigureBase):
        return ax.add_subplot()
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be matplotlib axes or a figure, not {type(ax).__name__}")
    return ax


def figure_of(ax: Axes) -> Figure:
    """The figure that the axes are in, in the end."""
    figure: Any = ax.figure
    while hasattr(figure, "get_figure") and figure.get_figure() not in (None, figure):
        figure = figure.get_figure()
    return figure


def colour(number: int) -> str:
    """The colour of a category."""
    return CATEGORIES[number % len(CATEGORIES)]


def heatmap(ax: Axes, values: Floats, limit: float, label: str, interpolation: str = "antialiased") -> None:
    """Numbers on both sides of 0 as colours, with a colour bar; what is beyond the limit has the colour of its end."""
    image = ax.imshow(values, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto", interpolation=interpolation)
    over, under = bool((values > limit).any()), bool((values < -limit).any())
    extend = ("both" if under else "max") if over else "min" if under else "neither"
    bar = figure_of(ax).colorbar(image, ax=ax, label=label, extend=extend, fraction=0.08, aspect=35, pad=0.02)
    bar.outline.set_visible(False)


def limit_of(values: Floats) -> float:
    """The end of a scale of colours: the largest size, or of many values that which few are beyond."""
    sizes = np.abs(values).ravel()
    if not len(sizes):
        return 1.0
    return float(np.quantile(sizes, 0.998) if len(sizes) > FEW_BEYOND else sizes.max()) or 1.0


def tick_labels(axis: Any, places: Any, labels: Sequence[Any], most: int = TICKS) -> None:
    """Labels at places, as many of them as can be read, evenly thinned."""
    step = max(1, -(-len(labels) // most))
    axis.set_ticks(list(places)[::step], [cut(str(label), LABEL) for label in labels][::step])


def whole_numbers(axis: Any) -> None:
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def size_of_ticks(number: int) -> float:
    """A size of letters that so many labels have room for."""
    return float(np.clip(280 / max(number, 1), 5.5, 9))
