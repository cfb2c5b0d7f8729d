"""Features given others, and draws from a fit: against the conditional normal distribution written out."""

import numpy as np
import pandas as pd
import pytest
from oracle import dense_covariance, make_case

import mlfm
from mlfm import Hierarchy

pytestmark = pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
MIXED = np.random.default_rng(3).permutation(20)
TREE = make_case([[0] * 20, [str(j // 7) for j in MIXED], [str(j // 4) for j in MIXED]], (2, 1, 1), nobs=40)


def quick(case=TREE, exog=None, **options):
    model = mlfm.MultilevelFactorModel(case.frame, exog, hierarchy=case.hierarchy, ranks=case.ranks, **options)
    return model.fit(maxiter=3, start="random", rng=0)


def given(sigma, mean, values):
    """Mean and standard deviation of what is missing in one row, the value itself and 0 elsewhere."""
    seen = ~np.isnan(values)
    gain = np.linalg.solve(sigma[np.ix_(seen, seen)], sigma[np.ix_(seen, ~seen)]).T
    out, sd = values.copy(), np.zeros(len(values))
    out[~seen] = mean[~seen] + gain @ (values[seen] - mean[seen])
    sd[~seen] = np.sqrt(np.diag(sigma[np.ix_(~seen, ~seen)] - gain @ sigma[np.ix_(seen, ~seen)]))
    return out, sd


def hidden(results, share, index=None):
    """New values of some features in an order of their own, and of all features with gaps where they are not known."""
    rng = np.random.default_rng(5)
    features = results.hierarchy.features[rng.permutation(20)[:13]]
    observed = pd.DataFrame(rng.standard_normal((6, 13)) * 3, columns=features, index=index)
    observed = observed.mask(rng.random(observed.shape) < share)
    return observed, observed.reindex(columns=results.hierarchy.features)


@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("covariates", [False, True])
def test_conditional_is_the_normal_one(share, covariates):
    case = TREE
    exog = pd.DataFrame({"x": np.arange(len(case.Y)) % 7.0}) if covariates else None
    results = quick(case, exog)
    observed, whole = hidden(results, share, list("uvwxyz"))
    new = pd.DataFrame({"x": np.arange(6.0)}, index=observed.index) if covariates else None
    mean = results.predict(new).to_numpy() if covariates else np.tile(results.mean, (6, 1))
    sigma = dense_covariance(case.hierarchy, case.ranks, results.loadings, results.uniquenesses)
    expected = [given(sigma, m, y) for m, y in zip(mean, whole.to_numpy(), strict=True)]
    shown = whole.isna().any().to_numpy()
    prediction = results.conditional(observed, exog=new)
    for made, dense in zip((prediction.mean, prediction.sd), zip(*expected, strict=True), strict=True):
        assert list(made.index) == list(observed.index)
        assert list(made.columns) == list(whole.columns[shown])
        np.testing.assert_allclose(made, np.array(dense)[:, shown], rtol=1e-9, atol=1e-10)


def test_one_observation_and_nothing_known():
    results = quick()
    observed, whole = hidden(results, 0.0)
    alone = results.conditional(observed.iloc[2])
    pd.testing.assert_frame_equal(alone.mean, results.conditional(observed).mean.iloc[[2]], rtol=1e-10)
    nothing = results.conditional(whole.iloc[[0]] * np.nan)
    np.testing.assert_allclose(nothing.mean.iloc[0], results.mean)
    np.testing.assert_allclose(nothing.sd.iloc[0], np.sqrt(results.covariance.diagonal()))


def test_labels_of_any_kind(tmp_path):
    features = pd.Index([("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1), ("c", 2)], tupleize_cols=False)
    hierarchy = Hierarchy(pd.DataFrame({"g": [1, 2, 1, 2, 1, 2]}, index=features))
    Y = np.random.default_rng(0).standard_normal((30, 6))
    results = mlfm.MultilevelFactorModel(Y, hierarchy=hierarchy, ranks=[1, 0]).fit(maxiter=3)
    results.save(tmp_path / "results")
    prediction = mlfm.load(tmp_path / "results").conditional(pd.DataFrame(Y[:3, 2:4], columns=features[2:4]))
    assert list(prediction.mean.columns) == [features[j] for j in (0, 1, 4, 5)]


def test_intervals_cover_in_simulation():
    """1000 rows of 13 unknown features given 7: those of a row depend on each other, so that a share has a standard
    error of at most sqrt(0.9 0.1 / 1000) = 0.95 %, and likely half of it.
    """
    results = quick()
    data = results.simulate(1000, rng=1)
    prediction = results.conditional(data.iloc[:, ::3])
    lower, upper = prediction.interval(alpha=0.1)
    actual = data[prediction.mean.columns]
    assert ((lower < actual) & (actual < upper)).mean(axis=None) == pytest.approx(0.9, abs=0.02)
    outside = (actual < lower).mean(axis=None)
    assert outside == pytest.approx(0.05, abs=0.015)
    ratio = ((actual - prediction.mean) / prediction.sd).pow(2).mean()
    np.testing.assert_allclose(ratio, 1, atol=5 * np.sqrt(2 / 1000))


def test_simulated_data_have_the_moments_of_the_model():
    results = quick()
    data = results.simulate(20_000, rng=3)
    sigma = dense_covariance(TREE.hierarchy, TREE.ranks, results.loadings, results.uniquenesses)
    sd = np.sqrt(np.diag(sigma))
    np.testing.assert_allclose((data.mean() - results.mean) / sd, 0, atol=5 / np.sqrt(20_000))
    correlation = sigma / np.outer(sd, sd)
    np.testing.assert_allclose(data.cov() / np.outer(sd, sd), correlation, atol=5 * np.sqrt(2 / 20_000))
    assert list(data.columns) == list(results.hierarchy.features)


def test_the_same_seed_gives_the_same_data():
    results = quick()
    first = results.simulate(7, rng=4)
    pd.testing.assert_frame_equal(first, results.simulate(7, rng=4))
    pd.testing.assert_frame_equal(results.simulate(7), results.simulate(7, rng=0))
    assert not first.equals(results.simulate(7))
    generator = np.random.default_rng(4)
    pd.testing.assert_frame_equal(first, results.simulate(7, rng=generator))
    assert not first.equals(results.simulate(7, rng=generator))


def test_simulation_by_covariates(tmp_path):
    exog = pd.DataFrame({"x": np.arange(40.0)}, index=pd.RangeIndex(40))
    results = quick(exog=exog)
    own = results.simulate(rng=1)
    assert own.index.equals(results.model.row_labels)
    noise = own - results.fittedvalues
    pd.testing.assert_frame_equal(results.simulate(rng=1, exog=exog), own)
    new = pd.DataFrame({"x": np.full(40, 1e3)}, index=[f"r{i}" for i in range(40)])
    far = results.simulate(rng=1, exog=new)
    np.testing.assert_allclose(far, results.predict(new) + noise.to_numpy(), rtol=1e-12)
    assert list(far.index) == list(new.index)
    with pytest.raises(ValueError, match=r"exog: needed with nobs, .*'const', 'x'"):
        results.simulate(10)
    with pytest.raises(ValueError, match="nobs: 10, but exog has 40 rows"):
        results.simulate(10, exog=exog)
    results.save(tmp_path / "results")
    loaded = mlfm.load(tmp_path / "results")
    pd.testing.assert_frame_equal(loaded.simulate(rng=1, exog=new), far)
    with pytest.raises(ValueError, match=r"give nobs.* cannot be had: .* loaded"):
        loaded.simulate()


def test_simulation_without_a_mean():
    assert quick(trend="n").simulate(2000).mean().abs().max() < 1


@pytest.mark.parametrize("nobs", [-1, 2.5, True, "ten"])
def test_numbers_of_observations_are_whole(nobs):
    with pytest.raises(ValueError, match="nobs: a number of observations"):
        quick().simulate(nobs)


@pytest.mark.parametrize(
    ("observed", "error", "message"),
    [
        (np.zeros((2, 3)), TypeError, "observed: a DataFrame .* so that it says which features"),
        (pd.DataFrame({"nope": [1.0]}), ValueError, "observed: labels that are no features of the model: 'nope'"),
        (TREE.frame, ValueError, "observed: these are all features"),
        (TREE.frame.iloc[:, :0], ValueError, "observed: no features are named"),
        (TREE.frame.iloc[:, [0, 0]], ValueError, "observed: features occur more than once: 'x0'"),
    ],
)
def test_what_cannot_be_conditioned_on(observed, error, message):
    with pytest.raises(error, match=message):
        quick().conditional(observed)


def test_alpha_is_a_share():
    prediction = quick().conditional(TREE.frame.iloc[:, :5])
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        prediction.interval(0)
    assert repr(prediction) == "<Prediction of 15 features for 40 observations>"
