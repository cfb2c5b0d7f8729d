"""Missing values: likelihood and gradient against the definition, patterns and variants by brute force, fits, and what
is expected of the values that are missing.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import (
    Case,
    dense_covariance,
    dense_loglikeobs_seen,
    dense_slope_loadings,
    dense_slopes_seen,
    make_case,
)
from scipy.optimize import minimize

import mlfm
from mlfm import MultilevelFactorModel
from mlfm._kernels.gaps import fill_gaps, residuals, sum_of_products, variant_moments
from mlfm.estimation import METHODS
from mlfm.estimation.incomplete import IncompleteClimber
from mlfm.estimation.memory import Direction
from mlfm.evidence import CompleteEvidence, IncompleteEvidence
from mlfm.incomplete import Incomplete, Surface
from mlfm.patterns import Patterns
from mlfm.sweep import Tree, Variants, Workers, tasks

pytestmark = pytest.mark.filterwarnings("ignore::mlfm.IdentificationWarning")

#: What the mean is made of: trend, and columns of exog.
MEANS = {"constant": ("c", 0), "none": ("n", 0), "constant and covariates": ("c", 2), "covariates": ("n", 2)}
MASKS = (
    "few",
    "half",
    "one value left",
    "late columns",
    "whole groups",
    "three patterns",
    "no row complete",
    "one gap",
)
KINDS = [
    *((kind, "constant") for kind in MASKS),
    *itertools.product(("half", "one value left", "whole groups"), [means for means in MEANS if means != "constant"]),
]


# Enough rows, and features in a group, for no uniqueness to end on its floor.
TREE = make_case([[0] * 18, [j // 6 for j in range(18)]], (1, 1), nobs=120, seed=9)


def mask_of(case, kind, least=3, seed=0):
    """Where values are missing; every row has a value, every column ``least`` of them (or all)."""
    rng = np.random.default_rng(seed)
    nobs, n = case.Y.shape
    mask, row = np.zeros((nobs, n), dtype=bool), np.arange(nobs)[:, None]
    if kind in ("few", "half"):
        mask = rng.random((nobs, n)) < {"few": 0.05, "half": 0.5}[kind]
    elif kind == "one value left":
        mask[nobs // 2, np.arange(n) != n // 2] = True
    elif kind == "late columns":
        mask = row < (np.arange(n) % 4) * nobs // 5
    elif kind == "whole groups":
        for k, (_, members) in enumerate(case.groups):
            mask[np.ix_(np.arange(k % 3, nobs, 3), members)] |= len(members) < n
    elif kind == "three patterns":
        mask = (rng.random((3, n)) < 0.4)[rng.integers(0, 3, nobs)]
    elif kind == "no row complete":
        mask[np.arange(nobs), rng.integers(0, n, nobs)] = True
    elif kind == "one gap":
        mask[1, n - 1] = True
    mask[mask.all(axis=1), rng.integers(n)] = False
    for j in np.flatnonzero((~mask).sum(axis=0) < least):
        gaps = np.flatnonzero(mask[:, j])
        mask[gaps[: least - (nobs - len(gaps))], j] = False
    return mask


@dataclass
class Gappy:
    """A model of data with missing values, parameters, and what the definition needs to know of them."""

    case: Case
    model: MultilevelFactorModel
    Y: np.ndarray
    X: np.ndarray
    B: np.ndarray
    weights: np.ndarray

    @cached_property
    def sigma(self):
        return self.case.sigma

    @property
    def mean(self):
        return self.X @ self.B.T

    @property
    def params(self):
        return self.model.pack(self.case.loadings, self.case.uniquenesses, self.B)

    def each(self):
        return dense_loglikeobs_seen(self.Y, self.mean, self.sigma)

    def score(self):
        by_mean, by_sigma = dense_slopes_seen(self.Y, self.mean, self.sigma, self.weights)
        F = dense_slope_loadings(self.case.groups, self.case.loadings, by_sigma)
        return np.concatenate([(by_mean.T @ self.X).ravel(), F.ravel(), np.diag(by_sigma)])


def gappy(case, kind, means="constant", seed=0, **options):
    """Data, coefficients and covariates at random; options are the model's."""
    trend, q = MEANS[means]
    rng = np.random.default_rng(seed + 100)
    nobs, n = case.Y.shape
    exog = rng.standard_normal((nobs, q))
    X = np.concatenate([np.ones((nobs, int(trend == "c"))), exog], axis=1)
    B = rng.standard_normal((n, X.shape[1]))
    Y = np.where(mask_of(case, kind, X.shape[1] + 2, seed), np.nan, case.Y + X @ B.T)
    frame = pd.DataFrame(Y, columns=case.hierarchy.features)
    model = MultilevelFactorModel(
        frame, exog if q else None, hierarchy=case.hierarchy, ranks=list(case.ranks), trend=trend, **options
    )
    return Gappy(case, model, Y, X, B, np.ones(nobs))


def close(found, expected, rtol):
    """Equal to rounding, small entries measured by the largest."""
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * (1 + np.abs(expected).max(initial=0)))


# The likelihood and its gradient.


@pytest.mark.parametrize(("kind", "means"), KINDS)
def test_every_row_has_the_density_of_what_is_observed(case, kind, means):
    data = gappy(case, kind, means)
    each = data.model.loglikeobs(data.params)
    np.testing.assert_allclose(each, data.each(), rtol=1e-11, atol=1e-11)
    assert data.model.loglike(data.params) == pytest.approx(each.sum(), rel=1e-11, abs=1e-10)


@pytest.mark.parametrize(("kind", "means"), KINDS)
def test_the_score_is_the_gradient_by_the_definition(case, kind, means):
    data = gappy(case, kind, means)
    close(data.model.score(data.params), data.score(), 1e-9)


@pytest.mark.parametrize("kind", ["half", "whole groups"])
def test_the_score_against_finite_differences(case, kind):
    data = gappy(case, kind, "constant and covariates")
    params, step = data.params, 1e-5

    def central(i):
        up, down = params.copy(), params.copy()
        up[i] += step
        down[i] -= step
        return (data.model.loglike(up) - data.model.loglike(down)) / (2 * step)

    some = np.random.default_rng(0).choice(len(params), size=min(len(params), 20), replace=False)
    close(data.model.score(params)[some], np.array([central(i) for i in some]), 2e-6)


@pytest.mark.parametrize("argument", ["weights", "freq_weights"])
@pytest.mark.parametrize("kind", ["half", "three patterns"])
def test_weights_count_rows(case, kind, argument):
    rng = np.random.default_rng(3)
    values = rng.integers(1, 5, len(case.Y))
    if len(case.Y) > 4:
        values[0] = 0
    data = gappy(case, kind, "constant", **{argument: values})
    importance = argument == "weights"
    data.weights = values * (values.sum() / (values**2).sum()) if importance else values.astype(float)
    assert data.model.effective_nobs == pytest.approx(data.weights.sum())
    each = data.model.loglikeobs(data.params)
    np.testing.assert_allclose(each, data.each(), rtol=1e-11, atol=1e-11)
    assert data.model.loglike(data.params) == pytest.approx(data.weights @ each, rel=1e-11, abs=1e-10)
    close(data.model.score(data.params), data.score(), 1e-9)


def test_frequencies_are_so_many_equal_rows():
    case = make_case([[0] * 6], (1,), nobs=80, seed=2)
    times = np.random.default_rng(1).integers(1, 4, 80)
    data = gappy(case, "half", freq_weights=times)
    repeated = MultilevelFactorModel(np.repeat(data.Y, times, axis=0), hierarchy=case.hierarchy, ranks=[1])
    assert data.model.loglike(data.params) == pytest.approx(repeated.loglike(data.params), rel=1e-12)
    close(data.model.score(data.params), repeated.score(data.params), 1e-11)
    assert data.model.fit(tol=1e-9).llf == pytest.approx(repeated.fit(tol=1e-9).llf, abs=1e-7)


def test_nothing_missing_is_what_it_was(case):
    ranks = list(case.ranks)
    ml, strict = (
        MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=ranks, missing=how) for how in ("ml", "raise")
    )
    params = ml.pack(case.loadings, case.uniquenesses)
    assert isinstance(ml._evidence, CompleteEvidence)
    assert ml.loglike(params) == strict.loglike(params)
    np.testing.assert_array_equal(ml.loglikeobs(params), strict.loglikeobs(params))
    np.testing.assert_array_equal(ml.score(params), strict.score(params))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
def test_nothing_missing_is_fitted_as_it_was(method):
    case = make_case([[0] * 8, list("aaaabbbb")], (1, 1), nobs=40)
    ml, strict = (
        MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=[1, 1], missing=how).fit(
            method=method, maxiter=30
        )
        for how in ("ml", "raise")
    )
    np.testing.assert_array_equal(ml.params, strict.params)
    assert (ml.history == strict.history).all(axis=None)


def test_rows_and_columns_may_stand_in_any_order(case):
    data = gappy(case, "half")
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(len(case.Y)), rng.permutation(case.hierarchy.n_features)
    frame = pd.DataFrame(data.Y, columns=case.hierarchy.features).iloc[rows, columns]
    other = MultilevelFactorModel(frame, hierarchy=case.hierarchy, ranks=list(case.ranks))
    params = other.pack(*(part.iloc[columns] for part in data.model.unpack(data.params)))
    np.testing.assert_allclose(other.loglikeobs(params), data.each()[rows], rtol=1e-11, atol=1e-11)
    assert list(other.row_labels) == list(rows)
    np.testing.assert_allclose(other.endog, data.Y[np.ix_(rows, columns)], rtol=1e-12, atol=1e-12)


def test_single_precision_is_kept():
    data = gappy(TREE, "few")
    single = MultilevelFactorModel(data.Y.astype(np.float32), hierarchy=TREE.hierarchy, ranks=[1, 1])
    assert single.endog.dtype == np.float32
    assert single._data.Y.dtype == np.float32
    # 120 x 18 values rounded to 24 bits, each of weight about 1 in the log-likelihood.
    assert single.loglike(data.params) == pytest.approx(data.each().sum(), rel=1e-5)
    close(single.score(data.params), data.score(), 1e-5)
    assert single.fit(tol=1e-6).llf == pytest.approx(data.model.fit(tol=1e-6).llf, rel=1e-5)


def test_a_model_keeps_its_data_to_rounding():
    case = make_case([[0] * 6], (1,), nobs=15)
    data = gappy(case, "half", "constant and covariates")
    np.testing.assert_allclose(data.model.endog, data.Y, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(data.model.exog, data.X)
    assert data.model.n_missing == np.isnan(data.Y).sum()


# Patterns and variants.


@st.composite
def masks_and_trees(draw):
    n, nobs = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    sizes = sorted({1, *draw(st.lists(st.integers(1, n), max_size=2))}, reverse=True)
    offsets = [np.array([0, n])]
    for size in sizes[: draw(st.integers(0, len(sizes)))]:
        finer = {*offsets[-1].tolist(), *range(0, n, size)}
        offsets.append(np.array(sorted(finer)))
    ranks = [draw(st.integers(0, 2)) for _ in offsets]
    rows = st.lists(st.booleans(), min_size=n, max_size=n)
    mask = np.array(draw(st.lists(rows, min_size=nobs, max_size=nobs)), dtype=bool)
    mask = mask[:, draw(st.permutations(range(n)))]
    return mask, Tree.of(offsets, ranks)


any_tree = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def patterns_and_variants(mask, tree):
    """Patterns, the set of features that each misses, what each counts, and variants."""
    patterns = Patterns.of(mask)
    counts = patterns.sums(np.arange(1.0, len(mask) + 1)[patterns.rows])
    sets = [frozenset(patterns.missing_by(s).tolist()) for s in range(len(patterns))]
    return patterns, sets, counts, Variants.of(tree, patterns.first, patterns.features, patterns.starts, counts)


def ranges(bounds):
    return [range(a, b) for a, b in itertools.pairwise(bounds)]


def lists(bounds_and_items):
    bounds, items = bounds_and_items
    return [items[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def of_patterns(level, patterns):
    """The variant of each (node, pattern), read off the runs of columns."""
    found = np.empty((len(level.runs) - 1, len(patterns)), dtype=int)
    for node, runs in enumerate(ranges(level.runs)):
        columns = []
        for run in runs:
            start, stop = level.bounds[2 * run : 2 * run + 2]
            columns += [level.variant[run]] * (stop - start)
        for s, own in enumerate(ranges(patterns.starts)):
            (found[node, s],) = {columns[t] for t in own}
    return found


@given(masks_and_trees())
@any_tree
def test_patterns_are_the_rows_that_miss_the_same(drawn):
    mask, _ = drawn
    patterns = Patterns.of(mask)
    assert sorted(patterns.rows) == list(range(len(mask)))
    seen = set()
    for s, own in enumerate(ranges(patterns.starts)):
        features = patterns.missing_by(s).tolist()
        assert features == sorted(features)
        assert len(own) > 0
        assert tuple(features) not in seen
        seen.add(tuple(features))
        for place in own:
            assert np.flatnonzero(mask[patterns.rows[place]]).tolist() == features
    if () in seen:
        assert not len(patterns.missing_by(0))


@given(masks_and_trees())
@any_tree
def test_variants_are_the_sets_that_patterns_miss_of_a_node(drawn):
    mask, tree = drawn
    patterns, sets, counts, variants = patterns_and_variants(mask, tree)
    for level, offsets in zip(variants.levels, tree.offsets, strict=True):
        found = of_patterns(level, patterns)
        assert len(level.node) == level.first[-1]
        for node, (features, own) in enumerate(zip(ranges(offsets), ranges(level.first), strict=True)):
            below = [missing & frozenset(features) for missing in sets]
            pairs = set(zip(below, found[node].tolist(), strict=True))
            assert len(pairs) == len(set(below)) == len(own)  # one to one
            assert {variant for _, variant in pairs} == set(own)
            assert (level.node[own.start : own.stop] == node).all()
            for missing, variant in pairs:
                total = sum(count for other, count in zip(below, counts, strict=True) if other == missing)
                assert level.count[variant] == pytest.approx(total)


@given(masks_and_trees())
@any_tree
def test_runs_cover_the_columns_in_order(drawn):
    mask, tree = drawn
    variants = patterns_and_variants(mask, tree)[-1]
    for level in variants.levels:
        for runs in ranges(level.runs):
            bounds = level.bounds[2 * runs.start : 2 * runs.stop]
            np.testing.assert_array_equal(bounds[1:-1:2], bounds[2::2])
            assert (bounds[::2] < bounds[1::2]).all()
            assert (bounds[0], bounds[-1]) == (0, len(mask))
            assert (np.diff(level.variant[runs.start : runs.stop]) != 0).all()  # none could be joined


@given(masks_and_trees())
@any_tree
def test_variants_know_those_above_and_below(drawn):
    mask, tree = drawn
    patterns, _, _, variants = patterns_and_variants(mask, tree)
    found = [of_patterns(level, patterns) for level in variants.levels]
    for depth, level in enumerate(variants.levels):
        for variant, below in enumerate(lists(level.below)):
            node = level.node[variant]
            pattern = np.flatnonzero(found[depth][node] == variant)[0]
            children = range(*tree.children[depth][node : node + 2]) if depth < tree.leaf_level else []
            assert below == [found[depth + 1][child, pattern] for child in children]
    assert lists(variants.levels[0].above) in ([[]], [[] for _ in variants.levels[0].node])
    for upper, lower in itertools.pairwise(variants.levels):
        below = lists(upper.below)
        for variant, above in enumerate(lists(lower.above)):
            assert above == [u for u in range(len(below)) if variant in below[u]]


@given(masks_and_trees())
@any_tree
def test_variants_of_leaf_groups_know_what_they_miss(drawn):
    mask, tree = drawn
    patterns, sets, _, variants = patterns_and_variants(mask, tree)
    leaf = variants.levels[-1]
    found, missing = of_patterns(leaf, patterns), lists(variants.missing)
    for node, features in enumerate(ranges(tree.leaves)):
        for s in range(len(patterns)):
            assert missing[found[node, s]] == sorted(sets[s] & set(features))


@pytest.mark.parametrize("weighted", [False, True])
def test_summed_up_rows_have_the_same_likelihood(weighted):
    case = make_case([[0] * 6, list("aaabbb")], (1, 1), nobs=90)
    options = {"weights": np.random.default_rng(0).uniform(0, 2, 90)} if weighted else {}
    data = gappy(case, "three patterns", "constant and covariates", **options)
    model = data.model
    patterns, tree = model._data.patterns, model._tree
    rows = Incomplete.row_by_row(tree, model._data, patterns)
    summed = Incomplete.summed_up(tree, model._data, patterns)
    # As many columns as observed features and covariates, a pattern.
    seen = [6 - len(patterns.missing_by(s)) for s in range(len(patterns))]
    assert summed.Y.shape[1] == sum(seen) + 3 * len(seen) < rows.Y.shape[1] == 90
    point = model._evidence._in_units(*model._group_parts(data.params))
    with Workers(1) as workers:
        each = Surface(rows, workers).loglike_by_column(*point)
        whole = Surface(summed, workers).loglike(*point)
        assert whole == pytest.approx(model._data.weights @ each, rel=1e-12)
        if not weighted:
            assert whole == pytest.approx(Surface(rows, workers).loglike(*point), rel=1e-12)
    np.testing.assert_allclose(summed.observed, (~np.isnan(data.Y)).T @ model._data.weights[model._data.places])


# Kernels.


def lower(matrices):
    return np.tril(matrices)


@pytest.mark.parametrize("tiny", [False, True])
def test_variant_moments_are_sums_over_what_is_observed(tiny):
    rng = np.random.default_rng(0)
    offsets = np.array([0, 7, 12])
    F, D = rng.standard_normal((12, 3)), rng.uniform(0.3, 2, 12)
    missing = [[], [2], [0, 1, 3, 4, 5, 6], list(range(7)), [], [8, 11], [7, 8, 9, 10]]
    node = np.array([0, 0, 0, 0, 1, 1, 1])
    if tiny:  # what such a feature adds must not be had back by subtraction
        D[[2, 8]] = 1e-8
    first = np.concatenate([[0], np.cumsum([len(m) for m in missing])])
    each = np.einsum("ji,jk,j->jik", F, F, 1 / D)
    whole = lower(np.add.reduceat(each, offsets[:-1]))
    C = np.full((7, 3, 3), np.nan)
    variant_moments(F, D, offsets, whole, node, first, np.concatenate(missing).astype(np.intp), C)
    for found, k, gone in zip(C, node, missing, strict=True):
        seen = np.setdiff1d(np.arange(offsets[k], offsets[k + 1]), gone)
        expected = each[seen].sum(axis=0)
        # Relative to the features that are seen, whatever the missing ones were.
        size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        assert (np.abs(lower(found) - lower(expected)) <= 1e-12 * size).all()


def flat(parts):
    """Boundaries of lists, and what is in them."""
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]), np.concatenate(parts).astype(np.intp)


def test_gaps_are_filled_with_what_the_factors_say():
    rng = np.random.default_rng(1)
    offsets, N, shared = np.array([0, 3, 5]), 6, 1
    F, Y = rng.standard_normal((5, 3)), rng.standard_normal((5, N))
    Z_shared, Z_inner = rng.standard_normal((shared, N)), rng.standard_normal((2, 2, N))
    gaps = [[0, 5], [], [5], [0, 1, 2, 4], list(range(N))]
    for j, gap in enumerate(gaps):
        Y[j, gap] = 0
    filled, squares = Y.copy(), np.full(5, np.nan)
    fill_gaps(F, Z_shared, Z_inner, offsets, *flat(gaps), filled, squares)
    for j, gap in enumerate(gaps):
        Z = np.concatenate([Z_shared, Z_inner[int(j >= 3)]])
        expected = np.where(np.isin(np.arange(N), gap), F[j] @ Z, Y[j])
        np.testing.assert_allclose(filled[j], expected, rtol=1e-13, atol=1e-14)
        assert squares[j] == pytest.approx((expected[gap] ** 2).sum())


def test_products_are_summed_over_the_variants_that_miss_a_feature():
    rng = np.random.default_rng(2)
    F, A = rng.standard_normal((4, 3)), rng.standard_normal((4, 3, 3))
    S = A @ A.transpose(0, 2, 1)
    missing = [[], [10, 12], [9, 10, 13], [12]]  # features 10 .. 13 are at hand, 9 is of another piece of their group
    out = np.full((4, 3), np.nan)
    sum_of_products(F, 10, S, *flat(missing), out)
    for j in range(4):
        own = [v for v in range(4) if 10 + j in missing[v]]
        np.testing.assert_allclose(out[j], F[j] @ S[own].sum(axis=0), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_residuals_are_zero_where_values_are_missing(dtype):
    rng = np.random.default_rng(2)
    Y, B, X = rng.standard_normal((3, 4)).astype(dtype), rng.standard_normal((3, 2)), rng.standard_normal((4, 2))
    out = np.full((3, 4), np.nan)
    residuals(Y, B, X, np.array([0, 2, 2, 3]), np.array([1, 3, 0]), out)
    expected = Y - B @ X.T
    expected[[0, 0, 2], [1, 3, 0]] = 0
    np.testing.assert_allclose(out, expected, rtol=1e-13, atol=1e-14)


def test_a_tiny_uniqueness_does_not_harm_rows_that_miss_the_feature():
    case = make_case([[0] * 8, list("aaaabbbb")], (2, 1), nobs=20)
    data = gappy(case, "one gap")
    case = Case(case.hierarchy, case.ranks, case.loadings, case.uniquenesses.copy(), case.Y)
    case.uniquenesses[7] = 1e-8
    data.case = case
    found, expected = data.model.loglikeobs(data.params), data.each()
    assert found[1] == pytest.approx(expected[1], rel=1e-11)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# Fits.


def hidden(case=TREE, kind="few", seed=0, share=None):
    """The case's data with values struck out."""
    mask = mask_of(case, kind, seed=seed)
    if share is not None:
        mask = np.random.default_rng(seed).random(case.Y.shape) < share
    return case.frame.mask(mask)


GAPS = hidden(share=0.15)


def fit(frame=GAPS, case=TREE, exog=None, **options):
    model = MultilevelFactorModel(frame, exog, hierarchy=case.hierarchy, ranks=list(case.ranks))
    return model.fit(**options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
def test_the_likelihood_never_falls(case, method):
    data = gappy(case, "half", "constant")
    results = data.model.fit(method=method, start="random", maxiter=20, tol=0)
    llf = results.history.loc[results.history["accepted"], "llf"].to_numpy()
    assert (np.diff(llf) >= -1e-11 * np.abs(llf[1:])).all()
    assert results.llf == pytest.approx(data.model.loglike(results.params), rel=1e-11)


@pytest.fixture(scope="module")
def reached():
    """Fits by every method to the end."""
    return {
        "scoring": fit(tol=1e-10),
        "px-em": fit(method="px-em", tol=1e-7),
        "em": fit(method="em", tol=1e-7),
    }


def test_all_methods_reach_the_same_maximum(reached):
    assert all(results.converged for results in reached.values())
    highest = reached["scoring"].llf
    assert [results.llf for results in reached.values()] == pytest.approx([highest] * 3, abs=1e-5)
    assert reached["scoring"].record.score_norm < 1e-6
    # Steps of EM are many and short: sqrt(1e-7) per observation and parameter at most.
    assert all(results.record.score_norm < 1e-4 for results in reached.values())
    for results in reached.values():
        np.testing.assert_allclose(results.uniquenesses, reached["scoring"].uniquenesses, atol=2e-2)
        np.testing.assert_allclose(results.mean, reached["scoring"].mean, atol=1e-3)


def test_the_maximum_is_that_of_a_generic_optimizer(reached):
    results, Y = reached["scoring"], GAPS.to_numpy()
    n, r = TREE.loadings.shape
    weights = np.ones(len(Y))

    def minus(x):
        mean, F, D = x[:n], x[n : n + n * r].reshape(n, r), np.exp(x[n + n * r :])
        sigma = quick_sigma(TREE, F, D)
        by_mean, by_sigma = dense_slopes_seen(Y, mean, sigma, weights)
        slope = dense_slope_loadings(TREE.groups, F, by_sigma)
        value = dense_loglikeobs_seen(Y, mean, sigma).sum()
        return -value, -np.concatenate([by_mean.sum(axis=0), slope.ravel(), np.diag(by_sigma) * D])

    start = np.concatenate([np.nanmean(Y, axis=0), np.full(n * r, 0.5), np.log(np.nanvar(Y, axis=0) / 2)])
    best = minimize(minus, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "maxfun": 3000, "ftol": 1e-13})
    assert results.llf == pytest.approx(-best.fun, abs=1e-5)
    np.testing.assert_allclose(results.mean, best.x[:n], atol=1e-3)
    np.testing.assert_allclose(results.uniquenesses, np.exp(best.x[n + n * r :]), rtol=2e-2)


def quick_sigma(case, F, D):
    sigma = np.diag(D)
    for own, members in case.groups:
        sigma[np.ix_(members, members)] += F[np.ix_(members, own)] @ F[np.ix_(members, own)].T
    return sigma


def test_the_score_is_zero_at_the_end(reached):
    results = reached["scoring"]
    assert np.abs(results.model.score(results.params)).max() < 1e-4
    assert results.llf == pytest.approx(results.model.loglike(results.params), rel=1e-12)


def test_one_step_of_em_is_that_of_the_definition():
    """Loadings and uniquenesses from the moments of factors and data expected at the start; then the means, expected
    anew.
    """
    case, Y = TREE, GAPS.to_numpy()
    n, r = case.loadings.shape
    model = MultilevelFactorModel(GAPS, hierarchy=case.hierarchy, ranks=[1, 1])
    mean = np.nanmean(Y, axis=0)
    start = model.pack(case.loadings, case.uniquenesses, mean)
    with pytest.warns(mlfm.ConvergenceWarning):
        results = model.fit(start_params=start, method="em", maxiter=1, tol=0)
    blocks = case.groups
    wide = np.zeros((n, len(blocks)))
    for k, (own, members) in enumerate(blocks):
        wide[members, k] = case.loadings[members, own[0]]
    joint = np.block([[case.sigma, wide], [wide.T, np.eye(len(blocks))]])
    yz, zz, yy = np.zeros((n, len(blocks))), np.zeros((len(blocks),) * 2), np.zeros(n)
    for y, seen in zip(Y - mean, ~np.isnan(Y), strict=True):
        o = np.flatnonzero(seen)
        gain = joint[:, o] @ np.linalg.inv(joint[np.ix_(o, o)])
        m, V = gain @ y[o], joint - gain @ joint[o]
        V += np.outer(m, m)
        yz, zz, yy = yz + V[:n, n:], zz + V[n:, n:], yy + np.diag(V)[:n]
    F, D = np.empty((n, r)), np.empty(n)
    for j in range(n):
        own = [k for k, (_, members) in enumerate(blocks) if j in members]
        F[j] = np.linalg.solve(zz[np.ix_(own, own)], yz[j, own])
        D[j] = (yy[j] - F[j] @ yz[j, own]) / len(Y)
    sigma = dense_covariance(case.hierarchy, case.ranks, F, D)
    filled = Y - mean
    for row, seen in zip(filled, ~np.isnan(Y), strict=True):
        row[~seen] = sigma[np.ix_(~seen, seen)] @ np.linalg.solve(sigma[np.ix_(seen, seen)], row[seen])
    np.testing.assert_allclose(results.uniquenesses, D, rtol=1e-10)
    np.testing.assert_allclose(np.abs(results.loadings), np.abs(F), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(results.mean, mean + filled.mean(axis=0), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
def test_threads_do_not_matter_to_the_last_bit(method, monkeypatch):
    monkeypatch.setattr(tasks, "WORTH", 1)
    rng = np.random.default_rng(0)
    labels = pd.DataFrame({"a": np.arange(600) // 200, "b": np.arange(600) // 8}, index=[f"x{j}" for j in range(600)])
    Y = rng.standard_normal((30, 600)) + rng.standard_normal((30, 1))
    model = MultilevelFactorModel(
        pd.DataFrame(np.where(rng.random(Y.shape) < 0.1, np.nan, Y), columns=labels.index),
        rng.standard_normal(30),
        hierarchy=labels,
        ranks=[1, 1, 1],
    )
    results = [model.fit(method=method, maxiter=5, n_threads=k) for k in (1, 2, 3)]
    for other in results[1:]:
        np.testing.assert_array_equal(other.params, results[0].params)
        assert (other.history == results[0].history).all(axis=None)


@pytest.mark.filterwarnings("ignore::mlfm.ConvergenceWarning")
def test_a_fit_begins_at_the_parameters_it_is_given():
    rng = np.random.default_rng(0)
    exog = rng.standard_normal(120)
    model = MultilevelFactorModel(GAPS, exog, hierarchy=TREE.hierarchy, ranks=[1, 1])
    start = model.pack(TREE.loadings, TREE.uniquenesses, rng.standard_normal((18, 2)))
    for method in METHODS:
        history = model.fit(start_params=start, method=method, maxiter=1).history
        assert history["llf"].iloc[0] == pytest.approx(model.loglike(start), rel=1e-11)


def test_a_fit_begins_where_another_ended(reached):
    results = reached["scoring"]
    again = fit(start=results, tol=1e-6)
    assert again.history["llf"].iloc[0] == pytest.approx(results.llf, rel=1e-12)
    assert len(again.history) <= 4


def test_more_covariates_begin_where_fewer_ended(reached):
    results = reached["scoring"]
    more = fit(exog=np.random.default_rng(0).standard_normal(120), start=results)
    assert more.history["llf"].iloc[0] == pytest.approx(results.llf, rel=1e-12)
    assert more.llf > results.llf


def test_units_and_origins_do_not_matter(reached):
    rng = np.random.default_rng(4)
    scale, shift = 10.0 ** rng.uniform(-3, 3, 18), rng.uniform(-5, 5, 18)
    straight, scaled = reached["scoring"], fit((GAPS + shift) * scale, tol=1e-10)
    np.testing.assert_allclose(scaled.uniquenesses / scale**2, straight.uniquenesses, rtol=1e-4)
    np.testing.assert_allclose(scaled.mean / scale - shift, straight.mean, atol=1e-5)
    np.testing.assert_allclose(scaled.loadings.div(scale, axis=0).abs(), straight.loadings.abs(), atol=1e-3)
    assert scaled.llf == pytest.approx(straight.llf - GAPS.notna().sum() @ np.log(scale), abs=1e-6)


def test_the_order_of_rows_and_columns_does_not_matter(reached):
    rng = np.random.default_rng(5)
    rows, columns = rng.permutation(120), rng.permutation(18)
    straight, permuted = reached["scoring"], fit(GAPS.iloc[rows, columns], tol=1e-10)
    assert permuted.llf == pytest.approx(straight.llf, abs=1e-7)
    pd.testing.assert_series_equal(permuted.mean[straight.mean.index], straight.mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(permuted.loadings.loc[straight.loadings.index], straight.loadings, atol=1e-3)
    pd.testing.assert_frame_equal(permuted.resid, straight.resid.iloc[rows, columns], rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
def test_every_mask_can_be_fitted(case):
    for kind in MASKS:
        results = gappy(case, kind).model.fit(maxiter=4)
        assert np.isfinite(results.llf)
        assert results.llf == pytest.approx(results.model.loglike(results.params), rel=1e-11, abs=1e-10)


# The last resort of scoring.


def climber_of(model, workers, params=None):
    problem = model._problem
    start = model.start_params if params is None else params
    return IncompleteClimber(problem, problem.from_units(*model._group_parts(start)), workers)


def loglike_at(model, climber):
    parts = climber.problem.to_units(climber.F, climber.x)
    return model.loglike(model._pack_group(*parts))


def in_nats(climber):
    return climber.llf * climber.problem.nobs + climber.problem.loglike_shift


@pytest.mark.parametrize("means", MEANS)
def test_px_em_steps_of_a_climber_never_lower_the_likelihood(means):
    data = gappy(TREE, "half", means)
    with Workers(1) as workers:
        climber = climber_of(data.model, workers, data.params)
        assert in_nats(climber) == pytest.approx(loglike_at(data.model, climber), rel=1e-11)
        for _ in range(15):
            before = climber.llf
            gain = climber.px_em()
            assert gain >= 0
            assert climber.llf - before == gain
            assert in_nats(climber) == pytest.approx(loglike_at(data.model, climber), rel=1e-11)
        # Its gradient is that of the model where it stands.
        problem, parts = climber.problem, climber.problem.to_units(climber.F, climber.x)
        slopes = data.model._layout.parts(data.model.score(data.model._pack_group(*parts)))
        gF, gD = (data.model._to_group(part) for part in slopes[1:])
        close(climber.gF * problem.nobs, gF * problem.scale[:, None], 1e-8)
        close(climber.gD * problem.nobs, gD * problem.scale**2, 1e-8)


def test_px_em_does_not_depend_on_the_steps_that_failed_before():
    data = gappy(TREE, "half")
    with Workers(1) as workers:
        fresh, tried = (climber_of(data.model, workers, data.params) for _ in range(2))
        nothing = np.empty(0, dtype=np.intp), np.empty(0)
        tried.trial[:] = 100.0
        _, _, enough = tried.try_step(Direction(np.full_like(tried.x, 50.0), 1e9, 1e9, *nothing))
        assert not enough
        assert fresh.px_em() == tried.px_em()
        np.testing.assert_array_equal(fresh.F, tried.F)
        np.testing.assert_array_equal(fresh.x, tried.x)


# Recovery.

DEEP = [[0] * 60, [j // 20 for j in range(60)], [j // 5 for j in range(60)]]


def relative_error(results, sigma):
    return np.linalg.norm(results.covariance.to_dense() - sigma) / np.linalg.norm(sigma)


def test_the_covariance_is_recovered():
    """Six rows in ten miss half of their values: 30 % in all. What is lost lies between nothing and these rows; errors
    go with the root of the observations: 1 to sqrt(1 / 0.4) = 1.6, and with half the values in six rows of ten worth
    no less than half of them, below sqrt(1 / 0.7) = 1.2 but for chance, for which there is a tenth more.
    """
    case = make_case(DEEP, (2, 1, 1), nobs=2000, seed=8)
    rng = np.random.default_rng(1)
    mask = (rng.random(2000) < 0.6)[:, None] & (rng.random(case.Y.shape) < 0.5)
    complete, incomplete = fit(case.frame, case), fit(case.frame.mask(mask), case)
    listwise = fit(case.frame[~mask.any(axis=1)], case)
    error = relative_error(incomplete, case.sigma)
    assert error < 1.3 * relative_error(complete, case.sigma)
    assert error < relative_error(listwise, case.sigma)


def test_means_are_unbiased_where_values_are_missing_at_random():
    """The second half is missing where the first feature is low. Means of what there is are off by more than ten
    standard errors; those of maximum likelihood are within four of theirs.
    """
    case = make_case([[0] * 10, [j // 5 for j in range(10)]], (1, 1), nobs=3000, seed=3)
    case.Y[:] += 2 * np.random.default_rng(0).standard_normal((3000, 1))  # all go together, on average at 0 still
    low = (case.frame["x0"] < case.frame["x0"].quantile(0.4)).to_numpy()
    available = case.frame.mask(low[:, None] & (np.arange(10) >= 5))
    results = MultilevelFactorModel(available, hierarchy=case.hierarchy, ranks=[2, 1]).fit(tol=1e-3)
    assert (results.mean.abs() < 4 * results.coefficients_bse["const"]).all()
    assert (available.mean() / available.sem()).abs().max() > 10


# What is expected of factors and missing values.


def quick(case, kind, means="constant"):
    """Results at whatever parameters a few steps lead to."""
    data = gappy(case, kind, means)
    return data, data.model.fit(maxiter=3, start="random", rng=0)


def moments(data, results):
    """Mean and covariance at the results' parameters."""
    sigma = dense_covariance(data.case.hierarchy, data.case.ranks, results.loadings, results.uniquenesses)
    return data.X @ results.coefficients.to_numpy().T, sigma


no_end = pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")


@no_end
@pytest.mark.parametrize("kind", ["half", "whole groups", "one value left"])
def test_imputed_values_are_conditional_means(case, kind):
    data, results = quick(case, kind, "constant and covariates")
    mean, sigma = moments(data, results)
    imputed = results.impute()
    values, sd = data.Y.copy(), np.zeros_like(data.Y)
    for i, seen in enumerate(~np.isnan(data.Y)):
        gain = np.linalg.solve(sigma[np.ix_(seen, seen)], sigma[np.ix_(seen, ~seen)]).T
        values[i, ~seen] = mean[i, ~seen] + gain @ (data.Y[i, seen] - mean[i, seen])
        sd[i, ~seen] = np.sqrt(np.diag(sigma[np.ix_(~seen, ~seen)] - gain @ sigma[np.ix_(seen, ~seen)]))
    np.testing.assert_allclose(imputed.values, values, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(imputed.sd, sd, rtol=1e-9, atol=1e-9)
    assert (imputed.sd.to_numpy() == 0)[~np.isnan(data.Y)].all()
    assert list(imputed.values.columns) == list(case.hierarchy.features)


@no_end
@pytest.mark.parametrize("kind", [None, "half", "whole groups"])
def test_scores_are_posterior_means(case, kind):
    data, results = quick(case, kind)
    mean, sigma = moments(data, results)
    columns, expected = [], []
    for level, rank in zip(case.hierarchy.levels, case.ranks, strict=True):
        for group, members in case.hierarchy.groups(level).items():
            for factor in range(1, rank + 1):
                wide = results.loadings[level, factor].where(case.hierarchy.features.isin(members), 0.0).to_numpy()
                columns.append((level, group, factor))
                expected.append([])
                for y, m, seen in zip(data.Y, mean, ~np.isnan(data.Y), strict=True):
                    expected[-1].append(wide[seen] @ np.linalg.solve(sigma[np.ix_(seen, seen)], (y - m)[seen]))
    scores = results.scores()
    assert scores.columns.names == ["level", "group", "factor"]
    assert list(scores.columns) == columns
    assert list(scores.index) == list(data.model.row_labels)
    if columns:
        np.testing.assert_allclose(scores, np.array(expected).T, rtol=1e-9, atol=1e-9)


@no_end
def test_residuals_are_missing_where_values_are():
    data, results = quick(TREE, "half", "constant and covariates")
    mean, _ = moments(data, results)
    np.testing.assert_allclose(results.fittedvalues, mean, rtol=1e-12)
    np.testing.assert_allclose(results.resid, data.Y - mean, rtol=1e-9, atol=1e-9)
    assert results.resid.isna().equals(pd.DataFrame(np.isnan(data.Y), columns=results.resid.columns))


def test_intervals_of_imputed_values_cover():
    """4000 or so missing values in 1000 rows of 20: those of a row depend on each other, so that their share has a
    standard error of at most sqrt(0.95 0.05 / 1000) = 0.7 %, and more likely half of it.
    """
    case = make_case([[0] * 20, [j // 5 for j in range(20)]], (2, 1), nobs=1000, seed=2)
    gaps = hidden(case, share=0.2)
    values, sd = fit(gaps, case).impute()
    inside = ((values - case.frame).abs() < 1.96 * sd).to_numpy()[gaps.isna().to_numpy()]
    assert inside.mean() == pytest.approx(0.95, abs=0.014)


def test_complete_data_have_nothing_to_impute():
    values, sd = fit(TREE.frame).impute()
    np.testing.assert_allclose(values, TREE.frame, rtol=1e-12, atol=1e-12)
    assert (sd == 0).all(axis=None)


@no_end
@pytest.mark.parametrize(("kind", "weighted"), [("half", False), ("three patterns", True)])
def test_standard_errors_of_coefficients_are_those_of_the_information(case, kind, weighted):
    counts = np.arange(1, len(case.Y) + 1) if weighted else np.ones(len(case.Y), dtype=int)
    data = gappy(case, kind, "constant and covariates", freq_weights=counts)
    results = data.model.fit(maxiter=3, start="random", rng=0)
    _, sigma = moments(data, results)
    n, q = results.coefficients.shape
    information = np.zeros((n, q, n, q))
    for x, seen, times in zip(data.X, ~np.isnan(data.Y), counts, strict=True):
        precision = np.zeros((n, n))
        precision[np.ix_(seen, seen)] = np.linalg.inv(sigma[np.ix_(seen, seen)])
        information += times * np.einsum("ij,k,l->ikjl", precision, x, x)
    expected = np.sqrt(np.diag(np.linalg.inv(information.reshape(n * q, n * q)))).reshape(n, q)
    np.testing.assert_allclose(results.with_cov_type("expected").coefficients_bse, expected, rtol=1e-7)


# What is refused.

FRAME = pd.DataFrame(
    np.random.default_rng(0).standard_normal((12, 4)), index=[f"day {i}" for i in range(12)], columns=list("abcd")
)


def struck(rows, columns):
    frame = FRAME.copy()
    frame.loc[rows, columns] = np.nan
    return frame


def refused(frame, message, exog=None, **options):
    with pytest.raises(ValueError, match=message):
        MultilevelFactorModel(frame, exog, ranks=[1], **options)


def test_a_row_without_any_value_is_named():
    refused(struck(["day 3", "day 7"], list("abcd")), "2 rows without any value: 'day 3', 'day 7'.*dropna")


def test_a_column_without_any_value_is_named():
    refused(struck(FRAME.index, ["c"]), "columns have no values at all: 'c'")


def test_a_column_of_one_value_is_named():
    refused(struck(FRAME.index[1:], ["b"]), "'b'")
    refused(struck(FRAME.index[1:], ["b"]), "'b'", trend="n")


def test_a_column_with_too_few_values_for_the_covariates_is_named():
    exog = np.random.default_rng(1).standard_normal((12, 2))
    refused(struck(FRAME.index[2:], ["d"]), "'d', or have no more values than there are covariates", exog)
    refused(struck(FRAME.index[3:], ["d"]), "do not vary beyond the covariates: 'd'", exog)


def test_covariates_that_are_alike_where_a_column_is_observed():
    late = (np.arange(12) >= 6).astype(float)
    refused(struck(FRAME.index[:6], ["a", "c"]), "collinear in the observations of 'a', 'c'", late)


def test_missing_values_may_be_refused():
    refused(struck(["day 3"], ["a"]), "1 value missing, in 1 observation, in columns 'a'", missing="raise")


def test_rows_with_missing_values_may_be_left_out():
    frame = struck(["day 3", "day 5"], ["a"])
    with pytest.warns(mlfm.DroppedObservationsWarning, match="2 observations of 12 left out"):
        model = MultilevelFactorModel(frame, ranks=[1], missing="drop")
    assert (model.nobs, model.n_missing) == (10, 0)
    pd.testing.assert_index_equal(model.row_labels, frame.dropna().index)


# Results in files.


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Results of missing data, and the same through a file."""
    case = make_case([[0] * 6], (1,), nobs=3000)
    results = fit(hidden(case, share=0.1), case, tol=1)
    results.bse  # noqa: B018 (worked out before, it is stored; the matrix that it is of is not)
    path = tmp_path_factory.mktemp("stored") / "results.pickle"
    results.save(path)
    return results, mlfm.load(path), path


def test_no_data_are_stored(stored):
    results, loaded, path = stored
    assert path.stat().st_size < results.model._data.Y.nbytes / 10
    assert loaded.model is None
    assert loaded.n_missing == results.n_missing > 0


def test_what_is_stored_is_the_fit(stored):
    results, loaded, _ = stored
    pd.testing.assert_series_equal(loaded.params, results.params)
    assert loaded.llf == results.llf
    assert str(loaded.summary()) == str(results.summary())


@pytest.mark.parametrize(
    "what",
    [
        lambda results: results.impute(),
        lambda results: results.scores(),
        lambda results: results.fittedvalues,
        lambda results: results.resid,
        lambda results: results.wald_test_terms(),
    ],
)
def test_what_needs_data_says_so(stored, what):
    with pytest.raises(ValueError, match="cannot be had: these results were loaded from a file"):
        what(stored[1])


def test_standard_errors_worked_out_before_are_stored(tmp_path, reached):
    results = reached["scoring"]
    expected = results.coefficients_bse
    results.save(tmp_path / "with errors")
    pd.testing.assert_frame_equal(mlfm.load(tmp_path / "with errors").coefficients_bse, expected)
    del results.__dict__["coefficients_bse"]
    results.save(tmp_path / "without")
    with pytest.raises(ValueError, match="standard errors with missing values cannot be had"):
        _ = mlfm.load(tmp_path / "without").coefficients_bse


def test_a_model_with_missing_values_can_be_stored_with_its_data(tmp_path, reached):
    results = reached["scoring"]
    results.save(tmp_path / "all.pickle", remove_data=False)
    loaded = mlfm.load(tmp_path / "all.pickle")
    assert isinstance(loaded.model._evidence, IncompleteEvidence)
    assert loaded.model.loglike(loaded.params) == results.model.loglike(results.params)
    pd.testing.assert_frame_equal(loaded.impute().values, results.impute().values)


def test_parts_that_are_never_observed_together_are_named():
    rng = np.random.default_rng(0)
    Y = pd.DataFrame(rng.standard_normal((40, 8)), columns=list("abcdefgh"))
    groups = pd.DataFrame({"g": list("ppppqqqq")}, index=Y.columns)
    Y.loc[:19, list("abef")] = np.nan
    Y.loc[20:, list("cdgh")] = np.nan
    with pytest.warns(mlfm.IdentificationWarning, match="'a' and 'c' are never observed together") as caught:
        model = MultilevelFactorModel(Y, hierarchy=groups, ranks=[1, 1])
    assert "3 groups not identified" in str(caught[0].message)
    assert [entry.level for entry in model.unidentified] == ["global", "g", "g"]
    # The sign is free, as the warning says.
    F, D = rng.standard_normal((8, 2)), np.ones(8)
    other = F * np.array([1, 1, -1, -1, 1, 1, -1, -1])[:, None]
    assert model.loglike(model.pack(other, D)) == pytest.approx(model.loglike(model.pack(F, D)), abs=1e-10)
    # A chain through one feature connects; and so do other groups for the global factor, but not for a group's own.
    Y.loc[30:, "c"] = 1.0 + rng.standard_normal(10)
    with pytest.warns(mlfm.IdentificationWarning, match="1 group not identified: g 'q' .'e' and 'g'"):
        MultilevelFactorModel(Y, hierarchy=groups, ranks=[1, 1])


def test_too_few_values_for_the_covariates_leave_nothing():
    Y = pd.DataFrame(np.random.default_rng(0).standard_normal((40, 6)), columns=list("abcdef"))
    Y.iloc[2:, 0] = np.nan
    for shift in (0, 1000):
        with pytest.raises(ValueError, match="do not vary beyond the covariates: 'a'"):
            MultilevelFactorModel(Y + shift, np.arange(40.0), ranks=[1])


def test_standard_errors_of_badly_scaled_covariates():
    """A trend far from zero: the same errors as near it, with missing values and without."""
    rng = np.random.default_rng(0)
    Y = pd.DataFrame(rng.standard_normal((200, 6)) + rng.standard_normal((200, 1)))
    t = np.arange(200.0)
    for data in (Y, Y.mask(rng.random(Y.shape) < 0.1)):
        near, far = (MultilevelFactorModel(data, t + shift, ranks=[1]).fit(tol=1e-8) for shift in (0, 3e8))
        np.testing.assert_allclose(far.coefficients_bse["x1"], near.coefficients_bse["x1"], rtol=1e-5)
        np.testing.assert_allclose(far.wald_test_terms()["chi2"]["x1"], near.wald_test_terms()["chi2"]["x1"], rtol=1e-4)
