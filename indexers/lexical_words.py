"""Words for BM25: one tokenisation for documents and questions.

Text is NFKC-normalised and case-folded; a word is a run of letters, marks and digits that begins with a letter or digit;
scripts written without spaces give character bigrams, which is what Lucene's CJK analysis does. English inflection is
folded by the Porter2 stemmer. Of a longer run (a key, a base64 block) only the first `LONGEST` characters count.
"""

from __future__ import annotations

import re
import string
import unicodedata
from functools import lru_cache

LONGEST = 255
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1780-\u17ff\U00020000-\U0002fa1f"
_RUN = re.compile(rf"[{_UNSPACED}]")
# For ASCII, one pass of `translate` folds the case and turns all that is no letter or digit into a space.
_FOLDED = str.maketrans({chr(code): chr(code).lower() if chr(code) in string.ascii_letters + string.digits else " "
                         for code in range(128)})
# Plural and tense of a few hundred thousand words; a new one pushes all out at this size, which costs less than keeping order.
_CACHED = 200_000


def words(text: str) -> list[str]:
    """Index terms of `text`, in order, repeats kept. None is empty, holds whitespace, or is longer than `LONGEST`."""
    if text.isascii():
        return [_STEMS[word] for word in text.translate(_FOLDED).split()]
    found: list[str] = []
    for word in _word_pattern().findall(unicodedata.normalize("NFKC", text).casefold()):
        if word.isascii() or not _RUN.match(word):
            found.append(_STEMS[word])
        else:
            found.extend(word[i:i + 2] for i in range(max(1, len(word) - 1)))
    return found


class _Stems(dict[str, str]):
    """Word to index term, filled as words are met. Two threads that meet the same word do the same work: no harm."""

    def __missing__(self, word: str) -> str:
        if len(word) > LONGEST:
            return self._term(word[:LONGEST])  # not kept: it would hold the whole run
        if len(self) >= _CACHED:
            self.clear()
        term = self[word] = self._term(word)
        return term

    def _term(self, word: str) -> str:
        return str(_stemmer().stemWord(word)) if word.isascii() else word


_STEMS = _Stems()


@lru_cache(maxsize=1)
def _stemmer():  # type: ignore[no-untyped-def]  # the C extension ships no types
    import Stemmer

    return Stemmer.Stemmer("english", 0)  # without a cache of its own


@lru_cache(maxsize=1)
def _word_pattern() -> re.Pattern[str]:
    """`\\w` knows no marks, without which the words of Hindi, Tamil or vowelled Arabic fall apart."""
    return re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+(?:[{_marks()}]+[^\W_{_UNSPACED}]*)*")


def _marks() -> str:
    """The marks of the basic plane as ranges for a character class; with those of the other planes, matching is twice as slow."""
    found: list[list[int]] = []
    for code in range(0x300, 0x10000):
        if unicodedata.category(chr(code)) in ("Mn", "Mc") and not _RUN.match(chr(code)):
            if found and found[-1][1] == code - 1:
                found[-1][1] = code
            else:
                found.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in found)
