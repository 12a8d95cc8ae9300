"""Files that hang, eat memory or kill their parser, and parents that die: one file is lost at worst, and no process is left.

Real files meet the limits of time and memory. What no well-kept library can be made to do at will (crash, hang for ever) is
done by a parser put in its place inside the worker process.
"""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from indexers import parsing
from indexers.loaders import Found, process
from indexers.parsing import InProcess, Workers
from rag.errors import ConfigError
from rag.settings import Settings, load
from rag.types import Document, FileFailure
from tests.conftest import SAMPLE
from tests.loading import zipped
from tests.sample_files import book, deck, message, titled, workbook

# In the worker, before it begins: files are parsed by their name.
FAULTY = """
import indexers.loaders.worker as worker
load, served = worker.load, []
def by_name(found, *, settings):
    import ctypes, os, re, signal, time
    name = found.path.stem
    served.append(name)
    if name == "crash": ctypes.string_at(0)
    if name == "killed": os.kill(os.getpid(), signal.SIGKILL)
    if name == "exit": os._exit(3)
    if name == "tired" and len(served) > 1: os.kill(os.getpid(), signal.SIGSEGV)
    if name == "memory": bytearray(10**10)
    if name == "spin":
        while True: pass
    if name == "regex": re.match("(a+)+$", "a" * 60 + "b")      # never lets go of the interpreter
    if name == "sleep": time.sleep(1000)
    if name == "keeps": served.append(bytearray(b"x") * 350_000_000)
    if name == "noise": os.write(1, b"?" * 100000); print("?" * 100000); os.write(2, b"?" * 100000)
    if name == "garbage": os.write(worker.sink.fileno(), b"?" * 4096); time.sleep(1000)
    yield from load(found, settings=settings)
    if name == "late": ctypes.string_at(0)
worker.load = by_name
channels = worker._channels
def kept():
    worker.sink, requests = channels()
    return worker.sink, requests
worker._channels = kept
main(given"""


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BOOT", process.BOOT.replace("main(given", FAULTY))
    monkeypatch.setattr(parsing, "_HERE_BYTES", 0)


def files(folder: Path, *names: str, text: str = "Words.") -> list[Found]:
    for name in names:
        (folder / f"{name}.txt").write_text(text)
    return [Found(folder / f"{name}.txt", f"{name}.txt", len(text)) for name in names]


def outcomes(workers: Workers, given: list[Found]) -> list[str]:
    """For each file the codes of its failures and "ok" for each document."""
    return [" ".join("ok" if isinstance(item, Document) else item.code for item in items) for _, items in workers.parse(given)]


def wait(until: Callable[[], bool], *, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


def exists(pid: int) -> bool:
    """Whether it runs: one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Real files

def test_a_file_that_takes_too_long_is_left_out_and_the_next_is_parsed(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "slow.html").write_text("<p>words and more of them</p>" * 1_000_000)
    (tmp_path / "good.html").write_text("<p>words</p>")
    given = [Found(tmp_path / name, name, 30_000_000) for name in ("slow.html", "good.html")]
    with Workers(replace(settings, workers=1, max_file_s=4.5)) as workers:
        started = time.monotonic()
        results = [(found.source, list(items)) for found, items in workers.parse(given)]
    assert [item.code if isinstance(item, FileFailure) else item.text for _, [item] in results] == ["file_timeout", "words"]
    told = results[0][1][0]
    assert isinstance(told, FileFailure)
    assert "slow.html" in told.message
    assert "4.5" in told.message
    assert "max_file_s" in told.hint
    assert time.monotonic() - started < 60


def test_a_file_that_takes_too_much_memory_is_left_out_and_the_next_is_parsed(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "wide.txt").write_bytes("\U0001f600".encode() + b"a" * 90_000_000)     # four bytes for each character
    (tmp_path / "good.html").write_text("<p>words</p>")
    given = [Found(tmp_path / name, name, 90_000_000) for name in ("good.html", "wide.txt", "good.html")]
    with Workers(replace(settings, workers=1, worker_memory_mb=256)) as workers:
        assert outcomes(workers, given) == ["ok", "file_memory", "ok"]
    with Workers(replace(settings, workers=1)) as workers:
        assert outcomes(workers, given) == ["ok", "ok", "ok"]


# Parsers that break

@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(("name", "code", "says"), [
    ("crash", "file_crashed", "SIGSEGV"), ("killed", "file_crashed", "SIGKILL"), ("exit", "file_crashed", "status 3"),
    ("memory", "file_memory", "memory"), ("spin", "file_timeout", "2 s"), ("regex", "file_timeout", "2 s"),
    ("sleep", "file_timeout", "2 s"), ("garbage", "file_crashed", "SIGKILL")])
def test_one_file_is_lost_and_the_run_goes_on(tmp_path: Path, settings: Settings, name: str, code: str, says: str) -> None:
    given = files(tmp_path, "a", name, "b", "c")
    with Workers(replace(settings, workers=1, max_file_s=2)) as workers:
        results = [(found.source, list(items)) for found, items in workers.parse(given)]
    assert [found for found, _ in results] == ["a.txt", f"{name}.txt", "b.txt", "c.txt"]
    [told] = results[1][1]
    assert isinstance(told, FileFailure)
    assert (told.source, told.code) == (f"{name}.txt", code)
    assert says in told.message
    assert told.hint
    assert all(isinstance(items[0], Document) for found, items in results if found != f"{name}.txt")


@pytest.mark.usefixtures("faulty")
def test_many_bad_files_in_many_processes_keep_their_order(tmp_path: Path, settings: Settings) -> None:
    names = ["a", "crash", "b", "exit", "memory", "c", "crash2", "killed", "d"]
    with Workers(replace(settings, workers=3)) as workers:
        assert outcomes(workers, files(tmp_path, *names)) == [
            "ok", "file_crashed", "ok", "file_crashed", "file_memory", "ok", "ok", "file_crashed", "ok"]


@pytest.mark.usefixtures("faulty")
def test_what_came_before_the_crash_is_kept(tmp_path: Path, settings: Settings) -> None:
    with Workers(replace(settings, workers=1)) as workers:
        # Its answers are written before its end, but the process dies with what it had not flushed.
        assert outcomes(workers, files(tmp_path, "late", "a"))[1] == "ok"
        assert outcomes(workers, files(tmp_path, "late", text="Words. " * 100_000)) == ["ok file_crashed"]


@pytest.mark.usefixtures("faulty")
def test_a_process_worn_out_by_other_files_does_not_cost_a_good_one(tmp_path: Path, settings: Settings) -> None:
    with Workers(replace(settings, workers=1)) as workers:
        assert outcomes(workers, files(tmp_path, "a", "tired", "b")) == ["ok", "ok", "ok"]


@pytest.mark.usefixtures("faulty")
def test_what_libraries_print_does_not_matter(tmp_path: Path, settings: Settings) -> None:
    with Workers(replace(settings, workers=1)) as workers:
        assert outcomes(workers, files(tmp_path, "noise", "a")) == ["ok", "ok"]


@pytest.mark.usefixtures("faulty")
def test_a_process_that_has_grown_is_replaced_and_one_that_has_not_stays(tmp_path: Path, settings: Settings) -> None:
    ballast = bytearray(400_000_000)        # a large parent must not count for its children
    with Workers(replace(settings, workers=1, worker_memory_mb=512)) as workers:
        used = set()
        for name in ("a", "b", "keeps", "c", "d"):
            assert outcomes(workers, files(tmp_path, name)) == ["ok"]
            used |= workers._processes.copy()
    assert len(used) == 2
    assert len(ballast) == 400_000_000


@pytest.mark.usefixtures("faulty")
def test_the_clock_stands_still_while_the_consumer_is_busy(tmp_path: Path, settings: Settings,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_AHEAD_BYTES", 1)
    given = files(tmp_path, "a", "b", "c", text="Words. " * 50_000)
    with Workers(replace(settings, workers=2, max_file_s=2)) as workers:
        seen = []
        for _, items in workers.parse(given):
            end = time.monotonic() + 2.6
            wait(lambda end=end: time.monotonic() > end)  # type: ignore[misc]
            seen += [type(item) for item in items]
    assert seen == [Document] * 3


def spoiled(data: bytes, rng: random.Random) -> bytes:
    """Cut, overwritten, or with a stretch repeated, at a few places."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(made))
        kind = rng.randrange(4)
        if kind == 0:
            made[at:at + rng.randint(1, 40)] = rng.randbytes(rng.randint(0, 40))
        elif kind == 1:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            made[at:at] = made[at:at + rng.randint(1, 2000)]
        elif len(made) > 200:
            del made[-rng.randint(1, len(made) // 2):]
    return bytes(made)


def test_spoiled_files_of_every_format_are_documents_or_failures(tmp_path: Path, settings: Settings) -> None:
    rng = random.Random(11)
    (tmp_path / "fuzz").mkdir()
    whole = {path.name: path.read_bytes() for path in sorted((SAMPLE / "files").iterdir())}
    whole |= {"a.xlsx": workbook({"S": [["a", "b"], ["x", 1], ["y", 2]]}), "a.pptx": deck(titled("Lamps", "They glow.")),
              "a.epub": book(), "a.eml": message().as_bytes(), "a.json": b'{"a": {"b": [1, {"c": "d"}]}, "e": [{"f": 1}]}',
              "a.py": b"class A:\n    def f(self):\n        return 1\n" * 20,
              "a.zip": zipped({"a.md": "# A\n\nb", "b.csv": "a,b\n1,2"}),
              "a.jsonl": b'{"id": "a", "text": "One."}\n' * 3, "a.txt.gz": gzip.compress(b"Words. " * 100)}
    given = []
    for name, data in whole.items():
        for number in range(12):
            path = tmp_path / "fuzz" / f"{number}-{name}"
            path.write_bytes(spoiled(data, rng))
            given.append(Found(path, path.name, path.stat().st_size))
    seen: set[str] = set()
    with Workers(replace(settings, max_file_s=30)) as workers:
        for found, items in workers.parse(given):
            codes = {"ok" if isinstance(item, Document) else item.code for item in items}
            assert codes, found
            seen |= codes
    assert {"ok", "file_corrupt"} <= seen
    assert not seen & {"file_timeout", "file_memory", "file_crashed"}


# Processes that cannot start

@pytest.mark.parametrize("broken", ["raise ImportError('no lxml here')", "import os; os._exit(5)"])
def test_a_process_that_cannot_start_is_an_error_that_says_why(tmp_path: Path, settings: Settings, broken: str,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BOOT", broken)
    monkeypatch.setattr(parsing, "_HERE_BYTES", 0)
    with Workers(settings) as workers, pytest.raises(ConfigError) as caught:
        outcomes(workers, files(tmp_path, "a", "b"))
    assert "no lxml here" in caught.value.message or "status 5" in caught.value.message
    assert "workers" in caught.value.hint


def test_an_interpreter_that_is_gone_is_an_error_that_says_so(tmp_path: Path, settings: Settings,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    monkeypatch.setattr(parsing, "_HERE_BYTES", 0)
    with Workers(settings) as workers, pytest.raises(ConfigError, match="no-python"):
        outcomes(workers, files(tmp_path, "a"))


# Interrupts and deaths

@pytest.mark.usefixtures("faulty")
def test_an_interrupt_is_the_parents_business(tmp_path: Path, settings: Settings) -> None:
    with Workers(replace(settings, workers=1)) as workers:
        assert outcomes(workers, files(tmp_path, "a")) == ["ok"]
        [worker] = workers._processes
        os.kill(worker._popen.pid, signal.SIGINT)
        assert os.getpgid(worker._popen.pid) != os.getpgrp()        # the terminal's Ctrl-C does not reach it at all
        assert outcomes(workers, files(tmp_path, "b")) == ["ok"]
        assert {worker} == workers._processes


@pytest.mark.usefixtures("faulty")
def test_closing_does_not_wait_for_a_hanging_file(tmp_path: Path, settings: Settings) -> None:
    workers = Workers(settings)
    results = workers.parse(files(tmp_path, "sleep", "spin"))
    next(results)
    wait(lambda: len(workers._processes) == 2)
    pids = [worker._popen.pid for worker in workers._processes]
    started = time.monotonic()
    workers.close()
    assert time.monotonic() - started < 10
    assert not any(map(exists, pids))


PARENT = """
import dataclasses, sys
from pathlib import Path
from indexers import parsing
from indexers.loaders import Found, process
from rag.settings import load
process.BOOT = sys.argv[1]
parsing._HERE_BYTES = 0
settings = dataclasses.replace(load({}, environ={}), workers=2, max_file_s=float(sys.argv[4]))
workers = parsing.Workers(settings)
results = workers.parse([Found(Path(sys.argv[2]) / name, name, 1) for name in sys.argv[3].split(",")])
for _ in range(len(sys.argv[3].split(","))):
    _, items = next(results)
    while len(workers._processes) < 2: pass
    print(*[worker._popen.pid for worker in workers._processes], flush=True)
    list(items)
"""


@pytest.mark.parametrize(("names", "limit"), [("sleep,spin", 100.0), ("regex,regex", 1.0)])
def test_processes_end_with_a_killed_parent(tmp_path: Path, names: str, limit: float) -> None:
    """Whatever they do; only a parser that never lets go of the interpreter goes on until its processor time is up."""
    files(tmp_path, *names.split(","))
    boot = process.BOOT.replace("main(given", FAULTY)
    command = [sys.executable, "-c", PARENT, boot, str(tmp_path), names, str(limit)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(exists, pids))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait(lambda: not any(map(exists, pids)), seconds=90)


def test_processes_end_with_a_parent_that_just_ends(tmp_path: Path) -> None:
    files(tmp_path, "sleep", "spin")
    boot = process.BOOT.replace("main(given", FAULTY)
    code = PARENT.replace("    list(items)\n", "    break\n")
    done = subprocess.run([sys.executable, "-c", code, boot, str(tmp_path), "sleep,spin", "100"], capture_output=True, text=True,
                          timeout=60, check=True)
    assert done.stderr == ""
    wait(lambda: not any(exists(int(pid)) for pid in done.stdout.split()))


def test_here_an_error_of_memory_costs_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from indexers.loaders import formats

    def greedy(data: bytes, *, name: str, settings: Settings) -> None:
        raise MemoryError

    monkeypatch.setattr(formats, "_parser", lambda format_: greedy)
    [(_, items)] = InProcess(load({}, environ={})).parse(files(tmp_path, "a"))
    assert [item.code for item in items if isinstance(item, FileFailure)] == ["file_memory"]
