"""Multilevel low rank matrices in the Frobenius norm: the experiments of Parshakova, Hastie, Darve and Boyd.

Those of arXiv 2310.19214 that need no private data, on the same matrices (their seed, their sizes): the discrete Gauss
transform exp(-25 |t_i - s_j|^2) of points in the unit cube, and a sum of three radial kernels (1 + d^2 / h^2)^-2 of
points on the unit sphere. Each is fitted by a low rank matrix, by one plus a diagonal (of blocks of one, or nearly),
and by a multilevel one with as many numbers to store, whose groups and ranks are found in the matrix. The affinities by
which groups are found are the squares of the elements, as in the paper, or their roots, which fall off less fast.

A covariance with a hidden hierarchy: 200 observations of 2000 features in 2, 4, 8 and 16 groups with a shuffled order,
20 ranks in all, fitted without groups, with the true ones, with groups found in the data, and with random ones.
"""

import time

import numpy as np
import pandas as pd
from common import command_line, no_warnings, report
from scipy.sparse.linalg import svds

import mlfm
from mlfm import Hierarchy, lowrank

SEED = 1001  # of the paper
GROUPS, RANKS = [2, 4, 8, 16], [6, 4, 4, 3, 3]

#: What the paper reports: low rank, low rank plus diagonal, multilevel, seconds for the multilevel one.
PAPER = {
    "Gauss transform 800 x 600": (0.4859, 0.4993, 0.2317, "136 to 226"),
    "Gauss transform 5000 x 7000": (0.4178, 0.4274, 0.1675, "226 to 1235"),
    "radial kernel 5000 x 5000": (0.2277, 0.2328, 0.0650, "226 to 1235"),
}


def gauss_transform(m, n):
    random = np.random.RandomState(SEED)
    s, t = random.rand(n, 3), random.rand(m, 3)
    return np.exp(-25 * squared_distances(t, s))


def radial_kernel(m, n):
    random = np.random.RandomState(SEED)
    t, s = on_sphere(random, m), on_sphere(random, n)
    d2 = squared_distances(t, s)
    return sum((1 + d2 * 4**k / 0.9**2) ** -2 for k in range(3))


def on_sphere(random, n):
    points = random.randn(n, 3)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def squared_distances(t, s):
    return np.maximum((t**2).sum(axis=1)[:, None] - 2 * t @ s.T + (s**2).sum(axis=1), 0)


def timed(function, *args, **kwargs):
    begin = time.perf_counter()
    with no_warnings():
        result = function(*args, **kwargs)
    return result, time.perf_counter() - begin


def diagonal_groups(size, blocks):
    """Rows (or columns) in order, in as many groups as the shorter side has."""
    return Hierarchy(pd.DataFrame({"block": np.arange(size) * blocks // size}))


def matrix_rows(title, A, total, affinities):
    m, n = A.shape
    paper = PAPER.get(title, ("", "", "", ""))
    values, seconds = timed(svds, A, total, return_singular_vectors=False, random_state=0)
    low_rank = np.sqrt(1 - (values**2).sum() / (A**2).sum())
    yield row(title, "low rank", low_rank, paper[0], 0, seconds, total, "")
    sides = [diagonal_groups(size, min(m, n)) for size in (m, n)]
    fitted, seconds = timed(lowrank.fit, A, *sides, [total - 1, 1], tol=1e-6)
    yield row(title, "low rank, diagonal", fitted.relative_error, paper[1], 0, seconds, total, "")
    for name, affinity in affinities.items():
        groups, cutting = timed(lowrank.partition, A, affinity=affinity(A))
        found, seconds = timed(lowrank.allocate_ranks, A, *groups, total, tol=1e-5)
        ranks = ", ".join(str(rank) for rank in found.ranks if rank)
        yield row(
            title,
            f"multilevel, groups by {name}",
            found.fit.relative_error,
            paper[2],
            cutting,
            seconds,
            paper[3],
            ranks,
        )


def row(title, how, error, paper, cutting, seconds, paper_seconds, ranks):
    return {
        "matrix": title,
        "fit": how,
        "relative error": round(float(error), 4),
        "in the paper": paper,
        "groups, s": round(cutting, 1),
        "fit, s": round(seconds, 1),
        "paper, s": paper_seconds if how.startswith("multi") else "",
        "ranks": ranks,
    }


def hidden_covariance(n, nobs):
    """Data of a multilevel factor model, and its hierarchy."""
    hierarchy = Hierarchy.random(n, GROUPS, rng=0)
    random = np.random.default_rng(1)
    F = random.standard_normal((n, sum(RANKS)))
    D = random.uniform(0, 2, n) * sum(RANKS) / 4 + 1e-3  # four times as much signal as noise
    truth = mlfm.MultilevelCovariance(hierarchy, F, D, ranks=RANKS)
    return truth.sample(nobs, rng=2), hierarchy


def covariance_rows(n, nobs):
    endog, known = hidden_covariance(n, nobs)
    S = lowrank.SampleCovariance(endog)
    total = sum(RANKS)
    found, cutting = timed(Hierarchy.from_data, endog, n_groups=GROUPS, ranks=RANKS)
    cases = {
        "no groups": (None, 0.0),
        "the true groups": (known, 0.0),
        "groups found": (found, cutting),
        "random groups": (Hierarchy.random(n, GROUPS, rng=3), 0.0),
    }
    for name, (hierarchy, cutting) in cases.items():
        allocated, seconds = timed(lowrank.allocate_ranks, S, hierarchy, total=total, diagonal=True)
        agreement = np.nan
        if hierarchy is not None:
            table = hierarchy.agreement(known)
            agreement = round(float(table.loc["level_2", "level_2"]), 2)
        yield {
            "groups": name,
            "adjusted Rand index, 2 groups": agreement,
            "relative error": round(allocated.fit.relative_error, 4),
            "ranks": ", ".join(str(rank) for rank in allocated.ranks),
            "groups, s": round(cutting, 1),
            "fit, s": round(seconds, 1),
        }


def squares(A):
    return A**2


def roots(A):
    return np.sqrt(np.abs(A))


if __name__ == "__main__":
    options = command_line(__doc__).parse_args()
    both = {"squares": squares, "roots": roots}
    rows = list(matrix_rows("Gauss transform 800 x 600", gauss_transform(800, 600), 20, both))
    if not options.quick:
        rows += matrix_rows("radial kernel 5000 x 5000", radial_kernel(5000, 5000), 28, {"squares": squares})
        rows += matrix_rows("Gauss transform 5000 x 7000", gauss_transform(5000, 7000), 28, both)
    hidden = list(covariance_rows(*((200, 100) if options.quick else (2000, 200))))
    tables = {"matrices of the paper": pd.DataFrame(rows), "a covariance whose groups are hidden": pd.DataFrame(hidden)}
    report("lowrank", tables, options.save)
