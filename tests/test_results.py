import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from oracle import make_case
from statsmodels.base.model import LikelihoodModel, LikelihoodModelResults

import mlfm
from mlfm import MultilevelFactorModel, MultilevelFactorResults

pytestmark = pytest.mark.portable

LABELS = [[0] * 30, [j // 10 for j in range(30)], [j // 5 for j in range(30)]]
CASE = make_case(LABELS, (2, 1, 0), nobs=100, seed=2)


@pytest.fixture(scope="module")
def results():
    model = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks={"global": 2, "level1": 1})
    return model.fit(tol=1e-4)


def test_statsmodels_classes(results):
    assert isinstance(results, LikelihoodModelResults)
    assert isinstance(results.model, LikelihoodModel)
    assert results.model.endog.shape == (100, 30)
    assert results.model.endog_names == [f"x{j}" for j in range(30)]


def test_labels(results):
    features = list(CASE.frame.columns)
    assert list(results.loadings.index) == features
    assert list(results.loadings.columns) == [("global", 1), ("global", 2), ("level1", 1)]
    assert results.loadings.columns.names == ["level", "factor"]
    assert list(results.uniquenesses.index) == features
    assert list(results.communalities.index) == features
    assert list(results.mean.index) == features
    assert list(results.params.index) == results.model.param_names
    assert results.ranks.to_dict() == {"global": 2, "level1": 1, "level2": 0}


def test_params_are_the_estimates(results):
    parts = results.model.unpack(results.params)
    pd.testing.assert_frame_equal(parts.loadings, results.loadings)
    pd.testing.assert_series_equal(parts.uniquenesses, results.uniquenesses)
    pd.testing.assert_frame_equal(parts.coefficients, results.coefficients)
    pd.testing.assert_series_equal(results.mean, parts.coefficients["const"].rename("mean"))


def test_criteria(results):
    # Free parameters counted by hand: 30 means, 30 uniquenesses, 2 x 30 - 1 global loadings, 30 of the groups.
    assert results.df_model == 30 + 30 + 59 + 30
    assert results.aic == pytest.approx(-2 * results.llf + 2 * 149)
    assert results.bic == pytest.approx(-2 * results.llf + np.log(100) * 149)
    centred = MultilevelFactorModel(
        CASE.frame - CASE.frame.mean(), hierarchy=CASE.hierarchy, ranks=[2, 1, 0], trend="n"
    )
    again = centred.fit(tol=1e-4)
    assert again.df_model == 119
    assert again.mean is None
    assert again.llf == pytest.approx(results.llf, abs=1e-6)


def test_variance_explained_against_the_covariance(results):
    dense = results.covariance.to_dense()
    shares = results.variance_explained()
    assert list(shares.index) == ["global", "level1", "level2", "unique"]
    assert shares["variance"].sum() == pytest.approx(np.trace(dense))
    assert shares["share"].sum() == pytest.approx(1)
    assert shares["mean_share"].sum() == pytest.approx(1)
    assert shares.loc["level2", "share"] == 0
    assert shares.loc["unique", "variance"] == pytest.approx(results.uniquenesses.sum())
    assert shares.loc["unique", "mean_share"] == pytest.approx(1 - results.communalities.mean())
    np.testing.assert_allclose(1 - results.communalities, results.uniquenesses / np.diag(dense))

    groups = results.variance_explained("group")
    assert groups.index.names == ["level", "group"]
    assert groups.loc["level1", "variance"].sum() == pytest.approx(shares.loc["level1", "variance"])
    members = CASE.hierarchy.groups("level1")[1]
    where = CASE.hierarchy.features.get_indexer(members)
    own = (results.loadings.loc[members, ("level1", 1)] ** 2).sum()
    row = groups.loc[("level1", 1)]
    assert row["features"] == 10
    assert row["share_within"] == pytest.approx(own / np.diag(dense)[where].sum())
    with pytest.raises(ValueError, match="by must be 'level' or 'group'"):
        results.variance_explained("sector")


def test_history_and_settings(results):
    assert list(results.history.columns) == ["llf", "projected_gain", "step", "accepted"]
    assert results.history.index.name == "evaluation"
    assert results.history["llf"].iloc[-1] == results.llf
    assert results.mle_retvals["converged"] is True
    assert results.mle_retvals["fcalls"] == results.starts["evaluations"].sum()
    assert results.mle_retvals["starts"] == results.starts["llf"].to_dict()
    assert results.mle_settings["start"] == "pca"
    assert results.mle_settings["search"] == "default"
    assert max(results.mle_retvals["starts"].values()) == results.llf
    assert results.mle_settings["method"] == "scoring"
    assert results.mle_retvals["projected_gain"] < 1e-4


def test_summary(results):
    summary = results.summary()
    text = summary.as_text()
    assert max(map(len, text.splitlines())) <= 80
    for words in ("Multilevel Factor", "Log-Likelihood", "AIC", "BIC", "global", "level1", "(unique)", "scoring"):
        assert words in text
    assert f"{results.llf:.3f}" in text
    assert "<table" in summary.as_html()
    assert r"\begin{tabular}" in summary.as_latex()


@pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
def test_every_shape_has_a_summary(case):
    ranks = dict(zip(case.hierarchy.levels, case.ranks, strict=True))
    fitted = MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=ranks).fit(maxiter=5)
    summary = fitted.summary()
    assert max(map(len, summary.as_text().splitlines()[:8])) <= 80
    summary.as_html()
    summary.as_latex()
    explained = np.trace(fitted.covariance.to_dense()) - fitted.uniquenesses.sum()
    assert fitted.variance_explained("group")["variance"].sum() == pytest.approx(explained)


def test_a_summary_of_long_labels_stays_within_the_page():
    frame = CASE.frame.rename(columns=lambda name: f"a very long name for the feature called {name}")
    labels = CASE.hierarchy.to_frame().map(lambda label: f"a very long name for group {label}")
    labels = labels.set_axis(["a very long name for a level", "another one"], axis=1).set_axis(frame.columns)
    text = MultilevelFactorModel(frame, hierarchy=labels, ranks=[2, 1, 0]).fit(tol=1).summary().as_text()
    assert max(map(len, text.splitlines())) <= 80


def test_save_and_load(results, tmp_path):
    path = tmp_path / "results.pickle"
    results.save(path)
    loaded = mlfm.load(path)
    assert isinstance(loaded, MultilevelFactorResults)
    assert loaded.model is None
    assert loaded.summary().as_text() == results.summary().as_text()
    pd.testing.assert_series_equal(loaded.params, results.params)
    assert loaded.hierarchy == results.hierarchy
    assert loaded.covariance.logdet() == results.covariance.logdet()
    # No data inside: the file does not grow with the observations.
    many = MultilevelFactorModel(np.tile(CASE.Y, (50, 1)), hierarchy=CASE.hierarchy, ranks=[2, 1, 0])
    many.fit(tol=1).save(tmp_path / "many.pickle")
    assert (tmp_path / "many.pickle").stat().st_size < path.stat().st_size + 20_000
    # Saving leaves the results as they were.
    assert results.model is not None
    whole = pickle.loads(pickle.dumps(results))
    assert whole.model.loglike(whole.params) == pytest.approx(results.llf, rel=1e-12)
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(ValueError, match="junk cannot be read as results of mlfm"):
        mlfm.load(tmp_path / "junk")
    with path.open("wb") as file:
        pickle.dump({"not": "results"}, file)
    with pytest.raises(TypeError, match="does not hold results of mlfm, but a dict"):
        mlfm.load(path)


def test_labels_that_are_not_strings():
    rng = np.random.default_rng(0)
    columns = pd.MultiIndex.from_arrays([[2, 1] * 6, pd.period_range("2020", periods=12, freq="Y")], names=[7, None])
    frame = pd.DataFrame(rng.standard_normal((50, 12)), columns=columns)
    fitted = MultilevelFactorModel(frame, ranks={"global": 1, 7: 1}).fit(tol=1, search="none")
    assert list(fitted.hierarchy.groups(7)) == [2, 1]
    assert list(fitted.loadings.index) == list(columns.get_level_values(1))
    assert fitted.variance_explained("group").loc[(7, 2), "features"] == 6
    fitted.summary().as_text()


def test_flat_labels_that_statsmodels_would_confuse():
    columns = pd.MultiIndex.from_tuples(
        [("A_B", "C"), ("A", "B_C"), *[("A", f"x{j}") for j in range(5)], *[("A_B", f"y{j}") for j in range(5)]],
        names=["g", "feature"],
    )
    frame = pd.DataFrame(np.random.default_rng(0).standard_normal((40, 12)), columns=columns)
    fitted = MultilevelFactorModel(frame, ranks=[0, 1]).fit(tol=1, search="none")
    assert list(fitted.loadings.index) == list(columns.get_level_values(1))


def test_level_names_may_be_tuples():
    labels = CASE.hierarchy.to_frame()
    labels.columns = pd.Index([("u", "v"), "w"], tupleize_cols=False)
    fitted = MultilevelFactorModel(CASE.frame, hierarchy=labels, ranks=[2, 1, 0]).fit(tol=1)
    assert "('u', 'v')" in fitted.summary().as_text()
    assert len(fitted.variance_explained("group")) == 1 + 3 + 6


def test_a_summary_of_many_groups_lists_some_and_says_so():
    n = 200
    labels = pd.DataFrame({"g": np.arange(n) // 5}, index=[f"x{j}" for j in range(n)])
    data = np.random.default_rng(0).standard_normal((20, n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        text = (
            MultilevelFactorModel(data, hierarchy=mlfm.Hierarchy(labels), ranks=[0, 1])
            .fit(maxiter=2)
            .summary()
            .as_text()
        )
    assert "(10 more)" in text
    assert len(text.splitlines()) < 70
