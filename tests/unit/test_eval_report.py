"""The report of a run folder: what it says is what the rows say, and what others wrote in them stays text."""

from __future__ import annotations

import builtins
import json
import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from eval.report import (
    as_markdown,
    groups,
    headline,
    palette,
    records,
    remake,
    scales,
    spending,
    tables,
    traces,
    write_questions,
    write_report,
)
from eval.report.facts import rerun_of
from eval.report.highlight import pieces
from eval.report.html import Asides, as_html
from rag.errors import InputError
from tests.report_run import drawn, folder, row, summary, unread


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, a ceiling and two systems at two budgets; the reader answered 9 of 12 questions of each."""
    return drawn(tmp_path_factory.mktemp("report") / "run", datasets=("alpha", "beta"), systems=("gold", "topk", "thrift"),
                 budgets=(64, 128), questions=12, read=9)


@pytest.fixture(scope="module")
def run(run_folder: Path) -> records.Run:
    return records.load(run_folder)


def small(path: Path, rows: list[dict[str, object]], **more: Any) -> Path:
    """A folder with a summary of these rows of `topk` and `thrift` at budget 128."""
    return folder(path, rows, summary=summary(rows, ("topk", "thrift"), (128,)), **more)


def two_systems(**changes: object) -> list[dict[str, object]]:
    return [row(system=system, question=f"q{place}", f1=f1, em=f1, **changes)
            for system, told in (("topk", (1.0, 0.0, 0.5)), ("thrift", (0.0, 1.0, 0.5))) for place, f1 in enumerate(told)]


# What is read

def test_the_last_row_of_a_question_wins_and_an_unfinished_line_is_passed_over(tmp_path: Path) -> None:
    path = folder(tmp_path, [row(f1=0.0), row(f1=1.0)])
    with (path / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"dataset": "al')
    (told,) = records.load(path).rows
    assert told.figures["f1"] == 1.0


@pytest.mark.parametrize(("line", "said"), [
    ("{", "line 2 is not JSON in UTF-8"),
    ("[]", "line 2 is not a JSON object: list"),
    ('{"dataset": "a"}', "line 2 is not a result: no field 'budget'"),
    (json.dumps(row(budget="128")), "line 2 is not a result: budget is '128' and not a whole number"),
    (json.dumps(row(f1="high")), "line 2 is not a result: f1 is 'high' and not a number"),
    (json.dumps(row(question=7)), "line 2 is not a result: question is 7 and not a text"),
    (json.dumps(row(stages={"select": "fast"})), "line 2 is not a result"),
    (json.dumps(row(error="gone")), "line 2 is not a result"),
    ('{"f1": NaN}', "line 2 is not JSON in UTF-8: NaN is no number"),
])
def test_a_broken_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = folder(tmp_path, [row()])
    with (path / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError, match=r"results\.jsonl") as refused:
        records.load(path)
    assert said in refused.value.message


def test_folders_without_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        records.load(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no results\.jsonl"):
        records.load(tmp_path)
    with pytest.raises(InputError, match="holds 0 results"):
        records.load(folder(tmp_path, []))


def test_broken_json_beside_the_results_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path, [row()])
    (path / "summary.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"summary\.json cannot be read"):
        records.load(path)


def test_questions_are_recorded_and_kept_when_another_data_set_is_added(tmp_path: Path) -> None:
    from eval.datasets import load
    from tests.eval_fakes import dataset_folder

    for name in ("one", "two", "one"):
        data = load(dataset_folder(tmp_path / name))
        write_questions(tmp_path, [(data, data.questions)])
    folder(tmp_path, [row()])
    told = records.load(tmp_path).questions
    assert len(told) == 8
    assert told["one", "q1"] == records.Asked("Who led the Normans?", ("Rollo",), {"d1": "Normans"})


# What is told

def test_the_macro_mean_comes_first_and_what_no_budget_binds_is_told_once(run: records.Run) -> None:
    assert groups.groups(run.summary) == ["macro mean", "alpha", "beta"]
    sheet = tables.results(run.summary, "macro mean")
    assert [(one.system, one.budget) for one in sheet.rows] == [
        ("gold", None), ("topk", 64), ("topk", 128), ("thrift", 64), ("thrift", 128)]
    named = {column.title: cell.text for column, cell in zip(sheet.columns, sheet.rows[0].cells, strict=True)}
    assert (named["n"], named["n F1"]) == ("24", "18")
    figures = next(one for one in run.summary["macro"] if one["system"] == "gold")
    assert named["F1 %"] == f"{figures['f1']:.1f}"


def test_the_page_says_which_part_of_n_the_reader_answered(run: records.Run) -> None:
    assert groups.asked(run.summary) == (24, 18)
    assert "n = 24 questions; the reader scripted answered 18 of them" in groups.about(run.summary)


def test_columns_without_a_figure_are_left_out(tmp_path: Path) -> None:
    told = records.load(small(tmp_path, two_systems(cost_usd=0.0))).summary
    titles = [column.title for column in tables.results(told, "alpha").columns]
    assert "seconds" not in titles
    assert "USD per 1,000" in titles


def test_headline_compares_the_tokens_for_95_percent(run: records.Run) -> None:
    front = {"dataset": "alpha", "x": "context_tokens", "y": "f1", "systems": [
        {"system": name, "bound": True, "area": area, "x_for_95": x,
         "points": [{"budget": 64, "x": 60, "y": 40, "y_ci": [30, 50], "n": 9, "dominated": False}]}
        for name, area, x in (("topk", 40.0, 300.0), ("thrift", 45.0, 120.0))]}
    told = {**run.summary, "macro": [], "frontiers": [front], "differences": []}
    found = headline.headline(told, against="topk")
    assert found is not None
    assert (found.best, found.chosen) == ("thrift", "thrift")
    assert "thrift needs 120 context tokens and topk 300: 40 % of the tokens" in " ".join(found.sentences)
    assert found.figures[0] == ("120", "context tokens for 95 % of the best F1: thrift")


def test_headline_does_not_hide_that_the_baseline_is_best(run: records.Run) -> None:
    front = {"dataset": "alpha", "x": "context_tokens", "y": "f1", "systems": [
        {"system": name, "bound": True, "area": area, "x_for_95": x,
         "points": [{"budget": 64, "x": 60, "y": 40, "y_ci": None, "n": 9, "dominated": False}]}
        for name, area, x in (("topk", 50.0, 100.0), ("thrift", 45.0, None))]}
    found = headline.headline({**run.summary, "macro": [], "frontiers": [front], "differences": []}, against="topk")
    assert found is not None
    assert (found.best, found.chosen) == ("topk", "thrift")
    assert found.sentences[0].startswith("topk has the largest area")
    assert "thrift does not reach 95 % of the best F1" in found.sentences[1]


def test_without_a_reader_the_headline_rests_on_answer_in_context(tmp_path: Path) -> None:
    rows = [unread(system=system, question=f"q{place}", answer_in_context=float(place > 0), budget=budget, context_tokens=budget)
            for system in ("topk", "thrift") for place in range(3) for budget in (64, 128)]
    path = folder(tmp_path, rows, summary=summary(rows, ("topk", "thrift"), (64, 128)))
    found = headline.headline(records.load(path).summary, against="topk")
    assert found is not None
    assert "answer in context" in found.sentences[0]
    page = write_report(path).html.read_text(encoding="utf-8")
    assert "The reader answered no question for both" in page


def test_tokens_are_told_by_part_over_the_questions_that_were_read(tmp_path: Path) -> None:
    rows = [row(context_tokens=100, prompt_tokens=170, completion_tokens=10),
            row(question="q2", context_tokens=50, prompt_tokens=110), unread(question="q3", context_tokens=999)]
    (found,) = spending.tokens(records.load(folder(tmp_path, rows)))
    assert (found.n, dict(found.parts)) == (2, {"context": 75, "rest of the prompt": 65, "completion": 8})


def test_seconds_that_no_stage_accounts_for_are_told_as_other(tmp_path: Path) -> None:
    rows = [row(timed=True, seconds=2.0, stages={"retrieve": 0.5, "generate": 1.0, "total": 2.0}), row(question="q2")]
    (found,) = spending.seconds(records.load(folder(tmp_path, rows)))
    assert (found.n, dict(found.parts)) == (1, {"retrieve": 0.5, "generate": 1.0, "other": 0.5})


def test_the_command_of_a_run_is_the_recorded_one_or_put_together() -> None:
    plan = {"systems": ["topk", "thrift"], "budgets": [64, 128], "limit": None, "sample": 60, "seed": 13, "answerable": True}
    told = {"plan": plan, "datasets": [{"dataset": "two words"}]}
    assert rerun_of(told, {}, "runs/a") == ("thriftrag eval run 'PATH/two words' --systems topk,thrift --budgets 64,128 "
                                            "--sample 60 --seed 13 --answerable --out runs/a")
    assert rerun_of({**told, "plan": {**plan, "command": "thriftrag eval run x"}}, {}, "runs/a") == "thriftrag eval run x"


# Wins and losses

def test_wins_and_losses_are_the_largest_differences_with_data_sets_in_turn(tmp_path: Path) -> None:
    rows = [row(dataset=name, system=system, question=f"q{place}", f1=f1)
            for name in ("alpha", "beta") for place in range(3) for system, f1 in (("thrift", 1.0), ("topk", 0.0))]
    rows += [row(dataset="beta", system=system, question="q9", f1=f1) for system, f1 in (("thrift", 0.25), ("topk", 0.75))]
    found = traces.compare(records.load(folder(tmp_path, rows)), "thrift", against="topk", budget=128, most=3)
    assert [(one.mine.result.dataset, one.mine.result.question) for one in found.wins] == [
        ("alpha", "q0"), ("beta", "q0"), ("alpha", "q1")]
    assert [one.change for one in found.losses] == [-50]
    assert found.counts == (("alpha", 3, 0, 0), ("beta", 3, 1, 0))


def test_a_context_that_is_missing_or_damaged_is_told(tmp_path: Path) -> None:
    path = folder(tmp_path, [row()], contexts={"aa": "kept text", "bb": "x" * 1000})
    assert traces.contexts(path / "contexts.sqlite", ["aa", "cc"]) == {"aa": "kept text"}
    with sqlite3.connect(path / "contexts.sqlite") as store:
        store.execute("UPDATE contexts SET text = substr(text, 1, 8) WHERE key = 'bb'")
    with pytest.raises(InputError, match=r"contexts\.sqlite cannot be read"):
        traces.contexts(path / "contexts.sqlite", ["bb"])
    (path / "contexts.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 30)
    with pytest.raises(InputError, match="Delete it"):
        traces.contexts(path / "contexts.sqlite", ["aa"])


@pytest.mark.parametrize(("text", "answers", "marked"), [
    ("It was Rollo.", ["Rollo"], ["Rollo"]),
    ("Rollos and Trollo", ["Rollo"], []),
    ("on 10 April, 1912 and", ["10 April 1912"], ["10 April, 1912"]),
    ("New York City", ["New York", "New York City"], ["New York City"]),
    ("rollo ROLLO", ["Rollo"], ["rollo", "ROLLO"]),
    ("yes it is", ["yes"], []),
    ("他在北京出生", ["北京"], ["北京"]),
    ("a (b) c", ["..."], []),
    ("x", [], []),
])
def test_accepted_answers_are_marked_as_whole_words(text: str, answers: list[str], marked: list[str]) -> None:
    found = pieces(text, answers)
    assert "".join(piece for piece, _ in found) == text
    assert [piece for piece, accepted in found if accepted] == marked


# Axes and colours

def test_labels_keep_their_distance_and_their_order() -> None:
    wanted = [10.0, 11.0, 12.0, 90.0, 99.0, 100.0]
    found = scales.spread(wanted, gap=10, low=0, high=100)
    assert found == sorted(found)
    assert all(after - before >= 10 - 1e-9 for before, after in pairwise(found))
    assert min(found) >= 0
    assert max(found) <= 100
    assert scales.spread([50.0] * 20, gap=10, low=0, high=100)[-1] == pytest.approx(100)
    assert scales.spread([], gap=10, low=0, high=100) == []


@pytest.mark.parametrize("values", [(57.0, 930.0), (0.00002, 0.4), (3.0, 3.0), (0.9, 1.1), (64.0, 64.0), (1e-7, 1e5)])
def test_a_logarithmic_axis_holds_its_values_and_has_few_ticks(values: tuple[float, float]) -> None:
    axis = scales.log_axis(values, start=0, end=100)
    assert all(0 <= axis.at(value) <= 100 for value in values)
    assert 1 <= len(axis.ticks) <= 8
    assert all(axis.low * 0.999 <= tick <= axis.high * 1.001 for tick, _ in axis.ticks)


@pytest.mark.parametrize("values", [(0.0, 100.0), (33.3, 33.3), (41.2, 43.9), (0.0, 0.0)])
def test_a_linear_axis_has_round_ticks_around_its_values(values: tuple[float, float]) -> None:
    axis = scales.linear_axis(values, start=100, end=0)
    assert axis.low <= min(values)
    assert axis.high >= max(values)
    assert 2 <= len(axis.ticks) <= 8


def test_every_colour_stands_out_from_the_page_in_light_and_dark() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[place:place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def contrast(one: str, other: str) -> float:
        dim, bright = sorted((luminance(one), luminance(other)))
        return (bright + 0.05) / (dim + 0.05)

    names = ["thrift", "topk", "topk_dense", "sentences", "mmr", "knapsack", "adagres", "carrot", "greedy", "llamaindex",
             "haystack", "txtai", *(f"mine {place}" for place in range(21))]
    found = palette.styles(names)
    for style in found.values():
        assert contrast(style.light, palette.PAGE_LIGHT) >= 3
        assert contrast(style.dark, palette.PAGE_DARK) >= 3
    assert len({(style.light, style.marker, style.dash) for style in found.values()}) == len(names)
    assert palette.styles(["thrift"])["thrift"] == palette.styles(["x", "thrift"])["thrift"]


# What is written

def test_the_report_is_remade_from_the_rows_alone(run_folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "results.jsonl").write_bytes((run_folder / "results.jsonl").read_bytes())
    made = remake(bare, wins_for="thrift")
    figures = json.loads((bare / "summary.json").read_text(encoding="utf-8"))
    known = json.loads((run_folder / "summary.json").read_text(encoding="utf-8"))
    assert figures["plan"]["systems"] == ["gold", "thrift", "topk"]
    by = {(one["system"], one["budget"]): one for one in figures["macro"]}
    assert all(by[one["system"], one["budget"]]["f1_ci"] == one["f1_ci"] for one in known["macro"])
    assert made.html.is_file()
    assert made.markdown.is_file()
    assert [path.name for path in made.plots][:3] == [
        "frontier-macro-mean-context-tokens.png", "frontier-macro-mean-cost-usd.png", "frontier-macro-mean-seconds.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made.plots)


def test_markdown_has_each_group_with_its_plots_intervals_and_n(run: records.Run) -> None:
    told = as_markdown(run.summary, plots=["plots/frontier-alpha-seconds.png", "plots/stages.png"])
    places = [told.index(part) for part in ("## macro mean", "## alpha", "![alpha: quality against cost]", "## beta")]
    assert places == sorted(places)
    assert "![stages](plots/stages.png)" in told
    assert "| gold | - | 24 | 18 |" in told
    assert told.count("Points of F1 minus those of topk") == 3


def test_markdown_cells_hold_what_others_wrote_as_text(tmp_path: Path) -> None:
    rows = two_systems(dataset="a|b <img src=x>")
    told = as_markdown(records.load(small(tmp_path, rows)).summary)
    assert "## a\\|b &lt;img src=x>" in told
    # In a block of code nothing is markup.
    assert "<img" not in told.partition("## Made with")[0]


def test_without_matplotlib_the_rest_is_written_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    made = write_report(small(tmp_path, two_systems()))
    assert made.plots == ()
    assert "pip install 'thriftrag[plots]'" in made.missing
    assert "<svg" in made.html.read_text(encoding="utf-8")


def test_systems_and_budgets_that_are_not_there_are_refused(tmp_path: Path) -> None:
    path = small(tmp_path, two_systems())
    with pytest.raises(InputError, match="has no system 'beam'"):
        write_report(path, wins_for="beam")
    with pytest.raises(InputError, match="has no system 'mmr'"):
        write_report(path, wins_for="thrift", against="mmr")
    with pytest.raises(InputError, match="has no budget 64"):
        write_report(path, budget=64)


def test_one_system_without_the_baseline_still_makes_a_report(tmp_path: Path) -> None:
    rows = [row(system="thrift", question=f"q{place}") for place in range(3)]
    made = write_report(folder(tmp_path, rows, summary=summary(rows, ("thrift",), (128,))))
    assert "What each token buys" in made.html.read_text(encoding="utf-8")


def test_only_systems_that_no_budget_binds_still_make_a_report(tmp_path: Path) -> None:
    rows = [row(system="gold", budget=None, question=f"q{place}") for place in range(3)]
    made = write_report(folder(tmp_path, rows, summary=summary(rows, ("gold",), (128,))))
    assert "gold" in made.html.read_text(encoding="utf-8")


def test_a_run_in_which_everything_failed_is_reported(tmp_path: Path) -> None:
    failed = {"error": {"code": "model_unavailable", "message": "The reader <is> gone."}, "answer": None, "verdict": None}
    rows = [one | failed | {"f1": 0.0, "em": 0.0, "answer_in_context": None, "context_tokens": None} for one in two_systems()]
    page = write_report(small(tmp_path, rows)).html.read_text(encoding="utf-8")
    assert "The reader &lt;is&gt; gone." in page
    assert "NaN" not in page


def test_what_others_wrote_stays_text_in_the_page(tmp_path: Path) -> None:
    nasty = "</script><script>alert(1)</script>\u202e\x00\ud800'\"{{ 7*7 }}"
    rows = [one | {"answer": nasty, "question": f"{nasty}{one['question']}", "context": "aa", "type": nasty,
                   "dataset": nasty} for one in two_systems()]
    asked = [{"dataset": nasty, "id": f"{nasty}q{place}", "text": nasty, "answers": ["alert(1)"], "all_answers_needed": False,
              "evidence": [{"id": "d1", "title": nasty}]} for place in range(3)]
    path = small(tmp_path, rows, questions=asked, contexts={"aa": "</div><script>alert(1)</script> by Rollo"})
    page = as_html(records.load(path), asides=Asides("thrift", "topk", 128))
    assert page.count("<script") == 1
    assert "&lt;script&gt;<mark>alert(1</mark>)&lt;/script&gt;" in page
    assert not set(page) & {"\u202e", "\x00", "\ud800"}
    assert "{{ 7*7 }}" in page
