"""The guess of a language: fast, and the same as counting every script and every word."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from indexers.loaders import language
from indexers.loaders.language import guess_language

TEXTS = {
    "en": "The lamp is in the house and it was made of tin.",
    "de": "Die Lampe ist in dem Haus und sie wurde aus Zinn gemacht.",
    "fr": "La lampe est dans la maison et elle est faite pour les enfants.",
    "es": "La lámpara que está en la casa es de los niños.",
    "it": "La lampada è nella casa ed è fatta per il gatto che dorme.",
    "pt": "A lâmpada não está na casa e foi feita para os meninos.",
    "nl": "De lamp staat in het huis en is niet voor de kinderen.",
    "zh": "这盏灯在房子里。",
    "ja": "このランプは家の中にあります。",
    "ru": "Лампа стоит в доме.",
    "ar": "المصباح في البيت.",
    "hi": "दीपक घर में है।",
    "ko": "램프는 집에 있습니다.",
    "el": "Η λάμπα είναι στο σπίτι.",
    "he": "המנורה בבית.",
}


def slow(text: str) -> str:
    """The definition, one count after the other."""
    sample = text[:20_000]
    weights = {name: len(pattern.findall(sample)) * {"ja": 4, "zh": 4, "ko": 3}.get(name, 1)
               for name, pattern in language._SCRIPTS.items()}
    script = max(weights, key=lambda name: weights[name])
    if script != "latin" and weights[script]:
        return "ja" if script == "zh" and weights["ja"] * 10 > weights["zh"] else script
    words = Counter(language._WORD.findall(sample.lower()))
    scores = {name: sum(words[word] for word in stops.split()) for name, stops in language._STOP_WORDS.items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > max(scores["en"], 2, 0.04 * words.total()) else "en"


@pytest.mark.parametrize(("expected", "text"), TEXTS.items())
def test_languages_are_told_apart(expected: str, text: str) -> None:
    assert guess_language(text) == slow(text) == expected


def test_mixtures_are_guessed_as_by_the_definition() -> None:
    rng = random.Random(5)
    pieces = [word for text in TEXTS.values() for word in text.split()] + ["№", "—", "“x”", "ﬀ", "é", "😀", "123", "Ａ"]
    for _ in range(2000):
        text = " ".join(rng.choices(pieces, k=rng.randint(0, 30)))
        assert guess_language(text) == slow(text), text


def test_what_a_document_states_counts_where_its_words_say_nothing() -> None:
    polish = "Lampa stoi w domu i jest z cyny, a dzieci w nim nie ma."
    assert guess_language(polish) == "en"
    assert guess_language(polish, declared="pl-PL") == "pl"
    assert guess_language(TEXTS["de"], declared="pl") == "de"
    assert guess_language(TEXTS["en"], declared="de") == "en"
    assert guess_language(TEXTS["ru"], declared="uk") == "uk"
    assert guess_language(TEXTS["ru"], declared="ar") == "ru"
    for nonsense in ("", "*", "english", "12", "\ud800"):
        assert guess_language(polish, declared=nonsense) == "en"
