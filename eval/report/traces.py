"""Where a system wins and loses against the baseline: single questions, with what each of the two showed the reader.

The rule leaves nothing to choose: questions that the reader answered for both, in the order of the difference in F1; among
equal ones, data sets take turns and questions come by id.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from eval.report.records import Asked, Result, Run
from rag.errors import InputError

CONTEXTS = "contexts.sqlite"
SHOWN = 10
# A text in the store is a context: far below this, whatever its bytes claim to inflate to.
_LARGEST = 16 * 2**20
_UNKNOWN = Asked(text="", answers=(), evidence={})


@dataclass(frozen=True, slots=True)
class Side:
    """One system's way with the question. `context` is None where the text was not kept."""

    result: Result
    context: str | None


@dataclass(frozen=True, slots=True)
class Trace:
    """One question answered twice; `change` is the F1 of `mine` minus that of `theirs`, in points."""

    asked: Asked
    mine: Side
    theirs: Side
    change: float


@dataclass(frozen=True, slots=True)
class Compared:
    """`system` at `budget` beside `against`: n questions by outcome, for each data set, and the largest of each kind."""

    system: str
    against: str
    budget: int | None
    counts: tuple[tuple[str, int, int, int], ...]
    wins: tuple[Trace, ...]
    losses: tuple[Trace, ...]


def compare(run: Run, system: str, *, against: str, budget: int | None, most: int = SHOWN) -> Compared:
    """`counts` has (data set, better, worse, equal); systems that no budget binds are taken as they are at any budget.

    Raises:
        InputError: the store of contexts is damaged.
    """
    mine, theirs = _answers(run, system, budget), _answers(run, against, budget)
    pairs = [(mine[key], theirs[key]) for key in mine if key in theirs]
    counts: dict[str, Counter[int]] = {}
    for first, second in pairs:
        change = _change(first, second)
        counts.setdefault(first.dataset, Counter())[(change > 0) - (change < 0)] += 1
    wins = _largest([pair for pair in pairs if _change(*pair) > 0], most)
    losses = _largest([pair for pair in pairs if _change(*pair) < 0], most)
    texts = contexts(run.folder / CONTEXTS, {row.context for pair in (*wins, *losses) for row in pair if row.context})
    return Compared(
        system=system, against=against, budget=budget,
        counts=tuple((name, found[1], found[-1], found[0]) for name, found in counts.items()),
        wins=tuple(_trace(run, pair, texts) for pair in wins), losses=tuple(_trace(run, pair, texts) for pair in losses))


def contexts(path: Path, keys: Iterable[str]) -> dict[str, str]:
    """Texts by key; those that are not in the store, or all if there is none, are missing.

    Raises:
        InputError: the file is no store of contexts, or a text in it is damaged.
    """
    if not path.is_file():
        return {}
    found = {}
    # A store that nobody has open needs no lock, so that a folder that cannot be written can be reported on.
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True)) as store:
            for key in sorted(keys):
                row = store.execute("SELECT text FROM contexts WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = _inflated(row[0])
    except (sqlite3.Error, zlib.error, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.", code="run_invalid",
                         hint="Delete it to report without contexts.") from error
    return found


def _inflated(raw: bytes) -> str:
    opened = zlib.decompressobj()
    text = opened.decompress(raw, _LARGEST)
    if not opened.eof:
        raise ValueError("a text in it is cut off or too large")
    return text.decode("utf-8", "surrogatepass")


def _answers(run: Run, system: str, budget: int | None) -> dict[tuple[str, str], Result]:
    return {(row.dataset, row.question): row for row in run.rows
            if row.system == system and row.budget in (budget, None) and row.read and row.figures["f1"] is not None}


def _change(mine: Result, theirs: Result) -> float:
    return 100 * ((mine.figures["f1"] or 0.0) - (theirs.figures["f1"] or 0.0))


def _largest(pairs: Sequence[tuple[Result, Result]], most: int) -> list[tuple[Result, Result]]:
    """By size of the change, to a tenth of a point; the first of each data set, then the second of each, and so on."""
    turn: Counter[tuple[str, float]] = Counter()
    ordered = []
    for pair in sorted(pairs, key=lambda pair: (pair[0].dataset, pair[0].question)):
        size = round(abs(_change(*pair)), 1)
        ordered.append((-size, turn[pair[0].dataset, size], pair[0].dataset, pair[0].question, pair))
        turn[pair[0].dataset, size] += 1
    return [entry[-1] for entry in sorted(ordered, key=lambda entry: entry[:-1])[:most]]


def _trace(run: Run, pair: tuple[Result, Result], texts: dict[str, str]) -> Trace:
    first, second = pair
    sides = [Side(row, texts.get(row.context) if row.context else None) for row in pair]
    return Trace(run.questions.get((first.dataset, first.question), _UNKNOWN), sides[0], sides[1], _change(first, second))
