"""Factor fitting in the Frobenius norm, against dense decompositions block by block and matrices of known ranks."""

import numpy as np
import pandas as pd
import pytest
from oracle import blocks_of, dense_blocks
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import mlfm
from mlfm import Hierarchy, MultilevelCovariance
from mlfm.exceptions import ConvergenceWarning
from mlfm.lowrank import MultilevelMatrix, SampleCovariance, fit

STRUCTURES = ["general", "symmetric", "psd"]


def groups(n, letters, seed):
    """Three levels; unsorted, so that group order is not the user's."""
    rng = np.random.default_rng(seed)
    small = np.concatenate([np.arange(6), rng.integers(0, 6, n - 6)])
    rng.shuffle(small)
    labels = pd.DataFrame({"big": small // 3, "small": small % 3}, index=[f"{letters}{i}" for i in range(n)])
    return Hierarchy(labels)


ROWS, COLS = groups(40, "r", 1), groups(30, "c", 2)
COLS_AGAIN = Hierarchy(COLS.to_frame().loc[["c0", *COLS.features[:0:-1]]])


def noise(m, n, seed=0):
    return np.random.default_rng(seed).standard_normal((m, n))


def fading(m, n, seed=0):
    """A matrix whose singular values fall by 0.7 from one to the next."""
    U, V = np.linalg.qr(noise(m, min(m, n), seed))[0], np.linalg.qr(noise(n, min(m, n), seed + 1))[0]
    return U * 10 * 0.7 ** np.arange(min(m, n)) @ V.T


def symmetric(n=30, seed=0):
    """A symmetric matrix with eigenvalues of both signs, the larger ones positive; fading, too."""
    V = np.linalg.qr(noise(n, n, seed))[0]
    values = 10 * 0.7 ** np.arange(n)
    values[2::3] *= -1
    return V * values @ V.T


def data(nobs=50, seed=3):
    """Observations of the columns' features, with factors of their groups."""
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((30, 3))
    sigma = dense_blocks(COLS, COLS, (1, 1, 1), F, F, np.ones(30))
    return pd.DataFrame(rng.standard_normal((nobs, 30)) @ np.linalg.cholesky(sigma).T, columns=COLS.features)


def best_of(block, rank, structure):
    """The best block of this rank, from its dense decomposition."""
    if structure == "general":
        U, s, Vt = np.linalg.svd(block)
        rank = min(rank, len(s))
        return U[:, :rank] * s[:rank] @ Vt[:rank]
    values, V = np.linalg.eigh(block)
    if structure == "psd":
        values = np.maximum(values, 0)
    keep = np.argsort(-np.abs(values))[:rank]
    return V[:, keep] * values[keep] @ V[:, keep].T


def arguments(structure):
    """A matrix and its groups for each structure."""
    if structure == "general":
        return {"A": fading(40, 30), "rows": ROWS, "cols": COLS}
    return {"A": symmetric(), "rows": COLS, "structure": structure}


# What is known beforehand


@pytest.mark.parametrize("method", ["bcd", "als"])
@pytest.mark.parametrize("ranks", [(1, 1, 1), (2, 0, 1), (0, 2, 0), (3, 0, 0)])
def test_a_matrix_of_these_ranks_is_found_again(method, ranks):
    B, C = noise(40, sum(ranks), 1), noise(30, sum(ranks), 2)
    A = dense_blocks(ROWS, COLS, ranks, B, C)
    found = fit(A, ROWS, COLS, ranks, method, tol=1e-9, maxiter=5000)
    assert found.converged
    assert found.relative_error < 1e-6
    np.testing.assert_allclose(found.matrix.to_dense(), A, atol=1e-5)


@pytest.mark.parametrize("structure", ["symmetric", "psd"])
def test_a_symmetric_matrix_of_these_ranks_is_found_again(structure):
    B = noise(30, 3, 1)
    signs = np.ones(3) if structure == "psd" else [1, -1, 1]
    A = dense_blocks(COLS, COLS, (1, 1, 1), B, B * signs)
    found = fit(A, COLS, ranks=[1, 1, 1], structure=structure, tol=1e-9, maxiter=5000)
    assert found.relative_error < 1e-6


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_one_level_by_itself_is_the_decomposition_of_every_block(structure, level):
    given = arguments(structure)
    rows, cols = given["rows"], given.get("cols", given["rows"])
    ranks = [0, 0, 0]
    ranks[level] = 2
    expected = np.zeros_like(given["A"])
    for i, j in blocks_of(rows, cols, rows.levels[level]):
        expected[np.ix_(i, j)] = best_of(given["A"][np.ix_(i, j)], 2, structure)
    found = fit(**given, ranks=ranks, tol=1e-12, maxiter=5000)
    assert found.error == pytest.approx(np.linalg.norm(given["A"] - expected), rel=1e-9)
    np.testing.assert_allclose(found.matrix.to_dense(), expected, atol=1e-4)


def test_weak_directions_are_kept():
    """Singular values a millionth of the first: a product loses none, and a second sweep does not lose them again."""
    U, V = np.linalg.qr(noise(30, 3, 1))[0], np.linalg.qr(noise(30, 3, 2))[0]
    A = U * [1, 1e-3, 1e-6] @ V.T
    found = fit(A, Hierarchy(COLS.features), Hierarchy(COLS.features), [3], tol=1e-12)
    assert found.relative_error < 1e-7


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("scale", [1e-12, 1e9])
def test_units_do_not_matter(structure, scale):
    given = arguments(structure)
    expected = fit(**given, ranks=[1, 1, 1])
    found = fit(**(given | {"A": given["A"] * scale}), ranks=[1, 1, 1])
    assert found.relative_error == pytest.approx(expected.relative_error, rel=1e-6)
    assert found.error == pytest.approx(expected.error * scale, rel=1e-6)


# What every fit keeps


@pytest.fixture(
    params=[
        ("general", "bcd", False),
        ("general", "als", False),
        ("general on one hierarchy", "als", True),
        ("general on one hierarchy", "bcd", True),
        ("symmetric", "bcd", False),
        ("symmetric", "bcd", True),
        ("psd", "bcd", False),
        ("psd", "bcd", True),
    ],
    ids=lambda kind: f"{kind[0]} {kind[1]}{' and a diagonal' if kind[2] else ''}",
    scope="module",
)
def fitted(request):
    """A matrix, and its fit to the end."""
    kind, method, diagonal = request.param
    if kind == "general on one hierarchy":
        given = {"A": fading(30, 30), "rows": COLS, "cols": COLS}
    else:
        given = arguments(kind)
    found = fit(**given, ranks=[2, 1, 1], method=method, diagonal=diagonal, tol=1e-6, maxiter=20000)
    return given["A"], found


def test_the_error_is_that_of_the_dense_matrix(fitted):
    A, found = fitted
    left = A - found.matrix.to_dense()
    assert found.norm == pytest.approx(np.linalg.norm(A), rel=1e-12)
    assert found.error == pytest.approx(np.linalg.norm(left), rel=1e-10)
    assert found.relative_error == pytest.approx(found.error / found.norm, rel=1e-12)
    assert found.history["relative_error"].iloc[-1] == pytest.approx(found.relative_error, rel=1e-7)


def test_no_sweep_raises_the_error(fitted):
    _, found = fitted
    assert found.converged
    errors = found.history["relative_error"].to_numpy()
    assert (np.diff(errors) <= 1e-12).all()
    np.testing.assert_allclose(found.history["decrease"].to_numpy()[1:], 1 - errors[1:] / errors[:-1], atol=1e-12)
    assert list(found.history.index) == list(range(1, len(errors) + 1))


def test_no_level_by_itself_can_be_improved(fitted):
    A, found = fitted
    M = found.matrix
    before = found.error**2
    first = 0
    for level, rank in zip(M.rows.levels, M.ranks, strict=True):
        own = slice(first, first + rank)
        first += rank
        left = A - M.to_dense()
        after = before
        for i, j in blocks_of(M.rows, M.cols, level):
            part = M.left.to_numpy()[i, own] @ M.right.to_numpy()[j, own].T
            block = left[np.ix_(i, j)] + part
            better = block - best_of(block, rank, found.structure)
            after += (better**2).sum() - (left[np.ix_(i, j)] ** 2).sum()
        # Eigenvalues of two signs: a block may hold on to one of nearly the size of one of the other sign.
        assert after >= before * (1 - (1e-3 if found.structure == "symmetric" else 1e-5))
    if M.diag is not None:
        slope = np.diag(A - M.to_dense())
        held = (found.structure == "psd") & (M.diag.to_numpy() == 0) & (slope < 0)  # it would fall below zero
        assert np.abs(np.where(held, 0.0, slope)).max() < 1e-2 * np.abs(A).max()


def test_blocks_are_what_was_asked(fitted):
    _, found = fitted
    M = found.matrix
    if found.structure == "general":
        assert not np.allclose(M.to_dense(), M.to_dense().T) if M.shape[0] == M.shape[1] else True
        return
    dense = M.to_dense()
    np.testing.assert_allclose(dense, dense.T, atol=1e-12)
    B, C = M.left.to_numpy(), M.right.to_numpy()
    assert (B == C).all() == (found.structure == "psd")
    if found.structure == "psd" and M.diag is not None:
        assert (M.diag >= 0).all()
    r = M.ranks.sum()
    assert M.storage >= 30 * r + (0 if M.diag is None else 30)
    assert M.storage <= 30 * r + (0 if M.diag is None else 30) + 2 * 1 + 2 + 6


# However the matrix is given


def operator(A):
    plain = aslinearoperator(A)
    return LinearOperator(A.shape, matvec=plain.matvec, rmatvec=plain.rmatvec, dtype=float)


GIVEN = {
    "csr": sparse.csr_array,
    "coo": sparse.coo_array,
    "csc matrix": sparse.csc_matrix,
    "in parts": lambda A: sparse.csr_array(
        (
            np.tile(A.ravel() / 2, 2),
            (np.tile(np.repeat(np.arange(len(A)), A.shape[1]), 2), np.tile(np.arange(A.shape[1]), 2 * len(A))),
        ),
        shape=A.shape,
    ),
    "operator": operator,
    "nested lists": np.ndarray.tolist,
}


@pytest.mark.parametrize("form", list(GIVEN))
@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_form_of_the_matrix_does_not_matter(structure, form):
    given = arguments(structure)
    given["A"] = np.where(np.abs(given["A"]) > 0.2, given["A"], 0.0)
    diagonal = structure != "general"
    expected = fit(**given, ranks=[1, 1, 1], diagonal=diagonal)
    found = fit(**(given | {"A": GIVEN[form](given["A"])}), ranks=[1, 1, 1], diagonal=diagonal)
    assert found.error == pytest.approx(expected.error, rel=1e-7)
    np.testing.assert_allclose(found.matrix.to_dense(), expected.matrix.to_dense(), atol=1e-8)


@pytest.mark.parametrize("method", ["bcd", "als"])
def test_labels_are_matched(method):
    A = pd.DataFrame(noise(40, 30), index=ROWS.features, columns=COLS.features)
    expected = fit(A.to_numpy(), ROWS, COLS, [1, 1, 1], method)
    rng = np.random.default_rng(0)
    shuffled = A.iloc[rng.permutation(40), rng.permutation(30)]
    found = fit(shuffled, ROWS, COLS, [1, 1, 1], method)
    pd.testing.assert_frame_equal(found.matrix.to_frame(), expected.matrix.to_frame(), atol=1e-8)


def test_labels_of_symmetric_matrices_are_matched():
    A = pd.DataFrame(symmetric(), index=COLS.features, columns=COLS.features)
    expected = fit(A.to_numpy(), COLS, ranks=[1, 1, 1], diagonal=True)
    rng = np.random.default_rng(0)
    shuffled = A.iloc[rng.permutation(30), rng.permutation(30)]
    found = fit(shuffled, COLS, ranks=[1, 1, 1], diagonal=True)
    pd.testing.assert_frame_equal(found.matrix.to_frame(), expected.matrix.to_frame(), atol=1e-8)
    flat = fit(shuffled, ranks=[2])
    assert flat.structure == "symmetric"
    assert list(flat.matrix.cols.features) == list(flat.matrix.rows.features)


def test_groups_among_the_labels_are_passed_over():
    """A covariance of a frame whose columns hold groups above names."""
    labels = COLS.to_frame()
    index = pd.MultiIndex.from_arrays([labels["big"], labels["small"], labels.index], names=["big", "small", None])
    A = pd.DataFrame(symmetric(), index=index, columns=index)
    found = fit(A, Hierarchy(index), ranks=[1, 1, 1])
    expected = fit(A.to_numpy(), COLS, ranks=[1, 1, 1])
    np.testing.assert_allclose(found.matrix.to_dense(), expected.matrix.to_dense(), atol=1e-8)


def test_a_labelled_operator_is_matched_with_one_hierarchy():
    """Rows and columns of the operator stand in other orders: what is its diagonal goes by label."""
    rng = np.random.default_rng(0)
    B, C = noise(30, 3, 1), noise(30, 3, 2)
    M = MultilevelMatrix(COLS, COLS_AGAIN, B, C, ranks=(1, 1, 1))
    A = M.to_frame().loc[COLS.features, COLS.features]
    assert not np.allclose(np.diag(A), np.diag(M.to_dense()))
    found = fit(M, COLS, COLS, ranks=[1, 0, 0], diagonal=True, rng=rng)
    expected = fit(A, COLS, COLS, ranks=[1, 0, 0], diagonal=True, rng=np.random.default_rng(0))
    np.testing.assert_allclose(found.matrix.diag, expected.matrix.diag, atol=1e-8)


def test_small_blocks_in_great_number():
    """Blocks of one shape are multiplied together from 16 on."""
    rows = Hierarchy(pd.DataFrame({"g": np.repeat(np.arange(20), 3)}))
    cols = Hierarchy(pd.DataFrame({"g": np.tile(np.arange(20), 2)}))
    A = noise(60, 40)
    found = fit(A, rows, cols, [0, 1], tol=1e-10)
    expected = np.zeros_like(A)
    for i, j in blocks_of(rows, cols, "g"):
        expected[np.ix_(i, j)] = best_of(A[np.ix_(i, j)], 1, "general")
    np.testing.assert_allclose(found.matrix.to_dense(), expected, atol=1e-4)
    assert found.error == pytest.approx(np.linalg.norm(A - expected), rel=1e-8)


# Covariances given by their data


@pytest.mark.parametrize("nobs", [12, 50])
def test_a_sample_covariance_is_that_of_numpy(nobs):
    Y = data(nobs)
    S = SampleCovariance(Y)
    dense = np.cov(Y.to_numpy(), rowvar=False, ddof=0)
    np.testing.assert_allclose(S @ np.eye(30), dense, atol=1e-12)
    np.testing.assert_allclose(S.T @ np.eye(30), dense, atol=1e-12)
    np.testing.assert_allclose(S.diagonal(), np.diag(dense))
    R = SampleCovariance(Y, correlation=True)
    np.testing.assert_allclose(R @ np.eye(30), np.corrcoef(Y.to_numpy(), rowvar=False), atol=1e-12)
    raw = SampleCovariance(Y.to_numpy() + 1, demean=False)
    np.testing.assert_allclose(raw @ np.eye(30), (Y + 1).T.to_numpy() @ (Y + 1).to_numpy() / nobs, atol=1e-12)


@pytest.mark.parametrize("nobs", [12, 50])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_its_fit_is_that_of_the_dense_covariance(structure, nobs):
    Y = data(nobs)
    dense = np.cov(Y.to_numpy(), rowvar=False, ddof=0)
    cols = COLS if structure == "general" else None
    given = {"ranks": [1, 1, 1], "structure": structure, "diagonal": True}
    expected = fit(dense, COLS, cols, **given)
    found = fit(SampleCovariance(Y.sample(frac=1, axis=1, random_state=0)), COLS, cols, **given)
    assert found.error == pytest.approx(expected.error, rel=1e-6)
    np.testing.assert_allclose(found.matrix.to_dense(), expected.matrix.to_dense(), atol=1e-7)
    assert fit(SampleCovariance(Y), COLS, ranks=[1, 1, 1]).structure == "psd"


def test_a_covariance_on_other_groups_of_columns():
    """The same features in another order of columns: blocks are not symmetric ones of one hierarchy."""
    Y = data()
    S = Y.cov(ddof=0)
    found = fit(SampleCovariance(Y), COLS, COLS_AGAIN, [1, 1, 1])
    expected = fit(S, COLS, COLS_AGAIN, [1, 1, 1])
    pd.testing.assert_frame_equal(found.matrix.to_frame(), expected.matrix.to_frame(), atol=1e-8)


def test_as_a_covariance():
    Y = data()
    found = fit(SampleCovariance(Y), COLS, ranks=[1, 1, 1], diagonal=True)
    assert (found.matrix.diag > 0).all()
    sigma = found.covariance
    assert isinstance(sigma, MultilevelCovariance)
    np.testing.assert_allclose(sigma.to_dense(), found.matrix.to_dense(), atol=1e-10)
    assert sigma.ranks.to_dict() == found.ranks.to_dict()


@pytest.mark.parametrize("given", [{"structure": "symmetric", "diagonal": True}, {"structure": "psd"}])
def test_what_is_no_covariance_is_refused(given):
    with pytest.raises(ValueError, match='structure="psd" and diagonal=True'):
        _ = fit(symmetric(), COLS, ranks=[1, 0, 0], **given).covariance


def test_a_diagonal_of_zero_is_no_uniqueness():
    with pytest.raises(ValueError, match=r"diagonal is zero for .* features"):
        _ = fit(symmetric(), COLS, ranks=[1, 1, 1], structure="psd", diagonal=True).covariance


@pytest.mark.parametrize(
    ("endog", "words"),
    [
        (np.full((3, 2), np.nan), "missing or infinite in 2 columns: 0, 1"),
        (np.ones(3), "observations x features"),
        (pd.DataFrame(np.ones((3, 2)), columns=["a", "a"]), "columns occur twice: 'a'"),
    ],
)
def test_data_that_have_no_covariance(endog, words):
    with pytest.raises(ValueError, match=words):
        SampleCovariance(endog)


def test_features_that_do_not_vary_have_no_correlation():
    with pytest.raises(ValueError, match="columns do not vary: 'b'"):
        SampleCovariance(pd.DataFrame({"a": [1.0, 2, 4], "b": [1.0, 1, 1]}), correlation=True)


# Where to begin


@pytest.mark.parametrize(
    ("structure", "method"), [("general", "bcd"), ("general", "als"), ("symmetric", "bcd"), ("psd", "bcd")]
)
@pytest.mark.parametrize("ranks", [(2, 1, 1), (3, 1, 2), (2, 2, 0), (1, 1, 1)])
def test_a_fit_goes_on_from_another(structure, method, ranks):
    given = arguments(structure)
    first = fit(**given, ranks=[2, 1, 1], method=method)
    begins = first.error
    if any(now < then for now, then in zip(ranks, (2, 1, 1), strict=True)):
        begins = np.linalg.norm(given["A"] - in_order(first, ranks))
    with pytest.warns(ConvergenceWarning):
        still = fit(**given, ranks=ranks, method=method, start=first, maxiter=0)
    assert still.error == pytest.approx(begins, rel=1e-9)
    found = fit(**given, ranks=ranks, method=method, start=first)
    assert found.error <= begins * (1 + 1e-12)
    assert tuple(found.ranks) == ranks
    assert fit(**given, ranks=ranks, method=method, start=found.matrix).error <= found.error * (1 + 1e-12)


def in_order(found, ranks):
    """The best of the blocks of a fit at each level, of these ranks, as a dense matrix."""
    M, first = found.matrix, 0
    dense = np.zeros(M.shape)
    for level, rank, had in zip(M.rows.levels, ranks, M.ranks, strict=True):
        own = slice(first, first + had)
        first += had
        for i, j in blocks_of(M.rows, M.cols, level):
            block = M.left.to_numpy()[i, own] @ M.right.to_numpy()[j, own].T
            dense[np.ix_(i, j)] += best_of(block, rank, found.structure)
    return dense


def test_a_start_keeps_its_diagonal():
    first = fit(symmetric(), COLS, ranks=[1, 1, 1], structure="psd", diagonal=True)
    with pytest.warns(ConvergenceWarning):
        still = fit(symmetric(), COLS, ranks=[1, 1, 1], structure="psd", diagonal=True, start=first, maxiter=0)
    pd.testing.assert_series_equal(still.matrix.diag, first.matrix.diag)
    assert still.matrix.storage == first.matrix.storage


def test_starts_that_cannot_be():
    A = symmetric()
    first = fit(A, COLS, ranks=[1, 1, 1])
    given = {"A": A, "rows": COLS, "ranks": [1, 1, 1]}
    with pytest.raises(ValueError, match="start: its hierarchies are not those"):
        fit(A, COLS.coarsen(["big"]), ranks=[1, 1], start=first)
    with pytest.raises(ValueError, match=r"start: its blocks of level .* need not be psd"):
        fit(**given, structure="psd", start=first)
    general = fit(A, COLS, COLS, [1, 1, 1], method="als")
    for start in (general, general.matrix):
        with pytest.raises(ValueError, match="start: its blocks of level 'global' need not be symmetric"):
            fit(**given, start=start)
    with pytest.raises(TypeError, match="start must be a LowRankFit or a MultilevelMatrix, not dict"):
        fit(**given, start={})
    B = np.ones((30, 3))
    below = MultilevelMatrix(COLS, None, B, B, -1.0, ranks=[1, 1, 1])
    with pytest.raises(ValueError, match="start: its diagonal falls below zero"):
        fit(**given, structure="psd", diagonal=True, start=below)


# The same digits


@pytest.mark.parametrize("method", ["bcd", "als"])
def test_threads_and_runs_give_the_same_digits(method):
    """Large enough for threads to be used."""
    n = 1100
    rows = Hierarchy.random(n, [2, 8], rng=0)
    A = noise(n, n, 1)
    found = [fit(A, rows, rows, [4, 2, 1], method, n_threads=threads, tol=1e-3) for threads in (1, 2, 2)]
    for other in found[1:]:
        assert (other.matrix.left.to_numpy() == found[0].matrix.left.to_numpy()).all()
        assert (other.matrix.right.to_numpy() == found[0].matrix.right.to_numpy()).all()
        assert other.error == found[0].error


def test_seeds():
    given = arguments("general")
    one, two, other = (fit(**given, ranks=[1, 1, 1], rng=rng, maxiter=50, tol=0.1) for rng in (None, 0, 5))
    assert one.error == two.error
    assert one.error != other.error


# Shapes at the edge


def test_without_groups_it_is_a_truncated_decomposition():
    A = noise(20, 12)
    found = fit(A, ranks=[3], tol=1e-12, maxiter=5000)
    assert found.structure == "general"
    np.testing.assert_allclose(found.matrix.to_dense(), best_of(A, 3, "general"), atol=1e-4)
    S = symmetric(12)
    assert fit(S, ranks=[12]).relative_error < 1e-12


def test_blocks_smaller_than_the_rank():
    rows = Hierarchy(pd.DataFrame({"g": list("aaaaabbc")}))
    cols = Hierarchy(pd.DataFrame({"g": list("cbbaaaa")}))
    A = noise(8, 7)
    for method in ("bcd", "als"):
        found = fit(A, rows, cols, [0, 3], method, tol=1e-12, maxiter=5000)
        expected = np.zeros_like(A)
        for i, j in blocks_of(rows, cols, "g"):
            expected[np.ix_(i, j)] = best_of(A[np.ix_(i, j)], 3, "general")
        assert found.error == pytest.approx(np.linalg.norm(A - expected), rel=1e-8)
    S = symmetric(8)
    for structure in ("symmetric", "psd"):
        found = fit(S, rows, ranks=[0, 4], structure=structure, tol=1e-12, maxiter=5000)
        expected = np.zeros_like(S)
        for i, j in blocks_of(rows, rows, "g"):
            expected[np.ix_(i, j)] = best_of(S[np.ix_(i, j)], 4, structure)
        assert found.error == pytest.approx(np.linalg.norm(S - expected), rel=1e-8)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_nothing_is_fitted_by_nothing(structure):
    given = arguments(structure)
    zero = fit(**(given | {"A": np.zeros_like(given["A"])}), ranks=[1, 1, 1])
    assert zero.converged
    assert (zero.error, zero.relative_error) == (0.0, 0.0)
    assert (zero.matrix.to_dense() == 0).all()
    empty = fit(**given, ranks=[0, 0, 0])
    assert empty.error == pytest.approx(np.linalg.norm(given["A"]))


@pytest.mark.parametrize("method", ["bcd", "als"])
def test_one_by_one(method):
    found = fit([[-3.0]], ranks=[1], method=method, structure="general")
    np.testing.assert_allclose(found.matrix.to_dense(), [[-3.0]])
    assert fit([[-3.0]], ranks=[1], structure="psd").relative_error == 1.0
    assert fit([[-3.0]], ranks=[0], diagonal=True).relative_error == 0.0


def test_it_can_be_printed():
    found = fit(**arguments("general"), ranks={"small": 1, "global": 2})
    words = str(found).splitlines()
    assert words[0] == "Multilevel low rank fit of a 40 x 30 matrix (general)"
    assert words[1].split(maxsplit=1)[1] == "global 2, big 0, small 1"
    assert f"{70 * 3} numbers ({70 * 3 / 1200:.2%} of the matrix)" in words[2]


# Errors


def with_nan():
    A = noise(40, 30)
    A[3, 7] = np.nan
    return A


def unbounded(shape=(40, 30)):
    return LinearOperator(
        shape, matvec=lambda x: np.full(shape[0], np.nan), rmatvec=lambda x: np.full(shape[1], np.nan)
    )


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"A": with_nan()}, ValueError, "A: 1 values are missing or infinite, in rows 3 and columns 7"),
        ({"A": sparse.csr_array(with_nan())}, ValueError, "A: 1 values are missing or infinite"),
        ({"A": unbounded()}, ValueError, "A: .*not finite"),
        ({"A": noise(40, 30) * 1e200}, ValueError, "A: .*not finite"),
        ({"A": np.ones(40)}, ValueError, "A: a matrix is needed, not an array of shape .40,"),
        ({"A": LinearOperator((40, 30), matvec=lambda x: noise(40, 30) @ x, dtype=float)}, TypeError, "rmatvec="),
        ({"A": noise(39, 30)}, ValueError, "A is 39 x 30, but rows has 40 features and cols 30"),
        ({"cols": None}, ValueError, "A is 40 x 30, but rows has 40 features, and without cols"),
        ({"rows": None}, ValueError, "rows: groups of the columns alone"),
        ({"rows": "big"}, TypeError, "rows must be a Hierarchy, not str"),
        ({"cols": [1]}, TypeError, "cols must be a Hierarchy, not list"),
        ({"cols": COLS.coarsen(["big"])}, ValueError, "both need the same levels"),
        ({"ranks": None}, TypeError, "ranks: needed"),
        ({"ranks": [1, 1]}, ValueError, "ranks: 2 numbers for 3 levels"),
        ({"ranks": [31, 0, 0]}, ValueError, "level 'global' has rank 31, but its largest block has rank 30 at most"),
        ({"ranks": [0, 0, 20]}, ValueError, "level 'small' has rank 20"),
        ({"method": "svd"}, ValueError, "method must be one of 'bcd', 'als', not 'svd'"),
        ({"structure": "diagonal"}, ValueError, "structure must be one of"),
        ({"structure": "psd"}, ValueError, "structure: 'psd' needs rows and columns on one hierarchy"),
        ({"diagonal": True}, ValueError, "diagonal: only where rows and columns have one hierarchy"),
        ({"tol": -1}, ValueError, "tol must be a number, 0 or more"),
        ({"tol": np.nan}, ValueError, "tol must be a number"),
        ({"tol": "small"}, ValueError, "tol must be a number"),
        ({"maxiter": 1.5}, ValueError, "maxiter must be a whole number"),
        ({"maxiter": -1}, ValueError, "maxiter must be a whole number"),
        ({"n_threads": 0}, ValueError, "n_threads must be a whole number"),
    ],
)
def test_what_cannot_be_fitted(changes, error, words):
    given = {"A": noise(40, 30), "rows": ROWS, "cols": COLS, "ranks": [1, 1, 1]} | changes
    with pytest.raises(error, match=words):
        fit(**given)


def test_symmetric_matrices_are_needed_without_cols():
    with pytest.raises(ValueError, match="A is not symmetric, as it must be where cols is not given"):
        fit(noise(30, 30), COLS, ranks=[1, 1, 1])
    with pytest.raises(ValueError, match="A is not symmetric"):
        fit(sparse.csr_array(noise(30, 30)), COLS, ranks=[1, 1, 1])
    for structure in ("psd", "symmetric"):
        with pytest.raises(ValueError, match=f'"als" does not keep blocks {structure}'):
            fit(symmetric(), COLS, ranks=[1, 1, 1], method="als", structure=structure)


def test_labels_must_be_those_of_the_groups():
    A = pd.DataFrame(noise(40, 30), index=ROWS.features, columns=COLS.features)
    with pytest.raises(ValueError, match=r"rows: labels do not match .* unknown: 'r99'; missing: 'r3'"):
        fit(A.rename(index={"r3": "r99"}), ROWS, COLS, [1, 1, 1])
    with pytest.raises(ValueError, match=r"cols: labels do not match .* unknown: 'c99'"):
        fit(A.rename(columns={"c3": "c99"}), ROWS, COLS, [1, 1, 1])


def test_too_few_sweeps_are_told():
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 sweep"):
        found = fit(**arguments("general"), ranks=[1, 1, 1], maxiter=1)
    assert not found.converged
    assert len(found.history) == 1
    assert "did not converge" in str(found)


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        ({"maxiter": 0}, "in 0 sweeps: no sweep was made"),
        ({"maxiter": 3, "tol": 0.9}, "the last ones lowered it by little, but none looked for new directions yet"),
    ],
)
def test_it_is_told_why_a_fit_did_not_converge(stop, words):
    with pytest.warns(ConvergenceWarning, match=words):
        fit(**arguments("general"), ranks=[1, 1, 1], **stop)


def test_nothing_is_fitted_to_nothing():
    """A matrix of zeros, from a start that is none."""
    given = arguments("general")
    start = fit(**given, ranks=[1, 1, 1])
    found = fit(**(given | {"A": np.zeros_like(given["A"])}), ranks=[1, 1, 1], start=start)
    assert found.converged
    assert found.error < 1e-50
    assert found.relative_error == 0


def test_real_data():
    """The abilities of 301 pupils: factors of all tests and of domains explain more than those of all alone."""
    tests = mlfm.datasets.load("abilities")
    S = SampleCovariance(tests.endog, correlation=True)
    hierarchy = Hierarchy(tests.groups)
    levels = len(hierarchy.levels)
    flat = fit(S, hierarchy, ranks=[2] + [0] * (levels - 1), diagonal=True)
    both = fit(S, hierarchy, ranks=[1, 1] + [0] * (levels - 2), diagonal=True)
    R = np.corrcoef(tests.endog.to_numpy(), rowvar=False)
    np.testing.assert_allclose(both.error, np.linalg.norm(R - both.covariance.to_dense()), rtol=1e-8)
    assert both.error < flat.error


@pytest.mark.parametrize("values", [(1.05, -1.0), (-1.05, 1.0), (1.05, 1.0)])
@pytest.mark.parametrize("structure", ["general", "symmetric", "psd"])
def test_the_second_best_directions_are_no_end(structure, values):
    """Eigenvectors of every block, but not the leading ones: products with them lead nowhere else."""
    rng = np.random.default_rng(0)
    rows = groups(30, "c", 1)
    Q = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    spectrum = np.concatenate([values, np.full(28, 0.1)])
    A = Q @ np.diag(spectrum) @ Q.T
    A = (A + A.T) / 2
    where = {"rows": rows, "cols": rows if structure == "general" else None, "structure": structure}
    begin = fit((A - values[0] * np.outer(Q[:, 0], Q[:, 0])), ranks=[1, 0, 0], **where)
    found = fit(A, ranks=[1, 0, 0], start=begin, **where)
    wanted = max(spectrum) if structure == "psd" else values[0]
    assert found.error == pytest.approx(np.sqrt((spectrum**2).sum() - wanted**2), rel=1e-6)


def test_what_rounding_leaves_of_the_diagonal_is_nothing():
    """Groups of one: their rank takes all that a feature has of its own."""
    jobs = mlfm.datasets.load("employment")
    S = SampleCovariance(jobs.endog.iloc[::2])
    for ranks in ([3, 1, 1], [3, 2, 2], [4, 1, 1]):
        found = fit(S, Hierarchy(jobs.groups), ranks=ranks, diagonal=True)
        shares = found.matrix.diag / S.diagonal()
        assert (shares[shares > 0] > 1e-12).all()
        assert (shares == 0).any()
        with pytest.raises(ValueError, match="the diagonal is zero for"):
            found.covariance  # noqa: B018
