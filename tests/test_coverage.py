"""95 % intervals hold the truth in 95 % of samples: data from known parameters, fitted, intervals against the truth.

What is covered in one sample depends on each other, so the unit is the sample: the mean over samples of the share that
each covers. Margins are three standard errors of that mean and one percent for what the limit of many observations
leaves out: with standard errors a sixth too small or a fifth too large loadings and uniquenesses fail in every test,
communalities in most; shares, of which there are few, fail with such as are a third too small. benchmarks/coverage.py
does the same for more samples, sizes and kinds.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats

import mlfm
from mlfm.rotation import canonical
from mlfm.sweep import Tree

RANKS = (2, 1)
KINDS = ("loadings", "uniquenesses", "communalities", "shares")
FINITE = 0.01


@dataclass(frozen=True)
class Truth:
    """Two global factors of unlike size and one of each of equal groups; no sample swaps them or ends on a floor."""

    n: int
    n_groups: int

    @property
    def hierarchy(self):
        return mlfm.Hierarchy(pd.DataFrame({"group": np.repeat(np.arange(self.n_groups), self.n // self.n_groups)}))

    @cached_property
    def parts(self):
        rng = np.random.default_rng(2)
        D = rng.uniform(0.3, 0.9, self.n)
        contrast = np.where(np.arange(self.n) % 3 < 2, 1, -1)
        columns = [rng.uniform(0.6, 1, self.n), contrast * rng.uniform(0.3, 0.6, self.n), rng.uniform(0.6, 0.9, self.n)]
        return canonical(Tree.of(self.hierarchy.offsets, RANKS), np.column_stack(columns), D), D

    @property
    def quantities(self):
        """What intervals should cover, kind by kind."""
        F, D = self.parts
        explained = (F**2).sum(axis=1)
        variances = np.array([(F[:, :2] ** 2).sum(), (F[:, 2] ** 2).sum(), D.sum()])
        return F, D, explained / (explained + D), variances / variances.sum()

    def draw(self, nobs, rng):
        return mlfm.MultilevelCovariance(self.hierarchy, *self.parts, ranks=RANKS).sample(nobs, rng=rng).to_numpy()

    def signs(self, loadings):
        """Of each loading, what turns its factor the way of the true one."""
        products, size = self.parts[0] * loadings, self.n // self.n_groups
        of_groups = np.repeat(products[:, 2].reshape(-1, size).sum(axis=1), size)
        return np.sign(np.column_stack([np.broadcast_to(products[:, :2].sum(axis=0), (self.n, 2)), of_groups]))


def intervals(results, truth):
    """Lower and upper ends, kind by kind."""
    n, r, half = truth.n, sum(RANKS), stats.norm.isf(0.025)
    ends = results.conf_int().to_numpy()
    loadings = (ends[n : n * (r + 1)].reshape(n, r, 2) * truth.signs(results.loadings.to_numpy())[..., None]).T
    communalities, errors = results.communalities.to_numpy(), results.communalities_bse.to_numpy()
    shares = results.variance_shares()
    yield np.sort(loadings, axis=0).swapaxes(1, 2)
    yield ends[n * (r + 1) :].T
    yield communalities - half * errors, communalities + half * errors
    yield shares.iloc[:, -2].to_numpy(), shares.iloc[:, -1].to_numpy()


def shares_covered(truth, draws, cov_types):
    """By cov_type and kind: the share of its intervals that hold the truth, sample by sample."""
    covered = {(cov_type, kind): [] for cov_type in cov_types for kind in KINDS}
    first = None
    for values in draws:
        if first is None:
            first = mlfm.MultilevelFactorModel(values, hierarchy=truth.hierarchy, ranks=list(RANKS)).fit(n_threads=1)
        results = first.model._of_other_data(values)._refit(like=first, start=first)
        assert results.converged
        assert results.on_floor.empty
        for cov_type in cov_types:
            found = zip(KINDS, truth.quantities, intervals(results.with_cov_type(cov_type), truth), strict=True)
            for kind, true, (lower, upper) in found:
                covered[cov_type, kind].append(np.mean((lower < true) & (true < upper)))
    return {key: np.array(shares) for key, shares in covered.items()}


def nominal(kind, nobs):
    """What normal intervals cover where the limit holds but for one thing that is known exactly.

    With the factors known an estimated uniqueness is D / N times chi-square with N less as many degrees of freedom as
    the feature has loadings and means. It is low by their share in N, and its standard error with it.
    """
    if kind != "uniquenesses":
        return 0.95
    half = stats.norm.isf(0.025) * np.sqrt(2 / nobs)
    estimates = stats.chi2(nobs - sum(RANKS) - 1, scale=1 / nobs)
    return estimates.cdf(1 / (1 - half)) - estimates.cdf(1 / (1 + half))


def assert_covers(covered, cov_type, nobs):
    for kind in KINDS:
        shares = covered[cov_type, kind]
        margin = FINITE + 3 * shares.std(ddof=1) / np.sqrt(len(shares))
        assert margin < (0.09 if kind == "shares" else 0.045), kind  # else too few samples to say
        assert abs(shares.mean() - nominal(kind, nobs)) < margin, (cov_type, kind)


def test_intervals_of_complete_data():
    truth, rng = Truth(20, 4), np.random.default_rng(1)
    covered = shares_covered(truth, (truth.draw(300, rng) for _ in range(100)), ["expected"])
    assert_covers(covered, "expected", 300)


def test_intervals_of_closed_forms_for_many_features():
    truth, rng = Truth(200, 4), np.random.default_rng(2)
    covered = shares_covered(truth, (truth.draw(300, rng) for _ in range(100)), ["asymptotic"])
    assert_covers(covered, "asymptotic", 300)


def test_intervals_with_missing_values():
    truth, rng = Truth(20, 4), np.random.default_rng(3)

    def draw():
        """Every observation misses the values of one of thirty patterns, a tenth on average."""
        missing = (rng.random((30, truth.n)) < 0.1)[rng.integers(30, size=300)]
        return np.where(missing, np.nan, truth.draw(300, rng))

    draws = (draw() for _ in range(60))
    assert_covers(shares_covered(truth, draws, ["oim"]), "oim", 270)


def test_with_heavy_tails_the_sandwich_covers_and_the_information_does_not():
    # One observation in four has three times the standard deviation, so that E s^4 / (E s^2)^2 = 7 / 3. It multiplies
    # the variances of communalities and shares, which do not depend on s, and 1 + 3 / 2 (7 / 3 - 1) = 3 those of
    # uniquenesses: information would cover 80 and 74 %. As much is known of a variance as from N / 3 observations.
    truth, rng = Truth(20, 4), np.random.default_rng(4)

    def draw():
        return truth.draw(600, rng) * np.where(rng.random((600, 1)) < 0.25, 3, 1) / np.sqrt(3)

    covered = shares_covered(truth, (draw() for _ in range(80)), ["expected", "robust"])
    for kind in KINDS:
        assert covered["expected", kind].mean() < 0.86, kind
    assert_covers(covered, "robust", 200)
