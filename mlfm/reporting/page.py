"""The report: one page of HTML that needs nothing else, tables and plots in one file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlfm import __version__
from mlfm.inference.tables import z_columns
from mlfm.reporting.escaping import html_text
from mlfm.reporting.frame import summary_frame
from mlfm.reporting.largest import Factor, More, largest
from mlfm.reporting.layout import number, places
from mlfm.reporting.notes import diagnostics, reading
from mlfm.reporting.standard_errors import kind_of_errors
from mlfm.reporting.summary import LEVEL_COLUMNS, TITLE, covariate_rows, header, level_rows
from mlfm.wording import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mlfm.results import MultilevelFactorResults

ALPHA = 0.05
ON_FLOOR = 100  # features on the floor that are listed
SCREES = 6  # levels that have a scree plot
CELLS = 300  # a side of a heatmap, so that the page stays small
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
DPI = 72  # of what is kept as pixels
STYLE = """\
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin-bottom: 0.3rem; }
table { border-collapse: collapse; margin: 0.6rem 0 1rem; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.7rem; text-align: right; border-bottom: 1px solid #e5e5e5; }
th { font-weight: 600; } thead th { border-bottom: 1px solid #888; }
td.text, th.text { text-align: left; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
.doubt { border-left: 4px solid #D55E00; padding-left: 0.8rem; }
footer { margin-top: 2rem; color: #666; font-size: 0.85rem; }
@media print {
  body { max-width: none; margin: 0; font-size: 10pt; }
  h2, h3 { break-after: avoid; } figure, tr { break-inside: avoid; } thead { display: table-header-group; }
  section.plots { break-before: page; }
  figure svg { max-height: 22cm; }
}
@page { margin: 1.8cm; }
"""


def report(results: MultilevelFactorResults, path: str | Path) -> Path:
    """Write a report of a fit: one page of HTML with its tables and plots, which needs no other file and prints well.

    Parameters
    ----------
    results : MultilevelFactorResults
    path : str or Path
        The file to write; one that is there is replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    TypeError
        If ``results`` are not results of a fit.

    Notes
    -----
    The page has the fit, the levels and their shares of the variance, the largest loadings of each factor, what is
    doubtful (uniquenesses on the floor, groups not identified, weak factors), how the fit converged, and plots. Plots
    need matplotlib (``pip install "mlfm[plot]"``); without it, or where the results hold no data, the page says what
    is left out. The same results give the same page, byte by byte, with the same versions of mlfm and matplotlib.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import mlfm
    >>> data = mlfm.datasets.load("abilities")
    >>> results = mlfm.MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = mlfm.report(results, Path(folder) / "report.html")
    ...     page.read_text(encoding="utf-8").count("<svg")
    10
    """
    if not hasattr(results, "weak_factors"):
        raise TypeError(f"results: results of a fit are needed, not {type(results).__name__}")
    file = Path(path)
    file.write_text("\n".join(_page(results)) + "\n", encoding="utf-8")
    return file


def _page(results: MultilevelFactorResults) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{TITLE}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>"
    yield f"<h1>{TITLE}</h1>"
    yield from _fit(results)
    yield from _doubts(results)
    yield from _levels(results)
    yield from _loadings(results)
    yield from _floor(results)
    yield from _convergence(results)
    yield from _plots(results)
    yield f"<footer>Made by mlfm {html_text(__version__)}.</footer>\n</body>\n</html>"


def _table(
    headers: Sequence[str], rows: Sequence[Sequence[Any]], text: Sequence[int] = (0,), heads: bool = True
) -> str:
    """A table; ``text``: columns that are words and not numbers."""
    kinds = [' class="text"' if k in text else "" for k in range(len(headers))]
    top = "".join(f"<th{kind}>{html_text(name)}</th>" for kind, name in zip(kinds, headers, strict=True))
    lines = [f"<thead><tr>{top}</tr></thead>"] if heads else []
    for row in rows:
        cells = "".join(f"<td{kind}>{html_text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        lines.append(f"<tr>{cells}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _fit(results: MultilevelFactorResults) -> Iterator[str]:
    yield "<section>\n<h2>The fit</h2>"
    left, right = header(results)
    rows = [[name.rstrip(":"), value] for name, value in [*left, *right]]
    yield _table(["", ""], rows, heads=False)
    yield f"<p>Formula: <code>{html_text(results.formula)}</code></p>" if results.formula else ""
    yield f"<p>{html_text(kind_of_errors(results)[1])}</p>\n</section>"


def _doubts(results: MultilevelFactorResults) -> Iterator[str]:
    doubts = list(diagnostics(results))
    yield "<section>\n<h2>Diagnostics</h2>"
    if doubts:
        yield '<ul class="doubt">' + "".join(f"<li>{html_text(doubt)}</li>" for doubt in doubts) + "</ul>"
    else:
        yield (
            "<p>The fit converged; no uniqueness is on the floor, every group is identified, and every factor has "
            "three sizeable loadings or more.</p>"
        )
    yield "</section>"


def _levels(results: MultilevelFactorResults) -> Iterator[str]:
    yield "<section>\n<h2>Levels</h2>"
    names, rows = level_rows(results)
    yield _table(["level", *LEVEL_COLUMNS], [[name, *row] for name, row in zip(names, rows, strict=True)])
    yield "<p>Levels are of features, not of observations.</p>"
    if not results.mean_alone and results.coefficients.size:
        names, headers, rows = covariate_rows(results)
        yield "<h3>Covariates, over all features</h3>"
        yield _table(["covariate", *headers], [[name, *row] for name, row in zip(names, rows, strict=True)])
    yield "</section>"


def _loadings(results: MultilevelFactorResults) -> Iterator[str]:
    """The largest loadings of each factor, a table a level."""
    yield "<section>\n<h2>Largest loadings</h2>"
    frame = summary_frame(results, "loadings", ALPHA).to_numpy()
    width, features = results.loadings.shape[1], results.hierarchy.features
    entries = list(largest(results))
    for level in dict.fromkeys(entry.level for entry in entries):
        rows: list[list[str]] = []
        more = 0
        for entry in entries:
            if entry.level != level:
                continue
            if isinstance(entry, More):
                more = entry.groups
            else:
                rows += list(_of_factor(entry, frame, width, features))
        yield f"<h3>{html_text(level)}</h3>"
        yield _table(["factor", "feature", *z_columns(ALPHA)[: frame.shape[1]]], rows, text=(0, 1))
        if more:
            yield f"<p>{count(more, 'more group')}.</p>"
    yield f"<p>{html_text(reading(results))}</p>\n</section>" if entries else "<p>There are no factors.</p>\n</section>"


def _of_factor(factor: Factor, frame: np.ndarray, width: int, features: Any) -> Iterator[list[str]]:
    for i, j in enumerate(factor.features):
        row = frame[j * width + factor.column]
        decimals = places(row[0], row[1] if len(row) > 1 else 0.0)
        formats = [decimals, decimals, 2, 3, decimals, decimals]
        numbered = "" if factor.number is None else f" {factor.number}"
        yield [
            "" if i else f"{factor.name}{numbered}",
            str(features[j]),
            *(number(value, shown) for value, shown in zip(row, formats, strict=False)),
        ]


def _floor(results: MultilevelFactorResults) -> Iterator[str]:
    yield "<section>\n<h2>Uniquenesses</h2>"
    quartiles = np.quantile(results.communalities.to_numpy(), [0, 0.25, 0.5, 0.75, 1])
    yield "<p>Share of the variance that the factors explain, over the features:</p>"
    yield _table(
        ["smallest", "lower quartile", "median", "upper quartile", "largest"],
        [[f"{q:.3f}" for q in quartiles]],
        text=(),
    )
    if len(results.on_floor):
        yield f"<p>On the floor of {results.uniqueness_floor:g} of the variance:</p>"
        shown = results.on_floor[:ON_FLOOR]
        values = results.uniquenesses.to_numpy()[results.hierarchy.features.get_indexer(shown)]
        rows = [[str(name), f"{value:.3g}"] for name, value in zip(shown, values, strict=True)]
        yield _table(["feature", "uniqueness"], rows)
        if len(results.on_floor) > ON_FLOOR:
            yield f"<p>{count(len(results.on_floor) - ON_FLOOR, 'more feature')}.</p>"
    else:
        yield "<p>None is on the floor.</p>"
    yield "</section>"


def _convergence(results: MultilevelFactorResults) -> Iterator[str]:
    record = results.record
    yield f"<section>\n<h2>Convergence</h2>\n<p>{html_text(record.reason)}.</p>"
    yield f"<p>Maximum reached: {record.reached} of {count(len(record.climbs), 'climb')}.</p>"
    yield _table(
        ["climb", "log-likelihood", "behind", "evaluations", "", "on the floor"],
        [
            [
                str(name), f"{climb.llf:.3f}", f"{climb.behind:.3f}", str(climb.evaluations),
                "reached" if climb.reached else "ended" if climb.ended else "given up", str(climb.on_floor),
            ]
            for name, climb in zip(record.starts.index, record.starts.itertuples(index=False), strict=True)
        ],
    )  # fmt: skip
    yield "</section>"


def _plots(results: MultilevelFactorResults) -> Iterator[str]:
    yield '<section class="plots">\n<h2>Plots</h2>'
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        yield '<p>Plots are left out: they need matplotlib, <code>pip install "mlfm[plot]"</code>.</p>\n</section>'
        return
    for number_, figure in enumerate(_figures(results)):
        title = html_text(figure.axes[0].get_title())
        yield f'<figure role="img" aria-label="{title}">\n{_svg(figure, f"plot{number_}")}\n</figure>'
    if results.model is None:
        yield "<p>Plots of the data are left out: these results hold none.</p>"
    yield "</section>"


def _figures(results: MultilevelFactorResults) -> Iterator[Figure]:
    from mlfm.reporting.plots import Plots

    plot = Plots(results)
    yield plot.variance_shares()
    ranked = [level for level, rank in zip(results.hierarchy.levels, results.ranks, strict=True) if rank]
    if len(results.hierarchy.levels) > 1:
        yield plot.variance_shares("group")
    if ranked:
        yield plot.loadings()
    yield plot.covariance(max_cells=CELLS)
    if results.model is not None:
        yield plot.residual_correlations(max_cells=CELLS)
        for level in ranked[:SCREES]:
            yield plot.scree(level)
        if ranked:
            yield plot.scores()
    yield plot.convergence()
    if len(results.starts) > 1:
        yield plot.climbs()


def _svg(figure: Figure, salt: str) -> str:
    """A figure as an element of HTML; its identifiers are its own on the page, and the same at every call."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", dpi=DPI, metadata=NO_METADATA)
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    return re.sub(r'(<\w+ id="|xlink:href="#|="url\(#)', rf"\g<1>{salt}-", text)
