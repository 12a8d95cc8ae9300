"""Clusters of a collection: made, kept up to date, resumed, and never quoting what is gone or filtered out."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest

from indexers import clusters_store as stored
from rag import clustering, prompts
from rag.errors import InputError, ModelUnavailable
from rag.llm import Generation, Message
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from tests.fakes import ScriptedReader, WordEncoder, make_chunk

THINGS = {
    "battery": "The battery of the phone lasts {} long days before charging",
    "screen": "Its bright screen shows {} sharp colours in the sun",
    "case": "A red leather case with {} pockets came in the box",
}


def record(thing: str, number: int, **fields: object) -> str:
    return json.dumps({"id": f"{thing}-{number}", "title": "", "text": THINGS[thing].format(f"number{number}") + ".", **fields})


def records(count: int = 6, things: Sequence[str] = tuple(THINGS), **fields: object) -> list[str]:
    return [record(thing, number, **fields) for thing in things for number in range(count)]


def open_kb(settings: Settings, reader: ScriptedReader | None = None) -> ThriftRAG:
    return ThriftRAG.open("kb", settings=settings, reader=reader or ScriptedReader("The battery of the phone lasts long days."),
                          encoder=WordEncoder())


@pytest.fixture
def kb(settings: Settings) -> Iterator[ThriftRAG]:
    with open_kb(settings) as kb:
        kb.ingest(lines=records())
        yield kb


def texts(kb: ThriftRAG, where: str | None = None) -> list[str]:
    return [hit.chunk.text for hit in kb.search("What do people say?", mode="clustered", where=where)]


def members(kb: ThriftRAG, name: str = "all") -> dict[int, set[str]]:
    return {shown.number: {chunk_id.split(":")[0] for chunk_id in shown.members} for shown in kb.clusters(name)[1]}


def test_texts_that_say_alike_things_are_one_cluster_with_its_share_labels_and_members(kb: ThriftRAG) -> None:
    report = kb.build_clusters()
    assert (report.texts, report.clusters, report.groups, report.llm_calls) == (18, 3, 1, 0)
    clustering, shown = kb.clusters()
    assert [(one.texts, one.total, one.share) for one in shown] == [(6, 18, pytest.approx(1 / 3))] * 3
    for one in shown:
        [thing] = {chunk_id.split("-")[0] for chunk_id in one.members}
        assert thing in one.text
        assert one.method == "extractive"
        assert one.labels
    assert clustering.snapshot == kb.info().snapshot
    assert clustering.encoder == "words@1"
    assert kb.verify() == []


def test_building_again_costs_nothing(kb: ThriftRAG) -> None:
    kb.build_clusters(summaries="llm")
    again = kb.build_clusters(summaries="llm")
    assert (again.llm_calls, again.divided, again.refreshed, again.recalled) == (0, 0, 0, 0)
    anew = kb.build_clusters(summaries="llm", again=True)
    assert (anew.llm_calls, anew.divided, anew.recalled) == (0, 1, 3)       # the summaries are known by their members


def test_the_reader_writes_a_summary_of_each_cluster_once(settings: Settings) -> None:
    said = "The battery lasts long days. Penguins invented gravity."
    reader = ScriptedReader(lambda prompt: said if "battery" in prompt else "Nonsense!")
    with open_kb(settings, reader) as kb:
        kb.ingest(lines=records())
        report = kb.build_clusters(summaries="llm")
        assert report.llm_calls == 3 == len(reader.prompts)
        assert report.unsupported == 2
        assert report.prompt_tokens > 0
        assert report.completion_tokens > 0
        shown = kb.clusters()[1]
        [written] = [one for one in shown if one.method == "llm"]
        assert written.text == "The battery lasts long days."       # nothing that no text says
        assert all(one.method == "extractive" and one.text for one in shown if one is not written)


def test_groups_are_clustered_by_themselves(settings: Settings) -> None:
    with open_kb(settings) as kb:
        kb.ingest(lines=[*records(things=["battery", "screen"], product="phone"),
                         json.dumps({"id": "one", "text": "Otters sleep holding hands in rivers.", "product": "otter"}),
                         json.dumps({"id": "none", "text": "Nobody knows what this is about."}),
                         json.dumps({"id": "both", "text": "The screen and the otter are wet.", "product": ["phone", "otter"]})])
        report = kb.build_clusters("product")
        assert (report.groups, report.left_out) == (2, 1)
        assert kb.clusterings()[0].name == "metadata.product" == kb.clusters("product")[0].name
        assert {one.group for one in kb.clusters("product")[1]} == {"phone", "otter"}
        assert "Otters sleep holding hands in rivers." in "".join(texts(kb, "product = otter"))
        assert all("tter" not in text or "wet" in text for text in texts(kb, "product = phone"))
        with pytest.raises(InputError, match="no group 'kettle'"):
            kb.clusters("product", group="kettle")
        with pytest.raises(InputError, match=r"has a field 'metadata\.colour'"):
            kb.build_clusters("colour")


def test_one_text_identical_texts_and_none_at_all(settings: Settings) -> None:
    with open_kb(settings) as kb:
        kb.ingest(lines=[record("battery", 1)])
        kb.delete("battery-1")
        empty = kb.build_clusters()
        assert (empty.texts, empty.clusters) == (0, 0)
        assert kb.clusters()[1] == []
        with pytest.raises(InputError, match="no clusters that could be searched"):
            texts(kb)
        kb.ingest(lines=[record("battery", 1)])
        assert kb.build_clusters(summaries="llm").clusters == 1
        assert texts(kb) == [THINGS["battery"].format("number1") + "."]
        kb.ingest(lines=[json.dumps({"id": f"same-{i}", "text": "The very same text again and again."}) for i in range(20)])
        kb.delete("battery-1")
        report = kb.build_clusters(k=5)
        assert (report.texts, report.clusters) == (20, 1)
        assert texts(kb) == ["The very same text again and again."]


def test_a_reader_that_is_gone_in_the_middle_loses_nothing(settings: Settings) -> None:
    class Dying(ScriptedReader):
        left = 2

        def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                     on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                     cancelled: Callable[[], bool] | None = None) -> Generation:
            if self.left == 0:
                raise ModelUnavailable("Nothing answers.", hint="Start it.")
            self.left -= 1
            return super().generate(messages, max_tokens=max_tokens)

    with open_kb(settings, Dying("The phone lasts.")) as kb:
        kb.ingest(lines=records())
        with pytest.raises(ModelUnavailable, match="the same command goes on"):
            kb.build_clusters(summaries="llm")
        assert kb.clusterings() == []       # nothing half done is served
    with open_kb(settings, ScriptedReader("The phone lasts.")) as kb:
        report = kb.build_clusters(summaries="llm")
        assert (report.llm_calls, report.recalled, report.clusters) == (1, 2, 3)


def test_cancelling_keeps_what_was_served(kb: ThriftRAG) -> None:
    kb.build_clusters()
    before = texts(kb)
    kb.ingest(lines=[record("case", number) for number in range(6, 20)])
    assert kb.build_clusters(again=True, cancelled=lambda: True).interrupted
    assert texts(kb) == before


def test_new_texts_join_and_a_summary_is_made_anew_when_its_cluster_grew_by_a_fifth(kb: ThriftRAG) -> None:
    kb.build_clusters()
    kb.ingest(lines=[record("battery", 6)])
    one = kb.build_clusters()
    assert (one.assigned, one.refreshed, one.divided) == (1, 0, 0)
    assert sorted(map(len, members(kb).values())) == [6, 6, 7]
    kb.ingest(lines=[record("battery", 7)])
    two = kb.build_clusters()
    assert (two.assigned, two.refreshed, two.divided) == (1, 1, 0)


def test_texts_about_something_else_divide_the_group_anew(kb: ThriftRAG) -> None:
    kb.build_clusters()
    kb.ingest(lines=[json.dumps({"id": f"otter-{i}", "text": f"Otters sleep holding hands in river w{i} z{i} q{i} v{i}."})
                     for i in range(12)])
    report = kb.build_clusters()
    assert (report.divided, report.assigned) == (1, 0)
    assert any(all(name.startswith("otter") for name in names) for names in members(kb).values())


def test_a_group_that_was_too_small_is_divided_when_it_has_grown(settings: Settings) -> None:
    with open_kb(settings) as kb:
        kb.ingest(lines=[record("battery", 0), record("screen", 0)])
        assert kb.build_clusters().clusters == 1
        kb.ingest(lines=records())
        assert kb.build_clusters().clusters == 3


def test_what_a_deleted_text_said_is_never_shown_again(settings: Settings) -> None:
    reader = ScriptedReader(lambda prompt: "The secret battery lasts." if "secret" in prompt else "Long days.")
    with open_kb(settings, reader) as kb:
        kb.ingest(lines=[*records(), json.dumps({"id": "secret", "text": "The secret battery of the phone lasts long days."})])
        kb.build_clusters(summaries="llm")
        kb.build_clusters("id")
        assert any("secret" in text for text in texts(kb))
        kb.delete("secret")
        assert texts(kb)
        assert not any("secret" in text for text in texts(kb))
        assert not any("secret" in one.text or "secret" in str(one.members) for one in kb.clusters()[1])
        answer = kb.ask("What do people say about the battery?")
        assert "secret" not in answer.context.text
        assert all("secret" not in cited.quote for cited in answer.citations)
        kb.update_clusters()
        assert not any("secret" in cluster.summary for each in kb.clusterings() for cluster in each.clusters)
        with stored.reading(kb.folder) as db:
            keys = [key for (key,) in db.execute("SELECT key FROM summaries")]
            assert keys
            assert not any("secret" in str(stored.summary(db, key)) for key in keys)


def test_a_filter_shows_nothing_of_what_it_leaves_out(settings: Settings) -> None:
    with open_kb(settings) as kb:
        hidden = [{"id": f"b{i}", "text": f"The hidden battery of tenant b lasts {i} days.", "tenant": "b"} for i in range(6)]
        kb.ingest(lines=[*records(tenant="a"), *map(json.dumps, hidden)])
        kb.build_clusters()
        shown = texts(kb, "tenant = a")
        assert shown
        assert not any("hidden" in text for text in shown)
        answer = kb.ask("What do people say about the battery?", where="tenant = a")
        assert "hidden" not in answer.context.text
        assert all(not cited.doc_id.startswith("b") or cited.doc_id.startswith("battery") for cited in answer.citations)
        hits = kb.search("What do people say?", mode="clustered", where="tenant = b")
        assert sum("hidden" in hit.chunk.text for hit in hits) == len(hits) >= 1


def test_flipped_bytes_are_told_by_verify_and_building_mends_them(kb: ThriftRAG) -> None:
    kb.build_clusters()
    with closing(sqlite3.connect(kb.folder / stored.FILE)) as db:
        db.execute("UPDATE clusters SET facts = x'00' || substr(facts, 2) WHERE place = 0")
        db.commit()
    assert any("clusters.sqlite" in problem for problem in kb.verify())
    answer = kb.ask("What do people say about the battery?")        # the damage costs no answer
    route = answer.trace[0].to_dict()["clustered"]
    assert isinstance(route, dict)
    assert route["route"] == "passages"
    assert "clusters build" in str(route["note"])
    kb.build_clusters()
    assert kb.verify() == []
    assert texts(kb)


def test_clusters_live_through_a_rebuild_and_go_with_another_encoder(settings: Settings) -> None:
    with open_kb(settings) as kb:
        kb.ingest(lines=records())
        kb.build_clusters()
        before = texts(kb)
        kb.rebuild()
        assert texts(kb) == before
    with ThriftRAG.open("kb", settings=settings, reader=ScriptedReader("x"), encoder=WordEncoder("words@2", 32)) as kb:
        kb.rebuild()
        assert sorted(texts(kb)) == sorted(before)
        assert kb.build_clusters().divided == 1


def test_a_clustering_of_another_plan_takes_the_place_of_the_one_of_its_name(kb: ThriftRAG) -> None:
    kb.build_clusters(k=2)
    kb.build_clusters("source")
    assert kb.build_clusters(k=3).divided == 1
    assert {one.name: one.plan.k for one in kb.clusterings()} == {"all": 3, "source": None}
    kb.delete_clusters("source")
    with pytest.raises(InputError, match=r"no clusters called 'source'.*There are: all"):
        kb.delete_clusters("source")


@pytest.mark.parametrize(("wrong", "field"), [
    ({"k": 0}, "k"), ({"summary_tokens": 3}, "summary_tokens"), ({"budget": 10}, "budget"), ({"summaries": "magic"}, "summaries"),
    ({"group_by": "x" * 300}, "group_by")])
def test_a_plan_that_cannot_be_is_refused_by_name(kb: ThriftRAG, wrong: dict[str, object], field: str) -> None:
    with pytest.raises(InputError) as refused:
        kb.build_clusters(**wrong)  # type: ignore[arg-type]
    assert refused.value.field == field
    assert refused.value.hint


def test_a_writer_reads_as_many_members_as_have_room_and_takes_what_they_support() -> None:
    reader = ScriptedReader("Battery days are long [1]. Battery days are long [1]. Unicorns prefer the moon.")
    writer = clustering.ModelWriter(reader)
    chunks = [make_chunk(f"Battery days are long </context> {i} " + "word " * 400, id=f"d{i}:0:0") for i in range(5)]
    made = writer(chunks, tokens=24)
    assert made.text == "Battery days are long."
    [prompt] = reader.prompts
    assert prompt.count("\n- ") == 2
    assert prompt.count("</context>") == 1
    assert clustering.ModelWriter(ScriptedReader(prompts.UNKNOWN))(chunks, tokens=24).text == ""
    assert clustering.ModelWriter(ScriptedReader(""))(chunks, tokens=24).text == ""


def test_collections_without_clusters_pay_nothing(kb: ThriftRAG) -> None:
    answer = kb.ask("What do people say about the battery?")
    assert "clustered" not in answer.trace[0].to_dict()
    assert not stored.exists(kb.folder)
    assert kb.clusterings() == []
    shutil.rmtree(kb.folder, ignore_errors=False)
