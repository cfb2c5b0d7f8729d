"""Uniquenesses that are tiny or huge against the loadings, held against rational arithmetic."""

import warnings

import exact
import numpy as np
import pandas as pd
import pytest
from oracle import zoo

from mlfm import ConditionWarning, Hierarchy, MultilevelCovariance, MultilevelLowRank

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
    with pytest.warns(ConditionWarning, match=r"backward error of .* tiny against the loadings, down to .*'x\d+'"):
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
    for D in (1e-30 * case.uniquenesses, 1e-300 * np.ones_like(case.uniquenesses)):
        sigma = MultilevelCovariance(case.hierarchy, case.loadings[:, [0] * 9], D, ranks=case.ranks)
        with pytest.raises(np.linalg.LinAlgError, match="uniquenesses are too small"):
            sigma.logdet()


def tiny(D, n=200):
    """Two levels over features whose uniquenesses are as given, all else of size one."""
    labels = pd.DataFrame({"g": np.arange(n) // 10}, index=[f"x{i}" for i in range(n)])
    F = np.random.default_rng(0).standard_normal((n, 4))
    return MultilevelCovariance(Hierarchy(labels), F, np.broadcast_to(D, n), ranks=[3, 1])


@pytest.mark.filterwarnings("ignore::mlfm.ConditionWarning")
def test_divergences_are_not_negative():
    for D in (1.0, 1e-8, 1e-12, 1e-14):
        sigma = tiny(D)
        assert sigma.kl_divergence(sigma) >= 0


def test_traces_and_inverses_that_cancel_get_a_warning():
    """D^-1 and H H' nearly cancel in every element of the inverse of groups of one."""
    case = zoo()["groups of one"]
    lonely = MultilevelCovariance(case.hierarchy, case.loadings, 1e-12 * case.uniquenesses, ranks=case.ranks)
    with pytest.warns(ConditionWarning, match="accurate to about"):
        lonely.inv()
    sigma = tiny(1e-14)
    with pytest.warns(ConditionWarning, match="accurate to about"):
        sigma.kl_divergence(sigma)
    with pytest.warns(ConditionWarning, match="accurate to about"):
        sigma.expected_loglike(sigma)


@pytest.mark.parametrize("kind", D_OF)
def test_inverses_are_right_or_say_how_wrong(small, kind):
    D = D_OF[kind](small)
    sigma = MultilevelCovariance(small.hierarchy, small.loadings, D, ranks=small.ranks)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = sigma.inv().diagonal()
    inverse, _ = exact.solution(exact.covariance(small, D), np.eye(len(D)))
    error = np.abs(got / np.diag(inverse) - 1).max()
    said = [float(str(warning.message).split("about ")[1].split(":")[0]) for warning in caught]
    assert error <= (100 * max(said) if said else 1e-6)


def test_conditional_means_are_refined():
    D = np.ones(200)
    D[:3] = 1e-14
    sigma = tiny(D)
    names = sigma.hierarchy.features
    y = np.random.default_rng(1).standard_normal(150)
    expected = sigma.submatrix(names[150:], names[:150]) @ sigma.marginal(names[:150]).solve(y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConditionWarning)
        got = sigma.conditional(names[:150]).mean(y)
    np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize("size", [1e-200, 1e-156, 1e156, 1e200, 1e300])
def test_right_hand_sides_of_any_size(size):
    sigma = tiny(1e-8)
    x = np.ones(200)
    b = sigma @ x
    got, residual = sigma.solve(size * b, return_residual=True)
    expected, its_residual = sigma.solve(b, return_residual=True)
    # The solution is as good as the condition number of 1e10 lets it be.
    np.testing.assert_allclose(got / size, expected, rtol=1e-5)
    assert residual < 1e-14
    assert its_residual < 1e-14
    both = sigma.solve(np.column_stack([size * b, b]))
    np.testing.assert_allclose(both[:, 1], expected, rtol=1e-5)


@pytest.mark.parametrize("size", [1e-170, 1e-60, 1.0, 1e60, 1e150])
def test_norms_of_matrices_of_any_size(size):
    case = zoo()["balanced"]
    B, d = case.loadings, case.uniquenesses
    M = MultilevelLowRank(case.hierarchy, B, 2 * B, d, ranks=case.ranks)
    scaled = MultilevelLowRank(case.hierarchy, size * B, 2 * B, size * d, ranks=case.ranks)
    assert scaled.norm() == pytest.approx(size * M.norm(), rel=1e-12)
    small, dense = scaled.compress(0.1).to_dense(), M.compress(0.1).to_dense()
    np.testing.assert_allclose(small, size * dense, rtol=1e-9, atol=1e-12 * size)


def test_numbers_out_of_range():
    sigma = tiny(1.0)
    for verb in (
        lambda: sigma.scale(1e-200),
        lambda: sigma * 1e308 * 10,
        lambda: tiny(1e-310),
        lambda: sigma.scale(1e300),
    ):
        with pytest.raises(ValueError, match="out of the range of double precision, at 'x0'"):
            verb()


def test_the_warning_points_at_the_caller():
    sigma = tiny(1e-14)
    for verb in (sigma.expected_loglike, sigma.kl_divergence):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            verb(sigma)
        assert {warning.filename for warning in caught} == {__file__}


def test_other_units_and_another_order_are_no_loss_of_digits():
    sigma = tiny(1.0).scale(10.0 ** np.linspace(-6, 6, 200))
    other = sigma.marginal(sigma.hierarchy.features[::-1])
    assert sigma.kl_divergence(other) == pytest.approx(0, abs=1e-9)
    assert other.expected_loglike(sigma) == pytest.approx(sigma.expected_loglike(sigma), rel=1e-11)
