"""BLAS and LAPACK come from SciPy by name; a SciPy that is called in another way is refused."""

import pytest
from scipy.linalg import cython_blas

from mlfm._kernels import _blas

pytestmark = pytest.mark.portable


def test_a_function_of_another_signature_is_refused():
    wide = "double (long *, double *, long *, double *, long *)"
    with pytest.raises(ImportError, match=r"SciPy's ddot is double \(int \*, .*LP64"):
        _blas.exported(cython_blas, "ddot", wide)


def test_a_function_that_is_not_there_is_refused():
    with pytest.raises(ImportError, match="has no ddott that mlfm can call"):
        _blas.exported(cython_blas, "ddott", "void ()")


def test_a_function_that_is_called_as_expected_is_found():
    capsule = _blas.exported(cython_blas, "ddot", "double (int *, double *, int *, double *, int *)")
    assert "capsule" in type(capsule).__name__.lower()
