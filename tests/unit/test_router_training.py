"""Learning the router and the configuration agent from logs: pairing, policies by hand, and that a signal is found."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from eval.bench.router import Rate, Spent, compared, rate, spent
from optimizers.router import NAMES, Expectation, Model, of_stored
from optimizers.routing import SAID, SEEN, SURE
from optimizers.training import agent, router, runs
from optimizers.training.agent import PRICE, Asked, best_single, by_neighbours, by_scores, labels, table
from optimizers.training.router import Both, Outcome, calibration, fit, macro, paired, played
from optimizers.training.runs import Line

SMALL, LARGE = "small", "large"


def line(number: int, reader: str, f1: float, *, dataset: str = "one", sure: float = -0.5, configuration: str = "default",
         tokens: int = 100, said: bool = True) -> Line:
    signs = dict.fromkeys(SAID, 0.0) | {"mean_logprob": sure, "least_logprob": 2 * sure} if said else {}
    return Line(dataset=dataset, question=f"q{number}", reader=reader, configuration=configuration, f1=f1, verdict="answered",
                context_tokens=50, prompt_tokens=tokens, completion_tokens=4, reader_s=0.5, seen=dict.fromkeys(SEEN, 0.0),
                said=signs, vector=[float(number % 2), 1.0], context="c", answer="a")


def both(number: int, small: float, large: float, *, dataset: str = "one", sure: float = -0.5) -> Both:
    return Both(line(number, SMALL, small, dataset=dataset, sure=sure), line(number, LARGE, large, dataset=dataset))


def constant(**chances: float) -> Model:
    base = dict.fromkeys(NAMES, 0.5) | {name.replace("_", " "): value for name, value in chances.items()}
    return Model({name: Expectation({}, math.log(base[name.removesuffix(", sure")] / (1 - base[name.removesuffix(", sure")])))
                  for name in NAMES}, 0.1, 0.4)


def test_a_log_is_read_back_and_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    rows = [line(at, SMALL, 0.5) for at in range(3)]
    text = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    log.write_text(text[:-20], encoding="utf-8")
    assert runs.read(log) == rows[:2]
    assert runs.read(tmp_path / "none.jsonl") == []


def test_only_questions_that_both_readers_answered_are_paired() -> None:
    lines = [line(1, SMALL, 0.1), line(1, LARGE, 0.9), line(2, SMALL, 0.2), line(3, SMALL, 0.3, said=False),
             line(3, LARGE, 0.4, said=False), line(1, SMALL, 0.7, configuration="lazy")]
    assert paired(lines, small=SMALL, large=LARGE) == [Both(lines[0], lines[1])]


def test_policies_by_hand() -> None:
    row = both(1, 0.2, 0.8)
    better = constant(small_after_small=0.3, large_after_small=0.6)
    assert played(row, better, cost=0.1, cascade=True) == Outcome(0.8, 1.4, 1, 1)
    assert played(row, better, cost=0.4, cascade=True) == Outcome(0.2, 0.4, 1, 0)
    assert played(row, constant(small=0.1, large=0.9), cost=0.1, cascade=False) == Outcome(0.8, 1.0, 0, 1)


def test_a_reader_that_is_sure_when_it_is_right_is_learnt_to_be_trusted() -> None:
    rows = [both(at, float(at % 2), 0.7, dataset=f"d{at % 3}", sure=-0.1 if at % 2 else -2.0) for at in range(60)]
    model = fit(rows, share=0.4)
    outcomes = [played(row, model, cost=0.1, cascade=True) for row in rows]
    assert [each.large_calls for each in outcomes] == [0 if at % 2 else 1 for at in range(60)]
    assert macro(rows, [each.f1 for each in outcomes]) == pytest.approx((1 + 0.7) / 2)


def test_what_is_written_is_read_back_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    log, weights = tmp_path / "runs.jsonl", tmp_path / "router.json"
    rows = [both(at, float(at % 2), 0.7, dataset=f"d{at % 2}", sure=-0.1 * (1 + at % 4)) for at in range(24)]
    log.write_text("".join(json.dumps(asdict(each)) + "\n" for row in rows for each in (row.small, row.large)), encoding="utf-8")
    monkeypatch.setattr(router, "WEIGHTS", weights)
    assert router.main(["--runs", str(log), "--small", SMALL, "--large", LARGE, "--share", "0.3", "--write"]) == 0
    stored = json.loads(weights.read_text(encoding="utf-8"))
    assert of_stored(stored) == fit(rows, share=0.3)
    assert (stored["fitted_on"], stored["questions"]) == (["d0", "d1"], 24)
    told = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert {"expectation", "policy"} <= {key for row in told for key in row}
    assert next(row for row in told if row.get("policy") == "large")["f1"] == 70.0


def test_a_log_of_one_dataset_cannot_be_judged(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    log.write_text("".join(json.dumps(asdict(each)) + "\n" for each in (line(1, SMALL, 1), line(1, LARGE, 1))), encoding="utf-8")
    with pytest.raises(SystemExit):
        router.main(["--runs", str(log), "--small", SMALL, "--large", LARGE])


def test_each_dataset_counts_the_same() -> None:
    rows = [both(at, 0, 0, dataset="many") for at in range(9)] + [both(9, 0, 0, dataset="one")]
    assert macro(rows, [0.0] * 9 + [1.0]) == 0.5


def test_calibration_by_hand() -> None:
    assert calibration(np.asarray([.05, .05, .95, .95]), np.asarray([0., 0., 1., 0.])) == pytest.approx((2 * .05 + 2 * .45) / 4)


def test_rates_are_found_from_calls() -> None:
    found = rate([(prompt, answer, 0.002 * prompt + 0.05 * answer) for prompt, answer in ((100, 2), (200, 9), (300, 4))])
    assert (found.prompt, found.answer) == (pytest.approx(0.002), pytest.approx(0.05))
    assert rate([(100, 2, 0.1), (200, 9, 0.2), (300, 4, 0.3)]).answer == pytest.approx(0.0, abs=1e-9)


def test_the_bill_of_a_cascade_counts_both_calls() -> None:
    rates = {"small": Rate(0.001, 0.01), "large": Rate(0.003, 0.02)}
    row = both(1, 0.2, 0.8)
    assert spent(row, Outcome(0.8, 1.4, 1, 1), rates) == Spent(80.0, pytest.approx(0.14 + 0.38), pytest.approx(104 / 3 + 104))
    assert spent(row, Outcome(0.2, 0.4, 1, 0), rates).seconds == pytest.approx(0.14)


def test_random_mixing_is_the_line_between_both_readers() -> None:
    """A router that knows nothing lands on it; always-large and always-small are its ends."""
    rates = {"small": Rate(0.001, 0.0), "large": Rate(0.003, 0.0)}
    rows = [both(at, 0.2, 0.8, dataset=f"d{at % 2}") for at in range(8)]
    blind = constant(small_after_small=0.4, large_after_small=0.5)
    told = {row.name: row for row in compared(rows, rates, model=blind, default=0.05, seed=1)}
    assert told["always large: F1"].value == pytest.approx(80)
    assert told["cascade, lambda 0.2: F1 less always large"].value == pytest.approx(-60)
    assert told["cascade, lambda 0.2: F1 less random mixing"].value == pytest.approx(0)
    assert told["cascade, lambda 0.2: seconds"].ratio == pytest.approx(1 / 3)
    assert told["cascade, lambda 0: seconds"].ratio == pytest.approx(4 / 3)
    assert told["better of both: F1"].value == pytest.approx(80)


def asked(n: int = 40) -> Asked:
    """Two configurations of which the first is right on even questions and the second on odd ones, as the input's sign tells."""
    parity = np.arange(n) % 2
    inputs = np.column_stack([1.0 - 2 * parity, np.sin(np.arange(n))])
    f1 = np.column_stack([1.0 - parity, parity.astype(float)])
    return Asked(("default", "lazy"), inputs, f1, np.full((n, 2), 100.0), tuple(f"d{at % 3}" for at in range(n)))


def test_worth_is_f1_less_the_price_of_tokens() -> None:
    some = asked(2)
    assert some.worth[0].tolist() == pytest.approx([1 - PRICE / 10, -PRICE / 10])


def test_equal_configurations_are_labelled_as_the_best_single_one_and_teach_nothing() -> None:
    some = replace(asked(6), f1=np.asarray([[1., 1.], [0., 1.], [0., 1.], [1., 1.], [1., 0.], [0., 0.]]))
    assert best_single(some) == 1
    best, telling = labels(some)
    assert best.tolist() == [1, 1, 1, 1, 0, 1]
    assert telling.tolist() == [False, True, True, False, True, False]


def test_each_way_finds_what_the_input_tells() -> None:
    some = asked()
    train, test = some.among(range(30)), some.among(range(30, 40))
    wanted = [at % 2 for at in range(30, 40)]
    assert by_scores(train, test, seed=0).tolist() == wanted
    assert by_neighbours(train, test, seed=0).tolist() == wanted


def test_the_published_agent_finds_it_too() -> None:
    pytest.importorskip("torch")
    some = asked()
    train, test = some.among(range(30)), some.among(range(30, 40))
    assert agent.published(train, test, seed=0).tolist() == [at % 2 for at in range(30, 40)]
    same = replace(train, f1=np.ones_like(train.f1))
    assert len(agent.published(same, test, seed=0)) == 10       # nothing to learn is no error


def test_questions_that_lack_a_configuration_are_left_out() -> None:
    lines = [line(1, SMALL, 1.0), line(1, SMALL, 0.0, configuration="lazy", tokens=50), line(2, SMALL, 1.0)]
    found = table(lines, reader=SMALL, names=["default", "lazy"])
    assert found.f1.tolist() == [[1.0, 0.0]]
    assert found.tokens.tolist() == [[100.0, 50.0]]
    assert found.inputs.shape == (1, 2 + len(SEEN))
    with pytest.raises(ValueError, match="topk"):
        table(lines, reader=SMALL, names=["default", "topk"])


def test_the_share_of_equal_contexts() -> None:
    lines = [line(at, SMALL, 1.0, configuration=name) for at in range(4) for name in ("lazy", "mcts")]
    lines[0] = replace(lines[0], context="other")
    assert agent.same_contexts(lines, reader=SMALL, one="lazy", other="mcts")["share"] == 0.75


def test_signs_of_sureness_are_the_ones_that_are_logged() -> None:
    assert set(SURE) <= set(line(1, SMALL, 1.0).said)
