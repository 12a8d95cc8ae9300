"""How the processors of a node are shared between encoder actors and the tasks that parse."""

from __future__ import annotations

from dataclasses import dataclass

from indexers.distributed.connection import Node

PARSING_CPUS = 0.5              # of each node, left to the tasks that parse
ACTOR_CPUS = 4                  # more threads than this gain little on batches of the encoder's size


@dataclass(frozen=True, slots=True)
class Share:
    """What one actor takes of a node."""

    cpus: float
    gpus: int
    threads: int


def shares(node: Node, *, gpu: bool, threads: int) -> list[Share]:
    """The actors of a node. `gpu`: one for each graphics processor where there are any. `threads`: 0 divides the node's."""
    gpus = int(node.gpus) if gpu else 0
    count = gpus or max(1, int(node.cpus // ACTOR_CPUS))
    cpus = int((node.cpus - min(PARSING_CPUS, node.cpus / 2)) / count * 100) / 100
    return [Share(cpus, 1 if gpus else 0, threads or max(1, int(node.cpus // count)))] * count
