"""Words for messages: a few labels of many, numbers with their nouns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def listing(labels: Iterable[Any], most: int = 5) -> str:
    """``'a', 'b', 'c' and 12 more``."""
    every = [repr(label) for label in labels]
    if len(every) <= most:
        return ", ".join(every)
    return ", ".join(every[:most]) + f" and {len(every) - most} more"


def count(number: int, noun: str) -> str:
    """``1 group``, ``3 groups``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
