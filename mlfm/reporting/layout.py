"""How tables of text are laid out: 78 characters wide, long labels cut in their middles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from statsmodels.iolib.table import SimpleTable
from statsmodels.iolib.tableformatting import fmt_params

WIDTH = 78
STUB = 22  # the width of names of groups
NUMBER = 9  # the width of numbers in tables of estimates


def table(
    rows: Sequence[Sequence[str]], headers: Sequence[str] | None, stubs: Sequence[str] | None, **format_: object
) -> SimpleTable:
    """A table in the style of statsmodels' tables of parameters."""
    return SimpleTable(rows, headers=headers, stubs=stubs, txt_fmt={**fmt_params, **format_})


def full_width(
    rows: Sequence[Sequence[str]], headers: Sequence[str], stubs: Sequence[str], widths: Sequence[int]
) -> SimpleTable:
    """A table whose first column of numbers takes what is left of the width, so that the rules of all tables match."""
    columns = [max(map(len, stubs)), *widths]
    columns[1] += WIDTH - len(table(rows, headers, stubs, colwidths=columns).as_text().splitlines()[0])
    return table(rows, headers, stubs, colwidths=columns)


def heading(text: str) -> SimpleTable:
    """One line over the whole width."""
    return SimpleTable([[cut(text, WIDTH)]], txt_fmt={**fmt_params, "data_aligns": "l", "colwidths": WIDTH})


def cut(text: str, width: int) -> str:
    """The text, its middle left out where it is too long: names often differ at their ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def last(group: Hashable) -> Hashable:
    """A group's own label, of its path of labels."""
    return group[-1] if isinstance(group, tuple) else group


def group_names(groups: Sequence[Hashable]) -> list[str]:
    """The groups' own labels, or their whole paths where another group of the level has the same label."""
    labels = Counter(last(group) for group in groups)
    return [
        "/".join(str(label) for label in group)
        if isinstance(group, tuple) and labels[last(group)] > 1
        else str(last(group))
        for group in groups
    ]


def places(value: float, error: float) -> int:
    """Decimals that show three digits of a value, or of its standard error where that is larger, and two of that."""
    spread = error if error > 0 else 0.0
    size = max(abs(value), spread)
    if not size:
        return 3
    wanted = 2 - math.floor(math.log10(size))
    return max(0, wanted, 1 - math.floor(math.log10(spread)) if spread else 0)


def number(value: float, decimals: int) -> str:
    """A number with so many decimals, or in powers of ten where that is too wide; nothing where there is none."""
    if math.isnan(value):
        return ""
    text = f"{value:.{decimals}f}"
    return text if len(text) <= NUMBER and decimals < NUMBER - 1 else f"{value:.2e}"
