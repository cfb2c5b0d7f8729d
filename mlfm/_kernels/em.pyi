import numpy as np
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.intp]
_Y = NDArray[np.float32] | NDArray[np.float64]

def em_pass(
    Y: _Y,
    Z_shared: _F,
    Z_inner: _F,
    P: _F,
    squares: _F,
    nobs: float,
    floor: _F,
    offsets: _I,
    tile: int,
    F: _F,
    D: _F,
    C: _F,
    B_shared: _F,
    B_inner: _F,
) -> None: ...
def px_em_pass(
    Y: _Y,
    Z_shared: _F,
    Z_inner: _F,
    P: _F,
    squares: _F,
    nobs: float,
    floor: _F,
    offsets: _I,
    tile: int,
    F: _F,
    D: _F,
    C: _F,
    B_shared: _F,
    B_inner: _F,
) -> None: ...
def px_em_update(
    W: _F, squares: _F, nobs: float, floor: _F, offsets: _I, F: _F, D: _F
) -> None: ...
def em_update(
    W: _F, squares: _F, nobs: float, floor: _F, offsets: _I, F: _F, D: _F
) -> None: ...
