"""Imports go one way: each room may use those before it, never those after."""

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

import mlfm

HOME = Path(mlfm.__file__).parent
# From the ground up. Modules in one row do not use each other.
ROOMS = [
    ["exceptions", "wording", "arrays", "tiles", "patterns", "seeds", "progress"],
    ["grouping", "agreement", "spectral"],
    ["partitioning", "finding"],
    ["hierarchy", "alignment", "standardised", "_kernels"],
    ["ranks", "endog", "covariates", "weights", "warm", "sweep"],
    ["formula", "parameters", "likelihood", "linear", "rotation"],
    ["incomplete", "covariance"],
    ["lowrank"],
    ["evidence", "estimation"],
    ["inference"],
    ["reporting"],
    ["results"],
    ["model", "likelihood_ratio_test"],
    ["validation", "first_guess"],
    ["datasets", "comparison", "rank_selection"],
    ["cli"],
    ["__main__"],
]
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


def room_of(path):
    part = path.relative_to(HOME).parts[0]
    return part.removesuffix(".py")


def imports(path):
    """Rooms of mlfm that a module imports when it runs (imports for the type checker left out)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "mlfm" else [node.module]
            )
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        for module in modules:
            parts = module.split(".")
            if parts[0] == "mlfm" and len(parts) > 1 and parts[1] in FLOOR:
                yield parts[1]


SOURCES = [path for path in sorted(HOME.rglob("*.py")) if path != HOME / "__init__.py"]


def test_every_room_is_on_the_plan():
    assert {room_of(path) for path in SOURCES} <= set(FLOOR)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(HOME)))
def test_imports_go_down(path):
    room = room_of(path)
    for other in imports(path):
        assert other == room or FLOOR[other] < FLOOR[room], f"{room} imports {other}"


@pytest.mark.portable
@pytest.mark.parametrize("path", [*SOURCES, *sorted(HOME.rglob("*.p[xy][xd]"))], ids=lambda path: path.name)
def test_nothing_private_of_other_packages(path):
    """Names that begin with an underscore are the package's own business, and change without notice."""
    lines = re.findall(r"^\s*(?:from\s+\S+\s+c?import\b[^#\n]*|c?import\b[^#\n]*)", path.read_text(), re.MULTILINE)
    theirs = [line for line in lines if not re.match(r"\s*(?:from|import)\s+(?:mlfm\b|__future__)", line)]
    assert not [line for line in theirs if re.search(r"(?<![A-Za-z0-9])_[A-Za-z]", line)]


@pytest.mark.portable
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(HOME)))
def test_no_private_attribute_of_other_packages(path):
    """As ``pd.core._something`` or ``scipy.linalg._misc.x``, under whatever name the package was imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
        if (getattr(node, "module", None) or alias.name).split(".")[0] not in {"mlfm", *sys.stdlib_module_names}
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            assert not (isinstance(root, ast.Name) and root.id in imported), ast.unparse(node)


def test_importing_mlfm_is_light():
    code = (
        "import sys, mlfm; print([m for m in ('numpy', 'pandas', 'scipy', 'statsmodels', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_everything_public_is_there():
    for name in mlfm.__all__:
        assert getattr(mlfm, name) is not None
    assert set(mlfm.__all__) <= set(dir(mlfm))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = mlfm.nope


def modules():
    yield "mlfm"
    for module in pkgutil.walk_packages(mlfm.__path__, "mlfm."):
        if module.name != "mlfm.__main__" and not module.name.startswith("mlfm._"):
            yield module.name


@pytest.mark.parametrize("name", list(modules()))
def test_examples_in_docstrings(name):
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.failed == 0


def test_every_package_is_installed():
    import tomllib

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    assert {"mlfm", *(f"mlfm.{path.parent.name}" for path in HOME.glob("*/__init__.py"))} <= listed


def test_the_oldest_versions_allowed_are_those_that_are_tested():
    import tomllib

    home = Path(__file__).parent.parent
    project = tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (home / ".ci" / "oldest.txt").read_text(), re.MULTILINE))
    for requirement in needed:
        name, floor = requirement.split(">=")
        assert Version(pinned[name]) == Version(floor), requirement
