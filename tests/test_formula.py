import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfm.formula.nesting import levels_in_order, levels_of
from mlfm.formula.terms import canonical, mistake, parse, written

pytestmark = pytest.mark.portable

S, SI = ("sector",), ("sector", "industry")

READ = [
    ("~ latent(1, d=2)", None, "1", [((), 2)]),
    (
        "~ 1 + market + latent(1, d=5) + latent(sector, d=3) + latent(sector:industry, d=2)",
        None,
        "1 + market",
        [((), 5), (S, 3), (SI, 2)],
    ),
    ("ret ~ 1 + latent(sector/industry, d=(3, 2))", "ret", "1", [(S, 3), (SI, 2)]),
    ("~ market + (5 | 1) + (3 | sector) + (2 | sector:industry)", None, "market", [((), 5), (S, 3), (SI, 2)]),
    ("~ 0 + latent(1, d=2)", None, "0", [((), 2)]),
    ("~ latent(1, d=2) + 0", None, "0", [((), 2)]),
    ("~ latent(1, d=2) - 1", None, "- 1", [((), 2)]),
    ("~-1+x+latent(1,d=2)", None, "-1+x", [((), 2)]),
    ("~ + x + latent(1, d=2)", None, "x", [((), 2)]),
    ("~ x + + z + latent(1, d=2)", None, "x + + z", [((), 2)]),
    ("~ latent(1, d=2) + -1", None, "-1", [((), 2)]),
    ("~ a  +  b + (2 | 1) - c*d + latent(sector, 0) + e", None, "a  +  b - c*d + e", [((), 2), (S, 0)]),
    ("~ x*-1 + (a + b)**2 + a:b - a + latent(1, d=2)", None, "x*-1 + (a + b)**2 + a:b - a", [((), 2)]),
    ("~ 1e-3*x + latent(1, d=2)", None, "1e-3*x", [((), 2)]),
    ("~ . + latent(1, d=2)", None, ".", [((), 2)]),
    # Slashes, ranks and arguments.
    ("~ latent(a/b/c, d=[3, 2, 1])", None, "1", [(("a",), 3), (("a", "b"), 2), (("a", "b", "c"), 1)]),
    ("~ latent(a:b/c, 1)", None, "1", [(("a", "b"), 1), (("a", "b", "c"), 1)]),
    ("~ latent(a/b:c, 1)", None, "1", [(("a",), 1), (("a", "b", "c"), 1)]),
    ("~ latent(1/sector, d=(4, 2))", None, "1", [((), 4), (S, 2)]),
    ("~ ((3, 2) | sector/industry)", None, "1", [(S, 3), (SI, 2)]),
    ("~ (3 | sector/industry)", None, "1", [(S, 3), (SI, 3)]),
    ("~ latent(sector, d=(3))", None, "1", [(S, 3)]),
    ("~ latent(sector, d=(3,),)", None, "1", [(S, 3)]),
    ("~ latent (sector , d = 12, )", None, "1", [(S, 12)]),
    # Names.
    ("~ latent(`GICS sector`:`sub-industry`, d=2)", None, "1", [(("GICS sector", "sub-industry"), 2)]),
    ("~ latent(`a + latent(b | c)`, d=2)", None, "1", [(("a + latent(b | c)",), 2)]),
    ("~ latent(`a``b`, d=2) + latent(`1`, d=1) + latent(1, d=1)", None, "1", [(("a`b",), 2), (("1",), 1), ((), 1)]),
    ("~ Größe + latent(分野:Größe, d=2)", None, "Größe", [(("分野", "Größe"), 2)]),
    ("~ latent(class, d=2) + latent(d, d=1) + (1 | r)", None, "1", [(("class",), 2), (("d",), 1), (("r",), 1)]),
    (
        "~ latent + latent_x + my_latent(x) + latent(latent, d=2)",
        None,
        "latent + latent_x + my_latent(x)",
        [(("latent",), 2)],
    ),
    (
        "~ C(latent) + latent[0] + obj.latent(x) + latent(1, d=2)",
        None,
        "C(latent) + latent[0] + obj.latent(x)",
        [((), 2)],
    ),
    # Quotes and calls in the mean part are left alone.
    ("~ C(a, Treatment('latent(')) + latent(1, d=2)", None, "C(a, Treatment('latent('))", [((), 2)]),
    ('~ Q("a | b") + Q("x ~ y") + latent(1, d=2)', None, 'Q("a | b") + Q("x ~ y")', [((), 2)]),
    (
        "~ I(a|b) + np.where(a | (b > 0), '|)', \"(\") + (1|1)",
        None,
        "I(a|b) + np.where(a | (b > 0), '|)', \"(\")",
        [((), 1)],
    ),
    (r"~ Q('it\'s + (') + Q(r'\') ~ (') + (1 | 1)", None, r"Q('it\'s + (') + Q(r'\') ~ (')", [((), 1)]),
    ("~ Q('''a' + \"\n(''') + (1 | 1)", None, "Q('''a' + \"\n(''')", [((), 1)]),
    ("~ `a + (` + {x + 1} + bs(x, df=4)[:, 1:] + (1 | 1)", None, "`a + (` + {x + 1} + bs(x, df=4)[:, 1:]", [((), 1)]),
    ("~ C(x)[a | b] + f(lambda x: x | ~1) + (1 | 1)", None, "C(x)[a | b] + f(lambda x: x | ~1)", [((), 1)]),
    # Responses and white space.
    ("  np.log(ret + 1) - rf ~ (1 | 1)", "np.log(ret + 1) - rf", "1", [((), 1)]),
    ("Q('~') ~ (1 | 1)", "Q('~')", "1", [((), 1)]),
    ("~\n  1 + market\n  + latent(\n    sector,\n    d=3\n  )\n\t- x\n", None, "1 + market - x", [(S, 3)]),
    ("ret\t~\tx\n + y + (1\n|\n1)", "ret", "x\n + y", [((), 1)]),
]


@pytest.mark.parametrize(("text", "response", "mean", "latent"), READ, ids=lambda value: str(value)[:40])
def test_a_formula_is_taken_apart(text, response, mean, latent):
    formula = parse(text)
    assert (formula.text, formula.response, formula.mean) == (text, response, mean)
    assert [(term.names, term.rank) for term in formula.latent] == latent


@pytest.mark.parametrize(("text", "response", "mean", "latent"), READ, ids=lambda value: str(value)[:40])
def test_the_canonical_formula_says_the_same(text, response, mean, latent):
    again = parse(canonical(response, mean, latent))
    assert (again.response, again.mean) == (response, mean)
    assert [(term.names, term.rank) for term in again.latent] == latent


REFUSED = [
    # Where a latent term may stand.
    (
        "~ 1 - latent(sector, d=2)",
        "    ^^^^^^^^^^^^^^^^^^^^^",
        "cannot be taken away; leave it out",
    ),
    (
        "~ 1 -(2 | sector)",
        "    ^^^^^^^^^^^^^",
        "cannot be taken away; leave it out",
    ),
    (
        "~ x:latent(sector, d=1)",
        "    ^^^^^^^^^^^^^^^^^^^",
        "no part of a product or interaction; add it",
    ),
    (
        "~ latent(sector, d=1)*x",
        "  ^^^^^^^^^^^^^^^^^^^",
        "no part of a product or interaction; add it",
    ),
    (
        "~ x * + latent(sector, d=1)",
        "        ^^^^^^^^^^^^^^^^^^^",
        "no part of a product or interaction; add it",
    ),
    (
        "~ x * -latent(sector, d=1)",
        "       ^^^^^^^^^^^^^^^^^^^",
        "no part of a product or interaction; add it",
    ),
    (
        "~ x latent(1, d=1)",
        "    ^^^^^^^^^^^^^^",
        "no part of a product or interaction; add it",
    ),
    (
        "~ latent(1, d=1)[0]",
        "  ^^^^^^^^^^^^^^",
        "no part of a product or interaction; add it",
    ),
    (
        "~ np.log(latent(1, d=1))",
        "         ^^^^^^^^^^^^^^",
        "outside all brackets and other calls; add it",
    ),
    (
        "~ (x + latent(sector, d=1))",
        "       ^^^^^^^^^^^^^^^^^^^",
        "outside all brackets and other calls; add it",
    ),
    (
        "~ (latent(1, d=1))",
        "   ^^^^^^^^^^^^^^",
        "outside all brackets and other calls; add it",
    ),
    (
        "latent(1, d=1) ~ x",
        "^^^^^^^^^^^^^^",
        "belongs on the right of ~",
    ),
    # Bars.
    (
        "~ x + 3 | sector",
        "      ^^^^^^^^^^",
        "goes in parentheses: (3 | sector); for an operation on columns write I(a | b)",
    ),
    (
        "~ a | b + (1 | 1)",
        "  ^^^^^",
        "for an operation on columns write I(a | b)",
    ),
    (
        "~ (3 || sector)",
        "     ^^",
        "written with one bar",
    ),
    (
        "~ x:(3 | sector)",
        "       ^",
        "a term of its own",
    ),
    (
        "~ ((3 | sector))",
        "      ^",
        "a term of its own",
    ),
    (
        "~ (3 | a | b)",
        "         ^",
        "a level is written 1 (the global one)",
    ),
    (
        "~ (1 + x | sector)",
        "   ^^^^^",
        "a whole number, 0 or more, not 1 + x",
    ),
    (
        "~ ( | sector)",
        "  ^^^^^^^^^^^",
        "the number of factors stands before the bar",
    ),
    (
        "~ (3 | )",
        "  ^^^^^^",
        "the level stands after the bar",
    ),
    # Arguments.
    (
        "~ latent(sector)",
        "  ^^^^^^^^^^^^^^",
        "how many factors? Write latent(sector, d=2), say",
    ),
    (
        "~ latent(`a b`:c, d=)",
        "  ^^^^^^^^^^^^^^^^^^^",
        "how many factors? Write latent(`a b`:c, d=2), say",
    ),
    (
        "~ latent()",
        "  ^^^^^^^^",
        "needs a level: latent(1, d=2) or latent(sector, d=2)",
    ),
    (
        "~ latent(d=2)",
        "  ^^^^^^^^^^^",
        "needs a level: latent(1, d=2) or latent(sector, d=2)",
    ),
    (
        "~ latent(sector, rank=2)",
        "                 ^^^^",
        "does not know rank; the number of factors is d: latent(sector, d=2)",
    ),
    (
        "~ latent(sector, 2, d=2)",
        "  ^^^^^^^^^^^^^^^^^^^^^^",
        "takes one level and one d; a level nested in another is latent(sector:industry, d=2)",
    ),
    (
        "~ latent(sector, industry, d=2)",
        "  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        "takes one level and one d; a level nested in another is latent(sector:industry, d=2)",
    ),
    (
        "~ latent(d=2, sector)",
        "              ^^^^^^",
        "the level comes first",
    ),
    (
        "~ latent(sector,, d=2)",
        "  ^^^^^^^^^^^^^^^^^^^^",
        "nothing before a comma",
    ),
    # Numbers of factors.
    (
        "~ latent(sector, d=2.5)",
        "                   ^^^",
        "a whole number, 0 or more, not 2.5",
    ),
    (
        "~ latent(sector, d=-1)",
        "                   ^^",
        "a whole number, 0 or more, not -1",
    ),
    (
        "~ latent(sector, d=True)",
        "                   ^^^^",
        "a whole number, 0 or more, not True",
    ),
    (
        '~ latent(sector, d="3")',
        "                   ^^^",
        'a whole number, 0 or more, not "3"',
    ),
    (
        "~ latent(sector, k)",
        "                 ^",
        "a whole number, 0 or more, not k",
    ),
    (
        "~ latent(sector/industry, d=(3, 1e1))",
        "                                ^^^",
        "a whole number, 0 or more, not 1e1",
    ),
    (
        "~ latent(sector/industry, d=(3,, 2))",
        "                            ^^^^^^^",
        "a whole number, 0 or more, not (3,, 2)",
    ),
    (
        "~ latent(sector/industry, d=(3, 2, 1))",
        "                            ^^^^^^^^^",
        "3 numbers for 2 levels (sector, sector:industry); give one each, or a single number for all",
    ),
    (
        "~ ((3, 2) | sector)",
        "   ^^^^^^",
        "2 numbers for 1 level (sector)",
    ),
    (
        "~ latent(sector, d=())",
        "                   ^^",
        "0 numbers for 1 level (sector)",
    ),
    # Levels.
    (
        "~ latent('sector', d=2)",
        "         ^^^^^^^^",
        "named without quotes",
    ),
    (
        "~ latent(sector + industry, d=2)",
        "                ^",
        "a level is written 1 (the global one), sector, sector:industry",
    ),
    (
        "~ latent(GICS sector, d=2)",
        "              ^^^^^^",
        "a name that is not a plain word goes in backticks",
    ),
    (
        "~ latent(latent(1, d=1), d=1)",
        "               ^^^^^^^^",
        "a level is written 1",
    ),
    (
        "~ latent(2, d=2)",
        "         ^",
        "a level is written 1",
    ),
    (
        "~ latent(sector:, d=2)",
        "               ^",
        "there is no name after this :",
    ),
    (
        "~ latent(1:sector, d=2)",
        "         ^",
        "stands alone or before a slash",
    ),
    (
        "~ latent(sector/1, d=2)",
        "                ^",
        "stands alone or before a slash",
    ),
    (
        "~ latent(a:b:a, d=2)",
        "             ^",
        "a stands twice in one level",
    ),
    (
        "~ latent(sector, d=1) + latent(sector/industry, d=2)",
        "                               ^^^^^^",
        "the level sector is given twice",
    ),
    (
        "~ latent(a:b, d=1) + (2 | b:a)",
        "                          ^^^",
        "the level b:a is given twice",
    ),
    (
        "~ (1 | 1) + latent(1, d=0)",
        "                   ^",
        "the level 1 is given twice",
    ),
    # The formula as a whole.
    (
        "y + latent(1, d=2)",
        "^^^^^^^^^^^^^^^^^^",
        "needs a ~ before its terms",
    ),
    (
        "",
        "^",
        "needs a ~ before its terms",
    ),
    (
        "y ~ x ~ latent(1, d=2)",
        "      ^",
        "a formula has one ~",
    ),
    (
        "y ~ 1 + latent",
        "    ^^^^^^^^^^",
        "at least one latent term; add latent(1, d=2), say",
    ),
    (
        "y ~",
        "  ^",
        "at least one latent term; add latent(1, d=2), say",
    ),
    (
        "~ 1 + + latent(1, d=2)",
        "      ^",
        "no term before this +",
    ),
    (
        "~ latent(1, d=2) + + x",
        "                   ^",
        "no term before this +",
    ),
    (
        "~ latent(1, d=2) +",
        "                 ^",
        "no term after this +",
    ),
    (
        "~ latent(1, d=2) + x -  ",
        "                     ^",
        "no term after this -",
    ),
    # Brackets and quotes.
    (
        "~ latent(1, d=2",
        "        ^",
        "( is never closed; close it with )",
    ),
    (
        "~ x) + latent(1, d=2)",
        "   ^",
        ") closes a bracket that was never opened",
    ),
    (
        "~ latent(1, d=(2])",
        "              ^^^",
        "( is closed by ]; close it with )",
    ),
    (
        "~ Q('a) + latent(1, d=2)",
        "    ^",
        "this quote opens a string that is never closed",
    ),
    (
        "~ Q(rb'''a') + latent(1, d=2)",
        "    ^^^^^",
        "this quote opens a string that is never closed",
    ),
    (
        "~ latent(`sector, d=2)",
        "         ^",
        "this backtick opens a name that is never closed",
    ),
    (
        "~ latent(``, d=2)",
        "         ^^",
        "no name between these backticks",
    ),
    # What a screen shows wide, or not at all.
    (
        "~ 分野 + latent(分野, d=x)",
        "                        ^",
        "a whole number, 0 or more, not x",
    ),
    (
        "~ e\u0301\t+ latent(`分 野`:`分 野`, d=1)",
        "   \t                 ^^^^^^^",
        "`分 野` stands twice in one level",
    ),
]


@pytest.mark.parametrize(("text", "carets", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_mistake_is_shown_in_its_place(text, carets, message):
    with pytest.raises(ValueError) as caught:
        parse(text)
    words, line, below = str(caught.value).split("\n")
    assert message in words
    assert line == f"    {text}"
    assert below == f"    {carets}"


def test_a_mistake_in_many_lines_shows_the_one():
    with pytest.raises(ValueError) as caught:
        parse("~ 1 + x\r\n  + latent(sector, d=2)\r\n  - latent(industry,\r\n      d=2)\r\n")
    assert str(caught.value).split("\n")[1:] == ["      - latent(industry,", "      ^^^^^^^^^^^^^^^^^^"]
    with pytest.raises(ValueError) as caught:
        parse("\n  x +\n  latent(1, d=1)")
    assert str(caught.value).split("\n")[1:] == ["      x +", "      ^^^"]


def test_mistake_at_the_end_of_a_formula():
    assert str(mistake("~ x", (3, 3), "more")) == "more\n    ~ x\n       ^"


@pytest.mark.parametrize("text", [None, 3, b"~ latent(1, d=2)", ["~ x"]])
def test_a_formula_is_a_string(text):
    with pytest.raises(TypeError, match="a formula is a string"):
        parse(text)


def test_a_term_says_where_its_level_stands():
    text = "~ latent(1/a:b/c, d=1) + (2 | `x y`)"
    places = [text[slice(*term.place)] for term in parse(text).latent]
    assert places == ["1", "1/a:b", "1/a:b/c", "`x y`"]


def test_canonical_is_plain():
    latent = [((), 5), (S, 3), (("sector", "sub industry"), 2)]
    terms = "latent(1, d=5) + latent(sector, d=3) + latent(sector:`sub industry`, d=2)"
    assert canonical(None, "1 + market", latent) == f"~ 1 + market + {terms}"
    assert canonical("ret", "0", latent) == f"ret ~ 0 + {terms}"
    assert written(()) == "1"
    assert written(("a`b", "class", "1")) == "`a``b`:class:`1`"


NAMES = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=3, unique=True).map(tuple)
LEVELS = st.lists(st.just(()) | NAMES, min_size=1, max_size=4, unique_by=frozenset)
MEANS = st.sampled_from(["1", "0", "- 1", "-1 + x", "x*-1", "Q('latent(') + `a + b`", "(a + b)**2", "a\n+ b"])


@given(st.sampled_from([None, "ret", "np.log(ret) - rf"]), MEANS, LEVELS, st.integers(0, 99))
def test_canonical_round_trip(response, mean, levels, rank):
    latent = [(names, rank + i) for i, names in enumerate(levels)]
    formula = parse(canonical(response, mean, latent))
    assert (formula.response, formula.mean) == (response, mean)
    assert [(term.names, term.rank) for term in formula.latent] == latent


@given(st.text(alphabet="~ ab1+-:/|,=().'`\\\nd", max_size=30) | st.text(max_size=30))
def test_every_text_is_read_or_refused_in_words(text):
    try:
        formula = parse(f"~ latent(1, d=2) + {text}")
    except ValueError as error:
        below = str(error).split("\n")[-1]
    else:
        assert formula.latent[0][:2] == ((), 2)
        below = "^"
    assert set(below.strip()) == {"^"}


# Levels.

LABELS = pd.DataFrame(
    {
        "country": ["US", "US", "US", "DE", "DE", "DE"],
        "sector": ["Tech", "Tech", "Energy", "Chemicals", "Chemicals", "Cars"],
        "industry": ["Chips", "Other", "Other", "Other", "Paint", "Cars"],
    },
    index=list("abcdef"),
)


def test_only_the_named_levels_are_kept():
    hierarchy, ranks = levels_of(
        parse("~ latent(sector:industry, d=1) + latent(1, d=3) + latent(country, d=0)"), LABELS
    )
    assert hierarchy.levels == ("global", "country", "industry")
    assert list(ranks.items()) == [("global", 3), ("country", 0), ("industry", 1)]
    assert [list(group) for group in hierarchy.groups("industry").values()] == [
        ["a"],
        ["b"],
        ["c"],
        ["d"],
        ["e"],
        ["f"],
    ]


def test_a_level_alone_is_the_nested_level_where_labels_are_unique():
    alone, ranks = levels_of(parse("~ latent(sector, d=2)"), LABELS)
    assert (alone.levels, ranks) == (("global", "sector"), {"sector": 2})
    for text in ["~ latent(country:sector, d=2)", "~ (2 | sector:country)"]:
        assert levels_of(parse(text), LABELS) == (alone, ranks)


def test_only_the_global_level():
    hierarchy, ranks = levels_of(parse("~ latent(1, d=2)"), LABELS)
    assert (hierarchy.levels, ranks) == (("global",), {"global": 2})
    assert levels_of(parse("~ latent(1, d=2)"), LABELS[[]])[1] == {"global": 2}


def test_columns_match_by_their_text():
    labels = LABELS.set_axis([1, "GICS sector", 2.5], axis=1)
    hierarchy, ranks = levels_of(parse("~ latent(`1`/`GICS sector`/`2.5`, d=1)"), labels)
    assert hierarchy.levels == ("global", 1, "GICS sector", 2.5)
    assert ranks == {1: 1, "GICS sector": 1, 2.5: 1}
    with pytest.raises(ValueError, match="two label columns are both written `1`"):
        levels_of(parse("~ latent(1, d=1)"), LABELS.set_axis([1, "1", 2.5], axis=1))


def refusal(read, text, labels):
    with pytest.raises(ValueError) as caught:
        read(parse(text), labels)
    words, line, below = str(caught.value).split("\n")
    assert line == f"    {text}"
    return words, below.removeprefix("    ")


@pytest.mark.parametrize("read", [levels_of, levels_in_order])
def test_an_unknown_level_is_refused(read):
    words, carets = refusal(read, "~ latent(1, d=2) + latent(sectr:industry, d=2)", LABELS)
    assert carets == "                          ^^^^^^^^^^^^^^"
    assert words == "unknown level 'sectr'; the levels are 1 (the global one), country, sector, industry"


def test_a_level_that_is_not_nested_as_written_is_refused():
    words, carets = refusal(levels_of, "~ latent(1, d=2) + latent(industry, d=4)", LABELS)
    assert carets == "                          ^^^^^^^^"
    assert words == (
        "industry is not nested as written: the same label occurs in several groups of sector: "
        "'Other' (in 'Tech', 'Energy', 'Chemicals'); to make a group of each, write latent(sector:industry, d=4)"
    )
    words, carets = refusal(levels_of, "~ (2 | country/industry)", LABELS)
    assert carets == "       ^^^^^^^^^^^^^^^^"
    assert "('US', 'Other') (in 'Tech', 'Energy'); to make" in words
    assert words.endswith("write latent(country:sector:industry, d=2)")


def test_names_that_are_needed_above_are_all_shown():
    labels = pd.DataFrame({"a": list("xxyy"), "b": list("pqpq"), "c": list("kkkk")}, index=range(4))
    words, _ = refusal(levels_of, "~ latent(c, d=2)", labels)
    assert "several groups of a:b: 'k' (in ('x', 'p'), ('x', 'q'), ('y', 'p') and 1 more)" in words
    assert words.endswith("write latent(a:b:c, d=2)")
    words, _ = refusal(levels_of, "~ latent(b:c, d=2)", labels)
    assert "several groups of a: ('p', 'k') (in 'x', 'y')" in words


def test_the_same_level_in_two_ways_is_given_twice():
    words, carets = refusal(levels_of, "~ latent(sector, d=1) + latent(country:sector, d=2)", LABELS)
    assert carets == "                               ^^^^^^^^^^^^^^"
    assert "the level sector is given twice, as sector and as country:sector" in words


def test_missing_labels_are_the_hierarchys_to_refuse():
    labels = LABELS.replace({"sector": {"Cars": None}})
    with pytest.raises(ValueError, match="level 'sector': missing or empty labels"):
        levels_of(parse("~ latent(sector, d=1)"), labels)
    assert levels_in_order(parse("~ latent(sector, d=1) + latent(country, d=1)"), labels) == ["country", "sector"]


LONG = LABELS[["industry", "country", "sector"]].sample(60, replace=True, random_state=1).reset_index(drop=True)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("~ latent(1, d=2)", []),
        ("~ latent(sector, d=1) + latent(country, d=1)", ["country", "sector"]),
        ("~ latent(sector/industry, d=1)", ["sector", "industry"]),
        ("~ latent(industry:sector, d=1)", ["industry", "sector"]),
        ("~ latent(sector:country, d=1)", ["country", "sector"]),
        ("~ latent(sector:industry, d=1) + latent(country, d=1)", ["country", "sector", "industry"]),
        ("~ latent(sector:country:industry, d=1) + (1 | sector)", ["country", "sector", "industry"]),
    ],
)
def test_order_of_levels_in_long_data(text, order):
    formula = parse(text)
    assert levels_in_order(formula, LONG) == order
    features = LABELS[order]
    hierarchy, ranks = levels_of(formula, features)
    assert set(ranks) <= set(hierarchy.levels)


def test_few_labels_nested_in_many():
    labels = pd.DataFrame({"sector": np.repeat(list("abcdef"), 4), "size": ["small", "large"] * 12})
    assert levels_in_order(parse("~ latent(sector/size, d=1)"), labels) == ["sector", "size"]
    labels["region"] = labels["sector"].map(dict(zip("abcdef", "nnnsss", strict=True)))
    labels["firm"] = np.arange(24)
    formula = parse("~ latent(firm, d=1) + latent(sector/size, d=1) + latent(region, d=1)")
    assert levels_in_order(formula, labels) == ["region", "sector", "size", "firm"]


def test_levels_that_cross_are_refused_unless_nested():
    labels = pd.DataFrame({"sector": list("aabbcc"), "country": ["US", "DE"] * 3})
    words, carets = refusal(levels_in_order, "~ latent(sector, d=2) + latent(country, d=3)", labels)
    assert carets == "         ^^^^^^"
    assert words == (
        "sector is not nested as written: the same label occurs in several groups of country: 'a' (in 'US', 'DE'), "
        "'b' (in 'US', 'DE'), 'c' (in 'US', 'DE'); to make a group of each, write latent(country:sector, d=2)"
    )
    assert levels_in_order(parse("~ latent(sector/country, d=2)"), labels) == ["sector", "country"]
    assert levels_in_order(parse("~ latent(country/sector, d=2)"), labels) == ["country", "sector"]


def test_a_level_written_below_one_that_lies_in_it():
    labels = pd.DataFrame({"code": [1, 1, 2], "sector": ["a", "a", "b"]})
    assert levels_in_order(parse("~ latent(sector:code, d=1)"), labels) == ["sector", "code"]
    words, carets = refusal(levels_in_order, "~ latent(industry/sector, d=1)", LABELS.iloc[[0, 1, 4, 5]])
    assert carets == "         ^^^^^^^^^^^^^^^"
    assert "given twice" in words


def test_terms_that_disagree_about_an_order_still_nest():
    labels = pd.DataFrame({"a": list("xxyyxxyy"), "b": list("ppqqqqpp"), "c": range(8)})
    assert levels_in_order(parse("~ latent(a:b:c, d=1) + latent(b:a, d=1)"), labels) == ["b", "a", "c"]


CODES = st.lists(st.tuples(*[st.sampled_from("xyz")] * 3), min_size=1, max_size=6)
TERMS = st.lists(st.permutations("abc").flatmap(lambda p: st.sampled_from([p[:1], p[:2], p])), min_size=1, max_size=3)


@given(CODES, TERMS)
def test_groups_are_those_of_the_term_or_the_formula_is_refused(codes, terms):
    labels = pd.DataFrame(codes, columns=list("abc"))
    try:
        formula = parse(canonical(None, "1", [(tuple(names), 1) for names in terms]))
        order = levels_in_order(formula, labels)
    except ValueError:
        return
    # What one function accepts the other does too.
    hierarchy, _ = levels_of(formula, labels[order])
    for term in formula.latent:
        groups = hierarchy.groups(max(term.names, key=order.index))
        expected = labels.groupby(labels[list(term.names)].agg("".join, axis=1)).groups.values()
        assert sorted(map(list, groups.values())) == sorted(map(list, expected))
