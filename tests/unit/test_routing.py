"""The router in the pipeline, with scripted readers: who is asked, what is billed, what happens when one fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from optimizers import router
from optimizers.router import NAMES, Expectation, Model
from rag import routing
from rag.errors import ConfigError, CostExceeded, ModelTimeout, ModelUnavailable
from rag.routing import LargerCount, Pair
from rag.settings import Settings, load
from rag.thriftrag import ThriftRAG
from rag.types import Answer
from tests.fakes import ScriptedReader, WordCounter, WordEncoder

QUESTION = "How long does the warranty of the kettle last?"
TEXT = "The warranty of the kettle lasts two years. It covers parts and labour.\n"


def model(gain: float, *, before: float | None = None) -> Model:
    """Every large answer is expected to be that much better than a small one."""
    def chance(value: float) -> Expectation:
        return Expectation({}, math.log(value / (1 - value)))

    early = gain if before is None else before
    after = {name: chance(0.4 + (gain if name.startswith("large after small") else 0.0)) for name in NAMES}
    return Model({**after, "small": chance(0.4), "large": chance(0.4 + early)}, 0.05, 0.4)


@dataclass
class Both:
    kb: ThriftRAG
    large: ScriptedReader
    small: ScriptedReader

    def ask(self, **changes: object) -> Answer:
        return self.kb.ask(QUESTION, budget=64, changes={"router": "cascade", "router_lambda": 0.1, **changes})


@pytest.fixture
def both(settings: Settings, tmp_path: Path) -> Iterator[Both]:
    (tmp_path / "warranty.txt").write_text(TEXT, encoding="utf-8")
    large, small = named("large", "two years, parts and labour"), named("small", "two years")
    with ThriftRAG.open("kb", settings=settings, reader=large, small_reader=small, encoder=WordEncoder()) as kb:
        kb.ingest(tmp_path / "warranty.txt")
        yield Both(kb, large, small)


def named(name: str, answer: Callable[[str], str] | str, *, fails: Exception | None = None, finish: str = "stop") -> ScriptedReader:
    reader = ScriptedReader(answer, fails=fails, finish=finish)
    reader.name = name  # type: ignore[misc]
    return reader


@pytest.fixture
def expect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(gain: float, *, before: float | None = None) -> None:
        monkeypatch.setattr(router, "shipped", lambda: model(gain, before=before))

    return use


def stages(answer: Answer) -> list[str]:
    return [step.stage for step in answer.trace]


def test_without_the_router_the_small_reader_is_never_asked(both: Both) -> None:
    answer = both.kb.ask(QUESTION, budget=64)
    assert (answer.receipt.model, len(both.small.prompts)) == ("large", 0)


def test_an_answer_that_will_do_costs_one_small_call(both: Both, expect: Callable[..., None]) -> None:
    expect(0.05)
    answer = both.ask()
    assert (answer.text, answer.verdict, answer.receipt.model) == ("two years", "answered", "small")
    assert (answer.receipt.llm_calls, len(both.large.prompts)) == (1, 0)
    assert stages(answer) == ["retrieve", "filter", "select", "render", "route", "generate", "route", "check"]
    last = [step.facts for step in answer.trace if step.stage == "route"][-1]
    assert (last["asked"], last["decision"]) == ("after the small reader", "small")
    assert "0.05 better" in str(last["why"])


def test_a_better_answer_is_fetched_and_both_calls_are_on_the_bill(both: Both, expect: Callable[..., None]) -> None:
    expect(0.3)
    answer = both.ask()
    assert (answer.text, answer.receipt.model) == ("two years, parts and labour", "large")
    assert stages(answer) == ["retrieve", "filter", "select", "render", "route", "generate", "route", "generate", "check"]
    receipt = answer.receipt
    assert receipt.llm_calls == 2
    prompt = WordCounter().count(both.small.prompts[0])
    assert both.small.prompts == both.large.prompts
    assert receipt.prompt_tokens == 2 * (prompt + both.small.prompt_tokens([]) + _system_tokens())
    assert receipt.completion_tokens == 2 + 6
    assert set(receipt.seconds) == {*stages(answer), "total"}


def _system_tokens() -> int:
    from rag import prompts

    return WordCounter().count(prompts.SYSTEM)


def test_each_call_is_billed_at_its_readers_prices(settings: Settings, tmp_path: Path, expect: Callable[..., None]) -> None:
    expect(0.3)
    (tmp_path / "warranty.txt").write_text(TEXT, encoding="utf-8")
    priced = {"price_prompt": 10.0, "price_completion": 20.0, "price_small_prompt": 1.0, "price_small_completion": 2.0}
    with ThriftRAG.open("kb", settings=settings, reader=named("large", "nine days"), small_reader=named("small", "two years"),
                        encoder=WordEncoder(), **priced) as kb:
        kb.ingest(tmp_path / "warranty.txt")
        answer = kb.ask(QUESTION, budget=64, changes={"router": "cascade"})
    prompt = answer.receipt.prompt_tokens / 2
    assert answer.receipt.cost_usd == pytest.approx((prompt * 11 + 2 * 22) / 1e6)


def test_auto_goes_straight_to_the_large_reader_where_that_is_cheaper(both: Both, expect: Callable[..., None]) -> None:
    expect(0.05, before=0.5)
    heard: list[str] = []
    answer = both.kb.ask(QUESTION, budget=64, changes={"router": "auto", "router_lambda": 0.1}, on_token=heard.append)
    assert (answer.receipt.model, answer.receipt.llm_calls, len(both.small.prompts)) == ("large", 1, 0)
    assert len(heard) > 1      # as it came


@pytest.mark.parametrize(("gain", "text"), [(0.05, "two years"), (0.3, "two years, parts and labour")])
def test_who_listens_hears_only_the_answer_that_is_given(both: Both, expect: Callable[..., None], gain: float, text: str) -> None:
    expect(gain)
    heard: list[str] = []
    answer = both.kb.ask(QUESTION, budget=64, changes={"router": "cascade", "router_lambda": 0.1}, on_token=heard.append)
    assert "".join(heard) == text == answer.text


@pytest.mark.parametrize("error", [ModelUnavailable("it is down"), ModelTimeout("too slow")])
def test_a_large_reader_that_fails_leaves_the_small_ones_answer(both: Both, expect: Callable[..., None], error: Exception) -> None:
    expect(0.3)
    both.large._fails = error
    answer = both.ask()
    assert (answer.text, answer.verdict, answer.receipt.model) == ("two years", "degraded", "small")
    assert answer.reason is not None
    assert answer.reason.startswith("large_reader_failed")


def test_a_small_reader_that_fails_is_an_error(both: Both, expect: Callable[..., None]) -> None:
    expect(0.3)
    both.small._fails = ModelUnavailable("it is down")
    with pytest.raises(ModelUnavailable):
        both.ask()


@pytest.mark.parametrize("finish", ["deadline", "cancelled"])
def test_a_large_answer_that_is_cut_short_is_not_preferred(both: Both, expect: Callable[..., None], finish: str) -> None:
    expect(0.3)
    both.large._finish = finish
    answer = both.ask()
    assert (answer.text, answer.verdict) == ("two years", "degraded")


def test_without_time_left_the_small_answer_stays(both: Both, expect: Callable[..., None]) -> None:
    expect(0.3)
    over = time.monotonic() + 3600
    asked: list[bool] = []

    def cancelled() -> bool:
        return bool(asked) and over > 0

    both.small._answer = lambda prompt: asked.append(True) or "two years"  # type: ignore[func-returns-value]
    answer = both.kb.ask(QUESTION, budget=64, changes={"router": "cascade"}, cancelled=cancelled)
    assert (answer.text, len(both.large.prompts)) == ("two years", 0)
    assert "no time left" in str([step.facts for step in answer.trace if step.stage == "route"][-1]["why"])


def test_a_second_call_that_the_ceiling_forbids_is_not_made(settings: Settings, tmp_path: Path,
                                                            expect: Callable[..., None]) -> None:
    expect(0.3)
    (tmp_path / "warranty.txt").write_text(TEXT, encoding="utf-8")
    large = named("large", "nine days")
    with ThriftRAG.open("kb", settings=settings, reader=large, small_reader=named("small", "two years"), encoder=WordEncoder(),
                        price_prompt=10.0, price_small_prompt=9.0) as kb:
        kb.ingest(tmp_path / "warranty.txt")
        free = kb.ask(QUESTION, budget=64, changes={"router": "cascade"})
        ceiling = free.receipt.cost_usd * 0.7
        capped = kb.ask(QUESTION, budget=64, max_cost=ceiling, changes={"router": "cascade"})
        with pytest.raises(CostExceeded):
            kb.ask(QUESTION, budget=64, max_cost=1e-6, changes={"router": "cascade"})
    assert free.receipt.model == "large"
    assert (capped.receipt.model, capped.receipt.llm_calls) == ("small", 1)
    assert capped.receipt.cost_usd <= ceiling < free.receipt.cost_usd


def test_what_declined_before_reading_asks_neither(both: Both, expect: Callable[..., None]) -> None:
    expect(0.3)
    answer = both.ask(abstain_below=1.0)
    assert (answer.verdict, answer.receipt.llm_calls) == ("abstained", 0)
    assert not both.small.prompts


def test_a_given_choice_is_read_by_the_large_reader(both: Both) -> None:
    with ThriftRAG.open("kb", settings=both.kb.settings, reader=both.large, small_reader=both.small, encoder=WordEncoder(),
                        router="cascade") as kb:
        assert kb.answer_from(QUESTION, ()).receipt.model == "large"


class Letters(WordCounter):
    name = "letters"

    def count(self, text: str) -> int:
        return len(text)


def test_the_budget_holds_for_both_tokenizers(both: Both, expect: Callable[..., None]) -> None:
    expect(0.3)
    both.small.tokenizer = Letters()
    answer = both.kb.ask(QUESTION, budget=60, changes={"router": "cascade"})
    assert 0 < len(answer.context.text) <= 60
    assert answer.receipt.context_tokens == len(answer.context.text)


def test_the_larger_count_wins_for_each_text() -> None:
    counter = LargerCount(WordCounter(), Letters())
    assert counter.count_many(["a b", ", . , ."]) == [counter.count("a b"), counter.count(", . , .")] == [3, 7]
    assert counter.exact


def test_a_pair_takes_what_holds_for_both() -> None:
    large, small = named("large", "x"), named("small", "y")
    small.context_window = 100  # type: ignore[misc]
    pair = Pair(large, small, model(0.1))
    assert (pair.name, pair.local, pair.context_window) == ("large", True, 100)
    pair.close()
    assert large.closed
    assert small.closed


def test_a_key_is_sent_only_to_its_own_server() -> None:
    apart = load({"reader_url": "http://a.test/v1", "reader_api_key": "k", "reader_small_url": "http://b.test/v1"}, environ={})
    assert routing.small_settings(apart).reader_api_key == ""
    same = load({"reader_url": "http://a.test/v1", "reader_api_key": "k", "reader_small_url": "http://a.test/v1"}, environ={})
    assert routing.small_settings(same).reader_api_key == "k"
    own = load({"reader_small_url": "http://b.test/v1", "reader_small_api_key": "s"}, environ={})
    assert (routing.small_settings(own).reader_api_key, routing.small_settings(own).reader_url) == ("s", "http://b.test/v1")


def test_the_share_comes_from_prices_where_both_have_one() -> None:
    assert routing.share(model(0.1), load({}, environ={})) == 0.4
    assert routing.share(model(0.1), load({"price_prompt": 10, "price_small_prompt": 1}, environ={})) == pytest.approx(0.1)


@pytest.mark.parametrize(("name", "value"), [("router", "always"), ("router_lambda", 3.0)])
def test_impossible_settings_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError):
        load({name: value}, environ={})
