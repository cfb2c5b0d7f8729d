"""What the tree does: it owns the factors and never sees an array with a feature in its shape.

A node's path is its ancestors' factors (a, c of them) followed by its own (o). Every kernel takes a run of nodes of one
level, ``parent`` counting their parents from 0. ``eliminate`` and ``path_covariance`` walk the parameters' part up and
down the tree, ``forward`` and ``backward`` any right-hand sides. All nodes of a run have the first ``shared`` factors
of their paths in common: right-hand sides and posterior means of these are held once, and products with them are made
for the whole run at a time.
"""

from libc.stdlib cimport free, malloc

from mlfm._kernels._blas cimport (
    blas_int, cholesky, gemm, inverse_from_cholesky, mirror_lower, narrow, solve_lower, syrk,
)

cdef extern from "<math.h>" nogil:
    double log(double)
    bint isfinite(double)


def eliminate(
    const double[:, :, ::1] C,          # IN     k x (c + o) x (c + o), lower triangles
    const Py_ssize_t[::1] parent,       # IN     k
    double[:, :, ::1] R,                # OUT    k x o x o, lower triangular
    double[:, :, ::1] A,                # OUT    k x o x c
    double[:, :, ::1] message,          # OUT    k x c x c, symmetric
    double[::1] logdet,                 # OUT    k
    double[:, :, ::1] C_parent,         # INOUT  p x c x c, lower triangles
):
    """Upward: integrate each node's own factors out and hand the rest to its parent.

    R R' = I + C_oo,  A = R^-1 C_oa;  to the parent C_aa - A'A, the node's message;  logdet = 2 sum(log diag R).
    """
    cdef blas_int o = narrow(R.shape[1]), c = narrow(A.shape[2])
    cdef Py_ssize_t k, i, j, p
    cdef Py_ssize_t failed = -1
    cdef double total
    with nogil:
        for k in range(C.shape[0]):
            total = 0.0
            if o > 0:
                for i in range(o):
                    for j in range(o):
                        R[k, i, j] = C[k, c + i, c + j] if j <= i else 0.0
                    R[k, i, i] += 1.0
                    for j in range(c):
                        A[k, i, j] = C[k, c + i, j]
                if cholesky(o, &R[k, 0, 0], o) != 0:
                    failed = k
                    break
                for i in range(o):
                    total = total + log(R[k, i, i])
                if not isfinite(total):  # not every LAPACK stops at a nan
                    failed = k
                    break
                if c > 0:
                    solve_lower(False, o, c, &R[k, 0, 0], o, &A[k, 0, 0], c)
            logdet[k] = 2.0 * total
            if c == 0:
                continue
            p = parent[k]
            for i in range(c):
                for j in range(i + 1):
                    message[k, i, j] = C[k, i, j]
            if o > 0:
                syrk(True, c, o, -1.0, &A[k, 0, 0], c, 1.0, &message[k, 0, 0], c)
            mirror_lower(c, &message[k, 0, 0], c)
            for i in range(c):
                for j in range(i + 1):
                    C_parent[p, i, j] += message[k, i, j]
    if failed >= 0:
        raise FloatingPointError("I + F'D^-1F of a node is not positive definite: the parameters are not finite")


def forward(
    const double[:, :, ::1] B,          # IN     k x (c - shared + o) x N
    const Py_ssize_t[::1] parent,       # IN     k
    const double[:, :, ::1] R,          # IN     k x o x o
    const double[:, :, ::1] A,          # IN     k x o x c
    double[:, :, ::1] b,                # OUT    k x o x N
    double[:, :, ::1] B_parent,         # INOUT  p x (c - shared) x N
    double[:, ::1] B_shared,            # INOUT  shared x N
):
    """Upward, any right-hand sides: b = R^-1 B_o;  to the parent B_a - A'b."""
    cdef blas_int o = narrow(R.shape[1]), c = narrow(A.shape[2]), N = narrow(b.shape[2])
    cdef blas_int shared = narrow(B_shared.shape[0]), inner = c - shared, all_own = narrow(R.shape[0] * R.shape[1])
    cdef Py_ssize_t k, i, j, p
    if N == 0:
        return
    with nogil:
        for k in range(B.shape[0]):
            if o > 0:
                b[k, :, :] = B[k, inner:, :]
                solve_lower(False, o, N, &R[k, 0, 0], o, &b[k, 0, 0], N)
            if inner > 0:
                p = parent[k]
                for i in range(inner):
                    for j in range(N):
                        B_parent[p, i, j] += B[k, i, j]
                if o > 0:
                    gemm(True, False, inner, N, o, -1.0, &A[k, 0, shared], c, &b[k, 0, 0], N, 1.0,
                         &B_parent[p, 0, 0], N)
        if shared > 0 and o > 0:
            gemm(True, False, shared, N, all_own, -1.0, &A[0, 0, 0], c, &b[0, 0, 0], N, 1.0,
                 &B_shared[0, 0], N)


def backward(
    const double[:, :, ::1] R,          # IN   k x o x o
    const double[:, :, ::1] A,          # IN   k x o x c
    const double[:, :, ::1] b,          # IN   k x o x N
    const Py_ssize_t[::1] parent,       # IN   k
    const double[:, ::1] Z_shared,      # IN   shared x N
    const double[:, :, ::1] Z_parent,   # IN   p x (c - shared) x N
    double[:, :, ::1] Z,                # OUT  k x (c - shared + o) x N
):
    """Downward, the means Z of each node's path:  Z_o = R^-T (b - A Z_a)."""
    cdef blas_int o = narrow(R.shape[1]), c = narrow(A.shape[2]), N = narrow(Z.shape[2])
    cdef blas_int shared = narrow(Z_shared.shape[0]), inner = c - shared
    cdef blas_int all_own = narrow(R.shape[0] * R.shape[1])
    cdef Py_ssize_t k, i, j, p
    cdef double *own
    if N == 0 or inner + o == 0:
        return
    # What the shared factors leave of b, for all nodes at once.
    own = <double *> malloc((<size_t> all_own * N + 1) * sizeof(double))
    if own == NULL:
        raise MemoryError
    try:
        with nogil:
            if o > 0:
                for k in range(R.shape[0]):
                    for i in range(o):
                        for j in range(N):
                            own[(k * o + i) * N + j] = b[k, i, j]
                if shared > 0:
                    gemm(False, False, all_own, N, shared, -1.0, &A[0, 0, 0], c, &Z_shared[0, 0], N, 1.0, own, N)
            for k in range(R.shape[0]):
                p = parent[k]
                for i in range(inner):
                    for j in range(N):
                        Z[k, i, j] = Z_parent[p, i, j]
                if o == 0:
                    continue
                for i in range(o):
                    for j in range(N):
                        Z[k, inner + i, j] = own[(k * o + i) * N + j]
                if inner > 0:
                    gemm(False, False, o, N, inner, -1.0, &A[k, 0, shared], c, &Z[k, 0, 0], N, 1.0,
                         &Z[k, inner, 0], N)
                solve_lower(True, o, N, &R[k, 0, 0], o, &Z[k, inner, 0], N)
    finally:
        free(own)


def path_covariance(
    const double[:, :, ::1] R,          # IN   k x o x o
    const double[:, :, ::1] A,          # IN   k x o x c
    const Py_ssize_t[::1] parent,       # IN   k
    const double[:, :, ::1] P_parent,   # IN   p x c x c
    const double[::1] weight,           # IN   k
    double[:, :, ::1] P,                # OUT  k x (c + o) x (c + o)
):
    """Downward, the covariance P of each node's path:  G = R^-T A,  P_oa = -G P_aa,  P_oo = (R R')^-1 + G P_aa G'.

    With a weight on (R R')^-1: the sum over so many observations, where that of the parents' covariances is given.
    """
    cdef blas_int o = narrow(R.shape[1]), c = narrow(A.shape[2]), m = c + o
    cdef Py_ssize_t k, i, j, p
    if m == 0:
        return
    with nogil:
        for k in range(R.shape[0]):
            p = parent[k]
            for i in range(c):
                for j in range(c):
                    P[k, i, j] = P_parent[p, i, j]
            if o == 0:
                continue
            for i in range(o):
                for j in range(o):
                    P[k, c + i, c + j] = R[k, i, j]
            inverse_from_cholesky(o, &P[k, c, c], m)
            if weight[k] != 1.0:
                for i in range(o):
                    for j in range(i + 1):
                        P[k, c + i, c + j] *= weight[k]
            if c > 0:
                # -G stands in the lower left corner while it is needed; P_oa = P_ao' replaces it at the end.
                for i in range(o):
                    for j in range(c):
                        P[k, c + i, j] = -A[k, i, j]
                solve_lower(True, o, c, &R[k, 0, 0], o, &P[k, c, 0], m)
                # P_ao = P_aa (-G)'
                gemm(False, True, c, o, c, 1.0, &P[k, 0, 0], m, &P[k, c, 0], m, 0.0, &P[k, 0, c], m)
                # P_oo += (-G) P_ao
                gemm(False, False, o, o, c, 1.0, &P[k, c, 0], m, &P[k, 0, c], m, 1.0, &P[k, c, c], m)
                for i in range(o):
                    for j in range(c):
                        P[k, c + i, j] = P[k, j, c + i]
            mirror_lower(o, &P[k, c, c], m)
