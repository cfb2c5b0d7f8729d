"""Rotated results: the model stays the same, criteria are at their best, and R and statsmodels agree."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from oracle import dense_covariance, make_case
from statsmodels.multivariate.factor_rotation import rotate_factors

import mlfm
from mlfm.inference.rotations import METHODS, Rotation
from mlfm.inference.simple_structure import oblimin, towards

REFERENCE = Path(__file__).parent / "reference" / "rotation"
pytestmark = pytest.mark.filterwarnings(
    "ignore::mlfm.ConvergenceWarning", "ignore::mlfm.IdentificationWarning", "ignore::mlfm.UniquenessFloorWarning"
)
MIXED = np.random.default_rng(3).permutation(24)
TREE = make_case([[0] * 24, [str(j // 12) for j in MIXED], [str(j // 4) for j in MIXED]], (3, 2, 1), nobs=60)
FLAT = make_case([[0] * 12], (3,), nobs=60)
OBLIQUE = ["quartimin", "oblimin", "promax"]
PHI = np.array([[1, 0.5, 0.2], [0.5, 1, 0.3], [0.2, 0.3, 1]])
PLAIN = [method for method in METHODS if method not in ("target", "orthomax")]


def quick(case=TREE, ranks=None):
    model = mlfm.MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=ranks or case.ranks)
    return model.fit(maxiter=3, start="random", rng=0)


@pytest.fixture(scope="module")
def results():
    return quick()


@pytest.fixture(scope="module", params=PLAIN)
def rotated(results, request):
    return results.rotate(request.param)


def blocks(results):
    """Level, group, features, loadings of every group that can be rotated."""
    for level, rank in results.ranks.items():
        if rank > 1:
            for group, members in results.hierarchy.groups(level).items():
                yield level, group, members, results.loadings.loc[members, level].to_numpy()


def matrix(frame, level, group, rank):
    return frame.xs((level, group), level=("level", "group")).iloc[:, :rank].to_numpy()


def test_the_model_is_the_same(results, rotated):
    canonical = {(level, group): F for level, group, _, F in blocks(results)}
    for level, group, _, L in blocks(rotated):
        Phi = matrix(rotated.factor_correlations, level, group, L.shape[1])
        F = canonical[level, group]
        np.testing.assert_allclose(L @ Phi @ L.T, F @ F.T, rtol=1e-12, atol=1e-12 * np.abs(F).max() ** 2)
        np.testing.assert_allclose(np.diag(Phi), 1, rtol=1e-12)
        np.testing.assert_allclose(F @ matrix(rotated.rotation_matrices, level, group, L.shape[1]), L, rtol=1e-12)
    assert rotated.llf == results.llf
    sigma = dense_covariance(TREE.hierarchy, TREE.ranks, results.loadings, results.uniquenesses)
    np.testing.assert_allclose(rotated.covariance.to_dense(), sigma, rtol=1e-12)
    pd.testing.assert_series_equal(rotated.communalities, results.communalities)
    pd.testing.assert_frame_equal(rotated.variance_explained("group"), results.variance_explained("group"))
    pd.testing.assert_series_equal(rotated.params, results.params)
    assert rotated.model.loglike(rotated.params) == pytest.approx(rotated.llf, rel=1e-12)
    pd.testing.assert_frame_equal(rotated.simulate(4, rng=1), results.simulate(4, rng=1))


def test_only_oblique_factors_correlate(rotated):
    off = rotated.factor_correlations.copy()
    for level, group, _, L in blocks(rotated):
        Phi = matrix(off, level, group, L.shape[1]) - np.eye(L.shape[1])
        if any(name in rotated.rotation for name in OBLIQUE):
            assert np.abs(Phi).max() > 1e-3
        else:
            assert (Phi == 0).all()


@pytest.mark.parametrize("method", ["regression", "bartlett"])
def test_scores_turn_with_the_loadings(results, rotated, method):
    """F z = L z_rotated, group by group; standard errors are those of the definition with the factors' covariance."""
    if method == "bartlett":
        results = quick(ranks=(3, 2, 0))
        rotated = results.rotate("quartimin" if "quartimin" in rotated.rotation else "varimax")
    data = TREE.frame.mask(np.random.default_rng(1).random(TREE.Y.shape) < 0.1).iloc[:5]
    before, after = results.scores(method, data=data), rotated.scores(method, data=data)
    assert after.columns.equals(before.columns)
    canonical = {(level, group): F for level, group, _, F in blocks(results)}
    for level, group, _, L in blocks(rotated):
        own = [(level, group, k + 1) for k in range(L.shape[1])]
        np.testing.assert_allclose(after[own] @ L.T, before[own] @ canonical[level, group].T, rtol=1e-9, atol=1e-10)

    columns = list(after.columns)
    F, prior = np.zeros((24, len(columns))), np.eye(len(columns))
    for level, group, factor in columns:
        members = rotated.hierarchy.groups(level)[group]
        here = columns.index((level, group, factor))
        F[TREE.hierarchy.features.get_indexer(members), here] = rotated.loadings.loc[members, (level, factor)]
    for level, group, _, L in blocks(rotated):
        at = columns.index((level, group, 1))
        own = slice(at, at + L.shape[1])
        prior[own, own] = np.linalg.inv(matrix(rotated.factor_correlations, level, group, L.shape[1]))
    D, prior = rotated.uniquenesses.to_numpy(), prior * (method == "regression")
    for y, z, se in zip(
        (data - rotated.mean).to_numpy(), after.to_numpy(), rotated.scores_se(method, data=data).to_numpy(), strict=True
    ):
        seen = ~np.isnan(y)
        P = np.linalg.inv(F[seen].T @ (F[seen] / D[seen, None]) + prior)
        np.testing.assert_allclose(se, np.sqrt(np.diag(P)), rtol=1e-8)
        np.testing.assert_allclose(z, P @ F[seen].T @ (y / D)[seen], rtol=1e-8, atol=1e-9)


def test_the_models_own_scores_turn_too(results):
    rotated = results.rotate("promax")
    np.testing.assert_allclose(rotated.scores(), rotated.scores(data=TREE.frame), rtol=1e-9, atol=1e-10)


def test_order_and_signs(rotated):
    spread = pd.Series(np.sqrt(rotated.covariance.diagonal()), index=rotated.loadings.index)
    for _, _, members, L in blocks(rotated):
        L = L / spread[members].to_numpy()[:, None]
        assert (L.sum(axis=0) >= 0).all()
        assert (np.diff((L**2).sum(axis=0)) <= 1e-12).all()


@pytest.mark.parametrize("method", [method for method in PLAIN if method != "promax"])
def test_criteria_are_at_a_minimum(results, method):
    """No small rotation, or change of one factor, makes the criterion smaller; and it is below where it began."""
    rotated = results.rotate(method, normalize="none", tol=1e-7)
    gamma = {"varimax": 1.0, "biquartimax": 0.5}.get(method, 0.0)
    rng = np.random.default_rng(0)
    canonical = {(level, group): F for level, group, _, F in blocks(results)}
    for level, group, _, L in blocks(rotated):
        F, M = canonical[level, group], matrix(rotated.rotation_matrices, level, group, L.shape[1])
        value = oblimin(gamma)(L)[0]
        assert value < oblimin(gamma)(F)[0]
        T = np.linalg.inv(M).T
        for _ in range(20):
            near = T + 1e-3 * rng.standard_normal(T.shape)
            if method in OBLIQUE:
                near /= np.linalg.norm(near, axis=0)
                other = F @ np.linalg.inv(near).T
            else:
                other = F @ np.linalg.qr(near)[0]
            assert oblimin(gamma)(other)[0] > value * (1 - 1e-12)


@pytest.mark.parametrize("criterion", [oblimin(0.0), oblimin(0.7), towards(np.array([[1, np.nan], [0, 2], [3, 0.5]]))])
def test_slopes_of_criteria(criterion):
    L = np.random.default_rng(0).standard_normal((3, 2))
    numeric = np.empty_like(L)
    for place in np.ndindex(*L.shape):
        step = np.zeros_like(L)
        step[place] = 1e-6
        numeric[place] = (criterion(L + step)[0] - criterion(L - step)[0]) / 2e-6
    np.testing.assert_allclose(criterion(L)[1], numeric, rtol=1e-7, atol=1e-8)


def aligned(L, to):
    """Columns in the order and with the signs of others."""
    order = [int(np.argmax(np.abs(L.T @ column) / np.linalg.norm(L, axis=0))) for column in to.T]
    assert sorted(order) == list(range(L.shape[1]))
    L = L[:, order]
    return L * np.sign(np.einsum("jk,jk->k", L, to))


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("varimax", ("varimax",)),
        ("quartimax", ("quartimax",)),
        ("biquartimax", ("biquartimax",)),
        ("quartimin", ("quartimin",)),
        ("oblimin", ("oblimin", -0.5, "oblique")),
    ],
)
def test_statsmodels_finds_the_same(method, arguments):
    results = quick(FLAT)
    options = {"gamma": -0.5} if method == "oblimin" else {}
    L = results.rotate(method, normalize="none", **options).loadings.to_numpy()
    F = results.loadings.to_numpy()
    # From where it is: the question is whether it is a minimum of the same criterion.
    expected = rotate_factors(F, *arguments, max_tries=2000, tol=1e-5)[0]
    np.testing.assert_allclose(L, aligned(expected, L), atol=1e-4)


@pytest.mark.parametrize(
    ("method", "normalize", "file", "atol"),
    [
        ("varimax", "kaiser", "varimax_kaiser", 1e-6),
        ("varimax", "none", "varimax_raw", 1e-6),
        ("promax", "kaiser", "promax", 1e-4),
    ],
)
def test_r_finds_the_same(method, normalize, file, atol):
    F, expected = (np.loadtxt(REFERENCE / f"{name}.csv", delimiter=",") for name in ("loadings", file))
    way = Rotation.of(method, normalize, None, None, None, 3, 0, 1000, 1e-7, None)
    L = F @ way.turn(F, np.ones(len(F)), None).M
    np.testing.assert_allclose(L, aligned(expected, L), atol=atol)


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("normalize", ["kaiser", "none"])
@pytest.mark.parametrize("partial", [False, True])
def test_a_target_that_can_be_met_is_met(results, oblique, normalize, partial):
    """A target made by a rotation of the loadings is reached again, in its order and with its signs; with some of its
    elements unspecified too, as long as enough are left.
    """
    rng = np.random.default_rng(2)
    T = np.linalg.qr(rng.standard_normal((3, 3)))[0] @ (np.linalg.cholesky(PHI).T if oblique else np.eye(3))
    wanted = results.loadings["global"] @ (np.linalg.inv(T).T if oblique else T)
    target = wanted.mask(rng.random(wanted.shape) < 0.3 * partial).sample(frac=1, random_state=1)
    rotated = results.rotate("target", target={"global": target}, oblique=oblique, normalize=normalize, tol=1e-7)
    np.testing.assert_allclose(rotated.loadings["global"], wanted, atol=1e-5)
    pd.testing.assert_frame_equal(rotated.loadings["level1"], results.loadings["level1"])
    if oblique:
        np.testing.assert_allclose(rotated.factor_correlations, T.T @ T, atol=1e-5)
    again = results.rotate(
        "target", target=pd.concat({"global": target}, axis=1), oblique=oblique, normalize=normalize, tol=1e-7,
    )  # fmt: skip
    pd.testing.assert_frame_equal(again.loadings, rotated.loadings)


@pytest.mark.parametrize("oblique", [False, True])
def test_a_target_of_zeros_leaves_the_signs_open(results, oblique):
    """Zeros are met with either sign of a factor: the loadings have positive sums. Where the target has a sign, it is
    followed, also to a negative sum.
    """
    zeros = pd.DataFrame(np.nan, index=results.hierarchy.features, columns=[1, 2, 3])
    for factor in zeros:
        zeros.loc[zeros.index[8 * (factor - 1) : 8 * factor], factor] = 0.0
    rotated = results.rotate("target", target={"global": zeros}, oblique=oblique)
    assert (rotated.loadings["global"].sum() > 0).all()
    signed = zeros.copy()
    signed[2] = -rotated.loadings["global"][2]
    again = results.rotate("target", target={"global": signed}, oblique=oblique)
    np.testing.assert_array_equal(np.sign(again.loadings["global"].sum()), [1, -1, 1])


def test_simple_structure_is_found():
    """Three clusters of features and correlated factors: oblique rotation finds both from any other rotation."""
    rng = np.random.default_rng(0)
    L = np.kron(np.eye(3), np.ones((4, 1))) * rng.uniform(0.5, 1, (12, 1))
    F = L @ np.linalg.cholesky(PHI) @ np.linalg.qr(rng.standard_normal((3, 3)))[0]
    way = Rotation.of("quartimin", "kaiser", None, None, None, 5, 0, 1000, 1e-8, None)
    M = way.turn(F, np.ones(12), None).M
    np.testing.assert_allclose(aligned(F @ M, L), L, atol=1e-5)
    np.testing.assert_allclose(np.sort(np.linalg.inv(M.T @ M), axis=None), np.sort(PHI, axis=None), atol=1e-5)


def test_units_do_not_matter():
    """Each feature in other units: the same rotation, but with the criterion of raw loadings."""
    units = np.exp(np.random.default_rng(0).uniform(-4, 4, 24))
    other = make_case([[0] * 24, [str(j // 12) for j in MIXED]], (3, 2), nobs=60)
    results = mlfm.MultilevelFactorModel(other.frame, hierarchy=other.hierarchy, ranks=(3, 2)).fit()
    scaled = mlfm.MultilevelFactorModel(other.frame * units, hierarchy=other.hierarchy, ranks=(3, 2)).fit()
    sd = np.sqrt(results.covariance.diagonal())[:, None]
    for method in ("varimax", "quartimin", "promax"):
        for normalize in ("kaiser", "correlation"):
            first, second = (x.rotate(method, normalize=normalize) for x in (results, scaled))
            for level in ("global", "level1"):
                back = second.loadings[level].to_numpy() / units[:, None] / sd
                ours = first.loadings[level].to_numpy() / sd
                for members in results.hierarchy.groups(level).values():
                    at = results.hierarchy.features.get_indexer(members)
                    np.testing.assert_allclose(aligned(back[at], ours[at]), ours[at], atol=2e-3)


def test_the_same_seed_gives_the_same_rotation(results):
    pd.testing.assert_frame_equal(results.rotate("oblimin").loadings, results.rotate("oblimin", rng=0).loadings)


def test_levels_are_chosen(results):
    rotated = results.rotate(levels="level1")
    pd.testing.assert_frame_equal(rotated.loadings["global"], results.loadings["global"])
    assert not np.allclose(rotated.loadings["level1"], results.loadings["level1"])
    assert set(rotated.factor_correlations.index.get_level_values("level")) == {"level1"}
    assert "of level1" in rotated.rotation
    assert rotated.rotate("varimax").rotation == "Kaiser-normalised varimax"
    pd.testing.assert_frame_equal(rotated.rotate("varimax").loadings, results.rotate("varimax").loadings)


def test_groups_that_cannot_be_rotated_are_named():
    case = make_case([[0] * 9, list("aaaabbbbc")], (1, 2), nobs=60)
    results = quick(case)
    with pytest.warns(mlfm.RotationWarning, match=r"1 group not rotated: level1 'c' \(1 feature for 2 factors\)"):
        rotated = results.rotate("quartimin")
    assert [(left.level, left.group) for left in rotated.not_rotated] == [("level1", "c")]
    pd.testing.assert_frame_equal(rotated.loadings.loc[["x8"]], results.loadings.loc[["x8"]])
    np.testing.assert_array_equal(matrix(rotated.factor_correlations, "level1", "c", 2), np.eye(2))
    assert np.isfinite(rotated.scores().to_numpy()).all()


def test_a_search_that_does_not_end_is_said_so(results):
    with pytest.warns(mlfm.RotationWarning, match="rotation of 3 groups did not converge: global 'global'"):
        results.rotate("varimax", maxiter=1)


def test_summary_says_which_rotation(results, rotated):
    text = " ".join(str(rotated.summary()).split())
    assert f"Loadings in {rotated.rotation} rotation" in text
    assert "Loadings in canonical rotation" in " ".join(str(results.summary()).split())
    assert rotated.rotation in repr(rotated)


def test_standard_errors_are_those_of_the_canonical_rotation(rotated):
    asks = [lambda: rotated.bse, lambda: rotated.tvalues, lambda: rotated.pvalues, rotated.conf_int, rotated.cov_params]
    for ask in [*asks, lambda: rotated.t_test(None), lambda: rotated.wald_test(None)]:
        with pytest.raises(ValueError, match=r"those of the canonical rotation.* results\.unrotated"):
            ask()
    np.testing.assert_allclose(rotated.coefficients_bse, rotated.unrotated.coefficients_bse)


def test_standard_errors_of_what_does_not_turn():
    """Of communalities and shares, for any kind of standard errors, before and after others were asked for."""
    results = mlfm.MultilevelFactorModel(FLAT.frame, hierarchy=FLAT.hierarchy, ranks=FLAT.ranks).fit()
    rotated = results.rotate("promax")
    for kind in ("expected", "opg"):
        ours, theirs = rotated.with_cov_type(kind), results.with_cov_type(kind)
        assert ours.cov_type == kind
        pd.testing.assert_series_equal(ours.communalities_bse, theirs.communalities_bse)
        pd.testing.assert_frame_equal(ours.variance_shares(), theirs.variance_shares())
        pd.testing.assert_series_equal(ours.unrotated.bse, theirs.bse)
    pd.testing.assert_series_equal(rotated.communalities_bse, results.communalities_bse)


def test_unrotated_is_where_it_came_from(results, rotated):
    unrotated = rotated.unrotated
    assert type(unrotated) is type(results)
    assert unrotated.rotation == "canonical"
    pd.testing.assert_frame_equal(unrotated.loadings, results.loadings)
    pd.testing.assert_frame_equal(unrotated.scores(), results.scores())


def test_rotated_results_are_stored(results, tmp_path):
    rotated = results.rotate("promax")
    assert rotated.covariance is not None
    rotated.save(tmp_path / "rotated")
    results.save(tmp_path / "canonical")
    assert (tmp_path / "rotated").stat().st_size < 2 * (tmp_path / "canonical").stat().st_size
    loaded = mlfm.load(tmp_path / "rotated")
    assert loaded.model is None
    assert loaded.unrotated.model is None
    assert rotated.model is not None
    pd.testing.assert_frame_equal(loaded.loadings, rotated.loadings)
    pd.testing.assert_frame_equal(loaded.scores(data=TREE.frame), rotated.scores(data=TREE.frame))
    pd.testing.assert_frame_equal(loaded.factor_correlations, rotated.factor_correlations)
    rotated.remove_data()
    assert rotated.model is None
    assert rotated.unrotated.model is None
    assert results.model is not None


def test_a_fit_may_start_from_rotated_results(results):
    again = results.model.fit(start=results.rotate("promax"), maxiter=1)
    assert again.llf >= results.llf


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "simplimax"}, ValueError, "method must be one of 'varimax'.* not 'simplimax'"),
        ({"normalize": True}, ValueError, "normalize must be one of 'kaiser'"),
        ({"gamma": 0.5}, ValueError, "gamma: goes with method 'orthomax', 'oblimin', not 'varimax'"),
        ({"method": "orthomax", "gamma": 2}, ValueError, "gamma: a number from 0 to 1"),
        ({"method": "oblimin", "gamma": 2}, ValueError, "gamma: a number at most 1"),
        ({"method": "promax", "power": 1}, ValueError, "power: a number above 1"),
        ({"power": 3}, ValueError, "power: goes with method 'promax'"),
        ({"oblique": True}, ValueError, "oblique: goes with method 'target'"),
        ({"method": "target"}, ValueError, "target: needed"),
        ({"target": {}}, ValueError, "target: goes with method 'target'"),
        ({"method": "target", "target": np.zeros((24, 3))}, TypeError, "target: a mapping from levels"),
        ({"method": "target", "target": {"global": np.zeros((24, 2))}}, ValueError, r"24 .* x 3 factors .*\(24, 2\)"),
        ({"method": "target", "target": {"nope": np.zeros((24, 2))}}, ValueError, "unknown level 'nope'"),
        ({"levels": "level2"}, ValueError, "levels: 'level2'; .* 'global', 'level1'"),
        ({"levels": []}, ValueError, "levels: none named"),
        ({"levels": "nope"}, ValueError, "unknown level 'nope'"),
        ({"n_starts": 0}, ValueError, "n_starts must be a whole number, 1 or more"),
        ({"maxiter": 1.5}, ValueError, "maxiter must be a whole number"),
        ({"tol": 0}, ValueError, "tol must be 1e-08 or more"),
    ],
)  # fmt: skip
def test_what_is_refused(results, arguments, error, message):
    with pytest.raises(error, match=message):
        results.rotate(**arguments)


def test_nothing_to_rotate():
    with pytest.raises(ValueError, match="no level has two factors or more in a group; the ranks are 1, 1"):
        quick(make_case([[0] * 8, [j // 4 for j in range(8)]], (1, 1))).rotate()
