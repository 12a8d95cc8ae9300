"""A collection as a LangChain retriever: the best passages, or the sentences worth their tokens under a budget.

Needs the extra `langchain`. `rag.langchain` has the Runnable that answers.
"""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from optimizers.context import body
from rag.thriftrag import ThriftRAG
from rag.types import Chunk, Extract, Hit, Passage


class ThriftRetriever(BaseRetriever):
    """`k` hits of a search; with `budget`, what `ThriftRAG.ask` would have its reader read: the chosen sentences in their order,
    which with headings and marks take at most so many tokens of that reader. Both may also be given to `invoke`.

    A document's `metadata` has the fields of its source, and `chunk_id`, `doc_id`, `source`, `page`, `title`, `heading`, `start`
    and `end` (characters in the source's text), `score` and `origins` of a hit, and `n`, the citation mark, of chosen sentences.
    Errors are those of `rag.errors`. Not to be serialised: it holds an open collection, which whoever opened it closes.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    kb: ThriftRAG
    k: int = 10
    mode: str = "hybrid"
    budget: int | None = None
    selector: str | None = None
    where: Any = None       # as `ThriftRAG.search` takes it: a filter of `rag.filters`, its JSON form, or text

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun | None = None,
                                k: int | None = None, budget: int | None = None) -> list[Document]:
        """Best first, or in the order to be read. Empty where nothing fits, or nothing is worth reading."""
        most = self.budget if budget is None else budget
        if most is None:
            hits = self.kb.search(query, mode=self.mode, k=self.k if k is None else k, where=self.where)
            return [_found(hit) for hit in hits]
        prepared = self.kb.context(query, budget=most, selector=self.selector, where=self.where,
                                   changes={"mode": self.mode})
        return [] if prepared.reason else [_chosen(passage) for passage in prepared.context.passages][:k]


def _found(hit: Hit) -> Document:
    chunk = hit.chunk
    return Document(id=chunk.id, page_content=chunk.text, metadata={
        **_place(chunk, *chunk.span), "score": hit.score, "origins": dict(hit.origins)})


def _chosen(passage: Passage) -> Document:
    chunk, first = passage.chunk, passage.chunk.span[0]
    start, end = chunk.sentences[passage.sentences[0]][0], chunk.sentences[passage.sentences[-1]][1]
    return Document(id=chunk.id, page_content=body(Extract(chunk, passage.sentences)), metadata={
        **_place(chunk, first + start, first + end), "n": passage.n})


def _place(chunk: Chunk, start: int, end: int) -> dict[str, Any]:
    own = {"chunk_id": chunk.id, "doc_id": chunk.doc_id, "source": chunk.source, "page": chunk.page, "title": chunk.title,
           "heading": chunk.heading, "start": start, "end": end}
    return {**chunk.metadata, **own}
