"""How well a model fits."""

from __future__ import annotations

from mlfm.results.estimates import Estimates


class FitResults(Estimates):
    """How well a model fits."""
