"""The Cholesky factor of the expanded matrix, held against the matrix itself."""

import numpy as np
import pandas as pd
import pytest

from mlfm import MultilevelCovariance


@pytest.fixture
def sigma(case):
    return MultilevelCovariance(case.hierarchy, case.loadings, case.uniquenesses, ranks=case.ranks)


def dense_expanded(case):
    """[[D, F], [F', -I]] with a column of F for each factor of each group: finest level first, group by group."""
    n = case.hierarchy.n_features
    columns, names = [], []
    first = np.cumsum([0, *case.ranks])
    for depth in reversed(range(len(case.ranks))):
        level = case.hierarchy.levels[depth]
        for group, members in case.hierarchy.groups(level).items():
            inside = case.hierarchy.features.isin(members)
            for factor in range(case.ranks[depth]):
                columns.append(np.where(inside, case.loadings[:, first[depth] + factor], 0.0))
                names.append((level, group, factor + 1))
    F = np.array(columns).reshape(len(columns), n).T
    E = np.block([[np.diag(case.uniquenesses), F], [F.T, -np.eye(F.shape[1])]])
    return E, [*case.hierarchy.features, *names]


def test_the_expanded_matrix(case, sigma):
    E, names = dense_expanded(case)
    cholesky = sigma.cholesky()
    assert cholesky.labels.tolist() == names
    assert cholesky.shape == E.shape
    np.testing.assert_array_equal(cholesky.expanded().toarray(), E)


def test_the_factor(case, sigma):
    E, _ = dense_expanded(case)
    cholesky = sigma.cholesky()
    L, signs = cholesky.to_sparse(), cholesky.signs
    n = case.hierarchy.n_features
    assert (signs[:n] == 1).all()
    assert (signs[n:] == -1).all()
    dense = L.toarray()
    assert (dense == np.tril(dense)).all()
    assert (np.diag(dense) > 0).all()
    np.testing.assert_allclose(dense @ np.diag(signs) @ dense.T, E, rtol=1e-11, atol=1e-12)


def test_the_claimed_sparsity(case, sigma):
    """A feature's column: itself and its path. A factor's: the later factors of its group, and the groups above."""
    cholesky = sigma.cholesky()
    L = cholesky.to_sparse()
    assert L.has_canonical_format
    above = np.cumsum([0, *case.ranks])
    r, groups = int(above[-1]), case.hierarchy.n_groups.to_numpy()
    inside = sum(p * (k * (k + 1) // 2 + k * int(c)) for p, k, c in zip(groups, case.ranks, above, strict=False))
    assert L.nnz == case.hierarchy.n_features * (1 + r) + inside
    # The same set of places as elimination of the pattern of E, done dumbly.
    E, _ = dense_expanded(case)
    pattern = np.tril(E != 0)
    n = case.hierarchy.n_features
    # Factors of one group count as connected, as they are as soon as the group has two features.
    names = cholesky.labels.tolist()
    for i in range(n, len(names)):
        for j in range(n, i):
            pattern[i, j] |= names[i][:2] == names[j][:2]
    for k in range(len(E)):
        rows = np.flatnonzero(pattern[k + 1 :, k]) + k + 1
        pattern[np.ix_(rows, rows)] |= np.tri(len(rows), dtype=bool)
    stored = np.zeros_like(pattern)
    columns = np.repeat(np.arange(len(E)), np.diff(L.indptr))
    stored[L.indices, columns] = True
    np.testing.assert_array_equal(stored, pattern)


def test_solve(case, sigma):
    E, names = dense_expanded(case)
    b = np.random.default_rng(0).standard_normal((len(E), 3))
    cholesky = sigma.cholesky()
    expected = np.linalg.solve(E, b)
    np.testing.assert_allclose(cholesky.solve(b), expected, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(cholesky.solve(b[:, 0]), expected[:, 0], rtol=1e-9, atol=1e-10)
    index = pd.Index(names, dtype=object, tupleize_cols=False)
    labelled = pd.Series(b[:, 0], index=index, name="b").iloc[::-1]
    out = cholesky.solve(labelled)
    assert out.index.equals(labelled.index)
    np.testing.assert_allclose(out.iloc[::-1], expected[:, 0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_solve_in_many_tasks(case, sigma, width, monkeypatch):
    """Factors enter and leave with the task that holds their group's first feature, however the tree is cut."""
    b = np.random.default_rng(0).standard_normal(sigma.cholesky().shape[0])
    whole = sigma.cholesky().solve(b)
    monkeypatch.setattr("mlfm.sweep.route.task_width", lambda tree, columns: width)
    np.testing.assert_allclose(sigma.cholesky().solve(b), whole, rtol=1e-9, atol=1e-11)


def test_determinant_and_schur_complement(case, sigma):
    E, _ = dense_expanded(case)
    n = case.hierarchy.n_features
    cholesky = sigma.cholesky()
    sign, logdet = np.linalg.slogdet(E)
    got_sign, got = cholesky.slogdet()
    assert got_sign == sign
    assert got == pytest.approx(logdet, rel=1e-11, abs=1e-11)
    assert cholesky.logdet() == got
    # Twice the logarithms of the pivots' roots.
    assert 2 * np.log(cholesky.to_sparse().diagonal()).sum() == pytest.approx(got, rel=1e-11, abs=1e-11)
    complement = E[:n, :n] + E[:n, n:] @ E[n:, :n]
    np.testing.assert_allclose(cholesky.schur_complement().to_dense(), complement, rtol=1e-11, atol=1e-12)


def test_wrong_right_hand_sides(case, sigma):
    cholesky = sigma.cholesky()
    with pytest.raises(ValueError, match="b: shape"):
        cholesky.solve(np.ones(cholesky.shape[0] + 1))
    with pytest.raises(ValueError, match="b: 1 values are missing"):
        cholesky.solve(np.r_[np.nan, np.ones(cholesky.shape[0] - 1)])
