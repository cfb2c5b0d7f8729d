"""The compiled kernels; everything else about the package is in pyproject.toml."""

import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

KERNELS = ["blocks", "em", "gaps", "metric", "pairs", "scoring", "tree", "variants"]

# MLFM_DEBUG=1 builds kernels that check every index.
debug = os.environ.get("MLFM_DEBUG", "0") == "1"

directives = {
    "language_level": 3,
    "boundscheck": debug,
    "initializedcheck": debug,
    "wraparound": False,
    "cdivision": True,
    "nonecheck": False,
    "freethreading_compatible": True,
}

if sys.platform == "win32":
    compile_args, link_args = ["/O2"], []
else:
    compile_args = ["-O3"]
    link_args = ["-Wl,-s"] if sys.platform == "linux" and not debug else []

extensions = [
    Extension(
        f"mlfm._kernels.{name}",
        [f"mlfm/_kernels/{name}.pyx"],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for name in KERNELS
]

# Side by side: each takes some seconds to compile.
setup(
    ext_modules=cythonize(extensions, compiler_directives=directives, force=True),
    options={"build_ext": {"parallel": os.cpu_count()}},
)
