"""`thriftrag documents`: what a collection holds."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rag.cli import interrupt, options, session, terminal
from rag.cli.words import plural
from rag.types import Document

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, read and delete the documents of a collection.",
                  epilog=options.examples("thriftrag documents list", "thriftrag documents show guide.pdf"))
Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Ids or sources, as `thriftrag documents list` shows them.")]


@app.command("list", epilog=options.examples(
    "thriftrag documents list",
    "thriftrag documents list -c handbook --json"))
def list_(collection: options.Collection = None, as_json: options.Json = False, home: options.Home = None,
          verbose: options.Verbose = False) -> None:
    """List the documents of a collection. Shows their chunks and tokens, and when they were added."""
    settings = session.settings(home=home, collection=collection, verbose=verbose)
    with session.open_kb(settings, create=False) as kb:
        found = kb.documents()
    if as_json:
        terminal.print_json({"documents": [row.to_dict() for row in found]})
        return
    from rag.cli import tables

    if found:
        terminal.console(sys.stdout).print(tables.documents(found))
    else:
        print(f"Collection {settings.collection} holds no documents. Next: thriftrag ingest PATH")


@app.command(epilog=options.examples(
    "thriftrag documents show guide.pdf            # by source",
    "thriftrag documents show 3f2a9c1be07d --json  # by id, with its metadata"))
def show(document_id: Annotated[str, typer.Argument(metavar="ID", help="An id or a source.")],
         collection: options.Collection = None, as_json: options.Json = False, home: options.Home = None,
         verbose: options.Verbose = False) -> None:
    """Show one document as it was read. Its facts come first, then its text."""
    settings = session.settings(home=home, collection=collection, verbose=verbose)
    with session.open_kb(settings, create=False) as kb:
        document = kb.document(document_id)
    if as_json:
        terminal.print_json({**_facts(document), "text": document.text})
        return
    from rag.cli import tables

    console = terminal.console(sys.stdout)
    console.print(tables.facts({name: value for name, value in _facts(document).items() if value not in (None, "", {})}))
    console.print()
    console.print(terminal.clean(document.text), soft_wrap=True)


@app.command(epilog=options.examples(
    "thriftrag documents delete guide.pdf notes.md",
    "thriftrag documents delete 3f2a9c1be07d -c handbook"))
def delete(document_ids: Ids, collection: options.Collection = None, as_json: options.Json = False,
           home: options.Home = None, verbose: options.Verbose = False) -> None:
    """Delete documents from a collection, all or none. When one is unknown, nothing is deleted; files on disk stay."""
    settings = session.settings(home=home, collection=collection, verbose=verbose)

    def work() -> int:
        with session.open_kb(settings, create=False) as kb:
            return kb.delete(*document_ids)

    count = interrupt.complete(work, kept="Either all are deleted or none; `thriftrag documents list` shows it.")
    if as_json:
        terminal.print_json({"deleted": count, "collection": settings.collection})
    else:
        print(f"Deleted {plural(count, 'document')} from collection {settings.collection}.")


def _facts(document: Document) -> dict[str, object]:
    pages = {block.page for block in document.blocks if block.page is not None}
    return {"id": document.id, "source": document.source, "title": document.title, "uri": document.uri,
            "media_type": document.media_type, "language": document.language, "pages": len(pages) or None,
            "characters": len(document.text), "content_hash": document.content_hash, "metadata": dict(document.metadata)}
