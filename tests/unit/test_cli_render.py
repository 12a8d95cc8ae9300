"""What people read: pinned layouts, and text from outside that can neither steer the terminal nor be markup."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from cli_fakes import (
    ANSWER,
    CHUNK,
    COLLECTION_ROW,
    DOCUMENT_ROW,
    FAILURE,
    HIT,
    MATCHES,
    RECEIPT,
    STEPS,
    FakeModels,
    check_golden,
)
from rich.console import Console, RenderableType

from rag.cli import render, tables, terminal, words
from rag.settings import load
from rag.types import Considered, Hit, IngestReport, NextBest, Part, Progress, Step, TermMatch

HOSTILE = "\x1b]0;owned\x07\x1b[2J[bold red]x[/] \x9b31m\u202etxt.exe\u2066 :smile: \ud800"
HARMLESS = "]0;owned[2J[bold red]x[/] 31mtxt.exe :smile: \ufffd"


def shown(what: RenderableType, *, width: int = 100) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, markup=False, emoji=False, highlight=False).print(what)
    return stream.getvalue()


# --- layouts -----------------------------------------------------------------------------------------------------------


def test_receipt() -> None:
    check_golden("receipt", shown(render.receipt(RECEIPT)))


def test_receipt_of_estimates_and_nothing_saved() -> None:
    estimated = dataclasses.replace(RECEIPT, estimates=("context_tokens", "prompt_tokens", "naive_tokens", "cost_usd"),
                                    cost_usd=1234.5, saved_tokens=-3, llm_calls=0, encoder_passes=1, model="",
                                    seconds={"total": 0.0})
    check_golden("receipt-estimated", shown(render.receipt(estimated)))


def test_trace() -> None:
    check_golden("trace", shown(render.trace(STEPS)))


def judged() -> Step:
    """A step in which everything was computed that there is."""
    rows = [
        {**Considered("d1-0-aa", "guide.pdf", 1, 0.0325, 0.71, 120, True, "2 of 5 sentences: the choice would be worth 0.5123 less "
                      "without it", (0, 2), 5, 0.64, 0.5123, (0.41, None)).to_dict(), "origins": {"bm25": 12.3, "dense": 0.71}},
        {**Considered("d2-0-bb", "notes.md", 2, 0.0164, 0.55, 80, True, "whole: the choice would be worth 0.0100 more without it",
                      (0, 1), 2, 0.4, -0.01, (0.0, -0.02)).to_dict(), "origins": {"dense": 0.55}},
        {**Considered("d3-0-cc", "old.txt", 3, 0.0161, 0.21, 300, False, "says the same as candidate 1", (), 9, 0.003).to_dict(),
         "origins": {"bm25": 3.0, "sparse": 7.25}}]
    other = NextBest(0.9, 250, (Part(3, "d3-0-cc", "old.txt", (0, 3)),), (Part(2, "d2-0-bb", "notes.md", (1,)),)).to_dict()
    return Step("select", 0.0311, {"selector": "mcts", "utility": 0.912345, "considered": rows, "next_best": other,
                                   "degraded": "stopped: the time for choosing was up"})


@pytest.mark.parametrize("width", [160, 100, 60])
def test_trace_of_a_search(width: int) -> None:
    text = shown(render.trace([judged()]), width=width)
    assert max(map(len, text.splitlines())) <= width
    check_golden(f"trace-search-{width}", text)


def test_trace_before_anything_was_selected() -> None:
    check_golden("trace-short", shown(render.trace(STEPS[:1])))


def test_hits() -> None:
    check_golden("hits", shown(render.hits([HIT, Hit(dataclasses.replace(CHUNK, page=None, source="a.md"), 0.01, {})])))


def test_hits_explained() -> None:
    second = dataclasses.replace(HIT, origins={"bm25": 3.0}, explain=(TermMatch("long", 1.25, 0.0, 0.0),))
    third = dataclasses.replace(HIT, origins={"dense": 0.5, "bm25": 3.0})
    first = dataclasses.replace(HIT, origins={"dense": 0.71, "bm25": 12.3, "sparse": 9.0}, explain=MATCHES)
    check_golden("hits-explained", shown(render.hits([first, second, third], explain=True)))


def test_a_pipe_gets_no_run_of_blanks() -> None:
    hit = dataclasses.replace(HIT, origins={"sparse": 9.0}, explain=MATCHES)
    assert max(map(len, shown(render.hits([hit], explain=True), width=10_000).splitlines())) < 100


def test_trace_with_terms() -> None:
    rows = [match.to_dict() for match in MATCHES]
    passages = [{"chunk_id": "d1-0-aa", "source": "guide.pdf", "terms": rows},
                {"chunk_id": "x", "source": "b.md", "terms": rows[-1:]}]
    step = dataclasses.replace(STEPS[1], facts={**STEPS[1].facts, "terms": passages})
    check_golden("trace-terms", shown(render.trace([STEPS[0], step])))


def test_report() -> None:
    report = IngestReport(added=2, changed=1, unchanged=1_200, chunks=412, tokens=61_200, seconds=3.44, failures=(FAILURE,))
    check_golden("report", shown(tables.report(report, collection="handbook")))


def test_lists() -> None:
    models = [{**entry.to_dict(), "state": FakeModels().state(entry.name), "used": True} for entry in FakeModels().entries()]
    check_golden("lists", "\n".join(map(shown, (tables.documents([DOCUMENT_ROW]), tables.collections([COLLECTION_ROW]),
                                                tables.models(models), tables.facts(COLLECTION_ROW.to_dict())))))


def test_settings_table_has_every_setting() -> None:
    rows = load({}, environ={"THRIFTRAG_HOME": "/h", "THRIFTRAG_MODELS": "/m"}).rows()
    text = shown(tables.settings(rows), width=240)
    assert [line.split()[0] for line in text.splitlines()[3:] if line.strip()] == [row["name"] for row in rows]


@pytest.mark.parametrize(("share", "cells"), [(0, 0), (1, 2), (12, 24), (24, 24)])
def test_the_bar_never_overflows(share: int, cells: int) -> None:
    budget = 12 if share else 0
    receipt = dataclasses.replace(RECEIPT, context_tokens=share, budget_tokens=budget)
    assert shown(render.receipt(receipt)).count("━") == cells


def test_a_narrow_terminal_loses_nothing() -> None:
    row = type(DOCUMENT_ROW)({**DOCUMENT_ROW.to_dict(), "source": "folder/" * 9 + "guide.pdf"})
    lines = shown(tables.documents([row]), width=64).splitlines()
    assert max(map(len, lines)) <= 64
    start, end = lines[1].index("source"), lines[1].index("title")
    assert "".join(line[start:end].strip() for line in lines[3:]) == "folder/" * 9 + "guide.pdf"
    assert "1,512" in lines[3]


def test_long_quotes_are_cut_and_kept_on_one_line() -> None:
    text = render.citation(dataclasses.replace(ANSWER.citations[0], quote="word \n" * 500, page=None)).plain
    assert text.startswith("[1] guide.pdf: “word word")
    assert text.endswith("…”")
    assert "\n" not in text
    assert len(text) < 300


# --- hostile text ------------------------------------------------------------------------------------------------------


def test_clean_removes_what_steers_a_terminal_and_keeps_the_text() -> None:
    assert terminal.clean(HOSTILE) == HARMLESS
    assert terminal.clean("a\tb\nc\r\nd\x00é\u200f日本") == "a\tb\nc\nd" + "é\u200f日本"


def test_every_control_character_goes() -> None:
    kept = [c for c in map(chr, [*range(0x20), *range(0x7F, 0xA0)]) if terminal.clean(c)]
    assert kept == ["\t", "\n"]


def test_no_table_lets_hostile_text_through() -> None:
    chunk = dataclasses.replace(CHUNK, text=HOSTILE, source=HOSTILE)
    answer = dataclasses.replace(ANSWER, reason=HOSTILE, verdict="degraded", text=HOSTILE)
    steps = (Step(HOSTILE, 0.1, {HOSTILE: HOSTILE, "list": [HOSTILE]}),
             Step("select", 0.1, {"considered": [{"source": HOSTILE, "why": HOSTILE, "rank": 1, "kept": True,
                                                  "kept_sentences": [0], "sentences": 2, "origins": {HOSTILE: 1.0}}],
                                  "degraded": HOSTILE, "next_best": {"added": [{"rank": HOSTILE, "source": HOSTILE}]}}))
    document = type(DOCUMENT_ROW)({**DOCUMENT_ROW.to_dict(), "source": HOSTILE, "title": HOSTILE, "id": HOSTILE})
    collection = type(COLLECTION_ROW)({**COLLECTION_ROW.to_dict(), "encoder": HOSTILE, "name": HOSTILE})
    report = IngestReport(failures=(dataclasses.replace(FAILURE, source=HOSTILE, message=HOSTILE, hint=HOSTILE),))
    terms = (TermMatch(HOSTILE, 1.0, 1.0, 1.0), TermMatch(HOSTILE, 1.0, 0.0, 0.0))
    found = Step("select", 0.1, {"terms": [{"source": HOSTILE, "terms": [match.to_dict() for match in terms]}]})
    outcome = render.outcome(answer)
    assert outcome is not None
    printed = [
        shown(part, width=1000) for part in (
            outcome, render.citation(dataclasses.replace(ANSWER.citations[0], quote=HOSTILE, source=HOSTILE)),
            render.receipt(dataclasses.replace(RECEIPT, model=HOSTILE, seconds={HOSTILE: 1.0, "total": 1.0})),
            render.trace(steps), render.hits([Hit(chunk, 1.0, {})]), render.note(HOSTILE),
            render.hits([Hit(chunk, 1.0, {}, terms)], explain=True), render.trace([found]), tables.documents([document]),
            tables.collections([collection]), tables.report(report, collection=HOSTILE), tables.facts({"x": HOSTILE}))]
    printed.append(render.answer_text(answer))
    for text in printed:
        assert HARMLESS in text
        assert terminal.clean(text) == text


def test_json_keeps_the_text_exactly_and_stays_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"text": HOSTILE, "line": "a\u2028b\x7f"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert terminal.clean(out) == out
    assert json.loads(out) == {"text": HOSTILE, "line": "a\u2028b\x7f"}


def test_json_takes_numpy_and_our_own_values(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    terminal.print_json({"score": np.float32(0.5), "receipt": RECEIPT, "path": frozenset()})
    value = json.loads(capsys.readouterr().out)
    assert value["score"] == 0.5
    assert value["receipt"]["budget_tokens"] == 256
    assert value["path"] == "frozenset()"


def test_nothing_wraps_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    stream = io.StringIO()
    terminal.console(stream).print(tables.facts({"path": "x" * 5000}))
    assert stream.getvalue().count("\n") == 1


# --- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("usd", "text"), [(0, "$0"), (0.0000124, "$0.000012"), (0.5, "$0.500000"), (1, "$1.00"),
                                           (1234.5, "$1,234.50")])
def test_money(usd: float, text: str) -> None:
    assert words.money(usd) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"),
                                             (3_000_000_000, "3.0 GB")])
def test_size(count: int, text: str) -> None:
    assert words.size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"),
                                               (12_000, "3 h 20 min")])
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(("tick", "text"), [
    (Progress("encode", 1024, 5000), "1,024 of 5,000 chunks (20%)"), (Progress("encode", 7), "7 chunks"),
    (Progress("download", 1_500_000, 3_000_000, "bytes"), "1.5 of 3.0 MB (50%)"),
    (Progress("wait", 0, None, "bytes"), "0.0 MB"), (Progress("files", 3, 0, "files"), "3 files")])
def test_amount(tick: Progress, text: str) -> None:
    assert words.amount(tick) == text


@pytest.mark.parametrize(("tick", "text"), [
    (Progress("encode", 1024, 5000), "1,024/5,000 chunks 20%"), (Progress("encode", 7), "7 chunks"),
    (Progress("download", 431_900_000, 477_600_000, "bytes"), "431/477 MB 90%")])
def test_short_amount(tick: Progress, text: str) -> None:
    assert words.short_amount(tick) == text


@pytest.mark.parametrize(("speed", "unit", "text"), [(None, "chunks", ""), (177.4, "chunks", "177 chunks/s"),
                                                     (2.25, "files", "2.2 files/s"), (12_300_000, "bytes", "12.3 MB/s")])
def test_rate(speed: float | None, unit: str, text: str) -> None:
    assert words.rate(speed, unit) == text
