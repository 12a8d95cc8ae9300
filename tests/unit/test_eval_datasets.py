"""The loader takes what the format promises, and says in which line of which file anything else stands."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from eval import datasets
from rag.errors import InputError

Record = dict[str, Any]
CORPUS: list[Record] = [{"id": "d1", "title": "Normans", "text": "Rollo came from Norway."},
                        {"id": "d2", "title": "", "text": "Paris."}]
QUERY: Record = {"id": "q1", "question": "Who came from Norway?", "answers": ["Rollo"], "evidence": ["d1"], "type": "span"}


# Of q0 to q9 with seed 13.
FIRST_OF_TEN = ["q5", "q1", "q4", "q0", "q9", "q6", "q3", "q7", "q2", "q8"]


def write(folder: Path, *, corpus: Sequence[object] | None = None, queries: Sequence[object] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    contents = {"corpus": CORPUS if corpus is None else corpus, "queries": [QUERY] if queries is None else queries}
    for stem, rows in contents.items():
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / f"{stem}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def without(record: Record, name: str) -> Record:
    return {key: value for key, value in record.items() if key != name}


def test_loads_passages_and_questions_in_file_order(tmp_path: Path) -> None:
    found = datasets.load(write(tmp_path / "normans", queries=[
        {**QUERY, "evidence": ["d2", "d1", "d2"], "all_answers_needed": True, "extra": {"gold": 1}}, {**QUERY, "id": "q0"}]))
    assert found.name == "normans"
    assert [passage.id for passage in found.passages] == ["d1", "d2"]
    assert json.loads(found.passages[0].line()) == CORPUS[0]
    first, second = found.questions
    assert (first.id, first.answers, first.evidence, first.all_answers_needed) == ("q1", ("Rollo",), ("d2", "d1"), True)
    assert (second.id, second.all_answers_needed, second.language) == ("q0", False, "en")


def test_reads_compressed_files_to_the_same_data(tmp_path: Path) -> None:
    plain = datasets.load(write(tmp_path / "data"))
    for stem in ("corpus", "queries"):
        path = tmp_path / "data" / f"{stem}.jsonl"
        (tmp_path / "data" / f"{stem}.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert datasets.load(tmp_path / "data") == plain


def test_digests_tell_changes_apart(tmp_path: Path) -> None:
    first = datasets.load(write(tmp_path / "a"))
    other_question = datasets.load(write(tmp_path / "b", queries=[{**QUERY, "question": "Who?"}]))
    other_text = datasets.load(write(tmp_path / "c", corpus=[CORPUS[0], {**CORPUS[1], "text": "Lyon."}]))
    assert other_question.corpus_digest == first.corpus_digest
    assert other_question.digest != first.digest
    assert other_text.corpus_digest != first.corpus_digest


@pytest.mark.parametrize(("corpus", "queries", "expected"), [
    ([CORPUS[0], without(CORPUS[1], "text")], None, r"corpus\.jsonl, line 2 has no field 'text'"),
    ([without(CORPUS[0], "id")], None, r"corpus\.jsonl, line 1 has no field 'id'"),
    ([{**CORPUS[0], "text": 3}], None, r"line 1 has text of type int; it must be a string"),
    ([{**CORPUS[0], "id": " "}], None, r"line 1 has an empty id"),
    ([CORPUS[0], "", CORPUS[0]], None, r"corpus\.jsonl, line 3 uses the id 'd1' of line 1 again"),
    ([CORPUS[0], "{broken"], None, r"corpus\.jsonl, line 2 is not JSON in UTF-8"),
    (["[1]"], None, r"line 1 is not a JSON object"),
    (['{"id": "d1", "title": "", "text": "\\ud800"}'], None, r"line 1 has half of a surrogate pair in text"),
    ([], None, r"corpus\.jsonl holds 0 documents"),
    (None, [], r"queries\.jsonl holds 0 questions"),
    (None, [QUERY, QUERY], r"queries\.jsonl, line 2 uses the id 'q1' of line 1 again"),
    (None, [{**QUERY, "evidence": ["d1", "d9"]}], r"line 1 names evidence 'd9', which is not an id in corpus\.jsonl"),
    (None, [without(QUERY, "answers")], r"line 1 has no field 'answers'"),
    (None, [without(QUERY, "type")], r"line 1 has no field 'type'"),
    (None, [{**QUERY, "answers": "Rollo"}], r"line 1 has answers of type str; it must be a list of strings"),
    (None, [{**QUERY, "answers": [None]}], r"line 1 has answers of type NoneType; it must be a string"),
    (None, [{**QUERY, "answers": ["", " "]}], r"line 1 has nothing but empty answers"),
    (None, [{**QUERY, "question": "  "}], r"line 1 has an empty question"),
    (None, [{**QUERY, "all_answers_needed": "yes"}], r"line 1 has all_answers_needed of type str"),
    (None, [QUERY, {**QUERY, "id": "q2", "lang": "english"}], r"queries\.jsonl, line 2 has lang 'english', which is no lang"),
    (None, [{**QUERY, "lang": 3}], r"line 1 has lang of type int; it must be a string"),
])
def test_refuses_with_file_and_line(tmp_path: Path, corpus: Sequence[object] | None, queries: Sequence[object] | None,
                                    expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        datasets.load(write(tmp_path / "data", corpus=corpus, queries=queries))
    assert caught.value.hint


def test_refuses_a_missing_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        datasets.load(tmp_path / "nowhere")
    (write(tmp_path / "data") / "queries.jsonl").unlink()
    with pytest.raises(InputError, match=r"holds neither queries\.jsonl nor queries\.jsonl\.gz"):
        datasets.load(tmp_path / "data")


@pytest.mark.parametrize("damage", [
    lambda raw: raw[:-9], lambda raw: b"plain text", lambda raw: raw[:20] + b"\xff" * 9 + raw[29:]])
def test_refuses_a_damaged_archive(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = write(tmp_path / "data")
    raw = gzip.compress((folder / "corpus.jsonl").read_bytes())
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(damage(raw))
    with pytest.raises(InputError, match=r"corpus\.jsonl\.gz"):
        datasets.load(folder)


def test_refuses_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    (folder / "queries.jsonl").write_bytes(json.dumps(QUERY).encode() + b"\n" + b'{"id": "\xe9"}\n')
    with pytest.raises(InputError, match=r"queries\.jsonl, line 2 is not JSON in UTF-8"):
        datasets.load(folder)


def test_an_empty_answer_beside_a_real_one_says_nothing(tmp_path: Path) -> None:
    found = datasets.load(write(tmp_path / "data", queries=[{**QUERY, "answers": ["Rollo", ""]}]))
    assert found.questions[0].answers == ("Rollo",)


@pytest.mark.parametrize(("kind", "answers", "declining"), [
    ("unanswerable", [], True), ("null_query", [], True), ("ad hoc", [], False), ("unanswerable", ["x"], False)])
def test_only_marked_questions_without_answers_are_unanswerable(tmp_path: Path, kind: str, answers: list[str],
                                                                declining: bool) -> None:
    found = datasets.load(write(tmp_path / "data", queries=[{**QUERY, "type": kind, "answers": answers}]))
    assert found.questions[0].unanswerable is declining


def test_language_is_told_guessed_by_script_or_by_the_whole_set(tmp_path: Path) -> None:
    french = [{**QUERY, "id": f"f{n}", "question": "Qui est le roi de la France et des Normands ?"} for n in range(5)]
    found = datasets.load(write(tmp_path / "data", queries=[
        *french, {**QUERY, "id": "short", "question": "Rollo ?"}, {**QUERY, "id": "zh", "question": "诺曼人是谁？"},
        {**QUERY, "id": "told", "question": "Rollo?", "lang": "de"}]))
    assert {question.id: question.language for question in found.questions if question.id[0] != "f"} == {
        "short": "fr", "zh": "zh", "told": "de"}
    assert found.languages == {"fr": 6, "de": 1, "zh": 1}


def test_each_question_of_a_mixed_set_has_the_language_of_its_evidence(tmp_path: Path) -> None:
    texts = {"en": "The Normans were the people who gave their name to the region in the north of France.",
             "es": "Los normandos fueron los que dieron su nombre a la región del norte de Francia, y por eso se llama así.",
             "ru": "Норманны дали своё имя области на севере Франции."}
    corpus = [{"id": language, "title": "", "text": text} for language, text in texts.items()]
    found = datasets.load(write(tmp_path / "data", corpus=corpus, queries=[
        {**QUERY, "id": f"{language}{n}", "question": "Rollo?", "evidence": [language]} for language in texts for n in range(3)]))
    assert {question.id[:2]: question.language for question in found.questions} == {"en": "en", "es": "es", "ru": "ru"}
    assert found.languages == {"en": 3, "es": 3, "ru": 3}


def test_a_language_guessed_for_few_questions_is_not_believed(tmp_path: Path) -> None:
    corpus = [{"id": "d1", "title": "", "text": "The Normans were the people who gave their name to the region."},
              {"id": "d2", "title": "", "text": "El Cid: los de la que y en una por con para."}]
    found = datasets.load(write(tmp_path / "data", corpus=corpus, queries=[
        {**QUERY, "id": f"q{n}", "question": "Who is it?", "evidence": ["d2" if n == 7 else "d1"]} for n in range(40)]))
    assert found.languages == {"en": 40}


@pytest.mark.parametrize(("told", "expected"), [("zh-Hant", "zh"), ("EN", "en"), ("deu", "deu")])
def test_a_language_tag_counts_by_its_first_part(tmp_path: Path, told: str, expected: str) -> None:
    found = datasets.load(write(tmp_path / "data", queries=[{**QUERY, "lang": told}]))
    assert found.languages == {expected: 1}


def test_equal_values_stay_where_all_answers_are_needed(tmp_path: Path) -> None:
    found = datasets.load(write(tmp_path / "data", queries=[{**QUERY, "answers": ["3", "3"], "all_answers_needed": True}]))
    assert found.questions[0].answers == ("3", "3")


def many(folder: Path, *, count: int) -> datasets.Dataset:
    """Every second question has an answer."""
    return datasets.load(write(folder, queries=[
        {**QUERY, "id": f"q{n}", "answers": ["Rollo"] if n % 2 else [], "type": "x"} for n in range(count)]))


def test_limit_counts_after_dropping_questions_without_answers(tmp_path: Path) -> None:
    found = datasets.chosen(many(tmp_path / "data", count=20), limit=5, answerable=True)
    assert len(found) == 5
    assert all(question.answers for question in found)


def test_fewer_questions_are_the_beginning_of_more_and_of_all(tmp_path: Path) -> None:
    data = many(tmp_path / "data", count=200)
    everything = datasets.chosen(data)
    assert sorted(question.id for question in everything) == sorted(question.id for question in data.questions)
    for limit in (1, 60, 150):
        assert datasets.chosen(data, limit=limit) == everything[:limit]


def test_a_draw_is_spread_over_the_file_and_depends_on_the_seed(tmp_path: Path) -> None:
    data = many(tmp_path / "data", count=400)
    places = [int(question.id[1:]) for question in datasets.chosen(data, limit=100)]
    # A quarter of the draw from each quarter of the file, within four standard deviations; the first 100 would all be in one.
    assert all(8 <= sum(start <= place < start + 100 for place in places) <= 42 for start in range(0, 400, 100))
    other = datasets.chosen(data, limit=100, seed=14)
    assert {question.id for question in other} != {f"q{place}" for place in places}
    assert datasets.chosen(data, limit=100, seed=14) == other


def test_a_draw_is_that_of_the_ids_alone(tmp_path: Path) -> None:
    """Known values: the order of sha256 over seed and id, which reports in the field rest on."""
    assert [question.id for question in datasets.chosen(many(tmp_path / "ten", count=10))] == FIRST_OF_TEN
    shuffled = write(tmp_path / "other", queries=[{**QUERY, "id": f"q{n}", "question": "Who?"} for n in (7, 3, 9, 0)])
    assert [question.id for question in datasets.chosen(datasets.load(shuffled))] == [
        identifier for identifier in FIRST_OF_TEN if identifier in {"q7", "q3", "q9", "q0"}]


def test_answerable_of_nothing_is_refused(tmp_path: Path) -> None:
    found = datasets.load(write(tmp_path / "data", queries=[{**QUERY, "answers": []}]))
    with pytest.raises(InputError, match="No question of data has an answer"):
        datasets.chosen(found, answerable=True)
