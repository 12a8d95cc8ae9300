"""Why sparse search found a hit: contributions that add up, where a term comes from, and words put together from pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import TermMatch
from retrievers.explain import terms_of
from tests.fakes import ScriptedReader
from tests.piece_fakes import ADDED, PieceEncoder, asked, pieces
from tests.sparse_fakes import impact
from tests.term_fakes import SCALE, number

TEXTS = {
    "otters": "An otter sleeps in water. The otter holds hands.",
    "kettle": "The kettle boils water. Its guarantee is long.",
    "herons": "A heron stands in the water.",
}


@pytest.fixture
def kb(settings: Settings) -> Iterator[ThriftRAG]:
    with ThriftRAG.open("kb", settings=settings, encoder=PieceEncoder(), reader=ScriptedReader("yes")) as kb:
        kb.ingest(lines=[json.dumps({"id": name, "title": "", "text": text}) for name, text in TEXTS.items()])
        yield kb


def explained(kb: ThriftRAG, query: str, **options: object) -> dict[str, dict[str, TermMatch]]:
    """By document and term."""
    found = kb.find(query, mode="sparse", explain=True, **options)  # type: ignore[arg-type]
    assert found.notes == ()
    return {hit.chunk.doc_id: {match.term: match for match in hit.explain or ()} for hit in found.hits}


def kept(weight: float) -> float:
    """A weight as eight bits keep it."""
    return impact(weight, SCALE) * SCALE / 255


@pytest.mark.parametrize("query", [
    "otter water animal", "what holds hands in the water", "guarantee of a kettle appliance appliances", "otter otter sleepsleeps",
    "sleep-walking otter's hands, hands & animals!"])
def test_contributions_add_up_to_the_score_and_begin_with_the_greatest(kb: ThriftRAG, query: str) -> None:
    found = kb.find(query, mode="sparse", explain=True)
    assert found.hits
    for hit in found.hits:
        assert hit.explain is not None
        adds = [match.contribution for match in hit.explain]
        assert sum(adds) == pytest.approx(hit.score, rel=1e-5)
        assert adds == sorted(adds, reverse=True)
        assert sum(match.query_weight for match in hit.explain) == pytest.approx(sum(asked(piece) for piece in pieces(query)))


def test_each_term_tells_where_the_passage_has_it_from(kb: ThriftRAG) -> None:
    found = explained(kb, "animal otter kites")
    assert set(found) == {"otters"}
    otter, animal, kites = (found["otters"][term] for term in ("otter", "animal", "kites"))
    assert (otter.source, animal.source, kites.source) == ("passage", "expansion", "nothing")
    assert otter.weight == pytest.approx(kept(2.0), rel=1e-5)
    assert otter.query_weight == pytest.approx(1 + 5 / 8)
    assert animal.weight == pytest.approx(kept(ADDED), rel=1e-5)
    assert (kites.weight, kites.contribution) == (0.0, 0.0)


def test_pieces_are_shown_as_the_word_they_make(kb: ThriftRAG) -> None:
    match = explained(kb, "Guarantee")["kettle"]["guarantee"]
    assert pieces("guarantee") == ["guara", "##ntee"]
    assert match.query_weight == pytest.approx(asked("guara") + asked("##ntee"))
    assert match.weight == pytest.approx(kept(1.5), rel=1e-5)
    assert match.source == "passage"


def test_a_word_of_which_some_pieces_are_added_says_so(kb: ThriftRAG) -> None:
    """`appliance` is added to the kettle's passage, and of `applied` only the first piece is in that."""
    found = explained(kb, "applied kettle appliance")["kettle"]
    assert set(found) == {"applied/appliance", "kettle"}
    match = found["applied/appliance"]
    assert match.source == "expansion"
    kb.ingest(lines=[json.dumps({"id": "both", "title": "", "text": "A kettle is applied."})])
    match = explained(kb, "appliance")["both"]["appliance"]
    assert match.source == "both"
    assert match.held == pytest.approx(asked("appli") * kept(1.5) / (asked("appli") * kept(1.5) + asked("##ance") * kept(ADDED)))


def test_words_that_share_a_token_are_one_term() -> None:
    encoder = PieceEncoder()
    text = "otter sleepsleep heron sleep Otter the of, heron-sleep"
    query = encoder.query(text)
    terms = terms_of(text, query, encoder=encoder)
    assert [label for label, _ in terms] == ["otter", "sleepsleep/sleep", "heron"]
    places = [place for _, tokens in terms for place in tokens]
    assert sorted(places) == list(range(len(query[0])))
    assert [query[0][tokens].tolist() for label, tokens in terms if label == "heron"] == [[number("heron")]]


def test_a_chain_of_shared_pieces_is_joined() -> None:
    """`abcdevwxyz` shares a piece with both of the words before it, which share none."""
    encoder = PieceEncoder()
    text = "abcde qqqqqvwxyz abcdevwxyz"
    terms = terms_of(text, encoder.query(text), encoder=encoder)
    assert [label for label, _ in terms] == ["abcde/qqqqqvwxyz/abcdevwxyz"]
    assert sorted(terms[0][1]) == [0, 1, 2]


def test_a_question_without_terms_has_none_to_explain() -> None:
    encoder = PieceEncoder()
    assert terms_of("what is it?", encoder.query("what is it?"), encoder=encoder) == []
    assert terms_of("", (np.zeros(0, np.int32), np.zeros(0, np.float32)), encoder=encoder) == []


@pytest.mark.parametrize(("mode", "told"), [("dense", "dense"), ("bm25", "bm25"), ("hybrid", "dense and bm25")])
def test_a_mode_without_terms_says_so(kb: ThriftRAG, mode: str, told: str) -> None:
    found = kb.find("otter water", mode=mode, explain=True, changes={"origins": "dense,bm25"})
    assert found.hits
    assert all(hit.explain is None for hit in found.hits)
    [note] = found.notes
    assert f"the search was by {told}," in note
    assert "--mode sparse" in note
    assert "explain" not in found.hits[0].to_dict()


def test_hybrid_explains_where_sparse_is_among_its_origins(kb: ThriftRAG) -> None:
    found = kb.find("otter water", explain=True, changes={"origins": "dense,sparse", "fusion": "weighted"})
    assert found.notes == ()
    for hit in found.hits:
        assert hit.explain is not None
        assert sum(match.contribution for match in hit.explain) == pytest.approx(hit.origins.get("sparse", 0.0), rel=1e-5)


def test_a_fallback_is_told_before_there_is_nothing_to_explain(kb: ThriftRAG) -> None:
    found = kb.find("what is it", mode="sparse", explain=True)
    assert len(found.notes) == 2
    assert "only common ones" in found.notes[0]
    assert "no terms to explain: the search was by dense" in found.notes[1]


def test_the_trace_explains_the_passages_that_were_chosen(kb: ThriftRAG) -> None:
    answer = kb.ask("Which animal sleeps in water?", changes={"origins": "dense,sparse", "abstain_below": 0.0})
    facts = next(step.facts for step in answer.trace if step.stage == "select")
    passages = facts["terms"]
    assert isinstance(passages, list)
    assert {row["chunk_id"] for row in passages} == {passage.chunk.id for passage in answer.context.passages}
    told = {row["chunk_id"].split(":")[0]: {match["term"]: match["from"] for match in row["terms"]} for row in passages}
    assert told["otters"] == {"animal": "expansion", "sleeps": "passage", "water": "passage", "which": "nothing"}
    json.dumps(answer.to_dict())
    plain = kb.ask("Which animal sleeps in water?", changes={"origins": "dense,bm25"})
    assert all("terms" not in step.facts for step in plain.trace)
