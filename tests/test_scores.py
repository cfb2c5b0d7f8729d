"""Scores of the factors and their standard errors, against the formulas from their definitions on dense matrices."""

import numpy as np
import pandas as pd
import pytest
from conftest import ZOO
from oracle import make_case

import mlfm

pytestmark = pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
METHODS = ["regression", "bartlett"]
LABELS = [[0] * 20, [j // 10 for j in range(20)], [j // 5 for j in range(20)]]
CASES = {
    "flat": make_case([[0] * 12], (3,), nobs=15),
    "two levels": make_case(LABELS[:2], (2, 2), nobs=15),
    "three levels": make_case(LABELS, (2, 1, 1), nobs=15),
    "rank 0 in the middle": make_case(LABELS, (2, 0, 1), nobs=15),
    "rank 0 at the finest level": make_case(LABELS, (1, 2, 0), nobs=15),
    "no global factors": make_case(LABELS, (0, 2, 1), nobs=15),
    "unsorted columns": make_case([LABELS[0], [str(j) for j in np.random.default_rng(3).permutation(20) % 3]], (2, 1)),
}


@pytest.fixture(params=list(CASES), ids=list(CASES))
def roomy(request):
    """A case with features enough for all factors."""
    return CASES[request.param]


def quick(case, gaps=False, exog=None):
    """Results at whatever parameters a few steps lead to, and the data."""
    Y = case.frame
    if gaps:
        Y = Y.mask(np.random.default_rng(8).random(Y.shape) < 0.15)
    model = mlfm.MultilevelFactorModel(Y, exog, hierarchy=case.hierarchy, ranks=case.ranks)
    return Y, model.fit(maxiter=3, start="random", rng=0)


def wide(results):
    """All factors' loadings as one matrix, features x (level, group, factor)."""
    columns = {}
    features = results.hierarchy.features
    for level, rank in results.ranks.items():
        for group, members in results.hierarchy.groups(level).items():
            for factor in range(1, rank + 1):
                columns[level, group, factor] = results.loadings[level, factor].where(features.isin(members), 0.0)
    return list(columns), np.array(list(columns.values())).reshape(len(columns), len(features)).T


def dense_scores(results, method, E):
    """Scores and standard errors of residuals E, row by row of what is observed."""
    E = np.asarray(E)
    _, F = wide(results)
    D = results.uniquenesses.to_numpy()
    prior = np.eye(F.shape[1]) * (method == "regression")
    Z, se = np.empty((2, len(E), F.shape[1]))
    for i, seen in enumerate(~np.isnan(E)):
        covariance = np.linalg.inv(F[seen].T @ (F[seen] / D[seen, None]) + prior)
        Z[i] = covariance @ F[seen].T @ (E[i, seen] / D[seen])
        se[i] = np.sqrt(np.diag(covariance))
    return Z, se


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gaps", [False, True])
def test_scores_are_their_definition(roomy, method, gaps):
    Y, results = quick(roomy, gaps)
    Z, se = dense_scores(results, method, (Y - results.mean).to_numpy())
    for made, expected in [(results.scores(method), Z), (results.scores_se(method), se)]:
        assert list(made.columns) == wide(results)[0]
        assert made.columns.names == ["level", "group", "factor"]
        np.testing.assert_allclose(made, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_scores_of_new_data(roomy, method, tmp_path):
    _, results = quick(roomy)
    rng = np.random.default_rng(1)
    new = pd.DataFrame(rng.standard_normal((6, roomy.hierarchy.n_features)) * 2, columns=roomy.hierarchy.features)
    new = new.mask(rng.random(new.shape) < 0.1).set_axis(list("uvwxyz"))
    Z, se = dense_scores(results, method, (new - results.mean).to_numpy())
    results.save(tmp_path / "results")
    loaded = mlfm.load(tmp_path / "results")
    backwards = new[new.columns[::-1]]
    for source in (results, loaded):
        scores = source.scores(method, data=backwards)
        np.testing.assert_allclose(scores, Z, rtol=1e-8, atol=1e-8)
        assert list(scores.index) == list(new.index)
        np.testing.assert_allclose(source.scores_se(method, data=backwards), se, rtol=1e-8)
    np.testing.assert_array_equal(results.scores(method, data=new.to_numpy()), results.scores(method, data=new))


@pytest.mark.parametrize("method", METHODS)
def test_one_observation_alone(roomy, method):
    Y, results = quick(roomy)
    for one in (Y.iloc[[4]], Y.iloc[4]):
        scores = results.scores(method, data=one)
        assert list(scores.index) == [4]
        np.testing.assert_allclose(scores, results.scores(method).iloc[[4]], rtol=1e-9, atol=1e-10)


def test_every_shape_of_tree_takes_new_data(case):
    Y, results = quick(case)
    pd.testing.assert_frame_equal(results.scores(data=Y), results.scores(), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(results.scores_se(), dense_scores(results, "regression", Y - results.mean)[1], rtol=1e-9)


def test_bartlett_is_there_or_refused(case):
    Y, results = quick(case)
    _, F = wide(results)
    scaled = F / np.sqrt(results.uniquenesses.to_numpy())[:, None]
    if np.linalg.matrix_rank(scaled, tol=1e-7 * np.abs(scaled).max(initial=0)) == F.shape[1]:
        Z, _ = dense_scores(results, "bartlett", (Y - results.mean).to_numpy())
        np.testing.assert_allclose(results.scores("bartlett"), Z, rtol=1e-6, atol=1e-6)
    else:
        with pytest.raises(ValueError, match="Bartlett scores do not exist"):
            results.scores("bartlett")


def test_the_zoo_has_both():
    refused = set()
    for name, case in ZOO.items():
        try:
            quick(case)[1].scores("bartlett")
        except ValueError:
            refused.add(name)
    assert 3 < len(refused) < len(ZOO) - 3


def test_bartlett_names_groups_and_observations():
    case = CASES["two levels"]
    Y, results = quick(case)
    with pytest.raises(ValueError, match=r"1 group of level 'level1': 1, in observations 5\. .*method='regression'"):
        results.scores(
            "bartlett", data=Y.mask((Y.index == 5)[:, None] & (results.hierarchy.to_frame() == 1).T.to_numpy())
        )


def test_covariates_of_new_observations():
    case = CASES["two levels"]
    exog = pd.DataFrame({"x": np.linspace(-1, 1, len(case.Y))})
    Y, results = quick(case, exog=exog)
    for method in METHODS:
        Z, _ = dense_scores(results, method, results.resid.to_numpy())
        np.testing.assert_allclose(results.scores(method), Z, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(results.scores(method, data=Y[3:5], exog=exog[3:5]), Z[3:5], rtol=1e-8, atol=1e-9)
    with pytest.raises(ValueError, match=r"exog: needed with data, .* 'const', 'x'"):
        results.scores(data=Y)
    with pytest.raises(ValueError, match="exog: 2 rows, but data has 3"):
        results.scores(data=Y[3:6], exog=exog[3:5])
    with pytest.raises(ValueError, match=r"exog: its index differs .*exog\.loc\[data\.index\]"):
        results.scores(data=Y[3:5], exog=exog[4:6])
    with pytest.raises(ValueError, match="exog: goes with data"):
        results.scores(exog=exog)


def test_without_a_mean():
    case = CASES["flat"]
    results = mlfm.MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=case.ranks, trend="n").fit(
        maxiter=3
    )
    np.testing.assert_allclose(
        results.scores("bartlett", data=case.frame), dense_scores(results, "bartlett", case.Y)[0], rtol=1e-9, atol=1e-9
    )


def test_scores_and_their_errors_in_simulation():
    """True factors of the model that made the data. Regression scores: errors are independent of the scores, and have
    the posterior's standard deviation. Bartlett: unbiased given the factors. Mean squares of 4000 errors have a
    standard error of 2.2 %; 5 standard errors are allowed.
    """
    rng = np.random.default_rng(0)
    case = CASES["two levels"]
    nobs, n = 4000, case.hierarchy.n_features
    params = {"loadings": case.loadings, "uniquenesses": case.uniquenesses, "coefficients": np.zeros(n)}
    model = mlfm.MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=case.ranks)
    results = model.fit(maxiter=1, start_params=model.pack(**params))
    columns, F = wide(results)
    z = rng.standard_normal((nobs, len(columns)))
    Y = z @ F.T + rng.standard_normal((nobs, n)) * np.sqrt(results.uniquenesses.to_numpy()) + results.mean.to_numpy()
    for method in METHODS:
        ratio = (results.scores(method, data=Y) - z) / results.scores_se(method, data=Y[:1]).to_numpy()
        np.testing.assert_allclose((ratio**2).mean(), 1, atol=5 * np.sqrt(2 / nobs))
    error = results.scores("bartlett", data=Y).to_numpy() - z
    slopes = (error * z).mean(axis=0)  # on the factors themselves
    assert (np.abs(slopes) < 5 * error.std(axis=0) / np.sqrt(nobs)).all()
    shrunk = ((results.scores(data=Y).to_numpy() - z) * z).mean(axis=0)
    assert (shrunk < 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "thurstone"}, "method must be one of 'regression', 'bartlett', not 'thurstone'"),
        ({"data": CASES["flat"].frame.iloc[:, 1:]}, "data: features are absent: 'x0'; .*reindex"),
        ({"data": CASES["flat"].frame.rename(columns={"x0": "y"})}, "data: labels that are no features .*: 'y'"),
        ({"data": CASES["flat"].frame.replace(CASES["flat"].Y[0, 0], np.inf)}, "data: infinite .* 'x0'"),
        ({"data": np.zeros((3, 4))}, r"data: observations x 12 features are needed, not .* \(3, 4\)"),
        ({"data": np.zeros(12)}, r"data: observations x 12 features"),
        ({"data": CASES["flat"].frame, "exog": np.zeros(15)}, "exog: the model has no covariates"),
    ],
)
def test_what_is_refused(arguments, message):
    _, results = quick(CASES["flat"])
    with pytest.raises(ValueError, match=message):
        results.scores(**arguments)


def test_text_is_refused():
    Y, results = quick(CASES["flat"])
    with pytest.raises(TypeError, match="data: columns are not numeric: 'x1'"):
        results.scores(data=Y.assign(x1="a"))
    with pytest.raises(TypeError, match="data: columns are not numeric: 'x2'"):
        results.scores(data=Y.assign(x1=None, x2=[None, "a", *[None] * (len(Y) - 2)]))


def test_features_that_are_none_were_not_observed():
    """Features set to None as a whole are columns of objects with nothing in them."""
    Y, results = quick(CASES["two levels"])
    none, nan = Y.head(2).copy(), Y.head(2).copy()
    none[["x1", "x7"]] = None
    nan[["x1", "x7"]] = np.nan
    assert all(pd.api.types.is_object_dtype(dtype) for dtype in none[["x1", "x7"]].dtypes)
    pd.testing.assert_frame_equal(results.scores(data=none), results.scores(data=nan))
    pd.testing.assert_frame_equal(results.conditional(none).mean, results.conditional(nan).mean)


def test_loaded_results_need_data(tmp_path):
    _, results = quick(CASES["flat"])
    results.save(tmp_path / "results")
    loaded = mlfm.load(tmp_path / "results")
    for ask in (loaded.scores, loaded.scores_se, lambda: loaded.scores("bartlett")):
        with pytest.raises(ValueError, match="cannot be had: these results were loaded from a file"):
            ask()
