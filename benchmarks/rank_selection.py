"""Whether the ranks that criteria choose are the true ones in simulation, and whether they predict on real data.

Simulated: 120 features in 1, 4 and 12 groups, ranks 2, 1, 1, loadings standard normal times 0.4, uniquenesses from
0.5 to 1.5, so that factors explain two fifths of the variance. Real: two thirds of the observations, drawn at random
(those of time series, too), are fitted, and the others scored. How far a model is behind the multilevel one, in
log-likelihood an observation, has a standard error from the differences observation by observation.
"""

import multiprocessing
import time
from functools import partial

import numpy as np
import pandas as pd
from common import command_line, hierarchy, no_warnings, report
from threadpoolctl import threadpool_limits

import mlfm
from mlfm.inference.counts import most_identified
from mlfm.sweep import available_cpus
from mlfm.validation import held_out_loglikeobs

N, GROUPS, RANKS, SIZE = 120, [1, 4, 12], (2, 1, 1), 0.4
MOST = [4, 3, 2]
CRITERIA = ("bic", "ebic")
#: Data sets, with the most factors of each level, and of a flat model.
REAL = {"employment": ([10, 4, 2], 15), "stocks": ([8, 6], 20), "personality": ([8, 4, 2], 25)}


def simulated_once(nobs, seed):
    """The ranks that each criterion chooses, and the parallel analysis, for one sample."""
    rng, groups = np.random.default_rng([nobs, seed]), hierarchy(N, GROUPS)
    F, D = SIZE * rng.standard_normal((N, sum(RANKS))), rng.uniform(0.5, 1.5, N)
    Y = mlfm.MultilevelCovariance(groups, F, D, ranks=list(RANKS)).sample(nobs, rng=rng)
    most = dict(zip(groups.levels, MOST, strict=True))
    with no_warnings():
        found = {criterion: mlfm.select_ranks(Y, groups, criterion, max_rank=most).ranks for criterion in CRITERIA}
        found["parallel analysis"] = mlfm.parallel_analysis(Y, groups, max_rank=most).ranks
    return {name: tuple(int(rank) for rank in ranks) for name, ranks in found.items()}


def one_thread():
    """A process has a core of its own; the limit holds while it lives."""
    threadpool_limits(1)


def recovery(sizes, draws):
    """How often the true ranks come out, and the mean rank of each level, as observations grow."""
    rows = []
    with multiprocessing.Pool(available_cpus(), one_thread) as pool:
        for nobs in sizes:
            begin = time.perf_counter()
            found = pool.map(partial(simulated_once, nobs), range(draws), chunksize=1)
            for name in found[0]:
                ranks = np.array([draw[name] for draw in found])
                rows.append(
                    {
                        "observations": nobs,
                        "by": name,
                        "draws": draws,
                        "right": int((ranks == RANKS).all(axis=1).sum()),
                        "mean ranks": ", ".join(f"{mean:.2f}" for mean in ranks.mean(axis=0)),
                    }
                )
            print(f"{nobs} observations: {time.perf_counter() - begin:.0f} s", flush=True)
    return pd.DataFrame(rows)


def models(groups, most, most_flat):
    """The largest ranks of the multilevel model, of the flat one, and of those with factors of one level only."""
    tree = mlfm.Hierarchy(groups)
    yield "multilevel", most
    yield "flat", [most_flat] + [0] * (len(most) - 1)
    for level, name in list(enumerate(tree.levels))[1:]:
        alone = min(10, most_identified(tree, level))
        yield f"{name} alone", [alone * (other == level) for other in range(len(most))]


def held_out(name, most, most_flat):
    """Models whose ranks have the least BIC of the observations fitted, and what they say of the others."""
    data = mlfm.datasets.load(name)
    order = np.random.default_rng(0).permutation(len(data.endog))
    fitted, others = np.split(order, [2 * len(order) // 3])
    train, values = data.endog.iloc[np.sort(fitted)], data.endog.iloc[np.sort(others)].to_numpy(dtype=np.float64)
    levels = mlfm.Hierarchy(data.groups).levels
    ahead = None
    for model, largest in models(data.groups, most, most_flat):
        begin = time.perf_counter()
        with no_warnings():
            max_rank = dict(zip(levels, largest, strict=True))
            choice = mlfm.select_ranks(train, data.groups, max_rank=max_rank, n_jobs=None)
            each = held_out_loglikeobs(choice.results, values, None)
        ahead = each if ahead is None else ahead
        print(f"{name}, {model}: {time.perf_counter() - begin:.0f} s", flush=True)
        behind = ahead - each
        yield {
            "data": name,
            "model": model,
            "ranks": ", ".join(str(rank) for rank in choice.ranks),
            "of at most": ", ".join(map(str, largest)),
            "fits": len(choice.path),
            "parameters": choice.results.df_model,
            "BIC": round(choice.results.bic, 1),
            "held out": round(each.mean(), 3),
            "behind by": round(behind.mean(), 3),
            "+-": round(behind.std(ddof=1) / np.sqrt(len(behind)), 3),
        }


def tables(quick):
    """The two tables."""
    sizes, draws = ([100], 2) if quick else ([50, 100, 200, 400, 800], 20)
    real = {"employment": ([4, 1, 1], 4)} if quick else REAL
    return {
        "true ranks 2, 1, 1": recovery(sizes, draws),
        "held-out log-likelihood an observation": pd.DataFrame(
            [row for name, (most, flat) in real.items() for row in held_out(name, most, flat)]
        ),
    }


if __name__ == "__main__":
    options = command_line(__doc__).parse_args()
    report("rank_selection", tables(options.quick), options.save)
