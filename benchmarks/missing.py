"""What missing values cost: fits of the same data with and without gaps.

Made up data are fitted whole and with values struck out, `stocks` with its gaps and with zeros in their place. An
evaluation is one of the log-likelihood with its gradient, metric and step, as scoring makes it.
"""

import time

import numpy as np
import pandas as pd
from common import command_line, no_warnings, report

import mlfm

REPEATS = 3


def panel(nobs, n, groups, ranks, seed=0):
    """Data of a model with random loadings, and the groups of its features."""
    rng = np.random.default_rng(seed)
    labels = pd.DataFrame({f"level {len(groups)}": np.arange(n) * groups[-1] // n})
    for level in reversed(range(1, len(groups) - 1)):
        labels.insert(0, f"level {level + 1}", np.arange(n) * groups[level] // n)
    F = 0.6 * rng.standard_normal((n, sum(ranks)))
    covariance = mlfm.MultilevelCovariance(mlfm.Hierarchy(labels), F, rng.uniform(0.5, 1.5, n), ranks=ranks)
    return covariance.sample(nobs, rng=1).to_numpy(), labels


def started_at(Y, dates):
    """Every feature begins at one of some dates, the first of them the beginning."""
    late = Y.copy()
    begin = np.random.default_rng(2).choice(np.linspace(0, 0.8 * len(Y), dates).astype(int), Y.shape[1])
    late[np.arange(len(Y))[:, None] < begin] = np.nan
    return late


def struck_out(Y, share):
    return np.where(np.random.default_rng(3).random(Y.shape) < share, np.nan, Y)


def timed_fit(Y, groups, ranks):
    """Seconds to make the model, seconds to fit it, evaluations: those of the fit of median time."""
    runs = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        model = mlfm.MultilevelFactorModel(Y, hierarchy=mlfm.Hierarchy(groups), ranks=ranks)
        made = time.perf_counter() - begin
        results = model.fit(search="none")
        runs.append((results.record.seconds, made, results))
    seconds, made, results = sorted(runs, key=lambda run: run[0])[REPEATS // 2]
    patterns = results.model._data.patterns
    return (
        made,
        seconds,
        results.record.fcalls,
        1 if patterns is None else len(patterns),
    )


def row(title, whole, gaps, groups, ranks):
    with no_warnings():
        _, seconds, evaluations, _ = timed_fit(whole, groups, ranks)
        _, seconds_gaps, evaluations_gaps, patterns = timed_fit(gaps, groups, ranks)
    each, each_gaps = 1e3 * seconds / evaluations, 1e3 * seconds_gaps / evaluations_gaps
    return {
        "data": title,
        "shape": f"{whole.shape[0]} x {whole.shape[1]}",
        "factors": sum(ranks),
        "missing, %": round(100 * float(np.isnan(gaps).mean()), 2),
        "patterns": patterns,
        "ms an evaluation, whole": round(each, 2),
        "with gaps": round(each_gaps, 2),
        "ratio": round(each_gaps / each, 2),
        "fit, whole, s": round(seconds, 2),
        "fit with gaps, s": round(seconds_gaps, 2),
        "evaluations, whole": evaluations,
        "evaluations with gaps": evaluations_gaps,
    }


def cases(quick):
    nobs, n = (100, 60) if quick else (1000, 500)
    stocks = mlfm.datasets.load("stocks")
    values = stocks.endog.to_numpy()
    groups, ranks = [1, 10, 50], [3, 2, 1]
    Y, labels = panel(nobs, n, groups, ranks)
    few = np.argwhere(struck_out(Y, 0.0005) != Y)
    yield "stocks", np.nan_to_num(values), values, stocks.groups, [5, 1]
    yield "start at 20 dates", Y, started_at(Y, 20), labels, ranks
    yield f"{len(few)} values at random", Y, struck_out(Y, 0.0005), labels, ranks
    yield "1 % at random", Y, struck_out(Y, 0.01), labels, ranks
    yield "10 % at random", Y, struck_out(Y, 0.1), labels, ranks
    yield "30 % at random", Y, struck_out(Y, 0.3), labels, ranks
    if not quick:
        Y, labels = panel(300, 20_000, [1, 20, 200], [10, 5, 2])
        yield "wide, start at 20 dates", Y, started_at(Y, 20), labels, [10, 5, 2]
        yield "wide, 0.05 % at random", Y, struck_out(Y, 0.0005), labels, [10, 5, 2]
        yield "wide, 10 % at random", Y, struck_out(Y, 0.1), labels, [10, 5, 2]


if __name__ == "__main__":
    options = command_line(__doc__).parse_args()
    table = pd.DataFrame([row(*case) for case in cases(options.quick)])
    report("missing", {"missing values, all threads": table}, options.save)
