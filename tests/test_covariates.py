"""Covariates of the mean: coefficients, their standard errors, tests, predictions, and what bad covariates get."""

import re

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from oracle import dense_loglikeobs
from scipy import stats

import mlfm
from mlfm import Hierarchy, MultilevelFactorModel

FEATURES = [f"x{j}" for j in range(12)]
GROUPS = pd.DataFrame({"sector": list("aaaaaabbbbbb")}, index=FEATURES)
DAYS = pd.date_range("2024-01-01", periods=60, name="day")
RNG = np.random.default_rng(3)
X = pd.DataFrame({"market": RNG.standard_normal(60), "size": RNG.uniform(1, 3, 60)}, index=DAYS)
SLOPES = RNG.standard_normal((2, 12))
OWN = np.kron(np.eye(2), np.ones((1, 6)))
SHARED = np.array([[1, -1, 1, -1, 1, -1] * 2])
NOISE = RNG.standard_normal((60, 2)) @ OWN + RNG.standard_normal((60, 1)) @ SHARED + RNG.standard_normal((60, 12))
Y = pd.DataFrame(X.to_numpy() @ SLOPES + 5 + NOISE, index=DAYS, columns=FEATURES)
GAPPY = Y.mask(np.random.default_rng(4).random(Y.shape) < 0.03)


def model(endog=Y, exog=X, **options):
    return MultilevelFactorModel(endog, exog, **{"hierarchy": GROUPS, "ranks": [1, 1], **options})


@pytest.fixture(scope="module")
def results():
    return model().fit(tol=1e-6)


@pytest.fixture(scope="module")
def gappy():
    return model(GAPPY).fit(tol=1e-6)


@pytest.fixture(scope="module")
def restricted():
    return model(exog=X["market"]).fit(tol=1e-6)


def dense_standard_errors(fitted, design, observed):
    """The inverse of the sum of (Sigma_oo)^-1 (x) x x' over observations, n q x n q; and its diagonal's roots."""
    sigma, n, q = fitted.covariance.to_dense(), observed.shape[1], design.shape[1]
    information = np.zeros((n * q, n * q))
    for x, seen in zip(design, observed, strict=True):
        precision = np.zeros((n, n))
        precision[np.ix_(seen, seen)] = np.linalg.inv(sigma[np.ix_(seen, seen)])
        information += np.kron(precision, np.outer(x, x))
    covariance = np.linalg.inv(information)
    return covariance, np.sqrt(np.diag(covariance)).reshape(n, q)


class TestCoefficients:
    def test_they_are_those_of_least_squares_feature_by_feature(self, results):
        design = sm.add_constant(X)
        for feature in FEATURES:
            expected = sm.OLS(Y[feature], design).fit().params
            pd.testing.assert_series_equal(results.coefficients.loc[feature], expected, check_names=False, rtol=1e-10)

    def test_labels(self, results):
        assert list(results.coefficients.index) == FEATURES
        assert list(results.coefficients.columns) == ["const", "market", "size"]
        assert results.model.exog_names == ["const", "market", "size"]
        assert results.model.param_names[:3] == [
            "coefficient[x0, const]",
            "coefficient[x0, market]",
            "coefficient[x0, size]",
        ]
        assert results.mean is None

    def test_the_fit_is_that_of_the_residuals(self, results):
        centred = model(results.resid, None, trend="n").fit(tol=1e-6)
        assert results.llf == pytest.approx(centred.llf, abs=1e-6)
        assert results.df_model == centred.df_model + 12 * 3
        np.testing.assert_allclose(results.covariance.to_dense(), centred.covariance.to_dense(), rtol=1e-3, atol=1e-4)

    def test_the_log_likelihood_is_the_dense_one(self, results):
        expected = dense_loglikeobs(Y.to_numpy(), results.fittedvalues.to_numpy(), results.covariance.to_dense())
        np.testing.assert_allclose(results.model.loglikeobs(results.params), expected, rtol=1e-9)
        assert results.llf == pytest.approx(expected.sum(), rel=1e-10)

    def test_a_constant_of_ones_is_the_trend(self, results):
        own = model(exog=X.assign(const=1.0), trend="n").fit(tol=1e-6)
        assert own.llf == pytest.approx(results.llf, abs=1e-8)
        pd.testing.assert_frame_equal(own.coefficients[["const", "market", "size"]], results.coefficients)

    def test_with_missing_values_they_solve_the_normal_equations(self, gappy):
        # At the maximum the gradient along the coefficients is zero, sum over observations of Sigma_oo^-1 (x) x.
        slopes = gappy.model.score(gappy.params)[: 12 * 3].reshape(12, 3)
        assert np.abs(slopes * gappy.coefficients_bse).to_numpy().max() < 1e-3

    def test_missing_values_without_a_mean(self):
        centred = model(GAPPY - 5, None, trend="n")
        fitted = centred.fit()
        assert fitted.coefficients.shape == (12, 0)
        sigma = fitted.covariance.to_dense()
        expected = 0.0
        for row in (GAPPY - 5).to_numpy():
            seen = ~np.isnan(row)
            expected += dense_loglikeobs(row[None, seen], 0, sigma[np.ix_(seen, seen)])[0]
        assert fitted.llf == pytest.approx(expected, rel=1e-9)

    def test_of_raw_scales_do_not_matter(self, results):
        scaled = model(exog=X * [1e6, 1e-6]).fit(tol=1e-6)
        assert scaled.llf == pytest.approx(results.llf, abs=1e-6)
        expected = results.coefficients / [1, 1e6, 1e-6]
        pd.testing.assert_frame_equal(scaled.coefficients, expected, rtol=1e-6)
        pd.testing.assert_frame_equal(scaled.coefficients_bse, results.coefficients_bse / [1, 1e6, 1e-6], rtol=1e-3)


class TestForms:
    """The same covariates in other shapes are the same model."""

    @pytest.mark.parametrize(
        "exog",
        [
            X.iloc[::-1],
            X.sample(frac=1, random_state=0),
            X[["size", "market"]],
            X.to_numpy(),
            X.to_numpy().tolist(),
            X.astype("Float64"),
            X.astype("double[pyarrow]"),
        ],
        ids=["reversed", "shuffled", "other columns first", "array", "lists", "nullable", "arrow"],
    )
    def test_shapes(self, exog, results):
        assert model(exog=exog).fit(tol=1e-6).llf == pytest.approx(results.llf, abs=1e-6)

    def test_arrays_throughout(self, results):
        unlabelled = model(Y.to_numpy(), X.to_numpy(), hierarchy=Hierarchy(GROUPS))
        assert unlabelled.fit(tol=1e-6).llf == pytest.approx(results.llf, abs=1e-6)

    def test_one_covariate(self):
        for exog in (X["market"], X[["market"]], X["market"].to_numpy(), X[["market"]].to_numpy()):
            one = model(exog=exog)
            np.testing.assert_allclose(one.exog, sm.add_constant(X[["market"]]))
        assert model(exog=X["market"]).exog_names == ["const", "market"]
        assert model(exog=X["market"].rename(None)).exog_names == ["const", "x1"]
        assert model(exog=X.to_numpy()).exog_names == ["const", "x1", "x2"]

    @pytest.mark.parametrize("dtype", ["bool", "boolean", "int8", "Int64"])
    def test_flags_and_whole_numbers(self, dtype):
        flags = pd.DataFrame({"up": X["market"] > 0}).astype(dtype)
        np.testing.assert_array_equal(model(exog=flags).exog[:, 1], X["market"] > 0)

    def test_labels_that_are_not_strings(self):
        columns = pd.Index([7, ("a", "b")], tupleize_cols=False)
        labelled = model(exog=X.set_axis(columns, axis=1)).fit(tol=1)
        assert list(labelled.coefficients.columns) == ["const", 7, ("a", "b")]
        assert "7" in labelled.model.exog_names

    def test_the_design_is_kept_in_the_order_of_the_data(self):
        gaps = model(GAPPY, X.iloc[::-1])
        np.testing.assert_array_equal(gaps.exog, sm.add_constant(X))

    def test_they_are_dropped_with_their_observations(self):
        with pytest.warns(mlfm.DroppedObservationsWarning):
            dropped = model(GAPPY, missing="drop")
        kept = GAPPY.notna().all(axis=1)
        np.testing.assert_array_equal(dropped.exog, sm.add_constant(X[kept]))
        assert dropped.fit(tol=1e-2).llf == pytest.approx(model(Y[kept], X[kept]).fit(tol=1e-2).llf, abs=1e-6)

    def test_many_observations_take_little_memory(self):
        # A matrix of observations x observations would be of 7 GB.
        nobs = 30_000
        rng = np.random.default_rng(0)
        many = model(rng.standard_normal((nobs, 12)), rng.standard_normal((nobs, 2)), hierarchy=Hierarchy(GROUPS))
        assert many.exog.shape == (nobs, 3)


class TestStandardErrors:
    def test_dense(self, results):
        _, expected = dense_standard_errors(results, results.model.exog, np.ones(Y.shape, dtype=bool))
        np.testing.assert_allclose(results.coefficients_bse, expected, rtol=1e-8)
        inverse = np.linalg.inv(results.model.exog.T @ results.model.exog)
        expected = np.sqrt(np.diag(np.kron(results.covariance.to_dense(), inverse))).reshape(12, 3)
        np.testing.assert_allclose(results.coefficients_bse, expected, rtol=1e-8)

    def test_dense_with_missing_values(self, gappy):
        _, expected = dense_standard_errors(gappy, gappy.model.exog, GAPPY.notna().to_numpy())
        np.testing.assert_allclose(gappy.with_cov_type("expected").coefficients_bse, expected, rtol=1e-8)

    def test_features_in_another_order(self, gappy):
        order = np.random.default_rng(0).permutation(FEATURES)
        other = model(GAPPY[order]).fit(tol=1e-6)
        pd.testing.assert_frame_equal(other.coefficients_bse.loc[FEATURES], gappy.coefficients_bse, rtol=1e-3)

    def test_of_means_alone(self):
        fitted = model(exog=None).fit(tol=1e-6)
        expected = np.sqrt(fitted.covariance.diagonal() / 60)
        np.testing.assert_allclose(fitted.coefficients_bse["const"], expected)

    def test_table(self, results):
        table = results.coefficients_table(alpha=0.1)
        assert list(table.columns) == ["coef", "std err", "z", "P>|z|", "[0.05", "0.95]"]
        row = table.loc[("x3", "market")]
        coef, error = results.coefficients.loc["x3", "market"], results.coefficients_bse.loc["x3", "market"]
        assert row["z"] == pytest.approx(coef / error)
        assert row["P>|z|"] == pytest.approx(2 * stats.norm.sf(abs(coef / error)))
        assert (row["[0.05"], row["0.95]"]) == pytest.approx(stats.norm.interval(0.9, coef, error))
        with pytest.raises(ValueError, match="alpha must lie between 0 and 1, not 5"):
            results.coefficients_table(alpha=5)

    def test_without_covariates_there_are_none(self):
        for endog in (Y - Y.mean(), GAPPY - GAPPY.mean()):
            bare = model(endog, None, trend="n").fit(tol=1)
            assert bare.coefficients_bse.shape == (12, 0)
            assert bare.coefficients_table().empty
            assert bare.wald_test_terms().empty
            assert (bare.fittedvalues == 0).all(axis=None)


class TestPrediction:
    def test_fitted_values_and_residuals(self, results):
        expected = sm.add_constant(X) @ results.coefficients.T
        pd.testing.assert_frame_equal(results.fittedvalues, expected, check_names=False)
        np.testing.assert_allclose(results.resid + results.fittedvalues, Y)
        np.testing.assert_allclose(sm.add_constant(X).T @ results.resid, 0, atol=1e-9)
        pd.testing.assert_frame_equal(results.predict(), results.fittedvalues)

    def test_residuals_are_missing_where_the_data_are(self, gappy):
        pd.testing.assert_frame_equal(gappy.resid.isna(), GAPPY.isna())
        np.testing.assert_allclose(gappy.resid, GAPPY - gappy.fittedvalues, atol=1e-12)

    def test_new_frames(self, results):
        new = pd.DataFrame({"other": [0, 0], "size": [1.0, 2.0], "market": [0.0, -1.0]}, index=["p", "q"])
        predicted = results.predict(new)
        assert list(predicted.index) == ["p", "q"]
        B = results.coefficients
        expected = B["const"] - B["market"] + 2 * B["size"]
        pd.testing.assert_series_equal(predicted.loc["q"], expected, check_names=False)

    @pytest.mark.parametrize("dtype", ["Float64", "Int64", "int8", "double[pyarrow]"])
    def test_new_frames_of_any_numbers(self, results, dtype):
        new = pd.DataFrame({"market": [1, 2], "size": [3, 4]})
        pd.testing.assert_frame_equal(results.predict(new.astype(dtype)), results.predict(new))

    def test_new_arrays_stand_in_the_order_of_the_covariates(self, results):
        predicted = results.predict(X.to_numpy()[:3])
        np.testing.assert_allclose(predicted, results.fittedvalues[:3])
        assert list(predicted.index) == [0, 1, 2]
        assert list(predicted.columns) == FEATURES

    def test_one_covariate(self):
        one = model(exog=X["market"]).fit(tol=1)
        for new in (X["market"][:3], X[["market"]][:3], X["market"].to_numpy()[:3], X["market"].tolist()[:3]):
            np.testing.assert_allclose(one.predict(new), one.fittedvalues[:3])
        with pytest.raises(ValueError, match="exog: covariates are absent: 'market'"):
            one.predict(X["size"])

    def test_means_alone(self):
        fitted = model(exog=None).fit(tol=1)
        for new in (np.empty((2, 0)), pd.DataFrame(index=[0, 1])):
            np.testing.assert_allclose(fitted.predict(new), [fitted.mean] * 2)

    def test_the_design_with_its_constant(self, results):
        pd.testing.assert_frame_equal(
            results.predict(sm.add_constant(X)), results.fittedvalues, check_names=False, check_freq=False
        )

    def test_nothing_for_no_rows(self, results):
        assert results.predict(X[:0]).shape == (0, 12)

    @pytest.mark.parametrize(
        ("exog", "error", "words"),
        [
            (X[["market"]], ValueError, "exog: covariates are absent: 'size'; needed are 'market', 'size'"),
            (np.ones((3, 3)), ValueError, "exog: 3 columns, but the model has 2 covariates: 'market', 'size'"),
            ([1.0, 2.0], ValueError, "exog: 1 column, but the model has 2 covariates"),
            (X.mask(X > 2), ValueError, "exog: .* missing in columns"),
            (X.assign(size=np.inf), ValueError, "exog: 60 values infinite in columns 'size'"),
            (X.assign(size="1"), TypeError, "exog: columns are not numeric: 'size'"),
            ("market", TypeError, "exog: real numbers are needed"),
        ],
    )
    def test_bad_covariates(self, results, exog, error, words):
        with pytest.raises(error, match=words):
            results.predict(exog)

    def test_the_model_predicts_at_any_parameters(self, results):
        expected = results.fittedvalues.to_numpy()
        np.testing.assert_allclose(results.model.predict(results.params), expected)
        np.testing.assert_allclose(results.model.predict(results.params, sm.add_constant(X).to_numpy()), expected)
        with pytest.raises(ValueError, match="exog: 3 columns are needed"):
            results.model.predict(results.params, X.to_numpy())

    def test_loaded_results(self, results, tmp_path):
        results.save(tmp_path / "fit")
        loaded = mlfm.load(tmp_path / "fit")
        pd.testing.assert_frame_equal(loaded.predict(X), results.predict(X))
        np.testing.assert_allclose(loaded.predict(X.to_numpy()), results.fittedvalues)
        pd.testing.assert_frame_equal(loaded.coefficients_bse, results.coefficients_bse)
        pd.testing.assert_frame_equal(loaded.wald_test_terms(), results.wald_test_terms())
        with pytest.raises(ValueError, match=r"fitted values cannot be had: .* loaded from a file"):
            loaded.predict()


TERMS = {"market": ["market"], "both": ["size", "market"], "alone": "size"}


class TestWald:
    def dense(self, fitted, observed):
        covariance, _ = dense_standard_errors(fitted, fitted.model.exog, observed)
        names = list(fitted.coefficients.columns)
        for term, own in TERMS.items():
            columns = [names.index(name) for name in ([own] if isinstance(own, str) else own)]
            which = (np.arange(12)[:, None] * len(names) + columns).ravel()
            b = fitted.coefficients.to_numpy().ravel()[which]
            yield term, b @ np.linalg.solve(covariance[np.ix_(which, which)], b), len(which)

    def test_dense(self, results):
        table = results.wald_test_terms(TERMS)
        assert list(table.index) == list(TERMS)
        for term, expected, df in self.dense(results, np.ones(Y.shape, dtype=bool)):
            assert table.loc[term, "chi2"] == pytest.approx(expected, rel=1e-8)
            assert table.loc[term, "df"] == df
            assert table.loc[term, "P>chi2"] == pytest.approx(stats.chi2.sf(expected, df))

    def test_dense_with_missing_values(self, gappy):
        table = gappy.with_cov_type("expected").wald_test_terms(TERMS)
        for term, expected, df in self.dense(gappy, GAPPY.notna().to_numpy()):
            assert table.loc[term, "chi2"] == pytest.approx(expected, rel=1e-8)
            assert table.loc[term, "df"] == df

    def test_each_covariate_is_a_term(self, results):
        assert list(results.wald_test_terms().index) == ["const", "market", "size"]
        assert (results.wald_test_terms()["df"] == 12).all()

    @pytest.mark.parametrize("fit", ["results", "gappy"])
    def test_a_covariate_named_twice_counts_once(self, fit, request):
        fitted = request.getfixturevalue(fit)
        table = fitted.wald_test_terms({"once": ["size"], "twice": ["size", "size"]})
        assert table.loc["once"].equals(table.loc["twice"])

    def test_refusals(self, results):
        with pytest.raises(ValueError, match="terms: 'a' needs covariates of the model, not 'nope'; there are 'const'"):
            results.wald_test_terms({"a": ["market", "nope"]})
        with pytest.raises(ValueError, match="terms: 'a' needs covariates of the model, not none"):
            results.wald_test_terms({"a": []})
        with pytest.raises(TypeError, match="terms must map names to lists of covariates, not list"):
            results.wald_test_terms(["market"])


class TestLikelihoodRatio:
    def test_against_the_log_likelihoods(self, results, restricted):
        test = results.compare_lr_test(restricted)
        assert test.statistic == pytest.approx(2 * (results.llf - restricted.llf))
        assert test.df_diff == 12
        assert test.pvalue == pytest.approx(stats.chi2.sf(test.statistic, 12))
        statistic, pvalue, df_diff = test
        assert (statistic, pvalue, df_diff) == (test.statistic, test.pvalue, test.df_diff)
        assert str(test) == f"Likelihood-ratio test: chi2(12) = {statistic:.3f}, p = {pvalue:.4g}"

    def test_covariates_nest_where_they_are_combinations(self, results):
        tied = model(exog=X["market"] - 2 * X["size"] + 3).fit(tol=1e-6)
        assert results.compare_lr_test(tied).df_diff == 12
        bare = model(exog=None, trend="n").fit(tol=1e-6)
        assert results.compare_lr_test(bare).df_diff == 36

    def test_with_missing_values(self, gappy):
        restricted = model(GAPPY, X["size"]).fit(tol=1e-6)
        test = gappy.compare_lr_test(restricted)
        assert test.statistic == pytest.approx(2 * (gappy.llf - restricted.llf))
        assert test.df_diff == 12

    def test_it_is_close_to_wald(self):
        rng = np.random.default_rng(0)
        x, e = rng.standard_normal(2000), rng.standard_normal((2000, 12)) + rng.standard_normal((2000, 1))
        hierarchy = Hierarchy(GROUPS)
        full = MultilevelFactorModel(e + 0.03 * x[:, None], x, hierarchy=hierarchy, ranks=[1, 0]).fit()
        less = MultilevelFactorModel(e + 0.03 * x[:, None], hierarchy=hierarchy, ranks=[1, 0]).fit()
        wald = full.wald_test_terms({"x": "x1"}).loc["x", "chi2"]
        assert full.compare_lr_test(less).statistic == pytest.approx(wald, rel=0.03)

    def test_its_size(self):
        rng = np.random.default_rng(1)
        loadings, hierarchy = rng.uniform(0.7, 1.2, 8), Hierarchy(pd.RangeIndex(8))
        rejected = []
        for _ in range(200):
            x, z = rng.standard_normal((2, 400))
            e = np.outer(z, loadings) + rng.standard_normal((400, 8))
            full, less = (
                MultilevelFactorModel(e, exog, hierarchy=hierarchy, ranks=[1]).fit(start="pca", n_threads=1)
                for exog in (x, None)
            )
            rejected.append(full.compare_lr_test(less).pvalue < 0.05)
        assert abs(np.mean(rejected) - 0.05) < stats.norm.isf(0.005) * np.sqrt(0.05 * 0.95 / 200)

    @pytest.mark.parametrize(
        ("endog", "exog", "options", "words"),
        [
            (2 * Y, X["market"], {}, "a fit of other data, or weights"),
            (Y[1:], X["market"][1:], {}, "a fit of other data, or weights"),
            (Y[::-1], X["market"], {}, "a fit of other data, or weights"),
            (GAPPY, X["market"], {}, "a fit of other data, or weights"),
            (Y, X["market"], {"weights": np.arange(1, 61)}, "a fit of other data, or weights"),
            (
                Y,
                X["market"],
                {"ranks": [2, 1]},
                "its level 'global' has 2 factors a group, there it is 1; it is not a special",
            ),
            (
                Y,
                X["market"],
                {"hierarchy": GROUPS.replace("b", "a")},
                r"its level 'global' \(taken with 'sector', whose groups are the same\) has 2",
            ),
            (
                Y,
                X["market"],
                {"uniqueness_floor": 1e-3},
                "its uniqueness_floor is 0.001, that of the larger model is 0.0001",
            ),
            (Y, X["market"] ** 2, {}, r"its covariates \('const', 'market'\) must be combinations of those of the"),
            (Y, X, {}, "its model has 72 parameters, and the larger one has 72: there is nothing to test"),
            (Y, X.assign(square=X["market"] ** 2), {}, "its covariates .* must be combinations of those of the larger"),
        ],
    )
    @pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
    def test_refusals(self, results, endog, exog, options, words):
        other = model(endog, exog, **options).fit(tol=1)
        with pytest.raises(ValueError, match=f"restricted: {words}"):
            results.compare_lr_test(other)

    def test_fits_that_did_not_converge(self, results, restricted):
        with pytest.warns(mlfm.ConvergenceWarning):
            early = model(exog=X["market"]).fit(maxiter=2)
        with pytest.raises(ValueError, match="restricted did not converge: maxiter = 2"):
            results.compare_lr_test(early)
        with pytest.warns(mlfm.ConvergenceWarning):
            early = model().fit(maxiter=2)
        with pytest.raises(ValueError, match="the fit of the larger model did not converge"):
            early.compare_lr_test(restricted)

    def test_a_lower_maximum_is_no_test(self, results, restricted, monkeypatch):
        lower = results.record.evaluations[-1]._replace(llf=restricted.llf - 1.0, accepted=True)
        monkeypatch.setattr(results.record, "evaluations", [*results.record.evaluations, lower])
        with pytest.raises(ValueError, match=r"log-likelihood of the larger model is lower, .* start=restricted"):
            results.compare_lr_test(restricted)

    def test_neither_loaded_results_nor_other_things(self, results, restricted, tmp_path):
        restricted.save(tmp_path / "fit")
        loaded = mlfm.load(tmp_path / "fit")
        with pytest.raises(ValueError, match=r"the test cannot be had: .* loaded from a file"):
            results.compare_lr_test(loaded)
        with pytest.raises(ValueError, match=r"the test cannot be had: .* loaded from a file"):
            loaded.compare_lr_test(restricted)
        with pytest.raises(TypeError, match="restricted must be results of a fit, not float"):
            results.compare_lr_test(results.llf)


DUMMIES = pd.get_dummies(pd.Series(["calm", "wild", "odd"] * 20, index=DAYS))


@pytest.mark.parametrize(
    ("exog", "words"),
    [
        (DUMMIES, "exog: columns are collinear: 'const', 'calm', 'odd', 'wild'; drop one"),
        (X.join(DUMMIES), "exog: columns are collinear: 'const', 'calm', 'odd', 'wild'; drop one"),
        (X.assign(again=X["market"]), "exog: columns are collinear: 'market', 'again'; drop one"),
        (X.assign(double=2 * X["market"] + 1e-13), "exog: columns are collinear: 'market', 'double'; drop one"),
        (X.assign(total=X["market"] + X["size"]), "exog: columns are collinear: 'market', 'size', 'total'; drop one"),
        (X.assign(three=3.0), "exog: columns are collinear: 'const', 'three'; drop one"),
        (X.assign(none=0.0), "exog: columns are zero everywhere: 'none'; drop them"),
        (X.assign(const=1.0), "exog: there is a column 'const' already; leave it out, or use trend='n'"),
        (np.ones((60, 61)), "exog: 62 columns, the constant among them, for 60 observations"),
    ],
    ids=["dummies", "dummies and more", "again", "double", "sum", "constant", "zero", "const", "too many"],
)
def test_collinear_covariates_are_named(exog, words):
    with pytest.raises(ValueError, match=words):
        model(exog=exog)


def test_dummies_are_fine_without_a_constant():
    pd.testing.assert_series_equal(
        model(exog=DUMMIES, trend="n").fit(tol=1).coefficients["odd"],
        Y[DUMMIES["odd"]].mean(),
        check_names=False,
    )


def test_covariates_that_leave_nothing_over():
    for endog, exog, names in [
        (Y, X.assign(x4=Y["x4"]), "'x4'"),
    ]:
        with pytest.raises(ValueError, match=f"endog: columns do not vary beyond the covariates: {names}"):
            model(endog, exog)


def test_covariates_that_a_feature_has_too_few_values_for():
    few = Y.copy()
    few.iloc[2:, 5] = np.nan
    with pytest.raises(ValueError, match=r"endog: columns do not vary beyond .* 'x5', or have no more values than"):
        model(few)


def changed(value, column="size", rows=(3,)):
    frame = X.copy()
    frame.loc[DAYS[list(rows)], column] = value
    return frame


@pytest.mark.parametrize(
    ("exog", "error", "words"),
    [
        (changed(np.nan), ValueError, "exog: 1 value missing in columns 'size', at rows .*2024-01-04"),
        (changed(np.nan, rows=(3, 4)), ValueError, "exog: 2 values missing in columns 'size'"),
        (changed(pd.NA).astype("Float64"), ValueError, "exog: 1 value missing in columns 'size'"),
        (changed(-np.inf), ValueError, "exog: 1 value infinite in columns 'size', at rows .*2024-01-04"),
        (X.assign(size="big"), TypeError, "exog: columns are not numeric: 'size'; convert them, or use a formula"),
        (X.assign(size=DAYS), TypeError, "exog: columns are not numeric: 'size'"),
        (X.assign(size=1j), TypeError, "exog: columns are not numeric: 'size'"),
        (X.assign(size=pd.Categorical(["a", "b"] * 30)), TypeError, "exog: columns are not numeric: 'size'"),
        (pd.concat([X, X], axis=1), ValueError, "exog: columns occur more than once: 'market', 'size'"),
        (X.set_axis(pd.MultiIndex.from_product([["a"], ["b", "c"]]), axis=1), TypeError, "exog: .*not a MultiIndex"),
        (X.to_numpy().astype(str), TypeError, "exog: real numbers are needed"),
        (X.to_numpy()[:-1], ValueError, r"exog: a row for each of the 60 observations is needed, not shape \(59, 2\)"),
        (X.to_numpy()[:, :, None], ValueError, "exog: a row for each of the 60 observations"),
        (np.ma.masked_less(X.to_numpy(), 0), TypeError, "exog: a masked array"),
        (3, ValueError, r"exog: a row for each of the 60 observations is needed, not shape \(\)"),
        ("market", TypeError, "exog: real numbers are needed"),
    ],
)
def test_bad_covariates_are_named(exog, error, words):
    with pytest.raises(error, match=words):
        model(exog=exog)


def test_the_covariates_of_a_model_cannot_be_replaced():
    made = model()
    with pytest.raises(AttributeError, match="make another model"):
        made.exog = X


class TestParameters:
    def test_packing(self, results):
        made = results.model
        shuffled = results.coefficients.iloc[::-1, ::-1]
        packed = made.pack(results.loadings, results.uniquenesses, shuffled)
        np.testing.assert_array_equal(packed, results.params)
        default = made.unpack(made.pack(results.loadings, results.uniquenesses))
        pd.testing.assert_frame_equal(default.coefficients, results.coefficients)
        with pytest.raises(ValueError, match=re.escape("coefficients: shape (12, 3) is needed")):
            made.pack(results.loadings, results.uniquenesses, np.ones((12, 2)))

    @pytest.mark.parametrize("endog", [Y, GAPPY], ids=["complete", "gappy"])
    def test_the_score_is_the_slope_of_the_log_likelihood(self, endog):
        made = model(endog)
        params = made.start_params
        params = params + 0.05 * np.random.default_rng(0).standard_normal(len(params))
        params[-12:] = np.abs(params[-12:]) + 0.2
        score = made.score(params)
        for k in (0, 1, 2, 17, 35, 40, len(params) - 1):
            step = np.zeros(len(params))
            step[k] = 1e-5
            slope = (made.loglike(params + step) - made.loglike(params - step)) / 2e-5
            assert score[k] == pytest.approx(slope, rel=1e-5, abs=1e-4)


def test_the_models_own_predictions_match_columns_by_name():
    made = model()
    params = made.start_params
    design = sm.add_constant(X)
    np.testing.assert_allclose(made.predict(params, design[design.columns[::-1]]), made.predict(params))
    with pytest.raises(ValueError, match=r"exog: labels do not match .* missing: 'const'"):
        made.predict(params, X)


def test_a_covariate_called_const_that_is_none_is_no_mean():
    made = model(exog=X[["size"]].rename(columns={"size": "const"}), trend="n")
    assert made.param_names[0] == "coefficient[x0, const]"
    assert made.fit(tol=1).mean is None
