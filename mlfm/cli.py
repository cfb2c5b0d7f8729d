"""The command line: ``mlfm fit`` and ``mlfm datasets``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlfm import __version__
from mlfm.exceptions import MlfmWarning
from mlfm.wording import listing

if TYPE_CHECKING:
    import pandas as pd

    from mlfm.results import MultilevelFactorResults

EXAMPLE = """\
examples:
  mlfm fit --dataset personality --ranks global=3,domain=1,scale=1
  mlfm fit returns.csv.gz --groups sectors.csv --ranks global=5,sector=2 --out fitted

DATA has a row an observation and a column a feature; its first column names the
observations. GROUPS has a row a feature: its name, then its groups from coarse to
fine. Columns of GROUPS that --ranks does not name are not used.
"""
BAD_INPUT = 2
INTERRUPTED = 130


class BadInput(Exception):
    """Something the user can put right; its message says what."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code: 0, or 2 for bad input."""
    arguments = _parser().parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without the characters of a name gets question marks
    try:
        return int(arguments.run(arguments))
    except BadInput as error:
        print(f"mlfm: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("mlfm: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlfm", description="Multilevel factor models by maximum likelihood.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"mlfm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    fit = commands.add_parser(
        "fit", help="fit a model to a table of data and print its summary",
        description="Fit a multilevel factor model by maximum likelihood and print its summary.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    fit.add_argument("data", nargs="?", metavar="DATA", help="data: .csv, .csv.gz or .parquet")
    fit.add_argument("--groups", metavar="GROUPS", help="groups of the features: .csv, .csv.gz or .parquet")
    fit.add_argument("--dataset", metavar="NAME", help="a data set that comes with mlfm, in place of DATA and --groups")
    fit.add_argument(
        "--ranks", required=True, metavar="LEVEL=K,...",
        help="factors of each group by level, as in global=5,sector=2; levels not named have none",
    )  # fmt: skip
    fit.add_argument(
        "--trend", choices=["c", "n"], default="c", help="c: estimate means (default); n: data are centred"
    )
    fit.add_argument(
        "--missing", choices=["ml", "drop", "raise"], default="ml",
        help="missing values: fit what there is (default), leave their rows out, or stop with an error",
    )  # fmt: skip
    fit.add_argument("--start", help="pca, top-down, frobenius or random (default: pca)")
    fit.add_argument("--starts", type=int, default=1, metavar="N", help="fit from N starts, keep the best (default: 1)")
    fit.add_argument("--search", help="for the highest maximum: none, default or thorough (default: default)")
    fit.add_argument("--penalty", help="on small uniquenesses: none or soft (default: none)")
    fit.add_argument("--method", default="scoring", help="scoring (default), px-em or em")
    fit.add_argument("--maxiter", type=int, metavar="N", help="most evaluations (default: 1000; 50000 for EM)")
    fit.add_argument(
        "--tol", type=float, metavar="NATS",
        help="stop when less log-likelihood than this is still to be gained (default: 1e-4; 0.01 for EM)",
    )  # fmt: skip
    fit.add_argument("--threads", type=int, metavar="N", help="threads (default: all that may be used)")
    fit.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random start (default: %(default)s)")
    fit.add_argument("--out", metavar="DIR", help="also write a report, tables and the results here")
    fit.add_argument("--quiet", action="store_true", help="no progress bar")
    fit.set_defaults(run=_fit)

    datasets = commands.add_parser("datasets", help="list the data sets that come with mlfm")
    datasets.set_defaults(run=_datasets)
    return parser


def _datasets(arguments: argparse.Namespace) -> int:
    from mlfm import datasets

    for name in datasets.list():
        print(f"{name:<12} {datasets.load(name).description}")
    return 0


def _fit(arguments: argparse.Namespace) -> int:
    ranks = _parse_ranks(arguments.ranks)
    _check_names(arguments)
    out = None if arguments.out is None else _made(Path(arguments.out))
    endog, groups = _read_input(arguments)
    levels = [level for level in groups.columns if level in ranks]
    unknown = [level for level in ranks if level not in ("global", *groups.columns)]
    if unknown:
        raise BadInput(
            f"--ranks: unknown level {listing(unknown)}; the levels are {listing(['global', *groups.columns])}"
        )

    from mlfm.model import MultilevelFactorModel

    with warnings.catch_warnings():
        # Said in a line of our own, without the place in the code.
        warnings.simplefilter("always", MlfmWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"mlfm: warning: {message}", file=sys.stderr)
        try:
            model = MultilevelFactorModel(
                endog, hierarchy=groups[levels], ranks=ranks, trend=arguments.trend, missing=arguments.missing
            )
        except (ValueError, TypeError) as error:
            raise BadInput(str(error)) from error
        try:
            results = model.fit(
                start=arguments.start,
                method=arguments.method,
                maxiter=arguments.maxiter,
                tol=arguments.tol,
                n_threads=arguments.threads,
                rng=arguments.seed,
                n_starts=arguments.starts,
                search=arguments.search,
                penalty=arguments.penalty,
                disp=sys.stderr.isatty() and not arguments.quiet,
            )
        except (ValueError, FloatingPointError) as error:
            raise BadInput(str(error)) from error
    print(results.summary())
    if out is not None:
        _write(results, out)
    return 0


def _check_names(arguments: argparse.Namespace) -> None:
    """Names that the fit would refuse, before data are read for nothing."""
    from mlfm.estimation import METHODS, PENALTIES, SEARCHES, STARTS

    for option, known in (("start", STARTS), ("method", METHODS), ("search", SEARCHES), ("penalty", PENALTIES)):
        given = getattr(arguments, option)
        if given is not None and given not in known:
            raise BadInput(f"--{option}: must be one of {listing(known)}, not {given!r}")


def _parse_ranks(text: str) -> dict[str, int]:
    ranks: dict[str, int] = {}
    for part in text.split(","):
        level, equals, number = (piece.strip() for piece in part.rpartition("="))
        if not equals or not level:
            raise BadInput(f"--ranks: {part.strip()!r} is not of the form LEVEL=K, as in global=5,sector=2")
        if level in ranks:
            raise BadInput(f"--ranks: level {level!r} is given twice")
        try:
            ranks[level] = int(number)
        except ValueError:
            raise BadInput(f"--ranks: the rank of level {level!r} must be a whole number, not {number!r}") from None
    return ranks


def _read_input(arguments: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Data and group labels, from files or from a data set."""
    if arguments.dataset is not None:
        if arguments.data is not None or arguments.groups is not None:
            raise BadInput("--dataset: comes with its data and groups; give no DATA and no --groups beside it")
        from mlfm import datasets

        try:
            data = datasets.load(arguments.dataset)
        except ValueError as error:
            raise BadInput(f"--dataset: {error}") from error
        return data.endog, data.groups
    if arguments.data is None:
        raise BadInput("DATA is missing: name a file of data, or a data set with --dataset")
    if arguments.groups is None:
        raise BadInput("--groups is missing: name the file that holds the groups of the features")
    groups = _read_table(arguments.groups, "--groups", text=True)
    endog = _read_table(arguments.data, "DATA", text=False)
    # Feature names are text on both sides, so that columns called 1, 2, 3 meet rows called 1, 2, 3.
    groups.index, endog.columns = groups.index.map(str), endog.columns.map(str)
    return endog, groups


def _read_table(name: str, argument: str, *, text: bool) -> pd.DataFrame:
    """A table whose first column names its rows; with ``text``, values are labels and are not turned into numbers."""
    import pandas as pd

    options: dict[str, Any] = {"dtype": str, "keep_default_na": False} if text else {}
    try:
        if Path(name).suffix in (".parquet", ".pq"):
            table = pd.read_parquet(name)
            if isinstance(table.index, pd.RangeIndex) and table.index.name is None and table.shape[1]:
                table = table.set_index(table.columns[0])
        else:
            table = pd.read_csv(name, index_col=0, **options)
    except ImportError as error:
        raise BadInput(
            f"{argument}: reading Parquet needs pyarrow; install it with 'python -m pip install pyarrow'"
        ) from error
    except (OSError, ValueError, IndexError) as error:
        raise BadInput(f"{argument}: cannot read {name}: {error}") from error
    if table.shape[1] == 0 and not text:
        raise BadInput(f"{argument}: {name} has no columns besides the one that names its rows")
    return table


def _made(out: Path) -> Path:
    """The directory, made before a long fit rather than after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "summary.txt").touch()
    except OSError as error:
        raise BadInput(f"--out: cannot write to {out}: {error}") from error
    return out


def _write(results: MultilevelFactorResults, out: Path) -> None:
    from mlfm.reporting.page import report

    try:
        loadings = results.loadings.copy()
        loadings.columns = [f"{level}_{factor}" for level, factor in loadings.columns]
        loadings.rename_axis("feature").to_csv(out / "loadings.csv")
        results.uniquenesses.rename_axis("feature").to_csv(out / "uniquenesses.csv")
        uncertain = results.variance_shares().drop(columns="share")
        results.variance_explained().join(uncertain).to_csv(out / "variance_by_level.csv")
        results.variance_explained("group").to_csv(out / "variance_by_group.csv")
        results.summary_frame().rename_axis("parameter").to_csv(out / "parameters.csv")
        report(results, out / "report.html")
        (out / "summary.txt").write_text(results.summary().as_text() + "\n", encoding="utf-8")
        results.save(out / "results.pickle")
    except OSError as error:
        raise BadInput(f"--out: cannot write to {out}: {error}") from error
