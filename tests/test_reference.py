"""Values computed with an independent implementation of the same EM algorithm; see reference/oracles/README.md."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from oracle import standardised

from mlfm import Hierarchy, MultilevelCovariance, MultilevelFactorModel
from mlfm._kernels.em import em_pass
from mlfm.estimation import STARTS, Problem
from mlfm.estimation.em import CompleteStair
from mlfm.sweep import Tree, Workers

HOME = Path(__file__).parent / "reference" / "oracles"
CASES = sorted(path.stem for path in HOME.glob("*.npz"))
STARTED = [(case, tag) for case in CASES for tag in ("frob", "given")]


def read(case):
    """The stored values, and the hierarchy with features in their original order."""
    z = np.load(HOME / f"{case}.npz")
    labels = {}
    for level in range(1, int(z["n_lk"])):
        group = np.empty(int(z["n"]), dtype=int)
        group[z["pi"]] = np.repeat(np.arange(len(z[f"lk{level}"]) - 1), np.diff(z[f"lk{level}"]))
        labels[f"level{level}"] = group
    hierarchy = Hierarchy(pd.DataFrame(labels, index=[f"x{j}" for j in range(int(z["n"]))]))
    return z, hierarchy, [int(rank) for rank in z["ranks"][:-1]]


def stored(z, name, ranks):
    """Stored group-order loadings or uniquenesses in original feature order."""
    value = z[name][:, : sum(ranks)] if "_F" in name else z[name]
    out = np.empty_like(value)
    out[z["pi"]] = value
    return out


def test_there_are_four_cases():
    assert len(CASES) == 4


@pytest.mark.parametrize("k", [0, 1, 200])
@pytest.mark.parametrize(("case", "tag"), STARTED)
def test_covariance_at_the_stored_parameters(case, tag, k):
    z, hierarchy, ranks = read(case)
    sigma = MultilevelCovariance(
        hierarchy, stored(z, f"{tag}_F{k}", ranks), stored(z, f"{tag}_D{k}", ranks), ranks=ranks
    )
    assert sigma.loglike(z["Y"]) / int(z["N"]) == pytest.approx(z[f"{tag}_ll_at{k}"], rel=1e-8)
    # The reference adds 1e-12 inside its logarithms, which shows in c3, where uniquenesses come close to 0.
    exact = case != "c3_unbal3" or tag != "frob"
    assert sigma.logdet() == pytest.approx(z[f"{tag}_logdet{k}"], **({"rel": 1e-9} if exact else {"abs": 1e-7}))
    np.testing.assert_allclose(sigma.diagonal(), z[f"{tag}_diag{k}"], rtol=1e-9)
    np.testing.assert_allclose(sigma.inv().diagonal(), z[f"{tag}_diag_inv{k}"], rtol=1e-9)
    scale = np.abs(z[f"{tag}_solve{k}"]).max()
    np.testing.assert_allclose(sigma.solve(z["v"]), z[f"{tag}_solve{k}"], rtol=1e-9, atol=1e-9 * scale)
    np.testing.assert_allclose(sigma @ z["v"], z[f"{tag}_matvec{k}"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("case", "tag"), STARTED)
@pytest.mark.filterwarnings("ignore::mlfm.ConvergenceWarning", "ignore::mlfm.UniquenessFloorWarning")
@pytest.mark.filterwarnings("ignore::mlfm.IdentificationWarning")
def test_the_whole_em_trace(case, tag):
    z, hierarchy, ranks = read(case)
    model = MultilevelFactorModel(z["Y"], hierarchy=hierarchy, ranks=ranks, trend="n", uniqueness_floor=1e-10)
    start = model.pack(stored(z, f"{tag}_F0", ranks), stored(z, f"{tag}_D0", ranks))
    results = model.fit(start_params=start, method="em", maxiter=200, tol=0)
    per_observation = results.history["llf"].to_numpy() / int(z["N"])
    np.testing.assert_allclose(per_observation[:200], z[f"{tag}_ll"], rtol=1e-8)
    assert per_observation[200] == pytest.approx(z[f"{tag}_ll_at200"], rel=1e-8)
    # In c3 some uniquenesses are so small that the reference's own values hold 9 digits after the point at most:
    # after one step, 50-digit arithmetic gives 9.99999837307856e-05 for feature 11, the reference 1.0000008645e-04.
    np.testing.assert_allclose(results.uniquenesses, stored(z, f"{tag}_D200", ranks), rtol=1e-7, atol=1e-8)
    # Plain EM does not depend on the rotation, which results are reported in another one of: compare F F' by level.
    end = stored(z, f"{tag}_F200", ranks)
    expected = MultilevelCovariance(hierarchy, end, np.ones(len(end)), ranks=ranks).to_dense()
    found = MultilevelCovariance(hierarchy, results.loadings, np.ones(len(end))).to_dense()
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize(("case", "tag"), STARTED)
def test_em_parameters_element_by_element(case, tag, k):
    z, _, ranks = read(case)
    F, D = em_steps(z, tag, ranks, k)
    np.testing.assert_allclose(F, z[f"{tag}_F{k}"][:, : sum(ranks)], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(D, z[f"{tag}_D{k}"], rtol=1e-9, atol=1e-9)


def em_steps(z, tag, ranks, k):
    """Loadings and uniquenesses, in group order, k EM steps from a stored start."""
    tree = Tree.of([z[f"lk{level}"] for level in range(int(z["n_lk"]))], ranks)
    problem = Problem.of(tree, standardised(z["Y"], z["pi"], centre=False), 1e-14)
    start = problem.from_units(problem.coefficients, z[f"{tag}_F0"][:, : sum(ranks)], z[f"{tag}_D0"])
    with Workers(1) as workers:
        stair = CompleteStair(problem, start, workers, em_pass)
        for _ in range(k):
            stair.step()
    return problem.to_units(*stair.point)[1:]


def test_small_uniquenesses_to_more_digits_than_the_reference():
    """One EM step of c3, features 11 and 12 of group order, by 50-digit arithmetic (mpmath, dense formulas)."""
    z, _, ranks = read("c3_unbal3")
    _, D = em_steps(z, "frob", ranks, 1)
    np.testing.assert_allclose(D[[11, 12]], [9.99999837307856e-05, 1.00000123000245e-04], rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_the_frobenius_start_is_the_reference_one(case):
    z, _, ranks = read(case)
    tree = Tree.of([z[f"lk{level}"] for level in range(int(z["n_lk"]))], ranks)
    Y = np.ascontiguousarray(z["Y"][:, z["pi"]].T)
    n, nobs = Y.shape
    problem = Problem(tree, nobs, np.ones(n), np.full(n, 1e-14), np.empty((n, 0)), Y, (Y**2).sum(1))
    with Workers(1) as workers:
        F, D = STARTS["frobenius"](problem, np.random.default_rng(0), workers)
    start = z["frob_F0"][:, : sum(ranks)]
    for level, bounds in enumerate(tree.offsets):
        own = tree.own(level)
        for a, b in itertools.pairwise(bounds):
            expected = start[a:b, own] @ start[a:b, own].T
            np.testing.assert_allclose(F[a:b, own] @ F[a:b, own].T, expected, rtol=1e-9, atol=1e-9)
    # The start holds uniquenesses above 0.05, the reference does not.
    np.testing.assert_allclose(D, np.maximum(z["frob_D0"], 0.05), rtol=1e-9, atol=1e-12)
