"""Write the data of the reference fits: the data set "abilities" with values struck out, and two covariates.

Run as ``python make_data.py`` in this directory, before ``fiml.R``.
"""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd

import mlfm

HOME = Path(__file__).parent
SEEDS = {"mcar": 2026, "structured": 2030, "covariates": 2028}


def mcar(endog: pd.DataFrame) -> pd.DataFrame:
    """A tenth of all values, exactly, struck out completely at random."""
    rng = np.random.default_rng(SEEDS["mcar"])
    struck = np.zeros(endog.size, dtype=bool)
    struck[rng.choice(endog.size, size=round(0.1 * endog.size), replace=False)] = True
    return endog.mask(struck.reshape(endog.shape))


def structured(endog: pd.DataFrame, ability: pd.Series) -> pd.DataFrame:
    """Values struck out in blocks, in one feature, and at random given the first feature, which is never struck out."""
    rng = np.random.default_rng(SEEDS["structured"])
    struck = pd.DataFrame(False, index=endog.index, columns=endog.columns)
    persons = rng.permutation(len(endog))
    no_memory, three_only, others = np.split(persons, [60, 100])
    struck.iloc[no_memory, np.flatnonzero(ability.reindex(endog.columns) == "memory")] = True
    struck.iloc[three_only, 3:] = True
    struck.iloc[others[150:], 6] = True
    first = endog.iloc[:, 0]
    struck.iloc[np.flatnonzero(first < first.quantile(0.3)), 19] = True
    return endog.mask(struck)


def write(frame: pd.DataFrame, name: str) -> None:
    """The frame as compressed text, the same bytes each time: no time stamp."""
    if frame.isna().all(axis=0).any() or frame.isna().all(axis=1).any():
        raise ValueError(f"{name}: a row or a column without a value")
    text = frame.to_csv(index=False, lineterminator="\n").encode()
    (HOME / f"{name}.csv.gz").write_bytes(gzip.compress(text, mtime=0))
    missing = frame.isna()
    print(f"{name}: {frame.shape}, {missing.to_numpy().sum()} missing, {len(missing.drop_duplicates())} patterns")


def main() -> None:
    abilities = mlfm.datasets.load("abilities")
    endog = abilities.endog
    write(endog, "complete")
    write(mcar(endog), "mcar")
    write(structured(endog, abilities.groups["ability"]), "structured")
    # Six decimals, so that text and number agree exactly in Python and in R.
    x = np.random.default_rng(SEEDS["covariates"]).standard_normal((len(endog), 2)).round(6)
    write(pd.DataFrame(x, columns=["x1", "x2"]), "covariates")
    groups = abilities.groups.loc[endog.columns, ["ability"]]
    (HOME / "groups.csv").write_text(groups.to_csv(index_label="feature", lineterminator="\n"))


if __name__ == "__main__":
    main()
