"""Scree by level: eigenvalues of what the coarser levels leave of the groups' sample correlations."""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from mlfm.inference.scree import eigenvalues, noise_edge
from mlfm.reporting.layout import cut, group_names
from mlfm.reporting.plots.canvas import LINES, REST, axes_of, colour, figure_of, whole_numbers
from mlfm.reporting.plots.residuals import unit_residuals
from mlfm.sweep import Workers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

    from mlfm.results import MultilevelFactorResults

BEYOND = 10  # eigenvalues that are shown beyond the rank
DRAWN = 100  # groups up to which each has a line
NAMED = 7  # groups up to which each has a colour of its own


def scree(results: MultilevelFactorResults, level: Hashable, ax: Axes | FigureBase | None) -> Figure:
    """One line a group, the rank that was fitted, and how far noise alone would reach."""
    hierarchy = results.hierarchy
    depth = hierarchy.position(level)
    rank, bounds = int(results.ranks.iloc[depth]), hierarchy.offsets[depth]
    Y = unit_residuals(results, "the scree plot")
    order = hierarchy.permutation
    above = int(results.ranks.iloc[:depth].sum())
    F, D = results.covariance.loadings.to_numpy()[order], results.uniquenesses.to_numpy()[order]
    variances = (F**2).sum(axis=1) + D
    F = (F / np.sqrt(variances)[:, None])[:, :above]  # of the coarser levels
    left = 1 - (F**2).sum(axis=1)
    groups = list(itertools.pairwise(bounds))
    with Workers(1):  # BLAS on one thread: the same digits everywhere
        lines = [eigenvalues(Y[a:b], F[a:b], rank + BEYOND) for a, b in groups]
    nobs = results.effective_nobs

    ax = axes_of(ax, 6.8, 4.4)
    names = group_names(list(hierarchy.paths(level)))
    few = len(groups) <= NAMED
    for g, values in enumerate(lines if len(groups) <= DRAWN else []):
        tint, width = (colour(g), 1.5) if few else (REST, 0.7)
        places = np.arange(1, len(values) + 1)
        label = cut(names[g], 24) if few else "a group" if g == 0 else None
        style: dict[str, Any] = {"marker": "o", "markersize": 3.5} if few else {"alpha": 0.6}
        ax.plot(places, values, color=tint, linewidth=width, label=label, **style)
    if not few:
        longest = max(map(len, lines))
        low, median, high = np.transpose(
            [np.quantile([values[k] for values in lines if k < len(values)], [0.05, 0.5, 0.95]) for k in range(longest)]
        )
        places = np.arange(1, longest + 1)
        if len(groups) > DRAWN:
            ax.fill_between(places, low, high, color=REST, alpha=0.4, linewidth=0, label="nine groups of ten")
        ax.plot(places, median, color=colour(0), linewidth=2, marker="o", markersize=3.5, label="median of groups")
    edges = [noise_edge(b - a, nobs, float(left[a:b].mean())) for a, b in groups]
    ax.axhline(float(np.median(edges)), color=LINES, linewidth=1, linestyle="--", label=_noise_label(len(groups)))
    ax.axvline(rank + 0.5, color=LINES, linewidth=1, linestyle=":", label=f"fitted rank {rank}")
    ax.set_xlim(0.5, max(map(len, lines)) + 0.5)
    whole_numbers(ax.xaxis)
    ax.set_xlabel("number of the eigenvalue, in each group" if len(groups) > 1 else "number of the eigenvalue")
    ax.set_ylabel("eigenvalue (a feature's variance is 1)")
    coarser = "sample correlation" if not above else "sample correlation less coarser levels"
    ax.set_title(f"Scree: {level} ({coarser})")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)
    return figure_of(ax)


def _noise_label(groups: int) -> str:
    return "most of noise alone" if groups == 1 else "most of noise alone (median group)"
