"""Fits of complete data held against R's lavaan and factanal: see reference/r/README.md."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mlfm import MultilevelFactorModel

HOME = Path(__file__).parent / "reference" / "r"
SPEC = importlib.util.spec_from_file_location("r_reference", HOME / "parse.py")
r = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(r)

# A fit that stops this close to the maximum, in nats, is off in any function of the parameters by at most
# sqrt(2 TOL) of its standard error by the observed information (Cauchy and Schwarz, to second order).
TOL = 1e-8
REACH = np.sqrt(2 * TOL)
# What rounding may add to that.
ROUNDING = 1e-12
# factanal comes without standard errors. In units of the features' standard deviations the smallest eigenvalue of the
# information, rotations aside, is 76: uniquenesses and loadings are off by at most sqrt(2 TOL / 76), and products of
# loadings, none of which exceeds 1, by at most twice that. factanal's own optimiser leaves less than 1e-7.
FLAT_REACH = np.sqrt(2 * TOL / 76)


@cache
def fitted(name):
    reference = r.read(name)
    return MultilevelFactorModel(r.endog(name), hierarchy=r.groups(name), ranks=reference.ranks).fit(tol=TOL)


@cache
def flat(factors):
    return MultilevelFactorModel(r.endog("bifactor"), ranks=[factors]).fit(tol=TOL)


@pytest.fixture(params=r.FITS)
def fit(request):
    """A fit by lavaan, and the same by mlfm."""
    return r.read(request.param), fitted(request.param)


@pytest.fixture(params=r.FACTORS)
def flat_fit(request):
    """A fit by factanal, and the same by mlfm."""
    return r.factanal(request.param), flat(request.param)


def close(found, expected, errors):
    """Whether estimates agree as closely as two fits to TOL can."""
    assert found.index.tolist() == expected.index.tolist() == errors.index.tolist()
    assert (np.abs(found - expected) <= REACH * errors + ROUNDING).all(axis=None)


def test_the_maximum(fit):
    reference, results = fit
    assert results.converged
    assert not results.unidentified
    assert not len(results.on_floor)
    # Sums of squares over all values round in the 13th digit or so.
    rounding = 1e-13 * abs(reference.llf)
    assert reference.llf - TOL - rounding <= results.llf <= reference.llf + rounding


def test_the_likelihood_of_its_estimates(fit):
    reference, results = fit
    estimates = reference.estimates
    params = results.model.pack(estimates.loadings, estimates.uniquenesses, estimates.means)
    assert results.model.loglike(params) == pytest.approx(reference.llf, rel=1e-13)
    assert np.abs(results.model.score(params)).max() < 1e-9


def test_the_number_of_parameters(fit):
    reference, results = fit
    assert results.df_model == reference.npar == reference.fit["npar"]
    assert results.nobs == reference.nobs == reference.fit["ntotal"]
    p = len(reference.estimates.means)
    assert p * (p + 3) // 2 - results.df_model == reference.fit["df"]


def test_information_criteria(fit):
    reference, results = fit
    allowed = 2 * (TOL + 1e-13 * abs(reference.llf))
    assert results.aic == pytest.approx(reference.fit["aic"], abs=allowed)
    assert results.bic == pytest.approx(reference.fit["bic"], abs=allowed)


def test_loadings_up_to_the_sign_of_each_factor(fit):
    reference, results = fit
    expected = reference.estimates.loadings
    assert results.loadings.columns.tolist() == expected.columns.tolist()
    for column in expected.columns:
        group = reference.groups[column[0]]
        signs = np.sign((expected[column] * results.loadings[column]).groupby(group).transform("sum"))
        close(results.loadings[column] * signs, expected[column], reference.bse["observed"].loadings[column])


def test_uniquenesses_and_means(fit):
    reference, results = fit
    estimates, errors = reference.estimates, reference.bse["observed"]
    close(results.uniquenesses, estimates.uniquenesses, errors.uniquenesses)
    np.testing.assert_allclose(results.mean, estimates.means, rtol=1e-12)  # of the sample, both times


def test_standard_errors_of_the_means(fit):
    """Sqrt of a fitted variance over n; the fitted variances are those of the sample at every maximum."""
    reference, results = fit
    np.testing.assert_allclose(results.coefficients_bse["const"], reference.bse["expected"].means, rtol=REACH)


def test_communalities(fit):
    reference, results = fit
    close(results.communalities, reference.communalities["estimate"], reference.communalities["observed"])


@pytest.mark.parametrize("column", ["share", "mean_share"])
def test_shares_of_variance(column):
    shares = r.read("bifactor").shares(column)
    close(fitted("bifactor").variance_explained()[column], shares["estimate"], shares["observed"])


def test_communalities_defined_in_the_model():
    reference = r.read("bifactor")
    defined = reference.defined[reference.defined.index.str.startswith("communality_")]
    features = defined.index.str.removeprefix("communality_")
    assert len(features) == 3
    # lavaan's derivative of the standardised solution is numerical, good for seven digits.
    np.testing.assert_allclose(defined, reference.communalities.loc[features], rtol=1e-7)


def test_flat_maximum(flat_fit):
    reference, results = flat_fit
    assert results.converged
    assert reference.llf - TOL - 1e-9 <= results.llf <= reference.llf + 1e-9


def test_flat_degrees_of_freedom(flat_fit):
    reference, results = flat_fit
    p = len(reference.uniquenesses)
    assert p * (p + 3) // 2 - results.df_model == reference.dof


def test_flat_statistic(flat_fit):
    """Bartlett's multiplier replaces n in the likelihood ratio."""
    reference, results = flat_fit
    ratio = 2 * (reference.unrestricted_llf - results.llf)
    assert ratio * reference.bartlett_factor / reference.nobs == pytest.approx(reference.statistic, abs=4 * TOL)


def test_flat_estimates(flat_fit):
    """factanal's are of correlations."""
    reference, results = flat_fit
    sd = r.endog("bifactor").std(ddof=0)
    bounds = {"rtol": 0, "atol": FLAT_REACH}
    np.testing.assert_allclose(results.uniquenesses / sd**2, reference.uniquenesses, **bounds)
    np.testing.assert_allclose(results.communalities, 1 - reference.uniquenesses, **bounds)
    found, expected = results.loadings.div(sd, axis=0).to_numpy(), reference.loadings.to_numpy()
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=0, atol=2 * FLAT_REACH)
    # F' D^-1 F is diagonal and decreasing in both, whatever the units. Its entries lie as close as 0.9 apart, at 1.7,
    # so that errors in the directions of the factors are several times those of the common part.
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, rtol=0, atol=10 * FLAT_REACH)
