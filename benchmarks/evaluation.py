"""Time of one evaluation beside its two matrix products with the data, which no method can do without.

A PX-EM evaluation is both passes of the sweep and the update; a scoring iteration is both passes at the trial point,
the metric and the quasi-Newton direction. The floor is Y'F and Y Z' as two calls of dgemm on whole arrays, with as many
BLAS threads as the sweep has threads.
"""

import itertools
import time

import numpy as np
import pandas as pd
from common import begin, command_line, median_seconds, problem, report
from threadpoolctl import threadpool_limits

from mlfm._kernels.em import px_em_pass
from mlfm.estimation import METHODS, FitRecord
from mlfm.estimation.em import CompleteStair
from mlfm.sweep import Workers, available_cpus

CASES = {
    "n 100 000; groups 1, 3, 7, 16, 32; ranks 30, 20, 10, 5, 2; N 340": (
        100_000,
        [1, 3, 7, 16, 32],
        [30, 20, 10, 5, 2],
        340,
    ),
    "n 20 000; groups 1, 20, 400; ranks 10, 5, 3; N 500": (20_000, [1, 20, 400], [10, 5, 3], 500),
    "n 100 000; groups 1, 100, 5000; ranks 5, 2, 1; N 500": (100_000, [1, 100, 5000], [5, 2, 1], 500),
}
QUICK = {"n 2000; groups 1, 20; ranks 5, 2; N 100": (2_000, [1, 20], [5, 2], 100)}


def dgemm_seconds(case, n_threads):
    n, m = case.Y.shape
    r = case.tree.n_factors
    F, Z = np.random.default_rng(0).standard_normal((n, r)), np.empty((r, m))
    V = np.empty((n, r))
    with threadpool_limits(n_threads, user_api="blas"):

        def products():
            np.matmul(F.T, case.Y, out=Z)
            np.matmul(case.Y, Z.T, out=V)

        return median_seconds(products)


def px_em_seconds(case, start, n_threads):
    F, D = (part.copy() for part in start)
    with Workers(n_threads) as workers:
        return median_seconds(CompleteStair(case, (F, D), workers, px_em_pass).step)


def scoring_seconds(case, start, n_threads, iterations=16):
    """Median time between accepted evaluations of a real fit, once its memory holds pairs."""
    stamps = []
    record = FitRecord("scoring", "top-down", iterations, 0.0, n_threads)

    def watch(entry):
        stamps.append((time.perf_counter(), entry.step if entry.accepted else "taken back"))

    with Workers(n_threads) as workers:
        METHODS["scoring"].climb(case, start, record, workers, watch)
    times = [b[0] - a[0] for a, b in itertools.pairwise(stamps) if b[1] == "quasi-newton" and a[1] != "taken back"]
    return float(np.median(times)) if times else float("nan")


if __name__ == "__main__":
    options = command_line(__doc__).parse_args()
    threads = available_cpus()
    rows = []
    for name, (n, groups, ranks, nobs) in (QUICK if options.quick else CASES).items():
        case = problem(n, groups, ranks, nobs)
        start = begin(case)
        floor = dgemm_seconds(case, threads)
        px = px_em_seconds(case, start, threads)
        scoring = scoring_seconds(case, start, threads)
        again = dgemm_seconds(case, threads)
        floor = (floor + again) / 2
        rows.append((name, 1e3 * floor, 1e3 * px, px / floor, 1e3 * scoring, scoring / floor))
    columns = ["case", "two dgemms, ms", "PX-EM, ms", "ratio", "scoring, ms", "ratio "]
    report("evaluation", {f"{threads} threads": pd.DataFrame(rows, columns=columns).round(2)}, options.save)
