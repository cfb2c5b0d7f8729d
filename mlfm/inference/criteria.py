"""Information criteria: -2 log-likelihood and a price for each parameter."""

from __future__ import annotations

import math


def sabic(llf: float, df: int, nobs: float) -> float:
    """Schwarz' criterion adjusted for small samples (Sclove 1987): a parameter costs log((nobs + 2) / 24)."""
    return -2 * llf + math.log((nobs + 2) / 24) * df


def ebic(llf: float, df: int, nobs: float, gamma: float, n_loadings: int, n_features: int) -> float:
    """Extended BIC: besides, every loading costs 4 gamma log(n), as an edge of a graph does (Foygel and Drton 2010)."""
    return -2 * llf + math.log(nobs) * df + 4 * gamma * math.log(n_features) * n_loadings
