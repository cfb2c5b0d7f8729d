"""The methods by name: functions of a problem, a start, the fit's record, workers, a watcher, a reason to give up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.em import em_pass, px_em_pass
from mlfm.estimation.em import ascend
from mlfm.estimation.problem import Problem
from mlfm.estimation.record import Evaluation, FitRecord, Hopeless
from mlfm.estimation.scoring import scoring
from mlfm.sweep import Workers

Floats = NDArray[np.float64]
Climb = Callable[
    [Problem, tuple[Floats, Floats], FitRecord, Workers, Callable[[Evaluation], None], Hopeless],
    tuple[Floats, Floats],
]


class Method(NamedTuple):
    """How to climb, and unless told otherwise how many evaluations it may take, and when it is there.

    A climb takes over the arrays of its start: they are its own to overwrite.

    The EM methods creep where scoring steps: the same tolerance would keep them for hours.
    """

    climb: Climb
    maxiter: int
    tol: float


METHODS: dict[str, Method] = {
    "scoring": Method(scoring, 1_000, 1e-4),
    "px-em": Method(partial(ascend, kernel=px_em_pass), 50_000, 1e-2),
    "em": Method(partial(ascend, kernel=em_pass), 50_000, 1e-2),
}
