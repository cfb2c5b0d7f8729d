import numpy as np
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.intp]

def inner_products(stack: _F, slots: _I, x: _F, out: _F) -> None: ...
def add_combination(stack: _F, slots: _I, weights: _F, x: _F) -> None: ...
