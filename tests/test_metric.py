"""The scoring metric against the dense Fisher information, block by block."""

import itertools

import numpy as np
import pytest

from mlfm._kernels.scoring import slopes
from mlfm.estimation.metric import Metric, uniqueness_variances
from mlfm.likelihood import condition, score
from mlfm.sweep import RecordingSweep, Tree, Workers


def at_case(case, width=None):
    """A metric at a case's parameters, with its gradient an observation; in group order."""
    order = case.hierarchy.permutation
    tree = Tree.of(case.hierarchy.offsets, case.ranks)
    F, D, Y = case.loadings[order], case.uniquenesses[order], np.ascontiguousarray(case.Y.T[order])
    nobs, squares = len(case.Y), (Y**2).sum(1)
    h, GF, GD = np.empty_like(D), np.empty_like(F), np.empty_like(D)
    with Workers(1) as workers:
        sweep = RecordingSweep(tree, Y.shape[1], width)
        metric = Metric(sweep, 1e-8)
        products = [None] * len(sweep.tasks)
        condition(sweep, F, D, Y, workers)

        def visit(i, task, posterior):
            own = task.features
            W, T, M = (np.zeros_like(posterior.P) for _ in range(3))
            slopes(
                Y[own], F[own], D[own], *posterior, squares[own], nobs, metric.columns, task.leaves, sweep.tile,
                W, GF[own], GD[own], h[own], T, M,
            )  # fmt: skip
            products[i] = T, M

        sweep.downward(visit, workers, metric.observe)
        metric.at(F, D, GF, products)
        dF, dD = score(sweep, F, D, Y, squares, nobs, workers)
        np.testing.assert_allclose(GF, dF / nobs, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(GD, dD / nobs, rtol=1e-9, atol=1e-12)
        stepF, again = np.empty_like(F), GF.copy()
        metric.step(stepF, workers)
        metric.apply(again, workers)
        np.testing.assert_allclose(again, stepF, rtol=1e-10, atol=1e-12)
        along = metric.squared_length(workers)
    assert along == pytest.approx(np.vdot(GF, stepF), rel=1e-9, abs=1e-12)
    return tree, F, D, (GF, GD), (stepF, GD * uniqueness_variances(D, h))


def dense(tree, F, D):
    sigma = np.diag(D)
    for level, bounds in enumerate(tree.offsets):
        for a, b in itertools.pairwise(bounds):
            own = F[a:b, tree.own(level)]
            sigma[a:b, a:b] += own @ own.T
    return sigma


@pytest.mark.parametrize("width", [None, 2])
def test_the_information_of_a_node_gives_its_gradient_back(case, width):
    """Expected information an observation, from the definition: I_ij = 1/2 tr(S^-1 dS_i S^-1 dS_j)."""
    tree, F, D, (GF, GD), (stepF, stepD) = at_case(case, width)
    inverse = np.linalg.inv(dense(tree, F, D))
    for level, bounds in enumerate(tree.offsets):
        if tree.ranks[level] == 0:
            continue
        for a, b in itertools.pairwise(bounds):
            own, step = F[a:b, tree.own(level)], stepF[a:b, tree.own(level)]
            # I step = derivative of tr-form: S^-1 (step F' + F step') S^-1 F on the node's block.
            block = inverse[a:b, a:b]
            back = block @ (step @ own.T + own @ step.T) @ block @ own
            np.testing.assert_allclose(back, GF[a:b, tree.own(level)], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(0.5 * np.diag(inverse) ** 2 * stepD, GD, rtol=1e-10, atol=1e-12)


def test_the_formula_used_above_is_the_information():
    """I_ij by brute force on one small node."""
    rng = np.random.default_rng(0)
    F, D = rng.standard_normal((4, 2)), rng.uniform(1, 2, 4)
    inverse = np.linalg.inv(F @ F.T + np.diag(D))
    basis = []
    for i in range(4):
        for j in range(2):
            E = np.zeros((4, 2))
            E[i, j] = 1
            basis.append(E @ F.T + F @ E.T)
    information = np.array([[0.5 * np.trace(inverse @ a @ inverse @ b) for b in basis] for a in basis])
    step = rng.standard_normal((4, 2))
    back = inverse @ (step @ F.T + F @ step.T) @ inverse @ F
    np.testing.assert_allclose(information @ step.ravel(), back.ravel(), rtol=1e-12)


def test_it_is_an_ascent_direction(case):
    _, _, _, (GF, GD), (stepF, stepD) = at_case(case)
    assert np.vdot(GF, stepF) >= 0
    assert np.vdot(GD, stepD) >= 0
