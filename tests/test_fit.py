"""Fits: monotone, equivariant, the same for any number of threads, at the truth in the end, and interruptible."""

import os
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from oracle import make_case, standardised

import mlfm
from mlfm import Hierarchy, MultilevelCovariance, MultilevelFactorModel
from mlfm.estimation import METHODS, STARTS, Problem
from mlfm.sweep import Sweep, Tree, Workers, tasks

# Three groups of fifteen in three of five each: enough to identify every factor.
LABELS = [[0] * 45, [j // 15 for j in range(45)], [j // 5 for j in range(45)]]
CASE = make_case(LABELS, (2, 1, 1), nobs=150, seed=5)


def fit(case=CASE, frame=None, hierarchy=None, **options):
    frame = case.frame if frame is None else frame
    model = MultilevelFactorModel(frame, hierarchy=hierarchy or case.hierarchy, ranks=list(case.ranks))
    return model.fit(**options)


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("start", list(STARTS))
@pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
def test_the_likelihood_never_falls(case, method, start):
    results = fit(case, method=method, start=start, maxiter=60, tol=0, rng=1)
    history = results.history
    ended = results.converged or "no step" in results.record.reason
    assert ended or len(history) == 61
    llf = history.loc[history["accepted"], "llf"].to_numpy()
    assert (np.diff(llf) >= -1e-11 * np.abs(llf[1:])).all()


def test_em_and_px_em_meet():
    em = fit(method="em", tol=1e-5)
    px = fit(method="px-em", tol=1e-5)
    assert em.converged
    assert px.converged
    assert px.llf == pytest.approx(em.llf, abs=1e-3)
    assert len(px.history) < len(em.history)


def test_the_maximum_is_stationary():
    results = fit(tol=1e-9)
    score = results.model.score(results.params)
    scale = results.model.endog.std(axis=0).max()
    assert np.abs(score).max() / results.nobs * scale < 1e-4
    assert results.record.score_norm < 1e-4
    # The means are the sample means, whatever the covariance.
    np.testing.assert_allclose(results.mean, CASE.Y.mean(0), rtol=1e-12)


def test_llf_is_the_log_likelihood_of_the_estimates(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        results = fit(case, maxiter=25)
        assert results.llf == pytest.approx(results.model.loglike(results.params), rel=1e-11)


def test_projected_gain_is_about_what_is_gained():
    """Where the fit stops, the gain it expects is the gain there is, within a factor of 3."""
    best = fit(tol=1e-10).llf
    for tol in (1e-1, 1e-2, 1e-3):
        results = fit(tol=tol)
        assert results.record.projected_gain < tol
        assert best - results.llf < 3 * tol


def test_permuting_features_permutes_the_answer():
    order = np.random.default_rng(2).permutation(45)
    straight, permuted = fit(tol=1e-9), fit(frame=CASE.frame.iloc[:, order], tol=1e-9)
    assert list(permuted.loadings.index) == list(CASE.frame.columns[order])
    assert permuted.llf == pytest.approx(straight.llf, abs=1e-6)
    pd.testing.assert_series_equal(permuted.uniquenesses[straight.uniquenesses.index], straight.uniquenesses, rtol=1e-3)
    np.testing.assert_allclose(permuted.loadings.loc[straight.loadings.index], straight.loadings, atol=2e-3)


def test_relabelling_groups_changes_nothing():
    renamed = CASE.hierarchy.to_frame().map(lambda label: f"group {100 - label}")
    straight, relabelled = fit(maxiter=2000), fit(hierarchy=Hierarchy(renamed), maxiter=2000)
    np.testing.assert_array_equal(relabelled.loadings, straight.loadings)
    assert relabelled.llf == straight.llf


def test_scaling_columns_scales_the_answer():
    scale = 10.0 ** np.random.default_rng(4).uniform(-6, 6, 45)
    straight, scaled = fit(tol=1e-8), fit(frame=CASE.frame * scale, tol=1e-8)
    np.testing.assert_allclose(scaled.uniquenesses / scale**2, straight.uniquenesses, rtol=1e-5)
    assert scaled.llf == pytest.approx(straight.llf - 150 * np.log(scale).sum(), abs=1e-6)
    # The canonical rotation is free of units, so loadings scale one by one, up to the sign of each factor.
    np.testing.assert_allclose(scaled.loadings.div(scale, axis=0).abs(), straight.loadings.abs(), atol=1e-4)
    shifted = fit(frame=CASE.frame + 1e3, tol=1e-8)
    np.testing.assert_allclose(shifted.uniquenesses, straight.uniquenesses, rtol=1e-5)


@pytest.mark.parametrize("method", list(METHODS))
def test_threads_do_not_matter_to_the_last_bit(method, monkeypatch):
    monkeypatch.setattr(tasks, "WORTH", 1)
    case = make_case_large(1200)
    tree = Tree.of(case.hierarchy.offsets, case.ranks)
    assert len(Sweep(tree, len(case.Y)).tasks) >= 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        results = [fit(case, method=method, maxiter=8, n_threads=k) for k in (1, 2, 3)]
    for other in results[1:]:
        np.testing.assert_array_equal(other.params, results[0].params)
        assert (other.history == results[0].history).all(axis=None)


def make_case_large(n, nobs=40):
    """Enough features for several tasks; without the dense oracle."""
    from oracle import Case

    rng = np.random.default_rng(0)
    labels = pd.DataFrame({"a": np.arange(n) // 400, "b": np.arange(n) // 8}, index=[f"x{j}" for j in range(n)])
    hierarchy = Hierarchy(labels)
    F, D = rng.standard_normal((n, 4)), rng.uniform(0.5, 2, n)
    Y = rng.standard_normal((nobs, n)) * np.sqrt(D)
    Y += rng.standard_normal((nobs, 2)) @ F[:, :2].T
    return Case(hierarchy, (2, 1, 1), F, D, Y)


def test_two_runs_are_one():
    first, second = fit(start="random"), fit(start="random")
    np.testing.assert_array_equal(first.params, second.params)
    other = fit(start="random", rng=np.random.default_rng(8))
    assert other.llf == pytest.approx(first.llf, abs=0.1)


def test_the_truth_is_found_as_observations_grow():
    """The error of the covariance falls like 1/sqrt(N), and D_j-hat is within its asymptotic spread of D_j."""
    errors = []
    for nobs in (400, 6400):
        case = make_case(LABELS, (2, 1, 1), nobs=nobs, seed=11)
        results = fit(case, tol=1e-4)
        errors.append(np.linalg.norm(results.covariance.to_dense() - case.sigma) / np.linalg.norm(case.sigma))
    # Sixteen times the data: a quarter of the error, and a margin of 2 for the two draws.
    assert errors[1] < errors[0] / 2
    assert errors[1] < 0.05


def test_uniquenesses_have_their_asymptotic_spread():
    """For many features a factor, sqrt(N) (D_j-hat / D_j - 1) is about N(0, 2) (Bai and Li 2012)."""
    rng = np.random.default_rng(1)
    n, nobs = 300, 500
    labels = pd.DataFrame({"g": np.arange(n) // 50}, index=np.arange(n))
    F, D = rng.standard_normal((n, 2)), rng.uniform(0.5, 2, n)
    Y = rng.standard_normal((nobs, n)) * np.sqrt(D) + rng.standard_normal((nobs, 1)) @ F[:, :1].T
    for g in range(6):
        own = slice(50 * g, 50 * g + 50)
        Y[:, own] += rng.standard_normal((nobs, 1)) @ F[own, 1:].T
    results = MultilevelFactorModel(Y, hierarchy=Hierarchy(labels), ranks=[1, 1]).fit(tol=1e-3)
    z = np.sqrt(nobs / 2) * (results.uniquenesses / D - 1)
    # 300 nearly independent values: their mean within 5 standard errors and a bias of order 1/n, their spread likewise.
    assert abs(z.mean()) < 0.5
    assert 0.85 < z.std() < 1.15


def test_canonical_rotation(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        results = fit(case, maxiter=10)
    for level, rank in results.ranks.items():
        for members in results.hierarchy.groups(level).values():
            own = results.loadings.loc[members, level].to_numpy() if rank else np.empty((0, 0))
            gram = own.T @ (own / results.uniquenesses[members].to_numpy()[:, None]) if rank else np.empty((0, 0))
            scale = np.abs(gram).max(initial=1)
            np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-8 * scale)
            assert (np.diff(np.diag(gram)) <= 1e-8 * scale).all()
            assert (own.sum(axis=0) >= -1e-12).all()


def test_the_rotation_leaves_the_model_alone():
    seen = []
    results = fit(callback=seen.append, search="none")
    sigma = MultilevelCovariance(results.hierarchy, results.loadings, results.uniquenesses)
    assert sigma.loglike(CASE.frame - CASE.frame.mean()) == pytest.approx(seen[-1].llf, rel=1e-11)


def test_start_params_go_on_where_a_fit_ended():
    first = fit(tol=1e-3)
    again = first.model.fit(start_params=first.params, tol=1e-3)
    assert again.history["llf"].iloc[0] == pytest.approx(first.llf, rel=1e-12)
    assert len(again.history) <= 20
    assert again.mle_settings["start"] == "start_params"


def test_maxiter_warns_and_is_told():
    with pytest.warns(mlfm.ConvergenceWarning, match="maxiter = 3 evaluations"):
        results = fit(maxiter=3)
    assert not results.converged
    assert results.mle_retvals["converged"] is False
    assert "maxiter" in results.mle_retvals["reason"]
    assert 4 <= len(results.history) <= 6
    assert "NOT converge" in results.summary().as_text()
    with pytest.warns(mlfm.ConvergenceWarning):
        assert len(fit(maxiter=0).history) == 1


def test_callback_and_progress_bar(capsys):
    seen = []
    results = fit(start="pca", callback=seen.append, disp=True, tol=1, search="none")
    assert [entry.llf for entry in seen] == results.history["llf"].tolist()
    assert len(seen) == results.mle_retvals["fcalls"]
    shown = capsys.readouterr().err
    assert "llf" in shown
    assert "still to gain" in shown
    assert "climb" not in shown
    fit(disp=True, tol=1)
    assert re.search(r"climb \d+: llf .*; highest so far", capsys.readouterr().err)


def test_an_interrupt_leaves_nothing_broken():
    import threading

    from threadpoolctl import threadpool_info

    def stop(entry):
        if entry.evaluation == 2:
            raise KeyboardInterrupt

    def blas():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    model = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[2, 1, 1])
    before, state = (blas(), threading.active_count()), dict(model.__dict__)
    with pytest.raises(KeyboardInterrupt):
        model.fit(n_threads=2, callback=stop)
    assert (blas(), threading.active_count()) == before
    assert model.__dict__ == state
    np.testing.assert_array_equal(model.fit().params, fit().params)


def test_fit_does_not_change_the_model():
    model = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[2, 1, 1])
    state = dict(model.__dict__)
    model.fit(tol=1)
    assert model.__dict__ == state


def test_uniquenesses_on_the_floor_are_named():
    """A Heywood case: two features that are nearly one leave the factor no choice."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal(60)
    frame = pd.DataFrame(z[:, None] + rng.standard_normal((60, 5)), columns=list("abcde"))
    frame["pure"], frame["copy"] = z, z + 1e-4 * rng.standard_normal(60)
    model = MultilevelFactorModel(frame, ranks=[1])
    with pytest.warns(mlfm.UniquenessFloorWarning, match="2 uniquenesses on the floor of 0.0001.*'pure', 'copy'"):
        results = model.fit()
    assert list(results.on_floor) == ["pure", "copy"]
    assert results.uniquenesses["pure"] == pytest.approx(1e-4 * frame["pure"].var(ddof=0))
    assert "on the floor" in results.summary().as_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"start": "pcaa"},
            r"start must be one of 'top-down', 'pca', 'frobenius', 'random', or results .*, not 'pcaa'",
        ),
        ({"method": "bfgs"}, "method must be one of"),
        ({"maxiter": -1}, "maxiter must be a whole number"),
        ({"maxiter": 2.5}, "maxiter must be a whole number"),
        ({"maxiter": "a"}, "maxiter must be a whole number"),
        ({"maxiter": float("inf")}, "maxiter must be a whole number"),
        ({"tol": "a"}, "tol must be 0 or more"),
        ({"rng": "a"}, "rng must be a seed"),
        ({"rng": -1}, "rng must be a seed"),
        ({"n_starts": 0}, "n_starts must be a whole number, 1 or more"),
        ({"start": 3}, "start must be one of"),
        ({"start": "pca", "start_params": np.ones(270)}, "give one of them"),
        ({"tol": -1}, "tol must be 0 or more"),
        ({"tol": float("nan")}, "tol must be 0 or more"),
        ({"n_threads": 0}, "n_threads must be a whole number"),
        ({"start_params": [1.0, 2.0]}, "start_params: a vector of 270 numbers"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        fit(**options)


def test_more_factors_than_observations():
    """Columns that principal components cannot fill are filled: at 0 they would stay for ever."""
    case = make_case([[0] * 12, [j // 6 for j in range(12)]], (3, 3), nobs=4)
    tree = Tree.of(case.hierarchy.offsets, case.ranks)
    for start in STARTS.values():
        problem = Problem.of(tree, standardised(case.Y, np.arange(case.Y.shape[1])), 1e-4)
        with Workers(2) as workers:
            F, D = start(problem, np.random.default_rng(0), workers)
        assert (np.abs(F).sum(axis=0) > 0.01).all()
        assert (D >= 1e-4).all()


@pytest.mark.filterwarnings("ignore::mlfm.UniquenessFloorWarning", "ignore::mlfm.IdentificationWarning")
@pytest.mark.parametrize("kind", ["two observations", "identical columns", "one direction", "high floor", "noise"])
def test_hard_cases_end(kind):
    """Where nothing is left to gain the fit says so, whatever the steps do."""
    rng = np.random.default_rng(3)
    labels = pd.DataFrame({"g": [j // 6 for j in range(18)]}, index=[f"x{j}" for j in range(18)])
    Y = rng.standard_normal((200, 18))
    options = {}
    if kind == "two observations":
        Y = Y[:2]
    elif kind == "identical columns":
        Y[:] = Y[:, :1]
    elif kind == "one direction":
        Y = np.outer(rng.standard_normal(200), np.arange(1.0, 19))
    elif kind == "high floor":
        options["uniqueness_floor"] = 0.9
    model = MultilevelFactorModel(Y, hierarchy=Hierarchy(labels), ranks=[2, 1], **options)
    results = model.fit()
    assert results.converged, results.record.reason
    assert results.llf == pytest.approx(model.loglike(results.params), rel=1e-9)


def test_models_may_be_fitted_side_by_side():
    from concurrent.futures import ThreadPoolExecutor

    model = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[2, 1, 1])
    expected = model.fit().params
    with ThreadPoolExecutor(3) as pool:
        fits = [pool.submit(model.fit, n_threads=k) for k in (1, 2, 3)]
        for future in fits:
            np.testing.assert_array_equal(future.result().params, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_can_fit():
    expected = fit().params.to_numpy()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            same = np.array_equal(fit(n_threads=2).params, expected)
            os.write(writer, b"y" if same else b"n")
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"y"
    os.waitpid(child, 0)
    os.close(reader)


def test_several_starts_keep_the_best():
    data = mlfm.datasets.load("abilities")
    model = MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[4, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.UniquenessFloorWarning)
        results = model.fit(n_starts=6, rng=1, search="none")
        alone = {name: model.fit(start=name, search="none").llf for name in ("pca", "top-down", "frobenius")}
        asked = model.fit(start="top-down", n_starts=2, search="none")
        searched = model.fit(n_starts=2, rng=1)
    llf = results.starts["llf"]
    assert list(llf.index) == ["pca", "top-down", "frobenius", "random 1", "random 2", "random 3"]
    assert llf[list(alone)].to_dict() == alone
    assert results.llf == llf.max()
    assert llf[results.record.start] == results.llf
    # Here the starts do end in different places.
    assert np.ptp(llf) > 0.1
    assert list(asked.starts.index) == ["top-down", "random 1"]
    assert list(searched.starts.index[:3]) == ["pca", "top-down", "global +1"]
    assert searched.llf >= llf[["pca", "top-down"]].max()


def test_a_warm_start_from_other_data_is_short():
    half = MultilevelFactorModel(CASE.frame.iloc[:120], hierarchy=CASE.hierarchy, ranks=[2, 1, 1]).fit()
    whole = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[2, 1, 1])
    cold, warm = whole.fit(start="top-down"), whole.fit(start=half)
    assert warm.mle_settings["start"] == "results"
    assert warm.llf == pytest.approx(cold.llf, abs=1e-2)
    assert len(warm.history) < len(cold.history)
    # From its own end there is next to nothing to do, whatever the order of the features.
    turned = MultilevelFactorModel(CASE.frame.iloc[:, ::-1], hierarchy=CASE.hierarchy, ranks=[2, 1, 1])
    again = turned.fit(start=cold)
    assert again.history["llf"].iloc[0] == pytest.approx(cold.llf, rel=1e-12)
    assert len(again.history) <= 6


def test_a_warm_start_from_other_ranks_and_levels():
    small = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy.coarsen(["level1"]), ranks=[1, 1]).fit()
    large = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[2, 1, 1])
    up = large.fit(start=small)
    assert up.llf > small.llf
    down = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[1, 0, 0]).fit(start=up)
    assert down.converged
    flat = MultilevelFactorModel(CASE.frame, ranks=[1]).fit()
    assert down.llf == pytest.approx(flat.llf, abs=0.01)
    with pytest.raises(ValueError, match="start: these results and the model have no feature in common"):
        MultilevelFactorModel(CASE.frame.add_prefix("other "), ranks=[1]).fit(start=flat)
