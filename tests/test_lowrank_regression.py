"""Least squares with one side of the factors held fixed, against numpy's, element by element."""

import numpy as np
import pandas as pd
import pytest
from oracle import dense_blocks

from mlfm import Hierarchy
from mlfm._kernels.blocks import regress
from mlfm.lowrank import SampleCovariance, allocate_ranks, fit, regression
from mlfm.lowrank.blockwise import evened
from mlfm.lowrank.descent import Descent
from mlfm.lowrank.exchange import least_missed
from mlfm.lowrank.factors import Factors
from mlfm.lowrank.inputs import source_of
from mlfm.lowrank.methods import METHODS, Problem
from mlfm.lowrank.regression import missed, regress_left
from mlfm.lowrank.structures import STRUCTURES
from mlfm.lowrank.thinning import prolonged
from mlfm.sweep import Workers

RANKS = (2, 1, 2)


def groups(n, seed):
    small = np.random.default_rng(seed).permutation(np.arange(n) % 4)
    return Hierarchy(pd.DataFrame({"big": small // 2, "small": small % 2}))


ROWS, COLS = groups(40, 1), groups(32, 2)


@pytest.fixture(params=[regression.ROOM, 1, 60])
def room(request, monkeypatch):
    """All leaf groups together, one by one, two by two."""
    monkeypatch.setattr(regression, "ROOM", request.param)


@pytest.fixture
def workers():
    with Workers(1) as workers:
        yield workers


def random_factors(grid, ranks=RANKS, seed=0, diagonal=False):
    rng = np.random.default_rng(seed)
    m, n = grid.shape
    left = [rng.standard_normal((m, rank)) for rank in ranks]
    right = [rng.standard_normal((n, rank)) for rank in ranks]
    return Factors(grid, left, right, rng.standard_normal(n) if diagonal else None)


def dense(factors):
    """The matrix in the users' orders."""
    grid = factors.grid
    left, right = np.hstack(factors.left)[grid.rows.place], np.hstack(factors.right)[grid.columns.place]
    diag = None if factors.diag is None else factors.diag[grid.rows.place]
    return dense_blocks(grid.rows.hierarchy, grid.columns.hierarchy, factors.ranks, left, right, diag)


def left_alone(factors):
    """Each row of the left factors multiplies a row of its own, in group order: the design of the regression by row."""
    grid = factors.grid
    m, n = grid.shape
    designs = np.zeros((m, n, sum(factors.ranks)))
    first = 0
    for level, C in enumerate(factors.right):
        same = grid.rows.group_of(level)[:, None] == grid.columns.group_of(level)
        designs[:, :, first : first + C.shape[1]] = same[:, :, None] * C
        first += C.shape[1]
    return designs


def in_group_order(A, grid):
    return A[np.ix_(grid.rows.order, grid.columns.order)]


@pytest.mark.parametrize("size", [1, 3, 20])
def test_the_kernel_is_a_solution_of_every_group(size):
    rng = np.random.default_rng(0)
    offsets = np.array([0, 4, 4, 9], dtype=np.intp)
    X = rng.standard_normal((9, size))
    G = np.stack([a @ a.T for a in rng.standard_normal((3, size, 2 * size))])
    wanted = np.vstack(
        [
            np.linalg.solve(g + 0.1 * np.diag(np.diag(g)), X[a:b].T).T
            for g, a, b in zip(G, offsets[:-1], offsets[1:], strict=True)
        ]
    )
    regress(G, 0.1, offsets, X)
    np.testing.assert_allclose(X, wanted, rtol=1e-10, atol=1e-12)


def test_a_column_of_zeros_takes_the_ridge_alone():
    G, X = np.array([[[4.0, 0.0], [0.0, 0.0]]]), np.array([[1.0, 3.0]])
    regress(G, 0.5, np.array([0, 1], dtype=np.intp), X)
    np.testing.assert_allclose(X, [[1 / 6, 6.0]], rtol=1e-15)


def test_what_is_not_finite_is_no_gram_matrix():
    with pytest.raises(FloatingPointError, match="not positive definite"):
        regress(np.full((1, 2, 2), np.nan), 1e-8, np.array([0, 3], dtype=np.intp), np.ones((3, 2)))


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("ranks", [RANKS, (0, 0, 3), (3, 0, 0), (0, 2, 1)])
def test_left_factors_are_the_best_for_the_right_ones(ranks, workers):
    A = np.random.default_rng(3).standard_normal((40, 32))
    source = source_of(A, ROWS, COLS)
    factors = random_factors(source.grid, ranks)
    explained = regress_left(source.times, factors, workers)
    sorted_A, designs = in_group_order(A, source.grid), left_alone(factors)
    wanted = np.stack([np.linalg.lstsq(X, row, rcond=None)[0] for X, row in zip(designs, sorted_A, strict=True)])
    np.testing.assert_allclose(np.hstack(factors.left), wanted, atol=1e-6)  # but for the ridge
    rest = A - dense(factors)
    assert (A**2).sum() - explained == pytest.approx((rest**2).sum(), rel=1e-10)


def test_a_diagonal_is_taken_off_first(workers):
    A = np.random.default_rng(3).standard_normal((40, 40))
    source = source_of(A, ROWS, None)
    factors = random_factors(source.grid, diagonal=True)
    regress_left(source.times, factors, workers)
    sorted_A = in_group_order(A, source.grid) - np.diag(factors.diag)
    designs = left_alone(factors)
    wanted = np.stack([np.linalg.lstsq(X, row, rcond=None)[0] for X, row in zip(designs, sorted_A, strict=True)])
    np.testing.assert_allclose(np.hstack(factors.left), wanted, atol=1e-6)  # but for the ridge


@pytest.mark.usefixtures("room")
def test_what_columns_are_missed_by(workers):
    """Every column of every block left out in turn, and all rows of the block regressed anew."""
    A = np.random.default_rng(4).standard_normal((40, 32))
    source = source_of(A, ROWS, COLS)
    factors = random_factors(source.grid)
    regress_left(source.times, factors, workers)
    sorted_A, designs = in_group_order(A, source.grid), left_alone(factors)

    def left_over(i, columns):
        X = designs[i][:, columns]
        return ((sorted_A[i] - X @ np.linalg.lstsq(X, sorted_A[i], rcond=None)[0]) ** 2).sum()

    found, every, first = missed(factors), list(range(sum(RANKS))), 0
    for level, rank in enumerate(RANKS):
        block = source.grid.rows.group_of(level)
        wanted = np.zeros((block.max() + 1, rank))
        for j in range(rank):
            others = [k for k in every if k != first + j]
            for i in range(40):
                wanted[block[i], j] += left_over(i, others) - left_over(i, every)
        np.testing.assert_allclose(found[level], wanted, rtol=1e-5)
        first += rank


def test_what_another_level_can_stand_in_for_is_not_missed():
    """One column within a half, there globally and once more in the halves: either can do without the other."""
    rng = np.random.default_rng(0)
    grid = source_of(np.zeros((40, 32)), ROWS, COLS).grid
    b, c = ((side.group_of(1) == 0) * rng.standard_normal(len(side)) for side in (grid.rows, grid.columns))
    columns, none = (b[:, None], c[:, None]), [np.zeros((size, 0)) for size in (40, 32)]
    left, right = ([column, column, absent] for column, absent in zip(columns, none, strict=True))
    structure, norm = STRUCTURES["general"], (b @ b) * (c @ c)
    alone = least_missed(Factors(grid, [none[0], *left[1:]], [none[1], *right[1:]], None), structure)
    both = least_missed(Factors(grid, left, right, None), structure)
    assert alone == {1: pytest.approx(norm, rel=1e-6)}
    assert max(both.values()) < 1e-6 * norm


def test_the_column_that_can_be_spared_comes_last():
    rng = np.random.default_rng(0)
    for structure in STRUCTURES.values():
        for strong in (0, 1, 2):
            grid = source_of(np.zeros((40, 40)), ROWS, None if structure is not STRUCTURES["general"] else ROWS).grid
            B = np.linalg.qr(rng.standard_normal((40, 3)))[0] * np.where(np.arange(3) == strong, 5.0, 1.0)
            C = B.copy() if structure is STRUCTURES["general"] else B
            none = np.zeros((40, 0))
            factors = Factors(grid, [B, none, none], [C, none, none], None)
            losses = least_missed(factors, structure)
            assert losses == {0: pytest.approx(1.0)}
            np.testing.assert_allclose(factors.left[0] @ factors.right[0].T, B @ B.T, atol=1e-12)
            assert (factors.left[0][:, -1] ** 2).sum() == pytest.approx(1.0)
            assert (factors.left[0] is factors.right[0]) == (structure is STRUCTURES["psd"])


def test_evened_columns_are_equally_long_and_their_blocks_the_same():
    rng = np.random.default_rng(0)
    rows, columns = np.array([0, 3, 7], dtype=np.intp), np.array([0, 5, 6], dtype=np.intp)
    B, C = 1e9 * rng.standard_normal((7, 2)), 1e-11 * rng.standard_normal((6, 2))
    C[5] = 0.0
    left, right = evened(B, C, rows, columns)
    np.testing.assert_allclose(left[:3] @ right[:5].T, B[:3] @ C[:5].T, rtol=1e-13)
    np.testing.assert_allclose((left[:3] ** 2).sum(axis=0), (right[:5] ** 2).sum(axis=0), rtol=1e-13)
    np.testing.assert_array_equal(left[3:], B[3:])  # the other side is zero


def test_least_squares_keep_their_digits_in_deep_hierarchies():
    """With more columns on a path than its last blocks have rows, most directions are not needed by anything."""
    x = np.linspace(0, 1, 128)
    halves = {f"by {2**k}": np.arange(128) // (128 >> k) for k in range(1, 8)}
    groups = Hierarchy(pd.DataFrame(halves))
    A = np.exp(-40 * np.abs(x[:, None] - x)) + 0.1 * np.random.default_rng(0).standard_normal((128, 128))
    ranks = [4, 4, 4, 4, 4, 4, 2, 1]
    begin = fit(A, groups, groups, ranks=ranks, tol=1e-2)
    found = fit(A, groups, groups, ranks=ranks, method="als", tol=1e-4, start=begin)
    assert found.error == pytest.approx(np.linalg.norm(A - found.matrix.to_dense()), rel=1e-10)
    assert found.history.relative_error.iloc[-1] == pytest.approx(found.relative_error, rel=1e-6)
    assert (found.history.relative_error.diff().dropna() < 1e-9).all()
    sizes = [np.abs(X).max() for X in found.matrix._factors.left + found.matrix._factors.right]
    assert max(sizes) < 1e4


@pytest.mark.parametrize("structure", ["general", "symmetric", "psd"])
def test_factors_of_a_part_become_those_of_the_whole(structure, workers):
    """Of a matrix that has these ranks the part knows everything."""
    rows = groups(120, 1)
    cols = groups(96, 2) if structure == "general" else rows
    grid = source_of(np.zeros((120, len(cols.features))), rows, cols if structure == "general" else None).grid
    truth = random_factors(grid, diagonal=structure != "general")
    if structure != "general":
        signs = [np.where(np.arange(B.shape[1]) % 2, -1.0, 1.0) for B in truth.left]
        truth.right = (
            list(truth.left) if structure == "psd" else [B * s for B, s in zip(truth.left, signs, strict=True)]
        )
    A = dense(truth)
    source = source_of(A, rows, cols if structure == "general" else None)
    problem = Problem(source, STRUCTURES[structure], np.random.default_rng(0), workers)
    thin, kept = grid.thinned(3)
    part = Factors(
        thin,
        [B[::3] for B in truth.left],
        [C[::3] for C in truth.right],
        None if truth.diag is None else truth.diag[::3],
    )
    if structure == "psd":
        part.right = list(part.left)
    whole = prolonged(problem, part, kept, 3, RANKS)
    rest = dense(whole) - A
    if truth.diag is not None:
        np.fill_diagonal(rest, 0)  # of which the part knows its own features'
    assert np.abs(rest).max() < 1e-5 * np.abs(A).max()
    assert kept == (0, 1, 2)


def test_data_are_prolonged_as_their_covariance_is(workers):
    endog = np.random.default_rng(0).standard_normal((30, 40))
    of_data = source_of(SampleCovariance(endog), ROWS, None)
    of_matrix = source_of(np.cov(endog, rowvar=False, bias=True), ROWS, None)
    thin, kept = of_data.grid.thinned(2)
    B = [np.random.default_rng(1).standard_normal((20, rank)) for rank in RANKS]
    part = Factors(thin, B, list(B), np.ones(20))
    found = [
        prolonged(Problem(source, STRUCTURES["psd"], np.random.default_rng(0), workers), part, kept, 2, RANKS)
        for source in (of_data, of_matrix)
    ]
    np.testing.assert_allclose(np.hstack(found[0].left), np.hstack(found[1].left), rtol=1e-8, atol=1e-10)
    assert all(B is C for B, C in zip(found[0].left, found[0].right, strict=True))


@pytest.mark.parametrize("structure", ["general", "symmetric", "psd"])
def test_factors_of_a_part_are_of_use_in_the_whole(structure, workers):
    """Of a kernel with values of both signs, which has no such ranks: the whole is left with little more."""
    n = 240
    x = np.sort(np.random.default_rng(0).random(n))
    gap = np.abs(x[:, None] - x)
    A = np.exp(-20 * gap) - (0 if structure == "psd" else 0.5) * np.exp(-3 * gap)
    rows = Hierarchy(pd.DataFrame({f"by {k}": np.arange(n) * k // n for k in (2, 4, 8)}))
    cols = rows if structure == "general" else None
    source = source_of(A, rows, cols)
    thin_grid, kept = source.grid.thinned(3)
    some = source.thinned(thin_grid, 3)
    ranks, struct = [3, 2, 1, 1], STRUCTURES[structure]
    problem = Problem(some, struct, np.random.default_rng(0), workers)
    descent = Descent(problem, METHODS[struct.method], Factors.nothing(thin_grid, ranks, False))
    for _ in range(100):
        descent.step()
    whole = prolonged(problem._replace(source=source), descent.factors, kept, 3, ranks)
    part = descent.squares / some.squared_norm
    assert part < 0.05
    assert ((A - dense(whole)) ** 2).sum() / source.squared_norm < 3 * part + 1e-4


@pytest.mark.parametrize("tiny", [1e-150, 1e-155, 1e-158, 1e-161, 1e-170])
def test_blocks_of_next_to_nothing(tiny):
    """Squares of their elements, or the inverses of these, are out of range."""
    rng = np.random.default_rng(0)
    rows = Hierarchy(pd.DataFrame({"big": np.arange(24) // 12, "small": np.arange(24) // 4}))
    A = rng.standard_normal((24, 24))
    A[:, :4], A[:4] = 0, 0
    A[:4, :4] = tiny * rng.standard_normal((4, 4))
    for found in (fit(A, rows, rows, [0, 0, 2]), allocate_ranks(A, rows, rows, total=3).fit):
        assert found.error == pytest.approx(np.linalg.norm(A - found.matrix.to_dense()), rel=1e-10)
        assert np.isfinite(found.matrix.to_dense()).all()


@pytest.mark.parametrize("method", ["als", "bcd"])
def test_large_elements(method):
    A = np.random.default_rng(0).standard_normal((40, 32))
    expected = fit(A, ROWS, COLS, RANKS, method)
    found = fit(1e120 * A, ROWS, COLS, RANKS, method)
    assert found.relative_error == pytest.approx(expected.relative_error, rel=1e-6)
