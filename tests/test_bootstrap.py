"""The bootstrap: how data are drawn, how factors are brought onto those of the fit, and what comes out."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from oracle import dense_covariance
from scipy import linalg, stats

import mlfm
from mlfm import Hierarchy, MultilevelFactorModel
from mlfm.inference import bootstrap as keeping
from mlfm.inference.factor_alignment import ALIGNMENTS, aligned
from mlfm.inference.replicates import Replicates
from mlfm.inference.resampling import nonparametric, parametric

# Unsorted, so that group order is not the user's.
GROUPS = pd.DataFrame({"scale": list("abcabcabcabc")}, index=[f"x{j}" for j in range(12)])
RNG = np.random.default_rng(2)
TRUTH = np.column_stack([RNG.uniform(0.5, 1, 12), RNG.uniform(0.6, 1, 12)])
OWN = RNG.uniform(0.5, 1, 12)
SIGMA = dense_covariance(Hierarchy(GROUPS), (1, 1), TRUTH, OWN)


def draws(nobs, seed, sigma=SIGMA):
    return pd.DataFrame(
        np.random.default_rng(seed).multivariate_normal(np.zeros(12), sigma, nobs, method="cholesky"),
        columns=GROUPS.index,
    )


Y = draws(200, 0)
X = pd.DataFrame({"x": RNG.standard_normal(200)})
TIMES = RNG.integers(0, 4, 200)
WEIGHTS = RNG.uniform(0.5, 2, 200)
GAPPY = Y.mask(RNG.random(Y.shape) < 0.05)


def fitted(endog=Y, exog=None, hierarchy=GROUPS, ranks=(1, 1), **options):
    return MultilevelFactorModel(endog, exog, hierarchy=hierarchy, ranks=list(ranks), **options).fit(tol=1e-6)


@pytest.fixture(scope="module")
def results():
    return fitted(exog=X)


@pytest.fixture(scope="module")
def boot(results):
    return results.bootstrap(n_reps=60, rng=4)


def signed_permutations(rank):
    for order in itertools.permutations(range(rank)):
        for signs in itertools.product([-1.0, 1.0], repeat=rank):
            yield np.eye(rank)[:, order] * signs


class TestAlignment:
    """In group order throughout, as the case's hierarchy and loadings are put."""

    @staticmethod
    def moved(case, rng, motion):
        """The loadings of a case, those of each group times a matrix of its own."""
        F = case.loadings.copy()
        for own, members in case.groups:
            F[np.ix_(members, own)] = F[np.ix_(members, own)] @ motion(rng, len(own))
        return F

    @staticmethod
    def back(case, F, rule):
        order = case.hierarchy.permutation
        out = np.empty_like(F)
        target, D = case.loadings[order], case.uniquenesses[order]
        out[order] = aligned(F[order], target, D, case.hierarchy.offsets, case.ranks, ALIGNMENTS[rule])
        return out

    def test_a_permuted_copy_with_other_signs_is_recovered_exactly(self, case):
        def motion(rng, rank):
            return np.eye(rank)[:, rng.permutation(rank)] * rng.choice([-1.0, 1.0], rank)

        F = self.moved(case, np.random.default_rng(5), motion)
        np.testing.assert_array_equal(self.back(case, F, "signs"), case.loadings)

    def test_a_rotated_copy_is_recovered(self, case):
        def motion(rng, rank):
            return np.linalg.qr(rng.standard_normal((rank, rank)))[0]

        F = self.moved(case, np.random.default_rng(5), motion)
        np.testing.assert_allclose(self.back(case, F, "procrustes"), case.loadings, atol=1e-12)

    def test_no_signed_permutation_is_closer(self):
        rng = np.random.default_rng(6)
        target, D = rng.standard_normal((7, 3)), rng.uniform(0.1, 2, 7)
        F = target[:, [2, 0, 1]] + rng.standard_normal((7, 3))
        found = aligned(F, target, D, [np.array([0, 7])], [3], ALIGNMENTS["signs"])

        def distance(loadings):
            return (((loadings - target) ** 2) / D[:, None]).sum()

        closest = min(distance(F @ Q) for Q in signed_permutations(3))
        assert distance(found) == pytest.approx(closest, rel=1e-12)
        assert closest < distance(F)

    def test_procrustes_is_that_of_scipy(self):
        rng = np.random.default_rng(6)
        F, target, D = rng.standard_normal((7, 3)), rng.standard_normal((7, 3)), rng.uniform(0.1, 2, 7)
        roots = np.sqrt(D)[:, None]
        Q, _ = linalg.orthogonal_procrustes(F / roots, target / roots)
        found = aligned(F, target, D, [np.array([0, 7])], [3], ALIGNMENTS["procrustes"])
        np.testing.assert_allclose(found, F @ Q, atol=1e-12)


class TestDrawnData:
    def test_parametric_draws_have_the_mean_and_the_covariance_of_the_fit(self):
        fit = fitted(Y, X)
        draw, rng = parametric(fit), np.random.default_rng(1)
        left = np.concatenate([draw(rng).endog for _ in range(100)]) - np.tile(fit.fittedvalues, (100, 1))
        np.testing.assert_allclose(left.mean(axis=0), 0, atol=5 * np.sqrt(SIGMA.max() / 20_000))
        # The standard deviation of a covariance is at most sqrt(2) times the variance over sqrt(n).
        sigma = fit.covariance.to_dense()
        np.testing.assert_allclose(np.cov(left.T), sigma, atol=5 * np.sqrt(2 / 20_000) * sigma.max())

    def test_parametric_draws_keep_covariates_gaps_and_weights(self):
        fit = fitted(GAPPY, X, weights=WEIGHTS)
        drawn = parametric(fit)(np.random.default_rng(1))
        np.testing.assert_array_equal(np.isnan(drawn.endog), GAPPY.isna())
        np.testing.assert_allclose(drawn.exog, fit.model.exog)
        np.testing.assert_allclose(drawn._data.weights, fit.model._data.weights)
        assert drawn.effective_nobs == fit.effective_nobs
        assert np.nanmin(np.abs(drawn.endog - GAPPY)) > 0

    @pytest.mark.parametrize("endog", [Y, GAPPY], ids=["complete", "gaps"])
    def test_an_observation_seen_often_is_as_many_draws(self, endog):
        rows = np.repeat(np.arange(200), TIMES)
        often = fitted(endog, X, freq_weights=TIMES, weights=WEIGHTS)
        single = fitted(endog.iloc[rows], X.iloc[rows], weights=WEIGHTS[rows])
        one, other = (fit.bootstrap(n_reps=3, rng=1) for fit in (often, single))
        np.testing.assert_allclose(one.replicates, other.replicates, atol=2e-3)
        # Three draws of an observation are not three times the same.
        assert len(np.unique(parametric(often)(np.random.default_rng(0)).endog[:, 0].round(9))) > 250

    def test_resampling_is_that_of_repeated_rows(self):
        rows = np.repeat(np.arange(200), TIMES)
        often = nonparametric(fitted(freq_weights=TIMES))
        single = nonparametric(fitted(Y.iloc[rows]))
        total, rng = TIMES.sum(), np.random.default_rng(3)
        direct = np.array([often(rng)._frequency for _ in range(300)])
        summed = np.array([np.bincount(rows, single(rng)._frequency, minlength=200) for _ in range(300)])
        variance = TIMES * (1 - TIMES / total)
        for counts in (direct, summed):
            assert (counts.sum(axis=1) == total).all()
            seen = variance > 0
            z = (counts.mean(axis=0) - TIMES)[seen] / np.sqrt(variance[seen] / 300)
            assert np.abs(z).max() < 4.5
            assert (counts[:, ~seen] == 0).all()
            # The mean of about 150 variances, each known to sqrt(2 / 300) or, for small counts, somewhat worse.
            assert (counts.var(axis=0)[seen] / variance[seen]).mean() == pytest.approx(1, abs=0.05)

    def test_resampled_observations_keep_their_weights(self):
        fit = fitted(weights=WEIGHTS)
        drawn = nonparametric(fit)(np.random.default_rng(1))
        seen = drawn._frequency > 0
        ratio = drawn._data.weights[seen] / (drawn._frequency * WEIGHTS)[seen]
        np.testing.assert_allclose(ratio, ratio[0])
        assert (drawn._data.weights[~seen] == 0).all()


FLAT = GROUPS[[]]
FLAT_TRUTH = np.column_stack([np.linspace(0.5, 1.2, 12), 0.7 * np.array([1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, 1])])


@pytest.fixture(scope="module", params=["flat", "two levels"])
def repeated_fits(request):
    """Five fits of data of one kind, and 200 of other data of the same kind."""
    if request.param == "flat":
        hierarchy, ranks, F = FLAT, (2,), FLAT_TRUTH
    else:
        hierarchy, ranks, F = GROUPS, (1, 1), TRUTH
    sigma = dense_covariance(Hierarchy(hierarchy), ranks, F, OWN)

    def fit(seed):
        endog = draws(1000, seed, sigma)
        return MultilevelFactorModel(endog, hierarchy=hierarchy, ranks=list(ranks)).fit(n_threads=1)

    return [fit(seed) for seed in range(201, 206)], [fit(seed) for seed in range(1, 201)]


class TestStandardErrors:
    """Against the spread of fits to independent data, drawn by NumPy from the dense covariance.

    Of 200 data sets each standard deviation is known to 5 %, of 5 times 60 replicates each standard error to 4 %. From
    fit to fit (of 1000 observations) standard errors of loadings differ by 6.5 % all together, as what they hold of the
    rotation does: by 3 % on average over 5 fits. So the largest of some 50 deviations should be below 0.3, and their
    mean, over quantities that go together in part, below 0.1.
    """

    @staticmethod
    def spread(first, fits):
        loadings = []
        for fit in fits:
            F, target = fit.loadings.to_numpy(), first.loadings.to_numpy()
            if first.hierarchy.levels == ("global",):
                F = min((F @ Q for Q in signed_permutations(2)), key=lambda turned: ((turned - target) ** 2).sum())
            else:
                F = F.copy()
                for name, column in (("global", 0), ("scale", 1)):
                    for members in first.hierarchy.groups(name).values():
                        own = first.hierarchy.features.get_indexer(members)
                        F[own, column] *= np.sign(F[own, column] @ target[own, column])
            loadings.append(F.ravel())
        return {
            "loadings": np.std(loadings, axis=0, ddof=1),
            "uniquenesses": np.std([fit.uniquenesses for fit in fits], axis=0, ddof=1),
            "communalities": np.std([fit.communalities for fit in fits], axis=0, ddof=1),
            "shares": np.std([fit.variance_explained()["share"] for fit in fits], axis=0, ddof=1),
            "mean_shares": np.std([fit.variance_explained()["mean_share"] for fit in fits], axis=0, ddof=1),
        }

    @pytest.mark.parametrize("kind", ["parametric", "nonparametric"])
    def test_they_are_the_sampling_standard_deviations(self, repeated_fits, kind):
        some, fits = repeated_fits
        truth = self.spread(some[0], fits)
        size = some[0].loadings.size
        logs = {part: [] for part in truth}
        for seed, fit in enumerate(some):
            boot = fit.bootstrap(n_reps=60, kind=kind, rng=seed)
            bse = boot.bse.to_numpy()
            logs["loadings"].append(np.log(bse[12 : 12 + size]))
            logs["uniquenesses"].append(np.log(bse[12 + size :]))
            for part in ("communalities", "shares", "mean_shares"):
                logs[part].append(np.log(getattr(boot, part).bse))
        for part, deviations in truth.items():
            ratio = np.mean(logs[part], axis=0) - np.log(deviations)
            assert np.abs(ratio).max() < 0.3, part
            if part in ("loadings", "uniquenesses", "communalities"):
                assert abs(ratio.mean()) < 0.1, part

    def test_a_rotation_that_is_hardly_known_matters_for_signs_only(self):
        # Two factors that explain nearly the same: canonical rotation turns from replicate to replicate.
        angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        F = 0.8 * np.column_stack([1.02 * np.cos(angle), np.sin(angle)])
        fit = fitted(draws(500, 0, F @ F.T + 0.5 * np.eye(12)), hierarchy=FLAT, ranks=(2,))
        signs, turned = (fit.bootstrap(n_reps=60, rng=1, align=rule) for rule in ("signs", "procrustes"))
        loadings = [name for name in signs.bse.index if name.startswith("loading")]
        others = signs.bse.index.difference(loadings)
        assert signs.bse[loadings].median() > 2 * turned.bse[loadings].median()
        pd.testing.assert_series_equal(signs.bse[others], turned.bse[others])
        pd.testing.assert_series_equal(signs.communalities.bse, turned.communalities.bse)

    def test_with_one_factor_a_group_both_alignments_are_the_same(self, results, boot):
        turned = results.bootstrap(n_reps=60, rng=4, align="procrustes")
        pd.testing.assert_frame_equal(turned.replicates, boot.replicates)


class TestWhatComesOut:
    @pytest.mark.parametrize("kind", ["parametric", "nonparametric"])
    def test_threads_and_the_kind_of_seed_do_not_matter(self, kind):
        fit = fitted(GAPPY)
        alone = fit.bootstrap(n_reps=6, kind=kind, rng=3)
        for rng, n_jobs in ((3, 2), (np.random.default_rng(3), 1), (3, None)):
            other = fit.bootstrap(n_reps=6, kind=kind, rng=rng, n_jobs=n_jobs)
            pd.testing.assert_frame_equal(other.replicates, alone.replicates, check_exact=True)
        assert not fit.bootstrap(n_reps=6, kind=kind, rng=4).replicates.equals(alone.replicates)
        longer = fit.bootstrap(n_reps=8, kind=kind, rng=3)
        pd.testing.assert_frame_equal(longer.replicates[:6], alone.replicates, check_exact=True)

    def test_parameters_have_the_names_of_the_results(self, results, boot):
        assert boot.replicates.shape == (60, len(results.params))
        pd.testing.assert_series_equal(boot.params.estimate, results.params)
        assert list(boot.communalities.estimate.index) == list(results.hierarchy.features)
        assert list(boot.shares.values.columns) == ["global", "scale", "unique"]
        np.testing.assert_allclose(boot.shares.values.sum(axis=1), 1)

    def test_a_replicate_is_the_fit_of_its_data(self, results, boot):
        data = parametric(results)(np.random.default_rng(4).spawn(60)[7])
        again = MultilevelFactorModel(
            pd.DataFrame(data.endog, columns=GROUPS.index), X, hierarchy=GROUPS, ranks=[1, 1]
        ).fit(tol=1e-6)
        np.testing.assert_allclose(boot.communalities.values.iloc[7], again.communalities, atol=1e-3)
        coefficients = again.coefficients.to_numpy().ravel()
        np.testing.assert_allclose(boot.replicates.iloc[7, : len(coefficients)], coefficients, atol=1e-8)

    def test_statistics_are_those_of_the_replicates(self, results, boot):
        values = boot.replicates
        pd.testing.assert_series_equal(boot.bse, values.std(), check_names=False)
        pd.testing.assert_frame_equal(boot.cov_params(), values.cov())
        pd.testing.assert_series_equal(boot.params.bias, values.mean() - results.params, check_names=False)
        normal = boot.conf_int(alpha=0.1, method="normal")
        np.testing.assert_allclose(normal["upper"] - results.params, stats.norm.isf(0.05) * boot.bse)
        np.testing.assert_allclose(results.params - normal["lower"], stats.norm.isf(0.05) * boot.bse)
        assert list(boot.params.table(0.1).columns) == ["estimate", "bias", "std err", "[0.05", "0.95]"]

    def test_percentiles_are_order_statistics(self):
        values = np.random.default_rng(0).permutation(np.arange(1.0, 40.0))[:, None]
        ends = Replicates(pd.Series([20.0], index=["a"]), values).conf_int(alpha=0.1)
        assert ends.loc["a"].tolist() == [2, 38]
        ends = Replicates(pd.Series([20.0], index=["a"]), values).conf_int(alpha=0.05)
        assert ends.loc["a"].tolist() == [1, 39]

    def test_only_what_is_asked_for_is_kept(self, results, boot):
        few = results.bootstrap(n_reps=60, rng=4, keep=["uniquenesses", "shares"])
        pd.testing.assert_frame_equal(few.replicates, boot.replicates.iloc[:, -12:])
        pd.testing.assert_frame_equal(few.shares.values, boot.shares.values)
        with pytest.raises(ValueError, match="'communalities' were not kept of the replicates; name them in keep"):
            _ = few.communalities
        none = results.bootstrap(n_reps=2, keep="shares")
        with pytest.raises(ValueError, match="'coefficients', 'loadings', 'uniquenesses' were not kept"):
            _ = none.bse
        assert "Share of the total variance" in str(none)

    def test_no_factors_and_no_mean(self):
        fit = fitted(ranks=(0, 0), trend="n")
        boot = fit.bootstrap(n_reps=150, rng=1)
        # A variance of 200 draws: sqrt(2 / 200) of itself, known from 150 replicates to 6 %.
        np.testing.assert_allclose(boot.bse / fit.params, np.sqrt(2 / 200), rtol=0.24)

    @pytest.mark.parametrize("kind", ["parametric", "nonparametric"])
    def test_importance_weights(self, kind):
        """Without factors: a mean's variance is D sum w^2 / (sum w)^2, a uniqueness' 2 D^2 times that.

        150 replicates know a standard error to 6 %; what 200 weighted observations say of it, resampled, to 8 % for a
        mean and 15 % for a uniqueness, and to a third of that on average over 12 features.
        """
        fit = fitted(draws(200, 5, np.diag(OWN)), ranks=(0, 0), weights=WEIGHTS**2)
        bse = fit.bootstrap(n_reps=150, kind=kind, rng=1).bse.to_numpy()
        D, effective = fit.uniquenesses.to_numpy(), fit.effective_nobs
        assert effective < 160
        for found, truth, sd in (
            (bse[:12], np.sqrt(D / effective), 0.1),
            (bse[12:], D * np.sqrt(2 / effective), 0.16),
        ):
            assert np.abs(found / truth - 1).max() < 3 * sd
            assert abs((found / truth).mean() - 1) < sd

    def test_labels_of_any_kind(self):
        features = [(j, "a") if j % 2 else j for j in range(12)]
        groups = pd.DataFrame({7: GROUPS["scale"].to_list()}, index=pd.Index(features, tupleize_cols=False))
        endog = pd.DataFrame(Y.to_numpy(), columns=groups.index)
        boot = fitted(endog, hierarchy=groups).bootstrap(n_reps=3)
        assert list(boot.communalities.estimate.index) == features
        assert list(boot.shares.estimate.index) == ["global", 7, "unique"]

    def test_words(self, boot):
        assert repr(boot) == "<Bootstrap: 60 parametric replicates; factors aligned by 'signs'>"
        assert str(boot).startswith("Bootstrap: 60 parametric replicates; factors aligned by 'signs'\n")
        assert "Share of the total variance, 95 % intervals (percentile):" in str(boot)
        assert repr(boot.shares) == "<Replicates: 60 of 3 quantities>"

    def test_a_progress_bar(self, results, capsys):
        results.bootstrap(n_reps=3, disp=True)
        assert re.search(r"bootstrap: .*3/3", capsys.readouterr().err)
        results.bootstrap(n_reps=3)
        assert capsys.readouterr().err == ""


class TestWhatIsLeftOut:
    def test_data_that_allow_no_fit(self):
        # The last feature varies in one observation only, which is not drawn with probability (1 - 1 / 200)^200.
        endog = Y.assign(x11=np.eye(200)[0])
        fit = fitted(endog, ranks=(1, 0))
        with pytest.warns(mlfm.BootstrapWarning, match=r"left out of the bootstrap: .* failed \(endog: columns do not"):
            boot = fit.bootstrap(n_reps=100, kind="nonparametric", rng=1)
        drawn = 1 - (1 - 1 / 200) ** 200
        assert abs(boot.n_kept / 100 - drawn) < 4 * np.sqrt(drawn * (1 - drawn) / 100)
        assert len(boot.failures) == 100 - boot.n_kept
        assert len(boot.replicates) == boot.n_kept
        assert boot.replicates.notna().all(axis=None)
        assert f"{100 - boot.n_kept} failed and left out" in repr(boot)

    def test_fits_that_did_not_converge(self):
        model = MultilevelFactorModel(Y, hierarchy=GROUPS, ranks=[1, 1])
        usual = model.fit(tol=1e-8)
        draw = parametric(usual)
        needed = [
            len(draw(rng)._refit(like=usual, start=usual).record.evaluations) - 1
            for rng in np.random.default_rng(1).spawn(20)
        ]
        most = int(np.median(needed))
        with pytest.warns(mlfm.BootstrapWarning, match=r"left out of the bootstrap: \d+ did not converge"):
            boot = model.fit(start=usual, tol=1e-8, maxiter=most).bootstrap(n_reps=20, rng=1)
        assert boot.n_unconverged == sum(number > most for number in needed)
        assert 0 < boot.n_unconverged < 20
        assert boot.n_kept == len(boot.replicates) == 20 - boot.n_unconverged
        assert boot.failures == []

    def test_nothing_is_left(self):
        model = MultilevelFactorModel(Y, hierarchy=GROUPS, ranks=[1, 1])
        fit = model.fit(start=model.fit(tol=1e-8), maxiter=4)
        with pytest.raises(ValueError, match="20 replicates of 20 failed or did not converge: they did not converge"):
            fit.bootstrap(n_reps=20)

    def test_heywood_cases_are_counted_and_used(self):
        floor = draws(200, 3).assign(x11=lambda frame: frame["x10"] * (1 + 1e-3 * RNG.standard_normal(200)))
        with pytest.warns(mlfm.UniquenessFloorWarning):
            fit = fitted(floor, ranks=(1, 0))
        boot = fit.bootstrap(n_reps=5)
        assert boot.n_on_floor == boot.n_kept == 5
        assert "5 replicates with uniquenesses on their floor (Heywood cases)" in str(boot)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"n_reps": 1}, "n_reps must be a whole number, 2 or more, not 1"),
            ({"n_reps": 9.5}, "n_reps must be a whole number"),
            ({"n_reps": True}, "n_reps must be a whole number"),
            ({"n_jobs": 0}, "n_jobs must be a whole number, 1 or more, not 0"),
            ({"kind": "jackknife"}, "kind must be one of 'parametric', 'nonparametric', not 'jackknife'"),
            ({"align": ["signs"]}, "align must be one of 'signs', 'procrustes', not"),
            ({"keep": ["scores"]}, "keep: parts must be some of 'coefficients', .*'mean_shares', not 'scores'"),
            ({"keep": []}, "keep: parts must be some of 'coefficients', .*'mean_shares', not none"),
            ({"rng": "seed"}, "rng must be a seed"),
            ({"rng": -1}, "rng must be a seed"),
        ],
    )
    def test_arguments(self, results, options, words):
        with pytest.raises(ValueError, match=words):
            results.bootstrap(**{"n_reps": 3, **options})

    def test_intervals(self, boot):
        with pytest.raises(ValueError, match="method must be one of 'percentile', 'normal', not 'bca'"):
            boot.conf_int(method="bca")
        with pytest.raises(ValueError, match="alpha must lie between 0 and 1, not 5"):
            boot.conf_int(alpha=5)
        with pytest.raises(ValueError, match=r"60 replicates are too few .* alpha=0.01; at least 199 are needed"):
            boot.conf_int(alpha=0.01)
        assert np.isfinite(boot.conf_int(alpha=0.01, method="normal")).all(axis=None)

    def test_fits_that_did_not_converge(self):
        with pytest.warns(mlfm.ConvergenceWarning):
            early = MultilevelFactorModel(Y, hierarchy=GROUPS, ranks=[1, 1]).fit(maxiter=2)
        with pytest.raises(ValueError, match="the fit did not converge, and is no estimate to begin with: maxiter = 2"):
            early.bootstrap(n_reps=3)

    def test_results_without_data(self, tmp_path):
        fitted().save(tmp_path / "fit")
        with pytest.raises(ValueError, match=r"a bootstrap cannot be had: .* loaded from a file"):
            mlfm.load(tmp_path / "fit").bootstrap()

    def test_more_than_fits_in_memory(self, results, monkeypatch):
        monkeypatch.setattr(keeping, "MOST", 100)
        with pytest.raises(ValueError, match=r"9 replicates would take .* loadings 0.0 GB.* keep=\['communalities'"):
            results.bootstrap(n_reps=9)
        assert results.bootstrap(n_reps=9, keep=["shares"]).n_kept == 9

    def test_a_covariance_that_would_not_be_small(self):
        many = Replicates(pd.Series(np.zeros(4001)), np.zeros((2, 4001)))
        with pytest.raises(ValueError, match=r"the covariance of 4,001 quantities would not be small"):
            many.cov()
