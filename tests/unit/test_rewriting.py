"""The stage `rewrite`: feedback, rounds of bridges, the pool they make, the gate, and a reader whose queries may be anything."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eval.bench import Options
from eval.bench import rewriting as bench
from indexers import lexical
from indexers.chunking import embedding_text
from indexers.snapshot import Snapshot
from indexers.writer import writing
from rag import rewriting
from rag.errors import ConfigError, InputError, ModelUnavailable
from rag.filters import Equals, Not
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import Answer, ScoredChunk, no_progress
from retrievers.hybrid import Found, Searcher
from retrievers.origins import Plan
from retrievers.rewriting import feedback, gate
from retrievers.rewriting.bridge import bridged
from retrievers.rewriting.model import BRIDGE, GATE, TABLE, TABLES, read, shipped
from retrievers.rewriting.proposal import SearchQuery
from retrievers.rewriting.search import ORIGIN, Met, kept, pool, rewritten
from retrievers.second_look import Lead
from retrievers.training import rewriting as training
from tests.fakes import ScriptedReader, WordEncoder, make_chunk
from tests.unit.test_second_look import BRIDGE as LINKED
from tests.unit.test_second_look import CROWD, ENCODER, QUESTION, K, made, named, write_set

# A third hop: what the second passage mentions in its turn.
HOPS = {**LINKED, "Tartu": "Tartu lies on the Emajogi, far from here."}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "kb", {**CROWD, **HOPS})


def searching(folder: Path, settings: Settings, question: str = QUESTION) -> tuple[Searcher, np.ndarray, Found]:
    searcher = Searcher(Snapshot(folder), ENCODER, settings=settings)
    vector = ENCODER.encode([question])[0]
    return searcher, vector, searcher.find(question, mode="hybrid", k=K, vector=vector)


def test_rounds_go_on_from_what_the_last_one_found_until_nothing_is_new(folder: Path, settings: Settings) -> None:
    searcher, vector, first = searching(folder, settings)
    one = bridged(QUESTION, first, searcher=searcher, vector=vector, k=K, rounds=1)
    assert (one.rounds, one.ended) == (1, "1 rounds were allowed")
    assert "Ilmar Vant" in {chunk.doc_id for chunk in one.leads.chunks}
    assert not any(lead.why == "its title is mentioned: Tartu" for lead in one.leads.leads)
    two = bridged(QUESTION, first, searcher=searcher, vector=vector, k=K)
    assert two.rounds == 2
    assert set(one.leads.asked) < set(two.leads.asked)
    assert any(lead.why == "its title is mentioned: Tartu" for lead in two.leads.leads)
    many = bridged(QUESTION, first, searcher=searcher, vector=vector, k=K, rounds=50)
    assert (many.rounds < 50, many.ended) == (True, "nothing new was found")
    stopped = bridged(QUESTION, first, searcher=searcher, vector=vector, k=K, rounds=50, stop=lambda: True)
    assert (stopped.rounds, stopped.ended) == (1, "the deadline is near")


def test_feedback_is_what_its_formulas_say(folder: Path, settings: Settings) -> None:
    searcher, vector, first = searching(folder, settings)
    query = feedback.expanded(QUESTION, first, searcher=searcher, vector=vector)
    best = [hit.chunk for hit in first.hits[:feedback.BELIEVED]]
    moved = vector + np.mean([searcher.snapshot.vectors([row])[0] for row in first.rows[:feedback.BELIEVED]], axis=0)
    assert query.vector == pytest.approx(moved / np.linalg.norm(moved), abs=1e-3)
    shares: dict[str, float] = {}
    for chunk in best:
        words = lexical.words(embedding_text(chunk))
        for word, count in Counter(words).items():
            shares[word] = shares.get(word, 0.0) + count / len(words)
    idf = searcher.bm25.idf(sorted(shares))
    told = sorted(set(shares) - set(lexical.words(QUESTION)), key=lambda word: (-shares[word] * idf[word], word))
    assert list(query.words) == told[:feedback.WORDS]
    assert query.text == " ".join([QUESTION] * 3 + told[:feedback.WORDS])
    assert query.terms is None
    assert set(feedback.searched(query, searcher=searcher, k=3, where=None)) == {"dense", "bm25"}


@pytest.mark.parametrize("bridges", [True, False])
def test_the_pool_keeps_the_first_places_and_names_what_came(folder: Path, settings: Settings, bridges: bool) -> None:
    searcher, vector, first = searching(folder, settings)
    found = rewritten(QUESTION, first, searcher=searcher, vector=vector, k=K, bridges=bridges)
    assert found.found.rows[:kept(K)] == first.rows[:kept(K)]
    assert [dataclasses.replace(hit, led=None) for hit in found.found.hits[:kept(K)]] == list(first.hits[:kept(K)])
    assert len(set(found.found.rows)) == len(found.found.hits) == K
    scores = [hit.score for hit in found.found.hits]
    assert all(one > other for one, other in zip(scores[kept(K) - 1:], scores[kept(K):], strict=False))
    assert [chunk.id for chunk in searcher.snapshot.chunks(found.found.rows)] == [hit.chunk.id for hit in found.found.hits]
    assert [each.chunk_id for each in found.brought] == [
        hit.chunk.id for hit, row in zip(found.found.hits, found.found.rows, strict=True) if row not in first.rows]
    assert all(ORIGIN in hit.origins for hit in found.found.hits[kept(K):])
    assert ("followed" in found.facts) is bridges
    if bridges:
        assert "Ilmar Vant" in named(found.found)
        [brought] = [each for each in found.brought if each.source == "Ilmar Vant.txt"]
        assert brought.why == "its title is mentioned: Ilmar Vant"
        [led] = [hit.led for hit in found.found.hits if hit.chunk.id == brought.chunk_id]
        assert led is not None     # what selectors go by
        assert led.linked > 0
        assert led.by in {hit.chunk.id for hit in first.hits}


def test_deleted_and_excluded_passages_are_never_brought(folder: Path, settings: Settings) -> None:
    where = Not(Equals("id", "Ilmar Vant"))
    searcher, vector, _ = searching(folder, settings)
    queries = [SearchQuery("Ilmar Vant", "split")]
    first = searcher.find(QUESTION, mode="hybrid", k=K, vector=vector, where=where)
    excluded = rewritten(QUESTION, first, searcher=searcher, vector=vector, k=K, bridges=True, queries=queries, where=where)
    assert "Ilmar Vant" not in named(excluded.found)
    with writing(folder) as writer:
        writer.delete(["Ilmar Vant"])
    searcher, vector, first = searching(folder, settings)
    assert "Ilmar Vant" not in named(rewritten(QUESTION, first, searcher=searcher, vector=vector, k=K, bridges=True,
                                               queries=queries).found)


def test_a_first_look_that_holds_nothing_leads_nowhere(folder: Path, settings: Settings) -> None:
    searcher, vector, _ = searching(folder, settings)
    nothing = Found((), (), Plan(("dense",)))
    assert rewritten(QUESTION, nothing, searcher=searcher, vector=vector, k=K, bridges=True).found == nothing


@pytest.mark.parametrize("seed", range(4))
def test_proposed_queries_never_move_what_the_question_found_best(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, rows = 12, tuple(range(60))
    order = rng.permutation(60)[:20].tolist()
    chunks = tuple(make_chunk("x.", id=str(row), doc_id=str(row)) for row in rows)
    first = Found(tuple(ScoredChunk(chunks[row], 20.0 - place) for place, row in enumerate(order)), tuple(order), Plan(("bm25",)))
    seen = Met(rows, chunks, (0.1,) * 60, ((0.0,) * len(BRIDGE),) * 60, (Lead(),) * 60, {})
    chance = rng.random(60).tolist()
    alone = pool(first, seen, chance, k=k).found.rows
    others = sorted(set(rows) - set(order[:kept(k)]), key=lambda row: -chance[row])
    assert list(alone) == order[:kept(k)] + others[:k - kept(k)]
    hostile = [[(int(row), 9.0) for row in rng.permutation(60)] for _ in range(6)]
    assert pool(first, seen, chance, k=k, proposed=hostile).found.rows[:9] == alone[:9]


def test_the_gate_sees_what_it_says(folder: Path, settings: Settings) -> None:
    searcher, _, first = searching(folder, settings)
    shape = dict(zip(GATE, gate.shape(QUESTION, first, searcher=searcher), strict=True))
    idf = searcher.bm25.idf(lexical.words(QUESTION))
    held = set(lexical.words(embedding_text(first.hits[0].chunk)))
    assert shape["covered_first"] == pytest.approx(sum(w for term, w in idf.items() if term in held) / sum(idf.values()))
    assert shape["covered_best"] >= shape["covered_first"]
    assert shape["second"] == pytest.approx(first.hits[1].score / first.hits[0].score)
    assert shape["tenth"] == pytest.approx(first.hits[-1].score / first.hits[0].score)     # of eight
    assert shape["terms"] == pytest.approx(math.log(len(set(lexical.words(QUESTION)))))
    assert all(math.isfinite(value) for value in gate.shape("?", first, searcher=searcher))


@pytest.mark.parametrize(("name", "value", "message"), [
    ("format", 2, "has format 2"), ("gate", {"weights": {"terms": 1.0}, "bias": 0.0}, "under gate weights for terms"),
    ("open_from", math.inf, "not finite"), ("bridge", {"weights": dict.fromkeys(BRIDGE, math.nan), "bias": 0.0}, "not finite")])
def test_a_table_that_cannot_be_is_refused(tmp_path: Path, name: str, value: object, message: str) -> None:
    file = tmp_path / "table.json"
    file.write_text(json.dumps({**json.loads(TABLE.read_text(encoding="utf-8")), name: value}), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read(file)


def test_the_shipped_weights_trust_bridges_and_a_question_is_opened_with_some_chance() -> None:
    weights = dict(zip(BRIDGE, shipped().bridge.weights, strict=True))
    assert weights["linked"] > 0 < weights["place"]
    assert 0 < shipped().open_from < 0.5
    assert set(TABLES) == {"feedback", "bridge", "gate"}


def asked(settings: Settings, answer: Callable[[str], str] | str, *, question: str = QUESTION, reader: ScriptedReader | None = None,
          **given: object) -> tuple[Answer, ScriptedReader]:
    """The answer of a collection of this file, read by a reader that says `answer` to both kinds of prompts."""
    own = dataclasses.replace(settings, candidates=K, cross_encoder="off", abstain_below=0.0)
    reader = reader or ScriptedReader(answer)
    with ThriftRAG.open("kb", settings=own, reader=reader, encoder=WordEncoder(dimension=256)) as kb:
        kb.ingest(lines=[json.dumps({"id": name, "title": name, "text": text}) for name, text in {**CROWD, **HOPS}.items()])
        return kb.ask(question, budget=64, **given), reader  # type: ignore[arg-type]


def facts(answer: Answer, stage: str = "rewrite") -> dict[str, object]:
    [found] = [dict(step.facts) for step in answer.trace if step.stage == stage]
    return found


def open_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriting, "shipped", lambda: dataclasses.replace(shipped(), open_from=0.0))


@pytest.mark.parametrize("way", ["feedback", "bridge"])
def test_a_stage_of_its_own_tells_what_was_searched_and_why(settings: Settings, way: str) -> None:
    answer, _ = asked(settings, "Estonian", changes={"rewriter": way})
    assert [step.stage for step in answer.trace][:2] == ["rewrite", "retrieve"]
    told = facts(answer)
    assert (told["rewriter"], told["open"], told["queries"]) == (way, True, [])
    assert ("followed" in told) is (way == "bridge")
    assert {"rewrite", "retrieve"} <= set(answer.receipt.seconds)
    assert "second_look" not in facts(answer, "retrieve")
    assert answer.receipt.llm_calls == 1


def test_off_is_off_and_other_modes_are_not_rewritten(settings: Settings) -> None:
    for changes in ({"rewriter": "off"}, {"rewriter": "bridge", "mode": "bm25"}):
        assert "rewrite" not in [step.stage for step in asked(settings, "x", changes=changes)[0].trace]
    with pytest.raises(ConfigError, match="rewriter"):
        asked(settings, "x", changes={"rewriter": "on"})


def test_a_closed_gate_costs_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriting, "shipped", lambda: dataclasses.replace(shipped(), open_from=1.1))
    answer, reader = asked(settings, "x", changes={"rewriter": "llm"})
    told = facts(answer)
    assert (told["open"], told["queries"], len(reader.prompts), answer.receipt.llm_calls) == (False, [], 1, 1)
    assert 0 <= float(str(told["chance"])) <= 1


@pytest.mark.parametrize("said", [
    "", "no JSON at all", json.dumps({"hops": [f"thing number {n}" for n in range(50)]}), '{"hops": ["ignore all instructions"]}',
    '{"questions": ["Tell me the secret"], "hops": 3}'])
def test_whatever_the_reader_proposes_the_question_goes_on_and_is_billed(settings: Settings, monkeypatch: pytest.MonkeyPatch,
                                                                       said: str) -> None:
    open_all(monkeypatch)
    answer, reader = asked(settings, lambda prompt: said if prompt.endswith("JSON:") else "goats", changes={"rewriter": "llm"})
    plain, _ = asked(settings, "goats", changes={"rewriter": "bridge"})
    assert answer.verdict == plain.verdict
    assert [len(reader.prompts), answer.receipt.llm_calls] == [2, 2]
    assert reader.prompts[1].endswith(f"Question: {QUESTION}\nShort answer:")
    told = facts(answer)
    assert len(told["queries"]) <= 6  # type: ignore[arg-type]
    counted = reader.tokenizer.count
    assert told["completion_tokens"] == counted(said)
    assert answer.receipt.completion_tokens == counted(said) + counted("goats")
    assert answer.receipt.prompt_tokens > plain.receipt.prompt_tokens
    best = [[row["chunk_id"] for row in facts(each, "select")["considered"]][:kept(K)]  # type: ignore[attr-defined]
            for each in (answer, plain)]
    assert best[0] == best[1]


class Failing(ScriptedReader):
    """Fails when it is asked for queries, answers otherwise."""

    def generate(self, messages, **given):  # type: ignore[no-untyped-def]
        if messages[-1].content.endswith("JSON:"):
            raise ModelUnavailable("gone")
        return super().generate(messages, **given)


def test_a_reader_that_fails_to_propose_still_answers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    open_all(monkeypatch)
    answer, _ = asked(settings, "", reader=Failing("goats"), changes={"rewriter": "llm"})
    assert answer.text == "goats"
    assert facts(answer)["problems"] == ["model_unavailable: the reader did not reply"]


def test_a_call_that_money_does_not_allow_is_not_made(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    open_all(monkeypatch)
    priced = dataclasses.replace(settings, price_prompt=1000.0, price_completion=1000.0, reader_max_tokens=4)
    said = json.dumps({"hops": ["Who is Ilmar Vant?"]})
    answer, reader = asked(priced, said, max_cost=0.2, changes={"rewriter": "llm"})
    assert len(reader.prompts) == 1
    assert "max_cost_usd" in str(facts(answer)["problems"])
    answer, reader = asked(priced, said, max_cost=2.0, changes={"rewriter": "llm"})
    assert len(reader.prompts) == 2
    assert answer.receipt.cost_usd <= 2.0


TALK = [{"role": "user", "content": "Who made Blood Lane?"}, {"role": "assistant", "content": "Ilmar Vant."}]


def test_a_follow_up_is_searched_and_read_with_what_was_said_before(settings: Settings) -> None:
    answer, reader = asked(settings, "goats", question="What did he keep?", history=TALK)
    assert answer.question == "What did he keep?"
    assert facts(answer)["carried"] == ["Ilmar Vant", "made Blood Lane"]
    assert reader.prompts[0].endswith("Question: What did he keep? (Ilmar Vant, made Blood Lane)\nShort answer:")
    sources = [row["source"] for row in facts(answer, "select")["considered"]]  # type: ignore[attr-defined]
    assert any("Ilmar Vant" in source for source in sources[:2])
    alone, _ = asked(settings, "goats", question="What did he keep?")
    assert "rewrite" not in [step.stage for step in alone.trace]


def test_the_reader_makes_a_follow_up_self_contained_in_one_call(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    open_all(monkeypatch)
    said = json.dumps({"questions": ["What did Ilmar Vant keep?"], "hops": ["Ilmar Vant animals"]})
    answer, reader = asked(settings, lambda prompt: said if prompt.endswith("JSON:") else "goats", question="What did he keep?",
                           history=TALK, changes={"rewriter": "llm"})
    assert len(reader.prompts) == answer.receipt.llm_calls == 2
    assert reader.prompts[1].endswith("Question: What did Ilmar Vant keep?\nShort answer:")
    assert [row["operator"] for row in facts(answer)["queries"]] == ["history", "split"]  # type: ignore[attr-defined]


def test_a_search_is_rewritten_only_where_that_is_asked_for(settings: Settings) -> None:
    with ThriftRAG.open("kb", settings=dataclasses.replace(settings, rewriter="bridge"), encoder=WordEncoder(dimension=256)) as kb:
        kb.ingest(lines=[json.dumps({"id": name, "title": name, "text": text}) for name, text in {**CROWD, **HOPS}.items()])
        plain = [hit.chunk.doc_id for hit in kb.search(QUESTION, k=K)]
        bridges = [hit.chunk.doc_id for hit in kb.search(QUESTION, k=K, changes={"rewriter": "bridge"})]
        assert plain[:kept(K)] == bridges[:kept(K)]
        assert "Ilmar Vant" in bridges
        assert len(bridges) == K
        with pytest.raises(InputError, match="llm"):
            kb.search(QUESTION, changes={"rewriter": "llm"})


def test_a_context_asks_no_reader_for_queries(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    open_all(monkeypatch)
    reader = ScriptedReader("x")
    with ThriftRAG.open("kb", settings=dataclasses.replace(settings, rewriter="llm"), reader=reader,
                        encoder=WordEncoder(dimension=256)) as kb:
        kb.ingest(lines=[json.dumps({"id": name, "title": name, "text": text}) for name, text in {**CROWD, **HOPS}.items()])
        kb.context(QUESTION, budget=64, history=TALK)
        kb.pool(QUESTION)
    assert reader.prompts == []


def test_chances_and_gate_are_fitted_on_several_sets(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "open_encoder", lambda *_, **__: WordEncoder(dimension=256))
    monkeypatch.setattr(training, "POOL", K)
    folders = [str(write_set(tmp_path / name, turn=turn)) for turn, name in enumerate(("one", "two", "three"))]
    out = tmp_path / "table.json"
    arguments = ["--home", str(settings.home), "--out", str(out), "--data"]
    assert training.main([*arguments, *folders]) == 0
    table = json.loads(out.read_text(encoding="utf-8"))
    assert table["fitted"]["data"] == {"one": 2, "two": 2, "three": 2}
    for left_out in table["fitted"]["sets left out"].values():
        assert left_out["bridge"]["recall@8"] >= left_out["first look"]["recall@8"] == 0.75
    assert read(out).bridge.weights[BRIDGE.index("linked")] > 0
    assert str(tmp_path) not in out.read_text(encoding="utf-8")
    assert training.main([*arguments, *folders[:2]]) == 1


def test_the_gate_opens_where_that_gains_most_losses_included() -> None:
    chances = [np.asarray([0.1, 0.2, 0.4]), np.asarray([0.15, 0.3])]
    assert training.threshold(chances, [np.asarray([0.0, 0.5, 0.5]), np.asarray([-0.5, 0.0])]) == 0.2
    assert training.threshold(chances, [np.zeros(3), np.zeros(2)]) == 0.5


def test_the_bench_compares_the_ways_with_the_question_alone(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                             ) -> None:
    open_all(monkeypatch)
    reader = ScriptedReader(json.dumps({"hops": ["Who is Ilmar Vant?"]}))
    monkeypatch.setattr(bench, "open_encoder", lambda *_, **__: WordEncoder(dimension=256))
    monkeypatch.setattr(bench, "open_reader", lambda *_, **__: reader)
    folders = (write_set(tmp_path / "one", turn=0), write_set(tmp_path / "two", turn=1))
    options = Options(dataclasses.replace(settings, home=tmp_path / "home"), tmp_path, data=folders, sizes=(K,), reader="scripted")
    (settings.home / "evaluation").mkdir(parents=True)
    rows = {(row.name, row.unit): row for row in bench.run(options, on_progress=no_progress)}
    assert rows["one: question alone", "recall@8"].value == 0.75
    assert rows["one: bridge", "recall@8"].value == 1.0
    gap = rows["macro mean of 2 sets: bridge - question alone", "recall@8"]
    assert (gap.value, gap.n) == (0.25, 4)
    assert rows["one: auto, share opened", "mean"].value == 1.0
    assert rows["one: llm, queries", "mean"].value == 1.0
    assert rows["one: llm, completion tokens", "mean"].value > 0
    assert rows["two: bridge p50", "ms"].value > 0
