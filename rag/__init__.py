"""ThriftRAG: answers from your own documents at the lowest cost that keeps the answer right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag.errors import RagError
from rag.types import Answer, Citation, Document, Hit, IngestReport, Receipt

if TYPE_CHECKING:
    from rag.thriftrag import ThriftRAG

__version__ = "0.1.0"
__all__ = ["Answer", "Citation", "Document", "Hit", "IngestReport", "RagError", "Receipt", "ThriftRAG", "__version__"]


def __getattr__(name: str) -> object:
    # `import rag` must stay cheap, and the stage packages import rag's types: the facade loads when it is asked for.
    if name == "ThriftRAG":
        from rag.thriftrag import ThriftRAG

        return ThriftRAG
    raise AttributeError(f"module 'rag' has no attribute {name!r}")
