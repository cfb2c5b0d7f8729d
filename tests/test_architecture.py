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


def is_private(name):
    """A name of which one part begins with an underscore is its package's own business, and changes without notice."""
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def is_foreign(module):
    return module.split(".")[0] not in {"mlfm", *sys.stdlib_module_names}


def private_of_others(source):
    """What a module takes of other packages that is private to them, by import, by attribute or by name."""
    tree = ast.parse(source)
    imported = set()  # names that stand for other packages or for parts of them
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            taken = [(alias.name, alias.asname or alias.name.split(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            taken = [(f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names]
        else:
            continue
        for name, known_as in taken:
            if is_foreign(name):
                imported.add(known_as)
                if is_private(name):
                    yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in imported:
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            module = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
            if is_foreign(module) and is_private(module):
                yield module


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (
            "from scipy.sparse.linalg import (\n    aslinearoperator,\n    _interface,\n)",
            "scipy.sparse.linalg._interface",
        ),
        ("import pandas._libs.lib as lib", "pandas._libs.lib"),
        ("import numpy as np\nnp.core._methods.umr_sum(x)", "np.core._methods"),
        ("importlib.import_module('statsmodels.formula._manager')", "statsmodels.formula._manager"),
        ("from mlfm._kernels import tree\nfrom . import _x\nimport _thread\nnp.__version__\nself._x", None),
    ],
)
def test_private_names_of_others_are_found(source, found):
    assert list(private_of_others(source)) == ([found] if found else [])


@pytest.mark.portable
@pytest.mark.parametrize("path", [*SOURCES, HOME / "__init__.py"], ids=lambda path: str(path.relative_to(HOME)))
def test_nothing_private_of_other_packages(path):
    assert not list(private_of_others(path.read_text(encoding="utf-8")))


@pytest.mark.portable
@pytest.mark.parametrize("path", sorted(HOME.rglob("*.p[xy][xd]")), ids=lambda path: path.name)
def test_kernels_import_nothing_private_of_other_packages(path):
    text = re.sub(r"\([^()]*\)", lambda names: " ".join(names[0].split()), path.read_text(encoding="utf-8"))
    lines = re.findall(r"^\s*(?:from\s+\S+\s+c?import\b|c?import\b).*", text, re.MULTILINE)
    theirs = [line for line in lines if not re.match(r"\s*(?:from|c?import)\s+mlfm\b", line)]
    assert not [line for line in theirs if re.search(r"(?<!\w)_[A-Za-z]", line)]


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


def floors(requirements):
    return dict(requirement.split(">=") for requirement in requirements)


def test_the_oldest_versions_allowed_are_those_that_are_tested():
    import tomllib

    home = Path(__file__).parent.parent
    settings = tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    needed = [
        *settings["build-system"]["requires"],
        *project["dependencies"],
        *project["optional-dependencies"]["test"],
    ]
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (home / ".ci" / "oldest.txt").read_text(), re.MULTILINE))
    for name, floor in floors(needed).items():
        assert Version(pinned[name.lower()]) == Version(floor), name


def test_readme_and_documentation_name_the_oldest_versions_allowed():
    import tomllib

    home = Path(__file__).parent.parent
    project = tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = {**floors(project["dependencies"]), "python": project["requires-python"].removeprefix(">=")}
    page = (home / "docs" / "installing.rst").read_text(encoding="utf-8")
    rows = dict(re.findall(r"\* - (\w+)\n +- ([\d.]+)$", page, re.MULTILINE))
    stated = {name.lower(): version for name, version in rows.items()}
    assert {name: allowed[name] for name in stated} == stated
    readme = (home / "README.md").read_text(encoding="utf-8")
    for name in ("Python", "NumPy", "SciPy", "pandas", "statsmodels"):
        assert name.lower() in stated
        assert re.search(rf"{name}\s(?:from\s)?{re.escape(allowed[name.lower()])}\b", readme), name


def test_the_documentation_says_what_ran_on_the_oldest_and_the_newest():
    home = Path(__file__).parent.parent
    page = (home / "docs" / "installing.rst").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (home / ".ci" / "oldest.txt").read_text(), re.MULTILINE))
    oldest = r" +".join(re.escape(pinned[name]) for name in ("numpy", "scipy", "pandas", "statsmodels"))
    assert re.search(rf"^ +3\.11\.\d+ +{oldest} ", page, re.MULTILINE)
    assert re.search(r"^ +3\.13\.\d+ +2\.\d+\.\d+ +1\.\d+\.\d+ +3\.", page, re.MULTILINE)
