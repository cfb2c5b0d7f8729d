"""Every public object can be pickled and copied, also when every lazy attribute has been read."""

import copy
import importlib
import inspect
import pickle
import re
import warnings
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import mlfm
from mlfm.covariance.operator import Frozen, FrozenOperator

pytestmark = [pytest.mark.portable, pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")]

RNG = np.random.default_rng(16)
FEATURES = [f"x{j}" for j in range(12)]
GROUPS = pd.DataFrame({"area": np.repeat(list("ab"), 6), "part": np.repeat(list("stuv"), 3)}, index=FEATURES)
SIZES = [6, 6]  # of the areas
FACTORS = RNG.standard_normal((80, 1)) + RNG.standard_normal((80, 2)).repeat(SIZES, axis=1)
ENDOG = pd.DataFrame(FACTORS + RNG.standard_normal((80, 12)), columns=FEATURES)
RANKS = {"global": 1, "area": 1, "part": 0}


def fitted(ranks=RANKS, endog=ENDOG, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        return mlfm.MultilevelFactorModel(endog, hierarchy=GROUPS, ranks=ranks, **options).fit()


RESULTS = fitted()
COVARIATES = pd.DataFrame({"z": RNG.standard_normal(80)})
WITH_GAPS = fitted(endog=ENDOG.mask(RNG.uniform(size=ENDOG.shape) < 0.05), exog=COVARIATES)
SIGMA = RESULTS.covariance
LOW_RANK = mlfm.MultilevelLowRank(SIGMA.hierarchy, SIGMA.loadings, SIGMA.loadings * 2, diag=1.0)
MATRIX = mlfm.lowrank.fit(SIGMA.to_dense(), SIGMA.hierarchy, ranks=[1, 1, 0]).matrix


def formula_model():
    text = "~ 1 + np.exp(z) + latent(1, d=1) + latent(area, d=1)"
    return mlfm.MultilevelFactorModel.from_formula(text, COVARIATES, endog=ENDOG, hierarchy=GROUPS)


def bootstrap():
    return RESULTS.bootstrap(4, rng=0)


MAKERS = {
    "MultilevelFactorModel": [lambda: RESULTS.model, lambda: WITH_GAPS.model, formula_model],
    "Hierarchy": [lambda: SIGMA.hierarchy],
    "MultilevelCovariance": [lambda: RESULTS.covariance, lambda: SIGMA.marginal(FEATURES[:4])],
    "MultilevelLowRank": [lambda: LOW_RANK, lambda: LOW_RANK.T, lambda: LOW_RANK @ SIGMA],
    "MultilevelPrecision": [lambda: SIGMA.inv()],
    "covariance.Conditional": [lambda: SIGMA.conditional({"area": "a"})],
    "covariance.ExpandedCholesky": [lambda: SIGMA.cholesky()],
    "covariance.MultilevelRoot": [lambda: SIGMA.sqrt()],
    "lowrank.MultilevelMatrix": [lambda: MATRIX],
    "lowrank.SampleCovariance": [lambda: mlfm.lowrank.SampleCovariance(ENDOG)],
    "lowrank.LowRankFit": [
        lambda: mlfm.lowrank.fit(SIGMA.to_dense(), SIGMA.hierarchy, ranks=[1, 1, 0]),
        lambda: mlfm.lowrank.fit(SIGMA.to_dense(), SIGMA.hierarchy, ranks=[1, 1, 0], structure="psd", diagonal=True),
    ],
    "lowrank.RankAllocation": [lambda: mlfm.lowrank.allocate_ranks(SIGMA.to_dense(), SIGMA.hierarchy, total=2, rng=0)],
    "lowrank.Partition": [lambda: mlfm.lowrank.partition(SIGMA.to_dense(), n_groups=[2], rng=0)],
    "MultilevelFactorResults": [lambda: RESULTS, lambda: WITH_GAPS],
    "results.RotatedResults": [lambda: fitted([2, 1, 0]).rotate("varimax")],
    "results.Imputed": [lambda: WITH_GAPS.impute()],
    "results.Interval": [lambda: RESULTS.conditional(ENDOG[FEATURES[:3]]).interval()],
    "results.Prediction": [lambda: RESULTS.conditional(ENDOG[FEATURES[:3]])],
    "inference.likelihood_ratio.LikelihoodRatio": [lambda: fitted(exog=COVARIATES).compare_lr_test(RESULTS)],
    "inference.likelihood_ratio.BootstrapLikelihoodRatio": [
        lambda: mlfm.lr_test(fitted([1, 0, 0]), RESULTS, method="bootstrap", n_reps=3, rng=0)
    ],
    "inference.saturated.SaturatedTest": [lambda: RESULTS.test_saturated()],
    "inference.fit_measures.FitMeasures": [lambda: RESULTS.fit_measures()],
    "inference.weak_factors.WeakFactor": [lambda: fitted([4, 1, 0]).weak_factors()[0]],
    "reporting.plots.Plots": [lambda: RESULTS.plot],
    "inference.bootstrap.Bootstrap": [bootstrap],
    "inference.replicates.Replicates": [lambda: bootstrap().shares],
    "comparison.Comparison": [lambda: mlfm.compare({"one": fitted([1, 0, 0]), "two": RESULTS})],
    "validation.CrossValidation": [lambda: mlfm.cross_validate(RESULTS.model, n_splits=2, rng=0)],
    "rank_selection.RankSelection": [lambda: mlfm.select_ranks(ENDOG, hierarchy=GROUPS, max_rank=RANKS)],
    "first_guess.ParallelAnalysis": [lambda: mlfm.parallel_analysis(ENDOG, hierarchy=GROUPS, n_permutations=5, rng=0)],
    "datasets.Dataset": [lambda: mlfm.datasets.load("abilities")],
    "estimation.FitRecord": [lambda: RESULTS.record],
    "estimation.Climb": [lambda: RESULTS.record.climbs[0]],
    "FitInterrupted": [lambda: mlfm.FitInterrupted(RESULTS)],
    "estimation.Evaluation": [lambda: RESULTS.record.evaluations[-1]],
}
COMPOSED = {
    "a multiple": lambda: 2 * SIGMA.sqrt(),
    "a product": lambda: SIGMA.inv() @ SIGMA.sqrt(),
    "a sum": lambda: SIGMA + SIGMA.sqrt(),
    "a transpose": lambda: SIGMA.sqrt().T,
    "a conditional mean": lambda: SIGMA.conditional({"area": "a"}).mean_map,
    "with SciPy's on the right": lambda: SIGMA @ aslinearoperator(np.eye(12)),
    "with SciPy's on the left": lambda: aslinearoperator(np.eye(12)) @ SIGMA,
}
EVERY = [(name, maker) for name, makers in MAKERS.items() for maker in makers] + list(COMPOSED.items())


# What an object does not have is an error with words, the copy's too.
ABSENT = {
    ("LowRankFit", "covariance"): ValueError,
    ("MultilevelMatrix", "_bordered"): np.linalg.LinAlgError,
    **{("RotatedResults", name): ValueError for name in ("bse", "tvalues", "pvalues")},
}
# What copies go without, so that they are small.
LEFT_OUT = {
    ("Design", "matrix"),  # its rows: the model has them as exog
    ("Design", "rule"),  # which holds functions of the caller
}


def is_ours(thing):
    return type(thing).__module__.startswith("mlfm") and not isinstance(thing, type)


def parts(thing):
    """What one of our objects holds, by name."""
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    held = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
    return {**held, **(thing.__getstate__() if isinstance(thing, Frozen) else getattr(thing, "__dict__", {}))}


def read(thing, seen):
    """The values of all properties of an object, and of what it holds."""
    if id(thing) in seen:
        return seen[id(thing)]
    values = seen[id(thing)] = {}
    for name in dir(type(thing)):
        if not isinstance(inspect.getattr_static(type(thing), name), (property, cached_property)):
            continue
        try:
            values[name] = getattr(thing, name)
        except tuple(kind for (own, absent), kind in ABSENT.items() if (own, absent) == (type(thing).__name__, name)):
            values[name] = "absent"
    return values | {f"of {name}": read(part, seen) for name, part in parts(thing).items() if is_ours(part)}


def assert_same(mine, other, seen):
    assert type(mine) is type(other)
    if id(mine) in seen:
        return
    seen[id(mine)] = mine
    if isinstance(mine, pd.DataFrame):
        pd.testing.assert_frame_equal(mine, other)
    elif isinstance(mine, pd.Series):
        pd.testing.assert_series_equal(mine, other)
    elif isinstance(mine, pd.Index):
        pd.testing.assert_index_equal(mine, other)
    elif isinstance(mine, (np.ndarray, float)):
        np.testing.assert_array_equal(mine, other)
    elif isinstance(mine, LinearOperator):
        assert mine.shape == other.shape
        np.testing.assert_allclose(other @ np.ones(mine.shape[1]), mine @ np.ones(mine.shape[1]), rtol=1e-12)
        np.testing.assert_allclose(other.T @ np.ones(mine.shape[0]), mine.T @ np.ones(mine.shape[0]), rtol=1e-12)
    elif isinstance(mine, (tuple, list)):
        assert len(mine) == len(other)
        for a, b in zip(mine, other, strict=True):
            assert_same(a, b, seen)
    elif isinstance(mine, dict):
        # What is worked out when first asked for need not be in the copy, and so not what it holds.
        mine = {name: mine[name] for name in mine if name in other or not str(name).startswith("of ")}
        assert set(mine) == set(other)
        assert_same([mine[name] for name in other], list(other.values()), seen)
    elif is_ours(mine):
        # What is worked out when first asked for need not be in the copy.
        held, copied = parts(mine), parts(other)
        kept = [name for name in copied if name in held and (type(mine).__name__, name) not in LEFT_OUT]
        assert_same([held[name] for name in kept], [copied[name] for name in kept], seen)
    elif isinstance(mine, (str, int, bool, type(None))):
        assert mine == other


def test_every_public_class_is_here():
    page = (Path(__file__).parent.parent / "docs" / "api.rst").read_text(encoding="utf-8")
    documented = set()
    for name in re.findall(r"^   ([\w.]+)$", page, re.MULTILINE):
        home, _, own = f"mlfm.{name}".rpartition(".")
        found = getattr(importlib.import_module(home), own)
        if inspect.isclass(found) and not issubclass(found, Warning):
            documented.add(name)
    assert documented == set(MAKERS)


@pytest.mark.parametrize(("name", "maker"), EVERY, ids=[name for name, _ in EVERY])
def test_pickled_and_copied_after_everything_has_been_read(name, maker):
    thing = maker()
    if name in MAKERS:
        assert type(thing).__name__ == name.rpartition(".")[2]
    before = read(thing, {})
    for again in (
        pickle.loads(pickle.dumps(thing)),
        pickle.loads(pickle.dumps(thing, protocol=2)),
        copy.copy(thing),
        copy.deepcopy(thing),
    ):
        assert_same(thing, again, {})
        assert_same(before, read(again, {}), {})


@pytest.mark.parametrize("operator", [SIGMA, LOW_RANK, MATRIX, SIGMA.inv(), SIGMA.sqrt(), 2 * SIGMA.sqrt()], ids=repr)
def test_operators_stay_frozen(operator):
    assert isinstance(operator, FrozenOperator)
    for again in (pickle.loads(pickle.dumps(operator)), copy.deepcopy(operator)):
        with pytest.raises(AttributeError, match="cannot be changed"):
            again.shape = (1, 1)
        if isinstance(again, mlfm.MultilevelLowRank):
            assert not any(
                array.flags.writeable for array in (again._terms.left, again._terms.right, again._terms.diag)
            )


def test_what_is_worked_out_does_not_go_into_the_file():
    fresh = mlfm.MultilevelCovariance(SIGMA.hierarchy, SIGMA.loadings, SIGMA.uniquenesses)
    size = len(pickle.dumps(fresh))
    fresh.solve(np.ones(12))
    read(fresh, {})
    assert len(pickle.dumps(fresh)) == size


KINDS = ["Covariance", "LowRank", "Precision", "Root", "Matrix", "SampleCovariance", "a multiple", "a product", "a sum"]
OPERATORS = [maker for name, maker in EVERY if name.endswith((*KINDS, "a transpose", "a conditional mean"))]


@pytest.mark.parametrize("maker", OPERATORS)
def test_what_scipy_keeps_does_not_go_into_the_file(maker):
    operator = maker()
    assert isinstance(operator, FrozenOperator)
    assert not {"dtype", "shape"} & set(operator.__getstate__())
    vars(operator)["_later"] = np  # a module, as SciPy 1.18 has one
    again = pickle.loads(pickle.dumps(operator))
    assert "_later" not in vars(again)
    assert_same(operator, again, {})
