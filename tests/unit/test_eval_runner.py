"""A run: rows that survive interruption, calls that are paid for once, and a summary in the contract's shape."""

from __future__ import annotations

import json
import sqlite3
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.runner import Outcome, Plan, run
from rag.errors import BudgetError, InputError, StorageError
from rag.settings import Settings
from rag.types import FileFailure, Progress
from tests.eval_fakes import QUERIES, ScriptedReader, World, dataset_folder

SYSTEM_KEYS = ["system", "budget", "n", "em", "f1", "f1_ci", "answer_in_context", "evidence_recall", "context_tokens",
               "prompt_tokens", "cost_usd", "seconds"]


class Bench:
    """One folder of results, and everything a run needs besides the plan."""

    def __init__(self, root: Path) -> None:
        self.data = dataset_folder(root / "tiny")
        self.settings = Settings(home=root / "home")
        self.world = World()
        self.reader = ScriptedReader()
        self.plan = Plan(folders=(self.data,), systems=("topk",), budgets=(40,), out=root / "out", timed=0, parallel=1,
                         patience_s=0)
        self.readers: list[bool] = []
        self.ticks: list[Progress] = []

    def run(self, *, stop_after: int | None = None, **changes: Any) -> Outcome:
        plan = replace(self.plan, **changes)
        return run(plan, settings=self.settings, open_reader=self.open_reader, open_collection=self.world,
                   open_peer=self.world.peer, on_progress=self.ticks.append,
                   cancelled=lambda: stop_after is not None and len(self.rows) >= stop_after)

    def open_reader(self, *, prefix_cache: bool) -> ScriptedReader:
        self.readers.append(prefix_cache)
        return self.reader

    @property
    def rows(self) -> list[dict[str, Any]]:
        path = self.plan.out / "results.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.plan.out / "summary.json").read_text(encoding="utf-8"))
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_system_budget_and_question_gets_one_row(bench: Bench) -> None:
    outcome = bench.run(systems=("closed_book", "topk", "thrift"), budgets=(20, 40))
    assert outcome.computed == len(bench.rows) == 4 * (1 + 2 + 2)
    places = [(row["system"], row["budget"], row["question"]) for row in bench.rows]
    # A question meets all systems in a row, the largest budget first: prompts that begin alike share the reader's cache.
    assert [place[:2] for place in places[:5]] == [
        ("closed_book", None), ("thrift", 40), ("thrift", 20), ("topk", 40), ("topk", 20)]
    assert len({place[2] for place in places[:5]}) == 1
    assert len(set(places)) == len(places)
    assert all(row["context_tokens"] <= (row["budget"] or 0) for row in bench.rows)


def test_rows_hold_the_answer_its_scores_and_its_costs(bench: Bench) -> None:
    bench.run()
    row = next(row for row in bench.rows if row["question"] == "q1")
    assert row["answer"] == "Rollo"
    assert (row["em"], row["f1"], row["contains"], row["answer_in_context"], row["evidence_recall"]) == (1, 1, 1, 1, 1)
    assert row["yes_no"] is None
    assert "d1" in row["shown"]
    assert (row["cost_usd"], row["llm_calls"], row["error"], row["remembered"]) == (0.001, 1, None, False)


def test_summary_has_the_shape_of_the_contract(bench: Bench) -> None:
    bench.run(systems=("gold", "topk"), budgets=(30, 40))
    (dataset,) = bench.summary["datasets"]
    assert dataset["dataset"] == "tiny"
    rows = dataset["systems"]
    assert [(row["system"], row["budget"]) for row in rows] == [("gold", 30), ("gold", 40), ("topk", 30), ("topk", 40)]
    assert all(list(row) == SYSTEM_KEYS for row in rows)
    assert {"thriftrag", "python"} <= set(bench.summary["versions"])
    assert {"processor", "cores", "memory_gib", "system"} == set(bench.summary["machine"])


def test_summary_figures_are_means_over_questions(bench: Bench) -> None:
    bench.run(systems=("gold",))
    (dataset,) = bench.summary["datasets"]
    (row,) = dataset["systems"]
    # q1 and q2 are right, q3 is unanswerable and declined, q4 wants yes and is declined.
    assert (row["n"], row["em"], row["f1"]) == (4, 75.0, 75.0)
    assert row["f1_ci"][0] < 75 < row["f1_ci"][1]
    assert row["answer_in_context"] == 1
    (detail,) = bench.summary["details"]
    assert (detail["n_answer_in_context"], detail["n_evidence_recall"], detail["n_yes_no"], detail["yes_no"]) == (2, 3, 1, 0)
    assert (detail["abstained"], detail["abstained_rightly"], detail["unanswerable"]) == (2, 1, 1)


def test_a_system_that_no_budget_binds_is_run_once_and_told_once_in_markdown(bench: Bench) -> None:
    assert bench.run(systems=("gold",), budgets=(10, 20, 30)).computed == 4
    table = (bench.plan.out / "summary.md").read_text(encoding="utf-8")
    assert table.count("| gold | - | 4 |") == 1


def test_a_rerun_computes_nothing_makes_no_call_and_says_so(bench: Bench) -> None:
    first = bench.run()
    made = bench.reader.calls
    again = bench.run()
    assert (again.computed, again.kept, again.calls, again.remembered) == (0, 4, 0, 0)
    assert bench.reader.calls == made
    assert again.summary == first.summary
    assert len(bench.rows) == 4


def test_a_rerun_opens_neither_reader_nor_collection(bench: Bench) -> None:
    bench.run()
    bench.world.opened.clear()
    plan = bench.plan
    run(plan, settings=bench.settings, open_reader=lambda *, prefix_cache: pytest.fail("opened"),
        open_collection=bench.world, open_peer=bench.world.peer)
    assert bench.world.opened == []


def test_an_interrupted_run_goes_on_where_it_stopped(bench: Bench) -> None:
    stopped = bench.run(stop_after=2)
    assert (stopped.stopped, stopped.computed) == (True, 2)
    assert bench.summary["datasets"][0]["systems"][0]["n"] == 2
    finished = bench.run()
    assert (finished.stopped, finished.kept, finished.computed) == (False, 2, 2)
    assert {row["question"] for row in bench.rows} == {"q1", "q2", "q3", "q4"}
    assert len(bench.rows) == 4


def test_a_line_cut_short_by_a_crash_is_computed_again(bench: Bench) -> None:
    bench.run()
    path = bench.plan.out / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    assert bench.run().computed == 1
    assert len(bench.rows) == 4


def test_a_broken_line_in_the_middle_is_refused_with_its_number(bench: Bench) -> None:
    bench.run()
    path = bench.plan.out / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([lines[0], "{", *lines[2:]]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"results\.jsonl, line 2 is not a result"):
        bench.run()


def test_lost_results_are_made_again_from_remembered_calls_with_the_seconds_of_the_real_ones(bench: Bench) -> None:
    bench.run()
    before = bench.summary["datasets"][0]["systems"][0]
    (bench.plan.out / "results.jsonl").unlink()
    again = bench.run()
    assert (again.calls, again.remembered, again.computed) == (0, 4, 4)
    assert all(row["remembered"] is True for row in bench.rows)
    assert bench.summary["datasets"][0]["systems"][0] == before
    bench.run(timed=4, out=bench.plan.out / "timed")
    (bench.plan.out / "timed" / "results.jsonl").unlink()
    again = bench.run(timed=4, out=bench.plan.out / "timed")
    assert (again.calls, again.remembered) == (0, 4)
    found = json.loads((bench.plan.out / "timed" / "summary.json").read_text(encoding="utf-8"))
    assert found["datasets"][0]["systems"][0]["seconds"] == 2.25, "remembered calls count with the seconds they really took"


def test_a_failed_question_is_a_row_with_its_error_counts_as_wrong_and_is_tried_again(bench: Bench) -> None:
    bench.reader.fails_on = "What is the capital"
    outcome = bench.run(systems=("gold",))
    failed = next(row for row in bench.rows if row["question"] == "q2")
    assert failed["error"] == {"code": "model_unavailable", "message": "The reader is gone. Start it."}
    assert (failed["em"], failed["f1"], failed["seconds"]) == (0, 0, None)
    assert outcome.failed == 1
    assert bench.summary["datasets"][0]["systems"][0]["em"] == 50
    assert "1 answers failed" in (bench.plan.out / "summary.md").read_text(encoding="utf-8")
    bench.reader.fails_on = ""
    again = bench.run(systems=("gold",))
    assert (again.kept, again.computed, again.failed) == (3, 1, 0)
    assert bench.summary["datasets"][0]["systems"][0]["em"] == 75


def test_a_defect_in_one_question_does_not_end_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.eval_fakes import FakeBase

    def broken(self: FakeBase, question: str, *, budget: int, changes: object = None) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(FakeBase, "ask", broken)
    assert bench.run().failed == 4
    assert bench.rows[0]["error"] == {"code": "ZeroDivisionError", "message": "oops"}
    assert "NaN" not in (bench.plan.out / "summary.json").read_text(encoding="utf-8")


def test_retrieval_only_questions_have_no_answer_figures_and_no_nan(bench: Bench) -> None:
    dataset_folder(bench.data, queries=[{**query, "answers": [], "type": "ad hoc"} for query in QUERIES])
    bench.run()
    row = bench.summary["datasets"][0]["systems"][0]
    assert (row["em"], row["f1"], row["f1_ci"], row["answer_in_context"]) == (None, None, None, None)
    assert row["evidence_recall"] == 1


def test_limit_draws_a_sample_that_a_larger_one_holds(bench: Bench, tmp_path: Path) -> None:
    bench.run(limit=2, answerable=True)
    few = {row["question"] for row in bench.rows}
    bench.run(limit=3, answerable=True)
    assert few < {row["question"] for row in bench.rows} == {"q1", "q2", "q4"}


def test_beyond_the_sample_only_contexts_are_made_and_judged(bench: Bench) -> None:
    outcome = bench.run(sample=1)
    assert bench.reader.calls == 1
    assert [row["read"] for row in bench.rows] == [True, False, False, False]
    unread = [row for row in bench.rows if not row["read"]]
    assert all(row["answer"] is None and row["f1"] is None and row["context"] is None for row in unread)
    assert all(row["answer_in_context"] is not None for row in unread if row["question"] in ("q1", "q2"))
    assert (outcome.computed, outcome.failed) == (4, 0)
    larger = bench.run(sample=3)
    assert (larger.kept, larger.computed, bench.reader.calls) == (2, 2, 3)


def test_timed_questions_come_first_alone_on_a_cold_reader_and_collection(bench: Bench) -> None:
    bench.run(systems=("gold", "topk"), budgets=(20, 40), timed=2, parallel=3)
    rows = bench.rows
    assert [row["timed"] for row in rows] == [True] * 6 + [False] * 6
    # A prompt that two systems share is asked once, and counts for both with the seconds it took.
    assert {row["seconds"] for row in rows[:6]} == {0.25, 2.25}
    assert all(row["stages"] == {"generate": 0.0} for row in rows[:6])
    assert all(row["seconds"] is None and row["stages"] is None for row in rows[6:])
    assert bench.readers == [False, True]
    assert bench.world.cold == [True, True, True, False]


def test_a_timed_call_that_was_made_beside_others_before_is_made_again(bench: Bench, tmp_path: Path) -> None:
    bench.run()
    bench.run(out=tmp_path / "timed", timed=2)
    assert bench.reader.calls == 6


def test_seconds_may_be_asked_for_later(bench: Bench) -> None:
    bench.run()
    again = bench.run(timed=2)
    assert (again.kept, again.computed) == (2, 2)
    assert bench.summary["details"][0]["n_seconds"] == 2
    assert bench.run(timed=1).computed == 0


def test_contexts_that_were_read_are_kept_once_each(bench: Bench) -> None:
    bench.run(systems=("gold", "topk"), budgets=(30, 40))
    with closing(sqlite3.connect(bench.plan.out / "contexts.sqlite")) as db:
        texts = {key: zlib.decompress(text).decode() for key, text in db.execute("SELECT key, text FROM contexts")}
    gold = next(row for row in bench.rows if row["system"] == "gold" and row["question"] == "q1")
    assert "Rollo led them." in texts[gold["context"]]
    assert {row["context"] for row in bench.rows} == set(texts)


def test_peers_are_opened_once_a_data_set_answer_and_are_closed(bench: Bench) -> None:
    outcome = bench.run(systems=("topk", "txtai"), budgets=(20, 40), parallel=4)
    assert outcome.failed == 0
    assert [peer.closed for peer in bench.world.peers] == [True]
    assert all(row["shown"] == ["d1"] for row in bench.rows if row["system"] == "txtai")
    assert next(row for row in bench.rows if row["system"] == "txtai" and row["question"] == "q1")["f1"] == 1


def test_a_disk_that_refuses_ends_the_run_and_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from eval.results import Results

    def refuse(self: Results, row: object) -> None:
        raise StorageError("The disk is full.", hint="Make room.")

    monkeypatch.setattr(Results, "append", refuse)
    with pytest.raises(StorageError, match="disk is full"):
        bench.run(parallel=4)


def test_a_judge_grades_what_was_read_once(bench: Bench) -> None:
    bench.run()
    judge = ScriptedReader(script=("no such word",), name="judge")
    plan = bench.plan
    for _ in range(2):
        run(plan, settings=bench.settings, open_reader=bench.open_reader, open_collection=bench.world,
            open_peer=bench.world.peer, judge=lambda: judge)
    last = {row["question"]: row for row in bench.rows}
    assert judge.calls <= 3
    assert set(last) == {"q1", "q2", "q3", "q4"}


def test_systems_budgets_and_data_sets_may_be_added_later(bench: Bench, tmp_path: Path) -> None:
    bench.run()
    other = dataset_folder(tmp_path / "other")
    outcome = bench.run(folders=(bench.data, other), systems=("topk", "thrift"), budgets=(20, 40))
    assert (outcome.kept, outcome.computed) == (4, 28)
    assert [dataset["dataset"] for dataset in bench.summary["datasets"]] == ["tiny", "other"]


def test_the_summary_covers_what_was_asked_for_and_no_older_rows(bench: Bench) -> None:
    bench.run(systems=("topk", "thrift"))
    bench.run(systems=("thrift",), limit=2)
    rows = bench.summary["datasets"][0]["systems"]
    assert [(row["system"], row["n"]) for row in rows] == [("thrift", 2)]


def test_differences_are_paired_with_rank_order_fill_at_the_same_budget(bench: Bench) -> None:
    bench.run(systems=("gold", "topk", "thrift"), budgets=(20, 40))
    found = bench.summary["differences"]
    assert [(row["system"], row["against"], row["budget"], row["n"]) for row in found] == [
        ("thrift", "topk", 20, 4), ("thrift", "topk", 40, 4)]
    assert (found[0]["f1"], found[0]["f1_ci"]) == (0, [0, 0])


@pytest.mark.parametrize("change", [{"reader": "other"}, {"candidates": 7}, {"chunk_tokens": 64}])
def test_results_of_another_run_are_never_mixed(bench: Bench, change: dict[str, Any]) -> None:
    bench.run()
    bench.settings = replace(bench.settings, **change)
    with pytest.raises(InputError, match="holds another run"):
        bench.run()


def test_a_changed_data_set_is_refused(bench: Bench) -> None:
    bench.run()
    dataset_folder(bench.data, queries=QUERIES[:2])
    with pytest.raises(InputError, match="the data set tiny has changed"):
        bench.run()


def test_the_corpus_is_ingested_once_and_apart_from_the_users_collections(bench: Bench, tmp_path: Path) -> None:
    bench.run()
    bench.run(systems=("thrift", "topk"))
    bench.run(out=tmp_path / "elsewhere")
    assert bench.world.ingestions == 1
    (name,) = bench.world.collections
    assert name.startswith("tiny-")
    assert (tmp_path / "home" / "evaluation" / f"{name}.json").is_file()
    assert all(kb.closed for kb in bench.world.opened)
    assert bench.reader.closed


def test_an_ingestion_that_was_cut_short_is_not_taken_for_whole(bench: Bench) -> None:
    assert bench.run(stop_after=0).stopped
    assert list((bench.settings.home / "evaluation").glob("*.json")) == []
    assert bench.run().computed == 4


def test_passages_that_do_not_go_in_are_an_error(bench: Bench) -> None:
    bench.world.failures = (FileFailure("stdin#d2", "x", "d2 is broken.", "Mend it."),)
    with pytest.raises(InputError, match="1 of the 3 passages of tiny could not be ingested; the first: d2 is broken"):
        bench.run()


@pytest.mark.parametrize(("changes", "message"), [
    ({"budgets": ()}, "No budget"), ({"budgets": (128, 0)}, "A budget of 0"), ({"budgets": (-5,)}, "A budget of -5")])
def test_impossible_budgets_are_refused_before_any_work(bench: Bench, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        bench.run(**changes)
    assert not bench.plan.out.exists()


def test_two_data_sets_of_one_name_are_refused(bench: Bench, tmp_path: Path) -> None:
    twin = dataset_folder(tmp_path / "elsewhere" / "tiny")
    with pytest.raises(InputError, match="Two data sets are named 'tiny'"):
        bench.run(folders=(bench.data, twin))


def test_progress_counts_what_is_left_to_do(bench: Bench) -> None:
    bench.run(stop_after=1)
    bench.ticks.clear()
    bench.run()
    ticks = [(tick.done, tick.total) for tick in bench.ticks if tick.stage == "answer"]
    assert ticks == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert all(tick.note in ("", "topk 40 on tiny") for tick in bench.ticks)
