"""The stages `rewrite`, `retrieve` and `read`: from a question to the pool that a selector chooses from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from indexers import lexical
from indexers.encoders import Vectors
from optimizers import BY_CHANCE
from optimizers.context import render
from optimizers.crossencoder import reading
from optimizers.pool import Pool
from rag import clustered_route, prompts, rewriting
from rag.pooling import pooled
from rag.stages.run import Candidates, Run
from rag.stages.served import Served, limits, quiet
from rag.types import Mode, ScoredChunk, whole
from retrievers.hybrid import Found
from retrievers.rewriting.search import rewritten
from retrievers.second_look import SecondLook, second_look


def searched(run: Run, served: Served) -> Candidates:
    """Candidates and their pool, read by the cross-encoder where the selector goes by that. What the same question made a moment
    ago is taken again."""
    return _read(run, served, _found(run, served))


def _found(run: Run, served: Served) -> Candidates:
    since = time.monotonic() - run.rewrite_s
    settings = served.settings
    found = served.recent.get(_key(run, served), lambda: _retrieved(run, served))
    if found.rewrite is not None or run.asked.facts:
        run.step("rewrite", time.monotonic() - run.rewrite_s, rewriter=settings.rewriter, **(found.rewrite or run.asked.facts))
    since += run.rewrite_s
    plan = found.search.plan
    facts: dict[str, object] = {"origins": list(plan.origins)}
    if settings.mode == "hybrid":
        facts["fusion"] = settings.fusion
    if plan.notes:
        facts["notes"] = list(plan.notes)
    if run.where is not None:
        facts["where"] = str(run.where)
    if found.second.asked:
        facts["second_look"] = found.second.facts()
    facts |= found.clustered.facts
    run.step("retrieve", since, mode=settings.mode, **facts, candidates=len(found.hits), naive_tokens=found.naive_tokens)
    return found


def _key(run: Run, served: Served) -> tuple[object, ...]:
    """What decides about the candidates of a question."""
    settings = served.settings
    return (served.searcher.snapshot.id, run.asked.search, run.asked.told, run.asked.queries, settings.mode, settings.origins,
            settings.fusion, settings.candidates, settings.naive_k, settings.second_look, quiet(run, served).rewriter,
            str(run.where), *clustered_route.state(served.clusters, settings))


def _retrieved(run: Run, served: Served) -> Candidates:
    """`naive_tokens`: what the prompt of a rank-order fill with the first `naive_k` hybrid chunks would have cost."""
    since, settings, searcher, question = time.monotonic(), served.settings, served.searcher, run.asked.search
    [vector], encoded = served.vectors.get([question])
    run.spend(encoder_passes=encoded, since=since)
    mode: Mode = settings.mode  # type: ignore[assignment]  # checked when the settings were read
    k = settings.candidates
    rewrites = mode == "hybrid" and settings.rewriter != "off"
    found = searcher.find(question, mode=mode, k=max(k, settings.naive_k, rewriting.DEPTH if rewrites else 0), vector=vector,
                          where=run.where, settings=settings)
    ranked = found if mode == "hybrid" else searcher.find(question, mode="hybrid", k=settings.naive_k, vector=vector,
                                                          where=run.where, settings=settings)
    naive = render([whole(hit.chunk) for hit in ranked.hits[:settings.naive_k]], counter=served.reader.tokenizer)
    second, rewrite = SecondLook(Found(found.hits[:k], found.rows[:k], found.plan)), None
    routed = clustered_route.routed(served.clusters, question, ranked.hits, vector=vector, where=run.where, settings=settings)
    if routed.summaries is not None:
        hits: Sequence[ScoredChunk] = routed.summaries.hits
    else:
        if rewrites and found.hits:
            second, rewrite = _rewritten(run, served, found, vector=vector)
        elif mode == "hybrid" and settings.second_look == "auto":
            second = second_look(question, found, searcher=searcher, k=k, vector=vector, where=run.where)
        hits = second.found.hits
    return Candidates(hits, _pool(run, served, hits), served.reader.prompt_tokens(prompts.build(run.asked.told, naive.text)),
                      second.found, second, rewrite, routed)


def _rewritten(run: Run, served: Served, first: Found, *, vector: Vectors) -> tuple[SecondLook, Mapping[str, object]]:
    """The pool after the stage `rewrite`, in the place of a second look, and its facts."""
    since, settings, k = time.monotonic(), quiet(run, served), served.settings.candidates
    is_open, chance = rewriting.opened(run.asked, first, searcher=served.searcher, settings=settings)
    facts: dict[str, object] = {} if chance is None else {"chance": round(chance, 4)}
    if is_open:
        run.take(rewriting.with_proposals(run.asked, reader=served.large, settings=settings, limits=limits(run, served)))
    queries = run.asked.queries
    pool = Found(first.hits[:k], first.rows[:k], first.plan)
    if is_open or queries:
        run.spend(encoder_passes=len(queries), since=time.monotonic())
        done = rewritten(run.asked.search, first, searcher=served.searcher, vector=vector, k=k, queries=queries, where=run.where,
                         bridges=is_open and settings.rewriter != "feedback", settings=served.settings, stop=run.halfway())
        pool, facts = done.found, {**facts, **done.facts}
    run.rewrite_s += time.monotonic() - since
    return SecondLook(pool), {"open": is_open, **run.asked.facts, "queries": [query.to_dict() for query in queries], **facts}


def _pool(run: Run, served: Served, found: Sequence[ScoredChunk]) -> Pool:
    since = time.monotonic()
    question = run.asked.search
    pool, encoded = pooled(question, found, vectors=served.vectors, counter=served.reader.tokenizer,
                           weights=served.searcher.bm25.idf(lexical.words(question)))
    run.spend(encoder_passes=encoded, since=since)
    return pool


def _read(run: Run, served: Served, found: Candidates) -> Candidates:
    if served.cross is None or served.settings.selector not in BY_CHANCE or not found.hits or found.clustered.summaries:
        return found
    cross, since, pairs, question = served.cross, time.monotonic(), served.settings.cross_pairs, run.asked.search
    key = (*_key(run, served), cross.name, pairs)
    read = served.recent.get(key, lambda: replace(found, pool=reading.read(found.pool, question, encoder=cross, pairs=pairs)))
    run.step("read", since, model=cross.name, pairs=sum(bool(each.sentence_answers) for each in read.pool.candidates))
    run.encoder_s += time.monotonic() - since
    return read
