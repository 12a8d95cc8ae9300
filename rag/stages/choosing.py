"""The stages `filter` and `select`: from candidates to the sentences that are worth their tokens, or why none are to be read."""

from __future__ import annotations

import time
from collections.abc import Sequence

from optimizers import BY_CHANCE, SELECTORS, WHOLE, coverage, relevance
from optimizers.context import render
from optimizers.knowledge_filter import filtered
from optimizers.sufficiency import sufficiency
from rag import clustered_route
from rag.settings import Settings
from rag.stages.run import Candidates, Choice, Run
from rag.stages.served import Served, context_limit
from rag.tokens import TokenCounter
from rag.types import Extract, ScoredChunk, Selection, whole


def chosen(run: Run, served: Served, found: Candidates, *, limit: int) -> Choice:
    """The choice within `limit` context tokens, or what calls to the reader have left of them."""
    settings = served.settings
    reason = _nothing_worth(run, found, settings=settings)
    if reason:
        return Choice((), found.naive_tokens, reason)
    if run.budget.cost_usd and run.usage.llm_calls:
        limit = min(limit, context_limit(run, served))
    selection, chance = _selected(run, served, found, limit=limit)
    reason = None if selection.extracts else selection.degraded or _too_small(
        found.hits, limit, selector=settings.selector, counter=served.reader.tokenizer)
    return Choice(selection.extracts, found.naive_tokens, reason or _insufficient(chance, least=settings.min_sufficiency))


def _nothing_worth(run: Run, found: Candidates, *, settings: Settings) -> str | None:
    """Why none of the candidates is worth reading, or None."""
    since = time.monotonic()
    best = max((max(candidate.sentence_relevance) for candidate in found.pool.candidates), default=0.0)
    least = settings.abstain_below
    if found.clustered.summaries is not None:
        best, least = max(best, found.clustered.nearest), 0.0 if found.clustered.all_they_say else least
    run.step("filter", since, best_relevance=round(best, 4), threshold=least)
    if not found.hits and run.where is not None:
        return f"no_index_content: no document that could be searched matches {run.where}"
    if not found.hits:
        return "no_index_content: the collection holds nothing that could be searched"
    if best < least:
        return (f"nothing_relevant: the best sentence has relevance {best:.2f}, under the threshold of "
                f"{least:.2f} (setting abstain_below)")
    return None


def _selected(run: Run, served: Served, found: Candidates, *, limit: int) -> tuple[Selection, float | None]:
    """The choice, and the chance that it suffices where the selector goes by chances."""
    since, settings = time.monotonic(), served.settings
    pool = found.pool
    chances = relevance.chances(pool) if settings.selector in BY_CHANCE and not run.overall else None
    if chances is not None and settings.filter_below:
        pool = filtered(pool, chances, below=settings.filter_below, floor=settings.filter_floor)
    run.pool = pool
    selector = SELECTORS[settings.selector] if not run.overall else clustered_route.selector(found.clustered)
    selection = selector(pool, budget=limit, render=lambda extracts: render(extracts, counter=served.reader.tokenizer),
                         stop=run.halfway(), watch=run.hooks.on_search)
    run.degraded = selection.degraded
    if served.pair and not run.overall:     # summaries are read by the large reader
        run.seen = found.pool, relevance.chances(found.pool) if chances is None else chances
    chance = None if chances is None else sufficiency(pool, chances, selection.extracts)
    considered = [{**row.to_dict(), "origins": {name: round(score, 6) for name, score in hit.origins.items()}}
                  for row, hit in zip(selection.considered, found.hits, strict=True)]
    run.step("select", since, selector=coverage.NAME if run.overall else settings.selector, limit_tokens=limit,
             filtered=len(pool.dropped), utility=round(selection.utility, 6),
             evaluations=selection.evaluations, degraded=selection.degraded,
             next_best=selection.next_best.to_dict() if selection.next_best else None, considered=considered,
             sufficiency=None if chance is None else round(chance, 4),
             **_explained(run, served, found, selection=selection))
    return selection, chance


def _explained(run: Run, served: Served, found: Candidates, *, selection: Selection) -> dict[str, object]:
    """For each chosen passage what the question's terms add to its sparse score, where that was searched."""
    if run.overall:
        return {}
    passages = list({extract.chunk.id: extract.chunk for extract in selection.extracts}.values())
    told = served.searcher.explain(run.asked.search, found.search, chunks=passages)
    if told is None:
        return {}
    return {"terms": [{"chunk_id": chunk.id, "source": chunk.source, "terms": [match.to_dict() for match in matches]}
                      for chunk, matches in zip(passages, told, strict=True)]}


def _insufficient(chance: float | None, *, least: float) -> str | None:
    """Why a choice of that sufficiency is not worth the reader's time, or None."""
    if chance is None or chance >= least:
        return None
    return (f"insufficient: the best context holds the answer with a chance of {chance:.2f}, under the threshold of "
            f"{least:.2f} (setting min_sufficiency)")


def _too_small(hits: Sequence[ScoredChunk], limit: int, *, selector: str, counter: TokenCounter) -> str:
    """Why a selector chose nothing."""
    if selector in WHOLE:
        unit, parts = "whole chunk", [whole(hit.chunk) for hit in hits]
    else:
        unit, parts = "sentence", [Extract(hit.chunk, (i,)) for hit in hits for i in range(len(hit.chunk.sentences))]
    least = min(render([part], counter=counter).tokens for part in parts)
    if least <= limit:
        return (f"nothing_chosen: the selector {selector} found no {unit} worth its tokens within {limit}. "
                "Try another --selector")
    return (f"budget_too_small: {limit} context tokens hold no {unit} of any candidate; the shortest takes {least} "
            f"with its heading. Raise --budget to {least} or more")
