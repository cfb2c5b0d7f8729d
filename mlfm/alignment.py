"""Matching labels with features: where each stands, and what does not match."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.wording import listing


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
