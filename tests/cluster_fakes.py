"""A real Ray cluster of two nodes on the loopback interface, and encoders for it that need no model. Import before `ray`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexers.distributed.connection import LOOPBACK, QUIET
from indexers.distributed.models import Parcel, Receiver
from indexers.distributed.remote import Order, Parsed
from indexers.encoders import Encoder, Vectors
from rag.errors import ModelUnavailable
from tests.fakes import WordEncoder

os.environ.update(LOOPBACK | QUIET)
STORE_BYTES = 100 << 20
# Ray's own pace would find a dead node after fifteen seconds.
PACE = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_timeout_ms": 1000,
        "health_check_failure_threshold": 3}


@dataclass(frozen=True)
class WordPlan:
    """`WordEncoder` on every node. `delay_s` for each text, so that there is a middle to be killed in. A text that contains
    `fatal` kills the process, one that contains `bad` raises, one that contains `endless` never ends; where `once` is given,
    only until that file is there, which is made then."""

    delay_s: float = 0.0
    fatal: str = ""
    bad: str = ""
    endless: str = ""
    once: Path | None = None
    gpu: bool = False

    def local(self) -> WordEncoder:
        return WordEncoder()

    def open(self, *, threads: int) -> Encoder:
        return _Words(self)

    def parcel(self) -> Parcel | None:
        return None

    def receiver(self, parcel: Parcel) -> Receiver:
        raise AssertionError("there is nothing to send")


@dataclass(frozen=True)
class OtherPlan(WordPlan):
    """The nodes have another encoder than the driver, or none at all."""

    missing: bool = False

    def open(self, *, threads: int) -> Encoder:
        if self.missing:
            raise ModelUnavailable("words@1 is not on this node.")
        return WordEncoder("other@1", dimension=32)


class _Words(WordEncoder):
    def __init__(self, plan: WordPlan) -> None:
        super().__init__()
        self._plan = plan

    def encode(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> Vectors:
        for text in texts:
            time.sleep(self._plan.delay_s)
            for name in ("fatal", "bad", "endless"):
                mark = getattr(self._plan, name)
                if mark and mark in text and not (self._plan.once and self._plan.once.exists()):
                    if self._plan.once:
                        self._plan.once.touch()
                    _TROUBLE[name]()
        return super().encode(texts, on_batch=on_batch)


def _raise() -> None:
    raise RuntimeError("cannot encode the secret text")


def die_parsing(orders: Sequence[Order], **_: object) -> Parsed:
    """In the place of `parse_files`: kills its process for a file that is called bad."""
    if any("bad" in order.found.path.name for order in orders):
        os.kill(os.getpid(), signal.SIGKILL)
    return Parsed("node", [[] for _ in orders])


_TROUBLE: dict[str, Callable[[], object]] = {
    "fatal": lambda: os.kill(os.getpid(), signal.SIGKILL), "bad": _raise, "endless": lambda: time.sleep(600)}


class TwoNodes:
    """A head that the driver is attached to and a second node that may be killed, one processor each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(initialize_head=True, head_node_args={**_node(), "_system_config": PACE})
        self.second: Any = self._cluster.add_node(**_node())

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def whole(self) -> TwoNodes:
        """Both nodes, also after one was killed."""
        if self.second is None:
            self.second = self._cluster.add_node(**_node())
        return self

    def kill_second(self) -> str:
        """Every process of the second node, with SIGKILL. Returns its id."""
        gone, self.second = self.second, None
        self._cluster.remove_node(gone, allow_graceful=False)
        return str(gone.node_id)

    def close(self) -> None:
        self._cluster.shutdown()


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    nodes = TwoNodes()
    try:
        yield nodes
    finally:
        nodes.close()


def write_files(folder: Path, count: int, *, words: int = 60) -> Path:
    """Text files, no two alike, of several sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        sentences = [f"Sentence {j} of file {i} speaks of otter {i * 7 + j} and river {j % 5}." for j in range(words // 10)]
        (folder / f"file-{i:03}.txt").write_text(" ".join(sentences), encoding="utf-8")
    return folder


def _node() -> dict[str, object]:
    return {"num_cpus": 1, "object_store_memory": STORE_BYTES, "node_ip_address": "127.0.0.1", "include_dashboard": False}
