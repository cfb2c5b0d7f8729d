"""Sphinx configuration; build with ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

import csv
import json
import warnings
from pathlib import Path

from matplotlib.figure import Figure

import mlfm
from mlfm.reporting.plots.canvas import REST, colour

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
    "model", "covariance", "cholesky", "lowrank", "speed", "cli",
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


def frobenius_plot(app):
    """How far the fits of the page on low rank fits are below the truth, from the record of the benchmark."""
    record = json.loads((HOME.parent / "benchmarks" / "results" / "frobenius.json").read_text(encoding="utf-8"))
    draws = next(iter(record["tables"].values()))
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    ax = figure.add_subplot()
    places = [row["draw"] for row in draws]
    fits = {"likelihood": "o", "Frobenius, to its end": "D", "Frobenius": "s"}
    below = {fit: [row["truth"] - row[fit] for row in draws] for fit in fits}
    ax.hlines(places, below["likelihood"], below["Frobenius"], color=REST, linewidth=1, zorder=1)
    for number, (fit, marker) in enumerate(fits.items()):
        ax.scatter(below[fit], places, color=colour(number), marker=marker, s=28, label=fit)
    ax.invert_yaxis()
    ax.set_yticks(places)
    ax.set_xlabel("expected log-likelihood of an observation, below that of the truth")
    ax.set_ylabel("draw")
    figure.legend(loc="outside upper center", ncols=len(fits), frameon=False)
    out = HOME / "generated" / "plots"
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "frobenius-likelihood.png", dpi=100)


def setup(app):
    app.connect("builder-inited", benchmark_tables)
    app.connect("builder-inited", plots)
    app.connect("builder-inited", frobenius_plot)
