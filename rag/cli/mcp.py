"""`thriftrag mcp`: collections as tools of an agent, on stdin and stdout."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rag.cli import checks, complete, options, session, terminal
from rag.errors import ConfigError

EXAMPLES = options.examples(
    "thriftrag mcp                                  # search, ask and collections, for the program that starts it",
    "thriftrag mcp -c handbook --budget 512         # this collection alone, and at most 512 tokens of context a call",
    "thriftrag mcp --json                           # what it would offer, and leave",
)
_MOST = 4096


def mcp(
    collection: Annotated[list[str] | None, typer.Option(
        "--collection", "-c", metavar="NAME", autocompletion=complete.collections,
        help="Collection that agents may reach; give it again for more. The first is the default one. Default: all.")] = None,
    budget: Annotated[str | None, typer.Option(
        "--budget", metavar="N", help=f"Most context tokens that a call may ask for. Default: {_MOST}.")] = None,
    model: Annotated[str | None, typer.Option(
        "--model", metavar="NAME", help="Reader that answers: a name from `thriftrag models list`, a folder, a GGUF file, or a "
                                        f"model at reader_url. {options.default('reader')}")] = None,
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Give agents the tools search, ask and collections over the Model Context Protocol, until they hang up.

    Agents start this command themselves and speak with it on stdin and stdout: name it in their configuration, for instance
    {"command": "thriftrag", "args": ["mcp", "-c", "handbook"]}.
    """
    most = checks.budget(budget) or _MOST
    named = tuple(checks.collection(name) for name in collection or ())
    settings = session.settings(home=home, reader=model, verbose=verbose)
    try:
        from api.mcp_server import Limits, Tools, serving
    except ModuleNotFoundError as error:
        raise ConfigError(f"The tools for agents need the package {error.name!r}, which is not installed.", code="extra_missing",
                          hint="Run: pip install 'thriftrag[mcp]'") from error
    tools = Tools(settings, limits=Limits(named, most))
    try:
        if as_json:
            terminal.print_json({**tools.collections(), "tools": ["collections", "search", "ask"]})
            return
        if sys.stdin.isatty():
            print("Waiting for an agent on stdin, in the Model Context Protocol; Ctrl-C ends it.", file=sys.stderr)
        serving(tools).run("stdio")
    finally:
        tools.close()
