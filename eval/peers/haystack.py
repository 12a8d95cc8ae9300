"""Haystack as its first tutorial shows it: an in-memory document store, embedding retrieval, a prompt and a chat generator.

    splitter    DocumentSplitter with its defaults: 200 words, no overlap
    store       InMemoryDocumentStore, saved as JSON; dot product, which for unit vectors is cosine
    titles      as metadata: embedded with the text (`meta_fields_to_embed`, as its embedders offer it) and shown above it
    template    that of its tutorial on retrieval-augmented question answering, with the title; our instruction as system message

It sends all that was retrieved and has no step that fits documents into a number of tokens: `top_k` is its one control. A
component between retriever and prompt, its place for choosing among documents, keeps the largest top k whose rendered text
has at most the budget's tokens. It has no truncation either: where not even the first document fits, the context is empty,
and the reader is asked without any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from haystack import Document, Pipeline, component
from haystack.components.builders import ChatPromptBuilder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.components.preprocessors import DocumentSplitter
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret

from eval.datasets import Passage
from eval.peers.wiring import TOP_K, CountedEncoder, Said, Wiring, longest_fit
from eval.reply import Shown
from rag.prompts import SYSTEM

_STORE = "documents.json"
_HEAD = "Given the following information, answer the question.\n\nContext:\n"
_TEMPLATE = _HEAD + """\
{% for document in documents %}
    {% if document.meta.title %}{{ document.meta.title }}
    {% endif %}{{ document.content }}
{% endfor %}

Question: {{ question }}
Answer:
"""
_GIVE_UP_S = 86_400.0           # the endpoint sets the deadline


@component
class EncoderDocumentEmbedder:
    """Our encoder as a Haystack document embedder: title and text, joined by a newline."""

    def __init__(self, encode: CountedEncoder) -> None:
        self._encode = encode

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        texts = ["\n".join(part for part in (document.meta.get("title"), document.content) if part) for document in documents]
        vectors = self._encode(texts).tolist()
        return {"documents": [replace(document, embedding=vector) for document, vector in zip(documents, vectors, strict=True)]}


@component
class EncoderTextEmbedder:
    """Our encoder as a Haystack text embedder."""

    def __init__(self, encode: CountedEncoder) -> None:
        self._encode = encode

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        return {"embedding": self._encode([text])[0].tolist()}


@component
class WithinBudget:
    """Keeps the documents, in their order, that render into `budget` tokens."""

    def __init__(self, wiring: Wiring, builder: ChatPromptBuilder) -> None:
        self._wiring = wiring
        self._builder = builder

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document], question: str, budget: int) -> dict[str, list[Document]]:
        before, after = frame(self._builder, question)
        kept = longest_fit(documents, counter=self._wiring.counter, budget=budget, pack=lambda chosen: rendered(
            self._builder, question, chosen).removeprefix(before).removesuffix(after))
        return {"documents": list(kept)}


class HaystackEngine:
    def __init__(self, folder: Path, wiring: Wiring) -> None:
        store = InMemoryDocumentStore.load_from_disk(str(folder / _STORE))
        self._builder = ChatPromptBuilder(template=[ChatMessage.from_system(SYSTEM), ChatMessage.from_user(_TEMPLATE)])
        generator = OpenAIChatGenerator(
            api_key=Secret.from_token("none"), api_base_url=wiring.url, model=wiring.model, max_retries=0, timeout=_GIVE_UP_S,
            generation_kwargs={"max_tokens": wiring.max_tokens, "temperature": 0}, http_client_kwargs={"trust_env": False})
        self._pipeline = Pipeline()
        self._pipeline.add_component("embedder", EncoderTextEmbedder(wiring.encode))
        self._pipeline.add_component("retriever", InMemoryEmbeddingRetriever(document_store=store, top_k=TOP_K))
        self._pipeline.add_component("within_budget", WithinBudget(
            wiring, ChatPromptBuilder(template=[ChatMessage.from_user(_TEMPLATE)])))
        self._pipeline.add_component("prompt", self._builder)
        self._pipeline.add_component("generator", generator)
        self._pipeline.connect("embedder.embedding", "retriever.query_embedding")
        self._pipeline.connect("retriever.documents", "within_budget.documents")
        self._pipeline.connect("within_budget.documents", "prompt.documents")
        self._pipeline.connect("prompt.prompt", "generator.messages")

    def ask(self, question: str, *, budget: int) -> Said:
        made = self._pipeline.run(
            {"embedder": {"text": question}, "within_budget": {"question": question, "budget": budget},
             "prompt": {"question": question}}, include_outputs_from={"within_budget"})
        return Said(made["generator"]["replies"][0].text or "", tuple(
            Shown(document.meta["doc_id"], document.content or "") for document in made["within_budget"]["documents"]))

    def frame(self, question: str) -> tuple[str, str]:
        return frame(self._builder, question)

    def close(self) -> None:
        """Nothing is held open."""


def build(passages: Sequence[Passage], folder: Path, *, encode: CountedEncoder) -> None:
    store = InMemoryDocumentStore()
    pipeline = Pipeline()
    pipeline.add_component("splitter", DocumentSplitter())
    pipeline.add_component("embedder", EncoderDocumentEmbedder(encode))
    pipeline.add_component("writer", DocumentWriter(document_store=store))
    pipeline.connect("splitter.documents", "embedder.documents")
    pipeline.connect("embedder.documents", "writer.documents")
    pipeline.run({"splitter": {"documents": [
        Document(id=passage.id, content=passage.text, meta={"doc_id": passage.id, "title": passage.title})
        for passage in passages]}})
    store.save_to_disk(str(folder / _STORE))


def open_engine(folder: Path, wiring: Wiring) -> HaystackEngine:
    return HaystackEngine(folder, wiring)


def rendered(builder: ChatPromptBuilder, question: str, documents: Sequence[Document]) -> str:
    """The last message for these documents."""
    return builder.run(documents=list(documents), question=question)["prompt"][-1].text or ""


def frame(builder: ChatPromptBuilder, question: str) -> tuple[str, str]:
    """What stands before and after the documents."""
    return _HEAD, rendered(builder, question, []).removeprefix(_HEAD)
