import numpy as np
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.intp]
_S = NDArray[np.float32]

def inner_products(stack: _S, slots: _I, x: _F, out: _F) -> None: ...
def add_combination(stack: _S, slots: _I, weights: _F, x: _F) -> None: ...
def record_pair(
    F: _F,
    F_before: _F,
    g: _F,
    g_before: _F,
    stack: _S,
    slots: _I,
    s: _S,
    y: _S,
    with_older: _F,
    own: _F,
) -> None: ...
