"""Cutting groups in two by the leading vectors of their affinities, and moving what is better off on the other side.

Affinities are not negative: the larger, the better do two features (or a row and a column) go together. Nothing here
knows labels; see :mod:`mlfm.grouping` for what a partition is.

References: Shi and Malik (2000) for the normalised cut, Dhillon (2001) for rows and columns together, and Parshakova,
Hastie, Darve and Boyd (arXiv 2310.19214), section 6, for both in multilevel low rank matrices.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
Mask = NDArray[np.bool_]

PLACES = 64  # at which a group is tried to be cut
SWEEPS = 50  # of moves at most
DENSE = 2000  # features of a group up to which its affinities are an array
SKETCH = 256  # dimensions of the data of larger groups
SMALL = 16  # features up to which eigenvectors are found at once


class Affinity(Protocol):
    """Symmetric affinities of n features, zero with themselves."""

    n: int

    def times(self, X: Floats) -> Floats:
        """S X."""

    def within(self, order: Integers, places: Integers) -> Floats:
        """The sum of affinities among the first features of an order, for several numbers of them."""


class Array:
    """Affinities that are there, as an array or a sparse one."""

    def __init__(self, S: Any) -> None:
        self.S = S.copy()
        if sparse.issparse(S):
            self.S.setdiag(0.0)
        else:
            np.fill_diagonal(self.S, 0.0)
        self.n = S.shape[0]

    def times(self, X: Floats) -> Floats:
        return np.asarray(self.S @ X)

    def within(self, order: Integers, places: Integers) -> Floats:
        rank = np.empty(self.n, dtype=np.intp)
        rank[order] = np.arange(self.n)
        sides = (rank[:, None] < places).astype(np.float64)
        return np.asarray((sides * self.times(sides)).sum(axis=0))


class SquaredProducts:
    """Squares of the inner products of the rows of Y (n x N), of which there may be many: n N^2 a product."""

    def __init__(self, Y: Floats) -> None:
        self.Y, self.n = Y, len(Y)
        self._own = np.einsum("jn,jn->j", Y, Y) ** 2

    def times(self, X: Floats) -> Floats:
        out = np.empty_like(X)
        for k in range(X.shape[1]):
            M = self.Y.T @ (X[:, k, None] * self.Y)
            out[:, k] = np.einsum("jn,jn->j", self.Y @ M, self.Y) - self._own * X[:, k]
        return out

    def within(self, order: Integers, places: Integers) -> Floats:
        sums, M, start, own = [], np.zeros((self.Y.shape[1],) * 2), 0, 0.0
        for place in places:
            some = order[start:place]
            M += self.Y[some].T @ self.Y[some]
            own += float(self._own[some].sum())
            sums.append(float(np.vdot(M, M)) - own)
            start = int(place)
        return np.array(sums)


def affinity_of_data(Y: Floats, rng: np.random.Generator) -> Affinity:
    """Squared covariances of the rows of Y (features x observations), of a sketch of it where there are many."""
    Y = Y / np.sqrt(Y.shape[1])
    if len(Y) <= DENSE:
        return Array((Y @ Y.T) ** 2)
    if Y.shape[1] > SKETCH:  # inner products are kept, with an error of 1 / sqrt(SKETCH)
        Y = Y @ rng.standard_normal((Y.shape[1], SKETCH)) / np.sqrt(SKETCH)
    return SquaredProducts(Y)


class Cut(NamedTuple):
    """One side of a group, and how much of the affinity is cut: less is better."""

    side: Mask
    cost: float


def halves(S: Affinity, balanced: bool, rng: np.random.Generator) -> Cut:
    """Cut a group of two or more features in two, of one size (but for one feature) where ``balanced``."""
    degrees = np.maximum(S.times(np.ones((S.n, 1)))[:, 0], 0.0)
    degrees = np.maximum(degrees, max(1e-12 * float(degrees.max()), np.finfo(float).tiny))
    order = np.argsort(_second(S, degrees, rng) / np.sqrt(degrees), kind="stable")
    if balanced:
        side = np.zeros(S.n, dtype=bool)
        side[order[: S.n // 2]] = True
        return _swapped(S, side, degrees)
    places = np.unique(np.linspace(1, S.n - 1, min(PLACES, S.n - 1)).round().astype(np.intp))
    inside, volume = S.within(order, places), np.cumsum(degrees[order])[places - 1]
    cut, rest = volume - inside, degrees.sum() - volume
    best = places[int(np.argmin(cut / volume + cut / rest))]
    side = np.zeros(S.n, dtype=bool)
    side[order[:best]] = True
    return _moved(S, side, degrees)


def _second(S: Affinity, degrees: Floats, rng: np.random.Generator) -> Floats:
    """The second eigenvector of the normalised Laplacian."""
    roots = np.sqrt(degrees)

    def times(x: Floats) -> Floats:
        x = x.reshape(S.n, -1)
        return S.times(np.ascontiguousarray(x / roots[:, None])) / roots[:, None]

    start = rng.standard_normal(S.n)
    if S.n <= SMALL:
        return np.asarray(np.linalg.eigh(times(np.eye(S.n)))[1][:, -2])
    if not times(start).any():  # no affinities at all
        return start
    operator = LinearOperator((S.n, S.n), matvec=times, matmat=times, dtype=np.float64)
    try:
        values, vectors = eigsh(operator, k=2, which="LA", v0=start, tol=1e-4, maxiter=20 * S.n)
    except ArpackNoConvergence as error:  # eigenvalues too close to be told apart: any of their vectors will do
        values, vectors = error.eigenvalues, error.eigenvectors
    return np.asarray(vectors[:, np.argsort(values)[0]]) if len(values) else start


def normalised_cut(S: Affinity, side: Mask, degrees: Floats) -> float:
    """Share of the affinity of either side that is with the other side, summed."""
    x = side.astype(np.float64)[:, None]
    cut = float(((1 - x) * S.times(x)).sum())
    volume = float(degrees[side].sum())
    return cut / volume + cut / (float(degrees.sum()) - volume)


def _moved(S: Affinity, side: Mask, degrees: Floats) -> Cut:
    """Move features to the other side, those that gain most first, as long as the normalised cut falls."""
    cost = normalised_cut(S, side, degrees)
    for _ in range(SWEEPS):
        first = S.times(side.astype(np.float64)[:, None])[:, 0]
        own = np.where(side, first, degrees - first)  # affinity with the own side
        volume = np.array([degrees[~side].sum(), degrees[side].sum()])
        mine, other = volume[side.astype(int)], volume[1 - side.astype(int)]
        cut = float((degrees - first)[side].sum())
        # Of the cut without feature i where it is, when only i moves:
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = cut + own - (degrees - own)
            alone = moved / (mine - degrees) + moved / (other + degrees)
        gain = np.where((mine > degrees) & np.isfinite(alone), cost - alone, -np.inf)
        willing = np.argsort(-gain, kind="stable")[: int((gain > 1e-12 * max(cost, 1e-300)).sum())]
        while len(willing):
            trial = side.copy()
            trial[willing] = ~trial[willing]
            if trial.any() and not trial.all():
                found = normalised_cut(S, trial, degrees)
                if found < cost:
                    break
            willing = willing[: len(willing) // 2]
        if not len(willing):
            break
        side, cost = trial, found
    return Cut(side, cost)


def _swapped(S: Affinity, side: Mask, degrees: Floats) -> Cut:
    """Swap features between the sides, those that gain most first, as long as the cut falls."""
    cost = normalised_cut(S, side, degrees)
    for _ in range(SWEEPS):
        first = S.times(side.astype(np.float64)[:, None])[:, 0]
        gain = np.where(side, degrees - 2 * first, 2 * first - degrees)  # affinity with the other side less the own
        ins, outs = np.flatnonzero(side), np.flatnonzero(~side)
        ins, outs = ins[np.argsort(-gain[ins], kind="stable")], outs[np.argsort(-gain[outs], kind="stable")]
        pairs = min(len(ins), len(outs))
        many = int((gain[ins[:pairs]] + gain[outs[:pairs]] > 0).sum())
        while many:
            trial = side.copy()
            trial[ins[:many]], trial[outs[:many]] = False, True
            found = normalised_cut(S, trial, degrees)
            if found < cost * (1 - 1e-12):
                break
            many //= 2
        if not many:
            break
        side, cost = trial, found
    return Cut(side, cost)


def regrouped(S: Affinity, group: Integers) -> Integers:
    """Move features between several groups, those that gain most first, as long as the normalised cut falls.

    With a_k the affinity inside group k and v_k its features' affinity with all, the cut is the number of groups less
    the sum of a_k / v_k; of which feature j adds to group k about 2 s_jk / v_k - d_j a_k / v_k^2.
    """
    k = int(group.max()) + 1
    degrees = np.maximum(S.times(np.ones((S.n, 1)))[:, 0], np.finfo(float).tiny)
    value, worth = _kept(S, group, k, degrees)
    for _ in range(SWEEPS):
        now = worth[np.arange(S.n), group]
        best = np.argmax(worth, axis=1)
        gain = worth.max(axis=1) - now
        willing = np.argsort(-gain, kind="stable")[: int((gain > 1e-12 * max(value, 1e-300)).sum())]
        while len(willing):
            trial = group.copy()
            trial[willing] = best[willing]
            if (np.bincount(trial, minlength=k) > 0).all():
                found, next_worth = _kept(S, trial, k, degrees)
                if found > value:
                    break
            willing = willing[: len(willing) // 2]
        if not len(willing):
            break
        group, value, worth = trial, found, next_worth
    return group


def _kept(S: Affinity, group: Integers, k: int, degrees: Floats) -> tuple[float, Floats]:
    """The sum of a_k / v_k, and what each feature adds to it in each group."""
    sides = (group[:, None] == np.arange(k)).astype(np.float64)
    affinity = S.times(sides)
    inside = (sides * affinity).sum(axis=0)
    volume = np.maximum(degrees @ sides, np.finfo(float).tiny)
    return float((inside / volume).sum()), 2 * affinity / volume - np.outer(degrees, inside / volume / volume)


class Cross(NamedTuple):
    """A side of the rows and the side of the columns that goes with it."""

    rows: Mask
    columns: Mask


def crosswise(S: Any, balanced: bool, rng: np.random.Generator) -> Cross:
    """Cut rows and columns in two so that affinities (m x n, m and n at least 2) are large where sides agree.

    The leading pair of singular vectors of the doubly centred affinities, rows and columns then moved in turn: for
    given sides of the columns the best sides of the rows are known.
    """
    rows, columns = np.asarray(S.sum(axis=1)).ravel(), np.asarray(S.sum(axis=0)).ravel()
    # What chance alone would give (Newman 2006); with halves of one size taking means off does as well.
    share = 0.0 if balanced else 1 / max(float(rows.sum()), np.finfo(float).tiny)

    def centred(y: Floats) -> Floats:
        x = np.asarray(S @ y).ravel() - rows * (share * float(columns @ y))
        return np.asarray(x - x.mean() if balanced else x)

    def turned(x: Floats) -> Floats:
        y = np.asarray(S.T @ x).ravel() - columns * (share * float(rows @ x))
        return np.asarray(y - y.mean() if balanced else y)

    y = rng.standard_normal(S.shape[1])
    y -= y.mean()
    for _ in range(SWEEPS):
        x = centred(y / max(float(np.linalg.norm(y)), 1e-300))
        new = turned(x / max(float(np.linalg.norm(x)), 1e-300))
        angle = float(y @ new) / max(float(np.linalg.norm(y) * np.linalg.norm(new)), 1e-300)
        y = new
        if angle > 1 - 1e-6:
            break
    best, last = _sides(centred(y), balanced), -np.inf
    across = _sides(y, balanced)
    for _ in range(SWEEPS):
        gains = centred(np.where(across, 1.0, -1.0))
        best = _sides(gains, balanced)
        other = turned(np.where(best, 1.0, -1.0))
        across = _sides(other, balanced)
        value = float(np.where(across, 1.0, -1.0) @ other)
        if value <= last * (1 + 1e-12) + 1e-300:
            break
        last = value
    return Cross(best, across)


def _sides(x: Floats, balanced: bool) -> Mask:
    """The larger half, or what is positive; never all or nothing."""
    side = np.zeros(len(x), dtype=bool)
    order = np.argsort(-x, kind="stable")
    many = len(x) // 2 if balanced else min(max(int((x > 0).sum()), 1), len(x) - 1)
    side[order[:many]] = True
    return side
