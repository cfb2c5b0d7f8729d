"""What the benchmarks share: simulated data, medians, tables, records."""

import argparse
import datetime
import itertools
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy

import mlfm
from mlfm.estimation import Problem
from mlfm.sweep import Tree, available_cpus

RESULTS = Path(__file__).parent / "results"


def simulated(n, groups, ranks, nobs, snr=4.0, seed=0):
    """A tree of nested equal groups, and data of a model on it, feature by feature (n x nobs), means removed.

    Loadings are standard normal; the factors' part of the variance is ``snr`` times the unique part on average.
    """
    rng, offsets = np.random.default_rng(seed), []
    for count in groups:
        bounds = np.linspace(0, n, count + 1).astype(np.intp)
        offsets.append(np.unique(np.concatenate([bounds, offsets[-1]])) if offsets else bounds)
    tree = Tree.of(offsets, ranks)
    F = rng.standard_normal((n, tree.n_factors))
    D = rng.uniform(0, 1, n) * 2 * (F**2).sum(1).mean() / snr + 1e-3
    Y = rng.standard_normal((n, nobs)) * np.sqrt(D)[:, None]
    for level, bounds in enumerate(tree.offsets):
        for a, b in itertools.pairwise(bounds):
            Y[a:b] += F[a:b, tree.own(level)] @ rng.standard_normal((tree.ranks[level], nobs))
    Y -= Y.mean(axis=1, keepdims=True)
    return tree, Y


def problem(n, groups, ranks, nobs, **options):
    """The estimation problem of simulated data."""
    tree, Y = simulated(n, groups, ranks, nobs, **options)
    return Problem.of(tree, Y, 1e-4)


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
    return {
        "date": datetime.date.today().isoformat(),
        "mlfm": mlfm.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pandas": pd.__version__,
        "machine": platform.machine(),
        "cpus": available_cpus(),
    }


def report(name, tables):
    """Print tables (title -> DataFrame), and record them where the command line says --save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--save", action="store_true", help="write a JSON record to benchmarks/results")
    save = parser.parse_args().save
    for title, table in tables.items():
        print(f"\n{title}\n{table.to_string(index=False)}")
    if save:
        RESULTS.mkdir(exist_ok=True)
        record = {"machine": machine(), "tables": {title: table.to_dict("records") for title, table in tables.items()}}
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
