"""From labels to a frozen hierarchy of groups: which feature is in which group, at every level."""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.agreement import adjusted_rand
from mlfm.arrays import as_pandas, real_array
from mlfm.finding import METHODS, column_names, components_by_level, doubling, unit_variances
from mlfm.grouping import checked_merges, checked_n_groups, linkage_partitions, numbered, random_partitions
from mlfm.partitioning import data_partitions
from mlfm.seeds import generator
from mlfm.wording import count, listing

GLOBAL = "global"
UNIQUE = "unique"
RESERVED = {
    GLOBAL: "that is the name of the first level, which holds every feature and is always there",
    UNIQUE: "that is the name of the variance that belongs to no level",
}


class Hierarchy:
    """Nested groups of features, from the global group to the finest.

    Labels nest by path: the label "Other" under two sectors makes two groups. Groups stand in the order in which
    they first appear among the features, so renaming them changes nothing else. Where there are no labels,
    :meth:`from_linkage` takes groups from a dendrogram, and :meth:`random` draws them.

    Parameters
    ----------
    labels : DataFrame, MultiIndex, Index or Hierarchy
        A DataFrame is indexed by feature, its columns are the levels from coarse to fine. Of a MultiIndex (of a
        DataFrame's columns, say) the last level names the features and those before it are the levels, coarse to
        fine. A plain Index names features that are in no group but the global one.
    levels : sequence of hashable, optional
        The levels to use, coarse to fine, by name; by default all. ``"global"`` may stand first.

    Raises
    ------
    TypeError
        If the labels are of another type or cannot be hashed.
    ValueError
        If a label is missing or empty, a feature occurs twice, or a level is unknown, occurs twice, or is called
        "global" (the first level, which is always there) or "unique" (the variance that belongs to no level).

    Notes
    -----
    "Level" means a level of the hierarchy of features (columns of the data), never one of observations (rows).

    *Group order* is an order of the features in which every group of every level is contiguous;
    ``permutation[i]`` is the feature at position ``i`` of it. Results come back in the user's order.

    Examples
    --------
    >>> import pandas as pd
    >>> labels = pd.DataFrame(
    ...     {"sector": ["Tech", "Energy", "Tech", "Energy"], "industry": ["Chips", "Oil", "Software", "Oil"]},
    ...     index=["AMD", "BP", "SAP", "TTE"],
    ... )
    >>> hierarchy = Hierarchy(labels)
    >>> hierarchy
    Hierarchy of 4 features: global (1 group) > sector (2 groups) > industry (3 groups)
    global (4)
    ├─ Tech (2)
    │  ├─ Chips (1)
    │  └─ Software (1)
    └─ Energy (2)
       └─ Oil (2)
    >>> hierarchy.permutation
    array([0, 2, 1, 3])
    >>> hierarchy.groups("industry")["Energy", "Oil"].tolist()
    ['BP', 'TTE']
    """

    __slots__ = ("_features", "_labels", "_levels", "_offsets", "_permutation")

    _features: pd.Index
    _levels: tuple[Hashable, ...]
    _labels: tuple[NDArray[np.object_], ...]
    _permutation: NDArray[np.intp]
    _offsets: tuple[NDArray[np.intp], ...]

    def __init__(
        self, labels: pd.DataFrame | pd.Index | Hierarchy, *, levels: Sequence[Hashable] | None = None
    ) -> None:
        if isinstance(labels, Hierarchy):
            frame = labels.to_frame() if levels is None else labels._coarser_frame(levels)
        else:
            frame = _label_frame(labels)
            if levels is not None:
                frame = frame.loc[:, _chosen(levels, frame.columns)]
        _check_level_names(list(frame.columns))
        _check_features(frame.index)
        columns = [_checked_labels(frame, position) for position in range(frame.shape[1])]

        self._features = frame.index
        self._levels = (GLOBAL, *frame.columns)
        self._labels = tuple(columns)
        codes = _codes_by_path(columns, len(frame))
        # Stable, with the coarsest level as the first key: groups stay in order of first appearance.
        self._permutation = np.lexsort(tuple(reversed(codes))).astype(np.intp)
        self._offsets = tuple(_boundaries(code[self._permutation]) for code in codes)
        for array in (self._permutation, *self._offsets, *self._labels):
            array.setflags(write=False)

    @classmethod
    def random(
        cls,
        features: int | Sequence[Hashable] | pd.Index,
        n_groups: Sequence[int],
        *,
        balanced: bool = True,
        levels: Sequence[Hashable] | None = None,
        rng: Any = None,
    ) -> Hierarchy:
        """A random hierarchy: which features share a group is left to chance.

        What known groups have to beat, if they mean anything; and groups for simulations.

        Parameters
        ----------
        features : int, sequence or Index
            Names of the features, or how many there are (their names are then 0, 1, ...).
        n_groups : sequence of int
            Number of groups at each level below the global one, coarse to fine; increasing, at most one a feature.
        balanced : bool
            Whether groups are as equal in size as can be: at each level, sizes have the least variance that the groups
            of the level above allow. If not, sizes are random too: all ways to cut the features, put in random order,
            into so many groups are equally likely.
        levels : sequence of hashable, optional
            Names of the levels below the global one; by default "level_2", "level_3", ...
        rng : int, Generator or None
            Seed, or a numpy Generator; None is seed 0.

        Returns
        -------
        Hierarchy
            Groups are numbered from 1 over each whole level, in group order.

        Raises
        ------
        TypeError, ValueError
            If numbers of groups are not whole, do not increase, or are more than the features; or if names of features
            or levels are missing, occur twice, or are too many or too few.

        Examples
        --------
        >>> hierarchy = Hierarchy.random(["a", "b", "c", "d", "e", "f", "g"], [2, 4], rng=1)
        >>> hierarchy
        Hierarchy of 7 features: global (1 group) > level_2 (2 groups) > level_3 (4 groups)
        global (7)
        ├─ 1 (4)
        │  ├─ 1 (2)
        │  └─ 2 (2)
        └─ 2 (3)
           ├─ 3 (2)
           └─ 4 (1)
        >>> hierarchy.summary()
                 groups  smallest  median  largest
        level
        global        1         7     7.0        7
        level_2       2         3     3.5        4
        level_3       4         1     2.0        2
        """
        names = _feature_names(features)
        wanted = checked_n_groups(n_groups, len(names))
        below = level_names(levels, len(wanted))
        return cls._of_partitions(random_partitions(len(names), wanted, balanced, generator(rng)), names, below)

    @classmethod
    def from_linkage(
        cls,
        Z: NDArray[Any],
        n_groups: Sequence[int],
        *,
        features: Sequence[Hashable] | pd.Index | None = None,
        levels: Sequence[Hashable] | None = None,
    ) -> Hierarchy:
        """The hierarchy of a dendrogram, cut where it has so many groups.

        A level with k groups is what the last k - 1 merges of the dendrogram join. So levels always nest and have as
        many groups as asked for, also where merges are at the same height, and where one is lower than a merge
        before it (inversions, as of the centroid and median methods).

        Parameters
        ----------
        Z : array
            Of features, not of observations, as made by ``scipy.cluster.hierarchy.linkage``.
        n_groups : sequence of int
            Number of groups at each level below the global one, coarse to fine; increasing, at most one a feature.
        features : sequence or Index, optional
            Names of the features, in the order in which ``linkage`` had them; by default 0, 1, ...
        levels : sequence of hashable, optional
            Names of the levels below the global one; by default "level_2", "level_3", ...

        Returns
        -------
        Hierarchy
            Groups are numbered from 1 over each whole level, in group order.

        Raises
        ------
        TypeError, ValueError
            If ``Z`` is no dendrogram; if numbers of groups are not whole, do not increase, or are more than the
            features; or if names of features or levels are missing, occur twice, or are too many or too few.

        Examples
        --------
        By the correlations of 24 tests of ability:

        >>> import mlfm
        >>> from scipy.cluster.hierarchy import linkage
        >>> from scipy.spatial.distance import squareform
        >>> data = mlfm.datasets.load("abilities")
        >>> distances = squareform((1 - data.endog.corr()).to_numpy(), checks=False)
        >>> hierarchy = Hierarchy.from_linkage(linkage(distances, "average"), [2, 5], features=data.endog.columns)
        >>> hierarchy
        Hierarchy of 24 features: global (1 group) > level_2 (2 groups) > level_3 (5 groups)
        global (24)
        ├─ 1 (19)
        │  ├─ 1 (10)
        │  ├─ 2 (1)
        │  ├─ 3 (4)
        │  └─ 4 (4)
        └─ 2 (5)
           └─ 5 (5)
        >>> hierarchy.agreement(data.groups).round(2)
        other    global  ability
        level
        global      1.0     0.00
        level_2     0.0     0.13
        level_3     0.0     0.67
        """
        merges = checked_merges(Z)
        n = len(merges) + 1
        names = _feature_names(n if features is None else features)
        if len(names) != n:
            raise ValueError(
                f"features: {count(len(names), 'name')} for a dendrogram of {n}; that of the features of endog is "
                "linkage(endog.T)"
            )
        wanted = checked_n_groups(n_groups, n)
        below = level_names(levels, len(wanted))
        return cls._of_partitions(linkage_partitions(merges, wanted), names, below)

    @classmethod
    def from_data(
        cls,
        endog: Any,
        n_levels: int | None = None,
        *,
        n_groups: Sequence[int] | None = None,
        ranks: int | Sequence[int] = 0,
        method: str = "spectral",
        balanced: bool = False,
        levels: Sequence[Hashable] | None = None,
        rng: Any = None,
    ) -> Hierarchy:
        """A hierarchy found in the data: features that go together, beyond what coarser groups share.

        From the top down. If asked for, the leading principal components of each group are taken out; what is left is
        cut in two where squared covariances are small across the cut, by the second eigenvector of the normalised
        Laplacian, and features are moved as long as that lowers the normalised cut. Of several groups the one that is
        cut best comes first, until there are as many as asked for, and features then move between all parts of a group.

        It is a heuristic: compare what it finds by :func:`mlfm.compare` on held-out observations with other groups,
        and with none. Groups found in the same data make the fit look better than it is.

        Parameters
        ----------
        endog : DataFrame or array, observations x features
            Without missing values. Features are scaled to unit variance.
        n_levels : int, optional
            Number of levels, the global one among them; each has twice the groups of the one before, unless
            ``n_groups`` says otherwise.
        n_groups : sequence of int, optional
            Number of groups at each level below the global one, coarse to fine, increasing.
        ranks : int or sequence of int
            Components taken out of each group before it is cut: one number, or one a level from the global one on.
            About as many as the level has factors, where these hide the groups below. It is no help where they do
            not: on the data sets that come with mlfm known groups agree better with those found with none taken out.
        method : {"spectral"}
        balanced : bool
            Whether groups are cut into halves of one size, the largest group first, and only swaps are made.
        levels : sequence of hashable, optional
            Names of the levels below the global one; by default "level_2", "level_3", ...
        rng : int, Generator or None
            Where eigenvectors begin, and the sketch of large groups; None is seed 0.

        Returns
        -------
        Hierarchy
            Groups are numbered from 1 over each whole level, in group order.

        Raises
        ------
        TypeError, ValueError
            If values are missing, a feature does not vary, or numbers of groups are not whole, do not increase or are
            more than the features.

        Notes
        -----
        For N observations of n features, work and memory are linear in n: groups of more than 2000 features are cut by
        products with the data (or with a sketch of it to 256 dimensions), smaller ones by their squared covariances.

        References
        ----------
        Parshakova, Hastie, Darve and Boyd, *Factor Fitting, Rank Allocation, and Partitioning in Multilevel Low Rank
        Matrices* (arXiv 2310.19214), section 6; Shi and Malik (2000), *Normalized cuts and image segmentation*.

        Examples
        --------
        >>> import mlfm
        >>> data = mlfm.datasets.load("abilities")
        >>> found = Hierarchy.from_data(data.endog, n_groups=[5])
        >>> found
        Hierarchy of 24 features: global (1 group) > level_2 (5 groups)
        global (24)
        ├─ 1 (7)
        ├─ 2 (4)
        ├─ 3 (4)
        ├─ 4 (4)
        └─ 5 (5)
        >>> round(float(found.agreement(data.groups).loc["level_2", "ability"]), 2)
        0.77
        """
        endog = as_pandas(endog)
        values = real_array(endog, "endog")
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(f"endog: observations x features are needed, not shape {values.shape}")
        names = _feature_names(column_names(endog, values.shape[1]))
        if method not in METHODS:
            raise ValueError(f"method must be one of {listing(METHODS)}, not {method!r}")
        wanted = doubling(n_levels, n_groups, len(names))
        below = level_names(levels, len(wanted))
        by_level = components_by_level(ranks, len(wanted) + 1)
        partitions = data_partitions(unit_variances(values, names), wanted, by_level, bool(balanced), generator(rng))
        return cls._of_partitions(partitions, names, below)

    @classmethod
    def _of_partitions(
        cls, partitions: Sequence[NDArray[np.intp]], features: pd.Index, levels: Sequence[Hashable]
    ) -> Hierarchy:
        """From nested partitions, coarse to fine, each a group number for every feature (see ``mlfm.grouping``)."""
        labels = pd.DataFrame(dict(enumerate(numbered(partitions))), index=features)
        labels.columns = pd.Index(levels, dtype=object, tupleize_cols=False)
        return cls(labels)

    @property
    def features(self) -> pd.Index:
        """Names of the features, in the user's order."""
        return self._features

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self._features)

    @property
    def levels(self) -> tuple[Hashable, ...]:
        """Names of the levels, coarse to fine; the first is "global"."""
        return self._levels

    @property
    def n_groups(self) -> pd.Series:
        """Number of groups at each level."""
        return pd.Series(
            [len(bounds) - 1 for bounds in self._offsets], index=pd.Index(self._levels, name="level"), name="groups"
        )

    @property
    def permutation(self) -> NDArray[np.intp]:
        """Position in the user's order of the feature at each position of group order."""
        return self._permutation

    @property
    def offsets(self) -> tuple[NDArray[np.intp], ...]:
        """For each level the boundaries of its groups in group order: group k is offsets[k] .. offsets[k + 1]."""
        return self._offsets

    def position(self, level: Hashable) -> int:
        """Number of a level, counted from 0 for "global".

        Raises
        ------
        ValueError
            If there is no such level.
        """
        try:
            return self._levels.index(level)
        except ValueError:
            raise ValueError(f"unknown level {level!r}; the levels are {listing(self._levels)}") from None

    def paths(self, level: Hashable) -> pd.Index:
        """Names of a level's groups in group order: labels for the first level below the global one, paths of
        labels (a MultiIndex) for those below it.
        """
        depth = self.position(level)
        if depth == 0:
            return pd.Index([GLOBAL], name=GLOBAL)
        first = self._permutation[self._offsets[depth][:-1]]
        columns = [labels[first] for labels in self._labels[:depth]]
        names = list(self._levels[1 : depth + 1])
        if depth == 1:
            return pd.Index(columns[0], name=names[0], dtype=object).infer_objects()
        return pd.MultiIndex.from_arrays(columns, names=names)

    def groups(self, level: Hashable) -> dict[Hashable, pd.Index]:
        """The features of every group of a level, by the group's name (see :meth:`paths`).

        Parameters
        ----------
        level : hashable
            Name of the level.

        Returns
        -------
        dict
            In group order; features in the user's order.
        """
        bounds = self._offsets[self.position(level)]
        # In the user's order inside each group.
        members = (self._features[np.sort(self._permutation[a:b])] for a, b in itertools.pairwise(bounds))
        return dict(zip(self.paths(level), members, strict=True))

    def to_frame(self) -> pd.DataFrame:
        """The labels: one row a feature in the user's order, one column a level below the global one."""
        columns = {name: list(labels) for name, labels in zip(self._levels[1:], self._labels, strict=True)}
        return pd.DataFrame(columns, index=self._features, columns=pd.Index(self._levels[1:]))

    def coarsen(self, levels: Sequence[Hashable]) -> Hierarchy:
        """The hierarchy with only the named levels (the global one is always kept).

        Groups stay what they were: where the label of a kept level stands under several groups of a dropped one,
        that level's groups are named by their paths.

        Examples
        --------
        >>> import pandas as pd
        >>> labels = pd.DataFrame({"domain": ["A", "A", "B"], "scale": ["a", "b", "c"]}, index=["x", "y", "z"])
        >>> Hierarchy(labels).coarsen(["domain"]).levels
        ('global', 'domain')
        """
        return Hierarchy(self, levels=levels)

    def _coarser_frame(self, levels: Sequence[Hashable]) -> pd.DataFrame:
        frame = self.to_frame()
        kept = _chosen(levels, frame.columns)
        coarser, above = {}, -1
        for level in kept:
            depth = self.position(level) - 1
            paths = list(zip(*self._labels[above + 1 : depth + 1], strict=True))
            ambiguous = len(set(paths)) > len({path[-1] for path in paths})
            coarser[level] = paths if ambiguous else list(self._labels[depth])
            above = depth
        return pd.DataFrame(coarser, index=self._features, columns=pd.Index(kept, dtype=object))

    def reindex(self, features: Sequence[Hashable] | pd.Index) -> Hierarchy:
        """The hierarchy of these features, in this order; a ValueError where one of them is not here."""
        wanted = features if isinstance(features, pd.Index) else pd.Index(features)
        if wanted.equals(self._features):
            return self
        where = self._features.get_indexer(wanted)
        if (where < 0).any():
            raise ValueError(f"features not in the hierarchy: {listing(wanted[where < 0])}")
        return Hierarchy(self.to_frame().iloc[where])

    def agreement(self, other: Hierarchy | pd.DataFrame | pd.Index) -> pd.DataFrame:
        """How far the groups agree with those of another hierarchy of the same features, level by level.

        Parameters
        ----------
        other : Hierarchy, or labels of one
            Of the same features, in any order.

        Returns
        -------
        DataFrame
            The adjusted Rand index of each of these levels (rows) with each level of the other hierarchy (columns): 1
            if the groups are the same, 0 in the mean if they have nothing to do with each other (it can be negative).
            Two global levels agree, so they have 1; a global level has 0 with any level of more groups.

        Raises
        ------
        ValueError
            If the features differ.

        References
        ----------
        Hubert and Arabie (1985), *Comparing partitions*, Journal of Classification 2(1).

        Examples
        --------
        >>> import pandas as pd
        >>> known = pd.DataFrame({"sector": list("AABBCC")}, index=list("uvwxyz"))
        >>> found = pd.DataFrame({"group": [1, 1, 2, 2, 2, 2]}, index=list("uvwxyz"))
        >>> Hierarchy(found).agreement(known).round(3)
        other   global  sector
        level
        global     1.0   0.000
        group      0.0   0.444
        """
        theirs = other if isinstance(other, Hierarchy) else Hierarchy(other)
        where = theirs._features.get_indexer(self._features)
        if (where < 0).any() or len(theirs._features) != len(self._features):
            strange = theirs._features[self._features.get_indexer(theirs._features) < 0]
            raise ValueError(
                f"other: its features differ; missing there: {listing(self._features[where < 0]) or 'none'}; only "
                f"there: {listing(strange) or 'none'}"
            )
        mine = [self._partition(depth) for depth in range(len(self._levels))]
        others = [theirs._partition(depth)[where] for depth in range(len(theirs._levels))]
        return pd.DataFrame(
            [[adjusted_rand(groups, more) for more in others] for groups in mine],
            index=pd.Index(self._levels, name="level", tupleize_cols=False),
            columns=pd.Index(theirs._levels, name="other", tupleize_cols=False),
        )

    def _partition(self, depth: int) -> NDArray[np.intp]:
        """Group of each feature, in the user's order: its number in group order."""
        bounds = self._offsets[depth]
        groups = np.empty(len(self._features), dtype=np.intp)
        groups[self._permutation] = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        return groups

    def summary(self) -> pd.DataFrame:
        """Groups and features a group (smallest, median, largest), level by level."""
        sizes = [np.diff(bounds) for bounds in self._offsets]
        return pd.DataFrame(
            {
                "groups": [len(size) for size in sizes],
                "smallest": [size.min() for size in sizes],
                "median": [float(np.median(size)) for size in sizes],
                "largest": [size.max() for size in sizes],
            },
            index=pd.Index(self._levels, name="level"),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hierarchy):
            return NotImplemented
        return (
            self._levels == other._levels
            and self._features.equals(other._features)
            and all(list(mine) == list(theirs) for mine, theirs in zip(self._labels, other._labels, strict=True))
        )

    def __hash__(self) -> int:
        return hash((self._levels, tuple(self._features), *(tuple(labels) for labels in self._labels)))

    def __getstate__(self) -> tuple[pd.DataFrame]:
        return (self.to_frame(),)

    def __setstate__(self, state: tuple[pd.DataFrame]) -> None:
        Hierarchy.__init__(self, state[0])

    def __repr__(self) -> str:
        sizes = " > ".join(f"{level} ({count(k, 'group')})" for level, k in self.n_groups.items())
        head = f"Hierarchy of {count(self.n_features, 'feature')}: {sizes}"
        return "\n".join([head, f"{GLOBAL} ({self.n_features})", *self._branches(0, 0, "", widths=(4, 3, 2))])

    def _branches(self, depth: int, group: int, indent: str, widths: tuple[int, ...]) -> list[str]:
        """Lines for the groups below one group, the first ``widths[0]`` of them and so on down."""
        if depth + 1 >= len(self._levels) or not widths:
            return []
        bounds, below = self._offsets[depth], self._offsets[depth + 1]
        first, last = np.searchsorted(below, bounds[group : group + 2])
        shown = min(last, first + widths[0]) if last - first > widths[0] + 1 else last
        lines = []
        for child in range(first, shown):
            end = child == last - 1
            label = self._labels[depth][self._permutation[below[child]]]
            lines.append(f"{indent}{'└─' if end else '├─'} {label} ({below[child + 1] - below[child]})")
            lines += self._branches(depth + 1, child, indent + ("   " if end else "│  "), widths[1:])
        if shown < last:
            lines.append(f"{indent}└─ … {last - shown} more")
        return lines


def _label_frame(labels: pd.DataFrame | pd.Index) -> pd.DataFrame:
    """Labels of whatever kind as a DataFrame: one row a feature, one column a level."""
    labels = as_pandas(labels)
    if isinstance(labels, pd.DataFrame):
        if isinstance(labels.index, pd.MultiIndex):
            raise TypeError("labels: the index of the label frame must be the feature names, not a MultiIndex")
        return labels
    if isinstance(labels, pd.MultiIndex):
        names = [f"level_{i + 1}" if name is None else name for i, name in enumerate(labels.names[:-1])]
        columns = {i: labels.get_level_values(i).to_numpy(dtype=object) for i in range(labels.nlevels - 1)}
        frame = pd.DataFrame(columns, index=labels.get_level_values(-1), dtype=object)
        frame.columns = pd.Index(names, dtype=object)
        return frame
    if isinstance(labels, pd.Index):
        return pd.DataFrame(index=labels)
    raise TypeError(
        "labels must be a DataFrame indexed by feature, a MultiIndex whose last level names the features, or a "
        f"Hierarchy, not {type(labels).__name__}"
    )


def _feature_names(features: Any) -> pd.Index:
    """Names of features, or 0, 1, ... for their number."""
    if isinstance(features, pd.MultiIndex):
        raise TypeError("features must be names, not a MultiIndex; take its last level: features.get_level_values(-1)")
    if isinstance(features, numbers.Integral) and not isinstance(features, bool):
        if features < 1:
            raise ValueError(f"features: there must be 1 or more, not {features}")
        return pd.RangeIndex(int(features))
    if isinstance(features, (str, bytes)) or not isinstance(features, (Sequence, np.ndarray, pd.Series, pd.Index)):
        raise TypeError(f"features must be a sequence of names, or how many there are, not {features!r}")
    names = features if isinstance(features, pd.Index) else pd.Index(features, tupleize_cols=False)
    _check_features(names)
    return names


def level_names(levels: Any, many: int) -> list[Hashable]:
    """Names of so many levels below the global one, which may stand first in ``levels``."""
    if levels is None:
        return [f"level_{2 + i}" for i in range(many)]
    if isinstance(levels, str):
        raise TypeError(f"levels must be a sequence of level names, not the string {levels!r}")
    names = list(levels)
    if len(names) == many + 1 and names[0] == GLOBAL:
        names = names[1:]
    if len(names) != many:
        raise ValueError(f"levels: {count(len(names), 'name')} for {count(many, 'level')} below the global one")
    _check_level_names(names)
    return names


def _check_level_names(names: Sequence[Hashable]) -> None:
    for name, meaning in RESERVED.items():
        if name in names:
            raise ValueError(f"a level cannot be called {name!r}: {meaning}; give it another name, or leave it out")
    twice = pd.Index(names, dtype=object, tupleize_cols=False)
    if twice.has_duplicates:
        raise ValueError(f"levels occur twice: {listing(twice[twice.duplicated()].unique())}")


def _chosen(levels: Sequence[Hashable], known: pd.Index) -> list[Hashable]:
    if isinstance(levels, str):
        raise TypeError(f"levels must be a sequence of level names, not the string {levels!r}")
    wanted = list(levels)
    if wanted and wanted[0] == GLOBAL:
        wanted = wanted[1:]
    unknown = [level for level in wanted if level not in known]
    if unknown:
        raise ValueError(f"unknown levels: {listing(unknown)}; the levels are {listing([GLOBAL, *known])}")
    order = [known.get_loc(level) for level in wanted]
    if any(not isinstance(place, int) for place in order) or order != sorted(set(order)):
        raise ValueError(
            f"levels must be named once each, from coarse to fine as in the labels: {listing([GLOBAL, *known])}"
        )
    return wanted


def _check_features(features: pd.Index) -> None:
    if len(features) == 0:
        raise ValueError("the hierarchy has no features")
    if features.isna().any():
        raise ValueError(f"{count(int(features.isna().sum()), 'feature name')} missing")
    if features.has_duplicates:
        raise ValueError(
            f"feature names occur more than once: {listing(features[features.duplicated()].unique())}; "
            "every feature needs a name of its own, also across groups"
        )


def _checked_labels(frame: pd.DataFrame, position: int) -> NDArray[np.object_]:
    """One level's labels as objects, none of them missing or empty."""
    name = frame.columns[position]
    column = frame.iloc[:, position]
    labels = np.fromiter(column.tolist(), dtype=object, count=len(frame))
    blank = np.array([isinstance(label, str) and not label.strip() for label in labels], dtype=bool)
    missing = blank | column.isna().to_numpy(dtype=bool)
    if missing.any():
        raise ValueError(
            f"level {name!r}: missing or empty labels for features {listing(frame.index[missing])}; "
            "give every feature a group (a group of its own will do)"
        )
    return labels


def _codes_by_path(columns: Sequence[NDArray[np.object_]], n: int) -> list[NDArray[np.intp]]:
    """Group numbers of every level, counted by first appearance; groups with different parents differ."""
    codes = [np.zeros(n, dtype=np.intp)]
    for labels in columns:
        try:
            own, _ = pd.factorize(labels)
        except TypeError as error:
            raise TypeError(f"labels must be hashable: {error}") from error
        path = codes[-1].astype(np.int64) * (int(own.max()) + 1) + own
        codes.append(pd.factorize(path)[0].astype(np.intp))
    return codes


def _boundaries(codes: NDArray[Any]) -> NDArray[np.intp]:
    """Where runs of equal codes begin, and the end."""
    changes = np.flatnonzero(np.diff(codes)) + 1
    return np.concatenate([[0], changes, [len(codes)]]).astype(np.intp)
