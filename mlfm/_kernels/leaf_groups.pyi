import numpy as np
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.intp]

def cross_products(Y: _F, S: _F) -> None: ...
def maximise(
    V: _F,
    W: _F,
    S: _F,
    places: _I,
    nobs: float,
    floor: _F,
    penalty: float,
    offsets: _I,
    own: int,
    F_old: _F,
    D_old: _F,
    afresh: bool,
    F: _F,
    D: _F,
) -> float: ...
