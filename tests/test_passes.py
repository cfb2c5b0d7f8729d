"""The passes over the data: the EM steps from the definition, tiles of any size, single precision."""

import itertools
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from oracle import dense_loglikeobs, make_case, standardised

import mlfm
from mlfm import tiles
from mlfm._kernels.em import em_pass, px_em_pass
from mlfm.estimation import METHODS, Problem
from mlfm.estimation.em import CompleteStair
from mlfm.likelihood import condition, loglike, score
from mlfm.sweep import Sweep, Tree, Workers

FLOOR = 1e-4


def in_group_order(case):
    order = case.hierarchy.permutation
    tree = Tree.of(case.hierarchy.offsets, case.ranks)
    return tree, case.loadings[order], case.uniquenesses[order], np.ascontiguousarray(case.Y.T[order])


def expanded(tree, F):
    """All factors side by side (n x s), and each feature's path among them."""
    columns, paths = [], [[] for _ in F]
    for level, bounds in enumerate(tree.offsets):
        for a, b in itertools.pairwise(bounds):
            for c in range(tree.columns[level], tree.columns[level + 1]):
                column = np.zeros(len(F))
                column[a:b] = F[a:b, c]
                for j in range(a, b):
                    paths[j].append(len(columns))
                columns.append(column)
    return np.array(columns).reshape(len(columns), len(F)).T, paths


def dense_step(tree, F, D, Y, floor, expand):
    """The EM step of every feature from the dense posterior of all factors."""
    wide, paths = expanded(tree, F)
    sigma, nobs = wide @ wide.T + np.diag(D), Y.shape[1]
    weights = np.linalg.solve(sigma, wide)
    Z, P = weights.T @ Y, np.eye(wide.shape[1]) - wide.T @ weights
    F, D = F.copy(), D.copy()
    for j, path in enumerate(paths):
        W = nobs * P[np.ix_(path, path)] + Z[path] @ Z[path].T
        V = Z[path] @ Y[j]
        F[j] = np.linalg.solve(W, V)
        D[j] = max((Y[j] @ Y[j] - F[j] @ V) / nobs, floor[j])
        if expand:
            F[j] = F[j] @ np.linalg.cholesky(W / nobs)
    return F, D


def problem_of(tree, Y):
    squares = (Y.astype(float) ** 2).sum(1)
    n, nobs = Y.shape
    return Problem(tree, nobs, np.ones(n), np.full(n, FLOOR), np.empty((n, 0)), Y, squares)


def one_step(kernel, tree, F, D, Y, n_threads=1):
    """Parameters after a step, and the log-likelihood that the sweep holds then."""
    problem, F, D = problem_of(tree, Y), F.copy(), D.copy()
    with Workers(n_threads) as workers:
        stair = CompleteStair(problem, (F, D), workers, kernel)
        stair.step()
        return *stair.point, stair.loglike()


@pytest.mark.parametrize("kernel", [em_pass, px_em_pass])
def test_a_step_from_the_definition(case, kernel):
    tree, F, D, Y = in_group_order(case)
    wantedF, wantedD = dense_step(tree, F, D, Y, np.full(len(Y), FLOOR), kernel is px_em_pass)
    gotF, gotD, llf = one_step(kernel, tree, F, D, Y)
    np.testing.assert_allclose(gotF, wantedF, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(gotD, wantedD, rtol=1e-8, atol=1e-10)
    wide, _ = expanded(tree, gotF)
    dense = dense_loglikeobs(Y.T, 0, wide @ wide.T + np.diag(gotD)).sum()
    assert llf == pytest.approx(dense, rel=1e-10)


def evaluate(case, kernel):
    tree, F, D, Y = in_group_order(case)
    with Workers(1) as workers:
        sweep = Sweep(tree, Y.shape[1])
        condition(sweep, F, D, Y, workers)
        squares = (Y**2).sum(1)
        llf = loglike(sweep, D, squares, Y.shape[1])
        gradient = score(sweep, F, D, Y, squares, Y.shape[1], workers)
    return sweep.tile, [llf, *gradient, *one_step(kernel, tree, F, D, Y)]


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("kernel", [em_pass, px_em_pass])
def test_the_size_of_tiles_does_not_matter(case, kernel, rows, monkeypatch):
    _, whole = evaluate(case, kernel)
    monkeypatch.setattr(tiles, "MOST", rows)
    tile, pieces = evaluate(case, kernel)
    assert tile == rows
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-11, atol=1e-12 * np.abs(one).max(initial=1.0))


@pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
@pytest.mark.parametrize("method", list(METHODS))
def test_fits_do_not_depend_on_the_size_of_tiles(method, monkeypatch):
    case = make_case([[0] * 45, [j // 15 for j in range(45)]], (2, 1), nobs=60, seed=5)

    def fit():
        model = mlfm.MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=case.ranks)
        return model.fit(method=method, maxiter=12, start="top-down")

    whole = fit()
    monkeypatch.setattr(tiles, "MOST", 4)
    pieces = fit()
    assert pieces.llf == pytest.approx(whole.llf, rel=1e-12)
    np.testing.assert_allclose(pieces.params, whole.params, rtol=1e-7, atol=1e-9)


def test_a_tile_is_a_function_of_the_shape():
    assert tiles.tile_rows(340, 67) == (1 << 17) // (340 + 2 * 67 + 1)
    assert tiles.tile_rows(10**6, 5) == tiles.FEWEST
    assert tiles.tile_rows(0, 0) == tiles.MOST


@pytest.mark.parametrize("kernel", [em_pass, px_em_pass])
def test_a_step_in_single_precision(case, kernel):
    tree, F, D, Y = in_group_order(case)
    double = one_step(kernel, tree, F, D, Y)
    single = one_step(kernel, tree, F, D, Y.astype(np.float32))
    np.testing.assert_allclose(single[0], double[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(single[1], double[1], rtol=1e-5, atol=1e-6)
    assert single[2] == pytest.approx(double[2], rel=1e-6)


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("nobs", [40, 150])
def test_a_fit_in_single_precision(method, nobs):
    """Data are kept in single precision (for N > n as a triangular factor in double), and the ends agree."""
    case = make_case([[0] * 60, [j // 20 for j in range(60)]], (2, 1), nobs=nobs, seed=3)

    def fit(frame):
        model = mlfm.MultilevelFactorModel(frame, hierarchy=case.hierarchy, ranks=case.ranks)
        return model.fit(method=method)

    single, double = fit(case.frame.astype(np.float32)), fit(case.frame)
    assert single.converged
    assert single.model.endog.dtype == np.float32
    assert single.llf == pytest.approx(single.model.loglike(single.params), rel=1e-12)
    # The EM methods stop within a hundredth of a nat or so of the maximum, each in its own place.
    gain, share = (1e-3, 1e-3) if method == "scoring" else (0.05, 0.1)
    assert single.llf == pytest.approx(double.llf, abs=gain)
    np.testing.assert_allclose(single.uniquenesses, double.uniquenesses, rtol=share)
    np.testing.assert_allclose(single.covariance.to_dense(), double.covariance.to_dense(), rtol=share, atol=share)


@pytest.mark.filterwarnings("ignore::mlfm.UniquenessFloorWarning", "ignore::mlfm.IdentificationWarning")
@pytest.mark.parametrize("nobs", [3, 10, 50])
def test_single_precision_with_uniquenesses_on_the_floor(nobs):
    """Rounding errors of products with the data would be divided by the floor: none may be in single precision."""
    case = make_case([[0] * 60, [j // 20 for j in range(60)]], (2, 1), nobs=nobs, seed=3)
    Y = case.Y.copy()
    Y[:, 1], Y[:, 2] = Y[:, 0], -Y[:, 0]

    def fit(values):
        model = mlfm.MultilevelFactorModel(values, hierarchy=case.hierarchy, ranks=case.ranks, uniqueness_floor=1e-6)
        return model.fit(start="top-down")

    single, double = fit(Y.astype(np.float32)), fit(Y)
    assert len(double.on_floor)
    assert single.converged == double.converged
    assert single.llf == pytest.approx(single.model.loglike(single.params), rel=1e-9)
    assert single.llf == pytest.approx(double.llf, abs=0.05)
    llf = single.history.loc[single.history["accepted"], "llf"]
    assert (llf.diff().dropna() >= -1e-9 * abs(single.llf)).all()


def test_what_is_kept_of_the_data():
    rng = np.random.default_rng(0)
    values = 7 + 100 * rng.standard_normal((30, 5))
    order = np.array([3, 1, 4, 0, 2])
    for dtype, tolerance in ((np.float64, 1e-15), (np.float32, 1e-6)):
        given = values.astype(dtype)
        kept = standardised(given, order)
        assert kept.Y.dtype == dtype
        np.testing.assert_allclose(kept.Y.mean(axis=1), 0, atol=1e3 * tolerance)
        np.testing.assert_allclose((kept.Y**2).mean(axis=1), 1, rtol=1e3 * tolerance)
        np.testing.assert_allclose(kept.observations(), given, rtol=100 * tolerance)
        np.testing.assert_allclose(
            kept.less(kept.coefficients).T, (given - given.mean(0))[:, order], atol=1e4 * tolerance
        )
    assert not np.shares_memory(kept.Y, given)


@pytest.mark.parametrize(("method", "arrays"), [("scoring", 11), ("px-em", 4)])
def test_memory_is_counted_in_arrays_of_the_loadings(method, arrays):
    """From one start: with many factors and few observations the loadings are what takes memory.

    Scoring holds the point, its gradient, the trial point, and five pairs in single precision. At its end each method
    makes the loadings in the data's units, in canonical rotation and in the user's order.
    """
    n, nobs = 4000, 12
    rng = np.random.default_rng(0)
    groups = pd.DataFrame({"g": np.arange(n) // 1000}, index=pd.RangeIndex(n))
    model = mlfm.MultilevelFactorModel(
        rng.standard_normal((nobs, n)).astype(np.float32), hierarchy=mlfm.Hierarchy(groups), ranks=[10, 10]
    )
    size = n * 20 * 8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        model.fit(method=method, start="random", maxiter=1, n_threads=1)  # what is loaded once
        tracemalloc.start()
        try:
            model.fit(method=method, start="random", maxiter=12, n_threads=1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < arrays * size + 2e6, peak / size
