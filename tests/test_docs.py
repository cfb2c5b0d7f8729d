"""The examples in the documentation run and print what they say."""

import doctest
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from mlfm import cli

pytestmark = pytest.mark.portable

PAGES = sorted((Path(__file__).parent.parent / "docs").glob("*.rst"))
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
SUMMARY = "Multilevel Factor Model Results"
# Cells of a summary that say how the fit went, not what it found.
COURSE = re.compile(
    r"(Method:|Start:|Evaluations:|Still to gain:|Score norm:|Maximum reached:)\s+"
    r"(ML \([^)]*\)|\d+ of \d+ climbs?|\S+)"
)
NUMBER = re.compile(r"-?\d+(\.\d+)?")


class Checker(doctest.OutputChecker):
    """As doctest's, but a summary's numbers need only agree as far as two converged fits do."""

    def check_output(self, want, got, optionflags):
        return super().check_output(want, got, optionflags) or (SUMMARY in want and same_summary(want, got))


def same_summary(want, got, tolerance=0.05):
    want = want.replace(doctest.BLANKLINE_MARKER, "")
    if want.rstrip().endswith("..."):
        want = want.rstrip().removesuffix("...").rstrip()
        got = "\n".join(got.splitlines()[: len(want.splitlines())])
    (words, numbers), (other_words, other_numbers) = map(words_and_numbers, (want, got))
    return words == other_words and all(
        abs(a - b) <= tolerance for a, b in zip(sorted(numbers), sorted(other_numbers), strict=True)
    )


def words_and_numbers(text):
    """Those of a summary, in any order: features with nearly equal loadings may change places."""
    tokens = [token for token in COURSE.sub(r"\1", text).split() if set(token) - set("=-")]
    numbers = [float(token) for token in tokens if NUMBER.fullmatch(token)]
    words = Counter("number" if NUMBER.fullmatch(token) else token for token in tokens)
    return words, numbers


def commands(text):
    """Commands of mlfm in console blocks, each with the output that is shown for it."""
    for block in re.findall(r"^\.\. code-block:: console\n((?:[ \t]*\n| +.*\n)+)", text + "\n", re.MULTILINE):
        lines = [line.strip() for line in block.strip().splitlines()]
        starts = [i for i, line in enumerate(lines) if line.startswith("$ ")]
        for first, last in zip(starts, [*starts[1:], len(lines)], strict=True):
            yield lines[first].removeprefix("$ "), "\n".join(lines[first + 1 : last]).strip() + "\n"


def test_there_are_pages():
    assert PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")

    examples = doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, page.name, str(page), 0)
    said = []
    doctest.DocTestRunner(Checker(), verbose=False, optionflags=FLAGS).run(examples, out=said.append)
    assert not said, "".join(said)

    for command, want in commands(text):
        program, *arguments = shlex.split(command)
        assert program == "mlfm", command
        capsys.readouterr()
        cli.main(arguments)
        shown = capsys.readouterr()
        got = shown.err + shown.out
        assert Checker().check_output(want, got, FLAGS), f"$ {command}\n{got}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_leftovers(page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"TODO|FIXME|XXX|(?<!\w)/(?:home|tmp|work|Users)/", text)
