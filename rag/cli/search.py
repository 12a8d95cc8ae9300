"""`thriftrag search`: the passages nearest to a query, without a reader and without its cost."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rag.cli import checks, complete, interrupt, options, progress, session, terminal
from rag.errors import InputError
from rag.filters import as_filter
from rag.settings import changed, choices
from rag.types import SearchResult

EXAMPLES = options.examples(
    'thriftrag search "warranty period"',
    'thriftrag search "error E-1042" --mode bm25      # by words: good for names and numbers',
    'thriftrag search "sleep of otters" --mode sparse --explain',
    'thriftrag search "nationality of the director of Vertigo" --rewriter bridge',
    'thriftrag search "returns" --origins dense,sparse --fusion weighted',
    'thriftrag search "how to return it" -k 3 --json  # the three best, for scripts',
    'thriftrag search "refunds" --where "year >= 2020 and not exists(draft)"',
)
DEFAULT_K = 10


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Words or a question.")],
    collection: options.Collection = None,
    mode: Annotated[str, typer.Option(
        "--mode", metavar="MODE", autocompletion=complete.modes,
        help="dense finds by meaning; bm25 by words, good for names, numbers and languages other than English; sparse by terms "
             "that a model weighed in each passage, and some that it added; hybrid fuses several of them; clustered shows "
             "summaries of what many texts say (see `thriftrag clusters`).")] = "hybrid",
    origins: Annotated[str | None, typer.Option(
        "--origins", metavar="A,B", autocompletion=complete.origins,
        help=f"What hybrid fuses, of dense, bm25 and sparse. {options.default('origins')}")] = None,
    fusion: Annotated[str | None, typer.Option(
        "--fusion", metavar="NAME", autocompletion=complete.fusions,
        help=f"How hybrid fuses: rrf (by rank) or weighted (by score). {options.default('fusion')}")] = None,
    rewriter: Annotated[str | None, typer.Option(
        "--rewriter", metavar="NAME", autocompletion=complete.rewriters,
        help="Also search what the best hits have in common (feedback) or mention (bridge), or that only where it is likely to "
             "help (auto). Hybrid only. Default: off.")] = None,
    k: Annotated[str | None, typer.Option("-k", metavar="N", help="Most hits to show. Default: 10.")] = None,
    where: Annotated[str | None, typer.Option(
        "--where", metavar="FILTER",
        help="Search only documents whose fields match, for instance 'year >= 2020 and lang in (en, de)'.")] = None,
    explain: Annotated[bool, typer.Option(
        "--explain", help="Show for each hit which terms of the query it was found by, and how much each counts (sparse, and "
                          "hybrid with sparse among its origins).")] = False,
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Show the passages nearest to a query, best first. No reader runs, so it costs next to nothing.

    A query that term weights cannot read (only stop words, or another script than Latin) is searched without them, and a note
    says so.
    """
    wanted = checks.query(query)
    most = checks.hits(k) or DEFAULT_K
    chosen = checks.choice(mode, flag="--mode", known=(*choices("mode"), "clustered")) or mode
    condition = as_filter(where)
    settings = session.settings(home=home, collection=collection, verbose=verbose)
    changes = {name: value.lower() for name, value in (
        ("origins", origins), ("fusion", fusion), ("rewriter", rewriter)) if value is not None}
    for name, value in changes.items():
        changed(settings, {name: value}, where=f"--{name}")
        if chosen != "hybrid":
            raise InputError(f"--{name} {value!r} says what hybrid searches or how, and --mode is {chosen}.", field=name,
                             hint=f"Leave out --{name}, or use --mode hybrid.")

    def work() -> SearchResult:
        with session.open_kb(settings, create=False) as kb:
            return kb.find(wanted, mode=chosen, k=most, where=condition, explain=explain, changes=changes)

    with progress.waiting("searching"):
        found = interrupt.complete(work)
    if as_json:
        terminal.print_json({"query": wanted, **found.to_dict()})
        return
    from rag.cli import render

    console = terminal.console(sys.stdout)
    # Who did not ask for one way of searching in particular need not be told each time that another was taken.
    for note in found.notes if chosen != "hybrid" or changes or explain else ():
        console.print(render.note(note))
    if found.hits:
        console.print(render.hits(found.hits, explain=explain))
    else:
        among = "" if condition is None else f" among documents where {terminal.clean(str(condition))}"
        print(f"Nothing in collection {settings.collection} matches{among}. `thriftrag documents list` shows what it holds.")
