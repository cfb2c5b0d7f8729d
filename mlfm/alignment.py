"""Matching labels with features: where each stands, and what does not match."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.wording import count, listing


class Match(NamedTuple):
    """Where in an index each feature stands (-1: nowhere), labels that are no features, and absent features."""

    where: NDArray[np.intp]
    strange: pd.Index
    absent: pd.Index


def match(index: pd.Index, features: pd.Index) -> Match:
    """Match an index without duplicates with the features."""
    if index.equals(features):
        return Match(np.arange(len(features)), index[:0], features[:0])
    where = index.get_indexer(features)
    return Match(where, index[features.get_indexer(index) < 0], features[where < 0])


def positions(index: pd.Index, features: pd.Index, name: str) -> NDArray[np.intp]:
    """Where in ``index`` each feature (or parameter) stands; a ValueError unless both hold the same, once each."""
    if index.has_duplicates:
        twice = index[index.duplicated()].unique()
        raise ValueError(f"{name}: labels occur more than once: {listing(twice)}")
    where, strange, absent = match(index, features)
    if len(strange) or len(absent):
        raise ValueError(
            f"{name}: labels do not match those of the model; unknown: {listing(strange) or 'none'}; "
            f"missing: {listing(absent) or 'none'}"
        )
    return where


def _counted(labels: pd.Index) -> str:
    """How many rows, and their labels: a label 0 is not none."""
    return f"{count(len(labels), 'row')} ({listing(labels)})" if len(labels) else "none"


def rows_of(index: pd.Index, wanted: pd.Index, name: str, labelled: bool) -> NDArray[np.intp]:
    """Where in ``index`` each observation's row stands: by label, or where the data are not labelled by position.

    A ValueError that shows the difference where the labels differ.
    """
    if len(index) == len(wanted) and (not labelled or index.equals(wanted)):
        return np.arange(len(wanted))
    if not labelled:
        raise ValueError(f"{name}: {len(index)} rows, but endog has {len(wanted)}")
    for labels, whose in ((index, name), (wanted, "endog")):
        if labels.has_duplicates:
            twice = labels[labels.duplicated()].unique()
            raise ValueError(
                f"{name}: its index differs from that of endog, and rows cannot be matched by label, as labels of "
                f"{whose} occur more than once: {listing(twice)}"
            )
    where, strange, absent = match(index, wanted)
    if len(absent) == len(wanted) and index.dtype != wanted.dtype:
        raise ValueError(
            f"{name}: its index differs from that of endog; {name} has {index.dtype} labels: {listing(index, most=2)}; "
            f"endog has {wanted.dtype} labels: {listing(wanted, most=2)}; convert them, or set_axis(endog.index)"
        )
    if len(strange) or len(absent):
        raise ValueError(
            f"{name}: its index differs from that of endog; in {name} and not in endog: {_counted(strange)}; "
            f"in endog and not in {name}: {_counted(absent)}; take the rows that both have: "
            f"both = endog.index.intersection({name}.index), then endog.loc[both] and {name}.loc[both]"
        )
    return where
