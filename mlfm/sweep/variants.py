"""The variants of every node of a tree where observations miss features.

Two observations that miss the same features of a node's have the same R and A there, whatever else they miss. So a
node has a variant for every set of its features that some observations miss, and the work follows the number of
variants: a node whose features are always observed has one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlfm.sweep.tree import Tree

Integers = NDArray[np.intp]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Level:
    """The variants of the nodes of one level, node by node.

    Lists are given by the boundaries of their parts and what stands in them.
    """

    node: Integers  # of each variant
    first: Integers  # the variants of node k: first[k] .. first[k + 1]
    count: Floats  # observations of each variant
    above: tuple[Integers, Integers]  # the variants, a level above, of each variant's parent that go with it
    below: tuple[Integers, Integers]  # the variants, a level below, of its children
    runs: Integers  # the runs of columns of node k: runs[k] .. runs[k + 1]
    bounds: Integers  # two a run: its first column, and where it ends
    variant: Integers  # of each run


@dataclass(frozen=True, eq=False)
class Variants:
    """The variants of all levels of a tree, and what those of the leaf groups miss."""

    levels: tuple[Level, ...]
    missing: tuple[Integers, Integers]  # features that each variant of a leaf group misses

    @classmethod
    def of(cls, tree: Tree, first: Integers, features: Integers, starts: Integers, counts: Floats) -> Variants:
        """From patterns: pattern s misses features[first[s] .. first[s + 1]], has columns starts[s] .. starts[s + 1]
        and stands for counts[s] observations.
        """
        pattern = np.repeat(np.arange(len(counts)), np.diff(first))
        found = [_Found(tree.offsets[level], pattern, features, counts) for level in range(len(tree.ranks))]
        downward = [_below(tree, level, found) for level in range(len(found))]
        upward = [(np.zeros(2, dtype=np.intp), np.empty(0, dtype=np.intp))]
        upward += [_turned(*edges, len(below.node)) for edges, below in zip(downward[:-1], found[1:], strict=True)]
        levels = tuple(
            Level(level.node, level.first, level.count, above, below, *level.runs(starts))
            for level, above, below in zip(found, upward, downward, strict=True)
        )
        return cls(levels, found[-1].missing(first, features, tree.leaves))


class _Found:
    """The variants of one level: which there are, and which one each (node, pattern) has."""

    def __init__(self, offsets: Integers, pattern: Integers, features: Integers, counts: Floats) -> None:
        self.n_nodes, self.n_patterns = len(offsets) - 1, len(counts)
        node = np.searchsorted(offsets, features, side="right") - 1
        key = node * self.n_patterns + pattern
        order = np.argsort(key, kind="stable")
        self.keys, begin = np.unique(key[order], return_index=True)  # pairs of a node and a pattern that misses some
        self.dirty_node, self.dirty_pattern = np.divmod(self.keys, self.n_patterns)
        if len(self.keys):
            labels = np.add.reduceat(_labels(int(offsets[-1]))[features[order]], begin, axis=0)
        else:
            labels = np.empty((0, 2), dtype=np.uint64)
        # Variants that miss something, by node and label; the lowest pattern of each stands for it.
        by_label = np.lexsort((self.dirty_pattern, labels[:, 1], labels[:, 0], self.dirty_node))
        same = (np.diff(self.dirty_node[by_label]) == 0) & (np.diff(labels[by_label], axis=0) == 0).all(axis=1)
        new = np.concatenate([[True], ~same])[: len(by_label)]
        number = np.cumsum(new) - 1
        example = by_label[new]
        missing_weight = np.bincount(number, counts[self.dirty_pattern[by_label]], minlength=len(example))
        # A node has a variant that misses nothing unless every pattern misses something of it.
        dirty_patterns = np.bincount(self.dirty_node, minlength=self.n_nodes)
        clean = np.flatnonzero(dirty_patterns < self.n_patterns)
        dirty_weight = np.bincount(self.dirty_node, counts[self.dirty_pattern], minlength=self.n_nodes)

        nodes = np.concatenate([clean, self.dirty_node[example]])
        examples = np.concatenate([np.full(len(clean), -1), self.dirty_pattern[example]])
        weights = np.concatenate([np.maximum(counts.sum() - dirty_weight[clean], 0.0), missing_weight])
        place = np.lexsort((examples, nodes))
        rank = np.empty(len(place), dtype=np.intp)
        rank[place] = np.arange(len(place))
        self.node, self.pattern, self.count = nodes[place], examples[place], weights[place]
        self.first = np.searchsorted(self.node, np.arange(self.n_nodes + 1))
        self.clean = np.full(self.n_nodes, -1, dtype=np.intp)
        self.clean[clean] = rank[: len(clean)]
        self.dirty = np.empty(len(self.keys), dtype=np.intp)  # the variant of each pair
        self.dirty[by_label] = rank[len(clean) + number]

    def at(self, node: Integers, pattern: Integers) -> Integers:
        """The variants of nodes under patterns; pattern -1 is one that misses nothing of the node's."""
        if len(self.keys) == 0:
            return self.clean[node]
        key = node * self.n_patterns + pattern
        where = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        return np.where((self.keys[where] == key) & (pattern >= 0), self.dirty[where], self.clean[node])

    def runs(self, starts: Integers) -> tuple[Integers, Integers, Integers]:
        """Runs of columns of one variant: their boundaries by node, two bounds of columns each, and the variants."""
        # A run may begin at the first pattern, at one that misses something, and at the one behind it.
        node = np.concatenate([np.arange(self.n_nodes), self.dirty_node, self.dirty_node])
        pattern = np.concatenate([np.zeros(self.n_nodes, dtype=np.intp), self.dirty_pattern, self.dirty_pattern + 1])
        key = np.unique((node * (self.n_patterns + 1) + pattern)[pattern < self.n_patterns])
        node, pattern = np.divmod(key, self.n_patterns + 1)
        variant = self.at(node, pattern)
        new = np.concatenate([[True], (np.diff(node) != 0) | (np.diff(variant) != 0)])
        node, pattern, variant = node[new], pattern[new], variant[new]
        last = np.concatenate([np.diff(node) != 0, [True]])
        stop = np.where(last, self.n_patterns, np.concatenate([pattern[1:], [0]]))
        bounds = np.stack([starts[pattern], starts[stop]], axis=1).ravel()
        return np.searchsorted(node, np.arange(self.n_nodes + 1)), bounds, variant

    def missing(self, first: Integers, features: Integers, offsets: Integers) -> tuple[Integers, Integers]:
        """The features that each variant misses."""
        number = np.flatnonzero(self.pattern >= 0)
        node, pattern = self.node[number], self.pattern[number]
        # A pattern's features increase: those of a node stand together.
        n = int(offsets[-1])
        all_keys = np.repeat(np.arange(self.n_patterns), np.diff(first)) * n + features
        begin = np.searchsorted(all_keys, pattern * n + offsets[node])
        end = np.searchsorted(all_keys, pattern * n + offsets[node + 1])
        lengths = np.zeros(len(self.node), dtype=np.intp)
        lengths[number] = end - begin
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        inside = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
        return bounds, features[np.repeat(begin, end - begin) + inside]


def _labels(n: int) -> NDArray[np.uint64]:
    """Random labels of n features. Sums of them, 128 bits in all, tell sets of features apart."""
    return np.random.default_rng(0).integers(0, 2**64, size=(n, 2), dtype=np.uint64)


def _below(tree: Tree, level: int, found: list[_Found]) -> tuple[Integers, Integers]:
    """The variants, a level below, of the children of each variant's node."""
    own = found[level]
    if level == tree.leaf_level:
        return np.zeros(len(own.node) + 1, dtype=np.intp), np.empty(0, dtype=np.intp)
    begin, end = tree.children[level][own.node], tree.children[level][own.node + 1]
    bounds = np.concatenate([[0], np.cumsum(end - begin)])
    which = np.repeat(np.arange(len(own.node)), end - begin)
    child = np.arange(bounds[-1]) - bounds[which] + begin[which]
    return bounds, found[level + 1].at(child, own.pattern[which])


def _turned(bounds: Integers, items: Integers, n: int) -> tuple[Integers, Integers]:
    """From what stands in each list to the lists in which each of n things stands, in increasing order."""
    which = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    order = np.argsort(items, kind="stable")
    return np.searchsorted(items[order], np.arange(n + 1)), which[order]
