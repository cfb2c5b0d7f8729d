"""Evaluations and seconds of one climb to near its maximum, from each start, and where PX-EM is by then.

A climb is ended with a tolerance so small that its end is its maximum: within 1e-3 (1e-6) of it is the first accepted
evaluation whose log-likelihood an observation is so close. What counts are all evaluations, of steps that were
taken back too. Seconds are those of the call of ``fit`` until that evaluation.
A likelihood may have several maxima, so the end's distance below the best end of the same problem is given too.
PX-EM goes from the start of the climb of fewest evaluations that ends within 1e-6 of the best, for ten times the
seconds that this climb took to within 1e-6, or for as many iterations as PX_EM_ITERATIONS.
"""

import contextlib
import itertools
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
from common import command_line, hierarchy, model, nested, no_warnings, report

import mlfm

STARTS = ("top-down", "pca")
TOLERANCE, MAXITER = 1e-7, 5_000
NEAR, NEARER = 1e-3, 1e-6  # an observation
PX_EM_TIMES, PX_EM_ITERATIONS = 10, 2_000

SYNTHETIC = {"groups": [1, 3, 7, 16, 32], "ranks": [30, 20, 10, 5, 2], "nobs": 340}
TINY = {"n": 8_000, "nobs": 200}
SMALL = {"n": 500, "groups": [1, 5, 25], "ranks": [3, 2, 1], "nobs": 300}


def real(name, ranks, levels=None):
    """The model of a data set, observations with missing values left out, of all its levels or of some."""
    data = mlfm.datasets.load(name)
    hierarchy = mlfm.Hierarchy(data.groups, levels=levels)
    return mlfm.MultilevelFactorModel(data.endog, hierarchy=hierarchy, ranks=ranks, missing="drop")


def weak(groups, ranks):
    """Groups of a few features, with weak loadings of either sign: nearly independent problems by the thousand."""
    rng, bounds = np.random.default_rng(0), nested(TINY["n"], groups)
    F = 0.5 * rng.standard_normal((TINY["n"], sum(ranks)))
    Y = rng.standard_normal((TINY["n"], TINY["nobs"])) * np.sqrt(rng.uniform(0.5, 1.5, TINY["n"]))[:, None]
    blocks = np.split(F, np.cumsum(ranks)[:-1], axis=1)
    for offsets, block in zip(bounds, blocks, strict=True):
        for a, b in itertools.pairwise(offsets):
            Y[a:b] += block[a:b] @ rng.standard_normal((block.shape[1], TINY["nobs"]))
    return mlfm.MultilevelFactorModel(Y.T, hierarchy=hierarchy(TINY["n"], groups), ranks=ranks)


PROBLEMS = {
    "synthetic, n 1000": lambda: model(n=1_000, **SYNTHETIC),
    "synthetic, n 5000": lambda: model(n=5_000, **SYNTHETIC),
    "three levels, snr 0.3": lambda: model(**SMALL, snr=0.3),
    "three levels, snr 1": lambda: model(**SMALL, snr=1.0),
    "three levels, snr 4": lambda: model(**SMALL, snr=4.0),
    "two levels, snr 1": lambda: model(n=500, groups=[1, 5], ranks=[3, 2], nobs=300, snr=1.0),
    "2000 groups of 4": lambda: weak([1, 2000], [3, 1]),
    "1600 groups of 5, three levels": lambda: weak([1, 80, 1600], [3, 2, 1]),
    "stocks (5, 2)": lambda: real("stocks", [5, 2]),
    "employment (3, 1, 1)": lambda: real("employment", [3, 1, 1]),
    "personality (5, 2, 1)": lambda: real("personality", [5, 2, 1]),
    "cells (10, 3, 2)": lambda: real("cells", [10, 3, 2], levels=["lineage", "cell_type"]),
}
QUICK = ("three levels, snr 1", "employment (3, 1, 1)")


class Climb(NamedTuple):
    """A fit and when each of its evaluations was done; log-likelihoods an observation, the highest so far."""

    record: mlfm.estimation.FitRecord
    seconds: np.ndarray
    highest: np.ndarray

    @property
    def end(self):
        return self.highest[-1]

    def within(self, shortfall):
        """Evaluations and seconds until the log-likelihood is at most ``shortfall`` below the end."""
        first = int(np.argmax(self.highest >= self.end - shortfall))
        return first + 1, self.seconds[first]


class Enough(Exception):
    """The time is up."""


def climb(fitted, start):
    seconds, llfs = [], []

    def stamp(entry):
        seconds.append(time.perf_counter() - began)
        llfs.append(entry.llf if entry.accepted else -np.inf)

    began = time.perf_counter()
    record = fitted.fit(start, tol=TOLERANCE, maxiter=MAXITER, callback=stamp, search="none").record
    return Climb(record, np.array(seconds), np.maximum.accumulate(llfs) / fitted.nobs)


def px_em(fitted, start, limit):
    """Seconds, iterations and log-likelihood an observation where the time, or the number of iterations, is up."""
    done = []

    def stamp(entry):
        done.append((time.perf_counter() - began, entry.evaluation, entry.llf / fitted.nobs))
        if done[-1][0] > limit:
            raise Enough

    began = time.perf_counter()
    with contextlib.suppress(Enough):
        fitted.fit(start, method="px-em", tol=0, maxiter=PX_EM_ITERATIONS, callback=stamp)
    return done[-1]


def rows(name, fitted):
    """The rows of one problem in both tables."""
    fitted.fit(maxiter=1, search="none")  # the first fit pays for what is loaded and allocated once
    climbs = {start: climb(fitted, start) for start in STARTS}
    best = max(each.end for each in climbs.values())
    scoring = []
    for start, each in climbs.items():
        near, nearer = each.within(NEAR), each.within(NEARER)
        ended = "yes" if each.record.converged else "no"
        scoring.append((name, start, each.end, best - each.end, *near, *nearer, len(each.seconds), ended))
    fastest = min((each for each in climbs.values() if best - each.end < NEARER), key=lambda each: each.within(NEARER))
    start, (evaluations, seconds) = fastest.record.start, fastest.within(NEARER)
    taken, iterations, llf = px_em(fitted, start, PX_EM_TIMES * seconds)
    return scoring, (name, start, evaluations, seconds, iterations, taken, best - llf)


def tables(problems):
    scoring, beside = [], []
    for name, make in problems.items():
        more, other = rows(name, make())
        scoring += more
        beside.append(other)
    within = [f"{what} to {shortfall:g}" for shortfall in (NEAR, NEARER) for what in ("evals", "s")]
    columns = ["problem", "start", "end", "below the best", *within, "evals in all", "converged"]
    first = pd.DataFrame(scoring, columns=columns).round({"end": 6, **dict.fromkeys(within[1::2], 3)})
    first["below the best"] = first["below the best"].map("{:.1e}".format)
    columns = ["problem", "start", f"scoring, evals to {NEARER:g}", "s", "PX-EM, iterations", "s ", "short by"]
    second = pd.DataFrame(beside, columns=columns).round({"s": 3, "s ": 3})
    second["short by"] = second["short by"].map("{:.1e}".format)
    return {
        "scoring; log-likelihoods in nats an observation": first,
        f"PX-EM, {PX_EM_TIMES} times as long or {PX_EM_ITERATIONS} iterations; nats an observation short of the best": (
            second
        ),
    }


if __name__ == "__main__":
    options = command_line(__doc__).parse_args()
    with no_warnings():
        found = tables({name: PROBLEMS[name] for name in (QUICK if options.quick else PROBLEMS)})
    report("convergence", found, options.save)
