"""Peak memory of making and fitting a model, the data included, beside the size of the data.

Every case has a fresh process of its own. The peak is the largest resident set at the end less that before any data are
made, when a fit of a few numbers has loaded all libraries. The data are filled in place, so that all the rest is
mlfm's. With --large also a million features in single precision, for which 16 GB should be free.
"""

import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import pandas as pd
from common import command_line, fill, hierarchy, nested, no_warnings, report

import mlfm
from mlfm.sweep import Tree


class Case(NamedTuple):
    n: int
    groups: list[int]
    ranks: list[int]
    nobs: int
    dtype: str = "float64"


CASES = {
    "n 100 000; groups 1, 3, 7, 16, 32; ranks 30, 20, 10, 5, 2; N 340": Case(
        100_000, [1, 3, 7, 16, 32], [30, 20, 10, 5, 2], 340
    ),
    "n 100 000; groups 1, 100, 5000; ranks 5, 2, 1; N 500": Case(100_000, [1, 100, 5000], [5, 2, 1], 500),
}
LARGE = {
    "n 1 000 000; groups 1, 100, 5000; ranks 10, 5, 5; N 300; float32": Case(
        1_000_000, [1, 100, 5000], [10, 5, 5], 300, "float32"
    )
}
TINY = Case(30, [1, 3], [1, 1], 50)
QUICK = {
    "n 10 000; groups 1, 100; ranks 5, 2; N 200": Case(10_000, [1, 100], [5, 2], 200),
    "n 10 000; groups 1, 100; ranks 5, 2; N 200; float32": Case(10_000, [1, 100], [5, 2], 200, "float32"),
}
MB = 1e6


def peak():
    """Largest resident set of this process so far, in bytes."""
    kilobytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobytes


def array(case):
    """Data of a case, observations x features, filled without another array of that size."""
    data = np.empty((case.nobs, case.n), case.dtype)
    fill(data.T, Tree.of(nested(case.n, case.groups), case.ranks), 1.0, np.random.default_rng(0))
    return data


def model(case, data):
    return mlfm.MultilevelFactorModel(data, hierarchy=hierarchy(case.n, case.groups), ranks=case.ranks)


def measured(case, maxiter):
    """One case, in a process that has done nothing else."""
    with no_warnings():
        model(TINY, array(TINY)).fit()
        before = peak()
        data = array(case)
        filled = peak()
        began = time.perf_counter()
        made, size = model(case, data), data.nbytes
        seconds, modelled = time.perf_counter() - began, peak()
        del data  # the model has a copy of its own
        record = made.fit(maxiter=maxiter).record
    return {
        "data, MB": size / MB,
        "data made, MB": (filled - before) / MB,
        "model made, MB": (modelled - before) / MB,
        "peak, MB": (peak() - before) / MB,
        "peak / data": (peak() - before) / size,
        "model, s": seconds,
        "fit, s": record.seconds,
        "evaluations": record.fcalls,
        "log-likelihood": record.llf,
    }


def alone(function, *arguments):
    """The value of a function in a fresh process.

    The largest resident set of the process that starts it is inherited, so that one must stay small itself.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--large", action="store_true", help="a million features too")
    parser.add_argument("--maxiter", type=int, help="cut the fits short")
    options = parser.parse_args()
    if options.save and options.maxiter is not None:
        parser.error("fits that were cut short are not saved")
    cases = QUICK if options.quick else CASES | LARGE if options.large else CASES
    rows = [{"case": name, **alone(measured, case, options.maxiter)} for name, case in cases.items()]
    decimals = {"peak / data": 2, "model, s": 2, "fit, s": 2, "log-likelihood": 1}
    table = pd.DataFrame(rows).round(decimals | {column: 1 for column in rows[0] if column.endswith("MB")})
    report("memory", {"memory of a whole fit": table}, options.save)
