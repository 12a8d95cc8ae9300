"""The summary against figures worked out from the rows in the plainest way, and the shapes that others read."""

from __future__ import annotations

import json
from functools import cache
from random import Random
from statistics import fmean
from typing import Any

import pytest

from eval.frontier import ENOUGH
from eval.scoring import NAMES
from eval.statistics import bootstrap_interval, macro_mean, paired_difference
from eval.summary import MACRO, summarise

SYSTEMS = {"closed_book": False, "topk": True, "thrift": True}
BUDGETS = (64, 256)
Row = dict[str, Any]


def row(dataset: str = "alpha", system: str = "topk", budget: int | None = 64, question: str = "q1", **changes: object) -> Row:
    known: Row = {
        "dataset": dataset, "system": system, "budget": budget, "question": question, "type": "span", "unanswerable": False,
        "language": "en", "read": True, "answer": "Rollo", "verdict": "answered", "reason": None, "shown": ["d1"],
        "context": None, "citations": [], "timed": False, "seconds": None, "stages": None, "judge": None, "remembered": False,
        "error": None, **dict.fromkeys(NAMES), "em": 1.0, "f1": 1.0, "answer_in_context": 1.0,
        "context_tokens": 60, "prompt_tokens": 100, "completion_tokens": 4, "cached_tokens": 0, "naive_tokens": 900,
        "llm_calls": 1, "encoder_passes": 2, "cost_usd": 1e-6, "energy_wh": 0.0, "water_ml": 0.0}
    assert set(changes) <= set(known)
    return known | changes


def context_only(**changes: Any) -> Row:
    silent: Row = {"read": False, "answer": None, "verdict": None, "citations": None, "em": None, "f1": None,
                   "prompt_tokens": 0, "completion_tokens": 0, "llm_calls": 0, "cost_usd": 0.0}
    return row(**{**silent, **changes})


def drawn(seed: int = 3, *, datasets: tuple[str, ...] = ("alpha", "beta", "gamma")) -> list[Row]:
    """Every kind of row: read and not, timed and not, unanswerable, declined and failed."""
    rng, rows = Random(seed), []
    for size, dataset in enumerate(datasets, start=1):
        for place in range(10 * size):
            hard, unanswerable = rng.random(), place % 5 == 4
            for system, bound in SYSTEMS.items():
                for budget in (BUDGETS if bound else (None,)):
                    worth = float(rng.random() > hard - (budget or 0) / 1000)
                    common: Row = {"dataset": dataset, "system": system, "budget": budget, "question": f"q{place}",
                                   "type": "none" if unanswerable else rng.choice(["span", "list"]),
                                   "unanswerable": unanswerable, "context_tokens": rng.randint(1, budget or 2),
                                   "answer_in_context": None if unanswerable else worth}
                    if place >= 7 * size:
                        rows.append(context_only(**common))
                        continue
                    timed = place < 3
                    rows.append(row(**common, em=worth, f1=worth or rng.random() / 2, timed=timed,
                                    prompt_tokens=rng.randint(70, 90), seconds=rng.random() if timed else None,
                                    stages={"retrieve": 0.01} if timed else None,
                                    verdict="abstained" if rng.random() < 0.2 else "answered"))
    return rows


@cache
def summed() -> Any:
    """Of all that is drawn: made once, for all tests that read it."""
    return summarise(drawn(), systems=SYSTEMS, budgets=BUDGETS, seed=5)


def told(summary: Any, dataset: str, system: str, budget: int) -> Row:
    return next(one for table in summary["datasets"] if table["dataset"] == dataset for one in table["systems"]
                if (one["system"], one["budget"]) == (system, budget))


def details(summary: Any, dataset: str, system: str, budget: int) -> Row:
    return next(one for one in summary["details"] if (one["dataset"], one["system"], one["budget"]) == (dataset, system, budget))


def of(rows: list[Row], dataset: str, system: str, budget: int | None) -> list[Row]:
    """In the order of question ids, as draws are made."""
    found = [one for one in rows if (one["dataset"], one["system"], one["budget"]) == (dataset, system, budget)]
    return sorted(found, key=lambda one: str(one["question"]))


def values(rows: list[Row], name: str) -> list[float]:
    return [one[name] for one in rows if one[name] is not None]


def test_figures_are_means_over_the_rows_that_have_them_with_intervals() -> None:
    rows, found = drawn(), summed()
    for dataset in ("alpha", "beta", "gamma"):
        mine = of(rows, dataset, "thrift", 256)
        one, more = told(found, dataset, "thrift", 256), details(found, dataset, "thrift", 256)
        assert list(one) == ["system", "budget", "n", "em", "f1", "f1_ci", "answer_in_context", "evidence_recall",
                             "context_tokens", "prompt_tokens", "cost_usd", "seconds"]
        assert (one["n"], more["n_f1"], more["read"]) == (len(mine), len(values(mine, "f1")), sum(r["read"] for r in mine))
        assert one["f1"] == pytest.approx(100 * fmean(values(mine, "f1")), rel=1e-6)
        interval = bootstrap_interval(values(mine, "f1"), seed=5)
        assert interval is not None
        assert one["f1_ci"] == pytest.approx([100 * bound for bound in interval], rel=1e-6)
        assert one["answer_in_context"] == pytest.approx(fmean(values(mine, "answer_in_context")), rel=1e-6)
        assert more["answer_in_context_ci"] == pytest.approx(
            bootstrap_interval(values(mine, "answer_in_context"), seed=5), rel=1e-6)
        assert one["context_tokens"] == pytest.approx(fmean(values(mine, "context_tokens")), rel=1e-6)
        assert one["seconds"] == pytest.approx(fmean(values(mine, "seconds")), rel=1e-6)
        assert (more["n_seconds"], more["stages"], one["evidence_recall"]) == (3, {"retrieve": 0.01}, None)


def test_what_was_not_read_costs_no_prompt() -> None:
    rows = [row(prompt_tokens=80, cost_usd=2e-7), context_only(question="q2", context_tokens=40)]
    one = told(summarise(rows, systems=SYSTEMS, budgets=(64,), seed=1), "alpha", "topk", 64)
    assert (one["n"], one["prompt_tokens"], one["cost_usd"], one["context_tokens"]) == (2, 80, 2e-7, 50)


def test_only_timed_questions_tell_seconds() -> None:
    rows = [row(timed=True, seconds=2.0, stages={"retrieve": 0.5, "generate": 1.5}),
            row(question="q2", timed=True, seconds=1.0, stages={"retrieve": 0.5}), row(question="q3", seconds=9.0)]
    found = summarise(rows, systems=SYSTEMS, budgets=(64,), seed=1)
    assert told(found, "alpha", "topk", 64)["seconds"] == 1.5
    assert details(found, "alpha", "topk", 64)["stages"] == {"retrieve": 0.5, "generate": 0.75}


def test_rows_may_come_in_any_order() -> None:
    rows = drawn()
    mixed = rows[:]
    Random(1).shuffle(mixed)
    # Data sets are told in the order of their first rows: kept here, because that order is the caller's to choose.
    mixed.sort(key=lambda one: one["dataset"])
    assert json.dumps(summarise(mixed, systems=SYSTEMS, budgets=BUDGETS, seed=5)) == json.dumps(summed())


def test_systems_that_no_budget_binds_are_told_under_each_with_equal_figures() -> None:
    found = summed()
    one, other = (told(found, "beta", "closed_book", budget) for budget in BUDGETS)
    assert {**one, "budget": 0} == {**other, "budget": 0}
    assert details(found, "beta", "closed_book", 64)["bound"] is False


def test_macro_mean_is_the_mean_of_the_data_sets_means() -> None:
    rows, found = drawn(), summed()
    one = next(one for one in found["macro"] if (one["system"], one["budget"]) == ("topk", 256))
    parts = [of(rows, name, "topk", 256) for name in ("alpha", "beta", "gamma")]
    assert (one["datasets"], one["n"], one["failed"]) == (3, 60, 0)
    for name, times in (("f1", 100), ("answer_in_context", 1), ("context_tokens", 1), ("seconds", 1)):
        expected = macro_mean([values(part, name) for part in parts], seed=5)
        assert expected is not None
        assert one[name] == pytest.approx(times * fmean(fmean(values(part, name)) for part in parts), rel=1e-6)
        assert one[f"{name}_ci"] == pytest.approx([times * bound for bound in expected[1]], rel=1e-6)


def test_one_data_set_has_no_macro_mean() -> None:
    found: Any = summarise(drawn(datasets=("alpha",)), systems=SYSTEMS, budgets=BUDGETS, seed=5)
    assert found["macro"] == []
    assert MACRO not in {one["dataset"] for part in ("differences", "frontiers") for one in found[part]}


def test_differences_are_paired_by_question_against_rank_order() -> None:
    rows = [one for one in drawn() if (one["dataset"], one["system"], one["question"]) != ("beta", "topk", "q3")]
    found: Any = summarise(rows, systems=SYSTEMS, budgets=BUDGETS, seed=5)
    one = next(one for one in found["differences"] if (one["dataset"], one["budget"]) == ("beta", 64))
    assert (one["system"], one["against"]) == ("thrift", "topk")
    pairs: dict[str, list[list[float]]] = {}
    for name in ("alpha", "beta", "gamma"):
        theirs = {other["question"]: other["f1"] for other in of(rows, name, "topk", 64)}
        both = [(mine["f1"], theirs[mine["question"]]) for mine in of(rows, name, "thrift", 64)
                if mine["f1"] is not None and theirs.get(mine["question"]) is not None]
        pairs[name] = [list(column) for column in zip(*both, strict=True)]
    expected = paired_difference(*pairs["beta"], seed=5)
    assert expected is not None
    assert one["n"] == len(pairs["beta"][0]) == 13
    assert one["f1"] == pytest.approx(100 * expected[0], rel=1e-6)
    assert one["f1_ci"] == pytest.approx([100 * bound for bound in expected[1]], rel=1e-6)
    macro = next(one for one in found["differences"] if (one["dataset"], one["budget"]) == (MACRO, 64))
    pooled = macro_mean([[a - b for a, b in zip(*pairs[name], strict=True)] for name in sorted(pairs)], seed=5)
    assert pooled is not None
    assert macro["n"] == sum(len(columns[0]) for columns in pairs.values())
    assert macro["f1"] == pytest.approx(100 * pooled[0], rel=1e-6)
    assert macro["f1_ci"] == pytest.approx([100 * bound for bound in pooled[1]], rel=1e-6)
    assert macro["answer_in_context"] is not None


def test_frontiers_have_the_figures_of_the_systems() -> None:
    found = summed()
    for name in ("alpha", "beta", "gamma", MACRO):
        one = next(one for one in found["frontiers"] if (one["dataset"], one["x"], one["y"]) == (name, "context_tokens", "f1"))
        assert [(curve["system"], curve["bound"], len(curve["points"])) for curve in one["systems"]] == [
            ("closed_book", False, 1), ("topk", True, 2), ("thrift", True, 2)]
        rows = found["macro"] if name == MACRO else next(t for t in found["datasets"] if t["dataset"] == name)["systems"]
        figures = {(figure["system"], figure["budget"]): figure for figure in rows}
        best = max(figures[system, budget]["f1"] for system in ("topk", "thrift") for budget in BUDGETS)
        for curve in one["systems"][1:]:
            for point in curve["points"]:
                figure = figures[curve["system"], point["budget"]]
                assert (point["x"], point["y"], point["y_ci"]) == (figure["context_tokens"], figure["f1"], figure["f1_ci"])
            assert (curve["x_for_95"] is None) == (max(point["y"] for point in curve["points"]) < ENOUGH * best)
        assert one["systems"][0]["points"][0]["budget"] is None


def test_what_costs_nothing_has_no_frontier_and_an_incomplete_macro_mean_no_point() -> None:
    rows = [{**one, "cost_usd": 0.0} for one in drawn() if (one["dataset"], one["system"], one["budget"]) != ("beta", "thrift", 64)]
    found: Any = summarise(rows, systems=SYSTEMS, budgets=BUDGETS, seed=5)
    assert {one["x"] for one in found["frontiers"]} == {"context_tokens", "prompt_tokens", "seconds"}
    assert ("thrift", 64) not in {(one["system"], one["budget"]) for one in found["macro"]}
    assert ("thrift", 64) not in {(one["system"], one["budget"]) for one in found["differences"] if one["dataset"] == MACRO}
    assert {one["datasets"] for one in found["macro"]} == {3}
    macro = next(one for one in found["frontiers"] if one["dataset"] == MACRO)
    assert [point["budget"] for point in macro["systems"][2]["points"]] == [256]


def test_types_are_told_apart() -> None:
    rows, found = drawn(), summed()
    place = {"dataset": "gamma", "type": "list", "system": "topk", "budget": 64}
    one = next(one for one in found["types"] if place.items() <= one.items())
    mine = [r for r in of(rows, "gamma", "topk", 64) if r["type"] == "list"]
    assert list(one) == ["dataset", "type", "system", "budget", "n", "f1", "f1_ci", "answer_in_context"]
    assert (one["n"], one["f1"]) == (len(mine), pytest.approx(100 * fmean(values(mine, "f1")), rel=1e-6))
    assert {one["type"] for one in found["types"]} == {"span", "list", "none"}


def test_declining_is_told_by_precision_and_recall() -> None:
    abstained: Row = {"verdict": "abstained", "em": 0.0, "f1": 0.0}
    rows = [row(question="q1", unanswerable=True, **{**abstained, "em": 1.0, "f1": 1.0}), row(question="q2", **abstained),
            row(question="q3", unanswerable=True, em=0.0, f1=0.0), row(question="q4"),
            row(question="q5", unanswerable=True, verdict=None, answer=None, em=0.0, f1=0.0, error={"code": "x", "message": "y"}),
            context_only(question="q6", unanswerable=True)]
    one = details(summarise(rows, systems=SYSTEMS, budgets=(64,), seed=1), "alpha", "topk", 64)
    assert (one["abstained"], one["abstained_rightly"], one["unanswerable"], one["failed"], one["read"]) == (2, 1, 3, 1, 5)
    assert (one["abstention_precision"], one["abstention_recall"]) == (0.5, pytest.approx(1 / 3, rel=1e-6))
    never = details(summarise([row()], systems=SYSTEMS, budgets=(64,), seed=1), "alpha", "topk", 64)
    assert (never["abstention_precision"], never["abstention_recall"]) == (None, None)


def test_how_many_answers_cite_anything() -> None:
    rows = [row(question="q1", citations=[{"chunk_id": "c", "doc_id": "d", "start": 0, "end": 1, "quote": "x"}]),
            row(question="q2"), row(question="q3", verdict="abstained"), row(question="q4", citations=None)]
    assert details(summarise(rows, systems=SYSTEMS, budgets=(64,), seed=1), "alpha", "topk", 64)["cited"] == 0.5


def test_failures_count_as_wrong_and_have_no_tokens() -> None:
    failed = row(question="q2", verdict=None, answer=None, em=0.0, f1=0.0, context_tokens=None, prompt_tokens=None, cost_usd=None,
                 answer_in_context=None, error={"code": "model_unavailable", "message": "gone"})
    one = told(summarise([row(), failed], systems=SYSTEMS, budgets=(64,), seed=1), "alpha", "topk", 64)
    assert (one["n"], one["f1"], one["em"], one["answer_in_context"], one["prompt_tokens"]) == (2, 50, 50, 1, 100)


def test_agreement_is_told_where_a_judge_graded() -> None:
    assert "agreement" not in summed()
    rows = [row(judge=1.0), row(question="q2", judge=0.0, em=0.0, f1=0.0)]
    found: Any = summarise(rows, systems=SYSTEMS, budgets=(64,), seed=1)
    assert found["agreement"][0]["kappa_em"] == 1
    assert details(found, "alpha", "topk", 64)["judge"] == 0.5


def test_rows_of_other_systems_and_budgets_are_left_out() -> None:
    more = [row("delta", "mmr"), row("alpha", "topk", 999), row("alpha", "mmr", judge=1.0)]
    assert summarise([*more, *drawn()], systems=SYSTEMS, budgets=BUDGETS, seed=5) == summed()


def test_nothing_at_all_is_no_summary_but_no_error_either() -> None:
    found = summarise([], systems=SYSTEMS, budgets=BUDGETS, seed=1)
    assert all(found[part] == [] for part in ("datasets", "details", "macro", "differences", "frontiers", "types"))


def test_never_nan() -> None:
    rows = [context_only(answer_in_context=None, context_tokens=0), context_only(dataset="beta", answer_in_context=None)]
    json.dumps(summarise(rows, systems=SYSTEMS, budgets=BUDGETS, seed=1), allow_nan=False)
    json.dumps(summed(), allow_nan=False)
