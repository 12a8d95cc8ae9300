"""Iterated second looks: retrieve, find what the best passages mention, retrieve again, until nothing new is gained.

    first look -> mentions of its best passages -> chance of all that was met -> mentions of the best not yet followed -> ...

Each round follows mentions as `retrievers.second_look` does and keeps one trail of what was asked and met, so that no text is
searched twice. Source: iterative retrieval for multi-hop questions (GoldEn Retriever, Qi et al. 2019, section 3; IRRR, Qi et al.
2021, section 2), whose queries a trained model writes. Departure: the bridge is a name or rare words of a passage, told by the
text, and which passage to follow next is told by the chance that it is evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from indexers.encoders import Vectors
from rag.filters import Filter
from retrievers.hybrid import Found, Searcher
from retrievers.second_look import SEEDS, Leads, Trail
from retrievers.second_look_model import Chances, shipped

# Two find what two hops need; the first round that changes nothing ends it before.
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Bridged:
    """`leads`: all that was met. `rounds`: how many were made. `ended`: why there were no more, in words."""

    leads: Leads
    rounds: int
    ended: str


def bridged(question: str, first: Found, *, searcher: Searcher, vector: Vectors, k: int, where: Filter | None = None,
            rounds: int = ROUNDS, stop: Callable[[], bool] = lambda: False, chances: Chances | None = None) -> Bridged:
    """What up to `rounds` (1 or more) rounds meet, from a first look that holds something. A round after the first is made only
    while the one before changed which `k` rows are likeliest, and while `stop` does not say so."""
    weighing = shipped() if chances is None else chances
    trail = Trail.begun(question, searcher=searcher, where=where)
    best: tuple[int, ...] = first.rows[:k]
    next_ = list(zip((hit.chunk for hit in first.hits), first.rows, strict=True))
    made, ended, met = 0, "", None
    while not ended:
        for chunk, row in next_[:SEEDS]:
            trail.follow(chunk, row=row)
        made += 1
        met = trail.leads(first, searcher=searcher, vector=vector)
        chance = weighing.of(met.features)
        order = sorted(range(len(met.rows)), key=lambda at: (-chance[at], met.rows[at]))
        now = tuple(met.rows[at] for at in order[:k])
        next_ = [(met.chunks[at], met.rows[at]) for at in order[:k] if met.rows[at] not in trail.followed]
        ended = (f"{rounds} rounds were allowed" if made == rounds else "the deadline is near" if stop()
                 else "nothing new was found" if set(now) == set(best) or not next_ else "")
        best = now
    assert met is not None      # one round at least was made
    return Bridged(met, made, ended)
