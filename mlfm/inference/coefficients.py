"""Coefficients of the mean: their covariance, z statistics, and Wald tests of covariates over all features.

With complete data Var(vec B) = Sigma (x) (X'X)^-1. With missing values it is the inverse of the sum over observations
of (Sigma_oo)^-1 (x) x x', o the observed features: the expected information given what is observed, in which the
coefficients are apart from Sigma.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import linalg, stats

from mlfm.covariance import MultilevelCovariance
from mlfm.inference.tables import z_table
from mlfm.linear import divide_by_paths, eliminate
from mlfm.patterns import Patterns
from mlfm.standardised import Standardised
from mlfm.sweep import Tree, Workers
from mlfm.wording import listing

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
MOST = 4000  # coefficients whose covariance is worked out in full, where values are missing
TOGETHER = 64  # patterns whose products are made at once


def root(data: Standardised) -> Floats:
    """R with R'R = X'X, observations weighted; of X itself, as X'X would lose half of the digits."""
    return np.asarray(np.linalg.qr(data.design * np.sqrt(data.weights)[:, None], mode="r"), dtype=np.float64)


class CoefficientCovariance(ABC):
    """Variances and covariances of all coefficients, features in the order of the data given."""

    @property
    @abstractmethod
    def variances(self) -> Floats:
        """Features x covariates."""

    @abstractmethod
    def among(self, features: Places, covariates: Places) -> Floats:
        """Of some coefficients, by the positions of their features and covariates."""

    @abstractmethod
    def wald(self, B: Floats, own: list[int]) -> tuple[float, int]:
        """The statistic, and its degrees of freedom, of the hypothesis that the coefficients of some covariates are
        zero for all features.
        """


class Kronecker(CoefficientCovariance):
    """Sigma (x) (X'X)^-1: with complete data. ``root`` is R with R'R = X'X."""

    def __init__(self, covariance: MultilevelCovariance, root: Floats) -> None:
        self.covariance, self.inverse = covariance, np.linalg.inv(root)

    @property
    def variances(self) -> Floats:
        return np.outer(self.covariance.diagonal(), np.einsum("km,km->k", self.inverse, self.inverse))

    def among(self, features: Places, covariates: Places) -> Floats:
        rows = self.inverse[covariates]
        unique, inverse = np.unique(features, return_inverse=True)
        names = self.covariance.hierarchy.features[unique]
        return self.covariance.submatrix(names).to_numpy()[np.ix_(inverse, inverse)] * (rows @ rows.T)

    def wald(self, B: Floats, own: list[int]) -> tuple[float, int]:
        """tr(V^-1 B' Sigma^-1 B), V the part of (X'X)^-1 that belongs to these covariates."""
        R = np.linalg.qr(self.inverse[own].T, mode="r")  # V = R'R
        turned = linalg.solve_triangular(R, B[:, own].T, trans="T").T
        return float(np.vdot(turned, np.asarray(self.covariance.solve(turned)))), B[:, own].size


class InFull(CoefficientCovariance):
    """A matrix of all of them, features x covariates x features x covariates."""

    def __init__(self, matrix: Floats) -> None:
        self.matrix = matrix

    @property
    def variances(self) -> Floats:
        return np.einsum("ikik->ik", self.matrix)

    def among(self, features: Places, covariates: Places) -> Floats:
        return self.matrix[features[:, None], covariates[:, None], features, covariates]

    def wald(self, B: Floats, own: list[int]) -> tuple[float, int]:
        """b' V^-1 b."""
        b = B[:, own].ravel()
        V = self.matrix[:, own][:, :, :, own].reshape(len(b), len(b))
        return float(b @ linalg.solve(V, b, assume_a="pos")), len(b)


def full_covariance(tree: Tree, F: Floats, D: Floats, data: Standardised, patterns: Patterns) -> Floats:
    """Covariance of all coefficients where values are missing, features x covariates x features x covariates.

    Parameters are in group order, the covariance has features in the order of the data given.
    """
    n, q = data.coefficients.shape
    if n * q > MOST:
        raise ValueError(
            f"standard errors with missing values need a matrix of all {n * q} coefficients, and are worked out for "
            f"at most {MOST}; fit with missing='drop', or fewer features"
        )
    if q == 0:
        return np.empty((n, 0, n, 0))
    # In an orthonormal basis of the covariates, whatever their scales.
    back = np.linalg.inv(root(data))
    information = _information(tree, F, D, data.design @ back, data.weights, patterns).reshape(n * q, n * q)
    inverse = np.asarray(linalg.cho_solve(linalg.cho_factor(information, lower=True), np.eye(n * q)), dtype=np.float64)
    place = np.argsort(data.order)
    turned = np.einsum("km,imjn,ln->ikjl", back, inverse.reshape(n, q, n, q), back, optimize=True)
    return np.asarray(turned[place][:, :, place], dtype=np.float64)


def _information(tree: Tree, F: Floats, D: Floats, design: Floats, weights: Floats, patterns: Patterns) -> Floats:
    """The sum over observations of (Sigma_oo)^-1 (x) x x', as features x covariates x features x covariates.

    By pattern (Sigma_oo)^-1 = D^-1 - H H', H with as many columns as a feature has factors (PHB, section 4).
    """
    n, q = len(F), design.shape[1]
    out, unique = np.zeros((n * q, n * q)), np.zeros((n, q, q))
    with Workers() as workers:
        for first in range(0, len(patterns), TOGETHER):
            some = range(first, min(first + TOGETHER, len(patterns)))
            H, roots = np.empty((len(some), *F.shape)), np.empty((len(some), q, q))
            for place, s in enumerate(some):
                own = slice(patterns.starts[s], patterns.starts[s + 1])
                X = design[own] * np.sqrt(weights[own])[:, None]
                seen = np.ones(n)
                seen[patterns.missing_by(s)] = 0
                known, _ = eliminate(tree, F * seen[:, None], D, workers)
                H[place] = divide_by_paths(tree, known, seen / D, F, workers)
                unique += (seen / D)[:, None, None] * (X.T @ X)
                roots[place] = X.T @ X
            values, vectors = np.linalg.eigh(roots)
            roots = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]  # X'X = roots roots'
            for level, bounds in enumerate(tree.offsets):
                for a, b in itertools.pairwise(bounds):
                    block = np.einsum("sjo,skm->jksom", H[:, a:b, tree.own(level)], roots)
                    rows, block = slice(a * q, b * q), block.reshape((b - a) * q, -1)
                    out[rows, rows] -= block @ block.T
    information = out.reshape(n, q, n, q)
    each = np.arange(n)
    information[each, :, each, :] += unique
    return information


def table(coefficients: pd.DataFrame, bse: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """One row a feature and covariate: coefficient, standard error, z, p-value, interval."""
    names = [coefficients.index.name or "feature", "covariate"]
    pairs = [(feature, covariate) for feature in coefficients.index for covariate in coefficients.columns]
    index = pd.MultiIndex.from_tuples(pairs, names=names) if pairs else pd.MultiIndex.from_arrays([[], []], names=names)
    return z_table(coefficients.to_numpy().ravel(), bse.to_numpy().ravel(), alpha, index)


def chosen_terms(
    terms: Mapping[Hashable, Sequence[Hashable]] | None, covariates: pd.Index
) -> dict[Hashable, list[int]]:
    """The covariates of each term, by position; by default each covariate is a term of its own."""
    if terms is None:
        return {covariate: [k] for k, covariate in enumerate(covariates)}
    if not isinstance(terms, Mapping):
        raise TypeError(f"terms must map names to lists of covariates, not {type(terms).__name__}")
    chosen = {}
    for name, columns in terms.items():
        alone = isinstance(columns, str) or not isinstance(columns, Iterable)
        wanted = [columns] if alone else list(dict.fromkeys(columns))
        unknown = [column for column in wanted if column not in covariates]
        if unknown or not wanted:
            raise ValueError(
                f"terms: {name!r} needs covariates of the model, not {listing(unknown) or 'none'}; there are "
                f"{listing(covariates, most=20)}"
            )
        chosen[name] = [int(covariates.get_loc(column)) for column in wanted]
    return chosen


def wald_table(statistics: Mapping[Hashable, tuple[float, int]]) -> pd.DataFrame:
    """Chi-square statistics, degrees of freedom and p-values by term."""
    rows = {name: (value, df, float(stats.chi2.sf(value, df))) for name, (value, df) in statistics.items()}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["chi2", "df", "P>chi2"])
    frame.index = pd.Index(list(rows), name="term", dtype=object, tupleize_cols=False)
    return frame.astype({"df": int})
