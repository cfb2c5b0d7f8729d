"""Plots of a fit; matplotlib is imported when the first is made."""

from mlfm.reporting.plots.accessor import Plots

__all__ = ["Plots"]
