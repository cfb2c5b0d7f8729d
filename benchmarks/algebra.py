"""Linear algebra with a covariance, each operation beside the floor of its own arithmetic and memory traffic.

The floors are measured in the same run with as many BLAS threads as mlfm uses: the operation's flops at the rate of a
dgemm (loadings times an r x r matrix), and the bytes that it must read and write at the rate of copying the loadings.
An operation that returns a new array of n x r has to have the memory for it mapped as well, which is in the copy too.
"""

import time
from typing import NamedTuple

import numpy as np
import pandas as pd
from common import command_line, hierarchy, median_seconds, report
from memory import alone, peak
from threadpoolctl import threadpool_limits

import mlfm
from mlfm.sweep import available_cpus

VECTORS = 100


class Case(NamedTuple):
    n: int
    groups: list[int]
    ranks: list[int]


CASES = {
    "n 100 000; groups 1, 3, 7, 16, 32; ranks 30, 20, 10, 5, 4": Case(100_000, [1, 3, 7, 16, 32], [30, 20, 10, 5, 4]),
    "n 100 000; groups 1, 100, 5000; ranks 5, 2, 1": Case(100_000, [1, 100, 5000], [5, 2, 1]),
    "n 1 000 000; groups 1, 100, 5000; ranks 10, 5, 5": Case(1_000_000, [1, 100, 5000], [10, 5, 5]),
}
QUICK = {"n 5000; groups 1, 10, 100; ranks 5, 2, 1": Case(5_000, [1, 10, 100], [5, 2, 1])}


class Operation(NamedTuple):
    """What is timed, the covariance being made anew each time where R and A are part of it."""

    name: str
    call: object
    flops: float
    numbers: float  # read and written


def covariance(case):
    rng = np.random.default_rng(0)
    F = rng.standard_normal((case.n, sum(case.ranks)))
    return mlfm.MultilevelCovariance(hierarchy(case.n, case.groups), F, rng.uniform(0.5, 2, case.n), ranks=case.ranks)


def operations(case, sigma):
    n, r = case.n, sum(case.ranks)
    rng = np.random.default_rng(1)
    b, B = rng.standard_normal(n), rng.standard_normal((n, VECTORS))
    loadings, many = n * r, n * VECTORS

    def anew():
        return sigma._with(sigma._terms.ranks, sigma._terms.left, sigma._terms.diag)  # R and A are not known yet

    return [
        Operation("logdet", lambda: anew().logdet(), n * r**2, loadings),
        Operation("Cholesky of the expanded matrix", lambda: anew().cholesky(), n * r**2, loadings),
        Operation("inverse factors", lambda: anew().inv(), 2 * n * r**2, 3 * loadings),
        Operation("inverse factors, R and A known", sigma.inv, n * r**2, 2 * loadings),
        Operation("diagonal of the inverse", lambda: sigma.inv().diagonal(), n * r**2, 3 * loadings),
        Operation("solve, one vector", lambda: sigma.solve(b), 4 * loadings, 2 * loadings),
        Operation(f"solve, {VECTORS} vectors", lambda: sigma.solve(B), 4 * r * many, 2 * loadings + 3 * many),
        Operation("product, one vector", lambda: sigma @ b, 4 * loadings, 2 * loadings),
        Operation(f"product, {VECTORS} vectors", lambda: sigma @ B, 4 * r * many, 2 * loadings + 3 * many),
        Operation("MLR @ MLR", lambda: sigma @ sigma, 8 * n * r**2, 12 * loadings),
        Operation("Frobenius inner product", lambda: sigma.inner(sigma), 4 * n * r**2, 4 * loadings),
    ]


def rates(case, n_threads):
    """Flops a second of a dgemm, and numbers a second of a copy into a new array (each read and written)."""
    n, r = case.n, sum(case.ranks)
    rng = np.random.default_rng(2)
    F, A, out = rng.standard_normal((n, r)), rng.standard_normal((r, r)), np.empty((n, r))
    with threadpool_limits(n_threads, user_api="blas"):
        product = median_seconds(lambda: np.matmul(F, A, out=out), 9)
    return 2 * n * r**2 / product, 2 * n * r / median_seconds(F.copy, 9)


def table(case):
    sigma = covariance(case)
    sigma.logdet()
    flops, numbers = rates(case, available_cpus())
    rows = []
    for name, call, its_flops, its_numbers in operations(case, sigma):
        seconds = median_seconds(call, 9)
        floors = its_flops / flops, its_numbers / numbers
        rows.append((name, *(1e3 * value for value in (seconds, *floors)), seconds / max(floors)))
    columns = ["operation", "ms", "floor of its flops, ms", "floor of its bytes, ms", "ratio to the larger"]
    return pd.DataFrame(rows, columns=columns).round(dict.fromkeys(columns[1:], 2))


def memory(case):
    """Peak memory of some operations, one after the other, above that of the covariance, beside its loadings."""
    covariance(Case(1000, case.groups[:1], case.ranks[:1])).inv()
    sigma, rng = covariance(case), np.random.default_rng(1)
    before, rows = peak(), []
    for name, call in {
        "one solve": lambda: sigma.solve(rng.standard_normal(case.n)),
        "the inverse": sigma.inv,
        "MLR @ MLR": lambda: sigma @ sigma,
    }.items():
        began = time.perf_counter()
        call()
        seconds = time.perf_counter() - began
        rows.append((name, seconds, (peak() - before) / (8 * case.n * sum(case.ranks))))
    return pd.DataFrame(rows, columns=["operation", "s", "peak / loadings"]).round(2)


if __name__ == "__main__":
    options = command_line(__doc__).parse_args()
    cases = QUICK if options.quick else CASES
    tables = {name: table(case) for name, case in cases.items()}
    largest = list(cases)[-1]
    tables[f"memory; {largest}"] = alone(memory, cases[largest])
    report("algebra", tables, options.save)
