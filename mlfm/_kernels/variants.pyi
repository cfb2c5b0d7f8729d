import numpy as np
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.intp]

def sum_over(terms: _F, first: _I, term: _I, out: _F) -> None: ...
def forward_runs(
    B: _F,
    parent: _I,
    first: _I,
    bounds: _I,
    variant: _I,
    R: _F,
    A: _F,
    b: _F,
    B_parent: _F,
    B_shared: _F,
) -> None: ...
def backward_runs(
    R: _F,
    A: _F,
    b: _F,
    parent: _I,
    first: _I,
    bounds: _I,
    variant: _I,
    Z_shared: _F,
    Z_parent: _F,
    Z: _F,
) -> None: ...
