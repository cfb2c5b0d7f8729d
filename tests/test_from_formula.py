"""Models from formulas, of wide and of long data, against the same models made without."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

import mlfm
from mlfm import Hierarchy, MultilevelFactorModel

pytestmark = pytest.mark.portable

FEATURES = [f"x{j}" for j in range(12)]
GROUPS = pd.DataFrame({"sector": list("aaaaaabbbbbb"), "industry": list("pppqqqpppsss")}, index=FEATURES)
DAYS = pd.date_range("2024-01-01", periods=60, name="date")
RNG = np.random.default_rng(3)
X = pd.DataFrame(
    {
        "market": RNG.standard_normal(60),
        "size": RNG.uniform(1, 3, 60),
        "regime": RNG.choice(["calm", "odd", "wild"], 60),
        "open": RNG.random(60) < 0.5,
        "my size": RNG.uniform(1, 3, 60),
        "importance": RNG.uniform(1, 2, 60),
        "times": RNG.integers(0, 3, 60),
    },
    index=DAYS,
)
OWN = np.kron(np.eye(2), np.ones((1, 6)))
SHARED = np.array([[1, -1, 1, -1, 1, -1] * 2])
NOISE = RNG.standard_normal((60, 2)) @ OWN + RNG.standard_normal((60, 1)) @ SHARED + RNG.standard_normal((60, 12))
Y = pd.DataFrame(NOISE + 5 + X[["market"]].to_numpy(), index=DAYS, columns=FEATURES)
GAPPY = Y.mask(RNG.random(Y.shape) < 0.05)
LATENT = "latent(1, d=1) + latent(sector, d=1)"


def wide(text, data=X, **options):
    return MultilevelFactorModel.from_formula(text, data, **{"endog": Y, "hierarchy": GROUPS, **options})


def long_data(endog=Y):
    """One row a value that is there, in no order."""
    values = endog.rename_axis(columns="ticker").stack().rename("ret").dropna().reset_index()
    values = values.merge(GROUPS, left_on="ticker", right_index=True).merge(X.reset_index(), on="date")
    return values.sample(frac=1, random_state=0)


LONG = long_data()


def long(text, data=LONG, **options):
    return MultilevelFactorModel.from_formula(text, data, **{"unit": "date", "feature": "ticker", **options})


def plain(exog=None, ranks=(1, 1), endog=Y, groups=GROUPS[["sector"]], **options):
    return MultilevelFactorModel(endog, exog, hierarchy=groups, ranks=list(ranks), **options)


def llf(model):
    return model.fit(tol=1e-3).llf


def double(x):
    return 2 * x


@pytest.mark.usefixtures("engine")
class TestMeanTerms:
    def test_against_the_model_made_without(self):
        model = wide(f"~ 1 + market + size + {LATENT}")
        expected = plain(X[["market", "size"]])
        assert llf(model) == pytest.approx(llf(expected), abs=1e-8)
        assert model.exog_names == ["Intercept", "market", "size"]
        assert model.endog_names == FEATURES
        assert model.hierarchy.levels == ("global", "sector")
        assert model.ranks.to_dict() == {"global": 1, "sector": 1}

    @pytest.mark.parametrize(
        "mean",
        [
            "1",
            "market",
            "0 + market",
            "market - 1",
            "np.log(size) + I(market**2)",
            "C(regime)",
            "0 + C(regime)",
            "C(regime, Treatment('wild'))",
            "regime",
            "open",
            "market * C(regime)",
            "market:size",
            "(market + size)**2",
            "bs(size, df=4)",
            "0 + cr(size, df=3)",
            "center(market) + standardize(size)",
            "double(size)",
            "Q('my size')",
        ],
    )
    def test_the_design_is_that_of_statsmodels(self, mean):
        model = wide(f"~ {mean} + {LATENT}")
        expected = smf.ols(f"target ~ {mean}", X.assign(target=Y["x0"]))
        assert sorted(model.exog_names) == sorted(expected.exog_names)
        frame = pd.DataFrame(expected.exog, columns=expected.exog_names)
        np.testing.assert_array_equal(model.exog, frame[model.exog_names])

    @pytest.mark.parametrize("mean", ["market + C(regime)", "bs(size, df=4)"])
    def test_coefficients_are_those_of_least_squares(self, mean):
        results = wide(f"~ {mean} + {LATENT}").fit(tol=1)
        for feature in ("x0", "x7"):
            expected = smf.ols(f"target ~ {mean}", X.assign(target=Y[feature])).fit().params
            pd.testing.assert_series_equal(
                results.coefficients.loc[feature, expected.index], expected, check_names=False
            )

    def test_names_in_backticks(self):
        model = wide(f"~ `my size` + {LATENT}")
        np.testing.assert_array_equal(model.exog[:, 1], X["my size"])

    def test_no_mean_term_is_an_intercept(self):
        model = wide(f"~ {LATENT}", data=None)
        assert llf(model) == pytest.approx(llf(plain()), abs=1e-8)
        pd.testing.assert_series_equal(model.fit(tol=1).mean, Y.mean(), check_names=False)

    @pytest.mark.parametrize("endog", [Y - 5, GAPPY - 5], ids=["complete", "gappy"])
    def test_no_mean_at_all(self, endog):
        model = wide(f"~ 0 + {LATENT}", endog=endog)
        assert model.exog_names == []
        assert llf(model) == pytest.approx(llf(plain(endog=endog, trend="n")), abs=1e-8)

    def test_functions_of_the_caller_are_found(self):
        def treble(x):
            return 3 * x

        text = f"~ 0 + treble(size) + {LATENT}"
        model = MultilevelFactorModel.from_formula(text, X, endog=Y, hierarchy=GROUPS)
        np.testing.assert_allclose(model.exog[:, 0], treble(X["size"]))
        given = wide(text, eval_env={"treble": double})
        np.testing.assert_allclose(given.exog[:, 0], double(X["size"]))

    def test_rows_are_matched_by_label(self):
        shuffled = wide(f"~ market + C(regime) + {LATENT}", data=X.sample(frac=1, random_state=0))
        expected = wide(f"~ market + C(regime) + {LATENT}")
        np.testing.assert_array_equal(shuffled.exog, expected.exog)

    def test_arrays_take_rows_by_position(self):
        model = wide(f"~ market + {LATENT}", endog=Y.to_numpy(), hierarchy=Hierarchy(GROUPS))
        np.testing.assert_array_equal(model.exog[:, 1], X["market"])

    def test_dropped_observations(self):
        with pytest.warns(mlfm.DroppedObservationsWarning):
            dropped = wide(f"~ market + {LATENT}", endog=GAPPY, missing="drop")
        np.testing.assert_array_equal(dropped.exog[:, 1], X["market"][GAPPY.notna().all(axis=1)])


class TestLatentTerms:
    @pytest.mark.parametrize(
        "text",
        [
            "~ latent(1, d=2) + latent(sector, d=1) + latent(sector:industry, d=1)",
            "~ latent(sector:industry, d=1) + latent(sector, d=1) + latent(1, d=2)",
            "~ latent(1, d=2) + latent(sector/industry, d=(1, 1))",
            "~ latent(1, d=2) + latent(sector/industry, d=1)",
            "~ latent(1/sector/industry, d=(2, 1, 1))",
            "~ latent(1, 2) + latent(industry:sector, d=1) + latent(sector, d=1)",
            "~ (2 | 1) + (1 | sector) + (1 | sector:industry)",
            "~ 1 + (2 | 1) + (1 | sector/industry)",
        ],
    )
    def test_spellings(self, text):
        model = wide(text)
        assert model.hierarchy == Hierarchy(GROUPS)
        assert model.ranks.to_dict() == {"global": 2, "sector": 1, "industry": 1}
        assert model.formula == "~ 1 + latent(1, d=2) + latent(sector, d=1) + latent(sector:industry, d=1)"

    def test_levels_that_are_not_named_are_left_out(self):
        assert wide("~ latent(sector, d=1)").hierarchy.levels == ("global", "sector")
        inner = wide("~ latent(sector:industry, d=1)")
        assert inner.hierarchy.levels == ("global", "industry")
        assert len(inner.hierarchy.groups("industry")) == 4

    def test_levels_of_the_columns(self):
        columns = pd.MultiIndex.from_arrays([GROUPS["sector"], GROUPS["industry"], FEATURES])
        columns.names = ["sector", "industry", "feature"]
        model = wide(f"~ market + {LATENT}", endog=Y.set_axis(columns, axis=1), hierarchy=None)
        assert llf(model) == pytest.approx(llf(plain(X["market"])), abs=1e-8)

    @pytest.mark.parametrize("make", [wide, long])
    def test_groups_that_are_not_nested_as_written(self, make):
        text = "~ 1 + latent(sector, d=1) + latent(industry, d=1)"
        with pytest.raises(ValueError, match=r"industry is not nested as written") as caught:
            make(text if make is wide else f"ret {text}")
        message = str(caught.value)
        assert "'p' (in 'a', 'b')" in message
        assert "write latent(sector:industry, d=1)" in message
        assert message.splitlines()[-1].strip() == "^" * len("industry")

    @pytest.mark.parametrize(
        ("latent", "words"),
        [
            ("latent(sector, d=1) + latent(sector, d=2)", "the level sector is given twice"),
            ("latent(sector, d=1) + (2 | sector)", "the level sector is given twice"),
            ("latent(1, d=1) + latent(1, d=1)", "the level 1 is given twice"),
            ("latent(sector, d=1) + latent(sector/industry, d=1)", "the level sector is given twice"),
            ("latent(sector:industry, d=1) + latent(industry:sector, d=1)", "is given twice"),
            ("latent(secto, d=1)", r"unknown level 'secto'; the levels are 1 \(the global one\), sector, industry"),
            ("latent(sector, d=7)", "'sector' has rank 7, more than the 6 features of its largest group"),
            ("latent(sector, d=-1)", "a whole number, 0 or more, not -1"),
            ("latent(sector/industry, d=(1, 2, 3))", "d gives 3 numbers for 2 levels"),
            ("market", "a model needs at least one latent term"),
        ],
    )
    def test_refusals(self, latent, words):
        with pytest.raises(ValueError, match=words):
            wide(f"~ 1 + {latent}")

    def test_features_without_a_group(self):
        with pytest.raises(ValueError, match="level 'sector': missing or empty labels for features 'x0'"):
            wide(f"~ {LATENT}", hierarchy=GROUPS.assign(sector=[None, *GROUPS["sector"][1:]]))


@pytest.mark.usefixtures("engine")
class TestFormulaOfAModel:
    @pytest.mark.parametrize(
        "text",
        [
            "~ (1 | 1) + market + (1 | sector)",
            "~ market*C(regime) - 1 + latent(sector/industry, d=1)",
            "~ np.log(size) + latent(sector/industry, d=(0, 1)) + bs(market, df=3)",
            "~ `my size` + C(regime, Treatment('wild')) + latent(1, d=1)",
            "~ 0 + latent(1, d=1)",
            "~ latent(sector, d=0)",
            "~ regime + latent(1, d=0) + latent(sector, d=1)",
        ],
    )
    def test_building_again_gives_the_same_model(self, text):
        model = wide(text)
        again = wide(model.formula)
        assert again.formula == model.formula
        assert again.hierarchy == model.hierarchy
        assert again.ranks.equals(model.ranks)
        np.testing.assert_array_equal(again.exog, model.exog)
        params = model.start_params
        assert again.loglike(params) == model.loglike(params)

    def test_the_same_fit(self):
        model = wide("~ size + latent(sector, d=1) + (1 | 1) + C(regime)")
        assert model.formula == "~ 1 + C(regime) + size + latent(1, d=1) + latent(sector, d=1)"
        results = model.fit(tol=1e-3)
        assert results.formula == model.formula
        assert llf(wide(results.formula)) == results.llf

    def test_of_long_data(self):
        model = long("ret ~ market + latent(sector/industry, d=(1, 0))")
        assert model.formula == "ret ~ 1 + market + latent(sector, d=1) + latent(sector:industry, d=0)"
        assert llf(long(model.formula)) == llf(model)

    @pytest.mark.parametrize("trend", ["c", "n"])
    @pytest.mark.parametrize("ranks", [[1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]])
    def test_of_a_model_made_without_one(self, trend, ranks):
        model = plain(X[["market", "my size"]], ranks, groups=GROUPS, trend=trend)
        again = wide(model.formula)
        assert again.hierarchy == model.hierarchy
        assert again.ranks.equals(model.ranks)
        np.testing.assert_array_equal(again.exog, model.exog)

    def test_of_a_flat_model(self):
        assert MultilevelFactorModel(Y, ranks=[2]).formula == "~ 1 + latent(1, d=2)"
        assert MultilevelFactorModel(Y, ranks=[0]).formula == "~ 1 + latent(1, d=0)"


STATEFUL = f"~ center(market) + bs(size, df=4) + C(regime) + {LATENT}"


@pytest.mark.usefixtures("engine")
class TestPrediction:
    def test_raw_variables_are_transformed_as_they_were(self):
        results = wide(STATEFUL).fit(tol=1)
        few = X[["regime", "size", "market"]].iloc[[7, 3]]
        pd.testing.assert_frame_equal(results.predict(few), results.fittedvalues.iloc[[7, 3]], check_freq=False)
        pd.testing.assert_frame_equal(results.predict(), results.fittedvalues)

    def test_one_row_is_enough(self):
        results = wide(f"~ 0 + center(market) + {LATENT}").fit(tol=1)
        predicted = results.predict(pd.DataFrame({"market": [10.0]}, index=["new"]))
        expected = results.coefficients["center(market)"] * (10 - X["market"].mean())
        pd.testing.assert_series_equal(predicted.loc["new"], expected, check_names=False)

    def test_an_intercept_alone(self):
        results = wide(f"~ 1 + {LATENT}").fit(tol=1)
        new = results.predict(pd.DataFrame(index=["p", "q"]))
        np.testing.assert_allclose(new, [results.mean] * 2)

    def test_refusals(self):
        results = wide(f"~ market + C(regime) + {LATENT}").fit(tol=1)
        with pytest.raises(ValueError, match=r"exog: columns that .* needs are absent: 'market'"):
            results.predict(X[["regime"]])
        with pytest.raises(ValueError, match="'mad'"):
            results.predict(pd.DataFrame({"market": [1.0], "regime": ["mad"]}))
        with pytest.raises(ValueError, match="exog: 'market' has 1 missing value"):
            results.predict(pd.DataFrame({"market": [np.nan], "regime": ["calm"]}))
        with pytest.raises(TypeError, match="exog: after a formula, a DataFrame"):
            results.predict([[1.0, 2.0]])

    def test_long_data_are_predicted_from_units(self):
        results = long(f"ret ~ center(market) + {LATENT}").fit(tol=1)
        new = results.predict(X[["market"]][:3])
        np.testing.assert_allclose(new, results.fittedvalues[:3])

    @pytest.mark.parametrize("remove_data", [True, False])
    def test_loaded_results_take_the_columns_of_the_design(self, tmp_path, remove_data):
        model = wide(STATEFUL)
        results = model.fit(tol=1)
        results.save(tmp_path / "fit", remove_data=remove_data)
        loaded = mlfm.load(tmp_path / "fit")
        new = model.design.matrix[:3].sample(frac=1, axis=1, random_state=0)
        pd.testing.assert_frame_equal(loaded.predict(new), results.fittedvalues[:3], check_freq=False)
        with pytest.raises(ValueError, match=r"loaded from a file, cannot work out .*'Intercept', 'C\(regime\)"):
            loaded.predict(X[:3])
        assert loaded.formula == model.formula


@pytest.mark.usefixtures("engine")
class TestSaving:
    def test_neither_data_nor_engine_go_to_the_file(self, tmp_path):
        path = tmp_path / "fit"
        model = wide(STATEFUL)
        results = model.fit(tol=1)
        results.save(path)
        content = path.read_bytes()
        assert b"patsy" not in content
        assert b"formulaic" not in content
        assert Y.to_numpy()[:, 0].tobytes() not in content
        assert len(content) < 10_000
        # Saving leaves the results as they were.
        pd.testing.assert_frame_equal(results.predict(X[:3]), results.fittedvalues[:3], check_freq=False)

    def test_the_file_does_not_grow_with_the_data(self, tmp_path):
        sizes = []
        for copies in (1, 20):
            data, endog = (pd.concat([frame] * copies, ignore_index=True) for frame in (X, Y))
            wide(f"~ market + C(regime) + {LATENT}", data, endog=endog).fit(tol=1).save(tmp_path / "fit")
            sizes.append((tmp_path / "fit").stat().st_size)
        assert sizes[1] < sizes[0] + 2000

    def test_a_whole_model_can_be_kept(self, tmp_path):
        results = wide(STATEFUL).fit(tol=1)
        results.save(tmp_path / "fit", remove_data=False)
        content = (tmp_path / "fit").read_bytes()
        assert b"patsy" not in content
        assert b"formulaic" not in content
        loaded = mlfm.load(tmp_path / "fit")
        pd.testing.assert_frame_equal(loaded.fittedvalues, results.fittedvalues)
        assert loaded.model.formula == results.formula


class TestLongData:
    TEXT = f"ret ~ 1 + market + {LATENT}"

    @pytest.mark.usefixtures("engine")
    def test_equal_to_wide_data(self):
        model = long("ret ~ 1 + market + C(regime) + latent(sector/industry, d=(1, 0))")
        columns = sorted(FEATURES)
        expected = wide("~ 1 + market + C(regime) + latent(sector/industry, d=(1, 0))", endog=Y[columns])
        assert model.endog_names == columns
        assert model.row_labels.equals(DAYS)
        assert model.hierarchy == expected.hierarchy
        assert model.param_names == expected.param_names
        np.testing.assert_allclose(model.endog, Y[columns])
        np.testing.assert_array_equal(model.exog, expected.exog)
        assert llf(model) == pytest.approx(llf(expected), abs=1e-8)

    def test_absent_pairs_are_missing_values(self):
        model = long(self.TEXT, long_data(GAPPY))
        expected = plain(X["market"], endog=GAPPY[sorted(FEATURES)])
        assert model.n_missing == GAPPY.isna().sum().sum()
        assert llf(model) == pytest.approx(llf(expected), abs=1e-8)
        kept = long(self.TEXT, LONG.assign(ret=LONG["ret"].where(LONG["ret"] > 2)))
        assert kept.n_missing == (LONG["ret"] <= 2).sum()

    def test_missing_values_may_be_refused(self):
        with pytest.raises(ValueError, match=r"endog: .* missing, in"):
            long(self.TEXT, long_data(GAPPY), missing="raise")

    def test_without_groups(self):
        model = long("ret ~ latent(1, d=1)", LONG[["date", "ticker", "ret"]])
        assert model.hierarchy.levels == ("global",)

    @pytest.mark.usefixtures("engine")
    def test_functions_of_the_values(self):
        model = long(f"np.exp(ret) ~ {LATENT}")
        np.testing.assert_allclose(model.endog, np.exp(Y[sorted(FEATURES)]))
        assert model.formula == f"np.exp(ret) ~ 1 + {LATENT}"

    @pytest.mark.usefixtures("engine")
    def test_functions_of_the_unit(self):
        model = long(f"ret ~ 0 + day_of_month(date) + {LATENT}", eval_env={"day_of_month": lambda date: date.dt.day})
        np.testing.assert_array_equal(model.exog[:, 0], DAYS.day)

    @pytest.mark.parametrize(("name", "column"), [("weights", "importance"), ("freq_weights", "times")])
    def test_weights_are_columns_or_one_a_unit(self, name, column):
        expected = llf(plain(X["market"], endog=Y[sorted(FEATURES)], **{name: X[column]}))
        for weights in (column, X[column], X[column][::-1], X[column].to_numpy()):
            assert llf(long(self.TEXT, **{name: weights})) == pytest.approx(expected, abs=1e-8)

    def test_group_labels_are_constant_within_features(self):
        changed = LONG.assign(sector=LONG["sector"].mask((LONG["ticker"] == "x3") & (LONG["date"] == DAYS[5]), "z"))
        with pytest.raises(ValueError, match=r"'sector' must be constant within 'ticker', and is not for 'x3' \('"):
            long(self.TEXT, changed)

    def test_covariates_are_constant_within_units(self):
        changed = LONG.assign(market=LONG["market"].mask((LONG["ticker"] == "x3") & (LONG["date"] == DAYS[5]), 9.0))
        with pytest.raises(ValueError, match=r"'market' .* varies within 'date': .* 9.0 .*2024-01-06"):
            long(self.TEXT, changed)
        assert long(f"ret ~ {LATENT}", changed).exog_names == ["Intercept"]

    def test_covariates_that_are_missing(self):
        with pytest.raises(ValueError, match=r"exog: 'market' has 1 missing value, at row .*2024-01-06"):
            long(self.TEXT, LONG.assign(market=LONG["market"].mask(LONG["date"] == DAYS[5])))

    def test_pairs_occur_once(self):
        with pytest.raises(ValueError, match=r"data: \('date', 'ticker'\) pairs have more than one row: .* 1 row too"):
            long(self.TEXT, pd.concat([LONG, LONG[:1]]))

    def test_columns_of_features_are_no_mean_terms(self):
        for name in ("ticker", "sector"):
            with pytest.raises(ValueError, match=f"formula: '{name}' in the mean terms .* belongs to features"):
                long(f"ret ~ C({name}) + {LATENT}")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"unit": "day"}, "data: columns are absent: 'day'"),
            ({"feature": "stock"}, "data: columns are absent: 'stock'"),
            ({"unit": "ticker"}, "named more than once: 'ticker'"),
        ],
    )
    def test_columns_that_are_absent(self, options, words):
        with pytest.raises(ValueError, match=words):
            long(self.TEXT, **options)

    def test_weights_that_are_no_column_of_units(self):
        with pytest.raises(ValueError, match="weights: 'nope' is not a column of the data; there are 'market'"):
            long(self.TEXT, weights="nope")
        with pytest.raises(ValueError, match="weights: the column 'ret' has different values in rows of the same obs"):
            long(self.TEXT, weights="ret")

    def test_a_unit_without_values_is_named(self):
        data = long_data()
        data.loc[data["date"] == data["date"].iloc[0], "ret"] = np.nan
        with pytest.raises(ValueError, match=r"data: every value of ret is missing where 'date' is .*2024-02-11"):
            MultilevelFactorModel.from_formula(self.TEXT, data, unit="date", feature="ticker")


class TestWideWeights:
    @pytest.mark.parametrize(("name", "column"), [("weights", "importance"), ("freq_weights", "times")])
    def test_they_are_columns_or_themselves(self, name, column):
        expected = llf(plain(X["market"], **{name: X[column]}))
        for weights in (column, X[column][::-1], X[column].to_numpy()):
            model = wide(f"~ market + {LATENT}", X.sample(frac=1, random_state=0), **{name: weights})
            assert llf(model) == pytest.approx(expected, abs=1e-8)

    def test_unknown_columns(self):
        with pytest.raises(ValueError, match=r"weights: 'nope' is not a column of the data; .* 'market', 'size'"):
            wide(f"~ {LATENT}", weights="nope")
        with pytest.raises(ValueError, match=r"freq_weights: 'nope' is not a column of the data; there are none"):
            wide(f"~ {LATENT}", data=None, freq_weights="nope")


ENDOG, UNIT = {"endog": Y, "hierarchy": GROUPS}, {"unit": "date", "feature": "ticker"}


@pytest.mark.parametrize(
    ("text", "data", "options", "error", "words"),
    [
        (f"ret ~ {LATENT}", LONG, {**UNIT, **ENDOG}, TypeError, "unit= and feature= are for long data, where endog="),
        (f"ret ~ {LATENT}", LONG, {**UNIT, "hierarchy": GROUPS}, TypeError, "unit= and feature= are for long data"),
        (f"ret ~ {LATENT}", LONG, {"unit": "date"}, TypeError, "long data need all of data=, unit= and feature="),
        (f"ret ~ {LATENT}", LONG, {"feature": "ticker"}, TypeError, "long data need all of data=, unit= and feature="),
        (f"ret ~ {LATENT}", None, UNIT, TypeError, "long data need all of data=, unit= and feature="),
        (
            f"ret ~ {LATENT}",
            LONG,
            {},
            TypeError,
            "for long data, with values 'ret', name .* unit=",
        ),
        (f"ret ~ {LATENT}", X, ENDOG, ValueError, "with endog= the left-hand side is empty"),
        (f"~ {LATENT}", X, {}, TypeError, "endog is missing: give the features"),
        (f"~ {LATENT}", LONG, UNIT, ValueError, "name the column of values on the left of ~"),
        (f"regime ~ {LATENT}", LONG, UNIT, TypeError, "formula: .*left-hand side.* not numeric: 'regime'"),
        (f"rett ~ {LATENT}", LONG, UNIT, ValueError, "formula: 'rett', in 'rett', is neither a column nor a name"),
        (LATENT, X, ENDOG, ValueError, "a formula needs a ~ before its terms"),
        (3, X, ENDOG, TypeError, "a formula is a string"),
        (f"~ {LATENT}", {"market": [1]}, ENDOG, TypeError, "data: a DataFrame .* is needed, not dict"),
    ],
)
def test_arguments_that_do_not_go_together(text, data, options, error, words):
    with pytest.raises(error, match=words):
        MultilevelFactorModel.from_formula(text, data, **options)


@pytest.mark.usefixtures("engine")
class TestRefusals:
    def test_unknown_columns(self):
        with pytest.raises(ValueError, match=r"formula: 'makret', in .* is neither a column .* 'market', 'size'"):
            wide(f"~ makret + {LATENT}")

    @pytest.mark.parametrize("column", ["market", "regime", "open"])
    def test_nothing_is_dropped_in_silence(self, column):
        gaps = X.astype({"open": "boolean"})
        gaps.loc[DAYS[[2, 4]], column] = None
        with pytest.raises(
            ValueError, match=f"exog: '{column}' has 2 missing values, at rows .*2024-01-03.*2024-01-05"
        ):
            wide(f"~ {column} + {LATENT}", gaps)
        assert wide(f"~ size + {LATENT}", gaps).nobs == 60

    def test_infinite_values(self):
        with pytest.raises(ValueError, match=r"exog: .* infinite or not a number: 'np.log\(open\)', at rows"):
            wide(f"~ np.log(open) + {LATENT}", X.assign(open=X["open"] * 1.0))

    def test_rows_that_differ(self):
        with pytest.raises(ValueError, match=r"exog: its index differs .* in endog and not in exog: .*2024-01-01"):
            wide(f"~ market + {LATENT}", X[1:])

    def test_collinear_terms(self):
        data = X.assign(again=X["market"])
        with pytest.raises(ValueError, match="exog: columns are collinear: 'market', 'again'; drop one"):
            wide(f"~ market + again + {LATENT}", data)
        dummies = X.assign(calm=(X["regime"] == "calm") * 1.0)
        with pytest.raises(ValueError, match=r"exog: columns are collinear: 'Intercept', .*'calm'"):
            wide(f"~ calm + C(regime) + {LATENT}", dummies)

    def test_syntax_is_shown_with_its_place(self):
        with pytest.raises(ValueError) as caught:
            wide("~ 1 + latent(sector, k=1)")
        lines = str(caught.value).splitlines()
        assert lines[-2].strip() == "~ 1 + latent(sector, k=1)"
        assert lines[-1].index("^") == lines[-2].index("k=1")


def test_terms_of_categories_are_tested_together():
    results = wide(f"~ market + C(regime) + {LATENT}").fit(tol=1e-3)
    columns = [name for name in results.coefficients if "regime" in name]
    table = results.wald_test_terms({"regime": columns})
    assert table.loc["regime", "df"] == 24
    less = wide(f"~ market + {LATENT}").fit(tol=1e-3)
    assert results.compare_lr_test(less).statistic == pytest.approx(table.loc["regime", "chi2"], rel=0.5)


def test_the_class_and_the_formula_can_be_compared():
    full, less = wide(f"~ market + {LATENT}").fit(), plain().fit()
    assert full.compare_lr_test(less).df_diff == 12


@pytest.mark.usefixtures("engine")
class TestTerms:
    def test_columns_of_a_term_are_tested_together(self):
        results = wide(f"~ market + C(regime) + {LATENT}").fit(tol=1e-6)
        tests = results.wald_test_terms()
        assert tests["df"].to_dict() == {"Intercept": 12, "market": 12, "C(regime)": 24}
        columns = [name for name in results.coefficients if "regime" in name]
        alone = results.wald_test_terms({"regime": columns})
        assert tests["chi2"]["C(regime)"] == pytest.approx(alone["chi2"]["regime"], rel=1e-10)

    def test_a_term_without_columns_is_refused(self):
        with pytest.raises(ValueError, match=r"formula: terms make no column: 'C.regime.'"):
            wide(f"~ C(regime) + {LATENT}", X.assign(regime="calm"))

    def test_categories_that_do_not_occur_have_no_coefficients(self):
        data = X.assign(regime=pd.Categorical(X["regime"], categories=["calm", "odd", "wild", "never"]))
        assert not [name for name in wide(f"~ regime + {LATENT}", data).exog_names if "never" in name]

    def test_data_that_were_forgotten(self):
        with pytest.raises(ValueError, match=r"'market', in 'market', is neither .* give a DataFrame .* data="):
            wide(f"~ market + {LATENT}", None)

    def test_removing_data_removes_the_design(self):
        results = wide(f"~ market + {LATENT}").fit(tol=1)
        results.remove_data()
        assert len(results.design.matrix) == 0
        assert results.design.rule is None


def test_long_data_with_labels_in_the_index():
    with pytest.raises(ValueError, match=r"unit: 'date' is in the index of data; data.reset_index\(\)"):
        long(f"ret ~ {LATENT}", LONG.set_index("date"))
    with pytest.raises(TypeError, match="unit: the name of one column is needed"):
        long(f"ret ~ {LATENT}", unit=["date"])


def test_comments_are_refused_where_they_stand():
    with pytest.raises(ValueError, match="comments are not read in a formula") as caught:
        wide(f"~ {LATENT} # mine")
    assert str(caught.value).splitlines()[-1].strip() == "^"
