"""What a block of features does for a scoring step: the gradient with what the metric needs of it, and the step.

Gradients are per observation. See mlfm.estimation.metric for the mathematics.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from mlfm._kernels._blas cimport blas_int, cholesky, gemm, mirror_lower, narrow, syrk, times_lower
from mlfm._kernels._tiles cimport (
    Room, close_room, cross_moments, gradient_rows, open_room, real, row_products, scale_rows,
    second_moments, sqrt, take_factors,
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
    const double[:, :, ::1] Z,          # IN   k x r x N
    const double[:, :, ::1] P,          # IN   k x r x r
    const double[::1] squares,          # IN   n, sum of squares of every feature
    double nobs,                        # IN
    const Py_ssize_t[::1] columns,      # IN   levels + 1, boundaries of the levels' columns
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    Py_ssize_t tile,                    # IN   rows handled at once
    double[:, :, ::1] W,                # OUT  k x r x r, symmetric: second moments of the factors
    double[:, ::1] G,                   # OUT  n x r, gradient by F
    double[::1] g,                      # OUT  n, gradient by D
    double[::1] h,                      # OUT  n, leverages
    double[:, :, ::1] T,                # OUT  k x r x r: F_k' G_k
    double[:, :, ::1] M,                # OUT  k x r x r, block diagonal by level: G_k' D_k G_k
):
    """The gradient of every leaf group, and its products that the metric is applied to."""
    cdef blas_int r = narrow(F.shape[1]), N = narrow(Y.shape[1]), rows
    cdef Py_ssize_t k, a, b, i, j, level, c
    cdef double beta, share = 1.0 / nobs
    cdef double *K
    cdef bint factored
    cdef Room room
    if r == 0:
        for j in range(D.shape[0]):
            g[j] = 0.5 * (squares[j] / (D[j] * nobs) - 1.0) / D[j]
            h[j] = 0.0
        return
    if tile < 1:
        raise ValueError("a tile has at least one row")
    K = <double *> malloc(<size_t> r * r * sizeof(double))
    try:
        if not open_room(&room, tile, r, N, real is float) or K == NULL:
            raise MemoryError
        with nogil:
            for k in range(offsets.shape[0] - 1):
                second_moments(r, N, &P[k, 0, 0], &Z[k, 0, 0], nobs, &W[k, 0, 0])
                mirror_lower(r, &W[k, 0, 0], r)
                memcpy(K, &P[k, 0, 0], <size_t> r * r * sizeof(double))
                factored = cholesky(r, K, r) == 0
                take_factors(r, N, &Z[k, 0, 0], &Y[0, 0], &room)
                for i in range(r):
                    for j in range(r):
                        M[k, i, j] = 0.0
                a, beta = offsets[k], 0.0
                while a < offsets[k + 1]:
                    b = min(a + tile, offsets[k + 1])
                    rows = <blas_int> (b - a)
                    cross_moments(rows, r, N, &Y[a, 0], &Z[k, 0, 0], &room, room.moments)
                    gradient_rows(rows, r, &F[a, 0], &D[a], room.moments, &W[k, 0, 0], &squares[a], nobs, share,
                                  &G[a, 0], &g[a])
                    for i in range(rows):
                        h[a + i] = sqrt(D[a + i])
                    scale_rows(rows, r, &h[a], &G[a, 0], room.scaled)
                    gemm(True, False, r, r, rows, 1.0, &F[a, 0], r, &G[a, 0], r, beta, &T[k, 0, 0], r)
                    for level in range(columns.shape[0] - 1):
                        c = columns[level]
                        syrk(True, <blas_int> (columns[level + 1] - c), rows, 1.0, room.scaled + c, r, beta,
                             &M[k, c, c], r)
                    leverages(rows, r, &F[a, 0], &D[a], &P[k, 0, 0], K, factored, room.scaled, &h[a])
                    a, beta = b, 1.0
                mirror_lower(r, &M[k, 0, 0], r)
    finally:
        close_room(&room)
        free(K)


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
