"""Parts of matrices by name, and matrices on different hierarchies."""

import numpy as np
import pandas as pd
import pytest

from mlfm import Hierarchy, MultilevelCovariance, MultilevelLowRank

pytestmark = pytest.mark.portable

LABELS = pd.DataFrame(
    {"sector": ["Tech", "Energy", "Tech", "Energy", "Tech"], "industry": ["Chips", "Oil", "Soft", "Oil", "Chips"]},
    index=["AMD", "BP", "SAP", "TTE", "NVDA"],
)
HIERARCHY = Hierarchy(LABELS)
RNG = np.random.default_rng(0)
F, D = RNG.standard_normal((5, 3)), RNG.uniform(1, 2, 5)
SIGMA = MultilevelCovariance(HIERARCHY, F, D, ranks=[1, 1, 1])
DENSE = pd.DataFrame(SIGMA.to_dense(), LABELS.index, LABELS.index)


@pytest.mark.parametrize(
    ("key", "names"),
    [
        (["SAP", "AMD"], ["SAP", "AMD"]),
        (pd.Index(["BP"]), ["BP"]),
        (np.array(["BP", "TTE"]), ["BP", "TTE"]),
        (pd.Series(["TTE", "BP"]), ["TTE", "BP"]),
        (slice(None), list(LABELS.index)),
        (slice("BP", "TTE"), ["BP", "SAP", "TTE"]),
        (LABELS["sector"] == "Tech", ["AMD", "SAP", "NVDA"]),
        ((LABELS["sector"] == "Tech").iloc[::-1], ["AMD", "SAP", "NVDA"]),
        ([True, False, False, True, False], ["AMD", "TTE"]),
        ({"sector": "Energy"}, ["BP", "TTE"]),
        ({"industry": ("Tech", "Chips")}, ["AMD", "NVDA"]),
        ({"global": "global"}, list(LABELS.index)),
        (HIERARCHY.groups("sector")["Tech"], ["AMD", "SAP", "NVDA"]),
        ([], []),
        (["BP", "BP"], ["BP", "BP"]),
    ],
)
def test_ways_to_name_features(key, names):
    part = SIGMA.submatrix(key, ["SAP", "BP"])
    pd.testing.assert_frame_equal(part, DENSE.loc[names, ["SAP", "BP"]], rtol=1e-13)
    pd.testing.assert_frame_equal(SIGMA[key, ["SAP", "BP"]], part)
    pd.testing.assert_frame_equal(SIGMA[["SAP", "BP"], key], part.T)
    pd.testing.assert_frame_equal(SIGMA.submatrix(key), DENSE.loc[names, names], rtol=1e-13)
    pd.testing.assert_series_equal(SIGMA["SAP", key], DENSE.loc["SAP", names], rtol=1e-13)
    pd.testing.assert_series_equal(SIGMA[key, "SAP"], DENSE.loc[names, "SAP"], rtol=1e-13)


def test_one_name_each_gives_a_number():
    assert SIGMA["AMD", "BP"] == pytest.approx(DENSE.loc["AMD", "BP"], rel=1e-14)
    assert isinstance(SIGMA["AMD", "BP"], float)
    assert SIGMA.submatrix("AMD", "BP").shape == (1, 1)


def test_names_that_are_not_strings():
    labels = pd.DataFrame({"g": [1, 1, 2]}, index=pd.Index([10, 0, (1, 2)], dtype=object, tupleize_cols=False))
    sigma = MultilevelCovariance(Hierarchy(labels), np.arange(6.0).reshape(3, 2), np.ones(3), ranks=[1, 1])
    dense = sigma.to_dense()
    assert sigma[0, 10] == dense[1, 0]
    assert sigma[(1, 2), 0] == dense[2, 1]
    np.testing.assert_array_equal(sigma.submatrix([0, 10]), dense[np.ix_([1, 0], [1, 0])])
    np.testing.assert_array_equal(sigma.submatrix({"g": 1}), dense[:2, :2])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("IBM", "rows: no feature is called 'IBM'"),
        (["AMD", "IBM"], "rows: no features are called 'IBM'"),
        (0, "rows: no feature is called 0"),
        (slice("AMD", "IBM"), "rows: a slice must begin and end with names"),
        ([True, False], r"rows: a mask needs 5 values, one a feature, not \(2,\)"),
        (pd.Series([True] * 5), "rows: labels do not match"),
        ({"sector": "Food"}, "rows: level 'sector' has no group 'Food'; it has 'Tech', 'Energy'"),
        ({"industry": "Oil"}, "rows: level 'industry' has no group 'Oil'; the path is meant: .*'Energy', 'Oil'"),
        ({"colour": "red"}, "unknown level 'colour'"),
        ({"sector": "Tech", "industry": "Oil"}, "rows: a group is one level with one group"),
        (..., "rows: a list of names of features is needed, not Ellipsis"),
        ([["AMD"], ["BP"]], "rows: "),
        (np.zeros((2, 2)), "rows: "),
        ((["AMD"],), "rows: no feature is called"),
    ],
)
def test_unknown_names(rows, words):
    with pytest.raises(ValueError, match=words):
        SIGMA.submatrix(rows)
    with pytest.raises(ValueError, match=words):
        SIGMA[rows, :]


def test_names_with_their_groups():
    """Data whose columns hold the groups too: the last level of the MultiIndex names the features."""
    columns = pd.MultiIndex.from_arrays([LABELS["sector"], LABELS["industry"], LABELS.index])
    sigma = MultilevelCovariance(Hierarchy(columns), F, D, ranks=[1, 1, 1])
    data = pd.DataFrame(RNG.standard_normal((4, 5)), columns=columns)
    np.testing.assert_allclose(sigma @ data.T.iloc[::-1], (sigma @ data.to_numpy().T)[::-1])
    assert (sigma @ data.T).index.equals(columns)
    assert sigma.loglike(data) == pytest.approx(sigma.loglike(data.to_numpy()), rel=1e-14)
    assert sigma.conditional(columns[:2]).observed.tolist() == ["AMD", "BP"]


def test_two_selections_are_needed():
    for key in ("AMD", ["AMD"], ("AMD", "BP", "SAP")):
        with pytest.raises(TypeError, match=r"two selections are needed, M\[rows, columns\]"):
            SIGMA[key]


def test_a_part_of_a_large_matrix_stays_small():
    """A hundred thousand features: 80 GB if anything dense were formed."""
    n = 100_000
    labels = pd.DataFrame({"g": np.arange(n) // 50}, index=pd.RangeIndex(n))
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((n, 3))
    sigma = MultilevelCovariance(Hierarchy(labels), loadings, np.ones(n), ranks=[2, 1])
    rows, columns = [99_999, 5, 0], np.arange(0, n, 1000)
    expected = loadings[rows, :2] @ loadings[columns, :2].T
    expected += np.outer(loadings[rows, 2], loadings[columns, 2]) * (
        np.divide(rows, 50).astype(int)[:, None] == columns // 50
    )
    expected += np.asarray(rows)[:, None] == columns
    np.testing.assert_allclose(sigma.submatrix(rows, columns), expected, rtol=1e-12, atol=1e-13)
    given = sigma.conditional([0, 1, 2])
    assert given.covariance.shape == (n - 3, n - 3)
    # Far away nothing but the global factors is learnt; in the same group a little more.
    dense = sigma.submatrix([0, 1, 2, 3, 77])
    across = dense.loc[[3, 77], [0, 1, 2]].to_numpy()
    seen = dense.loc[[0, 1, 2], [0, 1, 2]].to_numpy()
    left = dense.loc[[3, 77], [3, 77]].to_numpy() - across @ np.linalg.solve(seen, across.T)
    np.testing.assert_allclose(given.covariance.submatrix([3, 77]), left, rtol=1e-10)
    with pytest.raises(ValueError, match="100000 features make a dense matrix of 80 GB"):
        sigma.to_dense()
    for part in (lambda: sigma[:, :], lambda: sigma.submatrix(slice(None))):
        with pytest.raises(ValueError, match="100000 x 100000 numbers would take 80 GB"):
            part()


# Matrices on hierarchies of different depth


def test_a_coarser_hierarchy_is_taken_for_what_it_is():
    coarse = HIERARCHY.coarsen(["industry"])
    M = MultilevelLowRank(coarse, RNG.standard_normal((5, 3)), RNG.standard_normal((5, 3)), D, ranks=[1, 2])
    dense = M.to_dense()
    for got, expected in [
        (SIGMA + M, DENSE + dense),
        (M - SIGMA, dense - DENSE),
        (SIGMA @ M, DENSE @ dense),
        (M @ SIGMA, dense @ DENSE),
    ]:
        assert got.hierarchy == HIERARCHY
        np.testing.assert_allclose(got.to_dense(), expected, rtol=1e-12, atol=1e-12)
    assert SIGMA.inner(M) == pytest.approx((DENSE.to_numpy() * dense).sum(), rel=1e-12)
    flat = MultilevelCovariance(HIERARCHY.coarsen([]), F[:, :1], D, ranks=[1])
    expected = 0.5 * (
        np.trace(np.linalg.solve(flat.to_dense(), DENSE)) - 5 + flat.logdet() - np.linalg.slogdet(DENSE)[1]
    )
    assert SIGMA.kl_divergence(flat) == pytest.approx(expected, rel=1e-10)
    assert isinstance(SIGMA + flat, MultilevelCovariance)


def test_features_in_another_order():
    """Matched by name; the result stands in the order of the first."""
    order = ["TTE", "AMD", "NVDA", "BP", "SAP"]
    B, C = RNG.standard_normal((2, 5, 3))
    other = MultilevelLowRank(Hierarchy(LABELS.loc[order]), B, C, D, ranks=[1, 1, 1])
    dense = other.to_frame().loc[LABELS.index, LABELS.index]
    for got, expected in [
        (SIGMA + other, DENSE + dense),
        (SIGMA @ other, DENSE @ dense),
        (SIGMA - other, DENSE - dense),
    ]:
        pd.testing.assert_frame_equal(got.to_frame(), expected, rtol=1e-12)
    assert SIGMA.inner(other) == pytest.approx((DENSE * dense).to_numpy().sum(), rel=1e-12)
    assert SIGMA.kl_divergence(SIGMA.marginal(order)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "labels",
    [LABELS.assign(sector=list("ababa")), LABELS.iloc[:4], LABELS.rename(columns={"sector": "s"})],
    ids=["other groups", "fewer features", "another level"],
)
def test_matrices_that_do_not_go_together(labels):
    other = MultilevelLowRank(Hierarchy(labels), np.ones((len(labels), 3)), ranks=[1, 1, 1])
    for verb in (SIGMA.__add__, SIGMA.__sub__, SIGMA.__matmul__, SIGMA.inner, SIGMA.trace_of_product):
        with pytest.raises(ValueError, match=r"other: (the two matrices must have|labels do not match)"):
            verb(other)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"left": F}, TypeError, "ranks: needed when left is an array"),
        ({"left": F, "ranks": [1, 1]}, ValueError, "ranks: 2 numbers for 3 levels"),
        ({"left": F[:, :2], "ranks": [1, 1, 1]}, ValueError, r"left: shape \(5, 3\) is needed"),
        ({"left": F, "right": F[:4], "ranks": [1, 1, 1]}, ValueError, r"right: shape \(5, 3\) is needed"),
        ({"left": F * np.nan, "ranks": [1, 1, 1]}, ValueError, "left: 15 values are missing or infinite"),
        ({"left": F, "diag": [1, 2], "ranks": [1, 1, 1]}, ValueError, r"diag: shape \(5,\) is needed"),
        ({"left": F, "diag": [1, 2, np.inf, 4, 5], "ranks": [1, 1, 1]}, ValueError, "diag: must be finite.*'SAP'"),
        ({"left": F.astype(complex), "ranks": [1, 1, 1]}, TypeError, "left: real numbers"),
        ({"left": F, "ranks": [1, -1, 1]}, ValueError, "must not be negative"),
    ],
)
def test_bad_factors(arguments, error, words):
    with pytest.raises(error, match=words):
        MultilevelLowRank(HIERARCHY, **arguments)


def test_more_columns_than_features_in_a_group():
    B, C = RNG.standard_normal((2, 5, 9))
    M = MultilevelLowRank(HIERARCHY, B, C, ranks=[2, 3, 4])
    small = M.compress()
    assert small.ranks.tolist() == [2, 3, 2]
    np.testing.assert_allclose(small.to_dense(), M.to_dense(), rtol=1e-12, atol=1e-13)


def test_bad_operands():
    M = MultilevelLowRank(HIERARCHY, F, diag=1.0, ranks=[1, 1, 1])
    for scalar in (np.nan, np.inf):
        with pytest.raises(ValueError, match="a finite number is needed"):
            M * scalar
    for scalar in (1j, "2", None):
        with pytest.raises(TypeError, match="a real number is needed"):
            M * scalar
    with pytest.raises(ZeroDivisionError):
        M / 0
    for other in (np.eye(5), 1, None, "M"):
        for verb in (M.__add__, M.__radd__, M.__sub__, M.__rsub__):
            with pytest.raises(TypeError, match=r"cannot be added to a|a real number is needed"):
                verb(other)
    with pytest.raises(TypeError, match=r"scale\(1 / d\)"):
        M / np.ones(5)
    for power in (0, -1, 0.5, True):
        with pytest.raises(ValueError, match="a power must be"):
            M**power
    frame = pd.DataFrame(np.ones((2, 5)), columns=LABELS.index)
    for left in (frame, frame.iloc[0]):
        with pytest.raises(TypeError, match="put it on the left of a product"):
            left @ M
    with pytest.raises(TypeError, match="is not an array"):
        np.asarray(M)
    with pytest.raises(TypeError, match="other must be a MultilevelLowRank, not ndarray"):
        M.inner(np.eye(5))
    with pytest.raises(ValueError, match=r"x: shape \(5,\) or \(5, k\) is needed, not \(4,\)"):
        M @ np.ones(4)
    with pytest.raises(ValueError, match="x: a vector is needed"):
        M.matvec(np.ones((5, 2)))
    with pytest.raises(ValueError, match="X: a matrix is needed"):
        M.matmat(np.ones(5))
    with pytest.raises(ValueError, match="x: 1 values are missing or infinite, at 'SAP'"):
        M @ np.array([1, 2, np.nan, 4, 5])
    with pytest.raises(TypeError, match="x: real numbers are needed"):
        M @ np.ones(5, dtype=complex)
    with pytest.raises(ValueError, match="Scalar operands"):
        M @ 2
    for tolerances in ({"rtol": -1}, {"atol": np.nan}):
        with pytest.raises(ValueError, match=r"numbers from 0 on|a finite number"):
            M.compress(**tolerances)
    with pytest.raises(TypeError, match="a real number is needed, not 'a'"):
        M.compress("a")
    from scipy.sparse import eye_array

    with pytest.raises(TypeError, match=r"x: a sparse .* is not taken; toarray\(\)"):
        M @ eye_array(5)


def test_sums_that_overflow_are_not_taken_for_gaps():
    M = MultilevelLowRank(HIERARCHY, F, diag=1.0, ranks=[1, 1, 1])
    huge = np.full(5, 1e308)
    assert np.isfinite(M.diag).all()
    np.testing.assert_array_equal(MultilevelLowRank(HIERARCHY, 0 * F, diag=1.0, ranks=[1, 1, 1]) @ huge, huge)
