"""What a block of features does where values are missing.

Missing values are zeros in the data. Columns of the data may be observations or rows of a triangular factor of those
that miss the same features; ``gap`` lists, feature by feature, the columns where it is missing. A leaf group has a
variant for every set of its features that some observations miss; ``missing`` lists these, variant by variant.
"""

from libc.string cimport memcpy, memset

from mlfm._kernels._blas cimport blas_int, gemm, narrow
from mlfm._kernels._tiles cimport inner_product, leaf_of, real

# Share of a diagonal element below which what is left of it is summed up anew, and not had by subtraction.
cdef double LEAST_LEFT = 1e-3


def residuals(
    const real[:, ::1] Y,               # IN   n x N
    const double[:, ::1] B,             # IN   n x q, coefficients
    const double[:, ::1] X,             # IN   N x q, design
    const Py_ssize_t[::1] first,        # IN   n + 1
    const Py_ssize_t[::1] gap,          # IN   columns
    double[:, ::1] out,                 # OUT  n x N
):
    """Y - B X', zeros where values are missing."""
    cdef blas_int n = narrow(Y.shape[0]), N = narrow(Y.shape[1]), q = narrow(B.shape[1])
    cdef Py_ssize_t i, j, e
    if n == 0 or N == 0:
        return
    with nogil:
        for i in range(n):
            for j in range(N):
                out[i, j] = Y[i, j]
        if q > 0:
            gemm(False, True, n, N, q, -1.0, &B[0, 0], q, &X[0, 0], q, 1.0, &out[0, 0], N)
        for i in range(n):
            for e in range(first[i], first[i + 1]):
                out[i, gap[e]] = 0.0


cdef inline void add_outer(Py_ssize_t r, double weight, const double *f, double *C) noexcept nogil:
    """Lower triangle of C += weight f f'."""
    cdef Py_ssize_t i, j
    cdef double x
    for i in range(r):
        x = weight * f[i]
        for j in range(i + 1):
            C[i * r + j] += x * f[j]


cdef inline bint enough_left(Py_ssize_t r, const double *C, const double *whole) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(r):
        if C[i * (r + 1)] < LEAST_LEFT * whole[i * (r + 1)]:
            return False
    return True


def variant_moments(
    const double[:, ::1] F,             # IN   n x r
    const double[::1] D,                # IN   n
    const Py_ssize_t[::1] offsets,      # IN   p + 1, boundaries of all leaf groups
    const double[:, :, ::1] C_whole,    # IN   p x r x r, lower triangles: C where nothing is missing
    const Py_ssize_t[::1] node,         # IN   v, the variants' leaf groups
    const Py_ssize_t[::1] first,        # IN   v + 1
    const Py_ssize_t[::1] missing,      # IN   features, increasing inside a variant
    double[:, :, ::1] C,                # OUT  v x r x r, lower triangles
):
    """C_v = F_g'D_g^-1 F_g over the features that a variant of leaf group g observes."""
    cdef Py_ssize_t r = F.shape[1], v, g, e, j
    cdef bint summed
    if r == 0:
        return
    with nogil:
        for v in range(node.shape[0]):
            g = node[v]
            summed = 2 * (first[v + 1] - first[v]) > offsets[g + 1] - offsets[g]
            if not summed:
                memcpy(&C[v, 0, 0], &C_whole[g, 0, 0], r * r * sizeof(double))
                for e in range(first[v], first[v + 1]):
                    j = missing[e]
                    add_outer(r, -1.0 / D[j], &F[j, 0], &C[v, 0, 0])
                summed = first[v + 1] > first[v] and not enough_left(r, &C[v, 0, 0], &C_whole[g, 0, 0])
            if summed:
                memset(&C[v, 0, 0], 0, r * r * sizeof(double))
                e = first[v]
                for j in range(offsets[g], offsets[g + 1]):
                    if e < first[v + 1] and missing[e] == j:
                        e = e + 1
                    else:
                        add_outer(r, 1.0 / D[j], &F[j, 0], &C[v, 0, 0])


def fill_gaps(
    const double[:, ::1] F,             # IN     n x r
    const double[:, ::1] Z_shared,      # IN     shared x N, posterior means of the factors that all groups share
    const double[:, :, ::1] Z_inner,    # IN     k x (r - shared) x N, of the others
    const Py_ssize_t[::1] offsets,      # IN     k + 1
    const Py_ssize_t[::1] first,        # IN     n + 1
    const Py_ssize_t[::1] gap,          # IN     columns, increasing, feature by feature
    double[:, ::1] E,                   # INOUT  n x N, zeros where values are missing
    double[::1] squares,                # OUT    n
):
    """E <- f z where values are missing, and the sums of squares of what is filled in."""
    cdef Py_ssize_t r = F.shape[1], shared = Z_shared.shape[0], g = 0, j, e, i, t, start, stop
    cdef double weight, total
    cdef const double *z
    cdef double *row
    squares[:] = 0.0
    if r == 0 or gap.shape[0] == 0:
        return
    with nogil:
        for j in range(F.shape[0]):
            if first[j] == first[j + 1]:
                continue
            g = leaf_of(&offsets[0], g, j)
            row = &E[j, 0]
            e, total = first[j], 0.0
            while e < first[j + 1]:
                start = gap[e]
                e = e + 1
                while e < first[j + 1] and gap[e] == gap[e - 1] + 1:
                    e = e + 1
                stop = gap[e - 1] + 1
                for i in range(r):
                    weight = F[j, i]
                    z = &Z_shared[i, 0] if i < shared else &Z_inner[g, i - shared, 0]
                    for t in range(start, stop):
                        row[t] += weight * z[t]
                for t in range(start, stop):
                    total = total + row[t] * row[t]
            squares[j] = total


cdef inline Py_ssize_t lower_bound(
    const Py_ssize_t[::1] sorted_values, Py_ssize_t first, Py_ssize_t last, Py_ssize_t value,
) noexcept nogil:
    """Where the values that are no smaller begin, between first and last."""
    cdef Py_ssize_t middle
    while first < last:
        middle = (first + last) // 2
        if sorted_values[middle] < value:
            first = middle + 1
        else:
            last = middle
    return first


def sum_of_products(
    const double[:, ::1] F,             # IN     n x r
    Py_ssize_t start,                   # IN     the number of its first feature
    const double[:, :, ::1] S,          # IN     v x r x r, symmetric, of the variants of all leaf groups of F
    const Py_ssize_t[::1] first,        # IN     v + 1
    const Py_ssize_t[::1] missing,      # IN     features, increasing inside a variant
    double[:, ::1] out,                 # OUT    n x r
):
    """out_j = f_j (the sum of S over the variants that miss feature j)."""
    cdef Py_ssize_t r = F.shape[1], v, e, i, j
    out[:, :] = 0.0
    if r == 0:
        return
    with nogil:
        for v in range(S.shape[0]):
            e = lower_bound(missing, first[v], first[v + 1], start)
            while e < first[v + 1] and missing[e] < start + F.shape[0]:  # others are of other pieces of the leaf group
                j = missing[e] - start
                for i in range(r):
                    out[j, i] += inner_product(r, &S[v, i, 0], &F[j, 0])
                e = e + 1
