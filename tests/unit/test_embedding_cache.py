"""The embedding cache: a text is encoded once ever, the result is the same either way, the size is bounded, the old go first."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from indexers import embedding_cache, embedding_file
from indexers.embedding_cache import SLICE, CachedEncoder, EmbeddingCache, key_of
from indexers.encoders import Vectors
from tests.fakes import WordEncoder

MB = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "embeddings.sqlite"


def texts_of(count: int, *, start: int = 0) -> list[str]:
    return [f"text number {n} speaks of otter{n % 7} and reed{n % 11}" for n in range(start, start + count)]


def halves(count: int, *, seed: int = 0, dimension: int = 384) -> embedding_file.Halves:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float16)


def keys_of(count: int, *, start: int = 0) -> list[bytes]:
    return [key_of("m@1", f"text {n}") for n in range(start, start + count)]


def on_disk(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def test_a_text_is_encoded_once_across_calls_and_runs(path: Path) -> None:
    texts = texts_of(30)
    inner = WordEncoder()
    first = CachedEncoder(inner, EmbeddingCache(path, limit_mb=10))
    whole = first.encode(texts)
    again = first.encode(texts[::-1])
    assert sorted(inner.encoded) == sorted(texts)
    assert (first.hits, first.misses) == (30, 30)
    later = WordEncoder()
    second = CachedEncoder(later, EmbeddingCache(path, limit_mb=10))
    assert later.encoded == []
    assert second.encode(texts).tobytes() == whole.tobytes() == again[::-1].tobytes()
    assert later.encoded == []


def test_the_result_is_the_encoders_rounded_to_halves_cached_or_not(path: Path) -> None:
    texts = texts_of(20)
    plain = WordEncoder().encode(texts)
    cached = CachedEncoder(WordEncoder(), EmbeddingCache(path, limit_mb=10))
    for _ in range(2):
        vectors = cached.encode(texts)
        assert vectors.dtype == np.float32
        assert vectors.tobytes() == plain.astype(np.float16).astype(np.float32).tobytes()
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 2 ** -11


def test_equal_texts_in_one_call_are_encoded_once(path: Path) -> None:
    inner = WordEncoder()
    cached = CachedEncoder(inner, EmbeddingCache(path, limit_mb=10))
    vectors = cached.encode(["a b", "c", "a b", "a b"])
    assert sorted(inner.encoded) == ["a b", "c"]
    assert (cached.hits, cached.misses) == (2, 2)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])


def test_no_texts_give_no_vectors(path: Path) -> None:
    assert CachedEncoder(WordEncoder(), EmbeddingCache(path, limit_mb=10)).encode([]).shape == (0, 64)


def test_encoders_of_other_names_share_nothing(path: Path) -> None:
    cache = EmbeddingCache(path, limit_mb=10)
    CachedEncoder(WordEncoder("one@1"), cache).encode(["a"])
    other = WordEncoder("two@1")
    CachedEncoder(other, cache).encode(["a"])
    assert other.encoded == ["a"]


def test_it_is_otherwise_the_encoder_it_wraps(path: Path) -> None:
    inner = WordEncoder("one@1", dimension=32)
    cached = CachedEncoder(inner, EmbeddingCache(path, limit_mb=10))
    assert (cached.name, cached.dimension, cached.max_tokens, cached.inner) == ("one@1", 32, 256, inner)
    assert cached.count(["a b"]) == inner.count(["a b"])
    assert cached.offsets("a b") == inner.offsets("a b")


def test_progress_counts_hits_rises_and_ends_at_all(path: Path) -> None:
    texts = texts_of(2 * SLICE)
    cached = CachedEncoder(WordEncoder(), EmbeddingCache(path, limit_mb=10))
    cached.encode(texts[:100])
    heard: list[int] = []
    cached.encode([*texts, *texts[200:300]], on_batch=heard.append)
    assert heard[0] == 100
    assert heard == sorted(heard)
    assert heard[-1] == 2 * SLICE + 100


class Failing(WordEncoder):
    """Fails at a call of its own; remembers how many texts each call had."""

    def __init__(self, *, at: int) -> None:
        super().__init__()
        self.at = at
        self.calls: list[int] = []

    def encode(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> Vectors:
        self.calls.append(len(texts))
        if len(self.calls) == self.at:
            raise RuntimeError("out of memory")
        return super().encode(texts, on_batch=on_batch)


def test_each_finished_slice_is_kept_when_a_later_one_fails(path: Path) -> None:
    texts = texts_of(3 * SLICE)
    cached = CachedEncoder(Failing(at=3), EmbeddingCache(path, limit_mb=10))
    with pytest.raises(RuntimeError):
        cached.encode(texts)
    assert cached.misses == 2 * SLICE
    after = Failing(at=0)
    CachedEncoder(after, EmbeddingCache(path, limit_mb=10)).encode(texts)
    assert after.calls == [SLICE]


def test_arithmetic_is_part_of_what_a_vector_is_kept_under(path: Path) -> None:
    cache = EmbeddingCache(path, limit_mb=10)
    for precision, expected in (("bf16", 1), ("f32", 1), ("bf16", 0)):
        inner = WordEncoder()
        inner.precision = precision     # type: ignore[attr-defined]  # as encoders that have several
        CachedEncoder(inner, cache).encode(["The same text."])
        assert len(inner.encoded) == expected


def test_a_vector_of_another_dimension_is_ignored_and_overwritten(path: Path) -> None:
    cache = EmbeddingCache(path, limit_mb=10)
    CachedEncoder(WordEncoder(dimension=32), cache).encode(["a"])
    wide = WordEncoder(dimension=64)
    assert CachedEncoder(wide, cache).encode(["a"]).shape == (1, 64)
    assert wide.encoded == ["a"]
    fresh = WordEncoder(dimension=64)
    CachedEncoder(fresh, cache).encode(["a"])
    assert fresh.encoded == []
    assert on_disk(path).execute("SELECT count(*) FROM vectors").fetchone() == (1,)


def test_lone_surrogates_and_nul_make_different_keys() -> None:
    assert len({key_of("m", "a\ud800"), key_of("m", "a"), key_of("m", "a\0"), key_of("m", "\0a"), key_of("ma", "")}) == 5


def test_what_was_stored_comes_back_and_what_was_not_does_not(path: Path) -> None:
    cache = EmbeddingCache(path, limit_mb=10)
    keys, vectors = keys_of(1200), halves(1200)
    cache.put_many(keys, vectors)
    found = cache.get_many([*keys, *keys_of(5, start=5000)], dimension=384)
    assert found.keys() == set(keys)
    assert all(found[key].tobytes() == row.tobytes() for key, row in zip(keys, vectors, strict=True))
    assert cache.get_many([], dimension=384) == {}


def test_the_size_is_bounded_and_what_was_not_used_for_longest_goes(path: Path) -> None:
    cache = EmbeddingCache(path, limit_mb=1)
    favourites = keys_of(50)
    cache.put_many(favourites, halves(50))
    for start in range(100, 6000, 100):
        cache.put_many(keys_of(100, start=start), halves(100))
        assert len(cache.get_many(favourites, dimension=384)) == 50
    cache.close()
    assert path.stat().st_size <= 1.1 * MB
    reopened = EmbeddingCache(path, limit_mb=1)
    assert len(reopened.get_many(keys_of(100, start=5900), dimension=384)) == 100
    assert not reopened.get_many(keys_of(2000, start=100), dimension=384)
    kept = len(reopened.get_many(keys_of(6000), dimension=384))
    assert kept > 0.8 * MB / (384 * 2 + 84)
    db = on_disk(path)
    assert db.execute("SELECT count(*) FROM vectors").fetchone() == db.execute("SELECT count(*) FROM entries").fetchone() == (kept,)


def test_hits_write_nothing_while_the_last_use_on_record_is_recent(path: Path) -> None:
    cache = EmbeddingCache(path, limit_mb=10)
    cache.put_many(keys_of(1000), halves(1000))
    before = on_disk(path).execute("SELECT sum(used) FROM entries").fetchone()
    cache.get_many(keys_of(1000), dimension=384)
    cache.close()
    assert on_disk(path).execute("SELECT sum(used) FROM entries").fetchone() == before


def test_old_uses_are_written_in_bulk_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "_NOTED_AT_ONCE", 100)
    cache = EmbeddingCache(path, limit_mb=1)
    cache.put_many(keys_of(1000), halves(1000))
    clock = ("SELECT count(*) FROM entries WHERE used = 1000",)
    cache.get_many(keys_of(99), dimension=384)
    assert on_disk(path).execute(*clock).fetchone() == (1,)
    cache.get_many(keys_of(110), dimension=384)
    assert on_disk(path).execute(*clock).fetchone() == (111,)


def test_a_lowered_limit_gives_the_space_back(path: Path) -> None:
    cache = EmbeddingCache(path, limit_mb=10)
    cache.put_many(keys_of(5000), halves(5000))
    cache.close()
    assert path.stat().st_size > 4 * MB
    smaller = EmbeddingCache(path, limit_mb=1)
    smaller.put_many(keys_of(1, start=9000), halves(1))
    smaller.close()
    assert path.stat().st_size <= 1.1 * MB
    assert EmbeddingCache(path, limit_mb=1).get_many(keys_of(1, start=9000), dimension=384)


def test_threads_share_one_cache(path: Path) -> None:
    cached = CachedEncoder(WordEncoder(), EmbeddingCache(path, limit_mb=10))
    expected = WordEncoder().encode(texts_of(400)).astype(np.float16).astype(np.float32)

    def work(start: int) -> bool:
        return all(np.array_equal(cached.encode(texts_of(50, start=at)), expected[at:at + 50]) for at in range(start, 350, 7))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(16)))
    assert cached.hits + cached.misses == 50 * sum(len(range(start, 350, 7)) for start in range(16))


@pytest.mark.parametrize("content", [
    b"not a database, but long enough to be read as one" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_set_aside(path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    cache = EmbeddingCache(path, limit_mb=10)
    cache.put_many(keys_of(1), halves(1))
    assert cache.get_many(keys_of(1), dimension=384)
    assert path.with_name("embeddings.sqlite.damaged").read_bytes() == content
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "set aside as embeddings.sqlite.damaged" in caplog.text


def test_another_programs_database_is_set_aside_unchanged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE notes (text)")
        db.execute("INSERT INTO notes VALUES ('mine')")
    db.close()
    content = path.read_bytes()
    assert EmbeddingCache(path, limit_mb=10).get_many(keys_of(1), dimension=384) == {}
    assert path.with_name("embeddings.sqlite.damaged").read_bytes() == content
    assert "it is no embedding cache" in caplog.text


@pytest.mark.parametrize(("version", "said", "kept"), [(0, "no longer read", False), (99, "newer than", True)])
def test_other_formats_are_set_aside_when_older_and_left_alone_when_newer(
        path: Path, version: int, said: str, kept: bool, caplog: pytest.LogCaptureFixture) -> None:
    EmbeddingCache(path, limit_mb=10).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={version}")
    db.close()
    inner = WordEncoder()
    CachedEncoder(inner, EmbeddingCache(path, limit_mb=10)).encode(["a"])
    assert inner.encoded == ["a"]
    assert path.with_name("embeddings.sqlite.damaged").exists() is not kept
    assert said in caplog.text
    assert len(caplog.records) == 1


def test_a_cache_of_no_size_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="limit_mb is 0"):
        EmbeddingCache(path, limit_mb=0)


def test_a_closed_cache_is_harmless(path: Path) -> None:
    cache = EmbeddingCache(path, limit_mb=10)
    cache.close()
    cache.put_many(keys_of(1), halves(1))
    assert cache.get_many(keys_of(1), dimension=384) == {}
    cache.close()
