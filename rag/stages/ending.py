"""The stages `check` and `extract`, and the receipt: every way in which a question ends in an answer."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from indexers import lexical
from indexers.sentences import split
from rag import citations, ledger, prompts
from rag.errors import UpstreamError
from rag.extractive import quoted
from rag.llm import Generation
from rag.memory import Stored
from rag.stages.run import Run
from rag.stages.served import Served
from rag.types import Answer, Citation, Context, Verdict

EMPTY = Context(text="", tokens=0, passages=())


def checked(run: Run, served: Served, generation: Generation, *, context: Context, naive: int) -> Answer:
    """The answer with the sentences of `context` that support it, and its verdict."""
    since = time.monotonic()
    text = generation.text.strip()
    found = supported(run, served, text, context=context)
    unknown = prompts.abstains(text)
    run.record("check", since, support=found.support, unknown_marks=list(found.unknown_marks), said_unknown=unknown)
    if not text:
        return finished(run, served, context, naive=naive, verdict="abstained", reason="empty_answer: the reader said nothing")
    if unknown:
        return finished(run, served, context, naive=naive, verdict="abstained", text=found.text,
                        reason="reader_declined: the reader found no answer in the context")
    verdict, reason = _judged(generation, found, closed_book=not context.passages)
    if verdict == "answered" and run.degraded:
        verdict, reason = "degraded", run.degraded
    return finished(run, served, context, naive=naive, verdict=verdict, reason=reason, text=found.text, cited=found.citations)


def supported(run: Run, served: Served, text: str, *, context: Context) -> citations.Checked:
    """What in `context` supports an answer's text."""
    clusters = served.clusters
    return citations.check(text, context, sentences=[text[a:b] for a, b in split(text, "en")], question=run.asked.told,
                           members=lambda chunk: None if clusters is None else clusters.members(chunk))


def extracted(run: Run, served: Served, context: Context, *, naive: int, error: UpstreamError) -> Answer:
    """What the documents themselves say, where the reader says nothing."""
    since = time.monotonic()
    found = quoted(context, weights=served.searcher.bm25.idf(lexical.words(run.question)))
    run.record("extract", since, error=error.code, sentences=len(found.citations))
    return finished(run, served, context, naive=naive, verdict="degraded", reason=f"reader_failed: {error.message}",
                    text=found.text, cited=found.citations)


def repeated(run: Run, served: Served, stored: Stored) -> Answer:
    """An answer that was given before, heard like any other."""
    if run.hooks.on_token is not None:
        run.hooks.on_token(stored.text)
    return finished(run, served, EMPTY, naive=stored.naive_tokens, verdict="answered", reason=stored.reason, text=stored.text,
                    cited=stored.citations)


def finished(run: Run, served: Served, context: Context, *, naive: int, verdict: Verdict, reason: str | None, text: str = "",
             cited: Sequence[Citation] = (), shown: Context | None = None) -> Answer:
    """The answer with its receipt. `shown`: the best passages of an answer for which nothing was read."""
    pair, settings, reader = served.pair, served.settings, served.reader
    model = pair.small.name if pair and run.answered_by == "small" else reader.name
    receipt = ledger.receipt(
        run.usage, settings=settings, local=reader.local, exact_tokens=reader.tokenizer.exact,
        second=ledger.Second(run.small_usage, ledger.small_prices(settings), pair.small.local) if pair else None,
        counted=run.counted, budget_tokens=run.budget.context_tokens, context_tokens=context.tokens,
        naive_tokens=naive, model=model, seconds=run.seconds(), encoder_s=run.encoder_s, guessed=run.guessed)
    return Answer(id=uuid.uuid4().hex, question=run.question, text=text, verdict=verdict, reason=reason,
                  citations=tuple(cited), receipt=receipt, snapshot=served.searcher.snapshot.id,
                  config=settings.config_hash(), trace=tuple(run.steps), context=shown or context)


def _judged(generation: Generation, found: citations.Checked, *, closed_book: bool) -> tuple[Verdict, str | None]:
    if generation.finish in ("deadline", "cancelled"):
        return "degraded", f"{generation.finish}: the answer was cut short"
    if generation.finish == "repetition":
        return "degraded", "repetition: the reader repeated itself and was stopped"
    if closed_book:
        return "answered", "closed_book: no document was read"
    if found.support == "none":
        return "answered", "unsupported: the answer's words are not in the passages that were read"
    return "answered", None
