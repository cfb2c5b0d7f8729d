"""Standard errors in closed form where the groups have many features: linear in their number.

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

A leaf group with few features does not know its own factors. There the error is that of all the group's parameters
given those of the others (:mod:`mlfm.inference.small_groups`), which has the leaf level's part of W in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlfm._kernels.blocks import leaf_moments
from mlfm.inference.counts import doubtful
from mlfm.inference.small_groups import covariances
from mlfm.sweep import Moments, Posterior, Sweep, Task, Tree, Workers
from mlfm.tiles import tile_rows

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
TOGETHER = 1 << 22  # entries of the largest array that is made at once


SMALL = 160  # parameters of a leaf group up to which its errors are worked out together


class Errors(NamedTuple):
    """The errors of some features' regressions, times the number of their observations."""

    features: Places
    #: Of each feature's loadings and uniqueness: features x (r + 1) x (r + 1).
    each: Floats
    #: Of all parameters of small leaf groups of one size: groups x m (r + 1) x m (r + 1); None for large groups.
    together: Floats | None


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
        for errors in self._errors(self._large, self._small):
            own, variances = errors.features, np.einsum("jaa->ja", errors.each)
            of_F[own] = variances[:, :-1] / self.counts[own, None]
            of_D[own] = variances[:, -1] / self.counts[own]
            for level in range(len(self.tree.ranks)):
                sampled = self._of_sampled_factors(level, own, errors.together is not None)
                of_F[own, self.tree.own(level)] += sampled / self.nobs
        lost_F, lost_D = self._lost
        of_F[lost_F], of_D[lost_D] = np.nan, np.nan
        return of_F, of_D

    def of_explained(self) -> Floats:
        """Variances of each feature's communality, f'f / (f'f + D)."""
        out, leaf_level = np.empty_like(self.D), self.tree.own(self.tree.leaf_level)
        for errors in self._errors(self._large, self._small):
            own = errors.features
            F, D, N = self.F[own], self.D[own], self.counts[own]
            explained = np.einsum("ja,ja->j", F, F)
            slopes = np.concatenate([2 * F * D[:, None], -explained[:, None]], axis=1) / (explained + D)[:, None] ** 2
            # The factors' sample moments move f'f by f'Wf, of variance 2 (f'f)^2.
            rest = F[:, : leaf_level.start] if errors.together is not None else F
            moved = 2 * (np.einsum("ja,ja->j", rest, rest) * D / (explained + D) ** 2) ** 2
            out[own] = np.einsum("ja,jab,jb->j", slopes, errors.each, slopes) / N + moved / self.nobs
        out[self._lost[1]] = np.nan
        return out

    def of_sums(self) -> Floats:
        """Covariances of the levels' sums of squared loadings and of the sum of uniquenesses, in that order."""
        levels, r = len(self.tree.ranks), self.tree.n_factors
        out, lost = np.zeros((levels + 1, levels + 1)), np.zeros(levels + 1, dtype=bool)
        products, large = self._grams(np.ones_like(self.D)), ~self._is_small
        for level in range(levels):
            own = self.tree.own(level)
            for finer in range(level, levels):
                kept = large if finer == levels - 1 else slice(None)
                squares = (products[finer][kept][:, own, self.tree.own(finer)] ** 2).sum()
                out[level, level] += (2 if finer == level else 4) * squares / self.nobs
        for errors in self._errors(self._large, self._small):
            features = errors.features
            slopes = np.zeros((levels + 1, len(features), r + 1))
            for level in range(levels):
                columns = self.tree.own(level)
                slopes[level, :, columns] = 2 * self.F[features, columns]
            slopes[levels, :, r] = 1
            slopes /= np.sqrt(self.counts[features, None])
            if errors.together is None:
                out += np.einsum("lja,jab,mjb->lm", slopes, errors.each, slopes, optimize=True)
            else:
                groups = len(errors.together)
                of_group = slopes.reshape(levels + 1, groups, -1, r + 1)
                of_F, of_D = of_group[..., :-1].reshape(levels + 1, groups, -1), of_group[..., -1]
                slopes = np.concatenate([of_F, of_D], axis=2)
                lost |= ((slopes != 0) & np.isnan(np.einsum("gpp->gp", errors.together))).any(axis=(1, 2))
                out += np.einsum("lgp,gpq,mgq->lm", slopes, np.nan_to_num(errors.together), slopes, optimize=True)
        lost_F, lost_D = self._lost
        lost[:-1] |= [bool(lost_F[:, self.tree.own(level)].any()) for level in range(levels)]
        lost[-1] |= lost_D.any()
        out[lost], out[:, lost] = np.nan, np.nan
        return out

    def covariance(self, features: Places, which: Places) -> Floats:
        """Between some parameters: of features, their loadings on factors 0 .. r - 1, or uniquenesses (r)."""
        out = np.zeros((len(features), len(features)))
        roots, leaf = np.sqrt(self.counts[features]), self._leaf(features)
        small = self._is_small[leaf]
        for errors in self._errors(np.unique(features[~small]), np.unique(leaf[small])):
            if errors.together is None:
                mine = np.flatnonzero(np.isin(features, errors.features))
                place = np.searchsorted(errors.features, features[mine])
                same = place[:, None] == place
                block = np.where(same, errors.each[place[:, None], which[mine][:, None], which[mine]], 0)
                out[np.ix_(mine, mine)] = block / np.outer(roots[mine], roots[mine])
                continue
            m, r = errors.features.size // len(errors.together), self.tree.n_factors
            for group, V in zip(errors.features.reshape(-1, m), errors.together, strict=True):
                mine = np.flatnonzero((features >= group[0]) & (features <= group[-1]))
                place, kind = features[mine] - group[0], which[mine]
                places = np.where(kind < r, place * r + kind, m * r + place)
                out[np.ix_(mine, mine)] = V[np.ix_(places, places)] / np.outer(roots[mine], roots[mine])
        for level in range(len(self.tree.ranks)):
            mine = np.flatnonzero((which < self.tree.n_factors) & self._of_level(which, level))
            if level == self.tree.leaf_level:
                mine = mine[~small[mine]]
            nodes = self._nodes(level, features[mine])
            for node in np.unique(nodes):
                some = mine[nodes == node]
                rows = self._rows(level, int(node), features[some], which[some] - self.tree.columns[level])
                among = rows @ rows.T
                if level < self.tree.leaf_level:
                    # What small groups' own factors have in common with this level's is in their errors already.
                    g = self.F[features[some], self.tree.own(self.tree.leaf_level)]
                    both = small[some] & (leaf[some][:, None] == leaf[some]) & (which[some][:, None] == which[some])
                    among -= np.where(both, g @ g.T, 0)
                out[np.ix_(some, some)] += among / self.nobs
        lost_F, lost_D = self._lost
        lost = np.column_stack([lost_F, lost_D])[features, which]
        out[lost], out[:, lost] = np.nan, np.nan
        return out

    @cached_property
    def _lost(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Loadings and uniquenesses that no data identify, by the sizes of their groups.

        A group with the features of its parent leaves open which of the two its factors belong to.
        """
        of_F, of_D = np.zeros(self.F.shape, dtype=bool), np.zeros(len(self.D), dtype=bool)
        tree = self.tree
        for level, (small, same) in enumerate(doubtful(tree.offsets, tree.ranks)):
            sizes = np.diff(tree.offsets[level])
            of_D |= np.repeat(small, sizes)
            of_F[:, tree.own(level)] |= np.repeat(small | same, sizes)[:, None]
            coarser = [above for above in range(level) if tree.ranks[above]]
            if coarser:
                of_F[:, tree.own(coarser[-1])] |= np.repeat(same, sizes)[:, None]
        return of_F, of_D

    def _of_level(self, which: Places, level: int) -> NDArray[np.bool_]:
        own = self.tree.own(level)
        return (which >= own.start) & (which < own.stop)

    def _nodes(self, level: int, features: Places) -> Places:
        """The group of a level that each feature is in."""
        return np.searchsorted(self.tree.offsets[level], features, side="right") - 1

    def _leaf(self, features: Places) -> Places:
        """The leaf group that each feature is in."""
        return np.searchsorted(self.tree.leaves, features, side="right") - 1

    @cached_property
    def _is_small(self) -> NDArray[np.bool_]:
        """Leaf groups whose errors are worked out together."""
        return np.asarray(np.diff(self.tree.leaves) * (self.tree.n_factors + 1) <= SMALL)

    @property
    def _large(self) -> Places:
        """The features of the other leaf groups."""
        return np.flatnonzero(~np.repeat(self._is_small, np.diff(self.tree.leaves)))

    @property
    def _small(self) -> Places:
        return np.flatnonzero(self._is_small)

    def _errors(self, features: Places, leaves: Places) -> Iterator[Errors]:
        """The errors of features of large groups, and of whole small ones; as much at once as memory should hold."""
        r = self.tree.n_factors
        step = max(1, TOGETHER // (r + 1) ** 2)
        for first in range(0, len(features), step):
            own = features[first : first + step]
            yield Errors(own, self._regression(own), None)
        sizes = np.diff(self.tree.leaves)[leaves]
        for m in np.unique(sizes):
            step = max(1, TOGETHER // (m * (r + 1)) ** 2)
            alike = leaves[sizes == m]
            for first in range(0, len(alike), step):
                some = alike[first : first + step]
                own = self.tree.leaves[some][:, None] + np.arange(m)
                F, D, P = self.F[own], self.D[own], self.posterior[some]
                with Workers(1):  # BLAS on one thread: these products are short
                    V = covariances(F, D, P, self.tree.own(self.tree.leaf_level), self.fixed[own])
                each = np.arange(m)
                places = np.concatenate([each[:, None] * r + np.arange(r), m * r + each[:, None]], axis=1)
                of_each = V[:, places[:, :, None], places[:, None, :]].reshape(-1, r + 1, r + 1)
                yield Errors(own.ravel(), of_each, V)

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

    def _regression(self, own: Places) -> Floats:
        """The errors of features' loadings and uniquenesses, each feature's given all others: m x (r + 1) x (r + 1)."""
        F, D, leaf = self.F[own], self.D[own], self._leaf(own)
        PF = np.einsum("jab,jb->ja", self.posterior[leaf], F)
        K = (1 - np.einsum("ja,ja->j", PF, F) / D) / D  # (Sigma^-1)_jj
        v = PF / D[:, None]
        known = self._known[leaf]
        u = np.einsum("jab,jb->ja", known, v) / K[:, None]  # A^-1 v, A = K (I - P)
        t = np.einsum("ja,ja->j", u, v)
        # With the uniqueness unknown too, loadings have the information A + vv' - 2 vv'.
        free = ~self.fixed[own]
        share = np.where(free, 1 / (1 - t), -1 / (1 + t))
        out = np.empty((len(own), F.shape[1] + 1, F.shape[1] + 1))
        out[:, :-1, :-1] = known / K[:, None, None] + np.einsum("ja,jb->jab", u, u) * share[:, None, None]
        out[:, -1, -1] = free * 2 * (1 + t) / (K**2 * (1 - t))
        out[:, :-1, -1] = out[:, -1, :-1] = -2 * u * (free / (K * (1 - t)))[:, None]
        return out

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

    def _of_sampled_factors(self, level: int, own: Places, small: bool) -> Floats:
        """N times what the factors' sample moments add to the variances of some features' loadings of a level.

        For features of small leaf groups without what is in their errors already.
        """
        if small and level == self.tree.leaf_level:
            return np.zeros((len(own), self.tree.ranks[level]))
        node, f = self._nodes(level, own), self.F[own, self.tree.own(level)]
        gamma = np.einsum("kaa->ka", self.grams[level][:, self.tree.own(level), self.tree.own(level)])[node]
        v = self._gaps(level)[node] * f[:, None, :]  # f_b / (gamma_a - gamma_b)
        shared = self._shared[level][node]
        out = f**2 / 2 + gamma**2 * np.einsum("jab,jab->ja", v, v)
        out += np.einsum("jab,jbc,jac->ja", v, shared, v, optimize=True)
        out += np.einsum("jaa,jab,jab->ja", shared, v, v)
        for finer, products in self._below(level):
            g = self.F[own, self.tree.own(finer)]
            if not (small and finer == self.tree.leaf_level):
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
