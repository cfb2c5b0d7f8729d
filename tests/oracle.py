"""The dense oracle: everything from the definition Sigma = sum over groups of F_k F_k' + D, in feature order.

Deliberately plain: group by group, n x n, no structure used. What mlfm computes is held against this.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from mlfm.hierarchy import Hierarchy
from mlfm.standardised import Standardised


def dense_low_rank(hierarchy: Hierarchy, ranks, left, right):
    """Element by element: the rows of both features multiplied at every level where they share a group."""
    left, right = np.asarray(left), np.asarray(right)
    dense = np.zeros((hierarchy.n_features, hierarchy.n_features))
    labels = hierarchy.to_frame()
    paths = [("all",)] * hierarchy.n_features
    first = 0
    for depth, rank in enumerate(ranks):
        if depth:
            paths = [(*path, label) for path, label in zip(paths, labels.iloc[:, depth - 1], strict=True)]
        own = slice(first, first + rank)
        first += rank
        for i in range(hierarchy.n_features):
            for j in range(hierarchy.n_features):
                if paths[i] == paths[j]:
                    dense[i, j] += left[i, own] @ right[j, own]
    return dense


def dense_covariance(hierarchy: Hierarchy, ranks, loadings, uniquenesses):
    return dense_low_rank(hierarchy, ranks, loadings, loadings) + np.diag(np.asarray(uniquenesses, dtype=float))


def dense_loglikeobs(Y, mean, sigma):
    """Log-density of N(mean, sigma) at each row of Y."""
    sign, logdet = np.linalg.slogdet(sigma)
    assert sign == 1
    E = Y - mean
    quadratic = np.einsum("ij,ij->i", E, np.linalg.solve(sigma, E.T).T)
    return -0.5 * (Y.shape[1] * np.log(2 * np.pi) + logdet + quadratic)


def dense_loglikeobs_seen(Y, mean, sigma):
    """The same of what is observed of each row: where values are missing, rows and columns of sigma are struck out."""
    Y, mean = np.asarray(Y, dtype=float), np.broadcast_to(mean, np.shape(Y))
    out = np.empty(len(Y))
    for i, seen in enumerate(~np.isnan(Y)):
        out[i] = dense_loglikeobs(Y[i : i + 1, seen], mean[i, seen], sigma[np.ix_(seen, seen)])[0]
    return out


def dense_slopes_seen(Y, mean, sigma, weights):
    """Derivatives of the weighted sum of that by the mean of every value, and by sigma."""
    by_mean, by_sigma = np.zeros(Y.shape), np.zeros_like(sigma)
    mean = np.broadcast_to(mean, Y.shape)
    for i, seen in enumerate(~np.isnan(Y)):
        inverse = np.linalg.inv(sigma[np.ix_(seen, seen)])
        u = inverse @ (Y[i, seen] - mean[i, seen])
        by_mean[i, seen] = weights[i] * u
        by_sigma[np.ix_(seen, seen)] += 0.5 * weights[i] * (np.outer(u, u) - inverse)
    return by_mean, by_sigma


def dense_slope_loadings(groups, loadings, by_sigma):
    """From the derivative by Sigma to that by the loadings: 2 dSigma F_k inside every group k."""
    out = np.zeros_like(loadings)
    for own, members in groups:
        out[np.ix_(members, own)] = 2 * by_sigma[np.ix_(members, members)] @ loadings[np.ix_(members, own)]
    return out


def standardised(values, order, centre=True):
    """What a model keeps of complete data without covariates."""
    design = np.ones((len(values), int(centre)))
    return Standardised.of(values, order, design, np.ones(len(values)), None)


@dataclass
class Case:
    """A hierarchy with ranks, parameters and data, all in feature order."""

    hierarchy: Hierarchy
    ranks: tuple
    loadings: np.ndarray
    uniquenesses: np.ndarray
    Y: np.ndarray

    @property
    def sigma(self):
        return dense_covariance(self.hierarchy, self.ranks, self.loadings, self.uniquenesses)

    @cached_property
    def groups(self):
        """Columns of the compressed loadings, and features by position, of every group."""
        found, first = [], 0
        for level, rank in zip(self.hierarchy.levels, self.ranks, strict=True):
            own = list(range(first, first + rank))
            groups = self.hierarchy.groups(level).values()
            found += [(own, self.hierarchy.features.get_indexer(members)) for members in groups]
            first += rank
        return found

    @property
    def frame(self):
        return pd.DataFrame(self.Y, columns=self.hierarchy.features)


def make_case(labels, ranks, nobs=12, seed=0):
    """Random parameters and data for a label frame; labels is a list of columns, each a list of labels."""
    rng = np.random.default_rng(seed)
    n = len(labels[0])
    frame = pd.DataFrame(
        {f"level{i}": column for i, column in enumerate(labels[1:], start=1)},
        index=[f"x{j}" for j in range(n)],
    )
    hierarchy = Hierarchy(frame)
    F = rng.standard_normal((n, sum(ranks)))
    D = rng.uniform(0.3, 2.0, n)
    Y = rng.standard_normal((nobs, n)) @ np.linalg.cholesky(dense_covariance(hierarchy, ranks, F, D)).T
    return Case(hierarchy, tuple(ranks), F, D, Y)


def zoo():
    """Hierarchies of every shape the sweep must take, by name."""
    rng = np.random.default_rng(7)
    flat = [[0] * 9]
    balanced = [[0] * 12, [j // 4 for j in range(12)], [j // 2 for j in range(12)]]
    ragged = [
        [0] * 14,
        list("aaaaabbbbbbccc"),
        list("pppqqpprrrrsst"),  # "p" under a and b: two groups; s, t: of two and one
    ]
    singles = [[0] * 6, list("abcdef"), list("uvwxyz")]
    shuffled = [
        [0] * 16,
        *np.array([[j // 8 for j in range(16)], [j // 3 for j in range(16)]])[:, rng.permutation(16)].tolist(),
    ]
    deep = [[0] * 16, *[[j // size for j in range(16)] for size in (8, 4, 2, 1)]]
    return {
        "flat": make_case(flat, (2,)),
        "flat, rank 0": make_case(flat, (0,)),
        "flat, as many factors as features": make_case(flat, (9,)),
        "one feature": make_case([[0]], (1,)),
        "one group a level": make_case([[0] * 5, ["only"] * 5], (1, 1)),
        "balanced": make_case(balanced, (3, 2, 1)),
        "ragged": make_case(ragged, (2, 1, 1)),
        "groups of one": make_case(singles, (2, 1, 1)),
        "unsorted columns": make_case(shuffled, (2, 2, 1)),
        "rank 0 in the middle": make_case(balanced, (2, 0, 1)),
        "rank 0 at the finest level": make_case(balanced, (2, 1, 0)),
        "rank 0 at the two finest levels": make_case(balanced, (2, 0, 0)),
        "no global factors": make_case(balanced, (0, 2, 1)),
        "only the finest level": make_case(ragged, (0, 0, 2)),
        "no factors at all": make_case(ragged, (0, 0, 0)),
        "deep": make_case(deep, (3, 2, 2, 1, 1)),
        "fewer observations than features": make_case(balanced, (3, 2, 1), nobs=4),
        "more observations than features": make_case(ragged, (2, 1, 1), nobs=60),
    }


def dense_blocks(rows: Hierarchy, cols: Hierarchy, ranks, left, right, diag=None):
    """B_k C_k' of every block of rows and columns whose groups have one name, level by level, by name."""
    left, right = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    dense = np.zeros((rows.n_features, cols.n_features)) if diag is None else np.diag(np.asarray(diag, dtype=float))
    first = 0
    for level, rank in zip(rows.levels, ranks, strict=True):
        for i, j in blocks_of(rows, cols, level):
            own = slice(first, first + rank)
            dense[np.ix_(i, j)] += left[i, own] @ right[j, own].T
        first += rank
    return dense


def blocks_of(rows: Hierarchy, cols: Hierarchy, level):
    """Positions of the rows and of the columns of every block of a level, in the users' orders."""
    theirs = cols.groups(level)
    return [
        (rows.features.get_indexer(members), cols.features.get_indexer(theirs[name]))
        for name, members in rows.groups(level).items()
    ]
