"""Seeds: what a user may give for random numbers, and generators for tasks that run side by side."""

from __future__ import annotations

from typing import Any

import numpy as np


def generator(rng: Any) -> np.random.Generator:
    """The generator that ``rng`` stands for; None is seed 0, so that two runs agree."""
    try:
        return np.random.default_rng(0 if rng is None else rng)
    except (TypeError, ValueError) as error:
        raise ValueError(f"rng must be a seed (a whole number, 0 or more) or a numpy Generator: {error}") from error


def generators(rng: Any, n: int) -> list[np.random.Generator]:
    """A generator for each of n tasks, so that what comes out does not depend on the order in which they run."""
    whole = generator(rng)
    try:
        return whole.spawn(n)
    except TypeError:  # an old RandomState, which cannot spawn
        seeds = np.random.SeedSequence(whole.integers(1 << 32, size=4).tolist()).spawn(n)
        return [np.random.default_rng(seed) for seed in seeds]
