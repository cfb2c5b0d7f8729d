"""Words for messages: a few labels of many, numbers with their nouns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


def plain(label: Any) -> str:
    """A label as one would type it: 0 and not np.int64(0)."""
    if isinstance(label, tuple):
        return f"({', '.join(plain(part) for part in label)}{',' if len(label) == 1 else ''})"
    return repr(label.item() if isinstance(label, np.generic) else label)


def listing(labels: Iterable[Any], most: int = 5, show: Callable[[Any], str] = plain) -> str:
    """``'a', 'b', 'c' and 12 more``."""
    every = list(labels)
    words = ", ".join(show(label) for label in every[:most])
    return words if len(every) <= most else f"{words} and {len(every) - most} more"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``1 group``, ``3 groups``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
