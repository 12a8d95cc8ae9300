"""Public layouts, each in the structure it is published in, and what is refused of them with its place."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from eval import layouts
from eval.datasets import Dataset, Question, load
from eval.layouts import files
from rag.errors import InputError

Record = dict[str, Any]


def save(path: Path, value: object, *, lines: bool = False, indent: int | None = None) -> Path:
    """`value` as JSON, or its items as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in value) if lines and isinstance(value, list) \
        else json.dumps(value, ensure_ascii=False, indent=indent)
    path.write_text(text, encoding="utf-8")
    return path


def table(path: Path, rows: Sequence[Sequence[str]], *, separator: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def by_id(data: Dataset) -> dict[str, Question]:
    return {question.id: question for question in data.questions}


def texts(data: Dataset) -> dict[str, tuple[str, str]]:
    return {passage.id: (passage.title, passage.text) for passage in data.passages}


# --- SQuAD -------------------------------------------------------------------------------------------------------------

NORMANS = "The Normans were the people who gave their name to Normandy, a region in France."
SQUAD: Record = {"version": "v2.0", "data": [{"title": "The_Normans", "paragraphs": [
    {"context": NORMANS, "qas": [
        {"question": "In what country is Normandy?", "id": "56ddde6b", "is_impossible": False,
         "answers": [{"text": "France", "answer_start": 74}, {"text": "France", "answer_start": 74}]},
        {"plausible_answers": [{"text": "Normandy", "answer_start": 51}], "question": "Who gave Normandy up?",
         "id": "5ad39d53", "answers": [], "is_impossible": True}]},
    {"context": "Rollo was their leader.", "qas": [
        {"question": "Who led them?", "id": "56ddde6c", "answers": [{"text": "Rollo", "answer_start": 0}]}]}]}]}


def test_squad_paragraphs_are_the_corpus_and_the_evidence(tmp_path: Path) -> None:
    found = load(save(tmp_path / "dev-v2.0.json", SQUAD))
    assert (found.name, found.layout) == ("dev-v2.0", "squad")
    assert texts(found) == {"The Normans#0": ("The Normans", NORMANS), "The Normans#1": ("The Normans", "Rollo was their leader.")}
    asked = by_id(found)
    assert asked["56ddde6b"] == Question("56ddde6b", "In what country is Normandy?", ("France",), ("The Normans#0",), "extractive")
    assert asked["56ddde6c"].evidence == ("The Normans#1",)
    assert asked["5ad39d53"].unanswerable
    assert (asked["5ad39d53"].answers, asked["5ad39d53"].evidence) == ((), ())


def test_cmrc_in_its_own_form(tmp_path: Path) -> None:
    found = load(save(tmp_path / "cmrc2018_trial.json", [
        {"context_id": "TRIAL_800", "context_text": "基于《跑跑卡丁车》制作的动画。", "title": "跑跑卡丁车",
         "qas": [{
             "query_text": "动画是根据什么制作的?", "query_id": "TRIAL_800_QUERY_0", "answers": ["卡丁车", "《卡丁车》"]}]}]))
    assert found.layout == "squad"
    assert found.questions[0] == Question(
        "TRIAL_800_QUERY_0", "动画是根据什么制作的?", ("卡丁车", "《卡丁车》"), ("跑跑卡丁车#0",), "extractive", language="zh")


def parallel(language: str, context: str, question: str, answer: str) -> Record:
    return {"version": "1.1", "data": [{"title": language, "paragraphs": [{"context": context, "qas": [
        {"id": "x1", "question": question, "answers": [{"text": answer, "answer_start": 0}]}]}]}]}


def test_parallel_files_of_a_folder_keep_their_languages_apart(tmp_path: Path) -> None:
    save(tmp_path / "xquad/xquad.de.json", parallel("de", "Die Normannen gaben der Region im Norden von Frankreich den Namen.",
                                                    "Wer gab ihr den Namen?", "Die Normannen"))
    save(tmp_path / "xquad/xquad.en.json", parallel("en", NORMANS, "Who gave it its name?", "The Normans"))
    found = load(tmp_path / "xquad")
    assert {question.id: question.language for question in found.questions} == {"xquad.de:x1": "de", "xquad.en:x1": "en"}
    assert found.languages == {"de": 1, "en": 1}


def test_the_same_questions_twice_in_one_language_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "data/one.json", SQUAD)
    save(tmp_path / "data/two.json", SQUAD)
    with pytest.raises(InputError, match=r"one\.json and two\.json both have a question with the id '56ddde6b'"):
        load(tmp_path / "data")


def changed(path: Sequence[str | int], value: object) -> Record:
    """SQUAD with one value replaced, or removed where the new one is None."""
    copy: Any = json.loads(json.dumps(SQUAD))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return dict(copy)


FIRST = ("data", 0, "paragraphs", 0, "qas", 0)


@pytest.mark.parametrize(("document", "expected"), [
    (changed((*FIRST, "answers"), []), r"article 1, paragraph 1, question 1 \('56ddde6b'\) has no answer and is not marked"),
    (changed((*FIRST, "answers"), [{"text": " "}]), r"question 1 \('56ddde6b'\) has no answer"),
    (changed((*FIRST, "answers"), [{"answer_start": 3}]), r"question 1, answer 1 has no field 'text'"),
    (changed((*FIRST, "answers"), "France"), r"has answers of type str; it must be a list"),
    (changed((*FIRST, "question"), ""), r"question 1 \('56ddde6b'\) has an empty question"),
    (changed((*FIRST, "id"), None), r"article 1, paragraph 1, question 1 has no field 'id'"),
    (changed((*FIRST, "id"), "56ddde6c"), r"article 1, paragraph 2, question 1 \('56ddde6c'\) uses the id '56ddde6c' of article 1, "
                                          r"paragraph 1, question 1 again"),
    (changed((*FIRST, "is_impossible"), "no"), r"has is_impossible of type str"),
    (changed(("data", 0, "paragraphs", 0, "context"), None), r"article 1, paragraph 1 has no field 'context'"),
    (changed(("data", 0, "paragraphs", 0, "qas"), [3]), r"paragraph 1, question 1 is not a JSON object"),
])
def test_squad_is_refused_with_article_paragraph_and_question(tmp_path: Path, document: Record, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        load(save(tmp_path / "dev.json", document))
    assert "SQuAD JSON is" in caught.value.hint


# --- HotpotQA, 2WikiMultihopQA, MuSiQue ----------------------------------------------------------------------------------

HOTPOT: Record = {
    "_id": "5a8b57f2", "question": "Were Scott Derrickson and Ed Wood of the same nationality?", "answer": "yes",
    "type": "comparison", "level": "hard", "supporting_facts": [["Scott Derrickson", 0], ["Ed Wood", 0], ["Ed Wood", 1]],
    "context": [["Ed Wood (film)", ["Ed Wood is a 1994 film.", " It was directed by Tim Burton."]],
                ["Scott Derrickson", ["Scott Derrickson is an American director."]],
                ["Ed Wood", ["Edward Wood was an American filmmaker.", " He wrote too."]]]}
OTHER: Record = {**HOTPOT, "_id": "5a8c7595", "question": "Who directed the film Ed Wood?", "answer": "Tim Burton",
                 "type": "bridge", "supporting_facts": [["Ed Wood (film)", 1]],
                 "context": [HOTPOT["context"][0], ["Ed Wood", ["A river of that name."]]]}
WIKI: Record = {"_id": "8813f87c", "type": "compositional", "question": "Who is the mother of the director?", "answer": "Alice",
                "context": [["Polish-Russian War", ["It is a film by Xawery Żuławski.", "It is of 2009."]],
                            ["Xawery Żuławski", ["He is the son of Alice."]]],
                "entity_ids": "Q1_Q2", "evidences": [["Polish-Russian War", "director", "Xawery Żuławski"]],
                "supporting_facts": [["Polish-Russian War", 0], ["Xawery Żuławski", 0]]}


def test_hotpotqa_paragraphs_are_pooled_and_each_is_there_once(tmp_path: Path) -> None:
    found = load(save(tmp_path / "hotpot_dev_distractor_v1.json", [HOTPOT, OTHER]))
    assert found.layout == "hotpotqa"
    assert texts(found) == {
        "Ed Wood (film)#0": ("Ed Wood (film)", "Ed Wood is a 1994 film. It was directed by Tim Burton."),
        "Scott Derrickson#0": ("Scott Derrickson", "Scott Derrickson is an American director."),
        "Ed Wood#0": ("Ed Wood", "Edward Wood was an American filmmaker. He wrote too."),
        "Ed Wood#1": ("Ed Wood", "A river of that name.")}
    asked = by_id(found)
    assert asked["5a8b57f2"].evidence == ("Scott Derrickson#0", "Ed Wood#0")
    assert (asked["5a8b57f2"].answers, asked["5a8b57f2"].type) == (("yes",), "comparison")
    assert asked["5a8c7595"].evidence == ("Ed Wood (film)#0",)


def test_2wikimultihopqa_sentences_are_joined_with_a_blank(tmp_path: Path) -> None:
    found = load(save(tmp_path / "dev.json", [WIKI]))
    assert found.layout == "hotpotqa"
    assert found.passages[0].text == "It is a film by Xawery Żuławski. It is of 2009."
    assert found.questions[0].evidence == ("Polish-Russian War#0", "Xawery Żuławski#0")
    assert found.questions[0].type == "compositional"


def test_hotpotqa_with_columns_as_json_lines_is_the_same(tmp_path: Path) -> None:
    column = [{**{key: value for key, value in record.items() if key != "_id"}, "id": record["_id"],
               "context": {"title": [title for title, _ in record["context"]],
                           "sentences": [body for _, body in record["context"]]},
               "supporting_facts": {"title": [title for title, _ in record["supporting_facts"]],
                                    "sent_id": [number for _, number in record["supporting_facts"]]}} for record in (HOTPOT, OTHER)]
    assert load(save(tmp_path / "a.json", [HOTPOT, OTHER])).digest == load(save(tmp_path / "a.jsonl", column, lines=True)).digest


MUSIQUE: Record = {
    "id": "2hop__482757_12019", "question": "Who is the spouse of the Green performer?", "answer": "Miquette Giraudy",
    "answer_aliases": ["Giraudy", ""], "answerable": True,
    "question_decomposition": [{"id": 482757, "question": "Green >> performer", "answer": "Steve Hillage",
                                "paragraph_support_idx": 1}],
    "paragraphs": [{"idx": 0, "title": "Blue", "paragraph_text": "Blue is a colour.", "is_supporting": False},
                   {"idx": 1, "title": "Green (album)", "paragraph_text": "Green is by Steve Hillage.", "is_supporting": True},
                   {"idx": 2, "title": "Miquette", "paragraph_text": "She is married to Hillage.", "is_supporting": True}]}
TWIN: Record = {**MUSIQUE, "answerable": False, "paragraphs": [*MUSIQUE["paragraphs"][:2], {
    "idx": 2, "title": "Red", "paragraph_text": "Red is a colour.", "is_supporting": False}]}


def test_musique_takes_aliases_and_leaves_out_what_pooling_makes_answerable(tmp_path: Path) -> None:
    found = load(save(tmp_path / "musique_full_v1.0_dev.jsonl", [MUSIQUE, TWIN], lines=True))
    assert found.layout == "musique"
    assert found.questions == (Question("2hop__482757_12019", MUSIQUE["question"], ("Miquette Giraudy", "Giraudy"),
                                        ("Green (album)#0", "Miquette#0"), "2hop"),)
    assert [passage.title for passage in found.passages] == ["Blue", "Green (album)", "Miquette", "Red"]
    assert found.notes == ("1 of 2 questions are marked as not answerable and left out: the paragraphs of all questions "
                           "together hold their answers.",)


@pytest.mark.parametrize(("record", "expected"), [
    ({key: value for key, value in HOTPOT.items() if key != "answer"}, r"a\.json, record 2 \('new'\) has no field 'answer'"),
    ({**HOTPOT, "answer": " "}, r"record 2 \('new'\) has an empty answer"),
    ({**HOTPOT, "supporting_facts": [["Tim Burton", 0]]}, r"record 2 \('new'\) names supporting fact 'Tim Burton', which"),
    ({**HOTPOT, "supporting_facts": []}, r"has no supporting facts"),
    ({**HOTPOT, "supporting_facts": ["Ed Wood"]}, r"has supporting_facts that are not \[\[title"),
    ({**HOTPOT, "context": [["Ed Wood", "Edward Wood"]]}, r"has a paragraph 1 that is not \[title, \[sentences\]\]"),
    ({**HOTPOT, "context": [["Ed Wood", [3]]]}, r"has context of type int; it must be a string"),
    ({**HOTPOT, "_id": "first"}, r"record 2 \('first'\) uses the _id 'first' of record 1 again"),
])
def test_hotpotqa_is_refused_with_record_and_id(tmp_path: Path, record: Record, expected: str) -> None:
    rows = [{**OTHER, "_id": "first"}, {**record, "_id": "new" if record["_id"] != "first" else "first"}]
    with pytest.raises(InputError, match=expected):
        load(save(tmp_path / "a.json", rows))


@pytest.mark.parametrize(("record", "expected"), [
    ({**MUSIQUE, "answer": ""}, r"m\.jsonl, line 1 has an empty answer"),
    ({**MUSIQUE, "paragraphs": MUSIQUE["paragraphs"][:1]}, r"line 1 has no paragraph marked is_supporting"),
    ({**MUSIQUE, "paragraphs": [{**MUSIQUE["paragraphs"][0], "is_supporting": 1}]},
     r"line 1, paragraph 1 has is_supporting of type int"),
    (TWIN, r"m\.jsonl holds 0 questions"),
])
def test_musique_is_refused_with_its_line(tmp_path: Path, record: Record, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        load(save(tmp_path / "m.jsonl", [record], lines=True))


# --- BEIR ----------------------------------------------------------------------------------------------------------------

def beir(folder: Path, *, qrels: str = "q1\td1\t2\nq1\td2\t0\nq3\td2\t1\n", queries: list[Record] | None = None,
         corpus: list[Record] | None = None) -> Path:
    save(folder / "corpus.jsonl", corpus or [{"_id": "d1", "title": "Albert Einstein", "text": "A physicist.", "metadata": {}},
                                             {"_id": "d2", "text": "Wheat beer is top-fermented."}], lines=True)
    save(folder / "queries.jsonl", queries or [{"_id": f"q{n}", "text": f"Question {n}?", "metadata": {}} for n in (1, 2, 3)],
         lines=True)
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels, encoding="utf-8")
    return folder


def test_beir_questions_are_those_with_a_relevant_document_in_the_split(tmp_path: Path) -> None:
    folder = beir(tmp_path / "scifact")
    (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td1\t1\n", encoding="utf-8")
    found = load(folder)
    assert (found.name, found.layout) == ("scifact", "beir")
    assert {question.id: (question.answers, question.evidence, question.type) for question in found.questions} == {
        "q1": ((), ("d1",), "retrieval"), "q3": ((), ("d2",), "retrieval")}
    assert not any(question.unanswerable for question in found.questions)
    assert texts(found)["d2"] == ("", "Wheat beer is top-fermented.")
    assert "The grades 1, 2 all count as relevant." in found.notes
    assert "1 of 3 queries have no relevant document in test.tsv and are left out." in found.notes
    assert [question.id for question in load(folder, split="train").questions] == ["q2"]


@pytest.mark.parametrize(("changes", "expected"), [
    ({"qrels": "q1\td9\t1\n"}, r"test\.tsv, line 2 judges 'd9', which is not an id in the corpus"),
    ({"qrels": "q1\td1\t1\nq9\td1\t1\n"}, r"test\.tsv, line 3 judges the query 'q9', which is not in queries\.jsonl"),
    ({"qrels": "q1\td1\thigh\n"}, r"test\.tsv, line 2 has the score 'high', which is no number"),
    ({"qrels": "q1\td1\n"}, r"test\.tsv, line 2 has 2 cells; the header has 3"),
    ({"qrels": "q1\td1\t0\n"}, r"scifact holds 0 questions"),
    ({"corpus": [{"_id": "d1", "text": "a"}, {"_id": "d1", "text": "b"}]},
     r"corpus\.jsonl, line 2 uses the _id 'd1' of line 1 again"),
    ({"corpus": [{"_id": "d1", "title": "a"}]}, r"corpus\.jsonl, line 1 has no field 'text'"),
    ({"queries": [{"_id": "q1", "text": " "}]}, r"queries\.jsonl, line 1 has an empty text"),
])
def test_beir_is_refused_with_file_and_line(tmp_path: Path, changes: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        load(beir(tmp_path / "scifact", **changes))


def test_beir_without_the_split_or_without_judgements_is_refused(tmp_path: Path) -> None:
    folder = beir(tmp_path / "scifact")
    with pytest.raises(InputError, match="has no split 'dev'") as caught:
        load(folder, split="dev")
    assert "test" in caught.value.hint
    (folder / "qrels/test.tsv").unlink()
    with pytest.raises(InputError, match=r"holds no qrels/\*\.tsv"):
        load(folder)


# --- MultiHop-RAG --------------------------------------------------------------------------------------------------------

ARTICLES: list[Record] = [
    {"title": "The FTX trial", "author": "Elizabeth Lopatto", "source": "The Verge", "published_at": "2023-09-28T12:00:00+00:00",
     "category": "technology", "url": "https://example.org/ftx", "body": "The trial is bigger than one man."},
    {"title": "SBF's trial starts soon", "author": None, "source": "TechCrunch", "published_at": "2023-10-01T14:00:29+00:00",
     "category": "technology", "url": "https://example.org/sbf", "body": "How did he get here?"}]


def fact(article: int, **changes: object) -> Record:
    return {key: ARTICLES[article][key] for key in ("title", "url", "source", "category", "published_at")} | {
        "author": "x", "fact": ARTICLES[article]["body"]} | changes


NEWS: list[Record] = [
    {"query": "Who faces the trial that The Verge and TechCrunch told of?", "answer": "Sam Bankman-Fried",
     "question_type": "inference_query", "evidence_list": [fact(0), fact(1), fact(0, fact="one man")]},
    {"query": "What did nobody report?", "answer": "Insufficient information.", "question_type": "null_query", "evidence_list": []},
    {"query": "Do both agree?", "answer": "no", "question_type": "comparison_query",
     "evidence_list": [fact(1, url="https://example.org/moved")]}]


def multihop_rag(folder: Path, *, queries: list[Record] | None = None) -> Path:
    save(folder / "corpus.json", ARTICLES, indent=2)
    return save(folder / "MultiHopRAG.json", NEWS if queries is None else queries, indent=2)


@pytest.mark.parametrize("pointed_at", ["folder", "file"])
def test_multihop_rag_evidence_is_the_articles_of_the_facts(tmp_path: Path, pointed_at: str) -> None:
    path = multihop_rag(tmp_path / "multihop")
    found = load(path if pointed_at == "file" else path.parent)
    assert found.layout == "multihop_rag"
    assert found.passages[0].text == "The Verge, 2023-09-28\n\nThe trial is bigger than one man."
    first, null, moved = found.questions
    assert (first.id, first.answers, first.type) == ("q1", ("Sam Bankman-Fried",), "inference_query")
    assert first.evidence == ("https://example.org/ftx", "https://example.org/sbf")
    assert null.unanswerable
    assert moved.evidence == ("https://example.org/sbf",)
    assert found.notes == ("Passages: corpus.json.",)


@pytest.mark.parametrize(("query", "expected"), [
    ({**NEWS[0], "evidence_list": [fact(0, url="https://example.org/x", title="Gone")]},
     r"record 1, evidence 1 names 'https://example.org/x', which is no article of the corpus"),
    ({**NEWS[0], "evidence_list": []}, r"record 1 has no evidence, and its question_type is inference_query"),
    ({**NEWS[0], "answer": ""}, r"record 1 has an empty answer"),
])
def test_multihop_rag_is_refused_with_the_record(tmp_path: Path, query: Record, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        load(multihop_rag(tmp_path / "multihop", queries=[query]))


def test_multihop_rag_without_its_articles_says_what_to_do(tmp_path: Path) -> None:
    path = multihop_rag(tmp_path / "multihop")
    (path.parent / "corpus.json").unlink()
    with pytest.raises(InputError, match="holds questions but no passages") as caught:
        load(path)
    assert "corpus.jsonl" in caught.value.hint


# --- Questions with answers ----------------------------------------------------------------------------------------------

POPQA = [["id", "subj", "prop", "obj", "s_aliases", "s_wiki_title", "s_pop", "question", "possible_answers"],
         ["4222362", "George Rankin", "occupation", "politician", '["George James Rankin"]', "George Rankin", "142",
          "What is George Rankin's occupation?", '["politician", "political leader", "pol"]'],
         ["5898778", "John Mayne", "occupation", "journalist", "[]", "John Mayne", "236", "What is John Mayne's occupation?",
          '["journalist", "journo"]']]
PAGES: list[Record] = [{"id": "p0", "title": "George Rankin", "text": "An Australian soldier and politician."},
                       {"id": "p1", "title": "John Mayne", "text": "A Scottish printer."},
                       {"id": "p2", "title": "John Mayne", "text": "He was a journalist."}]


def test_popqa_evidence_is_the_only_passage_of_the_subjects_page(tmp_path: Path) -> None:
    save(tmp_path / "popqa/wiki.jsonl", PAGES, lines=True)
    found = load(table(tmp_path / "popqa/popQA.tsv", POPQA, separator="\t"))
    assert found.layout == "popqa"
    rankin, mayne = found.questions
    assert (rankin.id, rankin.answers, rankin.evidence, rankin.type) == (
        "4222362", ("politician", "political leader", "pol"), ("p0",), "occupation")
    assert mayne.evidence == ()
    assert len(found.passages) == 3
    assert "Evidence is known for 1 of 2 questions" in found.notes[1]


def test_a_question_set_without_passages_says_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds questions but no passages to answer them from, and none lie beside it") as caught:
        load(table(tmp_path / "popqa/popQA.tsv", POPQA, separator="\t"))
    assert "corpus.jsonl" in caught.value.hint


def test_popqa_answers_that_are_no_list_are_refused_with_their_line(tmp_path: Path) -> None:
    save(tmp_path / "corpus.jsonl", PAGES, lines=True)
    with pytest.raises(InputError, match=r"popQA\.tsv, line 3 has possible_answers that is not a JSON list"):
        load(table(tmp_path / "popQA.tsv", [*POPQA[:2], [*POPQA[2][:-1], "journalist"]], separator="\t"))


@pytest.mark.parametrize("passages", [
    [["id", "text", "title"], ["1", "Rollo led them.", "Normans"]],                     # a table, as DPR has it
    {"id": "1", "contents": "Normans\nRollo led them."}, {"id": 1, "contents": '"Normans"\nRollo led them.'},
    {"_id": "1", "title": "Normans", "text": "Rollo led them.", "metadata": {}}])
def test_passages_beside_the_questions_come_in_several_forms(tmp_path: Path, passages: Any) -> None:
    if isinstance(passages, list):
        table(tmp_path / "passages.tsv", passages, separator="\t")
    else:
        save(tmp_path / "wiki.jsonl", [passages], lines=True)
    found = load(table(tmp_path / "faq.csv", [["question", "answer"], ["Who led them?", "Rollo"]]))
    assert texts(found) == {"1": ("Normans", "Rollo led them.")}


def test_two_files_of_passages_are_told_apart_by_the_name_corpus(tmp_path: Path) -> None:
    path = table(tmp_path / "faq.csv", [["question", "answer"], ["Who led them?", "Rollo"]])
    save(tmp_path / "a.jsonl", PAGES, lines=True)
    save(tmp_path / "b.jsonl", PAGES[:1], lines=True)
    with pytest.raises(InputError, match=r"several files of passages: a\.jsonl, b\.jsonl"):
        load(path)
    save(tmp_path / "corpus.jsonl", PAGES[:2], lines=True)
    assert len(load(path).passages) == 2


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_table_takes_contexts_as_passages_and_needs_few_columns(tmp_path: Path, separator: str) -> None:
    found = load(table(tmp_path / "faq.csv", [
        ["Question", "Answer", "Context", "Lang"],
        ["Who led them?", "Rollo", "Rollo led them;\n\"the Walker\", and more.", ""],
        ["From where?", '["Norway", "the north"]', "Rollo led them;\n\"the Walker\", and more.", "en-GB"],
        ["¿Quién?", "Rollo", "Él.", "es"]], separator=separator))
    assert found.layout == "table"
    assert texts(found) == {"p1": ("", "Rollo led them;\n\"the Walker\", and more."), "p2": ("", "Él.")}
    assert [(question.id, question.answers, question.language) for question in found.questions] == [
        ("q1", ("Rollo",), "en"), ("q2", ("Norway", "the north"), "en"), ("q3", ("Rollo",), "es")]
    assert found.questions[0].evidence == found.questions[1].evidence == ("p1",)


def test_a_table_says_where_declining_is_right(tmp_path: Path) -> None:
    found = load(table(tmp_path / "faq.csv", [["id", "question", "answer", "context", "type"],
                                              ["7", "Who led them?", "Rollo", "Rollo led them.", ""],
                                              ["8", "Who left them?", "", "", "unanswerable"]]))
    assert [(question.id, question.unanswerable, question.type) for question in found.questions] == [
        ("7", False, "question"), ("8", True, "unanswerable")]


def test_squad_exported_by_record_is_a_table_of_json(tmp_path: Path) -> None:
    records = [{"id": "56ddde6b", "title": "Normans", "context": NORMANS, "question": "In what country is Normandy?",
                "answers": {"text": ["France", "France"], "answer_start": [74, 74]}},
               {"id": "5ad39d53", "title": "Normans", "context": NORMANS, "question": "Who gave Normandy up?",
                "answers": {"text": [], "answer_start": []}}]
    found = load(save(tmp_path / "validation.jsonl", records, lines=True))
    assert found.layout == "table"
    assert texts(found) == {"Normans#0": ("Normans", NORMANS)}
    first, second = found.questions
    assert (first.answers, first.evidence) == (("France",), ("Normans#0",))
    assert (second.unanswerable, second.evidence) == (True, ())
    with pytest.raises(InputError, match=r"line 1, answers has no field 'text'"):
        load(save(tmp_path / "validation.jsonl", [{**records[0], "answers": {}}], lines=True))


@pytest.mark.parametrize(("rows", "expected"), [
    ([["question", "answer", "context"], ["Who?", "", "He."]], r"faq\.csv, line 2 has an empty answer; where declining is right"),
    ([["question", "answer", "context"], ["", "He", "He."]], r"line 2 has an empty question"),
    ([["question", "answer", "context"], ["Who?", "He"]], r"line 2 has 2 cells; the header has 3"),
    ([["question", "answer", "context", "lang"], ["Who?", "He", "He.", "English!"]], r"line 2 has lang 'English!', which is no"),
    ([["id", "question", "answer", "context"], ["1", "Who?", "He", "He\n\nhimself."], ["1", "Why?", "He", "He."]],
     r"line 5 uses the id '1' of line 2 again"),
    ([["question", "answer", "answer"], ["Who?", "He", "He."]], r"line 1 names a column twice"),
    ([["question", "answer", "context"]], r"faq\.csv holds 0 questions"),
    ([["question", "answer", "context"], ["Who?", "He", ""]], r"holds questions but no passages"),
    ([["frage", "antwort"], ["Wer?", "Er"]], r"is in no known layout; its first record has the fields 'frage', 'antwort'"),
])
def test_a_table_is_refused_with_its_line(tmp_path: Path, rows: list[list[str]], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        load(table(tmp_path / "faq.csv", rows))


def test_flashrag_with_its_own_contexts_and_without(tmp_path: Path) -> None:
    record = {"id": "dev_0", "question": HOTPOT["question"], "golden_answers": ["yes"], "metadata": {
        "type": "comparison", "level": "hard", "supporting_facts": {"title": ["Ed Wood"], "sent_id": [0]},
        "context": {"title": ["Ed Wood", "Tim Burton"], "sentences": [["He was American."], ["He directs."]]}}}
    found = load(save(tmp_path / "hotpotqa/dev.jsonl", [record], lines=True))
    assert found.layout == "flashrag"
    assert found.questions == (Question("dev_0", HOTPOT["question"], ("yes",), ("Ed Wood#0",), "comparison"),)
    bare = save(tmp_path / "nq/test.jsonl", [{"id": "test_0", "question": "who led them", "golden_answers": ["Rollo"]}], lines=True)
    save(tmp_path / "nq/wiki.jsonl", PAGES, lines=True)
    found = load(bare)
    assert (found.questions[0].evidence, len(found.passages)) == ((), 3)
    with pytest.raises(InputError, match=r"line 1 has no answer"):
        load(save(bare, [{"id": "test_0", "question": "who led them", "golden_answers": [""]}], lines=True))


# --- Choosing what to read -----------------------------------------------------------------------------------------------

def test_the_name_of_a_file_says_nothing_about_its_layout(tmp_path: Path) -> None:
    assert load(save(tmp_path / "squad-dev.jsonl", [HOTPOT])).layout == "hotpotqa"
    assert load(save(tmp_path / "hotpot.tsv", SQUAD, indent=1)).layout == "squad"


@pytest.mark.parametrize("write", [
    lambda path: save(path, [HOTPOT, OTHER]), lambda path: save(path, [HOTPOT, OTHER], indent=3),
    lambda path: save(path, [HOTPOT, OTHER], lines=True),
    lambda path: path.write_bytes(gzip.compress(json.dumps([HOTPOT, OTHER]).encode())),
    lambda path: path.write_bytes(b"\xef\xbb\xbf\n " + json.dumps([HOTPOT, OTHER]).encode())])
def test_storage_does_not_matter(tmp_path: Path, write: Callable[[Path], object]) -> None:
    write(tmp_path / "data.json")
    assert load(tmp_path / "data.json").digest == load(save(tmp_path / "plain.json", [HOTPOT, OTHER])).digest


def test_a_folder_with_several_splits_wants_one_named(tmp_path: Path) -> None:
    save(tmp_path / "hotpot/hotpot_dev_distractor_v1.json", [HOTPOT])
    save(tmp_path / "hotpot/hotpot_train_v1.1.json", [OTHER])
    (tmp_path / "hotpot/README.md").write_text("About", encoding="utf-8")
    with pytest.raises(InputError, match=r"holds several splits: hotpot_dev_distractor_v1\.json, hotpot_train_v1\.1\.json"):
        load(tmp_path / "hotpot")
    assert load(tmp_path / "hotpot", split="validation").questions[0].id == HOTPOT["_id"]
    with pytest.raises(InputError, match=r"No data file in .* has 'test' in its name"):
        load(tmp_path / "hotpot", split="test")


def test_a_folder_with_several_layouts_wants_a_file_named(tmp_path: Path) -> None:
    save(tmp_path / "data/a.json", [HOTPOT])
    save(tmp_path / "data/b.json", SQUAD)
    with pytest.raises(InputError, match=r"several layouts: a\.json, b\.json"):
        load(tmp_path / "data")


def test_a_layout_can_be_insisted_on(tmp_path: Path) -> None:
    record = {**HOTPOT, "golden_answers": ["yes"], "id": "f1", "metadata": {"context": HOTPOT["context"], "supporting_facts": []}}
    path = save(tmp_path / "a.jsonl", [record], lines=True)
    assert load(path).layout == "hotpotqa"
    assert load(path, layout="flashrag").questions[0].id == "f1"
    with pytest.raises(InputError, match=r"line 1 has no field 'context'|line 1 has context of type list"):
        load(path, layout="squad")
    with pytest.raises(InputError, match="There is no layout 'squat'"):
        load(path, layout="squat")
    with pytest.raises(InputError, match="has no splits"):
        load(path, split="dev")


@pytest.mark.parametrize(("content", "expected"), [
    ('[{"_id": "a"},\n {"_id": "b",}]', r"a\.json, line 2 is not JSON after record 1"),
    ('[{"_id": "a"}\n {"_id": "b"}]', r"line 2 is not JSON after record 1: a comma is missing"),
    ('[{"question": "a", "context": [["t", []]]}', r"line 1 is not JSON after record 1: the file ends inside the list"),
    ('[{"question": "a", "context": [["t", []]]}, 3]', r"record 1 has no field 'id'"),
    ("[3]", r"record 1 is not a JSON object"),
    ('[{"_id": "a"}] x', r"goes on after the list"),
    ('{"data": [\n{"paragraphs": ]}', r"line 2 is not JSON in UTF-8"),
    ("[]", r"holds 0 questions"), ("", r"holds 0 questions"),
    ('{"words": 3}', r"in no known layout; its first record has the fields 'words'"),
])
def test_broken_files_are_refused_with_their_line(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=expected):
        list(files.rows(tmp_path / "a.json", shape="x")) if "after" in expected else load(tmp_path / "a.json")


def test_text_that_is_not_utf8_and_damaged_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"_id": "\xe9"}]')
    with pytest.raises(InputError, match=r"a\.json is not text in UTF-8"):
        load(tmp_path / "a.json")
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(json.dumps([HOTPOT] * 50).encode())[:-20])
    with pytest.raises(InputError, match=r"b\.json\.gz cannot be read to its end"):
        load(tmp_path / "b.json.gz")
    (tmp_path / "c.csv").write_bytes("question,answer,context\nWo?,Köln,Köln.\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"c\.csv is not text in UTF-8"):
        load(tmp_path / "c.csv")


def test_a_list_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of any size, cutting records, words and escapes anywhere, give what the whole gives."""
    records = [{"n": n, "text": "é\\\"]},[{ \n" * (n % 7), "list": [1, {"a": None}]} for n in range(50)]
    path = save(tmp_path / "a.json", records, indent=1)
    for block in (1, 2, 3, 17, 1000):
        monkeypatch.setattr(files, "_BLOCK", block)
        assert [row.record for row in files.rows(path, shape="x")] == records
    monkeypatch.setattr(files, "_BLOCK", 8)
    path.write_text(path.read_text(encoding="utf-8").replace('"n": 30', '"n" 30'), encoding="utf-8")
    line = path.read_text(encoding="utf-8").split('"n" 30')[0].count("\n") + 1
    with pytest.raises(InputError, match=rf"line {line - 1} is not JSON after record 30"):
        list(files.rows(path, shape="x"))


def test_a_folder_without_data_says_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="holds no data set in a known layout") as caught:
        load(tmp_path / "data")
    assert all(name in caught.value.hint for name in layouts.NAMES)


# --- The small multi-hop set that ships ----------------------------------------------------------------------------------

HOPS = Path(layouts.__file__).parents[1] / "data" / "hops"


def test_the_shipped_hops_are_small_attributed_and_need_two_passages_each() -> None:
    assert sum(path.stat().st_size for path in HOPS.iterdir()) < 150_000
    found = load(HOPS)
    texts_of = {passage.id: passage.text.lower() for passage in found.passages}
    assert len(found.questions) == 40
    assert {question.type for question in found.questions} == {"bridge", "comparison"}
    for question in found.questions:
        assert len(question.evidence) == 2
        assert question.answers[0] in ("yes", "no") or any(
            question.answers[0].lower() in texts_of[identifier] for identifier in question.evidence), question
    assert len(found.passages) > 2 * len({identifier for question in found.questions for identifier in question.evidence})
    readme = (HOPS / "README.md").read_text(encoding="utf-8")
    assert "creativecommons.org/licenses/by-sa/4.0" in readme
    assert "Zhilin Yang" in readme
