"""A second look: what it brings, what it leaves alone, and the mentions, chances and weights behind it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from eval.bench import Options
from eval.bench import second_look as bench
from indexers import lexical, store
from indexers.snapshot import Snapshot
from indexers.writer import Indexed, writing
from rag.errors import ConfigError
from rag.filters import Equals, Filter, Not
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import ScoredChunk, no_progress
from retrievers import mentions
from retrievers.hybrid import Found, Searcher
from retrievers.origins import Plan
from retrievers.second_look import ORIGIN, Lead, Leads, SecondLook, chosen, kept_of, leads, second_look
from retrievers.second_look_model import FEATURES, TABLE, Chances, read, shipped
from retrievers.training import second_look as training
from tests.fakes import ScriptedReader, WordEncoder, make_chunk
from tests.unit.test_store import indexed, publish

ENCODER = WordEncoder(dimension=256)
QUESTION = "What nationality is the director of the film Blood Lane?"
BRIDGE = {"Blood Lane": "Blood Lane was made by Ilmar Vant.", "Ilmar Vant": "Ilmar Vant kept goats near Tartu."}
CROWD = {f"{word} affair": f"A film that shows a {word}."
         for word in ("balloon", "cactus", "dolphin", "engine", "ferry", "glacier", "harbour", "island", "jungle", "kettle",
                      "lantern", "meadow", "needle", "orchard", "pepper", "quarry", "ribbon", "saddle", "tunnel", "violin")}
K = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "kb", {**CROWD, **BRIDGE})


def made(folder: Path, texts: dict[str, str], *, titles: bool = True) -> Path:
    store.create(folder, encoder=ENCODER.name, dimension=ENCODER.dimension, chunk_tokens=200)
    publish(folder, *(item if titles else untitled(item) for item in (encoded(name, text) for name, text in texts.items())))
    return folder


def encoded(name: str, text: str) -> Indexed:
    return dataclasses.replace(indexed(name, [text]), vectors=ENCODER.encode([f"{name}\n{text}"]))


def untitled(item: Indexed) -> Indexed:
    return dataclasses.replace(item, document=dataclasses.replace(item.document, title=""),
                               chunks=tuple(dataclasses.replace(chunk, title="") for chunk in item.chunks))


def looked(folder: Path, settings: Settings, question: str = QUESTION, *, k: int = K, where: Filter | None = None
           ) -> tuple[Found, SecondLook]:
    searcher = Searcher(Snapshot(folder), ENCODER, settings=settings)
    vector = ENCODER.encode([question])[0]
    first = searcher.find(question, mode="hybrid", k=k, vector=vector, where=where)
    return first, second_look(question, first, searcher=searcher, k=k, vector=vector, where=where)


def named(found: Found) -> list[str]:
    return [hit.chunk.doc_id for hit in found.hits]


def test_the_passage_that_another_leads_to_becomes_a_candidate(folder: Path, settings: Settings) -> None:
    first, second = looked(folder, settings)
    assert "Blood Lane" in named(first)
    assert "Ilmar Vant" not in named(first)
    assert "Ilmar Vant" in named(second.found)
    assert named(second.found)[:kept_of(K)] == named(first)[:kept_of(K)]
    assert len(second.found.hits) == len(second.found.rows) == len(set(second.found.rows)) == K
    [brought] = [each for each in second.brought if each.source == "Ilmar Vant.txt"]
    assert (brought.by, brought.why) == ("Blood Lane:0:1", "its title is mentioned: Ilmar Vant")
    assert "Ilmar Vant" in second.asked
    hit = second.found.hits[named(second.found).index("Ilmar Vant")]
    assert hit.origins[ORIGIN] == brought.chance > 0.5
    assert hit.led is not None
    assert (hit.led.by, hit.led.linked) == (brought.by, pytest.approx(1 / (1 + 0.3 * named(first).index("Blood Lane"))))
    # A passage of the first look that others lead to says so too; the scores of the first look are its own.
    assert any(other.led for other in second.found.hits[:kept_of(K)])
    assert [other.score for other in second.found.hits[:kept_of(K)]] == [other.score for other in first.hits[:kept_of(K)]]
    assert hit.origins["dense"] == pytest.approx(float(ENCODER.encode([QUESTION])[0] @ ENCODER.encode(
        [f"Ilmar Vant\n{BRIDGE['Ilmar Vant']}"])[0]), abs=1e-3)


def test_scores_continue_the_order_and_rows_belong_to_their_chunks(folder: Path, settings: Settings) -> None:
    _, second = looked(folder, settings)
    scores = [hit.score for hit in second.found.hits]
    assert scores == sorted(scores, reverse=True)
    snapshot = Snapshot(folder)
    assert [chunk.id for chunk in snapshot.chunks(second.found.rows)] == [hit.chunk.id for hit in second.found.hits]


def test_the_same_question_gets_the_same_pool(folder: Path, settings: Settings) -> None:
    (_, once), (_, again) = looked(folder, settings), looked(folder, settings)
    assert (once.found.hits, once.found.rows) == (again.found.hits, again.found.rows)
    assert (once.asked, once.brought) == (again.asked, again.brought)


def test_deleted_and_excluded_passages_are_not_brought(folder: Path, settings: Settings) -> None:
    excluded = looked(folder, settings, where=Not(Equals("id", "Ilmar Vant")))[1]
    assert "Ilmar Vant" not in named(excluded.found)
    assert looked(folder, settings, where=Equals("id", "Ilmar Vant"))[1].asked == ()
    with writing(folder) as writer:
        writer.delete(["Ilmar Vant"])
    assert "Ilmar Vant" not in named(looked(folder, settings)[1].found)


def test_names_lead_on_where_there_are_no_titles(tmp_path: Path, settings: Settings) -> None:
    first, second = looked(made(tmp_path / "kb", {**CROWD, **BRIDGE}, titles=False), settings)
    assert "Ilmar Vant" not in named(first)
    [brought] = [each for each in second.brought if each.source == "Ilmar Vant.txt"]
    assert brought.why == "it holds the name 'Ilmar Vant'"


def test_rare_words_lead_on_in_scripts_without_capitals(tmp_path: Path, settings: Settings) -> None:
    crowd = {f"影片{mark}": f"这部电影的导演是哪国人没有人知道{mark}" for mark in "甲乙丙丁戊己庚辛壬癸子丑寅卯"}
    kb = made(tmp_path / "kb", {**crowd, "红高粱": "红高粱这部影片由张艺谋拍摄", "张艺谋": "张艺谋生于西安"})
    first, second = looked(kb, settings, "红高粱这部电影的导演是哪国人")
    assert "红高粱" in named(first)[:4]
    assert "张艺谋" not in named(first)
    assert "张艺谋" in named(second.found)


def test_pools_without_room_or_need_stay_as_they_are(folder: Path, settings: Settings) -> None:
    for k in (1, 2, 3, len(CROWD) + len(BRIDGE) + 1):
        first, second = looked(folder, settings, k=k)
        assert second == SecondLook(first)
    searcher = Searcher(Snapshot(folder), ENCODER, settings=settings)
    nothing = Found((), (), Plan(("dense",)))
    assert second_look(QUESTION, nothing, searcher=searcher, k=K, vector=ENCODER.encode([QUESTION])[0]) == SecondLook(nothing)


def test_a_deeper_first_look_is_cut_to_the_pool(folder: Path, settings: Settings) -> None:
    searcher = Searcher(Snapshot(folder), ENCODER, settings=settings)
    vector = ENCODER.encode([QUESTION])[0]
    deep = searcher.find(QUESTION, mode="hybrid", k=2 * K, vector=vector)
    assert len(second_look(QUESTION, deep, searcher=searcher, k=K, vector=vector).found.hits) == K
    [only] = second_look(QUESTION, deep, searcher=searcher, k=1, vector=vector).found.hits
    assert only == deep.hits[0]


def test_one_seed_without_any_mention_brings_nothing(tmp_path: Path, settings: Settings) -> None:
    kb = made(tmp_path / "kb", {f"{i}": "!" * (i + 1) for i in range(12)})
    first, second = looked(kb, settings, "?")
    assert second.brought == ()
    assert second.found.hits == first.hits


def test_features_are_what_the_searches_say(folder: Path, settings: Settings) -> None:
    searcher = Searcher(Snapshot(folder), ENCODER, settings=settings)
    vector = ENCODER.encode([QUESTION])[0]
    first = searcher.find(QUESTION, mode="hybrid", k=K, vector=vector)
    met = leads(QUESTION, first, searcher=searcher, vector=vector)
    place = named(first).index("Blood Lane")
    features = dict(zip([chunk.doc_id for chunk in met.chunks], met.features, strict=True))
    share = 1 / (1 + 0.3 * place)
    own = dict(zip(FEATURES, features["Ilmar Vant"], strict=True))
    assert own["place"] == own["one_word"] == own["covered"] == 0
    assert own["linked"] == own["named"] == pytest.approx(share)
    assert 0 < own["rare"] <= share
    # The title of the passage that the question names is no link, whoever mentions it.
    assert dict(zip(FEATURES, features["Blood Lane"], strict=True))["linked"] == 0
    assert features["Blood Lane"][0] == pytest.approx(10 / (10 + place))
    held = searcher.bm25.idf(lexical.words(QUESTION))
    assert features["Blood Lane"][2] == pytest.approx((held["blood"] + held["lane"]) / sum(held.values()))


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_equals_the_obvious_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, rows = 12, tuple(range(40))
    order = rng.permutation(40)[:k].tolist()
    chunks = tuple(make_chunk("x.", id=str(row)) for row in rows)
    first = Found(tuple(ScoredChunk(chunks[row], float(-place)) for place, row in enumerate(order)), tuple(order), Plan(("bm25",)))
    features = tuple((10 / (10 + order.index(row)) if row in order else 0.0, *rng.random(6).tolist()) for row in rows)
    chances = Chances((1.0, 2.0, 1.0, 2.0, -1.0, 2.0, 0.5), -3.0)
    found = chosen(first, Leads(rows=rows, chunks=chunks, cosines=(0.5,) * 40, features=features, leads=(Lead(),) * 40), k=k,
                   chances=chances)
    chance = [1 / (1 + math.exp(3 - sum(w * f for w, f in zip(chances.weights, row, strict=True)))) for row in features]
    kept = order[:9]
    rest = sorted((row for row in rows if row not in kept), key=lambda row: -chance[row])[:3]
    assert list(found.found.rows) == kept + [row for row in order if row in rest] + [row for row in rest if row not in order]
    assert [each.chance for each in found.brought] == pytest.approx([chance[row] for row in rest if row not in order])


def test_kept_places_are_three_quarters() -> None:
    assert [kept_of(k) for k in (1, 2, 3, 4, 8, 12, 24, 5000)] == [1, 2, 3, 3, 6, 9, 18, 3750]


@pytest.mark.parametrize(("text", "expected"), [
    ("Blood Lane is a 1988 film by Leo Fong.", ["Blood Lane", "1988", "Leo Fong"]),
    ("Louis de la Tour, Duke of Saxe-Eisenach; J. R. Smith's son.", ["Louis de la Tour", "Duke of Saxe-Eisenach", "J. R. Smith's"]),
    ("He left Paris. Rome came later", ["He", "Paris", "Rome"]),
    ("“the quoted thing” and «Война и мир»", ["Война", "the quoted thing", "Война и мир"]),
    ("张艺谋导演的《红高粱》", ["红高粱"]),
    ("one\nTwo\nThree of", ["Two", "Three"]),
    ("Rome, Rome", ["Rome"]), ("A" * 81, []), ("nothing here", []), ("", []), ("...!?", [])])
def test_names_are_runs_of_capitals_and_quotes(text: str, expected: list[str]) -> None:
    assert mentions.names(text) == expected


def test_rare_terms_are_those_that_lead_somewhere() -> None:
    texts = ["goat tartu", "goat tartu abroad", "goat hill", "goat hill", "goat once"]
    held = {term: sum(term in lexical.words(text) for text in texts) for text in texts for term in lexical.words(text)}

    idf = {term: math.log(1 + (5 - count + 0.5) / (count + 0.5)) for term, count in held.items()}
    assert mentions.rare(idf, known=set(), chunks=5, most=9) == ["hill", "tartu", "goat"]
    assert mentions.rare(idf, known={"hill"}, chunks=5, most=1) == ["tartu"]
    assert mentions.rare({}, known=set(), chunks=0, most=3) == []
    assert mentions.weight("Tartu hill", known={"tartu", "hill"}, idf=idf) == 0
    assert mentions.weight("Tartu hill", known={"hill"}, idf=idf) == pytest.approx(2 * idf["hill"])
    assert mentions.weight("Tartu unseen", known=set(), idf=idf) == pytest.approx(idf["tartu"])
    assert mentions.weight("?!", known=set(), idf=idf) == 0


def test_titles_are_looked_for_as_whole_terms() -> None:
    title = mentions.titled("Billy Elliot (film)")
    assert title == mentions.titled("Billy  Elliot")
    assert title in mentions.spread("He saw Billy Elliot twice.")
    assert mentions.titled("(film)") == " film "
    assert mentions.titled("") == mentions.titled("!") == ""
    assert mentions.titled("art") not in mentions.spread("party")


def test_chances_are_logistic() -> None:
    chances = Chances((1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0), -1.0)
    assert chances.of([(1, 9, 0, 9, 9, 9, 9), (0, 0, 1, 0, 0, 0, 0)]).tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-1))])
    assert chances.of([]).tolist() == []


def test_the_shipped_weights_trust_links_more_than_chance() -> None:
    weights = dict(zip(FEATURES, shipped().weights, strict=True))
    assert min(weights[name] for name in ("cosine", "covered", "linked", "rare", "named")) > 0 > shipped().bias


@pytest.mark.parametrize(("name", "value", "message"), [
    ("format", 2, "has format 2"), ("weights", {"place": 1.0}, "weights for place"), ("bias", math.inf, "not finite"),
    ("weights", dict.fromkeys(FEATURES, math.nan), "not finite")])
def test_a_table_that_cannot_be_is_refused(tmp_path: Path, name: str, value: object, message: str) -> None:
    file = tmp_path / "table.json"
    file.write_text(json.dumps({**json.loads(TABLE.read_text(encoding="utf-8")), name: value}), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read(file)


def test_the_trace_says_what_was_searched_and_brought(settings: Settings) -> None:
    own = dataclasses.replace(settings, candidates=K, cross_encoder="off")
    with ThriftRAG.open("kb", settings=own, reader=ScriptedReader("Estonian"), encoder=WordEncoder(dimension=256),
                        keep_pools=2) as kb:
        kb.ingest(lines=[json.dumps({"id": name, "title": name, "text": text}) for name, text in {**CROWD, **BRIDGE}.items()])
        facts = kb.ask(QUESTION, budget=64).trace[0].facts
        assert "Ilmar Vant" in facts["second_look"]["asked"]  # type: ignore[index]
        assert any("Ilmar Vant" in row["why"] for row in facts["second_look"]["brought"])  # type: ignore[index]
        assert "Ilmar Vant" in {candidate.chunk.doc_id for candidate in kb.pool(QUESTION).candidates}
        for changes in ({"second_look": "off"}, {"mode": "dense"}, {"mode": "bm25"}):
            assert "second_look" not in kb.ask(QUESTION, budget=64, changes=changes).trace[0].facts
        with pytest.raises(ConfigError, match="second_look"):
            kb.ask(QUESTION, changes={"second_look": "on"})


def write_set(folder: Path, *, turn: int) -> Path:
    """Bridge questions over the passages of this file; `turn` sets apart the names of one set from those of another."""
    folder.mkdir()
    ilmar, vant = ("Ilmar", "Vant") if not turn else ("Rasmus", "Kolk")
    passages = {**CROWD, "Blood Lane": BRIDGE["Blood Lane"].replace("Ilmar Vant", f"{ilmar} {vant}"),
                f"{ilmar} {vant}": f"{ilmar} {vant} kept goats near Tartu."}
    asked = [(QUESTION, ["Tartu"], ["Blood Lane", f"{ilmar} {vant}"]),
             ("What is the film about a kettle?", ["kettle"], ["kettle affair"])]
    for name, lines in (("corpus", [{"id": name, "title": name, "text": text} for name, text in passages.items()]),
                        ("queries", [{"id": str(at), "question": question, "answers": answers, "evidence": gold, "type": "bridge"}
                                     for at, (question, answers, gold) in enumerate(asked)])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_weights_are_fitted_on_several_sets(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "open_encoder", lambda *_, **__: WordEncoder(dimension=256))
    monkeypatch.setattr(training, "POOL", K)
    monkeypatch.setattr(training.examples, "__kwdefaults__", {"k": K})
    monkeypatch.setattr(training.reached, "__kwdefaults__", {"k": K})
    folders = [write_set(tmp_path / "one", turn=0), write_set(tmp_path / "two", turn=1)]
    out = tmp_path / "table.json"
    arguments = ["--home", str(settings.home), "--out", str(out), "--data"]
    assert training.main([*arguments, *map(str, folders)]) == 0
    table = json.loads(out.read_text(encoding="utf-8"))
    assert table["fitted"]["data"] == {"one": 2, "two": 2}
    for left_out in table["fitted"]["sets left out"].values():
        assert left_out["one look"]["all evidence"] == 0.5
        assert left_out["two looks"] == {"all evidence": 1.0, "recall": 1.0, "answer": 1.0}
    assert read(out).weights[FEATURES.index("linked")] > 0
    assert str(tmp_path) not in out.read_text(encoding="utf-8")
    assert training.main([*arguments, str(folders[0])]) == 1


def test_the_fit_is_where_the_gradient_vanishes() -> None:
    rng = np.random.default_rng(1)
    sets = []
    for size in (1, 3):
        rows = [rng.random((30, len(FEATURES))) for _ in range(size)]
        sets.append([training.Example(None, None, None, row, (row[:, 0] + rng.random(30) > 1).astype(float)) for row in rows])  # type: ignore[arg-type]
    found = training.fit(sets)
    gradient = np.append(np.asarray(found.weights), 0.0)
    for some in sets:
        for example in some:
            rows = np.c_[example.features, np.ones(len(example.features))]
            gradient += 100 / len(some) * rows.T @ (found.of(example.features.tolist()) - example.gold)
    assert np.abs(gradient).max() < 1e-6
    assert found.weights[0] == max(found.weights)


def test_the_bench_compares_one_look_with_two(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "open_encoder", lambda *_, **__: WordEncoder(dimension=256))
    folders = (write_set(tmp_path / "one", turn=0), write_set(tmp_path / "two", turn=1))
    rows = {(row.name, row.unit): row for row in bench.run(Options(settings, tmp_path, data=folders, sizes=(K,)),
                                                           on_progress=no_progress)}
    assert rows["one, 8 candidates: one look", "all evidence"].value == 0.5
    assert rows["one, 8 candidates: two looks", "all evidence"].value == 1.0
    gap = rows["macro mean of 2 sets, 8 candidates: two - one", "all evidence"]
    assert (gap.value, gap.n) == (0.5, 4)
    assert gap.interval is not None
    assert gap.interval[0] <= gap.value <= gap.interval[1]
    assert rows["one, 8 candidates, 22 chunks: second look p95", "ms"].value > 0
    assert rows["two, 8 candidates: candidates brought", "mean"].value >= 0.5
