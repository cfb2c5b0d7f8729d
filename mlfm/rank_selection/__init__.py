"""Ranks chosen by likelihood: a search from neighbour to neighbour, and what came of it."""

from mlfm.rank_selection.select import select_ranks
from mlfm.rank_selection.selection import RankSelection

__all__ = ["RankSelection", "select_ranks"]
