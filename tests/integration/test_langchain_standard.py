"""LangChain's own standard tests of retrievers, over real models; `tests/unit/test_langchain.py` has their contracts without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from rag.models import ModelCache
from rag.settings import load
from rag.thriftrag import ThriftRAG

pytest.importorskip("langchain_tests", reason="the extra dev is not installed")
from langchain_tests.integration_tests import RetrieversIntegrationTests

from rag.langchain import ThriftRetriever

TEXTS = ("The Zeta 4 pump has a warranty of 27 months.", "Otters sleep on their backs and hold hands.",
         "Spare parts of the pump are kept in Rotterdam.", "The valve of hall 3 is green.")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
class TestThriftRetriever(RetrieversIntegrationTests):
    kb: ClassVar[ThriftRAG]

    @pytest.fixture(scope="class", autouse=True)
    def collection(self, tmp_path_factory: pytest.TempPathFactory, model_cache: ModelCache) -> Iterator[None]:
        settings = load({"home": tmp_path_factory.mktemp("home"), "models": model_cache.root, "workers": 0}, environ={})
        with ThriftRAG.open("standard", settings=settings) as kb:
            kb.ingest(lines=[json.dumps({"id": str(at), "text": text}) for at, text in enumerate(TEXTS)])
            type(self).kb = kb
            yield

    @property
    def retriever_constructor(self) -> type[ThriftRetriever]:
        return ThriftRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"kb": self.kb}

    @property
    def retriever_query_example(self) -> str:
        return "How long is the warranty of the pump?"
