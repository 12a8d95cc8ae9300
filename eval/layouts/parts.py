"""What every layout is read into: passages and questions, and the pool that gathers them while files are read."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

UNANSWERABLE_TYPES = frozenset({"unanswerable", "null_query"})


@dataclass(frozen=True, slots=True)
class Passage:
    """One document of the corpus."""

    id: str
    title: str
    text: str

    def line(self) -> str:
        """The record as ingestion takes it: nothing but what a reader of the document would see."""
        return json.dumps({"id": self.id, "title": self.title, "text": self.text}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Question:
    """One question; `evidence` are corpus ids, each once, in file order. `language` decides how answers are compared."""

    id: str
    text: str
    answers: tuple[str, ...]
    evidence: tuple[str, ...]
    type: str
    all_answers_needed: bool = False
    language: str = "en"

    @property
    def unanswerable(self) -> bool:
        """The right behaviour is to decline."""
        return not self.answers and self.type in UNANSWERABLE_TYPES


@dataclass(frozen=True, slots=True)
class Parts:
    """A data set as it was read. `notes`: what was left out or decided, each a sentence for the user.

    A question's language may still be empty: not told by the file.
    """

    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Pool:
    """Passages while files are read: each title with text once, ids unique, in the order of their first sight."""

    passages: dict[str, Passage] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _ids: dict[tuple[str, str], str] = field(default_factory=dict)
    _titled: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, title: str, text: str) -> str:
        """The id of the passage: `Title#0`, `Title#1`, ... or `p1`, `p2`, ... without a title; the old one if it was seen."""
        known = self._ids.get((title, text))
        if known is None:
            known = f"{title}#{len(self._titled[title])}" if title else f"p{len(self._titled['']) + 1}"
            self.keep(Passage(known, title, text))
        return known

    def keep(self, passage: Passage) -> None:
        """Takes a passage with the id of its own file, which must be new."""
        self.passages[passage.id] = passage
        self._ids.setdefault((passage.title, passage.text), passage.id)
        self._titled[passage.title].append(passage.id)

    def titled(self, title: str) -> Sequence[str]:
        """Ids of the passages with that title, in order."""
        return self._titled.get(title, ())

    def text(self, identifiers: Sequence[str]) -> str:
        return "\n".join(self.passages[identifier].text for identifier in identifiers)
