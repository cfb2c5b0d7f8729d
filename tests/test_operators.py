"""One contract for every operator, over every shape of hierarchy: what it does is what its dense twin does."""

import pickle

import numpy as np
import pandas as pd
import pytest
from oracle import dense_low_rank, zoo
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from mlfm import MultilevelCovariance, MultilevelLowRank

pytestmark = pytest.mark.portable


def covariance(case):
    sigma = MultilevelCovariance(case.hierarchy, case.loadings, case.uniquenesses, ranks=case.ranks)
    return sigma, case.sigma


def general(case, seed=5):
    rng = np.random.default_rng(seed)
    B, C = rng.standard_normal((2, *case.loadings.shape))
    d = rng.standard_normal(len(B))
    dense = dense_low_rank(case.hierarchy, case.ranks, B, C) + np.diag(d)
    return MultilevelLowRank(case.hierarchy, B, C, d, ranks=case.ranks), dense


def precision(case):
    sigma, dense = covariance(case)
    return sigma.inv(), np.linalg.inv(dense)


def transposed(case):
    M, dense = general(case)
    return M.T, dense.T


def negative(case):
    sigma, dense = covariance(case)
    return -sigma, -dense


def difference(case):
    sigma, dense = covariance(case)
    M, other = general(case)
    return 2 * sigma - M / 4, 2 * dense - other / 4


def square(case):
    M, dense = general(case)
    return M @ M, dense @ dense


def correlation(case):
    sigma, dense = covariance(case)
    d = 1 / np.sqrt(np.diag(dense))
    return sigma.correlation(), d[:, None] * dense * d


def root(case):
    sigma, dense = covariance(case)
    S = sigma.sqrt()
    return S, S @ np.eye(len(dense))


ZOO = zoo()
KINDS = [covariance, general, precision, transposed, negative, difference, square, correlation]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def pair(request, case):
    return request.param(case)


@pytest.fixture
def vectors(case):
    return np.random.default_rng(3).standard_normal((case.hierarchy.n_features, 3))


def close(got, dense, size=None):
    size = np.abs(dense).max(initial=1.0) if size is None else size
    np.testing.assert_allclose(got, dense, rtol=1e-10, atol=1e-12 * size)


def test_whole_and_parts(pair, case):
    M, dense = pair
    features = case.hierarchy.features
    close(M.to_dense(), dense)
    frame = M.to_frame()
    assert frame.index.equals(features)
    assert frame.columns.equals(features)
    close(frame, dense)
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, len(features), 4), rng.permutation(len(features))[:3]
    part = M.submatrix(list(features[i]), features[j])
    close(part, dense[np.ix_(i, j)])
    assert part.index.equals(features[i])
    assert part.columns.equals(features[j])
    close(M[features[i[0]], features[j[0]]], dense[i[0], j[0]])
    close(M[features[i[0]], :], dense[i[0]])
    close(M[:, features[j[0]]], dense[:, j[0]])


def test_diagonal_and_trace(pair):
    M, dense = pair
    close(M.diagonal(), np.diag(dense))
    close(M.trace(), np.trace(dense), np.abs(dense).max() * len(dense))


def test_products(pair, vectors):
    M, dense = pair
    size = np.abs(dense).max() * len(dense)
    close(M @ vectors, dense @ vectors, size)
    close(M @ vectors[:, 0], dense @ vectors[:, 0], size)
    close(M.T @ vectors, dense.T @ vectors, size)
    close(vectors.T @ M, vectors.T @ dense, size)
    close(vectors[:, 1] @ M, vectors[:, 1] @ dense, size)
    close(M.matvec(vectors[:, :1]), dense @ vectors[:, :1], size)
    close(M.matmat(vectors), dense @ vectors, size)
    close(M.rmatvec(vectors[:, 0]), dense.T @ vectors[:, 0], size)
    close(M.rmatmat(vectors), dense.T @ vectors, size)
    close(M.H @ vectors, dense.T @ vectors, size)
    assert (M @ vectors[:, 0]).shape == vectors[:, 0].shape
    assert (M @ vectors[:, :0]).shape == (len(vectors), 0)


def test_memory_orders_and_types(pair, vectors):
    M, _ = pair
    expected = M @ vectors
    for other in (np.asfortranarray(vectors), np.repeat(vectors, 2, axis=1)[:, ::2], vectors.tolist()):
        np.testing.assert_array_equal(M @ other, expected)
    locked = vectors.copy()
    locked.setflags(write=False)
    np.testing.assert_array_equal(M @ locked, expected)
    np.testing.assert_allclose(M @ vectors.astype(np.float32), M @ vectors.astype(np.float32).astype(float))
    whole = np.arange(len(vectors))
    np.testing.assert_array_equal(M @ whole, M @ whole.astype(float))


def test_labels(pair, case, vectors):
    M, _ = pair
    frame = pd.DataFrame(vectors, index=case.hierarchy.features, columns=["u", "v", "w"])
    shuffled = frame.sample(frac=1, random_state=0)
    for verb in (M.dot, M.matmat, M.T.dot):
        out = verb(shuffled)
        assert list(out.columns) == ["u", "v", "w"]
        assert out.index.equals(shuffled.index)
        np.testing.assert_array_equal(out.loc[frame.index], verb(vectors))
    series = M.matvec(shuffled["v"])
    assert series.name == "v"
    np.testing.assert_array_equal(series.loc[frame.index], M @ vectors[:, 1])


def test_labels_on_the_left(pair, case, vectors):
    M, dense = pair
    size = np.abs(dense).max() * len(dense)
    frame = pd.DataFrame(vectors.T, index=["u", "v", "w"], columns=case.hierarchy.features)
    shuffled = frame.sample(frac=1, axis=1, random_state=1)
    out = M.rdot(shuffled)
    assert list(out.index) == ["u", "v", "w"]
    assert out.columns.equals(shuffled.columns)
    close(out[frame.columns], vectors.T @ dense, size)
    series = M.rdot(shuffled.loc["v"])
    assert series.name == "v"
    close(series[frame.columns], vectors[:, 1] @ dense, size)
    close(M.rdot(vectors.T.tolist()), vectors.T @ dense, size)
    close(M.rdot(2).to_dense(), 2 * dense)
    close(M.rdot(aslinearoperator(dense)) @ vectors, dense @ dense @ vectors, size**2)
    with pytest.raises(ValueError, match="a vector or a matrix is needed, not 3 dimensions"):
        M.rdot(vectors[None])
    with pytest.raises(ValueError, match="not multiplied by @"):
        _ = 2 @ M


def test_norms_and_forms(pair, case, vectors):
    M, dense = pair
    size = np.linalg.norm(dense)
    assert M.norm() == pytest.approx(size, rel=1e-12)
    other, its_dense = general(case, seed=8)
    scale = 1e-13 * size * np.linalg.norm(its_dense)
    assert M.inner(other) == pytest.approx(np.vdot(dense, its_dense), rel=1e-11, abs=scale)
    assert other.inner(M) == pytest.approx(np.vdot(dense, its_dense), rel=1e-11, abs=scale)
    assert M.trace_of_product(other) == pytest.approx(np.trace(dense @ its_dense), rel=1e-11, abs=scale)
    forms = np.einsum("jk,ji,ik->k", vectors, dense, vectors)
    allowed = 1e-13 * size * (vectors**2).sum()
    np.testing.assert_allclose(M.quad_form(vectors), forms, rtol=1e-10, atol=allowed)
    assert M.quad_form(vectors[:, 0]) == pytest.approx(forms[0], rel=1e-10, abs=allowed)
    frame = pd.DataFrame(vectors, index=case.hierarchy.features, columns=list("uvw")).iloc[::-1]
    assert list(M.quad_form(frame).index) == list("uvw")
    np.testing.assert_allclose(M.quad_form(frame), forms, rtol=1e-10, atol=allowed)


def test_algebra(pair, case):
    M, dense = pair
    other, its_dense = general(case, seed=8)
    size = np.abs(dense).max() * np.abs(its_dense).max() * len(dense)
    for got, expected in [
        (M + other, dense + its_dense),
        (other + M, dense + its_dense),
        (M - other, dense - its_dense),
        (M @ other, dense @ its_dense),
        (other @ M, its_dense @ dense),
        (other.T @ M.T, (dense @ its_dense).T),
        (3 * M, 3 * dense),
        (M * -2, -2 * dense),
        (M / 2, dense / 2),
        (-M, -dense),
        (0 * M, 0 * dense),
        (np.array(2.0) * M, 2 * dense),
        (M * np.float32(0.5), dense / 2),
        (sum([M, other, M]), 2 * dense + its_dense),
        (M**1, dense),
    ]:
        assert isinstance(got, MultilevelLowRank)
        close(got.to_dense(), expected, size)
    cube = np.linalg.matrix_power(dense, 3)
    close((M**3).to_dense(), cube, np.abs(dense).max() ** 3 * len(dense) ** 2)
    added = np.asarray(case.ranks) + M.ranks.to_numpy()
    assert (M + other).ranks.tolist() == added.tolist()
    assert (M @ other).ranks.tolist() == added.tolist()


def test_scale(pair, case):
    M, dense = pair
    rng = np.random.default_rng(1)
    d, e = rng.uniform(0.5, 2, (2, len(dense)))
    close(M.scale(d).to_dense(), d[:, None] * dense * d)
    close(M.scale(pd.Series(d, index=case.hierarchy.features).iloc[::-1]).to_dense(), d[:, None] * dense * d)
    close(M.scale(d, e).to_dense(), d[:, None] * dense * e)
    close(M.scale(3.0).to_dense(), 9 * dense)


def test_compression_changes_nothing_but_the_ranks(pair):
    M, dense = pair
    doubled = (M + M + M).compress()
    close(doubled.to_dense(), 3 * dense)
    sizes = [int(np.diff(bounds).max()) for bounds in M.hierarchy.offsets]
    assert (doubled.ranks.to_numpy() <= np.minimum(M.ranks.to_numpy(), sizes)).all()
    nothing = (M - M).compress()
    assert nothing.ranks.sum() == 0
    assert nothing.norm() == 0
    assert (M - M).norm() <= 1e-13 * M.norm()


@pytest.mark.parametrize("rtol", [1e-3, 0.1, 0.5])
def test_compression_to_a_tolerance(pair, rtol):
    M, dense = pair
    small = M.compress(rtol=rtol)
    left_out = np.linalg.norm(small.to_dense() - dense)
    assert left_out <= rtol * np.linalg.norm(dense) * (1 + 1e-9)
    assert (M - small).norm() == pytest.approx(left_out, rel=1e-6, abs=1e-12 * np.linalg.norm(dense))
    assert M.compress(rtol=0, atol=10 * np.linalg.norm(dense) * 20).ranks.sum() == 0


def test_scipy_takes_it(pair, vectors):
    M, dense = pair
    assert aslinearoperator(M) is M
    composed = aslinearoperator(np.eye(len(dense))) @ M
    assert isinstance(composed, LinearOperator)
    close(composed @ vectors, dense @ vectors, np.abs(dense).max() * len(dense))
    both = M @ aslinearoperator(dense) + aslinearoperator(dense)
    close(both @ vectors[:, 0], (dense @ dense + dense) @ vectors[:, 0], np.abs(dense).max() ** 2 * len(dense) ** 2)


def test_expressions_keep_labels(case, vectors):
    """Multiples, products and sums of operators of all kinds here align what they are given."""
    sigma, dense = covariance(case)
    S, wide = root(case)
    frame = pd.DataFrame(vectors, index=case.hierarchy.features).iloc[::-1]
    for got, expected in [
        (2 * S, 2 * wide),
        (-S, -wide),
        (S / 4, wide / 4),
        (S @ S.T, dense),
        (S.T @ S, wide.T @ wide),
        (sigma @ S, dense @ wide),
        (S @ sigma, wide @ dense),
        (S + sigma, wide + dense),
        (sigma - S, dense - wide),
        (sum([S, S.T]), wide + wide.T),
    ]:
        for operator, matrix in ((got, expected), (got.T, expected.T)):
            out = operator @ frame
            assert out.index.equals(frame.index)
            np.testing.assert_allclose(out.iloc[::-1], matrix @ vectors, rtol=1e-10, atol=1e-10)
        with pytest.raises(AttributeError):
            got.shape = (1, 1)


def test_frozen_and_pickled(pair, vectors):
    M, _ = pair
    before = M @ vectors
    for name in ("shape", "dtype", "left", "_terms", "anything"):
        with pytest.raises(AttributeError):
            setattr(M, name, 1)
        with pytest.raises(AttributeError):
            delattr(M, name)
    copies = M.left, M.right, M.diag
    for copy in copies:
        copy.iloc[:] = 99
    M.diagonal()[:] = 99
    for array in (M._terms.left, M._terms.right, M._terms.diag):
        assert not array.flags.writeable
    again = pickle.loads(pickle.dumps(M))
    np.testing.assert_array_equal(again @ vectors, before)
    with pytest.raises(AttributeError):
        again.shape = (1, 1)
    assert not again._terms.left.flags.writeable
    assert type(again) is type(M)


def test_labelled_factors_make_it_again(pair, vectors):
    M, dense = pair
    again = MultilevelLowRank(M.hierarchy, M.left.iloc[::-1], M.right.iloc[::-1], M.diag.iloc[::-1])
    close(again.to_dense(), dense)


def test_the_root(case, vectors):
    sigma, dense = covariance(case)
    S, wide = root(case)
    close(wide @ wide.T, dense)
    close(S @ vectors, wide @ vectors)
    close(S.T @ vectors, wide.T @ vectors)
    close(S.H.matvec(vectors[:, 0]), wide.T @ vectors[:, 0])
    close(S.T.T @ vectors, wide @ vectors)
    close(S.solve(vectors), np.linalg.solve(wide, vectors))
    close(sigma.sqrt_matvec(vectors[:, 0]), wide @ vectors[:, 0])
    frame = pd.DataFrame(vectors, index=case.hierarchy.features).iloc[::-1]
    pd.testing.assert_frame_equal(S.solve(S @ frame), frame)
    with pytest.raises(AttributeError):
        S.shape = (1, 1)


VERBS = {
    "product": lambda sigma, x: sigma @ x,
    "transposed": lambda sigma, x: (sigma @ sigma).T @ x,
    "solution": lambda sigma, x: sigma.solve(x),
    "inverse": lambda sigma, x: sigma.inv().factors,
    "root": lambda sigma, x: sigma.sqrt() @ x,
    "whitened": lambda sigma, x: sigma.sqrt().solve(x),
    "square": lambda sigma, x: (sigma @ sigma).left,
    "norm": lambda sigma, x: sigma.norm(),
    "forms": lambda sigma, x: sigma.quad_form(x),
    "conditional": lambda sigma, x: sigma.conditional(slice("x0", "x2")).covariance.loadings,
    "sample": lambda sigma, x: sigma.sample(3, rng=0),
    "logdet": lambda sigma, x: sigma.logdet(),
}


@pytest.mark.parametrize("name", VERBS)
def test_neither_the_cut_nor_the_threads_matter(case, vectors, name, monkeypatch):
    """Pieces of two features: the same to rounding. Threads that share them: the same to the last bit."""
    if case.hierarchy.n_features < 4:
        case = ZOO["balanced"]
        vectors = np.random.default_rng(3).standard_normal((case.hierarchy.n_features, 3))
    whole = np.asarray(VERBS[name](covariance(case)[0], vectors))
    for module in ("mlfm.sweep.route", "mlfm.linear"):
        monkeypatch.setattr(f"{module}.task_width", lambda tree, columns: 2)
    pieces = []
    for threads in (1, 3):
        monkeypatch.setattr("mlfm.sweep.threads.available_cpus", lambda threads=threads: threads)
        pieces.append(np.asarray(VERBS[name](covariance(case)[0], vectors)))
    np.testing.assert_allclose(pieces[0], whole, rtol=1e-9, atol=1e-10)
    np.testing.assert_array_equal(pieces[1], pieces[0])
