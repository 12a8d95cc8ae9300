"""What is passed on, when it stops, and why: with events played from a list and no waiting."""

from __future__ import annotations

import time

import pytest

from rag.errors import ModelTimeout, ModelUnavailable
from rag.llm.stream import Event, Followed, TextDecoder, Transcript, follow
from rag.tokens import FileTokenizer
from tests.tiny_reader import END, START, write_tiny_folder


def play(*events: Event, stop: tuple[str, ...] = (), pieces: list[str] | None = None) -> Followed:
    waiting = list(events)
    return follow(lambda _: waiting.pop(0), name="model", stop=stop, on_token=None if pieces is None else pieces.append,
                  deadline=None, cancelled=None, stall_s=5.0)


def test_the_pieces_joined_are_the_text() -> None:
    pieces: list[str] = []
    followed = play(Event("The"), Event(" end"), Event(done="stop"), pieces=pieces)
    assert (followed.text, followed.finish, followed.pieces) == ("The end", "stop", 2)
    assert pieces == ["The", " end"]


def test_an_error_is_raised_after_what_came_was_passed_on() -> None:
    pieces: list[str] = []
    with pytest.raises(ModelUnavailable):
        play(Event("The"), Event(error=ModelUnavailable("gone")), pieces=pieces)
    assert pieces == ["The"]


@pytest.mark.parametrize(("stop", "arrivals", "text"), [
    (("END",), ["a E", "N", "D b"], "a "),
    (("END",), ["a E", "N", "X b"], "a ENX b"),                 # held back, then given out
    (("END",), ["a EN"], "a EN"),                               # held back to the last
    (("\n\n", "Q:"), ["a\n", "Q", ":b"], "a\n"),                # the first one that comes counts
    (("aab",), ["aa", "ab"], "a"),                              # begins inside what was held back
    (("x", ""), ["abc"], "abc"),                                # an empty stop string stops nothing
])
def test_stop_strings(stop: tuple[str, ...], arrivals: list[str], text: str) -> None:
    pieces: list[str] = []
    followed = play(*[Event(arrival) for arrival in arrivals], Event(done="length"), stop=stop, pieces=pieces)
    assert followed.text == "".join(pieces) == text
    assert followed.finish == ("length" if text == "".join(arrivals) else "stop")


def test_a_transcript_never_passes_on_the_beginning_of_a_stop_string() -> None:
    passed: list[str] = []
    transcript = Transcript(stop=["</answer>"], on_token=passed.append)
    for character in "42</answe":
        assert not transcript.add(character)
    assert "".join(passed) == "42"
    assert transcript.add("r>")
    assert transcript.text == "42"


def test_a_loop_of_tokens_without_text_is_stopped() -> None:
    followed = play(*[Event("", tokens=(9,))] * 100)
    assert (followed.finish, followed.text) == ("repetition", "")


def test_a_passed_deadline_is_a_timeout_or_a_partial_answer() -> None:
    with pytest.raises(ModelTimeout):
        follow(lambda _: Event("late"), name="model", stop=(), on_token=None, deadline=time.monotonic() - 1, cancelled=None,
               stall_s=5.0)
    events = [Event("some")]
    followed = follow(lambda _: events.pop() if events else None, name="model", stop=(), on_token=None,
                      deadline=time.monotonic() + 0.05, cancelled=lambda: False, stall_s=5.0)
    assert (followed.text, followed.finish) == ("some", "deadline")


def test_signs_of_life_are_no_first_token() -> None:
    assert play(Event(), Event(), Event(done="stop")).first_token_s is None


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FileTokenizer:
    return FileTokenizer(write_tiny_folder(tmp_path_factory.mktemp("tiny")) / "tokenizer.json")


@pytest.mark.parametrize("text", ["the cat", "Straße", "你好，世界", "🙂👩‍👩‍👧‍👦", "مرحبا", "a\n\n b\t", "\ufffd", ""])
def test_decoding_token_by_token_gives_whole_characters_and_the_same_text(tokenizer: FileTokenizer, text: str) -> None:
    decoder = TextDecoder(tokenizer)
    pieces = [decoder.add([number]) for number in tokenizer.encode(text)]
    assert "".join([*pieces, decoder.flush()]) == tokenizer.decode(tokenizer.encode(text)) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_control_tokens_have_no_text_and_a_broken_character_comes_out_at_the_end(tokenizer: FileTokenizer) -> None:
    decoder = TextDecoder(tokenizer)
    half = tokenizer.encode("🙂")[:2]
    assert decoder.add([START, *tokenizer.encode("a"), END, *half]) == "a"
    assert decoder.flush() == "\ufffd"
