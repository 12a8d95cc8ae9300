"""`thriftrag collections`: the collections of this home, and their upkeep."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import checks, complete, edge, interrupt, options, progress, session, terminal
from rag.cli.words import plural, size
from rag.errors import CollectionMissing, InputError, SnapshotError
from rag.settings import Settings
from rag.types import OnProgress

if TYPE_CHECKING:
    from indexers.backup import Manifest

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                  help="List, check, repair, shrink, export, import and delete collections.",
                  epilog=options.examples("thriftrag collections list", "thriftrag collections verify handbook"))
Name = Annotated[str | None, typer.Argument(
    metavar="NAME", autocompletion=complete.collections, help=f"Collection. {options.DEFAULT_COLLECTION}")]
Named = Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete.collections, help="Collection.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list", epilog=options.examples("thriftrag collections list", "thriftrag collections list --json"))
def list_(as_json: options.Json = False, home: options.Home = None, verbose: options.Verbose = False) -> None:
    """List the collections. Shows their size and the encoder that wrote them."""
    found = session.list_collections(session.settings(home=home, verbose=verbose))
    if as_json:
        terminal.print_json({"collections": [row.to_dict() for row in found]})
        return
    from rag.cli import tables

    if found:
        terminal.console(sys.stdout).print(tables.collections(found))
    else:
        print("There are no collections yet. Next: thriftrag ingest PATH")


@app.command(epilog=options.examples("thriftrag collections info", "thriftrag collections info handbook --json"))
def info(name: Name = None, as_json: options.Json = False, home: options.Home = None,
         verbose: options.Verbose = False) -> None:
    """Show the facts of one collection. These are its counts, bytes, encoder and snapshot."""
    settings = session.settings(home=home, collection=name, verbose=verbose)
    with session.open_kb(settings, create=False) as kb:
        found = kb.info()
    if as_json:
        terminal.print_json(found.to_dict())
        return
    from rag.cli import tables

    terminal.console(sys.stdout).print(tables.facts(found.to_dict()))


@app.command(epilog=options.examples("thriftrag collections verify", "thriftrag collections verify handbook --json"))
def verify(name: Name = None, as_json: options.Json = False, home: options.Home = None,
           verbose: options.Verbose = False) -> None:
    """Check a collection for damage. Compares the index files with their checksums and the store; exits 1 on damage."""
    settings = session.settings(home=home, collection=name, verbose=verbose)

    def work() -> list[str]:
        with session.open_kb(settings, create=False) as kb:
            return kb.verify()

    with progress.waiting("verifying"):
        problems = interrupt.complete(work)
    if as_json:
        terminal.print_json({"collection": settings.collection, "sound": not problems, "problems": problems})
    elif not problems:
        print(f"Collection {settings.collection} is sound.")
    else:
        for problem in problems:
            print(f"- {terminal.one_line(problem)}")
        print(f"\nNext: thriftrag collections rebuild {settings.collection}")
    if problems:
        raise typer.Exit(edge.FAILED)


@app.command(epilog=options.examples("thriftrag collections rebuild", "thriftrag collections rebuild handbook"))
def rebuild(name: Name = None, as_json: options.Json = False, home: options.Home = None,
            verbose: options.Verbose = False) -> None:
    """Make every index again from the stored chunks. For after damage, or to move to another encoder."""
    settings = session.settings(home=home, collection=name, verbose=verbose)
    kept = "The collection is as it was before; run the same command again to rebuild it."

    def work(on_progress: OnProgress) -> None:
        with session.open_kb(settings, create=False) as kb:
            kb.rebuild(on_progress=on_progress)

    with progress.shown() as on_progress:
        ended = interrupt.run(lambda cancelled: work(interrupt.stopping(on_progress, cancelled, kept=kept)),
                              kept=kept, grace_s=5.0)
    if ended.stopped:
        raise edge.Stopped("The indexes were rebuilt just before.")
    if as_json:
        terminal.print_json({"collection": settings.collection, "rebuilt": True})
    else:
        print(f"Rebuilt the indexes of collection {settings.collection}.")


@app.command(epilog=options.examples("thriftrag collections compact", "thriftrag collections compact handbook --json"))
def compact(name: Name = None, as_json: options.Json = False, home: options.Home = None,
            verbose: options.Verbose = False) -> None:
    """Shrink a collection. Merges its index files and drops what deleted documents still occupy."""
    settings = session.settings(home=home, collection=name, verbose=verbose)

    def work() -> int:
        with session.open_kb(settings, create=False) as kb:
            return kb.compact()

    with progress.waiting("compacting"):
        freed = interrupt.complete(work, kept="The collection is sound; run the same command again to compact it.")
    if as_json:
        terminal.print_json({"collection": settings.collection, "bytes_freed": freed})
    else:
        print(f"Freed {size(freed)} in collection {settings.collection}.")


@app.command("export", epilog=options.examples("thriftrag collections export handbook handbook.thriftrag",
                                               "thriftrag collections export handbook handbook.thriftrag --force --json"))
def export(name: Named,
           file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; one file, whole or not there.")],
           force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
           as_json: options.Json = False, home: options.Home = None, verbose: options.Verbose = False) -> None:
    """Write a collection to one file, for backup or for another machine. It may be in use meanwhile: the file holds one published
    state, with checksums of everything in it."""
    settings = session.settings(home=home, collection=checks.collection(name), verbose=verbose)
    kept = "Nothing was written."

    def work(cancelled: Callable[[], bool]) -> Manifest | None:
        with progress.shown() as on_progress, session.open_kb(settings, create=False) as kb:
            return kb.export(file, replace=force, on_progress=on_progress, cancelled=cancelled)

    made = interrupt.run(work, kept=kept, grace_s=5.0).result
    if made is None:
        raise edge.Stopped(kept)
    written = file.expanduser().stat().st_size
    if as_json:
        terminal.print_json({"collection": name, "file": str(file), "bytes": written, "snapshot": made.snapshot,
                             "documents": made.documents, "chunks": made.chunks})
    else:
        shown = terminal.one_line(str(file))
        print(f"Exported {plural(made.documents, 'document')} of collection {name} to {shown}: {size(written)}.")


@app.command("import", epilog=options.examples("thriftrag collections import handbook.thriftrag",
                                               "thriftrag collections import handbook.thriftrag --as handbook-2"))
def import_(file: Annotated[Path, typer.Argument(metavar="FILE", help="What `collections export` wrote.")],
            name: Annotated[str | None, typer.Option(
                "--as", metavar="NAME", help="Name of the collection. Default: its own.")] = None,
            as_json: options.Json = False, home: options.Home = None, verbose: options.Verbose = False) -> None:
    """Make a collection from an exported file. Every byte is compared with its checksum first; the collection is there as a whole
    or not at all."""
    settings = session.settings(home=home, verbose=verbose)
    chosen = None if name is None else checks.collection(name)
    kept = "No collection was made."

    def work(cancelled: Callable[[], bool]) -> tuple[str, Manifest] | None:
        with progress.shown() as on_progress:
            return session.import_collection(file, chosen, chosen=settings, on_progress=on_progress, cancelled=cancelled)

    done = interrupt.run(work, kept=kept, grace_s=5.0).result
    if done is None:
        raise edge.Stopped(kept)
    made, manifest = done
    if as_json:
        terminal.print_json({"collection": made, "documents": manifest.documents, "chunks": manifest.chunks,
                             "exported": manifest.created, "encoder": manifest.encoder})
    else:
        print(f"Imported {plural(manifest.documents, 'document')} as collection {made}; the file is of {manifest.created}.")


@app.command(epilog=options.examples("thriftrag collections delete handbook", "thriftrag collections delete handbook --yes"))
def delete(name: Named, yes: Yes = False, as_json: options.Json = False, home: options.Home = None,
           verbose: options.Verbose = False) -> None:
    """Delete a collection for good. Asks first; the files it was made from are not touched."""
    settings = session.settings(home=home, collection=checks.collection(name), verbose=verbose)
    what = f"collection {name} with {_contents(settings)}"
    if not yes:
        _confirm(what, as_json=as_json)
    session.delete_collection(name, chosen=settings)
    if as_json:
        terminal.print_json({"deleted": name})
    else:
        print(f"Deleted {what}.")


def _contents(settings: Settings) -> str:
    """How much would go, in words; a collection too damaged to count can be deleted all the same."""
    try:
        with session.open_kb(settings, create=False) as kb:
            return plural(kb.info().documents, "document")
    except CollectionMissing:
        raise
    except SnapshotError:
        return "contents that cannot be read"


def _confirm(what: str, *, as_json: bool) -> None:
    """Returns when the answer is yes, leaves the command when it is no.

    Raises:
        InputError: nobody is there to be asked.
    """
    if as_json or not (terminal.interactive(sys.stdin) and terminal.interactive(sys.stderr)):
        raise InputError(f"Deleting {what} needs a confirmation, and there is no terminal to ask on.", field="yes",
                         code="confirmation_needed", hint="Add --yes if you mean it.")
    if not typer.confirm(f"Delete {what}? This cannot be undone.", err=True):
        print("Nothing was deleted.", file=sys.stderr)
        raise typer.Exit(edge.FAILED)
