"""Filters as a line of text, for `--where`.

    year >= 2020 and lang in (en, de) and not exists(draft) and title = "Hand book"
    2020 <= year < 2025 or added between 2024-01-01 and 2024-06-30
    `page count` != 12                              backticks around names of other characters, doubled inside

A value is a number, true, false, a "quoted" or 'quoted' string (its quote doubled inside, nothing else special) or a bare word,
which is a string. Numbers are as in JSON, so 007 and 1.2.3 are strings. `not` binds closest, then `and`, then `or`; keywords
may be in capitals. `all(...)` and `any(...)` are an `and` and an `or` of one part.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rag.errors import InputError
from rag.filters.printing import NAME
from rag.filters.terms import DEEPEST, And, Equals, Exists, Filter, In, Not, Or, Range, invalid, shown, too_deep
from rag.filters.values import Value

_TOKEN = re.compile(r"""\s*(?:(?P<sign>==|!=|<=|>=|[=<>(),])|`(?P<name>(?:[^`]|``)+)`|"(?P<double>(?:[^"]|"")*)"|"""
                    r"""'(?P<single>(?:[^']|'')*)'|(?P<word>[^\s()=!<>,"'`]+)|(?P<end>\Z))""")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_RESERVED = ("and", "or", "not", "in")
_BOUND = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_FLIPPED = {"<": "gt", "<=": "gte"}
_LONGEST_NUMBER = 400       # characters; a longer one is out of every range, and too long for Python to read as an integer
_SHOWN = 60                 # characters of a long filter on each side of the caret


@dataclass(frozen=True, slots=True)
class _Token:
    kind: Literal["sign", "name", "string", "word", "end"]
    text: str
    start: int

    def is_(self, *words: str) -> bool:
        """Whether it is one of these signs or bare keywords."""
        return (self.kind == "sign" and self.text in words) or (self.kind == "word" and self.text.lower() in words)


def parse(text: str) -> Filter:
    """The filter that `text` says.

    Raises:
        InputError: it says none; the message shows where, and what was expected there.
    """
    if not text.strip():
        raise invalid("The filter is empty.", "Leave it out to search everything, or write for instance: year >= 2020")
    reader = _Reader(text)
    found = reader.either(0)
    reader.end()
    return found


class _Reader:
    """Recursive descent over the tokens; `at` is the next one. `level` counts how deep the nesting is."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self.at = 0

    @property
    def next(self) -> _Token:
        return self._tokens[self.at]

    @property
    def after(self) -> _Token:
        return self._tokens[min(self.at + 1, len(self._tokens) - 1)]

    def either(self, level: int) -> Filter:
        parts = self._parts("or", lambda: self._both(level))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _both(self, level: int) -> Filter:
        parts = self._parts("and", lambda: self._single(level))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _parts(self, word: str, read: Callable[[], Filter]) -> list[Filter]:
        parts = [read()]
        while self.next.is_(word):
            self.at += 1
            parts.append(read())
        return parts

    def _single(self, level: int) -> Filter:
        if level > 2 * DEEPEST:  # a negated group takes two levels here and one in the filter
            raise too_deep()
        if self.next.is_("not"):
            self.at += 1
            return Not(self._single(level + 1))
        if self.next.is_("("):
            return self._group(level)
        called = self.after.is_("(")
        if called and self.next.is_("all", "any"):
            join = And if self._take().text.lower() == "all" else Or
            return join((self._group(level),))
        if called and self.next.is_("exists"):
            return self._existence()
        return self._condition()

    def _group(self, level: int) -> Filter:
        self.expect("(")
        found = self.either(level + 1)
        self.expect(")", also=("and", "or"), hint="Every ( needs its ).")
        return found

    def _existence(self) -> Filter:
        start = self._take().start
        self.expect("(")
        name = self._name()
        self.expect(")")
        return self._made(start, lambda: Exists(name))

    def _condition(self) -> Filter:
        """A field compared with values; or first the value, then at least as large a field."""
        token = self.next
        if token.kind == "string" or (token.kind == "word" and not NAME.fullmatch(token.text)):
            return self._flipped()
        name = self._name()
        if self.next.is_("not") and self.after.is_("in"):
            self.at += 1
            return Not(self._listed(name, token.start))
        if self.next.is_("in"):
            return self._listed(name, token.start)
        if self.next.is_("between"):
            self.at += 1
            low = self._value()
            self.expect("and")
            high = self._value()
            return self._made(token.start, lambda: Range(name, gte=low, lte=high))
        sign = self.expect("=", "==", "!=", "<", "<=", ">", ">=", also=("in", "not in", "between"))
        value = self._value()
        if sign.text in _BOUND:
            return self._made(token.start, lambda: Range(name, **{_BOUND[sign.text]: value}))
        equal = self._made(token.start, lambda: Equals(name, value))
        return Not(equal) if sign.text == "!=" else equal

    def _flipped(self) -> Filter:
        start = self.next.start
        low = self._value()
        sign = self.expect("<", "<=", hint="A condition starts with a field, or with the lower bound of one: 1 <= pages < 10.")
        name = self._name()
        bounds = {_FLIPPED[sign.text]: low}
        if self.next.is_("<", "<="):
            sign = self._take()
            bounds[_BOUND[sign.text]] = self._value()
        return self._made(start, lambda: Range(name, **bounds))

    def _listed(self, name: str, start: int) -> Filter:
        self.at += 1
        self.expect("(", hint="Write the values in parentheses: lang in (en, de).")
        values = [self._value()]
        while self.next.is_(","):
            self.at += 1
            values.append(self._value())
        self.expect(")", also=(",",))
        return self._made(start, lambda: In(name, tuple(values)))

    def _name(self) -> str:
        token = self.next
        plain = token.kind == "word" and NAME.fullmatch(token.text) and token.text.lower() not in _RESERVED
        if not plain and token.kind != "name":
            raise self._error(token, "a field name", "Names of other characters than letters, digits, _ - . go in backticks.")
        return self._take().text

    def _value(self) -> Value:
        token = self.next
        if token.kind not in ("string", "word") or (token.kind == "word" and token.text.lower() in _RESERVED):
            raise self._error(token, "a value", "Values with spaces or signs in them, and words such as and, need quotes.")
        self.at += 1
        if token.kind == "string":
            return token.text
        if token.is_("true", "false"):
            return token.text.lower() == "true"
        return _number(token.text) if _NUMBER.fullmatch(token.text) else token.text

    def expect(self, *words: str, also: tuple[str, ...] = (), hint: str = "") -> _Token:
        """Takes the next token, which must be one of `words`; `also` is what the message adds that could have stood there."""
        if not self.next.is_(*words):
            raise self._error(self.next, _listing(*(f'"{word}"' for word in (*also, *words))), hint)
        return self._take()

    def end(self) -> None:
        if self.next.kind != "end":
            raise self._error(self.next, _listing('"and"', '"or"', "the end"), "Values with spaces or signs in them need quotes.")

    def _take(self) -> _Token:
        token = self.next
        self.at += 1
        return token

    def _made(self, start: int, make: Callable[[], Filter]) -> Filter:
        try:
            return make()
        except InputError as error:
            raise invalid(f"{error.message}\n{_pointed(self._text, start)}", error.hint) from None

    def _error(self, token: _Token, expected: str, hint: str) -> InputError:
        found = "the end" if token.kind == "end" else shown(token.text)
        return invalid(f"The filter is not understood at column {token.start + 1}: expected {expected}, found {found}.\n"
                       f"{_pointed(self._text, token.start)}", hint or "For instance: year >= 2020 and lang in (en, de)")


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while True:
        found = _TOKEN.match(text, at)
        if found is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            hint = "A quote or backtick that opens must close." if text[at] in "\"'`" else "Put text with signs in it in quotes."
            raise invalid(f"The filter is not understood at column {at + 1}.\n{_pointed(text, at)}", hint)
        group = str(found.lastgroup)
        start, at = found.start(group), found.end()
        raw = found[group]
        if group == "end":
            return [*tokens, _Token("end", "", len(text.rstrip()))]
        quote = {"double": '"', "single": "'", "name": "`"}.get(group)
        if quote is None:
            tokens.append(_Token("sign" if group == "sign" else "word", raw, start))
        else:
            tokens.append(_Token("name" if quote == "`" else "string", raw.replace(quote * 2, quote), start - 1))


def _number(text: str) -> int | float:
    number: int | float = json.loads(text) if len(text) <= _LONGEST_NUMBER else float(text)
    return number


def _listing(*words: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _pointed(text: str, at: int) -> str:
    """The line with a caret below character `at`; only its surroundings where it is long."""
    first = max(0, at - _SHOWN)
    line = "".join(letter if letter.isprintable() else " " for letter in text[first:at + _SHOWN])
    before = "..." if first else ""
    width = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line[:at - first])
    return f"  {before}{line}{'...' if len(text) > at + _SHOWN else ''}\n  {' ' * (len(before) + width)}^"
