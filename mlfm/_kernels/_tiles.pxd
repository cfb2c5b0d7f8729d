# What is done with a tile: consecutive rows of one leaf group, few enough that what is made of them is still in the
# cache when the next step wants it. Data may be in single precision: then the products with them are too, a tile at
# a time, while sums over tiles and everything small are in double precision.

from libc.stdlib cimport free, malloc

from mlfm._kernels._blas cimport blas_int, gemm, gemm_single, syrk

cdef extern from "<math.h>" nogil:
    double sqrt(double)

ctypedef fused real:
    float
    double


cdef struct Room:
    # Scratch for one tile of at most ``rows`` rows.
    double *scaled      # rows x r
    double *moments     # rows x r
    float *single       # rows x r; these three are there for single precision only
    float *factors      # r x N
    float *sums         # r x N


cdef inline bint open_room(Room *room, Py_ssize_t rows, Py_ssize_t r, Py_ssize_t N, bint single) noexcept nogil:
    """False when there is no memory."""
    cdef size_t tile = <size_t> rows * r + 1, wide = (<size_t> r * N if single else 0) + 1
    room.scaled = <double *> malloc(tile * sizeof(double))
    room.moments = <double *> malloc(tile * sizeof(double))
    room.single = <float *> malloc(tile * sizeof(float))
    room.factors = <float *> malloc(wide * sizeof(float))
    room.sums = <float *> malloc(wide * sizeof(float))
    return (room.scaled != NULL and room.moments != NULL and room.single != NULL and room.factors != NULL
            and room.sums != NULL)


cdef inline void close_room(Room *room) noexcept nogil:
    free(room.scaled)
    free(room.moments)
    free(room.single)
    free(room.factors)
    free(room.sums)


cdef inline void add_moments(
    blas_int rows, blas_int r, blas_int N, const double *F, const double *D, const real *Y, double beta, Room *room,
    double *C, double *B,
) noexcept nogil:
    """Lower triangle of C = F'D^-1 F + beta C, and B = F'D^-1 Y + beta B."""
    cdef Py_ssize_t i, j
    cdef double scale
    cdef double *X = room.scaled
    for i in range(rows):
        scale = 1.0 / sqrt(D[i])
        for j in range(r):
            X[i * r + j] = scale * F[i * r + j]
    syrk(True, r, rows, 1.0, X, r, beta, C, r)
    if N == 0:
        return
    for i in range(rows):
        scale = 1.0 / sqrt(D[i])
        for j in range(r):
            X[i * r + j] *= scale
    if real is double:
        gemm(True, False, r, N, rows, 1.0, X, r, Y, N, beta, B, N)
    else:
        for i in range(<Py_ssize_t> rows * r):
            room.single[i] = <float> X[i]
        gemm_single(True, False, r, N, rows, 1.0, room.single, r, Y, N, 0.0, room.sums, N)
        if beta == 0.0:
            for i in range(<Py_ssize_t> r * N):
                B[i] = room.sums[i]
        else:
            for i in range(<Py_ssize_t> r * N):
                B[i] = beta * B[i] + room.sums[i]


cdef inline void take_factors(blas_int r, blas_int N, const double *Z, const real *Y, Room *room) noexcept nogil:
    """Make a leaf group's posterior means ready for ``cross_moments``; Y tells the precision, and is not read."""
    cdef Py_ssize_t i
    if real is float:
        for i in range(<Py_ssize_t> r * N):
            room.factors[i] = <float> Z[i]


cdef inline void cross_moments(
    blas_int rows, blas_int r, blas_int N, const real *Y, const double *Z, Room *room, double *V,
) noexcept nogil:
    """V = Y Z', after ``take_factors``."""
    cdef Py_ssize_t i
    if real is double:
        gemm(False, True, rows, r, N, 1.0, Y, N, Z, N, 0.0, V, r)
    else:
        gemm_single(False, True, rows, r, N, 1.0, Y, N, room.factors, N, 0.0, room.single, r)
        for i in range(<Py_ssize_t> rows * r):
            V[i] = room.single[i]


cdef inline void second_moments(
    blas_int r, blas_int N, const double *P, const double *Z, double nobs, double *W,
) noexcept nogil:
    """Lower triangle of W = nobs P + Z Z': expected sums of squares of the factors given the data.

    The data may have been replaced by a triangular factor, so nobs is not the number of columns of Z.
    """
    cdef Py_ssize_t i, j
    for i in range(r):
        for j in range(i + 1):
            W[i * r + j] = nobs * P[i * r + j]
    if N > 0:
        syrk(False, r, N, 1.0, Z, N, 1.0, W, r)


cdef inline double inner(Py_ssize_t r, const double *x, const double *y) noexcept nogil:
    """x'y of a short row; four sums at once, as one alone would wait for each addition."""
    cdef Py_ssize_t j
    cdef double s = 0.0, t = 0.0, u = 0.0, v = 0.0
    for j in range(0, r - 3, 4):
        s = s + x[j] * y[j]
        t = t + x[j + 1] * y[j + 1]
        u = u + x[j + 2] * y[j + 2]
        v = v + x[j + 3] * y[j + 3]
    for j in range(r - r % 4, r):
        s = s + x[j] * y[j]
    return (s + t) + (u + v)


cdef inline void row_products(
    Py_ssize_t rows, Py_ssize_t r, const double *x, const double *y, double *out,
) noexcept nogil:
    """out_i = x_i y_i', row by row."""
    cdef Py_ssize_t i
    for i in range(rows):
        out[i] = inner(r, x + i * r, y + i * r)


cdef inline void gradient_rows(
    blas_int rows, blas_int r, const double *F, const double *D, double *V, const double *W, const double *squares,
    double nobs, double share, double *dF, double *dD,
) noexcept nogil:
    """``share`` of dl/dF = D^-1 (V - F W) and dl/dD_j = ((||y_j||^2 - F_j (2 V_j - F_j W)') / D_j - nobs) / (2 D_j).

    V is overwritten.
    """
    cdef Py_ssize_t i, j
    cdef double scale
    row_products(rows, r, F, V, dD)
    gemm(False, False, rows, r, r, -1.0, F, r, W, r, 1.0, V, r)
    for i in range(rows):
        scale = share / D[i]
        for j in range(i * r, (i + 1) * r):
            dF[j] = V[j] * scale
        dD[i] = 0.5 * share * ((squares[i] - dD[i] - inner(r, F + i * r, V + i * r)) / D[i] - nobs) / D[i]


cdef inline void scale_rows(
    Py_ssize_t rows, Py_ssize_t r, const double *weights, const double *X, double *out,
) noexcept nogil:
    """out_i = weights_i X_i."""
    cdef Py_ssize_t i, j
    cdef double weight
    for i in range(rows):
        weight = weights[i]
        for j in range(i * r, (i + 1) * r):
            out[j] = weight * X[j]
