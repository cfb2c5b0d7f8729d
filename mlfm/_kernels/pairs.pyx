"""Stacks of vectors shaped like the loadings: inner products and linear combinations, a block of features at a time.

A stack holds k arrays of n x r; of a block of features each array's rows are contiguous. ``slots`` names the arrays
of the stack that take part, in order.
"""

from mlfm._kernels._blas cimport axpy, dot, narrow

# Entries handled at once, so that the sum stays in the cache while it is made.
cdef enum:
    CHUNK = 8192


cdef inline void check(const double[:, :, :] stack) except *:
    """Each array's rows must be contiguous; the arrays themselves may lie apart."""
    if stack.strides[2] != sizeof(double) or stack.strides[1] != stack.shape[2] * <Py_ssize_t> sizeof(double):
        raise ValueError("the arrays of a stack must be C-contiguous")


def inner_products(
    const double[:, :, :] stack,        # IN   k x n x r
    const Py_ssize_t[::1] slots,        # IN   q
    const double[:, ::1] x,             # IN   n x r
    double[::1] out,                    # OUT  q
):
    """out_i = sum(stack[slots_i] * x)."""
    cdef Py_ssize_t i, size = x.shape[0] * x.shape[1]
    check(stack)
    narrow(size)
    with nogil:
        for i in range(slots.shape[0]):
            out[i] = dot(size, &stack[slots[i], 0, 0], &x[0, 0]) if size > 0 else 0.0


def add_combination(
    const double[:, :, :] stack,        # IN     k x n x r
    const Py_ssize_t[::1] slots,        # IN     q
    const double[::1] weights,          # IN     q
    double[:, ::1] x,                   # INOUT  n x r
):
    """x += sum_i weights_i stack[slots_i]."""
    cdef Py_ssize_t i, start, length, size = x.shape[0] * x.shape[1]
    cdef double *target
    check(stack)
    narrow(size)
    if size == 0:
        return
    with nogil:
        target = &x[0, 0]
        start = 0
        while start < size:
            length = min(CHUNK, size - start)
            for i in range(slots.shape[0]):
                axpy(length, weights[i], &stack[slots[i], 0, 0] + start, target + start)
            start += length
