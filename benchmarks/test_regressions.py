"""Small timings to hold one version beside another, with pytest-benchmark; see README.md."""

import numpy as np
import pytest
from common import begin, hierarchy, problem

import mlfm
from mlfm.estimation import METHODS, STARTS, FitRecord
from mlfm.sweep import Workers

SHAPES = {"three levels": (2_000, [1, 10, 100], [5, 2, 1], 200), "flat": (1_000, [1], [10], 200)}
EVALUATIONS = 10


@pytest.fixture(params=SHAPES, scope="module")
def shape(request):
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def case(shape):
    return problem(*shape)


@pytest.mark.parametrize("method", METHODS)
def test_evaluations(benchmark, case, method):
    """Ten evaluations after that of the start, with one thread: for scoring plain and quasi-Newton steps."""
    start = begin(case)
    climb = METHODS[method].climb

    def evaluations(own, record):
        climb(case, own, record, workers, lambda entry: None)
        return record

    def fresh():
        return (tuple(part.copy() for part in start), FitRecord(method, "top-down", EVALUATIONS, 0.0, 1)), {}

    with Workers(1) as workers:
        record = benchmark.pedantic(evaluations, setup=fresh, rounds=20, warmup_rounds=1)
    assert len(record.evaluations) >= EVALUATIONS


@pytest.mark.parametrize("start", STARTS)
def test_start(benchmark, case, start):
    with Workers(1) as workers:
        F, D = benchmark(STARTS[start], case, np.random.default_rng(0), workers)
    assert np.isfinite(F).all()
    assert (D > 0).all()


def test_model(benchmark, shape):
    """From labels and an array to a model."""
    n, groups, ranks, nobs = shape
    data = np.random.default_rng(0).standard_normal((nobs, n))
    made = benchmark(lambda: mlfm.MultilevelFactorModel(data, hierarchy=hierarchy(n, groups), ranks=ranks))
    assert made.nobs == nobs


@pytest.mark.parametrize("columns", [1, 100])
def test_solve(benchmark, shape, columns):
    n, groups, ranks, _ = shape
    rng = np.random.default_rng(0)
    sigma = mlfm.MultilevelCovariance(
        hierarchy(n, groups), rng.standard_normal((n, sum(ranks))), rng.uniform(1, 2, n), ranks=ranks
    )
    b = rng.standard_normal((n, columns))
    x = benchmark(sigma.solve, b)
    np.testing.assert_allclose(sigma @ x, b, atol=1e-8)
