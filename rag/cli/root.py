"""The command tree. Groups that pull in more than the parser are stand-ins until one of their commands is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from rag.cli import (
    ask,
    bench,
    clusters,
    collections,
    config,
    documents,
    edge,
    ingest,
    keys,
    mcp,
    models,
    options,
    reservoir,
    search,
    serve,
    tune,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = "thriftrag"
EXAMPLES = options.examples(
    "thriftrag ingest docs/                        # read your documents",
    'thriftrag ask "How long is the warranty?"     # a cited answer and its bill',
    'thriftrag ask "..." --budget 128 --trace      # a tighter budget, and what was chosen why',
    "thriftrag models pull                         # fetch the models once, to work offline",
    "thriftrag --install-completion                # complete commands and names with Tab",
)


def _evaluate() -> typer.Typer:
    from rag.cli.evaluate import app as evaluate

    return evaluate


_LATER: dict[str, Callable[[], typer.Typer]] = {"eval": _evaluate}


_ORDER = ("ingest", "ask", "search", "documents", "collections", "clusters", "reservoir", "serve", "mcp", "keys", "tune", "models",
          "config", "eval", "bench")


class Root(TyperGroup):
    """The root command: the edge around every call, and groups that load when they are used."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, complete_var: str | None = None,
             standalone_mode: bool = True, windows_expand_args: bool = True, **extra: Any) -> Any:
        """Runs one command and leaves with its exit code."""
        argv = list(sys.argv[1:] if args is None else args)
        parent = super().main
        sys.exit(edge.guarded(lambda: parent(args=args, prog_name=PROGRAM, complete_var=complete_var, standalone_mode=False,
                                             windows_expand_args=windows_expand_args, **extra), argv=argv))

    def invoke(self, ctx: Any) -> Any:
        """Ctrl-C becomes ours before the parser turns it into a bare exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise edge.Stopped(edge.UNCHANGED) from None

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which a newcomer needs them."""
        return sorted(super().list_commands(ctx), key=_ORDER.index)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in _LATER:
            self.commands[args[0]] = get_group(_LATER[args[0]]())
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=Root, name=PROGRAM, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
                  epilog=EXAMPLES, context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
                  help="Answers questions from your own documents within a token budget, with citations and a receipt.")


def command(typed: typer.Typer) -> Any:
    """The command that the parser runs for an app."""
    return get_command(typed)


def _version(wanted: bool) -> None:
    if wanted:
        from rag import __version__

        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option(
        "--version", callback=_version, is_eager=True, help="Print the version and leave.")] = False) -> None:
    """Nothing of its own: the option above acts when it is read."""


app.command(epilog=ingest.EXAMPLES, short_help="Read documents into a collection.")(ingest.ingest)
app.command(epilog=ask.EXAMPLES, short_help="Answer a question, with citations and a receipt.")(ask.ask)
app.command(epilog=search.EXAMPLES, short_help="Show the passages nearest to a query.")(search.search)
app.add_typer(documents.app, name="documents")
app.add_typer(collections.app, name="collections")
app.add_typer(clusters.app, name="clusters")
app.add_typer(reservoir.app, name="reservoir")
app.command(epilog=serve.EXAMPLES, short_help="Serve questions, searches and uploads over HTTP.")(serve.serve)
app.command(epilog=mcp.EXAMPLES, short_help="Give agents the tools search and ask.")(mcp.mcp)
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.command(epilog=config.EXAMPLES, short_help="Show every setting and where its value comes from.")(config.config)
app.command(epilog=tune.EXAMPLES, short_help="Find the cheapest settings that keep the answers right.")(tune.tune)
app.command(epilog=bench.EXAMPLES, short_help="Measure speed and size, beside baselines, on this machine.")(bench.bench)
app.add_typer(typer.Typer(help="Measure answers and retrieval on a labelled dataset."), name="eval")
