"""A model's files from the driver to the nodes that lack them: each piece goes into the object store once, for all of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from indexers.distributed.connection import Connection, Node, brief, import_ray
from indexers.distributed.models import Parcel, Plan, Receiver, Welcome
from rag.errors import ModelUnavailable
from rag.types import Progress

IN_FLIGHT = 3                   # pieces in the object store at a time
STEP_S = 300.0
BUSY_S = 1.0                    # between two looks at a node where another process is at it


class ReceivingActor:
    """A `Receiver` on a node."""

    def __init__(self, plan: Plan, parcel: Parcel) -> None:
        self._receiver: Receiver = plan.receiver(parcel)

    def begin(self) -> Welcome:
        return self._receiver.begin()

    def write(self, file: str, piece: bytes) -> None:
        self._receiver.write(file, piece)

    def finish(self) -> None:
        self._receiver.finish()


def deliver(plan: Plan, *, nodes: Sequence[Node], there: Connection) -> dict[str, str]:
    """Brings the plan's model to the nodes. Returns, by node id, why one did not get it; the others have it, checked.

    Raises:
        ModelUnavailable: the driver's own files cannot be read.
    """
    parcel = plan.parcel()
    if parcel is None:
        return {node.id: "it does not have the model, and only models that run in OpenVINO are sent" for node in nodes}
    delivery = _Delivery(plan, parcel, nodes, there)
    try:
        delivery.run()
    finally:
        delivery.close()
    return delivery.problems


class _Delivery:
    """One parcel on its way to several nodes; a node that fails drops out and is noted in `problems`."""

    def __init__(self, plan: Plan, parcel: Parcel, nodes: Sequence[Node], there: Connection) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray = import_ray(there.address)
        self._parcel = parcel
        self._there = there
        self.problems: dict[str, str] = {}
        self._actors = {
            node.id: self._ray.remote(ReceivingActor).options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(plan, parcel)
            for node in nodes}

    def run(self) -> None:
        waiting, since = set(self._actors), time.monotonic()
        while waiting:
            answers = self._settled({node: self._actors[node].begin.remote() for node in waiting})
            wanting = {node for node, answer in answers.items() if answer == "wanted"}
            self._send(wanting)
            waiting = {node for node, answer in answers.items() if answer == "busy"}
            if waiting and not wanting:
                if time.monotonic() - since > STEP_S:
                    self.problems |= dict.fromkeys(waiting, "another process has been writing its copy of the model for too long")
                    return
                time.sleep(BUSY_S)

    def close(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)

    def _send(self, wanting: set[str]) -> None:
        under_way: deque[dict[str, Any]] = deque()
        sent = 0
        for file, piece in self._pieces() if wanting else ():
            wanting = wanting - self.problems.keys()
            held = self._ray.put(piece)
            under_way.append({node: self._actors[node].write.remote(file, held) for node in wanting})
            if len(under_way) >= IN_FLIGHT:
                self._settled(under_way.popleft())
            sent += len(piece)
            self._there.on_progress(Progress("send", sent, self._parcel.size, "bytes", self._parcel.name))
        for calls in under_way:
            self._settled(calls)
        self._settled({node: self._actors[node].finish.remote() for node in wanting - self.problems.keys()})

    def _settled(self, calls: Mapping[str, Any]) -> dict[str, Any]:
        """What the calls returned, for the nodes where they did."""
        errors, results = self._ray.exceptions, {}
        for node, call in calls.items():
            try:
                results[node] = self._ray.get(call, timeout=STEP_S)
            except errors.RayTaskError as error:
                self.problems[node] = brief(error.cause)
            except errors.RayError as error:
                self.problems[node] = f"it was lost while the model was sent ({type(error).__name__})"
        return results

    def _pieces(self) -> Iterator[tuple[str, bytes]]:
        try:
            yield from self._parcel.pieces()
        except OSError as error:
            raise ModelUnavailable(f"{self._parcel.folder} cannot be read: {error.strerror}.",
                                   hint="Pull or copy the model again.") from error
