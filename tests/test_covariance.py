import numpy as np
import pandas as pd
import pytest

from mlfm import Hierarchy, MultilevelCovariance


def covariance(case):
    return MultilevelCovariance(case.hierarchy, case.loadings, case.uniquenesses, ranks=case.ranks)


@pytest.fixture
def vectors(case):
    return np.random.default_rng(3).standard_normal((case.hierarchy.n_features, 3))


def test_solve(case, vectors):
    sigma, dense = covariance(case), case.sigma
    np.testing.assert_allclose(sigma.solve(vectors), np.linalg.solve(dense, vectors), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sigma @ sigma.solve(vectors), vectors, rtol=1e-10, atol=1e-12)
    one = sigma.solve(vectors[:, 0])
    assert one.shape == (len(vectors),)
    np.testing.assert_allclose(one, sigma.solve(vectors)[:, 0], rtol=1e-12, atol=1e-14)
    # Any memory order, also of arrays that may not be written to.
    other = np.asfortranarray(vectors)
    other.setflags(write=False)
    np.testing.assert_array_equal(sigma.solve(other), sigma.solve(vectors))
    x, residual = sigma.solve(vectors[:, 0], return_residual=True)
    np.testing.assert_array_equal(x, one)
    assert residual == pytest.approx(
        np.linalg.norm(sigma @ x - vectors[:, 0]) / np.linalg.norm(vectors[:, 0]), abs=1e-15
    )


def test_the_determinant_and_the_inverse(case, vectors):
    sigma, dense = covariance(case), case.sigma
    expected = np.linalg.slogdet(dense)[1]
    assert sigma.logdet() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert sigma.slogdet() == (1.0, sigma.logdet())
    precision, inverse = sigma.inv(), np.linalg.inv(dense)
    np.testing.assert_allclose(precision.diagonal(), np.diag(inverse), rtol=1e-10)
    assert precision.logdet() == -sigma.logdet()
    assert precision.slogdet() == (1.0, -sigma.logdet())
    assert precision.inv() is sigma
    np.testing.assert_allclose(precision.solve(vectors), dense @ vectors, rtol=1e-10, atol=1e-11)
    assert precision.ranks.equals(sigma.ranks)
    H = precision.factors
    assert H.index.equals(sigma.loadings.index)
    assert H.columns.equals(sigma.loadings.columns)
    # H is D^-1 F times something group by group: the inverse has the block structure of the covariance.
    from oracle import dense_low_rank

    rebuilt = np.diag(1 / case.uniquenesses) - dense_low_rank(case.hierarchy, case.ranks, H, H)
    np.testing.assert_allclose(rebuilt, inverse, rtol=1e-9, atol=1e-10)
    forms = np.einsum("jk,ji,ik->k", vectors, inverse, vectors)
    np.testing.assert_allclose(precision.quad_form(vectors), forms, rtol=1e-10)


def test_marginal(case):
    sigma, dense = covariance(case), case.sigma
    features = case.hierarchy.features
    rng = np.random.default_rng(2)
    where = rng.permutation(len(features))[: max(1, len(features) // 2)]
    part = sigma.marginal(features[where])
    assert isinstance(part, MultilevelCovariance)
    assert part.hierarchy.features.equals(features[where])
    expected = dense[np.ix_(where, where)]
    np.testing.assert_allclose(part.to_dense(), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(part.solve(np.ones(len(where))), np.linalg.solve(expected, np.ones(len(where))))
    assert part.logdet() == pytest.approx(np.linalg.slogdet(expected)[1], rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_conditional(case, share):
    sigma, dense = covariance(case), case.sigma
    features, n = case.hierarchy.features, case.hierarchy.n_features
    order = np.random.default_rng(4).permutation(n)
    if n == 1:
        with pytest.raises(ValueError, match="none are left"):
            sigma.conditional(features)
        return
    seen = order[: min(max(int(share * n), 1), n - 1)]
    rest = np.sort(order[len(seen) :])
    given = sigma.conditional(features[seen])
    assert given.observed.equals(features[seen])
    assert given.features.equals(features[rest])
    across = dense[np.ix_(rest, seen)]
    mean_map = across @ np.linalg.inv(dense[np.ix_(seen, seen)])
    left = dense[np.ix_(rest, rest)] - mean_map @ across.T
    assert isinstance(given.covariance, MultilevelCovariance)
    assert given.covariance.hierarchy.features.equals(features[rest])
    np.testing.assert_allclose(given.covariance.to_dense(), left, rtol=1e-9, atol=1e-10)
    assert given.mean_map.shape == mean_map.shape
    rng = np.random.default_rng(5)
    y, x = rng.standard_normal((len(seen), 2)), rng.standard_normal((len(rest), 2))
    np.testing.assert_allclose(given.mean(y), mean_map @ y, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(given.mean_map.T @ x, mean_map.T @ x, rtol=1e-9, atol=1e-10)
    labelled = pd.DataFrame(y, index=features[seen], columns=["u", "v"]).iloc[::-1]
    out = given.mean(labelled)
    assert out.index.equals(features[rest])
    np.testing.assert_allclose(out, mean_map @ y, rtol=1e-9, atol=1e-10)
    assert given.mean(labelled["u"]).name == "u"


def test_conditional_twice_is_conditional_once(case):
    sigma, features = covariance(case), case.hierarchy.features
    if len(features) < 3:
        pytest.skip("nothing would be left")
    some = features[:-1][::2]
    once = sigma.conditional(some).covariance
    twice = sigma.conditional(some[:1]).covariance.conditional(some[1:]).covariance
    np.testing.assert_allclose(twice.to_dense(), once.to_dense(), rtol=1e-10, atol=1e-12)


def test_the_covariance_of_samples(case):
    """Every entry within 5 of its own standard errors of the truth: one in a million would not be."""
    sigma, dense, size = covariance(case), case.sigma, 40_000
    draws = sigma.sample(size, rng=7)
    assert draws.shape == (size, len(dense))
    assert draws.columns.equals(case.hierarchy.features)
    variances = np.diag(dense)
    errors = np.sqrt((dense**2 + np.outer(variances, variances)) / size)
    assert (np.abs(draws.T @ draws / size - dense) < 5 * errors).all(axis=None)
    assert (np.abs(draws.mean()) < 5 * np.sqrt(variances / size)).all()
    # The rest of the distribution: squared Mahalanobis distances are chi-square with n degrees of freedom.
    distances = sigma.inv().quad_form(draws.T)
    n = len(dense)
    assert distances.mean() == pytest.approx(n, abs=5 * np.sqrt(2 * n / size))
    assert distances.var() == pytest.approx(2 * n, rel=0.15)


def test_samples_come_from_their_seed(case):
    sigma = covariance(case)
    pd.testing.assert_frame_equal(sigma.sample(3, rng=1), sigma.sample(3, rng=np.random.default_rng(1)))
    assert not np.allclose(sigma.sample(3, rng=1), sigma.sample(3, rng=2))
    assert sigma.sample(0).shape == (0, case.hierarchy.n_features)


def test_divergences(case):
    sigma, dense = covariance(case), case.sigma
    rng = np.random.default_rng(6)
    other = MultilevelCovariance(
        case.hierarchy, rng.standard_normal(case.loadings.shape), 0.5 + case.uniquenesses, ranks=case.ranks
    )
    its_dense = other.to_dense()
    n = len(dense)

    def divergence(a, b):
        return 0.5 * (np.trace(np.linalg.solve(b, a)) - n + np.linalg.slogdet(b)[1] - np.linalg.slogdet(a)[1])

    assert sigma.kl_divergence(other) == pytest.approx(divergence(dense, its_dense), rel=1e-10, abs=1e-12)
    assert other.kl_divergence(sigma) == pytest.approx(divergence(its_dense, dense), rel=1e-10, abs=1e-12)
    assert sigma.kl_divergence(sigma) == pytest.approx(0, abs=1e-11)
    expected = -0.5 * (
        n * np.log(2 * np.pi) + np.linalg.slogdet(dense)[1] + np.trace(np.linalg.solve(dense, its_dense))
    )
    assert sigma.expected_loglike(other) == pytest.approx(expected, rel=1e-11)
    entropy = 0.5 * (n * (1 + np.log(2 * np.pi)) + np.linalg.slogdet(dense)[1])
    assert sigma.expected_loglike(sigma) == pytest.approx(-entropy, rel=1e-11)
    # The average log-likelihood of many draws from the other: what "expected" means.
    draws = other.sample(20_000, rng=3)
    assert sigma.loglike(draws) / len(draws) == pytest.approx(expected, rel=0.05)


def test_sums_and_multiples_of_covariances_are_covariances(case):
    sigma, dense = covariance(case), case.sigma
    for got, expected in [(sigma + sigma, 2 * dense), (3 * sigma, 3 * dense), (sigma / 2, dense / 2)]:
        assert isinstance(got, MultilevelCovariance)
        np.testing.assert_allclose(got.to_dense(), expected, rtol=1e-12, atol=1e-13)
        assert got.logdet() == pytest.approx(np.linalg.slogdet(expected)[1], rel=1e-11, abs=1e-11)
    assert isinstance(sigma.scale(2.0), MultilevelCovariance)
    assert isinstance(sigma.correlation(), MultilevelCovariance)
    np.testing.assert_allclose(sigma.correlation().diagonal(), 1, rtol=1e-14)
    for got in (-sigma, 0 * sigma, sigma - sigma, sigma.scale(1.0, 2.0), sigma @ sigma):
        assert not isinstance(got, MultilevelCovariance)


def test_iterative_solvers_of_scipy(case, vectors):
    from scipy.sparse.linalg import cg, eigsh

    sigma, dense = covariance(case), case.sigma
    x, info = cg(sigma, vectors[:, 0], rtol=1e-12, maxiter=500)
    assert info == 0
    np.testing.assert_allclose(x, np.linalg.solve(dense, vectors[:, 0]), rtol=1e-7, atol=1e-8)
    if len(dense) > 2:
        largest = eigsh(sigma, k=1, v0=np.ones(len(dense)), return_eigenvectors=False)
        assert largest[0] == pytest.approx(np.linalg.eigvalsh(dense)[-1], rel=1e-9)


def test_loglike(case):
    from oracle import dense_loglikeobs

    expected = dense_loglikeobs(case.Y, 0, case.sigma).sum()
    assert covariance(case).loglike(case.Y) == pytest.approx(expected, rel=1e-12)
    assert covariance(case).loglike(case.frame.iloc[:, ::-1]) == pytest.approx(expected, rel=1e-12)


def test_labels_of_solutions(case, vectors):
    sigma = covariance(case)
    frame = pd.DataFrame(vectors, index=case.hierarchy.features, columns=["u", "v", "w"])
    shuffled = frame.sample(frac=1, random_state=0)
    for operation in (sigma.solve, sigma.sqrt().solve):
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


def test_arguments_are_checked():
    sigma = MultilevelCovariance(Hierarchy(LABELS), F, D, ranks=[1, 1])
    for wrong in (-1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="refine: a number of steps"):
            sigma.solve(D, refine=wrong)
        with pytest.raises(ValueError, match="size: a number of draws"):
            sigma.sample(wrong)
    for verb in (sigma.kl_divergence, sigma.expected_loglike):
        with pytest.raises(TypeError, match="other must be a MultilevelCovariance, not ndarray"):
            verb(np.eye(3))
    with pytest.raises(ValueError, match="multiplied by 0"):
        sigma.scale([1, 0, 1])
    with pytest.raises(ValueError, match="by: must be finite; not so for 'y'"):
        sigma.scale([1, np.nan, 1])
    with pytest.raises(ValueError, match="features: none are left"):
        sigma.marginal([])
    with pytest.raises(ValueError, match="features: named more than once: 'x'"):
        sigma.marginal(["x", "x"])
    with pytest.raises(ValueError, match="observed: these are all features"):
        sigma.conditional(slice(None))
    with pytest.raises(ValueError, match="observed: none are named"):
        sigma.conditional([])
    with pytest.raises(ValueError, match=r"Y: shape \(nobs, 3\) is needed, not \(2, 4\)"):
        sigma.loglike(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"y: shape \(1,\) or \(1, k\) is needed, not \(\)"):
        sigma.conditional("x").mean(3.0)
    with pytest.raises(ValueError, match="observed: no features are called 'w'"):
        sigma.conditional(["w"])
    with pytest.raises(ValueError, match=r"max_features: 3 features make a dense matrix"):
        sigma.to_frame(max_features=2)
    assert sigma.to_frame(max_features=None).shape == (3, 3)


def test_no_large_arrays():
    """What is held at once stays a small multiple of the loadings, with many small groups too."""
    import tracemalloc

    n = 30_000
    labels = pd.DataFrame({"g": np.arange(n) // 300, "h": np.arange(n) // 20}, index=pd.RangeIndex(n))
    sigma = MultilevelCovariance(
        Hierarchy(labels), np.random.default_rng(0).standard_normal((n, 12)), np.ones(n), ranks=[6, 4, 2]
    )
    b = np.ones(n)
    limits = {"logdet": 1.5, "solve": 1.5, "inv": 2, "sqrt": 3, "norm": 2.5, "quad_form": 1.5, "trace": 0.5}
    for name, limit in limits.items():
        arguments = (b,) if name in ("solve", "quad_form") else ()
        tracemalloc.start()
        try:
            getattr(sigma, name)(*arguments)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < limit * sigma.loadings.to_numpy().nbytes, name
