"""What a block of features does: it owns rows of the data Y, the loadings F and the uniquenesses D.

A block is a run of consecutive leaf groups (or a piece of one); ``offsets`` are its groups' boundaries, counted
from its first feature. The compressed loadings F hold, in row j, the loadings of feature j on the r factors of its
path. Y is stored feature by feature (n x N). Sections and symbols are those of the documentation page "the model".
"""

from libc.stdlib cimport free, malloc

from mlfm._kernels._blas cimport (
    blas_int, cholesky, gemm, mirror_lower, narrow, solve_lower_right, syrk,
)

cdef extern from "<math.h>" nogil:
    double sqrt(double)

# Rows of a group handled at once, so that they stay in the cache between the two products that read them.
cdef enum:
    TILE = 256


def leaf_moments(
    const double[:, ::1] F,             # IN   n x r
    const double[::1] D,                # IN   n
    const double[:, ::1] Y,             # IN   n x N
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    double[:, :, ::1] C,                # OUT  k x r x r, lower triangles
    double[:, :, ::1] B,                # OUT  k x r x N
):
    """C_g = F_g' D_g^-1 F_g and B_g = F_g' D_g^-1 Y_g of every leaf group g."""
    cdef blas_int r = narrow(F.shape[1]), N = narrow(Y.shape[1]), rows
    cdef Py_ssize_t g, a, b, i, j, k = offsets.shape[0] - 1
    cdef double scale, beta
    cdef double *X
    if r == 0:
        return
    X = <double *> malloc(TILE * <size_t> r * sizeof(double))
    if X == NULL:
        raise MemoryError
    try:
        with nogil:
            for g in range(k):
                a, beta = offsets[g], 0.0
                while True:
                    b = min(a + TILE, offsets[g + 1])
                    rows = <blas_int> (b - a)
                    for i in range(rows):
                        scale = 1.0 / sqrt(D[a + i])
                        for j in range(r):
                            X[i * r + j] = scale * F[a + i, j]
                    syrk(True, r, rows, 1.0, X, r, beta, &C[g, 0, 0], r)
                    if N > 0:
                        for i in range(rows):
                            scale = 1.0 / sqrt(D[a + i])
                            for j in range(r):
                                X[i * r + j] *= scale
                        gemm(True, False, r, N, rows, 1.0, X, r, &Y[a, 0], N, beta, &B[g, 0, 0], N)
                    a, beta = b, 1.0
                    if a >= offsets[g + 1]:
                        break
    finally:
        free(X)


def cross_moments(
    const double[:, ::1] Y,             # IN   n x N
    const double[:, :, ::1] Z,          # IN   k x r x N
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    double[:, ::1] V,                   # OUT  n x r
):
    """V_g = Y_g Z_g': the data of every group against the posterior means of its path's factors."""
    cdef blas_int r = narrow(V.shape[1]), N = narrow(Y.shape[1])
    cdef Py_ssize_t g, a
    if r == 0:
        return
    with nogil:
        for g in range(offsets.shape[0] - 1):
            a = offsets[g]
            if offsets[g + 1] > a:
                gemm(False, True, <blas_int> (offsets[g + 1] - a), r, N, 1.0, &Y[a, 0], N, &Z[g, 0, 0], N,
                     0.0, &V[a, 0], r)


def second_moments(
    const double[:, :, ::1] P,          # IN   k x r x r
    const double[:, :, ::1] Z,          # IN   k x r x N
    double nobs,                        # IN
    double[:, :, ::1] W,                # OUT  k x r x r, symmetric
):
    """W_g = nobs P_g + Z_g Z_g': expected sum of squares of the factors given the data.

    The data may have been replaced by a triangular factor, so nobs is not the number of columns of Z.
    """
    cdef blas_int r = narrow(W.shape[1]), N = narrow(Z.shape[2])
    cdef Py_ssize_t g, i, j
    if r == 0:
        return
    with nogil:
        for g in range(W.shape[0]):
            for i in range(r):
                for j in range(i + 1):
                    W[g, i, j] = nobs * P[g, i, j]
            if N > 0:
                syrk(False, r, N, 1.0, &Z[g, 0, 0], N, 1.0, &W[g, 0, 0], r)
            mirror_lower(r, &W[g, 0, 0], r)


cdef inline void row_products(
    Py_ssize_t rows, Py_ssize_t r, const double *x, const double *y, double *out,
) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef double total
    for i in range(rows):
        total = 0.0
        for j in range(r):
            total = total + x[i * r + j] * y[i * r + j]
        out[i] = total


cdef void whiten(
    const double[:, ::1] V, double[:, :, ::1] W, const double[::1] squares, double nobs,
    const double[::1] floor, const Py_ssize_t[::1] offsets, double[:, ::1] X, double[::1] D,
) except *:
    """W_g <- L with W_g = L L';  X_g = V_g L^-T;  D_j = (||y_j||^2 - ||X_j||^2) / nobs, held above the floor.

    This is the part that both EM steps share: F_j V_j' of the EM step F = V W^-1 is ||X_j||^2.
    """
    cdef blas_int r = narrow(V.shape[1]), rows
    cdef Py_ssize_t g, a, b, j
    cdef double d
    cdef bint singular = False
    with nogil:
        for g in range(offsets.shape[0] - 1):
            a, b = offsets[g], offsets[g + 1]
            rows = <blas_int> (b - a)
            if rows == 0:
                continue
            if r > 0:
                if cholesky(r, &W[g, 0, 0], r) != 0:
                    singular = True
                    break
                X[a:b, :] = V[a:b, :]
                solve_lower_right(True, rows, r, 1.0, &W[g, 0, 0], r, &X[a, 0], r)
                row_products(rows, r, &X[a, 0], &X[a, 0], &D[a])
            else:
                D[a:b] = 0.0
            for j in range(a, b):
                d = (squares[j] - D[j]) / nobs
                D[j] = d if d > floor[j] else floor[j]
    if singular:
        raise FloatingPointError("the second moments of the factors are not positive definite")


def em_update(
    const double[:, ::1] V,             # IN   n x r
    double[:, :, ::1] W,                # IN   k x r x r; overwritten
    const double[::1] squares,          # IN   n, sum of squares of every feature
    double nobs,                        # IN
    const double[::1] floor,            # IN   n
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    double[:, ::1] F,                   # OUT  n x r
    double[::1] D,                      # OUT  n
):
    """The EM step F_g = V_g W_g^-1, D_j = (||y_j||^2 - F_j V_j') / nobs."""
    cdef blas_int r = narrow(V.shape[1])
    cdef Py_ssize_t g, a
    whiten(V, W, squares, nobs, floor, offsets, F, D)
    with nogil:
        for g in range(offsets.shape[0] - 1):
            a = offsets[g]
            if r > 0 and offsets[g + 1] > a:
                solve_lower_right(False, <blas_int> (offsets[g + 1] - a), r, 1.0, &W[g, 0, 0], r, &F[a, 0], r)


def px_em_update(
    const double[:, ::1] V,             # IN   n x r
    double[:, :, ::1] W,                # IN   k x r x r; overwritten
    const double[::1] squares,          # IN   n, sum of squares of every feature
    double nobs,                        # IN
    const double[::1] floor,            # IN   n
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    double[:, ::1] F,                   # OUT  n x r
    double[::1] D,                      # OUT  n
):
    """The parameter-expanded EM step.

    With W = L L' (lower, coarse to fine) the expanded model's factors have covariance L L' / nobs, and the step is
    V W^-1 L / sqrt(nobs) = V L^-T / sqrt(nobs): one triangular solve where EM takes two. D is the EM step's.
    """
    cdef Py_ssize_t i, j
    cdef double scale = 1.0 / sqrt(nobs)
    whiten(V, W, squares, nobs, floor, offsets, F, D)
    with nogil:
        for i in range(F.shape[0]):
            for j in range(F.shape[1]):
                F[i, j] *= scale


def gradient(
    const double[:, ::1] F,             # IN   n x r
    const double[::1] D,                # IN   n
    const double[:, ::1] V,             # IN   n x r
    const double[:, :, ::1] W,          # IN   k x r x r
    const double[::1] squares,          # IN   n
    double nobs,                        # IN
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    double[:, ::1] dF,                  # OUT  n x r
    double[::1] dD,                     # OUT  n
):
    """Derivatives of the log-likelihood: dl/dF_g = D_g^-1 (V_g - F_g W_g) and dl/dD_j."""
    cdef blas_int r = narrow(F.shape[1]), rows
    cdef Py_ssize_t g, a, b, i, j
    cdef double fv, fwf, left
    with nogil:
        for g in range(offsets.shape[0] - 1):
            a, b = offsets[g], offsets[g + 1]
            rows = <blas_int> (b - a)
            if rows == 0:
                continue
            if r > 0:
                gemm(False, False, rows, r, r, 1.0, &F[a, 0], r, &W[g, 0, 0], r, 0.0, &dF[a, 0], r)
            for i in range(a, b):
                fv, fwf = 0.0, 0.0
                for j in range(r):
                    fv = fv + F[i, j] * V[i, j]
                    fwf = fwf + F[i, j] * dF[i, j]
                    dF[i, j] = (V[i, j] - dF[i, j]) / D[i]
                left = (squares[i] - 2.0 * fv + fwf) / D[i]
                dD[i] = 0.5 * (left - nobs) / D[i]


def leverages(
    const double[:, ::1] F,             # IN   n x r
    const double[::1] D,                # IN   n
    const double[:, :, ::1] P,          # IN   k x r x r
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    double[:, ::1] work,                # WORK n x r
    double[::1] h,                      # OUT  n
):
    """h_j = f_j P_g f_j' / D_j: how much of what is unique about a feature the factors take."""
    cdef blas_int r = narrow(F.shape[1]), rows
    cdef Py_ssize_t g, a, b, j
    with nogil:
        for g in range(offsets.shape[0] - 1):
            a, b = offsets[g], offsets[g + 1]
            rows = <blas_int> (b - a)
            if r == 0 or rows == 0:
                h[a:b] = 0.0
                continue
            gemm(False, False, rows, r, r, 1.0, &F[a, 0], r, &P[g, 0, 0], r, 0.0, &work[a, 0], r)
            row_products(rows, r, &work[a, 0], &F[a, 0], &h[a])
            for j in range(a, b):
                h[j] /= D[j]


def scoring_step(
    const double[:, ::1] F,             # IN   n x r
    const double[::1] D,                # IN   n
    const double[:, ::1] G,             # IN   n x r
    const double[:, :, ::1] Q,          # IN   k x r x r, block diagonal
    const double[:, :, ::1] S,          # IN   k x r x r
    const Py_ssize_t[::1] columns,      # IN   levels + 1, of the blocks of Q
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    double[:, ::1] out,                 # OUT  n x r
):
    """out_g = D_g G_g Q_g + F_g S_g: what the inverse block information makes of a gradient G."""
    cdef blas_int r = narrow(F.shape[1]), rows, o
    cdef Py_ssize_t g, a, b, i, j, c, level
    if r == 0:
        return
    with nogil:
        for g in range(offsets.shape[0] - 1):
            a, b = offsets[g], offsets[g + 1]
            rows = <blas_int> (b - a)
            if rows == 0:
                continue
            for level in range(columns.shape[0] - 1):
                c, o = columns[level], <blas_int> (columns[level + 1] - columns[level])
                if o > 0:
                    gemm(False, False, rows, o, o, 1.0, &G[a, c], r, &Q[g, c, c], r, 0.0, &out[a, c], r)
            for i in range(a, b):
                for j in range(r):
                    out[i, j] *= D[i]
            gemm(False, False, rows, r, r, 1.0, &F[a, 0], r, &S[g, 0, 0], r, 1.0, &out[a, 0], r)


def weighted_norms(
    const double[::1] D,                # IN   n
    const double[:, ::1] G,             # IN   n x r
    const double[:, :, ::1] Q,          # IN   k x r x r, block diagonal
    const Py_ssize_t[::1] columns,      # IN   levels + 1, of the blocks of Q
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    double[:, ::1] work,                # WORK n x r
    double[::1] out,                    # OUT  n
):
    """out_j = D_j G_j Q_g G_j'."""
    cdef blas_int r = narrow(G.shape[1]), rows, o
    cdef Py_ssize_t g, a, b, j, c, level
    with nogil:
        for g in range(offsets.shape[0] - 1):
            a, b = offsets[g], offsets[g + 1]
            rows = <blas_int> (b - a)
            if r == 0 or rows == 0:
                out[a:b] = 0.0
                continue
            for level in range(columns.shape[0] - 1):
                c, o = columns[level], <blas_int> (columns[level + 1] - columns[level])
                if o > 0:
                    gemm(False, False, rows, o, o, 1.0, &G[a, c], r, &Q[g, c, c], r, 0.0, &work[a, c], r)
            row_products(rows, r, &work[a, 0], &G[a, 0], &out[a])
            for j in range(a, b):
                out[j] *= D[j]


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
