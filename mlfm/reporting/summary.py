"""The summary of a fit, as statsmodels' Summary: rows are made here, layout is statsmodels'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from statsmodels.iolib.summary import Summary
from statsmodels.iolib.table import SimpleTable
from statsmodels.iolib.tableformatting import fmt_params

from mlfm.hierarchy import GLOBAL
from mlfm.inference.counts import free_loadings
from mlfm.wording import count, listing

if TYPE_CHECKING:
    from mlfm.results import MultilevelFactorResults

WIDTH = 78
FEATURES_A_FACTOR = 3
FACTORS_A_LEVEL = 30
STUB = 22  # the width of names of groups


def summary(results: MultilevelFactorResults) -> Summary:
    """Header, levels, largest loadings, notes."""
    out = Summary()
    _add_header(out, results)
    out.tables.append(_levels(results))
    if not results.mean_alone and results.coefficients.size:
        out.tables.append(_covariates(results))
    if results.loadings.shape[1]:
        out.tables.append(_largest_loadings(results))
    out.add_extra_txt([line for note in _notes(results) for line in wrap(note, WIDTH + 2, subsequent_indent="  ")])
    return out


def _add_header(out: Summary, results: MultilevelFactorResults) -> None:
    record = results.record
    left = [
        ("Model:", ["Multilevel factor"]),
        ("Method:", [f"ML ({record.method})"]),
        ("Start:", [record.start]),
        ("No. Observations:", [f"{results.nobs}"]),
        ("No. Features:", [f"{results.hierarchy.n_features}"]),
        ("Evaluations:", [f"{len(record.evaluations) + record.elsewhere}"]),
        ("Uniqueness floor:", [f"{results.uniqueness_floor:g}"]),
    ]
    if results.n_missing:
        left.append(("Missing values:", [f"{results.n_missing} ({100 * results.missing_share:.2g} %)"]))
    if results.effective_nobs != results.nobs:
        left.append(("Effective N:", [f"{results.effective_nobs:.1f}"]))
    right = [
        ("Log-Likelihood:", [f"{results.llf:.3f}"]),
        ("AIC:", [f"{results.aic:.2f}"]),
        ("BIC:", [f"{results.bic:.2f}"]),
        ("Free parameters:", [f"{results.df_model}"]),
        ("Converged:", ["yes" if results.converged else "NO"]),
        ("Still to gain:", [f"{record.projected_gain:.2g}"]),
        ("Score norm:", [f"{record.score_norm:.2g}"]),
    ]
    out.add_table_2cols(results, "Multilevel Factor Model Results", left, right, yname="y", xname=["x"])


def _levels(results: MultilevelFactorResults) -> SimpleTable:
    shares = results.variance_explained()["share"].to_numpy()
    sizes, ranks = results.hierarchy.summary(), results.ranks
    free = free_loadings(results.hierarchy, ranks)
    rows = [
        [f"{row.groups}", f"{row.smallest} / {row.median:g} / {row.largest}", f"{rank}", f"{number}", f"{share:.4f}"]
        for row, rank, number, share in zip(sizes.itertuples(), ranks, free, shares[:-1], strict=True)
    ]
    rows.append(["", "", "", f"{results.hierarchy.n_features}", f"{shares[-1]:.4f}"])
    stubs = [_cut(str(level), 16) for level in results.hierarchy.levels] + ["(unique)"]
    headers = ["groups", "features min/med/max", "rank", "parameters", "share of var."]
    # What is left of the width goes to the first column.
    widths = [max(map(len, stubs)), 6, len(headers[1]), 6, 11, 13]
    widths[1] += WIDTH - len(_table(rows, headers, stubs, colwidths=widths).as_text().splitlines()[0])
    return _table(rows, headers, stubs, colwidths=widths)


def _covariates(results: MultilevelFactorResults) -> SimpleTable:
    """The coefficients of each covariate over the features and, where that is quick, whether it matters at all."""
    values = results.coefficients.to_numpy()
    rows = [[f"{own.mean():.4g}", f"{own.min():.4g}", f"{own.max():.4g}"] for own in values.T]
    headers, widths = ["mean", "smallest", "largest"], [9, 9, 9]
    if tests_at_hand(results):
        each = {name: [name] for name in results.coefficients.columns}
        tests = results.wald_test_terms(each)
        for row, chi2, df, p in zip(rows, tests["chi2"], tests["df"], tests["P>chi2"], strict=True):
            row += [f"{chi2:.2f}", f"{df}", f"{p:.3f}"]
        headers, widths = [*headers, "chi2", "df", "P>chi2"], [*widths, 10, 4, 6]
    stubs = [_cut(str(name), STUB) for name in results.coefficients.columns]
    widths = [max(map(len, stubs)), *widths]
    widths[1] += WIDTH - len(_table(rows, headers, stubs, colwidths=widths).as_text().splitlines()[0])
    return _table(rows, headers, stubs, colwidths=widths)


def tests_at_hand(results: MultilevelFactorResults) -> bool:
    """Whether tests of covariates take no time: with missing values they need a matrix of all coefficients."""
    return not results.n_missing or "_coefficient_covariance" in vars(results)


def _table(rows: list[list[str]], headers: list[str], stubs: list[str], **format_: object) -> SimpleTable:
    return SimpleTable(rows, headers=headers, stubs=stubs, txt_fmt={**fmt_params, **format_})


def _largest_loadings(results: MultilevelFactorResults) -> SimpleTable:
    lines = list(_factor_lines(results))
    stubs = [stub for stub, _ in lines]
    room = WIDTH - max(map(len, stubs))
    # Three features for each factor, or two where three names would have to be cut.
    longest = max(len(f"{feature} {value}") for _, cells in lines for feature, value in cells)
    shown = FEATURES_A_FACTOR if longest < room // FEATURES_A_FACTOR else FEATURES_A_FACTOR - 1
    headers = ["largest loadings", *[""] * (FEATURES_A_FACTOR - 1)]
    # LaTeX wants as many columns as the header has, whether or not they are used.
    blank = [" "] * (FEATURES_A_FACTOR - shown)
    room -= 2 * len(blank)
    width = room // shown - 1
    widths = [*[width] * (shown - 1), room - (shown - 1) * (width + 1) - 1]
    rows = []
    for _, cells in lines:
        texts = [_cell(*cell, width) for cell in cells[:shown]] + [""] * (shown - len(cells))
        # Cells of equal length fill the width, so that the rules of all tables match.
        rows.append([text.ljust(full) for text, full in zip(texts, widths, strict=True)] + blank)
    return _table(rows, headers, stubs, data_fmts=["%s"], data_aligns="l", header_align="l", colwidths=1)


def _factor_lines(results: MultilevelFactorResults) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A line for each level; under it one for each factor, with the features that load most on it."""
    hierarchy, F = results.hierarchy, results.loadings.to_numpy()
    spread = np.sqrt(results.covariance.diagonal())
    column = 0
    for level, rank, bounds in zip(hierarchy.levels, results.ranks, hierarchy.offsets, strict=True):
        if rank == 0:
            continue
        if level != GLOBAL:
            yield f"{_cut(str(level), STUB - 1)}:", []
        groups = hierarchy.paths(level)
        labels = Counter(_last(group) for group in groups)
        shown = max(1, FACTORS_A_LEVEL // rank)
        for number, group in enumerate(groups[:shown]):
            members = np.sort(hierarchy.permutation[bounds[number] : bounds[number + 1]])
            for factor in range(rank):
                own = F[members, column + factor]
                top = np.argsort(-np.abs(own) / spread[members], kind="stable")[:FEATURES_A_FACTOR]
                cells = [(str(hierarchy.features[members[j]]), f"{own[j]:.3g}") for j in top]
                yield _factor_name(level, _name(group, labels), factor + 1 if rank > 1 else None), cells
        if len(groups) > shown:
            yield f"  ({len(groups) - shown} more)", []
        column += rank


def _last(group: Hashable) -> Hashable:
    """A group's own label, of its path of labels."""
    return group[-1] if isinstance(group, tuple) else group


def _name(group: Hashable, labels: Counter[Hashable]) -> str:
    """A group's own label, or its whole path where another group of its level has the same label."""
    if isinstance(group, tuple) and labels[_last(group)] > 1:
        return "/".join(str(label) for label in group)
    return str(_last(group))


def _factor_name(level: Hashable, name: str, factor: int | None) -> str:
    number = "" if factor is None else f" {factor}"
    indent = "" if level == GLOBAL else "  "
    return f"{indent}{_cut(name, STUB - len(indent) - len(number))}{number}"


def _cell(feature: str, value: str, width: int) -> str:
    return f"{_cut(feature, width - len(value) - 1)} {value}"


def _notes(results: MultilevelFactorResults) -> Iterator[str]:
    yield (
        f"Loadings in {results.rotation} rotation, in the data's units, listed by size relative to the feature's "
        "standard deviation. Levels are of features, not of observations."
    )
    if not results.converged:
        yield f"The fit did NOT converge: {results.record.reason}."
    if not results.mean_alone and results.coefficients.size and not tests_at_hand(results):
        yield "Tests of covariates, which take a while with missing values: wald_test_terms()."
    if len(results.on_floor):
        floor = f"{results.uniqueness_floor:g} of the variance"
        yield (
            f"{count(len(results.on_floor), 'uniqueness', 'uniquenesses')} on the floor of {floor}: "
            f"{listing(results.on_floor, show=str)}."
        )
    if results.unidentified:
        yield (
            f"{count(len(results.unidentified), 'group')} not identified: "
            f"{listing(results.unidentified, most=3, show=str)}."
        )


def _cut(text: str, width: int) -> str:
    """The text, its middle left out where it is too long: names often differ at their ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
