"""Reading uploaded files in, in a process of its own: answers keep their pace, memory comes back, and a crash of a parser or a
model takes no server with it.

The parent writes the order and later perhaps `cancel` to the child's stdin, a JSON object a line, and reads progress, the report or
an error from its stdout. A child whose parent is gone stops by itself after the batch in hand; what it published stays.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from api.handover import settings_of, settings_row
from rag.errors import Locked, RagError
from rag.settings import Settings
from rag.types import FileFailure, IngestReport, OnProgress, Progress

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from api.ingesting import main; sys.exit(main())"
_TICK_S = 0.1                   # progress is told at most so often
_POLL_S = 0.1
_STOP_S = 60.0                  # a cancelled child may finish its batch in this time
_NICE = 5                       # answers first


@dataclass(frozen=True, slots=True)
class Order:
    """What to read in: files by name in `folder`, into a collection. `settings.home` says where that lives."""

    settings: Settings
    collection: str
    folder: Path
    names: tuple[str, ...]


Runner = Callable[[Order, OnProgress, Callable[[], bool]], IngestReport]


def in_child(order: Order, on_progress: OnProgress, cancelled: Callable[[], bool]) -> IngestReport:
    """Runs the order in a child process and waits for it.

    Raises:
        RagError: what ingestion raised there; `ingestion_died` if the process ended without a word.
    """
    path = json.dumps([os.path.abspath(entry) for entry in sys.path if entry or Path("api").is_dir()])
    child = subprocess.Popen([sys.executable, "-I", "-c", _BOOT, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True, encoding="utf-8", process_group=0)
    said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    listening = threading.Thread(target=_listen, args=(cast("IO[str]", child.stdout), said), daemon=True)
    listening.start()
    try:
        _say(cast("IO[str]", child.stdin), _order_row(order))
        return _followed(child, said, on_progress, cancelled)
    except BrokenPipeError as error:
        raise _died(child) from error
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        listening.join()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue


def _followed(child: subprocess.Popen[str], said: queue.SimpleQueue[dict[str, Any] | None], on_progress: OnProgress,
              cancelled: Callable[[], bool]) -> IngestReport:
    until = float("inf")
    while True:
        if until == float("inf") and cancelled():
            _say(cast("IO[str]", child.stdin), {"cancel": True})
            until = time.monotonic() + _STOP_S
        if time.monotonic() > until:
            raise RagError(f"Ingestion did not stop within {_STOP_S:g} s and was ended.", code="ingestion_killed",
                           hint="What it published stays; upload the rest again.")
        try:
            message = said.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        if message is None:
            raise _died(child)
        if "progress" in message:
            on_progress(Progress(**message["progress"]))
        elif "report" in message:
            return _report(message["report"])
        else:
            raise _error(message["error"])


def _error(told: dict[str, Any]) -> RagError:
    """What the child raised; of its classes only the one that is worth waiting for is told apart."""
    kind = Locked if told["code"] == Locked.code else RagError
    return kind(told["message"], hint=told["hint"] or "", field=told["field"], code=told["code"])


def _died(child: subprocess.Popen[str]) -> RagError:
    code = child.wait(timeout=_STOP_S)
    return RagError(f"The ingestion process ended with exit code {code}.", code="ingestion_died",
                    hint="What it published stays; upload the files again. The server's log may say why.")


def _listen(stream: IO[str], said: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    for line in stream:
        said.put(json.loads(line))
    said.put(None)


def _say(stream: IO[str], message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def _order_row(order: Order) -> dict[str, Any]:
    return {"settings": settings_row(order.settings), "collection": order.collection, "folder": str(order.folder),
            "names": list(order.names)}


def _report(row: dict[str, Any]) -> IngestReport:
    listed = {name: tuple(FileFailure(**failure) for failure in row[name]) for name in ("failures", "skipped")}
    return IngestReport(**{**row, **listed})


def main() -> int:
    """The child: one order from stdin, then its report or error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)               # native libraries may print: keep that out of the protocol
    if hasattr(os, "nice"):
        os.nice(_NICE)
    row = json.loads(sys.stdin.readline())
    stop = threading.Event()
    threading.Thread(target=_await_cancel, args=(stop,), daemon=True).start()
    order = Order(settings_of(row["settings"]), row["collection"], Path(row["folder"]), tuple(row["names"]))
    # So that a document's source is its bare name, as its owner knows it. Nothing is ever imported from a relative path here.
    os.chdir(order.folder)
    try:
        _say(out, {"report": here(order, _ticking(out), stop.is_set).to_dict()})
    except RagError as error:
        _say(out, {"error": error.to_dict()})
    except BrokenPipeError:
        return 1
    return 0


def here(order: Order, on_progress: OnProgress, cancelled: Callable[[], bool]) -> IngestReport:
    """Reads the files in, in this process, whose current folder must be the order's."""
    from rag.thriftrag import ThriftRAG

    with ThriftRAG.open(order.collection, create=False, settings=order.settings) as kb:
        return kb.ingest(*order.names, on_progress=on_progress, cancelled=cancelled)


def _ticking(out: IO[str]) -> OnProgress:
    last = 0.0
    lock = threading.Lock()

    def tick(progress: Progress) -> None:
        nonlocal last
        with lock:
            if time.monotonic() - last >= _TICK_S:
                last = time.monotonic()
                _say(out, {"progress": dataclasses.asdict(progress)})

    return tick


def _await_cancel(stop: threading.Event) -> None:
    """Set by a line or by the end of the parent."""
    sys.stdin.readline()
    stop.set()
