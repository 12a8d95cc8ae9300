"""What the reservoir keeps of one scope, in memory: the nearest remembered passages, questions and titles to a vector.

Filled from the file as entries come, whichever process wrote them; an entry that the file no longer has is dropped when a search
meets it. Vectors of passages are those of the index (`vectors_of`), so they need no space in the file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from indexers.encoders import Vectors
from retrievers.nearest import Nearest
from retrievers.reservoir import Asked, Knowledge, Reservoir

T = TypeVar("T")
# Vectors (n, dimension) of these passages, zero for what is in no snapshot any more.
VectorsOf = Callable[[Sequence[Knowledge]], NDArray[np.floating]]
_LOADED_AT_ONCE = 4096
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Near:
    """A remembered entry's number and its cosine to the question."""

    number: int
    cosine: float


class Recollection:
    """Safe to use from several threads."""

    def __init__(self, reservoir: Reservoir, scope: str, *, dimension: int) -> None:
        self.scope = scope
        self._reservoir = reservoir
        self._dimension = dimension
        self._lock = threading.RLock()
        self._begin()

    def _begin(self) -> None:
        """Nothing is remembered yet of the file that is open now."""
        self._file = self._reservoir.opened
        self._passages = Nearest(self._dimension)
        self._questions = Nearest(self._dimension)
        self._titles = Nearest(self._dimension)
        self._numbers: dict[str, int] = {}              # of chunk ids
        self._of: dict[int, tuple[str, str]] = {}       # chunk id and title of a passage
        self._title_numbers: dict[str, int] = {}
        self._named: dict[int, str] = {}                # titles by number
        self._under: dict[str, set[int]] = {}           # passages under a title
        self._last = {"knowledge": 0, "questions": 0}

    def refresh(self, vectors_of: VectorsOf) -> None:
        """Takes in what was remembered since the last time; from the beginning, where another file was begun."""
        with self._lock:
            if self._file != self._reservoir.opened:
                self._begin()
            for some in _pieces(self._reservoir.since("knowledge", self.scope, after=self._last["knowledge"])):
                self._take(self._reservoir.knowledge(some), vectors_of)
                self._last["knowledge"] = some[-1]
            for some in _pieces(self._reservoir.since("questions", self.scope, after=self._last["questions"])):
                found = self._reservoir.questions(some)
                if found:
                    self._questions.add(list(found), np.stack([each.vector for each in found.values()]))
                self._last["questions"] = some[-1]

    def __len__(self) -> int:
        return len(self._passages)

    def passages(self, vector: Vectors, k: int) -> list[tuple[Near, Knowledge]]:
        """The nearest remembered passages, best first."""
        return self._search(self._passages, vector, k, self._reservoir.knowledge, self.drop)

    def questions(self, vector: Vectors, k: int) -> list[tuple[Near, Asked]]:
        """The nearest questions that were answered from the index, best first, with the cosines of their records."""
        found = self._search(self._questions, vector, k, self._reservoir.questions, self._questions.remove)
        return sorted(((Near(near.number, float(asked.vector.astype(np.float32) @ vector)), asked) for near, asked in found),
                      key=lambda each: (-each[0].cosine, each[0].number))

    def of_chunks(self, chunk_ids: Iterable[str]) -> dict[int, Knowledge]:
        """What is remembered of these chunks, by number."""
        with self._lock:
            numbers = [self._numbers[name] for name in chunk_ids if name in self._numbers]
        return self._reservoir.knowledge(numbers)

    def titles(self, vector: Vectors, *, tau: float, most: int) -> tuple[list[float], list[int]]:
        """Cosines of titles that reach tau, best first, at most `most` of them, and the numbers of the passages under them."""
        with self._lock:
            found = [(self._named[number], cosine) for number, cosine in self._titles.search(vector, most) if cosine >= tau]
            return [cosine for _, cosine in found], [number for title, _ in found for number in sorted(self._under[title])]

    def knowledge(self, numbers: Sequence[int]) -> dict[int, Knowledge]:
        """Those of these that are still remembered; the others are dropped."""
        found = self._reservoir.knowledge(numbers)
        self.drop([number for number in numbers if number not in found])
        return found

    def drop(self, numbers: Sequence[int]) -> None:
        """Takes these passages out of memory."""
        with self._lock:
            self._passages.remove(numbers)
            for number in numbers:
                chunk_id, title = self._of.pop(number, ("", ""))
                if self._numbers.get(chunk_id) == number:
                    del self._numbers[chunk_id]
                under = self._under.get(title, set())
                under.discard(number)
                if not under and self._under.pop(title, None) is not None:
                    of_title = self._title_numbers.pop(title)
                    del self._named[of_title]
                    self._titles.remove([of_title])

    def _take(self, found: Mapping[int, Knowledge], vectors_of: VectorsOf) -> None:
        if not found:
            return
        stale = [self._numbers[each.chunk_id] for each in found.values() if each.chunk_id in self._numbers]
        if stale:
            self.drop(stale)
        self._passages.add(list(found), vectors_of(list(found.values())))
        for number, each in found.items():
            self._numbers[each.chunk_id] = number
            self._of[number] = (each.chunk_id, each.title)
            if each.title not in self._title_numbers:
                self._title_numbers[each.title], self._named[number] = number, each.title
                self._titles.add([number], each.title_vector[None])
            self._under.setdefault(each.title, set()).add(number)

    def _search(self, index: Nearest, vector: Vectors, k: int, read: Callable[[Sequence[int]], Mapping[int, T]],
                drop: Callable[[Sequence[int]], None]) -> list[tuple[Near, T]]:
        """Searches again where the file no longer has what was found: each round drops that."""
        found: list[tuple[Near, T]] = []
        for _ in range(_ROUNDS):
            near = index.search(vector, k)
            records = read([number for number, _ in near])
            missing = [number for number, _ in near if number not in records]
            found = [(Near(number, cosine), records[number]) for number, cosine in near if number in records]
            if not missing:
                break
            drop(missing)
        return found


def _pieces(numbers: Sequence[int]) -> Iterable[Sequence[int]]:
    return (numbers[start:start + _LOADED_AT_ONCE] for start in range(0, len(numbers), _LOADED_AT_ONCE))
