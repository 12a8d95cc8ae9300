"""The circuit breaker with a clock by hand, and the reader that stands in for one that is down."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from indexers import lexical
from rag.errors import ModelRefused, ModelTimeout, ModelUnavailable, UpstreamError
from rag.extractive import quoted
from rag.llm import Message
from rag.llm.absent import AbsentReader
from rag.llm.breaker import LONGEST_REST_S, PATIENCE_S, Breaker
from rag.llm.server_errors import Asked, from_status
from rag.tokens import ByteEstimate, ServerTokenizer
from rag.types import Context, Passage
from tests.fakes import ScriptedReader, make_chunk

ASKED = Asked("http://127.0.0.1:1/v1", "m", "", [])


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def broken(clock: Clock, *, failures: int = 3, rest_s: float = 15.0) -> Breaker:
    breaker = Breaker("The server", failures=failures, rest_s=rest_s, clock=clock)
    for _ in range(failures):
        fails(breaker)
    return breaker


def fails(breaker: Breaker, error: UpstreamError | None = None) -> None:
    with pytest.raises(UpstreamError), breaker.call():
        raise error or ModelUnavailable("It is down.")


def refused(breaker: Breaker) -> ModelUnavailable:
    with pytest.raises(ModelUnavailable, match="was not asked") as caught, breaker.call():
        pytest.fail("it was asked")
    return caught.value


def test_it_opens_after_failures_in_a_row_and_says_when_to_come_again(clock: Clock) -> None:
    breaker = Breaker("The server", failures=3, rest_s=15.0, clock=clock)
    for _ in range(2):
        fails(breaker)
        fails(breaker)
        with breaker.call():
            """It works: the count begins anew."""
    assert breaker.state == "closed"
    breaker = broken(clock)
    assert breaker.state == "open"
    clock.now += 5
    error = refused(breaker)
    assert error.retry_after_s == pytest.approx(10)
    assert "It is down." in error.message
    with pytest.raises(ModelUnavailable):
        breaker.check()


def test_one_probe_at_a_time_decides_what_comes_next(clock: Clock) -> None:
    breaker = broken(clock)
    clock.now += 15
    assert breaker.state == "half_open"
    breaker.check()                                 # small requests are free to ask
    with breaker.call():
        assert refused(breaker).retry_after_s == pytest.approx(1)
    assert breaker.state == "closed"
    breaker = broken(clock)
    clock.now += 15
    fails(breaker)
    assert breaker.state == "open"
    clock.now += 14.9
    refused(breaker)


def test_a_probe_that_was_called_off_leaves_it_half_open(clock: Clock) -> None:
    breaker = broken(clock)
    clock.now += 15
    with breaker.call() as outcome:
        outcome.conclusive = False
    assert breaker.state == "half_open"
    with pytest.raises(ZeroDivisionError), breaker.call():
        raise ZeroDivisionError                     # a defect of ours gives the probe back too
    with breaker.call():
        """Another may try."""
    assert breaker.state == "closed"


def test_what_the_caller_did_does_not_count(clock: Clock) -> None:
    breaker = Breaker("The server", failures=1, rest_s=15.0, clock=clock)
    fails(breaker, ModelRefused("The prompt does not fit."))
    fails(breaker, from_status(ASKED, status=404, said="", retry_after=None).error)  # type: ignore[arg-type]
    fails(breaker, ModelTimeout("The deadline was short."))
    assert breaker.state == "closed"

    def silent() -> None:
        with breaker.call():
            clock.now += PATIENCE_S
            raise ModelTimeout("It was silent.")

    with pytest.raises(ModelTimeout):
        silent()
    assert breaker.state == "open"


@pytest.mark.parametrize(("status", "counts"), [(400, False), (401, False), (422, False), (429, True), (500, True), (503, True)])
def test_which_statuses_are_failures_of_the_server(clock: Clock, status: int, counts: bool) -> None:
    breaker = Breaker("The server", failures=1, rest_s=15.0, clock=clock)
    error = from_status(ASKED, status=status, said="", retry_after=None).error
    assert isinstance(error, UpstreamError)
    fails(breaker, error)
    assert (breaker.state == "open") is counts


def test_the_servers_own_rest_is_kept_within_reason(clock: Clock) -> None:
    for asked, rests in ((60.0, 60.0), (1.0, 15.0), (1e9, LONGEST_REST_S)):
        breaker = Breaker("The server", failures=1, rest_s=15.0, clock=clock)
        error = ModelUnavailable("Busy.")
        error.retry_after_s = asked
        fails(breaker, error)
        assert refused(breaker).retry_after_s == pytest.approx(rests)


def test_none_is_none(clock: Clock) -> None:
    breaker = Breaker("The server", failures=0, rest_s=15.0, clock=clock)
    for _ in range(50):
        fails(breaker)
    assert breaker.state == "closed"


@pytest.mark.parametrize(("header", "seconds"), [
    ("7", 7.0), ("Wed, 01 Jan 2020 00:00:30 GMT", 30.0), ("Wed, 01 Jan 2019 00:00:00 GMT", 0.0), ("soon", None), ("nan", None),
    (None, None)])
def test_retry_after_in_either_form(header: str | None, seconds: float | None) -> None:
    failure = from_status(ASKED, status=503, said="", retry_after=header, now=datetime(2020, 1, 1, tzinfo=UTC))
    assert failure.wait_s == seconds
    assert isinstance(failure.error, UpstreamError)
    assert failure.error.retry_after_s == seconds


def test_a_stand_in_counts_without_asking_and_says_why_it_is_silent() -> None:
    reader = ScriptedReader()
    reader.tokenizer = ServerTokenizer("http://127.0.0.1:1/v1", model="m", estimate=ByteEstimate)  # type: ignore[assignment]
    absent = AbsentReader(reader, ModelUnavailable("It is down."))
    assert absent.tokenizer.count("abcdef") == 2
    assert absent.tokenizer.count_many(["abc", ""]) == [1, 0]
    assert not absent.tokenizer.exact
    assert absent.prompt_tokens([Message("user", "abcdef")]) == 2 + 4 + 3
    with pytest.raises(ModelUnavailable, match="It is down"):
        absent.generate([Message("user", "x")], max_tokens=4)


def test_quotations_are_the_sentences_that_share_most_with_the_question() -> None:
    chunk = make_chunk("Otters swim. The pump has a warranty. It is long. The pump is red. Pumps rust. "
                       "Warranty of the pump: 2 years.")
    context = Context(text="x", tokens=9, passages=(Passage(n=1, chunk=chunk, sentences=tuple(range(len(chunk.sentences)))),))
    found = quoted(context, weights=dict(zip(lexical.words("pump warranty"), (1.0, 2.0), strict=True)))
    assert found.text.startswith("The pump has a warranty. [1] … The pump is red. [1]")
    assert found.text.endswith("Warranty of the pump: 2 years. [1]")
    assert [citation.quote for citation in found.citations] == [
        "The pump has a warranty.", "The pump is red.", "Warranty of the pump: 2 years."]
    assert quoted(Context(text="", tokens=0, passages=()), weights={}).text == ""
