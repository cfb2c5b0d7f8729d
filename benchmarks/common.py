"""What the benchmarks share: simulated data, models of them, medians, tables, records."""

import argparse
import contextlib
import datetime
import itertools
import json
import platform
import statistics
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd

import mlfm
from mlfm.estimation import STARTS, Problem
from mlfm.standardised import Standardised
from mlfm.sweep import Tree, Workers, available_cpus

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "scipy", "pandas", "statsmodels", "scikit-learn")
CHUNK = 1000  # features that are drawn at a time


def nested(n, groups):
    """Boundaries of nested groups of n features, as equal as can be: ``groups`` of them at each level, coarse to fine.

    A coarse group is a run of the next finer level's groups, so that the numbers hold where they do not divide.
    """
    bounds = [np.linspace(0, n, groups[-1] + 1).astype(np.intp)]
    for count in reversed(groups[:-1]):
        finer = bounds[0]
        bounds.insert(0, finer[np.linspace(0, len(finer) - 1, count + 1).round().astype(np.intp)])
    return bounds


def fill(out, tree, snr, rng):
    """Data of a model on a tree into ``out`` (n x nobs), means removed; nothing of the size of ``out`` is made.

    Loadings are standard normal; the factors' part of the variance is ``snr`` times the unique part on average.
    """
    nobs, r = out.shape[1], tree.n_factors
    Z = np.empty((r, nobs))
    for a, b in itertools.pairwise(tree.leaves):
        for level, bounds in enumerate(tree.offsets):
            if bounds[np.searchsorted(bounds, a)] == a:  # a new group, with factors of its own
                Z[tree.own(level)] = rng.standard_normal((tree.ranks[level], nobs))
        for first in range(a, b, CHUNK):
            own = slice(first, min(first + CHUNK, b))
            size = own.stop - own.start
            D = rng.uniform(0, 2, size) * r / snr + 1e-3
            Y = rng.standard_normal((size, nobs)) * np.sqrt(D)[:, None]
            Y += rng.standard_normal((size, r)) @ Z
            out[own] = Y - Y.mean(axis=1, keepdims=True)


def simulated(n, groups, ranks, nobs, snr=4.0, seed=0):
    """A tree of nested equal groups, and data of a model on it, feature by feature (n x nobs); see :func:`fill`."""
    tree, Y = Tree.of(nested(n, groups), ranks), np.empty((n, nobs))
    fill(Y, tree, snr, np.random.default_rng(seed))
    return tree, Y


def problem(n, groups, ranks, nobs, **options):
    """The estimation problem of simulated data."""
    tree, Y = simulated(n, groups, ranks, nobs, **options)
    return Problem.of(tree, Standardised.of(Y.T, np.arange(n), np.empty((nobs, 0)), np.ones(nobs), None), 1e-4)


def begin(problem, start="top-down"):
    """Where a fit of a problem begins."""
    with Workers() as workers:
        return STARTS[start](problem, np.random.default_rng(0), workers)


def hierarchy(n, groups):
    """Nested equal groups as labels: features and groups are numbers."""
    levels = {f"level {i + 2}": bounds for i, bounds in enumerate(nested(n, groups)[1:])}
    labels = {name: np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)) for name, bounds in levels.items()}
    return mlfm.Hierarchy(pd.DataFrame(labels, index=pd.RangeIndex(n)))


def model(n, groups, ranks, nobs, **options):
    """The model of simulated data, as a user would make it."""
    _, Y = simulated(n, groups, ranks, nobs, **options)
    return mlfm.MultilevelFactorModel(Y.T, hierarchy=hierarchy(n, groups), ranks=ranks)


@contextlib.contextmanager
def no_warnings():
    """Fits that are cut short, groups that are not identified: part of what is measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def median_seconds(function, repeats=5, warmup=1):
    """Median wall-clock time of a call."""
    for _ in range(warmup):
        function()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def machine():
    """What the numbers depend on."""
    record = {"date": datetime.date.today().isoformat(), "mlfm": mlfm.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            record[package] = version(package)
    return record | {"machine": platform.machine(), "cpus": available_cpus()}


def command_line(description):
    """The options of every script; a script may add some of its own before it parses."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--save", action="store_true", help="write a JSON record to benchmarks/results")
    what.add_argument("--quick", action="store_true", help="small cases only, to see that the script runs")
    return parser


def report(name, tables, save=False):
    """Print tables (title -> DataFrame), and record them."""
    for title, table in tables.items():
        print(f"\n{title}\n{table.to_string(index=False)}")
    if save:
        RESULTS.mkdir(exist_ok=True)
        record = {"machine": machine(), "tables": {title: table.to_dict("records") for title, table in tables.items()}}
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
