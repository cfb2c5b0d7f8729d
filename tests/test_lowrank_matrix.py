"""Rectangular multilevel low rank matrices against their dense twins, made block by block."""

import pickle

import numpy as np
import pandas as pd
import pytest
from oracle import dense_blocks, zoo
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from mlfm import Hierarchy
from mlfm.exceptions import ConditionWarning
from mlfm.lowrank import MultilevelMatrix

pytestmark = pytest.mark.portable

ZOO = zoo()


def frame(index, **levels):
    return Hierarchy(pd.DataFrame(levels, index=index))


def tall():
    """Groups of the columns appear in another order than those of the rows, and "p" stands under a and under b."""
    rows = frame([f"r{i}" for i in range(11)], big=list("aabbabbccab"), small=list("pqpqppqsspq"))
    cols = frame([f"c{j}" for j in range(7)], big=list("cbabaab"), small=list("sqpppqp"))
    return rows, cols, (2, 1, 1)


def wide():
    rows, cols, ranks = tall()
    return cols, rows, ranks


def odd_labels():
    """Labels that are no strings: tuples as features, numbers as groups."""
    rows = frame(pd.Index([(1, "x"), (2, "y"), (1, "y"), (3, "x")], tupleize_cols=False), g=[7, 3, 7, 3])
    cols = frame([10, 30, 20], g=[3, 7, 3])
    return rows, cols, (1, 2)


def tuple_groups():
    rows = frame(list("wxyz"), g=[(1, 2), (0, 1), (1, 2), (0, 1)], h=[(1,), (2,), (3,), (2,)])
    cols = frame(list("uvt"), g=[(0, 1), (1, 2), (1, 2)], h=[(2,), (3,), (1,)])
    return rows, cols, (1, 1, 1)


def one_row():
    return frame(["only"], g=["a"]), frame(list("xyz"), g=["a", "a", "a"]), (1, 1)


def one_column():
    rows, cols, ranks = one_row()
    return cols, rows, ranks


def singles():
    """Blocks of one by one at the finest level."""
    return (
        frame(list("abcd"), g=[1, 1, 2, 2], h=[1, 2, 3, 4]),
        frame(list("wxyz"), g=[2, 1, 2, 1], h=[4, 1, 3, 2]),
        (1, 0, 1),
    )


def without_global():
    rows, cols, _ = tall()
    return rows, cols, (0, 2, 0)


def of_rank_nothing():
    rows, cols, _ = tall()
    return rows, cols, (0, 0, 0)


def flat():
    return Hierarchy(pd.Index(list("abcde"))), Hierarchy(pd.Index(list("xyz"))), (2,)


SHAPES = [tall, wide, odd_labels, tuple_groups, one_row, one_column, singles, without_global, of_rank_nothing, flat]


def made(rows, cols, ranks, diag=None, seed=3):
    """A random matrix on these groups, and its dense twin."""
    rng = np.random.default_rng(seed)
    B = rng.standard_normal((rows.n_features, sum(ranks)))
    C = rng.standard_normal((cols.n_features, sum(ranks)))
    M = MultilevelMatrix(rows, cols, B, C, diag, ranks=ranks)
    return M, dense_blocks(rows, cols, ranks, B, C, diag)


def on_one_hierarchy(case, diagonal, seed=4):
    rng = np.random.default_rng(seed)
    diag = rng.uniform(1, 2, case.hierarchy.n_features) if diagonal else None
    return made(case.hierarchy, case.hierarchy, case.ranks, diag, seed)


@pytest.fixture(params=SHAPES, ids=lambda shape: shape.__name__)
def pair(request):
    return made(*request.param())


@pytest.fixture(params=[False, True], ids=["plain", "diag"])
def square(request, case):
    return on_one_hierarchy(case, request.param)


def close(actual, expected):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=1e-12 * max(np.abs(expected).max(), 1.0))


def agrees(M, dense):
    rng = np.random.default_rng(8)
    m, n = dense.shape
    assert M.shape == (m, n)
    x, X, y, Y = (rng.standard_normal(size) for size in [n, (n, 3), m, (m, 3)])
    close(M @ x, dense @ x)
    close(M @ X, dense @ X)
    close(M.T @ Y, dense.T @ Y)
    close(M.rmatvec(y), dense.T @ y)
    close(M.rmatmat(Y), dense.T @ Y)
    close(y @ M, y @ dense)
    close(M.to_dense(), dense)
    close(M.T.to_dense(), dense.T)
    assert M.norm() == pytest.approx(np.linalg.norm(dense), rel=1e-7, abs=1e-7)


def test_products_are_those_of_the_dense_matrix(pair):
    agrees(*pair)


def test_square_matrices_on_one_hierarchy(square):
    agrees(*square)


def test_labels_are_matched_and_handed_back(pair):
    M, dense = pair
    rng = np.random.default_rng(1)
    rows, cols = M.rows.features, M.cols.features
    x = pd.Series(rng.standard_normal(len(cols)), index=cols, name="x")
    shuffled = x.iloc[rng.permutation(len(x))]
    found = M @ shuffled
    assert found.name == "x"
    assert list(found.index) == list(rows)
    close(found, dense @ x.to_numpy())
    Y = pd.DataFrame(rng.standard_normal((len(rows), 2)), index=rows, columns=["u", "v"])
    back = M.T @ Y.iloc[rng.permutation(len(rows))]
    assert list(back.index) == list(cols)
    assert list(back.columns) == ["u", "v"]
    close(back, dense.T @ Y.to_numpy())
    whole = M.to_frame()
    assert list(whole.index) == list(rows)
    assert list(whole.columns) == list(cols)
    close(whole, dense)


def test_labelled_factors_come_in_and_out_in_any_order():
    rows, cols, ranks = tall()
    M, dense = made(rows, cols, ranks)
    again = MultilevelMatrix(rows, cols, M.left.iloc[::-1], M.right.iloc[[3, 0, 6, 1, 5, 2, 4]])
    close(again.to_dense(), dense)
    assert again.ranks.to_dict() == {"global": 2, "big": 1, "small": 1}
    close(dense_blocks(rows, cols, ranks, M.left, M.right), dense)


def test_labels_that_do_not_match_are_named():
    M, _ = made(*tall())
    with pytest.raises(ValueError, match="'nowhere'"):
        M @ pd.Series(1.0, index=[*M.cols.features[:-1], "nowhere"])


def test_scipy_takes_it(pair):
    M, dense = pair
    assert isinstance(M, LinearOperator)
    plain = aslinearoperator(dense)
    x, y = np.arange(1.0, dense.shape[1] + 1), np.arange(1.0, dense.shape[0] + 1)
    close(M.matvec(x), plain.matvec(x))
    close(M.H.matvec(y), plain.H.matvec(y))
    close((2 * M).matvec(x), 2 * dense @ x)
    close((M @ M.T).matvec(y), dense @ dense.T @ y)


def test_the_expanded_form_has_a_column_for_every_column_of_every_block(pair):
    M, dense = pair
    left, right = M.to_sparse()
    wanted = sum(rank * groups for rank, groups in zip(M.ranks, M.rows.n_groups, strict=True))
    assert left.shape == (dense.shape[0], wanted)
    assert right.shape == (dense.shape[1], wanted)
    close((left @ right.T).toarray(), dense)


def test_the_expanded_form_of_a_matrix_with_a_diagonal(square):
    M, dense = square
    left, right = M.to_sparse()
    close((left @ right.T).toarray(), dense)


def test_dense_refuses_what_is_too_large():
    M, _ = made(*tall())
    with pytest.raises(ValueError, match="max_size: 11 x 7"):
        M.to_dense(max_size=76)
    assert M.to_dense(max_size=77).shape == (11, 7)


def test_storage():
    rows, cols, ranks = tall()
    assert made(rows, cols, ranks)[0].storage == (11 + 7) * 4
    B = np.random.default_rng(0).standard_normal((11, 4))
    diag = np.ones(11)
    assert MultilevelMatrix(rows, None, B, B, ranks=ranks).storage == 11 * 4
    assert MultilevelMatrix(rows, None, B, B, diag, ranks=ranks).storage == 11 * 4 + 11
    assert MultilevelMatrix(rows, None, B, B + 1, diag, ranks=ranks).storage == 22 * 4 + 11
    # A sign for each of the two columns of the one global block: symmetric, and the signs are numbers too.
    signed = B * [1, -1, 1, 1]
    assert MultilevelMatrix(rows, None, B, signed, ranks=ranks).storage == 11 * 4 + 2


def test_storage_of_factors_alike_up_to_signs_that_are_not_those_of_columns():
    rows = Hierarchy(pd.Index(list("ab")))
    M = MultilevelMatrix(rows, None, [[1.0], [2]], [[1.0], [-2]], ranks=[1])
    assert not np.allclose(M.to_dense(), M.to_dense().T)
    assert M.storage == 4


# Systems


def test_solve_agrees_with_numpy(case):
    M, dense = on_one_hierarchy(case, True)
    rng = np.random.default_rng(5)
    b = rng.standard_normal((len(dense), 2))
    assert np.linalg.cond(dense) < 1e6
    np.testing.assert_allclose(M.solve(b), np.linalg.solve(dense, b), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(M.solve(b[:, 0]), np.linalg.solve(dense, b[:, 0]), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(M.T.solve(b), np.linalg.solve(dense.T, b), rtol=1e-8, atol=1e-9)


def full_rank_without_diagonal():
    """A finest level of blocks of one; groups of the columns in another order than those of the rows."""
    rows, cols, _ = singles()
    return made(rows, cols, (1, 1, 1))


def test_solve_without_a_diagonal():
    M, dense = full_rank_without_diagonal()
    b = pd.Series([1.0, -2, 3, 0.5], index=M.rows.features, name="b")
    x = M.solve(b.iloc[[2, 0, 3, 1]])
    assert list(x.index) == list(M.cols.features)
    assert x.name == "b"
    np.testing.assert_allclose(x, np.linalg.solve(dense, b), rtol=1e-9)


def test_solve_refuses_what_is_not_square_or_is_singular():
    with pytest.raises(ValueError, match="11 x 7; lstsq"):
        made(*tall())[0].solve(np.ones(11))
    with pytest.raises(np.linalg.LinAlgError, match="singular; lstsq"):
        made(Hierarchy.random(9, [3]), Hierarchy.random(9, [3]), (2, 1))[0].solve(np.ones(9))
    zero = MultilevelMatrix(Hierarchy.random(3, []), None, np.zeros((3, 1)), np.zeros((3, 1)), ranks=[1])
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        zero.solve(np.ones(3))


@pytest.mark.parametrize("seed", range(5))
def test_matrices_of_too_small_a_rank_are_singular(seed):
    rows = Hierarchy.random(12, [2, 4], rng=seed)
    M, dense = made(rows, rows, (1, 1, 1), seed=seed)
    assert np.linalg.matrix_rank(dense) < 12
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        M.solve(np.arange(12.0))


def test_a_matrix_close_to_singular_warns():
    """I - (1 - 1e-12) u u' / u'u: the solution is 1e12 times as long as b, so that rounding of it shows in M x."""
    u = np.random.default_rng(2).uniform(1, 2, (6, 1))
    M = MultilevelMatrix(Hierarchy.random(6, []), None, u, -u / (u.T @ u) * (1 - 1e-12), 1.0, ranks=[1])
    with pytest.warns(ConditionWarning, match="lstsq"):
        M.solve(np.ones(6))


def test_lstsq_of_full_column_rank():
    rows, cols, _ = tall()
    M, dense = made(rows, cols, (3, 2, 1))
    assert np.linalg.matrix_rank(dense) == 7
    b = np.random.default_rng(0).standard_normal((11, 2))
    np.testing.assert_allclose(M.lstsq(b), np.linalg.lstsq(dense, b, rcond=None)[0], rtol=1e-7, atol=1e-8)
    labelled = M.lstsq(pd.Series(b[:, 0], index=rows.features).iloc[::-1])
    assert list(labelled.index) == list(cols.features)
    np.testing.assert_allclose(labelled, np.linalg.lstsq(dense, b[:, 0], rcond=None)[0], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("shape", [tall, wide, one_row, one_column, flat, singles, without_global, of_rank_nothing])
def test_lstsq_finds_the_shortest(shape):
    M, dense = made(*shape())
    b = np.random.default_rng(6).standard_normal((len(dense), 2))
    shortest = np.linalg.lstsq(dense, b, rcond=None)[0]
    np.testing.assert_allclose(M.lstsq(b), shortest, rtol=0, atol=1e-7 * max(np.abs(shortest).max(), 1))


@pytest.mark.parametrize("seed", range(6))
def test_lstsq_of_square_matrices_that_lack_rank_finds_the_shortest(seed):
    rows = Hierarchy.random(20, [2, 5], rng=seed)
    M, dense = made(rows, rows, (2, 1, 1), seed=seed)
    assert np.linalg.matrix_rank(dense) < 20
    b = np.random.default_rng(seed).standard_normal(20)
    shortest = np.linalg.lstsq(dense, b, rcond=None)[0]
    np.testing.assert_allclose(M.lstsq(b), shortest, rtol=0, atol=1e-6 * np.abs(shortest).max())


def test_lstsq_with_a_diagonal(case):
    M, dense = on_one_hierarchy(case, True)
    b = np.random.default_rng(1).standard_normal(len(dense))
    np.testing.assert_allclose(M.lstsq(b), np.linalg.solve(dense, b), rtol=1e-6, atol=1e-7)


# Objects


def test_pickled_and_back(pair):
    M, dense = pair
    M2 = pickle.loads(pickle.dumps(M))
    assert M2.storage == M.storage
    assert M2.rows == M.rows
    assert M2.cols == M.cols
    close(M2.to_dense(), dense)


def test_pickled_after_a_system_was_solved():
    M, dense = full_rank_without_diagonal()
    M.solve(np.ones(4))
    close(pickle.loads(pickle.dumps(M)).to_dense(), dense)


def test_it_cannot_be_changed():
    M, dense = made(*tall())
    with pytest.raises(AttributeError, match="cannot be changed"):
        M.shape = (1, 1)
    for part in (M.left, M.right):
        part.iloc[:] = 0.0
    close(M.to_dense(), dense)


def test_what_it_was_made_of_can_change():
    rows, cols, ranks = tall()
    B, C = np.ones((11, 4)), np.ones((7, 4))
    M = MultilevelMatrix(rows, cols, B, C, ranks=ranks)
    dense = M.to_dense()
    B[:], C[:] = 7.0, 7.0
    close(M.to_dense(), dense)


def test_as_a_square_multilevel_low_rank_matrix(square):
    M, dense = square
    close(M.to_multilevel_low_rank().to_dense(), dense)
    with pytest.raises(ValueError, match="rows and columns differ"):
        made(*tall())[0].to_multilevel_low_rank()


def test_symmetric_ones_are_symmetric_afterwards():
    rows, _, ranks = tall()
    B = np.random.default_rng(0).standard_normal((11, 4))
    M = MultilevelMatrix(rows, None, B, B, 2.0, ranks=ranks)
    other = M.to_multilevel_low_rank()
    close(other.to_dense(), dense_blocks(rows, rows, ranks, B, B, np.full(11, 2.0)))
    close((other.T @ np.eye(11)), other.to_dense())


def test_a_diagonal_is_given_by_label_or_as_a_number():
    rows, _, ranks = tall()
    M, dense = made(rows, rows, ranks)
    d = pd.Series(np.arange(11.0), index=rows.features, name="d")
    N = MultilevelMatrix(rows, rows, M.left, M.right, d.iloc[::-1])
    close(N.to_dense(), dense + np.diag(d))
    pd.testing.assert_series_equal(N.diag, d.rename("diag"))
    assert M.diag is None


# Errors


def test_levels_must_be_the_same():
    rows, cols, ranks = tall()
    with pytest.raises(ValueError, match="cols: its levels are 'global', 'big', those of rows are"):
        MultilevelMatrix(rows, cols.coarsen(["big"]), np.ones((11, 4)), np.ones((7, 4)), ranks=ranks)


def test_groups_must_be_the_same():
    rows = frame(list("abc"), g=["p", "q", "s"])
    cols = frame(list("xy"), g=["q", "t"])
    with pytest.raises(ValueError, match="only among the columns: 't'; only among the rows: 'p', 's'"):
        MultilevelMatrix(rows, cols, np.ones((3, 2)), np.ones((2, 2)), ranks=[1, 1])
    fewer = frame(list("xy"), g=["q", "p"])
    with pytest.raises(ValueError, match="only among the columns: none; only among the rows: 's'"):
        MultilevelMatrix(rows, fewer, np.ones((3, 2)), np.ones((2, 2)), ranks=[1, 1])


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"rows": ["a"]}, TypeError, "rows must be a Hierarchy, not list"),
        ({"cols": ["a"]}, TypeError, "cols must be a Hierarchy, not list"),
        ({"ranks": None}, TypeError, "ranks: needed when left is an array"),
        ({"ranks": [1, 1]}, ValueError, "ranks: 2 numbers for 3 levels"),
        ({"ranks": {"nope": 1}}, ValueError, "unknown level 'nope'"),
        ({"left": np.ones((10, 4))}, ValueError, "left: shape .11, 4. is needed"),
        ({"left": np.ones((11, 5))}, ValueError, "left: shape"),
        ({"right": np.ones((11, 4))}, ValueError, "right: shape .7, 4. is needed"),
        ({"left": np.full((11, 4), np.nan)}, ValueError, "left: 44 values are missing or infinite"),
        ({"right": np.full((7, 4), np.inf)}, ValueError, "right: 28 values are missing or infinite"),
        ({"diag": 1.0}, ValueError, "diag: only a square matrix"),
    ],
)
def test_what_cannot_be_a_matrix(changes, error, words):
    rows, cols, ranks = tall()
    given = {
        "rows": rows,
        "cols": cols,
        "left": np.ones((11, 4)),
        "right": np.ones((7, 4)),
        "ranks": ranks,
    }
    with pytest.raises(error, match=words):
        MultilevelMatrix(**(given | changes))


def test_a_diagonal_must_fit_and_be_finite():
    rows, _, ranks = tall()
    for diag, words in [(np.ones(3), "diag"), (np.full(11, np.nan), "diag"), (np.inf, "diag")]:
        with pytest.raises(ValueError, match=words):
            MultilevelMatrix(rows, None, np.ones((11, 4)), np.ones((11, 4)), diag, ranks=ranks)


def test_right_hand_sides_must_fit():
    M, _ = full_rank_without_diagonal()
    for bad in (np.ones(5), np.ones((2, 2, 2))):
        with pytest.raises(ValueError, match="b: shape"):
            M.solve(bad)
        with pytest.raises(ValueError, match="b: shape"):
            M.lstsq(bad)
    with pytest.raises(ValueError, match="missing or infinite"):
        M.solve([1.0, np.nan, 0, 0])
