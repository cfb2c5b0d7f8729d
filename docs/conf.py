"""Sphinx configuration; build with ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

import csv
import json
import warnings
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
    "index", "first_fit", "formulas", "covariates", "missing", "uncertainty", "comparing", "choosing", "scores",
    "reports", "from_r",
    "model", "covariance", "cholesky", "speed", "cli",
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


def plots(app):
    """The images of the pages on plots and on choosing the ranks, from three of the data sets."""
    out = HOME / "generated" / "plots"
    out.mkdir(parents=True, exist_ok=True)
    for name, ranks, figures in (
        (
            "abilities",
            [1, 1],
            {
                "loadings": lambda plot: plot.loadings(),
                "shares": lambda plot: plot.variance_shares("group"),
                "residuals": lambda plot: plot.residual_correlations(),
            },
        ),
        (
            "stocks",
            [3, 1],
            {
                "correlation": lambda plot: plot.covariance(),
                "scree": lambda plot: plot.scree("sector"),
                "scores": lambda plot: plot.scores(),
            },
        ),
    ):
        data = mlfm.datasets.load(name)
        results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=ranks).fit()
        for figure, draw in figures.items():
            draw(results.plot).savefig(out / f"{name}-{figure}.png", dpi=100)
    data = mlfm.datasets.load("employment")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)  # of small groups, which the page is not about
        selection = mlfm.select_ranks(data.endog, data.groups, n_jobs=None)
    selection.plot().savefig(out / "employment-ranks.png", dpi=100)


def setup(app):
    app.connect("builder-inited", benchmark_tables)
    app.connect("builder-inited", plots)
