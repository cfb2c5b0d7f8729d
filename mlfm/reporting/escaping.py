"""Summaries whose labels mean themselves in HTML and LaTeX too: statsmodels writes ``<`` and ``&`` as they are.

Characters that mean something to HTML or LaTeX are replaced by marks of the private use area before statsmodels lays
the tables out, and the marks by what stands for the characters afterwards, so that nothing is escaped twice.
"""

from __future__ import annotations

import copy
from typing import Any

import pandas as pd
from statsmodels.iolib import summary as plain
from statsmodels.iolib import summary2 as second
from statsmodels.iolib.table import SimpleTable

INDENT = "  "  # at the beginning of a label
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"}
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "#": r"\#",
    "$": r"\$",
    "&": r"\&",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "…": r"\ldots{}",
}
MARKS = {character: chr(0xF0000 + i) for i, character in enumerate({**HTML, **LATEX})}
INDENTED = chr(0xF0000 + len(MARKS))
_TO_MARKS = str.maketrans(MARKS)
_FROM_MARKS = {
    language: str.maketrans({INDENTED: indent, **{MARKS[c]: escapes.get(c, c) for c in MARKS}})
    for language, escapes, indent in (("html", HTML, "&emsp;"), ("latex", LATEX, r"\quad{}"))
}


def html_text(value: Any) -> str:
    """A value's text for HTML."""
    return str(value).translate(_TO_MARKS).translate(_FROM_MARKS["html"])


def _marked(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    indented = value.startswith(INDENT) and not value.isspace()
    return (INDENTED + value.removeprefix(INDENT) if indented else value).translate(_TO_MARKS)


def _written(text: str, language: str) -> str:
    return text.translate(_FROM_MARKS[language])


class Summary(plain.Summary):
    """statsmodels' summary, with labels escaped in HTML and LaTeX."""

    def as_html(self) -> str:
        """The tables and notes in HTML."""
        return _written(plain.Summary.as_html(self._with_marks()), "html")

    def as_latex(self) -> str:
        """The tables and notes in LaTeX."""
        marked = self._with_marks()
        parts = [table.as_latex_tabular() for table in marked.tables]  # as one table they must have equal columns
        if marked.extra_txt is not None:
            parts.append(marked.extra_txt.replace("\n", " \\newline\n "))
        return _written("\n\n".join(parts), "latex")

    def _with_marks(self) -> plain.Summary:
        out = plain.Summary()
        out.tables = [_marked_table(table) for table in self.tables]
        out.extra_txt = _marked(self.extra_txt)
        return out


def _marked_table(table: SimpleTable) -> SimpleTable:
    out = copy.deepcopy(table)
    out.title = _marked(out.title)
    for row in out:
        for cell in row:
            cell.data = _marked(cell.data)
    return out


class Summary2(second.Summary):
    """statsmodels' other summary, with labels escaped in HTML and LaTeX."""

    def as_html(self) -> str:
        """The tables and notes in HTML."""
        return _written(second.Summary.as_html(self._with_marks()), "html")

    def as_latex(self, label: str = "") -> str:
        """The tables and notes in LaTeX.

        Parameters
        ----------
        label : str
            The table's label, to refer to it.
        """
        return _written(second.Summary.as_latex(self._with_marks(), label), "latex")

    def _with_marks(self) -> second.Summary:
        out = second.Summary()
        out.tables = [_marked_frame(frame) for frame in self.tables]
        out.settings, out.title, out._merge_latex = self.settings, _marked(self.title), self._merge_latex
        out.extra_txt = [_marked(text) for text in self.extra_txt]
        return out


def _marked_frame(frame: pd.DataFrame) -> pd.DataFrame:
    out = frame.map(_marked)
    out.index, out.columns = out.index.map(_marked), out.columns.map(_marked)
    return out
