"""The process that parses: takes files on its standard input, one after the other, and answers with their documents.

It limits itself (memory, and processor time as a backstop for the parent's clock), stands back for the parent (nice), leaves
Ctrl-C to it, and ends when it is gone: a thread waits for the end of the input, whatever the parser is doing. Only a parser
that never lets that thread run outlives a killed parent, by the processor time that a file may take.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import IO

from indexers.loaders import wire
from indexers.loaders.discovery import Found
from indexers.loaders.formats import load
from indexers.loaders.wire import Frame, Kind
from rag.settings import Settings
from rag.types import FileFailure

# How a process says that it ended for want of memory, when there is not even enough to say so in a frame.
MEMORY_EXIT = 97
# Less urgent than the encoder, but not so much that a file runs out of its time while the encoder is busy.
_NICENESS = 5
# A process that holds more than this share of its limit, or has parsed so many files, makes room for a fresh one: memory that
# libraries keep is not the next file's fault.
_RETIRE_SHARE = 0.6
_RETIRE_FILES = 5000
_CPU_MARGIN_S = 10
_BUFFER_BYTES = 1 << 16


def main(limits: Mapping[str, float]) -> None:
    """Never returns. `limits`: the settings that parsing reads, by name."""
    answers, requests = _channels()
    settings = Settings(**limits)  # type: ignore[arg-type]  # they come from a Settings
    try:
        _limit(settings)
        wire.write(answers, Frame(Kind.READY))
        answers.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)    # until here, errors were the parent's to read
        waiting: queue.SimpleQueue[Found] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
        for number in count(1):
            exhausted = _serve(waiting.get(), answers, settings)
            last = exhausted or number >= _RETIRE_FILES or _held_bytes() > _RETIRE_SHARE * settings.worker_memory_mb * 1_000_000
            wire.write(answers, Frame(Kind.LAST if last else Kind.END))
            answers.flush()
            if last:
                break
    except MemoryError:
        os._exit(MEMORY_EXIT)
    except BrokenPipeError:
        os._exit(0)             # nobody reads any more
    os._exit(0)                 # not through the interpreter's end: libraries may crash there


def _serve(found: Found, answers: IO[bytes], settings: Settings) -> bool:
    """Answers for one file. Returns whether memory ran out."""
    _allow_cpu(settings.max_file_s + _CPU_MARGIN_S)
    exhausted = False
    for item in load(found, settings=settings):
        frame = wire.of_item(item)
        exhausted = exhausted or (isinstance(item, FileFailure) and item.code == "file_memory")
        wire.write(answers, frame)
    return exhausted


def _listen(requests: IO[bytes], waiting: queue.SimpleQueue[Found]) -> None:
    """Ends the process with its input."""
    with suppress(ValueError, OSError):
        while (frame := wire.read(requests, largest=1 << 20)) is not None:
            waiting.put(wire.to_file(frame))
    os._exit(0)


def _channels() -> tuple[IO[bytes], IO[bytes]]:
    """Answers and requests, on descriptors that no library writes to by mistake."""
    answers = os.fdopen(os.dup(1), "wb", _BUFFER_BYTES)
    requests = os.fdopen(os.dup(0), "rb", _BUFFER_BYTES)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    return answers, requests


def _limit(settings: Settings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))    # a crash must not leave a file's contents on the disk
    # Linux counts for RLIMIT_DATA what a process really may write to, not the libraries that it maps.
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    _, hard = resource.getrlimit(kind)
    wanted = settings.worker_memory_mb * 1_000_000
    with suppress(ValueError, OSError):     # a system that knows no such limit
        resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _allow_cpu(seconds: float) -> None:
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        wanted = int(time.process_time() + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _held_bytes() -> int:
    """What counts for the limit now; 0 where the system does not tell. (Not the peak that `getrusage` gives: on Linux it begins
    with that of the parent.)"""
    try:
        with open("/proc/self/statm", encoding="ascii") as told:
            return int(told.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
