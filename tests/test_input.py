"""What bad input gets: an error that names the argument and the labels, before any work."""

import numpy as np
import pandas as pd
import pytest
from oracle import make_case

import mlfm
from mlfm import Hierarchy, MultilevelFactorModel

pytestmark = pytest.mark.portable

FEATURES = [f"x{j}" for j in range(12)]
GROUPS = pd.DataFrame({"sector": list("aaaaaabbbbbb"), "industry": list("ppprrrpppsss")}, index=FEATURES)
DATA = pd.DataFrame(np.random.default_rng(0).standard_normal((30, 12)), columns=FEATURES)
RANKS = {"global": 1, "sector": 1}


def model(data=DATA, hierarchy=GROUPS[["sector"]], ranks=RANKS, **options):
    return MultilevelFactorModel(data, hierarchy=hierarchy, ranks=ranks, **options)


def with_columns():
    columns = pd.MultiIndex.from_arrays([GROUPS["sector"], GROUPS["industry"], GROUPS.index])
    return DATA.set_axis(columns, axis=1)


def fitted(*arguments, **options):
    return model(*arguments, **options).fit(tol=1, search="none").llf


def test_every_way_to_give_the_hierarchy():
    expected = fitted()
    hierarchy = Hierarchy(GROUPS[["sector"]])
    assert fitted(hierarchy=hierarchy) == expected
    assert fitted(hierarchy=hierarchy.reindex(FEATURES[::-1])) == expected
    assert fitted(hierarchy=GROUPS[["sector"]].iloc[::-1]) == expected
    assert fitted(with_columns(), hierarchy=["sector"]) == expected
    assert fitted(with_columns(), hierarchy=None) == expected  # industry has rank 0
    assert fitted(with_columns(), hierarchy=hierarchy) == expected
    assert fitted(DATA.to_numpy(), hierarchy=hierarchy) == expected
    assert fitted(ranks=[1, 1]) == expected
    assert fitted(ranks=pd.Series(RANKS)) == expected
    assert fitted(ranks=np.array([1, 1])) == expected


def test_plain_columns_and_no_hierarchy_are_a_flat_model():
    flat = MultilevelFactorModel(DATA, ranks=[2])
    assert flat.hierarchy.levels == ("global",)
    with pytest.raises(ValueError, match="unknown level 'sector'; the levels are 'global'"):
        MultilevelFactorModel(DATA, ranks=RANKS)


@pytest.mark.parametrize("dtype", ["int64", "float32", "Int64", "Float64", "boolean"])
def test_numeric_dtypes(dtype):
    frame = (DATA * 3).round() if dtype != "boolean" else DATA > 0
    expected = fitted(frame.astype(float))
    assert fitted(frame.astype(dtype)) == pytest.approx(expected, rel=1e-6)


def change(column, value, rows=slice(None)):
    frame = DATA.copy()
    frame.loc[frame.index[rows], column] = value
    return frame


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"data": DATA.rename(columns={"x3": "new"})}, ValueError, "hierarchy: .*not in the hierarchy: 'new'.*'x3'"),
        ({"data": DATA[FEATURES[:10]]}, ValueError, "in the hierarchy and not in endog: 'x10', 'x11'"),
        ({"data": DATA.set_axis([*FEATURES[:-1], "x0"], axis=1)}, ValueError, "endog: .*more than once: 'x0'"),
        ({"data": DATA.assign(x2="text")}, TypeError, "endog: columns are not numeric: 'x2'"),
        ({"data": DATA.assign(x2=1j)}, TypeError, "not numeric: 'x2'"),
        ({"data": DATA.assign(x5=3.3)}, ValueError, "endog: columns do not vary: 'x5'"),
        ({"data": DATA.assign(x5=1e10)}, ValueError, "do not vary: 'x5'"),
        ({"data": change("x7", np.inf, [3])}, ValueError, "endog: infinite values in columns 'x7'"),
        (
            {"data": change("x7", np.nan, [3, 4]), "missing": "raise"},
            ValueError,
            "2 values missing, in 2 observations, in columns 'x7'",
        ),
        ({"data": change("x7", np.nan)}, ValueError, "no values at all: 'x7'"),
        ({"data": change("x7", np.nan), "missing": "drop"}, ValueError, "no values at all: 'x7'"),
        ({"data": DATA.iloc[:1]}, ValueError, "at least 2 observations are needed, not 1"),
        ({"data": DATA.iloc[:0]}, ValueError, "at least 2 observations are needed, not 0"),
        ({"data": DATA.to_numpy()[:, :5], "hierarchy": Hierarchy(GROUPS)}, ValueError, "5 columns.*12 features"),
        ({"data": DATA.to_numpy()[:, 0]}, ValueError, "endog: a matrix is needed"),
        ({"data": DATA.to_numpy()[None]}, ValueError, "endog: a matrix is needed"),
        ({"data": DATA.to_numpy().astype(str)}, TypeError, "endog: real numbers are needed"),
        ({"data": DATA.to_numpy(), "hierarchy": None}, TypeError, "hierarchy: needed when endog is an array"),
        ({"hierarchy": {"x0": "a"}}, TypeError, "hierarchy must be a Hierarchy"),
        ({"data": with_columns(), "hierarchy": ["nope"]}, ValueError, "unknown levels: 'nope'"),
        ({"hierarchy": GROUPS.assign(sector=None)}, ValueError, "'sector': missing or empty labels"),
        ({"ranks": {"globe": 1}}, ValueError, "ranks: unknown level 'globe'; the levels are 'global', 'sector'"),
        ({"ranks": {"global": -1}}, ValueError, "ranks: .*'global' must not be negative"),
        ({"ranks": {"global": 1.5}}, ValueError, "ranks: .*'global' must be a whole number, not 1.5"),
        ({"ranks": {"global": "2"}}, ValueError, "ranks: .*must be a whole number"),
        ({"ranks": {"global": None}}, TypeError, "ranks: .*must be a whole number"),
        ({"ranks": {"global": True}}, TypeError, "ranks: .*must be a whole number"),
        ({"ranks": {"sector": 7}}, ValueError, "'sector' has rank 7, more than the 6 features of its largest group"),
        ({"ranks": {"global": 5}, "data": DATA.iloc[:4]}, ValueError, "'global' has rank 5, more than the 4 observ"),
        ({"ranks": [1]}, ValueError, r"ranks: 1 numbers for 2 levels \('global', 'sector'\)"),
        ({"ranks": 2}, TypeError, "ranks must map level names"),
        ({"ranks": "global=1"}, TypeError, "ranks must map level names"),
        ({"trend": "ct"}, ValueError, "trend must be one of 'c', 'n', not 'ct'"),
        ({"missing": "ignore"}, ValueError, "missing must be one of 'ml', 'drop', 'raise'"),
        ({"uniqueness_floor": 0}, ValueError, "uniqueness_floor must lie between 1e-10 and 1"),
        ({"uniqueness_floor": 1e-12}, ValueError, "uniqueness_floor must lie between 1e-10 and 1"),
        ({"uniqueness_floor": "a"}, ValueError, "uniqueness_floor must lie between 1e-10 and 1"),
        ({"data": DATA * 1e160}, ValueError, "endog: .*'x0'.*use other units"),
        ({"data": DATA * 1e-160}, ValueError, "endog: .*'x0'.*use other units"),
        ({"data": np.ma.masked_less(DATA.to_numpy(), -1)}, TypeError, "endog: a masked array"),
        ({"data": {"x0": [1, 2]}}, ValueError, "endog: a matrix is needed .*, not dict"),
        ({"uniqueness_floor": 1.5}, ValueError, "uniqueness_floor must lie between 1e-10 and 1"),
    ],
)
def test_bad_input_is_named(options, error, words):
    with pytest.raises(error, match=words):
        model(**options)


def test_dropping_says_how_many():
    frame = change("x7", np.nan, [3, 4])
    frame.loc[4, "x1"] = np.nan
    with pytest.warns(mlfm.DroppedObservationsWarning, match="2 observations of 30 left out.*'x1', 'x7'"):
        dropped = model(frame, missing="drop")
    assert dropped.nobs == 28
    assert list(dropped.row_labels) == [i for i in range(30) if i not in (3, 4)]
    assert dropped.fit(tol=1, search="none").llf == fitted(DATA.drop(index=[3, 4]))


@pytest.mark.parametrize("trend", ["c", "n"])
def test_two_observations_and_one_feature_are_enough(trend):
    with pytest.warns(mlfm.IdentificationWarning, match="global 'global' .1 feature for 1 factor"):
        smallest = MultilevelFactorModel(pd.DataFrame({"x": [1.0, 3.0]}), ranks=[1], trend=trend)
    results = smallest.fit(tol=1e-6)
    # The variance of one feature is all there is to estimate.
    variance = 1.0 if trend == "c" else 5.0
    assert results.covariance.to_dense()[0, 0] == pytest.approx(variance, rel=1e-4)
    assert results.loadings.shape == (1, 1)


def test_groups_that_are_not_identified_are_named():
    groups = GROUPS.assign(industry=["p", "p", "q", "q", "q", "q", *["s"] * 6])
    with pytest.warns(mlfm.IdentificationWarning) as caught:
        named = MultilevelFactorModel(DATA, hierarchy=groups, ranks=[1, 1, 1])
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "2 groups not identified" in message
    assert "('a', 'p') (2 features for 1 factor)" in message
    assert "('b', 's') (the same features as its parent)" in message
    assert [str(group.group) for group in named.unidentified] == ["('a', 'p')", "('b', 's')"]
    # Where the parent has no factors there is nothing to be confused with.
    assert (
        MultilevelFactorModel(DATA, hierarchy=groups[["industry"]].replace("p", "q"), ranks=[0, 1]).unidentified == []
    )


def test_a_group_smaller_than_its_rank_is_named_and_fitted():
    groups = pd.DataFrame({"g": ["a"] * 11 + ["b"]}, index=FEATURES)
    with pytest.warns(mlfm.IdentificationWarning, match="g 'b' .1 feature for 2 factors"):
        small = MultilevelFactorModel(DATA, hierarchy=groups, ranks=[0, 2])
    results = small.fit(tol=1e-3, search="none")
    # One feature cannot have more than one canonical loading, and counts one.
    assert results.loadings.loc["x11"].iloc[1] == pytest.approx(0, abs=1e-12)
    assert results.df_model == 12 + 12 + (2 * 11 - 1) + 1


def test_arrow_tables_are_taken_by_name():
    pyarrow = pytest.importorskip("pyarrow")
    order = np.random.default_rng(0).permutation(FEATURES)
    table = pyarrow.Table.from_pandas(DATA[order], preserve_index=False)
    assert fitted(table) == pytest.approx(fitted(), rel=1e-6)
    assert model(table).endog_names == list(order)


def test_other_labelled_tables_are_refused():
    class Table:
        columns = FEATURES

        def __array__(self, dtype=None, copy=None):
            return DATA.to_numpy()

    with pytest.raises(TypeError, match="endog: a pandas DataFrame or an array is needed"):
        model(Table())


def test_the_data_of_a_model_cannot_be_replaced():
    case = make_case([[0] * 4], (1,))
    model = MultilevelFactorModel(case.frame, ranks=[1])
    with pytest.raises(AttributeError, match="make another model"):
        model.endog = case.Y
    np.testing.assert_allclose(model.endog, case.Y, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "Float32"])
def test_single_precision_is_kept(dtype):
    case = make_case([[0] * 4], (1,))
    assert MultilevelFactorModel(case.frame.astype(dtype), ranks=[1]).endog.dtype == np.float32
