"""Uniquenesses that are tiny or huge against the loadings, held against rational arithmetic."""

import warnings

import exact
import numpy as np
import pytest
from oracle import zoo

from mlfm import ConditionWarning, MultilevelCovariance

SMALL = ["flat", "one feature", "ragged", "groups of one", "rank 0 in the middle", "no global factors", "deep"]


def spread(case, seed=0):
    return 10.0 ** np.random.default_rng(seed).uniform(-12, 12, len(case.uniquenesses))


D_OF = {
    "1e-4": lambda case: 1e-4 * case.uniquenesses,
    "1e-8": lambda case: 1e-8 * case.uniquenesses,
    "1e-12": lambda case: 1e-12 * case.uniquenesses,
    "1e12": lambda case: 1e12 * case.uniquenesses,
    "from 1e-12 to 1e12": spread,
    "1e-12 every other": lambda case: np.where(np.arange(len(case.uniquenesses)) % 2, 1e-12, 1.0),
}


@pytest.fixture(params=SMALL)
def small(request):
    return zoo()[request.param]


@pytest.mark.parametrize("kind", D_OF)
def test_solve(small, kind):
    """Solutions of systems very near to the one posed, also where b is nearly a combination of the loadings."""
    D = D_OF[kind](small)
    sigma = MultilevelCovariance(small.hierarchy, small.loadings, D, ranks=small.ranks)
    rng = np.random.default_rng(1)
    b = np.column_stack([rng.standard_normal(len(D)), sigma @ np.ones(len(D)), sigma @ rng.standard_normal(len(D))])
    x = sigma.solve(b)
    whole = exact.covariance(small, D)
    dense = np.array([[float(value) for value in row] for row in whole])
    s = np.sqrt(np.diag(dense))[:, None]
    residual = np.linalg.norm(exact.residual(whole, x, b) / s, axis=0)
    size = np.linalg.norm(dense / s / s.T, 2) * np.linalg.norm(s * x, axis=0) + np.linalg.norm(b / s, axis=0)
    assert (residual <= 1e-13 * size).all()
    # The error of the solution is that times the condition number of the correlations, whatever the scale of D.
    expected, _ = exact.solution(whole, b)
    errors = np.linalg.norm(s * (x - expected), axis=0) / np.linalg.norm(s * expected, axis=0)
    assert (errors <= 1e-14 + 4e-15 * np.linalg.cond(dense / s / s.T)).all()


def test_refinement_is_what_does_it():
    case = zoo()["deep"]
    sigma = MultilevelCovariance(case.hierarchy, case.loadings, 1e-9 * case.uniquenesses, ranks=case.ranks)
    ones = np.ones(len(case.uniquenesses))
    b = sigma @ ones
    plain = sigma.solve(b, refine=0)
    once, one_residual = sigma.solve(b, refine=1, return_residual=True)
    by_default, residual = sigma.solve(b, return_residual=True)
    assert np.abs(plain - ones).max() > 1e-7
    assert one_residual == pytest.approx(np.linalg.norm(b - sigma @ once) / np.linalg.norm(b), rel=1e-9)
    assert residual == pytest.approx(np.linalg.norm(b - sigma @ by_default) / np.linalg.norm(b), rel=1e-9)
    assert residual < 1e-15
    assert residual < 1e-6 * np.linalg.norm(b - sigma @ plain) / np.linalg.norm(b)
    matrix, several = sigma.solve(np.column_stack([b, 0 * b]), return_residual=True)
    assert several[1] == 0
    np.testing.assert_array_equal(matrix[:, 1], 0)


def test_a_good_system_is_not_refined():
    case = zoo()["balanced"]
    sigma = MultilevelCovariance(case.hierarchy, case.loadings, case.uniquenesses, ranks=case.ranks)
    b = np.random.default_rng(0).standard_normal((len(case.uniquenesses), 4))
    np.testing.assert_array_equal(sigma.solve(b), sigma.solve(b, refine=0))


def test_a_warning_when_refinement_is_not_enough():
    case = zoo()["balanced"]
    sigma = MultilevelCovariance(case.hierarchy, case.loadings, 1e-15 * case.uniquenesses, ranks=case.ranks)
    b = case.loadings @ np.ones(sum(case.ranks))
    with pytest.warns(ConditionWarning, match=r"backward error of .* uniquenesses down to .*'x\d+'"):
        sigma.solve(b)
    for verb in (sigma.logdet, sigma.inv, sigma.sqrt, sigma.cholesky):
        with pytest.warns(ConditionWarning, match="accurate to about"):
            verb()


@pytest.mark.parametrize("kind", D_OF)
def test_the_determinant_is_right_or_the_warning_says_how_wrong(small, kind):
    D = D_OF[kind](small)
    sigma = MultilevelCovariance(small.hierarchy, small.loadings, D, ranks=small.ranks)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = sigma.logdet()
    _, expected = exact.solution(exact.covariance(small, D), np.zeros((len(D), 1)))
    error = abs(got - expected)
    if caught:
        assert caught[0].category is ConditionWarning
        said = float(str(caught[0].message).split("about ")[1].split(":")[0])
        assert error <= 20 * said
    else:
        assert error <= 1e-12 * abs(expected) + 2e-8


def test_beyond_that_an_error():
    case = zoo()["flat, as many factors as features"]
    for D in (1e-30 * case.uniquenesses, 1e-320 * np.ones_like(case.uniquenesses)):
        sigma = MultilevelCovariance(case.hierarchy, case.loadings[:, [0] * 9], D, ranks=case.ranks)
        with pytest.raises(np.linalg.LinAlgError, match="uniquenesses are too small"):
            sigma.logdet()
