import numpy as np
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.intp]
_Y = NDArray[np.float32] | NDArray[np.float64]

def residuals(Y: _Y, B: _F, X: _F, first: _I, gap: _I, out: _F) -> None: ...
def variant_moments(
    F: _F, D: _F, offsets: _I, C_whole: _F, node: _I, first: _I, missing: _I, C: _F
) -> None: ...
def fill_gaps(
    F: _F, Z_shared: _F, Z_inner: _F, offsets: _I, first: _I, gap: _I, E: _F, squares: _F
) -> None: ...
def sum_of_products(
    F: _F, start: int, S: _F, first: _I, missing: _I, out: _F
) -> None: ...
