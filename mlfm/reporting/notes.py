"""What a reader of tables must know: how loadings are to be read, and what is doubtful about the fit."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import TYPE_CHECKING

from mlfm.inference.weak_factors import FEW, SIZEABLE
from mlfm.reporting.layout import WIDTH
from mlfm.wording import count, listing

if TYPE_CHECKING:
    from mlfm.results import MultilevelFactorResults


def reading(results: MultilevelFactorResults) -> str:
    """How loadings are to be read."""
    return (
        f"Loadings in {results.rotation} rotation, in the data's units, listed by size relative to the feature's "
        "standard deviation. Levels are of features, not of observations."
    )


def wrapped(notes: Iterator[str]) -> list[str]:
    """Lines as wide as the tables."""
    return [line for note in notes for line in wrap(note, WIDTH + 2, subsequent_indent="  ")]


def diagnostics(results: MultilevelFactorResults) -> Iterator[str]:
    """What is doubtful: convergence, uniquenesses on the floor, groups not identified, weak factors, other optima."""
    if not results.converged:
        yield f"The fit did NOT converge: {results.record.reason}."
    if len(results.on_floor):
        floor = f"{results.uniqueness_floor:g} of the variance"
        yield (
            f"{count(len(results.on_floor), 'uniqueness', 'uniquenesses')} on the floor of {floor}: "
            f"{listing(results.on_floor, show=str)}."
        )
    if results.unidentified:
        yield (
            f"{count(len(results.unidentified), 'group')} not identified: "
            f"{listing(results.unidentified, most=3, show=str)}."
        )
    weak = results.weak_factors()
    if weak:
        yield (
            f"{count(len(weak), 'factor')} with fewer than {FEW} standardised loadings of {SIZEABLE:g} or more "
            f"(their number): {listing(weak, most=3, show=str)}."
        )
    yield from _optima(results)


def _optima(results: MultilevelFactorResults) -> Iterator[str]:
    """Whether there are other maxima, and whether the search was cut short."""
    record = results.record
    if record.other_maxima:
        lower = record.starts.query("ended and not reached")["behind"]
        nearest, furthest = f"{lower.min():.3g}", f"{lower.max():.3g}"
        span = nearest if nearest == furthest else f"{nearest} to {furthest}"
        yield f"The likelihood has several maxima: {count(len(lower), 'climb')} ended {span} below this one."
    if record.search != "none" and len(record.climbs) == record.n_starts and record.cut_short:
        yield "No other maximum was looked for: a climb takes long."
