"""How far fits end below the highest maximum that is known, and what the search for it takes.

Every problem is fitted by each search. ``behind`` are nats below the best known: for the data sets the value in
``best_known_maxima.csv``, which a run with ``--save`` raises where it ends higher; for simulated problems what is known
by construction, the blocks of ``several_maxima``. ``evaluations`` and ``seconds`` are relative to the first climb alone
(``search="none"``), whose own are in the columns ``first``.
"""

import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd
from common import command_line, no_warnings, report
from scipy import stats

import mlfm

BEST_KNOWN = Path(__file__).parent / "best_known_maxima.csv"
SEARCHES = ("none", "default", "thorough")
QUICK = ("abilities", "several maxima, 3 groups")
BETTER = 0.01  # nats by which a maximum is a new record


def several_maxima(groups, size=5, nobs=400, strong=0.9, weak=0.85, seed=0):
    """Groups with two blocks of features each, and one factor for a group: each choice of blocks is a maximum.

    Returns the model of data whose covariance is the true one exactly, and the log-likelihood of the best choice.
    """
    rng = np.random.default_rng(seed)
    n = 2 * size * groups
    group, block = np.repeat(np.arange(groups), 2 * size), np.tile(np.repeat([0, 1], size), groups)
    stronger = rng.integers(0, 2, groups)[group] == block
    loading = np.where(stronger, strong, weak)
    same_block = (group[:, None] == group) & (block[:, None] == block)
    truth = np.outer(loading, loading) * same_block
    highest = truth * np.outer(stronger, stronger)
    for sigma in (truth, highest):
        np.fill_diagonal(sigma, 1.0)
    Z = rng.standard_normal((nobs, n))
    Z = np.linalg.qr(Z - Z.mean(axis=0))[0] * np.sqrt(nobs)
    frame = pd.DataFrame(Z @ np.linalg.cholesky(truth).T, columns=[f"x{j}" for j in range(n)])
    labels = pd.DataFrame({"group": group}, index=frame.columns)
    llf = stats.multivariate_normal(cov=highest).logpdf(frame.to_numpy()).sum()
    return mlfm.MultilevelFactorModel(frame, hierarchy=labels, ranks=[0, 1]), llf


def problems(known):
    """Name, ranks, model and the best known log-likelihood of every problem."""
    for row in known.itertuples():
        data = mlfm.datasets.load(row.data)
        ranks = [int(rank) for rank in row.ranks.split()]
        model = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=ranks)
        yield row.data, row.ranks, model, row.best_known_llf
    for groups in (3, 10, 30):
        yield f"several maxima, {groups} groups", "0 1", *several_maxima(groups)


def measured(model, search):
    began = time.perf_counter()
    results = model.fit(search=search)
    return results, time.perf_counter() - began


def rows(known, names):
    for data, ranks, model, best in problems(known):
        if names is not None and data not in names:
            continue
        fits = {search: measured(model, search) for search in SEARCHES}
        first, seconds = fits["none"]
        row = {"data": data, "ranks": ranks, "first": first.record.fcalls, "first s": round(seconds, 2)}
        for search, (results, took) in fits.items():
            row[f"{search} behind"] = round(best - results.llf, 2)
            row[f"{search} llf"] = results.llf
            if search != "none":
                row[f"{search} evaluations"] = round(results.record.fcalls / first.record.fcalls, 1)
                row[f"{search} seconds"] = round(took / seconds, 1)
                row[f"{search} reached"] = f"{results.record.reached} of {len(results.starts)}"
        print(f"{data} ({ranks}): " + ", ".join(f"{search} {row[f'{search} behind']}" for search in SEARCHES))
        yield row


def summed_up(found):
    table = []
    for search in SEARCHES:
        behind = found[f"{search} behind"]
        row = {"search": search, "fits": len(found), "within 0.1": int((behind < 0.1).sum())}
        row |= {"within 1": int((behind < 1).sum()), "furthest behind": behind.max()}
        if search != "none":
            row |= {"median evaluations": found[f"{search} evaluations"].median()}
            row |= {"median seconds": found[f"{search} seconds"].median()}
            row |= {"most seconds": found[f"{search} seconds"].max()}
        table.append(row)
    return pd.DataFrame(table)


def raised(known, found):
    """The best known maxima with those that were found to be higher."""
    known = known.copy()
    for row, search in itertools.product(found.to_dict("records"), SEARCHES):
        own = (known["data"] == row["data"]) & (known["ranks"] == row["ranks"])
        if own.any() and row[f"{search} llf"] > known.loc[own, "best_known_llf"].iloc[0] + BETTER:
            known.loc[own, ["best_known_llf", "found_by"]] = round(row[f"{search} llf"], 4), f'search="{search}"'
    return known


if __name__ == "__main__":
    options = command_line(__doc__).parse_args()
    best_known = pd.read_csv(BEST_KNOWN)
    with no_warnings():
        table = pd.DataFrame(rows(best_known, QUICK if options.quick else None))
    shown = table.drop(columns=[f"{search} llf" for search in SEARCHES])
    report("maxima", {"Each fit": shown, "In all": summed_up(table)}, options.save)
    if options.save:
        raised(best_known, table).to_csv(BEST_KNOWN, index=False)
