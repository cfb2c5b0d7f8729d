"""The methods by name: functions of a problem, a start, the fit's record, workers and a watcher."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import em_update, px_em_update
from mlfm.estimation.em import ascend
from mlfm.estimation.problem import Problem
from mlfm.estimation.record import Evaluation, FitRecord
from mlfm.estimation.scoring import scoring
from mlfm.sweep import Workers

Floats = NDArray[np.float64]
Climb = Callable[
    [Problem, tuple[Floats, Floats], FitRecord, Workers, Callable[[Evaluation], None]], tuple[Floats, Floats]
]


class Method(NamedTuple):
    """How to climb, and how many evaluations (steps, for EM) it may take unless told otherwise."""

    climb: Climb
    maxiter: int


METHODS: dict[str, Method] = {
    "scoring": Method(scoring, 1_000),
    "px-em": Method(partial(ascend, update=px_em_update), 50_000),
    "em": Method(partial(ascend, update=em_update), 50_000),
}
