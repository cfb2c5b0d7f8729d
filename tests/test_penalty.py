"""The soft penalty on small uniquenesses (Sterzinger, Kosmidis and Moustaki 2026) against dense computations."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import mlfm
from mlfm import cli
from mlfm.estimation import METHODS, FitRecord, IncompleteProblem
from mlfm.estimation.climber import CompleteClimber
from mlfm.estimation.incomplete import IncompleteClimber
from mlfm.sweep import Workers

# Correlations of nine tests of reading, 421 candidates (Davis 1944), a classical Heywood case: with two factors the
# uniqueness of the first goes to 0.
DAVIS = np.array([
    [1.00, 0.72, 0.41, 0.28, 0.52, 0.71, 0.68, 0.51, 0.68],
    [0.72, 1.00, 0.34, 0.36, 0.53, 0.71, 0.68, 0.52, 0.68],
    [0.41, 0.34, 1.00, 0.16, 0.34, 0.43, 0.42, 0.28, 0.41],
    [0.28, 0.36, 0.16, 1.00, 0.30, 0.36, 0.35, 0.29, 0.36],
    [0.52, 0.53, 0.34, 0.30, 1.00, 0.64, 0.55, 0.45, 0.55],
    [0.71, 0.71, 0.43, 0.36, 0.64, 1.00, 0.76, 0.57, 0.76],
    [0.68, 0.68, 0.42, 0.35, 0.55, 0.76, 1.00, 0.59, 0.68],
    [0.51, 0.52, 0.28, 0.29, 0.45, 0.57, 0.59, 1.00, 0.58],
    [0.68, 0.68, 0.41, 0.36, 0.55, 0.76, 0.68, 0.58, 1.00],
])  # fmt: skip


def davis():
    """421 observations with exactly these correlations."""
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((421, 9))
    Z = np.linalg.qr(Z - Z.mean(axis=0))[0] * np.sqrt(421)
    return pd.DataFrame(Z @ np.linalg.cholesky(DAVIS).T, columns=[f"test {i}" for i in range(1, 10)])


def heywood(nobs=80, seed=1):
    """Small groups and few observations."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(["a", "b", "c"], [3, 4, 5])
    Z = rng.standard_normal((nobs, 4))
    Y = Z[:, :1] * rng.uniform(0.3, 0.9, 12) + rng.standard_normal((nobs, 12))
    for k, (first, last) in enumerate([(0, 3), (3, 7), (7, 12)]):
        Y[:, first:last] += Z[:, [k + 1]] * rng.uniform(0.3, 0.9, last - first)
    columns = [f"x{i}" for i in range(12)]
    return pd.DataFrame(Y * rng.uniform(0.5, 20, 12), columns=columns), pd.DataFrame(
        {"group": labels}, index=pd.Index(columns, name="feature")
    )


def quietly(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        return model.fit(**options)


def small(**options):
    endog, groups = heywood()
    return mlfm.MultilevelFactorModel(endog, hierarchy=groups, ranks=[1, 1], **options)


def dense(results, endog):
    """Log-likelihood and penalty from the definition."""
    Y = endog - endog.mean()
    N = len(Y)
    S, sigma = Y.T.to_numpy() @ Y.to_numpy() / N, results.covariance.to_frame().to_numpy()
    llf = -N / 2 * (len(S) * np.log(2 * np.pi) + np.linalg.slogdet(sigma)[1] + np.trace(np.linalg.solve(sigma, S)))
    return llf, np.sqrt(2 / N) * (np.diag(S) / results.uniquenesses.to_numpy()).sum()


def test_what_is_maximised_is_what_the_definition_says():
    model = small()
    results = quietly(model, penalty="soft")
    llf, taken = dense(results, heywood()[0])
    assert results.llf == pytest.approx(llf, abs=1e-8)
    assert results.record.penalty_taken == pytest.approx(taken, rel=1e-10)
    assert results.record.llf == pytest.approx(llf - taken, abs=1e-8)
    assert results.aic == pytest.approx(-2 * llf + 2 * results.df_model)
    assert results.record.penalty == results.mle_settings["penalty"] == "soft"
    assert model.loglike(results.params) == pytest.approx(llf, abs=1e-8)


def test_the_maximum_of_a_flat_model_of_davis_data():
    """Against scipy on the dense function."""
    endog = davis()
    model = mlfm.MultilevelFactorModel(endog, hierarchy=mlfm.Hierarchy(endog.columns), ranks=[2])
    weight, n = np.sqrt(2 / 421), 9

    def value(theta):
        L, D = theta[: 2 * n].reshape(n, 2), np.exp(theta[2 * n :])
        sigma = L @ L.T + np.diag(D)
        fall = np.linalg.slogdet(sigma)[1] + np.trace(np.linalg.solve(sigma, DAVIS))
        return 421 / 2 * fall + weight * (1 / D).sum()

    rng = np.random.default_rng(2)
    starts = [np.concatenate([rng.standard_normal(2 * n), np.full(n, -1.0)]) for _ in range(5)]
    known = min(
        (minimize(value, start, method="BFGS", options={"gtol": 1e-6}) for start in starts), key=lambda o: o.fun
    )
    results = model.fit(penalty="soft", tol=1e-8)
    assert -results.record.llf == pytest.approx(known.fun + 421 * 9 / 2 * np.log(2 * np.pi), abs=1e-5)
    np.testing.assert_allclose(results.uniquenesses, np.exp(known.x[2 * n :]), rtol=2e-3)
    assert len(results.on_floor) == 0
    with pytest.warns(mlfm.UniquenessFloorWarning, match="test 1"):
        assert list(model.fit().on_floor) == ["test 1"]


@pytest.mark.parametrize("method", ["px-em", "em"])
def test_all_methods_find_the_same_maximum(method):
    results = quietly(small(), penalty="soft", search="none", tol=1e-8)
    other = quietly(small(), penalty="soft", search="none", method=method, start=results, tol=1e-6)
    assert other.record.llf == pytest.approx(results.record.llf, abs=1e-4)
    np.testing.assert_allclose(other.uniquenesses, results.uniquenesses, rtol=2e-2)
    climbed = quietly(small(), penalty="soft", search="none", method=method, start="pca", tol=1e-3)
    llf = climbed.history["llf"].to_numpy()
    assert (np.diff(llf) > -1e-8).all()


def gappy():
    endog, groups = heywood()
    endog = endog.mask(np.random.default_rng(3).random(endog.shape) < 0.1)
    return mlfm.MultilevelFactorModel(endog, hierarchy=groups, ranks=[1, 1])


def test_missing_values():
    model = gappy()
    results = quietly(model, penalty="soft", tol=1e-8)
    assert len(results.on_floor) == 0
    assert len(quietly(model).on_floor) > 0
    assert model.loglike(results.params) == pytest.approx(results.llf, abs=1e-7)
    again = quietly(model, penalty="soft", search="none", method="px-em", start=results, tol=1e-7)
    assert again.record.llf == pytest.approx(results.record.llf, abs=1e-4)


@pytest.mark.parametrize("make", [small, gappy], ids=["complete", "incomplete"])
def test_gradients(make):
    """Of a climb, by uniquenesses, against finite differences of what is maximised."""
    problem = make()._penalised("soft")
    kind = IncompleteClimber if isinstance(problem, IncompleteProblem) else CompleteClimber
    rng = np.random.default_rng(0)
    F, D = 0.5 * rng.standard_normal((12, 2)), rng.uniform(0.05, 0.8, 12)
    with Workers(1) as workers:
        climber = kind(problem, problem.with_coefficients(F, D), workers)
        slopes, x = climber.gx[:12] * problem.nobs, climber.x.copy()
        for j in range(12):
            around = []
            for step in (1e-5, -1e-5):
                moved = x.copy()
                moved[j] += step
                around.append(problem.loglike((F, moved), workers))
            assert slopes[j] == pytest.approx((around[0] - around[1]) / 2e-5, rel=1e-5)


def test_no_heywood_cases_and_the_same_estimates_in_large_samples():
    on_floor = {"none": 0, "soft": 0}
    for seed, penalty in itertools.product(range(12), on_floor):
        endog, groups = heywood(60, seed)
        model = mlfm.MultilevelFactorModel(endog, hierarchy=groups, ranks=[1, 1])
        on_floor[penalty] += len(quietly(model, penalty=penalty).on_floor)
    assert on_floor["none"] > 5
    assert on_floor["soft"] == 0
    endog, groups = heywood(20_000)
    model = mlfm.MultilevelFactorModel(endog, hierarchy=groups, ranks=[1, 1])
    free, soft = quietly(model), quietly(model, penalty="soft")
    bse = free.bse.to_numpy()
    assert (np.abs(soft.params - free.params).to_numpy() / bse).max() < 0.1
    np.testing.assert_allclose(soft.bse, free.bse, rtol=0.05)


def test_estimates_do_not_depend_on_units_or_threads():
    endog, groups = heywood()
    model = mlfm.MultilevelFactorModel(endog * 1000.0, hierarchy=groups, ranks=[1, 1])
    one, two = quietly(small(), penalty="soft"), quietly(model, penalty="soft", n_threads=3)
    np.testing.assert_allclose(two.uniquenesses, one.uniquenesses * 1e6, rtol=1e-6)
    assert quietly(small(), penalty="soft", n_threads=3).llf == one.llf


def test_weights_count_as_repeated_observations():
    endog, groups = heywood()
    often = np.random.default_rng(4).integers(1, 4, len(endog))
    options = {"hierarchy": groups, "ranks": [1, 1]}
    weighted = quietly(mlfm.MultilevelFactorModel(endog, freq_weights=often, **options), penalty="soft")
    repeated = endog.loc[endog.index.repeat(often)].reset_index(drop=True)
    results = quietly(mlfm.MultilevelFactorModel(repeated, **options), penalty="soft")
    assert weighted.record.llf == pytest.approx(results.record.llf, abs=1e-3)


def test_covariates_and_single_precision():
    endog, groups = heywood()
    exog = pd.DataFrame({"x": np.random.default_rng(6).standard_normal(len(endog))})
    model = mlfm.MultilevelFactorModel(endog, exog, hierarchy=groups, ranks=[1, 1])
    results = quietly(model, penalty="soft")
    left = endog - (np.column_stack([np.ones(len(exog)), exog]) @ results.coefficients.to_numpy().T)
    taken = np.sqrt(2 / len(endog)) * (left.var(ddof=0) / results.uniquenesses).sum()
    assert results.record.penalty_taken == pytest.approx(taken, rel=1e-8)
    assert len(results.on_floor) == 0
    single = mlfm.MultilevelFactorModel(endog.astype(np.float32), hierarchy=groups, ranks=[1, 1])
    assert quietly(single, penalty="soft").llf == pytest.approx(quietly(small(), penalty="soft").llf, abs=1e-2)


def test_standard_errors_summary_and_reports():
    results = quietly(small(), penalty="soft")
    assert np.isfinite(results.bse.to_numpy()).all()
    text = str(results.summary())
    assert "Penalty:" in text
    assert "soft" in text
    assert "Penalty:" not in str(quietly(small()).summary())
    assert results.starts["llf"].max() == pytest.approx(results.record.llf, abs=1e-6)


def test_what_fits_again_is_penalised_alike():
    model = small()
    results = quietly(model, penalty="soft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        boot = results.bootstrap(n_reps=10, rng=0)
        plain = quietly(model).bootstrap(n_reps=10, rng=0)
        held_out = [mlfm.cross_validate(model, n_splits=4, penalty=penalty).mean for penalty in ("soft", "none")]
        ranks = mlfm.select_ranks(*heywood(), penalty="soft", max_rank=2)
    assert boot.n_on_floor == 0
    assert plain.n_on_floor > 0
    assert held_out[0] > held_out[1]  # estimates near the floor predict badly
    assert ranks.results.record.penalty == "soft"
    again = quietly(ranks.results._with_data("the test"), penalty="soft")
    assert ranks.results.record.llf >= again.record.llf - 0.1
    llf, _ = dense(ranks.results, heywood()[0])
    assert ranks.results.bic == pytest.approx(-2 * llf + np.log(80) * ranks.results.df_model)
    assert mlfm.compare(results, n_splits=4).table["cross_validated"].item() == held_out[0]


def test_fits_that_are_compared_are_penalised_alike():
    endog, groups = heywood()
    full = quietly(small(), penalty="soft")
    less = mlfm.MultilevelFactorModel(endog, hierarchy=groups, ranks=[1, 0])
    with pytest.raises(ValueError, match=r"its penalty is 'none', that of the larger model is 'soft'"):
        mlfm.lr_test(quietly(less), full, method="bootstrap", n_reps=9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        test = mlfm.lr_test(less.fit(penalty="soft"), full, method="bootstrap", n_reps=9, rng=0)
    restricted = less.fit(penalty="soft")
    assert test.statistic == pytest.approx(2 * (full.llf - restricted.llf), abs=0.02)
    assert test.n_on_floor == 0


@pytest.mark.parametrize("wrong", ["hard", 3, True, ["soft"]])
def test_wrong_penalties(wrong):
    with pytest.raises(ValueError, match="penalty must be one of 'none', 'soft', not"):
        small().fit(penalty=wrong)


def test_the_command_line(tmp_path, capsys):
    endog, groups = heywood()
    endog.to_csv(tmp_path / "data.csv")
    groups.to_csv(tmp_path / "groups.csv")
    arguments = ["fit", str(tmp_path / "data.csv"), "--groups", str(tmp_path / "groups.csv"), "--quiet"]
    assert cli.main([*arguments, "--ranks", "global=1,group=1", "--penalty", "soft"]) == 0
    assert "Penalty:" in capsys.readouterr().out


def test_a_record_without_penalty_says_so():
    record = FitRecord("scoring", "pca", METHODS["scoring"].maxiter, 1e-4, 1)
    assert record.penalty == "none"
    assert record.penalty_taken == 0.0
