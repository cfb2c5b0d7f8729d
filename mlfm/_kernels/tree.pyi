import numpy as np
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.intp]

def eliminate(
    C: _F, B: _F, parent: _I, R: _F, A: _F, b: _F, message: _F, logdet: _F, C_parent: _F, B_parent: _F,
    B_shared: _F,
) -> None: ...
def substitute(
    R: _F, A: _F, b: _F, parent: _I, Z_shared: _F, Z_parent: _F, P_parent: _F, Z: _F, P: _F
) -> None: ...
