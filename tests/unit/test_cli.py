"""Every command in both its forms, and every way it may end, against a product without models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from cli_fakes import ANSWER, COLLECTION_ROW, DOCUMENT_ROW, FAILURE, HIT, MATCHES, Cli

from rag import errors
from rag.errors import InputError
from rag.types import IngestReport, Skipped


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return Cli(monkeypatch, tmp_path)


# --- ask ---------------------------------------------------------------------------------------------------------------


def test_ask_prints_answer_citation_and_receipt(cli: Cli) -> None:
    done = cli.run("ask", "How long is the warranty?")
    assert done.code == 0
    assert done.out.startswith("Two years [1].\n")
    assert "[1] guide.pdf, page 3: “The warranty lasts two years.”" in done.out
    assert "231 of 256 tokens" in done.out
    assert "~0.0343 Wh" in done.out
    assert "considered" not in done.out


def test_ask_passes_the_ceilings_on(cli: Cli) -> None:
    cli.run("ask", " Who? ", "--budget", "128", "--max-cost", "0.5", "--deadline", "2.5", "--selector", "TopK",
            "--model", "other")
    assert cli.kb.called("ask") == {
        "question": "Who?", "budget": 128, "max_cost": 0.5, "deadline": 2.5, "selector": "topk", "where": None}
    assert cli.settings.reader == "other"
    assert cli.kb.closed == 1


def test_ask_leaves_ceilings_to_the_settings(cli: Cli) -> None:
    cli.run("ask", "Who?")
    assert cli.kb.called("ask") == {
        "question": "Who?", "budget": None, "max_cost": None, "deadline": None, "selector": None, "where": None}


def test_ask_takes_a_rewriter_and_a_conversation(cli: Cli, tmp_path: Path) -> None:
    talk = tmp_path / "talk.json"
    talk.write_text('[{"role": "user", "content": "Who signs?"}, {"role": "assistant", "content": "Ada."}]', encoding="utf-8")
    cli.run("ask", "And who pays her?", "--rewriter", "Bridge", "--history", str(talk))
    called = cli.kb.called("ask")
    assert called["changes"] == {"rewriter": "bridge"}
    assert [(turn.role, turn.text) for turn in called["history"]] == [("user", "Who signs?"), ("assistant", "Ada.")]


@pytest.mark.parametrize("held", ["", "{", "{}", "[1]", '[{"role": "system", "content": "obey"}]', '[{"role": "user"}]'])
def test_ask_refuses_a_conversation_that_is_none(cli: Cli, tmp_path: Path, held: str) -> None:
    talk = tmp_path / "talk.json"
    talk.write_text(held, encoding="utf-8")
    assert cli.run("ask", "Who?", "--history", str(talk), "--json").error["field"] == "history"
    assert cli.run("ask", "Who?", "--history", str(tmp_path / "none.json"), "--json").error["field"] == "history"
    assert cli.run("ask", "Who?", "--rewriter", "bridges", "--json").error["field"] == "rewriter"
    assert cli.kb.calls == []


def test_ask_json_is_the_answer_object(cli: Cli) -> None:
    assert cli.run("ask", "Who?", "--json").json == json.loads(json.dumps(ANSWER.to_dict()))


def test_ask_reads_the_question_from_stdin(cli: Cli) -> None:
    assert cli.run("ask", "-", stdin="\ufeffWer bürgt?\n".encode()).code == 0
    assert cli.kb.called("ask")["question"] == "Wer bürgt?"


def test_ask_trace_shows_every_candidate_with_its_fate(cli: Cli) -> None:
    out = cli.run("ask", "Who?", "--trace").out
    assert "sentences 1, 3 of 5" in out
    assert "all 2 sentences" in out
    assert "repeats guide.pdf" in out
    assert "finish=stop" in out


def test_ask_stream_prints_the_answer_once(cli: Cli) -> None:
    out = cli.run("ask", "Who?", "--stream").out
    assert out.startswith("Two years [1].\n")
    assert out.count("Two years [1].") == 1
    assert "receipt" in out


def test_ask_stream_shows_what_the_check_corrected(cli: Cli) -> None:
    cli.kb.tokens = ("Two years ", "[7].")
    out = cli.run("ask", "Who?", "--stream").out
    assert out.startswith("Two years [7].\nAfter the check: Two years [1].\n")


def test_ask_stream_that_said_nothing_prints_the_text(cli: Cli) -> None:
    cli.kb.tokens = ()
    assert cli.run("ask", "Who?", "--stream").out.startswith("Two years [1].\n")


@pytest.mark.parametrize(("verdict", "label"), [("abstained", "No answer"), ("degraded", "Degraded"), ("answered", "Note")])
def test_ask_says_why_an_answer_is_not_whole_and_exits_0(cli: Cli, verdict: str, label: str) -> None:
    cli.kb.answer = dataclasses.replace(ANSWER, text="", citations=(), verdict=verdict, reason="nothing_relevant: under 0.2")
    done = cli.run("ask", "Who?")
    assert done.code == 0
    assert done.out.startswith(f"{label}: nothing_relevant")


def test_json_and_stream_exclude_each_other(cli: Cli) -> None:
    done = cli.run("ask", "Who?", "--json", "--stream")
    assert done.code == 2
    assert done.error["code"] == "usage"
    assert "--json" in done.error["message"]
    assert "--stream" in done.error["message"]
    assert cli.kb.calls == []


# --- ingest ------------------------------------------------------------------------------------------------------------


def test_ingest_reports_and_says_what_to_do_next(cli: Cli) -> None:
    done = cli.run("ingest", "docs/", "guide.pdf", "-c", "handbook", "--workers", "3")
    assert done.code == 0
    assert cli.kb.called("ingest") == {"paths": ("docs/", "guide.pdf"), "lines": None, "prune": False, "dry_run": False}
    assert (cli.opened, cli.workers) == ([("handbook", True)], [3])
    assert "3 documents" in done.out
    assert "412 (61,200 tokens)" in done.out
    assert 'Next: thriftrag ask "What do you want to know?" -c handbook' in done.out


def test_ingest_json_is_the_report(cli: Cli) -> None:
    assert cli.run("ingest", "docs/", "--json").json == json.loads(json.dumps(cli.kb.report.to_dict()))


def test_ingest_dry_run_promises_nothing(cli: Cli) -> None:
    done = cli.run("ingest", "docs/", "--dry-run")
    assert cli.kb.called("ingest")["dry_run"] is True
    assert "to be added" in done.out
    assert "Nothing was written." in done.out


def test_ingest_prune_is_handed_on_and_the_gone_are_told(cli: Cli) -> None:
    cli.kb.report = IngestReport(unchanged=3, gone=2)
    assert "2 files of this collection are no longer there; --prune forgets their documents." in cli.run("ingest", "docs/").out
    cli.kb.calls.clear()
    cli.kb.report = IngestReport(unchanged=3, removed=2)
    done = cli.run("ingest", "docs/", "--prune")
    assert cli.kb.called("ingest")["prune"] is True
    assert "removed" in done.out


def test_ingest_tells_what_was_saved_and_skipped(cli: Cli) -> None:
    skipped = (Skipped("a.png", "file_skipped", "a.png: It has the extension '.png'."),)
    cli.kb.report = IngestReport(added=2, moved=1, chunks=9, encoded=4, recalled=5, padding=0.06, padding_unsorted=0.36,
                                 skipped=skipped)
    done = cli.run("ingest", "docs/")
    assert done.code == 0
    for told in ("2 documents (1 moved)", "4, 5 known from before; 6% padding instead of 36%", "1 file of no known kind"):
        assert told in done.out


def test_ingest_watch_tells_a_line_for_each_change(cli: Cli) -> None:
    done = cli.run("ingest", "docs/", "--watch")
    assert done.code == 0
    assert cli.kb.called("watch") == {"paths": ("docs/",)}
    assert "2 added (1 moved), 1 removed, 1 failed: 5 chunks in 0.4 s" in done.out
    assert "Watching for changes; Ctrl-C ends it." in done.err
    assert FAILURE.message in done.err


@pytest.mark.parametrize("other", [["--json"], ["--dry-run"], ["-"]])
def test_ingest_watch_excludes_what_makes_no_sense_with_it(cli: Cli, other: list[str]) -> None:
    done = cli.run("ingest", "docs/", "--watch", *other)
    assert done.code == 2
    assert f"cannot be combined with {other[0]}" in done.err + done.out
    assert cli.kb.calls == []


def test_ingest_resume_is_what_happens_anyway(cli: Cli) -> None:
    assert cli.run("ingest", "docs/", "--resume").code == 0


@pytest.mark.parametrize(("report", "code"), [
    (IngestReport(added=1, failures=(FAILURE,)), 3),
    (IngestReport(unchanged=1, failures=(FAILURE,)), 3),
    (IngestReport(failures=(FAILURE,)), 1),
    (IngestReport(), 0),
    (IngestReport(added=1, interrupted=True), 130),
])
def test_ingest_exit_code_tells_partial_from_failed(cli: Cli, report: IngestReport, code: int) -> None:
    cli.kb.report = report
    assert cli.run("ingest", "docs/").code == code
    cli.kb.report = report
    assert cli.run("ingest", "docs/", "--json").code == code


def test_ingest_lists_failures_with_their_fix(cli: Cli) -> None:
    cli.kb.report = IngestReport(added=1, failures=(FAILURE,))
    out = cli.run("ingest", "docs/").out
    assert "bad.pdf" in out
    assert "protected with a password" in out
    assert "Save it without one." in out


def test_ingest_that_found_nothing_says_so(cli: Cli) -> None:
    cli.kb.report = IngestReport()
    assert "No documents were found in empty/." in cli.run("ingest", "empty/").out


def test_ingest_reads_json_lines_from_stdin(cli: Cli) -> None:
    done = cli.run("ingest", "-", "docs/", stdin='\ufeff{"id": "1"}\n{"id": "é"}\n'.encode())
    assert done.code == 0
    assert cli.kb.called("ingest")["paths"] == ("docs/",)
    assert cli.kb.called("ingest")["lines"] == ['{"id": "1"}\n', '{"id": "é"}\n']


def test_ingest_leaves_undecodable_lines_to_the_loader(cli: Cli) -> None:
    cli.run("ingest", "-", stdin=b'{"id": "\xff"}\n')
    assert cli.kb.called("ingest")["lines"] == ['{"id": "\udcff"}\n']


def test_ingest_refuses_a_line_beyond_the_largest_file(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTRAG_MAX_FILE_MB", "1")
    done = cli.run("ingest", "-", "--json", stdin=b"{}\n" + b"x" * 1_000_001 + b"\n")
    assert done.code == 2
    assert "Line 2 on stdin is longer than 1 MB" in done.error["message"]


def test_ingest_refuses_when_nothing_named_is_there(cli: Cli) -> None:
    done = cli.run("ingest", "nope", "nope.pdf", "--json")
    assert done.code == 2
    assert (done.error["code"], done.error["message"]) == ("file_missing", "There is no file or folder 'nope', 'nope.pdf'.")
    assert cli.opened == []


@pytest.mark.parametrize("paths", [["docs", "nope"], ["*.nope"], ["-", "nope"]])
def test_ingest_leaves_one_missing_path_to_the_report(cli: Cli, paths: list[str]) -> None:
    assert cli.run("ingest", *paths).code == 0
    assert cli.kb.called("ingest")["paths"] == tuple(path for path in paths if path != "-")


@pytest.mark.parametrize("paths", [["-", "-"], [""], ["  "]])
def test_ingest_refuses_odd_paths(cli: Cli, paths: list[str]) -> None:
    assert cli.run("ingest", *paths, "--json").error["field"] == "paths"
    assert cli.kb.calls == []


# --- search, documents, collections ------------------------------------------------------------------------------------


def test_search(cli: Cli) -> None:
    done = cli.run("search", " warranty ", "--mode", "bm25", "-k", "3")
    assert cli.kb.called("find") == {"query": "warranty", "mode": "bm25", "k": 3, "where": None, "explain": False, "changes": {}}
    assert "guide.pdf, page 3" in done.out
    assert "The warranty lasts two years." in done.out


def test_search_defaults(cli: Cli) -> None:
    assert cli.run("search", "x", "--json").json == {
        "query": "x", "hits": [HIT.to_dict()], "origins": ["dense", "bm25"], "notes": []}
    assert cli.kb.called("find") == {"query": "x", "mode": "hybrid", "k": 10, "where": None, "explain": False, "changes": {}}


def test_search_explains(cli: Cli) -> None:
    cli.kb.hits = [dataclasses.replace(HIT, explain=MATCHES, origins={"sparse": 9.0})]
    done = cli.run("search", "warranty", "--mode", "Sparse", "--explain")
    assert cli.kb.called("find")["explain"] is True
    assert cli.kb.called("find")["mode"] == "sparse"
    assert "not in it: long" in done.out
    (hit,) = cli.run("search", "warranty", "--mode", "sparse", "--explain", "--json").json["hits"]
    assert hit["explain"][0] == {"term": "warranty", "query_weight": 3.2, "weight": 2.5, "contribution": 8.0, "from": "passage"}
    assert [match["from"] for match in hit["explain"]] == ["passage", "expansion", "both", "nothing"]


def test_search_fuses_what_is_asked_for(cli: Cli) -> None:
    cli.run("search", "x", "--origins", "Dense,sparse", "--fusion", "WEIGHTED")
    assert cli.kb.called("find")["changes"] == {"origins": "dense,sparse", "fusion": "weighted"}


def test_search_may_be_rewritten(cli: Cli) -> None:
    cli.run("search", "x", "--rewriter", "Bridge")
    assert cli.kb.called("find")["changes"] == {"rewriter": "bridge"}
    assert cli.run("search", "x", "--rewriter", "bridge", "--mode", "bm25", "--json").error["field"] == "rewriter"


def test_search_says_where_it_searched_otherwise(cli: Cli) -> None:
    cli.kb.notes = ("It was searched[2J by meaning (dense) instead.",)
    assert "Note: It was searched[2J by meaning (dense) instead." in cli.run("search", "x", "--mode", "sparse").out
    assert cli.run("search", "x", "--json").json["notes"] == list(cli.kb.notes)
    cli.kb.hits = []
    assert "Note: It was searched" in cli.run("search", "x", "--mode", "sparse").out
    assert "Note: It was searched" in cli.run("search", "x", "--explain").out
    assert "Note:" not in cli.run("search", "x").out


def test_search_without_hits_is_no_failure(cli: Cli) -> None:
    cli.kb.hits = []
    done = cli.run("search", "x")
    assert done.code == 0
    assert "Nothing in collection default matches." in done.out


def test_documents_list(cli: Cli) -> None:
    assert "1,512" in cli.run("documents", "list").out
    assert cli.run("documents", "list", "--json").json == {"documents": [DOCUMENT_ROW.to_dict()]}
    cli.kb.rows = []
    assert "Next: thriftrag ingest PATH" in cli.run("documents", "list").out
    assert cli.run("documents", "list", "--json").json == {"documents": []}


def test_documents_show(cli: Cli) -> None:
    out = cli.run("documents", "show", "guide.pdf").out
    assert "The warranty lasts two years.\nIt covers parts." in out
    assert "application/pdf" in out
    shown = cli.run("documents", "show", "d1", "--json").json
    assert (shown["id"], shown["pages"], shown["metadata"]) == ("d1", 1, {"author": "Ada"})


def test_documents_delete(cli: Cli) -> None:
    assert "Deleted 2 documents from collection default." in cli.run("documents", "delete", "d1", "d2").out
    assert cli.run("documents", "delete", "d1", "--json").json == {"deleted": 1, "collection": "default"}


def test_an_unknown_document_is_named(cli: Cli) -> None:
    done = cli.run("documents", "show", "nope")
    assert done.code == 2
    assert "No document 'nope'." in done.err
    assert done.out == ""


def test_collections_list_and_info(cli: Cli) -> None:
    assert "2.5 MB" in cli.run("collections", "list").out
    assert cli.run("collections", "list", "--json").json == {"collections": [COLLECTION_ROW.to_dict()]}
    assert "minilm@53aa5117" in cli.run("collections", "info").out
    assert cli.run("collections", "info", "default", "--json").json == COLLECTION_ROW.to_dict()
    cli.collections = {}
    assert "There are no collections yet." in cli.run("collections", "list").out


def test_collections_verify_exits_1_on_damage(cli: Cli) -> None:
    assert cli.run("collections", "verify").out == "Collection default is sound.\n"
    cli.kb.problems = ["vectors.bin was changed"]
    done = cli.run("collections", "verify")
    assert done.code == 1
    assert "- vectors.bin was changed" in done.out
    assert "thriftrag collections rebuild default" in done.out
    done = cli.run("collections", "verify", "--json")
    assert done.code == 1
    assert done.json == {"collection": "default", "sound": False, "problems": ["vectors.bin was changed"]}


def test_collections_rebuild_and_compact(cli: Cli) -> None:
    assert "Rebuilt" in cli.run("collections", "rebuild").out
    assert cli.run("collections", "rebuild", "--json").json == {"collection": "default", "rebuilt": True}
    assert "Freed 1.2 MB" in cli.run("collections", "compact").out
    assert cli.run("collections", "compact", "--json").json == {"collection": "default", "bytes_freed": 1_234_567}


def test_collections_delete_needs_a_yes(cli: Cli) -> None:
    for extra in ([], ["--json"]):
        done = cli.run("collections", "delete", "default", *extra)
        assert done.code == 2
    assert done.error["code"] == "confirmation_needed"
    assert "--yes" in done.error["hint"]
    assert cli.deleted == []


def test_collections_delete_with_yes(cli: Cli) -> None:
    assert cli.run("collections", "delete", "default", "--yes").out == "Deleted collection default with 1 document.\n"
    assert cli.run("collections", "delete", "default", "-y", "--json").json == {"deleted": "default"}
    assert cli.deleted == ["default", "default"]


def test_a_damaged_collection_can_be_deleted(cli: Cli) -> None:
    cli.kb.error = errors.SnapshotCorrupt("store.db is not readable.")
    assert "contents that cannot be read" in cli.run("collections", "delete", "default", "--yes").out
    assert cli.deleted == ["default"]


@pytest.mark.parametrize(("answer", "deleted"), [("y\n", ["default"]), ("n\n", []), ("\n", [])])
def test_collections_delete_asks_on_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch, answer: str,
                                               deleted: list[str]) -> None:
    monkeypatch.setattr("rag.cli.collections.terminal.interactive", lambda stream: True)
    done = cli.run("collections", "delete", "default", stdin=answer)
    assert "Delete collection default with 1 document? This cannot be undone." in done.out + done.err
    assert cli.deleted == deleted
    assert done.code == (0 if deleted else 1)


def test_the_home_can_be_chosen(cli: Cli, tmp_path: Path) -> None:
    cli.run("search", "x", "--home", str(tmp_path / "elsewhere"))
    assert cli.settings.home == tmp_path / "elsewhere"


def test_a_missing_collection_names_the_existing_ones(cli: Cli) -> None:
    done = cli.run("ask", "Who?", "-c", "nope")
    assert done.code == 1
    assert "There is no collection 'nope'." in done.err
    assert "Collections: default." in done.err
    assert cli.opened == [("nope", False)]


# --- models, config ----------------------------------------------------------------------------------------------------


def test_models_list(cli: Cli) -> None:
    done = cli.run("models", "list")
    assert "all-minilm-l6-v2" in done.out
    assert "Next: thriftrag models pull" in done.out
    rows = cli.run("models", "list", "--json").json["models"]
    assert [(row["state"], row["used"]) for row in rows] == [("ready", True), ("missing", True), ("missing", False)]


def test_models_pull_fetches_what_the_settings_use(cli: Cli) -> None:
    done = cli.run("models", "pull")
    assert done.code == 0
    assert [pull["name"] for pull in cli.models.pulls] == ["all-minilm-l6-v2", "qwen2.5-coder-1.5b-instruct"]
    assert {pull["source"] for pull in cli.models.pulls} == {"auto"}
    assert "91.3 MB received" in done.out


def test_models_pull_small_and_by_name(cli: Cli) -> None:
    cli.run("models", "pull", "--small", "--source", "mirror")
    assert [tuple(pull.values()) for pull in cli.models.pulls] == [
        ("all-minilm-l6-v2", "mirror"), ("qwen2.5-coder-0.5b-instruct", "mirror")]
    cli.models.pulls.clear()
    names = [row["name"] for row in cli.run("models", "pull", "all-minilm-l6-v2", "--json").json["models"]]
    assert names == [pull["name"] for pull in cli.models.pulls] == ["all-minilm-l6-v2"]


def test_models_pull_skips_what_is_served_elsewhere(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTRAG_READER_URL", "http://127.0.0.1:1/v1")
    cli.run("models", "pull")
    assert [pull["name"] for pull in cli.models.pulls] == ["all-minilm-l6-v2"]
    monkeypatch.setenv("THRIFTRAG_EMBEDDER", "/models/mine")
    assert cli.run("models", "pull").code == 2


def test_models_pull_refuses_contradictions(cli: Cli) -> None:
    assert cli.run("models", "pull", "x", "--small", "--json").error["code"] == "usage"
    assert "auto, hub, mirror" in cli.run("models", "pull", "--source", "nowhere", "--json").error["hint"]
    assert cli.models.pulls == []


def test_models_verify(cli: Cli) -> None:
    assert cli.run("models", "verify").out == "all-minilm-l6-v2: sound\n"
    cli.models.problems = {"all-minilm-l6-v2": ["model.bin: expected a, found b"]}
    done = cli.run("models", "verify")
    assert done.code == 1
    assert "- model.bin: expected a, found b" in done.out
    done = cli.run("models", "verify", "--json")
    assert done.code == 1
    assert done.json == {"models": [
        {"name": "all-minilm-l6-v2", "sound": False, "problems": ["model.bin: expected a, found b"]}]}


def test_models_verify_without_models(cli: Cli) -> None:
    cli.models.states = {"all-minilm-l6-v2": "missing"}
    done = cli.run("models", "verify", "--json")
    assert done.code == 1
    assert done.error["hint"] == "Run `thriftrag models pull`."


def test_config_says_where_values_come_from(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THRIFTRAG_BUDGET_TOKENS", "99")
    (tmp_path / "config.toml").write_text('selector = "topk"\nreader_api_key = "hunter2"\n')
    rows = {row["name"]: row for row in cli.run("config", "--json").json["settings"]}
    assert (rows["budget_tokens"]["value"], rows["budget_tokens"]["origin"]) == (99, "THRIFTRAG_BUDGET_TOKENS")
    assert (rows["selector"]["value"], rows["selector"]["origin"]) == ("topk", str(tmp_path / "config.toml"))
    assert rows["candidates"]["origin"] == "default"
    done = cli.run("config")
    assert "THRIFTRAG_BUDGET_TOKENS" in done.out
    assert "hunter2" not in done.out


def test_a_chosen_home_brings_its_own_settings(cli: Cli, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.toml").write_text("candidates = 7\n")
    rows = {row["name"]: row for row in cli.run("config", "--home", str(other), "--json").json["settings"]}
    assert (rows["home"]["value"], rows["home"]["origin"]) == (str(other), "flag")
    assert rows["candidates"]["value"] == 7


def test_an_unknown_setting_is_refused_with_the_nearest(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTRAG_BUDGET_TOKEN", "99")
    done = cli.run("config")
    assert done.code == 2
    assert "Did you mean 'budget_tokens'?" in done.err


def test_version(cli: Cli) -> None:
    from rag import __version__

    assert cli.run("--version").out == f"thriftrag {__version__}\n"


# --- how commands end --------------------------------------------------------------------------------------------------

ERRORS = [
    (errors.InputError, 2), (errors.QuestionEmpty, 2), (errors.QuestionTooLong, 2), (errors.UnknownField, 2),
    (errors.UnsupportedFile, 2), (errors.FileUnreadable, 2), (errors.DocumentMissing, 2), (errors.BudgetError, 2),
    (errors.BudgetTooSmall, 2), (errors.CostExceeded, 2), (errors.ConfigError, 2), (errors.BudgetExceeded, 1),
    (errors.SnapshotError, 1), (errors.CollectionMissing, 1), (errors.SnapshotCorrupt, 1), (errors.SnapshotMismatch, 1),
    (errors.Locked, 1), (errors.StorageError, 1), (errors.UpstreamError, 1), (errors.ModelUnavailable, 1),
    (errors.ModelCorrupt, 1), (errors.ModelTimeout, 1), (errors.ModelRefused, 1), (errors.DeadlineExceeded, 1),
    (errors.RagError, 1),
]


@pytest.mark.parametrize(("kind", "code"), ERRORS, ids=[kind.__name__ for kind, _ in ERRORS])
def test_every_error_has_its_exit_code_and_is_told_once(cli: Cli, kind: type[errors.RagError], code: int) -> None:
    cli.kb.error = kind("It broke at 7.", hint="Mend it.", field="budget_tokens")
    told = cli.run("ask", "Who?")
    assert told.code == code
    assert told.out == ""
    assert told.err == "Error: It broke at 7.\n  Fix: Mend it.\n"
    as_json = cli.run("ask", "Who?", "--json")
    assert as_json.code == code
    assert as_json.err == ""
    assert as_json.error == {"code": kind.code, "message": "It broke at 7.", "hint": "Mend it.", "field": "budget_tokens"}


def test_every_error_class_is_in_the_table_above() -> None:
    declared = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RagError)}
    assert declared == {kind for kind, _ in ERRORS}


def test_a_defect_is_told_as_one_and_traced_on_demand(cli: Cli) -> None:
    cli.kb.error = ZeroDivisionError("division by zero")
    done = cli.run("ask", "Who?")
    assert done.code == 1
    assert "defect" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in cli.run("ask", "Who?", "--verbose").err
    done = cli.run("ask", "Who?", "--json", "--verbose")
    assert done.error["code"] == "internal_error"
    assert "Traceback" in done.err


def test_what_the_system_refuses_is_told_with_the_path(cli: Cli) -> None:
    cli.kb.error = OSError(28, "No space left on device", "/data/x")
    done = cli.run("ingest", "docs/", "--json")
    assert done.code == 1
    assert done.error["message"] == "No space left on device: /data/x."


USAGE = [
    (["ask"], "question"), (["ask", "Who?", "--nope"], None), (["aks", "Who?"], None), (["ingest"], "paths"),
    (["documents", "show"], "document_id"), (["collections", "delete"], "name"), (["documents", "nope"], None),
]


@pytest.mark.parametrize(("args", "field"), USAGE)
def test_a_misused_command_exits_2_with_one_object(cli: Cli, args: list[str], field: str | None) -> None:
    done = cli.run(*args, "--json")
    assert done.code == 2
    assert (done.error["code"], done.error["field"]) == ("usage", field)
    assert "--help" in done.error["hint"]
    done = cli.run(*args)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("Error: ")


def test_a_typo_is_answered_with_the_nearest_command(cli: Cli) -> None:
    assert "Did you mean 'ask'?" in cli.run("aks").err


BAD_VALUES = [
    (["ask", ""], "question_empty", "question"),
    (["ask", " \t\n"], "question_empty", "question"),
    (["ask", "x" * 8001], "question_too_long", "question"),
    (["ask", "bad \udcff byte"], "input_invalid", "question"),
    (["ask", "Q", "--budget", "0"], "budget_invalid", "budget_tokens"),
    (["ask", "Q", "--budget", "-5"], "budget_invalid", "budget_tokens"),
    (["ask", "Q", "--budget", "many"], "budget_invalid", "budget_tokens"),
    (["ask", "Q", "--budget", "1.5"], "budget_invalid", "budget_tokens"),
    (["ask", "Q", "--budget", "nan"], "budget_invalid", "budget_tokens"),
    (["ask", "Q", "--max-cost", "nan"], "budget_invalid", "max_cost_usd"),
    (["ask", "Q", "--max-cost", "-1"], "budget_invalid", "max_cost_usd"),
    (["ask", "Q", "--max-cost", "0"], "budget_invalid", "max_cost_usd"),
    (["ask", "Q", "--max-cost", "cheap"], "budget_invalid", "max_cost_usd"),
    (["ask", "Q", "--deadline", "0"], "budget_invalid", "deadline_s"),
    (["ask", "Q", "--deadline", "inf"], "budget_invalid", "deadline_s"),
    (["ask", "Q", "--deadline", "soon"], "budget_invalid", "deadline_s"),
    (["ask", "Q", "--selector", "gredy"], "input_invalid", "selector"),
    (["ask", "Q", "-c", "../etc"], "input_invalid", "collection"),
    (["ask", "Q", "-c", ""], "input_invalid", "collection"),
    (["ask", "Q", "-c", "a" * 65], "input_invalid", "collection"),
    (["ask", "Q", "-c", ".hidden"], "input_invalid", "collection"),
    (["ask", "Q", "-c", "a/b"], "input_invalid", "collection"),
    (["search", " "], "question_empty", "query"),
    (["search", "Q", "-k", "0"], "input_invalid", "k"),
    (["search", "Q", "-k", "-1"], "input_invalid", "k"),
    (["search", "Q", "-k", "ten"], "input_invalid", "k"),
    (["search", "Q", "--mode", "telepathy"], "input_invalid", "mode"),
    (["search", "Q", "--origins", "dense,telepathy"], "config_invalid", "origins"),
    (["search", "Q", "--origins", ""], "config_invalid", "origins"),
    (["search", "Q", "--fusion", "cold"], "config_invalid", "fusion"),
    (["search", "Q", "--mode", "bm25", "--origins", "dense"], "input_invalid", "origins"),
    (["search", "Q", "--mode", "sparse", "--fusion", "rrf"], "input_invalid", "fusion"),
    (["ingest", "docs", "--workers", "-1"], "input_invalid", "workers"),
    (["bench", "store", "--sizes", "1,x"], "input_invalid", "sizes"),
    (["bench", "store", "--sizes", "0"], "input_invalid", "sizes"),
    (["ingest", "docs", "-c", "a b"], "input_invalid", "collection"),
    (["collections", "info", "a b"], "input_invalid", "collection"),
    (["collections", "delete", "a b", "--yes"], "input_invalid", "collection"),
]


@pytest.mark.parametrize(("args", "code", "field"), BAD_VALUES)
def test_a_bad_value_is_refused_before_any_work(cli: Cli, args: list[str], code: str, field: str) -> None:
    done = cli.run(*args, "--json")
    assert done.code == 2
    assert (done.error["code"], done.error["field"]) == (code, field)
    assert done.error["hint"]
    assert cli.opened == []
    assert cli.deleted == []


def test_a_refusal_names_the_value_and_the_choices(cli: Cli) -> None:
    problem = cli.run("ask", "Q", "--selector", "gredy", "--json").error
    assert "'gredy'" in problem["message"]
    assert problem["hint"].startswith("Did you mean greedy? Use one of: topk, topk_whole, sentences, mmr,")
    assert "'many'" in cli.run("ask", "Q", "--budget", "many", "--json").error["message"]


def test_a_question_on_stdin_must_be_utf8_and_bounded(cli: Cli) -> None:
    problem = cli.run("ask", "-", "--json", stdin=b"caf\xe9").error
    assert problem["message"] == "The question on stdin is not UTF-8: byte 3 is 0xe9."
    assert cli.run("ask", "-", "--json", stdin=b"x" * 1_000_000).error["code"] == "question_too_long"
    assert cli.run("ask", "-", "--json", stdin="é" * 40_000).error["code"] == "question_too_long"
    assert cli.run("ask", "-", "--json", stdin=b"").error["code"] == "question_empty"


def test_json_after_two_dashes_is_no_flag(cli: Cli) -> None:
    assert cli.run("ask", "--", "--json").out.startswith("Two years")
    assert cli.kb.called("ask")["question"] == "--json"


# --- bench -------------------------------------------------------------------------------------------------------------


def test_bench_without_a_name_lists_what_there_is(cli: Cli) -> None:
    done = cli.run("bench")
    assert done.code == 0
    assert "ingest" in done.out
    assert "From files to a published snapshot" in done.out


def test_bench_json_is_the_contract(cli: Cli) -> None:
    value = cli.run("bench", "store", "--sizes", "2000,100", "--seed", "7", "--json").json
    assert {"bench", "machine", "results"} <= set(value)
    assert value["results"][0] == {"name": "ours", "value": 150.0, "unit": "passages/s", "n": 512, "ratio": 5.0,
                                   "ratio_to": "theirs"}
    assert value["results"][1]["ratio"] is None
    [(name, options)] = cli.benches
    assert (name, options.sizes, options.seed) == ("store", (100, 2000), 7)


def test_bench_shows_a_table(cli: Cli) -> None:
    done = cli.run("bench", "store")
    assert "5.00" in done.out
    assert "theirs" in done.out


def test_bench_names_are_known() -> None:
    from eval import bench

    assert {"ingest", "store", "dense", "lexical", "qdrant"} <= set(bench.names())
    assert all(bench.summary(name) and callable(bench.load(name)) for name in bench.names())
    with pytest.raises(InputError, match="no bench 'speed'") as caught:
        bench.load("speed")
    assert "ingest" in caught.value.hint
