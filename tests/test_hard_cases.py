"""Data and models that go wrong elsewhere: each fit ends at a maximum, or says why it did not."""

import numpy as np
import pandas as pd
import pytest

import mlfm
from mlfm import Hierarchy, MultilevelCovariance, MultilevelFactorModel

GROUPS = {"g": [j // 10 for j in range(60)], "s": [j // 5 for j in range(60)]}
RANKS = [2, 1, 1]
QUIET = pytest.mark.filterwarnings(
    "ignore::mlfm.UniquenessFloorWarning", "ignore::mlfm.IdentificationWarning", "ignore::mlfm.SeveralMaximaWarning"
)


def simulated(nobs, snr=1.0, seed=0, groups=GROUPS, ranks=RANKS):
    """A hierarchy, and data of a model on it whose factors have ``snr`` times the unique variances."""
    rng = np.random.default_rng(seed)
    labels = pd.DataFrame(groups, index=[f"x{j}" for j in range(len(groups["g"]))])
    hierarchy = Hierarchy(labels)
    F = rng.standard_normal((len(labels), sum(ranks)))
    D = rng.uniform(0.5, 1.5, len(labels)) * sum(ranks) / snr
    sigma = MultilevelCovariance(hierarchy, F, D, ranks=ranks).to_dense()
    return hierarchy, rng.standard_normal((nobs, len(labels))) @ np.linalg.cholesky(sigma).T


def ends_well(model, **options):
    """The fit, at a point that is a maximum as far as its derivatives and plain EM can tell."""
    results = model.fit(**options)
    assert results.converged, results.record.reason
    assert results.llf == pytest.approx(model.loglike(results.params), rel=1e-9)
    accepted = results.history.loc[results.history["accepted"], "llf"]
    assert (accepted.diff().dropna() >= -1e-9 * abs(results.llf)).all()
    assert results.record.score_norm < 1e-2
    return results


@QUIET
@pytest.mark.filterwarnings("ignore::mlfm.ConvergenceWarning")
@pytest.mark.parametrize("seed", range(3))
def test_weak_factors_and_few_observations(seed):
    hierarchy, Y = simulated(40, snr=0.3, seed=seed)
    model = MultilevelFactorModel(Y, hierarchy=hierarchy, ranks=RANKS)
    results = ends_well(model)
    em = model.fit(method="em", start=results.record.start, maxiter=3000, tol=1e-3)
    assert results.llf >= em.llf - 1e-3


@QUIET
@pytest.mark.filterwarnings("ignore::mlfm.ConvergenceWarning")
@pytest.mark.parametrize("nobs", [2, 3, 4])
def test_no_more_observations_than_factors(nobs):
    hierarchy, Y = simulated(nobs)
    model = MultilevelFactorModel(Y, hierarchy=hierarchy, ranks=[2, 1, 1])
    results = model.fit()
    assert np.isfinite(results.llf)
    assert results.converged or results.record.reason
    assert (results.uniquenesses > 0).all()


@QUIET
def test_duplicated_features():
    hierarchy, Y = simulated(200)
    Y[:, 1] = Y[:, 0]
    Y[:, 31] = Y[:, 30]
    results = ends_well(MultilevelFactorModel(Y, hierarchy=hierarchy, ranks=RANKS))
    assert {"x0", "x1", "x30", "x31"} & set(results.on_floor)


@QUIET
def test_features_of_very_different_variances():
    """A feature in units a million times larger, one in units a million times smaller: the same fit."""
    hierarchy, Y = simulated(150)
    plain = ends_well(MultilevelFactorModel(Y, hierarchy=hierarchy, ranks=RANKS))
    units = np.ones(60)
    units[7], units[33] = 1e6, 1e-6  # variances 1e12 and 1e-12 of the others
    results = ends_well(MultilevelFactorModel(Y * units, hierarchy=hierarchy, ranks=RANKS))
    assert results.llf == pytest.approx(plain.llf - 150 * np.log(units).sum(), rel=1e-7)
    np.testing.assert_allclose(results.uniquenesses, plain.uniquenesses * units**2, rtol=1e-3)


@QUIET
def test_a_third_of_the_uniquenesses_on_the_floor():
    """Features that are their factors alone: their uniquenesses are pressed against the floor."""
    hierarchy, Y = simulated(300, snr=2.0)
    rng = np.random.default_rng(1)
    z = rng.standard_normal((300, 6))
    for j in range(0, 60, 3):
        Y[:, j] = z[:, j // 10] + 1e-3 * rng.standard_normal(300)
    results = ends_well(MultilevelFactorModel(Y, hierarchy=hierarchy, ranks=[2, 1, 1]))
    assert len(results.on_floor) >= 18


@QUIET
def test_ranks_above_the_truth():
    hierarchy, Y = simulated(500)
    true = ends_well(MultilevelFactorModel(Y, hierarchy=hierarchy, ranks=RANKS))
    above = ends_well(MultilevelFactorModel(Y, hierarchy=hierarchy, ranks=[4, 2, 1]))
    assert above.llf > true.llf
    # What is gained is noise: a few nats for each parameter that is not needed.
    extra = above.df_model - true.df_model
    assert above.llf - true.llf < 3 * extra


@QUIET
def test_groups_of_one():
    groups = {"g": [j // 10 for j in range(60)], "s": [j // 5 if j < 55 else j for j in range(60)]}
    hierarchy, Y = simulated(200, groups=groups)
    ends_well(MultilevelFactorModel(Y, hierarchy=hierarchy, ranks=RANKS))


@QUIET
@pytest.mark.parametrize("method", ["scoring", "px-em"])
def test_interrupted_and_resumed(method):
    """From where an interrupt struck the fit goes on to the same end."""
    hierarchy, Y = simulated(150)
    model = MultilevelFactorModel(Y, hierarchy=hierarchy, ranks=RANKS)
    whole = model.fit(method=method, start="top-down")

    def interrupt(entry):
        if entry.evaluation == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(method=method, start="top-down", callback=interrupt)
    with pytest.warns(mlfm.ConvergenceWarning):
        part = model.fit(method=method, start="top-down", maxiter=4)
    resumed = model.fit(method=method, start_params=part.params)
    assert resumed.history["llf"].iloc[0] == pytest.approx(part.llf, rel=1e-12)
    assert resumed.llf == pytest.approx(whole.llf, abs=0.05)
