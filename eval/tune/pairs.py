"""Question-answer pairs in one JSON-lines file that people may read, edit and write themselves.

    {"id": "p1", "question": "...", "answers": ["..."], "keep": true, "reason": null, ...}

Only `question` and `answers` (or one `answer`) are needed: a user's own labelled questions, a data set's queries.jsonl for
instance, are taken as they are, and further fields are ignored. `answers: []` means that declining is right. `keep: false`
leaves a pair out, and `reason` says why it was dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from eval.results import write_text
from indexers.loaders.language import guess_language
from rag.errors import InputError

_SHAPE = 'Each line is {"question": "...", "answers": ["..."]}, with "keep": false where it should be left out.'
_LONGEST_LINE = 1_000_000


@dataclass(frozen=True, slots=True)
class Pair:
    """One question and its right answers. `chunk_id` is empty for pairs that were not made from a passage.

    `quote` is the sentence that holds the answer, `facts` what the checks found: numbers and texts by name.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    keep: bool = True
    reason: str | None = None
    source: str = ""
    doc_id: str = ""
    chunk_id: str = ""
    quote: str = ""
    language: str = "en"
    facts: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def generated(self) -> bool:
        return bool(self.chunk_id)

    def line(self) -> str:
        return json.dumps({**asdict(self), "answers": list(self.answers)}, ensure_ascii=False)


def read(path: Path) -> list[Pair]:
    """The pairs of the file in order.

    Raises:
        InputError: no file, a line that is no pair, an id used twice, or no line at all. The message names file and line.
    """
    found: list[Pair] = []
    lines: dict[str, int] = {}
    for number, record in _records(path):
        pair = _pair(record, path=path, number=number)
        if pair.id in lines:
            raise _wrong(path, number, f"uses the id {pair.id!r} of line {lines[pair.id]} again", field="id")
        lines[pair.id] = number
        found.append(pair)
    if not found:
        raise InputError(f"{path} holds no pairs.", hint=f"{_SHAPE} Or name a file that is not there yet, to have pairs generated.",
                         code="pairs_invalid", field="pairs")
    return found


def write(path: Path, pairs: Sequence[Pair]) -> None:
    """Replaces the file as a whole. Raises StorageError if the disk refuses."""
    write_text(path, "".join(f"{pair.line()}\n" for pair in pairs))


def _records(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    try:
        with path.open("rb") as lines:
            for number, raw in enumerate(iter(lambda: lines.readline(_LONGEST_LINE), b""), start=1):
                if raw.strip():
                    yield number, _object(raw, path, number)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", code="pairs_invalid", field="pairs",
                         hint="Check the path and its permissions.") from error


def _object(raw: bytes, path: Path, number: int) -> dict[str, object]:
    try:
        record = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except ValueError as error:  # broken JSON and broken UTF-8 alike
        raise _wrong(path, number, f"is not JSON in UTF-8: {error}") from error
    if not isinstance(record, dict):
        raise _wrong(path, number, "is not a JSON object")
    return record


def _pair(record: Mapping[str, object], *, path: Path, number: int) -> Pair:
    question = _text(record, "question", path, number).strip()
    keep, reason = record.get("keep", True), record.get("reason")
    if not isinstance(keep, bool):
        raise _wrong(path, number, f"has keep of type {type(keep).__name__}; it must be true or false", field="keep")
    if keep and not question:
        raise _wrong(path, number, "has an empty question", field="question")
    if reason is not None and not isinstance(reason, str):
        raise _wrong(path, number, f"has reason of type {type(reason).__name__}; it must be a string or null", field="reason")
    answers = _answers(record, path, number)
    stated = _text(record, "language" if "language" in record else "lang", path, number, default="")
    facts = record.get("facts", {})
    if not isinstance(facts, dict) or not all(isinstance(value, (int, float, str)) for value in facts.values()):
        raise _wrong(path, number, "has facts that are not an object of numbers and texts", field="facts")
    source, doc_id, chunk_id, quote = (_text(record, name, path, number, default="")
                                       for name in ("source", "doc_id", "chunk_id", "quote"))
    return Pair(id=_text(record, "id", path, number, default=f"line-{number}"), question=question, answers=answers, keep=keep,
                reason=reason, source=source, doc_id=doc_id, chunk_id=chunk_id, quote=quote,
                language=stated or guess_language(question), facts=facts)


def _answers(record: Mapping[str, object], path: Path, number: int) -> tuple[str, ...]:
    name = "answers" if "answers" in record else "answer"
    if name not in record:
        raise _wrong(path, number, "has neither 'answers' nor 'answer'", field="answers")
    value = record[name]
    listed: object = value if name == "answers" else [value]
    values = [answer for answer in listed if isinstance(answer, str)] if isinstance(listed, list) else []
    if not isinstance(listed, list) or len(values) < len(listed):
        raise _wrong(path, number, f"has {name} that {'is no text' if name == 'answer' else 'is no list of texts'}",
                     field="answers")
    told = tuple(answer.strip() for answer in values if answer.strip())
    if values and not told:
        raise _wrong(path, number, "has nothing but empty answers; write [] where declining is right", field="answers")
    return told


def _text(record: Mapping[str, object], name: str, path: Path, number: int, *, default: str | None = None) -> str:
    if name not in record and default is not None:
        return default
    if name not in record:
        raise _wrong(path, number, f"has no field {name!r}", field=name)
    value = record[name]
    if not isinstance(value, str):
        raise _wrong(path, number, f"has {name} of type {type(value).__name__}; it must be a string", field=name)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _wrong(path, number, f"has half of a surrogate pair in {name}", field=name)
    return value


def _wrong(path: Path, number: int, what: str, *, field: str | None = None) -> InputError:
    return InputError(f"{path}, line {number} {what}.", hint=_SHAPE, field=field, code="pairs_invalid")
