"""The compiled kernels; everything else about the package is in pyproject.toml."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

KERNELS = ["_blas", "blocks", "em", "gaps", "metric", "pairs", "scoring", "tree", "variants"]
SHARED = "mlfm._kernels._cyutility"  # Cython's own code for memoryviews, compiled once for all kernels

# MLFM_DEBUG=1 builds kernels that check every index.
DEBUG = os.environ.get("MLFM_DEBUG", "0") == "1"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "nonecheck": False,
    "freethreading_compatible": True,
}

# No debugging symbols: they would be stripped when linked, and take a seventh of the time.
COMPILE_ARGS = ["/O2"] if sys.platform == "win32" else ["-O3"] if DEBUG else ["-O3", "-g0"]
LINK_ARGS = ["-Wl,-s"] if sys.platform == "linux" and not DEBUG else []

NO_COMPILER = """
mlfm's kernels are compiled from C, and {missing}. Install a C compiler and Python's headers, then try again:

    Debian, Ubuntu          apt install gcc python3-dev
    Fedora, RHEL            dnf install gcc python3-devel
    Alpine                  apk add gcc musl-dev python3-dev
    macOS                   xcode-select --install
    Windows                 Visual Studio Build Tools, with "Desktop development with C++"
    conda, on any system    conda install -c conda-forge c-compiler
"""


class BuildKernels(build_ext):
    """Cython to C, then C to machine code: only where extensions are built, as setup.py runs once a build hook."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()  # an editable install knows no options of setup()

    def build_extensions(self):
        if sys.platform != "win32":  # setuptools finds Visual Studio by itself, or says that it is not there
            refuse_without_compiler(self.compiler.compiler_so[0])
        from Cython.Build import cythonize

        # A folder for each kind of build: what Cython made for one of them is not up to date for the other.
        made = cythonize(
            self.extensions,
            compiler_directives=DIRECTIVES,
            shared_utility_qualified_name=SHARED,
            build_dir=str(Path(self.build_temp) / ("cython-debug" if DEBUG else "cython")),
            nthreads=os.cpu_count() or 1,
            force=self.force,
        )
        for extension, generated in zip(self.extensions, made, strict=True):
            extension.sources = generated.sources
        try:
            super().build_extensions()
        except CompileError:
            header = Path(sysconfig.get_path("include"), "Python.h")
            if header.exists():
                raise
            sys.exit(NO_COMPILER.format(missing=f"Python's headers are not here ({header} is not found)"))


def refuse_without_compiler(program):
    """Stop with a word on what to install, before anything is translated."""
    if shutil.which(program) is None:
        sys.exit(NO_COMPILER.format(missing=f"there is no C compiler here ({program!r} is not found)"))


def kernel(name, source):
    return Extension(name, [source], extra_compile_args=COMPILE_ARGS, extra_link_args=LINK_ARGS)


setup(
    ext_modules=[
        *(kernel(f"mlfm._kernels.{name}", f"mlfm/_kernels/{name}.pyx") for name in KERNELS),
        kernel(SHARED, "mlfm/_kernels/_cyutility.c"),  # Cython writes it
    ],
    cmdclass={"build_ext": BuildKernels},
)
