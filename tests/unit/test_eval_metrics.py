"""Answer, context and ranking metrics against the published rules, on cases worked out by hand."""

from __future__ import annotations

import re
import string
from collections import Counter
from random import Random

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


# What the official evaluation script for SQuAD 2.0 gives, to six digits.
SQUAD: list[tuple[str, list[str], float, float]] = [
    # Articles, also alone and as part of words; answers that are nothing but articles do not count beside others.
    ("The Eiffel Tower.", ["Eiffel Tower", "the tower"], 1, 1),
    ("theatre", ["a theatre"], 1, 1),
    ("a", ["an"], 1, 1),
    ("the The", ["The The"], 1, 1),
    ("A", ["grade A"], 0, 0),
    ("", ["the", "Paris"], 0, 0),
    ("", ["the"], 1, 1),
    # Nothing is accepted: only saying nothing agrees.
    ("", [], 1, 1),
    ("Paris", [], 0, 0),
    ("!!", [], 1, 1),
    # Punctuation joins what it stood between; only that of ASCII goes.
    ("U.S.A.", ["USA", "United States"], 1, 1),
    ("the US of A", ["USA"], 0, 0),
    ("it's", ["its"], 1, 1),
    ("state-of-the-art", ["state of the art"], 0, 0),
    ("“Purple Rain”", ["Purple Rain"], 0, 0),
    ("1990–1995", ["1990-1995"], 0, 0),
    ("1990-1995", ["19901995"], 1, 1),
    # Numbers are text.
    ("10,000", ["10000"], 1, 1),
    ("10.5 million", ["10.5"], 0, 0.666667),
    ("$5", ["5"], 1, 1),
    ("5 %", ["5%"], 1, 1),
    ("½", ["1/2"], 0, 0),
    ("twenty two", ["22"], 0, 0),
    # Unicode: accents count, spaces of every kind separate, invisible characters do not go away.
    ("Beyoncé", ["Beyonce"], 0, 0),
    ("İstanbul", ["istanbul"], 0, 0),
    ("Straße", ["STRASSE"], 0, 0),
    ("\u3000全角 space", ["全角 space"], 1, 1),
    ("\u00a0Rollo", ["Rollo"], 1, 1),
    ("Rollo\u200b", ["Rollo"], 0, 0),
    # The best of several; repeats count as often as they are in both.
    ("in Paris, France", ["Paris"], 0, 0.5),
    ("no no no", ["no no"], 0, 0.8),
    ("22 22", ["22"], 0, 0.666667),
    ("The Broncos", ["Panthers", "broncos!"], 1, 1),
    ("Denver Broncos of 1999", ["the Denver Broncos", "Broncos, 1999"], 0, 0.666667),
]


@pytest.mark.parametrize(("prediction", "answers", "exact", "overlap"), SQUAD)
def test_english_agrees_with_the_squad_script(prediction: str, answers: list[str], exact: float, overlap: float) -> None:
    assert exact_match(prediction, answers) == exact
    assert f1(prediction, answers) == pytest.approx(overlap, abs=1e-6)


# What MLQA's evaluation script gives.
MLQA: list[tuple[str, str, list[str], float, float]] = [
    ("zh", "任天堂游戏", ["任天堂"], 0, 0.75),
    ("zh", "光荣和ω-force，1996年", ["光荣和ω force"], 0, 0.6),
    ("zh", "1996年。", ["１９９６年", "1996 年"], 1, 1),
    ("zh", "《西遊記》", ["西遊記"], 1, 1),
    ("zh", "ポケモン", ["ポケモ"], 0, 0),
    ("zh", "GB 2312标准", ["gb2312标准"], 0, 0.571429),
    ("zh", "", ["中国"], 0, 0),
    ("de", "Die Stadt des Königs", ["eine Stadt „Königs“"], 1, 1),
    ("de", "„1990–1995“", ["19901995"], 1, 1),
    ("es", "¿La casa de los Reyes?", ["una casa de Reyes"], 1, 1),
    ("es", "en la casa", ["casa"], 0, 0.666667),
    ("ar", "المدينة الكبرى", ["مدينة كبرى"], 1, 1),
    ("ar", "خالد", ["الخالد"], 1, 1),
    ("ar", "في المدينة", ["المدينة"], 0, 0.666667),
    ("hi", "नई दिल्ली।", ["दिल्ली"], 0, 0.666667),
    ("vi", "những cái nhà của tôi", ["nhà tôi"], 1, 1),
    ("vi", "là Hà Nội", ["Hà Nội, Việt Nam"], 0, 0.666667),
]


@pytest.mark.parametrize(("language", "prediction", "answers", "exact", "overlap"), MLQA)
def test_other_languages_agree_with_the_mlqa_script(language: str, prediction: str, answers: list[str], exact: float,
                                                    overlap: float) -> None:
    assert exact_match(prediction, answers, language=language) == exact
    assert f1(prediction, answers, language=language) == pytest.approx(overlap, abs=1e-6)


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


def test_evidence_precision_is_the_share_of_characters_from_gold_passages() -> None:
    shown = [("a", "x" * 30), ("b", "y" * 60), ("a", "z" * 10)]
    assert metrics.evidence_precision(shown, ("a", "c")) == 0.4
    assert metrics.evidence_precision(shown, ("c",)) == 0
    assert metrics.evidence_precision(shown, ()) is None
    assert metrics.evidence_precision([], ("a",)) is None
    assert metrics.evidence_precision([("a", "")], ("a",)) is None


LONG = "the quick brown fox jumps over the lazy dog and then it runs away from seven angry bears near our old house"


@pytest.mark.parametrize(("texts", "share"), [
    ([], None),
    ([LONG], 0),
    ([LONG, LONG], 0.5),
    ([LONG, LONG.upper() + ".", "something else entirely different here"], 1 / 3),
    ([LONG, LONG, LONG, LONG], 0.75),
    # 20 tokens without articles, so 18 shingles each: with both ends changed 16 of 20 are common, with a third word 14 of 22.
    ([LONG, LONG.replace("quick", "slow").replace("house", "barn")], 0.5),
    ([LONG, LONG.replace("quick", "slow").replace("house", "barn").replace("near", "by")], 0),
    (["yes", "Yes!", "no"], 1 / 3),
    (["", "..."], 0),
])
def test_near_duplicates_repeat_an_earlier_passage(texts: list[str], share: float | None) -> None:
    assert metrics.near_duplicates(texts) == (share if share is None else pytest.approx(share))


def test_near_duplicates_agree_with_the_plain_definition() -> None:
    rng = Random(3)
    for _ in range(200):
        texts = [" ".join(rng.choice("bcd") for _ in range(rng.randint(0, 12))) for _ in range(rng.randint(1, 5))]
        shingles = [{tuple(words[i:i + 3]) for i in range(max(1, len(words) - 2))} if (words := text.split()) else set()
                    for text in texts]
        repeats = [any(one and other and len(one & other) / len(one | other) >= 0.8 for other in shingles[:place])
                   for place, one in enumerate(shingles)]
        assert metrics.near_duplicates(texts) == sum(repeats) / len(texts), texts


def test_near_duplicates_in_chinese_are_told_by_characters() -> None:
    assert metrics.near_duplicates(["任天堂游戏公司成立于京都。", "任天堂游戏公司成立于京都"], language="zh") == 0.5
    assert metrics.near_duplicates(["任天堂游戏公司成立于京都。", "京都是日本的一个古老城市"], language="zh") == 0


@pytest.mark.parametrize(("prediction", "answers", "every", "worth"), [
    ("the gunman police killed", ["police killed the gunman"], False, 2 / 3),
    ("police kill the gunman", ["nothing", "police killed the gunman"], False, 2 / 3),
    ("", [], False, 1),
    ("Rollo", [], False, 0),
    ("defined benefit", ["defined contribution", "defined benefit"], True, 2 / 3),
    ("", ["one", "two"], True, 0),
])
def test_rouge_respects_the_order_of_words(prediction: str, answers: list[str], every: bool, worth: float) -> None:
    assert metrics.rouge(prediction, answers, every=every) == pytest.approx(worth)


def test_rouge_in_chinese_is_by_character() -> None:
    assert metrics.rouge("任天堂游戏", ["任天堂"], language="zh") == pytest.approx(0.75)
    assert metrics.rouge("堂天任", ["任天堂"], language="zh") == pytest.approx(1 / 3)


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


def test_ranking_metrics_equal_those_of_ir_measures() -> None:
    import ir_measures
    from ir_measures import RR, R, nDCG

    rng = Random(5)
    for _ in range(60):
        documents = [f"d{place}" for place in range(rng.randint(1, 30))]
        ranking = rng.sample(documents, rng.randint(1, len(documents)))
        relevant = rng.sample([*documents, "missing"], rng.randint(1, min(6, len(documents) + 1)))
        judged = [ir_measures.Qrel("q", document, 1) for document in relevant]
        ranked = [ir_measures.ScoredDoc("q", document, -float(rank)) for rank, document in enumerate(ranking)]
        found = ir_measures.calc_aggregate([R @ 10, R @ 3, RR, nDCG @ 10, nDCG @ 3], judged, ranked)
        for k in (3, 10):
            assert metrics.recall_at(ranking, relevant, k=k) == pytest.approx(found[R @ k])
            assert metrics.ndcg_at(ranking, relevant, k=k) == pytest.approx(found[nDCG @ k])
        assert metrics.reciprocal_rank(ranking, relevant) == pytest.approx(found[RR])
