"""SciPy's BLAS and LAPACK functions, looked up by name when the package is imported, and checked by signature."""

import re

from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from scipy import LowLevelCallable
from scipy.linalg import cython_blas, cython_lapack


def exported(module, str name, str signature):
    """The capsule of a function that SciPy exports; an ImportError where it is not called as mlfm calls it."""
    try:
        found = LowLevelCallable.from_cython(module, name)
    except ValueError as error:
        raise ImportError(f"this SciPy has no {name} that mlfm can call: {error}") from error
    called = re.sub(r"__pyx_t_\w+_d\b", "double", found.signature)  # SciPy's own name for a double
    if called != signature:
        raise ImportError(
            f"this SciPy's {name} is {called}, and mlfm calls {signature}; a SciPy from PyPI or conda-forge, built "
            "with 32-bit integers (LP64), is needed"
        )
    return found.function


cdef void *function(module, str name, str signature) except NULL:
    """Its address."""
    capsule = exported(module, name, signature)
    return PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))


daxpy = <daxpy_t> function(cython_blas, "daxpy", "void (int *, double *, double *, int *, double *, int *)")
ddot = <ddot_t> function(cython_blas, "ddot", "double (int *, double *, int *, double *, int *)")
dgemm = <dgemm_t> function(
    cython_blas,
    "dgemm",
    "void (char *, char *, int *, int *, int *, double *, double *, int *, double *, int *, double *, double *, int *)",
)
dgemv = <dgemv_t> function(
    cython_blas,
    "dgemv",
    "void (char *, int *, int *, double *, double *, int *, double *, int *, double *, double *, int *)",
)
dsyrk = <dsyrk_t> function(
    cython_blas,
    "dsyrk",
    "void (char *, char *, int *, int *, double *, double *, int *, double *, double *, int *)",
)
dtrmm = <dtrsm_t> function(
    cython_blas,
    "dtrmm",
    "void (char *, char *, char *, char *, int *, int *, double *, double *, int *, double *, int *)",
)
dtrsm = <dtrsm_t> function(
    cython_blas,
    "dtrsm",
    "void (char *, char *, char *, char *, int *, int *, double *, double *, int *, double *, int *)",
)
dgesv = <dgesv_t> function(
    cython_lapack, "dgesv", "void (int *, int *, double *, int *, int *, double *, int *, int *)"
)
dpotrf = <dpotrf_t> function(cython_lapack, "dpotrf", "void (char *, int *, double *, int *, int *)")
dpotri = <dpotrf_t> function(cython_lapack, "dpotri", "void (char *, int *, double *, int *, int *)")
dsyev = <dsyev_t> function(
    cython_lapack,
    "dsyev",
    "void (char *, char *, int *, double *, int *, double *, double *, int *, int *)",
)
dtrtri = <dtrtri_t> function(cython_lapack, "dtrtri", "void (char *, char *, int *, double *, int *, int *)")
