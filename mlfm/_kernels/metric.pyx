"""The inverse block information, node by node: small matrices over the factors of a node's path.

See mlfm.estimation.metric for the mathematics. A node's path is its ancestors' factors (c of them) followed by its
own (o); matrices over all r factors of a leaf group's path hold those of a node in their first c + o rows and columns.
"""

from libc.stdlib cimport free, malloc

from mlfm._kernels._blas cimport (
    blas_int, cholesky, eigen_symmetric, gemm, inverse_from_cholesky, mirror_lower, narrow, solve_right,
)


cdef bint invert_bounded(blas_int o, double least, double *C, double *work, double *out) noexcept nogil:
    """out = C^-1, with the eigenvalues of C held above ``least``; C is overwritten, ``work`` takes 4 o + o^2."""
    cdef Py_ssize_t i, j, k
    cdef double trace = 0.0, total
    cdef double *values = work
    for i in range(o * o):
        out[i] = C[i]
    if cholesky(o, out, o) == 0 and inverse_from_cholesky(o, out, o) == 0:
        for i in range(o):
            trace = trace + out[i * o + i]
        if trace * least <= 1.0:  # then every eigenvalue of C is at least ``least``
            mirror_lower(o, out, o)
            return True
    if eigen_symmetric(o, C, o, values, work + o, 3 * o + o * o) != 0:
        return False
    for i in range(o):
        for j in range(i + 1):
            total = 0.0
            for k in range(o):
                total = total + C[k * o + i] * C[k * o + j] / max(values[k], least)
            out[i * o + j] = total
    mirror_lower(o, out, o)
    return True


def observe(
    const double[:, :, ::1] P,          # IN   k x (c + o) x (c + o), posterior covariances
    const double[:, :, ::1] message,    # IN   k x c x c
    double least,                       # IN
    double[:, :, ::1] inner,            # OUT  k x o x o: (I - P_oo)^-1, eigenvalues of I - P_oo held above ``least``
    double[:, :, ::1] outer,            # OUT  k x c x c: (P_aa^-1 - message)^-1
):
    """The inverses that a run of nodes of one level brings to the metric."""
    cdef blas_int c = narrow(message.shape[1]), o = narrow(inner.shape[1])
    cdef Py_ssize_t m = c + o, k, i, j
    cdef double *work
    cdef blas_int *pivots
    cdef bint failed = False
    cdef double mean
    if m == 0:
        return
    work = <double *> malloc(<size_t> (2 * m * m + 4 * m) * sizeof(double))
    pivots = <blas_int *> malloc(<size_t> m * sizeof(blas_int))
    try:
        if work == NULL or pivots == NULL:
            raise MemoryError
        with nogil:
            for k in range(P.shape[0]):
                for i in range(o):
                    for j in range(o):
                        work[i * o + j] = (1.0 if i == j else 0.0) - P[k, c + i, c + j]
                if o > 0 and not invert_bounded(o, least, work, work + o * o, &inner[k, 0, 0]):
                    failed = True
                    break
                if c == 0:
                    continue
                # P_aa (I - message P_aa)^-1
                for i in range(c):
                    for j in range(c):
                        work[i * c + j] = 1.0 if i == j else 0.0
                        outer[k, i, j] = P[k, i, j]
                gemm(False, False, c, c, c, -1.0, &message[k, 0, 0], c, &P[k, 0, 0], <blas_int> m, 1.0, work, c)
                if solve_right(c, c, work, c, pivots, &outer[k, 0, 0], c) != 0:
                    failed = True
                    break
                for i in range(c):
                    for j in range(i):
                        mean = 0.5 * (outer[k, i, j] + outer[k, j, i])
                        outer[k, i, j] = mean
                        outer[k, j, i] = mean
    finally:
        free(work)
        free(pivots)
    if failed:
        raise FloatingPointError("the information of a node's factors cannot be inverted")


def sum_over_children(
    const double[:, :, ::1] T,          # IN   k x r x r
    const Py_ssize_t[::1] parent,       # IN   k
    double[:, :, ::1] out,              # OUT  p x r x r
):
    """out_p = the sum of T over the children of p."""
    cdef Py_ssize_t k, i, j, p
    with nogil:
        out[:, :, :] = 0.0
        for k in range(T.shape[0]):
            p = parent[k]
            for i in range(T.shape[1]):
                for j in range(T.shape[2]):
                    out[p, i, j] += T[k, i, j]


def extend(
    const double[:, :, ::1] T,          # IN   k x r x r: F'G over the nodes' features
    const double[:, :, ::1] inner,      # IN   k x o x o
    const double[:, :, ::1] outer,      # IN   k x c x c
    const Py_ssize_t[::1] parent,       # IN   k
    const double[:, :, ::1] S_parent,   # IN   p x r x r
    const double[:, :, ::1] Q_parent,   # IN   p x r x r
    double[:, :, ::1] S,                # OUT  k x r x r
    double[:, :, ::1] Q,                # OUT  k x r x r, block diagonal by level
):
    """The coefficients S and Q of a run of nodes' paths, from those of their parents.

    S_ao = Pout T_ao,  S_oa = T_oa,  S_oo = T_oo - 1/2 C^-1 T_oo,  Q_oo = C^-1.
    """
    cdef blas_int r = narrow(T.shape[1]), c = narrow(outer.shape[1]), o = narrow(inner.shape[1])
    cdef Py_ssize_t k, i, j, p
    if r == 0:
        return
    with nogil:
        for k in range(T.shape[0]):
            p = parent[k]
            for i in range(r):
                for j in range(r):
                    S[k, i, j] = S_parent[p, i, j] if i < c and j < c else 0.0
                    Q[k, i, j] = Q_parent[p, i, j] if i < c and j < c else 0.0
            if o == 0:
                continue
            if c > 0:
                gemm(False, False, c, o, c, 1.0, &outer[k, 0, 0], c, &T[k, 0, c], r, 0.0, &S[k, 0, c], r)
            for i in range(o):
                for j in range(c + o):
                    S[k, c + i, j] = T[k, c + i, j]
                for j in range(o):
                    Q[k, c + i, c + j] = inner[k, i, j]
            gemm(False, False, o, o, o, -0.5, &inner[k, 0, 0], o, &T[k, c, c], r, 1.0, &S[k, c, c], r)


def squared_length(
    const double[:, :, ::1] T,          # IN   k x r x r
    const double[:, :, ::1] M,          # IN   k x r x r, block diagonal by level
    const double[:, :, ::1] S,          # IN   k x r x r
    const double[:, :, ::1] Q,          # IN   k x r x r, block diagonal by level
    const Py_ssize_t[::1] columns,      # IN   levels + 1, boundaries of the levels' columns
) -> float:
    """The sum over leaf groups of tr(Q (M + T'S)): a gradient times its step (D G + F S) Q."""
    cdef blas_int r = narrow(T.shape[1]), o
    cdef Py_ssize_t k, i, j, level, c
    cdef double total = 0.0
    cdef double *X
    if r == 0:
        return 0.0
    X = <double *> malloc(<size_t> r * r * sizeof(double))
    if X == NULL:
        raise MemoryError
    try:
        with nogil:
            for k in range(T.shape[0]):
                for level in range(columns.shape[0] - 1):
                    c, o = columns[level], <blas_int> (columns[level + 1] - columns[level])
                    gemm(True, False, o, o, r, 1.0, &T[k, 0, c], r, &S[k, 0, c], r, 0.0, X, o)
                    for i in range(o):
                        for j in range(o):
                            total = total + (M[k, c + i, c + j] + X[i * o + j]) * Q[k, c + j, c + i]
    finally:
        free(X)
    return total
