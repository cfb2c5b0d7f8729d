"""How far a factor model fitted in the Frobenius norm is behind one fitted by maximum likelihood, in expectation.

Parshakova, Hastie and Boyd's comparison (arXiv 2409.12067, the section of synthetic examples): 10 000 features in 1, 4,
8, 16 and 32 groups, ranks 10, 5, 4, 3, 2, standard normal loadings, uniquenesses uniform from 0 to twice their mean,
which is a quarter of the factors' part of the variance on average, and 100 observations, whose means are taken off. One
true model, and a new sample from it for each draw. What is compared is the expected log-likelihood of an observation
under the truth, -1/2 (n log 2 pi + logdet Sigma_hat + tr(Sigma_hat^-1 Sigma)); the mean is left out of it.

The Frobenius fit is ended by the first sweep that lowers the error by less than 1e-3 of it, as in the authors' script.
(``fit`` with that tolerance waits for three in a row, and looks for new directions then.) It may
put elements of the diagonal at zero, where no likelihood is defined, so that they are raised to a floor: 1e-4 of the
feature's variance, which is the one of maximum likelihood here. The second table has the same fits with other
floors, with the sample covariance divided by N - 1, and with Frobenius fits that go on, until a sweep gains less than
1e-6 in the end. Divided by N - 1 (Frobenius only) and with a floor of 1e-6 is what the authors' script does; its
maximum likelihood fits are 300 iterations of EM at most.
"""

import time
from typing import NamedTuple

import numpy as np
import pandas as pd
from common import command_line, hierarchy, no_warnings, report

import mlfm

GROUPS, RANKS, NOBS, SNR = [1, 4, 8, 16, 32], [10, 5, 4, 3, 2], 100, 4
N, QUICK = 10_000, 960
DRAWS = 10
MODEL_SEED = 0  # of the true model; draws have the seeds 1, 2, ...
TOLERANCE, SMALL_TOLERANCE = 1e-3, 1e-6
FLOOR = 1e-4  # of the variance


class Frobenius(NamedTuple):
    """A fit in the Frobenius norm to data, before a floor is put under its diagonal."""

    fitted: mlfm.lowrank.LowRankFit
    variances: pd.Series
    seconds: float

    def covariance(self, least):
        """With every element of the diagonal at least so much."""
        matrix = self.fitted.matrix
        return mlfm.MultilevelCovariance(matrix.rows, matrix.left, matrix.diag.clip(lower=least), ranks=matrix.ranks)

    @property
    def zeros(self):
        return int((self.fitted.matrix.diag == 0).sum())


def true_covariance(n):
    """The model that the samples are from."""
    rng = np.random.default_rng(MODEL_SEED)
    F = rng.standard_normal((n, sum(RANKS)))
    D = rng.uniform(0, 2 * (F**2).sum(axis=1).mean() / SNR, n)
    return mlfm.MultilevelCovariance(hierarchy(n, GROUPS), F, D, ranks=RANKS)


def in_frobenius_norm(Y, groups, **stop):
    began = time.perf_counter()
    S = mlfm.lowrank.SampleCovariance(Y)
    fitted = mlfm.lowrank.fit(S, groups, ranks=RANKS, diagonal=True, **stop)
    seconds = time.perf_counter() - began
    return Frobenius(fitted, pd.Series(S.diagonal(), index=S.features), seconds)


def first_slow_sweep(history):
    """The first that lowers the error by less than the tolerance."""
    return int((history["decrease"] < TOLERANCE).idxmax())


def by_likelihood(Y, groups):
    began = time.perf_counter()
    results = mlfm.MultilevelFactorModel(Y, hierarchy=groups, ranks=RANKS).fit(search="none")
    return results, time.perf_counter() - began


def draw(truth, seed):
    """One sample: a row of the first table, and how far each variant is behind maximum likelihood."""
    Y = truth.sample(NOBS, rng=seed)
    longer = in_frobenius_norm(Y, truth.hierarchy, tol=SMALL_TOLERANCE)
    further = in_frobenius_norm(Y, truth.hierarchy, tol=TOLERANCE)
    fit = in_frobenius_norm(Y, truth.hierarchy, tol=0, maxiter=first_slow_sweep(longer.fitted.history))
    results, seconds = by_likelihood(Y, truth.hierarchy)
    floor, unbiased = FLOOR * fit.variances, NOBS / (NOBS - 1)
    likelihood, frobenius = results.covariance, fit.covariance(floor)
    highest, lower = likelihood.expected_loglike(truth), frobenius.expected_loglike(truth)
    variants = {
        "as above": highest - lower,
        "floor 1e-6": highest - fit.covariance(1e-6).expected_loglike(truth),
        "floor 1e-3 of the variance": highest - fit.covariance(10 * floor).expected_loglike(truth),
        "floor 1e-2 of the variance": highest - fit.covariance(100 * floor).expected_loglike(truth),
        "Frobenius divided by N - 1": highest - (unbiased * frobenius).expected_loglike(truth),
        "Frobenius divided by N - 1, floor 1e-6": highest
        - (unbiased * fit.covariance(1e-6 / unbiased)).expected_loglike(truth),
        "both divided by N - 1": (unbiased * likelihood).expected_loglike(truth)
        - (unbiased * frobenius).expected_loglike(truth),
        "Frobenius fit as mlfm ends it with tol 1e-3": highest - further.covariance(floor).expected_loglike(truth),
        "Frobenius fit to its end (tol 1e-6)": highest - longer.covariance(floor).expected_loglike(truth),
        "to its end, floor 1e-2 of the variance": highest - longer.covariance(100 * floor).expected_loglike(truth),
    }
    row = {
        "draw": seed,
        "likelihood": round(highest, 1),
        "Frobenius": round(lower, 1),
        "Frobenius, to its end": round(longer.covariance(floor).expected_loglike(truth), 1),
        "difference": round(highest - lower, 1),
        "likelihood, s": round(seconds, 2),
        "Frobenius, s": round(fit.seconds, 2),
    }
    taken = results.record.fcalls
    course = [("likelihood", seconds, taken, len(results.on_floor))]
    for name, each in (("Frobenius", fit), ("Frobenius, as mlfm ends it", further), ("Frobenius, to its end", longer)):
        course.append((name, each.seconds, len(each.fitted.history), each.zeros))
    return row, variants, course


def tables(n, draws):
    """Draw by draw; the differences of the variants in short; how the fits went."""
    truth = true_covariance(n)
    with no_warnings():  # of uniquenesses on their floor
        draw(truth, 1)  # the first fits pay for what is loaded and allocated once
        rows, variants, courses = zip(*(draw(truth, seed) for seed in range(1, draws + 1)), strict=True)
    beside, behind = pd.DataFrame(rows), pd.DataFrame(variants)
    beside.insert(1, "truth", round(truth.expected_loglike(truth), 1))
    short = behind.agg(["mean", "std", "min", "max"]).T.round(1).set_axis(["mean", "sd", "least", "most"], axis=1)
    columns = ["fit", "s", "evaluations or sweeps", "uniquenesses on the floor or zero"]
    course = pd.DataFrame([fit for each in courses for fit in each], columns=columns)
    return {
        "expected log-likelihood of an observation under the truth, by draw": beside,
        "how far the Frobenius fit is behind maximum likelihood": short.reset_index(names="fits"),
        "how the fits went, mean of the draws": course.groupby("fit", sort=False).mean().round(2).reset_index(),
    }


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS, help="samples (default %(default)s)")
    options = parser.parse_args()
    report("frobenius", tables(QUICK, 2) if options.quick else tables(N, options.draws), options.save)
