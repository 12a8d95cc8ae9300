"""LlamaIndex as its documentation shows it: a vector index of sentence-split nodes and a query engine in "compact" mode.

    splitter    SentenceSplitter with its defaults: 1,024 tokens (of cl100k_base), 200 of them overlapping
    store       SimpleVectorStore, persisted as JSON; cosine
    titles      as metadata, which LlamaIndex embeds with the text and shows above it ("title: ...") by default
    template    its own chat template for questions over a context; its system message is replaced by our instruction

It sends what was retrieved, however long: `similarity_top_k` is its one control. A node postprocessor, its place for choosing
among nodes, keeps the largest top k whose text, packed as its PromptHelper does, has at most the budget's tokens. Where not even
the first node fits, it is cut by `PromptHelper.truncate`, the library's own way of fitting text into a window. Its model
package for OpenAI-compatible servers binds an old client, so the endpoint is spoken to by a `CustomLLM`, which is its way of
adding a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms import CustomLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.prompts.chat_prompts import TEXT_QA_PROMPT_TMPL_MSGS
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, NodeWithScore, QueryBundle, TextNode

from eval.datasets import Passage
from eval.peers.wiring import TOP_K, ChatClient, CountedEncoder, Said, Wiring, longest_fit
from eval.reply import Shown
from rag.prompts import SYSTEM

_BATCH = 512
# A mark that stands for the context while the text around it is found.
_PLACE = "\0"
# Its splitter adds up the tokens of pieces, which joined may be a few more.
_CUTS = 8


class EncoderEmbedding(BaseEmbedding):  # type: ignore[misc]  # the library ships no types
    """Our encoder as LlamaIndex's embedding model."""

    _encode: CountedEncoder = PrivateAttr()

    def __init__(self, encode: CountedEncoder) -> None:
        super().__init__(model_name=encode.name, embed_batch_size=_BATCH)
        self._encode = encode

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [list(map(float, vector)) for vector in self._encode(texts)]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embeddings([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


class EndpointLLM(CustomLLM):  # type: ignore[misc]  # the library ships no types
    """The reader behind the endpoint as LlamaIndex's chat model."""

    _client: ChatClient = PrivateAttr()
    _metadata: LLMMetadata = PrivateAttr()

    def __init__(self, client: ChatClient, *, model: str, window: int, max_tokens: int) -> None:
        super().__init__()
        self._client = client
        self._metadata = LLMMetadata(context_window=window, num_output=max_tokens, is_chat_model=True, model_name=model)

    @property
    def metadata(self) -> LLMMetadata:
        return self._metadata

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        sent = [{"role": message.role.value, "content": message.content or ""} for message in messages]
        text = self._client.complete(sent, max_tokens=self._metadata.num_output)
        return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self.chat([ChatMessage(role=MessageRole.USER, content=prompt)]).message.content or "")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        raise NotImplementedError("The endpoint does not stream.")


class WithinBudget(BaseNodePostprocessor):  # type: ignore[misc]  # the library ships no types
    """Keeps the nodes, in their order, that pack into `budget` tokens; cuts the first if not even that one does."""

    budget: int
    _wiring: Wiring = PrivateAttr()
    _template: ChatPromptTemplate = PrivateAttr()

    def __init__(self, budget: int, *, wiring: Wiring, template: ChatPromptTemplate) -> None:
        super().__init__(budget=budget)
        self._wiring = wiring
        self._template = template

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        kept = longest_fit(nodes, pack=_packed, counter=self._wiring.counter, budget=self.budget)
        return list(kept) or self._cut(nodes[:1])

    def _cut(self, first: Sequence[NodeWithScore]) -> list[NodeWithScore]:
        for node in first:
            whole = node.get_content(metadata_mode=MetadataMode.LLM)
            for limit in range(self.budget, max(self.budget - _CUTS, 0), -1):
                [text] = _helper(self._wiring, limit).truncate(self._template, [whole])
                if text.strip() and self._wiring.counter.count(text) <= self.budget:
                    source = {NodeRelationship.SOURCE: node.node.source_node}
                    return [NodeWithScore(node=TextNode(text=text, relationships=source), score=node.score)]
        return []


class LlamaIndexEngine:
    def __init__(self, folder: Path, wiring: Wiring) -> None:
        storage = StorageContext.from_defaults(persist_dir=str(folder))
        index = load_index_from_storage(storage, embed_model=EncoderEmbedding(wiring.encode))
        self._wiring = wiring
        self._client = ChatClient(wiring.url, model=wiring.model)
        self._template = ChatPromptTemplate(message_templates=[
            ChatMessage(role=MessageRole.SYSTEM, content=SYSTEM), TEXT_QA_PROMPT_TMPL_MSGS[-1]])
        llm = EndpointLLM(self._client, model=wiring.model, window=wiring.window, max_tokens=wiring.max_tokens)
        self._retriever = index.as_retriever(similarity_top_k=TOP_K)
        self._synthesizer = get_response_synthesizer(
            llm=llm, prompt_helper=_helper(wiring), text_qa_template=self._template, response_mode=ResponseMode.COMPACT)

    def ask(self, question: str, *, budget: int) -> Said:
        """Without any node LlamaIndex does not ask its model and answers "Empty Response"."""
        within = WithinBudget(budget, wiring=self._wiring, template=self._template)
        engine = RetrieverQueryEngine(retriever=self._retriever, response_synthesizer=self._synthesizer,
                                      node_postprocessors=[within])
        response = engine.query(question)
        return Said(str(response), tuple(self._shown(found.node) for found in response.source_nodes))

    def frame(self, question: str) -> tuple[str, str]:
        filled = self._template.format_messages(context_str=_PLACE, query_str=question)[-1].content
        before, _, after = filled.partition(_PLACE)
        return before, after

    def close(self) -> None:
        self._client.close()

    def _shown(self, node: BaseNode) -> Shown:
        """A cut node has its heading, or what is left of it, in its text."""
        doc_id = node.ref_doc_id
        return Shown(doc_id, node.get_content(metadata_mode=MetadataMode.NONE).removeprefix(
            f"title: {self._wiring.titles.get(doc_id, '')}\n\n"))


def build(passages: Sequence[Passage], folder: Path, *, encode: CountedEncoder) -> None:
    documents = [Document(text=passage.text, id_=passage.id, metadata={"title": passage.title} if passage.title else {})
                 for passage in passages]
    # Equal scores are ordered by node id, which is random unless it is given.
    splitter = SentenceSplitter(id_func=lambda place, document: f"{document.id_}:{place}")
    index = VectorStoreIndex.from_documents(documents, transformations=[splitter], embed_model=EncoderEmbedding(encode))
    index.storage_context.persist(persist_dir=str(folder))


def open_engine(folder: Path, wiring: Wiring) -> LlamaIndexEngine:
    return LlamaIndexEngine(folder, wiring)


def _packed(nodes: Sequence[NodeWithScore]) -> str:
    """As `PromptHelper.repack` joins what its window holds. It is called once, when the prompt is made: it is slow."""
    texts = [node.get_content(metadata_mode=MetadataMode.LLM).strip() for node in nodes]
    return "\n\n".join(text for text in texts if text)


def _helper(wiring: Wiring, chunk_tokens: int | None = None) -> PromptHelper:
    """Counts with the reader's tokenizer, as LlamaIndex asks its users to set it. `chunk_tokens`: longest piece of text."""
    return PromptHelper(context_window=wiring.window, num_output=wiring.max_tokens, chunk_size_limit=chunk_tokens,
                        tokenizer=lambda text: range(wiring.counter.count(text)))
