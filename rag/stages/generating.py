"""The stage `generate`: the prompt to the reader, or to the one of two readers that the router settles on (`route`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from optimizers.router import Size
from optimizers.routing import Reading, seen
from rag import ledger, prompts, routing
from rag.errors import UpstreamError
from rag.llm import Generation, Message, Reader
from rag.settings import Settings
from rag.stages.ending import supported
from rag.stages.run import Run
from rag.stages.served import Served
from rag.types import Context, Extract, Usage


def generated(run: Run, served: Served, messages: Sequence[Message], *, extracts: Sequence[Extract], context: Context
              ) -> Generation:
    """The answer as the reader gave it. `extracts`: the choice that `context` renders. Raises UpstreamError."""
    if served.pair is None or run.seen is None:
        return _called(run, served.reader, messages, settings=served.settings)
    signs = seen(*run.seen, extracts, tokens=context.tokens)
    return _routed(run, served, messages, pair=served.pair, context=context, signs=signs)


def _routed(run: Run, served: Served, messages: Sequence[Message], *, pair: routing.Pair, context: Context,
            signs: Mapping[str, float]) -> Generation:
    """The answer of the reader that the router settles on."""
    since, settings = time.monotonic(), served.settings

    def ask(size: Size, *, last: bool) -> Generation:
        nonlocal since
        generation = _called(run, pair.large if size == "large" else pair.small, messages, settings=settings,
                             small=size == "small", heard=last)
        since = time.monotonic()
        return generation

    def judge(generation: Generation) -> Reading:
        text = generation.text.strip()
        return Reading(text, prompts.abstains(text) or not text, supported(run, served, text, context=context).support,
                       generation.finish != "stop", generation.mean_logprob, generation.least_logprob)

    def forbidden() -> str | None:
        return _forbidden(run, pair.large, messages, settings=settings)

    found = routing.routed(pair.model, run.asked.told, signs, settings=settings, ask=ask, judge=judge, forbidden=forbidden,
                           tell=lambda **facts: run.record("route", since, **facts))
    run.answered_by, run.degraded = found.size, run.degraded or found.degraded
    if run.hooks.on_token is not None and not found.heard:
        run.hooks.on_token(found.generation.text)
    return found.generation


def _forbidden(run: Run, large: Reader, messages: Sequence[Message], *, settings: Settings) -> str | None:
    """Why the large reader may not be asked after the small one, or None."""
    if run.stopped():
        return "there is no time left"
    most = ledger.worst_usd(prompt_tokens=large.prompt_tokens(messages), settings=settings, prices=ledger.prices(settings))
    spent = ledger.small_prices(settings).of(run.small_usage) + ledger.prices(settings).of(run.usage)
    if run.budget.cost_usd and spent + most > run.budget.cost_usd:
        return f"both could cost ${spent + most:.6f}, over the ceiling of ${run.budget.cost_usd:g}"
    return None


def _called(run: Run, reader: Reader, messages: Sequence[Message], *, settings: Settings, small: bool = False, heard: bool = True
            ) -> Generation:
    """`small`: billed as the router's small reader. `heard`: whoever listens hears the answer as it comes."""
    since = time.monotonic()
    try:
        generation = reader.generate(messages, max_tokens=settings.reader_max_tokens,
                                     on_token=run.hooks.on_token if heard else None,
                                     deadline=run.deadline, cancelled=run.hooks.cancelled)
    except UpstreamError as error:
        if error.spent is not None:
            run.bill(error.spent, counted=False, small=small)
        raise
    run.bill(Usage(prompt_tokens=generation.prompt_tokens, completion_tokens=generation.completion_tokens,
                   cached_tokens=generation.cached_tokens, llm_calls=1, llm_seconds=generation.seconds),
             counted=generation.counted_by == "server", small=small)
    # A deadline met while generating is a partial answer, which the check reports; it is no error.
    run.record("generate", since, model=reader.name, finish=generation.finish,
               prompt_tokens=generation.prompt_tokens, completion_tokens=generation.completion_tokens,
               cached_tokens=generation.cached_tokens, first_token_s=generation.first_token_s,
               mean_logprob=generation.mean_logprob, least_logprob=generation.least_logprob)
    return generation
