"""Documents to chunks: sentence-aligned, within a token limit, each under the page and heading it stands under.

Sentences (a table's rows, a listing's lines) are counted in batches and put together by the best division of each
section. Small sections are not joined: a sentence chosen out of a joined chunk would lose the heading that makes it
understood. There is no overlap: selection works on sentences, and overlap would make it pay for the same one twice.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from indexers import division
from indexers.division import Atom
from indexers.oversize import Count, Offsets, cut_to_size, halves, windows
from indexers.sentences import split
from indexers.store import passage_text
from rag.types import Block, Chunk, Document, Span

# Title and heading may take this part of the limit each, so that half is always left for the text.
_CARRIED_PART = 4
# A tokenizer may take a run of any length for one unknown token: without this a chunk would have no bound.
_CHARS_PER_TOKEN = 10
_COUNTED_AT_ONCE = 4096
_PATH = " > "


@dataclass(frozen=True, slots=True)
class _Section:
    heading: str                # as its chunks will carry it
    page: int | None
    blocks: list[Block]


def chunk(document: Document, *, max_tokens: int, count: Count, offsets: Offsets) -> list[Chunk]:
    """The document's chunks in order; each has `tokens == count([embedding_text(chunk)])[0] <= max_tokens`.

    `count` counts with special tokens, `offsets` gives the character span of each token without them. The chunks hold all
    of every block that is not white space, once. A title or heading that would take over is shortened.
    """
    special = count([""])[0]
    names = dict.fromkeys([document.title, *(block.heading for block in document.blocks)])
    carried = _carried(list(names), limit=max_tokens // _CARRIED_PART, count=count, offsets=offsets, special=special)
    title = carried[document.title]
    prefixes = list(dict.fromkeys(carried[block.heading] for block in document.blocks))
    used = _counted(["".join(f"{name}\n" for name in (title, prefix) if name) for prefix in prefixes], count)
    room = {prefix: max(1, max_tokens - tokens) for prefix, tokens in zip(prefixes, used, strict=True)}

    sections = _sections(document, carried)
    spans = [list(_spans(document, section.blocks, chars=room[section.heading] * _CHARS_PER_TOKEN)) for section in sections]
    tokens = iter(_counted([document.text[slice(*span)] for section in spans for span in section], count))
    drafts: list[Chunk] = []
    for section, held in zip(sections, spans, strict=True):
        sized = [(span, next(tokens) - special) for span in held]
        limit = room[section.heading]
        atoms = _atoms(document.text, sized, limit=limit, count=count, offsets=offsets, special=special)
        drafts += [_draft(document, run, section, title=title) for run in division.divide(atoms, limit=limit)]
    return [_numbered(draft, ordinal) for ordinal, draft in enumerate(_fitted(drafts, max_tokens=max_tokens, count=count))]


def embedding_text(chunk: Chunk) -> str:
    """What the encoder reads: title, heading and text, a line each."""
    return passage_text(chunk.title, chunk.heading, chunk.text)


def normalised_hash(text: str) -> str:
    """Equal for texts that differ in case, white space or compatibility forms only."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(folded.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _counted(texts: Sequence[str], count: Count) -> list[int]:
    batches = (texts[start:start + _COUNTED_AT_ONCE] for start in range(0, len(texts), _COUNTED_AT_ONCE))
    return [tokens for batch in batches for tokens in count(batch)]


def _carried(names: Sequence[str], *, limit: int, count: Count, offsets: Offsets, special: int) -> dict[str, str]:
    """Each name as it will be carried, in at most `limit` tokens. Of a heading path the inner part stays."""
    bounded = [name[-limit * _CHARS_PER_TOKEN:] if _PATH in name else name[:limit * _CHARS_PER_TOKEN] for name in names]
    carried: dict[str, str] = {}
    for name, short, tokens in zip(names, bounded, _counted(bounded, count), strict=True):
        while tokens - special > limit:
            outer, _, inner = short.partition(_PATH)
            short = inner or _cut(outer, limit, offsets)
            tokens = count([short])[0]
        carried[name] = short
    return carried


def _cut(name: str, limit: int, offsets: Offsets) -> str:
    """Shorter than `name` in any case, so that repeating this ends."""
    tokens = offsets(name)
    end = tokens[limit - 2][1] if 2 <= limit < len(tokens) else len(name) // 2
    return name[:min(end, len(name) - 2)].rstrip() + "…" if len(name) > 2 else ""


def _sections(document: Document, carried: Mapping[str, str]) -> list[_Section]:
    """Neighbouring blocks under one heading on one page with nothing but white space between."""
    sections: list[_Section] = []
    end = 0
    for block in document.blocks:
        apart = bool(document.text[end:block.span[0]].strip())
        heading = carried[block.heading]
        if not sections or apart or (sections[-1].heading, sections[-1].page) != (heading, block.page):
            sections.append(_Section(heading, block.page, []))
        sections[-1].blocks.append(block)
        end = block.span[1]
    return sections


def _spans(document: Document, blocks: Sequence[Block], *, chars: int) -> Iterator[Span]:
    """Sentences and units in order, none longer than `chars`."""
    for block in blocks:
        done = block.span[0]
        for unit in (*block.units, (block.span[1], block.span[1])):
            between = document.text[done:unit[0]]
            for start, end in split(between, document.language) if between.strip() else ():
                yield from windows(document.text, (done + start, done + end), chars=chars)
            yield from windows(document.text, unit, chars=chars)
            done = unit[1]


def _atoms(text: str, sized: Sequence[tuple[Span, int]], *, limit: int, count: Count, offsets: Offsets,
           special: int) -> list[Atom]:
    atoms: list[Atom] = []
    for (start, end), tokens in sized:
        parts = [((0, end - start), tokens)]
        if tokens > limit:
            parts = cut_to_size(text[start:end], limit=limit, count=count, offsets=offsets, special=special)
        for (first, last), part_tokens in parts:
            cost = max(1, min(limit, part_tokens), ceil((last - first) / _CHARS_PER_TOKEN))
            penalty = _penalty(text[atoms[-1].end:start + first]) if atoms else 0.0
            atoms.append(Atom(start + first, start + last, cost, division.INSIDE_SENTENCE if first else penalty))
    return atoms


def _penalty(gap: str) -> float:
    if gap.count("\n") > 1 or gap.count("\r") > 1:
        return division.AFTER_PARAGRAPH
    return division.AFTER_LINE if "\n" in gap or "\r" in gap else division.AFTER_SENTENCE


def _draft(document: Document, run: Sequence[Atom], section: _Section, *, title: str) -> Chunk:
    """Without what only the final chunk has: ordinal, id, tokens, content hash."""
    start, end = run[0].start, run[-1].end
    return Chunk(id="", doc_id=document.id, ordinal=0, text=document.text[start:end], span=(start, end),
                 sentences=tuple((atom.start - start, atom.end - start) for atom in run), tokens=0, title=title,
                 heading=section.heading, page=section.page, source=document.source, metadata=document.metadata)


def _fitted(drafts: Sequence[Chunk], *, max_tokens: int, count: Count) -> list[Chunk]:
    """The drafts with their tokens, cut in half where sentences together have more tokens than one by one."""
    fitted: list[Chunk] = []
    for draft, tokens in zip(drafts, _counted([embedding_text(draft) for draft in drafts], count), strict=True):
        parts = _halved(draft) if tokens > max_tokens else []
        fitted += _fitted(parts, max_tokens=max_tokens, count=count) if parts else [replace(draft, tokens=tokens)]
    return fitted


def _halved(draft: Chunk) -> list[Chunk]:
    """Two chunks, or one without title and heading, or none where nothing can be taken away."""
    if len(draft.text) == 1:
        return [replace(draft, title="", heading="")] if draft.title or draft.heading else []
    if len(draft.sentences) == 1:
        spans = halves(draft.text, draft.sentences[0])
        return [_part(draft, [span]) for span in spans]
    middle = min(range(1, len(draft.sentences)), key=lambda at: abs(2 * draft.sentences[at][0] - len(draft.text)))
    return [_part(draft, draft.sentences[:middle]), _part(draft, draft.sentences[middle:])]


def _part(draft: Chunk, sentences: Sequence[Span]) -> Chunk:
    start, end = sentences[0][0], sentences[-1][1]
    return replace(draft, text=draft.text[start:end], span=(draft.span[0] + start, draft.span[0] + end),
                   sentences=tuple((first - start, last - start) for first, last in sentences))


def _numbered(draft: Chunk, ordinal: int) -> Chunk:
    # Title and heading are part of what is encoded: where they change, so must the id.
    digest = hashlib.sha256(embedding_text(draft).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return replace(draft, ordinal=ordinal, id=f"{draft.doc_id}:{ordinal}:{digest}", content_hash=normalised_hash(draft.text))
