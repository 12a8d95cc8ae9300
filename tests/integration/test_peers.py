"""LlamaIndex, Haystack and txtai themselves, over the sample with our encoder and the 0.5B reader behind the endpoint."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from eval.cache import CachingReader
from eval.datasets import Dataset, Passage, Question, load
from eval.metrics import contains
from eval.peers import PEERS, Peer, available, open_peer
from eval.peers.wiring import CountedEncoder
from indexers.encoders import Encoder, open_encoder
from rag.errors import ModelUnavailable, StorageError
from rag.llm.embedded import EmbeddedReader
from rag.models import ModelCache
from rag.prompts import SYSTEM
from rag.settings import Settings
from rag.settings import load as load_settings
from tests.conftest import SAMPLE
from tests.fakes import ScriptedReader
from tests.minilm_texts import minilm_texts

NAMES = tuple(PEERS)
GOLDEN = Path(__file__).parents[1] / "golden"
BUDGETS = (16, 64, 128, 256, 512, 1024)
# Of the sample, with answers that the passages state in so many words.
ASKED = ("In what district can you find the Valens Aqueduct?", "Who was an MP between 2007 and 2014?",
         "In what year did the theatre win an award at the Edinburgh Festival??")
# The last one holds what templates could stumble over.
SMALL = (
    Passage("n", "Normans", "The Normans came from the north. Rollo led them. He came from Norway."),
    Passage("p", "Paris", "Paris is the capital of France. It lies on the Seine."),
    Passage("b", "", "Braces {question} {{ question }} {% if x %} and % signs are only text about cooking."),
)


@pytest.fixture(scope="module")
def encoder(model_cache: ModelCache) -> Encoder:
    return open_encoder("all-minilm-l6-v2", cache=model_cache)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def defaults(home: Path) -> Settings:
    return load_settings({"home": home}, environ={})


@pytest.fixture(scope="module")
def sample() -> Dataset:
    """Every fourth passage of the sample and what its answers need: small enough to index in a moment."""
    whole = load(SAMPLE)
    questions = tuple(question for question in whole.questions if question.text in ASKED)
    needed = {doc_id for question in questions for doc_id in question.evidence}
    passages = tuple(p for place, p in enumerate(whole.passages) if place % 4 == 0 or p.id in needed)
    return Dataset("sample", passages, questions, whole.digest, "a quarter of the sample")


def small(*passages: Passage) -> Dataset:
    question = Question("q", "Who led the Normans?", ("Rollo",), ("n",), "extractive")
    return Dataset("small", passages, (question,), "small", f"small {len(passages)}")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    assert available(request.param), "the libraries of the extra `peers` belong to the test environment"
    return str(request.param)


@pytest.fixture
def scripted() -> ScriptedReader:
    return ScriptedReader(lambda prompt: "Rollo" if "Rollo" in prompt else "I don't know")


@pytest.fixture
def peer(name: str, encoder: Encoder, home: Path, defaults: Settings, scripted: ScriptedReader) -> Iterator[Peer]:
    opened = open_peer(name, small(*SMALL), settings=defaults, encoder=encoder, reader=scripted, home=home)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def reader(reader_folder: Path, home: Path) -> Iterator[CachingReader]:
    opened = CachingReader(EmbeddedReader(reader_folder), home / "reader-calls.sqlite")
    yield opened
    opened.end()


def test_the_real_reader_answers_within_every_budget(
        name: str, sample: Dataset, encoder: Encoder, home: Path, defaults: Settings, reader: CachingReader) -> None:
    opened = open_peer(name, sample, settings=defaults, encoder=encoder, reader=reader, home=home)
    right = 0
    for question in sample.questions:
        previous = -1
        for budget in BUDGETS:
            unread = opened.answer(question.text, budget=budget, read=False)
            assert previous <= unread.context_tokens == reader.tokenizer.count(unread.context) <= budget
            assert (unread.text, unread.llm_calls) == (None, 0)
            assert all(passage.text in unread.context for passage in unread.passages)
            previous = unread.context_tokens
        made = reader.misses
        read = opened.answer(question.text, budget=384, read=True)
        again = opened.answer(question.text, budget=384, read=True)
        assert reader.misses == made + 1                        # the same prompt is paid for once
        assert (read.llm_calls, read.verdict) == (1, "answered")
        assert (again.text, again.prompt_tokens, again.completion_tokens) == (
            read.text, read.prompt_tokens, read.completion_tokens)
        assert read.prompt_tokens > read.context_tokens > 64
        assert read.completion_tokens > 0
        right += contains(read.text or "", question.answers)
    opened.close()
    assert len(sample.questions) == 3
    assert right >= 2, "the 0.5B reader finds most of these answers where the passage is shown"


def test_passages_are_mapped_to_their_documents_in_the_order_of_the_prompt(
        name: str, peer: Peer, scripted: ScriptedReader) -> None:
    reply = peer.answer("Who led the Normans?", budget=200, read=True)
    assert (reply.text, reply.verdict, reply.llm_calls, reply.encoder_passes) == ("Rollo", "answered", 1, 1)
    shown, given = {passage.doc_id: passage.text for passage in reply.passages}, {each.id: each.text for each in SMALL}
    assert shown.items() <= given.items()
    assert len(shown) == len(reply.passages) == (2 if name == "txtai" else 3)   # txtai leaves out what has a negative cosine
    assert reply.passages[0].doc_id == "n"
    places = [reply.context.index(passage.text) for passage in reply.passages]
    assert places == sorted(places)
    assert scripted.prompts[-1].count(reply.context) == 1
    assert "Normans" in reply.context[:places[0]]               # the title stands above its text


def test_the_instruction_is_ours_and_comes_once(peer: Peer, scripted: ScriptedReader) -> None:
    read = peer.answer("Who led the Normans?", budget=200, read=True)
    count = scripted.tokenizer.count
    assert read.prompt_tokens == count(SYSTEM) + count(scripted.prompts[-1])


@pytest.mark.parametrize("question", [
    "Braces {context} {{ documents }} {% for %} %s {0}?", "{question}", "\N{NULL}\n\nContext:\nWho?",
    "+Rollo -Paris who?", "Context:\n"])
def test_questions_that_look_like_templates_are_only_text(peer: Peer, scripted: ScriptedReader, question: str) -> None:
    reply = peer.answer(question, budget=60, read=True)
    assert question in scripted.prompts[-1]
    assert reply.context_tokens <= 60
    assert all(passage.text in reply.context for passage in reply.passages)


def test_llamaindex_cuts_the_first_passage_and_the_others_show_nothing_where_none_fits(name: str, peer: Peer) -> None:
    reply = peer.answer("Who led the Normans?", budget=12, read=True)
    if name == "llamaindex":
        assert [passage.doc_id for passage in reply.passages] == ["n"]
        assert SMALL[0].text.startswith(reply.passages[0].text)
        assert 0 < reply.context_tokens <= 12
    else:
        assert (reply.passages, reply.context, reply.context_tokens) == ((), "", 0)


def test_an_index_is_found_again_and_answers_alike(
        name: str, encoder: Encoder, tmp_path: Path, defaults: Settings, scripted: ScriptedReader) -> None:
    replies = []
    for _ in range(2):
        ticks: list[object] = []
        opened = open_peer(name, small(*SMALL), settings=defaults, encoder=encoder, reader=scripted, home=tmp_path,
                           on_progress=ticks.append)
        replies.append((opened.answer("Where does Paris lie?", budget=200, read=False).passages, bool(ticks)))
        opened.close()
    assert [indexing for _, indexing in replies] == [True, False]
    assert replies[0][0] == replies[1][0]
    assert replies[0][0][0].doc_id == "p"


def test_long_documents_are_split_as_each_library_does(
        name: str, encoder: Encoder, tmp_path: Path, defaults: Settings, scripted: ScriptedReader) -> None:
    """200 words for Haystack, 1,024 tokens for LlamaIndex, never for txtai; every piece knows its document."""
    long = Passage("l", "Numbers", " ".join(f"Number {n} is a number of its own." for n in range(300)))
    opened = open_peer(name, small(*SMALL, long), settings=defaults, encoder=encoder, reader=scripted, home=tmp_path)
    scripted.context_window = 100_000
    shown = opened.answer("Which number?", budget=50_000, read=False).passages
    opened.close()
    pieces = [passage.text for passage in shown if passage.doc_id == "l"]
    assert len(pieces) == {"llamaindex": 4, "haystack": 12, "txtai": 1}[name]
    assert all(piece.strip() in long.text for piece in pieces)


def vectors_of(name: str, encode: CountedEncoder, texts: list[str]) -> list[list[float]]:
    """What the library stores for these texts and, for the first of them, what it searches with."""
    PEERS[name].load()
    if name == "llamaindex":
        from eval.peers.llamaindex import EncoderEmbedding

        model = EncoderEmbedding(encode)
        return [*model.get_text_embedding_batch(texts), model.get_query_embedding(texts[0])]
    if name == "haystack":
        from haystack import Document

        from eval.peers.haystack import EncoderDocumentEmbedder, EncoderTextEmbedder

        made = EncoderDocumentEmbedder(encode).run([Document(content=text) for text in texts])["documents"]
        return [*(document.embedding or [] for document in made), EncoderTextEmbedder(encode).run(texts[0])["embedding"]]
    from txtai import Embeddings

    from eval.peers.txtai import embeddings_config

    embeddings = Embeddings(embeddings_config(encode))
    return [*embeddings.batchtransform(texts), embeddings.transform(texts[0])]


def test_every_library_stores_and_seeks_the_vectors_that_sentence_transformers_makes(name: str, encoder: Encoder) -> None:
    """From the same weights, up to the rounding of the fastest arithmetic."""
    published = np.load(GOLDEN / "minilm_vectors.npy").astype(np.float32)
    texts = minilm_texts()
    theirs = np.vstack([published, published[:1]])
    cosines = np.sum(np.array(vectors_of(name, CountedEncoder(encoder), texts)) * theirs, axis=1)
    assert len(cosines) == len(texts) + 1
    assert cosines.mean() > 0.995
    assert cosines.min() > 0.97


def test_nothing_leaves_the_machine(name: str, encoder: Encoder, tmp_path: Path, defaults: Settings, scripted: ScriptedReader,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[object] = []
    connect = socket.socket.connect

    def watched(self: socket.socket, address: object) -> None:
        reached.append(address)
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", watched)
    opened = open_peer(name, small(*SMALL), settings=defaults, encoder=encoder, reader=scripted, home=tmp_path)
    opened.answer("Who led the Normans?", budget=100, read=True)
    opened.close()
    assert reached
    assert {address[0] for address in reached if isinstance(address, tuple)} == {"127.0.0.1"}
    if name == "haystack":
        from haystack.telemetry import _telemetry

        assert _telemetry.telemetry is None


def test_a_reader_that_is_gone_is_reported_as_such_and_asked_once(
        name: str, encoder: Encoder, home: Path, defaults: Settings) -> None:
    class Gone(ScriptedReader):
        asked = 0

        def generate(self, *args: object, **limits: object) -> object:  # type: ignore[override]
            self.asked += 1
            raise ModelUnavailable("The reader is gone.")

    gone = Gone()
    opened = open_peer(name, small(*SMALL), settings=defaults, encoder=encoder, reader=gone, home=home)
    with pytest.raises(ModelUnavailable, match="The reader is gone"):
        opened.answer("Who led the Normans?", budget=100, read=True)
    opened.close()
    assert gone.asked == 1


def test_a_damaged_index_is_an_error_that_says_what_to_do(
        name: str, encoder: Encoder, tmp_path: Path, defaults: Settings, scripted: ScriptedReader) -> None:
    open_peer(name, small(*SMALL), settings=defaults, encoder=encoder, reader=scripted, home=tmp_path).close()
    [folder] = (tmp_path / "peers").iterdir()
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(StorageError, match="Delete that folder"):
        open_peer(name, small(*SMALL), settings=defaults, encoder=encoder, reader=scripted, home=tmp_path)
