"""`thriftrag eval`: how much quality each token buys on a labelled data set, and how well retrieval finds the evidence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import complete, edge, interrupt, options, progress, session, terminal
from rag.errors import BudgetError, InputError

if TYPE_CHECKING:
    from eval.datasets import Dataset
    from eval.retrieval import ModeResult
    from eval.runner import Outcome
    from eval.systems import KnowledgeBase
    from indexers.encoders import Encoder
    from rag.llm import Reader
    from rag.settings import Settings
    from rag.types import Mode, OnProgress

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure answers and retrieval on a labelled data set.",
                  epilog=options.examples("thriftrag eval run eval/data/sample --limit 20",
                                          "thriftrag eval retrieval eval/data/sample"))
RUN_EXAMPLES = options.examples(
    "thriftrag eval run eval/data/sample --limit 20 --answerable",
    "thriftrag eval run my-data --systems topk,thrift --budgets 64,128,256   # quality for each budget",
    "thriftrag eval run my-data --out runs/first --json                      # run it again to go on or to add systems",
)
RETRIEVAL_EXAMPLES = options.examples("thriftrag eval retrieval eval/data/sample",
                                      "thriftrag eval retrieval my-data other-data --modes bm25,hybrid --json")
Folders = Annotated[list[Path], typer.Argument(
    metavar="DATASET_DIR...", help="Folders with corpus.jsonl and queries.jsonl, either of which may end in .gz.")]
Limit = Annotated[str | None, typer.Option(
    "--limit", metavar="N", help="Only the first N questions of each data set, in file order. Default: all.")]


@app.command("run", epilog=RUN_EXAMPLES, short_help="Compare systems by quality and cost on labelled questions.")
def run_(
    datasets: Folders,
    systems: Annotated[str, typer.Option(
        "--systems", metavar="A,B",
        help="What to compare: closed_book, gold, gold_sentences, topk, sentences, greedy, thrift.",
    )] = "closed_book,gold,topk,thrift",
    budgets: Annotated[str, typer.Option("--budgets", metavar="N,M", help="Context tokens to give them.")] = "128,256",
    limit: Limit = None,
    answerable: Annotated[bool, typer.Option(
        "--answerable", help="Leave out questions without answers, before --limit.")] = False,
    seed: Annotated[str, typer.Option("--seed", metavar="S", help="Seed of the confidence intervals.")] = "13",
    out: Annotated[Path, typer.Option(
        "--out", metavar="DIR", help="Where results go; a run found there goes on.")] = Path("runs/eval"),
    model: Annotated[str | None, typer.Option(
        "--model", metavar="NAME", autocompletion=complete.models,
        help="Reader, as for `ask`. Default: setting reader.")] = None,
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Answer every question with every system at every budget, and sum up quality and cost.

    Writes results.jsonl, summary.json and summary.md. What is in the folder already is not computed again, and reader
    calls that were made before cost nothing. Exits 3 if some questions failed.
    """
    from eval.runner import Plan, run

    plan = Plan(folders=tuple(datasets), systems=_names(systems), budgets=_budgets(budgets), out=out, answerable=answerable,
                limit=_limit(limit), seed=_seed(seed))
    settings = session.settings(home=home, reader=model, verbose=verbose)
    with progress.shown() as on_progress:
        outcome = interrupt.run(
            lambda cancelled: run(plan, settings=settings, open_collection=_Opener(), on_progress=on_progress,
                                  open_reader=lambda: _open_reader(settings), cancelled=cancelled),
            kept=f"The results so far are in {out}; run the same command again to go on.",
            finishing="Stopping after the question in hand; press Ctrl-C again to leave at once.").result
    _tell_run(outcome, out, as_json=as_json)
    if outcome.stopped:
        raise typer.Exit(edge.INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(edge.FAILED if outcome.failed == outcome.kept + outcome.computed else edge.PARTIAL)


@app.command("retrieval", epilog=RETRIEVAL_EXAMPLES, short_help="Measure whether the evidence is found, and how fast.")
def retrieval(
    datasets: Folders,
    modes: Annotated[str, typer.Option("--modes", metavar="A,B", help="What to compare.")] = "bm25,dense,hybrid",
    limit: Limit = None,
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Search for every question whose gold documents are known: recall, nDCG and reciprocal rank by document, and time."""
    from eval.datasets import load
    from eval.retrieval import modes_named, with_evidence

    chosen, count = modes_named(_names(modes)), _limit(limit)
    settings = session.settings(home=home, verbose=verbose)
    data = [load(folder) for folder in datasets]
    for dataset in data:
        with_evidence(dataset, limit=count)
    with progress.shown() as on_progress:
        found = interrupt.run(
            lambda cancelled: _search_all(data, chosen, limit=count, settings=settings, on_progress=on_progress,
                                          cancelled=cancelled),
            kept="Passages that were read in stay; measurements were not kept.", grace_s=5.0)
    if found.stopped:
        raise edge.Stopped("Passages that were read in stay; measurements were not kept.")
    if as_json:
        terminal.print_json({"datasets": [{"dataset": name, "modes": [row.to_dict() for row in rows]}
                                          for name, rows in found.result]})
    else:
        _tell_retrieval(found.result)


def _open_reader(settings: Settings) -> Reader:
    from rag.llm.open import open_reader

    return open_reader(settings, cache=session.model_cache(settings))


class _Opener:
    """Opens collections that share one encoder, which is loaded once."""

    def __init__(self) -> None:
        self._encoder: Encoder | None = None

    def __call__(self, name: str, *, settings: Settings, reader: Reader | None) -> KnowledgeBase:
        from rag.thriftrag import ThriftRAG

        kb = ThriftRAG.open(name, settings=settings, reader=reader, encoder=self._encoder)
        self._encoder = kb.encoder
        return kb


def _search_all(data: Sequence[Dataset], modes: Sequence[Mode], *, limit: int | None, settings: Settings,
                on_progress: OnProgress, cancelled: Callable[[], bool]) -> list[tuple[str, list[ModeResult]]]:
    """Results by data set; what was cancelled is missing."""
    from eval.corpus import opened
    from eval.retrieval import measure, with_evidence

    open_collection = _Opener()
    found = []
    for dataset in data:
        kb = opened(dataset, settings=settings, open_collection=open_collection, reader=None, on_progress=on_progress,
                    cancelled=cancelled)
        if kb is None:
            break
        with closing(kb):
            questions = with_evidence(dataset, limit=limit)
            rows = [measure(questions, kb, mode=mode, note=dataset.name, on_progress=on_progress, cancelled=cancelled)
                    for mode in modes]
        found.append((dataset.name, [row for row in rows if row is not None]))
    return found


def _names(typed: str) -> tuple[str, ...]:
    """The parts of a list separated by commas; blanks around them do not matter."""
    return tuple(part for part in (piece.strip() for piece in typed.split(",")) if part)


def _budgets(typed: str) -> tuple[int, ...]:
    hint = "Use context tokens separated by commas, for instance --budgets 128,256."
    try:
        return tuple(int(name) for name in _names(typed))
    except ValueError:
        raise BudgetError(f"--budgets {typed!r} is not a list of whole numbers.", hint=hint, field="budgets") from None


def _limit(typed: str | None) -> int | None:
    hint = "Use a positive number of questions, for instance --limit 200."
    if typed is None:
        return None
    if not typed.isdecimal() or int(typed) == 0:
        raise InputError(f"--limit {typed!r} is not a positive whole number.", hint=hint, field="limit")
    return int(typed)


def _seed(typed: str) -> int:
    if not typed.isdecimal():
        raise InputError(f"--seed {typed!r} is not a whole number from 0.", hint="Use for instance --seed 13.", field="seed")
    return int(typed)


def _tell_run(outcome: Outcome, out: Path, *, as_json: bool) -> None:
    """The summary on stdout; what this call did goes to stderr, where it is in nobody's way."""
    if as_json:
        terminal.print_json(outcome.summary)
    else:
        sys.stdout.write(terminal.clean((out / "summary.md").read_text(encoding="utf-8")))
    kept = f" {outcome.kept} were there already and were not computed again;" if outcome.kept else ""
    print(f"{outcome.computed} answers computed;{kept} {outcome.calls} reader calls made, {outcome.remembered} answered "
          f"from earlier calls. Results: {out}", file=sys.stderr)
    if outcome.failed:
        print(f"{outcome.failed} answers failed; results.jsonl has the errors, and the same command tries them again.",
              file=sys.stderr)


def _tell_retrieval(found: Sequence[tuple[str, Sequence[ModeResult]]]) -> None:
    from rag.cli import tables

    table = tables.listing(("data set", "left"), ("mode", "left"), ("n", "right"), ("recall@10", "right"),
                           ("nDCG@10", "right"), ("MRR", "right"), ("all evidence in 10", "right"), ("ms (median)", "right"))
    for name, rows in found:
        for row in rows:
            figures = (row.recall_at_10, row.ndcg_at_10, row.mrr, row.sufficiency_at_10)
            table.add_row(terminal.one_line(name), row.mode, f"{row.n:,}", *(f"{figure:.3f}" for figure in figures),
                          f"{row.ms_p50:.1f}")
    terminal.console(sys.stdout).print(table)
