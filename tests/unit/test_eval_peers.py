"""Peers without their libraries: what an answer showed and cost is taken from the wire, and the budget holds there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from eval import peers
from eval.datasets import Dataset, Passage, load
from eval.peers import Peer, available, open_peer, require
from eval.peers.peer import indexed, opened
from eval.peers.wiring import ChatClient, CountedEncoder, Engine, Said, Wiring, longest_fit
from eval.reply import Shown
from rag.errors import BudgetError, BudgetExceeded, InputError, ModelUnavailable, QuestionTooLong, RagError, StorageError
from rag.prompts import SYSTEM
from rag.settings import Settings
from rag.types import Progress
from tests import eval_fakes
from tests.eval_fakes import dataset_folder
from tests.fakes import ScriptedReader, WordCounter, WordEncoder


class WordEngine:
    """Ranks by shared words, packs line by line, and asks as `calls` says: the number of times it sends its prompt."""

    stretch = 0
    calls = 1
    before = "Context: "

    def __init__(self, folder: Path, wiring: Wiring) -> None:
        self._texts: dict[str, str] = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
        self._vectors = wiring.encode(list(self._texts.values()))
        self._wiring = wiring
        self._client = ChatClient(wiring.url, model=wiring.model)
        self.closed = False

    def ask(self, question: str, *, budget: int) -> Said:
        scores = self._vectors @ self._wiring.encode([question])[0]
        ranked = [pair for _, pair in sorted(zip(-scores, self._texts.items(), strict=True))]
        kept = longest_fit(ranked, pack=_lines, counter=self._wiring.counter, budget=budget + self.stretch)
        prompt = f"{self.before}{_lines(kept)}\nQ: {question}"
        text = ""
        for _ in range(self.calls):
            text = self._client.complete([{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}], max_tokens=8)
        return Said(text, tuple(Shown(doc_id, text) for doc_id, text in kept))

    def frame(self, question: str) -> tuple[str, str]:
        return "Context: ", f"\nQ: {question}"

    def close(self) -> None:
        self._client.close()
        self.closed = True


def _lines(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(text for _, text in rows)


class WordLibrary:
    def __init__(self, **changes: object) -> None:
        self.built = 0
        self._engine = type("Changed", (WordEngine,), changes)

    def build(self, passages: Sequence[Passage], folder: Path, *, encode: CountedEncoder) -> None:
        self.built += 1
        texts = {passage.id: f"{passage.title}: {passage.text}" for passage in passages}
        encode(list(texts.values()))
        (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")

    def open_engine(self, folder: Path, wiring: Wiring) -> Engine:
        engine: Engine = self._engine(folder, wiring)
        return engine


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return load(dataset_folder(tmp_path / "data"))


Opener = Callable[..., Peer]


@pytest.fixture
def open_words(tmp_path: Path, dataset: Dataset, settings: Settings) -> Iterator[Opener]:
    left: list[Peer] = []

    def _open(reader: ScriptedReader, *, priced: Settings = settings, **changes: object) -> Peer:
        library, encoder = WordLibrary(**changes), WordEncoder()
        folder = indexed("words", dataset, library, version="1", encoder=encoder, home=tmp_path / "home",
                         on_progress=lambda _: None)
        left.append(opened("words", dataset, library, folder=folder, settings=priced, encoder=encoder, reader=reader))
        return left[-1]

    yield _open
    for peer in left:
        peer.close()


QUESTION = "Who led the Normans?"


def rollo() -> ScriptedReader:
    return ScriptedReader(lambda prompt: "Rollo" if "Rollo" in prompt else "I don't know")


def test_context_tokens_and_money_are_those_of_the_prompt_that_was_sent(open_words: Opener, settings: Settings) -> None:
    reader = rollo()
    peer = open_words(reader, priced=replace(settings, price_prompt=1e6, price_completion=1e6))
    reply = peer.answer(QUESTION, budget=20, read=True)
    assert reply.passages == (Shown("d1", "Normans: The Normans came from the north. Rollo led them. He came from Norway."),)
    assert reply.context == reply.passages[0].text
    assert reply.context_tokens == WordCounter().count(reply.context) == 18
    assert reader.prompts == [f"Context: {reply.context}\nQ: {QUESTION}"]
    assert (reply.text, reply.verdict, reply.reason, reply.citations, reply.naive_tokens) == ("Rollo", "answered", None, None, None)
    whole = WordCounter().count(SYSTEM) + WordCounter().count(reader.prompts[0])
    assert (reply.prompt_tokens, reply.completion_tokens, reply.llm_calls, reply.encoder_passes) == (whole, 1, 1, 1)
    assert reply.cost_usd == pytest.approx(whole + 1)
    assert reply.energy_wh > 0 < reply.water_ml
    assert reply.seconds["total"] == pytest.approx(reply.seconds["retrieve"] + reply.seconds["generate"], abs=2e-6)


def test_without_the_reader_the_context_is_the_same_and_nothing_is_said(open_words: Opener) -> None:
    reader = rollo()
    peer = open_words(reader)
    unread = peer.answer(QUESTION, budget=20, read=False)
    assert reader.prompts == []
    assert (unread.text, unread.verdict, unread.reason, unread.read) == (None, None, None, False)
    assert (unread.llm_calls, unread.completion_tokens, unread.cost_usd) == (0, 0, 0.0)
    read = peer.answer(QUESTION, budget=20, read=True)
    assert (unread.context, unread.context_tokens, unread.passages) == (read.context, read.context_tokens, read.passages)
    assert unread.prompt_tokens == read.prompt_tokens


@pytest.mark.parametrize("budget", [1, 11, 17, 18, 30, 31, 40, 1000])
def test_the_largest_top_k_that_fits_is_shown(open_words: Opener, budget: int) -> None:
    peer = open_words(rollo())
    ranked = peer.answer(QUESTION, budget=1000, read=False).passages
    texts = [passage.text for passage in ranked]
    fitting = [k for k in range(len(texts) + 1) if WordCounter().count("\n".join(texts[:k])) <= budget]
    assert len(texts) == 3
    assert peer.answer(QUESTION, budget=budget, read=False).passages == ranked[:max(fitting)]


def test_a_peer_that_stretches_the_budget_is_an_error_and_not_a_result(open_words: Opener) -> None:
    with pytest.raises(BudgetExceeded, match="18 tokens within a budget of 17"):
        open_words(rollo(), stretch=1).answer(QUESTION, budget=17, read=True)


@pytest.mark.parametrize("changes", [{"calls": 2}, {"before": "Other words: "}])
def test_a_prompt_that_is_not_the_template_with_one_context_is_an_error(open_words: Opener, changes: dict[str, object]) -> None:
    with pytest.raises(RagError, match="not its template with one context"):
        open_words(rollo(), **changes).answer(QUESTION, budget=20, read=True)


@pytest.mark.parametrize(("said", "finish", "expected"), [
    ("I don't know.", "stop", ("I don't know.", "abstained", "reader_declined")),
    ("  ", "stop", ("", "abstained", "empty_answer")),
    ("Rollo Rollo", "repetition", ("Rollo Rollo", "degraded", "repetition")),
    ("Rollo", "deadline", ("Rollo", "degraded", "deadline")),
    ("Rollo", "length", ("Rollo", "answered", None)),
])
def test_verdicts_follow_the_rules_for_our_own_answers(
        open_words: Opener, said: str, finish: str, expected: tuple[str, str, str | None]) -> None:
    reply = open_words(ScriptedReader(said, finish=finish)).answer(QUESTION, budget=20, read=True)
    assert (reply.text, reply.verdict, reply.reason and reply.reason.partition(":")[0]) == expected


def test_a_remembered_call_takes_as_long_as_it_took_when_it_was_made(open_words: Opener) -> None:
    """The reader answers at once and says that the generation had taken two seconds."""
    seconds = open_words(eval_fakes.ScriptedReader()).answer(QUESTION, budget=20, read=True).seconds
    assert seconds["generate"] == 2.0
    assert 2.0 < seconds["total"] == pytest.approx(2.0 + seconds["retrieve"], abs=2e-6)
    assert 0 < seconds["retrieve"] < 2


def test_a_library_that_asks_nobody_has_abstained(open_words: Opener) -> None:
    reply = open_words(rollo(), calls=0).answer(QUESTION, budget=20, read=True)
    assert (reply.text, reply.verdict, reply.context, reply.context_tokens, reply.llm_calls) == ("", "abstained", "", 0, 0)
    assert reply.reason is not None
    assert reply.reason.startswith("nothing_shown")


def test_an_answer_without_any_passage_says_so(open_words: Opener) -> None:
    reply = open_words(ScriptedReader("Rollo")).answer(QUESTION, budget=1, read=True)
    assert (reply.text, reply.passages, reply.context_tokens) == ("Rollo", (), 0)
    assert reply.reason == "closed_book: no document was read"


def test_the_readers_own_error_comes_out_and_not_the_librarys(open_words: Opener) -> None:
    failure = ModelUnavailable("The reader is gone.", hint="Start it.")
    with pytest.raises(ModelUnavailable, match="The reader is gone") as raised:
        open_words(ScriptedReader(fails=failure)).answer(QUESTION, budget=20, read=True)
    assert raised.value is failure


def test_the_context_leaves_room_for_prompt_and_answer_in_the_readers_window(open_words: Opener, settings: Settings) -> None:
    reader = rollo()
    fixed = WordCounter().count(SYSTEM) + WordCounter().count(f"Context: \nQ: {QUESTION}")
    reader.context_window = fixed + settings.reader_max_tokens + 400 + 17
    assert open_words(reader).answer(QUESTION, budget=1000, read=False).context == ""
    reader.context_window += 1
    assert open_words(reader).answer(QUESTION, budget=1000, read=False).context_tokens == 18
    reader.context_window -= 18
    with pytest.raises(QuestionTooLong):
        open_words(reader).answer(QUESTION, budget=1000, read=False)


def test_a_budget_of_nothing_is_refused(open_words: Opener) -> None:
    with pytest.raises(BudgetError, match="budget of 0"):
        open_words(rollo()).answer(QUESTION, budget=0, read=False)


def test_an_index_is_made_once_for_equal_passages_encoder_and_version(tmp_path: Path, dataset: Dataset) -> None:
    library, ticks = WordLibrary(), list[Progress]()

    def made(encoder: WordEncoder, version: str = "1", data: Dataset = dataset) -> Path:
        return indexed("words", data, library, version=version, encoder=encoder, home=tmp_path / "h", on_progress=ticks.append)

    first = made(WordEncoder())
    assert first.is_dir()
    assert first.parent == tmp_path / "h" / "peers"
    assert (ticks[-1].done, ticks[-1].note) == (3, "words on data")
    assert made(WordEncoder()) == first
    assert library.built == 1
    others = {made(WordEncoder("other@2")), made(WordEncoder(), "2"), made(WordEncoder(), data=replace(dataset, corpus_digest="x"))}
    assert len(others | {first}) == 4
    assert sorted((tmp_path / "h" / "peers").iterdir()) == sorted(others | {first})     # nothing is left aside


def test_an_index_that_failed_to_build_is_not_found_again(tmp_path: Path, dataset: Dataset) -> None:
    class Failing(WordLibrary):
        def build(self, passages: Sequence[Passage], folder: Path, *, encode: CountedEncoder) -> None:
            (folder / "half").touch()
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        indexed("words", dataset, Failing(), version="1", encoder=WordEncoder(), home=tmp_path, on_progress=lambda _: None)
    assert list((tmp_path / "peers").iterdir()) == []


def test_a_damaged_index_names_its_folder(tmp_path: Path, dataset: Dataset, settings: Settings) -> None:
    library = WordLibrary()
    folder = indexed("words", dataset, library, version="1", encoder=WordEncoder(), home=tmp_path, on_progress=lambda _: None)
    (folder / "texts.json").write_text("{", encoding="utf-8")
    with pytest.raises(StorageError, match="Delete that folder") as raised:
        opened("words", dataset, library, folder=folder, settings=settings, encoder=WordEncoder(), reader=rollo())
    assert str(folder) in raised.value.message


def test_passages_without_text_are_left_out(tmp_path: Path, dataset: Dataset) -> None:
    blank = replace(dataset, passages=(*dataset.passages, Passage("d4", "Blank", " \n")))
    folder = indexed("words", blank, WordLibrary(), version="1", encoder=WordEncoder(), home=tmp_path, on_progress=lambda _: None)
    assert list(json.loads((folder / "texts.json").read_text())) == ["d1", "d2", "d3"]


def test_an_unknown_peer_and_a_missing_library_are_told_apart(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dataset: Dataset, settings: Settings) -> None:
    with pytest.raises(InputError, match="llamaindex, haystack, txtai") as unknown:
        available("langflow")
    assert unknown.value.code == "system_unknown"
    absent = peers.PeerLibrary("no_such_package.core", "no-such-package", "eval.peers.none")
    monkeypatch.setattr(peers, "PEERS", {"absent": absent})
    assert not available("absent")
    for attempt in (lambda: require("absent"), lambda: open_peer("absent", dataset, settings=settings, encoder=WordEncoder(),
                                                                 reader=rollo(), home=tmp_path)):
        with pytest.raises(InputError, match=r"needs no-such-package.*pip install thriftrag\[peers\]") as missing:
            attempt()
        assert missing.value.code == "peer_missing"


def test_a_package_of_the_same_name_from_elsewhere_is_not_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS", {"json": peers.PeerLibrary("json", "no-such-package", "eval.peers.none")})
    assert not available("json")
