import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlfm import Hierarchy
from mlfm.formula.long import refuse_varying, widen

pytestmark = pytest.mark.portable


@pytest.fixture
def data():
    return pd.DataFrame(
        {
            "stock": ["c", "a", "b", "a", "c"],
            "date": pd.to_datetime(["2020-01-02", "2020-01-02", "2020-01-01", "2020-01-01", "2020-01-03"]),
            "ret": [0.1, 0.2, 0.3, 0.4, 0.5],
            "sector": ["tech", "oil", "tech", "oil", "tech"],
            "industry": ["chips", "wells", "code", "wells", "chips"],
            "market": [2.0, 2.0, 1.0, 1.0, 3.0],
            "volume": [5, 6, 7, 8, 9],
            "regime": ["wild", "wild", "calm", "calm", "calm"],
        }
    )


def make(data, groups=("sector", "industry"), **roles):
    return widen(data["ret"], data, roles.get("unit", "date"), roles.get("feature", "stock"), list(groups))


def test_endog(data):
    endog = make(data).endog
    pd.testing.assert_frame_equal(endog, data.pivot(index="date", columns="stock", values="ret"), check_freq=False)
    assert isinstance(endog.index, pd.DatetimeIndex)
    assert endog.index.name == "date"
    assert endog.columns.name == "stock"
    assert endog.columns.tolist() == ["a", "b", "c"]
    assert endog.isna().to_numpy().sum() == 4


def test_labels(data):
    labels = make(data, ["industry", "sector"]).labels
    assert labels.columns.tolist() == ["industry", "sector"]
    assert labels.index.name == "stock"
    assert labels.to_numpy().tolist() == [["wells", "oil"], ["code", "tech"], ["chips", "tech"]]
    hierarchy = Hierarchy(make(data).labels)
    assert hierarchy.levels == ("global", "sector", "industry")


def test_without_groups(data):
    wide = make(data, [])
    assert wide.labels.shape == (3, 0)
    assert wide.labels.index.tolist() == ["a", "b", "c"]
    assert wide.varying.tolist() == ["ret", "sector", "industry", "volume"]


def test_covariates(data):
    wide = make(data)
    assert wide.covariates.columns.tolist() == ["market", "regime"]
    assert wide.covariates.index.equals(wide.endog.index)
    assert wide.covariates["market"].tolist() == [1, 2, 3]
    assert wide.covariates["regime"].tolist() == ["calm", "wild", "calm"]
    assert wide.varying.tolist() == ["ret", "volume"]


def test_missing_covariates(data):
    data["market"] = [np.nan, np.nan, 1.0, 1.0, np.nan]
    data["regime"] = [None, "wild", "calm", "calm", "calm"]
    wide = make(data)
    np.testing.assert_array_equal(wide.covariates["market"], [1, np.nan, np.nan])
    assert "regime" in wide.varying


def test_covariates_keep_their_types(data):
    data = data.astype({"market": "Float64", "regime": "category"}).assign(flag=True, when=data["date"])
    covariates = make(data).covariates
    assert covariates.dtypes.astype(str).tolist() == ["Float64", "category", "bool", str(data["date"].dtype)]


def test_values_that_cannot_be_compared_vary(data):
    wide = make(data.assign(notes=[[1], [1], [2], [2], [3]]))
    assert "notes" in wide.varying


def test_columns_may_repeat_where_unused(data):
    again = pd.concat([data, data[["market", "volume"]]], axis=1)
    wide = make(again)
    assert wide.covariates.columns.tolist() == ["market", "regime", "market"]
    assert wide.varying.tolist() == ["ret", "volume", "volume"]


def test_index_of_the_rows_does_not_matter(data):
    expected = make(data)
    data.index = [3, 3, 1, 0, 0]
    for ours, theirs in zip(make(data), expected, strict=True):
        assert ours.equals(theirs)


def test_the_data_are_only_read(data):
    before = data.copy()
    wide = make(data)
    wide.endog.iloc[:] = 0
    wide.covariates.iloc[:, 0] = 0
    pd.testing.assert_frame_equal(data, before)


def test_missing_values_are_absent_pairs(data):
    less = make(data.assign(ret=data["ret"].where(data["stock"] != "b")))
    assert less.endog["b"].isna().all()
    assert less.endog.shape == (3, 3)
    infinite = make(data.assign(ret=np.inf)).endog
    assert np.isinf(infinite.to_numpy()).sum() == 5


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("Float64", "float64"),
        ("Float32", "float32"),
        ("float32", "float32"),
        ("double[pyarrow]", "float64"),
        ("float64", "float64"),
    ],
)
def test_types_of_values(data, dtype, expected):
    typed = data.astype({"ret": dtype})
    typed.loc[0, "ret"] = None
    endog = make(typed).endog
    assert (endog.dtypes == expected).all()
    np.testing.assert_allclose(endog.loc["2020-01-02"], [0.2, np.nan, np.nan], rtol=1e-6)


def test_whole_numbers(data):
    data["ret"] = pd.array([1, None, 3, 4, 5], dtype="Int64")
    assert np.nansum(make(data).endog.to_numpy()) == 13


@pytest.mark.parametrize("values", [list("abcde"), [1j] * 5, pd.date_range("2020", periods=5), [1.5, None, "a", 2, 3]])
def test_values_that_are_not_numbers(data, values):
    with pytest.raises(TypeError, match="values: 'ret' is not numeric"):
        make(data.assign(ret=values))


def test_another_number_of_values(data):
    with pytest.raises(ValueError, match="values: 3 values for 5 rows"):
        widen(data["ret"][:3], data, "date", "stock", [])


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ([3, 1, 2, 1, 3], [1, 2, 3]),
        (["b", 2, "a", 2, "b"], [2, "a", "b"]),
        ([(2, "x"), (1, "y"), (1, "x"), (1, "y"), (2, "x")], [(1, "x"), (1, "y"), (2, "x")]),
        ([(1, 2), "a", 3, "a", (1, 2)], [(1, 2), "a", 3]),
        ([True, False, True, True, False], [False, True]),
    ],
    ids=["numbers", "numbers and text", "tuples", "no order", "flags"],
)
def test_order_of_labels(data, units, expected):
    data["unit"] = pd.Series(units, dtype=None if units[0] is True or isinstance(units[0], int) else object)
    data["stock"] = list("abcde")
    endog = make(data, [], unit="unit").endog
    assert endog.index.tolist() == expected
    assert not isinstance(endog.index, pd.MultiIndex)
    for row, unit in enumerate(units):
        assert endog.to_numpy()[expected.index(unit), row] == data["ret"][row]
    turned = make(data, [], unit="stock", feature="unit").endog
    assert turned.columns.tolist() == expected


def test_order_of_categories(data):
    data["stock"] = pd.Categorical(data["stock"], categories=["z", "c", "b", "y", "a"])
    data["sector"] = data["sector"].astype("category")
    wide = make(data)
    assert wide.endog.columns.tolist() == ["c", "b", "a"]
    assert wide.labels["industry"].tolist() == ["chips", "code", "wells"]
    assert wide.endog.loc["2020-01-01", "b"] == 0.3
    assert Hierarchy(wide.labels).n_groups["sector"] == 2


def test_periods(data):
    data["month"] = data["date"].dt.to_period("D")
    index = make(data, unit="month").endog.index
    assert isinstance(index, pd.PeriodIndex)
    assert index.name == "month"


def test_time_zones(data):
    data["date"] = data["date"].dt.tz_localize("UTC")
    assert str(make(data).endog.index.tz) == "UTC"


def test_names_of_columns_may_be_any_label(data):
    data = data.rename(columns={"date": 0, "stock": ("the", "stock")})
    endog = make(data, unit=0, feature=("the", "stock")).endog
    assert endog.index.name == 0
    assert endog.columns.name == ("the", "stock")


def test_arrow_data(data):
    wide = widen(data["ret"], pa.Table.from_pandas(data), "date", "stock", ["sector"])
    np.testing.assert_array_equal(wide.endog, make(data).endog)


def test_not_a_table(data):
    with pytest.raises(TypeError, match="data: a DataFrame"):
        widen(data["ret"], {"date": [1]}, "date", "stock", [])


def test_many(data):
    rng = np.random.default_rng(5)
    rows = pd.MultiIndex.from_product([range(50), [f"s{number}" for number in range(40)]]).to_frame(index=False)
    rows.columns = ["unit", "feature"]
    rows = rows.sample(frac=0.7, random_state=1)
    rows["ret"] = rng.standard_normal(len(rows))
    rows["group"] = rows["feature"].str[:2]
    rows["by_unit"] = rows["unit"] % 7
    wide = widen(rows["ret"], rows, "unit", "feature", ["group"])
    pd.testing.assert_frame_equal(wide.endog, rows.pivot(index="unit", columns="feature", values="ret"))
    assert (wide.labels["group"] == wide.labels.index.str[:2]).all()
    assert (wide.covariates["by_unit"] == wide.covariates.index % 7).all()


class TestRefusals:
    def test_absent_columns(self, data):
        with pytest.raises(ValueError, match=r"data: columns are absent: 'day', 'area'; .* 'stock', 'date'"):
            make(data, ["area"], unit="day")

    def test_columns_named_twice(self, data):
        with pytest.raises(ValueError, match="named more than once: 'date'"):
            make(data, unit="date", feature="date")
        with pytest.raises(ValueError, match="named more than once: 'sector'"):
            make(data, ["sector", "sector"])

    def test_columns_that_occur_twice(self, data):
        with pytest.raises(ValueError, match="occur more than once: 'sector'"):
            make(pd.concat([data, data[["sector"]]], axis=1))

    @pytest.mark.parametrize("name", ["date", "stock", "sector"])
    def test_missing_labels(self, data, name):
        data.loc[[1, 3], name] = None
        with pytest.raises(ValueError, match=f"data: '{name}' has 2 missing values, at rows 1, 3"):
            make(data)

    def test_a_missing_category(self, data):
        data["stock"] = data["stock"].astype("category").cat.remove_categories(["c"])
        with pytest.raises(ValueError, match="'stock' has 2 missing values, at rows 0, 4"):
            make(data)

    def test_pairs_with_more_than_one_row(self, data):
        again = pd.concat([data, data[:2], data[:1]], ignore_index=True)
        again["date"] = again["date"].dt.strftime("%Y-%m-%d")
        with pytest.raises(
            ValueError,
            match=r"\('date', 'stock'\) pairs have more than one row: "
            r"\('2020-01-02', 'c'\), \('2020-01-02', 'a'\); 3 rows too many",
        ):
            make(again)

    def test_missing_values_are_rows_too(self, data):
        again = pd.concat([data, data[:1].assign(ret=np.nan)])
        with pytest.raises(ValueError, match="more than one row"):
            make(again)

    def test_groups_that_vary_within_features(self, data):
        data.loc[[3, 4], "sector"] = ["gas", "toys"]
        with pytest.raises(
            ValueError,
            match=r"'sector' must be constant within 'stock', and is not for "
            r"'a' \('oil' and 'gas'\), 'c' \('tech' and 'toys'\)",
        ):
            make(data)

    def test_mean_terms_that_vary_within_units(self, data):
        data["date"] = data["date"].dt.strftime("%Y-%m-%d")
        data["my volume"] = data["volume"]
        wide = make(data)
        for text in ("1 + volume", "np.log(volume)", "C(volume, Sum)", "market:volume"):
            with pytest.raises(
                ValueError, match=r"'volume' .* varies within 'date': 'volume' is 5 and 6 where 'date' is '2020-01-02'"
            ):
                refuse_varying(text, wide, data, "date")
        for text in ("`my volume`", "Q('my volume')", 'np.log(Q("my volume"))'):
            with pytest.raises(ValueError, match="formula: 'my volume' in"):
                refuse_varying(text, wide, data, "date")
        with pytest.raises(ValueError, match=r"formula: 'ret', 'volume' in .* vary within"):
            refuse_varying("volume + ret", wide, data, "date")

    @pytest.mark.parametrize("text", ["1", "market + C(regime)", "volumes", "C(regime, Treatment('volume'))", "0"])
    def test_mean_terms_that_do_not(self, data, text):
        refuse_varying(text, make(data), data, "date")

    def test_a_gap_is_one_of_the_values(self, data):
        data["market"] = [np.nan, 2.0, 1.0, 1.0, 3.0]
        with pytest.raises(ValueError, match=r"'market' is nan and 2\.0"):
            refuse_varying("market", make(data), data, "date")

    def test_mean_terms_that_cannot_be_compared(self, data):
        data["notes"] = [[1], [1], [2], [2], [3]]
        with pytest.raises(TypeError, match="'notes' has values that cannot be compared"):
            refuse_varying("notes", make(data), data, "date")

    def test_mean_terms_that_occur_twice(self, data):
        again = pd.concat([data, data[["volume"]]], axis=1)
        with pytest.raises(ValueError, match="occur more than once: 'volume'"):
            refuse_varying("volume", make(again), again, "date")
