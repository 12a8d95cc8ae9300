"""Whatever happens to the embedding cache, encoding goes on, and no vector that comes out of it is wrong.

Children are forked: each takes milliseconds, so a kill can be tried at every single statement.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from indexers import embedding_cache, embedding_file
from indexers.embedding_cache import CachedEncoder, EmbeddingCache, key_of
from tests.fakes import WordEncoder

DIMENSION = 64
KEYS = [key_of("m@1", f"text {n}") for n in range(400)]
VECTORS = np.random.default_rng(0).standard_normal((400, DIMENSION)).astype(np.float16)
TRUTH = {key: row.tobytes() for key, row in zip(KEYS, VECTORS, strict=True)}
SLICES = [slice(start, start + 100) for start in range(0, 400, 100)]


def forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def status_of(child: int) -> int:
    """0 when it came through, minus the signal when one killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fill(path: Path) -> None:
    cache = EmbeddingCache(path, limit_mb=10)
    for part in SLICES:
        cache.put_many(KEYS[part], VECTORS[part])
    cache.close()


def check(path: Path) -> int:
    """How many vectors come back, every one of them right; and the cache can be written and read afterwards."""
    cache = EmbeddingCache(path, limit_mb=10)
    found = cache.get_many(KEYS, dimension=DIMENSION)
    assert all(TRUTH[key] == vector.tobytes() for key, vector in found.items())
    cache.put_many(KEYS, VECTORS)
    after = cache.get_many(KEYS, dimension=DIMENSION)
    assert all(TRUTH[key] == vector.tobytes() for key, vector in after.items())
    cache.close()
    return len(found)


class Counted:
    """A connection that kills its process at the n-th call."""

    def __init__(self, db: sqlite3.Connection, tick: Callable[[], None]) -> None:
        self._db = db
        self._tick = tick

    def __getattr__(self, name: str) -> object:
        return getattr(self._db, name)

    def execute(self, *args: object) -> sqlite3.Cursor:
        self._tick()
        return self._db.execute(*args)  # type: ignore[arg-type]

    def executescript(self, script: str) -> sqlite3.Cursor:
        self._tick()
        return self._db.executescript(script)

    def executemany(self, *args: object) -> sqlite3.Cursor:
        self._tick()
        return self._db.executemany(*args)  # type: ignore[arg-type]


def killed_at(fatal: int, *, path: Path, stored: Path) -> None:
    """Stores slice after slice in a cache so small that it evicts too, notes each one that was acknowledged, and dies."""
    seen = 0

    def tick() -> None:
        nonlocal seen
        seen += 1
        if seen == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    pytest.MonkeyPatch().setattr(embedding_cache, "connect", lambda at: Counted(embedding_file.connect(at), tick))
    cache = EmbeddingCache(path, limit_mb=1)
    cache._limit = 90_000
    for number, part in enumerate(SLICES):
        cache.put_many(KEYS[part], VECTORS[part])
        stored.write_text(str(number))
    cache.close()


def test_killed_at_any_statement_what_was_stored_is_there_and_right(tmp_path: Path) -> None:
    for fatal in range(1, 500):
        path, stored = tmp_path / f"{fatal}.sqlite", tmp_path / f"{fatal}.txt"
        done = status_of(forked(partial(killed_at, fatal, path=path, stored=stored)))
        if stored.exists():
            part = SLICES[int(stored.read_text())]
            cache = EmbeddingCache(path, limit_mb=10)
            assert cache.get_many(KEYS[part], dimension=DIMENSION).keys() == set(KEYS[part])
            cache.close()
        found = check(path)
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.close()
        assert not path.with_name(path.name + ".damaged").exists()
        if done == 0:
            assert fatal > 40, "the run has fewer statements than it must have"
            assert found < len(KEYS), "the run was to evict"
            return
        assert done == -signal.SIGKILL
    pytest.fail("no run came through")


def test_a_flipped_bit_anywhere_never_gives_a_wrong_vector(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    fill(path)
    whole = path.read_bytes()
    rng = random.Random(7)
    # The header and the first bytes of every page are where structure lives; the rest at random.
    places = [*range(0, 100, 2), *range(100, len(whole), 8192), *range(103, len(whole), 8192),
              *(rng.randrange(len(whole)) for _ in range(80))]
    survived = 0
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        survived += check(path) > 0
    assert survived > len(places) // 2, "most single flips spoil one vector or page only"


def test_a_truncated_file_never_gives_a_wrong_vector(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    fill(path)
    whole = path.read_bytes()
    for size in [0, 1, 15, 16, 99, 100, 512, 4096, *range(8191, len(whole), 8192), *range(12000, len(whole), 8192), len(whole) - 1]:
        path.write_bytes(whole[:size])
        check(path)


def test_a_value_of_another_kind_is_one_miss(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    fill(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE vectors SET vector = CAST(x'ff00ff' AS TEXT) WHERE place = 1")
        db.execute("UPDATE vectors SET vector = 3 WHERE place = 2")
        db.execute("UPDATE entries SET used = 'soon' WHERE place = 3")
    db.close()
    assert check(path) == len(KEYS) - 2
    assert not path.with_name("cache.sqlite.damaged").exists()


def test_garbage_in_the_log_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    status_of(forked(lambda: killed_while_open(path)))
    log = path.with_name(path.name + "-wal")
    whole = log.read_bytes()
    assert len(whole) > 10_000
    for place in range(0, len(whole), 1997):
        for name in ("", "-wal", "-shm"):
            path.with_name(path.name + name).unlink(missing_ok=True)
        log.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1:])
        path.write_bytes(b"")
        check(path)


def killed_while_open(path: Path) -> None:
    cache = EmbeddingCache(path, limit_mb=10)
    cache.put_many(KEYS, VECTORS)
    os.kill(os.getpid(), signal.SIGKILL)


def test_damage_met_by_two_processes_is_set_aside_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache.sqlite"
    fill(path)
    first, second = EmbeddingCache(path, limit_mb=10), EmbeddingCache(path, limit_mb=10)
    with path.open("r+b") as stream:
        stream.seek(8192)
        stream.write(b"\xff" * (path.stat().st_size - 8192))
    assert first.get_many(KEYS, dimension=DIMENSION) == {}
    first.put_many(KEYS, VECTORS)
    assert second.get_many(KEYS, dimension=DIMENSION) == {}
    assert len(second.get_many(KEYS, dimension=DIMENSION)) == len(KEYS), "the new file of the first was set aside too"
    assert caplog.text.count("set aside") == 1


def write_many(path: Path, seed: int) -> None:
    cache = EmbeddingCache(path, limit_mb=10)
    rng = random.Random(seed)
    for part in rng.sample(SLICES, len(SLICES)) * 5:
        cache.put_many(KEYS[part], VECTORS[part])
        found = cache.get_many(KEYS, dimension=DIMENSION)
        assert set(KEYS[part]) <= found.keys()
        assert all(TRUTH[key] == vector.tobytes() for key, vector in found.items())
    cache.close()
    assert not cache._warned


def test_processes_that_begin_and_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    children = [forked(partial(write_many, path, seed)) for seed in range(4)]
    assert [status_of(child) for child in children] == [0] * 4
    assert check(path) == len(KEYS)


def test_a_full_disk_keeps_what_is_there_and_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache.sqlite"
    first = EmbeddingCache(path, limit_mb=10)
    first.put_many(KEYS[:100], VECTORS[:100])
    first.close()

    def full(at: Path) -> sqlite3.Connection:
        db = embedding_file.connect(at)
        db.execute(f"PRAGMA max_page_count={embedding_file.pragma(db, 'page_count')}")
        return db

    monkeypatch.setattr(embedding_cache, "connect", full)
    inner = WordEncoder()
    cache = EmbeddingCache(path, limit_mb=10)
    encoder = CachedEncoder(inner, cache)
    texts = [f"word{n} word" for n in range(700)]
    expected = WordEncoder().encode(texts).astype(np.float16).astype(np.float32)
    for _ in range(2):
        assert np.array_equal(encoder.encode(texts), expected)
    assert len(cache.get_many(KEYS[:100], dimension=DIMENSION)) == 100
    assert [record.getMessage().count("vectors are not kept") for record in caplog.records] == [1]
    assert not path.with_name("cache.sqlite.damaged").exists()
    with sqlite3.connect(path, timeout=0) as other:         # nothing is left locked
        other.execute("CREATE TABLE extra (x)")
    other.close()
    monkeypatch.undo()
    cache = EmbeddingCache(path, limit_mb=10)
    cache.put_many(KEYS, VECTORS)                           # and there is space again
    assert len(cache.get_many(KEYS, dimension=DIMENSION)) == len(KEYS)


def limited(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    cache = EmbeddingCache(path, limit_mb=10)
    texts = [f"word{n} word" for n in range(700)]
    vectors = CachedEncoder(WordEncoder(), cache).encode(texts)
    cache.close()
    assert np.array_equal(vectors, WordEncoder().encode(texts).astype(np.float16).astype(np.float32))
    assert cache._warned == {"refused"}


def test_a_file_that_may_not_grow_fails_no_encoding(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    assert status_of(forked(lambda: limited(path))) == 0
    check(path)


def test_a_disk_that_cannot_be_written_is_read_and_warned_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                  caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache.sqlite"
    fill(path)
    genuine = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda at, **options: genuine(f"file:{at}?mode=ro", uri=True, **options))
    cache = EmbeddingCache(path, limit_mb=10)
    assert len(cache.get_many(KEYS, dimension=DIMENSION)) == len(KEYS)
    for _ in range(3):
        cache.put_many([b"k" * 16], VECTORS[:1])
    cache.close()
    assert len(caplog.records) == 1
    assert "readonly" in caplog.text


def test_a_path_that_cannot_be_made_is_bypassed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.sqlite").mkdir()
    for path in (tmp_path / "file" / "cache.sqlite", tmp_path / "folder.sqlite"):
        caplog.clear()
        inner = WordEncoder()
        encoder = CachedEncoder(inner, EmbeddingCache(path, limit_mb=10))
        assert encoder.encode(["a"]).tobytes() == encoder.encode(["a"]).tobytes()
        assert inner.encoded == ["a", "a"]
        assert len(caplog.records) == 1
    assert (tmp_path / "folder.sqlite").is_dir()


def test_a_cache_that_stays_busy_is_waited_for_and_then_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                 caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(embedding_file, "_WAIT_S", 0.01)
    path = tmp_path / "cache.sqlite"
    fill(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    cache = EmbeddingCache(path, limit_mb=10)
    cache.put_many([b"k" * 16], VECTORS[:1])
    cache.put_many([b"k" * 16], VECTORS[:1])
    assert len(cache.get_many(KEYS, dimension=DIMENSION)) == len(KEYS)
    assert [record.getMessage().count("stays busy") for record in caplog.records] == [1]
    other.execute("COMMIT")
    cache.put_many([b"k" * 16], VECTORS[:1])
    assert cache.get_many([b"k" * 16], dimension=DIMENSION)
