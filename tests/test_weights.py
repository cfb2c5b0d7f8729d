"""What observations count: frequencies, importance weights, both together, and what bad weights get."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from oracle import dense_loglikeobs

import mlfm
from mlfm import Hierarchy, MultilevelFactorModel

FEATURES = [f"x{j}" for j in range(12)]
GROUPS = pd.DataFrame({"sector": ["a"] * 6 + ["b"] * 6}, index=FEATURES)
DAYS = pd.date_range("2024-01-01", periods=60, name="day")
RNG = np.random.default_rng(3)
X = pd.DataFrame({"market": RNG.standard_normal(60)}, index=DAYS)
OWN = np.kron(np.eye(2), np.ones((1, 6)))
SHARED = np.array([[1, -1, 1, -1, 1, -1] * 2])
NOISE = RNG.standard_normal((60, 2)) @ OWN + RNG.standard_normal((60, 1)) @ SHARED + RNG.standard_normal((60, 12))
Y = pd.DataFrame(X.to_numpy() + 5 + NOISE, index=DAYS, columns=FEATURES)
GAPPY = Y.mask(RNG.random(Y.shape) < 0.05)
TIMES = RNG.integers(0, 4, 60)
WEIGHTS = RNG.uniform(0.5, 2, 60)


def model(endog=Y, exog=X, **options):
    return MultilevelFactorModel(endog, exog, **{"hierarchy": GROUPS, "ranks": [1, 1], **options})


def fitted(endog=Y, exog=X, tol=1e-7, **options):
    return model(endog, exog, **options).fit(tol=tol)


def repeated(frame, times):
    return frame.iloc[np.repeat(np.arange(len(times)), times)].reset_index(drop=True)


def assert_same_fit(one, other):
    assert one.llf == pytest.approx(other.llf, abs=1e-6)
    for criterion in ("aic", "bic"):
        assert getattr(one, criterion) == pytest.approx(getattr(other, criterion), abs=1e-5)
    assert one.effective_nobs == pytest.approx(other.effective_nobs)
    pd.testing.assert_series_equal(one.params, other.params, rtol=1e-3, atol=1e-4)
    pd.testing.assert_frame_equal(one.coefficients_bse, other.coefficients_bse, rtol=1e-3)


class TestFrequencies:
    @pytest.mark.parametrize("endog", [Y, GAPPY], ids=["complete", "gappy"])
    @pytest.mark.parametrize("options", [{}, {"exog": None}, {"exog": None, "trend": "n"}], ids=str)
    def test_they_are_so_many_rows(self, endog, options):
        exog = options.get("exog", X)
        options = {name: value for name, value in options.items() if name != "exog"}
        counted = fitted(endog, exog, freq_weights=TIMES, **options)
        many = fitted(repeated(endog, TIMES), None if exog is None else repeated(exog, TIMES), **options)
        assert counted.nobs == many.nobs == TIMES.sum()
        assert_same_fit(counted, many)
        pd.testing.assert_frame_equal(counted.wald_test_terms(), many.wald_test_terms(), rtol=1e-3)

    @pytest.mark.parametrize("endog", [Y[:8], GAPPY[:8]], ids=["complete", "gappy"])
    def test_fewer_rows_than_features(self, endog):
        options = {"ranks": [1, 0], "uniqueness_floor": 0.1}
        with pytest.warns(mlfm.UniquenessFloorWarning):
            counted = fitted(endog, None, freq_weights=TIMES[:8], **options)
        with pytest.warns(mlfm.UniquenessFloorWarning):
            many = fitted(repeated(endog, TIMES[:8]), None, **options)
        assert counted.nobs == TIMES[:8].sum()
        assert_same_fit(counted, many)

    def test_the_log_likelihood_is_the_dense_one(self):
        counted = fitted(freq_weights=TIMES, tol=1e-3)
        dense = dense_loglikeobs(Y.to_numpy(), counted.fittedvalues.to_numpy(), counted.covariance.to_dense())
        np.testing.assert_allclose(counted.model.loglikeobs(counted.params), dense, rtol=1e-9)
        assert counted.llf == pytest.approx(TIMES @ dense, rel=1e-10)

    def test_ones_are_none(self):
        assert_same_fit(fitted(freq_weights=np.ones(60)), fitted())

    def test_rows_that_were_never_seen_do_not_matter(self):
        wild = Y.copy()
        wild[TIMES == 0] = 1e6
        assert_same_fit(fitted(wild, freq_weights=TIMES), fitted(freq_weights=TIMES))
        assert_same_fit(fitted(freq_weights=(TIMES > 0) * 1), fitted(Y[TIMES > 0], X[TIMES > 0]))

    def test_every_row_has_scores_and_fitted_values(self):
        counted = fitted(GAPPY, freq_weights=TIMES, tol=1)
        for frame in (counted.scores(), counted.fittedvalues, counted.resid, counted.impute().values):
            assert frame.index.equals(DAYS)

    def test_the_score_is_that_of_so_many_rows(self):
        counted, many = model(GAPPY, freq_weights=TIMES), model(repeated(GAPPY, TIMES), repeated(X, TIMES))
        params = counted.start_params
        np.testing.assert_allclose(counted.score(params), many.score(params), rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(counted.start_params, many.start_params, rtol=1e-7)

    @pytest.mark.parametrize("dtype", ["int64", "Int64", "Float32", "int64[pyarrow]"])
    def test_dtypes(self, dtype):
        times = pd.Series(TIMES, index=DAYS).astype(dtype)
        assert fitted(freq_weights=times, tol=1).llf == fitted(freq_weights=TIMES, tol=1).llf

    def test_flags_choose_rows(self):
        flags = pd.Series(TIMES > 0, index=DAYS)
        for dtype in ("bool", "boolean"):
            assert model(freq_weights=flags.astype(dtype)).nobs == (TIMES > 0).sum()


class TestImportance:
    @pytest.mark.parametrize("endog", [Y, GAPPY], ids=["complete", "gappy"])
    @pytest.mark.parametrize("unit", [1e-200, 17.0, 1e200])
    def test_their_unit_does_not_matter(self, endog, unit):
        assert_same_fit(fitted(endog, weights=unit * WEIGHTS), fitted(endog, weights=WEIGHTS))

    @pytest.mark.parametrize("endog", [Y, GAPPY], ids=["complete", "gappy"])
    def test_equal_ones_are_none(self, endog):
        assert_same_fit(fitted(endog, weights=np.full(60, 0.3)), fitted(endog))

    def test_effective_number_of_observations(self):
        results = fitted(weights=WEIGHTS)
        effective = WEIGHTS.sum() ** 2 / (WEIGHTS**2).sum()
        assert results.effective_nobs == pytest.approx(effective)
        assert results.nobs == 60
        assert results.bic == pytest.approx(-2 * results.llf + np.log(effective) * results.df_model)
        assert results.aic == pytest.approx(-2 * results.llf + 2 * results.df_model)

    @pytest.mark.parametrize("endog", [Y, GAPPY], ids=["complete", "gappy"])
    def test_the_log_likelihood_is_the_dense_one(self, endog):
        results = fitted(endog, weights=WEIGHTS, tol=1e-3)
        sigma, mean = results.covariance.to_dense(), results.fittedvalues.to_numpy()
        dense = []
        for row, centre in zip(endog.to_numpy(), mean, strict=True):
            seen = ~np.isnan(row)
            dense += list(dense_loglikeobs(row[None, seen], centre[seen], sigma[np.ix_(seen, seen)]))
        np.testing.assert_allclose(results.model.loglikeobs(results.params), dense, rtol=1e-8)
        counts = WEIGHTS * results.effective_nobs / WEIGHTS.sum()
        assert results.llf == pytest.approx(counts @ dense, rel=1e-9)

    def test_coefficients_are_those_of_weighted_least_squares(self):
        results = fitted(weights=WEIGHTS, tol=1)
        design = sm.add_constant(X)
        for feature in FEATURES:
            expected = sm.WLS(Y[feature], design, weights=WEIGHTS).fit().params
            pd.testing.assert_series_equal(results.coefficients.loc[feature], expected, check_names=False)

    def test_the_mean_is_weighted(self):
        results = fitted(exog=None, weights=WEIGHTS, tol=1)
        np.testing.assert_allclose(results.mean, np.average(Y, axis=0, weights=WEIGHTS))

    def test_the_covariance_is_weighted(self):
        # One factor for all features fits the diagonal of the sample exactly.
        results = fitted(exog=None, weights=WEIGHTS, ranks=[1, 0])
        expected = np.diag(np.cov(Y.T, ddof=0, aweights=WEIGHTS))
        np.testing.assert_allclose(results.covariance.diagonal(), expected, rtol=1e-3)

    def test_standard_errors_are_those_of_so_many_effective_observations(self):
        results = fitted(weights=WEIGHTS, tol=1e-3)
        design, counts = results.model.exog, WEIGHTS * results.effective_nobs / WEIGHTS.sum()
        inverse = np.linalg.inv(design.T @ (design * counts[:, None]))
        expected = np.sqrt(np.outer(results.covariance.diagonal(), np.diag(inverse)))
        np.testing.assert_allclose(results.coefficients_bse, expected)

    def test_zeros_leave_observations_out(self):
        weights = np.where(TIMES > 0, WEIGHTS, 0)
        kept = TIMES > 0
        assert_same_fit(fitted(weights=weights), fitted(Y[kept], X[kept], weights=WEIGHTS[kept]))

    def test_they_matter(self):
        assert abs(fitted(weights=WEIGHTS, tol=1).llf - fitted(tol=1).llf) > 1


class TestBothKinds:
    @pytest.mark.parametrize("endog", [Y, GAPPY], ids=["complete", "gappy"])
    def test_they_are_weighted_rows_so_often(self, endog):
        both = fitted(endog, weights=WEIGHTS, freq_weights=TIMES)
        many = fitted(repeated(endog, TIMES), repeated(X, TIMES), weights=np.repeat(WEIGHTS, TIMES))
        assert both.nobs == many.nobs
        assert_same_fit(both, many)

    def test_effective_number_of_observations(self):
        both = model(weights=WEIGHTS, freq_weights=TIMES)
        expected = (TIMES @ WEIGHTS) ** 2 / (TIMES @ WEIGHTS**2)
        assert both.effective_nobs == pytest.approx(expected)
        assert both.nobs == TIMES.sum()

    def test_none_is_left(self):
        with pytest.raises(ValueError, match="weights, freq_weights: no observation is left whose weight is not zero"):
            model(weights=TIMES > 1, freq_weights=TIMES <= 1)


class TestAlignment:
    @pytest.mark.parametrize("name", ["weights", "freq_weights"])
    def test_by_label(self, name):
        weights = pd.Series(TIMES, index=DAYS)
        expected = fitted(**{name: TIMES}, tol=1).llf
        for order in (weights, weights[::-1], weights.sample(frac=1, random_state=0)):
            assert fitted(**{name: order}, tol=1).llf == expected

    def test_by_position_where_the_data_are_not_labelled(self):
        weights = pd.Series(WEIGHTS, index=DAYS)[::-1]
        unlabelled = model(Y.to_numpy(), None, hierarchy=Hierarchy(GROUPS), weights=weights).fit(tol=1)
        assert unlabelled.llf == pytest.approx(fitted(exog=None, weights=WEIGHTS[::-1], tol=1).llf, abs=1e-8)

    def test_they_are_dropped_with_their_observations(self):
        kept = GAPPY.notna().all(axis=1).to_numpy()
        with pytest.warns(mlfm.DroppedObservationsWarning):
            dropped = model(GAPPY, missing="drop", weights=WEIGHTS, freq_weights=TIMES)
        expected = model(Y[kept], X[kept], weights=WEIGHTS[kept], freq_weights=TIMES[kept])
        assert dropped.nobs == TIMES[kept].sum()
        assert dropped.effective_nobs == pytest.approx(expected.effective_nobs)

    @pytest.mark.parametrize("name", ["weights", "freq_weights"])
    def test_nothing_left_once_observations_are_dropped(self, name):
        only = GAPPY.isna().any(axis=1).to_numpy()
        with (
            pytest.warns(mlfm.DroppedObservationsWarning),
            pytest.raises(ValueError, match="no observation is left whose weight is not zero"),
        ):
            model(GAPPY, missing="drop", **{name: only})


def weighted(value, dtype=float):
    weights = pd.Series(1, index=DAYS, dtype=dtype)
    weights.iloc[3] = value
    return weights


@pytest.mark.parametrize("name", ["weights", "freq_weights"])
@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        (np.ones(59), ValueError, r"one number for each of the 60 rows is needed, not shape \(59,\)"),
        (np.ones((60, 1)), ValueError, r"one number for each of the 60 rows is needed, not shape \(60, 1\)"),
        (2, ValueError, r"one number for each of the 60 rows is needed, not shape \(\)"),
        (-weighted(1), ValueError, "60 weights negative"),
        (weighted(-1), ValueError, "1 weight negative, at rows .*2024-01-04"),
        (np.zeros(60), ValueError, "all of them are zero"),
        (weighted(np.nan), ValueError, "1 weight missing or infinite, at rows .*2024-01-04"),
        (weighted(np.inf).to_numpy(), ValueError, "1 weight missing or infinite, at rows .*2024-01-04"),
        (weighted(pd.NA, "Int64"), ValueError, "1 weight missing or infinite, at rows .*2024-01-04"),
        (weighted(1)[1:], ValueError, "its index differs from that of endog; .* and not in .*: .*2024-01-01"),
        (
            weighted(1).reset_index(drop=True),
            ValueError,
            "its index differs .* int64 labels: 0, 1 and 58 more; endog has",
        ),
        (weighted(1).to_frame("w"), TypeError, "one number a row is needed, not a DataFrame; choose a column"),
        (weighted(1).astype(str), TypeError, "real numbers are needed, not (str|object)"),
        (weighted(1).astype(complex), TypeError, "real numbers are needed, not complex128"),
        (pd.Series(DAYS, index=DAYS), TypeError, "real numbers are needed, not datetime64"),
        (["a"] * 60, TypeError, "real numbers are needed"),
        ("weight", TypeError, "real numbers are needed"),
    ],
)
def test_bad_weights_are_named(name, weights, error, words):
    with pytest.raises(error, match=f"^{name}: {words}"):
        model(**{name: weights})


def test_frequencies_are_whole_numbers():
    with pytest.raises(
        ValueError, match=r"freq_weights: must be whole numbers, .* rows .*2024-01-04.*; for importance"
    ):
        model(freq_weights=weighted(1.5))


def test_a_feature_that_only_varies_where_the_weight_is_zero():
    still = Y.copy()
    still.loc[TIMES > 0, "x4"] = 1.0
    with pytest.raises(
        ValueError, match=r"do not vary beyond the covariates: 'x4', .*observations of weight zero do not"
    ):
        model(still, freq_weights=TIMES)


def test_a_covariate_that_is_only_there_where_the_weight_is_zero():
    with pytest.raises(ValueError, match="exog: columns are zero everywhere: 'never'"):
        model(exog=X.assign(never=TIMES == 0), freq_weights=TIMES)


class TestExponentialWeights:
    def test_they_halve(self):
        weights = mlfm.exponential_weights(11, halflife=5)
        np.testing.assert_allclose(weights[[10, 5, 0]], [1, 0.5, 0.25])
        np.testing.assert_allclose(weights[1:] / weights[:-1], 2 ** (1 / 5))
        assert weights.shape == (11,)

    def test_extreme_half_lives(self):
        np.testing.assert_array_equal(mlfm.exponential_weights(3, halflife=np.inf), 1)
        np.testing.assert_array_equal(mlfm.exponential_weights(3, halflife=1e-9), [0, 0, 1])
        np.testing.assert_array_equal(mlfm.exponential_weights(1, halflife=1), 1)

    def test_a_model_of_the_recent_past(self):
        weights = mlfm.exponential_weights(60, halflife=20)
        recent = fitted(exog=None, weights=weights, tol=1)
        np.testing.assert_allclose(recent.mean, np.average(Y, axis=0, weights=weights))
        assert recent.effective_nobs == pytest.approx(weights.sum() ** 2 / (weights**2).sum())

    @pytest.mark.parametrize("nobs", [0, -1, 2.0, True, "3", None])
    def test_nobs(self, nobs):
        with pytest.raises(ValueError, match="nobs must be a whole number, 1 or more"):
            mlfm.exponential_weights(nobs, halflife=1)

    @pytest.mark.parametrize("halflife", [0, -1, np.nan, True, "3", None])
    def test_halflife(self, halflife):
        with pytest.raises(ValueError, match="halflife must be a positive number"):
            mlfm.exponential_weights(3, halflife=halflife)


def test_two_fits_with_the_same_weights_can_be_compared():
    full, less = fitted(weights=WEIGHTS), fitted(exog=None, weights=WEIGHTS)
    test = full.compare_lr_test(less)
    assert test.statistic == pytest.approx(2 * (full.llf - less.llf))
    # The unit of the weights does not matter here either.
    assert full.compare_lr_test(fitted(exog=None, weights=3 * WEIGHTS)).statistic == pytest.approx(test.statistic)


def test_saved_results_keep_the_effective_number(tmp_path):
    results = fitted(weights=WEIGHTS, freq_weights=TIMES, tol=1)
    results.save(tmp_path / "fit")
    loaded = mlfm.load(tmp_path / "fit")
    assert (loaded.nobs, loaded.effective_nobs, loaded.bic) == (results.nobs, results.effective_nobs, results.bic)
