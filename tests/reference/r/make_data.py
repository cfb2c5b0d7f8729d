"""Write the data of the reference fit "personality": thirty of the items of that data set, 1000 of its persons.

Run as ``python make_data.py`` in this directory, before ``lavaan.R``. The other fits use all of "abilities", which
``../lavaan/make_data.py`` writes as ``complete.csv.gz`` and ``groups.csv``.
"""

import gzip
from pathlib import Path

import mlfm

HOME = Path(__file__).parent
# Of two domains. With these all starts of mlfm and of lavaan end in the same maximum; with many others they do not.
SCALES = ["Industry", "Order", "Perfectionism", "AttentionSeeking", "Charisma", "Sociability"]
PERSONS = 1000


def main() -> None:
    personality = mlfm.datasets.load("personality")
    groups = personality.groups
    groups = groups.loc[groups["scale"].isin(SCALES), ["domain", "scale"]]
    endog = personality.endog[groups.index].iloc[:PERSONS]
    if endog.isna().any(axis=None):
        raise ValueError("a value is missing")
    # The same bytes each time: no time stamp.
    text = endog.to_csv(index=False, lineterminator="\n").encode()
    (HOME / "personality.csv.gz").write_bytes(gzip.compress(text, mtime=0))
    (HOME / "personality_groups.csv").write_text(groups.to_csv(index_label="feature", lineterminator="\n"))
    print(f"personality: {endog.shape}")


if __name__ == "__main__":
    main()
