"""Fits side by side, and cross-validation, against fits made by hand and dense likelihoods."""

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
from oracle import dense_loglikeobs, dense_loglikeobs_seen, make_case

import mlfm
from mlfm import ConvergenceWarning, MultilevelFactorModel, compare, cross_validate

LABELS = [[0] * 12, list("abcabcabcabc")]


def sampled(nobs, seed):
    """Data of a global factor and one for each of three groups; features of a group do not stand together."""
    case = make_case(LABELS, (1, 1))
    F, D = np.random.default_rng(8).uniform(0.5, 0.9, (12, 2)), np.full(12, 0.5)
    truth = mlfm.MultilevelCovariance(case.hierarchy, F, D, ranks=[1, 1])
    return dataclasses.replace(case, loadings=F, uniquenesses=D, Y=1 + truth.sample(nobs, rng=seed).to_numpy())


CASE, NEW = sampled(120, 1), sampled(30, 2)
FRAME = CASE.frame.set_axis([f"row {i}" for i in range(120)])


def model_of(ranks=(1, 1), frame=FRAME, **options):
    return MultilevelFactorModel(frame, hierarchy=CASE.hierarchy, ranks=list(ranks), **options)


def flat_of(frame):
    return MultilevelFactorModel(frame, hierarchy=mlfm.Hierarchy(frame.columns), ranks=[1])


@pytest.fixture(scope="module")
def fits():
    return {"flat": model_of((1, 0)).fit(), "groups": model_of().fit()}


# The table


def test_the_table_holds_what_the_results_say(fits):
    table = compare(fits).table
    assert list(table.index) == ["flat", "groups"]
    for name, fit in fits.items():
        row, measures = table.loc[name], fit.fit_measures()
        for column in ("llf", "df_model", "aic", "bic", "sabic"):
            assert row[column] == getattr(fit, column)
        assert row["ebic"] == fit.ebic()
        assert [row["chi2"], row["chi2_df"], row["pvalue"]] == [measures.chi2, measures.df, measures.pvalue]
    assert table["bic"].idxmin() == "groups"
    assert list(table["groups"]) == ["1, 3", "1, 3"]
    assert list(table["ranks"]) == ["1, 0", "1, 1"]


def test_a_list_of_fits(fits):
    pd.testing.assert_frame_equal(compare(list(fits.values())).table, compare(*fits.values()).table)


def test_names(fits):
    flat, groups = fits.values()
    assert list(compare(flat, groups).table.index) == [1, 2]
    assert list(compare(flat, groups, names=["a", ("b", 1)]).table.index) == ["a", ("b", 1)]
    for names in (["a"], ["a", "a"]):
        with pytest.raises(ValueError, match="a different name for each of the 2 fits"):
            compare(flat, groups, names=names)
    with pytest.raises(ValueError, match="names already"):
        compare(fits, names=["a", "b"])
    with pytest.raises(ValueError, match="nothing to compare"):
        compare()
    with pytest.raises(TypeError, match="2 must be results of a fit, not MultilevelFactorModel"):
        compare(flat, flat.model)


def test_it_reads_well(fits):
    found = compare(fits)
    text = str(found)
    assert "120 observations, 12 features" in text
    assert f"{fits['groups'].bic:.2f}" in text
    assert "<table" in found._repr_html_()
    few = {name: model_of(fit.ranks, FRAME.iloc[:11]).fit(tol=1) for name, fit in {"flat": fits["flat"]}.items()}
    noted = compare(few)
    assert noted.table["chi2"].isna().all()
    assert "chi2" not in noted._shown().index
    assert max(map(len, str(noted).splitlines())) <= 80
    assert "singular with 11 observations" in noted.notes[0]


def test_only_fits_of_the_same_data_are_compared(fits):
    good = fits["groups"]
    with pytest.raises(ValueError, match="2 is of other data, or weights, than 1"):
        compare(good, model_of(frame=FRAME + np.eye(120, 12)).fit())
    with pytest.raises(ValueError, match="other data, or weights"):
        compare(good, model_of(weights=np.linspace(1, 2, 120)).fit())
    with pytest.raises(ValueError, match="2 has 100 observations, 1 has 120"):
        compare(good, model_of(frame=FRAME.iloc[:100]).fit())
    with pytest.raises(ValueError, match="2 has other features than 1: 'new', 'x3' are in one of the two only"):
        compare(good, flat_of(FRAME.rename(columns={"x3": "new"})).fit())
    with pytest.raises(ValueError, match="2 has other features than 1: 'x0', 'x1' are"):
        compare(good, flat_of(FRAME.iloc[:, 2:]).fit())
    # The same names on other columns are other data.
    with pytest.raises(ValueError, match="other data, or weights"):
        compare(good, model_of(frame=FRAME.set_axis(FRAME.columns[::-1], axis=1)).fit())
    with pytest.warns(ConvergenceWarning):
        short = model_of().fit(maxiter=1)
    with pytest.raises(ValueError, match="2 did not converge"):
        compare(good, short)
    alone = copy.copy(good)
    alone.remove_data()
    with pytest.raises(ValueError, match="loaded from a file"):
        compare(good, alone)


def test_other_groups_and_covariates_can_be_compared(fits):
    x = np.random.default_rng(2).standard_normal(120)
    halves = pd.DataFrame({"half": ["a"] * 6 + ["b"] * 6}, index=FRAME.columns)
    others = {
        "covariate": MultilevelFactorModel(FRAME, x, hierarchy=CASE.hierarchy, ranks=[1, 1]).fit(),
        "halves": MultilevelFactorModel(FRAME, hierarchy=halves, ranks=[0, 1]).fit(),
    }
    table = compare(fits | others).table
    assert table.loc["covariate", "df_model"] == table.loc["groups", "df_model"] + 12
    assert table.loc["covariate", "chi2_df"] == table.loc["groups", "chi2_df"]
    assert table["llf"].idxmax() == "covariate"


@pytest.fixture(scope="module")
def by_hierarchy():
    """The same data by the groups they were made with, by none, by random ones, and by finer ones."""
    features = FRAME.columns
    true = CASE.hierarchy.to_frame().iloc[:, -1]
    finer = pd.DataFrame({"kind": true.to_list(), "sort": [0] * 6 + [1] * 6}, index=features)
    # As someone would have them: groups in the columns, one beside another, and a hierarchy in an order of its own.
    sorted_frame = FRAME[sorted(features, key=true.get)]
    sorted_frame.columns = pd.MultiIndex.from_arrays([true[sorted_frame.columns], sorted_frame.columns])
    return {
        "true": MultilevelFactorModel(sorted_frame, ranks=[1, 1]).fit(),
        "none": MultilevelFactorModel(FRAME, hierarchy=mlfm.Hierarchy(features), ranks=[2]).fit(),
        "random": MultilevelFactorModel(
            FRAME, hierarchy=mlfm.Hierarchy.random(features[::-1], [3], rng=7), ranks=[1, 1]
        ).fit(),
        "finer": MultilevelFactorModel(FRAME, hierarchy=finer.iloc[::-1], ranks={"global": 1, "kind": 1}).fit(),
    }


def test_hierarchies_side_by_side(by_hierarchy):
    found = compare(by_hierarchy, held_out=NEW.frame, n_splits=4)
    table = found.table
    assert list(table["groups"]) == ["1, 3", "1", "1, 3", "1, 3, 6"]
    assert list(table["ranks"]) == ["1, 1", "2", "1, 1", "1, 1, 0"]
    # A level without factors changes nothing, nor do names of levels and the order of the features.
    alike = ["llf", "df_model", "aic", "bic", "sabic", "ebic", "chi2", "chi2_df", "held_out", "held_out_se"]
    np.testing.assert_allclose(*table.loc[["true", "finer"], alike].to_numpy(dtype=float), rtol=1e-5)
    assert table.loc["true", "cross_validated"] == pytest.approx(table.loc["finer", "cross_validated"], abs=1e-3)
    for name, fit in by_hierarchy.items():
        new = NEW.frame[fit.hierarchy.features].to_numpy()
        each = dense_loglikeobs(new, fit.mean.to_numpy(), fit.covariance.to_dense())
        assert table.loc[name, "held_out"] == pytest.approx(each.mean(), rel=1e-12)
    for best, column in ((min, "bic"), (max, "held_out"), (max, "cross_validated")):
        assert best(["true", "none", "random"], key=table[column].get) == "true"
    assert "groups" in str(found)


def test_the_order_of_the_fits_changes_nothing(by_hierarchy):
    first = compare(by_hierarchy, held_out=NEW.frame).table
    names = list(by_hierarchy)[::-1]
    second = compare({name: by_hierarchy[name] for name in names}, held_out=NEW.frame).table
    pd.testing.assert_frame_equal(first.loc[names], second, check_exact=True)


# New observations


def test_held_out_observations(fits):
    table = compare(fits, held_out=NEW.frame[NEW.frame.columns[::-1]]).table
    for name, fit in fits.items():
        each = dense_loglikeobs(NEW.Y, fit.mean.to_numpy(), fit.covariance.to_dense())
        assert table.loc[name, "held_out"] == pytest.approx(each.mean(), rel=1e-12)
        assert table.loc[name, "held_out_se"] == pytest.approx(each.std(ddof=1) / np.sqrt(30), rel=1e-10)
    assert table["held_out"].idxmax() == "groups"
    one = compare(fits, held_out=NEW.frame.iloc[:1]).table  # too few to fit, enough to judge
    assert one["held_out"].notna().all()
    assert one["held_out_se"].isna().all()


def test_held_out_observations_with_missing_values_and_covariates():
    rng = np.random.default_rng(1)
    exog, new_exog = (pd.DataFrame({"x": rng.standard_normal(k), "y": rng.standard_normal(k)}) for k in (120, 30))
    plain = MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[1, 1]).fit()
    fit = MultilevelFactorModel(CASE.frame, exog, hierarchy=CASE.hierarchy, ranks=[1, 1]).fit()
    new = NEW.frame.mask(rng.random((30, 12)) < 0.2)
    table = compare(fit, plain, held_out=new, held_out_exog=new_exog[["y", "x"]]).table
    design = np.column_stack([np.ones(30), new_exog])
    means = [design @ fit.coefficients.to_numpy().T, plain.mean.to_numpy()]
    for found, mean, results in zip(table["held_out"], means, (fit, plain), strict=True):
        each = dense_loglikeobs_seen(new.to_numpy(), mean, results.covariance.to_dense())
        assert found == pytest.approx(each.mean(), rel=1e-12)
    with pytest.raises(ValueError, match="held_out_exog: the model has the covariate 'x'"):
        compare(fit, held_out=new)


def test_refusals_of_held_out_observations(fits):
    for held_out, error, message in (
        (NEW.Y, TypeError, "held_out must be a DataFrame"),
        (NEW.frame.drop(columns="x3"), ValueError, "held_out: labels do not match.*missing: 'x3'"),
        (NEW.frame.iloc[:0], ValueError, "no observations"),
        (NEW.frame.replace(NEW.Y[0, 0], np.inf), ValueError, "infinite"),
        (NEW.frame.mask(np.arange(30)[:, None] == [3] * 12), ValueError, "nothing is observed at rows 3"),
    ):
        with pytest.raises(error, match=message):
            compare(fits, held_out=held_out)
    x = pd.DataFrame({"x": np.ones(30)})
    with pytest.raises(ValueError, match="held_out, which is not given"):
        compare(fits, held_out_exog=x)
    with pytest.raises(ValueError, match="its index differs"):
        compare(fits, held_out=NEW.frame, held_out_exog=x.iloc[1:])
    with pytest.raises(TypeError, match="held_out_exog must be a DataFrame"):
        compare(fits, held_out=NEW.frame, held_out_exog=np.ones(30))
    with pytest.raises(ValueError, match="values are missing"):
        compare(fits, held_out=NEW.frame, held_out_exog=x.mask(x == 1))


# Cross-validation


@pytest.mark.parametrize("gaps", [False, True])
def test_each_fold_is_a_fit_of_the_others(gaps):
    frame = FRAME.mask(np.random.default_rng(4).random(FRAME.shape) < 0.03) if gaps else FRAME
    found = cross_validate(model_of(frame=frame), n_splits=4, rng=3)
    tested = found.loglikeobs.index.get_level_values("observation")
    assert sorted(tested) == sorted(FRAME.index)
    for k, row in found.folds.iterrows():
        each = found.loglikeobs.loc[k]
        rest = frame.index.difference(each.index, sort=False)
        assert (row["train"], row["test"], row["converged"]) == (90, 30, True)
        fit = model_of(frame=frame.loc[rest]).fit()
        held = frame.loc[each.index].to_numpy()
        expected = dense_loglikeobs_seen(held, fit.mean.to_numpy(), fit.covariance.to_dense())
        # The rows of zeros change the rounding, and so where the fit stops.
        np.testing.assert_allclose(each, expected, atol=0.02)
        assert row["mean"] == pytest.approx(each.mean())
    assert found.mean == pytest.approx(found.loglikeobs.mean())
    assert found.std_error == pytest.approx(found.loglikeobs.std() / np.sqrt(120))


def test_any_number_of_jobs_gives_the_same_digits():
    one, three = (cross_validate(model_of(), n_splits=5, n_jobs=jobs) for jobs in (1, 3))
    pd.testing.assert_series_equal(one.loglikeobs, three.loglikeobs, check_exact=True)
    pd.testing.assert_frame_equal(one.folds, three.folds, check_exact=True)
    other = cross_validate(model_of(), n_splits=5, rng=1)
    assert not other.loglikeobs.index.equals(one.loglikeobs.index)
    again = cross_validate(model_of(), n_splits=5, rng=np.random.default_rng(1))
    pd.testing.assert_series_equal(other.loglikeobs, again.loglikeobs, check_exact=True)


def test_it_finds_the_ranks():
    means = {ranks: cross_validate(model_of(ranks), tol=1e-3).mean for ranks in ((0, 0), (1, 0), (0, 1), (1, 1))}
    assert max(means, key=means.get) == (1, 1)


def test_splits_by_hand():
    from sklearn.model_selection import TimeSeriesSplit

    splitter = TimeSeriesSplit(3)
    found = cross_validate(model_of(), splitter)
    assert list(found.folds["train"]) == [30, 60, 90]
    by_hand = cross_validate(model_of(), (pair for pair in splitter.split(np.empty((120, 1)))))
    pd.testing.assert_series_equal(found.loglikeobs, by_hand.loglikeobs, check_exact=True)
    # What is in neither is not used.
    single = cross_validate(model_of(), [(np.arange(60), np.arange(100, 110))])
    assert list(single.loglikeobs.index.get_level_values(1)) == [f"row {i}" for i in range(100, 110)]
    fit = model_of(frame=FRAME.iloc[:60]).fit()
    expected = dense_loglikeobs(CASE.Y[100:110], fit.mean.to_numpy(), fit.covariance.to_dense())
    # Searched alike, they end at the same one of several maxima.
    np.testing.assert_allclose(single.loglikeobs, expected, atol=0.02)


def test_frequencies_are_rows_and_rows_of_weight_zero_are_left_out():
    times = np.random.default_rng(3).integers(0, 3, 120)
    halves = [(np.arange(60), np.arange(60, 120)), (np.arange(60, 120), np.arange(60))]
    counts = cross_validate(model_of(freq_weights=times), halves, tol=1e-8)
    repeated = FRAME.iloc[np.repeat(np.arange(120), times)].reset_index(drop=True)
    first = times[:60].sum()
    rows = [(np.arange(first), np.arange(first, len(repeated))), (np.arange(first, len(repeated)), np.arange(first))]
    each = cross_validate(model_of(frame=repeated), rows, tol=1e-8)
    assert counts.mean == pytest.approx(each.mean, abs=1e-5)
    assert counts.std_error == pytest.approx(each.std_error, rel=1e-4)
    assert len(counts.loglikeobs) == (times > 0).sum()
    assert list(counts.folds["test"]) == list(each.folds["test"])


def test_importance_weights_weigh_what_is_held_out():
    weights = np.random.default_rng(3).uniform(0.1, 3, 120)
    found = cross_validate(model_of(weights=weights), n_splits=3)
    own = pd.Series(weights, FRAME.index)[found.loglikeobs.index.get_level_values(1)].to_numpy()
    np.testing.assert_allclose(found.weights, own)
    assert found.mean == pytest.approx(np.average(found.loglikeobs, weights=own))


def test_folds_in_a_comparison_are_the_same_for_all(fits):
    table = compare(fits, n_splits=4, rng=np.random.default_rng(5)).table
    seed = int(np.random.default_rng(5).integers(2**63))
    for name, fit in fits.items():
        alone = cross_validate(fit.model, 4, rng=seed)
        assert table.loc[name, "cross_validated"] == alone.mean
        assert table.loc[name, "cross_validated_se"] == alone.std_error
    once = compare(fits, n_splits=iter([(np.arange(100), np.arange(100, 120))])).table
    assert once["cross_validated"].notna().all()


def test_what_did_not_converge_is_told():
    with pytest.warns(ConvergenceWarning, match=r"3 fits of 3 did not converge, of splits 0, 1, 2"):
        found = cross_validate(model_of(), n_splits=3, maxiter=1)
    assert not found.folds["converged"].any()
    assert "Held-out log-likelihood per observation" in str(found)


def test_refusals_of_cross_validation(fits):
    model = model_of()
    few = np.arange(3)
    for arguments, error, message in (
        ({"n_splits": 1}, ValueError, "from 2 folds to as many as there are observations, 120, not 1"),
        ({"n_splits": 121}, ValueError, "120, not 121"),
        ({"n_splits": True}, TypeError, "n_splits must be a number of folds"),
        ({"n_splits": "loo"}, TypeError, "n_splits must be a number of folds"),
        ({"n_splits": []}, ValueError, "there are no splits"),
        ({"n_splits": [few]}, ValueError, "split 0 is not a pair"),
        ({"n_splits": [(few, few)]}, ValueError, "holds out what it fits: 3 observations, at 0, 1, 2"),
        ({"n_splits": [(few, [200])]}, ValueError, "test of split 0 has positions that are none .*: 200"),
        ({"n_splits": [(few, [5, 5])]}, ValueError, "names an observation twice"),
        ({"n_splits": [(few, [5.0])]}, TypeError, "whole numbers"),
        ({"n_splits": [(few, [])]}, ValueError, "split 0 leaves no observations to hold out"),
        ({"n_splits": [([0, 1], [5])], "tol": 1}, ValueError, "split 0 of n_splits cannot be fitted"),
        ({"rng": "x"}, ValueError, "rng must be a seed"),
        ({"n_jobs": 0}, ValueError, "n_jobs must be a whole number"),
        ({"method": "newton"}, ValueError, "method must be one of"),
        ({"maxiter": 1.5}, ValueError, "maxiter must be a whole number"),
        ({"tol": -1}, ValueError, "tol must be 0 or more"),
    ):
        asked = {"model": model_of((3, 0)) if arguments.get("tol") == 1 else model} | arguments
        with pytest.raises(error, match=message):
            cross_validate(**asked)
    with pytest.raises(TypeError, match="model must be a MultilevelFactorModel, not MultilevelFactorResults"):
        cross_validate(fits["flat"])
