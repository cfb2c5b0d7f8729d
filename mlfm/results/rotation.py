"""Rotating the loadings of a fit, group by group."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlfm.alignment import positions
from mlfm.arrays import as_pandas, floating_array
from mlfm.exceptions import RotationWarning, warn_caller
from mlfm.inference.counts import Unidentified
from mlfm.inference.rotations import Rotation
from mlfm.inference.simple_structure import Turn, full_rank
from mlfm.results.results import MultilevelFactorResults
from mlfm.results.rotated import RotatedResults
from mlfm.wording import count, listing

Floats = NDArray[np.float64]


def rotate(results: MultilevelFactorResults, way: Rotation, levels: Any, target: Any) -> RotatedResults:
    """Loadings rotated group by group, with warnings of what could not be."""
    hierarchy, ranks = results.hierarchy, tuple(results.ranks)
    targets = None if target is None else _targets(target, results)
    chosen = _levels(levels, results, targets)
    terms = results.covariance._terms
    spread = np.sqrt(np.asarray(results.covariance.diagonal()))[hierarchy.permutation]
    turns: dict[int, list[Floats]] = {}
    left: list[Unidentified] = []
    unfinished: list[str] = []
    for level, depth in enumerate(terms.tree_levels()):
        name, own = hierarchy.levels[depth], terms.tree.own(level)
        if name not in chosen:
            continue
        groups, turns[level] = hierarchy.paths(name), []
        for k, (a, b) in enumerate(itertools.pairwise(hierarchy.offsets[depth])):
            F = terms.left[a:b, own]
            wanted = None if targets is None else targets[name][hierarchy.permutation[a:b]]
            why = _why_not(F, wanted, ranks[depth])
            turn = Turn(np.eye(ranks[depth]), True) if why else way.turn(F, spread[a:b], wanted)
            if not why and not (np.isfinite(turn.M).all() and full_rank(turn.M)):
                turn, why = Turn(np.eye(ranks[depth]), True), "its factors would coincide"
            if why:
                left.append(Unidentified(name, groups[k], why))
            elif not turn.converged:
                unfinished.append(str(Unidentified(name, groups[k], "not converged")))
            turns[level].append(turn.M)
    if left:
        warn_caller(f"{count(len(left), 'group')} not rotated: {listing(left, show=str)}", RotationWarning)
    if unfinished:
        warn_caller(
            f"the rotation of {count(len(unfinished), 'group')} did not converge: {listing(unfinished, show=str)}; "
            "raise maxiter, or use n_starts or another method",
            RotationWarning,
        )
    where = "" if len(chosen) == sum(rank > 1 for rank in ranks) else f" (of {listing(chosen, show=str)})"
    return RotatedResults(results, turns, way.oblique, way.words + where, left)


def _why_not(F: Floats, target: Floats | None, rank: int) -> str:
    """Why a group cannot be rotated; nothing where it can."""
    if len(F) < rank:
        return f"{count(len(F), 'feature')} for {rank} factors"
    lengths = np.linalg.norm(F, axis=1)
    if not full_rank(F / np.where(lengths > 0, lengths, 1.0)[:, None]):
        return f"its loadings have a rank below {rank}"
    if target is not None and np.isnan(target).all():
        return "nothing of its target is specified"
    return ""


def _levels(levels: Any, results: MultilevelFactorResults, targets: Mapping[Hashable, Floats] | None) -> list[Hashable]:
    """The levels to rotate: those named, those of the targets, or all with two factors or more."""
    known = {level for level, rank in results.ranks.items() if rank > 1}
    if not known:
        raise ValueError(
            "there is nothing to rotate: no level has two factors or more in a group; the ranks are "
            f"{listing(results.ranks, most=20)}"
        )
    if levels is None:
        return [level for level in results.hierarchy.levels if level in (known if targets is None else targets)]
    single = isinstance(levels, (str, tuple)) and levels in results.hierarchy.levels
    named = [levels] if single or isinstance(levels, str) or not isinstance(levels, Iterable) else list(levels)
    for level in named:
        results.hierarchy.position(level)  # which refuses unknown levels
    few = [level for level in named if level not in known]
    if few or not named:
        raise ValueError(
            f"levels: {listing(few) or 'none named'}; levels with two factors or more in a group are "
            f"{listing(level for level in results.hierarchy.levels if level in known)}"
        )
    if targets is not None and set(named) - set(targets):
        raise ValueError(f"target: levels without a target: {listing(x for x in named if x not in targets)}")
    return [level for level in results.hierarchy.levels if level in named]


def _targets(target: Any, results: MultilevelFactorResults) -> dict[Hashable, Floats]:
    """Targets by level, features in the user's order x factors; missing where nothing is specified."""
    if isinstance(target, pd.DataFrame) and isinstance(target.columns, pd.MultiIndex):
        levels = list(dict.fromkeys(target.columns.get_level_values(0)))
        target = {level: target.loc[:, target.columns.get_level_values(0) == level] for level in levels}
    if not isinstance(target, Mapping):
        raise TypeError(
            "target: a mapping from levels to features x factors is needed, or a DataFrame with columns (level, factor)"
            f", not {type(target).__name__}"
        )
    out = {}
    for level, given in target.items():
        results.hierarchy.position(level)
        rank, given = int(results.ranks[level]), as_pandas(given)
        if isinstance(given, pd.DataFrame):
            given = given.iloc[positions(given.index, results.hierarchy.features, f"target of level {level!r}")]
        values = np.asarray(floating_array(given, "target"), dtype=np.float64)
        if values.shape != (results.hierarchy.n_features, rank) or rank < 2:
            raise ValueError(
                f"target: of level {level!r}, {results.hierarchy.n_features} features x {rank} factors are needed "
                f"(two factors or more), not shape {values.shape}"
            )
        if np.isinf(values).any():
            raise ValueError(f"target: infinite values, level {level!r}; leave unspecified elements missing")
        out[level] = values
    return out
