"""Read the reference fits that ``lavaan.R`` and ``factanal.R`` write."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

HOME = Path(__file__).parent
FITS = ("bifactor", "personality")
FACTORS = (2, 4)
KINDS = ("expected", "observed", "robust", "opg")
_ABILITIES = HOME.parent / "lavaan"


@dataclass(frozen=True)
class Estimates:
    """One number for every free parameter: estimates, or their standard errors.

    ``loadings`` is features x (level, factor), as in mlfm's results; ``uniquenesses`` and ``means`` are Series by
    feature. ``means`` is None for standardised solutions.
    """

    loadings: pd.DataFrame
    uniquenesses: pd.Series
    means: pd.Series | None


@dataclass(frozen=True)
class Reference:
    """One fit by lavaan; README.md says what each of its numbers is.

    ``groups`` holds the group of each feature at every level of factors, the global one among them. ``bse`` and
    ``standardized_bse`` hold standard errors by kind, one of ``KINDS``. ``defined`` are functions of
    parameters: a row for each, with columns "estimate" and the kinds. ``fit`` are fit measures under lavaan's names.
    ``tries`` holds the log-likelihood reached from each start, ``head`` every line above the table.
    """

    llf: float
    npar: int
    nobs: int
    gradient: float
    groups: pd.DataFrame
    estimates: Estimates
    bse: dict[str, Estimates]
    standardized: Estimates
    standardized_bse: dict[str, Estimates]
    defined: pd.DataFrame
    fit: pd.Series
    tries: pd.Series
    head: dict[str, str]

    @property
    def ranks(self) -> dict[str, int]:
        """One factor at each level, as mlfm takes it."""
        return {level: 1 for level, _ in self.estimates.loadings.columns}

    @property
    def communalities(self) -> pd.DataFrame:
        """Features x ("estimate", and standard errors by kind): one less the standardised uniqueness."""
        errors = {kind: part.uniquenesses for kind, part in self.standardized_bse.items()}
        return pd.DataFrame({"estimate": 1 - self.standardized.uniquenesses, **errors})

    def shares(self, name: str = "share") -> pd.DataFrame:
        """Levels and "unique" x ("estimate", and standard errors by kind) of ``share`` or ``mean_share``.

        The names are those of mlfm's ``variance_explained``. Empty where they were not defined.
        """
        rows = self.defined[self.defined.index.str.startswith(f"{name}_")]
        return rows.set_axis(rows.index.str.removeprefix(f"{name}_").rename("level"), axis=0)


@dataclass(frozen=True)
class Factanal:
    """A flat fit by factanal; README.md says what each of its numbers is.

    ``loadings`` (features x factors, from 1) and ``uniquenesses`` are those of the correlations.
    """

    factors: int
    nobs: int
    llf: float
    unrestricted_llf: float
    objective: float
    dof: int
    statistic: float
    bartlett_factor: float
    pvalue: float
    loadings: pd.DataFrame
    uniquenesses: pd.Series
    head: dict[str, str]


def endog(name: str) -> pd.DataFrame:
    """The data of a fit by lavaan; those of factanal are the data of "bifactor"."""
    path = HOME / "personality.csv.gz" if name == "personality" else _ABILITIES / "complete.csv.gz"
    # By way of strings: pandas' own readers round some numbers in the last digit, its older ones by default.
    return pd.read_csv(path, dtype=str).astype(float)


def groups(name: str) -> pd.DataFrame:
    """The groups of each feature, from coarse to fine, without the global one."""
    path = HOME / "personality_groups.csv" if name == "personality" else _ABILITIES / "groups.csv"
    return pd.read_csv(path).set_index("feature")


def read(name: str) -> Reference:
    """One of the fits ``FITS``."""
    head, rows = _read(name)
    errors = {kind: f"se_{kind}" for kind in KINDS}
    defined = rows[rows["kind"] == "defined"].set_index("feature").rename_axis("name")
    defined = defined.rename(columns={column: kind for kind, column in errors.items()})[["estimate", *KINDS]]
    tries = {
        key.removeprefix("try_"): float(value)
        for key, value in head.items()
        if key.startswith("try_") and not key.endswith(("_converged", "_smallest_uniqueness"))
    }
    fit = {key.removeprefix("fit_"): float(value) for key, value in head.items() if key.startswith("fit_")}
    return Reference(
        llf=float(head["loglik"]),
        npar=int(head["npar"]),
        nobs=int(head["nobs"]),
        gradient=float(head["gradient"]),
        groups=_wide(rows, "loading", "group"),
        estimates=_column(rows, "estimate"),
        bse={kind: _column(rows, column) for kind, column in errors.items()},
        standardized=_column(rows, "estimate", "standardized_"),
        standardized_bse={kind: _column(rows, column, "standardized_") for kind, column in errors.items()},
        defined=defined.astype(float),
        fit=pd.Series(fit, name=name),
        tries=pd.Series(tries, name="loglik"),
        head=head,
    )


def factanal(factors: int) -> Factanal:
    """The flat fit with so many factors, one of ``FACTORS``."""
    head, rows = _read(f"factanal_{factors}")
    rows = rows.set_index("feature").astype(float)
    loadings = rows.filter(like="Factor")
    return Factanal(
        factors=int(head["factors"]),
        nobs=int(head["nobs"]),
        llf=float(head["loglik"]),
        unrestricted_llf=float(head["unrestricted_loglik"]),
        objective=float(head["objective"]),
        dof=int(head["dof"]),
        statistic=float(head["statistic"]),
        bartlett_factor=float(head["bartlett_factor"]),
        pvalue=float(head["pvalue"]),
        loadings=loadings.set_axis(pd.RangeIndex(1, loadings.shape[1] + 1, name="factor"), axis=1),
        uniquenesses=rows["uniqueness"],
        head=head,
    )


def _read(name: str) -> tuple[dict[str, str], pd.DataFrame]:
    """The lines above the table as a mapping, and the table as strings."""
    top, table = (HOME / f"{name}.txt").read_text().split("\n\n")
    head: dict[str, str] = dict(line.split(" ", 1) for line in top.splitlines())
    columns, *rows = (line.split() for line in table.splitlines())
    return head, pd.DataFrame(rows, columns=columns)


def _wide(rows: pd.DataFrame, kind: str, column: str) -> pd.DataFrame:
    """One column of the rows of loadings, features (in the order of the data) x levels."""
    rows = rows[rows["kind"] == kind]
    wide = rows.pivot(index="feature", columns="level", values=column)
    return wide.reindex(index=rows["feature"].unique(), columns=rows["level"].unique()).rename_axis(index="feature")


def _column(rows: pd.DataFrame, column: str, prefix: str = "") -> Estimates:
    """One column of numbers by what they belong to, features in the order of the data."""
    rows = rows.assign(**{column: rows[column].astype(float)})

    def vector(kind: str) -> pd.Series:
        return rows[rows["kind"] == kind].set_index("feature")[column].rename(kind.removeprefix(prefix))

    loadings = _wide(rows, f"{prefix}loading", column)
    loadings.columns = pd.MultiIndex.from_product([loadings.columns, [1]], names=["level", "factor"])
    return Estimates(loadings, vector(f"{prefix}uniqueness"), None if prefix else vector("mean"))
