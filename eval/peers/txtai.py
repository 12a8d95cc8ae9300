"""txtai as its documentation shows it: an embeddings database with content and the RAG pipeline over it.

    splitter    none: `Embeddings` indexes texts as they are given, one row a passage
    store       Faiss vectors (exact up to 5,000 rows, then IVF) and SQLite for the content, its defaults
    titles      above the text, a blank line between, since txtai embeds and shows one text a row
    template    that of its documentation of the RAG pipeline, passages joined by a space, its default; our instruction as
                system prompt

It sends the top `context` rows, however long; rows without any similarity are left out. The pipeline's step that ranks rows for
a question is followed by ours, which keeps the largest top k whose joined text has at most the budget's tokens. The pipeline has
no truncation: where not even the first row fits, the context is empty, and the reader is asked without any. The endpoint is
spoken to by a generation class of our own, which is txtai's way of adding a model server without LiteLLM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from txtai import LLM, RAG, Embeddings
from txtai.pipeline.llm.generation import Generation

from eval.datasets import Passage
from eval.peers.wiring import TOP_K, ChatClient, CountedEncoder, Said, Wiring, longest_fit
from eval.reply import Shown
from indexers.encoders import Vectors
from rag.prompts import SYSTEM
from rag.tokens import TokenCounter

_HEAD = "Answer the following question using the provided context.\n\nQuestion:\n{question}\n\nContext:\n"
_TAIL = "\n"
_SEPARATOR = " "
Row = tuple[str, str, float]


class EndpointGeneration(Generation):  # type: ignore[misc]  # the library ships no types
    """The reader behind the endpoint as txtai's language model."""

    def stream(self, texts: Sequence[list[dict[str, str]]], maxlength: int, stream: bool, stop: Sequence[str] | None,
               **kwargs: Any) -> Iterator[str]:
        for messages in texts:
            yield self.kwargs["client"].complete(messages, max_tokens=maxlength)


class WithinBudget(RAG):  # type: ignore[misc]  # the library ships no types
    """txtai's RAG pipeline that shows what joins into `budget` tokens. `kept`: (id, text, score) of what it showed last."""

    budget = 0
    kept: tuple[Row, ...] = ()

    def __init__(self, embeddings: Embeddings, llm: LLM, counter: TokenCounter) -> None:
        super().__init__(embeddings, llm, context=TOP_K, output="flatten", separator=_SEPARATOR, system=SYSTEM,
                         template=_HEAD + "{context}" + _TAIL)
        self._counter = counter

    def query(self, queries: Sequence[str], texts: Sequence[str] | None) -> list[list[Row]]:
        [ranked] = super().query(queries, texts)
        self.kept = tuple(longest_fit(ranked, pack=_joined, counter=self._counter, budget=self.budget))
        return [list(self.kept)]


class TxtaiEngine:
    def __init__(self, folder: Path, wiring: Wiring) -> None:
        self._wiring = wiring
        self._client = ChatClient(wiring.url, model=wiring.model)
        self._embeddings = Embeddings()
        self._embeddings.load(str(folder), config=embeddings_config(wiring.encode))
        llm = LLM(path=wiring.model, method=f"{__name__}.EndpointGeneration", client=self._client)
        self._rag = WithinBudget(self._embeddings, llm, wiring.counter)

    def ask(self, question: str, *, budget: int) -> Said:
        self._rag.budget = budget
        text = self._rag(question, maxlength=self._wiring.max_tokens)
        return Said(text, tuple(self._shown(doc_id, text) for doc_id, text, _ in self._rag.kept))

    def frame(self, question: str) -> tuple[str, str]:
        return _HEAD.format(question=question), _TAIL

    def close(self) -> None:
        self._embeddings.close()
        self._client.close()

    def _shown(self, doc_id: str, text: str) -> Shown:
        return Shown(doc_id, text.removeprefix(_heading(self._wiring.titles.get(doc_id, ""))))


def build(passages: Sequence[Passage], folder: Path, *, encode: CountedEncoder) -> None:
    embeddings = Embeddings(embeddings_config(encode))
    embeddings.index((passage.id, _heading(passage.title) + passage.text, None) for passage in passages)
    embeddings.save(str(folder))
    embeddings.close()


def open_engine(folder: Path, wiring: Wiring) -> TxtaiEngine:
    return TxtaiEngine(folder, wiring)


def embeddings_config(encode: CountedEncoder) -> dict[str, object]:
    def transform(texts: Sequence[str]) -> Vectors:     # txtai takes a function and nothing else that can be called
        return encode(texts)

    return {"method": "external", "transform": transform, "content": True}


def _heading(title: str) -> str:
    return f"{title}\n\n" if title else ""


def _joined(rows: Sequence[Row]) -> str:
    return _SEPARATOR.join(text for _, text, _ in rows)
