"""The bench of questions about all texts: who is in a group, what is drawn, and a whole run with a scripted reader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from eval.bench import Options, clusters
from eval.bench.clusters import WAYS, Asked, drawn, growth, members, told
from rag.settings import Settings
from tests.fakes import ScriptedReader, WordEncoder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "reviews"
    folder.mkdir()
    texts = [{"id": f"{item}{i}", "title": "", "text": f"The {item} has {said} number{i}.", "item": item}
             for item, count in (("kettle", 12), ("lamp", 3))
             for i, said in enumerate((["a loud noise when it boils", "a solid steel body"] * 6)[:count])]
    asked = [{"id": f"q{item}", "question": f"How loud is the {item}?", "answers": ["a loud noise"], "evidence": [f"{item}0"],
              "type": "review"} for item in ("kettle", "lamp")]
    asked.append({"id": "sum", "question": "noise kettle", "answers": ["a loud noise when it boils"],
                  "evidence": [f"kettle{i}" for i in range(12)], "type": "opinion-summary"})
    for name, rows in (("corpus", texts), ("queries", asked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_the_evidence_comes_first_where_it_is_less_than_is_drawn() -> None:
    group = [f"d{i}" for i in range(20)]
    found = members(group, ["d7"], size=5, seed=1)
    assert found[0] == "d7"
    assert len(set(found)) == 5
    assert found == members(group[::-1], ["d7"], size=5, seed=1)
    assert members(group, group, size=5, seed=1) != members(group, group, size=5, seed=2)
    assert set(members(group, ["d7"], size=5, seed=1)) < set(members(group, ["d7"], size=9, seed=1))


def test_only_groups_that_are_large_enough_are_asked_about(data: Path) -> None:
    cases = drawn(data, size=8, limit=9, seed=13)
    assert {case.question.id for case in cases} == {"qkettle", "sum"}
    assert all(case.group == "kettle" for case in cases)
    assert {case.asked for case in cases} == {"How loud is the kettle?", "What do people say about the noise kettle?"}
    assert len(drawn(data, size=3, limit=9, seed=13)) == 3
    assert len(drawn(data, size=3, limit=1, seed=13)) == 1
    assert drawn(data, size=13, limit=9, seed=13) == []


def test_rows_compare_each_way_with_all_texts_by_hand() -> None:
    found = {"all texts": [Asked(1000, .4, .5), Asked(3000, .6, .5)], "extractive": [Asked(100, .3, .5), Asked(300, .5, .5)],
             "llm": [Asked(200, .4, .4), Asked(200, .6, .6)]}
    rows = {(row.name, row.unit): row for row in told("set, 8 texts", found, 900.0, seed=1)}
    tokens = rows["set, 8 texts: extractive", "prompt tokens"]
    assert (tokens.value, tokens.ratio, tokens.ratio_to, tokens.n) == (200, pytest.approx(.1), "set, 8 texts: all texts", 2)
    assert rows["set, 8 texts: extractive - all texts", "ROUGE-L"].value == pytest.approx(-.1)
    assert rows["set, 8 texts: llm, cheaper from", "questions"].value == pytest.approx(900 / 1800)
    assert rows["set, 8 texts: extractive, cheaper from", "questions"].value == 0
    grown = {row.name: row.value for row in growth("set", {8: found, 75: {way: [Asked(4000, 0, 0)] for way in WAYS}})}
    assert grown["set: all texts, growth from 8 to 75 texts"] == 2
    assert list(growth("set", {8: found})) == []


def test_a_whole_run_has_every_row(data: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reading(ScriptedReader):
        def end(self) -> None:
            self.close()

    reader = Reading(lambda prompt: "a loud noise when it boils" if "noise" in prompt else "a solid steel body")
    monkeypatch.setattr(clusters, "open_reader", lambda *_, **__: reader)
    monkeypatch.setattr("rag.thriftrag.open_encoder", lambda *_, **__: WordEncoder())
    options = Options(settings=replace(settings, home=tmp_path / "other", cross_encoder="off"), scratch=tmp_path / "scratch",
                      data=(data,), sizes=(4, 12), limit=2, home=tmp_path / "home")
    rows = {(row.name, row.unit): row for row in clusters.run(options, on_progress=lambda _: None)}
    for size in (4, 12):
        ours, theirs = (rows[f"reviews, {size} texts: {way}", "prompt tokens"].value for way in ("extractive", "all texts"))
        assert 0 < ours < theirs
    assert rows["reviews, 12 texts: all texts", "ROUGE-L"].value > .5
    assert rows["reviews: all texts, growth from 4 to 12 texts", "times"].value > \
        rows["reviews: extractive, growth from 4 to 12 texts", "times"].value
