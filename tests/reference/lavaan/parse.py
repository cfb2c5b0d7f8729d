"""Read the reference fits that ``fiml.R`` writes."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

HOME = Path(__file__).parent
FITS = (
    "flat_mcar",
    "flat_structured",
    "bifactor_mcar",
    "bifactor_structured",
    "regression_complete",
    "regression_mcar",
)


@dataclass(frozen=True)
class Estimates:
    """One number for every free parameter: estimates, or their standard errors.

    ``loadings`` is features by factors, missing where a feature does not load on a factor; ``coefficients`` is
    features by covariates, without columns where the model has none.
    """

    loadings: pd.DataFrame
    intercepts: pd.Series
    uniquenesses: pd.Series
    coefficients: pd.DataFrame


@dataclass(frozen=True)
class Reference:
    """One fit: what the head of its file says, the estimates, and standard errors from both kinds of information.

    ``tries`` holds the log-likelihood reached from each start, ``head`` every line above the table.
    """

    llf: float
    npar: int
    nobs: int
    gradient: float
    estimates: Estimates
    expected: Estimates
    observed: Estimates
    tries: pd.Series
    head: dict[str, str]

    @property
    def loadings(self) -> pd.DataFrame:
        """Features by factors, missing where a feature does not load on a factor."""
        return self.estimates.loadings

    @property
    def intercepts(self) -> pd.Series:
        """One for every feature."""
        return self.estimates.intercepts

    @property
    def uniquenesses(self) -> pd.Series:
        """One for every feature."""
        return self.estimates.uniquenesses

    @property
    def coefficients(self) -> pd.DataFrame:
        """Features by covariates, without columns where the model has none."""
        return self.estimates.coefficients


def data(name: str) -> pd.DataFrame:
    """The data of a fit, missing values as NaN: the part of its name behind the underscore, or "covariates"."""
    # By way of strings: pandas' own readers round some numbers in the last digit, its older ones by default.
    return pd.read_csv(HOME / f"{name.rpartition('_')[2]}.csv.gz", dtype=str).astype(float)


def read(name: str) -> Reference:
    """One of the fits ``FITS``."""
    top, table = (HOME / f"{name}.txt").read_text().split("\n\n")
    head: dict[str, str] = dict(line.split(" ", 1) for line in top.splitlines())
    rows = pd.DataFrame([line.split() for line in table.splitlines()[1:]], columns=table.split("\n", 1)[0].split())
    tries = {
        key.removeprefix("try_"): float(value)
        for key, value in head.items()
        if key.startswith("try_") and not key.endswith(("_converged", "_smallest_uniqueness"))
    }
    return Reference(
        llf=float(head["loglik"]),
        npar=int(head["npar"]),
        nobs=int(head["nobs"]),
        gradient=float(head["gradient"]),
        estimates=_column(rows, "estimate"),
        expected=_column(rows, "se_expected"),
        observed=_column(rows, "se_observed"),
        tries=pd.Series(tries, name="loglik"),
        head=head,
    )


def _column(rows: pd.DataFrame, column: str) -> Estimates:
    """One column of numbers by what they belong to, features and terms in the order of the file."""
    rows = rows.assign(**{column: rows[column].astype(float)})
    features = rows.loc[rows["kind"] == "intercept", "feature"]

    def wide(kind: str) -> pd.DataFrame:
        of_kind = rows[rows["kind"] == kind]
        terms = of_kind["term"].unique()
        return of_kind.pivot(index="feature", columns="term", values=column).reindex(index=features, columns=terms)

    def vector(kind: str) -> pd.Series:
        return rows[rows["kind"] == kind].set_index("feature")[column].reindex(features)

    return Estimates(wide("loading"), vector("intercept"), vector("uniqueness"), wide("coefficient"))
