"""Which reader the settings name."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from rag.llm import Reader
from rag.settings import Settings
from rag.tokens import ByteEstimate, FileTokenizer, ServerTokenizer, TokenCounter, public_url
from rag.types import OnProgress, no_progress

if TYPE_CHECKING:
    from rag.models import ModelCache


def open_reader(settings: Settings, *, cache: ModelCache, prefix_cache: bool = True,
                on_progress: OnProgress = no_progress) -> Reader:
    """The reader, without loading the model or touching the network. A GGUF file is converted on its first use.
    `prefix_cache`: whether an embedded one may start a prompt from a part that an earlier one had; a server decides itself.

    Raises:
        ConfigError: no model goes by that name, or `reader_url` is no address.
        ModelUnavailable: it was not pulled, or is no reader. ModelCorrupt: its files are broken.
    """
    if settings.reader_url:
        return _served(settings, cache)
    from rag.llm.embedded import EmbeddedReader
    from rag.models import resolve

    found = resolve(settings.reader, cache=cache, role="reader", on_progress=on_progress)
    return EmbeddedReader(Path(found.location), cache_gb=settings.reader_cache_gb, name=found.name,
                          prefix_cache=prefix_cache)


def _served(settings: Settings, cache: ModelCache) -> Reader:
    from rag.llm.breaker import Breaker
    from rag.llm.card import read_chat
    from rag.llm.chat import ChatEncoder
    from rag.llm.openai_compatible import OpenAICompatibleReader

    breaker = Breaker(f"The model server at {public_url(settings.reader_url)}", failures=settings.reader_failures,
                      rest_s=settings.reader_rest_s)
    tokenizer: TokenCounter
    chat = None
    if settings.reader_tokenizer:
        tokenizer = named = _named_tokenizer(settings.reader_tokenizer)
        card = read_chat(named.path.parent)
        if card is not None:
            chat = ChatEncoder(named, template=card.chat_template, bos_token=card.bos_token, eos_token=card.eos_token)
    else:
        tokenizer = ServerTokenizer(settings.reader_url, model=settings.reader, api_key=settings.reader_api_key,
                                    estimate=functools.cache(lambda: estimate(cache)), guard=breaker)
    return OpenAICompatibleReader(settings.reader_url, model=settings.reader, tokenizer=tokenizer, chat=chat,
                                  api_key=settings.reader_api_key, context_window=settings.reader_window or None, breaker=breaker)


def _named_tokenizer(named: str) -> FileTokenizer:
    """A tokenizer.json, or the folder that holds one."""
    path = Path(named).expanduser()
    return FileTokenizer(path / "tokenizer.json" if path.is_dir() else path)


def estimate(cache: ModelCache) -> TokenCounter:
    """The best counter at hand for a model whose own tokenizer is out of reach: that of a pulled reader, of the embedder,
    or bytes."""
    pulled = [entry for entry in cache.entries() if cache.state(entry.name) == "ready"]
    for entry in sorted(pulled, key=lambda entry: entry.role != "reader"):
        file = cache.path(entry.name) / "tokenizer.json"
        if file.is_file():
            return FileTokenizer(file, exact=False)
    return ByteEstimate()
