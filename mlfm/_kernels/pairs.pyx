"""Pairs of quasi-Newton memory: inner products and linear combinations with arrays shaped like the loadings.

A stack holds k arrays of n x r in single precision; of a block of features each array's rows are contiguous. ``slots``
names the arrays of the stack that take part, in order. Sums are in double precision.
"""

from mlfm._kernels._blas cimport axpy, dot

# Entries handled at once, so that they stay in the fastest cache while they are in use.
cdef enum:
    CHUNK = 1024


cdef inline int check(const float[:, :, :] stack) except -1:
    """Each array's rows must be contiguous; the arrays themselves may lie apart."""
    if stack.strides[2] != sizeof(float) or stack.strides[1] != stack.shape[2] * <Py_ssize_t> sizeof(float):
        raise ValueError("the arrays of a stack must be C-contiguous")
    return 0


cdef inline void widen(Py_ssize_t length, const float *x, double *out) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(length):
        out[j] = x[j]


cdef inline void difference(
    Py_ssize_t length, const double *x, const double *y, float *kept, double *out,
) noexcept nogil:
    """x - y as it is kept, and what that is in double precision."""
    cdef Py_ssize_t j
    for j in range(length):
        kept[j] = <float> (x[j] - y[j])
    widen(length, kept, out)


def inner_products(
    const float[:, :, :] stack,         # IN   k x n x r
    const Py_ssize_t[::1] slots,        # IN   q
    const double[:, ::1] x,             # IN   n x r
    double[::1] out,                    # OUT  q
):
    """out_i = sum(stack[slots_i] * x)."""
    cdef Py_ssize_t i, chunk, start, length, size = x.shape[0] * x.shape[1]
    cdef double wide[CHUNK]
    check(stack)
    with nogil:
        for i in range(slots.shape[0]):
            out[i] = 0.0
        for chunk in range((size + CHUNK - 1) // CHUNK):
            start = chunk * CHUNK
            length = min(CHUNK, size - start)
            for i in range(slots.shape[0]):
                widen(length, &stack[slots[i], 0, 0] + start, wide)
                out[i] += dot(length, wide, &x[0, 0] + start)


def add_combination(
    const float[:, :, :] stack,         # IN     k x n x r
    const Py_ssize_t[::1] slots,        # IN     q
    const double[::1] weights,          # IN     q
    double[:, ::1] x,                   # INOUT  n x r
):
    """x += sum_i weights_i stack[slots_i]."""
    cdef Py_ssize_t i, chunk, start, length, size = x.shape[0] * x.shape[1]
    cdef double wide[CHUNK]
    check(stack)
    with nogil:
        for chunk in range((size + CHUNK - 1) // CHUNK):
            start = chunk * CHUNK
            length = min(CHUNK, size - start)
            for i in range(slots.shape[0]):
                widen(length, &stack[slots[i], 0, 0] + start, wide)
                axpy(length, weights[i], wide, &x[0, 0] + start)


def record_pair(
    const double[:, ::1] F,             # IN     n x r
    const double[:, ::1] F_before,      # IN     n x r
    const double[:, ::1] g,             # IN     n x r
    const double[:, ::1] g_before,      # IN     n x r
    const float[:, :, :] stack,         # IN     k x n x r, steps of older pairs
    const Py_ssize_t[::1] slots,        # IN     q
    float[:, ::1] s,                    # OUT    n x r, F - F_before
    float[:, ::1] y,                    # OUT    n x r, g_before - g
    double[::1] with_older,             # OUT    q, sums of the older steps times g
    double[::1] own,                    # OUT    6, sums of s s, s y, y y, s g, y g, g g
):
    """A new pair, and the inner products that it brings: of s and y as they are kept, in single precision."""
    cdef Py_ssize_t i, chunk, start, length, size = F.shape[0] * F.shape[1]
    cdef double step[CHUNK]
    cdef double fall[CHUNK]
    cdef double wide[CHUNK]
    cdef const double *now
    check(stack)
    with nogil:
        for i in range(slots.shape[0]):
            with_older[i] = 0.0
        for i in range(6):
            own[i] = 0.0
        for chunk in range((size + CHUNK - 1) // CHUNK):
            start = chunk * CHUNK
            length = min(CHUNK, size - start)
            now = &g[0, 0] + start
            difference(length, &F[0, 0] + start, &F_before[0, 0] + start, &s[0, 0] + start, step)
            difference(length, &g_before[0, 0] + start, now, &y[0, 0] + start, fall)
            own[0] += dot(length, step, step)
            own[1] += dot(length, step, fall)
            own[2] += dot(length, fall, fall)
            own[3] += dot(length, step, now)
            own[4] += dot(length, fall, now)
            own[5] += dot(length, now, now)
            for i in range(slots.shape[0]):
                widen(length, &stack[slots[i], 0, 0] + start, wide)
                with_older[i] += dot(length, wide, now)
