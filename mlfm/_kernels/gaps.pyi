import numpy as np
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.intp]
_Y = NDArray[np.float32] | NDArray[np.float64]

def residuals(Y: _Y, B: _F, X: _F, first: _I, gap: _I, out: _F) -> None: ...
def variant_moments(
    F: _F, D: _F, offsets: _I, C_whole: _F, node: _I, first: _I, missing: _I, C: _F
) -> None: ...
def gap_moments(
    F: _F,
    Z_shared: _F,
    Z_inner: _F,
    S: _F,
    X: _F,
    offsets: _I,
    first_variant: _I,
    variant: _I,
    first_gap: _I,
    gap: _I,
    M: _F,
    MX: _F,
) -> None: ...
