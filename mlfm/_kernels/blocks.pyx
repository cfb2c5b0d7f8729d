"""What a block of features does: it owns rows of the data Y, the loadings F and the uniquenesses D.

A block is a run of consecutive leaf groups (or a piece of one); ``offsets`` are its groups' boundaries, counted
from its first feature. The compressed loadings F hold, in row j, the loadings of feature j on the r factors of its
path. Y is stored feature by feature (n x N). Sections and symbols are those of the documentation page "the model".
"""

from libc.stdlib cimport free, malloc

from mlfm._kernels._blas cimport blas_int, gemm, mirror_lower, narrow, solve_lower_right
from mlfm._kernels._tiles cimport (
    Room, add_moments, close_room, cross_moments, gradient_rows, open_room, real, second_moments, take_factors,
)


def leaf_moments(
    const double[:, ::1] F,             # IN   n x r
    const double[::1] D,                # IN   n
    const real[:, ::1] Y,               # IN   n x N
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    Py_ssize_t tile,                    # IN   rows handled at once
    double[:, :, ::1] C,                # OUT  k x r x r, lower triangles
    double[:, :, ::1] B,                # OUT  k x r x N
):
    """C_g = F_g' D_g^-1 F_g and B_g = F_g' D_g^-1 Y_g of every leaf group g."""
    cdef blas_int r = narrow(F.shape[1]), N = narrow(Y.shape[1])
    cdef Py_ssize_t g, a, b
    cdef double beta
    cdef const real *data = NULL
    cdef double *sums = NULL
    cdef Room room
    if r == 0:
        return
    if tile < 1:
        raise ValueError("a tile has at least one row")
    try:
        if not open_room(&room, tile, r, N, real is float):
            raise MemoryError
        with nogil:
            for g in range(offsets.shape[0] - 1):
                a, beta = offsets[g], 0.0
                while a < offsets[g + 1]:
                    b = min(a + tile, offsets[g + 1])
                    if N > 0:
                        data, sums = &Y[a, 0], &B[g, 0, 0]
                    add_moments(<blas_int> (b - a), r, N, &F[a, 0], &D[a], data, beta, &room, &C[g, 0, 0], sums)
                    a, beta = b, 1.0
    finally:
        close_room(&room)


def gradient(
    const real[:, ::1] Y,               # IN   n x N
    const double[:, ::1] F,             # IN   n x r
    const double[::1] D,                # IN   n
    const double[:, :, ::1] Z,          # IN   k x r x N
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
    cdef blas_int r = narrow(F.shape[1]), N = narrow(Y.shape[1]), rows
    cdef Py_ssize_t g, a, b, j
    cdef double *W
    cdef Room room
    if r == 0:
        for j in range(D.shape[0]):
            dD[j] = 0.5 * (squares[j] / D[j] - nobs) / D[j]
        return
    if tile < 1:
        raise ValueError("a tile has at least one row")
    W = <double *> malloc(<size_t> r * r * sizeof(double))
    try:
        if not open_room(&room, tile, r, N, real is float) or W == NULL:
            raise MemoryError
        with nogil:
            for g in range(offsets.shape[0] - 1):
                second_moments(r, N, &P[g, 0, 0], &Z[g, 0, 0], nobs, W)
                mirror_lower(r, W, r)
                take_factors(r, N, &Z[g, 0, 0], &Y[0, 0], &room)
                a = offsets[g]
                while a < offsets[g + 1]:
                    b = min(a + tile, offsets[g + 1])
                    rows = <blas_int> (b - a)
                    cross_moments(rows, r, N, &Y[a, 0], &Z[g, 0, 0], &room, room.moments)
                    gradient_rows(rows, r, &F[a, 0], &D[a], room.moments, W, &squares[a], nobs, 1.0, &dF[a, 0],
                                  &dD[a])
                    a = b
    finally:
        close_room(&room)
        free(W)


def expand(
    const double[:, ::1] F,             # IN     n x r
    const double[:, :, ::1] Z,          # IN     k x r x N
    const Py_ssize_t[::1] offsets,      # IN     k + 1
    double alpha,                       # IN
    double[:, ::1] Y,                   # INOUT  n x N
):
    """Y_g += alpha F_g Z_g: the factors of every group's path, seen in its features."""
    cdef blas_int r = narrow(F.shape[1]), N = narrow(Y.shape[1])
    cdef Py_ssize_t g, a
    if r == 0 or N == 0:
        return
    with nogil:
        for g in range(offsets.shape[0] - 1):
            a = offsets[g]
            if offsets[g + 1] > a:
                gemm(False, False, <blas_int> (offsets[g + 1] - a), N, r, alpha, &F[a, 0], r, &Z[g, 0, 0], N,
                     1.0, &Y[a, 0], N)


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


def inverse_factors(
    double[:, ::1] X,                   # INOUT  n x r
    const Py_ssize_t[::1] offsets,      # IN     k + 1, of the nodes of one level
    const double[:, :, ::1] R,          # IN     k x o x o
    const double[:, :, ::1] A,          # IN     k x o x c
):
    """One level of the recursive Sherman-Morrison-Woodbury identity: H_o = X_o R^-T, X_a -= H_o A.

    The level's own columns of X are c .. c + o. Called from the finest level to the coarsest on X = D^-1 F it
    leaves in X the factors H of Sigma^-1 = D^-1 - sum_l H_l H_l'.
    """
    cdef blas_int r = narrow(X.shape[1]), o = narrow(R.shape[1]), c = narrow(A.shape[2])
    cdef Py_ssize_t k, a
    cdef blas_int rows
    if o == 0:
        return
    with nogil:
        for k in range(offsets.shape[0] - 1):
            a = offsets[k]
            rows = <blas_int> (offsets[k + 1] - a)
            if rows == 0:
                continue
            solve_lower_right(True, rows, o, 1.0, &R[k, 0, 0], o, &X[a, c], r)
            if c > 0:
                gemm(False, False, rows, c, o, -1.0, &X[a, c], r, &A[k, 0, 0], c, 1.0, &X[a, 0], r)
