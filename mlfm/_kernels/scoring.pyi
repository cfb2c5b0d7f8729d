import numpy as np
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.intp]
_Y = NDArray[np.float32] | NDArray[np.float64]

def slopes(
    Y: _Y,
    F: _F,
    D: _F,
    Z_shared: _F,
    Z_inner: _F,
    P: _F,
    squares: _F,
    nobs: float,
    columns: _I,
    offsets: _I,
    tile: int,
    W: _F,
    G: _F,
    dD: _F,
    h: _F,
    T: _F,
    M: _F,
) -> None: ...
def scoring_step(
    F: _F, D: _F, S: _F, Q: _F, columns: _I, offsets: _I, tile: int, G: _F
) -> None: ...
