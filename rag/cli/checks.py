"""Values from the command line, checked before any work: each refusal names the value and the way out.

Numbers arrive as typed, because the parser's own complaint does not repeat the value.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rag.errors import BudgetError, InputError, QuestionEmpty, QuestionTooLong, RagError

if TYPE_CHECKING:
    from rag.conversation import Turn

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TURNS = 'Write a list such as [{"role": "user", "content": "Who signs?"}, {"role": "assistant", "content": "The director."}].'


def question(typed: str, *, limit: int) -> str:
    """The question, read from stdin when it is `-`. `limit` is the longest one in characters."""
    text = _from_stdin(limit) if typed == "-" else typed
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("The question is not valid UTF-8 text.", field="question",
                         hint="Convert it to UTF-8, or pass it through a file: `thriftrag ask - < question.txt`.") from None
    if not text.strip():
        raise QuestionEmpty("The question is empty.", field="question",
                            hint='Ask something: thriftrag ask "How long is the warranty?"')
    if len(text) > limit:
        raise QuestionTooLong(f"The question has more than {limit:,} characters.", field="question",
                              hint="Shorten it, or raise the setting max_question_chars.")
    return text.strip()


def _from_stdin(limit: int) -> str:
    stream: BinaryIO = sys.stdin.buffer
    raw = stream.read(4 * limit + 4)  # UTF-8 takes at most 4 bytes a character: enough to see that it is too long
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(raw) > 4 * limit:
            return raw.decode("utf-8", errors="replace")
        raise InputError(f"The question on stdin is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}.",
                         field="question", hint="Convert it, for instance with `iconv -t UTF-8`.") from None


def query(typed: str) -> str:
    """A search query with something in it."""
    if not typed.strip():
        raise QuestionEmpty("The query is empty.", hint='Search for something: thriftrag search "warranty"', field="query")
    return typed.strip()


def budget(typed: str | None) -> int | None:
    hint = "Use a positive number of context tokens, for instance --budget 256."
    return _whole(typed, flag="--budget", field="budget_tokens", error=BudgetError, hint=hint)


def hits(typed: str | None) -> int | None:
    return _whole(typed, flag="-k", field="k", error=InputError, hint="Use a positive number of hits, for instance -k 10.")


def workers(typed: str | None) -> int | None:
    hint = "Use a number of processes, or 0 to parse in this one."
    if typed is not None and typed.strip() == "0":
        return 0
    return _whole(typed, flag="--workers", field="workers", error=InputError, hint=hint)


def whole_number(typed: str | None, *, flag: str, field: str) -> int | None:
    return _whole(typed, flag=flag, field=field, error=InputError, hint=f"Use a positive whole number, for instance {flag} 4.")


def deadline(typed: str | None) -> float | None:
    hint = "Use a positive number of seconds, for instance --deadline 30."
    return _above_zero(typed, flag="--deadline", field="deadline_s", hint=hint)


def max_cost(typed: str | None) -> float | None:
    hint = "Use a positive amount in US dollars, for instance --max-cost 0.002."
    return _above_zero(typed, flag="--max-cost", field="max_cost_usd", hint=hint)


def history(path: Path | None) -> list[Turn]:
    """The conversation in a JSON file: a list of turns, as the API takes them."""
    if path is None:
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--history {str(path)!r} cannot be read as JSON: {error}", field="history", hint=_TURNS) from error
    if not isinstance(found, list) or not all(isinstance(turn, dict) for turn in found):
        raise InputError(f"--history {str(path)!r} holds no list of turns.", field="history", hint=_TURNS)
    from rag.rewriting import turns

    return list(turns(found))


def choice(typed: str | None, *, flag: str, known: Sequence[str]) -> str | None:
    """One of `known`, compared without case."""
    if typed is None or typed.lower() in known:
        return typed.lower() if typed else None
    near = difflib.get_close_matches(typed.lower(), known, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    raise InputError(f"{flag} {typed!r} is not known.", field=flag.lstrip("-"),
                     hint=f"{guess}Use one of: {', '.join(known)}.")


def collection(name: str) -> str:
    """A collection's name: it is a folder's name as well."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name a collection.", field="collection",
                         hint="Use 1 to 64 letters, digits, hyphens, underscores and dots; begin with a letter or digit.")
    return name


def _whole(typed: str | None, *, flag: str, field: str, error: type[RagError], hint: str) -> int | None:
    if typed is None:
        return None
    try:
        value = int(typed)
    except ValueError:
        raise error(f"{flag} {typed!r} is not a whole number.", hint=hint, field=field) from None
    if value <= 0:
        raise error(f"{flag} {value} is not positive.", hint=hint, field=field)
    return value


def _above_zero(typed: str | None, *, flag: str, field: str, hint: str) -> float | None:
    if typed is None:
        return None
    try:
        value = float(typed)
    except ValueError:
        raise BudgetError(f"{flag} {typed!r} is not a number.", hint=hint, field=field) from None
    if not math.isfinite(value):
        raise BudgetError(f"{flag} {typed!r} is not a finite number.", hint=hint, field=field)
    if value <= 0:
        raise BudgetError(f"{flag} {typed} is not positive.", hint=hint, field=field)
    return value
