"""Sphinx configuration; build with ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

import csv
import json
from pathlib import Path

import mlfm

project = "mlfm"
author = "The mlfm developers"
copyright = author
version = release = mlfm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Types stand in the docstrings; signatures stay short.
autodoc_typehints = "none"
autosummary_generate = True
# The class template lists the members.
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"mlfm {release}"
html_show_sourcelink = False
html_copy_source = False
PAGES = [
    "index", "first_fit", "formulas", "covariates", "missing", "uncertainty", "comparing", "model", "covariance",
    "cholesky", "speed", "cli",
]  # fmt: skip
html_sidebars = {page: [] for page in PAGES}
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2}

HOME = Path(__file__).parent


def benchmark_tables(app):
    """The tables of the page on speed, from the records that the benchmark scripts saved."""
    out = HOME / "generated" / "speed"
    out.mkdir(parents=True, exist_ok=True)
    for record in sorted((HOME.parent / "benchmarks" / "results").glob("*.json")):
        saved = json.loads(record.read_text(encoding="utf-8"))
        for i, rows in enumerate(saved["tables"].values()):
            with (out / f"{record.stem}-{i}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(name.strip() for name in rows[0])
                writer.writerows([_shown(value) for value in row.values()] for row in rows)


def _shown(value):
    return f"{value:,.6g}".replace(",", " ") if isinstance(value, float) else value


def setup(app):
    app.connect("builder-inited", benchmark_tables)
