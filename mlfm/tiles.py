"""How many rows of the data the kernels handle at once."""

from __future__ import annotations

#: Numbers of a tile, with its loadings and their moments, that may be in the cache at once: 1 MB in double precision.
ENTRIES = 1 << 17
FEWEST, MOST = 64, 1024  # fewer rows make poor matrix products, more gain nothing


def tile_rows(columns: int, factors: int) -> int:
    """Rows of a tile, for data of so many columns and so many factors; a function of the shape alone."""
    return min(max(ENTRIES // (columns + 2 * factors + 1), FEWEST), MOST)
