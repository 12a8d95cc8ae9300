"""One record of a data set's file with its place, so that every complaint can say where and what a record should look like."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rag.errors import InputError

INVALID = "dataset_invalid"
_SURROGATES = re.compile("[\ud800-\udfff]")
_IDS = ("_id", "id", "query_id", "qid")


@dataclass(frozen=True, slots=True)
class Row:
    """`where`: "line 3" or "record 3, question 2", empty where the file is one document; `shape`: how a record should look."""

    path: Path
    where: str
    record: Mapping[str, object]
    shape: str

    def error(self, what: str, *, field: str | None = None) -> InputError:
        return InputError(f"{self.path}{self._told()} {what}.", hint=self.shape, field=field, code=INVALID)

    def inner(self, record: object, where: str) -> Row:
        """A record inside this one."""
        place = f"{self.where}, {where}" if self.where else where
        if not isinstance(record, dict):
            raise InputError(f"{self.path}, {place} is not a JSON object.", hint=self.shape, code=INVALID)
        return Row(self.path, place, record, self.shape)

    def value(self, name: str) -> object:
        if name not in self.record:
            raise self.error(f"has no field {name!r}", field=name)
        return self.record[name]

    def string(self, name: str, *, default: str | None = None) -> str:
        return self.as_text(name, default if default is not None and name not in self.record else self.value(name))

    def told(self, name: str) -> str:
        """Like `string`, and not blank."""
        found = self.string(name)
        if not found.strip():
            raise self.error(f"has an empty {name}", field=name)
        return found

    def strings(self, name: str) -> tuple[str, ...]:
        return tuple(self.as_text(name, value) for value in self.values(name, of="strings"))

    def values(self, name: str, *, of: str = "objects") -> list[object]:
        found = self.value(name)
        if not isinstance(found, list):
            raise self.error(f"has {name} of type {type(found).__name__}; it must be a list of {of}", field=name)
        return found

    def inside(self, name: str, *, each: str) -> Iterator[Row]:
        """The objects of the list `name`, each called by its number from 1: "paragraph 2"."""
        for number, value in enumerate(self.values(name), start=1):
            yield self.inner(value, f"{each} {number}")

    def boolean(self, name: str, *, default: bool = False) -> bool:
        found = self.record.get(name, default)
        if not isinstance(found, bool):
            raise self.error(f"has {name} of type {type(found).__name__}; it must be true or false", field=name)
        return found

    def label(self, name: str) -> str:
        """An id: text, or a whole number as text."""
        found = self.value(name)
        text = str(found) if isinstance(found, int) and not isinstance(found, bool) else self.as_text(name, found)
        if not text.strip():
            raise self.error(f"has an empty {name}", field=name)
        return text

    def fresh(self, identifier: str, seen: dict[str, str], *, field: str = "id") -> str:
        """The identifier, which must be new; `seen` maps those of this file to their places."""
        if not identifier.strip():
            raise self.error(f"has an empty {field}", field=field)
        if identifier in seen:
            raise self.error(f"uses the {field} {identifier!r} of {seen[identifier]} again", field=field)
        seen[identifier] = self.where or "the file"
        return identifier

    def answers(self, found: tuple[str, ...], *, field: str, none: str) -> tuple[str, ...]:
        """Those that are not blank. Blank ones beside real ones say nothing; nothing but blank ones, or no answer at all,
        could mean anything: `none` says so."""
        told = tuple(answer for answer in found if answer.strip())
        if not told:
            raise self.error(none, field=field)
        return told

    def as_text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(f"has {name} of type {type(value).__name__}; it must be a string", field=name)
        if not value.isascii() and _SURROGATES.search(value):
            raise self.error(f"has half of a surrogate pair in {name}", field=name)
        return value

    def json_strings(self, name: str) -> tuple[str, ...]:
        """A list of strings that a cell holds as JSON."""
        cell = self.string(name)
        try:
            found = json.loads(cell)
        except ValueError:
            raise self.error(f"has {name} that is not a JSON list of strings", field=name) from None
        if not isinstance(found, list):
            raise self.error(f"has {name} that is not a JSON list of strings", field=name)
        return tuple(self.as_text(name, value) for value in found)

    def _told(self) -> str:
        """The place, and outside of line files the id, because nobody counts records by hand."""
        found = next((self.record[name] for name in _IDS if isinstance(self.record.get(name), (str, int))), None)
        named = "" if found is None or found == "" or self.where.startswith("line") else f" ({found!r})"
        return f", {self.where}{named}" if self.where else named
