"""Small leaf groups at their maximum, given the factors above them: see mlfm.estimation.leaf_groups.

Of m features with covariance S a model of o factors, Sigma = L L' + D, has the deviance log det Sigma + tr(Sigma^-1 S).
Over L it is least at the eigenvectors of D^-1/2 S D^-1/2 of the o largest eigenvalues, those above 1. What is left is a
function of x = log D, with derivatives from the same decomposition (Joreskog 1967; Clarke 1970), and Newton's method
needs a few steps. Of m features, m - 1 factors explain everything; more are left at zero.
"""

from libc.math cimport INFINITY, exp, fabs, log
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from mlfm._kernels._blas cimport (
    blas_int, cholesky, dot, eigen_symmetric, gemm, inverse_from_cholesky, mirror_lower, narrow, solve_lower,
    solve_lower_right, sqrt, syrk,
)

cdef enum:
    STEPS = 30  # of Newton's method; from the end of the last time one or two do
    HALVINGS = 20

cdef:
    double LONGEST = 2.0  # step of log D
    double FLATTEST = 1e-7  # curvature that is made use of
    double CLOSE = 1e-10  # Newton decrement from which one more step is the last: they converge quadratically
    double ROUNDING = 1e-14
    double SUFFICIENT = 1e-4  # share of the expected fall that a step must have
    double SHORTER = 0.3
    double LOWER = 1e-9  # deviance by which a fresh start's end counts as lower


cdef struct Bench:
    # One leaf group, the room to work on it, and where it has come to.
    blas_int m, o, k    # features; factors; those that can lower the deviance, less than m
    double penalty      # of the deviance, times the sum of 1 / D
    double *S           # m x m, covariance
    double *lowest      # m, logarithms of the floors
    double *x           # m, logarithms of the uniquenesses
    double *values      # m, eigenvalues of D^-1/2 S D^-1/2, increasing
    double *vectors     # m x m, an eigenvector a row
    double *x_next      # m; with values and vectors of the step that is tried
    double *values_next
    double *vectors_next
    double *x_best      # m; with values and vectors of the better one of two ends
    double *values_best
    double *vectors_best
    double *slope       # m
    double *step        # m
    double *H           # m x m
    double *square      # m x m
    double *scaled      # m x m
    double *work        # 4 m + m^2
    double *all


cdef int open_bench(Bench *bench, Py_ssize_t m) except -1:
    """Room for groups of up to m features."""
    cdef Py_ssize_t squares = 7, lines = 9, k
    cdef double *room = <double *> malloc(<size_t> (squares * m * m + lines * m + 4 * m + m * m + 1) * sizeof(double))
    if room == NULL:
        raise MemoryError
    cdef double **places[7]
    cdef double **rows[9]
    places[:] = [&bench.S, &bench.vectors, &bench.vectors_next, &bench.vectors_best, &bench.H, &bench.square,
                 &bench.scaled]
    rows[:] = [&bench.lowest, &bench.x, &bench.values, &bench.x_next, &bench.values_next, &bench.x_best,
               &bench.values_best, &bench.slope, &bench.step]
    bench.all = room
    for k in range(squares):
        places[k][0] = room + k * m * m
    for k in range(lines):
        rows[k][0] = room + squares * m * m + k * m
    bench.work = room + squares * m * m + lines * m
    return 0


cdef void close_bench(Bench *bench) noexcept nogil:
    free(bench.all)


cdef inline void swap(double **a, double **b) noexcept nogil:
    cdef double *kept = a[0]
    a[0] = b[0]
    b[0] = kept


cdef blas_int n_used(const Bench *bench, const double *values) noexcept nogil:
    """Of the k largest eigenvalues how many are above 1: as many factors lower the deviance."""
    cdef blas_int used = 0
    while used < bench.k and values[bench.m - 1 - used] > 1.0:
        used += 1
    return used


cdef double deviance(Bench *bench, const double *x, double *values, double *vectors) noexcept nogil:
    """The deviance at D = exp(x) and the best loadings there, with the decomposition that they come from."""
    cdef Py_ssize_t m = bench.m, i, j
    cdef blas_int left
    cdef double total = 0.0
    for i in range(m):
        bench.work[i] = exp(-0.5 * x[i])
        total += x[i] + bench.penalty * bench.work[i] * bench.work[i]
    for i in range(m):
        for j in range(i + 1):
            vectors[i * m + j] = bench.S[i * m + j] * bench.work[i] * bench.work[j]
    if eigen_symmetric(bench.m, vectors, bench.m, values, bench.work, <blas_int> (4 * m + m * m)) != 0:
        return INFINITY
    left = bench.m - n_used(bench, values)
    for j in range(m):
        total += values[j] if j < left else 1.0 + log(values[j])
    return total


cdef void slopes(Bench *bench) noexcept nogil:
    """Slope and Hessian of the deviance by x."""
    cdef blas_int m = bench.m, left = bench.m - n_used(bench, bench.values)
    cdef Py_ssize_t i, j, k, n
    cdef double gap
    cdef const double *t = bench.values
    cdef const double *w = bench.vectors
    for i in range(m):
        bench.slope[i] = 0.0
        for j in range(left):
            bench.slope[i] += (1.0 - t[j]) * w[j * m + i] * w[j * m + i]
    # Of pairs of eigenvalues left over, (t_j + t_k) / 2 w_j w_k w_j' w_k'; summed, two products of matrices.
    for j in range(left):
        for i in range(m):
            bench.scaled[j * m + i] = t[j] * w[j * m + i]
    gemm(True, False, m, m, left, 1.0, w, m, w, m, 0.0, bench.square, m)
    gemm(True, False, m, m, left, 1.0, w, m, bench.scaled, m, 0.0, bench.H, m)
    for i in range(<Py_ssize_t> m * m):
        bench.H[i] *= bench.square[i]
    # And of one left over with one that a factor takes.
    for n in range(left, m):
        for j in range(left):
            gap = t[n] - t[j]
            if gap < ROUNDING * t[n]:
                gap = ROUNDING * t[n]
            gap = (1.0 - t[j]) * (t[j] + t[n]) / gap
            for i in range(m):
                bench.scaled[j * m + i] = gap * w[j * m + i]
        gemm(True, False, m, m, left, 1.0, w, m, bench.scaled, m, 0.0, bench.square, m)
        for i in range(m):
            for k in range(m):
                bench.H[i * m + k] += bench.square[i * m + k] * w[n * m + i] * w[n * m + k]
    for i in range(m):
        bench.slope[i] -= bench.penalty * exp(-bench.x[i])
        bench.H[i * m + i] += bench.penalty * exp(-bench.x[i])


cdef double newton_step(Bench *bench) noexcept nogil:
    """The step, none for what is pressed against its floor; the squared Newton decrement."""
    cdef blas_int m = bench.m
    cdef Py_ssize_t i, j
    cdef double total, decrement = 0.0, longest = 0.0
    for i in range(m):
        if bench.x[i] <= bench.lowest[i] + 1e-12 and bench.slope[i] > 0.0:
            bench.slope[i] = 0.0
            for j in range(m):
                bench.H[i * m + j] = bench.H[j * m + i] = 0.0
            bench.H[i * m + i] = 1.0
    memcpy(bench.square, bench.H, <size_t> m * m * sizeof(double))
    for i in range(m):
        bench.step[i] = -bench.slope[i]
    if cholesky(m, bench.square, m) == 0:
        solve_lower(False, m, 1, bench.square, m, bench.step, 1)
        solve_lower(True, m, 1, bench.square, m, bench.step, 1)
    elif eigen_symmetric(m, bench.H, m, bench.square, bench.work, <blas_int> (4 * m + <Py_ssize_t> m * m)) == 0:
        # Where the deviance is concave the step goes down all the same.
        memset(bench.step, 0, <size_t> m * sizeof(double))
        for j in range(m):
            total = -dot(m, bench.H + j * m, bench.slope) / max(fabs(bench.square[j]), FLATTEST)
            for i in range(m):
                bench.step[i] += total * bench.H[j * m + i]
    else:
        return 0.0
    for i in range(m):
        decrement -= bench.step[i] * bench.slope[i]
        longest = max(longest, fabs(bench.step[i]))
    if longest > LONGEST:
        for i in range(m):
            bench.step[i] *= LONGEST / longest
    return decrement


cdef double descend(Bench *bench) noexcept nogil:
    """From x to where the deviance is least near it; the deviance there."""
    cdef blas_int m = bench.m
    cdef Py_ssize_t i, _step, _halving
    cdef double here = deviance(bench, bench.x, bench.values, bench.vectors), there = 0.0, decrement, length, fall
    for _step in range(STEPS):
        slopes(bench)
        decrement = newton_step(bench)
        if not decrement > ROUNDING:
            break
        length = 1.0
        for _halving in range(HALVINGS):
            fall = 0.0
            for i in range(m):
                bench.x_next[i] = max(bench.x[i] + length * bench.step[i], bench.lowest[i])
                fall -= bench.slope[i] * (bench.x_next[i] - bench.x[i])
            there = deviance(bench, bench.x_next, bench.values_next, bench.vectors_next)
            if there <= here - SUFFICIENT * fall + ROUNDING * fabs(here):
                break
            length *= SHORTER
        if not there < here:
            break
        here = there
        swap(&bench.x, &bench.x_next)
        swap(&bench.values, &bench.values_next)
        swap(&bench.vectors, &bench.vectors_next)
        if decrement < CLOSE:
            break
    return here


cdef bint fresh_start(Bench *bench) noexcept nogil:
    """x of Joreskog's start, D = (1 - o / 2m) / diag(S^-1); False where S has no inverse."""
    cdef blas_int m = bench.m
    cdef Py_ssize_t i
    cdef double share = 1.0 - 0.5 * bench.k / bench.m
    memcpy(bench.square, bench.S, <size_t> m * m * sizeof(double))
    if cholesky(m, bench.square, m) != 0 or inverse_from_cholesky(m, bench.square, m) != 0:
        return False
    for i in range(m):
        bench.x[i] = max(log(share / bench.square[i * m + i]), bench.lowest[i])
    return True


cdef double deviance_of(Bench *bench, const double *L, Py_ssize_t stride, const double *D) noexcept nogil:
    """The deviance at any loadings, o to a row of ``stride``."""
    cdef blas_int m = bench.m
    cdef Py_ssize_t i
    cdef double total = 0.0
    gemm(False, True, m, m, bench.o, 1.0, L, <blas_int> stride, L, <blas_int> stride, 0.0, bench.square, m)
    for i in range(m):
        bench.square[i * m + i] += D[i]
        total += bench.penalty / D[i]
    if cholesky(m, bench.square, m) != 0:
        return INFINITY
    for i in range(m):
        total += 2.0 * log(bench.square[i * m + i])
    if inverse_from_cholesky(m, bench.square, m) != 0:
        return INFINITY
    mirror_lower(m, bench.square, m)
    return total + dot(<Py_ssize_t> m * m, bench.square, bench.S)


cdef bint matched(Bench *bench, double *M, double *turn) noexcept nogil:
    """The decomposition of M M'; False where M, of k rows and o columns, lacks a direction."""
    cdef blas_int k = bench.k, size = <blas_int> (4 * bench.m + <Py_ssize_t> bench.m * bench.m)
    gemm(False, True, k, k, bench.o, 1.0, M, bench.o, M, bench.o, 0.0, turn, k)
    return (
        eigen_symmetric(k, turn, k, bench.values_next, bench.work, size) == 0
        and bench.values_next[0] > 1e-10 * bench.values_next[k - 1]
    )


cdef void turned(Bench *bench, const double *old, Py_ssize_t stride, double *new) noexcept nogil:
    """The loadings that x and its decomposition stand for, turned towards the old ones; rows of ``stride``.

    They are turned by (M M')^-1/2 M, with M the product of both (the Procrustes rotation): what a quasi-Newton memory
    holds is then about the same axes.
    """
    cdef blas_int m = bench.m, o = bench.o, k = bench.k
    cdef Py_ssize_t i, j, f, row
    cdef double length, size = 0.0
    cdef double *L = bench.scaled  # m x k
    cdef double *M = bench.square  # k x o
    cdef double *turn = bench.H    # k x k
    for f in range(k):
        row = m - 1 - f
        length = sqrt(max(bench.values[row] - 1.0, 0.0))
        for i in range(m):
            L[i * k + f] = exp(0.5 * bench.x[i]) * bench.vectors[row * m + i] * length
    for i in range(m):
        for f in range(o):
            new[i * stride + f] = L[i * k + f] if f < k else 0.0
    if k == 0:
        return
    gemm(True, False, k, o, m, 1.0, L, k, old, <blas_int> stride, 0.0, M, o)
    if not matched(bench, M, turn):
        for i in range(<Py_ssize_t> k * o):
            size += fabs(M[i])
        for f in range(k):  # a direction that one of the two does not have stays as it is
            M[f * o + f] += 1e-4 * size if M[f * o + f] >= 0.0 else -1e-4 * size
        if not matched(bench, M, turn):
            return
    # L (M M')^-1/2 M, term by term of the decomposition: L u / sqrt(lambda) times u'M
    for i in range(m):
        for f in range(o):
            new[i * stride + f] = 0.0
    for row in range(k):
        for f in range(o):
            bench.step[f] = 0.0
            for j in range(k):
                bench.step[f] += turn[row * k + j] * M[j * o + f]
        for i in range(m):
            length = dot(k, L + i * k, turn + row * k) / sqrt(bench.values_next[row])
            for f in range(o):
                new[i * stride + f] += length * bench.step[f]


cdef double solve(
    Bench *bench, blas_int r, const double *V, const double *W, const double *S, double nobs, const double *floor,
    const double *F_old, const double *D_old, bint afresh, double *X, double *F, double *D,
) noexcept nogil:
    """One group; by how much its deviance falls, or -1 where the factors above have no covariance."""
    cdef blas_int m = bench.m, c = r - bench.o
    cdef Py_ssize_t i, j
    cdef double before, here, other
    # The features less what the factors above explain, V_a W_aa^-1 V_a'; by expansion (see mlfm._kernels.em) their
    # loadings are V_a R^-T / sqrt(nobs), W_aa = R R'.
    for i in range(c):
        for j in range(c):
            X[i * c + j] = W[i * r + j]
    if cholesky(c, X, c) != 0:
        return -1.0
    for i in range(m):
        for j in range(c):
            F[i * r + j] = V[i * r + j]
    solve_lower_right(True, m, c, 1.0 / sqrt(nobs), X, c, F, r)
    memcpy(bench.S, S, <size_t> m * m * sizeof(double))
    syrk(False, m, c, -1.0, F, r, 1.0 / nobs, bench.S, m)
    mirror_lower(m, bench.S, m)
    for i in range(m):
        bench.lowest[i] = log(floor[i])
        bench.x[i] = max(log(D_old[i]), bench.lowest[i])
    before = deviance_of(bench, F_old + c, r, D_old)
    here = descend(bench)
    if afresh:
        swap(&bench.x, &bench.x_best)
        swap(&bench.values, &bench.values_best)
        swap(&bench.vectors, &bench.vectors_best)
        other = descend(bench) if fresh_start(bench) else INFINITY
        if other < here - LOWER:
            here = other
        else:
            swap(&bench.x, &bench.x_best)
            swap(&bench.values, &bench.values_best)
            swap(&bench.vectors, &bench.vectors_best)
    if not here <= before < INFINITY:  # by rounding, or where there is no decomposition: they stay
        for i in range(m):
            D[i] = D_old[i]
            for j in range(c, r):
                F[i * r + j] = F_old[i * r + j]
        return 0.0
    turned(bench, F_old + c, r, F + c)
    for i in range(m):
        D[i] = exp(bench.x[i]) if bench.x[i] > bench.lowest[i] else floor[i]
    return before - here


def cross_products(
    const double[:, ::1] Y,             # IN   m x N
    double[::1] S,                      # OUT  m m
):
    """Y Y'."""
    cdef blas_int m = narrow(Y.shape[0]), columns = narrow(Y.shape[1])
    if m > 0 and columns > 0:
        with nogil:
            syrk(False, m, columns, 1.0, &Y[0, 0], columns, 0.0, &S[0], m)
            mirror_lower(m, &S[0], m)
    else:
        S[:] = 0.0


def maximise(
    const double[:, ::1] V,             # IN     n x r: moments of data and factors
    const double[:, :, ::1] W,          # IN     k x r x r: second moments of the factors
    const double[::1] S,                # IN     sums of squares and products of the features of each small group
    const Py_ssize_t[::1] places,       # IN     k: where a group's begin, -1 for a group that is not small
    double nobs,                        # IN
    const double[::1] floor,            # IN     n
    double penalty,                     # IN     times the sum of 1 / D, taken off the log-likelihood
    const Py_ssize_t[::1] offsets,      # IN     k + 1
    Py_ssize_t own,                     # IN     factors of a leaf group
    const double[:, ::1] F_old,         # IN     n x r
    const double[::1] D_old,            # IN     n
    bint afresh,                        # IN     whether to descend from a start of its own too
    double[:, ::1] F,                   # INOUT  n x r: the small groups' rows are overwritten
    double[::1] D,                      # INOUT  n
) -> float:
    """Small leaf groups at their maximum, given the factors above; the log-likelihood that their own parts gain."""
    cdef Py_ssize_t g, a, m, most = 0, groups = places.shape[0]
    cdef blas_int r = narrow(F.shape[1]), o = narrow(own)
    cdef double gain = 0.0, fall = 0.0
    cdef Bench bench
    cdef double *X
    for g in range(groups):
        if places[g] >= 0:
            most = max(most, offsets[g + 1] - offsets[g])
    if most == 0:
        return 0.0
    open_bench(&bench, max(most, o))
    bench.penalty = 2.0 * penalty / nobs
    X = <double *> malloc(<size_t> (r * r + 1) * sizeof(double))
    try:
        if X == NULL:
            raise MemoryError
        with nogil:
            for g in range(groups):
                if places[g] < 0:
                    continue
                a, m = offsets[g], offsets[g + 1] - offsets[g]
                bench.m, bench.o, bench.k = <blas_int> m, o, <blas_int> min(<Py_ssize_t> o, m - 1)
                fall = solve(
                    &bench, r, &V[a, 0], &W[g, 0, 0], &S[places[g]], nobs, &floor[a], &F_old[a, 0], &D_old[a], afresh,
                    X, &F[a, 0], &D[a],
                )
                if fall < 0.0:
                    break
                gain += 0.5 * nobs * fall
    finally:
        free(X)
        close_bench(&bench)
    if fall < 0.0:
        raise FloatingPointError("the second moments of the factors are not positive definite")
    return gain
