"""Tables at the door: dtypes, labels of every kind, rows matched by label, and tables that are not pandas'."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mlfm
from mlfm import Hierarchy, MultilevelFactorModel

pytestmark = pytest.mark.portable

FEATURES = [f"x{j}" for j in range(12)]
GROUPS = pd.DataFrame({"sector": list("aaaaaabbbbbb")}, index=FEATURES)
RNG = np.random.default_rng(3)
DAYS = pd.date_range("2024-01-01", periods=60, name="day")
X = pd.DataFrame({"market": RNG.standard_normal(60), "size": RNG.uniform(1, 3, 60)}, index=DAYS)
REGIME = pd.Series(RNG.choice(["calm", "odd", "wild"], 60), index=DAYS, name="regime")
TIMES = RNG.integers(1, 4, 60)
Y = pd.DataFrame(RNG.standard_normal((60, 12)) + RNG.standard_normal((60, 1)), index=DAYS, columns=FEATURES)
GAPPY = Y.mask(RNG.random(Y.shape) < 0.05)
SHUFFLED = RNG.permutation(60)


def model(endog=GAPPY, exog=X, **options):
    return MultilevelFactorModel(endog, exog, **{"hierarchy": GROUPS, "ranks": [1, 0], **options})


def fitted(endog=GAPPY, exog=X, **options):
    return model(endog, exog, **options).fit(tol=1e-2)


@pytest.fixture(scope="module")
def expected():
    return fitted().llf


class TestDtypes:
    @pytest.mark.parametrize("dtype", ["Float64", "double[pyarrow]"])
    def test_missing_values_of_any_kind(self, dtype, expected):
        gappy = GAPPY.astype(dtype)
        assert model(gappy).n_missing == GAPPY.isna().sum().sum()
        assert fitted(gappy).llf == pytest.approx(expected, abs=1e-8)

    def test_objects_are_refused(self):
        with pytest.raises(TypeError, match=r"endog: columns are not numeric: 'x0', .*; convert or drop them"):
            model(GAPPY.astype("Float64").astype(object))

    @pytest.mark.parametrize("dtype", ["float32", "Float32"])
    def test_single_precision(self, dtype, expected):
        single = model(GAPPY.astype(dtype))
        assert single.endog.dtype == np.float32
        assert single.fit(tol=1e-2).llf == pytest.approx(expected, rel=1e-6)

    def test_columns_of_different_types(self, expected):
        mixed = GAPPY.astype({"x0": "Float64", "x1": "double[pyarrow]"})
        assert fitted(mixed).llf == pytest.approx(expected, abs=1e-8)

    @pytest.mark.parametrize("dtype", ["Int64", "Int8", "int64[pyarrow]"])
    def test_whole_numbers_with_gaps(self, dtype):
        rounded = (3 * GAPPY).round()
        assert fitted(rounded.astype("Float64").astype(dtype)).llf == pytest.approx(fitted(rounded).llf, abs=1e-8)

    def test_flags_with_gaps(self):
        flags = (Y > 0).astype("boolean").mask(GAPPY.isna())
        numbers = (Y > 0).astype(float).mask(GAPPY.isna())
        assert flags.isna().sum().sum() == GAPPY.isna().sum().sum()
        assert fitted(flags).llf == pytest.approx(fitted(numbers).llf, abs=1e-8)

    def test_nullable_values_are_imputed(self):
        imputed = fitted(GAPPY.astype("Float64")).impute()
        assert (imputed.values.dtypes == np.float64).all()
        np.testing.assert_allclose(imputed.values.to_numpy()[GAPPY.notna()], GAPPY.to_numpy()[GAPPY.notna()])
        assert ((imputed.sd > 0) == GAPPY.isna()).all(axis=None)

    def test_the_tables_given_are_only_read(self):
        weights = pd.Series(TIMES, index=DAYS)
        given = (GAPPY, X, GROUPS, weights)
        before = [table.copy() for table in given]
        results = fitted(weights=weights)
        for made in (results.impute().values, results.fittedvalues, results.resid):
            made.iloc[:] = 0
        for table, copy in zip(given, before, strict=True):
            assert table.equals(copy)


ROWS = {
    "days": DAYS,
    "time zone": pd.date_range("2024-01-01", periods=60, freq="h", tz="Europe/Berlin"),
    "periods": pd.period_range("2020-01", periods=60, freq="M", name="month"),
    "numbers": pd.Index(np.arange(60) / 4),
    "text": pd.Index([f"r{k}" for k in range(60)], dtype="string"),
    "nullable": pd.Index(range(60), dtype="Int64"),
    "categories": pd.CategoricalIndex([f"r{k}" for k in range(60)]),
    "intervals": pd.interval_range(0, 60),
    "tuples": pd.MultiIndex.from_product([["a", "b"], range(30)], names=["desk", "day"]),
    "mixed": pd.Index([*range(59), "last"], dtype=object),
    "missing": pd.DatetimeIndex([pd.NaT, *DAYS[1:]]),
}


@pytest.mark.parametrize("rows", list(ROWS.values()), ids=list(ROWS))
class TestRows:
    def test_they_label_what_belongs_to_observations(self, rows):
        endog, exog = GAPPY.set_axis(rows), X.set_axis(rows)
        results = fitted(endog, exog)
        imputed = results.impute()
        for frame in (
            results.scores(),
            results.fittedvalues,
            results.resid,
            imputed.values,
            imputed.sd,
            results.predict(exog),
        ):
            assert type(frame.index) is type(rows)
            assert frame.index.equals(rows)
            assert frame.index.names == rows.names

    def test_they_match_tables(self, rows, expected):
        exog = X.set_axis(rows).iloc[SHUFFLED]
        assert fitted(GAPPY.set_axis(rows), exog).llf == pytest.approx(expected, abs=1e-8)
        times = pd.Series(TIMES, index=rows).iloc[SHUFFLED]
        counted = model(GAPPY.set_axis(rows), exog, freq_weights=times, weights=times)
        given = model(freq_weights=TIMES, weights=TIMES)
        params = given.start_params
        assert counted.loglike(params) == pytest.approx(given.loglike(params), rel=1e-12)


COLUMNS = {
    "numbers": pd.RangeIndex(12),
    "text": pd.Index(FEATURES, dtype="string"),
    "categories": pd.CategoricalIndex(FEATURES, name="ticker"),
    "years": pd.period_range("2020", periods=12, freq="Y"),
    "days": pd.date_range("2020", periods=12),
    "tuples": pd.Index([("a", j) for j in range(12)], tupleize_cols=False),
    "intervals": pd.interval_range(0, 12),
    "mixed": pd.Index([*range(6), *"abcdef"], dtype=object),
}


@pytest.mark.parametrize("columns", list(COLUMNS.values()), ids=list(COLUMNS))
def test_features_of_any_label(columns, expected):
    groups = GROUPS.set_axis(columns).sample(frac=1, random_state=0)
    results = fitted(GAPPY.set_axis(columns, axis=1), hierarchy=groups)
    assert results.llf == pytest.approx(expected, abs=1e-8)
    for index in (results.loadings.index, results.uniquenesses.index, results.coefficients.index):
        assert index.equals(columns)
    for frame in (results.fittedvalues, results.resid, results.impute().values):
        assert frame.columns.equals(columns)
    assert len(results.coefficients_table()) == 36
    assert results.params.index.is_unique
    assert "Log-Likelihood" in results.summary().as_text()


@pytest.mark.parametrize(
    "labels",
    [
        [1] * 6 + [2] * 6,
        pd.Categorical(GROUPS["sector"], categories=["z", "b", "a"]),
        pd.array([1] * 6 + [2] * 6, dtype="Int64"),
        pd.array([True] * 6 + [False] * 6, dtype="boolean"),
        pd.array(list("aaaaaabbbbbb"), dtype="string[pyarrow]"),
        pd.PeriodIndex(["2020"] * 6 + ["2021"] * 6, freq="Y"),
        [("a", 1)] * 6 + [("b", 2)] * 6,
    ],
    ids=["numbers", "categories", "nullable", "flags", "arrow", "years", "tuples"],
)
def test_groups_of_any_label(labels):
    groups = pd.DataFrame({"sector": pd.Series(labels, index=FEATURES)})
    made = model(hierarchy=groups, ranks=[0, 1])
    assert [len(members) for members in made.hierarchy.groups("sector").values()] == [6, 6]
    params = model(ranks=[0, 1]).start_params
    assert made.loglike(params) == model(ranks=[0, 1]).loglike(params)


def test_groups_with_missing_labels():
    groups = pd.DataFrame({"sector": pd.array([1] * 11 + [pd.NA], dtype="Int64")}, index=FEATURES)
    with pytest.raises(ValueError, match="level 'sector': missing or empty labels for features 'x11'"):
        model(hierarchy=groups)


class TestRowsThatDiffer:
    @pytest.mark.parametrize("name", ["exog", "weights", "freq_weights"])
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda table: table.iloc[2:], "not in endog: none; in endog and not in .*: .*2024-01-01.*2024-01-02"),
            (lambda table: table.shift(1, freq="D"), "not in endog: .*2024-03-01.*; in endog .*: .*2024-01-01"),
            (
                lambda table: table.reset_index(drop=True),
                "int64 labels: 0, 1 and 58 more; endog .*2024-01-01",
            ),
            (lambda table: table.tz_localize("UTC"), "UTC. labels: .* and 58 more; endog has"),
            (lambda table: table.to_period("D"), "period.D. labels: Period.* and 58 more; endog has"),
            (lambda table: table.set_axis(list(range(30)) * 2), "labels of .* occur more than once: 0, 1, 2, 3, 4 and"),
        ],
        ids=["fewer", "shifted", "numbered", "time zone", "periods", "repeated"],
    )
    def test_the_difference_is_shown(self, name, change, words):
        table = change(X if name == "exog" else pd.Series(TIMES, index=DAYS))
        with pytest.raises(ValueError, match=f"^{name}: its index differs from that of endog.*{words}"):
            model(**{name: table})

    def test_more_rows_than_the_data(self):
        with pytest.raises(
            ValueError, match=r"in exog and not in endog: .*2024-01-01.*; in endog and not in exog: none"
        ):
            model(GAPPY[1:])

    def test_unlabelled_data_take_as_many_rows(self):
        unlabelled = {"hierarchy": Hierarchy(GROUPS)}
        with pytest.raises(ValueError, match="exog: 59 rows, but endog has 60"):
            model(GAPPY.to_numpy(), X[1:], **unlabelled)
        with pytest.raises(ValueError, match="weights: 59 rows, but endog has 60"):
            model(GAPPY.to_numpy(), None, weights=pd.Series(TIMES[1:]), **unlabelled)


class TestRepeatedRows:
    REPEATED = pd.Index([*range(30), *range(30)], name="again")

    def test_the_same_index_is_taken_as_it_is(self, expected):
        results = fitted(GAPPY.set_axis(self.REPEATED), X.set_axis(self.REPEATED))
        assert results.llf == pytest.approx(expected, abs=1e-8)
        assert results.scores().index.equals(self.REPEATED)
        assert results.impute().values.index.equals(self.REPEATED)
        pd.testing.assert_frame_equal(results.resid.isna(), GAPPY.set_axis(self.REPEATED).isna())

    def test_another_order_cannot_be_matched(self):
        for other in (self.REPEATED[::-1], pd.RangeIndex(60)):
            with pytest.raises(
                ValueError, match=r"rows cannot be matched by label, as labels of .* occur more than once"
            ):
                model(GAPPY.set_axis(self.REPEATED), X.set_axis(other))

    def test_in_a_formula(self):
        made = MultilevelFactorModel.from_formula(
            "~ market + latent(1, d=1)", X.set_axis(self.REPEATED), endog=GAPPY.set_axis(self.REPEATED)
        )
        np.testing.assert_array_equal(made.exog[:, 1], X["market"])


def long_data():
    values = GAPPY.rename_axis(columns="ticker").stack().rename("ret").dropna().reset_index()
    return values.merge(GROUPS, left_on="ticker", right_index=True).merge(X.join(REGIME).reset_index(), on="day")


class TestArrow:
    def test_endog_and_covariates_keep_their_labels(self, expected):
        table = pa.Table.from_pandas
        results = fitted(table(GAPPY), table(X.iloc[SHUFFLED]), hierarchy=table(GROUPS))
        assert results.llf == pytest.approx(expected, abs=1e-8)
        assert results.fittedvalues.index.equals(DAYS)
        pd.testing.assert_frame_equal(results.predict(table(X)), results.fittedvalues, check_freq=False)

    def test_missing_values(self):
        table = pa.Table.from_pandas(GAPPY.astype("Float64"), preserve_index=False)
        assert table["x0"].null_count > 0
        assert model(table, None).n_missing == GAPPY.isna().sum().sum()

    def test_weights(self):
        endog = GAPPY.reset_index(drop=True)
        for times in (pa.array(TIMES), pa.chunked_array([TIMES[:9], TIMES[9:]])):
            assert model(endog, None, freq_weights=times).nobs == TIMES.sum()

    def test_data_of_a_formula(self):
        data = X.join(REGIME)
        text = "~ center(market) + C(regime) + latent(1, d=1)"
        made = MultilevelFactorModel.from_formula(text, pa.Table.from_pandas(data), endog=pa.Table.from_pandas(GAPPY))
        given = MultilevelFactorModel.from_formula(text, data, endog=GAPPY)
        np.testing.assert_allclose(made.exog, given.exog, rtol=1e-12)
        results = made.fit(tol=1)
        pd.testing.assert_frame_equal(
            results.predict(pa.Table.from_pandas(data)), results.fittedvalues, check_freq=False
        )

    def test_long_data(self):
        text = "ret ~ market + C(regime) + latent(sector, d=1)"
        made, given = (
            MultilevelFactorModel.from_formula(text, data, unit="day", feature="ticker", weights="size")
            for data in (pa.Table.from_pandas(long_data()), long_data())
        )
        params = given.start_params
        assert made.loglike(params) == pytest.approx(given.loglike(params), rel=1e-12)
        assert made.endog_names == given.endog_names


class TestPolars:
    @pytest.fixture
    def polars(self):
        return pytest.importorskip("polars")

    def test_endog_covariates_and_weights(self, polars):
        endog, exog = polars.DataFrame(Y), polars.DataFrame(X)
        results = fitted(endog, exog, weights=polars.Series(TIMES))
        assert results.llf == pytest.approx(fitted(Y, X, weights=TIMES).llf, abs=1e-8)
        assert results.model.endog_names == FEATURES
        assert results.model.exog_names == ["const", "market", "size"]
        assert list(results.fittedvalues.index) == list(range(60))
        pd.testing.assert_frame_equal(results.predict(exog), results.fittedvalues)

    def test_a_column_of_covariates(self, polars):
        made = model(polars.DataFrame(Y), polars.Series("market", X["market"].to_numpy()))
        assert made.exog_names == ["const", "market"]

    def test_nulls_are_missing_values(self, polars):
        endog = polars.DataFrame(GAPPY).with_columns(polars.all().fill_nan(None))
        assert endog["x0"].null_count() > 0
        assert fitted(endog, None).llf == pytest.approx(fitted(exog=None).llf, abs=1e-8)

    def test_data_of_a_formula(self, polars):
        data = polars.DataFrame(X.join(REGIME)).with_columns(
            polars.col("regime").cast(polars.Enum(["calm", "odd", "wild"]))
        )
        made = MultilevelFactorModel.from_formula(
            "~ market + C(regime) + latent(1, d=1)", data, endog=polars.DataFrame(Y), weights="size"
        )
        given = MultilevelFactorModel.from_formula(
            "~ market + C(regime) + latent(1, d=1)", X.join(REGIME), endog=Y, weights="size"
        )
        np.testing.assert_allclose(made.exog, given.exog)
        assert made.effective_nobs == given.effective_nobs
        results = made.fit(tol=1)
        pd.testing.assert_frame_equal(results.predict(data), results.fittedvalues)

    def test_nulls_in_the_data_of_a_formula(self, polars):
        data = polars.DataFrame({"market": [None, *X["market"][1:]]})
        with pytest.raises(ValueError, match="exog: 'market' has 1 missing value, at row 0"):
            MultilevelFactorModel.from_formula("~ market + latent(1, d=1)", data, endog=polars.DataFrame(Y))

    def test_long_data(self, polars):
        text = "ret ~ market + C(regime) + latent(sector, d=1)"
        made, given = (
            MultilevelFactorModel.from_formula(text, data, unit="day", feature="ticker")
            for data in (polars.DataFrame(long_data()), long_data())
        )
        params = given.start_params
        assert made.loglike(params) == pytest.approx(given.loglike(params), rel=1e-12)
        assert list(made.row_labels) == list(DAYS)


class TestTablesWithoutLabels:
    """Their rows are those of a labelled endog, in its order."""

    @pytest.mark.parametrize("table", [pa.Table.from_pandas, "polars"])
    def test_covariates_and_weights(self, table, expected):
        if table == "polars":
            polars = pytest.importorskip("polars")
            exog, weights = polars.DataFrame(X), polars.Series(np.ones(60))
        else:
            exog, weights = table(X, preserve_index=False), pa.array(np.ones(60))
        results = fitted(GAPPY, exog, weights=weights)
        assert results.llf == pytest.approx(expected, abs=1e-8)
        assert results.fittedvalues.index.equals(DAYS)

    def test_data_of_a_formula(self, expected):
        data = pa.Table.from_pandas(X, preserve_index=False)
        made = MultilevelFactorModel.from_formula("~ market + size + latent(1, d=1)", data, endog=GAPPY)
        assert made.fit(tol=1e-2).llf == pytest.approx(expected, abs=1e-8)

    def test_groups_in_the_order_of_the_features(self):
        groups = pa.Table.from_pandas(GROUPS, preserve_index=False)
        assert model(hierarchy=groups).hierarchy == Hierarchy(GROUPS)
        assert list(Hierarchy(groups).features) == list(range(12))

    def test_another_number_of_rows(self):
        with pytest.raises(ValueError, match="exog: its index differs from that of endog"):
            model(GAPPY, pa.Table.from_pandas(X.iloc[:50], preserve_index=False))

    def test_labels_of_one_side_only(self):
        made = model(pa.Table.from_pandas(GAPPY, preserve_index=False), X)
        np.testing.assert_allclose(made.exog[:, 1:], X)


def test_dropped_rows_take_their_labels_along():
    with pytest.warns(mlfm.DroppedObservationsWarning):
        dropped = model(missing="drop")
    results = dropped.fit(tol=1)
    kept = DAYS[GAPPY.notna().all(axis=1)]
    for frame in (results.scores(), results.fittedvalues, results.resid, results.impute().values):
        assert frame.index.equals(kept)
