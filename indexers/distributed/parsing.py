"""`RayParsing`: files parsed by tasks on the nodes of a Ray cluster, some ahead, results in order.

A node reads a file itself where it sees the very file that the driver sees (same size, same time of modification). The first
file that a node does not see settles that the file systems are not shared: from then on the driver reads the bytes and sends
them. Small files share a task, as one costs milliseconds whatever it does. What is under way is bounded in tasks and in bytes.
A task whose node dies is done again elsewhere, by Ray itself; one that dies too often is done again file by file.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from indexers.distributed.connection import ClusterUnavailable, Connection, import_ray
from indexers.distributed.remote import Order, Parsed, Stamp, own_version, parse_files, without_secrets
from indexers.loaders import Found, load
from indexers.loaders.reading import read_file
from rag.errors import RagError
from rag.settings import Settings
from rag.types import Document, FileFailure

Ship = Literal["auto", "always", "never"]
Items = list[Document | FileFailure]

TASK_CPUS = 0.25                # two tasks at a time in the half processor that the encoder leaves on each node
AHEAD_PER_NODE = 4              # tasks under way for each node: two at work, two that wait
AHEAD_BYTES = 64 << 20          # of files under way, but always one task
TASK_FILES = 16
TASK_BYTES = 256 << 10          # of the files of one task, but always one file
RETRIES = 3                     # for a node or process that dies
STALL_S = 300.0                 # on top of what the files of a task may take
LOOK_S = 10.0                   # between two looks at how many nodes there are
POLL_S = 1.0


@dataclass(slots=True)
class _Task:
    """Files that one task parses. `call`: its result to come; None where the driver itself cannot read them, and would have to."""

    files: list[Found]
    call: Any
    size: int


class RayParsing:
    """Fulfils `Parsing`. `ship`: whether the driver sends the bytes, `auto` once a node does not see a file."""

    def __init__(self, there: Connection, *, settings: Settings, ship: Ship = "auto") -> None:
        self._ray = import_ray(there.address)
        self._there = there
        self._settings = settings
        self._sending = ship == "always"
        self._may_send = ship != "never"
        self._sent_settings: Any = None
        self._task = self._ray.remote(parse_files).options(num_cpus=TASK_CPUS, max_retries=RETRIES, scheduling_strategy="SPREAD")
        self._most = 0              # tasks ahead
        self._looked = -LOOK_S
        self._done: Counter[str] = Counter()

    @property
    def shares(self) -> dict[str, int]:
        """Files parsed so far, by node id."""
        return dict(self._done)

    def parse(self, files: Iterable[Found]) -> Iterator[tuple[Found, Iterator[Document | FileFailure]]]:
        """Files in the order given, each with its documents, bad ones as failures.

        Raises:
            ClusterUnavailable: the cluster parses nothing any more.
            ConfigError: a node runs another version.
        """
        self._sent_settings = self._ray.put(without_secrets(self._settings))
        waiting: deque[_Task] = deque()
        groups = _grouped(files)
        try:
            while True:
                self._fill(waiting, groups)
                if not waiting:
                    return
                task = waiting.popleft()
                for found, items in zip(task.files, self._results(task), strict=True):
                    yield found, iter(items)
        finally:
            for task in waiting:
                if task.call is not None:
                    self._ray.cancel(task.call)

    def _fill(self, waiting: deque[_Task], groups: Iterator[list[Found]]) -> None:
        if time.monotonic() - self._looked > LOOK_S:
            self._looked, self._most = time.monotonic(), AHEAD_PER_NODE * max(1, len(self._there.nodes()))
        while len(waiting) < self._most and (not waiting or sum(task.size for task in waiting) < AHEAD_BYTES):
            group = next(groups, None)
            if group is None:
                return
            waiting.append(self._submit(group, send=self._sending))

    def _submit(self, files: list[Found], *, send: bool) -> _Task:
        orders = [self._order(found, send=send) for found in files]
        size = sum(found.size for found in files)
        if any(order is None for order in orders):
            return _Task(files, None, size)
        return _Task(files, self._task.remote(orders, settings=self._sent_settings, of_driver=own_version()), size)

    def _order(self, found: Found, *, send: bool) -> Order | None:
        """None where the driver does not see the file or cannot read it, and would have to."""
        if send:
            try:
                return Order(found, data=read_file(found.path, settings=self._settings))
            except RagError:
                return None
        if not self._may_send:
            return Order(found)
        stamp = _stamp(found)
        return None if stamp is None else Order(found, stamp=stamp)

    def _results(self, task: _Task) -> Iterator[Items]:
        """What each file of a task holds. A file with which the whole does not succeed is done again alone."""
        parsed = self._parsed(task)
        if isinstance(parsed, Parsed):
            for found, items in zip(task.files, parsed.documents, strict=True):
                if items is None:
                    self._sending = True
                    yield from self._results(self._submit([found], send=True))
                else:
                    self._done[parsed.node] += 1
                    yield items
        elif len(task.files) > 1:
            for found in task.files:
                yield from self._results(self._submit([found], send=self._sending))
        elif isinstance(parsed, FileFailure):
            yield [parsed]
        else:
            yield list(load(task.files[0], settings=self._settings))    # says what is wrong with it

    def _parsed(self, task: _Task) -> Parsed | FileFailure | None:
        """A failure where the processes died; None where the driver could not read."""
        if task.call is None:
            return None
        errors, source = self._ray.exceptions, task.files[0].source
        self._await(task)
        try:
            parsed: Parsed = self._ray.get(task.call)
        except errors.RayTaskError as error:
            if isinstance(error.cause, RagError):
                raise error.cause from error
            raise ClusterUnavailable(f"The nodes of the Ray cluster cannot parse: {type(error.cause).__name__}: {error.cause}.",
                                     hint="Install thriftrag[ray] in the same version on every node.") from error
        except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError, errors.ObjectLostError) as error:
            why = f"{source}: The process that parsed it ended {RETRIES + 1} times ({type(error).__name__})."
            return FileFailure(source, "parser_died", why, "Leave it out, or give the nodes more memory.")
        return parsed

    def _await(self, task: _Task) -> None:
        started = time.monotonic()
        limit_s = STALL_S + 2 * len(task.files) * self._settings.max_file_s
        while not self._ray.wait([task.call], num_returns=1, timeout=POLL_S)[0]:
            if time.monotonic() - started > limit_s:
                raise ClusterUnavailable(f"The Ray cluster has not parsed {task.files[0].source} within {limit_s:g} s.",
                                         hint="Check that its nodes have processors free: `ray status`.")


def _grouped(files: Iterable[Found]) -> Iterator[list[Found]]:
    """Neighbours that share a task. A file is taken from `files` only when its group is asked for."""
    group: list[Found] = []
    size = 0
    for found in files:
        if group and (len(group) == TASK_FILES or size + found.size > TASK_BYTES):
            yield group
            group, size = [], 0
        group.append(found)
        size += found.size
    if group:
        yield group


def _stamp(found: Found) -> Stamp | None:
    """What a node must see to read the file itself; None where the driver does not see it either."""
    try:
        status = os.stat(found.path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
