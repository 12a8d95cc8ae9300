"""`thriftrag eval`: how much quality each token buys on a labelled data set, and how well retrieval finds the evidence."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import complete, edge, eval_convert, eval_report, interrupt, options, progress, session, terminal
from rag.errors import BudgetError, InputError

if TYPE_CHECKING:
    from ir_measures.measures import Measure

    from eval.datasets import Dataset, Question
    from eval.retrieval import ModeResult
    from eval.runner import Outcome, Peer
    from eval.systems import KnowledgeBase
    from indexers.embedding_cache import CachedEncoder, EmbeddingCache
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
    "thriftrag eval run my-data --systems thrift,thrift:second_look=off      # what a module is worth",
    "thriftrag eval run my-data --out runs/first --json                      # run it again to go on or to add systems",
)
RETRIEVAL_EXAMPLES = options.examples("thriftrag eval retrieval eval/data/sample",
                                      "thriftrag eval retrieval my-data other-data --modes bm25,hybrid --json")
Folders = Annotated[list[Path], typer.Argument(
    metavar="DATASET...", help="Folders with corpus.jsonl and queries.jsonl, either of which may end in .gz, or public data sets "
                                "as they were downloaded: see `thriftrag eval convert --help`.")]
Layout = Annotated[str | None, typer.Option(
    "--layout", metavar="NAME", help="Layout of the data, where it is not recognised: see `thriftrag eval convert --help`.")]
Limit = Annotated[str | None, typer.Option(
    "--limit", metavar="N", help="Only N questions of each data set, drawn by --seed. Default: all.")]


@app.command("run", epilog=RUN_EXAMPLES, short_help="Compare systems by quality and cost on labelled questions.")
def run_(
    datasets: Folders,
    systems: Annotated[str, typer.Option(
        "--systems", metavar="A,B",
        help="What to compare. Ceilings: closed_book, gold, gold_sentences. Baselines: topk, topk_whole, topk_dense, topk_bm25, "
             "topk_dense_whole, topk_bm25_whole, sentences, mmr, knapsack, adagres, carrot. Ours: greedy, lazy, beam, exact, "
             "mcts, thrift, thrift:SETTING=VALUE+... Other programs: llamaindex, haystack, txtai (pip install "
             "'thriftrag[peers]').",
    )] = "closed_book,gold,topk,thrift",
    budgets: Annotated[str, typer.Option("--budgets", metavar="N,M", help="Context tokens to give them.")] = "128,256",
    limit: Limit = None,
    sample: Annotated[str | None, typer.Option(
        "--sample", metavar="N", help="Questions of each data set that the reader answers; of the others only the contexts are "
                                      "made and judged, which is fast. Default: all.")] = None,
    timed: Annotated[str, typer.Option(
        "--timed", metavar="N", help="Questions of the sample that are run alone, nothing remembered: seconds are theirs.")] = "5",
    parallel: Annotated[str, typer.Option("--parallel", metavar="N", help="Questions at a time, but for the timed ones.")] = "8",
    answerable: Annotated[bool, typer.Option(
        "--answerable", help="Leave out questions without answers, before --limit.")] = False,
    seed: Annotated[str, typer.Option("--seed", metavar="S", help="Seed of the sample and of the intervals.")] = "13",
    out: Annotated[Path, typer.Option(
        "--out", metavar="DIR", help="Where results go; a run found there goes on.")] = Path("runs/eval"),
    model: Annotated[str | None, typer.Option(
        "--model", metavar="NAME", autocompletion=complete.models,
        help="Reader, as for `ask`. Default: setting reader.")] = None,
    judge: Annotated[str | None, typer.Option(
        "--judge", metavar="NAME", autocompletion=complete.models,
        help="A reader that also grades the answers; the report says how far it agrees with EM and F1.")] = None,
    layout: Layout = None,
    patience: Annotated[str, typer.Option(
        "--patience", metavar="S", help="Seconds to wait for a reader that went away before its questions fail.")] = "60",
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask the reader again where an earlier run's call is remembered.")] = False,
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Answer every question with every system at every budget, and sum up quality and cost.

    Writes results.jsonl, summary.json, summary.md, report.html and plots; the page of `serve` shows the frontier. What is in the
    folder already is not computed again, and reader calls that any run made before cost nothing. Exits 3 if some questions failed.
    """
    from eval import last
    from eval.peers import PEERS, require
    from eval.runner import Plan, run

    plan = Plan(folders=tuple(datasets), systems=_names(systems), budgets=_budgets(budgets), out=out, answerable=answerable,
                limit=_limit(limit), sample=_count(sample, "sample"), timed=_whole(timed, "timed"),
                parallel=_whole(parallel, "parallel", least=1), seed=_whole(seed, "seed"), fresh=fresh, layout=layout,
                patience_s=_whole(patience, "patience"), command=shlex.join(["thriftrag", *sys.argv[1:]]))
    for name in plan.systems:
        if name in PEERS:
            require(name)
    settings = session.settings(home=home, reader=model, verbose=verbose)
    opener = _Opener()
    with closing(opener), progress.shown() as on_progress:
        outcome = interrupt.run(
            lambda cancelled: run(
                plan, settings=settings, open_collection=opener, open_peer=opener.peer, on_progress=on_progress,
                open_reader=lambda *, prefix_cache: _open_reader(settings, prefix_cache=prefix_cache), cancelled=cancelled,
                judge=None if judge is None else lambda: _open_reader(replace(settings, reader=judge), prefix_cache=True)),
            kept=f"The results so far are in {out}; run the same command again to go on.",
            finishing="Stopping after the questions in hand; press Ctrl-C again to leave at once.").result
    if outcome.report is not None:
        last.keep(settings.home / last.EVALUATION, last.of_summary(outcome.summary))
    _tell_run(outcome, opener, out, as_json=as_json)
    if outcome.stopped:
        raise typer.Exit(edge.INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(edge.FAILED if outcome.failed == outcome.kept + outcome.computed else edge.PARTIAL)


@app.command("retrieval", epilog=RETRIEVAL_EXAMPLES, short_help="Measure whether the evidence is found, and how fast.")
def retrieval(
    datasets: Folders,
    modes: Annotated[str, typer.Option("--modes", metavar="A,B", help="What to compare.")] = "bm25,dense,hybrid",
    measures: Annotated[str, typer.Option(
        "--measures", metavar="A,B", help="Further measures by their names in ir-measures, for instance AP,P@5 "
                                          "(pip install 'thriftrag[eval]').")] = "",
    limit: Limit = None,
    seed: Annotated[str, typer.Option("--seed", metavar="S", help="Seed of the sample that --limit draws.")] = "13",
    layout: Layout = None,
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Search for every question whose gold documents are known: recall, nDCG and reciprocal rank by document, and time."""
    from eval.datasets import load
    from eval.retrieval import measures_named, modes_named, with_evidence

    chosen, count, drawn = modes_named(_names(modes)), _limit(limit), _whole(seed, "seed")
    further = measures_named(_names(measures)) if measures else ()
    settings = session.settings(home=home, verbose=verbose)
    data = [(dataset, with_evidence(dataset, limit=count, seed=drawn))
            for dataset in (load(folder, layout=layout) for folder in datasets)]
    with progress.shown() as on_progress:
        found = interrupt.run(
            lambda cancelled: _search_all(data, chosen, further=further, settings=settings, on_progress=on_progress,
                                          cancelled=cancelled),
            kept="Passages that were read in stay; measurements were not kept.", grace_s=5.0)
    if found.stopped:
        raise edge.Stopped("Passages that were read in stay; measurements were not kept.")
    if as_json:
        terminal.print_json({"datasets": [{"dataset": name, "modes": [row.to_dict() for row in rows]}
                                          for name, rows in found.result]})
    else:
        _tell_retrieval(found.result)


app.command(epilog=eval_report.REPORT_EXAMPLES, short_help="Write the report of a run anew.")(eval_report.report)
app.command(epilog=eval_report.DIFF_EXAMPLES, short_help="Compare two runs question by question.")(eval_report.diff)
app.command(epilog=eval_convert.EXAMPLES, short_help="Write a public data set as a folder in our format.")(eval_convert.convert)


def _open_reader(settings: Settings, *, prefix_cache: bool) -> Reader:
    from rag.llm.open import open_reader

    return open_reader(settings, cache=session.model_cache(settings), prefix_cache=prefix_cache)


class _Opener:
    """Opens collections that share one encoder, which is loaded once, and the embeddings that evaluations keep on disk."""

    # Questions in hand at a time are few; a question's candidates serve all systems and budgets.
    _POOLS = 64

    def __init__(self) -> None:
        self._encoder: Encoder | None = None
        self._cache: EmbeddingCache | None = None
        self._cached: CachedEncoder | None = None

    def __call__(self, name: str, *, settings: Settings, reader: Reader | None, cold: bool = True) -> KnowledgeBase:
        from rag.thriftrag import ThriftRAG

        encoder = self.plain(settings) if cold else self.remembering(settings)
        return ThriftRAG.open(name, settings=settings, reader=reader, encoder=encoder, keep_pools=0 if cold else self._POOLS)

    def plain(self, settings: Settings) -> Encoder:
        from indexers.encoders import open_encoder

        if self._encoder is None:
            self._encoder = open_encoder(settings.embedder, cache=session.model_cache(settings),
                                         precision=settings.precision, threads=settings.threads)
        return self._encoder

    def remembering(self, settings: Settings) -> Encoder:
        """The encoder behind the embeddings in `settings.home`, which must be that of the evaluation."""
        from indexers.embedding_cache import CachedEncoder, EmbeddingCache
        from rag.thriftrag import EMBEDDINGS

        plain = self.plain(settings)
        if self._cached is None and settings.embedding_cache_mb:
            self._cache = EmbeddingCache(settings.home / EMBEDDINGS, limit_mb=settings.embedding_cache_mb)
            self._cached = CachedEncoder(plain, self._cache)
        return self._cached or plain

    def peer(self, name: str, dataset: Dataset, *, settings: Settings, reader: Reader, cold: bool,
             on_progress: OnProgress) -> Peer:
        from eval.corpus import FOLDER
        from eval.peers import open_peer

        private = replace(settings, home=settings.home / FOLDER)
        encoder = self.plain(private) if cold else self.remembering(private)
        return open_peer(name, dataset, settings=private, encoder=encoder, reader=reader, home=private.home,
                         on_progress=on_progress)

    @property
    def encoded(self) -> tuple[int, int]:
        """Texts encoded and texts remembered, by what looks embeddings up first."""
        return (0, 0) if self._cached is None else (self._cached.misses, self._cached.hits)

    def close(self) -> None:
        if self._cache is not None:
            self._cache.close()


def _search_all(data: Sequence[tuple[Dataset, Sequence[Question]]], modes: Sequence[Mode], *, further: Sequence[Measure],
                settings: Settings, on_progress: OnProgress,
                cancelled: Callable[[], bool]) -> list[tuple[str, list[ModeResult]]]:
    """Results by data set; what was cancelled is missing."""
    from eval.corpus import opened
    from eval.retrieval import measure

    open_collection = _Opener()
    found = []
    for dataset, questions in data:
        kb = opened(dataset, settings=settings, open_collection=open_collection, reader=None, on_progress=on_progress,
                    cancelled=cancelled)
        if kb is None:
            break
        with closing(kb):
            rows = [measure(questions, kb, mode=mode, note=dataset.name, further=further, on_progress=on_progress,
                            cancelled=cancelled) for mode in modes]
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


def _count(typed: str | None, name: str) -> int | None:
    return None if typed is None else _whole(typed, name)


def _whole(typed: str, name: str, *, least: int = 0) -> int:
    if not typed.isdecimal() or int(typed) < least:
        raise InputError(f"--{name} {typed!r} is not a whole number from {least}.", field=name,
                         hint=f"Use for instance --{name} {max(least, 13)}.")
    return int(typed)


def _tell_run(outcome: Outcome, opener: _Opener, out: Path, *, as_json: bool) -> None:
    """The summary on stdout; what this call did goes to stderr, where it is in nobody's way."""
    if as_json:
        terminal.print_json(outcome.summary)
    elif outcome.report is not None:
        sys.stdout.write(terminal.clean(outcome.report.markdown.read_text(encoding="utf-8")))
    kept = f" {outcome.kept} were there already and were not computed again;" if outcome.kept else ""
    encoded, recalled = opener.encoded
    print(f"{outcome.computed} rows computed;{kept} {outcome.calls} reader calls made, {outcome.remembered} answered "
          f"from earlier calls; {encoded} texts encoded, {recalled} remembered. Results: {out / 'report.html'}", file=sys.stderr)
    if outcome.report is not None and outcome.report.missing:
        print(f"No PNG files: {outcome.report.missing}", file=sys.stderr)
    if outcome.failed:
        print(f"{outcome.failed} answers failed; results.jsonl has the errors, and the same command tries them again.",
              file=sys.stderr)


def _tell_retrieval(found: Sequence[tuple[str, Sequence[ModeResult]]]) -> None:
    from rag.cli import tables

    further = list(found[0][1][0].further) if found and found[0][1] else []
    table = tables.listing(("data set", "left"), ("mode", "left"), ("n", "right"), ("recall@10", "right"),
                           ("nDCG@10", "right"), ("MRR", "right"), ("all evidence in 10", "right"), ("in 20", "right"),
                           *((name, "right") for name in further), ("ms (median)", "right"))
    for name, rows in found:
        for row in rows:
            figures = (row.recall_at_10, row.ndcg_at_10, row.mrr, row.sufficiency_at_10, row.sufficiency_at_20,
                       *row.further.values())
            table.add_row(terminal.one_line(name), row.mode, f"{row.n:,}", *(f"{figure:.3f}" for figure in figures),
                          f"{row.ms_p50:.1f}")
    terminal.console(sys.stdout).print(table)
