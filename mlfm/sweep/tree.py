"""The tree of groups as arrays: what the sweep needs to know of a hierarchy and its ranks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Tree:
    """Nested groups of features in group order, with the number of factors of each level.

    Levels of rank 0 carry no factors and are left out, but for the first: the root of the tree, which may have
    rank 0 (a forest), and then only ties its children together.

    Parameters
    ----------
    offsets : sequence of int arrays
        Boundaries of the groups of each level, coarse to fine, in group order; the first is ``[0, n]``.
    ranks : sequence of int
        Factors of each group, one number a level.
    """

    offsets: tuple[NDArray[np.intp], ...]
    ranks: tuple[int, ...]
    columns: tuple[int, ...]  # level l's own columns of the compressed loadings are columns[l] .. columns[l + 1]
    parents: tuple[NDArray[np.intp], ...]  # parents[l][k]: the node above node k of level l, a node of level l - 1
    children: tuple[NDArray[np.intp], ...]  # children of node k of level l: children[l][k] .. children[l][k + 1]

    @classmethod
    def of(cls, offsets: Sequence[NDArray[np.intp]], ranks: Sequence[int]) -> Tree:
        kept = [level for level, rank in enumerate(ranks) if rank > 0 or level == 0]
        bounds = tuple(np.ascontiguousarray(offsets[level], dtype=np.intp) for level in kept)
        active = tuple(int(ranks[level]) for level in kept)
        parents = [np.zeros(1, dtype=np.intp)]
        children = []
        for above, below in itertools.pairwise(bounds):
            parents.append(np.searchsorted(above, below[:-1], side="right") - 1)
            children.append(np.searchsorted(below, above))
        columns = (0, *np.cumsum(active).tolist())
        return cls(bounds, active, columns, tuple(parents), tuple(children))

    @property
    def n_features(self) -> int:
        return int(self.offsets[0][-1])

    @property
    def n_factors(self) -> int:
        """Factors on the path of a leaf group, r: the columns of the compressed loadings."""
        return self.columns[-1]

    @property
    def leaf_level(self) -> int:
        return len(self.ranks) - 1

    @property
    def leaves(self) -> NDArray[np.intp]:
        """Boundaries of the leaf groups."""
        return self.offsets[-1]

    def n_nodes(self, level: int) -> int:
        return len(self.offsets[level]) - 1

    def own(self, level: int) -> slice:
        """A level's own columns of the compressed loadings."""
        return slice(self.columns[level], self.columns[level + 1])
