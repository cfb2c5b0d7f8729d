"""Plots show the numbers they say they show; matplotlib stays out of sight until one is made."""

import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from oracle import make_case, zoo

import mlfm
from mlfm import MultilevelFactorModel
from mlfm.inference.block_means import boundaries, fitted_means, runs, sample_means
from mlfm.inference.scree import eigenvalues, noise_edge
from mlfm.reporting.plots.groups import apart

pytestmark = pytest.mark.portable

SHUFFLE = np.random.default_rng(5).permutation(30)
CASE = make_case(
    [[0] * 30, *np.array([[j // 10 for j in range(30)], [j // 5 for j in range(30)]])[:, SHUFFLE].tolist()],
    (2, 1, 1),
    nobs=120,
    seed=3,
)


def fit(case, ranks=None, nobs=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        return MultilevelFactorModel(case.frame[:nobs], hierarchy=case.hierarchy, ranks=list(ranks or case.ranks)).fit()


@pytest.fixture(scope="module")
def results():
    return fit(CASE)


@pytest.fixture(scope="module")
def flat():
    return fit(make_case([[0] * 9], (1,), nobs=50))


PLOTS = {
    "loadings": lambda plot, **given: plot.loadings(**given),
    "loadings of a level": lambda plot, **given: plot.loadings("level1", **given),
    "covariance": lambda plot, **given: plot.covariance(**given),
    "covariance of blocks": lambda plot, **given: plot.covariance(max_cells=7, **given),
    "residual correlations": lambda plot, **given: plot.residual_correlations(**given),
    "shares": lambda plot, **given: plot.variance_shares(**given),
    "shares by group": lambda plot, **given: plot.variance_shares("group", **given),
    "scree": lambda plot, **given: plot.scree(**given),
    "scree of a level": lambda plot, **given: plot.scree("level2", **given),
    "convergence": lambda plot, **given: plot.convergence(**given),
    "climbs": lambda plot, **given: plot.climbs(**given),
    "scores": lambda plot, **given: plot.scores(**given),
    "scores of a level": lambda plot, **given: plot.scores("level1", **given),
}


def test_the_largest_groups_are_labelled_where_there_is_no_room_for_all():
    places, sizes = np.array([0.0, 1.0, 2.5, 10.0, 10.5]), np.array([1, 5, 2, 1, 1])
    assert apart(places, sizes, 2.0) == [1, 3]
    assert apart(places, sizes, 0.1) == [0, 1, 2, 3, 4]
    assert apart(places, sizes, 1.2) == [1, 2, 3]


@pytest.mark.parametrize("name", PLOTS)
class TestEvery:
    def test_makes_a_figure_with_labels_and_title(self, results, name):
        figure = PLOTS[name](results.plot)
        assert isinstance(figure, Figure)
        ax = figure.axes[0]
        for text in (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()):
            assert text
        figure.canvas.draw()
        assert pyplot.get_fignums() == []

    def test_draws_in_the_axes_given(self, results, name):
        figure = Figure()
        left, right = figure.subplots(1, 2)
        assert PLOTS[name](results.plot, ax=right) is figure
        assert right.get_title()
        assert not left.get_title()
        assert not left.has_data()
        outer = Figure()
        part = outer.subfigures(1, 2)[0]
        assert PLOTS[name](results.plot, ax=part.subplots()) is outer

    def test_refuses_what_are_no_axes(self, results, name):
        with pytest.raises(TypeError, match="ax must be matplotlib axes or a figure, not str"):
            PLOTS[name](results.plot, ax="axes")

    def test_draws_in_the_figure_given(self, results, name):
        figure = Figure()
        assert PLOTS[name](results.plot, ax=figure) is figure
        assert figure.axes[0].get_title()
        outer = Figure()
        left, right = outer.subfigures(1, 2)
        assert PLOTS[name](results.plot, ax=right) is outer
        assert right.axes
        assert not left.axes

    def test_says_how_to_install_matplotlib(self, results, name, monkeypatch):
        for module in [module for module in sys.modules if module.split(".")[0] == "matplotlib"]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r'pip install "mlfm\[plot\]"'):
            PLOTS[name](results.plot)


def image_of(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def lines_across(ax):
    """Heights of the lines over the whole width."""
    return sorted(line.get_ydata()[0] for line in ax.lines if list(line.get_xdata()) == [0, 1])


class TestLoadings:
    def test_are_standardised_and_in_the_order_of_the_hierarchy(self, results):
        figure = results.plot.loadings()
        order = CASE.hierarchy.permutation
        standardised = results.loadings.to_numpy() / np.sqrt(results.covariance.diagonal())[:, None]
        np.testing.assert_allclose(image_of(figure), standardised[order])
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert labels == list(CASE.hierarchy.features[order])
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
            "global 1",
            "global 2",
            "level1 1",
            "level2 1",
        ]

    def test_lines_stand_between_the_groups_of_all_levels(self, results):
        # Three groups of ten and six of five: boundaries at 5, 10, .., 25.
        assert lines_across(results.plot.loadings().axes[0]) == [4.5, 9.5, 14.5, 19.5, 24.5]

    def test_in_small_axes_groups_are_named_instead_of_features(self, results):
        figure = Figure(figsize=(4, 2))
        ax = figure.subplots()
        results.plot.loadings(ax=ax)
        names = ["/".join(str(label) for label in path) for path in CASE.hierarchy.paths("level2")]
        own = [str(path[-1]) for path in CASE.hierarchy.paths("level2")]
        assert [label.get_text() for label in ax.get_yticklabels()] in (names, own)
        assert ax.get_ylabel() == "30 features by level2"

    def test_of_one_level(self, results):
        np.testing.assert_allclose(
            image_of(results.plot.loadings("level1"))[:, 0], image_of(results.plot.loadings())[:, 2]
        )
        with pytest.raises(ValueError, match="unknown level 'x'"):
            results.plot.loadings("x")

    def test_where_there_are_none(self):
        fitted = fit(zoo()["rank 0 at the finest level"])
        with pytest.raises(ValueError, match="level 'level2' has no factors"):
            fitted.plot.loadings("level2")
        with pytest.raises(ValueError, match="there are no factors to show"):
            fit(zoo()["no factors at all"]).plot.loadings()


class TestBlockMeans:
    def test_runs(self):
        assert list(runs(5, 5)) == [0, 1, 2, 3, 4, 5]
        assert list(runs(10, 4)) == [0, 3, 6, 10]  # the last feature is no run of its own
        assert list(runs(11, 4)) == [0, 3, 6, 9, 11]

    @pytest.mark.parametrize("most", [2, 3, 7, 100])
    @pytest.mark.parametrize("name", list(zoo()))
    def test_against_the_dense_matrices(self, name, most):
        case = zoo()[name]
        order, offsets = case.hierarchy.permutation, case.hierarchy.offsets
        bounds = runs(len(order), most)
        S = case.Y.T @ case.Y
        made = (
            fitted_means(case.loadings[order], case.uniquenesses[order], offsets, case.ranks, bounds),
            sample_means(case.Y.T[order], bounds),
        )
        for means, dense in zip(made, (case.sigma, S), strict=True):
            dense = dense[np.ix_(order, order)]
            for i, j in np.ndindex(means.shape):
                rows, columns = (np.arange(bounds[k], bounds[k + 1]) for k in (i, j))
                pairs = [(a, b) for a in rows for b in columns if a != b or len(rows) == 1]
                assert means[i, j] == pytest.approx(np.mean([dense[a, b] for a, b in pairs]), abs=1e-10)

    def test_boundaries(self):
        np.testing.assert_allclose(boundaries(np.array([0, 4, 10]), np.array([0, 3, 6, 10])), [0, 4 / 3, 3])


class TestMatrices:
    def test_correlation_and_covariance(self, results):
        order = CASE.hierarchy.permutation
        dense = results.covariance.to_dense()[np.ix_(order, order)]
        np.testing.assert_allclose(image_of(results.plot.covariance(correlation=False)), dense)
        lengths = np.sqrt(np.diag(dense))
        np.testing.assert_allclose(image_of(results.plot.covariance()), dense / np.outer(lengths, lengths))

    def test_colours_are_symmetric_around_zero(self, results):
        low, high = results.plot.covariance().axes[0].images[0].get_clim()
        assert low == -high
        shown = image_of(results.plot.covariance())
        assert high == pytest.approx(np.abs(shown - np.eye(30)).max())

    def test_boundaries_in_both_directions(self, results):
        ax = results.plot.covariance().axes[0]
        assert lines_across(ax) == [4.5, 9.5, 14.5, 19.5, 24.5]
        assert len(ax.lines) == 10

    def test_residual_correlations(self, results):
        order = CASE.hierarchy.permutation
        dense = results.covariance.to_dense()
        lengths = np.sqrt(np.diag(dense))
        residual = (np.corrcoef(CASE.Y.T) - dense / np.outer(lengths, lengths))[np.ix_(order, order)]
        np.testing.assert_allclose(image_of(results.plot.residual_correlations()), residual, atol=1e-10)

    def test_residual_correlations_with_weights_and_covariates(self):
        rng = np.random.default_rng(2)
        x, w = rng.standard_normal(120), rng.integers(1, 4, 120)
        model = MultilevelFactorModel(
            CASE.frame, pd.DataFrame({"x": x}), hierarchy=CASE.hierarchy, ranks=[2, 1, 1], freq_weights=w
        )
        fitted = model.fit()
        order, dense = CASE.hierarchy.permutation, fitted.covariance.to_dense()
        lengths = np.sqrt(np.diag(dense))
        sample = np.cov(fitted.resid.to_numpy().T, fweights=w)
        sample /= np.sqrt(np.outer(np.diag(sample), np.diag(sample)))
        residual = (sample - dense / np.outer(lengths, lengths))[np.ix_(order, order)]
        np.testing.assert_allclose(image_of(fitted.plot.residual_correlations()), residual, atol=1e-10)

    def test_residual_correlations_with_missing_values(self):
        values = CASE.frame.copy()
        values.iloc[3, 4] = values.iloc[50:60, 20] = np.nan
        fitted = MultilevelFactorModel(values, hierarchy=CASE.hierarchy, ranks=[2, 1, 1]).fit()
        filled = (fitted.impute().values - fitted.fittedvalues).to_numpy()
        lengths = np.sqrt((filled**2).sum(axis=0))
        order, dense = CASE.hierarchy.permutation, fitted.covariance.to_dense()
        sd = np.sqrt(np.diag(dense))
        residual = filled.T @ filled / np.outer(lengths, lengths) - dense / np.outer(sd, sd)
        np.testing.assert_allclose(
            image_of(fitted.plot.residual_correlations()), residual[np.ix_(order, order)], atol=1e-10
        )

    def test_blocks_of_many_features(self):
        n = 3000
        labels = pd.DataFrame({"g": np.arange(n) // 1000}, index=[f"x{j}" for j in range(n)])
        F = np.column_stack([np.ones(n), np.repeat([0.0, 1.0, 2.0], 1000)])
        truth = mlfm.MultilevelCovariance(mlfm.Hierarchy(labels), F, np.ones(n), ranks=[1, 1])
        fitted = MultilevelFactorModel(truth.sample(60, 0), hierarchy=labels, ranks=[1, 1]).fit()
        figure = fitted.plot.covariance(correlation=False, max_cells=30)
        image = image_of(figure)
        assert image.shape == (30, 30)
        dense = fitted.covariance.to_dense()
        assert image[3, 17] == pytest.approx(dense[300:400, 1700:1800].mean())
        off = dense[2900:, 2900:][~np.eye(100, dtype=bool)]
        assert image[29, 29] == pytest.approx(off.mean())
        assert lines_across(figure.axes[0]) == [9.5, 19.5]
        assert "100 features a side" in figure.axes[0].get_xlabel()
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0", "1", "2"]

    def test_bad_numbers_of_cells(self, results):
        for bad in (1, 2.5, "a", True):
            with pytest.raises(ValueError, match="max_cells: a whole number of cells"):
                results.plot.covariance(max_cells=bad)


class TestShares:
    def test_by_level(self, results):
        ax = results.plot.variance_shares().axes[0]
        np.testing.assert_allclose([bar.get_width() for bar in ax.patches], results.variance_explained()["share"])
        assert [label.get_text() for label in ax.get_yticklabels()] == ["global", "level1", "level2", "unique"]

    def test_by_group(self, results):
        ax = results.plot.variance_shares("group").axes[0]
        widths = np.array([bar.get_width() for bar in ax.patches]).reshape(4, 6)
        np.testing.assert_allclose(widths.sum(axis=0), 1)
        own = results.variance_explained("group").loc["level2", "share_within"]
        np.testing.assert_allclose(widths[2], own)
        dense = np.diag(results.covariance.to_dense())
        for g, members in enumerate(CASE.hierarchy.groups("level2").values()):
            where = CASE.hierarchy.features.get_indexer(members)
            of_global = (results.loadings.iloc[where, :2] ** 2).to_numpy().sum()
            assert widths[0, g] == pytest.approx(of_global / dense[where].sum())
        with pytest.raises(ValueError, match="by must be 'level' or 'group', not 'sector'"):
            results.plot.variance_shares("sector")

    def test_of_many_groups(self):
        n = 400
        labels = pd.DataFrame({"g": np.arange(n) // 4}, index=[f"x{j}" for j in range(n)])
        F = np.ones((n, 2))
        truth = mlfm.MultilevelCovariance(mlfm.Hierarchy(labels), F, np.ones(n), ranks=[1, 1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mlfm.MlfmWarning)
            fitted = MultilevelFactorModel(truth.sample(80, 0), hierarchy=labels, ranks=[1, 1]).fit()
        ax = fitted.plot.variance_shares("group").axes[0]
        values, _, baseline = ax.patches[1].get_data()
        own = fitted.variance_explained("group").loc["g", "share_within"]
        np.testing.assert_allclose(values - baseline, own)
        assert len(ax.get_yticklabels()) <= 50


class TestScree:
    @pytest.mark.parametrize(("n", "nobs"), [(6, 20), (30, 8)])
    def test_eigenvalues_against_dense_ones(self, n, nobs):
        rng = np.random.default_rng(n)
        Y, F = rng.standard_normal((n, nobs)), rng.standard_normal((n, 2))
        dense = np.sort(np.linalg.eigvalsh(Y @ Y.T - F @ F.T))[::-1]
        np.testing.assert_allclose(eigenvalues(Y, F, 5), dense[:5], atol=1e-10)
        np.testing.assert_allclose(eigenvalues(Y, F, 100), dense, atol=1e-7)
        np.testing.assert_allclose(eigenvalues(Y, F[:, :0], 3), np.linalg.eigvalsh(Y @ Y.T)[::-1][:3])

    @pytest.mark.parametrize(("n", "nobs"), [(100, 400), (400, 100)])
    def test_noise_stays_near_the_edge(self, n, nobs):
        # The largest eigenvalue of noise falls on the edge but for fluctuations of order n^(-2/3).
        Y = np.random.default_rng(0).standard_normal((n, nobs)) * np.sqrt(0.7 / nobs)
        assert eigenvalues(Y, np.empty((n, 0)), 1)[0] == pytest.approx(noise_edge(n, nobs, 0.7), rel=0.05)

    def test_of_the_first_level_is_that_of_the_sample_correlation(self, results):
        line = results.plot.scree().axes[0].lines[0]
        expected = np.linalg.eigvalsh(np.corrcoef(CASE.Y.T))[::-1][:12]  # ten beyond the rank
        np.testing.assert_allclose(line.get_ydata(), expected)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 13))

    def test_of_a_level_takes_off_what_the_coarser_ones_explain(self, results):
        ax = results.plot.scree("level1").axes[0]
        R, sd = np.corrcoef(CASE.Y.T), np.sqrt(results.covariance.diagonal())
        F = results.loadings["global"].to_numpy() / sd[:, None]
        for line, members in zip(ax.lines, CASE.hierarchy.groups("level1").values(), strict=False):
            own = CASE.hierarchy.features.get_indexer(members)
            expected = np.linalg.eigvalsh(R[np.ix_(own, own)] - F[own] @ F[own].T)[::-1]
            np.testing.assert_allclose(line.get_ydata(), expected[:11], atol=1e-10)
        (rank,) = (line for line in ax.lines if line.get_label() == "fitted rank 1")
        assert rank.get_xdata()[0] == 1.5

    def test_of_many_groups_is_a_band(self):
        case = make_case([[0] * 404, [j // 4 for j in range(404)]], (0, 1), nobs=40)
        fitted = fit(case)
        ax = fitted.plot.scree("level1").axes[0]
        R = np.corrcoef(case.Y.T)
        each = [np.linalg.eigvalsh(R[j : j + 4, j : j + 4])[::-1] for j in range(0, 404, 4)]
        np.testing.assert_allclose(ax.lines[0].get_ydata(), np.median(each, axis=0))
        low, high = ax.collections[0].get_datalim(ax.transData).intervaly
        assert high == pytest.approx(np.quantile(np.array(each)[:, 0], 0.95))
        assert low == pytest.approx(np.quantile(np.array(each)[:, 3], 0.05))

    def test_of_an_unknown_level(self, results):
        with pytest.raises(ValueError, match="unknown level 'x'"):
            results.plot.scree("x")


class TestConvergence:
    def test_shows_the_record(self, results):
        ax = results.plot.convergence().axes[0]
        below, expected = ax.lines[:2]
        history = results.history[results.history["accepted"]]
        gaps = results.llf - history["llf"]
        np.testing.assert_array_equal(below.get_xdata(), gaps.index[gaps > 0])
        np.testing.assert_allclose(below.get_ydata(), gaps[gaps > 0])
        known = history["projected_gain"][np.isfinite(history["projected_gain"])]
        np.testing.assert_allclose(expected.get_ydata(), known[known > 0])
        assert ax.get_yscale() == "log"
        assert "converged" in ax.get_title()

    def test_of_a_fit_that_did_not_converge(self):
        with pytest.warns(mlfm.MlfmWarning):
            stopped = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[2, 1, 1]).fit(maxiter=2)
        assert not stopped.converged
        assert "NOT converged" in stopped.plot.convergence().axes[0].get_title()


class TestClimbs:
    def test_shows_the_table(self, results):
        starts = results.starts
        ax = results.plot.climbs().axes[0]
        reached = ax.lines[0]
        np.testing.assert_allclose(reached.get_xdata(), starts["behind"][starts["reached"]])
        np.testing.assert_array_equal(reached.get_ydata(), np.flatnonzero(starts["reached"]))
        assert f"{starts['reached'].sum()} of {len(starts)}" in ax.get_title()
        assert ax.get_yticklabels()[0].get_text() == "pca"


class TestScores:
    def test_lanes(self, results):
        ax = results.plot.scores("level1").axes[0]
        every = results.scores()
        own = every.loc[:, every.columns.get_level_values("level") == "level1"].to_numpy()
        drawn = [line for line in ax.lines if len(line.get_xdata()) == 120]
        for k, line in enumerate(drawn):
            np.testing.assert_allclose(line.get_ydata() + 6 * k, own[:, k])
        assert len(drawn) == 3
        names = [str(group) for group in CASE.hierarchy.paths("level1")]
        assert [label.get_text() for label in ax.get_yticklabels()] == names

    def test_of_chosen_factors(self, results):
        column = results.scores().columns[3]
        ax = results.plot.scores(columns=[column]).axes[0]
        drawn = [line for line in ax.lines if len(line.get_xdata()) == 120]
        np.testing.assert_allclose(drawn[0].get_ydata(), results.scores()[column])
        with pytest.raises(ValueError, match="columns: "):
            results.plot.scores(columns=[("global", "global", 9)])
        with pytest.raises(ValueError, match="level and columns both"):
            results.plot.scores("level1", columns=[column])
        with pytest.raises(ValueError, match="unknown level 'x'"):
            results.plot.scores("x")

    def test_dates_and_other_labels(self):
        for index in (
            pd.date_range("2020-01-31", periods=120, freq="D"),
            pd.period_range("2020-01", periods=120, freq="M"),
            pd.Index([f"child {i}" for i in range(120)], name="child"),
        ):
            frame = CASE.frame.set_axis(index)
            fitted = MultilevelFactorModel(frame, hierarchy=CASE.hierarchy, ranks=[1, 0, 0]).fit(tol=1)
            figure = fitted.plot.scores()
            figure.canvas.draw()
            assert figure.axes[0].get_xlabel() == (index.name or "observation")

    def test_of_many_factors_is_a_heatmap(self):
        case = make_case([[0] * 60, [j // 4 for j in range(60)]], (0, 1), nobs=200)
        fitted = fit(case)
        np.testing.assert_allclose(image_of(fitted.plot.scores()), fitted.scores().to_numpy().T)


@pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
@pytest.mark.parametrize("name", list(zoo()))
def test_every_shape_can_be_drawn(name):
    fitted = fit(zoo()[name])
    plot = fitted.plot
    figures = [plot.covariance(), plot.residual_correlations(), plot.variance_shares(), plot.variance_shares("group")]
    figures += [plot.scree(level) for level in fitted.hierarchy.levels]
    figures += [plot.convergence()]
    if fitted.ranks.sum():
        figures += [plot.loadings(), plot.scores()]
    assert all(figure.axes for figure in figures)
    figures[0].canvas.draw()


def test_plots_of_the_data_need_the_data(flat, tmp_path):
    flat.save(tmp_path / "results.pickle")
    plot = mlfm.load(tmp_path / "results.pickle").plot
    for needs_data in (plot.residual_correlations, plot.scree, plot.scores):
        with pytest.raises(ValueError, match="loaded from a file"):
            needs_data()
    for figure in (plot.loadings(), plot.covariance(), plot.convergence(), plot.variance_shares()):
        assert isinstance(figure, Figure)
