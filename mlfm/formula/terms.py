"""Formula text: the mean part, left as text for whatever reads mean formulas, and the latent terms."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlfm.wording import count

Place = tuple[int, int]
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_PREFIXES = {"r", "b", "u", "f", "t", "br", "rb", "fr", "rf", "tr", "rt"}
_NUMBER = re.compile(r"(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?\w*")
_MARK = re.compile(r"\|\||\*\*|//|[=!<>]=|.", re.DOTALL)
_HOW_LEVELS_ARE_WRITTEN = (
    "a level is written 1 (the global one), sector, sector:industry or sector/industry; "
    "a name that is not a plain word goes in backticks: `GICS sector`"
)


class LatentTerm(NamedTuple):
    """Factors for every group of a level, which is named by its own name after those it nests under.

    ``names`` is empty for the global level, ``place`` is where the level stands in the formula.
    """

    names: tuple[str, ...]
    rank: int
    place: Place


@dataclass(frozen=True)
class Formula:
    """A formula taken apart: response and mean part as written, latent terms with slashes written out."""

    text: str
    response: str | None
    mean: str
    latent: tuple[LatentTerm, ...]


class _Piece(NamedTuple):
    """A word, quoted text, number or mark of the formula, or a bracket with the pieces inside it."""

    kind: str
    text: str
    start: int
    stop: int
    inside: tuple[_Piece, ...] = ()


class _Term(NamedTuple):
    """What stands between plus and minus signs at the top level, and the signs before it."""

    signs: Sequence[_Piece]
    body: Sequence[_Piece]


def parse(text: str) -> Formula:
    """Take a formula apart into response, mean part and latent terms.

    A latent term is ``latent(level, d=rank)`` or ``(rank | level)``. The level is ``1`` (the global one), a name,
    ``a:b`` (level b nested in a) or ``a/b`` (both a and a:b, with one rank for both or one each).

    Raises
    ------
    TypeError
        If the formula is not a string.
    ValueError
        If it cannot be read, has no latent term or gives a level twice; the message shows the place.

    Examples
    --------
    >>> formula = parse("ret ~ 1 + market + latent(1, d=5) + latent(sector/industry, d=(3, 2))")
    >>> formula.response, formula.mean
    ('ret', '1 + market')
    >>> [(written(term.names), term.rank) for term in formula.latent]
    [('1', 5), ('sector', 3), ('sector:industry', 2)]
    """
    if not isinstance(text, str):
        raise TypeError(f"a formula is a string such as '~ 1 + latent(1, d=2)', not {type(text).__name__}")
    pieces = _pieces(text)
    tilde = _tilde(text, pieces)
    response, right = pieces[:tilde], pieces[tilde + 1 :]
    for place in _latent_calls(response):
        raise mistake(text, place, "a latent term belongs on the right of ~")
    stretches: list[Place] = []
    latent: list[LatentTerm] = []
    starts_anew = True
    for term in _terms(right):
        _refuse_empty(text, term, starts_anew)
        found = _latent_terms(text, term)
        latent += found
        if not found:
            _refuse_latent_within(text, term.body)
            # Neighbouring mean terms are one stretch of the text: what stands between them stays as it is.
            start = _extent([*term.signs, *term.body])[0] if starts_anew else stretches.pop()[0]
            stretches.append((start, term.body[-1].stop))
        starts_anew = bool(found)
    if not latent:
        place = _extent(right or pieces[tilde:])
        raise mistake(text, place, "a model needs at least one latent term; add latent(1, d=2), say")
    _refuse_twice(text, latent)
    mean = " ".join(text[start:stop] for start, stop in stretches).removeprefix("+").lstrip()
    return Formula(text, text[: pieces[tilde].start].strip() or None, mean or "1", tuple(latent))


def mistake(text: str, place: Place, message: str) -> ValueError:
    """The error for a place in a formula: the message, the line of the formula, and carets under the place."""
    start, stop = place
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", start)
    last = len(text) if last < 0 else last
    # Tabs stay tabs, so that the carets stand right however wide they are shown.
    before = "".join(char if char == "\t" else " " * _width(char) for char in text[first:start])
    carets = "^" * max(1, sum(_width(char) for char in text[start : min(stop, last)].rstrip("\r")))
    line = text[first:last].rstrip("\r")
    return ValueError(f"{message}\n    {line}\n    {before}{carets}")


def written(names: Sequence[str]) -> str:
    """A level as a formula writes it, with backticks where they are needed."""
    return ":".join(name if name.isidentifier() else f"`{name.replace('`', '``')}`" for name in names) or "1"


def canonical(response: str | None, mean: str, latent: Iterable[tuple[tuple[str, ...], int]]) -> str:
    """The formula of these parts in its plainest form, which :func:`parse` takes apart into the same parts.

    Examples
    --------
    >>> canonical(None, "1 + market", [((), 5), (("sector",), 3), (("sector", "sub industry"), 2)])
    '~ 1 + market + latent(1, d=5) + latent(sector, d=3) + latent(sector:`sub industry`, d=2)'
    """
    terms = [mean, *(f"latent({written(names)}, d={rank})" for names, rank in latent)]
    return f"{response or ''} ~ {' + '.join(terms)}".lstrip()


def _width(char: str) -> int:
    """Columns that a character takes on a screen."""
    if unicodedata.combining(char) or unicodedata.category(char) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


# From text to pieces.


def _pieces(text: str) -> list[_Piece]:
    """The pieces of a text, those in brackets inside the piece of their bracket."""
    outer: list[tuple[_Piece, list[_Piece]]] = []
    pieces: list[_Piece] = []
    for piece in _flat_pieces(text):
        if piece.text in _BRACKETS:
            outer.append((piece, pieces))
            pieces = []
        elif piece.text not in _BRACKETS.values():
            pieces.append(piece)
        elif not outer:
            raise mistake(text, _extent([piece]), f"{piece.text} closes a bracket that was never opened")
        else:
            opening, around = outer.pop()
            if piece.text != _BRACKETS[opening.text]:
                raise mistake(
                    text,
                    (opening.start, piece.stop),
                    f"{opening.text} is closed by {piece.text}; close it with {_BRACKETS[opening.text]}",
                )
            around.append(_Piece("bracket", opening.text, opening.start, piece.stop, tuple(pieces)))
            pieces = around
    if outer:
        opening = outer[-1][0]
        raise mistake(
            text, _extent([opening]), f"{opening.text} is never closed; close it with {_BRACKETS[opening.text]}"
        )
    return pieces


def _flat_pieces(text: str) -> Iterator[_Piece]:
    start = 0
    while start < len(text):
        if text[start].isspace():
            start += 1
            continue
        if text[start] == "#":
            raise mistake(text, (start, start + 1), "comments are not read in a formula; leave them out")
        kind, stop = _next_piece(text, start)
        yield _Piece(kind, text[start:stop], start, stop)
        start = stop


def _next_piece(text: str, start: int) -> tuple[str, int]:
    """What kind of piece begins here, and where it stops."""
    if text[start] == "`":
        return "backticks", _end_of_backticks(text, start)
    if number := _NUMBER.match(text, start):
        return "number", number.end()
    # What Python takes for a name, also where the pattern \w does not.
    stop = start
    while stop < len(text) and text[start : stop + 1].isidentifier():
        stop += 1
    if text[stop : stop + 1] in {"'", '"'} and (stop == start or text[start:stop].lower() in _PREFIXES):
        return "string", _end_of_string(text, start, stop)
    if stop > start:
        return "name", stop
    mark = _MARK.match(text, start)
    assert mark is not None
    return "mark", mark.end()


def _end_of_backticks(text: str, start: int) -> int:
    # Two backticks inside stand for one.
    quoted = re.compile(r"`((?:[^`]|``)*)`(?!`)").match(text, start)
    if quoted is None:
        raise mistake(text, (start, start + 1), "this backtick opens a name that is never closed")
    if not quoted[1]:
        raise mistake(text, quoted.span(), "there is no name between these backticks")
    return quoted.end()


def _end_of_string(text: str, start: int, quote: int) -> int:
    marks = text[quote] * (3 if text.startswith(text[quote] * 3, quote) else 1)
    stop = quote + len(marks)
    while stop < len(text) and not text.startswith(marks, stop):
        if text[stop] == "\n" and len(marks) == 1:
            break
        stop += 2 if text[stop] == "\\" else 1
    if not text.startswith(marks, stop):
        raise mistake(text, (start, quote + len(marks)), "this quote opens a string that is never closed")
    return stop + len(marks)


def _extent(pieces: Sequence[_Piece]) -> Place:
    return pieces[0].start, pieces[-1].stop


def _is_mark(piece: _Piece, marks: str) -> bool:
    return piece.kind == "mark" and piece.text in marks.split()


def _split(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Arguments between commas; a comma after the last is allowed, as in Python."""
    parts: list[list[_Piece]] = [[]]
    for piece in pieces:
        if _is_mark(piece, ","):
            parts.append([])
        else:
            parts[-1].append(piece)
    return parts if parts[-1] else parts[:-1]


# From pieces to terms.


def _tilde(text: str, pieces: Sequence[_Piece]) -> int:
    """Where among the pieces the tilde is that parts response and right side."""
    tildes = [i for i, piece in enumerate(pieces) if _is_mark(piece, "~")]
    if not tildes:
        place = _extent(pieces) if pieces else (0, 0)
        raise mistake(text, place, "a formula needs a ~ before its terms: ~ 1 + latent(1, d=2)")
    if len(tildes) > 1:
        raise mistake(text, _extent([pieces[tildes[1]]]), "a formula has one ~, between the response and the terms")
    return tildes[0]


def _terms(pieces: Sequence[_Piece]) -> list[_Term]:
    terms: list[tuple[list[_Piece], list[_Piece]]] = [([], [])]
    for piece in pieces:
        signs, body = terms[-1]
        # A sign after another mark belongs to what follows, as in x * -1; a dot alone is a term, all columns.
        if not _is_mark(piece, "+ -") or (body and body[-1].kind == "mark" and body[-1].text != "."):
            body.append(piece)
        elif body:
            terms.append(([piece], []))
        else:
            signs.append(piece)
    return [_Term(signs, body) for signs, body in terms if signs or body]


def _refuse_empty(text: str, term: _Term, starts_anew: bool) -> None:
    """Refuse signs without a term after them; between mean terms two signs are the mean engine's business."""
    latent = _is_latent_call(term.body, 0) or _is_barred(term.body)
    doubled = len(term.signs) > 1 and all(sign.text == "+" for sign in term.signs) and (starts_anew or latent)
    if doubled or not term.body:
        sign = term.signs[1] if doubled else term.signs[-1]
        raise mistake(text, _extent([sign]), f"there is no term {'before' if doubled else 'after'} this {sign.text}")


def _is_latent_call(pieces: Sequence[_Piece], position: int) -> bool:
    """Whether ``latent(...)`` begins here; obj.latent(...) is another function, latent alone a variable."""
    if position + 1 >= len(pieces) or (position and _is_mark(pieces[position - 1], ".")):
        return False
    name, arguments = pieces[position : position + 2]
    return (name.kind, name.text) == ("name", "latent") and (arguments.kind, arguments.text) == ("bracket", "(")


def _is_barred(body: Sequence[_Piece]) -> bool:
    """Whether a term is ``(rank | level)``."""
    return (
        len(body) == 1
        and (body[0].kind, body[0].text) == ("bracket", "(")
        and any(_is_mark(piece, "|") for piece in body[0].inside)
        and not any(_is_mark(piece, "||") for piece in body[0].inside)
    )


def _latent_calls(pieces: Sequence[_Piece]) -> Iterator[Place]:
    """Places of all latent(...) among the pieces, however deep."""
    for i, piece in enumerate(pieces):
        if _is_latent_call(pieces, i):
            yield _extent(pieces[i : i + 2])
        yield from _latent_calls(piece.inside)


def _bars_outside_calls(pieces: Sequence[_Piece]) -> Iterator[_Piece]:
    """Bars that are not inside a call, [] or {}, where they are Python's."""
    for i, piece in enumerate(pieces):
        if _is_mark(piece, "| ||"):
            yield piece
        called = i > 0 and pieces[i - 1].kind != "mark"
        if piece.text == "(" and not called:
            yield from _bars_outside_calls(piece.inside)


def _refuse_latent_within(text: str, body: Sequence[_Piece]) -> None:
    """Refuse a mean term with a latent term in it."""
    for place in _latent_calls(body):
        if any(_is_latent_call(body, i) for i in range(len(body))):
            raise mistake(text, place, "a latent term is no part of a product or interaction; add it: + latent(...)")
        raise mistake(text, place, "a latent term stands outside all brackets and other calls; add it: + latent(...)")
    for bar in _bars_outside_calls(body):
        place = _extent([bar])
        if bar.text == "||":
            raise mistake(text, place, "a latent term is written with one bar: (3 | sector)")
        if bar in body:
            raise mistake(
                text,
                _extent(body),
                "a latent term with a bar goes in parentheses: (3 | sector); "
                "for an operation on columns write I(a | b)",
            )
        raise mistake(
            text,
            place,
            "a latent term such as (3 | sector) is a term of its own, outside all brackets, products and "
            "interactions; for an operation on columns write I(a | b)",
        )


# From a term to levels and ranks.


def _latent_terms(text: str, term: _Term) -> list[LatentTerm]:
    """The latent terms that a term stands for, none if it belongs to the mean."""
    called = len(term.body) == 2 and _is_latent_call(term.body, 0)
    if not called and not _is_barred(term.body):
        return []
    if any(sign.text == "-" for sign in term.signs):
        raise mistake(text, _extent([*term.signs, *term.body]), "a latent term cannot be taken away; leave it out")
    level, rank = _arguments(text, term.body) if called else _around_bar(text, term.body[0])
    levels = _levels(text, level)
    ranks = _ranks(text, rank, levels)
    return [LatentTerm(names, rank, place) for (names, place), rank in zip(levels, ranks, strict=True)]


def _around_bar(text: str, group: _Piece) -> tuple[Sequence[_Piece], Sequence[_Piece]]:
    """Level and rank of ``(rank | level)``."""
    bar = next(i for i, piece in enumerate(group.inside) if _is_mark(piece, "|"))
    rank, level = group.inside[:bar], group.inside[bar + 1 :]
    if not rank:
        raise mistake(text, _extent([group]), "the number of factors stands before the bar: (3 | sector)")
    if not level:
        raise mistake(text, _extent([group]), "the level stands after the bar: (3 | sector)")
    return level, rank


def _arguments(text: str, call: Sequence[_Piece]) -> tuple[Sequence[_Piece], Sequence[_Piece]]:
    """Level and rank of ``latent(level, d=rank)``."""
    positional: list[list[_Piece]] = []
    ranks: list[list[_Piece]] = []
    for argument in _split(call[1].inside):
        if not argument:
            raise mistake(text, _extent(call), "there is nothing before a comma; write latent(sector, d=2)")
        if len(argument) == 1 or not _is_mark(argument[1], "=") or argument[0].kind != "name":
            if ranks:
                raise mistake(text, _extent(argument), "the level comes first: latent(sector, d=2)")
            positional.append(argument)
        elif argument[0].text != "d":
            raise mistake(
                text,
                _extent(argument[:1]),
                f"latent() does not know {argument[0].text}; the number of factors is d: latent(sector, d=2)",
            )
        else:
            ranks.append(argument[2:])
    if not positional:
        raise mistake(text, _extent(call), "latent() needs a level: latent(1, d=2) or latent(sector, d=2)")
    given = positional[1:] + ranks
    level = slice(*_extent(positional[0]))
    if len(given) > 1:
        raise mistake(
            text,
            _extent(call),
            "latent() takes one level and one d; a level nested in another is latent(sector:industry, d=2)",
        )
    if not given or not given[0]:
        raise mistake(text, _extent(call), f"how many factors? Write latent({text[level]}, d=2), say")
    return positional[0], given[0]


def _levels(text: str, pieces: Sequence[_Piece]) -> list[tuple[tuple[str, ...], Place]]:
    """Names and places of the levels that ``a``, ``a:b`` or ``a/b`` stands for."""
    for i, piece in enumerate(pieces):
        named = piece.kind in {"name", "backticks"} or (piece.kind, piece.text) == ("number", "1")
        if piece.kind == "string":
            raise mistake(text, _extent([piece]), f"a level is named without quotes; {_HOW_LEVELS_ARE_WRITTEN}")
        if not (_is_mark(piece, ": /") if i % 2 else named):
            raise mistake(text, _extent([piece]), _HOW_LEVELS_ARE_WRITTEN)
    if len(pieces) % 2 == 0:
        raise mistake(text, _extent(pieces[-1:]), f"there is no name after this {pieces[-1].text}")
    levels: list[tuple[tuple[str, ...], Place]] = []
    names: list[str] = []
    for i, word in enumerate(pieces[::2]):
        nests = 2 * i + 1 == len(pieces) or pieces[2 * i + 1].text == "/"
        name = word.text[1:-1].replace("``", "`") if word.kind == "backticks" else word.text
        if word.kind == "number":
            if i > 0 or not nests:
                raise mistake(text, _extent([word]), "1, the global level, stands alone or before a slash: 1/sector")
        elif name in names:
            raise mistake(text, _extent([word]), f"{written([name])} stands twice in one level; once is enough")
        else:
            names.append(name)
        if nests:
            levels.append((tuple(names), (pieces[0].start, word.stop)))
    return levels


def _ranks(text: str, pieces: Sequence[_Piece], levels: Sequence[tuple[tuple[str, ...], Place]]) -> list[int]:
    """One number of factors a level."""
    if len(pieces) > 1 or pieces[0].kind != "bracket" or pieces[0].text == "{":
        return [_whole(text, pieces, _extent(pieces))] * len(levels)
    bracket = pieces[0]
    # As in Python, parentheses without a comma are only parentheses.
    if bracket.text == "(" and bracket.inside and not any(_is_mark(piece, ",") for piece in bracket.inside):
        return _ranks(text, bracket.inside, levels)
    numbers = [_whole(text, part, _extent([bracket])) for part in _split(bracket.inside)]
    if len(numbers) != len(levels):
        expected = ", ".join(written(names) for names, _ in levels)
        raise mistake(
            text,
            _extent([bracket]),
            f"d gives {count(len(numbers), 'number')} for {count(len(levels), 'level')} ({expected}); "
            "give one each, or a single number for all",
        )
    return numbers


def _whole(text: str, pieces: Sequence[_Piece], around: Place) -> int:
    place = _extent(pieces) if pieces else around
    try:
        number = ast.literal_eval(text[slice(*place)].strip()) if pieces else None
    except (SyntaxError, ValueError):
        number = None
    if type(number) is not int or number < 0:
        raise mistake(text, place, f"the number of factors is a whole number, 0 or more, not {text[slice(*place)]}")
    return number


def _refuse_twice(text: str, latent: Sequence[LatentTerm]) -> None:
    """Refuse a level given twice; a:b and b:a are the same groups."""
    seen: set[frozenset[str]] = set()
    for term in latent:
        groups = frozenset(term.names)
        if groups in seen:
            raise mistake(text, term.place, f"the level {written(term.names)} is given twice; keep one of its terms")
        seen.add(groups)
