"""`thriftrag config`: every setting, its value and where the value comes from."""

from __future__ import annotations

import sys

from rag.cli import options, session, terminal

EXAMPLES = options.examples(
    "thriftrag config",
    "THRIFTRAG_BUDGET_TOKENS=128 thriftrag config   # from the environment; a flag would win over it",
    "thriftrag config -c handbook                   # with what the collection's own settings.toml says",
    "thriftrag config --json",
)


def config(collection: options.Collection = None, as_json: options.Json = False, home: options.Home = None,
           verbose: options.Verbose = False) -> None:
    """Show every setting: its value, where the value comes from, and what it means.

    Settings are read from config.toml in the home folder (or the file that THRIFTRAG_CONFIG names), then from settings.toml in
    the collection's folder, then from variables THRIFTRAG_<NAME>, then from flags; the last one wins. An unknown name is an
    error, never ignored.
    """
    from rag.collection_settings import layered
    from rag.thriftrag import folder_of

    settings = session.settings(home=home, collection=collection, verbose=verbose)
    settings = layered(settings, folder_of(settings.collection, settings=settings))
    if as_json:
        terminal.print_json({"settings": settings.rows()})
        return
    from rag.cli import tables

    terminal.console(sys.stdout).print(tables.settings(settings.rows()))
