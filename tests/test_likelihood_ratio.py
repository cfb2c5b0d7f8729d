"""Likelihood-ratio tests: which models nest, where twice the gain is chi-square, and the parametric bootstrap."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from oracle import dense_covariance, dense_loglikeobs
from scipy import stats

import mlfm
from mlfm import Hierarchy, MultilevelFactorModel
from mlfm.inference.likelihood_ratio import BootstrapLikelihoodRatio, bootstrap_pvalue
from mlfm.inference.nested import Factors

FEATURES = [f"x{j}" for j in range(12)]
# Unsorted: group order is not the user's.
AREA, FIELD = list("abababababab"), list("abcdabcdabcd")
LABELS = pd.DataFrame({"area": AREA, "field": FIELD}, index=FEATURES)
THIRDS = pd.DataFrame({"third": [j // 4 for j in range(12)]}, index=FEATURES)
ONE = pd.DataFrame({"all": ["x"] * 12}, index=FEATURES)
PAIR = pd.DataFrame({"pair": [*range(10), 10, 10]}, index=FEATURES)

#: Groups and ranks of two models, and whether the first is a special case of the second.
NESTINGS = {
    "a smaller rank": (LABELS, (1, 1, 0), LABELS, (1, 2, 0), True),
    "a larger rank": (LABELS, (2, 0, 0), LABELS, (1, 1, 0), False),
    "a level less": (LABELS[["area"]], (1, 1), LABELS, (1, 1, 1), True),
    "a level less in between": (LABELS[["field"]], (1, 1), LABELS, (1, 1, 1), True),
    "a level of rank 0 in between": (LABELS, (1, 0, 1), LABELS, (1, 1, 1), True),
    "flat": (LABELS[[]], (1,), LABELS, (1, 1, 1), True),
    "flat, too many factors": (LABELS[[]], (2,), LABELS, (1, 1, 1), False),
    "no global factor": (LABELS, (0, 1, 0), LABELS, (1, 1, 0), True),
    "other names of levels and groups": (
        LABELS[["area"]].apply(lambda area: area.map({"a": 7, "b": 5})).rename(columns={"area": "half"}),
        (1, 1),
        LABELS,
        (1, 1, 1),
        True,
    ),
    "other groups": (THIRDS, (1, 1), LABELS, (1, 1, 1), False),
    "other groups, enough global factors": (THIRDS, (1, 1), LABELS, (4, 1, 0), True),
    "other groups, one global factor too few": (THIRDS, (1, 1), LABELS, (3, 1, 0), False),
    "groups as global factors": (LABELS[["area"]], (0, 1), LABELS[[]], (2,), True),
    "groups as factors of coarser groups": (LABELS[["field"]], (0, 1), LABELS[["area"]], (0, 2), True),
    "some in their groups, some in coarser ones": (LABELS, (0, 0, 2), LABELS, (0, 2, 1), True),
    "some in their groups, some global": (LABELS, (0, 2, 0), LABELS, (2, 1, 0), True),
    "some in their groups, too few global": (LABELS, (0, 2, 0), LABELS, (1, 1, 0), False),
    "a coarser group cannot have it": (LABELS, (0, 1, 0), LABELS, (1, 0, 1), False),
    "a level with the global group": (ONE, (1, 1), LABELS, (2, 1, 0), True),
    "a level with the global group, one too many": (ONE, (1, 1), LABELS, (1, 1, 0), False),
    "in a level with the global group": (LABELS[[]], (2,), ONE, (1, 1), True),
    "groups of one are uniquenesses": (PAIR, (1, 1), LABELS, (2, 0, 0), True),
}


@pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
@pytest.mark.parametrize("name", NESTINGS)
def test_models_nest_where_the_larger_fits_any_covariance_of_the_smaller(name):
    """Data whose covariance is exactly one of the smaller model: nothing has a higher likelihood than that covariance,
    and the larger model reaches it if and only if the smaller is a special case of it.
    """
    labels, ranks, larger, larger_ranks, nests = NESTINGS[name]
    hierarchy, rng = Hierarchy(labels), np.random.default_rng(8)
    F = rng.uniform(0.4, 1.2, (12, sum(ranks))) * rng.choice([-1.0, 1.0], (12, sum(ranks)))
    sigma = dense_covariance(hierarchy, ranks, F, rng.uniform(0.5, 1.0, 12))
    endog = np.sqrt(12) * np.linalg.cholesky(sigma).T
    highest = dense_loglikeobs(endog, np.zeros(12), sigma).sum()
    full = MultilevelFactorModel(
        pd.DataFrame(endog, columns=FEATURES), hierarchy=larger, ranks=list(larger_ranks), trend="n"
    ).fit(n_starts=4, n_threads=1)
    short = highest - full.llf
    assert (short < 2e-3) if nests else (short > 0.02)

    mine = Factors(Hierarchy(larger), larger_ranks, Hierarchy(larger).features)
    theirs = Factors(hierarchy, ranks, Hierarchy(larger).features)
    if nests:
        theirs.refuse_unless_within(mine)
    else:
        with pytest.raises(ValueError, match=r"restricted: .* it is not a special case of the larger model"):
            theirs.refuse_unless_within(mine)


RNG = np.random.default_rng(1)
LOADINGS = RNG.uniform(0.6, 1, 12)


def draws(nobs, seed, areas=0.0):
    """One global factor, and one for each area."""
    rng = np.random.default_rng(seed)
    values = np.outer(rng.standard_normal(nobs), LOADINGS) + 0.7 * rng.standard_normal((nobs, 12))
    values += areas * rng.standard_normal((nobs, 2))[:, [0, 1] * 6]
    return pd.DataFrame(values, columns=FEATURES)


Y = draws(150, 0, areas=0.6)
X = pd.DataFrame({"x": RNG.standard_normal(150)})
TIMES = RNG.integers(0, 4, 150)
GAPPY = Y.mask(RNG.random(Y.shape) < 0.05)


def fitted(ranks, endog=Y, exog=None, hierarchy=LABELS[["area"]], tol=None, **options):
    return MultilevelFactorModel(endog, exog, hierarchy=hierarchy, ranks=list(ranks), **options).fit(
        tol=tol, n_threads=1
    )


def quietly(function, *arguments, **options):
    """What a function returns, whatever it says of maxima and uniquenesses on their floor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.LowerMaximumWarning)
        warnings.simplefilter("ignore", mlfm.UniquenessFloorWarning)
        return function(*arguments, **options)


@pytest.fixture(scope="module")
def one():
    return fitted([1, 0])


@pytest.fixture(scope="module")
def two():
    return fitted([1, 1])


class TestChiSquare:
    def test_more_factors_have_no_p_value(self, one, two):
        with pytest.warns(
            mlfm.IrregularTestWarning, match=r"not chi-square, and no p-value is given; use mlfm.lr_test"
        ):
            test = two.compare_lr_test(one)
        assert test.statistic == pytest.approx(2 * (two.llf - one.llf))
        assert np.isnan(test.pvalue)
        assert test.df_diff == 12
        assert str(test) == (
            f"Likelihood-ratio test: statistic = {test.statistic:.3f}, 12 more parameters; not chi-square, for a "
            'p-value: mlfm.lr_test(restricted, full, method="bootstrap")'
        )
        with pytest.raises(ValueError, match=r"method: \"chi2\" is not valid here: .* use method=\"bootstrap\""):
            mlfm.lr_test(one, two, method="chi2")

    def test_heywood_cases_are_named(self):
        endog = Y.assign(x11=Y["x10"] * (1 + 1e-3 * RNG.standard_normal(150)))
        with pytest.warns(mlfm.UniquenessFloorWarning):
            less, more = fitted([1, 0], endog), fitted([2, 0], endog)
        floor = ", ".join(f"'{name}'" for name in FEATURES if name in {*less.on_floor, *more.on_floor})
        assert floor
        with pytest.warns(mlfm.IrregularTestWarning, match=f"with uniquenesses on their floor: {floor}; use mlfm"):
            more.compare_lr_test(less)

    def test_with_the_same_factors_it_is_chi_square_however_the_groups_are_called(self, two):
        full = fitted([1, 1], exog=X)
        other = LABELS[["area"]].replace({"a": "north", "b": "south"}).rename(columns={"area": "part"})
        backwards = other.iloc[::-1]
        restricted = fitted([1, 1], Y[backwards.index], hierarchy=backwards)
        assert restricted.llf == pytest.approx(two.llf, abs=1e-3)
        for less in (two, restricted, fitted([1, 1, 0], hierarchy=LABELS)):
            test = full.compare_lr_test(less)
            assert test.df_diff == 12
            assert test.statistic == pytest.approx(2 * (full.llf - two.llf), abs=1e-2)
            assert test.pvalue == pytest.approx(stats.chi2.sf(test.statistic, 12))
            assert mlfm.lr_test(less, full, method="chi2") == test

    def test_refusals(self, one, two):
        with pytest.raises(
            ValueError, match="restricted: the groups of its level 'area' are not those of a level with"
        ):
            one.compare_lr_test(two)
        with pytest.raises(
            ValueError, match="its model has 36 parameters, and the larger one has 36: there is nothing"
        ):
            one.compare_lr_test(fitted([1, 0]))
        with pytest.raises(ValueError, match="the features 'x11' are in one of the two only"):
            two.compare_lr_test(fitted([1, 0], Y[FEATURES[:11]], hierarchy=LABELS[["area"]].iloc[:11]))
        with pytest.raises(ValueError, match="a fit of other data, or weights"):
            two.compare_lr_test(fitted([1, 0], Y.set_axis(FEATURES[::-1], axis=1)))
        with pytest.raises(ValueError, match=r"the groups of its level 'third' are not those of a level with factors"):
            two.compare_lr_test(fitted([1, 1], hierarchy=THIRDS))


def test_the_p_value_counts_the_observed_statistic():
    assert bootstrap_pvalue(3.0, np.array([1.0, 2.0, 3.0, 4.0])) == 3 / 5
    assert bootstrap_pvalue(5.0, np.arange(4.0)) == 1 / 5


class TestBootstrap:
    def test_its_size(self):
        """No factor against one, 20 data sets of 60 x 6, 9 replicates: p is uniform on 1/10, .., 1.

        Its mean is 0.55 with standard deviation 0.064; p = 0.1 comes 2 times in 20, more than 6 times with probability
        0.002. Taken as chi-square with 6 degrees of freedom the statistics would be too large.
        """
        rng, pvalues, naive = np.random.default_rng(3), [], []
        hierarchy = Hierarchy(pd.RangeIndex(6))
        for seed in range(20):
            endog = rng.standard_normal((60, 6))
            less, more = (quietly(fitted, [k], endog, hierarchy=hierarchy, tol=0.01) for k in (0, 1))
            test = quietly(mlfm.lr_test, less, more, n_reps=9, rng=seed)
            pvalues.append(test.pvalue)
            naive.append(stats.chi2.sf(test.statistic, test.df_diff))
        assert abs(np.mean(pvalues) - 0.55) < 3 * 0.064
        assert np.sum(np.array(pvalues) < 0.15) <= 6
        assert np.mean(naive) < 0.4

    def test_its_power(self):
        """A factor in every area, of a fifth of the variance, with 150 observations: found in every data set."""
        for seed in range(3):
            endog = draws(150, seed, areas=0.5)
            test = quietly(mlfm.lr_test, fitted([1, 0], endog), quietly(fitted, [1, 1], endog), n_reps=9)
            assert test.pvalue == 1 / 10
            assert test.statistic > 1.5 * test.replicates.max()

    def test_what_it_says(self, one, two):
        test = quietly(mlfm.lr_test, one, two, n_reps=9, rng=2)
        assert isinstance(test, BootstrapLikelihoodRatio)
        assert test.statistic == pytest.approx(2 * (two.llf - one.llf), abs=1e-2)
        assert test.pvalue == bootstrap_pvalue(test.statistic, test.replicates)
        assert (test.df_diff, test.n_reps, test.n_left_out) == (12, 9, 0)
        assert 0 < test.n_on_floor < 9
        assert str(test) == (
            f"Likelihood-ratio test: statistic = {test.statistic:.3f}, 12 more parameters, p = {test.pvalue:.4g} "
            f"(parametric bootstrap, 9 replicates, {test.n_on_floor} with uniquenesses on their floor)"
        )

    def test_threads_do_not_matter(self, one, two):
        first, second = (quietly(mlfm.lr_test, one, two, n_reps=6, rng=2, n_jobs=k) for k in (1, 2))
        np.testing.assert_array_equal(first.replicates, second.replicates)

    def test_of_means_it_is_close_to_chi_square(self):
        less, more = fitted([1, 0]), fitted([1, 0], exog=X)
        test = mlfm.lr_test(less, more, n_reps=99, rng=1)
        # The mean and the standard deviation of a chi-square with 12 degrees of freedom are 12 and 4.9. In small
        # samples the statistic is larger, by some 150 / (150 - 10) here; the mean is known to 0.5.
        assert test.replicates.mean() == pytest.approx(12.8, abs=1.5)
        assert test.replicates.std() == pytest.approx(4.9, rel=0.25)
        assert test.pvalue == pytest.approx(more.compare_lr_test(less).pvalue, abs=0.15)

    def test_with_gaps_frequencies_and_features_in_another_order(self):
        rows = np.repeat(np.arange(150), TIMES)
        backwards = LABELS[["area"]].iloc[::-1]
        less = quietly(fitted, [1, 0], GAPPY, freq_weights=TIMES)
        more = quietly(fitted, [1, 1], GAPPY[backwards.index], hierarchy=backwards, freq_weights=TIMES)
        repeated = quietly(fitted, [1, 0], GAPPY.iloc[rows])
        again = quietly(fitted, [1, 1], GAPPY.iloc[rows])
        first = quietly(mlfm.lr_test, less, more, n_reps=4, rng=1)
        second = quietly(mlfm.lr_test, repeated, again, n_reps=4, rng=1)
        assert first.statistic == pytest.approx(second.statistic, abs=0.05)
        np.testing.assert_allclose(np.sort(first.replicates), np.sort(second.replicates), atol=0.05)

    def test_a_lower_maximum_of_the_larger_model_is_replaced(self, one, two, monkeypatch):
        monkeypatch.setattr(two.record, "evaluations", [two.record.evaluations[-1]._replace(llf=one.llf + 1)])
        with pytest.warns(mlfm.LowerMaximumWarning, match="the fit of the larger model is at a lower maximum"):
            test = mlfm.lr_test(one, two, n_reps=2)
        assert test.statistic > 10

    def test_replicates_that_do_not_converge_are_left_out(self, one, two, monkeypatch):
        needed = []
        usual = MultilevelFactorModel._refit

        def counting(model, like, start):
            fit = usual(model, like, start)
            needed.append((model._data.Y.shape, fit))
            if len(needed) in (2, 3, 10, 11):  # both fits of the restricted model of two replicates
                fit.record.converged = False
            return fit

        monkeypatch.setattr(MultilevelFactorModel, "_refit", counting)
        with pytest.warns(mlfm.BootstrapWarning, match="2 of 6 replicates left out: 2 did not converge"):
            test = mlfm.lr_test(one, two, n_reps=6)
        assert (test.n_reps, test.n_left_out, len(test.replicates)) == (4, 2, 4)
        assert "(parametric bootstrap, 4 replicates, 2 left out" in str(test)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"method": "wald"}, "method must be one of 'bootstrap', 'chi2', not 'wald'"),
            ({"n_reps": 0}, "n_reps must be a whole number, 1 or more, not 0"),
            ({"n_jobs": 1.5}, "n_jobs must be a whole number, 1 or more, not 1.5"),
            ({"rng": "a"}, "rng must be a seed"),
        ],
    )
    def test_refusals(self, one, two, options, words):
        with pytest.raises(ValueError, match=words):
            mlfm.lr_test(one, two, **{"n_reps": 2, **options})

    def test_models_that_do_not_nest(self, one, two):
        with pytest.raises(
            ValueError, match="restricted: the groups of its level 'area' are not those of a level with"
        ):
            mlfm.lr_test(two, one)
        with pytest.raises(TypeError, match="restricted must be results of a fit, not float"):
            mlfm.lr_test(one.llf, two)
        with pytest.raises(TypeError, match="full must be results of a fit, not float"):
            mlfm.lr_test(one, two.llf)

    def test_a_progress_bar(self, one, two, capsys):
        quietly(mlfm.lr_test, one, two, n_reps=2, disp=True)
        assert re.search(r"lr_test: .*2/2", capsys.readouterr().err)
