"""Linear algebra with a covariance, each operation beside the floor of its own arithmetic and memory traffic.

The floors are measured in the same run with as many BLAS threads as mlfm uses: the operation's flops at the rate of a
dgemm (loadings times an r x r matrix), and the bytes that it must read and write: reading at the rate of a dgemv with
the loadings, writing at the rate of copying them into a new array, whose memory has to be mapped first.
"""

import time
import tracemalloc
from typing import NamedTuple

import numpy as np
import pandas as pd
from common import command_line, hierarchy, median_seconds, report
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
    read: float  # numbers
    written: float  # numbers of new arrays


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
        Operation("logdet", lambda: anew().logdet(), n * r**2, loadings, 0),
        Operation("Cholesky of the expanded matrix", lambda: anew().cholesky(), n * r**2, loadings, 0),
        Operation("inverse factors", lambda: anew().inv(), 2 * n * r**2, 2 * loadings, loadings),
        Operation("inverse factors, R and A known", sigma.inv, n * r**2, loadings, loadings),
        Operation("diagonal of the inverse", lambda: sigma.inv().diagonal(), n * r**2, 2 * loadings, loadings),
        Operation("solve, one vector", lambda: sigma.solve(b), 4 * loadings, 2 * loadings, n),
        Operation(f"solve, {VECTORS} vectors", lambda: sigma.solve(B), 4 * r * many, 2 * loadings + 2 * many, many),
        Operation("product, one vector", lambda: sigma @ b, 4 * loadings, 2 * loadings, n),
        Operation(f"product, {VECTORS} vectors", lambda: sigma @ B, 4 * r * many, 2 * loadings + 2 * many, many),
        Operation("MLR @ MLR", lambda: sigma @ sigma, 8 * n * r**2, 12 * loadings, 6 * loadings),
        Operation("Frobenius inner product", lambda: sigma.inner(sigma), 4 * n * r**2, 4 * loadings, 0),
    ]


def rates(case, n_threads):
    """Seconds of a flop in a dgemm, of reading a number in a dgemv, and of writing one to a new array."""
    n, r = case.n, sum(case.ranks)
    rng = np.random.default_rng(2)
    F, A, b, out = rng.standard_normal((n, r)), rng.standard_normal((r, r)), rng.standard_normal(n), np.empty((n, r))
    with threadpool_limits(n_threads, user_api="blas"):
        product = median_seconds(lambda: np.matmul(F, A, out=out), 9)
        read = median_seconds(lambda: F.T @ b, 9)
    copy = median_seconds(F.copy, 9)
    return product / (2 * n * r**2), read / (n * r), (copy - read) / (n * r)


def table(case):
    sigma = covariance(case)
    sigma.logdet()
    flop, read, write = rates(case, available_cpus())
    rows = []
    for operation in operations(case, sigma):
        seconds = median_seconds(operation.call, 9)
        floors = operation.flops * flop, operation.read * read + operation.written * write
        rows.append((operation.name, *(1e3 * value for value in (seconds, *floors)), seconds / max(floors)))
    columns = ["operation", "ms", "floor of its flops, ms", "floor of its bytes, ms", "ratio to the larger"]
    return pd.DataFrame(rows, columns=columns).round(dict.fromkeys(columns[1:], 2))


def memory(case):
    """The most that arrays hold at once during an operation, its result included, beside the loadings."""
    sigma, rng = covariance(case), np.random.default_rng(1)
    rows = []
    for name, call in {
        "R and A": lambda: sigma._with(sigma._terms.ranks, sigma._terms.left, sigma._terms.diag).logdet(),
        "one solve": lambda: sigma.solve(rng.standard_normal(case.n)),
        "inverse": sigma.inv,
        "MLR @ MLR": lambda: sigma @ sigma,
    }.items():
        tracemalloc.start()
        began = time.perf_counter()
        call()
        seconds = time.perf_counter() - began
        rows.append((name, seconds, tracemalloc.get_traced_memory()[1] / (8 * case.n * sum(case.ranks))))
        tracemalloc.stop()
    return pd.DataFrame(rows, columns=["operation", "s", "peak / loadings"]).round(2)


if __name__ == "__main__":
    options = command_line(__doc__).parse_args()
    cases = QUICK if options.quick else CASES
    tables = {name: table(case) for name, case in cases.items()}
    largest = list(cases)[-1]
    tables[f"memory; {largest}"] = memory(cases[largest])
    report("algebra", tables, options.save)
