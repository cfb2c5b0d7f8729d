"""How the time of one evaluation (both passes of the sweep and the update) grows: with features, and with groups.

It should double with the number of features, and not grow with the number of groups at a fixed number of features.
"""

import numpy as np
import pandas as pd
from common import command_line, median_seconds, problem, report

from mlfm._kernels.blocks import px_em_update
from mlfm.estimation import STARTS
from mlfm.estimation.em import step
from mlfm.likelihood import condition
from mlfm.sweep import Sweep, Workers


def seconds_an_evaluation(case, n_threads=1):
    F, D = STARTS["random"](case, np.random.default_rng(0))
    sweep = Sweep(case.tree, case.Y.shape[1])
    with Workers(n_threads) as workers:

        def evaluation():
            condition(sweep, F, D, case.Y, workers)
            step(case, sweep, px_em_update, workers)

        return median_seconds(evaluation, repeats=9)


def table(cases):
    rows = []
    for n, groups, ranks, nobs in cases:
        seconds = seconds_an_evaluation(problem(n, groups, ranks, nobs))
        flops = 4 * n * sum(ranks) * nobs
        rows.append((n, groups[-1], f"{1e3 * seconds:.1f}", f"{flops / seconds / 1e9:.1f}", seconds))
    frame = pd.DataFrame(rows, columns=["features", "leaf groups", "ms", "Gflop/s", "seconds"])
    frame["ratio to the first"] = (frame["seconds"] / frame["seconds"].iloc[0]).round(2)
    return frame.drop(columns="seconds")


if __name__ == "__main__":
    options = command_line(__doc__).parse_args()
    report(
        "growth",
        {
            "features doubled; groups 1, 8, 64; ranks 8, 4, 2; 300 observations; one thread": table(
                [(n, [1, 8, 64], [8, 4, 2], 300) for n in (5_000, 10_000, 20_000, 40_000, 80_000)]
            ),
            "groups 8 to 512 at 40 000 features; ranks 8, 4; 300 observations; one thread": table(
                [(40_000, [1, groups], [8, 4], 300) for groups in (8, 32, 128, 512)]
            ),
        },
        options.save,
    )
