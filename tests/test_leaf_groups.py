"""Small leaf groups' turn: a group's maximum against a dense one, and climbs of many small groups."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

import mlfm
from mlfm._kernels.leaf_groups import maximise
from mlfm.estimation import METHODS, STARTS, FitRecord, Problem
from mlfm.estimation.climber import CompleteClimber
from mlfm.estimation.leaf_groups import LeafGroups
from mlfm.estimation.scoring import scoring
from mlfm.standardised import Standardised
from mlfm.sweep import Tree, Workers

NOBS = 300
FLOOR = 1e-4


def moments(m, own, above, seed=0, weak=1.0):
    """Moments of a group of m features with its own and the factors above it, from data; and parameters near them."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((above + own, NOBS))
    F = weak * rng.standard_normal((m, above + own))
    Y = F @ Z + rng.standard_normal((m, NOBS))
    Y /= Y.std(axis=1, keepdims=True)
    return Y @ Z.T, Z @ Z.T, Y @ Y.T, F + 0.1 * rng.standard_normal(F.shape), np.full(m, 0.5)


def turn(V, W, products, F, D, own, afresh=False, penalty=0.0):
    """New loadings and uniquenesses of one group, and what its own part gains."""
    m = len(D)
    F_new, D_new = np.full_like(F, np.nan), np.full(m, np.nan)
    gain = maximise(
        V, W[None], products.ravel(), np.zeros(1, dtype=np.intp), NOBS, np.full(m, FLOOR), penalty,
        np.array([0, m], dtype=np.intp), own, F, D, afresh, F_new, D_new,
    )  # fmt: skip
    return F_new, D_new, gain


def residual(V, W, products, above):
    """The covariance that the factors above leave, and their loadings in an expanded model's units."""
    if not above:
        return products / NOBS, np.empty((len(V), 0))
    A = np.linalg.solve(W[:above, :above], V[:, :above].T).T
    return (products - A @ V[:, :above].T) / NOBS, A @ np.linalg.cholesky(W[:above, :above] / NOBS)


def deviance(S, L, D):
    sigma = L @ L.T + np.diag(D)
    return np.linalg.slogdet(sigma)[1] + np.trace(np.linalg.solve(sigma, S))


def lowest(S, own, L, D, penalty=0.0):
    """The deviance of a descent by scipy from the same parameters."""
    m = len(D)

    def value(theta):
        L, D = theta[: m * own].reshape(m, own), theta[m * own :]
        return deviance(S, L, D) + 2 * penalty / NOBS * (1 / D).sum()

    start = np.concatenate([L.ravel(), D])
    bounds = [(None, None)] * (m * own) + [(FLOOR, None)] * m
    return minimize(value, start, bounds=bounds, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-14}).fun


@pytest.mark.parametrize(("m", "own", "above"), [(4, 1, 3), (5, 2, 2), (6, 2, 0), (8, 3, 4), (30, 2, 1)])
def test_a_group_at_its_maximum(m, own, above):
    V, W, products, F, D = moments(m, own, above)
    F_new, D_new, gain = turn(V, W, products, F, D, own)
    S, A = residual(V, W, products, above)
    np.testing.assert_allclose(F_new[:, :above], A, rtol=1e-9, atol=1e-12)
    at_end = deviance(S, F_new[:, above:], D_new)
    assert at_end == pytest.approx(lowest(S, own, F[:, above:], D), abs=1e-6)
    assert gain == pytest.approx(NOBS / 2 * (deviance(S, F[:, above:], D) - at_end), rel=1e-8)


@pytest.mark.parametrize(("m", "own"), [(5, 1), (6, 3)])
def test_loadings_are_turned_towards_the_old_ones(m, own):
    V, W, products, F, D = moments(m, own, 1)
    L = turn(V, W, products, F, D, own)[0][:, 1:]
    left, _, right = np.linalg.svd(L.T @ F[:, 1:])
    np.testing.assert_allclose(left @ right, np.eye(own), atol=1e-9)


def test_at_the_maximum_nothing_moves():
    V, W, products, F, D = moments(6, 2, 2)
    F1, D1, _ = turn(V, W, products, F, D, 2)
    F2, D2, gain = turn(V, W, products, F1, D1, 2)
    np.testing.assert_allclose(F2, F1, atol=1e-6)
    np.testing.assert_allclose(D2, D1, atol=1e-6)
    assert 0 <= gain < 1e-8


@pytest.mark.parametrize(("m", "own"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2), (3, 5)])
def test_as_many_factors_as_features_explain_everything(m, own):
    V, W, products, F, D = moments(m, own, 1)
    F_new, D_new, _ = turn(V, W, products, F, D, own, afresh=True)
    S, _ = residual(V, W, products, 1)
    assert deviance(S, F_new[:, 1:], D_new) == pytest.approx(np.linalg.slogdet(S)[1] + m, abs=1e-6)
    if m == 1:  # a group of one has nothing to share
        assert (F_new[:, 1:] == 0).all()


def test_a_heywood_case_ends_on_its_floor():
    rng = np.random.default_rng(3)
    common, own = rng.standard_normal((2, NOBS))
    # The second and third are less correlated than by a common factor: r_23 < r_12 r_13.
    Y = np.vstack([common, common + own, common - 0.5 * own + 0.5 * rng.standard_normal(NOBS)])
    Y /= Y.std(axis=1, keepdims=True)
    V, W = np.zeros((3, 1)), np.eye(1)
    _, D_new, _ = turn(V, W, Y @ Y.T, np.full((3, 1), 0.5), np.full(3, 0.5), 1)
    assert D_new[0] == FLOOR
    assert (D_new[1:] > 0.1).all()


@pytest.mark.parametrize(("m", "own", "above"), [(4, 1, 2), (6, 2, 0)])
def test_a_penalty_on_small_uniquenesses(m, own, above):
    V, W, products, F, D = moments(m, own, above)
    F_new, D_new, gain = turn(V, W, products, F, D, own, penalty=5.0)
    S, _ = residual(V, W, products, above)
    taken = 2 * 5.0 / NOBS * (1 / np.array([D, D_new])).sum(axis=1)
    at_end = deviance(S, F_new[:, above:], D_new) + taken[1]
    assert at_end == pytest.approx(lowest(S, own, F[:, above:], D, 5.0), abs=1e-6)
    assert gain == pytest.approx(NOBS / 2 * (deviance(S, F[:, above:], D) + taken[0] - at_end), rel=1e-8)


def test_a_start_of_its_own_leads_higher_where_the_old_one_was_wrong():
    """From a uniqueness near its floor a group ends on it; its own start finds the higher maximum."""
    found = []
    for seed in range(200):
        V, W, products, F, D = moments(4, 1, 0, seed, weak=0.5)
        D = np.where(np.arange(4) == 0, 1e-3, D)
        _, _, kept = turn(V, W, products, F, D, 1)
        _, _, fresh = turn(V, W, products, F, D, 1, afresh=True)
        assert fresh >= kept - 1e-6
        found.append(fresh > kept + 0.1)
    assert sum(found) > 20


def many_small(n_groups, size, ranks, nobs=200, seed=0, middle=None):
    """A problem of weak loadings of either sign."""
    n, rng = n_groups * size, np.random.default_rng(seed)
    offsets = [np.array([0, n], dtype=np.intp), np.arange(0, n + 1, size, dtype=np.intp)]
    if middle:
        offsets.insert(1, np.arange(0, n + 1, size * middle, dtype=np.intp))
    tree = Tree.of(offsets, ranks)
    F = 0.5 * rng.standard_normal((n, tree.n_factors))
    Y = rng.standard_normal((n, nobs)) * np.sqrt(rng.uniform(0.5, 1.5, n))[:, None]
    for level, bounds in enumerate(tree.offsets):
        for a, b in itertools.pairwise(bounds):
            Y[a:b] += F[a:b, tree.own(level)] @ rng.standard_normal((tree.ranks[level], nobs))
    Y -= Y.mean(axis=1, keepdims=True)
    return Problem.of(tree, Standardised.of(Y.T, np.arange(n), np.empty((nobs, 0)), np.ones(nobs), None), FLOOR)


def climb(problem, start="pca", n_threads=1):
    record = FitRecord("scoring", start, 1000, 1e-4, n_threads)
    with Workers(n_threads) as workers:
        begin = STARTS[start](problem, np.random.default_rng(0), workers)
        point = METHODS["scoring"].climb(problem, begin, record, workers, lambda entry: None)
    return record, point


@pytest.mark.parametrize(
    ("problem", "most"), [((500, 4, [3, 1]), 30), ((400, 5, [2, 1, 1], 200, 0, 10), 60)], ids=["two levels", "three"]
)
def test_many_small_groups_take_few_evaluations(problem, most):
    """Without the turns they take hundreds."""
    problem = many_small(*problem)
    record, _ = climb(problem)
    assert record.converged
    assert len(record.evaluations) <= most
    assert any(entry.step == "leaf groups" for entry in record.evaluations)
    other, _ = climb(problem, "top-down")
    assert other.llf == pytest.approx(record.llf, abs=0.005 * len(problem.tree.leaves))


def test_the_likelihood_never_falls_and_threads_do_not_matter():
    problem = many_small(300, 4, [2, 1], nobs=60)
    record, point = climb(problem)
    turns = [entry for entry in record.evaluations if entry.step == "leaf groups"]
    assert len(turns) > 1
    assert all(entry.accepted for entry in turns)  # a turn raises the likelihood: it is never taken back
    again, other = climb(problem, n_threads=3)
    assert [entry.llf for entry in again.evaluations] == [entry.llf for entry in record.evaluations]
    for one, two in zip(point, other, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_turn_gains_what_it_promises():
    problem = many_small(100, 5, [2, 1])
    with Workers(1) as workers:
        climber = CompleteClimber(problem, STARTS["top-down"](problem, np.random.default_rng(0), workers), workers)
        promised = climber.propose_leaf_groups(afresh=True)
        before = climber.llf
        gain = climber.try_leaf_groups()
        assert promised > 0
        assert gain >= promised
        assert climber.llf == before + gain


def test_single_precision_data_and_groups_that_are_not_small():
    problem = many_small(60, 5, [2, 1])
    groups = LeafGroups(problem.tree, problem.Y)
    single = LeafGroups(problem.tree, problem.Y.astype(np.float32))
    np.testing.assert_allclose(single._products, groups._products, rtol=1e-5, atol=1e-3)
    flat = Tree.of([np.array([0, 300], dtype=np.intp)], [2])
    assert not LeafGroups(flat, problem.Y).any
    # Large and small groups in one task: the large ones make a step of EM.
    bounds = np.concatenate([[0, 150], np.arange(155, 301, 5)]).astype(np.intp)
    tree = Tree.of([np.array([0, 300], dtype=np.intp), bounds], [2, 1])
    mixed = Problem(tree, problem.nobs, problem.scale, problem.floor, problem.coefficients, problem.Y, problem.squares)
    assert mixed.leaf_groups.small_in(tasks_of(mixed)[0]) == (True, False)
    with Workers(1) as workers:
        begin = STARTS["pca"](mixed, np.random.default_rng(0), workers)
        climber = CompleteClimber(mixed, begin, workers)
        promised = climber.propose_leaf_groups(afresh=False)
        assert climber.try_leaf_groups() >= promised > 0
        record = FitRecord("scoring", "pca", 1000, 1e-4, 1)
        scoring(climber, record, lambda entry: None)
    assert record.converged


def tasks_of(problem):
    with Workers(1) as workers:
        return CompleteClimber(problem, STARTS["pca"](problem, np.random.default_rng(0), workers), workers).tasks


def test_weights_count_as_repeated_observations():
    rng = np.random.default_rng(5)
    data = mlfm.datasets.load("abilities")
    weights = rng.integers(1, 3, len(data.endog))
    options = {"hierarchy": data.groups, "ranks": [1, 1]}
    weighted = mlfm.MultilevelFactorModel(data.endog, freq_weights=weights, **options).fit()
    repeated = mlfm.MultilevelFactorModel(data.endog.loc[data.endog.index.repeat(weights)], **options).fit()
    assert weighted.llf == pytest.approx(repeated.llf, abs=1e-3)
    assert "leaf groups" in set(weighted.history["step"])
