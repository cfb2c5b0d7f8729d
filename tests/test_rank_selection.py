"""Ranks by likelihood: against plain fits of all ranks, dense log-likelihoods, simulations with known ranks."""

import dataclasses
import itertools
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from oracle import dense_covariance, dense_loglikeobs, make_case
from scipy import linalg

import mlfm
from mlfm import ConvergenceWarning, IdentificationWarning, MultilevelFactorModel, cross_validate, select_ranks
from mlfm.estimation.new_factors import Factorised, gain
from mlfm.inference.counts import most_identified, unidentified
from mlfm.rank_selection.candidates import Asked, Candidates
from mlfm.rank_selection.moves import coarsest_first, contains, finest_first, neighbours, uniform
from mlfm.rank_selection.outlook import Outlook
from mlfm.ranks import in_words

# Models with too many factors have uniquenesses on their floor.
pytestmark = pytest.mark.filterwarnings("ignore::mlfm.UniquenessFloorWarning")

LABELS = [[0] * 24, list("abcd" * 6)]
DEEP = [[0] * 24, list("aabb" * 6), list("abcd" * 6)]


def sampled(labels, ranks, nobs, seed, low=0.5, high=0.9):
    """Data of a model with loadings between ``low`` and ``high``, signs at random; groups do not stand together."""
    case, rng = make_case(labels, ranks), np.random.default_rng(seed)
    shape = (24, sum(ranks))
    F, D = rng.uniform(low, high, shape) * rng.choice([-1, 1], shape), rng.uniform(0.4, 0.8, 24)
    truth = mlfm.MultilevelCovariance(case.hierarchy, F, D, ranks=list(ranks))
    return dataclasses.replace(case, loadings=F, uniquenesses=D, Y=truth.sample(nobs, rng=seed).to_numpy())


CASE = sampled(LABELS, (2, 1), 300, 3)


def selected(case=CASE, criterion="bic", **options):
    return select_ranks(case.frame, case.hierarchy, criterion, **options)


def model_of(case, ranks, **options):
    return MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=list(ranks), **options)


def value_of(selection):
    """The criterion, less being better."""
    return -selection.path["cv"] if selection.criterion == "cv" else selection.path[selection.criterion]


@pytest.fixture(scope="module")
def selection():
    return selected()


# What is chosen


def test_the_true_ranks_of_strong_factors(selection):
    assert selection.ranks.to_dict() == {"global": 2, "level1": 1}
    assert selection.results.ranks.equals(selection.ranks)
    assert selection.results.converged


def test_the_true_ranks_of_three_levels():
    case = sampled(DEEP, (1, 1, 1), 1500, 5)
    assert selected(case, max_rank={"global": 3, "level1": 2}).ranks.tolist() == [1, 1, 1]


@pytest.mark.filterwarnings("ignore::mlfm.SeveralMaximaWarning")
def test_as_good_as_the_best_of_all_ranks():
    """None of the 18 models, each fitted from several starts, has a lower criterion than the one that is found."""
    case = sampled(DEEP, (1, 1, 1), 80, 11, 0.3, 0.7)
    for criterion in ("bic", "aic"):
        found = selected(case, criterion, max_rank={"global": 2, "level1": 2, "level2": 1})
        fits = {r: model_of(case, r).fit(n_starts=3) for r in itertools.product(range(3), range(3), range(2))}
        best = min(fits, key=lambda ranks: getattr(fits[ranks], criterion))
        assert tuple(found.ranks) == best
        assert getattr(found.results, criterion) < getattr(fits[best], criterion) + 2e-3


@pytest.mark.parametrize(
    ("criterion", "options"), [("bic", {}), ("ebic", {}), ("aic", {"total": 3}), ("cv", {"max_rank": 2})]
)
def test_no_neighbour_is_better(criterion, options):
    found = selected(criterion=criterion, **options)
    values, chosen = value_of(found), tuple(found.ranks)
    most = (options["max_rank"],) * 2 if "max_rank" in options else (10, 3)
    around = list(neighbours(chosen, most, "total" in options))
    assert around
    margin = 1e-3 / (600 if criterion == "cv" else 1)
    for ranks in around:
        assert values.loc[ranks] > values.loc[chosen] - margin
    assert values.min() > values.loc[chosen] - margin


def test_the_total_is_kept():
    found = selected(total=4)
    assert {sum(ranks) for ranks in found.path.index} == {4}
    assert found.path.index[0] == (2, 2)
    assert found.path["move"].iloc[0] == "start: uniform"
    starts = {(2, 2), (1, 3), (4, 0)}  # no group of 6 has room for 4
    assert starts <= set(found.path.index[found.path["accepted"]])


def test_a_total_is_not_decided_by_a_lower_maximum():
    """From its default starts the fit of ranks 2, 1 ends 20 below another maximum, and behind ranks 1, 2."""
    data = mlfm.datasets.load("abilities")
    model = MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1])
    higher = MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[2, 1]).fit(start=model.fit())
    found = select_ranks(data.endog, data.groups, total=3)
    assert found.ranks.tolist() == [2, 1]
    assert found.results.llf > higher.llf - 1e-2


def test_a_start_of_ones_own():
    found = selected(start={"global": 4})
    assert found.path.index[0] == (4, 0)
    assert found.path["move"].iloc[0] == "start: as asked"
    assert (0, 0) not in found.path.index
    assert found.ranks.tolist() == [2, 1]


# The path


def test_numbers_of_the_path_are_those_of_plain_fits(selection):
    assert selection.path.index.is_unique
    for ranks, row in selection.path.iterrows():
        plain = model_of(CASE, ranks).fit(search="none")
        assert row["llf"] > plain.llf - 1e-3
        assert row["df_model"] == plain.df_model
        gained = 2 * (row["llf"] - plain.llf)
        for criterion in ("aic", "bic", "sabic"):
            assert row[criterion] == pytest.approx(getattr(plain, criterion) - gained, rel=1e-12)
        assert row["ebic"] == pytest.approx(plain.ebic() - gained, rel=1e-12)
        assert row["converged"]


def test_the_results_are_the_fit_that_they_seem(selection):
    results, (_, row) = selection.results, next(selection.path.loc[[(2, 1)]].iterrows())
    sigma = dense_covariance(CASE.hierarchy, (2, 1), results.loadings.to_numpy(), results.uniquenesses.to_numpy())
    assert dense_loglikeobs(CASE.Y, CASE.Y.mean(axis=0), sigma).sum() == pytest.approx(results.llf, abs=1e-6)
    assert row["llf"] == results.llf
    assert row["bic"] == results.bic
    assert results.summary() is not None
    assert results.bse.notna().all()


def test_no_fit_is_below_one_of_smaller_ranks(selection):
    llf = selection.path["llf"]
    pairs = [(a, b) for a, b in itertools.permutations(llf.index, 2) if contains(a, b)]
    assert len(pairs) > 10
    assert all(llf.loc[larger] > llf.loc[smaller] - 1e-3 for larger, smaller in pairs)


def test_moves_are_told_from_where_the_search_stood(selection):
    path = selection.path
    assert path["move"].iloc[0] == "start: no factors"
    went = list(path.index[path["accepted"]])
    moves = path[~path["move"].str.startswith("start")]
    assert len(moves) > 5
    for _, tried in moves.groupby("step"):
        steps = zip(tried.index, tried["move"], strict=True)
        froms = [{a for a in went if in_words(a, ranks, path.index.names) == move} for ranks, move in steps]
        assert set.intersection(*froms)
    assert path.loc[tuple(selection.ranks), "accepted"]


def test_routes(selection):
    path, (first, second) = selection.path, selection.routes
    assert first[0] == (0, 0)
    assert first[-1] == tuple(selection.ranks)
    assert second[-1] in first
    assert {*first, *second} == set(path.index[path["accepted"]])
    for route in (first, second):
        values = [path.loc[ranks, "bic"] for ranks in route]
        assert values == sorted(values, reverse=True)
        assert all(b in set(neighbours(a, (10, 3), False)) for a, b in itertools.pairwise(route))


def test_cross_validation_is_that_of_plain_models():
    found = selected(criterion="cv", max_rank=2, n_splits=3, rng=5)
    for ranks, row in found.path.iterrows():
        plain = cross_validate(model_of(CASE, ranks), 3, 5)
        assert (row["cv"], row["cv_se"]) == (plain.mean, plain.std_error)
    assert found.path["cv"].idxmax() == tuple(found.ranks)
    assert "cv" not in selected(max_rank=1).path


@pytest.mark.parametrize("criterion", ["bic", "cv"])
def test_jobs_do_not_matter(criterion):
    one, two = (selected(criterion=criterion, max_rank=2, n_jobs=n_jobs) for n_jobs in (1, 2))
    pd.testing.assert_frame_equal(one.path, two.path, check_exact=True)
    assert one.results.params.equals(two.results.params)


# Fits that go wrong


def failing(monkeypatch, which):
    """Fits of some ranks do not converge."""
    fit = MultilevelFactorModel._fit_quietly

    def fail(model, *given, **options):
        results = fit(model, *given, **options)
        if which is None or model._ranks == which:
            results.record.converged, results.record.reason = False, "made to fail"
        return results

    monkeypatch.setattr(MultilevelFactorModel, "_fit_quietly", fail)


def test_fits_that_do_not_converge_are_not_chosen(monkeypatch):
    failing(monkeypatch, (2, 1))
    found = selected()
    assert found.ranks.tolist() != [2, 1]
    assert found.path["converged"].sum() == len(found.path) - 1
    assert not found.path.loc[(2, 1), "converged"]
    assert any("did not converge" in note and "(2, 1)" in note for note in found.notes)
    assert "NO" in str(selected(total=3))


def test_searches_share_what_they_come_to_at_other_ranks():
    """A fit at a neighbour's ranks that is too low is raised by the search from the best."""
    case = sampled(DEEP, (1, 1, 1), 80, 11, 0.3, 0.7)
    candidates = Candidates(model_of(case, (0, 0, 0)), "bic", [], 1, 1, "none", lambda: None)
    asked = [Asked(ranks, "", {}) for ranks in ((1, 1, 1), (2, 1, 1))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        candidates.fit(asked, 1, 1)
        low = model_of(case, (2, 1, 1)).fit(start="random", maxiter=3, search="none", rng=1)
    low.record.converged = True
    candidate = candidates.known[2, 1, 1]
    candidate.results = low
    candidate.begun.add((1, 1, 1))  # so that it is not raised as a larger model is
    candidates.search([(1, 1, 1)])
    assert candidate.results.llf > low.llf + 1
    assert candidate.results.llf >= candidates.known[1, 1, 1].results.llf


def test_a_choice_among_fits_that_did_not_converge_says_so(monkeypatch):
    failing(monkeypatch, None)
    with pytest.warns(ConvergenceWarning, match="made to fail"):
        found = selected(max_rank=1)
    assert not found.path["converged"].any()


@pytest.mark.filterwarnings("default")
def test_uniquenesses_on_the_floor_are_told_of_the_choice():
    with pytest.warns(mlfm.UniquenessFloorWarning) as said:
        found = selected(sampled(LABELS, (2, 1), 30, 1), total=5)
    assert len(said) == 1
    assert str(len(found.results.on_floor)) in str(said[0].message)


def test_what_is_wrong_with_the_choice_is_said_and_nothing_else():
    # Rank 4 is too much for groups of 6 features; of the other candidates of this total nothing is heard.
    with pytest.warns(IdentificationWarning, match="6 features for 4 factors") as said:
        found = selected(sampled(LABELS, (0, 4), 400, 2), total=4, max_rank=4)
    assert found.ranks.tolist() == [0, 4]
    assert len([warning for warning in said if warning.category is IdentificationWarning]) == 1
    assert said[0].filename == __file__


# What fits are begun with


def test_the_gain_of_a_factor_is_that_of_the_dense_likelihood():
    """In groups of no more features than components are looked at, the largest gain there is."""
    labels = [[0] * 12, list("abcd" * 3)]
    case = make_case(labels, (1, 1), nobs=40, seed=4)
    case = dataclasses.replace(case, Y=case.Y @ np.diag(np.random.default_rng(1).uniform(0.5, 2, 12)))
    order, sigma = case.hierarchy.permutation, case.sigma
    P, S = np.linalg.inv(sigma), case.Y.T @ case.Y / 40
    Q = P @ S @ P
    covariance = mlfm.MultilevelCovariance(case.hierarchy, case.loadings, case.uniquenesses, ranks=[1, 1])
    inverse = Factorised(
        case.hierarchy.offsets, (1, 1), covariance.inv().factors.to_numpy()[order], case.uniquenesses[order]
    )
    gained, f = gain(inverse, 1, (P @ case.Y.T)[order], 40)
    groups = [case.hierarchy.features.get_indexer(own) for own in case.hierarchy.groups("level1").values()]
    thetas = [max(linalg.eigvalsh(Q[np.ix_(own, own)], P[np.ix_(own, own)])[-1], 1) for own in groups]
    assert gained == pytest.approx(sum(20 * (theta - 1 - math.log(theta)) for theta in thetas), rel=1e-9)
    assert gained > 1
    loadings = np.empty(12)
    loadings[order] = f

    def loglike(more):
        return dense_loglikeobs(case.Y, 0, sigma + more).sum()

    for own, theta in zip(groups, thetas, strict=True):
        one = np.zeros(12)
        one[own] = loadings[own]
        if theta > 1.02:
            expected = 20 * (theta - 1 - math.log(theta))
            assert loglike(np.outer(one, one)) - loglike(0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("case", [CASE, sampled(LABELS, (2, 1), 15, 1)], ids=["tall", "wide"])
def test_neighbours_begin_where_they_are_expected_to(case):
    fit = model_of(case, (2, 1)).fit()
    outlook = Outlook(fit)
    for ranks in ((3, 1), (1, 1), (2, 0), (3, 0)):  # one group, so that the gain is no sum
        B, F, D, llf = outlook.of(ranks)
        model = model_of(case, ranks)
        assert model.loglike(model._pack_group(B, F, D)) == pytest.approx(llf, abs=1e-6)
        if contains(ranks, (2, 1)):
            assert llf > fit.llf
    B, F, D, llf = outlook.of((2, 2))
    model = model_of(case, (2, 2))
    assert model.loglike(model._pack_group(B, F, D)) > fit.llf


# Moves


def test_neighbours():
    assert set(neighbours((1, 0), (2, 1), False)) == {(2, 0), (0, 0), (1, 1), (0, 1)}
    assert set(neighbours((1, 0), (2, 1), True)) == {(0, 1)}
    assert set(neighbours((1, 1, 0), (1, 2, 1), True)) == {(0, 2, 0), (0, 1, 1), (1, 0, 1)}
    assert list(neighbours((3,), (3,), True)) == []


def test_words():
    assert in_words((1, 2), (0, 3), ["global", "sector"]) == "sector +1, global -1"
    assert in_words((1, 2), (1, 3), ["global", ("a", 1)]) == "('a', 1) +1"


def test_totals_are_dealt_out():
    assert uniform(5, (1, 3, 3)) == (1, 2, 2)
    assert uniform(4, (3, 3, 3)) == (2, 1, 1)
    assert coarsest_first(5, (3, 3, 3)) == (3, 2, 0)
    assert finest_first(5, (3, 3, 1)) == (1, 3, 1)


# Data of all kinds


def test_labels_and_the_order_of_columns_do_not_matter(selection):
    """Features and levels named by numbers and tuples, columns in another order."""
    order = np.random.default_rng(0).permutation(24)
    groups = CASE.hierarchy.to_frame().iloc[order].set_axis([("x", int(j)) for j in order])
    groups.columns = [7]
    frame = pd.DataFrame(CASE.Y[:, order], columns=pd.Index(groups.index.to_list(), tupleize_cols=False))
    groups.index = frame.columns
    found = select_ranks(frame, groups)
    assert found.ranks.to_dict() == {"global": 2, 7: 1}
    assert list(found.path.index) == list(selection.path.index)
    assert "7 1" in str(found)
    np.testing.assert_allclose(found.path["llf"], selection.path["llf"], atol=2e-3)


def test_missing_values():
    Y = CASE.Y.copy()
    Y[np.random.default_rng(3).random(Y.shape) < 0.05] = np.nan
    case = dataclasses.replace(CASE, Y=Y)
    found = selected(case, max_rank=3)
    assert found.ranks.tolist() == [2, 1]
    assert found.path.loc[(2, 1), "llf"] > model_of(case, (2, 1)).fit().llf - 1e-3
    assert found.results.mean.notna().all()


def test_observations_seen_several_times(selection):
    often = np.random.default_rng(2).integers(0, 3, 300)
    often[:10] = 1
    options = {"max_rank": 2}
    counted = select_ranks(CASE.frame, CASE.hierarchy, freq_weights=often, **options)
    repeated = select_ranks(CASE.frame.iloc[np.repeat(np.arange(300), often)], CASE.hierarchy, **options)
    assert list(counted.path.index) == list(repeated.path.index)
    np.testing.assert_allclose(counted.path["bic"], repeated.path["bic"], atol=4e-3)


def test_covariates():
    x = pd.Series(np.random.default_rng(1).standard_normal(300), name="x")
    found = select_ranks(CASE.frame + 3 * x.to_numpy()[:, None], CASE.hierarchy, exog=x, max_rank=3)
    assert found.ranks.tolist() == [2, 1]
    assert list(found.results.model.covariates) == ["const", "x"]


def test_a_flat_model():
    found = select_ranks(sampled(LABELS, (2, 0), 200, 1).frame)
    assert found.ranks.to_dict() == {"global": 2}
    assert found.path.index[0] == (0,)
    assert "global 2" in str(found)
    assert len(found.plot().axes) == 1


def test_one_feature():
    found = select_ranks(CASE.frame[["x0"]])
    assert found.ranks.tolist() == [0]
    assert len(found.path) == 1


def test_groups_of_one_get_no_factors():
    groups = pd.DataFrame({"group": LABELS[1], "own": range(24)}, index=CASE.frame.columns)
    found = select_ranks(CASE.frame, groups)
    assert found.ranks.tolist() == [2, 1, 0]
    assert set(found.path.index.get_level_values("own")) == {0}


# Bounds, and what may go wrong


def test_other_ranks_of_the_same_data_make_the_same_model():
    base = model_of(CASE, (0, 0))
    with pytest.warns(IdentificationWarning):
        plain = model_of(CASE, (1, 4))
    other = base._of_other_ranks((1, 4))  # without a warning
    assert other.param_names == plain.param_names
    assert other.unidentified == plain.unidentified != []
    assert other.ranks.equals(plain.ranks)
    assert other.loglike(plain.start_params) == plain.loglike(plain.start_params)
    assert base.ranks.tolist() == [0, 0]


@pytest.mark.parametrize("size", range(1, 13))
def test_the_largest_rank_that_is_identified(size):
    hierarchy = mlfm.Hierarchy(pd.RangeIndex(size))
    most = most_identified(hierarchy, 0)
    assert most == max(r for r in range(size + 1) if not list(unidentified(hierarchy, (r,))))


def test_ending_on_the_largest_rank_is_noted(selection):
    assert selection.notes == ()
    assert selected(max_rank=1).notes == ("ended on max_rank at level 'global', 'level1': a larger one may be better",)
    flat = selected(sampled(LABELS, (0, 2), 2000, 4), "aic", start=[0, 3], max_rank={"global": 0})
    assert all("'global'" not in note for note in flat.notes)  # none were wanted there


def test_printing_and_plotting(selection):
    text = str(selection)
    assert text.splitlines()[0] == f"Ranks by BIC: global 2, level1 1 (of {len(selection.path)} fits)"
    assert text.splitlines()[4].split()[:2] == ["2", "1"]
    assert "<table" in selection._repr_html_()
    figure = selection.plot()
    drawn = {int(x) for line in figure.axes[0].lines if line.get_linestyle() != "--" for x in line.get_xdata()}
    assert drawn == set(range(1, len(selection.path) + 1))
    assert selection.plot(ax=figure) is figure
    assert "Note: ended" in str(selected(max_rank=1))


def test_progress(capsys):
    found = selected(max_rank=1, progress=True)
    # One for every fit, and for the search from the best.
    assert f"{len(found.path) + 1}it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"criterion": "waic"}, "criterion must be one of 'aic', 'bic'.*not 'waic'"),
        ({"criterion": ["bic"]}, "criterion must be one of"),
        ({"total": 0}, "total must be a whole number, 1 or more"),
        ({"total": 2.0}, "total must be a whole number"),
        ({"total": 40}, r"total: there is room for 13 factors only \(global 10, level1 3\), not 40; raise max_rank"),
        ({"max_rank": -1}, "max_rank must be a whole number, 0 or more"),
        ({"max_rank": {"sector": 1}}, "max_rank: unknown level 'sector'; the levels are 'global', 'level1'"),
        ({"max_rank": {"level1": 7}}, "max_rank: more factors than the largest group has features.*'level1'"),
        ({"start": {"sector": 1}}, "start: unknown level 'sector'"),
        ({"start": [1]}, "start: 1 numbers for 2 levels"),
        ({"start": [11, 0]}, r"start: more factors than max_rank allows at level 'global' \(11, at most 10\)"),
        ({"start": [1, 1], "total": 3}, "start: these are 2 factors, and total is 3"),
        ({"n_jobs": 0}, "n_jobs must be a whole number"),
        ({"n_splits": 1, "criterion": "cv"}, "n_splits: from 2 folds"),
        ({"rng": "seed", "criterion": "cv"}, "rng must be a seed"),
        ({"trend": "ct"}, "trend must be one of"),
        ({"missing": "impute"}, "missing must be one of"),
    ],
)
def test_errors(options, said):
    with pytest.raises(ValueError, match=said):
        selected(**options)


def test_types():
    with pytest.raises(TypeError, match="start: the rank of level 'level1' must be a whole number"):
        selected(start={"level1": "two"})
    with pytest.raises(TypeError, match="n_splits must be a number of folds"):
        selected(criterion="cv", n_splits="5")
    with pytest.raises(TypeError, match="hierarchy: needed when endog is an array"):
        select_ranks(CASE.Y)


def test_no_more_factors_than_observations():
    """With nearly as many factors as observations any data are fitted to the last digit."""
    case = sampled(LABELS, (1, 0), 9, 1)
    with pytest.raises(ValueError, match="than there are observations \\(9 observations\\)"):
        selected(case, max_rank={"global": 10})
    assert max(map(sum, selected(case).path.index)) <= 4
