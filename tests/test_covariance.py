import numpy as np
import pandas as pd
import pytest

from mlfm import Hierarchy, MultilevelCovariance


def covariance(case):
    return MultilevelCovariance(case.hierarchy, case.loadings, case.uniquenesses, ranks=case.ranks)


@pytest.fixture
def vectors(case):
    return np.random.default_rng(3).standard_normal((case.hierarchy.n_features, 3))


def test_to_dense_is_the_definition(case):
    np.testing.assert_allclose(covariance(case).to_dense(), case.sigma, rtol=1e-12, atol=1e-13)


def test_product_and_solve(case, vectors):
    sigma, dense = covariance(case), case.sigma
    np.testing.assert_allclose(sigma @ vectors, dense @ vectors, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(sigma.solve(vectors), np.linalg.solve(dense, vectors), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sigma @ sigma.solve(vectors), vectors, rtol=1e-10, atol=1e-12)


def test_vectors_come_back_as_vectors(case, vectors):
    sigma = covariance(case)
    for operation in (sigma.dot, sigma.solve):
        one = operation(vectors[:, 0])
        assert one.shape == (len(vectors),)
        np.testing.assert_allclose(one, operation(vectors)[:, 0], rtol=1e-12, atol=1e-14)
        # Any memory order, also of arrays that may not be written to.
        other = np.asfortranarray(vectors)
        other.setflags(write=False)
        np.testing.assert_array_equal(operation(other), operation(vectors))


def test_logdet_and_diagonals(case):
    sigma, dense = covariance(case), case.sigma
    assert sigma.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(sigma.diagonal(), np.diag(dense), rtol=1e-13)
    np.testing.assert_allclose(sigma.inv().diagonal(), np.diag(np.linalg.inv(dense)), rtol=1e-10)


def test_loglike(case):
    from oracle import dense_loglikeobs

    expected = dense_loglikeobs(case.Y, 0, case.sigma).sum()
    assert covariance(case).loglike(case.Y) == pytest.approx(expected, rel=1e-12)
    assert covariance(case).loglike(case.frame.iloc[:, ::-1]) == pytest.approx(expected, rel=1e-12)


def test_labels_are_aligned_and_kept(case, vectors):
    sigma = covariance(case)
    frame = pd.DataFrame(vectors, index=case.hierarchy.features, columns=["u", "v", "w"])
    shuffled = frame.sample(frac=1, random_state=0)
    for operation in (sigma.dot, sigma.solve):
        expected = operation(vectors)
        out = operation(shuffled)
        assert list(out.columns) == ["u", "v", "w"]
        assert out.index.equals(shuffled.index)
        np.testing.assert_allclose(out.loc[frame.index], expected, rtol=1e-12, atol=1e-14)
        series = operation(shuffled["v"])
        assert series.name == "v"
        np.testing.assert_allclose(series.loc[frame.index], expected[:, 1], rtol=1e-11, atol=1e-13)


def test_a_labelled_round_trip(case):
    sigma = covariance(case)
    again = MultilevelCovariance(case.hierarchy, sigma.loadings.iloc[::-1], sigma.uniquenesses.iloc[::-1])
    np.testing.assert_array_equal(again.to_dense(), sigma.to_dense())
    assert list(again.ranks) == list(case.ranks)
    assert again.shape == sigma.shape == 2 * (case.hierarchy.n_features,)


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e6, 1e12])
def test_extreme_uniquenesses(case, vectors, scale):
    D = case.uniquenesses * scale
    sigma = MultilevelCovariance(case.hierarchy, case.loadings, D, ranks=case.ranks)
    residual = sigma @ sigma.solve(vectors) - vectors
    # Sherman-Morrison-Woodbury loses what F'D^-1F is larger than I.
    lost = 1 + np.linalg.norm(case.loadings, 2) ** 2 / D.min() if sum(case.ranks) else 1.0
    assert np.abs(residual).max() < 1e-14 * lost


LABELS = pd.DataFrame({"g": ["a", "b", "a"]}, index=["x", "y", "z"])
F, D = np.ones((3, 2)), np.ones(3)
COLUMNS = pd.MultiIndex.from_tuples([("global", 1), ("g", 1)])


def labelled(index):
    return pd.DataFrame([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], index=index, columns=COLUMNS)


def test_labelled_loadings_are_aligned_by_column_too():
    straight = MultilevelCovariance(Hierarchy(LABELS), labelled(list("xyz")), D)
    turned = MultilevelCovariance(Hierarchy(LABELS), labelled(list("xyz")).iloc[::-1, ::-1], D, ranks=[1, 1])
    np.testing.assert_array_equal(turned.to_dense(), straight.to_dense())


def test_a_mask_is_not_lost():
    sigma = MultilevelCovariance(Hierarchy(LABELS), F, D, ranks=[1, 1])
    with pytest.raises(TypeError, match="b: a masked array"):
        sigma.solve(np.ma.masked_equal([1.0, 2, -999], -999))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((Hierarchy(LABELS), F, D), TypeError, "ranks: needed"),
        ((Hierarchy(LABELS), F, D, {"global": 1}), ValueError, r"loadings: shape \(3, 1\)"),
        ((Hierarchy(LABELS), F, D[:2], [1, 1]), ValueError, r"uniquenesses: shape \(3,\)"),
        ((Hierarchy(LABELS), F, [1, 0, -1], [1, 1]), ValueError, "positive.*'y', 'z'"),
        ((Hierarchy(LABELS), F, [1, np.nan, 1], [1, 1]), ValueError, "'y'"),
        ((Hierarchy(LABELS), F * np.nan, D, [1, 1]), ValueError, "6 values are missing or infinite"),
        ((LABELS, F, D, [1, 1]), TypeError, "hierarchy must be a Hierarchy"),
        ((Hierarchy(LABELS), labelled(["x", "y", "w"]), D, [1, 1]), ValueError, "unknown: 'w'; missing: 'z'"),
        ((Hierarchy(LABELS), labelled(["x", "y", "x"]), D, [1, 1]), ValueError, "more than once: 'x'"),
        ((Hierarchy(LABELS), labelled(list("xyz")).set_axis(["a", "b"], axis=1), D, [1, 1]), ValueError, "columns of"),
        ((Hierarchy(LABELS), labelled(list("xyz")), D, [2, 0]), ValueError, "must be .level, factor., here"),
        ((Hierarchy(LABELS), F.astype(complex), D, [1, 1]), TypeError, "loadings: real numbers"),
        ((Hierarchy(LABELS), [["a", "b"]] * 3, D, [1, 1]), TypeError, "loadings: real numbers"),
        ((Hierarchy(LABELS), [[1], [1, 2], [3]], D, [1, 1]), ValueError, "loadings: an array of numbers"),
        ((Hierarchy(LABELS), pd.DataFrame(F, index=LABELS.index), D), ValueError, "MultiIndex"),
        (
            (Hierarchy(LABELS), pd.DataFrame(F, LABELS.index, pd.MultiIndex.from_tuples([("g", 1), ("global", 1)])), D),
            ValueError,
            "coarse to fine",
        ),
    ],
)
def test_bad_parameters(arguments, error, words):
    with pytest.raises(error, match=words):
        MultilevelCovariance(*arguments)


def test_bad_right_hand_sides():
    sigma = MultilevelCovariance(Hierarchy(LABELS), F, D, ranks=[1, 1])
    with pytest.raises(ValueError, match=r"b: shape \(3,\) or \(3, k\)"):
        sigma.solve(np.ones(4))
    with pytest.raises(ValueError, match="x: shape"):
        sigma @ np.ones((2, 3, 4))
    with pytest.raises(ValueError, match="b: 1 values are missing or infinite"):
        sigma.solve([1, np.inf, 2])
    with pytest.raises(ValueError, match="unknown: 'w'; missing: 'z'"):
        sigma @ pd.Series([1.0, 2, 3], index=["x", "y", "w"])
    with pytest.raises(ValueError, match="Y: a matrix"):
        sigma.loglike(np.ones(3))


def test_frozen():
    sigma = MultilevelCovariance(Hierarchy(LABELS), F.copy(), D.copy(), ranks=[1, 1])
    with pytest.raises(AttributeError):
        sigma.loadings = F
    dense = sigma.to_dense()
    loadings = sigma.loadings
    loadings.iloc[0, 0] = 99
    np.testing.assert_array_equal(sigma.to_dense(), dense)
