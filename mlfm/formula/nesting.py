"""From the levels that latent terms name to a hierarchy and ranks: what nests in what, and whether it does."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Sequence

import pandas as pd

from mlfm.formula.terms import Formula, LatentTerm, mistake, written
from mlfm.hierarchy import GLOBAL, Hierarchy
from mlfm.wording import listing


def levels_of(formula: Formula, labels: pd.DataFrame) -> tuple[Hierarchy, dict[Hashable, int]]:
    """The hierarchy of the levels that a formula names, and their ranks by level.

    A level is known by the last of its names; those before it say under what it nests.

    Parameters
    ----------
    formula : Formula
        Its level names match the columns of the labels by their text.
    labels : DataFrame
        One row a feature, one column a level, coarse to fine.

    Raises
    ------
    ValueError
        If a level is unknown, given twice, or its groups are not nested as written.

    Examples
    --------
    >>> from mlfm.formula.terms import parse
    >>> labels = pd.DataFrame(
    ...     {"sector": ["Tech", "Tech", "Energy"], "industry": ["Chips", "Other", "Other"]}, index=["a", "b", "c"]
    ... )
    >>> hierarchy, ranks = levels_of(parse("~ latent(1, d=2) + latent(sector:industry, d=1)"), labels)
    >>> hierarchy.levels
    ('global', 'industry')
    >>> ranks
    {'global': 2, 'industry': 1}
    """
    every = Hierarchy(labels)
    columns = _by_text(every.levels[1:])
    frame = every.to_frame().set_axis(list(columns), axis=1)
    ranks: dict[Hashable, int] = {}
    for name, term in _terms_by_level(formula, frame).items():
        ranks[columns[name] if term.names else GLOBAL] = term.rank
    hierarchy = every.coarsen([level for level in every.levels if level in ranks and level != GLOBAL])
    return hierarchy, {level: ranks[level] for level in hierarchy.levels if level in ranks}


def levels_in_order(formula: Formula, labels: pd.DataFrame) -> list[str]:
    """The names that a formula's levels are made of, from coarse to fine.

    Names in one level stand as written unless the labels show them to be the other way round; beyond that, levels
    with fewer groups come first.

    Parameters
    ----------
    formula : Formula
        Its level names match the columns of the labels by their text.
    labels : DataFrame
        Label columns in any order; rows may repeat.

    Raises
    ------
    ValueError
        If a name is unknown, a level is given twice, or the levels do not nest in each other as written.

    Examples
    --------
    >>> from mlfm.formula.terms import parse
    >>> labels = pd.DataFrame({"industry": ["Chips", "Oil", "Gas"], "sector": ["Tech", "Energy", "Energy"]})
    >>> levels_in_order(parse("~ latent(industry, d=1) + latent(sector, d=2)"), labels)
    ['sector', 'industry']
    """
    terms = [term for term in formula.latent if term.names]
    for term in terms:
        _refuse_unknown(formula, term, [str(column) for column in labels.columns])
    used = list(dict.fromkeys(itertools.chain.from_iterable(term.names for term in terms)))
    columns = _by_text([column for column in labels.columns if str(column) in used])
    # Missing labels are the hierarchy's to refuse; here they would only look like groups.
    frame = labels[[columns[name] for name in used]].set_axis(used, axis=1).dropna().drop_duplicates()
    terms.sort(key=lambda term: _n_groups(frame, term.names))
    chains = [_coarse_to_fine(frame, term.names) for term in terms]
    order = _merged(chains)
    _terms_by_level(formula, frame[order])
    return order


def _by_text(columns: Iterable[Hashable]) -> dict[str, Hashable]:
    """Columns by the text of their names, which is how a formula writes them."""
    by_text: dict[str, Hashable] = {}
    for column in columns:
        if str(column) in by_text:
            raise ValueError(f"two label columns are both written {written([str(column)])} in a formula; rename one")
        by_text[str(column)] = column
    return by_text


def _refuse_unknown(formula: Formula, term: LatentTerm, known: Sequence[str]) -> None:
    unknown = [name for name in term.names if name not in known]
    if unknown:
        levels = listing(["1 (the global one)", *(written([name]) for name in known)], most=20, show=str)
        raise mistake(formula.text, term.place, f"unknown level {listing(unknown)}; the levels are {levels}")


def _terms_by_level(formula: Formula, frame: pd.DataFrame) -> dict[str, LatentTerm]:
    """The term of every level the formula names; an error unless its groups nest in those of the levels above.

    Columns of the frame stand coarse to fine.
    """
    by_level: dict[str, LatentTerm] = {}
    for term in formula.latent:
        if not term.names:
            by_level[GLOBAL] = term
            continue
        _refuse_unknown(formula, term, list(frame.columns))
        names = sorted(term.names, key=list(frame.columns).index)
        _refuse_unless_nested(formula, term, names, frame.loc[:, : names[-1]])
        if names[-1] in by_level:
            other = written(by_level[names[-1]].names)
            raise mistake(
                formula.text,
                term.place,
                f"the level {written([names[-1]])} is given twice, as {other} and as {written(term.names)}, "
                "which are the same groups; keep one of the terms",
            )
        by_level[names[-1]] = term
    return by_level


def _refuse_unless_nested(formula: Formula, term: LatentTerm, names: Sequence[str], frame: pd.DataFrame) -> None:
    """Refuse labels that, under the names of their term alone, occur in several groups of a coarser column."""
    paths = frame.drop_duplicates()
    if len(paths) == _n_groups(paths, names):
        return
    # The fewest further names that tell the groups apart, the finest of them first.
    nested = list(frame.columns)
    for name in frame.columns:
        fewer = [kept for kept in nested if kept != name]
        if name not in names and _n_groups(paths, fewer) == len(paths):
            nested = fewer
    above = [name for name in nested if name not in names]
    paths = paths[nested].drop_duplicates()
    several = paths[paths.duplicated(list(names), keep=False)]
    where: dict[Hashable, list[Hashable]] = {}
    for label, group in zip(_labels(several, names), _labels(several, above), strict=True):
        where.setdefault(label, []).append(group)
    shown = listing(
        [f"{listing([label])} (in {listing(groups, most=3)})" for label, groups in where.items()], most=3, show=str
    )
    raise mistake(
        formula.text,
        term.place,
        f"{written(term.names)} is not nested as written: the same label occurs in several groups of "
        f"{written(above)}: {shown}; to make a group of each, write latent({written(nested)}, d={term.rank})",
    )


def _labels(frame: pd.DataFrame, names: Sequence[str]) -> list[Hashable]:
    """Labels row by row, those of several columns as tuples."""
    if len(names) == 1:
        return frame[names[0]].tolist()
    return list(zip(*(frame[name].tolist() for name in names), strict=True))


def _n_groups(frame: pd.DataFrame, names: Sequence[str]) -> int:
    return int((~frame.duplicated(list(names))).sum())


def _coarse_to_fine(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The names of a level as written, save that one whose groups hold whole groups of another goes before it."""
    left = list(names)
    order = []
    while left:
        free = next(name for name in left if not any(_is_finer(frame, name, other) for other in left))
        order.append(free)
        left.remove(free)
    return order


def _is_finer(frame: pd.DataFrame, name: str, other: str) -> bool:
    """Whether every group of one column lies in one group of the other, and not the other way round."""
    both = _n_groups(frame, [name, other])
    return _n_groups(frame, [name]) == both > _n_groups(frame, [other])


def _merged(chains: Sequence[Sequence[str]]) -> list[str]:
    """One order of the names of all chains; where chains disagree, the first has its way."""
    left = list(dict.fromkeys(itertools.chain.from_iterable(chains)))
    pairs = set(itertools.chain.from_iterable(itertools.pairwise(chain) for chain in chains))
    order = []
    while left:
        free = [name for name in left if not any((other, name) in pairs for other in left)]
        order.append((free or left)[0])
        left.remove(order[-1])
    return order
