"""Whether 95 % intervals cover: data simulated from known parameters, fitted, intervals held against the truth.

What one sample covers of many parameters depends on each other, so errors of the shares covered are those of a mean
over samples of each sample's share.
"""

import multiprocessing
import time
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd
from common import command_line, hierarchy, nested, no_warnings, report
from scipy import stats
from threadpoolctl import threadpool_limits

import mlfm
from mlfm.rotation import canonical
from mlfm.sweep import Tree, available_cpus

RANKS = [2, 1]
GROUPS = {20: 4, 200: 8}
KINDS = ("loadings", "uniquenesses", "communalities", "shares")
TAILS = 8  # degrees of freedom of the multivariate t
MISSING = 0.1
DATA = {"normal": "normal", "t": f"t, {TAILS} df", "missing": f"{MISSING:.0%} missing"}
HALF = stats.norm.isf(0.025)


@dataclass(frozen=True)
class Truth:
    """True parameters of n features in equal groups: two global factors and one of each group.

    The eigenvalues of the global F'D^-1F differ by more than a factor of three, so that no sample swaps the factors.
    """

    n: int

    @cached_property
    def hierarchy(self):
        return hierarchy(self.n, [1, GROUPS[self.n]])

    @cached_property
    def parts(self):
        """Loadings in canonical rotation, and uniquenesses from 0.3 to 1."""
        rng = np.random.default_rng(5)
        D = rng.uniform(0.3, 1, self.n)
        contrast = np.where(np.arange(self.n) % 3 < 2, 1, -1)  # two of three positive: the sign is not in doubt
        of_groups = rng.uniform(0.5, 0.9, self.n)
        F = np.column_stack([rng.uniform(0.5, 1, self.n), contrast * rng.uniform(0.3, 0.6, self.n), of_groups])
        return canonical(Tree.of(nested(self.n, [1, GROUPS[self.n]]), RANKS), F, D), D

    @cached_property
    def covariance(self):
        return mlfm.MultilevelCovariance(self.hierarchy, *self.parts, ranks=RANKS)

    @cached_property
    def values(self):
        """What the intervals should cover, kind by kind."""
        F, D = self.parts
        explained = (F**2).sum(axis=1)
        variances = np.array([(F[:, :2] ** 2).sum(), (F[:, 2] ** 2).sum(), D.sum()])
        return F.ravel(), D, explained / (explained + D), variances / variances.sum()

    def sample(self, nobs, data, rng):
        """Normal data, whole or with values missing at random, or a multivariate t of the same covariance."""
        Y = self.covariance.sample(nobs, rng=rng).to_numpy().copy()
        if data == "t":
            Y *= np.sqrt((TAILS - 2) / rng.chisquare(TAILS, nobs))[:, None]
        elif data == "missing":
            Y[rng.random(Y.shape) < MISSING] = np.nan
        return Y


def intervals(results, truth):
    """Estimates and standard errors, kind by kind, the signs of factors as those of the truth."""
    n, r = truth.n, sum(RANKS)
    F, bse = results.loadings.to_numpy(), results.bse.to_numpy()[-n * (r + 1) :]
    products, bounds = F * truth.parts[0], truth.hierarchy.offsets[1]
    of_global = np.broadcast_to(products[:, :2].sum(axis=0), (n, 2))
    of_groups = np.repeat(np.add.reduceat(products[:, 2], bounds[:-1]), np.diff(bounds))
    signs = np.sign(np.column_stack([of_global, of_groups]))
    shares = results.variance_shares()
    yield (F * signs).ravel(), bse[: n * r]
    yield results.uniquenesses.to_numpy(), bse[n * r :]
    yield results.communalities.to_numpy(), results.communalities_bse.to_numpy()
    yield shares["share"].to_numpy(), shares["std err"].to_numpy()


def one_sample(case, seed):
    """Of every cov_type and kind: estimates, standard errors; None if the fit failed or has a floored uniqueness."""
    n, nobs, data, cov_types = case
    truth = Truth(n)
    Y = truth.sample(nobs, data, np.random.default_rng([n, nobs, seed]))
    model = mlfm.MultilevelFactorModel(Y, hierarchy=truth.hierarchy, ranks=RANKS)
    start = model.pack(*truth.parts, np.nanmean(Y, axis=0))
    with no_warnings():
        results = model.fit(start_params=start, n_threads=1, search="none")
    if not results.converged or len(results.on_floor):
        return None
    return {cov_type: list(intervals(results.with_cov_type(cov_type), truth)) for cov_type in cov_types}


def row(case, cov_type, kept):
    """Shares covered in percent with their errors, and what explains them: standard errors over spread, and bias."""
    n, nobs, data, _ = case
    covered = {"features": n, "observations": nobs, "data": DATA[data], "cov_type": cov_type, "samples": len(kept)}
    beside = dict(covered)
    for i, (kind, true) in enumerate(zip(KINDS, Truth(n).values, strict=True)):
        estimates, errors = (np.array([sample[cov_type][i][j] for sample in kept]) for j in (0, 1))
        each = 100 * (np.abs(estimates - true) < HALF * errors).mean(axis=1)
        covered |= {kind: round(each.mean(), 1), "+-" + " " * i: round(each.std(ddof=1) / np.sqrt(len(kept)), 1)}
        spread = estimates.std(axis=0, ddof=1)
        beside |= {
            f"{kind}: errors": round(float(np.median(np.median(errors, axis=0) / spread)), 2),
            "bias" + " " * i: round(float(np.median(np.abs(estimates.mean(axis=0) - true) / spread)), 2),
        }
    return covered, beside


def cases(quick):
    """Features, observations, data, cov_types; samples."""
    if quick:
        yield (20, 200, "normal", ("expected", "asymptotic")), 20
        return
    every = ("expected", "oim", "opg", "robust", "asymptotic")
    for nobs in (200, 1000):
        yield (20, nobs, "normal", every), 400
        yield (20, nobs, "t", ("expected", "robust")), 300
        yield (20, nobs, "missing", ("oim",)), 100
        yield (200, nobs, "normal", ("asymptotic",)), 400
        yield (200, nobs, "normal", ("expected",)), 120
        yield (200, nobs, "t", ("expected", "robust")), 50


def one_thread():
    """A process has a core of its own; the limit holds while it lives."""
    threadpool_limits(1)


def tables(quick):
    """Two tables with a row for every case and cov_type."""
    found = []
    with multiprocessing.Pool(available_cpus(), one_thread) as pool:
        for case, samples in cases(quick):
            begin = time.perf_counter()
            drawn = pool.map(partial(one_sample, case), range(samples), chunksize=5)
            kept = [sample for sample in drawn if sample is not None]
            print(f"{case}: {len(kept)} of {samples} samples kept, {time.perf_counter() - begin:.0f} s", flush=True)
            found += [row(case, cov_type, kept) for cov_type in case[-1]]
    covered, beside = zip(*found, strict=True)
    return {"covered, %": pd.DataFrame(covered), "standard errors over spread": pd.DataFrame(beside)}


if __name__ == "__main__":
    options = command_line(__doc__).parse_args()
    report("coverage", tables(options.quick), options.save)
