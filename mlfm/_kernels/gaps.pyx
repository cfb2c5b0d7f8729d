"""What a block of features does where values are missing.

Missing values are zeros in the data. Columns of the data may be observations or rows of a triangular factor of those
that miss the same features; ``gap`` lists, feature by feature, the columns where it is missing. A leaf group has a
variant for every set of its features that some observations miss; ``missing`` lists these, variant by variant.
"""

from libc.stdlib cimport free, malloc
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


def gap_moments(
    const double[:, ::1] F,             # IN   n x r
    const double[:, ::1] Z_shared,      # IN   shared x N, posterior means of the factors that all groups share
    const double[:, :, ::1] Z_inner,    # IN   k x (r - shared) x N, of the others
    const double[:, :, ::1] S,          # IN   v x r x r, posterior covariances, summed over each variant's observations
    const double[:, ::1] X,             # IN   N x q, design
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    const Py_ssize_t[::1] first_variant,  # IN n + 1
    const Py_ssize_t[::1] variant,      # IN   variants, feature by feature, that miss it
    const Py_ssize_t[::1] first_gap,    # IN   n + 1
    const Py_ssize_t[::1] gap,          # IN   columns, feature by feature, where it is missing
    double[:, ::1] M,                   # OUT  n x r
    double[:, ::1] MX,                  # OUT  n x q
):
    """What a feature's missing values are expected to be worth: M_j = f_j (sum of S and z z' where it is missing),
    and MX_j = the sum of f_j z x' there.
    """
    cdef Py_ssize_t r = F.shape[1], shared = Z_shared.shape[0], q = X.shape[1], g = 0, j, e, i, t
    cdef double value
    cdef double *z
    M[:, :] = 0.0
    MX[:, :] = 0.0
    if r == 0 or gap.shape[0] == 0:
        return
    z = <double *> malloc(<size_t> r * sizeof(double))
    if z == NULL:
        raise MemoryError
    with nogil:
        for j in range(F.shape[0]):
            if first_gap[j] == first_gap[j + 1]:
                continue
            g = leaf_of(&offsets[0], g, j)
            for e in range(first_variant[j], first_variant[j + 1]):
                for i in range(r):
                    M[j, i] += inner_product(r, &S[variant[e], i, 0], &F[j, 0])
            for e in range(first_gap[j], first_gap[j + 1]):
                t = gap[e]
                for i in range(shared):
                    z[i] = Z_shared[i, t]
                for i in range(r - shared):
                    z[shared + i] = Z_inner[g, i, t]
                value = inner_product(r, &F[j, 0], z)
                for i in range(r):
                    M[j, i] += value * z[i]
                for i in range(q):
                    MX[j, i] += value * X[t, i]
    free(z)
