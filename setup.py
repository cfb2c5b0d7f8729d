"""The compiled kernels; everything else about the package is in pyproject.toml."""

import os
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError

KERNELS = ["_blas", "blocks", "em", "gaps", "leaf_groups", "metric", "pairs", "scoring", "tree", "variants"]
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
mlfm's kernels are compiled from C, and C cannot be compiled here:

    {error}

Install a C compiler and Python's headers, then try again:

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
        self.force = True  # what was built with other directives is not up to date

    def build_extensions(self):
        refuse_without_compiler(self.compiler)
        from Cython.Build import cythonize

        made = cythonize(
            self.extensions,
            compiler_directives=DIRECTIVES,
            shared_utility_qualified_name=SHARED,
            build_dir=str(Path(self.build_temp, "cython")),
            nthreads=os.cpu_count() or 1,
            force=True,
        )
        for extension, generated in zip(self.extensions, made, strict=True):
            extension.sources = generated.sources
        super().build_extensions()


def refuse_without_compiler(compiler):
    """Stop before Cython runs and say what to install."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "headers.c")
        source.write_text("#include <Python.h>\n", encoding="utf-8")
        try:
            compiler.compile([str(source)], output_dir=folder)
        except (CompileError, PlatformError) as error:
            sys.exit(NO_COMPILER.format(error=error))


def kernel(name, source):
    return Extension(name, [source], extra_compile_args=COMPILE_ARGS, extra_link_args=LINK_ARGS)


if __name__ == "__main__":  # Cython's processes may import this file
    setup(
        ext_modules=[
            *(kernel(f"mlfm._kernels.{name}", f"mlfm/_kernels/{name}.pyx") for name in KERNELS),
            kernel(SHARED, "mlfm/_kernels/_cyutility.c"),  # Cython writes it
        ],
        cmdclass={"build_ext": BuildKernels},
    )
