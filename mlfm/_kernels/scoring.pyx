"""What a block of features does for a scoring step: the gradient with what the metric needs of it, and the step.

Gradients are per observation. See mlfm.estimation.metric for the mathematics.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from mlfm._kernels._blas cimport blas_int, cholesky, gemm, mirror_lower, narrow, syrk, times_lower
from mlfm._kernels._tiles cimport (
    Block, Room, block_of, close_room, cross_moments, gradient_rows, leaf_of, matrix, open_room, real, row_products,
    scale_rows, second_moments, sqrt, square_factors, stack, tile_of,
)


cdef inline void leverages(
    blas_int rows, blas_int r, const double *F, const double *D, const double *P, const double *K, bint factored,
    double *work, double *h,
) noexcept nogil:
    """h_j = f_j P f_j' / D_j: how much of what is unique about a feature the factors take.

    From the Cholesky factor K of P, half the work of P itself, which serves where P is singular to rounding.
    """
    cdef Py_ssize_t j
    if factored:
        memcpy(work, F, <size_t> rows * r * sizeof(double))
        times_lower(False, rows, r, K, r, work, r)
        row_products(rows, r, work, work, h)
    else:
        gemm(False, False, rows, r, r, 1.0, F, r, P, r, 0.0, work, r)
        row_products(rows, r, work, F, h)
    for j in range(rows):
        h[j] /= D[j]


def slopes(
    const real[:, ::1] Y,               # IN   n x N
    const double[:, ::1] F,             # IN   n x r
    const double[::1] D,                # IN   n
    const double[:, ::1] Z_shared,      # IN   shared x N, posterior means of the factors that all groups share
    const double[:, :, ::1] Z_inner,    # IN   k x (r - shared) x N, of the others
    const double[:, :, ::1] P,          # IN   k x r x r
    const double[::1] squares,          # IN   n, sum of squares of every feature
    double nobs,                        # IN
    const Py_ssize_t[::1] columns,      # IN   levels + 1, boundaries of the levels' columns
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    Py_ssize_t tile,                    # IN   rows handled at once
    double[:, :, ::1] W,                # OUT  k x r x r, symmetric: second moments of the factors
    double[:, ::1] G,                   # OUT  n x r, gradient by F
    double[::1] dD,                     # OUT  n, gradient by D
    double[::1] h,                      # OUT  n, leverages
    double[:, :, ::1] T,                # OUT  k x r x r: F_g' G_g
    double[:, :, ::1] M,                # OUT  k x r x r, block diagonal by level: G_g' D_g G_g
):
    """The gradient of every leaf group g, and its products that the metric is applied to."""
    cdef Block block = block_of(F, offsets, Z_shared.shape[0], Y.shape[1])
    cdef Room room
    cdef Py_ssize_t a, b, s, e, g, i, level, c
    cdef blas_int r = block.r, rows
    cdef double beta, share = 1.0 / nobs
    cdef bint factored = False
    if r == 0:
        for i in range(D.shape[0]):
            dD[i] = 0.5 * (squares[i] / (D[i] * nobs) - 1.0) / D[i]
            h[i] = 0.0
        return
    open_room(&room, &block, tile, real is float)
    with nogil:
        square_factors(&block, matrix(Z_shared), stack(Z_inner), &room)
        M[:, :, :] = 0.0
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
                    second_moments(&block, g, stack(P), stack(Z_inner), nobs, &room, &W[g, 0, 0])
                    mirror_lower(r, &W[g, 0, 0], r)
                    memcpy(room.square, &P[g, 0, 0], <size_t> r * r * sizeof(double))
                    factored = cholesky(r, room.square, r) == 0
                e = min(b, offsets[g + 1])
                rows, beta = <blas_int> (e - s), 0.0 if s == offsets[g] else 1.0
                gradient_rows(rows, r, &F[s, 0], &D[s], room.moments + (s - a) * r, &W[g, 0, 0], &squares[s], nobs,
                              share, &G[s, 0], &dD[s])
                for i in range(s, e):
                    h[i] = sqrt(D[i])
                scale_rows(rows, r, &h[s], &G[s, 0], room.scaled)
                gemm(True, False, r, r, rows, 1.0, &F[s, 0], r, &G[s, 0], r, beta, &T[g, 0, 0], r)
                for level in range(columns.shape[0] - 1):
                    c = columns[level]
                    syrk(True, <blas_int> (columns[level + 1] - c), rows, 1.0, room.scaled + c, r, beta,
                         &M[g, c, c], r)
                leverages(rows, r, &F[s, 0], &D[s], &P[g, 0, 0], room.square, factored, room.scaled, &h[s])
                s = e
            a = b
        for g in range(block.k):
            mirror_lower(r, &M[g, 0, 0], r)
    close_room(&room)


def scoring_step(
    const double[:, ::1] F,             # IN     n x r
    const double[::1] D,                # IN     n
    const double[:, :, ::1] S,          # IN     k x r x r
    const double[:, :, ::1] Q,          # IN     k x r x r, block diagonal by level
    const Py_ssize_t[::1] columns,      # IN     levels + 1, boundaries of the levels' columns
    const Py_ssize_t[::1] offsets,      # IN     k + 1
    Py_ssize_t tile,                    # IN     rows handled at once
    double[:, ::1] G,                   # INOUT  n x r
):
    """G_k <- (D_k G_k + F_k S_k) Q_k: what the inverse block information makes of a gradient."""
    cdef blas_int r = narrow(F.shape[1]), rows, o
    cdef Py_ssize_t k, a, b, c, level
    cdef double *X
    if r == 0:
        return
    if tile < 1:
        raise ValueError("a tile has at least one row")
    X = <double *> malloc(<size_t> tile * r * sizeof(double))
    if X == NULL:
        raise MemoryError
    try:
        with nogil:
            for k in range(offsets.shape[0] - 1):
                a = offsets[k]
                while a < offsets[k + 1]:
                    b = min(a + tile, offsets[k + 1])
                    rows = <blas_int> (b - a)
                    scale_rows(rows, r, &D[a], &G[a, 0], X)
                    gemm(False, False, rows, r, r, 1.0, &F[a, 0], r, &S[k, 0, 0], r, 1.0, X, r)
                    for level in range(columns.shape[0] - 1):
                        c, o = columns[level], <blas_int> (columns[level + 1] - columns[level])
                        if o > 0:
                            gemm(False, False, rows, o, o, 1.0, X + c, r, &Q[k, c, c], r, 0.0, &G[a, c], r)
                    a = b
    finally:
        free(X)
