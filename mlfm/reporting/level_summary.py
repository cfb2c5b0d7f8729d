"""The summary of one level: every group's factors, with its features' loadings, uniquenesses and communalities."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from statsmodels.iolib.table import SimpleTable

from mlfm.inference.tables import z_columns
from mlfm.reporting.escaping import Summary
from mlfm.reporting.frame import summary_frame
from mlfm.reporting.layout import NUMBER, WIDTH, cut, group_names, heading, number, places, table
from mlfm.reporting.notes import diagnostics, wrapped
from mlfm.reporting.standard_errors import kind_of_errors
from mlfm.wording import count

if TYPE_CHECKING:
    from mlfm.results import MultilevelFactorResults

FEATURES_A_GROUP = 40
ROWS = 600  # of all groups together
P_WIDTH, Z_WIDTH, SHARE_WIDTH = 6, 7, 5


def level_summary(results: MultilevelFactorResults, level: Hashable, alpha: float) -> Summary:
    """Header, a table for each group, notes."""
    hierarchy = results.hierarchy
    depth = hierarchy.position(level)
    bounds, rank = hierarchy.offsets[depth], int(results.ranks.iloc[depth])
    by_group = results.variance_explained("group")
    own = (by_group.index.get_level_values("level") == level).nonzero()[0]
    out = Summary()
    _add_header(out, results, level)
    estimates = _Estimates(results, level, alpha)
    names, rows = group_names(list(hierarchy.paths(level))), 0
    for g, name in enumerate(names):
        members = np.sort(hierarchy.permutation[bounds[g] : bounds[g + 1]])
        if g and rows + min(len(members), FEATURES_A_GROUP) * (rank + 1) > ROWS:
            out.tables.append(heading(f"({count(len(names) - g, 'more group')}: summary_frame() has them all)"))
            break
        share = by_group["share_within"].iloc[own[g]]
        features = count(len(members), "feature")
        out.tables.append(heading(f"{cut(name, 30)}: {features}; share of variance {share:.4f}"))
        out.tables.append(estimates.table_of(members))
        rows += min(len(members), FEATURES_A_GROUP) * (rank + 1)
    out.add_extra_txt(wrapped(_notes(results, level)))
    return out


def _add_header(out: Summary, results: MultilevelFactorResults, level: Hashable) -> None:
    depth = results.hierarchy.position(level)
    sizes = results.hierarchy.summary().iloc[depth]
    left = [
        ("Level:", cut(str(level), 18)),
        ("No. Groups:", f"{sizes['groups']:.0f}"),
        ("Factors a group:", f"{results.ranks.iloc[depth]}"),
        ("Share of variance:", f"{results.variance_explained()['share'].iloc[depth]:.4f}"),
    ]
    right = [
        ("No. Observations:", f"{results.nobs}"),
        ("Log-Likelihood:", f"{results.llf:.3f}"),
        ("Converged:", "yes" if results.converged else "NO"),
        ("Covariance Type:", kind_of_errors(results)[0]),
    ]
    out.add_table_2cols(
        results,
        f"Multilevel Factor Model Results: Level {cut(str(level), 30)}",
        *([(name, [value]) for name, value in side] for side in (left, right)),
        yname="y",
        xname=["x"],
    )


class _Estimates:
    """The numbers of one level, and the tables made of them."""

    def __init__(self, results: MultilevelFactorResults, level: Hashable, alpha: float) -> None:
        depth = results.hierarchy.position(level)
        ends = np.cumsum(results.ranks.to_numpy())
        self.columns = range(ends[depth] - results.ranks.iloc[depth], ends[depth])
        self.features = results.hierarchy.features
        self.communalities = results.communalities.to_numpy()
        self.standardised = results.loadings.to_numpy() / np.sqrt(results.covariance.diagonal())[:, None]
        n, r = results.loadings.shape
        loadings = summary_frame(results, "loadings", alpha).to_numpy()
        self.loadings = loadings.reshape(n, r, loadings.shape[1])
        self.uniquenesses = summary_frame(results, "uniquenesses", alpha).to_numpy()
        self.headers = [*z_columns(alpha)[: self.loadings.shape[2]], "comm."]
        widths = [NUMBER, NUMBER, Z_WIDTH, P_WIDTH, NUMBER, NUMBER]
        self.widths = [*widths[: self.loadings.shape[2]], SHARE_WIDTH]

    def table_of(self, members: NDArray[np.intp]) -> SimpleTable:
        """The table of one group."""
        shown = self._shown(members)
        stubs, rows = [], []
        for k, column in enumerate(self.columns):
            stubs.append("loadings" if len(self.columns) == 1 else f"loadings, factor {k + 1}")
            rows.append([""] * len(self.headers))
            stubs += [self._name(j) for j in shown]
            rows += [[*_numbers(self.loadings[j, column]), ""] for j in shown]
        stubs.append("uniquenesses")
        rows.append([""] * len(self.headers))
        stubs += [self._name(j) for j in shown]
        rows += [[*_numbers(self.uniquenesses[j]), f"{self.communalities[j]:.3f}"] for j in shown]
        if len(shown) < len(members):
            stubs.append(f"({len(members) - len(shown)} more)")
            rows.append([""] * len(self.headers))
        widths = [WIDTH - sum(self.widths) - len(self.widths), *self.widths]
        stubs = [cut(stub, widths[0]) for stub in stubs]
        return table(rows, self.headers, stubs, data_fmts=["%s"], colwidths=widths)

    def _name(self, j: int) -> str:
        return f"  {self.features[j]}"

    def _shown(self, members: NDArray[np.intp]) -> NDArray[np.intp]:
        """All features of a group, or those with the largest loadings, in the user's order."""
        if len(members) <= FEATURES_A_GROUP:
            return members
        size = np.abs(self.standardised[members][:, self.columns]).max(axis=1, initial=0.0)
        return members[np.sort(np.argsort(-size, kind="stable")[:FEATURES_A_GROUP])]


def _numbers(row: NDArray[np.float64]) -> list[str]:
    """Value, standard error, z, p-value and interval, with as many decimals as the standard error deserves."""
    decimals = places(row[0], row[1] if len(row) > 1 else 0.0)
    if len(row) == 1:
        return [number(row[0], decimals)]
    value, error, z, p, low, high = row
    test = "" if np.isnan(z) else f"{z:.2f}" if abs(z) < 1000 else f"{z:.0f}"
    return [
        number(value, decimals),
        number(error, decimals),
        test if len(test) <= Z_WIDTH else f"{z:.1e}",
        "" if np.isnan(p) else f"{p:.3f}",
        number(low, decimals),
        number(high, decimals),
    ]


def _notes(results: MultilevelFactorResults, level: Hashable) -> Iterator[str]:
    yield "Loadings in canonical rotation, in the data's units; comm.: share of the variance that all levels explain."
    yield kind_of_errors(results)[1]
    sizes = results.hierarchy.summary()
    if sizes.loc[[level], "largest"].iloc[0] > FEATURES_A_GROUP:
        yield (
            f"Of groups of more than {FEATURES_A_GROUP} features those with the largest loadings, relative to the "
            "feature's standard deviation; summary_frame() has them all."
        )
    yield from diagnostics(results)
