"""A model with the global level only is ordinary factor analysis: other software finds the same maximum."""

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import FactorAnalysis
from statsmodels.multivariate.factor import Factor

import mlfm
from mlfm import MultilevelFactorModel


def simulated():
    rng = np.random.default_rng(9)
    F, D = rng.standard_normal((20, 3)), rng.uniform(0.5, 2, 20)
    return pd.DataFrame(rng.standard_normal((400, 3)) @ F.T + rng.standard_normal((400, 20)) * np.sqrt(D) + 3)


DATA = {"abilities": (mlfm.datasets.load("abilities").endog, 4), "simulated": (simulated(), 3)}


@pytest.fixture(params=list(DATA))
def flat(request):
    frame, rank = DATA[request.param]
    return frame, rank, MultilevelFactorModel(frame, ranks=[rank]).fit(tol=1e-7)


def test_scikit_learn(flat):
    frame, rank, results = flat
    # On unit variances: scikit-learn's own start is not free of units, and its stopping rule is.
    scale = frame.std(ddof=0)
    other = FactorAnalysis(rank, tol=1e-10, max_iter=20_000, svd_method="lapack").fit(frame / scale)
    theirs = other.score(frame / scale) - np.log(scale).sum()
    assert results.llf / results.nobs == pytest.approx(theirs, abs=1e-6)
    np.testing.assert_allclose(results.uniquenesses / scale**2, other.noise_variance_, atol=2e-3)


def test_statsmodels(flat):
    frame, rank, results = flat
    scale = frame.std(ddof=0)
    other = Factor(endog=frame / scale, n_factor=rank, method="ml").fit(maxiter=5000, tol=1e-9)
    # With some releases of NumPy and SciPy its loadings come back complex, their imaginary parts 0.
    F, D = np.real(other.loadings), np.real(other.uniqueness)
    # Its own "loglike" is not one, so the likelihood of its estimates is ours, checked against the dense oracle.
    theirs = results.model.loglike(results.model.pack(F * scale.to_numpy()[:, None], D * scale.to_numpy() ** 2))
    assert theirs / results.nobs <= results.llf / results.nobs + 1e-6
    assert results.llf / results.nobs == pytest.approx(theirs / results.nobs, abs=1e-6)


def test_the_classical_bifactor_model():
    data = mlfm.datasets.load("abilities")
    results = MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks={"global": 1, "ability": 1}).fit()
    assert results.converged
    assert (results.loadings["global", 1] > 0).all()
    # Five group factors add something to the general one, and the flat model is inside the bifactor one.
    general = MultilevelFactorModel(data.endog, ranks=[1]).fit()
    assert results.llf > general.llf + 100
    assert results.bic < general.bic
