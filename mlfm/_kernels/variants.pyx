"""What the tree does where observations miss features: a node has a variant for every set of its features that some
observations miss.

R and A belong to variants, right-hand sides and posterior means to nodes, whose columns fall into runs of one variant
each. See mlfm.sweep.variants and mlfm.sweep.patterns.
"""

from mlfm._kernels._blas cimport blas_int, gemm, narrow, solve_lower

cdef enum:
    SHORT = 2  # up to so many columns plain loops are faster than calls


cdef inline void subtract_product(
    bint trans, blas_int m, blas_int n, blas_int k, const double *a, blas_int lda, const double *b, double *c,
    blas_int ld,
) noexcept nogil:
    """C -= op(A) B; op(A) m x k, B k x n, both B and C with rows of ``ld``."""
    cdef Py_ssize_t i, j, t
    cdef double weight
    if n > SHORT:
        gemm(trans, False, m, n, k, -1.0, a, lda, b, ld, 1.0, c, ld)
        return
    for t in range(k):
        for i in range(m):
            weight = a[t * lda + i] if trans else a[i * lda + t]
            for j in range(n):
                c[i * ld + j] -= weight * b[t * ld + j]


def sum_over(
    const double[:, :, ::1] terms,      # IN   v x c x c
    const Py_ssize_t[::1] first,        # IN   u + 1
    const Py_ssize_t[::1] term,         # IN   numbers of terms
    double[:, :, ::1] out,              # OUT  u x c x c
):
    """out_u = the sum of the terms first[u] .. first[u + 1] of the list."""
    cdef Py_ssize_t size = terms.shape[1] * terms.shape[2], u, e, i
    cdef const double *x
    cdef double *y
    if size == 0:
        return
    with nogil:
        for u in range(out.shape[0]):
            y = &out[u, 0, 0]
            for i in range(size):
                y[i] = 0.0
            for e in range(first[u], first[u + 1]):
                x = &terms[term[e], 0, 0]
                for i in range(size):
                    y[i] += x[i]


def forward_runs(
    const double[:, :, ::1] B,          # IN     k x (c - shared + o) x N
    const Py_ssize_t[::1] parent,       # IN     k
    const Py_ssize_t[::1] first,        # IN     k + 1, the runs of each node
    const Py_ssize_t[::1] bounds,       # IN     2 a run: its columns
    const Py_ssize_t[::1] variant,      # IN     one a run
    const double[:, :, ::1] R,          # IN     v x o x o
    const double[:, :, ::1] A,          # IN     v x o x c
    double[:, :, ::1] b,                # OUT    k x o x N
    double[:, :, ::1] B_parent,         # INOUT  p x (c - shared) x N
    double[:, ::1] B_shared,            # INOUT  shared x N
):
    """Upward, right-hand sides: in every run of columns b = R^-1 B_o;  to the parent B_a - A'b."""
    cdef blas_int o = narrow(R.shape[1]), c = narrow(A.shape[2]), N = narrow(b.shape[2])
    cdef blas_int shared = narrow(B_shared.shape[0]), inner = c - shared, n
    cdef Py_ssize_t k, i, j, p, e, v, s
    if N == 0:
        return
    with nogil:
        for k in range(B.shape[0]):
            p = parent[k]
            for i in range(inner):
                for j in range(N):
                    B_parent[p, i, j] += B[k, i, j]
            if o == 0:
                continue
            b[k, :, :] = B[k, inner:, :]
            for e in range(first[k], first[k + 1]):
                s, v = bounds[2 * e], variant[e]
                n = <blas_int> (bounds[2 * e + 1] - s)
                solve_lower(False, o, n, &R[v, 0, 0], o, &b[k, 0, s], N)
                if shared > 0:
                    subtract_product(True, shared, n, o, &A[v, 0, 0], c, &b[k, 0, s], &B_shared[0, s], N)
                if inner > 0:
                    subtract_product(True, inner, n, o, &A[v, 0, shared], c, &b[k, 0, s], &B_parent[p, 0, s], N)


def backward_runs(
    const double[:, :, ::1] R,          # IN   v x o x o
    const double[:, :, ::1] A,          # IN   v x o x c
    const double[:, :, ::1] b,          # IN   k x o x N
    const Py_ssize_t[::1] parent,       # IN   k
    const Py_ssize_t[::1] first,        # IN   k + 1, the runs of each node
    const Py_ssize_t[::1] bounds,       # IN   2 a run: its columns
    const Py_ssize_t[::1] variant,      # IN   one a run
    const double[:, ::1] Z_shared,      # IN   shared x N
    const double[:, :, ::1] Z_parent,   # IN   p x (c - shared) x N
    double[:, :, ::1] Z,                # OUT  k x (c - shared + o) x N
):
    """Downward, the means Z of each node's path: in every run of columns Z_o = R^-T (b - A Z_a)."""
    cdef blas_int o = narrow(R.shape[1]), c = narrow(A.shape[2]), N = narrow(Z.shape[2])
    cdef blas_int shared = narrow(Z_shared.shape[0]), inner = c - shared, n
    cdef Py_ssize_t k, i, j, p, e, v, s
    if N == 0 or inner + o == 0:
        return
    with nogil:
        for k in range(b.shape[0]):
            p = parent[k]
            for i in range(inner):
                for j in range(N):
                    Z[k, i, j] = Z_parent[p, i, j]
            if o == 0:
                continue
            Z[k, inner:, :] = b[k, :, :]
            for e in range(first[k], first[k + 1]):
                s, v = bounds[2 * e], variant[e]
                n = <blas_int> (bounds[2 * e + 1] - s)
                if shared > 0:
                    subtract_product(False, o, n, shared, &A[v, 0, 0], c, &Z_shared[0, s], &Z[k, inner, s], N)
                if inner > 0:
                    subtract_product(False, o, n, inner, &A[v, 0, shared], c, &Z[k, 0, s], &Z[k, inner, s], N)
                solve_lower(True, o, n, &R[v, 0, 0], o, &Z[k, inner, s], N)
