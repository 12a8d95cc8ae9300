"""`thriftrag ask`: one question, one answer with its citations and its bill."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from rag.cli import checks, complete, edge, interrupt, options, progress, search_plot, session, terminal
from rag.errors import InputError
from rag.filters import as_filter
from rag.settings import choices
from rag.types import Answer, SearchPath

EXAMPLES = options.examples(
    'thriftrag ask "How long is the warranty?"',
    'thriftrag ask "How long is the warranty?" --budget 128        # at most 128 context tokens',
    'thriftrag ask "Who signs?" -c handbook --trace                # what was considered, kept, dropped and why',
    'thriftrag ask "Who signs?" --trace-plot search.png            # a picture of the search for a context',
    'thriftrag ask "Summarise the refund rules" --stream           # words as they come',
    'thriftrag ask "Who signs?" --max-cost 0.001 --deadline 20     # at most a tenth of a cent and 20 seconds',
    'thriftrag ask "Who signs?" --fallback extracts                # the passages themselves where the model server is down',
    'thriftrag ask "Who signs?" --where "year >= 2020"             # from documents whose metadata match',
    'thriftrag ask "And who founded it?" --history talk.json       # a follow-up question, with what was said before',
    "thriftrag ask - --json < question.txt                         # for scripts: the answer object of the API",
)


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What you want to know, or - to read it from stdin.")],
    collection: options.Collection = None,
    budget: Annotated[str | None, typer.Option(
        "--budget", metavar="N",
        help=f"Most context tokens, as the reader counts them. {options.default('budget_tokens')}")] = None,
    max_cost: Annotated[str | None, typer.Option(
        "--max-cost", metavar="USD",
        help=f"Most US dollars for this answer. {options.default('max_cost_usd', zero='no ceiling')}")] = None,
    deadline: Annotated[str | None, typer.Option(
        "--deadline", metavar="S",
        help=f"Most seconds for this answer. {options.default('deadline_s', zero='none')}")] = None,
    selector: Annotated[str | None, typer.Option(
        "--selector", metavar="NAME", autocompletion=complete.selectors,
        help=f"How the context is chosen: {', '.join(choices('selector'))}. {options.default('selector')}")] = None,
    where: Annotated[str | None, typer.Option(
        "--where", metavar="FILTER",
        help="Answer only from documents whose fields match, for instance 'year >= 2020 and lang in (en, de)'.")] = None,
    rewriter: Annotated[str | None, typer.Option(
        "--rewriter", metavar="NAME", autocompletion=complete.rewriters,
        help=f"Further queries beside the question: {', '.join(choices('rewriter'))}. {options.default('rewriter')}")] = None,
    history: Annotated[Path | None, typer.Option(
        "--history", metavar="FILE.json",
        help='What was said before: a JSON list of {"role": "user" or "assistant", "content": TEXT}, the newest last.')] = None,
    model: Annotated[str | None, typer.Option(
        "--model", metavar="NAME", autocompletion=complete.models,
        help="Reader: a name from `thriftrag models list`, a folder, a GGUF file, or a model at reader_url. "
             f"{options.default('reader')}")] = None,
    fallback: Annotated[str | None, typer.Option(
        "--fallback", metavar="WHAT", help="When the reader fails: none (an error), or extracts (the best sentences of the "
                                           f"context, word for word). {options.default('fallback')}")] = None,
    as_json: options.Json = False,
    trace: Annotated[bool, typer.Option(
        "--trace", help="Show what was considered, kept and dropped, why, and the time of each stage.")] = False,
    trace_plot: Annotated[Path | None, typer.Option(
        "--trace-plot", metavar="FILE.png",
        help="Draw utility against tokens along the search (.png, .svg, .pdf). Needs matplotlib: pip install 'thriftrag[plots]'."
    )] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it is generated.")] = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Answer a question from a collection within a token budget, with citations and a receipt.

    When the documents do not hold the answer, it says so and why; that is an outcome, not a failure, and exits 0.
    """
    if as_json and stream:
        raise InputError("--json and --stream exclude each other: one prints a single object, the other text as it comes.",
                         code="usage", field="stream", hint="Leave one of them out.")
    tokens, dollars, seconds = checks.budget(budget), checks.max_cost(max_cost), checks.deadline(deadline)
    chosen = checks.choice(selector, flag="--selector", known=choices("selector"))
    instead = checks.choice(fallback, flag="--fallback", known=choices("fallback"))
    condition, picture = as_filter(where), search_plot.checked(trace_plot)
    way, said = checks.choice(rewriter, flag="--rewriter", known=choices("rewriter")), checks.history(history)
    ways: list[SearchPath] = []
    settings = session.settings(home=home, collection=collection, reader=model, fallback=instead, verbose=verbose)
    asked = checks.question(question, limit=settings.max_question_chars)

    with progress.waiting("opening the collection") as spinner:
        live = _Live(spinner) if stream else None

        def work(cancelled: Callable[[], bool]) -> Answer:
            with session.open_kb(settings, create=False) as kb:
                return kb.ask(asked, budget=tokens, max_cost=dollars, deadline=seconds, selector=chosen, where=condition,
                              changes={"rewriter": way} if way else None, history=said,
                              on_token=live.write if live else None, on_step=spinner.on_step,
                              on_search=ways.append if picture else None,
                              cancelled=lambda: cancelled() or (live is not None and live.lost is not None))

        ended = interrupt.run(work, kept=edge.UNCHANGED)
    if live and live.lost is not None:
        raise live.lost
    if as_json:
        terminal.print_json(ended.result.to_dict())
    else:
        _tell(ended.result, streamed=live.text if live else None, with_trace=trace)
    if picture:
        _drawn(picture, ended.result, ways)
    if ended.stopped:
        print("Stopped. What it has cost so far is above.", file=sys.stderr)
        raise typer.Exit(edge.INTERRUPTED)


def _drawn(path: Path, answer: Answer, ways: Sequence[SearchPath]) -> None:
    """The picture, or why there is none; the answer is told already."""
    if not ways:
        print("Nothing was drawn: no candidate came as far as the search.", file=sys.stderr)
        return
    [way] = ways
    selector = next((str(step.facts.get("selector", "")) for step in answer.trace if step.stage == "select"), "")
    search_plot.save(path, way, selector=selector, question=answer.question)
    print(f"Drawn: {path}", file=sys.stderr)


class _Live:
    """Prints tokens as they come. A reader of ours that left is remembered, so that generation stops paying for nobody."""

    def __init__(self, spinner: progress.Waiting) -> None:
        self._spinner = spinner
        self.text = ""
        self.lost: OSError | None = None

    def write(self, token: str) -> None:
        self._spinner.stop()
        shown = terminal.clean(token)
        self.text += shown
        try:
            sys.stdout.write(shown)
            sys.stdout.flush()
        except OSError as error:
            self.lost = error


def _tell(answer: Answer, *, streamed: str | None, with_trace: bool) -> None:
    from rag.cli import render

    console = terminal.console(sys.stdout)
    text = render.answer_text(answer)
    if streamed:
        print()
    # What was streamed is what the reader said; the check may have corrected it since, for instance dropped a forged mark.
    if text and (streamed is None or streamed.split() != text.split()):
        console.print(f"After the check: {text}" if streamed else text, soft_wrap=True)
    outcome = render.outcome(answer)
    if outcome is not None:
        console.print(outcome, soft_wrap=True)
    if answer.citations:
        console.print()
        for citation in answer.citations:
            console.print(render.citation(citation))
    console.print()
    if with_trace:
        console.print(render.trace(answer.trace))
    console.print(render.receipt(answer.receipt))
