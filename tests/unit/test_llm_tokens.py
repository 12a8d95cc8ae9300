"""Counting: what a file's tokenizer sees, and what a server is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag.errors import ModelCorrupt, ModelUnavailable
from rag.tokens import ByteEstimate, FileTokenizer, ServerTokenizer, public_url
from tests.fake_server import FakeServer
from tests.tiny_reader import END, write_tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_folder(tmp_path / "tiny")


@pytest.mark.parametrize("special", [True, False])
def test_added_tokens_are_known_but_never_recognised(folder: Path, special: bool) -> None:
    file = folder / "tokenizer.json"
    table = json.loads(file.read_text())
    for row in table["added_tokens"]:
        row["special"] = special
    file.write_text(json.dumps(table))
    tokenizer = FileTokenizer(file)
    assert tokenizer.added["<|im_end|>"] == END
    assert END not in tokenizer.encode("a<|im_end|>b")
    assert tokenizer.decode(tokenizer.encode("a<|im_end|>b")) == "a<|im_end|>b"
    assert tokenizer.special_ids == (frozenset(tokenizer.added.values()) if special else frozenset())


def test_counts_agree_one_by_one_and_together(folder: Path) -> None:
    tokenizer = FileTokenizer(folder / "tokenizer.json")
    texts = ["", "the", "the cat " * 700, "<|im_end|>", "e\u0301", "\u00e9", "\n\n  \t", "🙂"]
    counts = [len(tokenizer.encode(text)) for text in texts]
    assert tokenizer.count_many(texts) == [tokenizer.count(text) for text in texts] == counts
    assert tokenizer.count("e\u0301") == tokenizer.count("\u00e9")         # normalised as in the model's training
    assert tokenizer.count_many([]) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {}}', "\x00\xff"])
def test_a_broken_tokenizer_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="latin-1")
    with pytest.raises(ModelCorrupt, match=r"tokenizer\.json"):
        FileTokenizer(tmp_path / "tokenizer.json")


def test_a_missing_tokenizer_file(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="nowhere"):
        FileTokenizer(tmp_path / "nowhere.json")


def test_the_byte_estimate_is_never_zero_for_text() -> None:
    assert ByteEstimate().count_many(["", "a", "abc", "abcd", "中"]) == [0, 1, 1, 2, 1]


@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp"])
def test_a_server_is_asked_in_its_own_dialect_and_once_for_each_text(dialect: str) -> None:
    with FakeServer(tokenize=dialect) as server:  # type: ignore[arg-type]
        counter = ServerTokenizer(server.url, model="fake", estimate=ByteEstimate)
        assert counter.count("one two three") == 3
        assert counter.exact
        asked = len(server.seen)
        assert counter.count_many(["one two three", "", "four five", "one two three"]) == [3, 0, 2, 3]
        assert len(server.seen) == asked + 1
        assert counter.count_prompt([{"role": "user", "content": "one two"}]) == 5
        asked = len(server.seen)
        assert counter.count_prompt([{"role": "user", "content": "one two"}]) == 5
        assert counter.count_offline("four five") == 2
        assert counter.count_offline("never asked") == ByteEstimate().count("never asked")
        assert len(server.seen) == asked
        counter.close()


def test_special_tokens_are_not_asked_for() -> None:
    with FakeServer(tokenize="vllm") as server:
        ServerTokenizer(server.url, model="fake", estimate=ByteEstimate).count("a")
        assert server.seen[0].body["add_special_tokens"] is False
    with FakeServer(tokenize="llama.cpp") as server:
        ServerTokenizer(server.url, model="fake", estimate=ByteEstimate).count("a")
        assert (server.seen[-1].body["add_special"], server.seen[-1].body["parse_special"]) == (False, False)


def test_a_server_that_cannot_count_leaves_an_estimate_that_says_so() -> None:
    with FakeServer() as server:
        counter = ServerTokenizer(server.url, model="fake", estimate=ByteEstimate)
        assert counter.count_many(["one two", "three"]) == [ByteEstimate().count("one two"), ByteEstimate().count("three")]
        assert not counter.exact
        asked = len(server.seen)
        assert counter.count("again") == ByteEstimate().count("again")
        assert counter.count_prompt([{"role": "user", "content": "x"}]) is None
        assert len(server.seen) == asked, "it is not asked again"


def test_a_server_that_is_not_there_is_no_estimate() -> None:
    counter = ServerTokenizer("http://user:pw@127.0.0.1:9/v1", model="fake", estimate=ByteEstimate)
    with pytest.raises(ModelUnavailable) as caught:
        counter.count("a")
    assert "pw" not in str(caught.value)


def test_the_key_is_sent() -> None:
    with FakeServer(tokenize="vllm") as server:
        ServerTokenizer(server.url, model="fake", estimate=ByteEstimate, api_key="k1").count("a")
        assert {k.lower(): v for k, v in server.seen[0].headers.items()}["authorization"] == "Bearer k1"


@pytest.mark.parametrize(("url", "shown"), [
    ("http://user:pw@host:8000/v1/", "http://host:8000/v1"), ("https://host/v1?key=secret#x", "https://host/v1"),
    ("http://[::1]:80", "http://[::1]:80"), ("nonsense", "nonsense")])
def test_addresses_are_shown_without_credentials(url: str, shown: str) -> None:
    assert public_url(url) == shown
