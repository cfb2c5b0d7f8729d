"""Standard errors of all kinds against dense computations from the definition, and against lavaan's."""

import importlib.util
import itertools
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from oracle import dense_covariance
from scipy import stats

import mlfm
from mlfm.inference.hypotheses import linear_hypothesis
from mlfm.inference.identification import constrained_inverse, flat_directions

HOME = Path(__file__).parent
spec = importlib.util.spec_from_file_location("r_reference", HOME / "reference" / "r" / "parse.py")
reference_of = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference_of)

KINDS = ("expected", "oim", "opg", "robust")
LABELS = pd.DataFrame({"sector": list("abaabbaababb")}, index=[f"x{j}" for j in range(12)])


def simulated(nobs, covariates=0, gaps=False):
    """Data of a model with ranks 2 and 1 in all sorts of units, groups not side by side; true parameters."""
    rng = np.random.default_rng(0)
    hierarchy, n = mlfm.Hierarchy(LABELS), len(LABELS)
    unit = 10.0 ** rng.integers(-2, 3, n)
    F = (rng.normal(size=(n, 3)) * [0.9, 0.8, 0.7] + 0.3) * unit[:, None]
    D = rng.uniform(0.7, 1.5, n) * unit**2
    Y = rng.normal(size=(nobs, n)) @ np.linalg.cholesky(dense_covariance(hierarchy, (2, 1), F, D)).T
    X = rng.normal(size=(nobs, covariates)) * 100
    endog = pd.DataFrame(Y + X @ rng.normal(size=(covariates, n)) * unit, columns=LABELS.index)
    if gaps:
        endog = endog.mask(rng.random(endog.shape) < 0.15)
    return endog, (X if covariates else None), F, D


def fit_of(kind, nobs=300):
    """Results for ``kind`` of data, what observations count, and what their scores' products do.

    A few steps from the truth: the formulas hold anywhere, and where the fit ends uniquenesses may be on their floor.
    """
    endog, exog, F, D = simulated(nobs, covariates=int("covariate" in kind), gaps="gaps" in kind)
    rng, options = np.random.default_rng(1), {}
    if "frequencies" in kind:
        options["freq_weights"] = rng.integers(0, 4, nobs)
    if "weights" in kind:
        options["weights"] = rng.uniform(0.2, 1, nobs)
    trend = "n" if kind == "no mean" else "c"
    model = mlfm.MultilevelFactorModel(
        endog, exog, hierarchy=mlfm.Hierarchy(LABELS), ranks=[2, 1], trend=trend, **options
    )
    frequency, weight = options.get("freq_weights", np.ones(nobs)), options.get("weights", np.ones(nobs))
    each = frequency * weight
    scale = each.sum() / (frequency @ weight**2)
    with pytest.warns(mlfm.ConvergenceWarning):
        results = model.fit(start_params=model.pack(F, D), maxiter=3)
    return results, each * scale, frequency * (weight * scale) ** 2


@pytest.fixture(
    scope="module",
    params=["complete", "no mean", "covariate", "gaps", "covariate, gaps, weights", "frequencies, weights"],
)
def fit(request):
    results, each, squares = fit_of(request.param)
    return results, Oracle(results, each, squares)


# The oracle: derivatives of the moments by every parameter, and of the constraints of the canonical rotation.


def central(function, x, step):
    """Derivatives by finite differences, the last axis over the parameters; exact where functions are quadratic."""
    columns = []
    for k in range(len(x)):
        forward, backward = x.copy(), x.copy()
        forward[k] += step[k]
        backward[k] -= step[k]
        columns.append((function(forward) - function(backward)) / (2 * step[k]))
    return np.stack(columns, axis=-1)


def steps(results, size):
    """A step for each parameter, in units of its feature."""
    model, scale = results.model, np.sqrt(results.covariance.diagonal())
    parts = [np.outer(scale, 1 / np.sqrt((model.exog**2).mean(axis=0)))]
    parts += [np.repeat(scale[:, None], results.loadings.shape[1], axis=1), results.uniquenesses.to_numpy()]
    return size * model.pack(parts[1], parts[2], parts[0])


def rotation(results, x):
    """The elements of F_k' D^-1 F_k off the diagonal, in all groups."""
    loadings, uniquenesses, _ = results.model.unpack(x)
    found = []
    for level, rank in results.ranks.items():
        for members in results.hierarchy.groups(level).values():
            gram = loadings.loc[members, level].T @ (loadings.loc[members, level].T / uniquenesses[members]).T
            found += [gram.iloc[a, b] for a, b in itertools.combinations(range(rank), 2)]
    return np.array(found)


class Oracle:
    """Information matrices and constraints of results, by finite differences of the likelihood and of the moments."""

    def __init__(self, results, each, squares):
        self.results, self.each, self.squares = results, each, squares
        self.x, self.step = results.params.to_numpy(), steps(results, 2e-5)

    @cached_property
    def constraints(self):
        return central(lambda x: rotation(self.results, x), self.x, self.step)

    @cached_property
    def observed(self):
        return -central(self.results.model.score, self.x, self.step)

    @cached_property
    def opg(self):
        scores = central(self.results.model.loglikeobs, self.x, self.step)
        return (scores * self.squares[:, None]).T @ scores

    @cached_property
    def expected(self):
        """The sum over observations of tr(M dS M dS) / 2 + dmu' M dmu, of what each has observed."""
        results, model, step = self.results, self.results.model, steps(self.results, 1e-3)

        def covariance(x):
            loadings, uniquenesses, _ = model.unpack(x)
            return dense_covariance(results.hierarchy, results.ranks, loadings, uniquenesses)

        dS = central(covariance, self.x, step)
        dB = central(lambda x: model.unpack(x).coefficients.to_numpy(), self.x, step)
        sigma, total = covariance(self.x), np.zeros((len(self.x), len(self.x)))
        for row, times, seen in zip(model.exog, self.each, ~np.isnan(model.endog), strict=True):
            inverse = np.linalg.inv(sigma[np.ix_(seen, seen)])
            slopes = np.tensordot(inverse, dS[np.ix_(seen, seen)], axes=1)
            turned = slopes.swapaxes(0, 1).reshape(-1, len(self.x))
            means = np.tensordot(row, dB[seen], axes=(0, 1))
            total += times * (0.5 * turned.T @ slopes.reshape(-1, len(self.x)) + means.T @ inverse @ means)
        return total

    def covariance(self, kind, free=slice(None)):
        """Of the estimates."""
        H = {"expected": "expected", "opg": "opg"}.get(kind, "observed")
        V = bordered(getattr(self, H)[free][:, free], self.constraints[:, free])
        return V @ self.opg[free][:, free] @ V if kind == "robust" else V


def bordered(H, C):
    """Silvey's inverse of the bordered information, in units in which it has a diagonal of ones."""
    unit = 1 / np.sqrt(np.diag(H))
    border = np.block([[H * unit * unit[:, None], (C * unit).T], [C * unit, np.zeros((len(C), len(C)))]])
    return np.linalg.inv(border)[: len(H), : len(H)] * unit * unit[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_dense(fit, kind):
    results, oracle = fit
    expected = oracle.covariance(kind)
    found = results.with_cov_type(kind).cov_params()
    bse = np.sqrt(np.diag(expected))
    # The oracle's finite differences are good to about 1e-7.
    np.testing.assert_allclose(found / np.outer(bse, bse), expected / np.outer(bse, bse), atol=3e-6)
    assert found.index.equals(results.params.index)
    assert found.columns.equals(results.params.index)
    np.testing.assert_allclose(results.with_cov_type(kind).bse, bse, rtol=3e-6)


def test_information_and_hessian_of_a_model(fit):
    results, oracle = fit
    unit = np.sqrt(np.abs(np.diag(oracle.expected)))
    for found, expected in (
        (results.model.information(results.params), oracle.expected),
        (-results.model.hessian(results.params), oracle.observed),
    ):
        np.testing.assert_allclose(found / np.outer(unit, unit), expected / np.outer(unit, unit), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_delta_method(fit, kind):
    results, _ = fit
    results = results.with_cov_type(kind)
    x, V = results.params.to_numpy(), results.cov_params().to_numpy()
    squares = {level: results.loadings[level].columns for level in results.hierarchy.levels}

    def parts(x):
        loadings, uniquenesses, _ = results.model.unpack(x)
        return np.column_stack([*((loadings[level] ** 2).sum(axis=1) for level in squares), uniquenesses])

    def communalities(x):
        return 1 - parts(x)[:, -1] / parts(x).sum(axis=1)

    def shares(x):
        return parts(x).sum(axis=0) / parts(x).sum()

    step = steps(results, 1e-4)
    slopes = central(communalities, x, step)
    np.testing.assert_allclose(results.communalities_bse, np.sqrt(np.diag(slopes @ V @ slopes.T)), rtol=1e-6)
    slopes = central(shares, x, step)
    table = results.variance_shares(alpha=0.1)
    np.testing.assert_allclose(table["share"], shares(x))
    np.testing.assert_allclose(table["std err"], np.sqrt(np.diag(slopes @ V @ slopes.T)), rtol=1e-6)
    np.testing.assert_allclose(table["0.95]"] - table["share"], stats.norm.ppf(0.95) * table["std err"])


# Other software.


@pytest.fixture(scope="module", params=reference_of.FITS)
def known(request):
    """lavaan's fit, and mlfm's of the same data."""
    reference = reference_of.read(request.param)
    model = mlfm.MultilevelFactorModel(
        reference_of.endog(request.param), hierarchy=reference_of.groups(request.param), ranks=reference.ranks
    )
    return reference, model.fit(tol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_lavaan(known, kind):
    """To what is left of the fits: at tol=1e-10 a parameter may be 1e-5 of its standard error off."""
    reference, results = known
    results, name = results.with_cov_type(kind), {"oim": "observed"}.get(kind, kind)
    expected = reference.bse[name]
    packed = results.model.pack(expected.loadings, expected.uniquenesses, expected.means)
    np.testing.assert_allclose(results.bse, packed, rtol=3e-5)
    np.testing.assert_allclose(results.communalities_bse, reference.communalities[name], rtol=3e-5)
    shares = reference.shares("share")
    if len(shares):
        np.testing.assert_allclose(results.variance_shares()["std err"], shares[name], rtol=1e-5)


def test_a_model_without_factors_is_textbook():
    """Var(s^2) = 2 sigma^4 / N, Var(mean) = sigma^2 / N; the sandwich has the fourth moments."""
    Y = np.random.default_rng(0).standard_t(6, size=(400, 5)) * [1, 2, 3, 4, 5]
    results = mlfm.MultilevelFactorModel(Y, hierarchy=mlfm.Hierarchy(pd.RangeIndex(5)), ranks=[0]).fit()
    variance, fourth = Y.var(axis=0), ((Y - Y.mean(axis=0)) ** 4).mean(axis=0)
    textbook = {
        "expected": 2 * variance**2 / 400,
        "oim": 2 * variance**2 / 400,
        "asymptotic": 2 * variance**2 / 400,
        "opg": None,
        "robust": (fourth - variance**2) / 400,
    }
    for kind, expected in textbook.items():
        of = results.with_cov_type(kind)
        if expected is not None:
            np.testing.assert_allclose(of.bse.iloc[5:] ** 2, expected, rtol=1e-9)
            np.testing.assert_allclose(of.bse.iloc[:5] ** 2, variance / 400, rtol=1e-9)
    assert results.variance_shares()["std err"].max() < 1e-12
    np.testing.assert_allclose(results.communalities_bse, 0, atol=1e-12)


def test_regression_with_a_robust_covariance_is_statsmodels():
    """One feature without factors: the sandwich of the coefficients is HC0."""
    rng = np.random.default_rng(0)
    X = sm.add_constant(rng.normal(size=(200, 2)))
    y = X @ [1, 2, 3] + rng.normal(size=200) * (1 + X[:, 1] ** 2)
    hierarchy = mlfm.Hierarchy(pd.Index(["y"]))
    results = mlfm.MultilevelFactorModel(y[:, None], X[:, 1:], hierarchy=hierarchy, ranks=[0]).fit()
    expected = sm.OLS(y, X).fit(cov_type="HC0").bse
    np.testing.assert_allclose(results.with_cov_type("robust").bse.iloc[:3], expected, rtol=1e-9)
    np.testing.assert_allclose(results.with_cov_type("robust").coefficients_bse.iloc[0], expected, rtol=1e-9)


# What must not change them.


def test_equal_rows_or_frequencies():
    endog, _, F, D = simulated(400)
    counts = np.random.default_rng(0).integers(0, 4, 400)
    rows = endog.loc[np.repeat(endog.index, counts)].reset_index(drop=True)
    found = []
    for data, options in ((rows, {}), (endog, {"freq_weights": counts})):
        model = mlfm.MultilevelFactorModel(data, hierarchy=mlfm.Hierarchy(LABELS), ranks=[2, 1], **options)
        with pytest.warns(mlfm.ConvergenceWarning):
            found.append(model.fit(start_params=model.pack(F, D), maxiter=0))
    for kind in (*KINDS, "asymptotic"):
        np.testing.assert_allclose(found[0].with_cov_type(kind).bse, found[1].with_cov_type(kind).bse, rtol=1e-9)


@pytest.mark.parametrize("kind", [*KINDS, "asymptotic"])
def test_units_and_the_order_of_features(kind):
    endog, _, F, D = simulated(400)
    units, order = 10.0 ** np.arange(-6, 6), np.random.default_rng(0).permutation(12)
    found = []
    for data, labels, loadings, uniquenesses in (
        (endog, LABELS, F, D),
        ((endog * units).iloc[:, order], LABELS.iloc[order], (F.T * units).T[order], (D * units**2)[order]),
    ):
        model = mlfm.MultilevelFactorModel(data, hierarchy=labels, ranks=[2, 1])
        with pytest.warns(mlfm.ConvergenceWarning):
            found.append(model.fit(start_params=model.pack(loadings, uniquenesses), maxiter=0, cov_type=kind))
    one, two = found
    assert one.cov_type == two.cov_type == kind
    names = one.params.index
    powers = names.str.startswith("uniqueness") + 1.0
    unit = pd.Series(units, index=endog.columns)[names.str.extract(r"(x\d+)")[0]].to_numpy()
    np.testing.assert_allclose(two.bse[names], one.bse * unit**powers, rtol=1e-7)
    np.testing.assert_allclose(two.communalities_bse[endog.columns], one.communalities_bse, rtol=1e-7)


def test_files(tmp_path):
    results, *_ = fit_of("complete")
    results.save(tmp_path / "results")
    loaded = mlfm.load(tmp_path / "results")
    pd.testing.assert_series_equal(loaded.bse, results.bse)
    pd.testing.assert_frame_equal(loaded.variance_shares(), results.variance_shares())
    with pytest.raises(ValueError, match="cov_type='robust' cannot be had: these results were loaded from a file"):
        _ = loaded.with_cov_type("robust").bse
    robust = results.with_cov_type("robust")
    _ = robust.bse
    robust.save(tmp_path / "robust")
    pd.testing.assert_series_equal(mlfm.load(tmp_path / "robust").bse, robust.bse)


# Closed forms for many features.


def many(sizes, ranks, seed=0, shift=0.5, nobs=300):
    """A fit with large groups; with ``shift`` loadings of one level and the next are not orthogonal."""
    rng, n = np.random.default_rng(seed), sum(sizes)
    sectors = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    labels = pd.DataFrame({"sector": sectors}, index=[f"x{j}" for j in range(n)])
    hierarchy = mlfm.Hierarchy(labels if len(ranks) > 1 else labels.index)
    F = rng.normal(size=(n, sum(ranks))) * np.linspace(1.0, 0.6, sum(ranks)) + shift
    covariance = mlfm.MultilevelCovariance(hierarchy, F, rng.uniform(0.5, 1.5, n), ranks=list(ranks))
    return mlfm.MultilevelFactorModel(covariance.sample(nobs, rng=seed), hierarchy=hierarchy, ranks=list(ranks)).fit()


@pytest.fixture(
    scope="module", params=[((150,), (3,)), ((40, 50, 60), (2, 2)), ((70, 80), (0, 2)), ((60,) * 3, (1, 1))]
)
def large(request):
    return many(*request.param)


def test_closed_forms_are_the_expected_information_for_many_features(large):
    expected, closed = large.with_cov_type("expected"), large.with_cov_type("asymptotic")
    ratio = closed.bse / expected.bse
    kinds = ratio.index.str.split("[").str[0]
    np.testing.assert_allclose(ratio[kinds == "mean"], 1, rtol=1e-9)
    np.testing.assert_allclose(ratio[kinds == "uniqueness"], 1, atol=0.01)
    loadings = ratio[kinds == "loading"]
    assert abs(loadings.median() - 1) < 0.02
    np.testing.assert_allclose(loadings, 1, atol=0.12)
    np.testing.assert_allclose(closed.communalities_bse / expected.communalities_bse, 1, atol=0.03)
    errors = [of.variance_shares()["std err"] for of in (closed, expected)]
    np.testing.assert_allclose(errors[0], errors[1], rtol=0.03)


def test_closed_forms_of_some_parameters(large):
    """A covariance of chosen parameters: its diagonal is that of all, its correlations those of the information."""
    expected, closed = large.with_cov_type("expected"), large.with_cov_type("asymptotic")
    names = large.params.index[np.random.default_rng(0).choice(len(large.params), 80, replace=False)]
    of_some = closed.cov_params(column=names)
    np.testing.assert_allclose(np.sqrt(np.diag(of_some)), closed.bse[names], rtol=1e-9)
    bse = expected.bse[names].to_numpy()
    correlations = expected.cov_params().loc[names, names] / np.outer(bse, bse)
    np.testing.assert_allclose(of_some / np.outer(closed.bse[names], closed.bse[names]), correlations, atol=0.12)
    assert np.abs(np.triu(correlations, 1)).max() > 0.5  # there is something to get right
    hypothesis = f"{names[0]} = {names[1]}"
    tests = [of.t_test(hypothesis).sd.item() for of in (closed, expected)]
    assert tests[0] == pytest.approx(tests[1], rel=0.1)


def test_closed_forms_come_nearer_with_more_features():
    off = []
    for size in (60, 240):
        results = many((size, size), (1, 1), nobs=100)
        ratio = results.with_cov_type("asymptotic").bse / results.with_cov_type("expected").bse
        off.append(float(np.sqrt(((ratio - 1) ** 2).mean())))
    assert off[0] > 2 * off[1] > 0


@pytest.mark.parametrize(("sizes", "ranks"), [((6,) * 20, (2, 1)), ((3, 5, 8, 13, 21, 34, 4, 60), (1, 1))])
def test_small_groups_do_not_know_their_factors(sizes, ranks):
    """Their own errors are worked out together, and are those of the information; groups of 60 are not small."""
    results = many(sizes, ranks, nobs=3000)
    expected, closed = results.with_cov_type("expected"), results.with_cov_type("asymptotic")
    ratio = closed.bse / expected.bse
    np.testing.assert_allclose(ratio, 1, atol=0.03)
    np.testing.assert_allclose(closed.communalities_bse / expected.communalities_bse, 1, atol=0.02)
    errors = [of.variance_shares()["std err"] for of in (closed, expected)]
    np.testing.assert_allclose(errors[0], errors[1], rtol=0.02)
    group = next(iter(results.hierarchy.groups("sector").values()))
    names = [name for name in results.params.index if any(f"[{feature}" in name for feature in group[:3])]
    names = [name for name in names if not name.startswith("mean")]
    of_some, of_all = closed.cov_params(column=names), expected.cov_params().loc[names, names]
    np.testing.assert_allclose(np.sqrt(np.diag(of_some)), closed.bse[names], rtol=1e-9)
    unit = np.sqrt(np.outer(np.diag(of_all), np.diag(of_all)))
    np.testing.assert_allclose(of_some / unit, of_all / unit, atol=0.05)


def test_a_small_flat_model_is_exact():
    results = many((30,), (3,))
    expected, closed = results.with_cov_type("expected"), results.with_cov_type("asymptotic")
    np.testing.assert_allclose(closed.bse, expected.bse, rtol=1e-8)
    names = results.params.index[30:]
    np.testing.assert_allclose(closed.cov_params(column=names), expected.cov_params().loc[names, names], atol=1e-12)
    np.testing.assert_allclose(closed.communalities_bse, expected.communalities_bse, rtol=1e-8)
    np.testing.assert_allclose(closed.variance_shares(), expected.variance_shares(), rtol=1e-8)


def test_closed_forms_count_each_features_observations():
    """Where a feature has half of the observations, the errors of its own regression have twice the variance."""
    complete = many((60, 60), (1, 1), nobs=400)
    endog = pd.DataFrame(complete.model.endog, columns=complete.hierarchy.features)
    endog.iloc[::2, 3] = np.nan
    model = mlfm.MultilevelFactorModel(endog, hierarchy=complete.hierarchy, ranks=[1, 1])
    gappy = model.fit(start=complete)
    closed, exact = gappy.with_cov_type("asymptotic"), gappy.with_cov_type("expected")
    name = f"uniqueness[{endog.columns[3]}]"
    assert closed.bse[name] / gappy.params[name] == pytest.approx(np.sqrt(2 / 200), rel=0.02)
    np.testing.assert_allclose(closed.bse / exact.bse, 1, atol=0.12)


def test_the_kind_is_chosen_by_size():
    small, large = many((20, 20), (1, 1)), many((400, 300), (1, 1), nobs=30)
    assert small.cov_type == "expected"
    assert large.cov_type == "asymptotic"
    assert "expected information" in small.cov_text
    assert large.bse.notna().all()
    endog = small.model.endog.copy()
    endog[0, 0] = np.nan
    assert mlfm.MultilevelFactorModel(endog, hierarchy=small.hierarchy, ranks=[1, 1]).fit().cov_type == "oim"
    with pytest.raises(ValueError, match=r"cov_type='oim'.*at most 6000"):
        many((2500,), (1,), nobs=5).with_cov_type("oim").bse  # noqa: B018


# What is not estimated, and what is not identified.


def test_a_uniqueness_on_its_floor_has_no_standard_error():
    """The others have those of the model in which it is known."""
    endog, *_ = simulated(100)
    endog["x0"] = endog["x3"] / endog["x3"].std() + 1e-3 * endog["x0"] / endog["x0"].std()
    with pytest.warns(mlfm.UniquenessFloorWarning):
        results = mlfm.MultilevelFactorModel(endog, hierarchy=mlfm.Hierarchy(LABELS), ranks=[2, 1]).fit(tol=1e-8)
    fixed = [f"uniqueness[{feature}]" for feature in results.on_floor]
    assert fixed
    free = ~results.params.index.isin(fixed)
    oracle = Oracle(results, np.ones(100), np.ones(100))
    for kind in ("expected", "asymptotic"):
        bse = results.with_cov_type(kind).bse
        assert bse[fixed].isna().all()
        assert bse[free].notna().all()
    expected = np.sqrt(np.diag(oracle.covariance("expected", free)))
    np.testing.assert_allclose(results.with_cov_type("expected").bse[free], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="parameters are not estimated or not identified: 'uniqueness"):
        results.wald_test([fixed[0]])
    assert results.communalities_bse.notna().all()
    assert results.variance_shares().notna().all(axis=None)


def test_groups_that_are_not_identified_have_no_standard_errors():
    """A group of two has one covariance for two loadings and two uniquenesses; the rest keeps what it has."""
    labels = pd.DataFrame({"sector": list("aaaaabbbbbcc")}, index=LABELS.index)
    rng = np.random.default_rng(0)
    F, D = rng.uniform(0.5, 1, (12, 2)), np.full(12, 0.7)
    endog = mlfm.MultilevelCovariance(mlfm.Hierarchy(labels), F, D, ranks=[1, 1]).sample(400, rng=rng)
    with pytest.warns(mlfm.IdentificationWarning):
        model = mlfm.MultilevelFactorModel(endog, hierarchy=labels, ranks=[1, 1])
    results = model.fit(tol=1e-7)
    lost = ["loading[x10, sector, 1]", "loading[x11, sector, 1]", "uniqueness[x10]", "uniqueness[x11]"]
    for kind in (*KINDS, "asymptotic"):
        bse = results.with_cov_type(kind).bse
        assert set(bse.index[bse.isna()]) == set(lost)
        without = (
            mlfm.MultilevelFactorModel(
                endog, hierarchy=labels.assign(sector=[*labels["sector"][:12], "c", "d"]), ranks=[1, 1]
            )
            if False
            else None
        )
        assert without is None
        assert results.with_cov_type(kind).communalities_bse.isna().sum() == 2


def test_constrained_inverse_is_that_of_a_basis():
    """Z (Z'HZ)^-1 Z' with Z from a singular value decomposition, H singular where C is not."""
    rng = np.random.default_rng(0)
    root, C = rng.normal(size=(7, 5)), rng.normal(size=(2, 7))
    H = root @ root.T
    Z = np.linalg.svd(C)[2][2:].T
    found = constrained_inverse(H, C)
    np.testing.assert_allclose(found, Z @ np.linalg.inv(Z.T @ H @ Z) @ Z.T, rtol=1e-9)
    assert not flat_directions(H, C).parameters.any()


def test_flat_directions_are_found():
    """H knows nothing of the first two parameters' difference, nor of the last, and C does not say."""
    H = np.diag([1.0, 1.0, 4.0, 0.0])
    H[0, 1] = H[1, 0] = 1.0
    directions, parameters = flat_directions(H, np.zeros((1, 4)))
    np.testing.assert_allclose(H @ directions.T, 0, atol=1e-12)
    assert parameters.tolist() == [True, True, False, True]


def test_closed_forms_have_nothing_for_what_the_data_do_not_identify():
    """Groups too small for their rank at a coarse level, and a level that repeats its parent's groups."""
    labels = pd.DataFrame({"sector": [j // 80 for j in range(160)], "half": [j // 40 for j in range(160)]})
    labels.loc[158:, ["sector", "half"]] = 9
    labels.loc[80:157, "half"] = 5  # the features of its sector
    labels.index = [f"x{j}" for j in range(160)]
    rng = np.random.default_rng(0)
    loadings = rng.uniform(0.5, 1, (160, 3))
    covariance = mlfm.MultilevelCovariance(mlfm.Hierarchy(labels), loadings, np.ones(160), ranks=[1, 1, 1])
    with pytest.warns(mlfm.IdentificationWarning):
        model = mlfm.MultilevelFactorModel(covariance.sample(300, rng=1), hierarchy=labels, ranks=[1, 1, 1])
    results = model.fit(tol=1e-6)
    bse = results.with_cov_type("asymptotic").bse
    lost = {f"loading[x{j}, {level}, 1]" for j in range(80, 160) for level in ("sector", "half")}
    lost |= {f"uniqueness[x{j}]" for j in (158, 159)}
    assert set(bse.index[bse.isna()]) == lost
    shares = results.with_cov_type("asymptotic").variance_shares()["std err"]
    assert shares.isna().all()  # the uniquenesses' sum is in all of them


# Tests of named parameters.


NAMES = pd.Index(["loading[a, global, 1]", "loading[a b, global, 1]", "mean[a]", "uniqueness[a]", "uniqueness[=, 2]"])


@pytest.mark.parametrize(
    ("text", "rows", "values"),
    [
        ("mean[a]", [[0, 0, 1, 0, 0]], [0]),
        ("mean[a] = 2", [[0, 0, 1, 0, 0]], [2]),
        ("loading[a, global, 1] = loading[a b, global, 1]", [[1, -1, 0, 0, 0]], [0]),
        ("loading[a, global, 1] - 2 * mean[a] = 1, uniqueness[a] = 3", [[1, 0, -2, 0, 0], [0, 0, 0, 1, 0]], [1, 3]),
        ("uniqueness[=, 2] = uniqueness[a]", [[0, 0, 0, -1, 1]], [0]),
        (["mean[a]", "uniqueness[=, 2]"], [[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]], [0, 0]),
        (([0, 1, 0, 0, 0], 4), [[0, 1, 0, 0, 0]], [4]),
        (np.eye(5)[:2], np.eye(5)[:2], [0, 0]),
    ],
)
def test_hypotheses(text, rows, values):
    where, R, q, labels = linear_hypothesis(text, NAMES)
    whole = np.zeros((len(R), 5))
    whole[:, where] = R
    np.testing.assert_array_equal(whole, rows)
    np.testing.assert_array_equal(q, values)
    assert len(labels) == len(rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mean[b] = 0", r"unknown parameters: 'mean\[b\]'; near are 'mean\[a\]'"),
        (["mean[a]", "mean[c]"], r"unknown parameters: 'mean\[c\]'"),
        ("nonsense", "unknown parameters: 'nonsense'"),
        ("mean[a] +", "cannot be read as linear hypotheses"),
        ("mean[a] * uniqueness[a] = 1", "cannot be read as linear hypotheses"),
        ("mean[a] = uniqueness[a] = 0", "more than one ="),
        ([1.0, 2.0], "5 columns are needed"),
    ],
)
def test_hypotheses_that_cannot_be_read(text, message):
    with pytest.raises(ValueError, match=message):
        linear_hypothesis(text, NAMES)


def test_labels_of_a_matrix_are_heeded(known):
    _, results = known
    name = results.params.index[-3]
    R = pd.DataFrame(0.0, ["h"], results.params.index[::-1])
    R[name] = 1.0
    for own in (R, R.loc["h"]):
        assert results.t_test(own).effect.item() == results.params[name]
    np.testing.assert_allclose(results.cov_params(R), results.bse[name] ** 2)
    with pytest.raises(ValueError, match="r_matrix: labels do not match"):
        results.t_test(R.rename(columns={name: "x"}))


def test_units_do_not_matter_to_wald_tests():
    endog, _, F, D = simulated(300)
    found = []
    for unit in (np.ones(12), 10.0 ** np.linspace(-6, 6, 12)):
        model = mlfm.MultilevelFactorModel(endog * unit, hierarchy=LABELS, ranks=[2, 1])
        with pytest.warns(mlfm.ConvergenceWarning):
            results = model.fit(start_params=model.pack((F.T * unit).T, D * unit**2), maxiter=0)
        found.append(results.wald_test(["mean[x0]", "mean[x11]", "mean[x5]"]).statistic)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_one_parameter_without_a_standard_error_leaves_the_others_alone():
    endog, *_ = simulated(100)
    endog["x0"] = endog["x3"] / endog["x3"].std() + 1e-3 * endog["x0"] / endog["x0"].std()
    with pytest.warns(mlfm.UniquenessFloorWarning):
        results = mlfm.MultilevelFactorModel(endog, hierarchy=LABELS, ranks=[2, 1]).fit()
    fixed = f"uniqueness[{results.on_floor[0]}]"
    free = next(name for name in results.bse.index[results.bse.notna()] if name.startswith("uniqueness"))
    sd = results.t_test(f"{fixed} = 0, {free} = 0").sd.ravel()
    assert np.isnan(sd[0])
    assert sd[1] == pytest.approx(results.bse[free])
    assert results.t_test(np.eye(len(results.params))).sd.ravel() == pytest.approx(results.bse.to_numpy(), nan_ok=True)


def test_too_many_parameters_at_once_are_refused():
    results = many((1600,), (3,), nobs=12)
    with pytest.raises(ValueError, match="8000 parameters at once"):
        results.t_test(np.ones((1, 8000)))
    with pytest.raises(ValueError, match="column: the covariance of all 8000 parameters would take"):
        results.cov_params()


def test_features_of_like_names_are_refused():
    endog, *_ = simulated(60)
    endog.columns = [*range(11), "3"]
    model = mlfm.MultilevelFactorModel(endog, hierarchy=mlfm.Hierarchy(endog.columns), ranks=[1])
    with pytest.raises(ValueError, match=r"features with like names cannot be told apart: 'mean\[3\]'"):
        model.fit().t_test(["mean[3]"])


def test_t_and_wald_tests(known):
    _, results = known
    first, second = results.params.index[[len(results.uniquenesses), len(results.uniquenesses) + 3]]
    V = results.cov_params().loc[[first, second], [first, second]].to_numpy()
    difference = results.params[first] - results.params[second]
    sd = np.sqrt(V[0, 0] + V[1, 1] - 2 * V[0, 1])
    test = results.t_test(f"{first} = {second}")
    assert test.tvalue.item() == pytest.approx(difference / sd)
    assert test.pvalue.item() == pytest.approx(2 * stats.norm.sf(abs(difference / sd)))
    assert f"{first} = {second}" in str(test)
    joint = results.wald_test([first, second])
    b = results.params[[first, second]].to_numpy()
    assert joint.statistic == pytest.approx(b @ np.linalg.solve(V, b))
    assert joint.pvalue == pytest.approx(stats.chi2.sf(joint.statistic, 2))
    np.testing.assert_allclose(results.tvalues[first], results.params[first] / np.sqrt(V[0, 0]))
    np.testing.assert_allclose(results.pvalues[first], 2 * stats.norm.sf(abs(results.tvalues[first])))
    interval = results.conf_int(0.1, cols=[first])
    half = stats.norm.ppf(0.95) * np.sqrt(V[0, 0])
    np.testing.assert_allclose(interval, [[results.params[first] - half, results.params[first] + half]])
    R = np.zeros((2, len(results.params)))
    R[0, 3], R[1, 4] = 1, 2
    np.testing.assert_allclose(results.cov_params(R), R @ results.cov_params().to_numpy() @ R.T)
    np.testing.assert_allclose(results.cov_params(R, other=R[:1]), R @ results.cov_params().to_numpy() @ R[:1].T)


def test_refusals(known):
    _, results = known
    name = results.params.index[0]
    refused = [
        (lambda: results.with_cov_type("HC3"), "cov_type must be one of 'expected'"),
        (lambda: results.model.fit(cov_type=3), "cov_type must be one of"),
        (lambda: results.conf_int(2), "alpha must lie between 0 and 1"),
        (lambda: results.conf_int(cols=["x"]), "cols: unknown parameters: 'x'"),
        (lambda: results.variance_shares(0), "alpha must lie between 0 and 1"),
        (lambda: results.cov_params(column="x"), "column: unknown parameters: 'x'"),
        (lambda: results.cov_params(scale=2), "scale: not used here"),
        (lambda: results.conf_int(alpha="x"), "alpha must lie between 0 and 1"),
        (lambda: results.t_test(np.zeros((1, len(results.params)))), "r_matrix: rows of zeros"),
        (lambda: results.t_test((1, 2, 3)), "r_matrix: a pair of a matrix and values"),
        (lambda: results.t_test((np.eye(len(results.params)), [1, 2])), "r_matrix: .* finite values are needed"),
        (lambda: results.t_test(name, use_t=True), "use_t: not used here"),
        (lambda: results.wald_test([name, name]), "some of the hypotheses follow from the others"),
    ]
    for call, message in refused:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(NotImplementedError, match="use wald_test instead of f_test"):
        results.f_test(name)


def test_that_a_factor_is_not_there_is_refused(known):
    """The chi-square does not hold: the loadings on a factor are not identified where there is none."""
    _, results = known
    level = results.hierarchy.levels[-1]
    members = next(iter(results.hierarchy.groups(level).values()))
    names = [f"loading[{feature}, {level}, 1]" for feature in members]
    with pytest.raises(ValueError, match=rf"all loadings of {level} .*would be zero"):
        results.wald_test(names)
    with pytest.raises(ValueError, match="would be zero"):
        results.wald_test(", ".join([f"{a} = {b}" for a, b in itertools.pairwise(names)] + [names[0]]))
    assert results.wald_test(names[1:]).df_denom == len(names) - 1
    equal = ", ".join(f"{a} = {b}" for a, b in itertools.pairwise(names))
    assert results.wald_test(equal).df_denom == len(names) - 1


def test_scores_of_too_few_observations_are_refused():
    results, *_ = fit_of("complete", nobs=55)
    with pytest.raises(ValueError, match="more observations than free parameters, not 55 for 59"):
        _ = results.with_cov_type("opg").bse


def test_no_maximum_is_refused():
    model = mlfm.MultilevelFactorModel(simulated(100)[0], hierarchy=mlfm.Hierarchy(LABELS), ranks=[2, 1])
    with pytest.warns(mlfm.ConvergenceWarning):
        results = model.fit(start="random", maxiter=0)
    for kind in ("oim", "robust"):
        with pytest.raises(ValueError, match="the observed information is not positive definite"):
            _ = results.with_cov_type(kind).bse
    assert results.with_cov_type("expected").bse.notna().all()


def test_a_level_without_factors_has_no_share_to_estimate():
    results, *_ = fit_of("complete")
    model = mlfm.MultilevelFactorModel(results.model.endog, hierarchy=mlfm.Hierarchy(LABELS), ranks=[0, 1])
    shares = model.fit(tol=1).variance_shares()
    assert shares.loc["global", "share"] == 0
    assert shares.loc["global"].isna().tolist() == [False, True, True, True]
    assert shares.drop("global").notna().all(axis=None)
