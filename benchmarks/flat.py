"""A flat model (one level: ordinary factor analysis) beside scikit-learn and statsmodels.

All get the same data, of unit variances: statsmodels takes correlations, and scikit-learn's start is not free of units.
The end log-likelihood is computed for each of them by the same dense formula from loadings and uniquenesses. mlfm's
time is given until it is as high as the end of scikit-learn with svd_method="lapack" (to within MARGIN; "converged"
says whether it got there) and until it stops by itself; making the model from the data counts in both. statsmodels' own
choice of optimizer, BFGS, multiplies dense matrices of parameters x parameters: it is cut after a few iterations, and
L-BFGS-B is let run.
"""

import math
import statistics
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
from common import command_line, no_warnings, report, simulated
from scipy import linalg
from sklearn.decomposition import FactorAnalysis
from statsmodels.multivariate.factor import Factor

import mlfm

SNR = 1.0
CASES = ((500, 1_000, 10), (500, 300, 10))  # features, observations, rank
QUICK = ((50, 200, 3), (60, 50, 3))
REPEATS, BUDGET = 5, 60.0  # calls, and seconds after which there is no further call
STATSMODELS = {
    "BFGS": {"gtol": 1e-7, "maxiter": 5},
    "L-BFGS-B": {"gtol": 1e-7, "ftol": 1e-14, "maxiter": 20_000, "maxfun": 40_000},
}
MARGIN = 1e-8  # nats an observation


class Fit(NamedTuple):
    """What a package found, and how long it took."""

    loadings: np.ndarray
    uniquenesses: np.ndarray
    iterations: int
    converged: bool


class Reached(Exception):
    """The log-likelihood is as high as was asked."""


def loglike(X, loadings, uniquenesses):
    """Log-likelihood an observation of a flat factor model, by dense algebra; X: observations x features."""
    nobs, n = X.shape
    X = X - X.mean(axis=0)
    root = linalg.cholesky(loadings @ loadings.T + np.diag(uniquenesses), lower=True)
    white = linalg.solve_triangular(root, X.T, lower=True)
    return -0.5 * (n * math.log(2 * math.pi) + np.vdot(white, white) / nobs) - np.log(np.diag(root)).sum()


def flat_model(X, rank):
    return mlfm.MultilevelFactorModel(X, hierarchy=mlfm.Hierarchy(pd.RangeIndex(X.shape[1])), ranks=[rank])


def fit_mlfm(X, rank):
    results = flat_model(X, rank).fit(search="none")
    evaluations = results.record.fcalls
    return Fit(results.loadings.to_numpy(), results.uniquenesses.to_numpy(), evaluations, results.converged)


def mlfm_reaching(X, rank, target):
    """Evaluations until the log-likelihood an observation is ``target``, that or the last one, whether it is there."""
    made, llf = 0, -math.inf

    def stamp(entry):
        nonlocal made, llf
        made += 1
        if entry.accepted:
            llf = entry.llf / len(X)
            if llf >= target - MARGIN:
                raise Reached

    try:
        flat_model(X, rank).fit(tol=0, callback=stamp, search="none")
    except Reached:
        return made, llf, True
    return made, llf, False


def fit_scikit_learn(X, rank, svd_method):
    other = FactorAnalysis(rank, svd_method=svd_method, tol=1e-8, max_iter=20_000, random_state=0).fit(X)
    return Fit(other.components_.T, other.noise_variance_, other.n_iter_, other.n_iter_ < other.max_iter)


def fit_statsmodels(X, rank, opt_method):
    factor = Factor(endog=X, n_factor=rank, method="ml")
    factor.fit(opt_method=opt_method, opt=STATSMODELS[opt_method], rng=0)
    # With some releases of NumPy and SciPy loadings come back complex, their imaginary parts 0.
    F, D, scale, end = np.real(factor.loadings), np.real(factor.uniqueness), X.std(axis=0), factor.mle_retvals
    return Fit(scale[:, None] * F, scale**2 * D, end.nit, end.success)


def timed(function):
    """The value of a function, its median seconds and its calls."""
    seconds = []
    while len(seconds) < REPEATS and sum(seconds) < BUDGET:
        began = time.perf_counter()
        value = function()
        seconds.append(time.perf_counter() - began)
    return value, statistics.median(seconds), len(seconds)


def table(n, nobs, rank):
    Y = simulated(n, [1], [rank], nobs, snr=SNR)[1]
    X = np.ascontiguousarray((Y / Y.std(axis=1, keepdims=True)).T)
    fit_mlfm(X, rank)  # the first fit pays for what is loaded once
    rows = []
    for name, function in {
        "mlfm, to its own end": lambda: fit_mlfm(X, rank),
        "scikit-learn, lapack": lambda: fit_scikit_learn(X, rank, "lapack"),
        "scikit-learn, randomized": lambda: fit_scikit_learn(X, rank, "randomized"),
        "statsmodels, L-BFGS-B": lambda: fit_statsmodels(X, rank, "L-BFGS-B"),
        "statsmodels, BFGS": lambda: fit_statsmodels(X, rank, "BFGS"),
    }.items():
        fit, seconds, calls = timed(function)
        end = loglike(X, fit.loadings, fit.uniquenesses)
        rows.append((name, seconds, calls, fit.iterations, fit.converged, end))
    target = rows[1][-1]
    (made, llf, there), seconds, calls = timed(lambda: mlfm_reaching(X, rank, target))
    rows.insert(0, ("mlfm, to the end of lapack", seconds, calls, made, there, llf))
    frame = pd.DataFrame(rows, columns=["fit", "seconds", "calls", "iterations", "converged", "end"])
    frame["converged"] = np.where(frame["converged"], "yes", "no")
    frame["below the best"] = (frame["end"].max() - frame["end"]).map("{:.1e}".format)
    for row, what in enumerate(("first", "second")):
        frame[f"times the {what}"] = (frame["seconds"] / frame["seconds"].iloc[row]).round(1)
    return frame.round({"seconds": 4, "end": 6})


if __name__ == "__main__":
    options = command_line(__doc__).parse_args()
    with no_warnings():
        tables = {
            f"{n} features, {nobs} observations, rank {rank}; log-likelihoods in nats an observation": (
                table(n, nobs, rank)
            )
            for n, nobs, rank in (QUICK if options.quick else CASES)
        }
    report("flat", tables, options.save)
