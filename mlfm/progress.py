"""Progress bars: of a fit, with what is still to be gained; of many fits, with how many are still to come."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

if TYPE_CHECKING:
    from mlfm.estimation import Evaluation


@contextmanager
def progress_bar(wanted: bool) -> Iterator[Callable[[Evaluation], None]]:
    """A function that shows an evaluation, or does nothing where no bar is wanted."""
    if not wanted:
        yield lambda entry: None
        return
    # The number of evaluations to convergence is not known beforehand, so the bar counts and shows no total.
    with tqdm(desc="fit", unit=" evaluations", mininterval=0.2) as bar:
        climbs, highest = 0, -math.inf

        def show(entry: Evaluation) -> None:
            nonlocal climbs, highest
            climbs += entry.evaluation == 0
            highest = max(highest, entry.llf)
            here = f"llf {entry.llf:.4f}, still to gain {entry.projected_gain:.2g}"
            text = here if climbs <= 1 else f"climb {climbs}: {here}; highest so far {highest:.4f}"
            bar.set_postfix_str(text, refresh=False)
            bar.update(1)

        yield show


@contextmanager
def counting_bar(wanted: bool | None, total: int | None, what: str) -> Iterator[Callable[[], None]]:
    """A function that counts one more of ``total`` (None where nobody knows), from any thread, or does nothing where no
    bar is wanted; None wants one on a terminal.
    """
    if wanted is None:
        wanted = sys.stderr is not None and sys.stderr.isatty()
    if not wanted:
        yield lambda: None
        return
    lock = Lock()
    with tqdm(desc=what, total=total, mininterval=0.2) as bar:

        def show() -> None:
            with lock:
                bar.update(1)

        yield show
