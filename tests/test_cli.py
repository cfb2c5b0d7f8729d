import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import mlfm
from mlfm.cli import main

pytestmark = pytest.mark.portable


@pytest.fixture
def files(tmp_path):
    data = mlfm.datasets.load("abilities")
    data.endog.to_csv(tmp_path / "data.csv")
    data.endog.to_csv(tmp_path / "data.csv.gz")
    data.endog.to_parquet(tmp_path / "data.parquet")
    data.groups.to_csv(tmp_path / "groups.csv")
    data.groups.assign(note="words").to_parquet(tmp_path / "groups.parquet")
    return tmp_path


def test_a_fit_prints_its_summary(capsys):
    assert main(["fit", "--dataset", "abilities", "--ranks", "global=1,ability=1"]) == 0
    out, err = capsys.readouterr()
    assert "Multilevel Factor Model Results" in out
    assert "-9673.06" in out
    assert err == ""


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_file_formats(files, suffix, capsys):
    groups = "groups.parquet" if suffix == "parquet" else "groups.csv"
    code = main(
        ["fit", str(files / f"data.{suffix}"), "--groups", str(files / groups), "--ranks", "global=1,ability=1"]
    )
    assert code == 0
    assert "-9673.06" in capsys.readouterr().out


def test_a_parquet_file_whose_first_column_names_the_rows(files, capsys):
    frame = pd.read_csv(files / "data.csv").rename(columns={"child": "who"})
    frame["who"] = "child " + frame["who"].astype(str)
    frame.to_parquet(files / "named.parquet", index=False)
    pd.read_csv(files / "groups.csv").to_parquet(files / "plain.parquet", index=False)
    arguments = ["--groups", str(files / "plain.parquet"), "--ranks", "global=1,ability=1"]
    assert main(["fit", str(files / "named.parquet"), *arguments]) == 0
    assert "-9673.06" in capsys.readouterr().out


def test_what_is_written(files, capsys):
    out = files / "deep" / "out"
    arguments = ["fit", str(files / "data.csv"), "--groups", str(files / "groups.csv"), "--ranks", "global=2,ability=1"]
    assert main([*arguments, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert (out / "summary.txt").read_text(encoding="utf-8") == printed
    loadings = pd.read_csv(out / "loadings.csv", index_col=0)
    assert list(loadings.columns) == ["global_1", "global_2", "ability_1"]
    results = mlfm.load(out / "results.pickle")
    np.testing.assert_allclose(loadings, results.loadings)
    np.testing.assert_allclose(pd.read_csv(out / "uniquenesses.csv", index_col=0)["uniqueness"], results.uniquenesses)
    assert pd.read_csv(out / "variance_by_level.csv")["share"].sum() == pytest.approx(1)
    assert len(pd.read_csv(out / "variance_by_group.csv")) == 6
    table = pd.read_csv(out / "parameters.csv", index_col="parameter")
    np.testing.assert_allclose(table["std err"], results.bse)
    assert "Multilevel Factor Model" in (out / "report.html").read_text(encoding="utf-8")


def test_columns_without_a_rank_are_not_levels(capsys):
    assert main(["fit", "--dataset", "employment", "--ranks", "global=2", "--tol", "1"]) == 0
    out = capsys.readouterr().out
    assert "aggregate" not in out
    assert "global" in out


def test_features_called_by_numbers(tmp_path, capsys):
    rng = np.random.default_rng(0)
    pd.DataFrame(rng.standard_normal((20, 8)), columns=range(8)).to_csv(tmp_path / "data.csv")
    pd.DataFrame({"g": [1, 1, 1, 1, 2, 2, 2, 2]}).to_csv(tmp_path / "groups.csv")
    arguments = ["fit", str(tmp_path / "data.csv"), "--groups", str(tmp_path / "groups.csv"), "--ranks", "g=1"]
    assert main([*arguments, "--tol", "1"]) == 0


def test_warnings_are_said_in_a_line(files, capsys):
    frame = pd.read_csv(files / "data.csv", index_col=0)
    frame.iloc[3, 3] = np.nan
    frame.to_csv(files / "gaps.csv")
    arguments = ["fit", str(files / "gaps.csv"), "--groups", str(files / "groups.csv"), "--ranks", "global=1"]
    assert main([*arguments, "--missing", "drop"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("mlfm: warning: 1 observation of 301 left out")
    assert main([*arguments, "--missing", "drop", "--maxiter", "2"]) == 0
    assert "mlfm: warning: the fit did not converge" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--ranks global=1", "DATA is missing"),
        ("data.csv --ranks global=1", "--groups is missing"),
        ("nope.csv --groups groups.csv --ranks global=1", "DATA: cannot read"),
        ("data.csv --groups nope.csv --ranks global=1", "--groups: cannot read"),
        ("data.csv --groups groups.csv --ranks global", "'global' is not of the form LEVEL=K"),
        ("data.csv --groups groups.csv --ranks global=x", "must be a whole number, not 'x'"),
        ("data.csv --groups groups.csv --ranks global=1,global=2", "given twice"),
        ("data.csv --groups groups.csv --ranks sector=1", "unknown level 'sector'; the levels are 'global', 'ability'"),
        ("data.csv --groups groups.csv --ranks global=-1", "must not be negative"),
        ("data.csv --groups groups.csv --ranks global=99", "more than the 24 features"),
        ("data.csv --groups groups.csv --ranks global=1 --start x", "--start: must be one of"),
        ("data.csv --groups groups.csv --ranks global=1 --method x", "--method: must be one of"),
        ("data.csv --groups groups.csv --ranks global=1 --threads 0", "n_threads must be"),
        ("data.csv --groups other.csv --ranks global=1", "does not match the columns of endog"),
        ("groups.csv --groups groups.csv --ranks global=1", "does not match the columns of endog"),
        ("data.csv --groups groups.csv --ranks global=1 --out data.csv", "--out: cannot write"),
        ("--dataset nope --ranks global=1", "no data set 'nope'; there are 'abilities'"),
        ("--dataset abilities --groups groups.csv --ranks global=1", "no DATA and no --groups beside it"),
        ("empty.csv --groups groups.csv --ranks global=1", "DATA: cannot read"),
        ("--dataset stocks --ranks global=1 --missing raise", "values missing"),
    ],
)
def test_bad_input_exits_with_2(files, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(files)
    pd.DataFrame({"ability": ["a", "b"]}, index=["u", "v"]).to_csv("other.csv")
    (files / "empty.csv").write_text("")
    assert main(["fit", *arguments.split()]) == 2
    _out, err = capsys.readouterr()
    assert err.startswith("mlfm: ")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [[], ["fit"], ["fit", "--ranks", "global=1", "--trend", "x"], ["nope"]])
def test_bad_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: mlfm" in capsys.readouterr().err


def test_help_has_an_example(capsys):
    for arguments in (["--help"], ["fit", "--help"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        assert "mlfm fit --dataset personality" in capsys.readouterr().out


def test_datasets_are_listed(capsys):
    assert main(["datasets"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == mlfm.datasets.list()


def test_an_interrupt_is_no_traceback(monkeypatch, capsys):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mlfm.model.MultilevelFactorModel.fit", stop)
    assert main(["fit", "--dataset", "abilities", "--ranks", "global=1"]) == 130
    assert capsys.readouterr().err == "mlfm: interrupted\n"


def test_python_m_mlfm_is_the_same_program(tmp_path):
    command = [sys.executable, "-m", "mlfm", "fit", "--dataset", "abilities", "--ranks", "global=1,ability=1"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "-9673.06" in done.stdout
    assert done.stderr == ""
    version = subprocess.run([*command[:3], "--version"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert version.stdout == f"mlfm {mlfm.__version__}\n"
