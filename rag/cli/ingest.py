"""`thriftrag ingest`: files in, a table of what happened out."""

from __future__ import annotations

import glob
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import checks, edge, interrupt, options, progress, session, terminal
from rag.cli.clusters import told as clusters_told
from rag.cli.words import plural
from rag.errors import InputError
from rag.settings import Settings
from rag.types import IngestReport, OnProgress

if TYPE_CHECKING:
    from indexers.clusters_build import Report as ClusterReport

EXAMPLES = options.examples(
    "thriftrag ingest docs/                      # a folder with everything below it",
    'thriftrag ingest guide.pdf "notes/*.md"     # files and patterns',
    "thriftrag ingest docs/ -c handbook          # into the collection handbook, made if need be",
    "thriftrag ingest docs/ --dry-run            # what would happen; writes nothing",
    "thriftrag ingest docs/ --prune              # also forget documents whose file is gone from docs/",
    "thriftrag ingest docs/ --clusters           # and group the texts, for questions about all of them",
    "thriftrag ingest docs/ --watch              # then follow docs/ until Ctrl-C",
    "cat records.jsonl | thriftrag ingest -      # one JSON object with id, title, text on each line",
)
STDIN = "-"


def ingest(
    paths: Annotated[list[str], typer.Argument(
        metavar="PATH", help="Files, folders, patterns like 'docs/*.pdf', or - for JSON lines on stdin.")],
    collection: options.Collection = None,
    resume: Annotated[bool, typer.Option(
        "--resume",
        help="Go on where an interrupted run stopped. Always so: what is in and unchanged costs nothing.")] = False,
    workers: Annotated[str | None, typer.Option(
        "--workers", metavar="N",
        help=f"Processes that parse files, each with limits on time and memory; 0 parses in this one. {options.default('workers')}",
    )] = None,
    prune: Annotated[bool, typer.Option(
        "--prune", help="Forget documents whose file is gone from a folder that is named.")] = False,
    watch: Annotated[bool, typer.Option(
        "--watch", help="Then follow the files and folders, deletions included, until Ctrl-C.")] = False,
    clusters: Annotated[bool, typer.Option(
        "--clusters", help="Then bring the clusters up to date, or make those of all texts (see `thriftrag clusters`).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and chunk, report, write nothing.")] = False,
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Read documents into a collection: new ones are added, changed ones replaced, unchanged ones left alone.

    A file that cannot be read is reported and left out, and the rest goes on; the exit code is then 3, or 1 if nothing
    got in. Stop with Ctrl-C at any time: what was published stays, and the same command goes on from there.
    """
    parsers = checks.workers(workers)
    sources = _sources(paths)
    settings = session.settings(home=home, collection=collection, workers=parsers, verbose=verbose)
    if watch:
        _refuse_with_watch({"--json": as_json, "--dry-run": dry_run, "--clusters": clusters, "-": STDIN in paths})
        _follow(settings, sources)
        return
    if clusters and dry_run:
        raise InputError("--clusters cannot be combined with --dry-run.", field="clusters", hint="Leave out one of the two.")
    lines = _stdin_lines(settings) if STDIN in paths else None
    with progress.shown() as on_progress:
        ended = interrupt.run(
            lambda cancelled: _run(settings, sources, lines=lines, prune=prune, dry_run=dry_run, clusters=clusters,
                                   on_progress=on_progress, cancelled=cancelled),
            kept="What was published stays; run the same command again to go on.",
            finishing="Stopping after the batch in hand; press Ctrl-C again to leave at once.")
    report, clustered = ended.result
    if as_json:
        told = {"clusters": [each.to_dict() for each in clustered]} if clusters else {}
        terminal.print_json({**report.to_dict(), **told})
    else:
        _tell(report, settings, paths)
        for each in clustered:
            print(f"Clusters: {clusters_told(each)}")
    code = exit_code(report, stopped=ended.stopped)
    if code:
        raise typer.Exit(code)


def exit_code(report: IngestReport, *, stopped: bool) -> int:
    if report.interrupted or stopped:
        return edge.INTERRUPTED
    if not report.failures:
        return edge.OK
    return edge.PARTIAL if report.added + report.changed + report.unchanged else edge.FAILED


def _run(settings: Settings, sources: Sequence[str], *, lines: Iterator[str] | None, prune: bool, dry_run: bool, clusters: bool,
         on_progress: OnProgress, cancelled: Callable[[], bool]) -> tuple[IngestReport, list[ClusterReport]]:
    with session.open_kb(settings, create=True) as kb:
        report = kb.ingest(*sources, lines=lines, prune=prune, dry_run=dry_run, on_progress=on_progress, cancelled=cancelled)
        if not clusters or report.interrupted:
            return report, []
        return report, (kb.update_clusters(on_progress=on_progress, cancelled=cancelled)
                        or [kb.build_clusters(on_progress=on_progress, cancelled=cancelled)])


def _refuse_with_watch(given: Mapping[str, bool]) -> None:
    wrong = [name for name, is_given in given.items() if is_given]
    if wrong:
        raise InputError(f"--watch cannot be combined with {wrong[0]}.", field="watch", hint="Leave out one of the two.")


def _follow(settings: Settings, sources: Sequence[str]) -> None:
    """Ctrl-C is how watching ends, so it is no failure."""
    first = True

    def tell(report: IngestReport) -> None:
        nonlocal first
        if first:
            _tell(report, settings, sources)
            print("\nWatching for changes; Ctrl-C ends it.", file=sys.stderr)
        else:
            print(_line(report), flush=True)
            for failure in report.failures:
                print(terminal.one_line(f"  {failure.message} {failure.hint}"), file=sys.stderr)
        first = False

    def work(cancelled: Callable[[], bool]) -> None:
        with session.open_kb(settings, create=True) as kb, progress.shown() as on_progress:
            kb.watch(*sources, on_report=tell, on_progress=on_progress, cancelled=cancelled)

    interrupt.run(work, kept="What was published stays.", finishing="Stopping; press Ctrl-C again to leave at once.")


def _line(report: IngestReport) -> str:
    """`14:02:11  2 added (1 moved), 1 changed, 3 removed, 1 failed: 12 chunks in 0.4 s`."""
    moved = f" ({report.moved} moved)" if report.moved else ""
    counts = {f"added{moved}": report.added, "changed": report.changed, "removed": report.removed, "failed": len(report.failures)}
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{time.strftime('%H:%M:%S')}  {told}: {plural(report.chunks, 'chunk')} in {report.seconds:.1f} s"


def _sources(paths: Sequence[str]) -> list[str]:
    """The paths without the mark for stdin. One missing among others is left to ingestion, which reports it and goes on.

    Raises:
        InputError: an empty path, which would mean the current folder; stdin twice; or nothing there at all.
    """
    if any(not path.strip() for path in paths):
        raise InputError("A PATH is empty.", field="paths", hint="Name a file or a folder; . is the current folder.")
    if list(paths).count(STDIN) > 1:
        raise InputError("- is given twice, but there is one stdin.", field="paths", hint="Give - once.")
    named = [path for path in paths if path != STDIN]
    if STDIN not in paths and not any(glob.has_magic(path) or os.path.lexists(os.path.expanduser(path)) for path in named):
        raise InputError(f"There is no file or folder {', '.join(map(repr, named))}.", field="paths", code="file_missing",
                         hint="Check the spelling and the folder you are in.")
    return named


def _stdin_lines(settings: Settings) -> Iterator[str]:
    """Lines of stdin as text. Bytes that are not UTF-8 become lone surrogates, which the JSONL loader reports by line.

    Raises:
        InputError: a line longer than the largest file allowed.
    """
    limit = settings.max_file_mb * 1_000_000
    if terminal.interactive(sys.stdin):
        print("Reading JSON lines from the terminal; end with Ctrl-D.", file=sys.stderr)
    number = 0
    while raw := sys.stdin.buffer.readline(limit + 1):
        number += 1
        if len(raw) > limit:
            raise InputError(f"Line {number} on stdin is longer than {settings.max_file_mb} MB.", field="paths",
                             hint="Put one JSON object on each line, or raise the setting max_file_mb.")
        yield raw.decode("utf-8-sig" if number == 1 else "utf-8", errors="surrogateescape")


def _tell(report: IngestReport, settings: Settings, paths: Sequence[str]) -> None:
    from rag.cli import tables

    console = terminal.console(sys.stdout)
    console.print(tables.report(report, collection=settings.collection))
    if report.interrupted:
        print("\nStopped. What is counted above stays; run the same command again to go on.", file=sys.stderr)
    elif report.gone:
        print(f"\n{plural(report.gone, 'file')} of this collection {'is' if report.gone == 1 else 'are'} no longer there; "
              "--prune forgets their documents.")
    elif not (report.added or report.changed or report.unchanged or report.failures):
        print(f"\nNo documents were found in {terminal.one_line(', '.join(paths))}.")
    elif report.dry_run:
        print("\nNothing was written. Next: the same command without --dry-run.")
    elif report.added or report.changed or report.unchanged:
        named = "" if settings.collection == "default" else f" -c {settings.collection}"
        print(f'\nNext: thriftrag ask "What do you want to know?"{named}')
