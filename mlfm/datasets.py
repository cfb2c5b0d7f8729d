"""Real data sets whose features come in nested groups.

Each comes with its own licence and its own source, in :attr:`Dataset.source`.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable

import pandas as pd

from mlfm.wording import listing


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data, the groups of their columns, and where they come from.

    Attributes
    ----------
    name : str
    endog : DataFrame
        Observations x features.
    groups : DataFrame
        Labels indexed by feature, one column a level, coarse to fine.
    features : DataFrame
        What else is known of each feature (a title, the wording of an item); may have no columns.
    description : str
        One line.
    source : str
        Origin, licence, how the data were built, whom to cite.
    """

    name: str
    endog: pd.DataFrame = field(repr=False)
    groups: pd.DataFrame = field(repr=False)
    features: pd.DataFrame = field(repr=False)
    description: str
    source: str = field(repr=False)


# Columns of groups.csv that are levels; the others describe the features.
_LEVELS = {
    "abilities": ["ability"],
    "cells": ["lineage", "cell_type", "type_x_louvain"],
    "employment": ["aggregate", "supersector"],
    "personality": ["domain", "scale"],
    "stocks": ["sector"],
}


def list() -> builtins.list[str]:
    """Names of the data sets.

    Examples
    --------
    >>> import mlfm
    >>> mlfm.datasets.list()
    ['abilities', 'cells', 'employment', 'personality', 'stocks']
    """
    return sorted(_LEVELS)


def load(name: str) -> Dataset:
    """One of the data sets.

    Parameters
    ----------
    name : str
        One of :func:`list`.

    Raises
    ------
    ValueError
        If there is no such data set.

    Examples
    --------
    >>> import mlfm
    >>> data = mlfm.datasets.load("abilities")
    >>> data.endog.shape
    (301, 24)
    >>> data.groups["ability"].value_counts(sort=False).to_dict()
    {'math': 5, 'memory': 6, 'spatial': 4, 'speed': 4, 'verbal': 5}
    """
    if name not in _LEVELS:
        raise ValueError(f"no data set {name!r}; there are {listing(list())}")
    home = files("mlfm._data") / name
    source = (home / "SOURCE.md").read_text(encoding="utf-8")
    table = _read_csv(home / "groups.csv")
    levels = _LEVELS[name]
    return Dataset(
        name=name,
        endog=_read_csv(home / "data.csv.gz", compression="gzip"),
        groups=table[levels],
        features=table.drop(columns=levels),
        description=source.splitlines()[1],
        source=source,
    )


def _read_csv(path: Traversable, compression: str | None = None) -> pd.DataFrame:
    with path.open("rb") as file:
        return pd.read_csv(file, index_col=0, compression=compression)
