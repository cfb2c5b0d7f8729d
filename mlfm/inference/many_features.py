"""Standard errors in closed form where every group has many features: linear in their number.

With many features the factors are known up to what identifies them, and a feature's loadings are a regression on them
(Bai and Li 2012, Annals of Statistics 40(1), for one level of factors of which the canonical rotation is their IC3).
What identifies them is that in the sample the factors of a path have second moments I + W / sqrt(N) with W symmetric,
Var W_aa = 2, Var W_ab = 1, while the model says I. So to first order, in a group k of level l with
F_k' D^-1 F_k = diag(gamma), estimated loadings differ from the true ones f_j by 1 / sqrt(N) times

    W_aa f_a / 2 + sum over b != a of [gamma_a W_ab + (Gamma W_h + W_h' Gamma')_ab] / (gamma_a - gamma_b) f_b
        + sum over finer factors c of the path of W_ac f_c + a regression's error:

a level's factors take with them what they share in the sample with the finer ones below (Gamma_ac is f_a' D^-1 f_c over
the features of c's group), and the rotation makes F_k' D^-1 F_k diagonal again. The regression's error, by itself of
variance D_j, is that of a feature's loadings and uniqueness given those of all others, which counts that the factors
are not known quite: with P their covariance given the data and h = f'P f / D it has the information

    (1 - h) / D (I - P) + P f f' P / D^2,    (1 - h) P f / D^2,    (1 - h)^2 / (2 D^2).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import leaf_moments
from mlfm.sweep import Moments, Posterior, Sweep, Task, Tree, Workers
from mlfm.tiles import tile_rows

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
TOGETHER = 1 << 22  # entries of the largest array that is made at once


class Regression(NamedTuple):
    """The error of a feature's own regression, times the number of its observations."""

    loadings: Floats  # features x r x r
    uniquenesses: Floats  # features
    between: Floats  # features x r, of loadings and uniqueness


class ManyFeatures:
    """Variances and covariances of loadings (in canonical rotation) and uniquenesses, features in group order.

    Parameters
    ----------
    tree : Tree
    F, D : arrays
    nobs : float
        Observations (effective ones, where they have weights).
    counts : array
        The observations that each feature has.
    fixed : array of bool
        Features whose uniqueness is not estimated, as it is on its floor.
    """

    def __init__(self, tree: Tree, F: Floats, D: Floats, nobs: float, counts: Floats, fixed: NDArray[np.bool_]) -> None:
        self.tree, self.F, self.D, self.nobs, self.counts, self.fixed = tree, F, D, nobs, counts, fixed

    def variances(self) -> tuple[Floats, Floats]:
        """Of all loadings (n x r) and all uniquenesses (n)."""
        of_F, of_D = np.empty_like(self.F), np.empty_like(self.D)
        for own in self._chunks():
            regression = self._regression(own)
            of_F[own] = np.einsum("jaa->ja", regression.loadings) / self.counts[own, None]
            of_D[own] = regression.uniquenesses / self.counts[own]
            for level in range(len(self.tree.ranks)):
                of_F[own, self.tree.own(level)] += self._of_sampled_factors(level, own) / self.nobs
        return of_F, of_D

    def of_explained(self) -> Floats:
        """Variances of each feature's communality, f'f / (f'f + D)."""
        out = np.empty_like(self.D)
        for own in self._chunks():
            F, D, N = self.F[own], self.D[own], self.counts[own]
            regression = self._regression(own)
            explained = np.einsum("ja,ja->j", F, F)
            noise = 4 * np.einsum("ja,jab,jb->j", F, regression.loadings, F) / N
            with_unique = 2 * np.einsum("ja,ja->j", F, regression.between) / N
            # The factors' sample moments add 2 (f'f)^2 / N: those of f'Wf.
            of_explained = noise + 2 * explained**2 / self.nobs
            variance = (
                D**2 * of_explained + explained**2 * regression.uniquenesses / N - 2 * D * explained * with_unique
            )
            out[own] = variance / (explained + D) ** 4
        return out

    def of_sums(self) -> Floats:
        """Covariances of the levels' sums of squared loadings and of the sum of uniquenesses, in that order."""
        levels = len(self.tree.ranks)
        out = np.zeros((levels + 1, levels + 1))
        products = self._grams(np.ones_like(self.D))
        for level in range(levels):
            own = self.tree.own(level)
            among = (products[level][:, own, own] ** 2).sum()
            finer = [products[m][:, own, self.tree.own(m)] for m in range(level + 1, levels)]
            out[level, level] = (2 * among + 4 * sum((block**2).sum() for block in finer)) / self.nobs
        for own in self._chunks():
            regression, N = self._regression(own), self.counts[own]
            slopes = np.zeros((len(N), levels, self.tree.n_factors))
            for level in range(levels):
                columns = self.tree.own(level)
                slopes[:, level, columns] = 2 * self.F[own, columns]
            out[:-1, :-1] += np.einsum("jla,jab,jmb,j->lm", slopes, regression.loadings, slopes, 1 / N, optimize=True)
            between = np.einsum("jla,ja,j->l", slopes, regression.between, 1 / N)
            out[:-1, -1] += between
            out[-1, :-1] += between
            out[-1, -1] += (regression.uniquenesses / N).sum()
        return out

    def covariance(self, features: Places, which: Places) -> Floats:
        """Between some parameters: of features, their loadings on factors 0 .. r - 1, or uniquenesses (r)."""
        r = len(self.F.T)
        out = np.zeros((len(features), len(features)))
        unique, inverse = np.unique(features, return_inverse=True)
        regression = self._regression(unique)
        whole = np.empty((len(unique), r + 1, r + 1))
        whole[:, :r, :r], whole[:, r, r] = regression.loadings, regression.uniquenesses
        whole[:, r, :r] = whole[:, :r, r] = regression.between
        same = inverse[:, None] == inverse
        i, j = np.nonzero(same)
        out[i, j] = whole[inverse[i], which[i], which[j]] / self.counts[features[i]]
        for level in range(len(self.tree.ranks)):
            mine = np.flatnonzero((which < r) & self._of_level(which, level))
            nodes = self._nodes(level, features[mine])
            for node in np.unique(nodes):
                some = mine[nodes == node]
                rows = self._rows(level, int(node), features[some], which[some] - self.tree.columns[level])
                out[np.ix_(some, some)] += rows @ rows.T / self.nobs
        return out

    def _of_level(self, which: Places, level: int) -> NDArray[np.bool_]:
        own = self.tree.own(level)
        return (which >= own.start) & (which < own.stop)

    def _nodes(self, level: int, features: Places | slice) -> Places:
        """The group of a level that each feature is in."""
        places = np.arange(len(self.D))[features]
        return np.searchsorted(self.tree.offsets[level], places, side="right") - 1

    def _chunks(self) -> Iterator[slice]:
        step = max(1, TOGETHER // max(1, self.tree.n_factors**2))
        for first in range(0, len(self.D), step):
            yield slice(first, min(first + step, len(self.D)))

    @cached_property
    def grams(self) -> list[Floats]:
        """F_k' D^-1 F_k of every group."""
        return self._grams(self.D)

    def _grams(self, D: Floats) -> list[Floats]:
        """F_k' D^-1 F_k of every group, level by level, over all columns; those of finer levels have no meaning."""
        tree, r = self.tree, self.tree.n_factors
        leaves = len(tree.leaves) - 1
        C = np.zeros((leaves, r, r))
        no_data = np.empty((len(D), 0))
        leaf_moments(self.F, D, no_data, tree.leaves, tile_rows(0, r), C, np.empty((0, 0)), np.empty((leaves, r, 0)))
        C = np.tril(C) + np.tril(C, -1).swapaxes(1, 2)
        return [np.add.reduceat(C, np.searchsorted(tree.leaves, bounds[:-1]), axis=0) for bounds in tree.offsets]

    @cached_property
    def posterior(self) -> Floats:
        """The covariance of each leaf group's factors given the data."""
        tree = self.tree
        sweep, no_data = Sweep(tree, 0), np.empty((len(self.D), 0))
        P = np.empty((len(tree.leaves) - 1, tree.n_factors, tree.n_factors))

        def fill(task: Task, moments: Moments) -> None:
            own = task.features
            leaf_moments(self.F[own], self.D[own], no_data[own], task.leaves, sweep.tile, *moments)

        def keep(i: int, task: Task, posterior: Posterior) -> None:
            first = int(np.searchsorted(tree.leaves, task.features.start, side="right")) - 1
            P[first : first + task.n_leaves] = posterior.P

        with Workers() as workers:
            sweep.upward(fill, workers)
            sweep.downward(keep, workers)
        return P

    @cached_property
    def _known(self) -> Floats:
        """(I - P)^-1 of every leaf group; infinite along factors of which the data say nothing."""
        values, vectors = np.linalg.eigh(np.eye(self.tree.n_factors) - self.posterior)
        with np.errstate(divide="ignore"):
            scaled = vectors / np.where(values > 1e-10, values, 0)[:, None, :] if values.size else vectors
        return np.asarray(scaled @ vectors.swapaxes(1, 2), dtype=np.float64)

    def _regression(self, own: Places | slice) -> Regression:
        F, D = self.F[own], self.D[own]
        leaf = np.searchsorted(self.tree.leaves, np.arange(len(self.D))[own], side="right") - 1
        PF = np.einsum("jab,jb->ja", self.posterior[leaf], F)
        K = (1 - np.einsum("ja,ja->j", PF, F) / D) / D  # (Sigma^-1)_jj
        v = PF / D[:, None]
        known = self._known[leaf]
        u = np.einsum("jab,jb->ja", known, v) / K[:, None]  # A^-1 v, A = K (I - P)
        t = np.einsum("ja,ja->j", u, v)
        # With the uniqueness unknown too, loadings have the information A + vv' - 2 vv'.
        free = ~self.fixed[own]
        share = np.where(free, 1 / (1 - t), -1 / (1 + t))
        loadings = known / K[:, None, None] + np.einsum("ja,jb->jab", u, u) * share[:, None, None]
        uniquenesses = free * 2 * (1 + t) / (K**2 * (1 - t))
        between = -2 * u * (free / (K * (1 - t)))[:, None]
        return Regression(loadings, uniquenesses, between)

    def _gaps(self, level: int) -> Floats:
        """1 / (gamma_a - gamma_b) of every group, 0 on the diagonal."""
        own = self.tree.own(level)
        gamma = np.einsum("kaa->ka", self.grams[level][:, own, own])
        gaps = gamma[:, :, None] - gamma[:, None, :]
        each = np.arange(gaps.shape[1])
        with np.errstate(divide="ignore"):
            inverse = 1 / gaps
        inverse[:, each, each] = 0
        return np.asarray(inverse, dtype=np.float64)

    def _below(self, level: int) -> Iterator[tuple[int, Floats]]:
        """The finer levels, and Gamma of each of their groups: this level's factors x its own."""
        own = self.tree.own(level)
        for finer in range(level + 1, len(self.tree.ranks)):
            yield finer, self.grams[finer][:, own, self.tree.own(finer)]

    @cached_property
    def _shared(self) -> list[Floats]:
        """The sum of Gamma Gamma' over all finer groups in each group, level by level."""
        out = []
        for level, (bounds, rank) in enumerate(zip(self.tree.offsets, self.tree.ranks, strict=True)):
            total = np.zeros((len(bounds) - 1, rank, rank))
            for finer, gamma in self._below(level):
                first = np.searchsorted(self.tree.offsets[finer], bounds[:-1])
                total += np.add.reduceat(gamma @ gamma.swapaxes(1, 2), first, axis=0)
            out.append(total)
        return out

    def _of_sampled_factors(self, level: int, own: slice) -> Floats:
        """N times what the factors' sample moments add to the variances of some features' loadings of a level."""
        node, f = self._nodes(level, own), self.F[own, self.tree.own(level)]
        gamma = np.einsum("kaa->ka", self.grams[level][:, self.tree.own(level), self.tree.own(level)])[node]
        v = self._gaps(level)[node] * f[:, None, :]  # f_b / (gamma_a - gamma_b)
        shared = self._shared[level][node]
        out = f**2 / 2 + gamma**2 * np.einsum("jab,jab->ja", v, v)
        out += np.einsum("jab,jbc,jac->ja", v, shared, v, optimize=True)
        out += np.einsum("jaa,jab,jab->ja", shared, v, v)
        for finer, products in self._below(level):
            g = self.F[own, self.tree.own(finer)]
            out += (g**2).sum(axis=1)[:, None]
            taken = np.einsum("jbc,jc->jb", products[self._nodes(finer, own)], g)
            out += 2 * np.einsum("jab,jb->ja", v, taken)
        return out

    def _rows(self, level: int, node: int, features: Places, which: Places) -> Floats:
        """Coefficients of loadings of one group on the elements of W: of its own factors, and with all finer ones."""
        tree, rank = self.tree, self.tree.ranks[level]
        gamma = np.diag(self.grams[level][node][tree.own(level), tree.own(level)])
        f = self.F[features, tree.own(level)]
        each = np.arange(len(features))
        v = self._gaps(level)[node][which] * f
        # Elements W_aa, of variance 2, and W_ab, of variance 1, each of which stands twice in the sum over a and b.
        within = np.zeros((len(features), rank, rank))
        within[each, which, :] += gamma[which, None] * v
        within = within + within.swapaxes(1, 2)
        within = within[:, *np.tril_indices(rank, -1)]
        parts = [within, np.zeros((len(features), rank))]
        parts[1][each, which] = f[each, which] / np.sqrt(2)
        start, stop = tree.offsets[level][node : node + 2]
        for finer, products in self._below(level):
            first, last = np.searchsorted(tree.offsets[finer], [start, stop])
            own_node = self._nodes(finer, features)
            for m in range(first, last):
                G = products[m]
                with_finer = np.einsum("jb,ac->jbac", v, G)[each, :, which]  # W_bc takes f_b Gamma_ac
                with_finer[each, which] += v @ G
                inside = own_node == m
                with_finer[each[inside], which[inside]] += self.F[features[inside], tree.own(finer)]
                parts.append(with_finer.reshape(len(features), -1))
        return np.concatenate(parts, axis=1)
