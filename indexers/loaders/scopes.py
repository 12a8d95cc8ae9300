"""Which lines of source code stand in which class, function or section.

Only Python is parsed. In other languages a line that looks like a definition opens a scope, which ends where the
indentation returns to it: right for code that is formatted as usual, and where it errs a heading is lost, no text.
"""

from __future__ import annotations

import re
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast

_NAME_CHARS = 80
# Longer lines are data or minified: no definition is looked for in them.
_MAX_LINE_CHARS = 300
# A larger file is no longer written by hand; its syntax tree would take a hundred times its size.
_MAX_PARSED_CHARS = 2_000_000
_MODIFIERS = (r"(?:export|default|public|private|protected|internal|static|final|abstract|sealed|partial|async|pub(?:\([\w:]+\))?"
              r"|unsafe|extern|override|open|data|inline|virtual|local|declare)")
_KEYWORDS = (r"(?:class|interface|struct|enum|trait|impl|module|namespace|record|protocol|object|extension|union|message|service"
             r"|func|fun|fn|function\*?|def|sub|type|defmodule|defp)")
_KEYWORD = re.compile(rf"\s*(?:{_MODIFIERS}\s+)*{_KEYWORDS}\b[\s(<]*[\w$\"'.:*&]")
_CALL = re.compile(r"\s*[A-Za-z_~][\w:<>,.*&\[\]?~\s]*\([^;{}]*\)[^;{}()]*")
_ARROW = re.compile(r"\s*(?:export\s+)?(?:const|let|var)\s+\w+\s*(?::[^=]+)?=\s*(?:async\s*)?(?:function\b|\(|\w+\s*=>)")
_STATEMENT = re.compile(r"\s*(?:}\s*)?(?:if|for|foreach|while|switch|catch|else|elif|elsif|return|do|try|synchronized|using|lock"
                        r"|when|match|with|unless|until|new|throw|await|yield|assert|case)\b")
_SQL = re.compile(r"\s*create\s+(?:or\s+replace\s+)?(?:\w+\s+)?(?:table|view|function|procedure|trigger|index|type)\b",
                  re.IGNORECASE)
_SECTION = re.compile(r"\[+[^\[\]]{1,80}\]+\s*(?:[#;].*)?")
_KEY = re.compile(r"[\w.\"'][\w. \"'/-]*:\s*(?:[&!|>#].*)?")
# Lines at a definition's own indentation that still belong to it, and those that say nothing of indentation.
_CLOSER = re.compile(r"\s*(?:[{})\]]|(?:end|fi|done|esac)\b)")
_TRANSPARENT = re.compile(r"\s*(?:(?:public|private|protected)\b[^(]*:\s*"
                          r"|#\s*(?:if|ifdef|ifndef|else|elif|endif|define|pragma|region|endregion)\b.*)")
_ATTACHED = re.compile(r"\s*(?://|/\*|\*|#|@|--|\[\w)")
_TAIL = re.compile(r"[\s{:(=]+$|\s+(?:do|then|is|as|begin)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Line:
    number: int                 # in the file, from 1
    start: int                  # its first character in the text
    text: str

    @property
    def indent(self) -> int:
        return len(self.text) - len(self.text.lstrip())


@dataclass(frozen=True, slots=True)
class Scope:
    """A named stretch of lines that are not blank, by index, the last one included."""

    first: int
    last: int
    name: str


def scopes_of(text: str, lines: Sequence[Line], *, language: str) -> list[Scope]:
    """In the order in which they begin, outer ones first; they nest and never cross."""
    if language == "python" and len(text) <= _MAX_PARSED_CHARS:
        try:
            return sorted(_parsed(text, lines), key=lambda scope: (scope.first, -scope.last))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass                # another version of the language, a template, a fragment
    if language in {"toml", "ini"}:
        return _sections(lines)
    opens = _OPENERS.get(language, _is_definition)
    return sorted(_indented(lines, opens), key=lambda scope: (scope.first, -scope.last)) if opens else []


def _parsed(text: str, lines: Sequence[Line]) -> Iterator[Scope]:
    import ast

    with warnings.catch_warnings():     # of escapes in its strings, which are not ours to mend
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    numbers = [line.number for line in lines]
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        pending += getattr(node, "body", [])
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = min((node.lineno, *(decorator.lineno for decorator in node.decorator_list)))
            kind = "class" if isinstance(node, ast.ClassDef) else "def"
            last = bisect_left(numbers, (node.end_lineno or node.lineno) + 1) - 1
            yield Scope(_with_comments(lines, bisect_left(numbers, first)), last, f"{kind} {node.name}")


def _sections(lines: Sequence[Line]) -> list[Scope]:
    starts = [index for index, line in enumerate(lines) if len(line.text) <= _MAX_LINE_CHARS and _SECTION.fullmatch(line.text)]
    return [Scope(first, following - 1, lines[first].text.strip().partition("]")[0].strip("["))
            for first, following in pairwise([*starts, len(lines)])]


def _indented(lines: Sequence[Line], opens: Callable[[Sequence[Line], int], bool]) -> Iterator[Scope]:
    around: list[tuple[int, int, str]] = []     # indentation, first line and name
    for index, line in enumerate(lines):
        if len(line.text) <= _MAX_LINE_CHARS and _TRANSPARENT.fullmatch(line.text):
            continue
        indent = line.indent
        first = index
        is_opener = len(line.text) <= _MAX_LINE_CHARS and opens(lines, index)
        if is_opener:
            first = _with_comments(lines, index)
        while around and (indent < around[-1][0] or (indent == around[-1][0] and not _CLOSER.match(line.text))):
            _, begun, name = around.pop()
            if first > begun:
                yield Scope(begun, first - 1, name)
        if is_opener:
            around.append((indent, first, _named(line.text)))
    for _, begun, name in around:
        yield Scope(begun, len(lines) - 1, name)


def _with_comments(lines: Sequence[Line], index: int) -> int:
    """The first of the comments and annotations that stand right above a definition."""
    while index and lines[index - 1].number == lines[index].number - 1 and lines[index - 1].indent == lines[index].indent \
            and _ATTACHED.match(lines[index - 1].text) and not _TRANSPARENT.match(lines[index - 1].text):
        index -= 1
    return index


def _named(text: str) -> str:
    name = " ".join(text.split())
    while (shorter := _TAIL.sub("", name)) != name:
        name = shorter
    return name if len(name) <= _NAME_CHARS else name[:_NAME_CHARS - 1].rstrip() + "…"


def _is_definition(lines: Sequence[Line], index: int) -> bool:
    text = lines[index].text
    if _STATEMENT.match(text):
        return False
    if _KEYWORD.match(text) and not text.rstrip().endswith(";"):
        return True
    opened = text.rstrip().endswith("{")
    if opened and _ARROW.match(text):
        return True
    below = index + 1 < len(lines) and lines[index + 1].text.strip() == "{" and lines[index + 1].indent == lines[index].indent
    return (opened or below) and _CALL.fullmatch(text.rstrip().removesuffix("{")) is not None


def _is_block(lines: Sequence[Line], index: int) -> bool:
    return lines[index].text.rstrip().endswith("{")


def _is_statement(lines: Sequence[Line], index: int) -> bool:
    return _SQL.match(lines[index].text) is not None


def _is_key(lines: Sequence[Line], index: int) -> bool:
    return lines[index].indent == 0 and _KEY.fullmatch(lines[index].text) is not None


_OPENERS: dict[str, Callable[[Sequence[Line], int], bool] | None] = {
    "css": _is_block, "terraform": _is_block, "sql": _is_statement, "yaml": _is_key,
    **dict.fromkeys(("xml", "make", "batch", "bibtex", "cmake"), None),
}
