import copy
import datetime
import itertools
import pickle

import numpy as np
import pandas as pd
import pytest

from mlfm import Hierarchy

pytestmark = pytest.mark.portable

LABELS = pd.DataFrame(
    {
        "sector": ["Tech", "Energy", "Tech", "Energy", "Tech", "Health"],
        "industry": ["Other", "Oil", "Chips", "Other", "Other", "Drugs"],
    },
    index=["a", "b", "c", "d", "e", "f"],
)


def test_labels_nest_by_path():
    hierarchy = Hierarchy(LABELS)
    assert hierarchy.levels == ("global", "sector", "industry")
    assert hierarchy.n_groups.to_dict() == {"global": 1, "sector": 3, "industry": 5}
    groups = {name: list(members) for name, members in hierarchy.groups("industry").items()}
    assert groups == {
        ("Tech", "Other"): ["a", "e"],
        ("Tech", "Chips"): ["c"],
        ("Energy", "Oil"): ["b"],
        ("Energy", "Other"): ["d"],
        ("Health", "Drugs"): ["f"],
    }
    assert list(hierarchy.groups("sector")) == ["Tech", "Energy", "Health"]
    assert list(hierarchy.groups("global")["global"]) == list("abcdef")


def test_group_order_makes_every_group_contiguous():
    hierarchy = Hierarchy(LABELS)
    assert hierarchy.permutation.tolist() == [0, 4, 2, 1, 3, 5]
    assert [bounds.tolist() for bounds in hierarchy.offsets] == [[0, 6], [0, 3, 5, 6], [0, 2, 3, 4, 5, 6]]
    ordered = hierarchy.features[hierarchy.permutation]
    for level, bounds in zip(hierarchy.levels, hierarchy.offsets, strict=True):
        pieces = [list(ordered[a:b]) for a, b in itertools.pairwise(bounds)]
        assert [sorted(piece) for piece in pieces] == [list(members) for members in hierarchy.groups(level).values()]


def test_three_ways_in_agree():
    columns = pd.MultiIndex.from_arrays([LABELS["sector"], LABELS["industry"], LABELS.index])
    assert Hierarchy(columns) == Hierarchy(LABELS)
    assert Hierarchy(columns, levels=["sector", "industry"]) == Hierarchy(LABELS)
    assert Hierarchy(columns, levels=["global", "sector"]) == Hierarchy(LABELS[["sector"]])
    assert Hierarchy(Hierarchy(LABELS)) == Hierarchy(LABELS)
    assert Hierarchy(LABELS.index).levels == ("global",)


def test_unnamed_levels_of_a_multiindex_get_numbers():
    columns = pd.MultiIndex.from_tuples([("A", "p", "x"), ("B", "q", "y")])
    assert Hierarchy(columns).levels == ("global", "level_1", "level_2")


@pytest.mark.parametrize(
    "labels",
    [
        [3, 1, 3, 2],
        [1.5, 2.5, 1.5, 1.5],
        [("x", 1), ("y", 2), ("x", 1), ("x", 2)],
        [datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)] * 2,
        [True, False, True, True],
        ["a", 1, "a", 2.5],
        pd.Categorical(["u", "v", "u", "w"]),
        pd.Series([1, 2, 1, 3], dtype="Int64").array,
        pd.to_datetime(["2020", "2021", "2020", "2022"]),
    ],
    ids=["int", "float", "tuple", "date", "bool", "mixed", "categorical", "nullable", "timestamp"],
)
def test_labels_may_be_any_hashable(labels):
    frame = pd.DataFrame({"g": labels}, index=["p", "q", "r", "s"])
    hierarchy = Hierarchy(frame)
    distinct = list(dict.fromkeys(list(labels)))
    assert list(hierarchy.groups("g")) == distinct
    assert hierarchy.n_groups["g"] == len(distinct)
    assert pickle.loads(pickle.dumps(hierarchy)) == hierarchy
    repr(hierarchy)


def test_feature_names_may_be_any_hashable():
    frame = pd.DataFrame({"g": ["a", "b", "a"]}, index=[7, ("x", 1), 2.5])
    assert list(Hierarchy(frame).groups("g")["a"]) == [7, 2.5]


def test_renaming_groups_changes_nothing_else():
    renamed = LABELS.replace({"sector": {"Tech": "zz", "Energy": "aa"}, "industry": {"Other": "!", "Oil": "~"}})
    before, after = Hierarchy(LABELS), Hierarchy(renamed)
    assert before != after
    assert (before.permutation == after.permutation).all()
    assert all((x == y).all() for x, y in zip(before.offsets, after.offsets, strict=True))


def test_coarsen_keeps_groups_apart():
    hierarchy = Hierarchy(LABELS)
    assert hierarchy.coarsen(["sector"]) == Hierarchy(LABELS[["sector"]])
    assert hierarchy.coarsen(["global"]).levels == ("global",)
    assert hierarchy.coarsen(["sector", "industry"]) == hierarchy
    # "Other" stands under two sectors: without the sectors these stay two groups.
    fine = hierarchy.coarsen(["industry"])
    assert fine.n_groups["industry"] == 5
    assert list(fine.groups("industry")["Tech", "Other"]) == ["a", "e"]


def test_reindex_puts_features_in_another_order():
    hierarchy = Hierarchy(LABELS).reindex(["f", "a", "c"])
    assert list(hierarchy.features) == ["f", "a", "c"]
    assert list(hierarchy.groups("sector")) == ["Health", "Tech"]
    with pytest.raises(ValueError, match="not in the hierarchy: 'zz'"):
        hierarchy.reindex(["f", "zz"])


def test_frozen():
    hierarchy = Hierarchy(LABELS)
    for name in ("levels", "features", "permutation", "offsets", "anything"):
        with pytest.raises(AttributeError):
            setattr(hierarchy, name, None)
    with pytest.raises(ValueError, match="read-only"):
        hierarchy.permutation[0] = 3
    with pytest.raises(ValueError, match="read-only"):
        hierarchy.offsets[1][0] = 3
    frame = hierarchy.to_frame()
    frame.loc["a", "sector"] = "changed"
    assert hierarchy == Hierarchy(LABELS)


def test_equality_hash_and_copies():
    hierarchy = Hierarchy(LABELS)
    for twin in (pickle.loads(pickle.dumps(hierarchy)), copy.deepcopy(hierarchy), Hierarchy(LABELS.copy())):
        assert twin == hierarchy
        assert hash(twin) == hash(hierarchy)
        assert (twin.permutation == hierarchy.permutation).all()
    assert hierarchy != Hierarchy(LABELS.iloc[::-1])
    assert hierarchy != "hierarchy"


def test_summary_and_repr():
    hierarchy = Hierarchy(LABELS)
    assert hierarchy.summary().to_dict("list") == {
        "groups": [1, 3, 5],
        "smallest": [6, 1, 1],
        "median": [6.0, 2.0, 1.0],
        "largest": [6, 3, 2],
    }
    text = repr(hierarchy)
    assert "6 features" in text
    assert "├─ Tech (3)" in text
    assert "│  ├─ Other (2)" in text
    many = Hierarchy(pd.DataFrame({"g": np.arange(1000)}, index=np.arange(1000)))
    assert repr(many).count("\n") < 10
    assert "996 more" in repr(many)


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (LABELS.assign(sector=["Tech", None, "Tech", "Energy", np.nan, "Health"]), ValueError, "'sector'.*'b', 'e'"),
        (LABELS.assign(industry=["Other", "", "Chips", "  ", "Other", "x"]), ValueError, "'industry'.*'b', 'd'"),
        (LABELS.set_axis(["a", "b", "c", "a", "e", "b"]), ValueError, "more than once: 'a', 'b'"),
        (LABELS.set_axis(["a", None, "c", "d", "e", "f"]), ValueError, "1 feature name missing"),
        (LABELS.iloc[:0], ValueError, "no features"),
        (LABELS.rename(columns={"sector": "global"}), ValueError, "cannot be called 'global'"),
        (LABELS.rename(columns={"industry": "unique"}), ValueError, "cannot be called 'unique'"),
        (LABELS.set_axis(["g", "g"], axis=1), ValueError, "levels occur twice: 'g'"),
        (pd.DataFrame({"g": [["list"], ["list"]]}, index=["a", "b"]), TypeError, "hashable"),
        (LABELS.set_index("sector", append=True), TypeError, "not a MultiIndex"),
        ({"a": "Tech"}, TypeError, "not dict"),
    ],
)
def test_bad_labels_are_named(labels, error, words):
    with pytest.raises(error, match=words):
        Hierarchy(labels)


@pytest.mark.parametrize(
    ("levels", "error", "words"),
    [
        (["nope"], ValueError, "unknown levels: 'nope'; the levels are 'global', 'sector', 'industry'"),
        (["industry", "sector"], ValueError, "coarse to fine"),
        (["sector", "sector"], ValueError, "once each"),
        ("sector", TypeError, "not the string"),
    ],
)
def test_bad_level_names(levels, error, words):
    with pytest.raises(error, match=words):
        Hierarchy(LABELS, levels=levels)
    with pytest.raises(ValueError, match="unknown level 'x'"):
        Hierarchy(LABELS).groups("x")
