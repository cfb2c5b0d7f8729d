# What is done with a tile: consecutive rows of a block, few enough that what is made of them is still in the cache
# when the next step wants it. A block's leaf groups share the first ``shared`` of their r factors: products with these
# take the tile at once, products with the others a leaf group at a time (a segment: its rows in the tile). So many
# small groups are nearly as fast as a few large ones. Data may be in single precision; a tile of them is widened once,
# and all products are in double precision: their rounding is divided by uniquenesses, which may be very small.

from libc.stdlib cimport free, malloc

from mlfm._kernels._blas cimport FEW, SMALL, blas_int, gemm, gemv, narrow, sqrt, syrk

ctypedef fused real:
    float
    double


cdef struct Block:
    # A run of k leaf groups, or a piece of one: n rows, N columns of data.
    Py_ssize_t n
    Py_ssize_t k
    blas_int r
    blas_int shared
    blas_int N
    const Py_ssize_t *offsets


cdef struct Room:
    # Scratch for one tile of at most ``rows`` rows.
    double *scaled      # rows x r
    double *moments     # rows x r
    double *products    # shared x shared, then k x (r - shared) x shared
    double *square      # r x r
    double *data        # rows x N, of data in single precision


cdef inline const double *matrix(const double[:, ::1] X) noexcept nogil:
    """Where a matrix begins; NULL where it is empty."""
    return &X[0, 0] if X.shape[0] > 0 and X.shape[1] > 0 else NULL


cdef inline const double *stack(const double[:, :, ::1] X) noexcept nogil:
    """Where a stack of matrices begins; NULL where it is empty."""
    return &X[0, 0, 0] if X.shape[0] > 0 and X.shape[1] > 0 and X.shape[2] > 0 else NULL


cdef inline Block block_of(
    const double[:, ::1] F, const Py_ssize_t[::1] offsets, Py_ssize_t shared, Py_ssize_t N,
) except *:
    cdef Block block
    block.n, block.k, block.offsets = F.shape[0], offsets.shape[0] - 1, &offsets[0]
    block.r, block.shared, block.N = narrow(F.shape[1]), narrow(shared), narrow(N)
    return block


cdef inline void close_room(Room *room) noexcept nogil:
    free(room.scaled)
    free(room.moments)
    free(room.products)
    free(room.square)
    free(room.data)


cdef inline int open_room(Room *room, Block *block, Py_ssize_t rows, bint single) except -1:
    """Make room for tiles of ``rows`` rows; to be closed."""
    cdef size_t r = block.r, inner = block.r - block.shared
    if rows < 1:
        raise ValueError("a tile has at least one row")
    rows = min(rows, block.n)
    room.scaled = <double *> malloc((<size_t> rows * r + 1) * sizeof(double))
    room.moments = <double *> malloc((<size_t> rows * r + 1) * sizeof(double))
    room.products = <double *> malloc(
        ((block.shared + <size_t> block.k * inner) * block.shared + 1) * sizeof(double)
    )
    room.square = <double *> malloc((r * r + 1) * sizeof(double))
    room.data = <double *> malloc(((<size_t> rows * block.N if single else 0) + 1) * sizeof(double))
    if (room.scaled == NULL or room.moments == NULL or room.products == NULL or room.square == NULL
            or room.data == NULL):
        close_room(room)
        raise MemoryError
    return 0


cdef inline const double *tile_of(
    Block *block, Py_ssize_t a, Py_ssize_t b, const real *Y, Room *room,
) noexcept nogil:
    """Rows a to b of the block's data, in double precision."""
    cdef Py_ssize_t i
    if real is double:
        return Y + a * block.N
    else:
        for i in range((b - a) * block.N):
            room.data[i] = Y[a * block.N + i]
        return room.data


cdef inline Py_ssize_t leaf_of(const Py_ssize_t *offsets, Py_ssize_t g, Py_ssize_t row) noexcept nogil:
    """The leaf group of a row, g or a later one."""
    while offsets[g + 1] <= row:
        g += 1
    return g


cdef inline double inner_product(Py_ssize_t r, const double *x, const double *y) noexcept nogil:
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


cdef inline void add_products(
    Block *block, Py_ssize_t a, Py_ssize_t b, const double *F, const double *tile, double *B_shared, double *B_inner,
) noexcept nogil:
    """What rows a to b add to B = F'Y; but for the tile of Y, pointers are the block's."""
    cdef blas_int r = block.r, shared = block.shared, inner = block.r - block.shared
    cdef Py_ssize_t g = leaf_of(block.offsets, 0, a), s, e
    add_product(<blas_int> (b - a), shared, block.N, F + a * r, r, tile, B_shared)
    if inner == 0:
        return
    s = a
    while s < b:
        g = leaf_of(block.offsets, g, s)
        e = min(b, block.offsets[g + 1])
        add_product(<blas_int> (e - s), inner, block.N, F + s * r + shared, r, tile + (s - a) * block.N,
                    B_inner + g * inner * block.N)
        s = e


cdef inline void add_product(
    blas_int rows, blas_int columns, blas_int N, const double *F, blas_int r, const double *Y, double *B,
) noexcept nogil:
    """B += F'Y, F rows x columns of r, Y rows x N."""
    cdef Py_ssize_t i, j
    if N > 1:
        gemm(True, False, columns, N, rows, 1.0, F, r, Y, N, 1.0, B, N)
    elif rows > SMALL and columns > FEW:
        gemv(True, rows, columns, 1.0, F, r, Y, B)
    else:
        for i in range(rows):
            for j in range(columns):
                B[j] += Y[i] * F[i * r + j]


cdef inline void add_factors(
    Block *block, Py_ssize_t a, Py_ssize_t b, const double *F, double sign, const double *Z_shared,
    const double *Z_inner, double *tile,
) noexcept nogil:
    """tile += sign F Z, rows a to b; but for the tile, pointers are the block's."""
    cdef blas_int r = block.r, shared = block.shared, inner = block.r - block.shared
    cdef Py_ssize_t g = leaf_of(block.offsets, 0, a), s, e
    add_factor(<blas_int> (b - a), shared, block.N, F + a * r, r, sign, Z_shared, tile)
    if inner == 0:
        return
    s = a
    while s < b:
        g = leaf_of(block.offsets, g, s)
        e = min(b, block.offsets[g + 1])
        add_factor(<blas_int> (e - s), inner, block.N, F + s * r + shared, r, sign, Z_inner + g * inner * block.N,
                   tile + (s - a) * block.N)
        s = e


cdef inline void add_factor(
    blas_int rows, blas_int columns, blas_int N, const double *F, blas_int r, double sign, const double *Z, double *Y,
) noexcept nogil:
    """Y += sign F Z, F rows x columns of r, Z columns x N."""
    cdef Py_ssize_t i
    if N > 1:
        gemm(False, False, rows, N, columns, sign, F, r, Z, N, 1.0, Y, N)
    elif rows > SMALL and columns > FEW:
        gemv(False, rows, columns, sign, F, r, Z, Y)
    else:
        for i in range(rows):
            Y[i] += sign * inner_product(columns, F + i * r, Z)


cdef inline void add_moments(
    Block *block, Py_ssize_t a, Py_ssize_t b, const double *F, const double *D, const double *tile, Room *room,
    double *C, double *B_shared, double *B_inner,
) noexcept nogil:
    """What rows a to b add to C_g = F_g'D^-1 F_g (lower triangles) and B = F'D^-1 Y; but for the tile of Y, pointers
    are the block's.
    """
    cdef blas_int r = block.r
    cdef Py_ssize_t g = leaf_of(block.offsets, 0, a), i, j, s, e
    cdef double scale, beta
    cdef double *X = room.scaled
    for i in range(a, b):
        scale = 1.0 / sqrt(D[i])
        for j in range(r):
            X[(i - a) * r + j] = scale * F[i * r + j]
    s = a
    while s < b:
        g = leaf_of(block.offsets, g, s)
        e = min(b, block.offsets[g + 1])
        beta = 0.0 if s == block.offsets[g] else 1.0
        syrk(True, r, <blas_int> (e - s), 1.0, X + (s - a) * r, r, beta, C + g * r * r, r)
        s = e
    if block.N == 0:
        return
    for i in range(b - a):
        scale = 1.0 / sqrt(D[a + i])
        for j in range(i * r, (i + 1) * r):
            X[j] *= scale
    add_products(block, a, b, X - a * r, tile, B_shared, B_inner)


cdef inline void square_factors(
    Block *block, const double *Z_shared, const double *Z_inner, Room *room,
) noexcept nogil:
    """Products of the posterior means with those of the shared factors, ready for ``second_moments``."""
    cdef blas_int shared = block.shared, N = block.N
    cdef blas_int others = <blas_int> (block.k * (block.r - shared))
    if shared == 0:
        return
    syrk(False, shared, N, 1.0, Z_shared, N, 0.0, room.products, shared)
    gemm(False, True, others, shared, N, 1.0, Z_inner, N, Z_shared, N, 0.0, room.products + shared * shared, shared)


cdef inline void cross_moments(
    Block *block, Py_ssize_t a, Py_ssize_t b, const double *tile, const double *Z_shared, const double *Z_inner,
    double *V,
) noexcept nogil:
    """V = Y Z' of rows a to b; V and the tile of Y begin with row a."""
    cdef blas_int r = block.r, shared = block.shared, inner = block.r - block.shared, N = block.N
    cdef Py_ssize_t g = leaf_of(block.offsets, 0, a), s, e
    if shared > 0:
        gemm(False, True, <blas_int> (b - a), shared, N, 1.0, tile, N, Z_shared, N, 0.0, V, r)
    s = a
    while s < b and inner > 0:
        g = leaf_of(block.offsets, g, s)
        e = min(b, block.offsets[g + 1])
        gemm(False, True, <blas_int> (e - s), inner, N, 1.0, tile + (s - a) * N, N, Z_inner + g * inner * N, N, 0.0,
             V + (s - a) * r + shared, r)
        s = e


cdef inline void second_moments(
    Block *block, Py_ssize_t g, const double *P, const double *Z_inner, double nobs, Room *room, double *W,
) noexcept nogil:
    """W = nobs P + Z Z' of leaf group g, lower triangle: expected sums of squares of the factors given the data.

    The data may have been replaced by a triangular factor, so nobs is not the number of columns of Z.
    """
    cdef blas_int r = block.r, shared = block.shared, inner = block.r - block.shared
    cdef Py_ssize_t i, j
    cdef const double *own = room.products
    cdef const double *mixed = room.products + shared * shared + g * inner * shared
    P = P + g * r * r
    for i in range(r):
        for j in range(i + 1):
            W[i * r + j] = nobs * P[i * r + j]
    for i in range(shared):
        for j in range(i + 1):
            W[i * r + j] += own[i * shared + j]
    for i in range(inner):
        for j in range(shared):
            W[(shared + i) * r + j] += mixed[i * shared + j]
    syrk(False, inner, block.N, 1.0, Z_inner + g * inner * block.N, block.N, 1.0, W + shared * (r + 1), r)


cdef inline void row_products(
    Py_ssize_t rows, Py_ssize_t r, const double *x, const double *y, double *out,
) noexcept nogil:
    """out_i = x_i y_i', row by row."""
    cdef Py_ssize_t i
    for i in range(rows):
        out[i] = inner_product(r, x + i * r, y + i * r)


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
        dD[i] = 0.5 * share * ((squares[i] - dD[i] - inner_product(r, F + i * r, V + i * r)) / D[i] - nobs) / D[i]


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
