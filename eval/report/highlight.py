"""Marks the accepted answers in a text, as the metric finds them: whole words, whatever the case and punctuation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.metrics import is_polar

_WORD = re.compile(r"\w+")
# Kana and Han are written without spaces: there an answer may begin and end anywhere.
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
# Lists of accepted answers can be long and hold whole paragraphs.
_MOST_ANSWERS, _MOST_WORDS = 100, 40


def pieces(text: str, answers: Sequence[str]) -> list[tuple[str, bool]]:
    """The text in order, cut where an answer begins or ends; True for answers. Yes and no are marked nowhere."""
    pattern = _pattern(answers)
    if pattern is None:
        return [(text, False)]
    found, end = [], 0
    for match in pattern.finditer(text):
        found += [(text[end:match.start()], False), (match.group(), True)]
        end = match.end()
    return [piece for piece in [*found, (text[end:], False)] if piece[0]]


def _pattern(answers: Sequence[str]) -> re.Pattern[str] | None:
    if is_polar(answers):
        return None
    # The longest first, so that "New York City" is not marked as "New York".
    wanted = sorted(dict.fromkeys(answers[:_MOST_ANSWERS]), key=lambda answer: (-len(answer), answer))
    parts = [part for part in map(_one, wanted) if part]
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None


def _one(answer: str) -> str:
    words = _WORD.findall(answer)
    if not words or len(words) > _MOST_WORDS:
        return ""
    whole = r"[\W_]+".join(map(re.escape, words))
    return whole if _UNSPACED.search(answer) else rf"(?<!\w){whole}(?!\w)"
