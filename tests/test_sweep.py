"""The sweep itself: cutting into tasks changes nothing, and neither does the number of threads."""

import numpy as np
import pytest
from oracle import make_case

from mlfm.likelihood import condition, loglike, score
from mlfm.sweep import Sweep, Tree, Workers, cut, threads
from mlfm.sweep.tasks import task_width


def in_group_order(case):
    order = case.hierarchy.permutation
    tree = Tree.of(case.hierarchy.offsets, case.ranks)
    return tree, case.loadings[order], case.uniquenesses[order], np.ascontiguousarray(case.Y.T[order])


def evaluate(case, width, n_threads=1):
    tree, F, D, Y = in_group_order(case)
    squares = (Y**2).sum(1)
    with Workers(n_threads) as workers:
        sweep = Sweep(tree, Y.shape[1], width)
        condition(sweep, F, D, Y, workers)
        llf = loglike(sweep, D, squares, Y.shape[1])
        return llf, *score(sweep, F, D, Y, squares, Y.shape[1], workers)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_the_cut_does_not_matter(case, width):
    for whole, pieces in zip(evaluate(case, None), evaluate(case, width), strict=True):
        np.testing.assert_allclose(pieces, whole, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("width", [1, 3])
def test_threads_do_not_matter_to_the_last_bit(case, width):
    for one, three in zip(evaluate(case, width, 1), evaluate(case, width, 3), strict=True):
        np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("width", [1, 2, 5, 100])
def test_tasks_cover_every_feature_once(case, width):
    tree = Tree.of(case.hierarchy.offsets, case.ranks)
    tasks = cut(tree, width)
    covered = np.concatenate([np.arange(task.features.start, task.features.stop) for task in tasks])
    assert covered.tolist() == list(range(tree.n_features))
    for task in tasks:
        size = task.features.stop - task.features.start
        assert task.leaves[0] == 0
        assert task.leaves[-1] == size
        assert size <= width


def test_many_groups_make_few_tasks():
    case = make_case([[0] * 2000, [j // 40 for j in range(2000)], [j // 4 for j in range(2000)]], (0, 0, 0))
    tree = Tree.of(case.hierarchy.offsets, (2, 1, 1))
    tasks = cut(tree, task_width(tree, 12))
    assert len(tasks) < 12
    assert all(task.host == (0, 0) for task in tasks)


def test_a_failure_in_a_task_is_raised_and_the_pool_is_left_usable():
    def fails(i):
        if i == 3:
            raise FloatingPointError("task 3")

    seen = []
    with Workers(2) as workers:
        with pytest.raises(FloatingPointError, match="task 3"):
            workers.run(fails, 8)
        workers.run(seen.append, 5)
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_the_blas_cap_is_shared_and_given_back():
    from threadpoolctl import threadpool_info

    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    first, second = Workers(1), Workers(2)
    first.__enter__()
    second.__enter__()
    assert set(threads()) == {1}
    first.__exit__(None, None, None)
    assert set(threads()) == {1}
    second.__exit__(None, None, None)
    assert threads() == before


def test_the_cap_holds_in_any_thread():
    """threadpoolctl listens to one thread at a time; the cap must work from another one, and be given back."""
    import threading

    from threadpoolctl import threadpool_info, threadpool_limits

    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before, inside = threads(), []
        with Workers(1):
            inside.append(threads())

        def elsewhere():
            with Workers(1):
                inside.append(threads())

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        first, second = Workers(1), Workers(1)
        thread = threading.Thread(target=first.__enter__)
        thread.start()
        thread.join()
        second.__enter__()
        first.__exit__(None, None, None)
        inside.append(threads())
        second.__exit__(None, None, None)
        assert [set(held) for held in inside] == [{1}] * 3
        assert threads() == before


def test_nothing_goes_on_after_a_failure():
    import time

    running = []

    def work(i):
        if i == 0:
            raise FloatingPointError
        running.append(i)
        time.sleep(0.05)
        running.remove(i)

    with Workers(2) as workers:
        with pytest.raises(FloatingPointError):
            workers.run(work, 6)
        assert running == []


def test_parameters_that_are_not_finite_are_told():
    case = make_case([[0] * 4], (1,))
    tree, F, D, Y = in_group_order(case)
    with Workers(1) as workers, pytest.raises(FloatingPointError, match="not finite"):
        condition(Sweep(tree, Y.shape[1]), F * np.nan, D, Y, workers)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, np.inf),
        ({"cpu.max": "max 100000"}, np.inf),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, np.inf),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
    ],
)
def test_a_cgroup_limits_the_threads(files, expected, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads.cgroup_quota(tmp_path) == expected
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert threads.available_cpus() == (8 if expected == np.inf else max(1, int(np.ceil(expected))))
