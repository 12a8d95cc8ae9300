"""Which words of which source support the answer. Found by comparing texts, never taken on the reader's word.

A small reader seldom marks its sources, and a mark may be forged or wrong. So each sentence of the answer is matched with
the sentences that were really in the context: verbatim containment first, then the share of its content words. A mark the
reader did give narrows the match to that passage; one that names no passage is dropped and reported.

A summary of several texts is no source: where one supports the answer, the sentence of its members that has most of the supported
words is cited, under the summary's mark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from indexers import lexical
from rag import prompts
from rag.types import Chunk, Citation, Context, Passage

Support = Literal["verbatim", "words", "context", "none"]
_STRENGTH: tuple[Support, ...] = ("verbatim", "words", "context", "none")
# Fewer of an answer's content words than this in one sentence are coincidence.
_ENOUGH = 0.5
_MAX_CITATIONS = 4


@dataclass(frozen=True, slots=True)
class Checked:
    """`support`: the weakest over the answer's sentences. `text` has no unknown marks left."""

    text: str
    citations: tuple[Citation, ...]
    support: Support
    unknown_marks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Line:
    passage: Passage
    index: int
    terms: frozenset[str]
    folded: str


Members = Callable[[Chunk], Sequence[Chunk] | None]


def _no_members(chunk: Chunk) -> None:
    return None


def check(answer: str, context: Context, *, sentences: Sequence[str], question: str, members: Members = _no_members) -> Checked:
    """Citations for `answer`, whose sentences are given, from what `context` holds. `members`: the chunks that a summary stands
    for, None for a chunk that stands for itself."""
    known = {passage.n for passage in context.passages}
    unknown = tuple(sorted({n for n in prompts.marks(answer) if n not in known}))
    lines = [_line(passage, index) for passage in context.passages for index in passage.sentences]
    asked = frozenset(lexical.words(question))
    found: list[tuple[_Line, Support]] = []
    for sentence in sentences:
        found.extend(_supporting(sentence, lines, asked))
    weakest: Support = max((support for _, support in found), key=_STRENGTH.index, default="none")
    # A mark may stand before several chunks that were rendered as one.
    cited = list(dict.fromkeys((line.passage.n, line.passage.chunk.id, line.index) for line, support in found if support != "none"))
    by_place = {(line.passage.n, line.passage.chunk.id, line.index): line for line in lines}
    behind = [_behind(by_place[place], members, sentences) for place in cited[:_MAX_CITATIONS]]
    return Checked(text=prompts.without_marks(answer, unknown), support=weakest, unknown_marks=unknown,
                   citations=tuple(dict.fromkeys(_citation(line) for line in behind if line is not None)))


def _behind(line: _Line, members: Members, sentences: Sequence[str]) -> _Line | None:
    """The sentence of a member that a line of a summary rests on: most of the words that it shares with the answer, then most of
    its own; the first of equals, which is nearest to the middle of the cluster. None where no member is left. A line of a document
    is its own."""
    chunks = members(line.passage.chunk)
    if chunks is None:
        return line
    found = [_line(Passage(line.passage.n, chunk, (index,)), index) for chunk in chunks for index in range(len(chunk.sentences))]
    said = line.terms & frozenset(word for sentence in sentences for word in lexical.words(sentence)) - prompts.FUNCTION_WORDS
    return max(found, key=lambda other: (len(other.terms & said), len(other.terms & line.terms)), default=None)


def cited(passage: Passage, index: int) -> Citation:
    """The citation of one sentence of a passage."""
    return _citation(_line(passage, index))


def _supporting(sentence: str, lines: Sequence[_Line], asked: frozenset[str]) -> list[tuple[_Line, Support]]:
    marked = set(prompts.marks(sentence))
    bare = prompts.without_marks(sentence, tuple(marked))
    among = [line for line in lines if line.passage.n in marked] or list(lines)
    if not among:
        return []
    # The line that shares most with the question wins ties: an answer word may stand in several.
    among.sort(key=lambda line: -len(line.terms & asked))
    folded = _folded(bare)
    verbatim = next((line for line in among if folded and f" {folded} " in f" {line.folded} "), None)
    if verbatim:
        return [(verbatim, "verbatim")]
    content = frozenset(lexical.words(bare)) - prompts.FUNCTION_WORDS
    if not content:
        # "Yes." has no words to look for: what it was judged from is all that can be shown.
        return [(among[0], "context")]
    best = max(among, key=lambda line: len(line.terms & content))
    return [(best, "words")] if len(best.terms & content) >= _ENOUGH * len(content) else [(best, "none")]


def _line(passage: Passage, index: int) -> _Line:
    text = passage.chunk.sentence(index)
    return _Line(passage, index, frozenset(lexical.words(text)), _folded(text))


def _folded(text: str) -> str:
    return " ".join(lexical.words(text))


def _citation(line: _Line) -> Citation:
    chunk = line.passage.chunk
    start, end = chunk.sentences[line.index]
    return Citation(n=line.passage.n, chunk_id=chunk.id, doc_id=chunk.doc_id, source=chunk.source, page=chunk.page,
                    start=chunk.span[0] + start, end=chunk.span[0] + end, quote=chunk.text[start:end])
