"""Measures of fit held against R, against their dense definitions, and against what they should be in simulations."""

import copy
import dataclasses
import importlib.util
import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from oracle import dense_loglikeobs_seen, make_case
from scipy import stats

import mlfm
from mlfm import MultilevelFactorModel, UniquenessFloorWarning
from mlfm.inference import fit_measures as measures
from mlfm.inference import residual_correlations
from mlfm.inference.sample import independence_llf, saturated_llf

HOME = Path(__file__).parent / "reference" / "r"
SPEC = importlib.util.spec_from_file_location("r_reference", HOME / "parse.py")
r = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(r)

LAVAAN = {
    "llf": "logl",
    "llf_saturated": "unrestricted.logl",
    "nobs": "ntotal",
    "n_parameters": "npar",
    "aic": "aic",
    "bic": "bic",
    "sabic": "bic2",
    "chi2": "chisq",
    "df": "df",
    "pvalue": "pvalue.tight",
    "baseline_chi2": "baseline.chisq",
    "baseline_df": "baseline.df",
    "baseline_pvalue": "baseline.pvalue.tight",
    "cfi": "cfi",
    "tli": "tli",
    "rmsea": "rmsea",
    "rmsea_lower": "rmsea.ci.lower.tight",
    "rmsea_upper": "rmsea.ci.upper.tight",
    "rmsea_pvalue": "rmsea.pvalue.tight",
    "srmr": "srmr",
    "srmr_nomean": "srmr_bentler_nomean",
}
LABELS = [[0] * 12, [j // 4 for j in range(12)]]


def tame(labels, ranks, nobs, seed):
    """A case whose loadings all matter and whose uniquenesses are half of them, so that none ends on its floor."""
    case = make_case(labels, ranks)
    rng = np.random.default_rng(seed)
    F, D = rng.uniform(0.5, 0.9, case.loadings.shape), np.full(len(case.loadings), 0.5)
    truth = mlfm.MultilevelCovariance(case.hierarchy, F, D, ranks=ranks)
    return dataclasses.replace(case, loadings=F, uniquenesses=D, Y=truth.sample(nobs, rng=rng).to_numpy())


CASE = tame(LABELS, (1, 1), nobs=80, seed=3)
ORDERLESS = tame([[0] * 12, list("abcabcabcabc")], (1, 1), nobs=60, seed=5)
FEW = tame(LABELS, (1, 0), nobs=11, seed=4)
MANY = tame(LABELS, (1, 1), nobs=200, seed=4)
GAPS = MANY.frame.mask(np.eye(200, 12, dtype=bool))
WEIGHTS = np.random.default_rng(6).uniform(0.2, 2, 80)
TIMES = np.random.default_rng(7).integers(0, 4, 80)


@cache
def fitted(name):
    reference = r.read(name)
    return MultilevelFactorModel(r.endog(name), hierarchy=r.groups(name), ranks=reference.ranks).fit(tol=1e-9)


@pytest.fixture(scope="module")
def results():
    return MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[1, 1]).fit(tol=1e-8)


def weighted_moments(Y, X, weights):
    """Residuals of the covariates, and their covariance, both by their definitions."""
    W = np.diag(weights)
    B = np.linalg.solve(X.T @ W @ X, X.T @ W @ Y) if X.shape[1] else np.zeros((0, Y.shape[1]))
    E = Y - X @ B
    return E, E.T @ W @ E / weights.sum()


# Against R


@pytest.mark.parametrize("name", r.FITS)
def test_lavaan(name):
    reference, found = r.read(name).fit, fitted(name).fit_measures()
    assert not found.notes
    for mine, theirs in LAVAAN.items():
        assert getattr(found, mine) == pytest.approx(reference[theirs], rel=1e-6, abs=1e-300), mine


@pytest.mark.parametrize("factors", r.FACTORS)
def test_factanal(factors):
    reference = r.factanal(factors)
    results = MultilevelFactorModel(r.endog("bifactor"), ranks=[factors]).fit(tol=1e-9)
    test = results.test_saturated()
    assert test.statistic == pytest.approx(reference.statistic, rel=1e-8)
    assert test.df == reference.dof
    assert test.pvalue == pytest.approx(reference.pvalue, rel=1e-6)
    assert test.correction * reference.nobs == pytest.approx(reference.bartlett_factor, rel=1e-14)
    plain = results.test_saturated(bartlett=False)
    assert plain.statistic * test.correction == pytest.approx(test.statistic, rel=1e-14)
    assert plain.correction == 1


# Likelihoods of the saturated model and of independence


@pytest.mark.parametrize("kind", ["plain", "trend n", "covariates", "weights", "freq_weights", "both"])
def test_saturated_and_independence_likelihoods_are_those_of_the_sample_covariance(kind):
    options, X, weights = {}, np.ones((80, 1)), np.ones(80)
    if kind == "trend n":
        options, X = {"trend": "n"}, np.empty((80, 0))
    elif kind == "covariates":
        x = np.random.default_rng(1).standard_normal((80, 2))
        options, X = {"exog": x}, np.column_stack([np.ones(80), x])
    if kind in ("freq_weights", "both"):
        options["freq_weights"], weights = TIMES, weights * TIMES
    if kind in ("weights", "both"):
        options["weights"] = WEIGHTS
        weights = weights * WEIGHTS
        weights = weights * weights.sum() / (weights @ WEIGHTS)  # sums to Kish's effective number
    model = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[1, 1], **options)
    E, S = weighted_moments(CASE.Y, X, weights)
    for found, sigma in ((saturated_llf, S), (independence_llf, np.diag(np.diag(S)))):
        expected = weights @ stats.multivariate_normal(np.zeros(12), sigma).logpdf(E)
        assert found(model._data) == pytest.approx(expected, rel=1e-12)


def test_the_likelihood_of_independence_is_that_of_what_is_observed():
    frame = CASE.frame.mask(np.random.default_rng(2).random((80, 12)) < 0.2)
    model = MultilevelFactorModel(frame, hierarchy=CASE.hierarchy, ranks=[1, 1], freq_weights=TIMES)
    whole = frame.loc[frame.index.repeat(TIMES)]
    sigma = np.diag(whole.var(ddof=0))
    expected = dense_loglikeobs_seen(whole.to_numpy(), whole.mean().to_numpy(), sigma).sum()
    assert independence_llf(model._data) == pytest.approx(expected, rel=1e-12)


def test_a_singular_sample_covariance_has_no_likelihood():
    twin = CASE.frame.assign(x3=CASE.frame["x1"] - 2 * CASE.frame["x2"])
    assert saturated_llf(MultilevelFactorModel(twin, hierarchy=CASE.hierarchy, ranks=[1, 1])._data) is None
    assert saturated_llf(MultilevelFactorModel(FEW.frame, hierarchy=FEW.hierarchy, ranks=[1, 1])._data) is None
    # As many observations as features and means together just do; rows of weight zero and rows seen twice do not count.
    just = CASE.frame.iloc[:13]
    assert saturated_llf(MultilevelFactorModel(just, hierarchy=CASE.hierarchy, ranks=[1, 1])._data) is not None
    for times in ([0] + [1] * 12, [0] + [2] * 12):
        model = MultilevelFactorModel(just, hierarchy=CASE.hierarchy, ranks=[1, 1], freq_weights=times)
        assert saturated_llf(model._data) is None


# The test against the saturated covariance


def test_saturated_test_in_words(results):
    test = results.test_saturated(bartlett=False)
    statistic, pvalue, df, _ = test
    E = CASE.Y - CASE.Y.mean(axis=0)
    S = E.T @ E / 80
    saturated = stats.multivariate_normal(np.zeros(12), S).logpdf(E).sum()
    assert statistic == pytest.approx(2 * (saturated - results.llf), rel=1e-10)
    assert df == 78 + 12 - results.df_model
    assert pvalue == pytest.approx(stats.chi2.sf(statistic, df))
    assert str(test) == f"Saturated test: chi2({df}) = {statistic:.3f}, p = {pvalue:.4g}"
    # N - 1 - (2 * 12 + 5) / 6 - 2 * 2 / 3 by hand, for 80 observations.
    corrected = results.test_saturated()
    assert corrected.correction == pytest.approx((79 - 29 / 6 - 4 / 3) / 80)
    assert "Bartlett" in str(corrected)


def test_frequencies_are_rows():
    repeated = CASE.frame.loc[CASE.frame.index.repeat(TIMES)].reset_index(drop=True)
    rows = MultilevelFactorModel(repeated, hierarchy=CASE.hierarchy, ranks=[1, 1]).fit(tol=1e-9)
    counts = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[1, 1], freq_weights=TIMES).fit(tol=1e-9)
    assert counts.test_saturated().statistic == pytest.approx(rows.test_saturated().statistic, rel=1e-8)
    pd.testing.assert_series_equal(counts.fit_measures().to_series(), rows.fit_measures().to_series(), rtol=1e-6)
    a, b = (x.residual_correlations(10) for x in (counts, rows))
    pd.testing.assert_frame_equal(a, b, rtol=1e-4)


def simulated(labels, ranks, nobs, reps, true_ranks=None, seed=0):
    """Tests of fits to samples of a model, with Bartlett's correction."""
    case = tame(labels, ranks if true_ranks is None else true_ranks, 2000, seed)
    truth = mlfm.MultilevelCovariance(case.hierarchy, case.loadings, case.uniquenesses, ranks=case.ranks)
    rng = np.random.default_rng(seed)
    first = MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=ranks).fit()
    for _ in range(reps):
        model = MultilevelFactorModel(truth.sample(nobs, rng=rng), hierarchy=case.hierarchy, ranks=ranks)
        again = model._refit(first, start=first)
        if again.converged and not len(again.on_floor):
            yield again.test_saturated()


def test_the_size_of_the_test():
    """The mean of 200 chi-squares over df is within 4 standard errors of 1, sqrt(2 / (200 df)) = 0.0066 each, and 0.02
    for what Bartlett's factor leaves; rejections of a test of 5 % within 4 of theirs, 0.015. Uncorrected both fail.
    """
    tests = list(simulated([[0] * 24, [j // 4 for j in range(24)]], (1, 1), 100, 200))
    assert len(tests) > 180
    mean = np.mean([test.statistic for test in tests]) / tests[0].df
    assert abs(mean - 1) < 0.045
    assert np.mean([test.pvalue < 0.05 for test in tests]) < 0.11
    plain = np.array([test.statistic / test.correction for test in tests])
    assert plain.mean() / tests[0].df > 1.09
    assert (stats.chi2.sf(plain, tests[0].df) < 0.05).mean() > 0.2


def test_the_power_of_the_test():
    labels = [[0] * 24, [j // 4 for j in range(24)]]
    tests = list(simulated(labels, (1, 0), 100, 20, true_ranks=(1, 1)))
    assert len(tests) > 15
    assert max(test.pvalue for test in tests) < 0.001


def test_uniquenesses_on_the_floor_are_told():
    model = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[1, 1], uniqueness_floor=0.4)
    with pytest.warns(UniquenessFloorWarning):
        floored = model.fit()
    with pytest.warns(UniquenessFloorWarning, match="not quite chi-square"):
        floored.test_saturated()
    assert "on the floor" in floored.fit_measures().notes[-1]


def test_refusals(results):
    with pytest.raises(ValueError, match="singular with 11 observations"):
        MultilevelFactorModel(FEW.frame, hierarchy=FEW.hierarchy, ranks=[1, 0]).fit(tol=1).test_saturated()
    with pytest.raises(ValueError, match="12 values missing"):
        MultilevelFactorModel(GAPS, hierarchy=CASE.hierarchy, ranks=[1, 1]).fit().test_saturated()
    with pytest.warns(mlfm.ConvergenceWarning):
        short = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[1, 1]).fit(maxiter=1)
    for method in ("test_saturated", "fit_measures"):
        with pytest.raises(ValueError, match="did not converge"):
            getattr(short, method)()
    with pytest.warns(mlfm.IdentificationWarning):
        model = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[1, 2])
    lost = model.fit(tol=1)
    with pytest.raises(ValueError, match=r"3 groups not identified.*level1 0 \(4 features for 2 factors\)"):
        lost.test_saturated()
    three = MultilevelFactorModel(CASE.frame.iloc[:, :3], hierarchy=mlfm.Hierarchy(CASE.frame.columns[:3]), ranks=[1])
    with pytest.raises(ValueError, match="df = 0"):
        three.fit(tol=1).test_saturated()
    with pytest.raises(TypeError, match="bartlett must be True or False"):
        results.test_saturated(bartlett=3)
    alone = copy.copy(results)
    alone.remove_data()
    for method in ("test_saturated", "fit_measures", "residual_correlations"):
        with pytest.raises(ValueError, match="loaded from a file"):
            getattr(alone, method)()


# Measures from chi-squares


def test_rmsea_interval_inverts_the_noncentral_distribution():
    for chi2, df, nobs in ((442.7, 228, 301), (60.0, 50, 100), (5e4, 1000, 700), (3e5, 150_000, 900)):
        lower, upper = measures.rmsea_interval(chi2, df, nobs)
        assert lower <= measures.rmsea(chi2, df, nobs) <= upper
        assert stats.ncx2.cdf(chi2, df, upper**2 * nobs * df) == pytest.approx(0.05, rel=1e-6)
        if lower > 0:
            assert stats.ncx2.cdf(chi2, df, lower**2 * nobs * df) == pytest.approx(0.95, rel=1e-6)
        else:
            assert stats.chi2.cdf(chi2, df) < 0.95
        # A close fit of this RMSEA is rejected at 5 % just where it is the interval's lower end.
        assert measures.close_fit(chi2, df, nobs, close=upper) == pytest.approx(0.95, rel=1e-6)


def test_measures_of_a_fit_better_than_chance():
    assert measures.rmsea(40, 50, 100) == 0
    assert measures.rmsea_interval(20, 50, 100) == (0, 0)
    assert measures.cfi(40, 50, 500, 66) == 1
    assert measures.tli(40, 50, 500, 66) > 1
    assert measures.cfi(40, 50, 40, 66) == 1


# SRMR and residual correlations


def dense_residuals(results, Y, X, weights):
    """(S - Sigma) in the sample's standard deviations; and sample and fitted correlations."""
    _, S = weighted_moments(Y, X, weights)
    sigma = results.covariance.to_dense()
    d = np.sqrt(np.diag(S))
    e = np.sqrt(np.diag(sigma))
    return (S - sigma) / np.outer(d, d), S / np.outer(d, d), sigma / np.outer(e, e)


@pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
@pytest.mark.parametrize("width", [5, 512])
def test_srmr_of_every_shape(case, width, monkeypatch):
    monkeypatch.setattr("mlfm.inference.sample.WIDTH", width)
    monkeypatch.setattr("mlfm.inference.fit_measures.CHUNK", 40)
    ranks = dict(zip(case.hierarchy.levels, case.ranks, strict=True))
    weights = np.random.default_rng(1).integers(1, 3, len(case.Y))
    model = MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=ranks, freq_weights=weights)
    # Far from the maximum, so that variances have residuals too.
    results = model.fit(maxiter=2)
    residuals, _, _ = dense_residuals(results, case.Y, np.ones((len(case.Y), 1)), weights)
    n = len(residuals)
    squares = np.square(residuals[np.tril_indices(n)]).sum()
    # Sums of n^2 squares of size 1 that cancel.
    assert measures.residual_squares(results.covariance, model._data) == pytest.approx(squares, rel=1e-9, abs=1e-11)
    assert measures.srmr(squares, n, with_means=True) == pytest.approx(np.sqrt(squares / (n * (n + 1) / 2 + n)))


def test_srmr_counts_means_where_there_are_any():
    centred = CASE.frame - CASE.frame.mean()
    fit = MultilevelFactorModel(centred, hierarchy=CASE.hierarchy, ranks=[1, 1], trend="n").fit().fit_measures()
    assert fit.srmr == fit.srmr_nomean
    with_means = MultilevelFactorModel(centred, hierarchy=CASE.hierarchy, ranks=[1, 1]).fit().fit_measures()
    assert with_means.srmr == pytest.approx(fit.srmr * np.sqrt(78 / 90), rel=1e-4)
    # The test is of the same covariance; means add nothing to it.
    assert with_means.df == fit.df
    assert with_means.chi2 == pytest.approx(fit.chi2, abs=1e-3)


@pytest.mark.parametrize("case", [CASE, ORDERLESS, FEW], ids=["groups", "unsorted", "few observations"])
@pytest.mark.parametrize("sizes", [(3, 5), (512, 2048)])
def test_residual_correlations_against_all_pairs(case, sizes, monkeypatch):
    monkeypatch.setattr(residual_correlations, "ROWS", sizes[0])
    monkeypatch.setattr(residual_correlations, "COLUMNS", sizes[1])
    weights = np.random.default_rng(1).uniform(0.5, 2, len(case.Y))
    model = MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=[1, 0], weights=weights)
    results = model.fit(tol=1)
    _, sample, fitted = dense_residuals(results, case.Y, np.ones((len(case.Y), 1)), weights)
    features = list(case.frame.columns)
    pairs = sorted(itertools.combinations(range(12), 2), key=lambda p: -abs(sample[p] - fitted[p]))
    for top in (7, 66, 1000):
        table = results.residual_correlations(top)
        wanted = pairs[:top]
        assert [*zip(table["first"], table["second"], strict=True)] == [(features[i], features[j]) for i, j in wanted]
        np.testing.assert_allclose(table["sample"], [sample[p] for p in wanted], atol=1e-12)
        np.testing.assert_allclose(table["fitted"], [fitted[p] for p in wanted], atol=1e-12)
        np.testing.assert_allclose(table["residual"], table["sample"] - table["fitted"], atol=1e-15)
        assert (table["nobs"] == results.effective_nobs).all()
        z = (np.arctanh(table["sample"]) - np.arctanh(table["fitted"])) * np.sqrt(results.effective_nobs - 3)
        np.testing.assert_allclose(table["z"], z, rtol=1e-9)


def test_residual_correlations_of_pairs_observed_together(monkeypatch):
    monkeypatch.setattr(residual_correlations, "ROWS", 5)
    rng = np.random.default_rng(3)
    frame = CASE.frame.mask(rng.random((80, 12)) < 0.1)
    frame.iloc[:40, 1] = np.nan
    frame.iloc[45:, 2] = np.nan  # with 1 at most five times
    x = rng.standard_normal(80)
    model = MultilevelFactorModel(frame, x, hierarchy=CASE.hierarchy, ranks=[1, 1], weights=WEIGHTS)
    results = model.fit(tol=1e-2)
    weights = model._data.weights[model._data.places]
    E = frame.to_numpy() - np.column_stack([np.ones(80), x]) @ results.coefficients.to_numpy().T
    sigma = results.covariance.correlation().to_dense()
    expected = {}
    for i, j in itertools.combinations(range(12), 2):
        both = ~np.isnan(E[:, i] + E[:, j])
        w, a, b = weights[both], E[both, i], E[both, j]
        if w.sum() >= 10:
            expected[f"x{i}", f"x{j}"] = (w @ (a * b) / np.sqrt((w @ a**2) * (w @ b**2)) - sigma[i, j], w.sum())
    table = results.residual_correlations(100)
    found = table.set_index(["first", "second"])
    assert ("x1", "x2") not in expected
    assert set(found.index) == set(expected)
    for pair, (residual, total) in expected.items():
        assert found.loc[pair, "residual"] == pytest.approx(residual, abs=1e-10)
        assert found.loc[pair, "nobs"] == pytest.approx(total)
    assert (np.abs(table["residual"]).diff().dropna() <= 0).all()


def test_a_missed_pair_is_found():
    frame = CASE.frame.copy()
    rng = np.random.default_rng(2)
    common = rng.standard_normal(80)
    frame["x2"] += 3 * common
    frame["x9"] += 3 * common
    top = (
        MultilevelFactorModel(frame, hierarchy=CASE.hierarchy, ranks=[1, 1]).fit(search="none").residual_correlations(1)
    )
    assert tuple(top.loc[0, ["first", "second"]]) == ("x2", "x9")


def test_residual_correlations_of_any_labels():
    labels = [(1, "a"), 7, "b", 2.5]
    frame = CASE.frame.iloc[:, :4].copy()
    frame.columns = pd.Index(labels, tupleize_cols=False)
    hierarchy = mlfm.Hierarchy(pd.Index(labels, tupleize_cols=False))
    table = MultilevelFactorModel(frame, hierarchy=hierarchy, ranks=[1]).fit(tol=1).residual_correlations()
    assert len(table) == 6
    assert {*table["first"], *table["second"]} == set(labels)
    for top in (0, 1.5, True, "all"):
        with pytest.raises(ValueError, match="top must be a whole number"):
            MultilevelFactorModel(frame, hierarchy=hierarchy, ranks=[1]).fit(tol=1).residual_correlations(top)


# What there is where there is no saturated model


def test_measures_without_a_saturated_model():
    few = MultilevelFactorModel(FEW.frame, hierarchy=FEW.hierarchy, ranks=[1, 0]).fit().fit_measures()
    assert "singular with 11 observations" in few.notes[0]
    gone = ["chi2", "df", "pvalue", "baseline_chi2", "cfi", "tli", "rmsea", "rmsea_upper", "rmsea_pvalue"]
    assert few.to_series()[gone].isna().all()
    assert few.to_series().drop(gone)[["srmr", "independence_chi2", "bic"]].notna().all()
    missing = MultilevelFactorModel(GAPS, hierarchy=CASE.hierarchy, ranks=[1, 1]).fit().fit_measures()
    assert len(missing.notes) == 2
    assert np.isnan(missing.srmr)
    assert missing.independence_chi2 == pytest.approx(2 * (missing.llf - missing.llf_independence))
    assert missing.independence_df == 24


def test_measures_of_a_model_that_is_not_identified():
    with pytest.warns(mlfm.IdentificationWarning):
        model = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[1, 2])
    found = model.fit(tol=1).fit_measures()
    assert np.isnan([found.chi2, found.cfi, found.rmsea]).all()
    assert found.baseline_df == 66  # independence has its own test
    assert "not identified" in found.notes[0]


def test_measures_read_well(results):
    found = results.fit_measures()
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    assert f"{found.cfi:.4f}" in text
    few = MultilevelFactorModel(FEW.frame, hierarchy=FEW.hierarchy, ranks=[1, 0]).fit().fit_measures()
    assert max(map(len, str(few).splitlines())) <= 80
    assert "singular" in str(few)
    assert "nan" not in str(few).split("Note")[0]
    assert "<table>" in few._repr_html_()
    assert list(found.to_series().index) == [f.name for f in dataclasses.fields(found) if f.name != "notes"]


# Criteria and counts


def test_criteria(results):
    llf, k, n, N = results.llf, results.df_model, 12, 80
    assert results.sabic == pytest.approx(-2 * llf + k * np.log((N + 2) / 24))
    assert results.ebic(0) == pytest.approx(results.bic)
    assert results.ebic() == pytest.approx(results.bic + 4 * 0.5 * np.log(n) * 24)
    for gamma in (-0.1, 1.1, True, "half"):
        with pytest.raises(ValueError, match="gamma must lie between 0 and 1"):
            results.ebic(gamma)


@pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
def test_free_parameters_sum_to_their_number(case):
    ranks = dict(zip(case.hierarchy.levels, case.ranks, strict=True))
    results = MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=ranks).fit(maxiter=0)
    counts = results.free_parameters()
    assert counts.sum() == results.df_model
    assert list(counts.index) == [*case.hierarchy.levels, "unique", "mean"]
    assert counts["mean"] == counts["unique"] == case.hierarchy.n_features
