"""Which reader the settings name, and that opening one costs nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.errors import ConfigError, ModelUnavailable
from rag.llm import Message
from rag.llm.absent import UNSTATED_WINDOW
from rag.llm.embedded import EmbeddedReader
from rag.llm.open import estimate, open_reader
from rag.llm.openai_compatible import OpenAICompatibleReader, ask_window
from rag.models import ModelCache
from rag.settings import Settings, load
from rag.tokens import ByteEstimate
from tests.fake_server import FakeServer
from tests.tiny_reader import CHATML, write_tiny_folder


def settings(tmp_path: Path, **given: object) -> Settings:
    return load({"home": tmp_path / "home", "models": tmp_path / "models", **given}, environ={})


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "models")


def test_a_folder_opens_as_an_embedded_reader_without_starting_anything(tmp_path: Path, cache: ModelCache) -> None:
    reader = open_reader(settings(tmp_path, reader=str(write_tiny_folder(tmp_path / "mine"))), cache=cache)
    assert isinstance(reader, EmbeddedReader)
    assert (reader.name, reader.local, reader.context_window, reader.tokenizer.exact) == ("mine", True, 4096, True)
    assert reader.prompt_tokens([Message("user", "the")]) > 5
    reader.close()
    with pytest.raises(ModelUnavailable, match="closed"):
        reader.generate([Message("user", "the")], max_tokens=4)


def test_a_model_that_was_not_pulled_says_how(tmp_path: Path, cache: ModelCache) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        open_reader(settings(tmp_path), cache=cache)
    assert "models pull" in caught.value.hint


def test_a_url_opens_without_touching_the_network(tmp_path: Path, cache: ModelCache) -> None:
    reader = open_reader(settings(tmp_path, reader="m", reader_url="http://127.0.0.1:9/v1"), cache=cache)
    assert isinstance(reader, OpenAICompatibleReader)
    assert (reader.name, reader.local) == ("m", True)
    reader.close()
    assert not open_reader(settings(tmp_path, reader="m", reader_url="https://models.example/v1"), cache=cache).local


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "file:///etc/x"])
def test_what_is_no_http_address_is_refused(tmp_path: Path, cache: ModelCache, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_reader(settings(tmp_path, reader="m", reader_url=url), cache=cache)
    assert caught.value.field == "reader_url"


@pytest.mark.parametrize("beside", [True, False])
def test_a_named_tokenizer_counts_and_its_template_makes_prompts_exact(tmp_path: Path, cache: ModelCache,
                                                                       beside: bool) -> None:
    folder = write_tiny_folder(tmp_path / "tokenizer")
    (folder / "reader.json").unlink()
    if beside:
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML}))
    named = str(folder if beside else folder / "tokenizer.json")
    given = settings(tmp_path, reader="m", reader_url="http://127.0.0.1:9/v1", reader_tokenizer=named)
    reader = open_reader(given, cache=cache)
    message = Message("user", "the")
    assert reader.tokenizer.exact
    exact = EmbeddedReader(write_tiny_folder(tmp_path / "same")).prompt_tokens([message])
    assert (reader.prompt_tokens([message]) == exact) is beside


def test_without_any_pulled_model_the_estimate_is_by_bytes(cache: ModelCache) -> None:
    assert isinstance(estimate(cache), ByteEstimate)


@pytest.mark.parametrize(("states", "window"), [({"window": 2222}, 2222), ({"tokenize": "llama.cpp"}, 4321), ({}, None)])
def test_the_window_is_what_the_server_states(states: dict[str, Any], window: int | None, tmp_path: Path,
                                              cache: ModelCache) -> None:
    with FakeServer(**states) as server:
        assert ask_window(server.url, model="fake") == window
        reader = open_reader(settings(tmp_path, reader="fake", reader_url=server.url), cache=cache)
        assert reader.context_window == (window or UNSTATED_WINDOW)
        assert ask_window(server.url, model="another") is None
        told = open_reader(settings(tmp_path, reader="fake", reader_url=server.url, reader_window=999), cache=cache)
        assert told.context_window == 999


def test_a_server_that_is_not_there_has_no_window(tmp_path: Path, cache: ModelCache) -> None:
    reader = open_reader(settings(tmp_path, reader="m", reader_url="http://127.0.0.1:9/v1"), cache=cache)
    with pytest.raises(ModelUnavailable, match=r"127\.0\.0\.1"):
        _ = reader.context_window
