"""What a block of features does: it owns rows of the data Y, the loadings F and the uniquenesses D.

A block is a run of consecutive leaf groups (or a piece of one); ``offsets`` are its groups' boundaries, counted
from its first feature. The compressed loadings F hold, in row j, the loadings of feature j on the r factors of its
path. Y is stored feature by feature (n x N). Sections and symbols are those of the documentation page "the model".
"""

from libc.math cimport sqrt
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from mlfm._kernels._blas cimport blas_int, cholesky, gemm, invert_lower, mirror_lower, narrow, solve_lower_right
from mlfm._kernels._tiles cimport (
    Block, Room, add_factors, add_moments, add_products, block_of, close_room, cross_moments, gradient_rows, leaf_of,
    matrix, open_room, real, scale_rows, second_moments, square_factors, stack, tile_of,
)

cdef double NO_COLUMN = 1e-200  # squared length of what is no column: what is scaled by its inverse could overflow


def leaf_moments(
    const double[:, ::1] F,             # IN   n x r
    const double[::1] D,                # IN   n
    const real[:, ::1] Y,               # IN   n x N
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    Py_ssize_t tile,                    # IN   rows handled at once
    double[:, :, ::1] C,                # OUT  k x r x r, lower triangles
    double[:, ::1] B_shared,            # INOUT  shared x N, zeros at first
    double[:, :, ::1] B_inner,          # INOUT  k x (r - shared) x N, zeros at first
):
    """C_g = F_g' D_g^-1 F_g of every leaf group g, and F' D^-1 Y: of the first ``shared`` factors, which all groups
    have in common, and of every group's others.
    """
    cdef Block block = block_of(F, offsets, B_shared.shape[0], Y.shape[1])
    cdef Room room
    cdef Py_ssize_t a, b
    cdef const double *rows = NULL
    if block.r == 0:
        return
    open_room(&room, &block, tile, real is float)
    with nogil:
        a = 0
        while a < block.n:
            b = min(a + tile, block.n)
            if block.N > 0:
                rows = tile_of(&block, a, b, &Y[0, 0], &room)
            add_moments(&block, a, b, matrix(F), &D[0], rows, &room, <double *> stack(C), <double *> matrix(B_shared),
                        <double *> stack(B_inner))
            a = b
    close_room(&room)


def gradient(
    const real[:, ::1] Y,               # IN   n x N
    const double[:, ::1] F,             # IN   n x r
    const double[::1] D,                # IN   n
    const double[:, ::1] Z_shared,      # IN   shared x N, posterior means of the factors that all groups share
    const double[:, :, ::1] Z_inner,    # IN   k x (r - shared) x N, of the others
    const double[:, :, ::1] P,          # IN   k x r x r
    const double[::1] squares,          # IN   n, sum of squares of every feature
    double nobs,                        # IN
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    Py_ssize_t tile,                    # IN   rows handled at once
    double[:, ::1] dF,                  # OUT  n x r
    double[::1] dD,                     # OUT  n
):
    """Derivatives of the log-likelihood from the posterior of the factors.

    dl/dF_g = D_g^-1 (V_g - F_g W_g) with V_g = Y_g Z_g' and W_g = nobs P_g + Z_g Z_g'.
    """
    cdef Block block = block_of(F, offsets, Z_shared.shape[0], Y.shape[1])
    cdef Room room
    cdef Py_ssize_t a, b, s, e, g
    cdef blas_int r = block.r
    if r == 0:
        for a in range(D.shape[0]):
            dD[a] = 0.5 * (squares[a] / D[a] - nobs) / D[a]
        return
    open_room(&room, &block, tile, real is float)
    with nogil:
        square_factors(&block, matrix(Z_shared), stack(Z_inner), &room)
        a, g = 0, -1
        while a < block.n:
            b = min(a + tile, block.n)
            cross_moments(
                &block, a, b, tile_of(&block, a, b, &Y[0, 0], &room), matrix(Z_shared), stack(Z_inner), room.moments,
            )
            s = a
            while s < b:
                if g < 0 or offsets[g + 1] <= s:
                    g = leaf_of(&offsets[0], g + 1, s)
                    second_moments(&block, g, stack(P), stack(Z_inner), nobs, &room, room.square)
                    mirror_lower(r, room.square, r)
                e = min(b, offsets[g + 1])
                gradient_rows(<blas_int> (e - s), r, &F[s, 0], &D[s], room.moments + (s - a) * r, room.square,
                              &squares[s], nobs, 1.0, &dF[s, 0], &dD[s])
                s = e
            a = b
    close_room(&room)


def leaf_products(
    const double[:, ::1] F,             # IN   n x r
    const double[::1] weights,          # IN   n
    const double[:, ::1] Y,             # IN   n x N
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    Py_ssize_t tile,                    # IN   rows handled at once
    double[:, ::1] B_shared,            # INOUT  shared x N, zeros at first
    double[:, :, ::1] B_inner,          # INOUT  k x (r - shared) x N, zeros at first
):
    """F' diag(weights) Y: of the first ``shared`` factors, which all groups have, and of every group's others."""
    cdef Block block = block_of(F, offsets, B_shared.shape[0], Y.shape[1])
    cdef Py_ssize_t a, b
    cdef double *scaled
    if block.r == 0 or block.N == 0 or block.n == 0:
        return
    scaled = <double *> malloc(<size_t> (min(tile, block.n) * block.N) * sizeof(double))
    if scaled == NULL:
        raise MemoryError
    with nogil:
        a = 0
        while a < block.n:
            b = min(a + tile, block.n)
            scale_rows(b - a, block.N, &weights[a], &Y[a, 0], scaled)
            add_products(&block, a, b, matrix(F), scaled, <double *> matrix(B_shared), <double *> stack(B_inner))
            a = b
    free(scaled)


def combine(
    const double[:, ::1] F,             # IN   n x r
    const double[:, ::1] Z_shared,      # IN   shared x N, of the factors that all groups have in common
    const double[:, :, ::1] Z_inner,    # IN   k x (r - shared) x N, of every group's others
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    Py_ssize_t tile,                    # IN   rows handled at once
    const double[:, ::1] Y,             # IN   n x N
    const double[::1] before,           # IN   n
    double sign,                        # IN
    const double[::1] after,            # IN   n
    double[:, ::1] out,                 # OUT  n x N
):
    """out_j = after_j (before_j Y_j + sign F_j Z_g): the factors of every group's path, seen in its features."""
    cdef Block block = block_of(F, offsets, Z_shared.shape[0], Y.shape[1])
    cdef Py_ssize_t a, b
    if block.n == 0 or block.N == 0:
        return
    with nogil:
        a = 0
        while a < block.n:
            b = min(a + tile, block.n)
            scale_rows(b - a, block.N, &before[a], &Y[a, 0], &out[a, 0])
            if block.r > 0:
                add_factors(&block, a, b, matrix(F), sign, matrix(Z_shared), stack(Z_inner), &out[a, 0])
            scale_rows(b - a, block.N, &after[a], &out[a, 0], &out[a, 0])
            a = b


def project(
    const double[:, ::1] F,             # IN   n x r
    const double[:, ::1] Y,             # IN   n x N
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    double[:, :, ::1] T,                # OUT  k x r x N
):
    """T_g = F_g' Y_g."""
    cdef blas_int r = narrow(F.shape[1]), N = narrow(Y.shape[1])
    cdef Py_ssize_t g, a
    if r == 0 or N == 0:
        return
    with nogil:
        for g in range(offsets.shape[0] - 1):
            a = offsets[g]
            if offsets[g + 1] > a:
                gemm(True, False, r, N, <blas_int> (offsets[g + 1] - a), 1.0, &F[a, 0], r, &Y[a, 0], N,
                     0.0, &T[g, 0, 0], N)
            else:
                T[g, :, :] = 0.0


def add_expanded(
    const double[:, ::1] F,             # IN     n x r
    const double[:, :, ::1] T,          # IN     k x r x N
    const Py_ssize_t[::1] offsets,      # IN     k + 1
    double factor,                      # IN
    double[:, ::1] out,                 # INOUT  n x N
):
    """out_g += factor F_g T_g."""
    cdef blas_int r = narrow(F.shape[1]), N = narrow(T.shape[2])
    cdef Py_ssize_t g, a
    if r == 0 or N == 0:
        return
    with nogil:
        for g in range(offsets.shape[0] - 1):
            a = offsets[g]
            if offsets[g + 1] > a:
                gemm(False, False, <blas_int> (offsets[g + 1] - a), N, r, factor, &F[a, 0], r, &T[g, 0, 0], N,
                     1.0, &out[a, 0], N)


def rotate(
    const double[:, ::1] F,             # IN   n x q
    const double[:, :, ::1] Q,          # IN   k x q x q
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    double[:, ::1] out,                 # OUT  n x q
):
    """out_g = F_g Q_g."""
    cdef blas_int q = narrow(F.shape[1])
    cdef Py_ssize_t g, a
    if q == 0:
        return
    with nogil:
        for g in range(offsets.shape[0] - 1):
            a = offsets[g]
            if offsets[g + 1] > a:
                gemm(False, False, <blas_int> (offsets[g + 1] - a), q, q, 1.0, &F[a, 0], q, &Q[g, 0, 0], q,
                     0.0, &out[a, 0], q)


def divide_by_roots(
    double[:, ::1] X,                   # INOUT  n x r
    Py_ssize_t first,                   # IN     the level's first column of X
    const Py_ssize_t[::1] offsets,      # IN     k + 1, of the nodes of one level
    const double[:, :, ::1] R,          # IN     k x o x o
):
    """X_o <- X_o R^-T, a level's own columns o.

    Many rows are multiplied with the inverse, which is a matrix product; solving with R is several times slower.
    """
    cdef blas_int r = narrow(X.shape[1]), o = narrow(R.shape[1]), rows
    cdef Py_ssize_t k, a, i, most = 0
    cdef double *inverse
    cdef double *product
    if o == 0:
        return
    for k in range(offsets.shape[0] - 1):
        most = max(most, offsets[k + 1] - offsets[k])
    inverse = <double *> malloc(<size_t> (o * o) * sizeof(double))
    product = <double *> malloc((<size_t> most * o + 1) * sizeof(double))
    try:
        if inverse == NULL or product == NULL:
            raise MemoryError
        with nogil:
            for k in range(offsets.shape[0] - 1):
                a = offsets[k]
                rows = <blas_int> (offsets[k + 1] - a)
                if rows <= o:
                    solve_lower_right(True, rows, o, 1.0, &R[k, 0, 0], o, &X[a, first], r)
                    continue
                memcpy(inverse, &R[k, 0, 0], <size_t> (o * o) * sizeof(double))
                invert_lower(o, inverse, o)
                gemm(False, True, rows, o, o, 1.0, &X[a, first], r, inverse, o, 0.0, product, o)
                for i in range(rows):
                    memcpy(&X[a + i, first], product + i * o, <size_t> o * sizeof(double))
    finally:
        free(inverse)
        free(product)


def weigh(
    const double[::1] weights,          # IN   n
    const double[:, ::1] X,             # IN   n x r
    double[:, ::1] out,                 # OUT  n x r
):
    """diag(weights) X."""
    if X.shape[0] > 0 and X.shape[1] > 0:
        with nogil:
            scale_rows(X.shape[0], X.shape[1], &weights[0], &X[0, 0], &out[0, 0])


def multiply_paths(
    const double[::1] weights,          # IN   n
    const double[:, ::1] X,             # IN   n x r; may be out
    const double[:, ::1] T,             # IN   m x m
    Py_ssize_t split,                   # IN   T is 0 in its first ``split`` rows right of its first ``split`` columns
    Py_ssize_t tile,                    # IN   rows handled at once
    double[:, ::1] out,                 # OUT  n x r, the first m columns of it
):
    """The first m columns of diag(weights) X times T."""
    cdef blas_int r = narrow(X.shape[1]), m = narrow(T.shape[0]), c = narrow(split), rows
    cdef Py_ssize_t a, i, j
    cdef double *scaled
    if m == 0 or X.shape[0] == 0:
        return
    tile = min(tile, X.shape[0])
    scaled = <double *> malloc(<size_t> (tile * m) * sizeof(double))
    if scaled == NULL:
        raise MemoryError
    with nogil:
        a = 0
        while a < X.shape[0]:
            rows = <blas_int> min(tile, X.shape[0] - a)
            for i in range(rows):
                for j in range(m):
                    scaled[i * m + j] = weights[a + i] * X[a + i, j]
            if c > 0:
                gemm(False, False, rows, c, m, 1.0, scaled, m, &T[0, 0], m, 0.0, &out[a, 0], r)
            if c < m:
                gemm(False, False, rows, m - c, m - c, 1.0, scaled + c, m, &T[c, c], m, 0.0, &out[a, c], r)
            a += rows
    free(scaled)


def take_from_ancestors(
    double[:, ::1] X,                   # INOUT  n x r
    const Py_ssize_t[::1] offsets,      # IN     k + 1, of the nodes of one level
    const double[:, :, ::1] G,          # IN     k x o x c
):
    """X_a -= X_o G, with a level's own columns o = c .. c + o and those of its ancestors a = 0 .. c."""
    cdef blas_int r = narrow(X.shape[1]), o = narrow(G.shape[1]), c = narrow(G.shape[2])
    cdef Py_ssize_t k, a
    with nogil:
        for k in range(offsets.shape[0] - 1):
            a = offsets[k]
            if o > 0 and c > 0 and offsets[k + 1] > a:
                gemm(False, False, <blas_int> (offsets[k + 1] - a), c, o, -1.0, &X[a, c], r, &G[k, 0, 0], c, 1.0,
                     &X[a, 0], r)


def regress(
    const double[:, :, ::1] G,          # IN     k x r x r
    double ridge,                       # IN
    const Py_ssize_t[::1] offsets,      # IN     k + 1
    double[:, ::1] X,                   # INOUT  n x r
):
    """X_g <- X_g (G_g + ridge diag(G_g))^-1 of every group: coefficients, where X_g is a product with what G_g is the
    Gram matrix of. Of a column of zeros there the coefficients are divided by the ridge.
    """
    cdef blas_int r = narrow(X.shape[1]), rows
    cdef Py_ssize_t g, a, i, j
    cdef blas_int failed = 0
    cdef double *square
    cdef double *scale
    if r == 0:
        return
    square = <double *> malloc(<size_t> r * <size_t> r * sizeof(double))
    scale = <double *> malloc(<size_t> r * sizeof(double))
    try:
        if square == NULL or scale == NULL:
            raise MemoryError
        with nogil:
            for g in range(offsets.shape[0] - 1):
                a = offsets[g]
                rows = <blas_int> (offsets[g + 1] - a)
                if rows == 0:
                    continue
                for i in range(r):
                    scale[i] = 1.0 / sqrt(G[g, i, i]) if G[g, i, i] > NO_COLUMN else 1.0
                    for j in range(i):
                        square[i * r + j] = scale[i] * scale[j] * G[g, i, j]
                    square[i * r + i] = scale[i] * scale[i] * G[g, i, i] + ridge
                failed = cholesky(r, square, r)
                if failed != 0:
                    break
                scale_columns(rows, r, scale, &X[a, 0])
                solve_lower_right(True, rows, r, 1.0, square, r, &X[a, 0], r)
                solve_lower_right(False, rows, r, 1.0, square, r, &X[a, 0], r)
                scale_columns(rows, r, scale, &X[a, 0])
    finally:
        free(square)
        free(scale)
    if failed != 0:
        raise FloatingPointError("a Gram matrix is not positive definite: it holds numbers that are not finite")


cdef void scale_columns(Py_ssize_t rows, Py_ssize_t r, const double *scale, double *X) noexcept nogil:
    cdef Py_ssize_t i, j
    for i in range(rows):
        for j in range(r):
            X[i * r + j] = X[i * r + j] * scale[j]
