"""Ranks of a given total: exchanges that keep it, known ranks found again, and every other choice of ranks tried."""

import itertools

import numpy as np
import pandas as pd
import pytest
from oracle import dense_blocks
from scipy import sparse

import mlfm.lowrank.allocation
from mlfm import Hierarchy
from mlfm.lowrank import SampleCovariance, allocate_ranks, fit


def groups(n, letter, seed):
    """Three levels: 2 groups of 2 groups each, in a random order of features."""
    small = np.random.default_rng(seed).permutation(np.arange(n) % 4)
    return Hierarchy(pd.DataFrame({"big": small // 2, "small": small % 2}, index=[f"{letter}{i}" for i in range(n)]))


ROWS, COLS = groups(60, "r", 1), groups(48, "c", 2)
LEVELS = list(ROWS.levels)


def known(ranks, noise=0.0, seed=0):
    """A matrix of these ranks, and noise."""
    rng = np.random.default_rng(seed)
    B, C = rng.standard_normal((60, sum(ranks))), rng.standard_normal((48, sum(ranks)))
    return dense_blocks(ROWS, COLS, ranks, B, C) + noise * rng.standard_normal((60, 48))


def keeps_its_promises(found, total):
    path = found.path
    assert (path[LEVELS].sum(axis=1) == total).all()
    assert found.ranks.sum() == total
    assert (path["more"] != path["less"]).all()
    assert list(path.index) == list(range(1, len(path) + 1))
    assert path["seconds"].is_monotonic_increasing
    for _, part in path[path["accepted"]].groupby(["start", "thinned"], sort=False):
        assert (np.diff(part["relative_error"]) < 0).all()


@pytest.fixture(scope="module")
def noisy():
    """Of a matrix with noise from every start, and its allocation."""
    A = known((2, 1, 1), noise=1.0)
    return A, allocate_ranks(A, ROWS, COLS, total=4)


def test_trials_keep_the_total_and_lower_the_error(noisy):
    _, found = noisy
    keeps_its_promises(found, 4)
    assert list(dict.fromkeys(found.path["start"])) == ["uniform", "bottom", "top"]
    assert found.path["accepted"].any()
    assert not found.path["accepted"].all()


def test_the_fit_is_no_worse_than_the_search(noisy):
    A, found = noisy
    last = found.path[found.path["accepted"]].groupby("start")["relative_error"].last()
    assert found.fit.relative_error <= last.min() * (1 + 1e-12)
    assert found.fit.error == pytest.approx(np.linalg.norm(A - found.fit.matrix.to_dense()), rel=1e-10)


def test_threads_do_not_matter(noisy):
    A, found = noisy
    for threads in (1, 2):
        again = allocate_ranks(A, ROWS, COLS, total=4, n_threads=threads)
        columns = [name for name in found.path if name != "seconds"]
        pd.testing.assert_frame_equal(again.path[columns], found.path[columns], check_exact=True)
        assert again.fit.error == found.fit.error


def test_no_other_ranks_do_better(noisy):
    """Every way to share the total between the levels, fitted by the same method."""
    A, found = noisy
    errors = {
        ranks: fit(A, ROWS, COLS, ranks, found.fit.method).error
        for ranks in itertools.product(range(5), repeat=3)
        if sum(ranks) == 4
    }
    assert len(errors) == 15
    assert found.fit.error <= min(errors.values()) * 1.02


@pytest.mark.parametrize("start", ["uniform", "bottom", "top", [1, 4, 0]])
def test_known_ranks_are_found_again(start):
    A = known((3, 0, 2))
    found = allocate_ranks(A, ROWS, COLS, total=5, start=start, tol=1e-9, maxiter=5000)
    keeps_its_promises(found, 5)
    assert found.ranks.to_dict() == {"global": 3, "big": 0, "small": 2}
    assert found.fit.relative_error < 1e-6
    assert set(found.path["start"]) == {start if isinstance(start, str) else "given"}


@pytest.mark.parametrize("most", [2, {"small": 1, "global": 2}, [2, 5, 1]])
def test_no_level_takes_more_than_it_may(most):
    found = allocate_ranks(known((3, 0, 2)), ROWS, COLS, total=5, max_rank=most)
    keeps_its_promises(found, 5)
    limits = most if isinstance(most, dict) else dict(zip(LEVELS, [2] * 3 if most == 2 else most, strict=True))
    for level, limit in limits.items():
        assert found.path[level].max() <= limit
        assert found.ranks[level] <= limit


def observations():
    rng = np.random.default_rng(5)
    F = rng.standard_normal((60, 3))
    sigma = dense_blocks(ROWS, ROWS, (1, 0, 2), F, F, np.ones(60))
    return pd.DataFrame(rng.standard_normal((100, 60)) @ np.linalg.cholesky(sigma).T, columns=ROWS.features)


def test_a_covariance_with_a_diagonal():
    Y = observations()
    found = allocate_ranks(SampleCovariance(Y), ROWS, total=3, diagonal=True)
    keeps_its_promises(found, 3)
    assert found.fit.structure == "psd"
    assert found.ranks.to_dict() == {"global": 1, "big": 0, "small": 2}
    S = Y.cov(ddof=0).to_numpy()
    assert found.fit.error == pytest.approx(np.linalg.norm(S - found.fit.covariance.to_dense()), rel=1e-7)


def test_one_rank_in_one_level():
    """Nothing can be exchanged."""
    A = known((1, 0, 0))
    found = allocate_ranks(A, Hierarchy(ROWS.features), Hierarchy(COLS.features), total=1)
    assert len(found.path) == 0
    assert found.fit.relative_error < 1e-6
    assert "from uniform, bottom, top" in str(found)


def test_as_many_ranks_as_there_can_be():
    labels = pd.DataFrame({"g": [0, 0, 1, 1, 1]})
    A = np.random.default_rng(0).standard_normal((5, 5))
    found = allocate_ranks(A + A.T, Hierarchy(labels), total=8)
    assert found.ranks.to_list() == [5, 3]
    assert found.fit.relative_error < 1e-7


def test_a_matrix_of_zeros():
    found = allocate_ranks(np.zeros((60, 48)), ROWS, COLS, total=3)
    assert found.fit.error == 0
    assert (found.path["relative_error"] == 0).all()
    assert not found.path["accepted"].any()


# Every third row and column first


@pytest.fixture
def thinning(monkeypatch):
    monkeypatch.setattr(mlfm.lowrank.allocation, "SMALL", 16)


@pytest.mark.usefixtures("thinning")
def test_large_matrices_are_searched_by_a_part_first():
    A = known((2, 0, 1), noise=0.05)
    found = allocate_ranks(A, ROWS, COLS, total=3)
    keeps_its_promises(found, 3)
    assert set(found.path["thinned"]) == {3, 1}
    assert (found.path["thinned"].diff().dropna() <= 0).all()
    assert found.ranks.to_dict() == {"global": 2, "big": 0, "small": 1}
    assert found.fit.error == pytest.approx(np.linalg.norm(A - found.fit.matrix.to_dense()), rel=1e-10)


@pytest.mark.usefixtures("thinning")
def test_data_are_thinned_too():
    found = allocate_ranks(SampleCovariance(observations()), ROWS, total=3, diagonal=True)
    keeps_its_promises(found, 3)
    assert set(found.path["thinned"]) == {3, 1}


@pytest.mark.usefixtures("thinning")
def test_sparse_matrices_are_not():
    found = allocate_ranks(sparse.csr_array(known((2, 0, 1))), ROWS, COLS, total=3)
    assert set(found.path["thinned"]) == {1}


@pytest.mark.usefixtures("thinning")
@pytest.mark.parametrize(
    ("most", "stages"),
    [
        (None, {3, 1}),
        ({"global": 4, "big": 4}, {3, 1}),
        ({"global": 2, "big": 4}, {1}),  # no room is left for an exchange before one rank has come in again
    ],
)
def test_groups_of_which_no_row_is_left_come_in_again(most, stages):
    """Groups of two at the finest level: none of it takes part at first, and its ranks go where there is room."""
    n = 48
    labels = pd.DataFrame({"big": np.arange(n) // 24, "pair": np.arange(n) // 2})
    rows = Hierarchy(labels)
    names = list(rows.levels)
    A = np.random.default_rng(0).standard_normal((n, n))
    found = allocate_ranks(A, rows, rows, total=7, max_rank=most)
    assert set(found.path["thinned"]) == stages
    assert (found.path[names].sum(axis=1) == 7).all()
    assert found.ranks.sum() == 7
    for level, limit in (most or {}).items():
        assert found.path[level].max() <= limit


# Errors


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"total": None}, TypeError, "total: needed"),
        ({"total": 2.0}, TypeError, "total must be a whole number"),
        ({"total": True}, TypeError, "total must be a whole number"),
        ({"total": 0}, ValueError, "total: at least one rank"),
        ({"total": 1000}, ValueError, "total: 1000 ranks, but the levels can take 84 at most"),
        ({"total": 4, "max_rank": 1}, ValueError, "total: 4 ranks, but the levels can take 3 at most"),
        ({"max_rank": 0}, ValueError, "max_rank must be 1 or more, not 0"),
        ({"max_rank": {"nope": 1}}, ValueError, "max_rank: unknown level 'nope'"),
        ({"start": "middle"}, ValueError, "start must be one of 'uniform', 'bottom', 'top'"),
        ({"start": [1, 1, 0]}, ValueError, "start: ranks that sum to 2, but total is 3"),
        ({"start": [3, 0, 0], "max_rank": 2}, ValueError, "start: ranks of 'global' exceed max_rank"),
        ({"diagonal": True}, ValueError, "diagonal: only where rows and columns have one hierarchy"),
        ({"structure": "psd"}, ValueError, "structure: 'psd' needs rows and columns on one hierarchy"),
        ({"search_tol": -1}, ValueError, "search_tol must be a number, 0 or more"),
        ({"max_rank": "3"}, TypeError, "max_rank must map level names to numbers"),
        ({"max_rank": {"big": 1.5}}, ValueError, "max_rank: the rank of level 'big' must be a whole number"),
        ({"max_rank": [1, 1]}, ValueError, "max_rank: 2 numbers for 3 levels"),
        ({"start": [99, 0, 0]}, ValueError, "start: level 'global' has rank 99, but its largest block"),
        ({"tol": np.nan}, ValueError, "tol must be a number"),
        ({"maxiter": 0.5}, ValueError, "maxiter must be a whole number"),
        ({"n_threads": 0}, ValueError, "n_threads must be a whole number"),
        ({"A": np.full((60, 48), np.nan)}, ValueError, "A: 2880 values are missing or infinite"),
        ({"A": np.full((60, 48), 1e200)}, ValueError, "A: its sum of squares is not finite"),
    ],
)
def test_what_cannot_be_allocated(changes, error, words):
    given = {"A": known((1, 1, 1)), "rows": ROWS, "cols": COLS, "total": 3} | changes
    with pytest.raises(error, match=words):
        allocate_ranks(**given)
