"""Encoder actors on the nodes of a cluster, and slices of work among them, done again elsewhere when an actor dies.

Each node has as many actors as its processors feed, and half a processor of it is left to parsing. An actor does its slices
in the order it was given them, so the one that it was at when it died is known: that one is counted against, those behind it
are not. Its neighbours get no new work until they have shown that they live, as it may have been the node. A dead actor is
replaced where its node still lives; a node that cannot open the encoder, or whose actors keep dying, is left out and said why.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from indexers.distributed.connection import ClusterUnavailable, Connection, Node, brief, import_ray
from indexers.distributed.models import Plan, Tokens
from indexers.distributed.placing import Share, shares
from indexers.distributed.remote import Encoded, EncodingActor, opened, own_version
from indexers.distributed.shipping import deliver
from indexers.distributed.slices import Slice, failed
from rag.errors import ConfigError, ModelCorrupt, ModelUnavailable, RagError

AHEAD = 2                       # slices an actor has at a time, so that it need not wait for the next
MAX_DEATHS = 3                  # actors that one slice may take with it
MAX_FALLS = 5                   # starts and deaths of actors on one node, without anything done between them
SLICE_S = 600.0                 # an actor that is at one slice for longer is taken for dead
START_S = 180.0
BARE_S = 10.0                   # nodes that lack the model's files wait this long for others, to be served at once
LOOK_S = 10.0                   # between two looks for nodes that have come
POLL_S = 1.0


@dataclass(slots=True)
class _Member:
    """An actor. `hello` is its answer to `open`; `queue` the calls it has, oldest first."""

    actor: Any
    node: Node
    hello: Any
    since: float                # when it began what it is doing
    bare: bool = False          # its node lacks the model's files
    ready: bool = False         # for work: it has opened the encoder, and is known to live
    queue: deque[tuple[Any, int]] = field(default_factory=deque)


class Pool:
    """Used by one thread at a time. `done` counts slices by node id."""

    def __init__(self, there: Connection, *, plan: Plan, tokens: Tokens, threads: int) -> None:
        self._ray = import_ray(there.address)
        self._there = there
        self._plan = plan
        self._tokens = tokens
        self._threads = threads
        self._members: list[_Member] = []
        self._left_out: dict[str, str] = {}     # node id to why
        self._falls: Counter[str] = Counter()
        self._served: set[str] = set()          # nodes that the files were sent to
        self._looked = -LOOK_S
        self.done: Counter[str] = Counter()

    def start(self) -> None:
        """Brings the actors on their way, and returns at once."""
        self._look()

    def planned(self) -> int:
        """Actors at work or on their way; at least 1."""
        self._look()
        return max(1, len(self._members))

    def run(self, slices: Sequence[Slice], *, with_terms: bool, on_done: Callable[[int, Encoded], None]) -> None:
        """Has every slice encoded; `on_done` hears its number and what came of it, in any order.

        Raises:
            EncodingFailed: a slice has ended MAX_DEATHS actors, or failed as often.
            ClusterUnavailable: no node can encode.
            RagError: what the encoder itself refused.
        """
        todo, deaths = deque(range(len(slices))), Counter[int]()
        left, waiting_since = len(slices), time.monotonic()
        try:
            while left:
                self._look()
                self._hand_out(todo, slices, with_terms)
                if any(member.ready for member in self._members):
                    waiting_since = time.monotonic()
                self._require_hope(waiting_since)
                for member, job, outcome in self._next():
                    if isinstance(outcome, str):
                        todo.extendleft(number for _, number in reversed(member.queue))
                        member.queue.clear()
                        deaths[job] += 1
                        if deaths[job] >= MAX_DEATHS:
                            raise failed(slices[job], outcome, times=MAX_DEATHS)
                    else:
                        on_done(job, outcome)
                        left -= 1
        finally:
            for member in self._members:
                member.queue.clear()    # after an error: what comes of it is nobody's

    def close(self) -> None:
        for member in self._members:
            self._kill(member)
        self._members = []

    def _hand_out(self, todo: deque[int], slices: Sequence[Slice], with_terms: bool) -> None:
        ready = [member for member in self._members if member.ready]
        while todo and ready:
            member = min(ready, key=lambda one: len(one.queue))
            if len(member.queue) >= AHEAD:
                return
            if not member.queue:
                member.since = time.monotonic()
            job = todo.popleft()
            member.queue.append((member.actor.encode.remote(slices[job].texts, with_terms=with_terms), job))

    def _next(self) -> list[tuple[_Member, int, Encoded | str]]:
        """Waits for something to happen. Of every slice that ended: who had it, its number, and what came of it or why
        nothing did; then it is the first of what the member leaves undone."""
        watched = {member.queue[0][0] if member.queue else member.hello: member
                   for member in self._members if member.queue or not (member.ready or member.bare)}
        ended: list[tuple[_Member, int, Encoded | str]] = []
        if watched:
            happened, _ = self._ray.wait(list(watched), num_returns=1, timeout=POLL_S)
        else:
            happened = []
            time.sleep(POLL_S / 10)
        for member in (watched[ref] for ref in happened):
            if member.queue:
                ended.append(self._result(member))
            else:
                self._welcome(member)
        self._serve_bare()
        for member in [one for one in self._members if one.queue and time.monotonic() - one.since > SLICE_S]:
            ended.append((member, member.queue[0][1], f"no answer within {SLICE_S:g} s"))
            self._lose(member, "does not answer; its work is done again")
        return ended

    def _result(self, member: _Member) -> tuple[_Member, int, Encoded | str]:
        ref, job = member.queue[0]
        member.since = time.monotonic()
        try:
            encoded: Encoded = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RagError):
                raise error.cause from error
            # The process lives, but what state is it in? And its words are not passed on: they might quote the text.
            self._lose(member, "failed; its work is done again")
            return member, job, f"it failed with {type(error.cause).__name__}"
        except self._ray.exceptions.RayError as error:
            self._lose(member, "is lost; its work is done again")
            return member, job, brief(error)
        member.queue.popleft()
        member.ready = True
        self._falls.pop(member.node.id, None)
        self.done[member.node.id] += 1
        return member, job, encoded

    def _look(self) -> None:
        """Starts what is missing on the nodes that are there now; from time to time, and at once after a loss."""
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        for node in self._there.nodes():
            if node.id not in self._left_out:
                wanted = shares(node, gpu=self._plan.gpu, threads=self._threads)
                have = sum(member.node.id == node.id for member in self._members)
                for share in wanted[have:]:
                    self._start(node, share)

    def _start(self, node: Node, share: Share) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = self._ray.remote(EncodingActor).options(
            num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0, max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        ).remote(self._plan, threads=share.threads, of_driver=own_version())
        self._members.append(_Member(actor, node, actor.open.remote(), time.monotonic()))

    def _welcome(self, member: _Member) -> None:
        """The answer to `open` is here."""
        own = opened(self._tokens)
        try:
            theirs = self._ray.get(member.hello)
        except self._ray.exceptions.RayTaskError as error:
            if _lacking(error.cause) and member.node.id not in self._served:
                member.bare, member.since = True, time.monotonic()
            else:
                self._leave_out(member.node, brief(error.cause))
        except self._ray.exceptions.RayError as error:
            self._lose(member, f"is not there ({brief(error)})")
        else:
            if theirs != own:
                self._leave_out(member.node, f"it has {theirs}, the driver has {own}")
            else:
                member.ready, member.since = True, time.monotonic()

    def _serve_bare(self) -> None:
        """Sends the model to the nodes that lack it, once all that are starting have said whether they do."""
        bare = [member for member in self._members if member.bare]
        starting = any(not member.ready and not member.bare for member in self._members)
        if not bare or (starting and time.monotonic() - min(member.since for member in bare) < BARE_S):
            return
        nodes = {member.node.id: member.node for member in bare}
        problems = deliver(self._plan, nodes=list(nodes.values()), there=self._there)
        self._served |= nodes.keys()
        for member in bare:
            if member.node.id in problems:
                self._leave_out(member.node, problems[member.node.id])
            else:
                member.bare, member.hello, member.since = False, member.actor.open.remote(), time.monotonic()

    def _leave_out(self, node: Node, why: str) -> None:
        """Nothing more is started there; who is at work there goes on."""
        if node.id in self._left_out:
            return
        self._left_out[node.id] = f"{node.host}: {why}"
        for member in [one for one in self._members if one.node.id == node.id and not (one.ready or one.queue)]:
            self._kill(member)
            self._members.remove(member)
        self._there.tell(f"without {self._left_out[node.id]}")

    def _lose(self, member: _Member, why: str) -> None:
        self._kill(member)
        self._members.remove(member)
        self._looked = -LOOK_S
        for other in self._members:
            if other.node.id == member.node.id and other.ready:
                other.ready = False
                if not other.queue:
                    other.hello, other.since = other.actor.open.remote(), time.monotonic()
        self._there.tell(f"the encoder on {member.node.host} {why}")
        self._falls[member.node.id] += 1
        if self._falls[member.node.id] >= MAX_FALLS:
            self._leave_out(member.node, f"its encoders ended {MAX_FALLS} times in a row; the last one {why}")

    def _kill(self, member: _Member) -> None:
        with suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(member.actor)

    def _require_hope(self, since: float) -> None:
        name, reasons = self._tokens.name, "; ".join(self._left_out.values())
        if not self._members and self._left_out and not [n for n in self._there.nodes() if n.id not in self._left_out]:
            raise ClusterUnavailable(f"No node of the Ray cluster can encode with {name}. {reasons}.",
                                     hint="Install thriftrag[ray] in the same version on every node, and the model's extra.")
        if time.monotonic() - since > START_S:
            raise ClusterUnavailable(f"No encoder {name} came up on the Ray cluster in {START_S:g} s{reasons and ': '}{reasons}.",
                                     hint="Check that its nodes have processors free: `ray status`.")


def _lacking(error: object) -> bool:
    """Whether the node only wants the model's files, or those of its 8-bit ranges."""
    return isinstance(error, ModelUnavailable | ModelCorrupt) or (isinstance(error, ConfigError) and error.field == "precision")
