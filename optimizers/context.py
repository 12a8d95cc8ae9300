"""The one function that spends the budget: chosen sentences to the text that the reader gets, counted in its own tokens.

    [1] Title - Heading
    First sentence. Second sentence. ... Fifth sentence.
    [2] ...

Chunks that follow one another in their document under one heading become one passage under one mark. The text ends in exactly one
newline and begins with a mark, so that its tokens do not merge with what the prompt puts around it: tokens(before + context +
after) is the sum of the three. Retrieved text is rendered inert: chat-template tokens, our own fence and forged citation marks
lose their shape before anything is counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rag.errors import BudgetExceeded
from rag.tokens import TokenCounter
from rag.types import Chunk, Context, Extract, Passage

GAP = "…"
FENCE = "context"
_SPACE = re.compile(r"\s+")
# Control tokens of the chat templates in common use, our fence, and what makes a program that shows answers load something. One
# space inside takes their meaning, not their look.
_TAGS = (f"s|pad|eos|bos|unk|{FENCE}|start_of_turn|end_of_turn|tool_call|tool_calls|tool_response|function_call|think|SYS|system|"
         "user|assistant|img|script|iframe")
_CONTROL = re.compile(rf"<(?=[|\uff5c])|(?<=[|\uff5c])>|<(?=/?(?:{_TAGS})\b)|!(?=\[[^\]\n]*\]\()", re.IGNORECASE)
_SPACED = {"<": "< ", ">": " >", "!": "! "}
_INSTRUCTION = re.compile(r"\[(?=/?(?:INST|SYS)\])", re.IGNORECASE)
_MARK = re.compile(r"\[(\d{1,4}(?:\s*[,;-]\s*\d{1,4})*)\]")
# What a terminal, a log or a tokenizer may act on, and what hides text from people: never part of a prompt. Joiners (200c, 200d)
# stay: Persian, Indic scripts and emoji need them.
_INVISIBLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e"
                        r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e01ef]")


def inert(text: str) -> str:
    """`text` without anything that the prompt or its reader could take for structure. Idempotent."""
    text = _INVISIBLE.sub("", text)
    text = _CONTROL.sub(lambda match: _SPACED[match.group()], text)
    return _MARK.sub(r"(\1)", _INSTRUCTION.sub("[ ", text))


def render(extracts: Sequence[Extract], *, counter: TokenCounter, budget: int | None = None) -> Context:
    """The context of these extracts, in this order, numbered from 1.

    Raises:
        BudgetExceeded: it costs more than `budget` tokens. Selectors must not let that happen.
    """
    text = compose(extracts)
    tokens = counter.count(text) if text else 0
    if budget is not None and tokens > budget:
        raise BudgetExceeded(f"A rendered context of {tokens} tokens is over its budget of {budget}.",
                             hint="This is a defect in the selector: please report it.")
    passages = tuple(Passage(n, extract.chunk, extract.sentences) for n, extract in zip(numbers(extracts), extracts, strict=True))
    return Context(text=text, tokens=tokens, passages=passages)


def numbers(extracts: Sequence[Extract]) -> list[int]:
    """The mark of each extract, from 1: neighbours in their document share one."""
    found: list[int] = []
    for place, extract in enumerate(extracts):
        joined = place > 0 and follows(extracts[place - 1].chunk, extract.chunk)
        found.append((found[-1] if found else 0) + (not joined))
    return found


def follows(before: Chunk, after: Chunk) -> bool:
    """Whether `after` is the next chunk of the same document, under the same heading."""
    return (before.doc_id == after.doc_id and before.ordinal + 1 == after.ordinal
            and (before.title, before.heading) == (after.title, after.heading))


def compose(extracts: Sequence[Extract], *, safe: Callable[[str], str] = inert) -> str:
    """The text of these extracts, numbered from 1. `safe`: what all retrieved text goes through; another only to measure what it
    is good for."""
    lines: list[str] = []
    above, last = "", 0
    marks = numbers(extracts)
    for place, (n, extract) in enumerate(zip(marks, extracts, strict=True)):
        if n == last:
            # A line of its own, because the end of a chunk may be the end of a paragraph or of a row of a table.
            gap = extract.sentences[0] > 0 or extracts[place - 1].sentences[-1] + 1 < len(extracts[place - 1].chunk.sentences)
            lines.append(f"{GAP} {body(extract, safe=safe)}" if gap else body(extract, safe=safe))
            continue
        header = _header(extract, safe)
        # A heading is paid once for neighbours that share it.
        lines.append(f"[{n}] {header}" if header and header != above else f"[{n}]")
        above, last = header, n
        lines.append(body(extract, safe=safe))
    return "".join(f"{line}\n" for line in lines)


def body(extract: Extract, *, safe: Callable[[str], str] = inert) -> str:
    """The chosen sentences as one inert text; a gap mark where sentences between them were left out."""
    chunk, parts, before = extract.chunk, [], -1
    for index in extract.sentences:
        if before >= 0:
            parts.append(_joint(chunk.text[chunk.sentences[before][1]:chunk.sentences[index][0]], adjacent=index == before + 1))
        parts.append(_SPACE.sub(" ", safe(chunk.sentence(index))).strip())
        before = index
    return "".join(parts).strip()


def _joint(between: str, *, adjacent: bool) -> str:
    if not adjacent:
        return f" {GAP} "
    if "\n" in between:
        return "\n"
    return " " if between else ""


def _header(extract: Extract, safe: Callable[[str], str]) -> str:
    chunk = extract.chunk
    shown = " - ".join(dict.fromkeys(filter(None, (chunk.title, chunk.heading))))
    return _SPACE.sub(" ", safe(shown)).strip()
