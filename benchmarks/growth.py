"""How the time of one evaluation (both passes of the sweep and the update) grows.

With features, observations and factors (of a feature, all levels together) it should grow no faster than they do; with
groups and levels, at fixed numbers of features and factors, not at all. One thread. The last table has the slopes of
log time against log size, by least squares: 1 is linear, 0 is no growth.
"""

import numpy as np
import pandas as pd
from common import begin, command_line, median_seconds, problem, report

from mlfm._kernels.em import px_em_pass
from mlfm.estimation.em import CompleteStair
from mlfm.sweep import Workers

FEATURES, WIDE = 10_000, 40_960  # where something else grows; where the number of groups does
GROUPS, RANKS, NOBS = [1, 8, 64], [8, 4, 2], 300
LEAVES, FACTORS = 6, 14  # where levels grow: 2^6 leaf groups and 14 factors on each path, shared by all levels


def seconds_an_evaluation(case, n_threads=1):
    start = begin(case, "random")
    with Workers(n_threads) as workers:
        return median_seconds(CompleteStair(case, start, workers, px_em_pass).step, repeats=9)


def levels(depth):
    """Groups and ranks of a tree of so many levels, with the leaf groups and the factors that all depths share."""
    groups = [2 ** round(LEAVES * level / (depth - 1)) for level in range(depth)]
    return groups, [len(part) for part in np.array_split(range(FACTORS), depth)]


def cases(n, wide):
    """Title -> what grows, and its sizes: features, groups, ranks and observations."""
    few, many = f"{n:,} features".replace(",", " "), f"{wide:,} features".replace(",", " ")
    return {
        "features doubled; groups 1, 8, 64; ranks 8, 4, 2; 300 observations": (
            "features",
            {size: (size, GROUPS, RANKS, NOBS) for size in (5_000, 10_000, 20_000, 40_000, 80_000)},
        ),
        f"observations doubled; {few}; groups 1, 8, 64; ranks 8, 4, 2": (
            "observations",
            {nobs: (n, GROUPS, RANKS, nobs) for nobs in (250, 500, 1_000, 2_000, 4_000)},
        ),
        f"global rank 4 to 64; {few}; groups 1, 8, 64; lower ranks 4, 2; 300 observations": (
            "factors",
            {rank + sum(RANKS[1:]): (n, GROUPS, [rank, *RANKS[1:]], NOBS) for rank in (4, 8, 16, 32, 64)},
        ),
        f"levels 2 to 7; {few}; {2**LEAVES} leaf groups; {FACTORS} factors; 300 observations": (
            "levels",
            {depth: (n, *levels(depth), NOBS) for depth in range(2, 8)},
        ),
        "groups 8 to 512 at 40 000 features; ranks 8, 4; 300 observations": (
            "leaf groups",
            {count: (40_000, [1, count], RANKS[:2], NOBS) for count in (8, 32, 128, 512)},
        ),
        f"groups 8 to 4096 at {many}; ranks 8, 4; 300 observations": (
            "leaf groups",
            {count: (wide, [1, count], RANKS[:2], NOBS) for count in (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)},
        ),
    }


def table(what, sizes):
    """Times as a table, and their slope."""
    rows = []
    for size, case in sizes.items():
        n, _, ranks, nobs = case
        seconds = seconds_an_evaluation(problem(*case))
        flops = 4 * n * sum(ranks) * nobs
        rows.append((size, f"{1e3 * seconds:.1f}", f"{flops / seconds / 1e9:.1f}", seconds))
    frame = pd.DataFrame(rows, columns=[what, "ms", "Gflop/s", "seconds"])
    frame["ratio to the first"] = (frame["seconds"] / frame["seconds"].iloc[0]).round(2)
    slope = np.polyfit(np.log(frame[what]), np.log(frame["seconds"]), 1)[0]
    return frame.drop(columns="seconds"), slope


if __name__ == "__main__":
    options = command_line(__doc__).parse_args()
    chosen = cases(2_048, 4_096) if options.quick else cases(FEATURES, WIDE)
    tables, slopes = {}, []
    for title, (what, sizes) in chosen.items():
        few = dict(list(sizes.items())[:2]) if options.quick else sizes
        tables[f"{title}; one thread"], slope = table(what, few)
        slopes.append((title, round(slope, 2)))
    tables["slopes of log time against log size"] = pd.DataFrame(slopes, columns=["what grows", "slope"])
    report("growth", tables, options.save)
