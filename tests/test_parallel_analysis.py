"""Parallel analysis by level: against eigenvalues worked out plainly, and simulations with known ranks."""

import itertools

import numpy as np
import pandas as pd
import pytest

import mlfm
from mlfm import Hierarchy, parallel_analysis
from mlfm.inference import shuffling

FEATURES = [f"x{j}" for j in range(40)]
GROUPS = pd.DataFrame({"group": list("abcde" * 8), "half": list("abcde" * 4) + list("ABCDE" * 4)}, index=FEATURES)


def sampled(ranks, nobs, seed, groups=GROUPS, low=0.6, high=1.0):
    """Data of strong factors; features of a group do not stand together."""
    hierarchy, rng = Hierarchy(groups), np.random.default_rng(seed)
    shape = (len(groups), sum(ranks))
    F, D = rng.uniform(low, high, shape) * rng.choice([-1, 1], shape), rng.uniform(0.4, 0.8, len(groups))
    return mlfm.MultilevelCovariance(hierarchy, F, D, ranks=list(ranks)).sample(nobs, rng=seed)


def ranks_of(*args, **options):
    return parallel_analysis(*args, **options).ranks.tolist()


# Known ranks


@pytest.mark.parametrize("ranks", [(0, 0, 0), (2, 0, 0), (0, 1, 0), (1, 1, 0), (2, 1, 0), (1, 0, 1)])
def test_strong_factors_are_found(ranks):
    # Of one draw the guess may have a factor too many; of five it is mostly right.
    found = [tuple(ranks_of(sampled(ranks, 200, seed), GROUPS)) for seed in range(5)]
    assert found.count(ranks) >= 4, found


def test_group_factors_are_no_global_ones():
    """Shuffled feature by feature, as in a flat analysis, the same data have a factor for every group."""
    Y = sampled((0, 1, 0), 300, 1)
    assert ranks_of(Y, GROUPS) == [0, 1, 0]
    assert ranks_of(Y) == [5]


def test_more_features_than_observations():
    groups = pd.DataFrame({"group": np.repeat(range(6), 50)}, index=pd.RangeIndex(300))
    assert ranks_of(sampled((2, 1), 40, 2, groups), groups) == [2, 1]


# What is worked out


def test_leading_eigenvalues():
    rng, bounds = np.random.default_rng(0), np.array([0, 3, 6, 106, 116])
    for columns in (5, 90):
        Y = rng.standard_normal((116, columns))
        found = shuffling._leading(Y, bounds, 4)
        for k, (a, b) in enumerate(itertools.pairwise(bounds)):
            expected = np.zeros(4)
            all_of_them = np.linalg.svd(Y[a:b], compute_uv=False)[:4] ** 2
            expected[: len(all_of_them)] = all_of_them
            np.testing.assert_allclose(found[k], expected, atol=1e-9)


@pytest.mark.parametrize("columns", [5, 90])
def test_principal_components_are_taken_out(columns):
    rng, bounds = np.random.default_rng(0), np.array([0, 10, 30])
    Y, weights = rng.standard_normal((30, columns)), rng.uniform(0.5, 2, columns)
    roots, left = np.sqrt(weights), Y.copy()
    shuffling._leading_components(Y * roots, bounds, 2).take_out(left)
    for a, b in itertools.pairwise(bounds):
        U, s, Vt = np.linalg.svd(Y[a:b] * roots, full_matrices=False)
        np.testing.assert_allclose(left[a:b] * roots, (U[:, 2:] * s[2:]) @ Vt[2:], atol=1e-10)


def test_parts_are_shuffled_as_wholes():
    Y = np.arange(60.0).reshape(6, 10)
    shuffled = shuffling._shuffled(Y, np.array([0, 2, 5, 6]), np.random.default_rng(1))
    for a, b in ((0, 2), (2, 5), (5, 6)):
        order = (shuffled[a] - Y[a, 0]).astype(int)
        assert sorted(order) == list(range(10))
        np.testing.assert_array_equal(shuffled[a:b], Y[a:b, order])
    assert len({tuple(shuffled[a] - Y[a, 0]) for a in (0, 2, 5)}) == 3
    alone = shuffling._shuffled(Y, np.arange(7), np.random.default_rng(1)) - Y[:, [0]]
    assert (np.sort(alone, axis=1) == np.arange(10)).all()
    assert len(set(map(tuple, alone))) == 6


def test_the_table_of_a_flat_analysis():
    """Horn's own: eigenvalues of the correlations, and quantiles of those of shuffled columns."""
    Y = sampled((2, 0, 0), 150, 3)
    found = parallel_analysis(Y, n_permutations=50)
    correlations = np.linalg.eigvalsh(np.corrcoef(Y.T))[::-1]
    assert found.ranks.to_dict() == {"global": 2}
    assert list(found.table.index) == [("global", 1), ("global", 2), ("global", 3)]
    np.testing.assert_allclose(found.table["observed"], correlations[:3], rtol=1e-10)
    rng = np.random.default_rng(9)
    shuffled = [np.linalg.eigvalsh(np.corrcoef(rng.permuted(Y.to_numpy().T, axis=1)))[::-1][:3] for _ in range(200)]
    # Standard deviations of such quantiles are about 0.03.
    np.testing.assert_allclose(found.table["shuffled"], np.quantile(shuffled, 0.95, axis=0), atol=0.12)
    assert found.table["share"].tolist() == [1, 1, 0]


def test_a_level_has_what_half_of_its_features_want():
    """One group of 20 features with a factor and five of 4 without, and the other way round."""
    sizes = [20, 4, 4, 4, 4, 4]
    groups = pd.DataFrame({"group": np.repeat(range(6), sizes)}, index=FEATURES)
    rng = np.random.default_rng(4)
    for with_factor, rank in (({0}, 1), ({1, 2, 3, 4}, 0)):
        Y = rng.standard_normal((300, 40))
        for k in with_factor:
            own = np.flatnonzero(groups["group"] == k)
            Y[:, own] += 1.5 * rng.standard_normal((300, 1))
        found = parallel_analysis(pd.DataFrame(Y, columns=FEATURES), groups)
        assert found.ranks.to_dict() == {"global": 0, "group": rank}
        share = sum(sizes[k] for k in with_factor) / 40
        # A group of 4 may seem to have one by chance.
        assert found.table.loc[("group", 1), "share"] == pytest.approx(share, abs=0.101)


# Data of all kinds


def test_labels_and_the_order_of_columns_do_not_matter():
    """The shuffling sees groups in another order, so that only its quantiles move."""
    Y = sampled((2, 1, 0), 200, 4)
    order = np.random.default_rng(0).permutation(40)
    groups = GROUPS.iloc[order].set_axis(order)
    groups.columns = [("a", 1), 5]
    other = parallel_analysis(Y.iloc[:, order].set_axis(order, axis=1), groups)
    assert other.ranks.to_dict() == {"global": 2, ("a", 1): 1, 5: 0}
    first = parallel_analysis(Y, GROUPS)
    np.testing.assert_allclose(other.table["observed"], first.table["observed"], rtol=1e-9)


def test_units_and_means_do_not_matter():
    Y = sampled((1, 1, 0), 200, 5)
    one, two = parallel_analysis(Y, GROUPS), parallel_analysis(Y * np.geomspace(1e-3, 1e3, 40) + 7, GROUPS)
    pd.testing.assert_frame_equal(one.table, two.table, rtol=1e-8)


def test_jobs_do_not_matter_and_seeds_do():
    Y = sampled((1, 1, 0), 100, 6)
    one, two, other = (parallel_analysis(Y, GROUPS, rng=rng, n_jobs=n) for rng, n in ((3, 1), (3, 2), (4, 1)))
    pd.testing.assert_frame_equal(one.table, two.table, check_exact=True)
    assert not one.table.equals(other.table)


def test_missing_values():
    Y = sampled((2, 1, 0), 300, 7)
    Y = Y.mask(np.random.default_rng(1).random(Y.shape) < 0.1)
    assert ranks_of(Y, GROUPS) == [2, 1, 0]


def test_observations_seen_several_times():
    Y = sampled((1, 1, 0), 120, 8)
    often = np.random.default_rng(2).integers(0, 4, 120)
    counted = parallel_analysis(Y, GROUPS, freq_weights=often)
    repeated = parallel_analysis(Y.iloc[np.repeat(np.arange(120), often)], GROUPS)
    pd.testing.assert_frame_equal(counted.table, repeated.table, rtol=1e-8)


def test_weights():
    Y, weights = sampled((1, 1, 0), 200, 9), np.random.default_rng(1).uniform(0.5, 2, 200)
    found = parallel_analysis(Y, GROUPS, weights=weights)
    assert found.ranks.tolist() == [1, 1, 0]
    weights /= weights.sum()
    E = Y - weights @ Y
    R = (E.T * weights) @ E
    s = np.sqrt(np.diag(R))
    assert found.table.loc[("global", 1), "observed"] == pytest.approx(np.linalg.eigvalsh(R / np.outer(s, s))[-1])


def test_covariates_are_no_factors():
    x = pd.Series(np.random.default_rng(1).standard_normal(200), name="x")
    Y = sampled((0, 1, 0), 200, 10) + 5 * x.to_numpy()[:, None]
    assert ranks_of(Y, GROUPS)[0] == 1
    assert ranks_of(Y, GROUPS, exog=x) == [0, 1, 0]


def test_groups_of_one_and_groups_like_their_parents_have_no_say():
    groups = GROUPS[["group"]].assign(same=GROUPS["group"], own=FEATURES)
    found = parallel_analysis(sampled((1, 1, 0), 200, 11), groups)
    assert found.ranks.to_dict() == {"global": 1, "group": 0, "same": 1, "own": 0}
    assert set(found.table.index.get_level_values("level")) == {"global", "same"}


def test_one_feature():
    found = parallel_analysis(sampled((1, 0, 0), 50, 1)[["x0"]])
    assert found.ranks.tolist() == [0]
    assert len(found.table) == 0
    assert "global 0" in str(found)


def test_the_largest_rank():
    Y = sampled((3, 1, 0), 200, 12)
    assert ranks_of(Y, GROUPS, max_rank=2)[0] == 2
    assert ranks_of(Y, GROUPS, max_rank={"global": 0})[0] == 0
    found = parallel_analysis(Y, GROUPS, max_rank={"global": 1})
    assert "global 1" in str(found)
    assert "<table" in found._repr_html_()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_permutations": 0}, "n_permutations must be a whole number, 1 or more"),
        ({"quantile": 1}, "quantile must lie between 0 and 1"),
        ({"quantile": True}, "quantile must lie between 0 and 1"),
        ({"max_rank": 1.5}, "max_rank must be a whole number"),
        ({"max_rank": {"sector": 1}}, "max_rank: unknown level 'sector'"),
        ({"max_rank": {"half": 5}}, "max_rank: more factors than the largest group has features"),
        ({"n_jobs": 0}, "n_jobs must be a whole number"),
        ({"rng": -1}, "rng must be a seed"),
    ],
)
def test_errors(options, said):
    with pytest.raises(ValueError, match=said):
        parallel_analysis(sampled((1, 0, 0), 20, 1), GROUPS, **options)
