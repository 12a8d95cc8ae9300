"""What a run folder holds, read without changing it: rows, questions, summary and the record of the run.

    results.jsonl      one row for each question, system and budget
    questions.jsonl    {"dataset", "id", "text", "answers", "evidence": [{"id", "title"}], "all_answers_needed"}: what was
                       asked, so that a report needs no data set; without it questions are told by their ids
    summary.json       the figures; run.json: what the run was made with
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from eval.datasets import Dataset, Question
from eval.results import write_text
from rag.errors import InputError

RESULTS, QUESTIONS, SUMMARY, RUN = "results.jsonl", "questions.jsonl", "summary.json", "run.json"
SCORES = ("em", "f1", "rouge_l", "contains", "yes_no", "answer_in_context", "evidence_recall", "evidence_precision",
          "near_duplicates", "citation_quote", "citation_support", "judge")
SPENT = ("context_tokens", "prompt_tokens", "completion_tokens", "cached_tokens", "naive_tokens", "llm_calls",
         "encoder_passes", "cost_usd", "seconds")

# What comes out of JSON: its shape is fixed by the module that wrote it.
Table = Mapping[str, Any]
# Data set, system, budget (None where none binds) and question id.
Key = tuple[str, str, int | None, str]


@dataclass(frozen=True, slots=True)
class Result:
    """One row. `figures` has every name of SCORES and SPENT, None where it has no meaning; `error` is "code: message"."""

    dataset: str
    system: str
    budget: int | None
    question: str
    type: str
    unanswerable: bool
    read: bool
    answer: str | None
    verdict: str | None
    reason: str | None
    shown: tuple[str, ...]
    context: str | None
    figures: Mapping[str, float | None]
    stages: Mapping[str, float]
    error: str | None

    @property
    def key(self) -> Key:
        return self.dataset, self.system, self.budget, self.question


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it stands in the run folder. `evidence` maps ids of gold passages to their titles."""

    text: str
    answers: tuple[str, ...]
    evidence: Mapping[str, str]
    all_answers_needed: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A folder, read. `rows` has the last row of each key in the order of their first, `records` the same rows as they stand
    in the file; `questions` by data set and id."""

    folder: Path
    rows: tuple[Result, ...]
    records: tuple[Table, ...] = ()
    questions: Mapping[tuple[str, str], Asked] = field(default_factory=dict)
    summary: Table = field(default_factory=dict)
    record: Table = field(default_factory=dict)


def load(folder: Path) -> Run:
    """Everything there is to tell about a run. Only results.jsonl has to be there.

    Raises:
        InputError: no folder, no results in it, or a broken line or file; the message names file and line. A last line
            that an interruption left unfinished is passed over.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.", code="run_missing", hint="Name the --out folder of `thriftrag eval run`.")
    path = folder / RESULTS
    if not path.is_file():
        raise InputError(f"{folder} holds no {RESULTS}.", code="run_missing",
                         hint="Name the --out folder of `thriftrag eval run`.")
    rows: dict[Key, tuple[Result, Table]] = {}
    for number, record in _records(path):
        row = _result(record, path, number)
        rows[row.key] = row, record
    if not rows:
        raise InputError(f"{path} holds 0 results.", code="run_missing", hint="Run `thriftrag eval run` into that folder first.")
    return Run(folder=folder, rows=tuple(row for row, _ in rows.values()), records=tuple(record for _, record in rows.values()),
               questions=dict(_questions(folder / QUESTIONS)), summary=_object(folder / SUMMARY), record=_object(folder / RUN))


def write_questions(folder: Path, asked: Iterable[tuple[Dataset, Sequence[Question]]]) -> None:
    """Records what is asked of each data set, so that reports can show it later. Questions of earlier runs stay.

    Raises:
        InputError: what is there is broken.
        StorageError: the folder cannot be written.
    """
    known = dict(_questions(folder / QUESTIONS))
    for dataset, questions in asked:
        titles = {passage.id: passage.title for passage in dataset.passages}
        known |= {(dataset.name, question.id): Asked(
            question.text, question.answers, {one: titles.get(one, "") for one in question.evidence},
            question.all_answers_needed) for question in questions}
    lines = [json.dumps({"dataset": name, "id": identifier, "text": one.text, "answers": list(one.answers),
                         "evidence": [{"id": key, "title": title} for key, title in one.evidence.items()],
                         "all_answers_needed": one.all_answers_needed}) + "\n" for (name, identifier), one in known.items()]
    write_text(folder / QUESTIONS, "".join(lines))


def _questions(path: Path) -> Iterator[tuple[tuple[str, str], Asked]]:
    if not path.is_file():
        return
    for number, record in _records(path):
        try:
            yield (str(record["dataset"]), str(record["id"])), Asked(
                text=str(record["text"]), answers=tuple(map(str, record["answers"])),
                evidence={str(one["id"]): str(one["title"]) for one in record["evidence"]},
                all_answers_needed=record["all_answers_needed"] is True)
        except (KeyError, TypeError) as error:
            _broken(path, number, "a question", error)


def _result(record: Table, path: Path, number: int) -> Result:
    try:
        budget, error = record["budget"], record.get("error")
        return Result(
            dataset=_string(record, "dataset"), system=_string(record, "system"),
            budget=None if budget is None else _whole(budget, "budget"), question=_string(record, "question"),
            type=str(record.get("type") or ""), unanswerable=record.get("unanswerable") is True,
            read=record.get("read", True) is True, answer=record.get("answer"), verdict=record.get("verdict"),
            reason=record.get("reason"), shown=tuple(map(str, record.get("shown") or ())), context=record.get("context"),
            figures={name: _number(record.get(name), name) for name in (*SCORES, *SPENT)},
            stages={str(name): float(value) for name, value in (record.get("stages") or {}).items()},
            error=None if error is None else f"{error['code']}: {error['message']}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        _broken(path, number, "a result", error)


def _string(record: Table, name: str) -> str:
    if not isinstance(record[name], str):
        raise ValueError(f"{name} is {record[name]!r} and not a text")
    return str(record[name])


def _whole(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r} and not a whole number")
    return value


def _number(value: object, name: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)):
        raise ValueError(f"{name} is {value!r} and not a number")
    return float(value)


def _records(path: Path) -> Iterator[tuple[int, Table]]:
    """Line number (from 1) and object of every finished line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", code="run_invalid",
                         hint="Check that the file is readable.") from error
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8"), parse_constant=_refuse)
        except ValueError as error:
            if not raw.endswith(b"\n") and number == raw.count(b"\n") + 1:
                return
            _broken(path, number, "JSON in UTF-8", error)
        if not isinstance(record, dict):
            _broken(path, number, "a JSON object", TypeError(type(record).__name__))
        yield number, record


def _object(path: Path) -> Table:
    """The object in a JSON file; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.", code="run_invalid", hint=_AGAIN) from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is not a JSON object.", code="run_invalid", hint=_AGAIN)
    return found


_AGAIN = "Run `thriftrag eval run` into that folder again: results that are there are not computed again."


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _broken(path: Path, number: int, what: str, error: Exception) -> NoReturn:
    missing = f"no field {error}" if isinstance(error, KeyError) else str(error)
    raise InputError(f"{path}, line {number} is not {what}: {missing}.", code="run_invalid",
                     hint="Remove that line; `thriftrag eval run` computes it again.") from error
