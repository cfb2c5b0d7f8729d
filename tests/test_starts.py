"""Principal components of groups, and the starts that are made of them."""

import itertools

import numpy as np
import pytest
from oracle import make_case, standardised

from mlfm.estimation import STARTS, Problem
from mlfm.estimation import starts as module
from mlfm.estimation.components import Dense, Tiled, components
from mlfm.sweep import Tree, Workers

NESTED = [[0] * 60, [j // 20 for j in range(60)], [j // 4 for j in range(60)]]


def problem_of(case, dtype=float):
    tree = Tree.of(case.hierarchy.offsets, case.ranks)
    data = standardised(case.Y.astype(dtype), case.hierarchy.permutation)
    return Problem.of(tree, data, 1e-4)


def begin(start, problem, n_threads=1):
    with Workers(n_threads) as workers:
        return STARTS[start](problem, np.random.default_rng(0), workers)


def dense_top_down(problem, noise):
    """Level by level, group by group, from the sample covariance of what is left: the definition."""
    tree, left, nobs = problem.tree, problem.Y.copy(), problem.nobs
    F = np.full((len(left), tree.n_factors), np.nan)
    for level, rank in enumerate(tree.ranks):
        for a, b in itertools.pairwise(tree.offsets[level]):
            values, vectors = np.linalg.eigh(left[a:b] @ left[a:b].T / nobs)
            values, vectors, rest = values[::-1][:rank], vectors[:, ::-1][:, :rank], values[::-1][rank:]
            number = min(b - a, problem.Y.shape[1]) - rank
            long = np.maximum(values - rest.sum() / max(number, 1), 0.02 * values) if noise else values
            F[a:b, tree.own(level)] = vectors * np.sqrt(long)
            left[a:b] -= vectors @ (vectors.T @ left[a:b])
    return F, np.maximum((left**2).sum(1) / nobs, 0.05)


@pytest.mark.parametrize("nobs", [30, 200])
@pytest.mark.parametrize("start", ["top-down", "frobenius"])
@pytest.mark.parametrize("together", [1 << 20, 1])
def test_level_by_level_from_the_definition(start, nobs, together, monkeypatch):
    """Also where every group is taken to be a large one, and read tile by tile."""
    monkeypatch.setattr(module, "TOGETHER", together)
    monkeypatch.setattr(Tiled, "TILE", 7)
    problem = problem_of(make_case(NESTED, (3, 2, 1), nobs=nobs))
    F, D = begin(start, problem)
    wantedF, wantedD = dense_top_down(problem, start == "top-down")
    np.testing.assert_allclose(np.abs(F), np.abs(wantedF), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(D, wantedD, rtol=1e-8)


@pytest.mark.parametrize("start", list(STARTS))
def test_threads_do_not_matter_to_the_last_bit(start, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 4000)
    monkeypatch.setattr(Tiled, "TILE", 7)
    problem = problem_of(make_case(NESTED, (3, 2, 1), nobs=50))
    for one, three in zip(begin(start, problem, 1), begin(start, problem, 3), strict=True):
        np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("start", ["top-down", "pca", "frobenius"])
def test_single_precision(start):
    case = make_case(NESTED, (3, 2, 1), nobs=50)
    (F, D), (F32, D32) = begin(start, problem_of(case)), begin(start, problem_of(case, np.float32))
    np.testing.assert_allclose(np.abs(F32), np.abs(F), atol=2e-3)
    np.testing.assert_allclose(D32, D, rtol=1e-3)


@pytest.mark.parametrize(("m", "columns"), [(400, 300), (300, 400)])
@pytest.mark.parametrize("tiled", [False, True])
def test_sampled_components_are_the_leading_ones(m, columns, tiled):
    """Signal far above noise: sampling finds its space and its eigenvalues."""
    rng = np.random.default_rng(0)
    k, nobs = 3, columns
    rows = 3 * rng.standard_normal((m, k)) @ rng.standard_normal((k, columns)) + rng.standard_normal((m, columns))
    with Workers(2) as workers:
        block = Tiled(lambda own: rows[own], m, columns, rows.dtype, workers) if tiled else Dense(rows[None])
        found = components(block, k, nobs)
    U, s, Vt = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(found.values[0], s[:k] ** 2 / nobs, rtol=1e-6)
    np.testing.assert_allclose(np.abs(U[:, :k].T @ found.vectors[0]), np.eye(k), atol=2e-3)
    np.testing.assert_allclose(found.vectors[0] @ found.scores[0], (U[:, :k] * s[:k]) @ Vt[:k], atol=0.05)
    np.testing.assert_allclose(found.vectors[0].T @ found.vectors[0], np.eye(k), atol=1e-12)


def test_components_of_a_stack_are_those_of_each():
    rows = np.random.default_rng(1).standard_normal((4, 6, 9))
    together = components(Dense(rows), 2, 9)
    for i in range(4):
        alone = components(Dense(rows[i : i + 1]), 2, 9)
        np.testing.assert_allclose(together.values[i], alone.values[0])
        np.testing.assert_allclose(together.vectors[i] @ together.scores[i], alone.vectors[0] @ alone.scores[0])


def test_components_of_nothing_are_none():
    """Data of rank 1: the second component is rounding, and is left out."""
    rows = np.outer(np.arange(1.0, 7.0), np.arange(1.0, 10.0))
    found = components(Dense(rows[None]), 2, 9)
    assert found.values[0, 1] == 0
    assert not found.vectors[0, :, 1].any()
    assert not found.scores[0, 1].any()


def test_many_groups_of_one_below_many_factors_need_little_memory():
    """What is kept of the factors above counts too when small groups are put together."""
    import tracemalloc

    n, nobs = 3000, 100
    rng = np.random.default_rng(0)
    tree = Tree.of([np.array([0, n]), np.arange(n + 1)], (50, 1))
    problem = Problem.of(tree, standardised(rng.standard_normal((nobs, n)), np.arange(n)), 1e-4)
    begin("random", problem)
    tracemalloc.start()
    try:
        begin("top-down", problem)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * problem.Y.nbytes + 8 * 2**20 * 4
