import numpy as np
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.intp]

def observe(P: _F, message: _F, least: float, inner: _F, outer: _F) -> None: ...
def extend(
    T: _F, inner: _F, outer: _F, parent: _I, S_parent: _F, Q_parent: _F, S: _F, Q: _F
) -> None: ...
def squared_length(T: _F, M: _F, S: _F, Q: _F, columns: _I) -> float: ...
