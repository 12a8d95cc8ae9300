"""`thriftrag reservoir`: what a collection remembers of past answers, and what its trigger was fitted to."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import complete, interrupt, options, progress, session, terminal
from rag.cli.words import plural
from rag.errors import InputError, StorageError

if TYPE_CHECKING:
    from rag.memory import Memory
    from rag.thriftrag import ThriftRAG
    from rag.types import Chunk
    from retrievers.reservoir import Kept, Knowledge

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, epilog=options.examples(
    "thriftrag reservoir list", "thriftrag reservoir stats -c handbook"),
    help="Look at, prune, export and clear what past answers left in memory, and calibrate its trigger.")
TABLES = ("questions", "knowledge", "answers")
What = Annotated[str, typer.Option("--what", metavar="WHAT", autocompletion=complete.remembered,
                                   help="questions, knowledge (the passages) or answers.")]


@app.command("list", epilog=options.examples(
    "thriftrag reservoir list                       # questions, the latest used first",
    "thriftrag reservoir list --what knowledge --limit 20",
    "thriftrag reservoir list -c handbook --json"))
def list_(what: What = "questions",
          limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Entries at most. Default: 50.")] = 50,
          collection: options.Collection = None, as_json: options.Json = False, home: options.Home = None,
          verbose: options.Verbose = False) -> None:
    """List what is remembered. Shows when it was last used, how often it served, and when it ends."""
    table = _table(what)
    settings = session.settings(home=home, collection=collection, verbose=verbose)
    with session.open_kb(settings, create=False) as kb:
        found = kb.memory().reservoir.listed(table, limit=limit)
    if as_json:
        terminal.print_json({table: [_row(each) for each in found]})
    elif not found:
        print(f"Collection {settings.collection} remembers no {table}. The settings memory and answer_cache switch it on.")
    else:
        from rag.cli import tables

        shown = tables.listing(("number", "right"), ("hits", "right"), ("last used", "left"), ("ends", "left"), (table, "left"))
        for each in found:
            shown.add_row(str(each.number), f"{each.hits:,}", _when(each.used), _when(each.expires), terminal.one_line(each.name))
        terminal.console(sys.stdout).print(shown)


@app.command(epilog=options.examples(
    "thriftrag reservoir show 12                    # a question: what was read for it",
    "thriftrag reservoir show 40 --what knowledge   # a passage, as the collection holds it now"))
def show(number: Annotated[int, typer.Argument(metavar="NUMBER", help="As `thriftrag reservoir list` shows it.")],
         what: What = "questions", collection: options.Collection = None, as_json: options.Json = False,
         home: options.Home = None, verbose: options.Verbose = False) -> None:
    """Show one entry with its contents. Passages are read from the collection: memory holds no copy of them."""
    table = _table(what)
    settings = session.settings(home=home, collection=collection, verbose=verbose)
    with session.open_kb(settings, create=False) as kb:
        memory = kb.memory()
        entry = next((each for each in memory.reservoir.listed(table) if each.number == number), None)
        if entry is None:
            raise InputError(f"There is no entry {number} among the {table}.", field="number", code="entry_missing",
                             hint=f"`thriftrag reservoir list --what {table}` shows their numbers.")
        facts = {**_row(entry), **_contents(kb, memory, table, entry)}
    if as_json:
        terminal.print_json(facts)
        return
    from rag.cli import tables

    terminal.console(sys.stdout).print(tables.facts({name: value if isinstance(value, str | int) else json.dumps(
        value, ensure_ascii=False) for name, value in facts.items()}))


@app.command(epilog=options.examples("thriftrag reservoir stats", "thriftrag reservoir stats -c handbook --json"))
def stats(collection: options.Collection = None, as_json: options.Json = False, home: options.Home = None,
          verbose: options.Verbose = False) -> None:
    """Count what is remembered, how often it served, the cases that were checked, and what the trigger goes by."""
    settings = session.settings(home=home, collection=collection, verbose=verbose)
    with session.open_kb(settings, create=False) as kb:
        memory = kb.memory()
        found: dict[str, object] = dict(memory.reservoir.counts())
        found["bytes"] = memory.reservoir.path.stat().st_size if memory.reservoir.path.is_file() else 0
        found |= {f"trigger_{kind}": _source(memory, kind, kb.info().encoder) for kind in _kinds()}
    if as_json:
        terminal.print_json(found)
        return
    from rag.cli import tables

    terminal.console(sys.stdout).print(tables.facts(found))


@app.command(epilog=options.examples("thriftrag reservoir prune", "thriftrag reservoir prune -c handbook --json"))
def prune(collection: options.Collection = None, as_json: options.Json = False, home: options.Home = None,
          verbose: options.Verbose = False) -> None:
    """Forget what has ended and what the collection no longer holds, and give its space back to the disk."""
    settings = session.settings(home=home, collection=collection, verbose=verbose)

    def work() -> int:
        with session.open_kb(settings, create=False) as kb:
            return kb.sweep_memory()

    with progress.waiting("pruning"):
        gone = interrupt.complete(work, kept="Run the same command again to go on.")
    _told("pruned", gone, f"Forgot {plural(gone, 'entry', 'entries')} of collection {settings.collection}.", as_json=as_json)


@app.command(epilog=options.examples(
    "thriftrag reservoir clear                      # what was remembered; what was learnt of it stays",
    "thriftrag reservoir clear --cases              # that as well"))
def clear(cases: Annotated[bool, typer.Option("--cases", help="Also the cases that were checked, and the fit to them.")] = False,
          collection: options.Collection = None, as_json: options.Json = False, home: options.Home = None,
          verbose: options.Verbose = False) -> None:
    """Forget everything. Documents and indexes are not touched; memory fills again as questions are answered."""
    settings = session.settings(home=home, collection=collection, verbose=verbose)
    with session.open_kb(settings, create=False) as kb:
        gone = kb.memory().reservoir.clear(cases=cases)
    _told("cleared", gone, f"Forgot {plural(gone, 'entry', 'entries')} of collection {settings.collection}.", as_json=as_json)


@app.command(epilog=options.examples(
    "thriftrag reservoir export memory.jsonl",
    "thriftrag reservoir export - -c handbook       # to stdout"))
def export(file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write JSON lines, or - for stdout.")],
           collection: options.Collection = None, as_json: options.Json = False, home: options.Home = None,
           verbose: options.Verbose = False) -> None:
    """Write everything that is remembered as JSON lines, passages with the text that the collection holds now."""
    if file == "-" and as_json:
        raise InputError("--json and - both write to stdout.", field="file", code="usage", hint="Name a file.")
    settings = session.settings(home=home, collection=collection, verbose=verbose)
    with session.open_kb(settings, create=False) as kb:
        memory = kb.memory()
        lines = [json.dumps({"what": table, **_row(each), **_contents(kb, memory, table, each)}, ensure_ascii=False)
                 for table in TABLES for each in memory.reservoir.listed(table)]
    if file == "-":
        for line in lines:
            print(line)
        return
    _write(Path(file), lines)
    _told("exported", len(lines), f"Wrote {plural(len(lines), 'entry', 'entries')} to {file}.", as_json=as_json)


@app.command(epilog=options.examples(
    "thriftrag reservoir calibrate                  # from the cases that traffic left; memory = watch collects them",
    "thriftrag reservoir calibrate --error 0.01     # for a stricter promise",
    "thriftrag reservoir calibrate --reset          # back to what came with the program"))
def calibrate(
    error: Annotated[float | None, typer.Option(
        "--error", metavar="SHARE", min=0.0001, max=0.5,
        help=f"Promised share of wrong ones among what memory serves. {options.default('memory_error')}")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Forget what was fitted; the cases stay.")] = False,
    collection: options.Collection = None, as_json: options.Json = False, home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Fit the trigger to this collection's own traffic: when memory may serve so that the promise holds.

    Every question that was searched although memory had something is a case. Too few of them, or none that memory got wrong, and
    nothing is fitted: what came with the program, or the fit before, goes on to decide.
    """
    from rag import calibration

    settings = session.settings(home=home, collection=collection, verbose=verbose)
    promised = settings.memory_error if error is None else error
    rows: dict[str, dict[str, object]] = {}
    with session.open_kb(settings, create=False) as kb:
        memory = kb.memory()
        for kind in _kinds():
            cases = memory.reservoir.observations(kind)
            model = None if reset else calibration.fit(kind, cases, error=promised)
            if reset or model is not None:
                memory.reservoir.fit(kind, None if model is None else model.to_dict())
            rows[kind] = {"cases": len(cases), "right": sum(case.right for case in cases), "fitted": model is not None,
                          "serves": model is not None and model.least is not None,
                          "goes_by": _source(memory, kind, kb.info().encoder)}
    if as_json:
        terminal.print_json({"error": promised, "models": rows})
        return
    for kind, row in rows.items():
        done = "fitted" if row["fitted"] else "forgotten" if reset else f"not fitted: {_why(row, calibration.LEAST)}"
        print(f"{kind}: {plural(len_of(row), 'case')}, {row['right']} right; {done}. It goes by {row['goes_by']}.")


def len_of(row: dict[str, object]) -> int:
    """How many cases a row counts."""
    return int(str(row["cases"]))


def _why(row: dict[str, object], least: int) -> str:
    if len_of(row) < least:
        return f"at least {least} cases are needed"
    return "the cases show no score from which on memory is right more often"


def _source(memory: Memory, kind: str, encoder: str) -> str:
    """What decides for this kind, in words."""
    own = memory.reservoir.fitted(kind) is not None
    model = memory.model(kind, encoder)
    if model is None:
        return "nothing yet: every question is checked"
    whose = "its own traffic" if own else "what came with the program"
    serves = f"a promise of {model.error:.1%}" if model.least is not None else "no promise that was kept: nothing is served"
    return f"{whose} ({model.sigmoid.n} cases, {serves})"


def _kinds() -> list[str]:
    from rag.calibration import FEATURES

    return list(FEATURES)


def _table(what: str) -> str:
    if what not in TABLES:
        raise InputError(f"{what!r} is not remembered.", field="what", hint=f"Use one of {', '.join(TABLES)}.")
    return what


def _row(each: Kept) -> dict[str, object]:
    return {**each.to_dict(), **{name: _when(getattr(each, name)) for name in ("created", "used", "expires")}}


def _contents(kb: ThriftRAG, memory: Memory, table: str, entry: Kept) -> dict[str, object]:
    if table == "answers":
        return dict(memory.reservoir.answer(entry.scope, entry.name) or {})
    if table == "questions":
        asked = memory.reservoir.questions([entry.number]).get(entry.number)
        return {} if asked is None else {"passages": list(asked.knowledge), "naive_tokens": asked.naive_tokens}
    known = memory.reservoir.knowledge([entry.number]).get(entry.number)
    return {} if known is None else {"title": known.title, "text": _text(kb.chunks_of([_document(known)]), known)}


def _document(known: Knowledge) -> str:
    """A chunk's id is its document's, its ordinal and its hash."""
    return known.chunk_id.rsplit(":", 2)[0]


def _text(chunks: list[Chunk], known: Knowledge) -> str:
    return next((chunk.text for chunk in chunks if chunk.id == known.chunk_id), "(the collection no longer holds it)")


def _when(seconds: object) -> str:
    return datetime.fromtimestamp(float(str(seconds)), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _write(path: Path, lines: list[str]) -> None:
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.",
                           hint="Check the folder and the disk.") from error


def _told(name: str, count: int, sentence: str, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json({name: count})
    else:
        print(sentence)
