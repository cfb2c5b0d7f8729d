"""The search for the highest maximum: excursions, crossings, what is said of them."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mlfm
from mlfm.estimation import METHODS, SEARCHES, Problem, Search
from mlfm.estimation.crossing import crossed, distance
from mlfm.estimation.effort import SHORT, work
from mlfm.estimation.excursions import Detour, Redraw, redrawn, round_trip
from mlfm.sweep import Workers

pytestmark = pytest.mark.filterwarnings("ignore::mlfm.SeveralMaximaWarning")

# Two blocks of features in each of GROUPS groups, each with a factor of its own; the model has one factor a group: it
# explains one block and leaves the other to the uniquenesses. Any choice of blocks is a maximum; the highest has the
# stronger block of every group.
GROUPS, SIZE, N = 4, 5, 400
STRONG, WEAK = 0.9, 0.85
FEATURES = [f"g{g}{block}{j}" for g in range(GROUPS) for block in "ab" for j in range(SIZE)]
LABELS = pd.DataFrame({"group": [name[:2] for name in FEATURES]}, index=FEATURES)
STRONGER = "abba"


def loadings_of(choice):
    """Loadings of the maximum that explains these blocks, on one factor a group."""
    f = np.zeros(len(FEATURES))
    for j, name in enumerate(FEATURES):
        if choice[int(name[1])] == name[2]:
            f[j] = STRONG if STRONGER[int(name[1])] == name[2] else WEAK
    return f


def covariance_of(choice):
    f = loadings_of(choice)
    group = LABELS["group"].to_numpy()
    sigma = np.outer(f, f) * (group[:, None] == group)
    np.fill_diagonal(sigma, 1.0)
    return sigma


def exact_data(sigma, rng):
    """Observations with mean zero whose covariance is sigma."""
    Z = rng.standard_normal((N, len(sigma)))
    Z = np.linalg.qr(Z - Z.mean(axis=0))[0] * np.sqrt(N)
    return Z @ np.linalg.cholesky(sigma).T


# Both blocks of every group, each with its own factor.
TRUTH = covariance_of(STRONGER) + covariance_of([{"a": "b", "b": "a"}[c] for c in STRONGER]) - np.eye(len(FEATURES))
ENDOG = pd.DataFrame(exact_data(TRUTH, np.random.default_rng(17)), columns=FEATURES)
CHOICES = ["".join(choice) for choice in itertools.product("ab", repeat=GROUPS)]
HEIGHT = {
    choice: stats.multivariate_normal(cov=covariance_of(choice)).logpdf(ENDOG.to_numpy()).sum() for choice in CHOICES
}
HIGHEST = HEIGHT[STRONGER]
WORST = min(HEIGHT, key=HEIGHT.get)


def model(endog=ENDOG, ranks=(0, 1), **options):
    return mlfm.MultilevelFactorModel(endog, hierarchy=LABELS, ranks=list(ranks), **options)


def params_of(choice):
    own = model()
    f = loadings_of(choice)
    return own.pack(loadings=f[:, None], uniquenesses=1 - f**2, coefficients=np.zeros((len(FEATURES), 1)))


@pytest.mark.parametrize("choice", CHOICES[::5])
def test_every_choice_of_blocks_is_a_maximum(choice):
    results = model().fit(start_params=params_of(choice), search="none")
    assert results.converged
    assert results.llf == pytest.approx(HEIGHT[choice], abs=1e-6)


@pytest.mark.parametrize("start", ["pca", "top-down", "frobenius", "random", "worst", "results"])
def test_the_highest_is_found_from_every_start(start):
    if start == "worst":
        results = model().fit(start_params=params_of(WORST))
        assert results.starts["llf"].iloc[0] == pytest.approx(HEIGHT[WORST], abs=1e-3)
    elif start == "results":
        results = model().fit(start=model().fit(start_params=params_of(WORST), search="none"))
    else:
        results = model().fit(start=start)
    assert results.converged
    assert results.llf == pytest.approx(HIGHEST, abs=1e-3)


@pytest.mark.parametrize("kind", ["missing", "covariates", "weights", "float32", "a level above"])
def test_the_highest_is_found_in_data_of_every_kind(kind):
    rng = np.random.default_rng(3)
    options, endog, ranks = {}, ENDOG, (0, 1)
    if kind == "missing":
        endog = ENDOG.mask(rng.uniform(size=ENDOG.shape) < 0.03)
    elif kind == "covariates":
        options["exog"] = pd.DataFrame({"z": rng.standard_normal(N)})
    elif kind == "weights":
        options["weights"] = rng.uniform(0.5, 1.5, N)
    elif kind == "float32":
        endog = ENDOG.astype(np.float32)
    else:
        common = rng.standard_normal((N, 1)) * rng.uniform(0.5, 1, len(FEATURES))
        endog, ranks = ENDOG + common, (1, 1)
    own = model(endog, ranks, **options)
    searched = own.fit()
    best = own.fit(n_starts=12, search="none")
    f = searched.loadings["group"].iloc[:, 0].abs()
    explained = {
        name: f[[own for own in FEATURES if own.startswith(name)]].mean() for name in ("g0a", "g1b", "g2b", "g3a")
    }
    assert searched.llf > best.llf - 1e-2
    assert min(explained.values()) > 0.6, explained


def test_the_first_climb_alone():
    results = model().fit(start_params=params_of(WORST), search="none")
    assert results.llf == pytest.approx(HEIGHT[WORST], abs=1e-6)
    assert list(results.starts.index) == ["start_params"]
    assert results.record.found_by == "start_params"
    assert not results.record.cut_short


def test_thorough_does_more():
    default, thorough = model().fit(rng=1), model().fit(rng=1, search="thorough")
    assert len(thorough.starts) > len(default.starts)
    assert thorough.llf >= default.llf - 1e-4


def test_em_does_not_search_unless_asked():
    assert len(model().fit(method="px-em", maxiter=5000).starts) == 1
    own = model().fit(method="px-em", start_params=params_of(WORST), search="default")
    assert own.llf == pytest.approx(HIGHEST, abs=0.05)
    assert set(own.history["step"]) >= {"px-em"}


def test_a_climb_that_did_not_end_is_not_searched_from():
    with pytest.warns(mlfm.ConvergenceWarning):
        results = model().fit(maxiter=2)
    assert len(results.starts) == 1


def test_same_digits_whatever_the_threads_and_the_run():
    fits = [model().fit(n_threads=n, rng=4) for n in (1, 2, 3, 2)]
    for other in fits[1:]:
        assert other.llf == fits[0].llf
        np.testing.assert_array_equal(other.params, fits[0].params)
        pd.testing.assert_frame_equal(other.starts, fits[0].starts)


def test_the_table_of_climbs():
    results = model().fit(start_params=params_of(WORST))
    starts = results.starts
    assert list(starts.columns) == ["llf", "behind", "evaluations", "ended", "reached", "on_floor"]
    assert starts.index.name == "start"
    assert starts.index.is_unique
    assert starts.index[0] == "start_params"
    assert results.record.found_by in starts.index
    assert starts.loc[results.record.found_by, "llf"] == results.llf
    assert starts.loc[results.record.found_by, "behind"] == 0
    assert starts["llf"].max() == pytest.approx(results.llf, abs=1e-6)  # another climb to the same maximum
    assert starts.loc["start_params", "behind"] == pytest.approx(HIGHEST - HEIGHT[WORST], abs=1e-2)
    assert not starts.loc["start_params", "reached"]
    assert starts["evaluations"].sum() == results.mle_retvals["fcalls"]
    assert (starts["evaluations"] > 0).all()
    assert (starts["on_floor"] == 0).all()
    line = f"{starts['reached'].sum()} of {len(starts)} climbs"
    text = str(results.summary())
    assert line in text
    assert "The likelihood has several maxima" in text


def test_one_maximum_says_so():
    results = mlfm.MultilevelFactorModel(ENDOG, hierarchy=LABELS, ranks=[8, 0]).fit()
    assert results.starts["reached"].all()
    assert "several maxima" not in str(results.summary())
    assert list(results.starts.index) == ["pca", "global +1", "global -1"]


@pytest.mark.filterwarnings("error::mlfm.SeveralMaximaWarning")
def test_a_maximum_that_was_reached_once_is_warned_of(monkeypatch):
    # The first excursions take all that may be done.
    monkeypatch.setitem(SEARCHES, "default", SEARCHES["default"]._replace(climbs=1.5))
    monkeypatch.setattr("mlfm.estimation.search.LEAST", 1.2)
    with pytest.warns(mlfm.SeveralMaximaWarning, match=r"only one of \d+ climbs reached the highest"):
        results = model().fit(start_params=params_of(WORST), rng=2)
    assert results.record.cut_short
    assert results.starts["reached"].sum() == 1


@pytest.mark.parametrize("climb", [1, 2, 4])
def test_an_interruption_keeps_the_highest_so_far(climb):
    begun = 0

    def stop(entry):
        nonlocal begun
        begun += entry.evaluation == 0
        if begun > climb and entry.evaluation == 1:
            raise KeyboardInterrupt

    with pytest.raises(mlfm.FitInterrupted, match="the highest so far") as caught:
        model().fit(start_params=params_of(WORST), callback=stop, n_threads=2)
    results = caught.value.results
    assert isinstance(results, mlfm.MultilevelFactorResults)
    assert results.llf == pytest.approx(results.model.loglike(results.params), rel=1e-12)
    assert results.llf >= HEIGHT[WORST] - 1e-3
    assert len(results.starts) >= climb
    assert isinstance(caught.value, KeyboardInterrupt)
    # Nothing is left behind: the next fit is what it would have been.
    assert model().fit(rng=0).llf == model().fit(rng=0).llf


def test_an_interruption_of_the_first_climb_is_what_it_is():
    def stop(entry):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        model().fit(callback=stop)
    assert not isinstance(caught.value, mlfm.FitInterrupted)


@pytest.mark.parametrize("search", ["deep", 3, True])
def test_searches_by_name(search):
    with pytest.raises(ValueError, match="search must be one of 'none', 'default', 'thorough'"):
        model().fit(search=search)


def test_how_much_may_be_done_follows_from_the_work_of_the_first_climb():
    default = SEARCHES["default"]
    assert default.most(SHORT / 10) == pytest.approx(0.8 * SHORT)
    multiples = [default.most(first) / first for first in SHORT * np.array([1, 4, 16, 30, 1000])]
    assert multiples == pytest.approx([8, 4, 2, 0, 0])
    few, many = model()._problem, mlfm.MultilevelFactorModel(ENDOG, hierarchy=LABELS, ranks=[2, 2])._problem
    assert work(few) < work(many)


def test_where_a_climb_takes_long_it_begins_where_it_takes_fewer_evaluations(monkeypatch):
    assert model().fit().record.start == "pca"
    monkeypatch.setattr("mlfm.estimation.effort.LONG", 1.0)
    assert model().fit().record.start == "top-down"
    assert list(model().fit(n_starts=2, search="none").starts.index) == ["pca", "top-down"]


def test_a_long_climb_is_not_searched_from_and_says_so(monkeypatch):
    monkeypatch.setattr("mlfm.estimation.effort.SHORT", 1.0)
    results = model().fit()
    assert len(results.starts) == 1
    assert results.record.cut_short
    assert "No other maximum was looked for" in str(results.summary())


class TestExcursions:
    def test_flat(self):
        assert list(round_trip((2,), [1], [9])) == [Detour((3,)), Detour((1,))]
        assert list(round_trip((0, 2), [1, 3], [9, 9])) != [Detour((0, 3)), Detour((0, 1))]

    def test_within_bounds(self):
        for excursion in round_trip((1, 2), [1, 4], [10, 3]):
            if isinstance(excursion, Detour):
                assert sum(excursion.ranks) > 0
                assert min(excursion.ranks) >= 0
                assert excursion.ranks[1] <= 3
            else:
                assert excursion == Redraw(1)

    def test_names(self):
        levels = ["global", "sector"]
        assert Detour((1, 2)).name((2, 1), levels) == "sector +1, global -1"
        assert Redraw(1).name((2, 1), levels) == "sector redrawn"

    def test_redrawn(self):
        rng = np.random.default_rng(0)
        F, D = rng.standard_normal((6, 3)), rng.uniform(0.5, 1, 6)
        G, E = redrawn((F, D), 1, np.full(6, 1e-4), rng)
        np.testing.assert_array_equal(G[:, 0], F[:, 0])
        np.testing.assert_allclose((G**2).sum(axis=1) + E, (F**2).sum(axis=1) + D)


def dense(problem, F, D):
    """Covariance of a point of a problem."""
    tree, sigma = problem.tree, np.diag(D)
    for level, offsets in enumerate(tree.offsets):
        for i, j in itertools.pairwise(offsets):
            own = F[i:j, tree.own(level)]
            sigma[i:j, i:j] += own @ own.T
    return sigma


@pytest.mark.parametrize("missing", [False, True])
def test_neighbouring_ranks(missing):
    """A factor less leaves the variances; a new one raises the log-likelihood by what it says."""
    rng = np.random.default_rng(5)
    endog = ENDOG.mask(rng.uniform(size=ENDOG.shape) < 0.02) if missing else ENDOG
    own = model(endog, (1, 2))
    around = own._neighbourhood()
    with Workers(1) as workers:
        search = Search(around, METHODS["scoring"], workers, lambda entry: None, rng)
        record = mlfm.estimation.FitRecord("scoring", "pca", 200, 1e-4, 1)
        point = search.maximise([("pca", "pca")], record)
        n, llf = len(point[0]), around.home.loglike(point, workers)
        less = around.carry(point, (1, 2), (1, 1), around.problem((1, 1)), rng, workers)
        before, after = dense(around.home, point[0], point[1][:n]), dense(around.problem((1, 1)), less[0], less[1][:n])
        np.testing.assert_allclose(np.diag(after), np.diag(before))
        assert around.problem((1, 1)).loglike(less, workers) < llf
        more = around.carry(point, (1, 2), (2, 2), around.problem((2, 2)), rng, workers)
        assert more[0].shape[1] == 4
        gained = around.problem((2, 2)).loglike(more, workers) - llf
        # Next to nothing of a new factor is left where there is no use for one: loadings of 0 would stay so. With
        # missing values it is that of data with the means in their places.
        assert gained > (-10 if missing else -0.1)
        away = around.carry(less, (1, 1), (1, 3), around.problem((1, 3)), rng, workers)
        back = around.carry(away, (1, 3), (1, 2), around.home, rng, workers)
        assert back[0].shape == point[0].shape
        gone = around.carry(point, (1, 2), (0, 2), around.problem((0, 2)), rng, workers)
        assert gone[0].shape == (n, 2)
        assert isinstance(around.home, Problem) is not missing


class TestCrossing:
    def points(self):
        problem = model()._problem
        order = model().hierarchy.permutation
        made = {}
        for choice in (WORST, STRONGER, "aaaa", "bbbb"):
            f = loadings_of(choice)[order]
            made[choice] = f[:, None].copy(), 1 - f**2
        return problem, made

    def test_takes_of_each_group_what_is_higher(self):
        problem, points = self.points()
        with Workers(1) as workers:
            child = crossed(
                problem.tree, points["aaaa"], HEIGHT["aaaa"], points["bbbb"], lambda p: problem.loglike(p, workers)
            )
        assert child is not None
        point, llf = child
        np.testing.assert_allclose(point[0], points[STRONGER][0])
        assert llf == pytest.approx(HIGHEST, rel=1e-12)

    def test_nothing_from_what_is_lower_everywhere(self):
        problem, points = self.points()
        with Workers(1) as workers:
            assert (
                crossed(problem.tree, points[STRONGER], HIGHEST, points[WORST], lambda p: problem.loglike(p, workers))
                is None
            )

    def test_rotations_make_no_difference(self):
        own = model(ranks=(2, 2))
        tree, rng = own._problem.tree, np.random.default_rng(1)
        F, D = rng.standard_normal((len(FEATURES), 4)), rng.uniform(0.5, 1, len(FEATURES))
        G = F.copy()
        for level, offsets in enumerate(tree.offsets):
            for i, j in itertools.pairwise(offsets):
                turn = np.linalg.qr(rng.standard_normal((2, 2)))[0]
                G[i:j, tree.own(level)] = F[i:j, tree.own(level)] @ turn
        assert distance(tree, (F, D), (G, D)).max() < 1e-12
        assert crossed(tree, (F, D), 0.0, (G, D), lambda point: 1.0) is None


@pytest.mark.parametrize(
    ("name", "ranks", "known"),
    [
        ("abilities", (2, 1), -9613.9147),
        ("abilities", (2, 2), -9589.7275),
        ("employment", (2, 3, 2), -45031.4847),
        ("personality", (2, 1, 1), -824043.2439),
        ("stocks", (5, 2), 1672611.7814),
    ],
)
def test_best_known_maxima(name, ranks, known):
    """Of data whose first climb ends lower."""
    data = mlfm.datasets.load(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        own = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=list(ranks))
        results, one = own.fit(), own.fit(search="none")
    assert results.llf > known - 0.1
    assert one.llf < known - 0.5
