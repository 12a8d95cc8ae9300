"""The parent's side of `rag.llm.worker`: starts the process, hands it requests, and notices when it dies.

Nothing here blocks on the process: orders are written by one thread and answers read by another, so a caller can always
leave on time, whatever the process is doing.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rag.errors import ModelRefused, ModelUnavailable, RagError
from rag.llm.card import ReaderCard

Message = Mapping[str, object]
_WORKER = Path(__file__).with_name("worker.py")
_LEAVE_S = 3.0                  # what a worker gets to end by itself


def worker_command(folder: Path, card: ReaderCard, *, cache_gb: int, prefix_cache: bool = True) -> list[str]:
    """How to start the worker. By path and with -P, so that it runs wherever this package was found, and sees none of it."""
    eos = ",".join(str(number) for number in card.eos_ids)
    return [sys.executable, "-P", str(_WORKER), str(folder.resolve()), str(cache_gb), eos,
            "prefix" if prefix_cache else "no-prefix"]


@dataclass(frozen=True, slots=True)
class Ticket:
    """One request: what the worker says about it arrives in `inbox`, an error as the last thing."""

    number: int
    inbox: queue.SimpleQueue[Message | RagError] = field(default_factory=queue.SimpleQueue)


class Engine:
    """One worker process, started at once. Thread-safe. When it dies, requests get ModelUnavailable and `alive` is False."""

    def __init__(self, command: Sequence[str], *, name: str) -> None:
        self._name = name
        self._log = tempfile.TemporaryFile()    # noqa: SIM115  # closed with the process
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)
        except OSError as error:
            self._log.close()
            raise ModelUnavailable(f"The process for {name} cannot be started: {error.strerror}.",
                                   hint="Check that Python can start processes here.") from error
        self._orders: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._tickets: dict[int, Ticket] = {}
        self._numbers = 0
        self._unanswered_since: float | None = None
        self._over: RagError | None = None
        self._lock = threading.Lock()
        assert self._process.stdin is not None      # both were asked for
        assert self._process.stdout is not None
        self._threads = [threading.Thread(target=self._write, args=(self._process.stdin,), daemon=True),
                         threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return self._over is None and self._process.poll() is None

    @property
    def silent_s(self) -> float:
        """How long the process has said nothing although it was asked something; 0 when it owes no answer."""
        since = self._unanswered_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def pid(self) -> int:
        return self._process.pid

    def submit(self, ids: Sequence[int], *, max_tokens: int, schema: str | None = None) -> Ticket:
        """Queues a request; the worker may still be loading. `schema`: JSON, which the answer is then held to.

        Raises:
            ModelUnavailable: the worker has died.
        """
        with self._lock:
            if self._over is not None:
                raise self._over
            self._numbers += 1
            ticket = Ticket(self._numbers)
            self._tickets[ticket.number] = ticket
            self._unanswered_since = self._unanswered_since or time.monotonic()
        order: dict[str, object] = {"id": ticket.number, "ids": list(ids), "max_tokens": max_tokens}
        self._orders.put(order if schema is None else {**order, "schema": schema})
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Stops a request and frees its place after the step that is running. Harmless after its end."""
        with self._lock:
            known = self._tickets.pop(ticket.number, None)
        if known is not None:
            self._orders.put({"cancel": ticket.number})

    def close(self) -> None:
        """Ends the process; whoever still waits gets ModelUnavailable."""
        self._fail(ModelUnavailable(f"{self._name} was closed."))
        self._orders.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LEAVE_S)        # closing its stdin asked it to leave
        self.kill()

    def kill(self) -> None:
        """Ends a process that hangs."""
        self._fail(ModelUnavailable(f"The process for {self._name} hung and was ended.", hint="Ask again."))
        self._process.kill()
        self._process.wait()

    def _write(self, stdin: IO[bytes]) -> None:
        # A broken pipe is the death that the reading thread reports.
        with contextlib.suppress(OSError), stdin:
            while (order := self._orders.get()) is not None:
                stdin.write(json.dumps(order).encode() + b"\n")
                stdin.flush()

    def _read(self, stdout: IO[bytes]) -> None:
        with stdout:
            for line in stdout:
                self._dispatch(line)
        code = self._process.wait()
        self._fail(ModelUnavailable(f"The process for {self._name} ended with code {code}{self._last_words()}.",
                                    hint="It is started again with the next question. Check the memory that is free."))
        self._orders.put(None)
        self._log.close()

    def _dispatch(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return                          # not ours: the exit code will tell
        if "fatal" in message:
            self._fail(ModelUnavailable(f"{self._name} cannot run: {message['fatal']}",
                                        hint="Check the free memory, and the files with `thriftrag models verify`."))
            return
        number = message.get("id")
        with self._lock:
            concerned = list(self._tickets) if number is None else [number]
            waiting = [self._tickets[number] for number in concerned if number in self._tickets]
            if "end" in message or "refused" in message:
                self._tickets.pop(number, None)
            self._unanswered_since = time.monotonic() if self._tickets else None
        for ticket in waiting:
            ticket.inbox.put(_refusal(self._name, message) or message)

    def _fail(self, error: RagError) -> None:
        with self._lock:
            self._over = self._over or error
            waiting = list(self._tickets.values())
            self._tickets.clear()
        for ticket in waiting:
            ticket.inbox.put(self._over)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1][:200]})" if lines else ""


def _refusal(name: str, message: Message) -> RagError | None:
    if "refused" in message:
        return ModelRefused(f"{name} refused the prompt: {message['refused']}")
    if message.get("end") == "full":
        return ModelUnavailable(f"The cache of {name} is full: the prompt and its answer do not fit.",
                                hint="Raise reader_cache_gb, or use a smaller budget.", field="reader_cache_gb")
    return None

