"""`thriftrag tune`: the cheapest settings that keep the answers right, on questions from the user's own documents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import checks, complete, edge, interrupt, options, progress, session, terminal, tune_report
from rag.errors import BudgetError, InputError, RagError

if TYPE_CHECKING:
    from eval.tune.frontier import Recommendation
    from eval.tune.tuning import Found, Options, Tunable, Tuning
    from rag.llm import Reader
    from rag.settings import Settings

EXAMPLES = options.examples(
    "thriftrag tune -c handbook                            # make questions, try settings, recommend",
    "thriftrag tune -c handbook --max-calls 300 --apply    # within 300 reader calls; use what is found from now on",
    "thriftrag tune -c handbook --pairs-only --review      # only make the questions, and look at each",
    "thriftrag tune -c handbook --pairs my-questions.jsonl # on labelled questions of your own",
    "thriftrag tune -c handbook --budgets 64,128,256 --selectors greedy --plot frontier.png",
)
FOLDER = "tune"
_FINISHING = "Stopping after the call in hand; press Ctrl-C again to leave at once."
_APPLIED = ("budget_tokens", "selector", "candidates", "mode")


def tune(
    collection: options.Collection = None,
    pairs: Annotated[Path | None, typer.Option(
        "--pairs", metavar="FILE.jsonl",
        help="Questions with answers, one JSON object a line. Made if it is not there; used as it is if it is yours. "
             "Default: tune/pairs.jsonl in the collection's folder.")] = None,
    questions: Annotated[str, typer.Option("--questions", metavar="N", help="Pairs to make.")] = "40",
    review: Annotated[bool, typer.Option("--review", help="Keep, drop or edit the pairs one by one before they are used.")] = False,
    pairs_only: Annotated[bool, typer.Option("--pairs-only", help="Stop when the pairs are made and reviewed.")] = False,
    budgets: Annotated[str, typer.Option(
        "--budgets", metavar="N,M", help="Context tokens to try.")] = "64,96,128,192,256,384,512,1024",
    selectors: Annotated[str, typer.Option("--selectors", metavar="A,B", help="Selectors to try.")] = "topk,sentences,greedy",
    candidates: Annotated[str, typer.Option("--candidates", metavar="N,M", help="Candidates to try.")] = "12,24,48",
    modes: Annotated[str, typer.Option(
        "--modes", metavar="A,B", help="Retrieval to try: hybrid, dense, bm25, sparse.")] = "hybrid",
    keep: Annotated[str, typer.Option(
        "--keep", metavar="SHARE", help="Share of the best F1 that the recommended settings must keep.")] = "0.95",
    max_calls: Annotated[str | None, typer.Option(
        "--max-calls", metavar="N", help="Most reader calls, half of them for making pairs. Remembered calls are free.")] = None,
    max_seconds: Annotated[str | None, typer.Option(
        "--max-seconds", metavar="S", help="No reader call begins after so many seconds.")] = None,
    seed: Annotated[str, typer.Option(
        "--seed", metavar="S", help="Decides which passages are asked about, and the intervals.")] = "13",
    model: Annotated[str | None, typer.Option(
        "--model", metavar="NAME", autocompletion=complete.models, help="Reader, as for `ask`. Default: setting reader.")] = None,
    plot: Annotated[Path | None, typer.Option(
        "--plot", metavar="FILE.png", help="Draw the frontier. Needs matplotlib: pip install 'thriftrag[plots]'.")] = None,
    apply: Annotated[bool, typer.Option(
        "--apply", help="Write the recommended settings into the collection, so that `ask` uses them from now on.")] = False,
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Find the cheapest settings that keep the answers right on your own documents.

    The reader writes questions with short answers from passages of the collection. A pair is kept if the answer stands in
    the passage, the question makes sense alone, and the reader answers it with the passage but not without. Then selectors,
    budgets and candidates compete: all by how often the context holds the answer, fewer and fewer by the reader's F1.

    Every reader call is remembered: stop with Ctrl-C at any time, and the same command goes on from there.
    """
    from eval.tune.tuning import Options

    wanted = Options(
        questions=_count(questions, "--questions"), budgets=_numbers(budgets, "--budgets"), selectors=_names(selectors),
        candidates=_numbers(candidates, "--candidates"), modes=_names(modes), keep=_share(keep), seed=_seed(seed),
        max_calls=None if max_calls is None else _count(max_calls, "--max-calls"), max_seconds=_seconds(max_seconds))
    if review and not (terminal.interactive(sys.stdin) and terminal.interactive(sys.stderr)):
        raise InputError("--review needs a terminal to ask on.", field="review",
                         hint="Leave it out and edit the file of pairs: set \"keep\" to false for those to drop.")
    settings, folder = _settings(session.settings(home=home, collection=collection, reader=model, verbose=verbose))
    file = folder / FOLDER / "pairs.jsonl" if pairs is None else pairs
    with _tuning(settings, wanted, folder=folder / FOLDER, pairs_file=file) as tuning:
        if tuning.wants_pairs():
            _generate(tuning, file)
        if review:
            _review(file)
        if pairs_only:
            tune_report.pairs_made(file, as_json=as_json)
            return
        found = _search(tuning)
    if plot is not None and any(row.f1 is not None for row in found.rows):
        from eval.tune.plot import save

        save(plot, found.rows, found.recommendation)
    _keep(found, settings, folder)
    applied = _apply(found.recommendation, settings, folder) if apply and found.recommendation is not None else None
    if as_json:
        terminal.print_json({"collection": settings.collection, **found.to_dict(),
                             "applied": None if applied is None else str(applied)})
    else:
        tune_report.found(found, applied, settings.collection)
    if found.recommendation is None:
        raise typer.Exit(edge.FAILED)
    if not found.finished:
        raise typer.Exit(edge.PARTIAL)


def _settings(loaded: Settings) -> tuple[Settings, Path]:
    """With the collection's own on top, and the collection's folder."""
    from rag.collection_settings import layered
    from rag.thriftrag import folder_of

    folder = folder_of(loaded.collection, settings=loaded)
    return layered(loaded, folder), folder


def _tuning(settings: Settings, wanted: Options, *, folder: Path, pairs_file: Path) -> Tuning:
    from eval.tune.tuning import Tuning

    return Tuning(settings, wanted, folder=folder, pairs_file=pairs_file, open_reader=_open_reader,
                  open_collection=_open_collection)


def _open_reader(settings: Settings) -> Reader:
    from rag.llm.open import open_reader

    return open_reader(settings, cache=session.model_cache(settings))


def _open_collection(settings: Settings, reader: Reader, keep_pools: int) -> Tunable:
    from rag.thriftrag import ThriftRAG

    return ThriftRAG.open(settings.collection, create=False, settings=settings, reader=reader, keep_pools=keep_pools)


def _generate(tuning: Tuning, file: Path) -> None:
    kept = f"The pairs so far are in {file}; run the same command again to go on."
    with progress.shown() as on_progress:
        ended = interrupt.run(
            lambda cancelled: tuning.generate(on_plan=tune_report.plan, on_progress=on_progress, cancelled=cancelled),
            kept=kept, finishing=_FINISHING)
    if ended.stopped:
        raise edge.Stopped(kept)
    tune_report.counted(ended.result.pairs, file)


def _search(tuning: Tuning) -> Found:
    kept = "The answers so far are remembered; run the same command again to go on."
    with progress.shown() as on_progress:
        ended = interrupt.run(
            lambda cancelled: tuning.search(on_plan=tune_report.plan, on_progress=on_progress, cancelled=cancelled),
            kept=kept, finishing=_FINISHING)
    if ended.stopped:
        raise edge.Stopped(kept)
    return ended.result


def _review(file: Path) -> None:
    from eval.tune.pairs import read, write
    from rag.cli.review import review

    try:
        review(read(file), save=lambda changed: write(file, changed))
    except typer.Abort:  # Ctrl-C, or the end of stdin
        raise edge.Stopped(f"What you answered is in {file}; --review goes on from there.") from None


def _keep(found: Found, settings: Settings, folder: Path) -> None:
    """For the page of a server, which shows it."""
    from eval import last

    if any(row.f1 is not None for row in found.rows):
        sentence = None if found.recommendation is None else found.recommendation.sentence
        last.keep(folder / last.TUNING, last.of_tuning(found.to_dict(), collection=settings.collection, reader=settings.reader,
                                                       sentence=sentence))


def _apply(recommendation: Recommendation, settings: Settings, folder: Path) -> Path:
    from rag.collection_settings import write
    from rag.settings import chosen

    values = {name: value for name, value in recommendation.chosen.settings.items() if name in _APPLIED}
    path = write(folder, values, comments=["Written by `thriftrag tune --apply`.", recommendation.sentence,
                                           f"Measured with the reader {settings.reader}."])
    for name in values:
        if chosen(settings, name):
            print(f"{name} is set by {settings.origin.get(name, 'code')}, which wins over the collection's settings.",
                  file=sys.stderr)
    return path


def _names(typed: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for part in (piece.strip() for piece in typed.split(",")) if part))


def _numbers(typed: str, flag: str) -> tuple[int, ...]:
    return tuple(_count(part, flag) for part in _names(typed))


def _count(typed: str, flag: str) -> int:
    error: type[RagError] = BudgetError if flag == "--budgets" else InputError
    if not typed.strip().isdecimal() or int(typed) == 0:
        raise error(f"{flag} {typed!r} is not a positive whole number.", field=flag.lstrip("-").replace("-", "_"),
                    hint=f"Use for instance {flag} 128.")
    return int(typed)


def _seed(typed: str) -> int:
    if not typed.isdecimal():
        raise InputError(f"--seed {typed!r} is not a whole number from 0.", hint="Use for instance --seed 13.", field="seed")
    return int(typed)


def _seconds(typed: str | None) -> float | None:
    try:
        return checks.deadline(typed)
    except BudgetError as error:
        raise BudgetError(error.message.replace("--deadline", "--max-seconds"), field="max_seconds",
                          hint="Use a positive number of seconds, for instance --max-seconds 600.") from None


def _share(typed: str) -> float:
    try:
        value = float(typed)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise InputError(f"--keep {typed!r} is not a share above 0 and up to 1.", field="keep",
                         hint="Use for instance --keep 0.95.")
    return value
