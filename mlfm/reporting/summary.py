"""The summary of a fit, as statsmodels' Summary: rows are made here, layout is statsmodels'."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

from statsmodels.iolib.table import SimpleTable

from mlfm.hierarchy import GLOBAL
from mlfm.inference.counts import free_loadings
from mlfm.reporting.escaping import Summary
from mlfm.reporting.largest import FEATURES_A_FACTOR, More, largest
from mlfm.reporting.layout import STUB, WIDTH, cut, full_width, table
from mlfm.reporting.notes import diagnostics, reading, wrapped
from mlfm.reporting.standard_errors import why_no_errors
from mlfm.wording import count

if TYPE_CHECKING:
    from mlfm.results import MultilevelFactorResults

TITLE = "Multilevel Factor Model Results"


def summary(results: MultilevelFactorResults) -> Summary:
    """Header, levels, largest loadings, notes."""
    out = Summary()
    out.add_table_2cols(
        results,
        TITLE,
        *([(name, [value]) for name, value in side] for side in header(results)),
        yname="y",
        xname=["x"],
    )
    out.tables.append(_levels(results))
    if not results.mean_alone and results.coefficients.size:
        out.tables.append(_covariates(results))
    if results.loadings.shape[1]:
        out.tables.append(_largest_loadings(results))
    out.add_extra_txt(wrapped(_notes(results)))
    return out


def header(results: MultilevelFactorResults) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What was fitted, on the left; how it ended, on the right."""
    record = results.record
    left = [
        ("Model:", "Multilevel factor"),
        ("Method:", f"ML ({record.method})"),
        ("Start:", record.start),
        ("No. Observations:", f"{results.nobs}"),
        ("No. Features:", f"{results.hierarchy.n_features}"),
        ("Evaluations:", f"{record.fcalls}"),
        ("Uniqueness floor:", f"{results.uniqueness_floor:g}"),
        ("Covariance Type:", "none" if why_no_errors(results) else results.cov_type),
    ]
    if record.penalty != "none":
        left.append(("Penalty:", record.penalty))
    if results.n_missing:
        left.append(("Missing values:", f"{results.n_missing} ({100 * results.missing_share:.2g} %)"))
    if results.effective_nobs != results.nobs:
        left.append(("Effective N:", f"{results.effective_nobs:.1f}"))
    right = [
        ("Log-Likelihood:", f"{results.llf:.3f}"),
        ("AIC:", f"{results.aic:.2f}"),
        ("BIC:", f"{results.bic:.2f}"),
        ("Free parameters:", f"{results.df_model}"),
        ("Converged:", "yes" if results.converged else "NO"),
        ("Still to gain:", f"{record.projected_gain:.2g}"),
        ("Score norm:", f"{record.score_norm:.2g}"),
        ("Maximum reached:", f"{record.reached} of {count(len(record.climbs), 'climb')}"),
    ]
    return left, right


LEVEL_COLUMNS = ["groups", "features min/med/max", "rank", "parameters", "share of var."]


def level_rows(results: MultilevelFactorResults) -> tuple[list[str], list[list[str]]]:
    """Levels, and what they have in groups, features, factors, free loadings and share of the variance."""
    shares = results.variance_explained()["share"].to_numpy()
    sizes, ranks = results.hierarchy.summary(), results.ranks
    free = free_loadings(results.hierarchy, ranks)
    rows = [
        [f"{row.groups}", f"{row.smallest} / {row.median:g} / {row.largest}", f"{rank}", f"{number}", f"{share:.4f}"]
        for row, rank, number, share in zip(sizes.itertuples(), ranks, free, shares[:-1], strict=True)
    ]
    rows.append(["", "", "", f"{results.hierarchy.n_features}", f"{shares[-1]:.4f}"])
    return [*map(str, results.hierarchy.levels), "(unique)"], rows


def _levels(results: MultilevelFactorResults) -> SimpleTable:
    stubs, rows = level_rows(results)
    return full_width(rows, LEVEL_COLUMNS, [cut(stub, 16) for stub in stubs], [6, len(LEVEL_COLUMNS[1]), 6, 11, 13])


def _covariates(results: MultilevelFactorResults) -> SimpleTable:
    stubs, headers, rows = covariate_rows(results)
    widths = [9, 9, 9, 10, 4, 6]
    return full_width(rows, headers, [cut(stub, STUB) for stub in stubs], widths[: len(headers)])


def covariate_rows(results: MultilevelFactorResults) -> tuple[list[str], list[str], list[list[str]]]:
    """The coefficients of each covariate over the features and, where that is quick, whether it matters at all."""
    values = results.coefficients.to_numpy()
    rows = [[f"{own.mean():.4g}", f"{own.min():.4g}", f"{own.max():.4g}"] for own in values.T]
    headers = ["mean", "smallest", "largest"]
    if tests_at_hand(results):
        each = {name: [name] for name in results.coefficients.columns}
        tests = results.wald_test_terms(each)
        for row, chi2, df, p in zip(rows, tests["chi2"], tests["df"], tests["P>chi2"], strict=True):
            row += [f"{chi2:.2f}", f"{df}", f"{p:.3f}"]
        headers += ["chi2", "df", "P>chi2"]
    return [str(name) for name in results.coefficients.columns], headers, rows


def tests_at_hand(results: MultilevelFactorResults) -> bool:
    """Whether tests of covariates take no time: with missing values, or standard errors from scores, they need a matrix
    of all coefficients.
    """
    of_scores = results.cov_type in ("opg", "robust")
    return not (results.n_missing or of_scores) or "_coefficient_covariance" in vars(results)


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
    return table(rows, headers, stubs, data_fmts=["%s"], data_aligns="l", header_align="l", colwidths=1)


def _factor_lines(results: MultilevelFactorResults) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A line for each level; under it one for each factor, with the features that load most on it."""
    F, features = results.loadings.to_numpy(), results.hierarchy.features
    level: Hashable = GLOBAL
    for factor in largest(results):
        if factor.level != level:
            level = factor.level
            yield f"{cut(str(level), STUB - 1)}:", []
        if isinstance(factor, More):
            yield f"  ({factor.groups} more)", []
            continue
        numbered = "" if factor.number is None else f" {factor.number}"
        indent = "" if level == GLOBAL else "  "
        cells = [(str(features[j]), f"{F[j, factor.column]:.3g}") for j in factor.features]
        yield f"{indent}{cut(factor.name, STUB - len(indent) - len(numbered))}{numbered}", cells


def _cell(feature: str, value: str, width: int) -> str:
    return f"{cut(feature, width - len(value) - 1)} {value}"


def _notes(results: MultilevelFactorResults) -> Iterator[str]:
    if results.loadings.shape[1]:
        yield reading(results)
    why_not = why_no_errors(results)
    if why_not:
        yield f"No standard errors: {why_not}."
    else:
        yield f"Standard errors, in summary(level=...) and summary_frame(): {results.cov_text}."
    if not results.mean_alone and results.coefficients.size and not tests_at_hand(results):
        yield "Tests of covariates, which take a while here: wald_test_terms()."
    yield from diagnostics(results)
