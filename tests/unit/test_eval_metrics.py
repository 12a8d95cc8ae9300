"""Answer, context and ranking metrics against the published rules, on cases worked out by hand."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest

from eval import metrics
from eval.metrics import answer_in_context, contains, exact_match, f1, tokens


def reference_tokens(text: str) -> list[str]:
    """The published English rules, step by step: lower case, ASCII punctuation out, articles out, split at white space."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def reference_f1(prediction: str, answer: str) -> float:
    said, wanted = reference_tokens(prediction), reference_tokens(answer)
    if not said or not wanted:
        return float(said == wanted)
    same = sum((Counter(said) & Counter(wanted)).values())
    precision, recall = same / len(said), same / len(wanted)
    return 0.0 if same == 0 else 2 * precision * recall / (precision + recall)


TEXTS = ["", "the", "The Eiffel Tower", "eiffel tower.", "an apple a day", "U.S.A.", "10,000", "10000", "the-end",
         "1990–1995", "no no no", "no no", "  A  ", "it's", "“quoted”", "French-speaking", "Denver Broncos",
         "the Denver Broncos of 1999"]


@pytest.mark.parametrize("prediction", TEXTS)
@pytest.mark.parametrize("answer", TEXTS)
def test_english_scores_equal_the_published_rules(prediction: str, answer: str) -> None:
    assert f1(prediction, [answer]) == pytest.approx(reference_f1(prediction, answer))
    assert exact_match(prediction, [answer]) == (reference_tokens(prediction) == reference_tokens(answer))


@pytest.mark.parametrize(("prediction", "answers", "exact", "overlap"), [
    ("in Paris, France", ["Paris"], 0, 0.5),
    ("no no no", ["no no"], 0, 0.8),
    ("The Broncos", ["Panthers", "broncos!"], 1, 1),
    ("", [], 1, 1),
    ("anything", [], 0, 0),
])
def test_fixed_cases(prediction: str, answers: list[str], exact: float, overlap: float) -> None:
    assert exact_match(prediction, answers) == exact
    assert f1(prediction, answers) == pytest.approx(overlap)


def test_english_keeps_punctuation_that_is_not_ascii_and_other_languages_drop_it() -> None:
    assert tokens("1990–1995") == ["1990–1995"]
    assert tokens("1990–1995", language="de") == ["19901995"]


@pytest.mark.parametrize(("language", "text", "expected"), [
    ("de", "Die Stadt des Königs", ["stadt", "königs"]),
    ("es", "¿La casa de los Reyes?", ["casa", "de", "reyes"]),
    ("fr", "L'église et la ville du roi", ["église", "et", "ville", "roi"]),
    ("fr", "aujourd'hui", ["aujourdhui"]),
    ("it", "l’acqua di un lago", ["acqua", "di", "lago"]),
    ("pt", "O rei e as rainhas", ["rei", "e", "rainhas"]),
    ("ar", "المدينة الكبرى", ["مدينة", "كبرى"]),
    ("ru", "Красная площадь!", ["красная", "площадь"]),
    ("zh", "光荣和ω-force，1996年", ["光", "荣", "和", "ωforce1996", "年"]),
    ("ja", "東京タワー", list("東京タワー")),
])
def test_articles_and_words_of_other_languages(language: str, text: str, expected: list[str]) -> None:
    assert tokens(text, language=language) == expected


def test_chinese_overlap_is_by_character() -> None:
    assert f1("任天堂游戏", ["任天堂"], language="zh") == pytest.approx(2 * (3 / 5) / (3 / 5 + 1))
    assert f1("任天堂游戏", ["任天堂"], language="en") == 0


def test_every_answer_needed_compares_one_bag_in_any_order() -> None:
    golds = ["Defined contribution", "Defined benefit"]
    assert exact_match("defined benefit, defined contribution", golds, every=True) == 1
    assert exact_match("defined benefit", golds, every=True) == 0
    assert f1("defined benefit", golds, every=True) == pytest.approx(2 * 1 * 0.5 / 1.5)


@pytest.mark.parametrize(("text", "answer", "held"), [
    ("a French-speaking county", "French", True),
    ("paid 10,000 dollars", "10000", True),
    ("in 2010 it was", "10", False),
    ("the Café", "cafe\u0301", True),
    ("He met Rollo.", "ROLLO", True),
    ("no words", "!!", False),
])
def test_contains_whole_words_whatever_the_punctuation(text: str, answer: str, held: bool) -> None:
    assert contains(text, [answer]) is held


def test_contains_without_answers_is_false() -> None:
    assert contains("anything", []) is False


def test_answer_in_context_takes_any_answer_or_all() -> None:
    context = "[1] Normans\nRollo came to Normandy.\n"
    assert answer_in_context(context, ["France", "Rollo"]) == 1
    assert answer_in_context(context, ["France", "Rollo"], every=True) == 0
    assert answer_in_context(context, ["Normandy", "Rollo"], every=True) == 1
    assert answer_in_context("他于1996年去世。", ["1996年"], language="zh") == 1


@pytest.mark.parametrize("answers", [[], ["yes"], ["No"], ["Maybe."]])
def test_answer_in_context_does_not_count_yes_no_and_no_answers(answers: list[str]) -> None:
    assert answer_in_context("yes, no, maybe", answers) is None


def test_yes_no_is_judged_by_the_first_word() -> None:
    assert metrics.polar_match("Yes, both were.", ["yes"]) == 1
    assert metrics.polar_match("No.", ["yes"]) == 0
    assert metrics.polar_match("", ["yes"]) == 0
    assert metrics.polar_match("Yes", ["France"]) is None


def test_evidence_recall_is_the_share_of_gold_passages_shown() -> None:
    assert metrics.evidence_recall({"a", "x"}, ("a", "b")) == 0.5
    assert metrics.evidence_recall({"a"}, ()) is None


def test_citation_marks_are_no_part_of_an_answer() -> None:
    assert metrics.without_citations("Rollo [1], of Norway [2, 3].") == "Rollo, of Norway."
    assert metrics.without_citations("x[12]") == "x"


def test_ranking_metrics_at_document_level() -> None:
    ranking = metrics.ranked_documents(["a", "a", "b", "a", "c", "b", "d"])
    assert ranking == ["a", "b", "c", "d"]
    relevant = ("b", "d", "z")
    assert metrics.recall_at(ranking, relevant, k=2) == pytest.approx(1 / 3)
    assert metrics.reciprocal_rank(ranking, relevant) == 0.5
    assert metrics.reciprocal_rank(ranking, ("z",)) == 0
    # Gains at ranks 2 and 4: 1/log2(3) + 1/log2(5); ideal of three: 1 + 1/log2(3) + 1/log2(4).
    gain, ideal = 0.6309297536 + 0.4306765581, 1 + 0.6309297536 + 0.5
    assert metrics.ndcg_at(ranking, relevant, k=10) == pytest.approx(gain / ideal)
    assert metrics.ndcg_at(ranking, relevant, k=1) == 0
    assert metrics.ndcg_at(["z", "b", "d"], relevant, k=2) == pytest.approx(1)
    assert metrics.sufficiency_at(ranking, ("b", "d"), k=4) == 1
    assert metrics.sufficiency_at(ranking, ("b", "d"), k=3) == 0
