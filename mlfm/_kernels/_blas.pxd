# The one door to BLAS and LAPACK: row-major signatures over the column-major functions that SciPy exports.
#
# A row-major matrix is the transpose of the column-major matrix in the same memory, so every wrapper below swaps
# sides, triangles or operands. When an integer width or a signature changes, this file and _blas.pyx change and no
# other. The functions are looked up when the package is imported (_blas.pyx), so a build needs neither SciPy nor NumPy.

ctypedef int blas_int

ctypedef void (*daxpy_t)(blas_int *, double *, double *, blas_int *, double *, blas_int *) noexcept nogil
ctypedef double (*ddot_t)(blas_int *, double *, blas_int *, double *, blas_int *) noexcept nogil
ctypedef void (*dgemm_t)(
    char *, char *, blas_int *, blas_int *, blas_int *, double *, double *, blas_int *, double *, blas_int *, double *,
    double *, blas_int *,
) noexcept nogil
ctypedef void (*dgemv_t)(
    char *, blas_int *, blas_int *, double *, double *, blas_int *, double *, blas_int *, double *, double *,
    blas_int *,
) noexcept nogil
ctypedef void (*dgesv_t)(
    blas_int *, blas_int *, double *, blas_int *, blas_int *, double *, blas_int *, blas_int *,
) noexcept nogil
ctypedef void (*dpotrf_t)(char *, blas_int *, double *, blas_int *, blas_int *) noexcept nogil
ctypedef void (*dsyev_t)(
    char *, char *, blas_int *, double *, blas_int *, double *, double *, blas_int *, blas_int *,
) noexcept nogil
ctypedef void (*dsyrk_t)(
    char *, char *, blas_int *, blas_int *, double *, double *, blas_int *, double *, double *, blas_int *,
) noexcept nogil
ctypedef void (*dtrsm_t)(
    char *, char *, char *, char *, blas_int *, blas_int *, double *, double *, blas_int *, double *, blas_int *,
) noexcept nogil
ctypedef void (*dtrtri_t)(char *, char *, blas_int *, double *, blas_int *, blas_int *) noexcept nogil

cdef daxpy_t daxpy
cdef ddot_t ddot
cdef dgemm_t dgemm
cdef dgemv_t dgemv
cdef dgesv_t dgesv
cdef dpotrf_t dpotrf, dpotri
cdef dsyev_t dsyev
cdef dsyrk_t dsyrk
cdef dtrsm_t dtrmm, dtrsm
cdef dtrtri_t dtrtri

cdef extern from "<math.h>" nogil:
    double sqrt(double)

cdef enum:
    BLAS_INT_MAX = 2147483647
    # Up to these sizes plain loops are faster than calls: triangular matrices, and rows of a system to solve.
    SMALL = 16
    FEW = 4


cdef inline blas_int narrow(Py_ssize_t size) except -1:
    """A size as BLAS takes it; an OverflowError where it does not fit."""
    if size > BLAS_INT_MAX:
        raise OverflowError(f"an array dimension of {size} does not fit a BLAS integer")
    return <blas_int> size


cdef inline blas_int at_least_one(blas_int ld) noexcept nogil:
    return ld if ld > 0 else 1


cdef inline void gemm(
    bint trans_a, bint trans_b, blas_int m, blas_int n, blas_int k, double alpha,
    const double *a, blas_int lda, const double *b, blas_int ldb, double beta, double *c, blas_int ldc,
) noexcept nogil:
    """C = alpha op(A) op(B) + beta C;  op(A) m x k, op(B) k x n."""
    cdef char ta = b'T' if trans_a else b'N'
    cdef char tb = b'T' if trans_b else b'N'
    if m == 0 or n == 0:
        return
    lda, ldb, ldc = at_least_one(lda), at_least_one(ldb), at_least_one(ldc)
    dgemm(&tb, &ta, &n, &m, &k, &alpha, <double *> b, &ldb, <double *> a, &lda, &beta, c, &ldc)


cdef inline void gemv(
    bint trans, blas_int m, blas_int n, double alpha, const double *a, blas_int lda, const double *x, double *y,
) noexcept nogil:
    """y += alpha op(A) x;  A m x n."""
    cdef char t = b'N' if trans else b'T'
    cdef double one = 1.0
    cdef blas_int step = 1
    if m == 0 or n == 0:
        return
    dgemv(&t, &n, &m, &alpha, <double *> a, &lda, <double *> x, &step, &one, y, &step)


cdef inline void times_few(
    bint trans, Py_ssize_t m, Py_ssize_t n, const double *a, Py_ssize_t lda, double *x, Py_ssize_t ldx,
) noexcept nogil:
    """X <- X A or X A', element by element: those that are still needed are overwritten last."""
    cdef Py_ssize_t i, step, j, t
    cdef double total
    for i in range(m):
        for step in range(n):
            total = 0.0
            if trans:
                j = n - 1 - step
                for t in range(j + 1):
                    total = total + x[i * ldx + t] * a[j * lda + t]
            else:
                j = step
                for t in range(j, n):
                    total = total + x[i * ldx + t] * a[t * lda + j]
            x[i * ldx + j] = total


cdef inline void times_lower(
    bint trans, blas_int m, blas_int n, const double *a, blas_int lda, double *x, blas_int ldx,
) noexcept nogil:
    """X <- X A (with trans: X A');  A n x n lower triangular, X m x n."""
    cdef char side = b'L', uplo = b'U', diag = b'N'
    cdef char t = b'T' if trans else b'N'
    cdef double one = 1.0
    if m == 0 or n == 0:
        return
    if n <= SMALL and m <= 2 * SMALL:
        times_few(trans, m, n, a, lda, x, ldx)
        return
    dtrmm(&side, &uplo, &t, &diag, &n, &m, &one, <double *> a, &lda, x, &ldx)


cdef inline void syrk(
    bint trans, blas_int n, blas_int k, double alpha, const double *a, blas_int lda, double beta,
    double *c, blas_int ldc,
) noexcept nogil:
    """Lower triangle of C = alpha A A' + beta C, A n x k;  with trans, alpha A'A, A k x n.

    The upper triangle may be overwritten too.
    """
    cdef char uplo = b'U'
    cdef char t = b'N' if trans else b'T'
    if n == 0:
        return
    if n <= SMALL:  # gemm has kernels for small matrices
        gemm(trans, not trans, n, n, k, alpha, a, lda, a, lda, beta, c, ldc)
        return
    lda, ldc = at_least_one(lda), at_least_one(ldc)
    dsyrk(&uplo, &t, &n, &k, &alpha, <double *> a, &lda, &beta, c, &ldc)


cdef inline void subtract(Py_ssize_t n, double weight, const double *x, double *y) noexcept nogil:
    """y -= weight x."""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] -= weight * x[j]


cdef inline void solve_few(
    bint trans, Py_ssize_t m, Py_ssize_t n, const double *r, Py_ssize_t ldr, double *x, Py_ssize_t ldx,
) noexcept nogil:
    """X <- R^-1 X or R^-T X, row by row."""
    cdef Py_ssize_t step, i, j, t
    cdef double weight
    for step in range(m):
        i = m - 1 - step if trans else step
        weight = 1.0 / r[i * ldr + i]
        for j in range(n):
            x[i * ldx + j] *= weight
        if trans:
            for t in range(i):
                subtract(n, r[i * ldr + t], x + i * ldx, x + t * ldx)
        else:
            for t in range(i + 1, m):
                subtract(n, r[t * ldr + i], x + i * ldx, x + t * ldx)


cdef inline void solve_lower(
    bint trans, blas_int m, blas_int n, const double *r, blas_int ldr, double *x, blas_int ldx,
) noexcept nogil:
    """X <- R^-1 X (with trans: R^-T X);  R m x m lower triangular, X m x n."""
    cdef char side = b'R', uplo = b'U', diag = b'N'
    cdef char t = b'T' if trans else b'N'
    cdef double one = 1.0
    if m == 0 or n == 0:
        return
    if m <= FEW:
        solve_few(trans, m, n, r, ldr, x, ldx)
        return
    dtrsm(&side, &uplo, &t, &diag, &n, &m, &one, <double *> r, &ldr, x, &ldx)


cdef inline void solve_lower_right(
    bint trans, blas_int m, blas_int n, double alpha, const double *r, blas_int ldr, double *x, blas_int ldx,
) noexcept nogil:
    """X <- alpha X R^-1 (with trans: alpha X R^-T);  R n x n lower triangular, X m x n."""
    cdef char side = b'L', uplo = b'U', diag = b'N'
    cdef char t = b'T' if trans else b'N'
    if m == 0 or n == 0:
        return
    dtrsm(&side, &uplo, &t, &diag, &n, &m, &alpha, <double *> r, &ldr, x, &ldx)


cdef inline bint small_cholesky(Py_ssize_t n, double *a, Py_ssize_t lda) noexcept nogil:
    cdef Py_ssize_t i, j, t
    cdef double total
    for i in range(n):
        for j in range(i + 1):
            total = a[i * lda + j]
            for t in range(j):
                total = total - a[i * lda + t] * a[j * lda + t]
            if j < i:
                a[i * lda + j] = total / a[j * lda + j]
            elif total > 0.0:
                a[i * lda + i] = sqrt(total)
            else:  # a nan too
                return False
    return True


cdef inline void small_inverse(Py_ssize_t n, double *a, Py_ssize_t lda) noexcept nogil:
    cdef Py_ssize_t i, j, t
    cdef double total
    for i in range(n):
        a[i * lda + i] = 1.0 / a[i * lda + i]
        for j in range(i):
            total = 0.0
            for t in range(j, i):
                total = total + a[i * lda + t] * a[t * lda + j]
            a[i * lda + j] = -total * a[i * lda + i]


cdef inline blas_int cholesky(blas_int n, double *a, blas_int lda) noexcept nogil:
    """Lower triangle of A <- R with A = R R'; not 0 when A is not positive definite."""
    cdef char uplo = b'U'
    cdef blas_int info = 0
    if n <= SMALL:
        return 0 if small_cholesky(n, a, lda) else 1
    dpotrf(&uplo, &n, a, &lda, &info)
    return info


cdef inline blas_int invert_lower(blas_int n, double *a, blas_int lda) noexcept nogil:
    """Lower triangle of A <- its inverse, A lower triangular."""
    cdef char uplo = b'U', diag = b'N'
    cdef blas_int info = 0
    if n <= SMALL:
        small_inverse(n, a, lda)
    else:
        dtrtri(&uplo, &diag, &n, a, &lda, &info)
    return info


cdef inline blas_int inverse_from_cholesky(blas_int n, double *a, blas_int lda) noexcept nogil:
    """Lower triangle of A <- (R R')^-1, A holding R."""
    cdef char uplo = b'U'
    cdef blas_int info = 0
    cdef Py_ssize_t i, j, t
    cdef double total
    if n > SMALL:
        dpotri(&uplo, &n, a, &lda, &info)
        return info
    small_inverse(n, a, lda)
    for j in range(n):  # R^-T R^-1, column by column: what is below a diagonal element is not needed above it
        for i in range(j, n):
            total = 0.0
            for t in range(i, n):
                total = total + a[t * lda + i] * a[t * lda + j]
            a[i * lda + j] = total
    return info


cdef inline blas_int eigen_symmetric(
    blas_int n, double *a, blas_int lda, double *values, double *work, blas_int size,
) noexcept nogil:
    """Rows of A <- eigenvectors of the symmetric A, by increasing eigenvalue; ``work`` of at least 3 n."""
    cdef char job = b'V', uplo = b'U'
    cdef blas_int info = 0
    if n > 0:
        dsyev(&job, &uplo, &n, a, &lda, values, work, &size, &info)
    return info


cdef inline blas_int solve_right(
    blas_int n, blas_int m, double *a, blas_int lda, blas_int *pivots, double *x, blas_int ldx,
) noexcept nogil:
    """X <- X A^-1, A n x n and overwritten, X m x n; not 0 when A is singular."""
    cdef blas_int info = 0
    if n > 0 and m > 0:
        dgesv(&n, &m, a, &lda, pivots, x, &ldx, &info)
    return info


cdef inline void mirror_lower(Py_ssize_t n, double *a, Py_ssize_t lda) noexcept nogil:
    """The upper triangle of A <- its lower one."""
    cdef Py_ssize_t i, j
    for i in range(n):
        for j in range(i):
            a[j * lda + i] = a[i * lda + j]


cdef inline double dot(Py_ssize_t n, const double *x, const double *y) noexcept nogil:
    """x'y."""
    cdef blas_int size = <blas_int> n, step = 1
    return ddot(&size, <double *> x, &step, <double *> y, &step)


cdef inline void axpy(Py_ssize_t n, double alpha, const double *x, double *y) noexcept nogil:
    """y += alpha x."""
    cdef blas_int size = <blas_int> n, step = 1
    daxpy(&size, &alpha, <double *> x, &step, y, &step)
