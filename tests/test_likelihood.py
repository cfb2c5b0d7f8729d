"""loglike, loglikeobs and score at any parameters, against the definition."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import dense_covariance, dense_loglikeobs, make_case
from scipy.optimize import approx_fprime

from mlfm import MultilevelCovariance, MultilevelFactorModel

pytestmark = pytest.mark.filterwarnings("ignore::mlfm.IdentificationWarning")


def model_of(case, trend="c"):
    ranks = dict(zip(case.hierarchy.levels, case.ranks, strict=True))
    return MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=ranks, trend=trend)


def parameters(case, model, seed=1):
    mean = np.random.default_rng(seed).standard_normal(case.hierarchy.n_features)
    return mean, model.pack(case.loadings, case.uniquenesses, mean if model.trend == "c" else None)


@pytest.mark.parametrize("trend", ["c", "n"])
def test_loglike_is_the_density(case, trend):
    model = model_of(case, trend)
    mean, params = parameters(case, model)
    expected = dense_loglikeobs(case.Y, mean if trend == "c" else 0, case.sigma)
    np.testing.assert_allclose(model.loglikeobs(params), expected, rtol=1e-12)
    assert model.loglike(params) == pytest.approx(expected.sum(), rel=1e-13)


@pytest.mark.parametrize("trend", ["c", "n"])
def test_score_against_finite_differences(case, trend):
    model = model_of(case, trend)
    _, params = parameters(case, model)
    step = 1e-5

    def central(i):
        up, down = params.copy(), params.copy()
        up[i] += step
        down[i] -= step
        return (model.loglike(up) - model.loglike(down)) / (2 * step)

    some = np.random.default_rng(0).choice(len(params), size=min(len(params), 40), replace=False)
    score = model.score(params)
    assert score.shape == params.shape
    expected = np.array([central(i) for i in some])
    np.testing.assert_allclose(score[some], expected, rtol=2e-6, atol=2e-6 * (1 + np.abs(expected).max()))


def test_score_and_loglike_suit_an_optimizer():
    case = make_case([[0] * 5], (1,), nobs=200, seed=3)
    model = model_of(case)
    params = model.start_params
    numeric = approx_fprime(params, model.loglike, 1e-6)
    np.testing.assert_allclose(model.score(params), numeric, rtol=1e-3, atol=1e-2)


@st.composite
def hierarchies(draw):
    n = draw(st.integers(1, 12))
    depth = draw(st.integers(0, 3))
    columns = [draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)) for _ in range(depth)]
    # Ranks must not exceed the largest group of a level.
    paths, ranks = [()] * n, []
    for column in [[0] * n, *columns]:
        paths = [(*path, label) for path, label in zip(paths, column, strict=True)]
        largest = max(paths.count(path) for path in paths)
        ranks.append(draw(st.integers(0, min(3, largest))))
    return [[0] * n, *columns], tuple(ranks), draw(st.integers(3, 20)), draw(st.integers(0, 2**16))


@given(hierarchies())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_hierarchy(drawn):
    labels, ranks, nobs, seed = drawn
    case = make_case(labels, ranks, nobs=nobs, seed=seed)
    sigma = case.sigma
    model = model_of(case)
    mean, params = parameters(case, model, seed)
    assert model.loglike(params) == pytest.approx(dense_loglikeobs(case.Y, mean, sigma).sum(), rel=1e-11)
    covariance = MultilevelCovariance(case.hierarchy, case.loadings, case.uniquenesses, ranks=ranks)
    assert covariance.logdet() == pytest.approx(np.linalg.slogdet(sigma)[1], rel=1e-10, abs=1e-10)
    np.testing.assert_allclose(covariance.solve(case.Y.T), np.linalg.solve(sigma, case.Y.T), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(covariance @ case.Y.T, sigma @ case.Y.T, rtol=1e-10, atol=1e-11)
    # The score from the definition: dl/dSigma = -1/2 (N Sigma^-1 - Sigma^-1 E'E Sigma^-1).
    E, inverse = case.Y - mean, np.linalg.inv(sigma)
    slope = 0.5 * (inverse @ E.T @ E @ inverse - len(E) * inverse)
    score_mean, score_F, score_D = model._layout.parts(model.score(params))
    np.testing.assert_allclose(score_mean[:, 0], inverse @ E.sum(0), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(score_D, np.diag(slope), rtol=1e-8, atol=1e-8 * (1 + np.abs(slope).max()))
    first = 0
    for depth, rank in enumerate(ranks):
        groups = list(case.hierarchy.groups(case.hierarchy.levels[depth]).values())
        for members in groups:
            where = case.hierarchy.features.get_indexer(members)
            own = case.loadings[np.ix_(where, range(first, first + rank))]
            expected = 2 * slope[np.ix_(where, where)] @ own
            found = score_F[np.ix_(where, range(first, first + rank))]
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * (1 + np.abs(slope).max()))
        first += rank


def test_pack_and_unpack(case):
    model = model_of(case)
    mean, params = parameters(case, model)
    n, r = case.loadings.shape
    # Feature order: mean, loadings row by row, uniquenesses.
    np.testing.assert_array_equal(params[:n], mean)
    np.testing.assert_array_equal(params[n : n + n * r], case.loadings.ravel())
    np.testing.assert_array_equal(params[n + n * r :], case.uniquenesses)
    parts = model.unpack(params)
    np.testing.assert_array_equal(model.pack(*parts), params)
    assert list(parts.loadings.index) == list(case.hierarchy.features)
    assert list(parts.loadings.columns.names) == ["level", "factor"]
    assert len(model.param_names) == len(params)
    # Labelled parts are aligned by name.
    shuffled = [part.iloc[::-1] for part in parts]
    np.testing.assert_array_equal(model.pack(*shuffled), params)
    # Without a mean, the sample's.
    np.testing.assert_allclose(model.pack(parts.loadings, parts.uniquenesses)[:n], case.Y.mean(0))


def test_param_names_say_what_they_are():
    case = make_case([[0] * 3, ["a", "a", "b"]], (1, 1))
    names = model_of(case).param_names
    assert names[:3] == ["mean[x0]", "mean[x1]", "mean[x2]"]
    assert names[3:5] == ["loading[x0, global, 1]", "loading[x0, level1, 1]"]
    assert names[-1] == "uniqueness[x2]"


def test_bad_parameters():
    case = make_case([[0] * 4, [0, 0, 1, 1]], (1, 1))
    model = model_of(case)
    _, params = parameters(case, model)
    for function in (model.loglike, model.loglikeobs, model.score, model.unpack):
        with pytest.raises(ValueError, match="params: a vector of 16 numbers is needed"):
            function(params[:-1])
        with pytest.raises(ValueError, match="1 of them are missing or infinite"):
            function(np.where(np.arange(16) == 5, np.nan, params))
        with pytest.raises(ValueError, match="uniquenesses must be positive; 4 of them"):
            function(np.where(np.arange(16) >= 12, -1, params))
    with pytest.raises(ValueError, match="coefficients: shape"):
        model.pack(case.loadings, case.uniquenesses, [1, 2])
    with pytest.raises(ValueError, match="loadings: shape"):
        model.pack(case.loadings[:, :1], case.uniquenesses)
    centred = MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=[1, 1], trend="n")
    with pytest.raises(ValueError, match='trend="n"'):
        centred.pack(case.loadings, case.uniquenesses, np.zeros(4))


def test_data_are_never_changed():
    case = make_case([[0] * 4, [0, 0, 1, 1]], (1, 1), nobs=30)
    frame = case.frame + 5
    before = frame.copy()
    model = MultilevelFactorModel(frame, hierarchy=case.hierarchy, ranks=[1, 1])
    model.fit(tol=1)
    pd.testing.assert_frame_equal(frame, before)
    array = np.asfortranarray(case.Y)
    array.setflags(write=False)
    MultilevelFactorModel(array, hierarchy=case.hierarchy, ranks=[1, 1], trend="n").fit(tol=1)
    np.testing.assert_array_equal(array, case.Y)


def test_dense_oracle_is_itself_right():
    """A bifactor covariance written out by hand."""
    case = make_case([[0] * 3, ["a", "b", "a"]], (1, 1))
    sigma = dense_covariance(case.hierarchy, (1, 1), [[1, 2], [3, 4], [5, 6]], [1, 1, 1])
    np.testing.assert_array_equal(sigma, [[1 + 4 + 1, 3, 5 + 12], [3, 9 + 16 + 1, 15], [5 + 12, 15, 25 + 36 + 1]])


def test_a_labelled_vector_is_aligned_by_name():
    case = make_case([[0] * 4, [0, 0, 1, 1]], (1, 1))
    model = model_of(case)
    _, params = parameters(case, model)
    series = pd.Series(params, index=model.param_names)
    assert model.loglike(series.iloc[::-1]) == model.loglike(params)
    np.testing.assert_array_equal(model.pack(*model.unpack(series.sample(frac=1, random_state=0))), params)
    with pytest.raises(ValueError, match=r"params: labels do not match.*unknown: 0, 1"):
        model.loglike(pd.Series(params))
    with pytest.raises(TypeError, match="params: real numbers are needed"):
        model.loglike(params.astype(complex))
