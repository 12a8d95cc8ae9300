"""Which tokens of a WordPiece vocabulary may carry a term weight, and how a text becomes tokens without any model.

Dropped, after the released code of TILDEv2 (Zhuang and Zuccon 2021, "Fast Passage Re-ranking with Contextualized Exact Term
Matching and Efficient Passage Expansion"): special tokens, English function words that are one token, the suffix `##s`, and
whatever is no word. Question words stay, except among expansions. Two departures: letters with marks that belong to Latin
script count as letters, and pieces of words in other scripts are dropped like whole ones, because single characters of them
say too little; such languages are served by BM25.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexers.lexical_words import words
from rag.errors import ModelCorrupt

Mask = NDArray[np.bool_]

QUESTION_WORDS = frozenset({"where", "how", "what", "when", "which", "why", "who"})
# English function words, with the pieces that contractions leave behind ("don ' t").
_FUNCTION_WORDS = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its itself
they them their theirs themselves whom whose this that these those am is are was were be been being have has had having do
does did doing a an the and but if or because as until while of at by for with about against between into through during
before after above below to from up down in out on off over under again further then once here there all any both each few
more most other some such no nor not only own same so than too very can will just should now
d ll m o re s t ve y don ain aren couldn didn doesn hadn hasn haven isn ma mightn mustn needn shan shouldn wasn weren won
wouldn
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
# Asked for so often that TILDE would append them to everything.
_NEVER_ADDED = QUESTION_WORDS | {"definition", "define", "mean", "means", "meaning"}


def kept_tokens(vocabulary: Sequence[str]) -> Mask:
    """For each token, in order of ids, whether it may carry a weight in a passage or question."""
    return np.asarray([_kept(token) for token in vocabulary], bool)


def addable_tokens(vocabulary: Sequence[str]) -> Mask:
    """For each token whether expansion may add it to a passage: as `kept_tokens`, less question words and pieces of one or two
    letters, which name nothing."""
    return np.asarray([_kept(token) and token not in _NEVER_ADDED and len(token.removeprefix("##")) > 2 for token in vocabulary],
                      bool)


def folded_tokens(vocabulary: Sequence[str]) -> NDArray[np.int32]:
    """For each token the one it counts as: of the whole words with one stem (as BM25 here has it) the first in the vocabulary,
    which is the most frequent. TILDEv2 has no such step and takes "year" and "years" for strangers."""
    kept, first = kept_tokens(vocabulary), dict[str, int]()
    found = np.arange(len(vocabulary), dtype=np.int32)
    for at, token in enumerate(vocabulary):
        if kept[at] and token.isalpha():
            stems = words(token)
            found[at] = first.setdefault(stems[0], at) if stems else at
    return found


def read_vocabulary(tokenizer: Path) -> list[str]:
    """Tokens of a `tokenizer.json` with a WordPiece vocabulary, in order of ids.

    Raises:
        ModelCorrupt: no such file, another kind of tokenizer, or ids with gaps.
    """
    try:
        model = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]
        table: dict[str, int] = model["vocab"]
        if model.get("type", "WordPiece") != "WordPiece" or sorted(table.values()) != list(range(len(table))):
            raise ValueError("its vocabulary is not WordPiece with ids from 0 up")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelCorrupt(f"{tokenizer} cannot be read as a WordPiece tokenizer: {error}.",
                           hint="Name the folder of a BERT encoder.") from error
    return sorted(table, key=table.__getitem__)


def vocabulary_digest(vocabulary: Sequence[str]) -> str:
    """Sixteen hex digits that change with any token or its place."""
    return hashlib.sha256("\n".join(vocabulary).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _kept(token: str) -> bool:
    if token == "##s" or token in STOP_WORDS or (token.startswith("[") and token.endswith("]")):
        return False
    body = token.removeprefix("##")
    return any(map(str.isalnum, body)) and all(_wordlike(letter) for letter in body)


def _wordlike(letter: str) -> bool:
    if letter.isascii():
        return letter.isalnum() or letter in "_-"
    return letter.isalpha() and unicodedata.name(letter, "").startswith("LATIN")
