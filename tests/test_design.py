import pickle
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlfm.formula.design import as_frame, design, mentioned, names, response

pytestmark = pytest.mark.portable

ENV = {"np": np, "pd": pd, "double": lambda x: 2 * x, "knots": [1.5, 3.5]}


@pytest.fixture
def data():
    return pd.DataFrame(
        {
            "ret": [0.1, np.nan, 0.3, 0.4, -0.5, 0.6],
            "market": [1.0, 2.0, 3.0, 4.0, 5.0, 7.0],
            "size": [3.0, 1.0, 4.0, 1.0, 5.0, 9.0],
            "my ret": [0.2, 0.1, np.nan, 0.4, 0.5, 0.6],
            "my size": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
            "regime": ["calm", "wild", "calm", "odd", "wild", "calm"],
            "open": [True, False, True, True, False, False],
        },
        index=pd.Index(list("abcdef"), name="day"),
    )


@pytest.mark.usefixtures("engine")
class TestMatrix:
    def test_numbers_and_labels(self, data):
        made = design("1 + market + C(regime)", data, ENV)
        assert made.text == "1 + market + C(regime)"
        assert set(made.matrix) == {"Intercept", "market", "C(regime)[T.odd]", "C(regime)[T.wild]"}
        assert made.intercept == "Intercept"
        assert type(made.matrix) is pd.DataFrame
        assert made.matrix.index.equals(data.index)
        assert made.matrix.index.name == "day"
        assert (made.matrix.dtypes == np.float64).all()
        assert made.matrix["market"].tolist() == data["market"].tolist()
        assert made.matrix["C(regime)[T.wild]"].tolist() == [0, 1, 0, 0, 1, 0]

    @pytest.mark.parametrize(
        "text",
        [
            "market * regime + np.log(size) + center(size)",
            "0 + size + kind + regime:size + regime",
            "size:market + market + regime:kind + kind + market:regime + size",
            "market * size * kind",
        ],
    )
    def test_the_engines_make_the_same(self, data, text, formula_options):
        data, matrices = data.assign(kind=list("uvuuvv")), {}
        for engine in ("patsy", "formulaic"):
            formula_options.formula_engine = engine
            matrices[engine] = design(text, data, ENV).matrix
        pd.testing.assert_frame_equal(matrices["patsy"], matrices["formulaic"])

    @pytest.mark.parametrize("text", ["0", "-1", "0 + 0"])
    def test_no_columns(self, data, text):
        made = design(text, data, ENV)
        assert made.matrix.shape == (6, 0)
        assert made.matrix.index.equals(data.index)
        assert made.intercept is None
        assert made.of(data[:2]).shape == (2, 0)

    def test_intercept_alone(self, data):
        made = design("1", data, ENV)
        assert made.matrix["Intercept"].tolist() == [1] * 6
        assert made.of(data[:2]).to_numpy().tolist() == [[1], [1]]

    def test_an_intercept_is_implied_as_the_engines_have_it(self, data):
        assert design("market", data, ENV).intercept == "Intercept"
        assert design("0 + market", data, ENV).intercept is None

    def test_a_column_called_intercept_is_none(self, data):
        assert design("0 + Intercept", data.assign(Intercept=data["market"]), ENV).intercept is None

    def test_functions_of_the_caller(self, data):
        made = design("0 + double(market) + np.log(size)", data, ENV)
        assert made.matrix["double(market)"].tolist() == (2 * data["market"]).tolist()
        np.testing.assert_allclose(made.matrix["np.log(size)"], np.log(data["size"]))

    @pytest.mark.parametrize("quoted", ["`my size`", "Q('my size')", 'Q("my size")'])
    def test_names_with_spaces(self, data, quoted):
        assert design(f"0 + {quoted}", data, ENV).matrix.iloc[:, 0].tolist() == data["my size"].tolist()
        made = design(f"0 + np.log({quoted})", data, ENV)
        np.testing.assert_allclose(made.matrix.iloc[:, 0], np.log(data["my size"]))
        np.testing.assert_allclose(made.of(data[:3]).iloc[:, 0], np.log(data["my size"][:3]))

    def test_backticks_in_a_string_stay(self, data):
        data["regime"] = data["regime"].replace("wild", "`wild`")
        made = design("0 + I(regime == '`wild`')", data, ENV)
        assert made.matrix.iloc[:, -1].tolist() == [0, 1, 0, 0, 1, 0]

    def test_not_is_no_second_side(self, data):
        assert design("I(~open)", data, ENV).matrix.iloc[:, -1].tolist() == [0, 1, 0, 0, 1, 1]

    def test_columns_named_as_functions(self, data):
        data = data.assign(C=1.0, log="text", center=np.nan)
        made = design("0 + np.log(size) + center(market) + C(regime)", data, ENV)
        assert made.matrix.shape == (6, 5)

    def test_unused_columns_may_be_anything(self, data):
        data = data.assign(other=[[1], None, {}, "a", np.nan, 2], df=np.nan)
        data[3] = np.nan
        assert design("bs(market, df=4)", data, ENV).matrix.shape == (6, 5)

    def test_the_data_are_only_read(self, data):
        before = data.copy()
        design("market + regime + open", data, ENV)
        pd.testing.assert_frame_equal(data, before)

    @pytest.mark.parametrize(
        "index",
        [
            pd.date_range("2020-01-01", periods=6, name="t"),
            pd.period_range("2020-01", periods=6, freq="M"),
            pd.Index([1, 1, 2, 2, 1, 3]),
            pd.DatetimeIndex(["2020-01-01"] * 6),
            pd.MultiIndex.from_product([["u", "v"], [1, 2, 3]], names=["unit", "time"]),
            pd.RangeIndex(5, -1, -1),
        ],
        ids=["dates", "periods", "repeated", "one date", "two levels", "backwards"],
    )
    def test_index_is_kept(self, data, index):
        data.index = index
        made = design("market + regime", data, ENV)
        pd.testing.assert_index_equal(made.matrix.index, index)
        assert made.matrix["market"].tolist() == data["market"].tolist()
        pd.testing.assert_frame_equal(made.of(data), made.matrix)
        values = response("ret", data, ENV)
        pd.testing.assert_index_equal(values.index, index)
        np.testing.assert_array_equal(values, data["ret"])

    def test_terms_may_use_the_index(self, data):
        data.index = pd.date_range("2020-01-01", periods=6)
        assert design("0 + np.asarray(market.index.day)", data, ENV).matrix.iloc[:, 0].tolist() == [1, 2, 3, 4, 5, 6]

    def test_dtypes(self, data):
        expected = design("market + size + regime + open", data, ENV).matrix
        for regime in ("str", "string", "string[pyarrow]", "object", "category"):
            typed = data.astype({"market": "Float64", "size": "Int64", "open": "boolean", "regime": regime})
            made = design("market + size + regime + open", typed, ENV)
            pd.testing.assert_frame_equal(made.matrix, expected)
            pd.testing.assert_frame_equal(made.of(data), expected)
            pd.testing.assert_frame_equal(design("market + size + regime + open", data, ENV).of(typed), expected)

    def test_whole_numbers_stay_whole(self, data):
        made = design("C(size)", data.astype({"size": "Int64"}), ENV)
        assert "C(size)[T.3]" in made.matrix

    def test_single_precision(self, data):
        made = design("market", data.astype({"market": np.float32}), ENV)
        assert made.matrix["market"].dtype == np.float64

    def test_arrow_data(self, data):
        table = pa.Table.from_pandas(data, preserve_index=False)
        made = design("market + regime + open", table, ENV)
        np.testing.assert_array_equal(made.matrix, design("market + regime + open", data, ENV).matrix)
        np.testing.assert_array_equal(made.of(table), made.matrix)
        np.testing.assert_array_equal(response("ret", table, ENV), data["ret"])

    def test_arrow_columns(self, data):
        typed = pa.Table.from_pandas(data, preserve_index=False).to_pandas(types_mapper=pd.ArrowDtype)
        made = design("market + regime + open", typed, ENV)
        np.testing.assert_array_equal(made.matrix, design("market + regime + open", data, ENV).matrix)

    def test_no_more_of_the_namespace_than_is_used(self, data):
        made = design("bs(market, df=4) + double(size)", data, {**ENV, "df": data, "market": data})
        assert list(made.rule.env) == ["double"]
        assert design("double(double(market))", data, ENV).of(data).shape == (6, 2)


@pytest.mark.usefixtures("engine")
class TestNewData:
    @pytest.mark.parametrize(
        "text",
        [
            "bs(market, df=4)",
            "bs(market, knots=knots, degree=2)",
            "cr(market, df=4)",
            "C(regime, Treatment('wild'))",
            "C(regime, Sum)",
            "market * regime",
            "regime:open + size",
            "np.log(market) * open",
            "center(market) + standardize(size)",
            "center(np.log(market))",
            "double(center(market))",
        ],
    )
    def test_same_rule(self, data, text):
        made = design(text, data, ENV)
        for rows in ([0, 1], [4], [5, 2, 2]):
            new = data.iloc[rows]
            pd.testing.assert_frame_equal(made.of(new), made.matrix.iloc[rows])

    def test_means_are_the_old_ones(self, data):
        made = design("0 + center(market)", data, ENV)
        assert made.of(pd.DataFrame({"market": [10.0]})).iloc[0, 0] == 10 - data["market"].mean()

    def test_engine_is_the_old_one(self, data, engine, formula_options):
        made = design("center(market) + regime", data, ENV)
        formula_options.formula_engine = "patsy" if engine == "formulaic" else "formulaic"
        pd.testing.assert_frame_equal(made.of(data[:3]), made.matrix[:3])

    @pytest.mark.parametrize("ordering", ["degree", "sort", "none"])
    def test_orderings(self, data, ordering, formula_options):
        formula_options.ordering = ordering
        made = design("regime + center(market)", data, ENV)
        pd.testing.assert_frame_equal(made.of(data[:3]), made.matrix[:3])

    def test_categories_of_their_own(self, data):
        for old in ("str", "category"):
            made = design("regime", data.astype({"regime": old}), ENV)
            for new in ("str", "category"):
                fewer = data[:2].astype({"regime": new})
                pd.testing.assert_frame_equal(made.of(fewer), made.matrix[:2])

    def test_order_of_categories(self, data):
        kinds = pd.CategoricalDtype(["wild", "odd", "calm"])
        made = design("regime", data.astype({"regime": kinds}), ENV)
        assert set(made.matrix) == {"Intercept", "regime[T.odd]", "regime[T.calm]"}
        pd.testing.assert_frame_equal(made.of(data), made.matrix)

    @pytest.mark.parametrize("old", ["str", "category"])
    @pytest.mark.parametrize("new", ["str", "category"])
    def test_unknown_category(self, data, old, new):
        made = design("regime", data.astype({"regime": old}), ENV)
        with pytest.raises(ValueError, match="'mad'"):
            made.of(pd.DataFrame({"regime": pd.Series(["calm", "mad"], dtype=new)}))

    def test_missing_values(self, data):
        made = design("market + regime", data, ENV)
        with pytest.raises(
            ValueError, match=r"exog: 'market' has 1 missing value, at row 0; 'regime' has 2 .* rows 0, 1"
        ):
            made.of(pd.DataFrame({"market": [np.nan, 1.0], "regime": [None, np.nan]}))

    def test_absent_column(self, data):
        # A column of that name in the caller's namespace is not taken for it.
        made = design("market + size", data, {**ENV, "market": data["market"]})
        with pytest.raises(ValueError, match="absent: 'market'; columns: 'size'"):
            made.of(data[["size"]])

    def test_text_for_numbers(self, data):
        made = design("market", data, ENV)
        with pytest.raises(ValueError, match="'market' must be numeric"):
            made.of(pd.DataFrame({"market": ["1", "2"]}))

    def test_beyond_the_knots(self, data):
        made = design("bs(market, df=4)", data, ENV)
        with pytest.raises(ValueError, match="cannot work out"):
            made.of(pd.DataFrame({"market": [100.0]}))

    def test_not_a_table(self, data):
        with pytest.raises(TypeError, match=r"data: a DataFrame .* not list"):
            design("market", data, ENV).of([[1.0]])


@pytest.mark.usefixtures("engine")
class TestRefusals:
    def test_missing_values(self, data):
        data.loc[["b", "d", "f"], "market"] = np.nan
        data.loc["c", "regime"] = None
        with pytest.raises(
            ValueError,
            match="exog: 'market' has 3 missing values, at rows 'b', 'd', 'f'; "
            "'regime' has 1 missing value, at row 'c'; fill them",
        ):
            design("1 + market + C(regime)", data, ENV)

    @pytest.mark.parametrize("dtype", ["Float64", "Int64", "string", "category", "boolean"])
    def test_missing_values_of_nullable_types(self, data, dtype):
        data["x"] = pd.Series([None] + [1] * 5, index=data.index).astype("Int64").astype(dtype)
        with pytest.raises(ValueError, match="'x' has 1 missing value, at row 'a'"):
            design("x", data, ENV)

    def test_missing_values_are_found_in_any_spelling(self, data):
        for text in ("`my ret`", 'Q("my ret")', "I(ret > 0)", "np.where(ret > 0, 1, 0)"):
            with pytest.raises(ValueError, match="has 1 missing value"):
                design(text, data, ENV)

    @pytest.mark.parametrize("text", ["np.log(market - 2)", "pd.cut(market, [0, 2, 4])"])
    @pytest.mark.parametrize("index", [list("abcdef"), list("aabbcc")])
    def test_a_term_without_values(self, data, text, index):
        data.index = index
        with pytest.raises(ValueError, match=r"np.log\(market|pd.cut\(market"):
            design(text, data, ENV)

    def test_infinite(self, data):
        data.loc["c", "market"] = np.inf
        with pytest.raises(ValueError, match="infinite or not a number: 'market', at row 'c'"):
            design("market + size", data, ENV)
        with pytest.raises(ValueError, match=r"'np.log\(size - 1\)', at rows 'b', 'd'"):
            design("np.log(size - 1)", data, ENV)
        with pytest.raises(ValueError, match="'market', at row 'c'"):
            design("market", data.drop("c"), ENV).of(data)

    def test_unknown_names(self, data):
        for text, name in [("1 + markt", "markt"), ("Q('my markt')", "my markt"), ("`my markt`", "my markt")]:
            with pytest.raises(
                ValueError, match=f"formula: '{name}', in .* neither a column .* columns: 'ret', 'market'"
            ):
                design(text, data, ENV)
        with pytest.raises(ValueError, match="'triple'"):
            design("triple(market)", data, ENV)
        with pytest.raises(ValueError, match="'double'"):
            design("double(market)", data, {})

    def test_a_function_that_fails(self, data):
        def faulty(x):
            raise KeyError("inside")

        with pytest.raises(ValueError, match=r"cannot work out 'faulty\(market\)': .*inside") as caught:
            design("faulty(market)", data, {"faulty": faulty})
        assert caught.value.__cause__ is not None

    @pytest.mark.parametrize("text", ["1 + ", "(market", "ret ~ market", "market size", "2 + market", "a ~", ")"])
    def test_syntax(self, data, engine, text):
        with pytest.raises(ValueError, match=f"formula: {engine} cannot read ") as caught:
            design(text, data, ENV)
        assert "\x1b" not in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("text", ["", "  "])
    def test_no_terms(self, data, text):
        with pytest.raises(ValueError, match="no mean terms; write 1"):
            design(text, data, ENV)

    def test_columns_that_collide(self, data):
        with pytest.raises(ValueError, match="formula: "):
            design("Intercept", data.assign(Intercept=2.0), ENV)

    def test_columns_that_occur_twice(self, data):
        data.columns = ["ret", "market", "market", "a", "b", "c", "d"]
        for make in (design, response):
            with pytest.raises(ValueError, match="data: columns occur more than once: 'market'"):
                make("market", data, ENV)

    def test_levels_that_leave_some_out(self, data):
        with pytest.raises(ValueError, match=r"wild|odd"):
            design("C(regime, levels=['calm'])", data, ENV)

    def test_a_term_of_another_length(self, data):
        with pytest.raises(ValueError, match="formula: "):
            design("market + short", data, {"short": np.arange(3.0)})

    def test_a_term_that_is_no_number(self, data):
        with pytest.raises(ValueError, match="formula: "):
            design("market + regime.iloc[0]", data, ENV)

    def test_not_a_table(self):
        with pytest.raises(TypeError, match="data: a DataFrame"):
            design("market", {"market": [1.0]}, ENV)

    def test_no_warning_gets_out(self, data):
        def noisy(x):
            warnings.warn("noise", stacklevel=1)
            return x

        assert design("noisy(market)", data, {"noisy": noisy}).matrix.shape == (6, 2)


@pytest.mark.usefixtures("engine")
class TestResponse:
    @pytest.mark.parametrize("text", ["ret", " ret ", "(ret)", "`ret`"])
    def test_a_column(self, data, text):
        values = response(text, data, ENV)
        pd.testing.assert_series_equal(values, data["ret"], check_names=False)
        assert values.name == text.strip()

    @pytest.mark.parametrize("text", ['Q("my ret")', "Q('my ret')", "`my ret`"])
    def test_a_quoted_column(self, data, text):
        np.testing.assert_array_equal(response(text, data, ENV), data["my ret"])

    def test_functions(self, data):
        np.testing.assert_allclose(response("np.log(1 + ret)", data, ENV), np.log(1 + data["ret"]))
        np.testing.assert_allclose(response("I(ret - market * 1e2)", data, ENV), data["ret"] - 100 * data["market"])
        np.testing.assert_allclose(response("double(`my ret`)", data, ENV), 2 * data["my ret"])

    def test_nothing_is_dropped(self, data):
        data.index = list("aabbcc")
        for dtype in ("float64", "Float64"):
            values = response("double(ret)", data.astype({"ret": dtype}), ENV)
            np.testing.assert_array_equal(values, 2 * data["ret"])
            assert values.index.tolist() == list("aabbcc")

    def test_nothing_but_missing_values(self, data):
        assert response("ret", data.assign(ret=np.nan), ENV).isna().all()

    @pytest.mark.parametrize("dtype", ["Int64", "boolean", "bool", "int8"])
    def test_whole_numbers(self, data, dtype):
        values = response("open", data.astype({"open": dtype}), ENV)
        assert values.tolist() == [1, 0, 1, 1, 0, 0]
        assert values.dtype == np.float64

    def test_infinite_values_are_left(self, data):
        assert np.isinf(response("ret", data.assign(ret=np.inf), ENV)).all()

    @pytest.mark.parametrize("text", ["regime", "C(regime)", "C(market)"])
    def test_labels(self, data, text):
        with pytest.raises(TypeError, match=r"formula: .*left-hand side"):
            response(text, data, ENV)

    def test_labels_with_gaps(self, data):
        with pytest.raises(TypeError, match="not numeric: 'regime'"):
            response("regime", data.replace("odd", np.nan), ENV)

    @pytest.mark.parametrize("text", ["ret + market", "ret - market", "ret ** 2", "ret:market", "-ret", "", "ret ~"])
    def test_one_term(self, data, text):
        with pytest.raises(ValueError, match="left-hand side must be one term"):
            response(text, data, ENV)

    def test_unknown_name(self, data):
        with pytest.raises(ValueError, match="'rte', in 'rte', is neither a column"):
            response("rte", data, ENV)
        with pytest.raises(ValueError, match=r"'merge', in .* is neither a column"):
            response("merge(ret, regime)", data, ENV)


@pytest.mark.usefixtures("engine")
class TestPickling:
    def test_neither_data_nor_engine(self, data):
        made = design("bs(market, df=4) + C(regime) + double(size)", data, ENV)
        state = made.__getstate__()
        assert state["rule"] is None
        assert state["matrix"].shape == (0, made.matrix.shape[1])
        assert len(pickle.dumps(made)) < 2000
        loaded = pickle.loads(pickle.dumps(made))
        assert loaded.text == made.text
        assert loaded.intercept == "Intercept"
        assert loaded.matrix.columns.equals(made.matrix.columns)
        with pytest.raises(ValueError, match=r"loaded from a file, .* 'Intercept', 'C\(regime\)\[T.odd\]'"):
            loaded.of(data)
        assert pickle.loads(pickle.dumps(loaded)).text == made.text
        assert made.of(data).shape == made.matrix.shape

    def test_no_columns(self, data):
        assert pickle.loads(pickle.dumps(design("0", data, ENV))).matrix.shape == (0, 0)


def test_names_in_a_formula():
    found = names("1 + np.log(x.y) + bs(`a b`, df=4, knots = k) + Q( \"c d\" ) + C(z, Treatment('w')) + 1e5 * (u == v)")
    assert found.variables == {"np", "x", "a b", "k", "c d", "z", "u", "v"}
    assert found.functions == {"bs", "Q", "C", "Treatment"}


def test_mentioned_columns_come_in_their_order():
    assert mentioned("b + a:c + log(d)", ["d", "c", "b", 1, ("a",), "a", "e"]) == ["d", "c", "b", "a"]
    assert mentioned("log(d) + Treatment('e') + x.a", ["a", "e", "log", "d"]) == ["d"]


def test_as_frame():
    frame = pd.DataFrame({"x": [1, 2]})
    assert as_frame(frame) is frame
    pd.testing.assert_frame_equal(as_frame(pa.table({"x": [1, 2]})), frame)
    with pytest.raises(TypeError, match="not dict"):
        as_frame({"x": [1]})
    with pytest.raises(TypeError, match="not Int64Array"):
        as_frame(pa.array([1, 2]))
