"""`thriftrag search`: the passages nearest to a query, without a reader and without its cost."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rag.cli import checks, complete, interrupt, options, progress, session, terminal
from rag.filters import as_filter
from rag.settings import choices
from rag.types import Hit

EXAMPLES = options.examples(
    'thriftrag search "warranty period"',
    'thriftrag search "error E-1042" --mode bm25      # by words: good for names and numbers',
    'thriftrag search "how to return it" -k 3 --json  # the three best, for scripts',
    'thriftrag search "refunds" --where "year >= 2020 and not exists(draft)"',
)
DEFAULT_K = 10


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Words or a question.")],
    collection: options.Collection = None,
    mode: Annotated[str, typer.Option(
        "--mode", metavar="MODE", autocompletion=complete.modes,
        help="dense (by meaning), bm25 (by words) or hybrid (both). Default: hybrid.")] = "hybrid",
    k: Annotated[str | None, typer.Option("-k", metavar="N", help="Most hits to show. Default: 10.")] = None,
    where: Annotated[str | None, typer.Option(
        "--where", metavar="FILTER",
        help="Search only documents whose fields match, for instance 'year >= 2020 and lang in (en, de)'.")] = None,
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Show the passages nearest to a query, best first. No reader runs, so it costs next to nothing."""
    wanted = checks.query(query)
    most = checks.hits(k) or DEFAULT_K
    chosen = checks.choice(mode, flag="--mode", known=choices("mode")) or mode
    condition = as_filter(where)
    settings = session.settings(home=home, collection=collection, verbose=verbose)

    def work() -> list[Hit]:
        with session.open_kb(settings, create=False) as kb:
            return kb.search(wanted, mode=chosen, k=most, where=condition)

    with progress.waiting("searching"):
        found = interrupt.complete(work)
    if as_json:
        terminal.print_json({"query": wanted, "hits": [hit.to_dict() for hit in found]})
        return
    from rag.cli import render

    if found:
        terminal.console(sys.stdout).print(render.hits(found))
    else:
        among = "" if condition is None else f" among documents where {terminal.clean(str(condition))}"
        print(f"Nothing in collection {settings.collection} matches{among}. `thriftrag documents list` shows what it holds.")
