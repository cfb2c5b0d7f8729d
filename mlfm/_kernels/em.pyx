"""The EM steps: from the posterior of the factors to new loadings and uniquenesses, and on to the next sweep's moments.

One pass over the data: a tile's V is turned into its new loadings, and these into its part of the next C and B, while
its rows of Y are in the cache (PHB, section 3; parameter expansion: Liu, Rubin and Wu 1998).
"""

from mlfm._kernels._blas cimport blas_int, cholesky, invert_lower, narrow, times_lower
from mlfm._kernels._tiles cimport (
    Block, Room, add_moments, block_of, close_room, cross_moments, leaf_of, matrix, open_room, real, row_products,
    second_moments, sqrt, square_factors, stack, tile_of,
)

# From X = V L^-T, W = L L', to new loadings, in place, with the inverse of L at hand.
ctypedef void (*Finish)(blas_int rows, blas_int r, double nobs, const double *inverse, double *X) noexcept nogil


cdef void expanded(blas_int rows, blas_int r, double nobs, const double *inverse, double *X) noexcept nogil:
    """With factors of covariance L L'/nobs the step is V W^-1 L / sqrt(nobs) = X / sqrt(nobs)."""
    cdef Py_ssize_t i
    cdef double scale = 1.0 / sqrt(nobs)
    for i in range(<Py_ssize_t> rows * r):
        X[i] *= scale


cdef void plain(blas_int rows, blas_int r, double nobs, const double *inverse, double *X) noexcept nogil:
    """V W^-1 = X L^-1."""
    times_lower(False, rows, r, inverse, r, X, r)


cdef inline bint whitening(blas_int r, double *W) noexcept nogil:
    """Lower triangle of W <- the inverse of its Cholesky factor L; False where W is not positive definite."""
    return cholesky(r, W, r) == 0 and invert_lower(r, W, r) == 0


cdef inline void update(
    blas_int rows, blas_int r, const double *inverse, const double *squares, double nobs, const double *floor,
    Finish finish, double *F, double *D,
) noexcept nogil:
    """F, which holds V, <- new loadings, and D_j = (||y_j||^2 - v_j W^-1 v_j') / nobs, held above the floor.

    F_j V_j' of the EM step F = V W^-1 is the squared length of a row of X = V L^-T.
    """
    cdef Py_ssize_t j
    cdef double d
    times_lower(True, rows, r, inverse, r, F, r)
    row_products(rows, r, F, F, D)
    for j in range(rows):
        d = (squares[j] - D[j]) / nobs
        D[j] = d if d > floor[j] else floor[j]
    finish(rows, r, nobs, inverse, F)


cdef int sweep_tiles(
    const real[:, ::1] Y, const double[:, ::1] Z_shared, const double[:, :, ::1] Z_inner,
    const double[:, :, ::1] P, const double[::1] squares, double nobs, const double[::1] floor,
    const Py_ssize_t[::1] offsets, Py_ssize_t tile, Finish finish,
    double[:, ::1] F, double[::1] D, double[:, :, ::1] C, double[:, ::1] B_shared, double[:, :, ::1] B_inner,
) except -1:
    cdef Block block = block_of(F, offsets, Z_shared.shape[0], Y.shape[1])
    cdef Room room
    cdef Py_ssize_t a, b, s, e, g
    cdef blas_int r = block.r
    cdef bint singular = False
    cdef const double *rows = NULL
    if r == 0:
        for a in range(D.shape[0]):
            D[a] = max(squares[a] / nobs, floor[a])
        return 0
    open_room(&room, &block, tile, real is float)
    with nogil:
        square_factors(&block, matrix(Z_shared), stack(Z_inner), &room)
        a, g = 0, -1
        while a < block.n and not singular:
            b = min(a + tile, block.n)
            rows = tile_of(&block, a, b, &Y[0, 0], &room)
            cross_moments(&block, a, b, rows, matrix(Z_shared), stack(Z_inner), &F[a, 0])
            s = a
            while s < b:
                if g < 0 or offsets[g + 1] <= s:
                    g = leaf_of(&offsets[0], g + 1, s)
                    second_moments(&block, g, stack(P), stack(Z_inner), nobs, &room, room.square)
                    if not whitening(r, room.square):
                        singular = True
                        break
                e = min(b, offsets[g + 1])
                update(<blas_int> (e - s), r, room.square, &squares[s], nobs, &floor[s], finish, &F[s, 0], &D[s])
                s = e
            if not singular:
                add_moments(&block, a, b, matrix(F), &D[0], rows, &room, <double *> stack(C),
                            <double *> matrix(B_shared), <double *> stack(B_inner))
            a = b
    close_room(&room)
    if singular:
        raise FloatingPointError("the second moments of the factors are not positive definite")
    return 0


def em_pass(
    const real[:, ::1] Y,               # IN   n x N
    const double[:, ::1] Z_shared,      # IN   shared x N, posterior means of the factors that all groups share
    const double[:, :, ::1] Z_inner,    # IN   k x (r - shared) x N, of the others
    const double[:, :, ::1] P,          # IN   k x r x r
    const double[::1] squares,          # IN   n, sum of squares of every feature
    double nobs,                        # IN
    const double[::1] floor,            # IN   n
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    Py_ssize_t tile,                    # IN   rows handled at once
    double[:, ::1] F,                   # OUT  n x r
    double[::1] D,                      # OUT  n
    double[:, :, ::1] C,                # OUT  k x r x r, lower triangles
    double[:, ::1] B_shared,            # INOUT  shared x N, zeros at first
    double[:, :, ::1] B_inner,          # INOUT  k x (r - shared) x N, zeros at first
):
    """The EM step F_g = V_g W_g^-1, D_j = (||y_j||^2 - F_j V_j') / nobs, and C and B at the new F and D."""
    sweep_tiles(Y, Z_shared, Z_inner, P, squares, nobs, floor, offsets, tile, plain, F, D, C, B_shared, B_inner)


def px_em_pass(
    const real[:, ::1] Y,               # IN   n x N
    const double[:, ::1] Z_shared,      # IN   shared x N, posterior means of the factors that all groups share
    const double[:, :, ::1] Z_inner,    # IN   k x (r - shared) x N, of the others
    const double[:, :, ::1] P,          # IN   k x r x r
    const double[::1] squares,          # IN   n, sum of squares of every feature
    double nobs,                        # IN
    const double[::1] floor,            # IN   n
    const Py_ssize_t[::1] offsets,      # IN   k + 1
    Py_ssize_t tile,                    # IN   rows handled at once
    double[:, ::1] F,                   # OUT  n x r
    double[::1] D,                      # OUT  n
    double[:, :, ::1] C,                # OUT  k x r x r, lower triangles
    double[:, ::1] B_shared,            # INOUT  shared x N, zeros at first
    double[:, :, ::1] B_inner,          # INOUT  k x (r - shared) x N, zeros at first
):
    """The parameter-expanded EM step, and C and B at the new F and D.

    With W = L L' (lower, coarse to fine) the expanded model's factors have covariance L L' / nobs, and the loadings
    are V L^-T / sqrt(nobs). D is the EM step's.
    """
    sweep_tiles(Y, Z_shared, Z_inner, P, squares, nobs, floor, offsets, tile, expanded, F, D, C, B_shared, B_inner)


cdef int update_groups(
    double[:, :, ::1] W, const double[::1] squares, double nobs, const double[::1] floor,
    const Py_ssize_t[::1] offsets, Finish finish, double[:, ::1] F, double[::1] D,
) except -1:
    cdef blas_int r = narrow(F.shape[1])
    cdef Py_ssize_t g, a
    cdef bint singular = False
    if r == 0:
        for a in range(D.shape[0]):
            D[a] = max(squares[a] / nobs, floor[a])
        return 0
    with nogil:
        for g in range(offsets.shape[0] - 1):
            a = offsets[g]
            if not whitening(r, &W[g, 0, 0]):
                singular = True
                break
            if offsets[g + 1] > a:
                update(<blas_int> (offsets[g + 1] - a), r, &W[g, 0, 0], &squares[a], nobs, &floor[a], finish,
                       &F[a, 0], &D[a])
    if singular:
        raise FloatingPointError("the second moments of the factors are not positive definite")
    return 0


def em_update(
    double[:, :, ::1] W,                # IN     k x r x r; overwritten
    const double[::1] squares,          # IN     n, sum of squares of every feature
    double nobs,                        # IN
    const double[::1] floor,            # IN     n
    const Py_ssize_t[::1] offsets,      # IN     k + 1
    double[:, ::1] F,                   # INOUT  n x r: V, then the new loadings
    double[::1] D,                      # OUT    n
):
    """The EM step alone, from moments at hand."""
    update_groups(W, squares, nobs, floor, offsets, plain, F, D)


def px_em_update(
    double[:, :, ::1] W,                # IN     k x r x r; overwritten
    const double[::1] squares,          # IN     n, sum of squares of every feature
    double nobs,                        # IN
    const double[::1] floor,            # IN     n
    const Py_ssize_t[::1] offsets,      # IN     k + 1
    double[:, ::1] F,                   # INOUT  n x r: V, then the new loadings
    double[::1] D,                      # OUT    n
):
    """The parameter-expanded EM step alone, from moments at hand."""
    update_groups(W, squares, nobs, floor, offsets, expanded, F, D)
