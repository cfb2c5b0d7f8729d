"""Groups made at random and from dendrograms, and how far groups agree, against counting and other software."""

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import fcluster, is_monotonic, linkage
from scipy.spatial.distance import pdist
from sklearn.metrics import adjusted_rand_score

from mlfm import Hierarchy

POINTS = np.random.default_rng(3).standard_normal((40, 3))


def sets_of(hierarchy, level):
    return [frozenset(members) for members in hierarchy.groups(level).values()]


def assert_nested(hierarchy, n_groups):
    """As many groups as asked for at each level, every group within one of the level above, every feature in one."""
    assert list(hierarchy.n_groups) == [1, *n_groups]
    for coarse, fine in itertools.pairwise(hierarchy.levels):
        above = sets_of(hierarchy, coarse)
        for group in sets_of(hierarchy, fine):
            assert sum(group <= whole for whole in above) == 1
    for level in hierarchy.levels:
        assert sorted(itertools.chain(*sets_of(hierarchy, level))) == sorted(hierarchy.features)


def assert_numbered(hierarchy):
    """Labels are 1, 2, ... in group order."""
    frame = hierarchy.to_frame().iloc[hierarchy.permutation]
    for level in hierarchy.levels[1:]:
        assert list(dict.fromkeys(frame[level])) == list(range(1, hierarchy.n_groups[level] + 1))


# At random


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(
    ("n", "n_groups"), [(1, []), (6, []), (2, [2]), (7, [3]), (23, [2, 3, 11]), (23, [22, 23]), (100, [7, 8, 50])]
)
def test_random_groups_nest(n, n_groups, balanced):
    for seed in range(5):
        hierarchy = Hierarchy.random(n, n_groups, balanced=balanced, rng=seed)
        assert list(hierarchy.features) == list(range(n))
        assert_nested(hierarchy, n_groups)
        assert_numbered(hierarchy)


def squares(size, many):
    """Least sum of squares of so many sizes, by taking features in turn."""
    return sum(len(range(i, size, many)) ** 2 for i in range(many))


@pytest.mark.parametrize(
    ("n", "n_groups"), [(12, [2, 3, 4]), (13, [3, 5, 11]), (16, [2, 3, 5, 9]), (20, [4, 6, 7]), (11, [5, 6, 10])]
)
def test_balanced_sizes_have_the_least_variance_that_nesting_allows(n, n_groups):
    hierarchy = Hierarchy.random(n, n_groups, rng=4)
    for coarse, fine in itertools.pairwise(hierarchy.levels):
        above = [len(group) for group in sets_of(hierarchy, coarse)]
        k = hierarchy.n_groups[fine]
        ways = itertools.product(*(range(1, size + 1) for size in above))
        least = min(sum(map(squares, above, parts)) for parts in ways if sum(parts) == k)
        assert sum(len(group) ** 2 for group in sets_of(hierarchy, fine)) == least
    first = [len(group) for group in sets_of(hierarchy, hierarchy.levels[1])]
    assert max(first) - min(first) <= 1


def test_equal_sizes_where_there_can_be():
    hierarchy = Hierarchy.random(48, [2, 4, 12], rng=9)
    assert hierarchy.summary()["smallest"].tolist() == hierarchy.summary()["largest"].tolist() == [48, 24, 12, 4]


@pytest.mark.parametrize("balanced", [True, False])
def test_every_pair_of_features_is_as_likely_to_share_a_group(balanced):
    # 600 draws: a share of about 0.4 to 0.5 has a standard error of 0.02.
    together = np.zeros((6, 6))
    for seed in range(600):
        labels = Hierarchy.random(6, [2], balanced=balanced, rng=seed).to_frame()["level_2"].to_numpy()
        together += labels[:, None] == labels
    shares = together[np.triu_indices(6, 1)] / 600
    # Of sizes 3 and 3, 6 of 15 pairs; of 1 and 5, 10; of 2 and 4, 7.
    expected = 6 / 15 if balanced else (6 + 2 * 7 + 2 * 10) / 5 / 15
    np.testing.assert_allclose(shares, expected, atol=0.085)


def test_random_sizes_are_all_ways_to_cut_a_row():
    # Two of the four ways to cut five features in two give sizes of 1 and 4, at the finer level too.
    sizes = Counter()
    for seed in range(400):
        hierarchy = Hierarchy.random(5, [2, 3], balanced=False, rng=seed)
        sizes["two", max(map(len, sets_of(hierarchy, "level_2")))] += 1
        sizes["three", max(map(len, sets_of(hierarchy, "level_3")))] += 1
    assert sizes["two", 4] / 400 == pytest.approx(1 / 2, abs=0.11)
    # 3, 1, 1 in any order or 2, 2, 1 in any order: three ways each.
    assert sizes["three", 3] / 400 == pytest.approx(1 / 2, abs=0.11)


def test_the_same_seed_gives_the_same_groups():
    first = Hierarchy.random(30, [3, 9], rng=5)
    assert first == Hierarchy.random(30, [3, 9], rng=np.random.default_rng(5))
    assert first != Hierarchy.random(30, [3, 9], rng=6)
    assert Hierarchy.random(30, [3]) == Hierarchy.random(30, [3], rng=0)


@pytest.mark.parametrize(
    "features",
    [
        ["b", "a", "c", "d"],
        pd.Index([3.5, 1.0, 2.0, 7.0], name="gene"),
        [("x", 1), ("x", 2), ("y", 1), ("y", 2)],
        ["a", 1, ("b", 2), 2.5],
        np.array(["a", "b", "c", "d"]),
        pd.Series(["a", "b", "c", "d"], index=[4, 5, 6, 7]),
        range(10, 14),
    ],
    ids=["strings", "index", "tuples", "mixed", "array", "series", "range"],
)
def test_features_keep_their_names_and_order(features):
    for hierarchy in (
        Hierarchy.random(features, [2, 3]),
        Hierarchy.from_linkage(linkage(POINTS[:4]), [2, 3], features=features),
    ):
        assert list(hierarchy.features) == list(features)
        assert hierarchy.features.name == getattr(features, "name", None)
        assert set().union(*sets_of(hierarchy, "level_3")) == set(features)


def test_level_names():
    assert Hierarchy.random(9, [2, 3]).levels == ("global", "level_2", "level_3")
    for levels in (["area", ("sub", 1)], ["global", "area", ("sub", 1)], ("area", ("sub", 1))):
        assert Hierarchy.random(9, [2, 3], levels=levels).levels == ("global", "area", ("sub", 1))
    assert Hierarchy.from_linkage(linkage(POINTS), [2], levels=[7]).levels == ("global", 7)
    assert Hierarchy.random(3, [], levels=["global"]).levels == ("global",)


def test_groups_of_known_numbers():
    known = Hierarchy(pd.DataFrame({"g": [1, 1, 2, 3]}, index=list("abcd")))
    drawn = Hierarchy.random(known.features, known.n_groups[1:], levels=known.levels)
    assert drawn.levels == known.levels
    assert drawn.n_groups.equals(known.n_groups)


# From a dendrogram


def merged(Z, k):
    """The groups when k are left, merging one by one."""
    clusters = {i: {i} for i in range(len(Z) + 1)}
    for i, (a, b, *_) in enumerate(Z):
        if len(clusters) == k:
            break
        clusters[len(Z) + 1 + i] = clusters.pop(int(a)) | clusters.pop(int(b))
    return {frozenset(members) for members in clusters.values()}


@pytest.mark.parametrize("method", ["single", "complete", "average", "ward", "centroid", "median"])
def test_groups_are_what_the_last_merges_join(method):
    Z, n_groups = linkage(POINTS, method), [2, 5, 12, 39, 40]
    hierarchy = Hierarchy.from_linkage(Z, n_groups)
    assert_nested(hierarchy, n_groups)
    assert_numbered(hierarchy)
    for level, k in hierarchy.n_groups.items():
        assert set(sets_of(hierarchy, level)) == merged(Z, k)
        # Heights differ, so that a cut by height gives the same (an older SciPy may make fewer groups than asked for).
        if is_monotonic(Z) and len(set(fcluster(Z, k, "maxclust"))) == k:
            by_height = fcluster(Z, k, "maxclust")
            assert {frozenset(np.flatnonzero(by_height == group)) for group in set(by_height)} == merged(Z, k)


def test_counts_hold_where_heights_are_tied():
    Z = linkage(np.ones(15))  # six features, all as far from each other
    assert len(set(fcluster(Z, 3, "maxclust"))) == 1
    hierarchy = Hierarchy.from_linkage(Z, [3, 4])
    assert_nested(hierarchy, [3, 4])


def test_counts_hold_where_merges_go_down():
    # An equilateral triangle: the third corner is nearer to the middle of the first two than these are to each other.
    corners = np.array([[0, 0], [1, 0], [0.5, np.sqrt(3) / 2]])
    Z = linkage(np.vstack([corners, corners + 10]), "centroid")
    assert not is_monotonic(Z)
    assert len(set(fcluster(Z, 3, "maxclust"))) == 2
    hierarchy = Hierarchy.from_linkage(Z, [2, 3, 4, 5])
    assert_nested(hierarchy, [2, 3, 4, 5])
    assert set(sets_of(hierarchy, "level_2")) == {frozenset({0, 1, 2}), frozenset({3, 4, 5})}


def test_clear_groups_are_found_under_their_names():
    labels = np.repeat(["a", "b", "c"], 5)
    at = pd.DataFrame(np.random.default_rng(0).standard_normal((15, 2)) * 0.1, index=[f"x{i}" for i in range(15)])
    at[0] += np.where(labels == "c", 20.0, 0)
    at[1] += np.where(labels == "b", 3.0, 0)
    hierarchy = Hierarchy.from_linkage(linkage(pdist(at), "average"), [2, 3], features=at.index)
    known = pd.DataFrame({"g": labels}, index=at.index)
    assert hierarchy.agreement(known).loc["level_3", "g"] == 1
    assert hierarchy.paths("level_3").tolist() == [(1, 1), (1, 2), (2, 3)]


# What is refused


@pytest.mark.parametrize(
    ("n_groups", "error", "words"),
    [
        ([4, 2], ValueError, "must increase from level to level, coarse to fine, unlike 4, 2"),
        ([2, 2], ValueError, "must increase"),
        ([0], ValueError, "1 group or more, not 0"),
        ([-3, 2], ValueError, "1 group or more, not -3"),
        ([1, 2], ValueError, "leave the 1 out"),
        ([2, 6], ValueError, "6 groups, but there are only 5 features"),
        ([2.5], TypeError, "whole numbers, not 2.5"),
        ([True], TypeError, "whole numbers, not True"),
        (["2"], TypeError, "whole numbers, not '2'"),
        ("23", TypeError, "must be a list .* not '23'"),
        (2, TypeError, "must be a list .* not 2"),
        (None, TypeError, "must be a list .* not None"),
    ],
)
def test_bad_numbers_of_groups(n_groups, error, words):
    for make in (
        lambda: Hierarchy.random(5, n_groups),
        lambda: Hierarchy.random(5, n_groups, balanced=False),
        lambda: Hierarchy.from_linkage(linkage(POINTS[:5]), n_groups),
    ):
        with pytest.raises(error, match=f"n_groups.*{words}"):
            make()


@pytest.mark.parametrize(
    ("features", "error", "words"),
    [
        (0, ValueError, "1 or more, not 0"),
        (True, TypeError, "sequence of names, or how many there are, not True"),
        (3.0, TypeError, "not 3.0"),
        ("abc", TypeError, "not 'abc'"),
        ([], ValueError, "no features"),
        (["a", "b", "a"], ValueError, "more than once: 'a'"),
        (["a", None, "b"], ValueError, "1 feature name missing"),
        (pd.MultiIndex.from_tuples([("g", "a"), ("g", "b"), ("h", "c")]), TypeError, "get_level_values"),
    ],
)
def test_bad_features(features, error, words):
    with pytest.raises(error, match=words):
        Hierarchy.random(features, [2])


@pytest.mark.parametrize(
    ("levels", "error", "words"),
    [
        (["a"], ValueError, "1 name for 2 levels below the global one"),
        (["a", "b", "c"], ValueError, "3 names for 2 levels"),
        (["a", "a"], ValueError, "levels occur twice: 'a'"),
        (["a", "unique"], ValueError, "cannot be called 'unique'"),
        (["a", "global"], ValueError, "cannot be called 'global'"),
        ("ab", TypeError, "not the string 'ab'"),
    ],
)
def test_bad_level_names(levels, error, words):
    with pytest.raises(error, match=words):
        Hierarchy.random(5, [2, 3], levels=levels)
    with pytest.raises(error, match=words):
        Hierarchy.from_linkage(linkage(POINTS), [2, 3], levels=levels)


def test_bad_seeds():
    with pytest.raises(ValueError, match="rng must be a seed"):
        Hierarchy.random(5, [2], rng=-1)


def changed(row, column, value):
    Z = linkage(POINTS[:5])
    Z[row, column] = value
    return Z


@pytest.mark.parametrize(
    ("Z", "error", "words"),
    [
        (np.corrcoef(POINTS[:5]), ValueError, "Z must be a dendrogram.*4 columns"),
        (np.zeros((0, 4)), ValueError, "Z must be a dendrogram.*at least two"),
        (linkage(POINTS)[0], ValueError, "Z must be a dendrogram.*two-dim"),
        (changed(0, 0, 8), ValueError, "Z must be a dendrogram.*before it is formed"),
        (changed(0, 0, 0.5), ValueError, "first two columns are whole numbers"),
        (changed(0, 0, np.nan), ValueError, "first two columns are whole numbers"),
        ("Z", TypeError, "Z: real numbers are needed"),
        (None, ValueError, "Z must be a dendrogram"),
    ],
)
def test_bad_dendrograms(Z, error, words):
    with pytest.raises(error, match=words):
        Hierarchy.from_linkage(Z, [2])


def test_a_dendrogram_of_something_else():
    with pytest.raises(ValueError, match=r"features: 3 names for a dendrogram of 40; .* linkage\(endog.T\)"):
        Hierarchy.from_linkage(linkage(POINTS), [2], features=["a", "b", "c"])


# Agreement


def test_agreement_is_the_adjusted_rand_index():
    rng = np.random.default_rng(2)
    first = Hierarchy.random(60, [3, 10, 60], balanced=False, rng=1)
    # Another order of the features, other levels, and groups that have something to do with the first.
    labels = first.to_frame()["level_3"].where(rng.random(60) < 0.7, 99)
    second = Hierarchy(pd.DataFrame({"own": labels, "alone": range(60)}).iloc[rng.permutation(60)])
    found = first.agreement(second)
    assert list(found.index) == list(first.levels)
    assert list(found.columns) == list(second.levels)
    mine = first.to_frame().assign(**{"global": 1})
    theirs = second.to_frame().loc[mine.index].assign(**{"global": 1})
    for level, other in itertools.product(first.levels, second.levels):
        assert found.loc[level, other] == pytest.approx(adjusted_rand_score(mine[level], theirs[other]), abs=1e-14)
    assert 0.3 < found.loc["level_3", "own"] < 0.9
    pd.testing.assert_frame_equal(second.agreement(first), found.T.rename_axis(index="level", columns="other"))


def test_agreement_by_hand():
    # Of 15 pairs 3 are together in the first, 7 in the second and 3 in both: by chance it would be 21/15, at most 5.
    first = pd.DataFrame({"g": list("aabbcc")}, index=range(6))
    second = pd.DataFrame({"g": list("ppqqqq")}, index=range(6))
    assert Hierarchy(first).agreement(second).loc["g", "g"] == pytest.approx((3 - 21 / 15) / (5 - 21 / 15), rel=1e-14)


def test_groups_agree_with_themselves():
    hierarchy = Hierarchy.random(200, [4, 20, 200], rng=1)
    assert np.diag(hierarchy.agreement(hierarchy)).tolist() == [1, 1, 1, 1]
    one = Hierarchy.random(["only"], [])
    assert one.agreement(one).to_numpy().tolist() == [[1]]
    assert hierarchy.agreement(hierarchy).loc["global"].tolist() == [1, 0, 0, 0]


def test_random_groups_agree_by_chance_only():
    known = Hierarchy.random(500, [10], rng=1)
    each = [Hierarchy.random(500, [10], rng=seed).agreement(known).iloc[1, 1] for seed in range(2, 32)]
    assert abs(np.mean(each)) < 4 * np.std(each) / np.sqrt(30)
    assert np.std(each) < 0.01


def test_many_features_do_not_overflow():
    # Products of numbers of pairs are beyond 64 bits.
    n = 200_000
    halves = Hierarchy(pd.DataFrame({"half": np.arange(n) % 2}))
    blocks = Hierarchy(pd.DataFrame({"half": np.arange(n) < n // 2}))
    assert halves.agreement(halves).loc["half", "half"] == 1
    assert halves.agreement(blocks).loc["half", "half"] == pytest.approx(0, abs=1e-5)


def test_agreement_needs_the_same_features():
    hierarchy = Hierarchy.random(["a", "b", "c"], [2])
    with pytest.raises(ValueError, match="other: its features differ; missing there: 'c'; only there: 'z'"):
        hierarchy.agreement(Hierarchy.random(["a", "b", "z"], [2]))
    with pytest.raises(ValueError, match="missing there: none; only there: 'd'"):
        hierarchy.agreement(Hierarchy.random(["a", "b", "c", "d"], [2]))
    with pytest.raises(TypeError, match="not list"):
        hierarchy.agreement([1, 2, 2])
