"""Groups found in data and in matrices: cuts against the definition, known groups, and what is refused."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

import mlfm
from mlfm import Hierarchy, lowrank
from mlfm.partitioning import data_partitions
from mlfm.spectral import Array, SquaredProducts, affinity_of_data, crosswise, halves, normalised_cut, regrouped


def rng(seed=0):
    return np.random.default_rng(seed)


def affinities(n, seed=0):
    S = rng(seed).random((n, n))
    S = S + S.T
    np.fill_diagonal(S, 0)
    return S


def cut_of(S, side):
    """The normalised cut, from the definition."""
    across = S[np.ix_(side, ~side)].sum()
    return across / S[side].sum() + across / S[~side].sum()


def factor_data(hierarchy, ranks, nobs, seed, noise=1.0):
    """Observations x features of a multilevel factor model with normal loadings."""
    random, n = rng(seed), hierarchy.n_features
    Y = noise * random.standard_normal((nobs, n))
    for level, rank in zip(hierarchy.levels, ranks, strict=True):
        for members in hierarchy.groups(level).values():
            where = hierarchy.features.get_indexer(members)
            Y[:, where] += random.standard_normal((nobs, rank)) @ random.standard_normal((rank, len(where)))
    return pd.DataFrame(Y, columns=hierarchy.features)


# Affinities and cuts


def test_squared_products_are_those_of_the_array():
    Y = rng().standard_normal((30, 7))
    dense, implicit = Array((Y @ Y.T) ** 2), SquaredProducts(Y)
    X = rng(1).standard_normal((30, 3))
    np.testing.assert_allclose(implicit.times(X), dense.times(X), rtol=1e-11, atol=1e-11)
    order, places = rng(2).permutation(30), np.array([1, 4, 17, 29])
    np.testing.assert_allclose(implicit.within(order, places), dense.within(order, places), rtol=1e-11, atol=1e-11)
    by_hand = [dense.S[np.ix_(order[:k], order[:k])].sum() for k in places]
    np.testing.assert_allclose(dense.within(order, places), by_hand, rtol=1e-12)


def test_affinities_are_squared_covariances_without_those_with_oneself():
    Y = rng().standard_normal((12, 40))
    S = (Y @ Y.T / 40) ** 2
    np.fill_diagonal(S, 0)
    np.testing.assert_allclose(affinity_of_data(Y, rng()).times(np.eye(12)), S, rtol=1e-11)


def test_normalised_cut_is_the_definition():
    S = affinities(9)
    side = np.arange(9) % 3 == 0
    assert normalised_cut(Array(S), side, S.sum(axis=1)) == pytest.approx(cut_of(S, side))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("balanced", [False, True])
def test_no_single_move_or_swap_lowers_the_cut(balanced, seed):
    S = affinities(24, seed)
    cut = halves(Array(S), balanced, rng())
    assert cut.cost == pytest.approx(cut_of(S, cut.side))
    if balanced:
        assert cut.side.sum() == 12
        return
    for i in range(24):
        moved = cut.side.copy()
        moved[i] = ~moved[i]
        if moved.any() and not moved.all():
            assert cut_of(S, moved) >= cut.cost * (1 - 1e-9)


@pytest.mark.parametrize("balanced", [False, True])
def test_cut_is_the_best_of_all_where_groups_are_plain(balanced):
    S = affinities(10, 3)
    known = np.isin(np.arange(10), [0, 3, 4, 7, 8])
    S[known[:, None] != known] *= 0.2
    best = min(
        (np.isin(np.arange(10), some) for k in range(1, 6) for some in itertools.combinations(range(10), k)),
        key=lambda side: cut_of(S, side),
    )
    found = halves(Array(S), balanced, rng()).side
    assert (found == best).all() or (found == ~best).all()
    assert (best == known).all() or (best == ~known).all()


def test_unbalanced_cut_finds_a_small_group():
    S = affinities(40, 1)
    small = np.arange(40) >= 34
    S[small[:, None] != small] *= 0.05
    side = halves(Array(S), False, rng()).side
    assert (side == small).all() or (side == ~small).all()


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("balanced", [False, True])
def test_smallest_groups_can_be_cut(n, balanced):
    side = halves(Array(affinities(n)), balanced, rng()).side
    assert 0 < side.sum() < n


def test_affinities_of_nothing_can_be_cut():
    side = halves(Array(np.zeros((20, 20))), False, rng()).side
    assert 0 < side.sum() < 20


def test_regrouping_mends_misplaced_features():
    known = np.repeat(np.arange(4), 10)
    S = affinities(40, 2) * np.where(known[:, None] == known, 1.0, 0.1)
    start = known.copy()
    start[[0, 11, 25, 39]] = [3, 2, 0, 1]
    assert (regrouped(Array(S), start) == known).all()


@pytest.mark.parametrize("balanced", [False, True])
def test_rows_and_columns_that_go_together(balanced):
    row, column = rng(0).permutation(np.arange(20) % 2 == 0), rng(1).permutation(np.arange(30) % 2 == 0)
    S = rng(2).random((20, 30)) * np.where(row[:, None] == column, 1.0, 0.3)
    found = crosswise(S, balanced, rng())
    if found.rows[0] != row[0]:
        row, column = ~row, ~column
    assert (found.rows == row).all()
    assert (found.columns == column).all()
    other = crosswise(sparse.csr_array(S), balanced, rng())
    assert (other.rows == found.rows).all()
    assert (other.columns == found.columns).all()


# Groups of features


def test_known_groups_are_found():
    hierarchy = Hierarchy.random(120, [3, 9], rng=0)
    endog = factor_data(hierarchy, [1, 1, 1], 600, seed=1, noise=0.7)
    found = Hierarchy.from_data(endog, n_groups=[3, 9], ranks=1)
    agreement = found.agreement(hierarchy)
    # Features with loadings close to 0 in their group cannot be placed: one in ten or so.
    assert agreement.loc["level_2", "level_2"] > 0.8
    assert agreement.loc["level_3", "level_3"] > 0.6


def test_large_groups_are_found_by_products_with_the_data(monkeypatch):
    hierarchy = Hierarchy.random(300, [2], rng=0)
    endog = factor_data(hierarchy, [1, 3], 100, seed=2)
    monkeypatch.setattr("mlfm.spectral.DENSE", 50)
    monkeypatch.setattr("mlfm.spectral.SKETCH", 200)
    found = Hierarchy.from_data(endog, 2, ranks=1)
    assert adjusted_rand_score(*(h.to_frame().iloc[:, 0] for h in (found, hierarchy))) > 0.9
    monkeypatch.setattr("mlfm.spectral.SKETCH", 64)
    sketched = Hierarchy.from_data(endog, 2, ranks=1)
    assert adjusted_rand_score(*(h.to_frame().iloc[:, 0] for h in (sketched, hierarchy))) > 0.8


def test_components_of_coarser_levels_are_taken_out():
    """A global factor much stronger than those of the groups hides them until it is taken out."""
    hierarchy = Hierarchy.random(60, [2], rng=0)
    endog = factor_data(hierarchy, [0, 1], 400, seed=3) + 4 * rng(4).standard_normal((400, 1))
    known = hierarchy.to_frame().iloc[:, 0]
    without = adjusted_rand_score(Hierarchy.from_data(endog, 2, ranks=1).to_frame().iloc[:, 0], known)
    with_it = adjusted_rand_score(Hierarchy.from_data(endog, 2).to_frame().iloc[:, 0], known)
    # Loadings of both groups are alike in distribution, and one in four or so is too small to tell.
    assert without > 0.5
    assert with_it < 0.2


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("n_groups", [[], [2], [3, 7], [2, 4, 8, 16, 20]])
def test_numbers_of_groups_and_nesting(n_groups, balanced):
    endog = pd.DataFrame(rng().standard_normal((15, 20)), columns=[("f", k) for k in range(20)])
    hierarchy = Hierarchy.from_data(endog, n_groups=n_groups, balanced=balanced)
    assert hierarchy.n_groups.tolist() == [1, *n_groups]
    frame = hierarchy.to_frame()
    for coarse, fine in itertools.pairwise(frame.columns):
        assert (frame.groupby(fine)[coarse].nunique() == 1).all()
    if balanced and len(n_groups):
        sizes = frame[frame.columns[0]].value_counts()
        assert sizes.max() <= 2 * sizes.min()  # halves, and halves of a half


def test_defaults_names_and_seeds():
    endog = pd.DataFrame(rng().standard_normal((30, 16)), columns=pd.MultiIndex.from_product([["g"], range(16)]))
    hierarchy = Hierarchy.from_data(endog, 4)
    assert hierarchy.n_groups.to_dict() == {"global": 1, "level_2": 2, "level_3": 4, "level_4": 8}
    assert hierarchy.features.tolist() == list(range(16))
    assert hierarchy == Hierarchy.from_data(endog.to_numpy(), 4)
    assert Hierarchy.from_data(endog, 2, levels=["half"]).levels == ("global", "half")
    assert Hierarchy.from_data(endog, 1).levels == ("global",)
    # Units of the features do not matter.
    assert hierarchy == Hierarchy.from_data(endog * np.arange(1, 17) - 5, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, TypeError, "n_levels, or n_groups, is needed"),
        ({"n_levels": 2.0}, TypeError, "n_levels must be a whole number"),
        ({"n_levels": 0}, ValueError, "n_levels: there is always the global level"),
        ({"n_levels": 9}, ValueError, "n_levels: 9 levels that double need 256 features, not 8"),
        ({"n_levels": 3, "n_groups": [2]}, ValueError, "n_groups: 1 number for 2 levels below the global one"),
        ({"n_groups": [4, 2]}, ValueError, "n_groups must increase"),
        ({"n_groups": [9]}, ValueError, "n_groups: 9 groups, but there are only 8 features"),
        ({"n_levels": 2, "method": "ward"}, ValueError, "method must be one of 'spectral', not 'ward'"),
        ({"n_levels": 2, "ranks": -1}, ValueError, "ranks must be whole numbers"),
        ({"n_levels": 2, "ranks": "11"}, TypeError, "ranks must be a whole number, or one for each level"),
        ({"n_levels": 2, "ranks": [1, 1, 1]}, ValueError, "ranks: 3 numbers for 2 levels"),
        ({"n_levels": 2, "levels": ["a", "b"]}, ValueError, "levels"),
        ({"n_levels": 2, "rng": "x"}, ValueError, "rng must be a seed"),
    ],
)
def test_bad_requests(arguments, error, words):
    with pytest.raises(error, match=words):
        Hierarchy.from_data(rng().standard_normal((20, 8)), **arguments)


def test_bad_data():
    endog = pd.DataFrame(rng().standard_normal((20, 4)), columns=list("abcd"))
    with pytest.raises(ValueError, match="endog: columns do not vary: 'c'"):
        Hierarchy.from_data(endog.assign(c=7.1), 2)
    with pytest.raises(ValueError, match="endog: values are missing or infinite in 1 column: 'b'"):
        Hierarchy.from_data(endog.mask(np.eye(20, 4, 1, dtype=bool) & (endog.columns == "b")), 2)
    with pytest.raises(ValueError, match="observations x features"):
        Hierarchy.from_data(endog["a"], 2)
    with pytest.raises(ValueError, match="occur more than once"):
        Hierarchy.from_data(endog.set_axis(list("abca"), axis=1), 2)


def test_a_component_of_everything_leaves_nothing_to_cut_by():
    """More components than features: cuts are arbitrary, but there are as many groups as asked for."""
    partitions = data_partitions(rng().standard_normal((6, 30)), [2, 4], [10, 10, 10], False, rng())
    assert [len(set(partition.tolist())) for partition in partitions] == [2, 4]


def test_found_groups_fit_better_than_random_ones():
    data = mlfm.datasets.load("abilities")
    fits = {
        name: mlfm.MultilevelFactorModel(data.endog, hierarchy=hierarchy, ranks=[1, 1]).fit()
        for name, hierarchy in {
            "found": Hierarchy.from_data(data.endog, n_groups=[4]),
            "random": Hierarchy.random(data.endog.columns, [4], rng=0),
        }.items()
    }
    table = mlfm.compare(fits).table
    assert table.loc["found", "bic"] < table.loc["random", "bic"] - 100


# Groups of rows and columns


def block_matrix(seed=0):
    """An MLR matrix with shuffled rows and columns, and its groups."""
    random = rng(seed)
    row, column = random.permutation(np.arange(24) % 4), random.permutation(np.arange(32) % 4)
    A = np.where(row[:, None] // 2 == column // 2, 1.0, 0.2) * random.uniform(0.5, 1, (24, 32))
    return SimpleNamespace(A=A * np.where(row[:, None] == column, 3.0, 1.0), row=row, column=column)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array, pd.DataFrame])
@pytest.mark.parametrize("balanced", [False, True])
def test_blocks_of_a_rectangular_matrix_are_found(kind, balanced):
    known = block_matrix()
    rows, cols = lowrank.partition(kind(known.A), [2, 4], balanced=balanced)
    for level, divisor in (("level_2", 2), ("level_3", 1)):
        mine, theirs = rows.to_frame()[level], cols.to_frame()[level]
        assert adjusted_rand_score(mine, known.row // divisor) == 1
        assert adjusted_rand_score(theirs, known.column // divisor) == 1
        # And blocks are paired: group k of the rows goes with group k of the columns.
        together = mine.to_numpy()[:, None] == theirs.to_numpy()
        assert (together == (known.row[:, None] // divisor == known.column // divisor)).all()
    fitted = lowrank.fit(known.A, rows, cols, [1, 1, 1])
    scrambled = lowrank.fit(known.A, *(Hierarchy.random(k, [2, 4], rng=0) for k in (24, 32)), [1, 1, 1])
    assert fitted.relative_error < 0.5 * scrambled.relative_error


def test_default_goes_down_to_the_shorter_side():
    rows, cols = lowrank.partition(rng().random((6, 9)))
    assert rows.n_groups.tolist() == [1, 2, 4, 6]
    assert rows.levels == cols.levels
    for level in rows.levels:
        assert set(rows.paths(level)) == set(cols.paths(level))


def test_labels_are_kept():
    A = pd.DataFrame(block_matrix().A, index=[("r", i) for i in range(24)], columns=list(range(100, 132)))
    rows, cols = lowrank.partition(A, [2], levels=["half"])
    assert rows.features.tolist() == A.index.tolist()
    assert cols.features.tolist() == A.columns.tolist()
    assert rows.levels == ("global", "half")


def test_symmetric_matrices_have_one_hierarchy():
    x = rng(5).permutation(20)
    A = np.exp(-((x[:, None] - x) ** 2) / 20.0)
    rows, cols = lowrank.partition(A, [2, 4])
    assert rows is cols
    first = rows.to_frame()["level_2"].to_numpy()
    assert adjusted_rand_score(first, x < 10) == 1
    assert lowrank.partition(sparse.csr_array(A), [2, 4]).rows == rows
    by_distance = lowrank.partition(A, [2, 4], affinity=-np.abs(x[:, None] - x))
    assert by_distance.rows.agreement(rows).loc["level_2", "level_2"] == 1


def test_affinity_is_used():
    known, other = block_matrix(), rng(3).random((24, 32))
    rows, _ = lowrank.partition(other, [2, 4], affinity=known.A)
    assert adjusted_rand_score(rows.to_frame()["level_3"], known.row) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"A": np.ones(4)}, ValueError, "A: a matrix is needed"),
        ({"A": np.array([[1.0, np.nan], [1, 1]])}, ValueError, "A: 1 values are missing or infinite"),
        ({"n_groups": [7]}, ValueError, "n_groups: 7 groups"),
        ({"n_groups": [2, 2]}, ValueError, "n_groups must increase"),
        ({"affinity": np.ones((2, 2))}, ValueError, r"affinity: shape \(2, 2\), but A is 6 x 8"),
        ({"affinity": np.full((6, 8), np.inf)}, ValueError, "affinity: 48 values are missing or infinite"),
        ({"levels": ["a"]}, ValueError, "levels"),
    ],
)
def test_bad_matrices(arguments, error, words):
    with pytest.raises(error, match=words):
        lowrank.partition(**{"A": rng().random((6, 8)), "n_groups": [2, 4]} | arguments)
