"""A cheap guess of a text's primary language, good enough to choose a sentence splitter's rules; never an error."""

from __future__ import annotations

import re
from collections import Counter

_SAMPLE_CHARS = 20_000
_SCRIPTS = {
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "zh": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"),
    "ko": re.compile(r"[\uac00-\ud7af]"),
    "ar": re.compile(r"[\u0600-\u06ff]"),
    "he": re.compile(r"[\u0590-\u05ff]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "el": re.compile(r"[\u0370-\u03ff]"),
    "hi": re.compile(r"[\u0900-\u097f]"),
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f]"),
}
# A wide character says as much as a short word.
_WEIGHT = {"ja": 4, "zh": 4, "ko": 3}
_STOP_WORDS = {
    "en": "the of and to in is that for it as was with on by be this are from or an which",
    "de": "der die und das den von zu ist mit des auf für nicht eine als auch dem ein werden sich",
    "fr": "le la les des et est une dans pour que qui par sur au du pas avec sont plus ce",
    "es": "el los las del que y en una por con para es su como más al se lo fue sus",
    "it": "il di che la della per una con del sono gli nel dei alla più anche come si è dal",
    "pt": "o os que do da em um para com não uma dos por mais as ao na se foi das",
    "nl": "de het een van en dat op te zijn met voor niet aan er ook als bij door naar wordt",
}
# Names and codes hit stop words by chance; running text has far more.
_FEWEST_STOP_WORDS, _LEAST_SHARE = 2, 0.04
_LANGUAGES_OF: dict[str, tuple[str, ...]] = {
    word: tuple(language for language, words in _STOP_WORDS.items() if word in words.split())
    for word in " ".join(_STOP_WORDS.values()).split()}
# Languages that write in the script of another, which is guessed for it: what a document states decides between them.
_SHARED = {"uk": "ru", "bg": "ru", "sr": "ru", "mk": "ru", "be": "ru", "fa": "ar", "ur": "ar", "yi": "he", "mr": "hi", "ne": "hi"}
_PRIMARY = re.compile(r"[a-z]{2,3}(?![a-z])")
_BEYOND_LATIN = re.compile(r"[^\x00-\u036f\u2000-\u2bff]+")
_WORD = re.compile(r"[^\W\d_]+")


def guess_language(text: str, *, declared: str = "") -> str:
    """BCP 47 primary tag; `declared` (any tag), else "en", where nothing speaks for another."""
    sample = text[:_SAMPLE_CHARS]
    stated = _PRIMARY.match(declared.lower())
    otherwise = stated.group() if stated else "en"
    beyond = "" if sample.isascii() else "".join(_BEYOND_LATIN.findall(sample))
    if not beyond:
        return _by_stop_words(sample, otherwise)
    weights = {name: len(pattern.findall(sample if name == "latin" else beyond)) * _WEIGHT.get(name, 1)
               for name, pattern in _SCRIPTS.items()}
    script = max(weights, key=lambda name: weights[name])
    if script == "latin" or not weights[script]:
        return _by_stop_words(sample, otherwise)
    if script == "zh" and weights["ja"] * 10 > weights["zh"]:
        return "ja"             # Japanese mixes kana into Han characters
    return otherwise if _SHARED.get(otherwise) == script else script


def _by_stop_words(sample: str, otherwise: str) -> str:
    words = Counter(_WORD.findall(sample.lower()))
    scores = dict.fromkeys(_STOP_WORDS, 0)
    for word, times in words.items():
        for language in _LANGUAGES_OF.get(word, ()):
            scores[language] += times
    best = max(scores, key=lambda language: scores[language])
    enough = max(_FEWEST_STOP_WORDS, _LEAST_SHARE * words.total())
    if scores[best] > max(scores["en"], enough):
        return best
    return "en" if scores["en"] > enough else otherwise
