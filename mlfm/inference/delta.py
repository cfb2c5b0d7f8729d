"""The delta method: functions of estimates of which the covariance is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def share_covariance(parts: Floats, covariance: Floats) -> Floats:
    """Covariance of each part's share in their sum."""
    total = parts.sum()
    slopes = (np.eye(len(parts)) - (parts / total)[:, None]) / total
    return slopes @ covariance @ slopes.T
