"""Fits held against lavaan's, which shares no code with mlfm: see reference/lavaan/README.md."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlfm import MultilevelFactorModel

HOME = Path(__file__).parent / "reference" / "lavaan"
SPEC = importlib.util.spec_from_file_location("lavaan_reference", HOME / "parse.py")
lavaan = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(lavaan)

GROUPS = pd.read_csv(HOME / "groups.csv").set_index("feature")
# A fit that stops this close to the maximum, in nats, is off by at most sqrt(2 tol / smallest eigenvalue of the
# information, about 1, in any parameter: 1.5e-5.
TOL = 1e-10
REACH = {"rtol": 0, "atol": 1.5e-5}


@cache
def fitted(name):
    features = lavaan.read(name).intercepts.index
    exog = lavaan.data("covariates") if name.startswith("regression") else None
    hierarchy, ranks = (None, [1]) if name.startswith("flat") else (GROUPS, {"global": 1, "ability": 1})
    model = MultilevelFactorModel(lavaan.data(name)[features], exog, hierarchy=hierarchy, ranks=ranks)
    return model.fit(tol=TOL)


@pytest.fixture(params=lavaan.FITS)
def fit(request):
    """A reference fit, and the same by mlfm."""
    return lavaan.read(request.param), fitted(request.param)


def compressed(wide, results):
    """lavaan's loadings, a column for each ability, in the columns of results; signs are theirs."""
    out = {("global", 1): wide["global"]}
    if len(results.ranks) > 1:
        out["ability", 1] = pd.Series(
            {feature: wide.loc[feature, GROUPS.loc[feature, "ability"]] for feature in wide.index}
        )
    return pd.DataFrame(out)


def of_group(results, feature):
    """The group that each of a feature's loadings belongs to."""
    return ["global", GROUPS.loc[feature, "ability"]][: len(results.ranks)]


def test_the_maximum(fit):
    reference, results = fit
    assert results.converged
    # lavaan's log-likelihoods hold ten digits after the point, and agree with dense computations to 1e-10.
    assert results.llf == pytest.approx(reference.llf, abs=1e-9)


def test_the_likelihood_of_its_estimates(fit):
    reference, results = fit
    means = pd.concat([reference.intercepts.rename("const"), reference.coefficients], axis=1)
    params = results.model.pack(compressed(reference.loadings, results), reference.uniquenesses, means)
    assert results.model.loglike(params) == pytest.approx(reference.llf, abs=1e-9)
    assert np.abs(results.model.score(params)).max() < 1e-9


def test_the_number_of_parameters(fit):
    reference, results = fit
    assert results.df_model == reference.npar
    assert results.nobs == reference.nobs


def test_means_and_coefficients(fit):
    reference, results = fit
    np.testing.assert_allclose(results.coefficients["const"], reference.intercepts, **REACH)
    np.testing.assert_allclose(results.coefficients.drop(columns="const"), reference.coefficients, **REACH)


def test_uniquenesses(fit):
    reference, results = fit
    np.testing.assert_allclose(results.uniquenesses, reference.uniquenesses, **REACH)


def test_loadings_up_to_the_sign_of_each_factor(fit):
    reference, results = fit
    expected = compressed(reference.loadings, results)
    found = results.loadings.loc[expected.index]
    groups = pd.DataFrame([of_group(results, feature) for feature in expected.index], index=expected.index)
    for k, column in enumerate(expected.columns):
        products = (expected[column] * found[column]).groupby(groups[k].to_numpy()).transform("sum")
        np.testing.assert_allclose(found[column] * np.sign(products), expected[column], **REACH)


def test_standard_errors_of_the_means(fit):
    """By the expected information, but for covariates with missing values, where lavaan takes the covariates' moments
    over all persons for every pattern: up to 0.12 % in intercepts, and 2.3 % in coefficients.
    """
    reference, results = fit
    crude = reference.head["model"] == "regression" and results.n_missing > 0
    expected, found = reference.expected, results.with_cov_type("expected").coefficients_bse
    np.testing.assert_allclose(found["const"], expected.intercepts, rtol=1.3e-3 if crude else 1e-5)
    np.testing.assert_allclose(found.drop(columns="const"), expected.coefficients, rtol=2.4e-2 if crude else 1e-5)


def test_standard_errors_by_the_observed_information(fit):
    reference, results = fit
    found = results.with_cov_type("oim").coefficients_bse
    np.testing.assert_allclose(found["const"], reference.observed.intercepts, rtol=1e-5)
    np.testing.assert_allclose(found.drop(columns="const"), reference.observed.coefficients, rtol=1e-5)
