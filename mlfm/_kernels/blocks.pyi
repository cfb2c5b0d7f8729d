import numpy as np
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.intp]
_Y = NDArray[np.float32] | NDArray[np.float64]

def leaf_moments(
    F: _F, D: _F, Y: _Y, offsets: _I, tile: int, C: _F, B_shared: _F, B_inner: _F
) -> None: ...
def gradient(
    Y: _Y,
    F: _F,
    D: _F,
    Z_shared: _F,
    Z_inner: _F,
    P: _F,
    squares: _F,
    nobs: float,
    offsets: _I,
    tile: int,
    dF: _F,
    dD: _F,
) -> None: ...
def leaf_products(
    F: _F, weights: _F, Y: _F, offsets: _I, tile: int, B_shared: _F, B_inner: _F
) -> None: ...
def combine(
    F: _F,
    Z_shared: _F,
    Z_inner: _F,
    offsets: _I,
    tile: int,
    Y: _F,
    before: _F,
    sign: float,
    after: _F,
    out: _F,
) -> None: ...
def project(F: _F, Y: _F, offsets: _I, T: _F) -> None: ...
def add_expanded(F: _F, T: _F, offsets: _I, factor: float, out: _F) -> None: ...
def rotate(F: _F, Q: _F, offsets: _I, out: _F) -> None: ...
def divide_by_roots(X: _F, first: int, offsets: _I, R: _F) -> None: ...
def weigh(weights: _F, X: _F, out: _F) -> None: ...
def multiply_paths(weights: _F, X: _F, T: _F, split: int, tile: int, out: _F) -> None: ...
def take_from_ancestors(X: _F, offsets: _I, G: _F) -> None: ...
def regress(G: _F, ridge: float, offsets: _I, X: _F) -> None: ...
