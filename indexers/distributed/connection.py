"""The connection to a Ray cluster: found, checked, used, and left as it was.

`ray_address` is `local` (a cluster of this machine alone, started here and stopped at the end), `auto` (one that runs on this
machine), HOST:PORT (its head; this machine must be one of its nodes) or ray://HOST:PORT (its client server, from anywhere).
Ray's own attempt to connect cannot be broken off and takes minutes to fail, so an address is tried by a process of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rag.errors import ConfigError, RagError, UpstreamError
from rag.settings import Settings
from rag.types import OnProgress, Progress, no_progress

ANSWER_S = 40.0
CONNECT_S = 5.0
LOCAL_STORE_BYTES = 512 << 20
CLIENT = "ray://"
# Read by Ray when it is imported. Its reports of what the cluster does go to stdout, which is not theirs: what matters is told
# by us. And where it is told that this is no machine for clusters, it listens on the loopback interface alone.
QUIET = {"RAY_DEDUP_LOGS_SKIP_REGEX": "^"}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_LONGEST = 200
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_TRY = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='error'); ray.shutdown()"


class ClusterUnavailable(UpstreamError):
    """The Ray cluster does not answer, or is of no use to us."""

    code = "cluster_unavailable"


@dataclass(frozen=True, slots=True)
class Node:
    """A machine (or a part of one) that can work."""

    id: str
    host: str
    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection. `started`: the cluster began with it and ends with it."""

    address: str
    started: bool
    on_progress: OnProgress = no_progress

    def nodes(self) -> list[Node]:
        """The nodes that are alive now and have processors to lend, by id."""
        ray = import_ray(self.address)
        alive = [(row, row["Resources"]) for row in ray.nodes() if row["Alive"]]
        return sorted((Node(str(row["NodeID"]), str(row["NodeManagerHostname"]), float(has["CPU"]), float(has.get("GPU", 0)))
                       for row, has in alive if has.get("CPU")), key=lambda node: node.id)

    def tell(self, note: str) -> None:
        """A line for whoever watches: nodes at work, and what happens to them."""
        now = len(self.nodes())
        self.on_progress(Progress("cluster", now, now, "nodes", note))


@contextmanager
def connect(settings: Settings, *, on_progress: OnProgress = no_progress, answer_s: float = ANSWER_S) -> Iterator[Connection]:
    """Connects to `settings.ray_address`; a connection that the program has already is used and left open.

    Raises:
        ConfigError: Ray is not installed, or the address is none.
        ClusterUnavailable: nothing answers there within `answer_s`, or not as a cluster that this version of Ray can use.
    """
    address = checked_address(settings.ray_address)
    with ExitStack() as stack:
        stack.enter_context(_environment(**QUIET, **(LOOPBACK if address == "local" else {})))
        ray = import_ray(address)
        if ray.is_initialized():
            yield Connection(address, started=False, on_progress=on_progress)
            return
        note = "starting Ray here" if address == "local" else f"connecting to {address}"
        on_progress(Progress("cluster", 0, None, "nodes", note))
        if address == "local":
            _start(ray, stack, cpus=settings.threads or available_cpus())
        else:
            _try(address, limit_s=answer_s)
            _init(ray, address)
            stack.callback(ray.shutdown)
        found = Connection(address, started=address == "local", on_progress=on_progress)
        found.tell("connected")
        yield found


def import_ray(address: str = "") -> Any:
    """The library, whose own types say less than they promise.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"ray_address = {address!r} needs Ray, which is not installed ({error}).", field="ray_address",
                          hint="pip install 'thriftrag[ray]', or leave ray_address empty to ingest in one process.",
                          code="extra_missing") from error
    return ray


def checked_address(address: str) -> str:
    """
    Raises:
        ConfigError: neither local, auto, HOST:PORT nor ray://HOST:PORT.
    """
    cleaned = address.strip()
    if cleaned in ("local", "auto"):
        return cleaned
    _host_and_port(cleaned)
    return cleaned


def available_cpus() -> int:
    """Processors that this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def brief(error: BaseException | None) -> str:
    """A clause, without the full stop. Of Ray's own errors the last line: before it, they tell at length where it happened."""
    if isinstance(error, RagError):
        return error.message.rstrip(".")
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    said = lines[-1] if lines else type(error).__name__
    return said.rstrip(".") if len(said) <= _LONGEST else f"{said[:_LONGEST].rsplit(' ', 1)[0]} ..."


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in ("", "ray") or parts.path not in ("", "/"):
        raise ConfigError(f"ray_address = {address!r} is no address of a Ray cluster.", field="ray_address",
                          hint="Use local, auto, HOST:PORT (the head's, as `ray start` prints it) or ray://HOST:PORT.")
    return host, port


def _start(ray: Any, stack: ExitStack, *, cpus: int) -> None:
    """A cluster of one node on the loopback interface, in a folder of its own, without dashboard and statistics."""
    # Sockets live in there, and their paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="thriftrag-ray-", dir="/tmp" if os.path.isdir("/tmp") else None))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    _init(ray, "local", num_cpus=cpus, object_store_memory=LOCAL_STORE_BYTES, include_dashboard=False, _temp_dir=str(folder))
    stack.callback(ray.shutdown)
    [address] = {row["NodeManagerAddress"] for row in ray.nodes()}
    if not ip_address(address).is_loopback:
        raise ClusterUnavailable(
            f"Ray would listen on {address}, where others can reach it, because it was imported before this could be settled.",
            hint="Import thriftrag's cluster before ray, or start a cluster of your own and set ray_address to auto.")


def _init(ray: Any, address: str, **options: object) -> None:
    try:
        with _keeping_sigterm():
            ray.init(address=address, log_to_driver=False, logging_level="error", **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterUnavailable(f"Ray at {address!r} cannot be used: {brief(error)}.", field="ray_address",
                                 hint="See what it logged; `ray status` tells how a cluster is.") from error


def _try(address: str, *, limit_s: float) -> None:
    """Connects once in a child process that can be ended. Nothing listening is found without waiting for it."""
    hint = ("Check that the cluster runs and the port is its own: 6379 of the head for HOST:PORT from one of its nodes, 10001 "
            "for ray://HOST:PORT from elsewhere. One that asks for a token wants RAY_AUTH_MODE=token in the environment. "
            "`local` starts one here.")
    if address != "auto":
        try:
            socket.create_connection(_host_and_port(address), timeout=min(CONNECT_S, limit_s)).close()
        except OSError as error:
            raise ClusterUnavailable(f"Nothing answers at the Ray address {address}: {error}.", hint=hint,
                                     field="ray_address") from error
    try:
        tried = subprocess.run([sys.executable, "-c", _TRY, address], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                               errors="replace", timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise ClusterUnavailable(f"The Ray address {address} does not answer within {limit_s:g} s.", hint=hint,
                                 field="ray_address") from None
    if tried.returncode:
        raise ClusterUnavailable(f"There is no Ray cluster to use at {address}: {_last_line(tried.stderr)}", hint=hint,
                                 field="ray_address")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "the attempt ended without a word."


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Variables that Ray and the processes it starts read, for as long as they are needed. What is set already stays."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in place; the program's comes back."""
    before: Callable[..., object] | int | None = None
    if threading.current_thread() is threading.main_thread():
        before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
