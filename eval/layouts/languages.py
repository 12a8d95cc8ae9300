"""The language of each question, which decides how answers are compared: told by the file, else guessed from its gold passages
(answers are in their language), else from the question.

A guess in Latin letters from one paragraph is wrong about once in a hundred times, so a guessed language that few questions
have is not believed: they get the language of the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from eval.layouts.parts import Question
from indexers.loaders.language import guess_language

# Told by their letters even in a short question; languages in Latin letters need more text than that.
_BY_SCRIPT = frozenset({"ar", "el", "he", "hi", "ja", "ko", "ru", "zh"})
_LEAST_SHARE = 0.05
_UNKNOWN = "und"


def settled(questions: Sequence[Question], text_of: Callable[[Sequence[str]], str]) -> tuple[Question, ...]:
    """The questions with a language each. `text_of`: the text of the passages with these ids."""
    untold = [question for question in questions if not question.language]
    if not untold:
        return tuple(questions)
    fallback = guess_language("\n".join(question.text for question in questions))
    seen = {question.id: guess_language(text_of(question.evidence) if question.evidence else question.text, declared=_UNKNOWN)
            for question in untold}
    shares = Counter(seen.values())
    common = {language for language, count in shares.items() if language != _UNKNOWN and count >= _LEAST_SHARE * len(untold)}

    def language(question: Question) -> str:
        own, guessed = guess_language(question.text), seen[question.id]
        if guessed in common:
            return guessed
        return own if own in _BY_SCRIPT else fallback

    return tuple(question if question.language else replace(question, language=language(question)) for question in questions)
