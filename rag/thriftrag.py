"""`ThriftRAG`: one collection and the models that serve it, as Python sees them. The CLI and the API call nothing else.

    kb = ThriftRAG.open("handbook")
    kb.ingest("docs/")
    answer = kb.ask("How long is the warranty?", budget=256)
    print(answer.text, answer.citations, answer.receipt)

Models load when they are first needed, so that opening is cheap.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType

from indexers import backup, clusters_store, restore, store
from indexers import ingest as ingestion
from indexers.backup import Manifest
from indexers.clusters import BUDGET, SUMMARY_TOKENS, WHOLE, Clustering
from indexers.clusters_build import Report as ClusterReport
from indexers.embedding_cache import CachedEncoder, EmbeddingCache
from indexers.encoders import Encoder, open_encoder
from indexers.parsing import InProcess, Parsing, Workers
from indexers.snapshot import DocumentInfo, Snapshot
from indexers.writer import writing
from optimizers import BY_CHANCE, router
from optimizers.crossencoder.encoder import CrossEncoder, has_cross_encoder, open_cross_encoder
from optimizers.pool import Pool, Watch
from rag import clustering, collection_settings, pipeline, rewriting, routing
from rag import settings as configuration
from rag.checks import checked_budget, checked_selector, clean_question
from rag.clustering import one as cluster_named
from rag.conversation import Turn
from rag.durable import tree_bytes
from rag.errors import CollectionMissing, InputError, Locked, RagError, SnapshotCorrupt
from rag.filters import Filter, Where, as_filter
from rag.llm import Preloading, Reader
from rag.llm.open import open_reader
from rag.memory import Memory
from rag.models import ModelCache
from rag.pooling import Recent, SentenceVectors
from rag.recall import Asking
from rag.settings import Settings
from rag.stages.run import Candidates, Hooks
from rag.stages.served import Served
from rag.types import (
    Answer,
    Chunk,
    Document,
    Extract,
    Hit,
    IngestReport,
    Mode,
    OnProgress,
    Prepared,
    SearchResult,
    Step,
    no_progress,
)
from retrievers import sparse
from retrievers.clustered import Clustered, Shown
from retrievers.clustered import missing as no_clusters
from retrievers.hybrid import Searcher
from retrievers.reservoir import FILE as MEMORY

History = Sequence[Turn | Mapping[str, object]]
COLLECTIONS = "collections"
EMBEDDINGS = "embeddings.sqlite"
MODES: tuple[Mode, ...] = ("hybrid", "dense", "bm25", "sparse")
CLUSTERED = "clustered"
SUMMARIES = ("extractive", "llm")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    name: str
    documents: int
    chunks: int
    tokens: int
    bytes: int
    encoder: str
    dimension: int
    terms: str
    segments: int
    snapshot: str
    created: str

    def to_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)


class ThriftRAG:
    """Open with `ThriftRAG.open`. Safe to use from several threads; close it, or use it as a context manager."""

    def __init__(self, name: str, *, settings: Settings, reader: Reader | None = None, encoder: Encoder | None = None,
                 keep_pools: int = 0, small_reader: Reader | None = None) -> None:
        self.name = name
        self.settings = settings
        self.folder = folder_of(name, settings=settings)
        self._cache = ModelCache(settings.models)
        self._reader = reader
        self._small_reader = small_reader
        self._encoder = encoder
        self._vectors: SentenceVectors | None = None
        self._recent: Recent[Candidates] = Recent(keep_pools)
        self._searcher: Searcher | None = None
        self._crosses: dict[str, CrossEncoder | None] = {}
        self._clusters: tuple[Searcher, Clustered] | None = None
        self._memory: Memory | None = None
        self.tenant = ""        # whose memory this is; the server sets it, from the key
        self._lock = Lock()

    @classmethod
    def open(cls, collection: str | None = None, *, create: bool = True, settings: Settings | None = None,
             reader: Reader | None = None, encoder: Encoder | None = None, keep_pools: int = 0, small_reader: Reader | None = None,
             **overrides: object) -> ThriftRAG:
        """A collection by name (default: the setting `collection`), made on first ingestion if `create`. `overrides` are
        settings by name, and win over `settings`; the collection's own (`rag.collection_settings`) win over defaults and
        config.toml. `keep_pools`: questions whose candidates are kept in memory, for callers that ask the same ones again
        under other budgets or selectors; their receipts then leave out what that saved. `small_reader`: the router's, instead of
        the one that the settings name.

        Raises:
            CollectionMissing: not there and `create` is False.
            InputError: a name that cannot be a folder's. ConfigError: an unknown or impossible setting.
        """
        effective = configuration.load(overrides) if settings is None else configuration.overridden(settings, overrides)
        name = collection if collection is not None else effective.collection
        effective = collection_settings.layered(effective, folder_of(name, settings=effective))
        kb = cls(name, settings=effective, reader=reader, encoder=encoder, keep_pools=keep_pools, small_reader=small_reader)
        if not create:
            kb._require()
        return kb

    def ingest(self, *paths: str | Path, lines: Iterable[str] | None = None, prune: bool = False, vanished: Sequence[str] = (),
               dry_run: bool = False, on_progress: OnProgress = no_progress,
               cancelled: Callable[[], bool] = lambda: False) -> IngestReport:
        """Adds files, folders and globs, and JSONL `lines`; what is unchanged costs nothing. `prune` forgets documents whose
        file is gone from a folder that is named, `vanished` those at or below paths that are gone. See `indexers.ingest`."""
        with self._plugs(on_progress) as (encoder, parsing), tempfile.TemporaryDirectory() as aside:
            # A dry run of a collection that is not there yet compares with an empty one, and leaves none behind.
            folder = Path(aside) / self.name if dry_run and not self.exists() else self.folder
            ingestion.create(folder, encoder=encoder, settings=self.settings)
            with _warming(not dry_run and bool(ingestion.check_encoder(folder, encoder).terms)):
                report = ingestion.ingest(folder, paths, encoder=encoder, settings=self.settings, parsing=parsing, lines=lines,
                                          prune=prune, vanished=vanished, dry_run=dry_run, on_progress=on_progress,
                                          cancelled=cancelled)
        if not dry_run:
            self._mirror(on_progress)
        return report

    def watch(self, *paths: str | Path, on_report: Callable[[IngestReport], None], on_progress: OnProgress = no_progress,
              cancelled: Callable[[], bool] = lambda: False) -> None:
        """Ingests `paths`, then follows them: what is added, changed, moved or deleted there is so here within seconds, until
        `cancelled`. `on_report` hears of the first ingestion and of each that changed something."""
        from indexers.watch import changes

        on_report(self.ingest(*paths, prune=True, on_progress=on_progress, cancelled=cancelled))
        for changed in changes(paths, cancelled=cancelled):
            report = self.ingest(*changed.touched, vanished=changed.vanished, on_progress=on_progress, cancelled=cancelled)
            if report.added or report.changed or report.removed or report.failures:
                on_report(report)

    def ask(self, question: str, *, budget: int | None = None, max_cost: float | None = None, deadline: float | None = None,
            selector: str | None = None, where: Where | None = None, changes: Mapping[str, object] | None = None,
            on_token: Callable[[str], None] | None = None, on_step: Callable[[Step], None] | None = None,
            cancelled: Callable[[], bool] | None = None, on_search: Watch | None = None, history: History = ()) -> Answer:
        """The answer within `budget` context tokens, `max_cost` US dollars and `deadline` seconds, with its receipt. `where`:
        only from documents that match, as a filter of `rag.filters`, its JSON form, or text like 'year >= 2020'. `changes`:
        settings for this question alone, by name (`rag.settings.query_names`). `on_search` gets every set of passages that the
        selector asked about. `history`: what was said before, the newest last, as `rag.conversation.Turn` or mappings with `role`
        (user or assistant) and `content`; a question that refers to it is made self-contained.

        Raises:
            InputError, BudgetError, DeadlineExceeded, SnapshotError, UpstreamError: see `rag.errors`.
        """
        ceilings = checked_budget(self.settings, tokens=budget, cost=max_cost, seconds=deadline)
        condition, said = as_filter(where), rewriting.turns(history)
        served = self._served(selector, changes)
        if isinstance(served.reader, Preloading):
            served.reader.load()
        return pipeline.ask(question, served, budget=ceilings, hooks=Hooks(on_token, on_step, cancelled, on_search),
                            where=condition, history=said)

    def context(self, question: str, *, budget: int | None = None, selector: str | None = None, where: Where | None = None,
                changes: Mapping[str, object] | None = None, extracts: Sequence[Extract] | None = None,
                history: History = ()) -> Prepared:
        """The context that `ask`, or `answer_from` where `extracts` are given, would send to the reader, and what making it
        took; the reader is not asked, so the rewriter `llm` does what `auto` does."""
        ceilings = checked_budget(self.settings, tokens=budget, cost=None, seconds=None)
        return pipeline.context(question, self._served(selector, changes), budget=ceilings, extracts=extracts,
                                where=as_filter(where), history=rewriting.turns(history))

    def answer_from(self, question: str, extracts: Sequence[Extract], *, budget: int | None = None,
                    overall: bool | None = None) -> Answer:
        """The answer from a given ordered choice of passages; none asks the reader alone. `overall`: asks for what they say
        together, in sentences; None: where cluster summaries are among them."""
        ceilings = checked_budget(self.settings, tokens=budget, cost=None, seconds=None)
        return pipeline.answer_from(question, self._served(), extracts=extracts, budget=ceilings, overall=overall)

    def pool(self, question: str, *, where: Where | None = None, changes: Mapping[str, object] | None = None) -> Pool:
        """The candidates that a selector would see for this question; nothing is asked of the reader."""
        return pipeline.pool(question, self._served(changes=changes), where=as_filter(where))

    def asking(self, question: str, *, where: Where | None = None) -> Asking:
        """A question with what serves it, as `memory` takes it."""
        return pipeline.asking(question, self._served(), where=as_filter(where))

    def search(self, query: str, *, mode: str = "hybrid", k: int = 10, where: Where | None = None,
               changes: Mapping[str, object] | None = None) -> list[Hit]:
        """The best `k` chunks of documents that `where` allows, best first; fewer where there are fewer. `changes`: settings for
        this query alone, by name; of those, `origins`, `fusion` and `rewriter` matter here. Only where it is among them is a
        query rewritten, in hybrid mode and without a reader."""
        return list(self.find(query, mode=mode, k=k, where=where, changes=changes).hits)

    def find(self, query: str, *, mode: str = "hybrid", k: int = 10, where: Where | None = None, explain: bool = False,
             changes: Mapping[str, object] | None = None) -> SearchResult:
        """As `search`, and what was searched, with notes where that is not what was asked for. `explain`: each hit tells what the
        terms of the query add to its sparse score.

        Raises:
            InputError, ConfigError: a value that cannot be. SnapshotMismatch: the collection has not the term weights it takes.
        """
        if mode not in (*MODES, CLUSTERED):
            raise InputError(f"Unknown mode {mode!r}.", hint=f"Use one of {', '.join((*MODES, CLUSTERED))}.", field="mode")
        if k < 1:
            raise InputError(f"k = {k} is not possible.", hint="Use 1 or more.", field="k")
        cleaned = clean_question(query, limit=self.settings.max_question_chars)
        settings = configuration.changed(self.settings, changes) if changes else self.settings
        searcher = self._current()
        if mode == CLUSTERED:
            return self._summaries(searcher, cleaned, k=k, where=as_filter(where))
        condition, rewriter = as_filter(where), settings.rewriter if changes and "rewriter" in changes else "off"
        if rewriter == "llm":
            raise InputError("A search asks no reader, so the rewriter llm cannot serve it.", field="rewriter",
                             hint="Use feedback, bridge or auto; or ask the question.")
        if rewriter == "off" or mode != "hybrid":
            known: Mode = mode  # type: ignore[assignment]  # checked above
            vector = None
            if mode == "dense" or (mode == "hybrid" and "dense" in configuration.listed(settings.origins)):
                [vector], _ = self._sentence_vectors(searcher).get([cleaned])    # kept: who searches again pays no encoder
            found = searcher.find(cleaned, mode=known, k=k, vector=vector, where=condition, settings=settings)
        else:
            found = rewriting.searched(cleaned, searcher=searcher, k=k, where=condition, settings=settings)
        told = searcher.explain(cleaned, found) if explain else None
        matches = told if told is not None else [None] * len(found.hits)
        hits = [Hit(hit.chunk, hit.score, hit.origins, terms) for hit, terms in zip(found.hits, matches, strict=True)]
        notes = found.plan.notes if told is not None or not explain else (*found.plan.notes, _no_terms(found.plan.origins))
        return SearchResult(tuple(hits), found.plan.origins, notes)

    def _summaries(self, searcher: Searcher, query: str, *, k: int, where: Filter | None) -> SearchResult:
        """Cluster summaries, those that stand for most and are nearest first."""
        found = Clustered(searcher.snapshot).find(query, vector=searcher.encoder.encode([query])[0], where=where, k=k)
        if found is None:
            raise no_clusters(self.name)
        hits = [Hit(hit.chunk, hit.score, hit.origins) for hit in found.hits[:k]]
        outdated = f"{found.outdated} texts came after the clusters were made: `thriftrag clusters build` brings them in."
        return SearchResult(tuple(hits), (CLUSTERED,), (outdated,) if found.outdated else ())

    def build_clusters(self, group_by: str = "", *, k: int | None = None, budget: int = BUDGET,
                       summary_tokens: int = SUMMARY_TOKENS, summaries: str = "extractive", again: bool = False, seed: int = 13,
                       on_progress: OnProgress = no_progress, cancelled: Callable[[], bool] = lambda: False) -> ClusterReport:
        """Clusters of all texts, or of the texts of each value of the field `group_by`, each with a summary: made, or brought up to
        date. `k`: of each group; None chooses. `budget`: tokens of one group's summaries together, by which k is bounded.
        `summary_tokens`: of one at most. `summaries`: extractive (sentences of the texts) or llm (the reader writes
        them). `again`: divides anew.

        Raises:
            InputError: a value that cannot be. Locked: another process builds. UpstreamError: the reader cannot be asked; what it
            wrote stays, and the same call goes on from there.
        """
        if summaries not in SUMMARIES:
            raise InputError(f"Summaries {summaries!r} cannot be made.", hint=f"Use {' or '.join(SUMMARIES)}.", field="summaries")
        plan = clustering.checked_plan(group_by=group_by, k=k, budget=budget,
                                       tokens=summary_tokens, llm=summaries == "llm", seed=seed)
        searcher = self._current()
        return clustering.built(self.folder, searcher.snapshot, plan, encoder=searcher.encoder, bm25=searcher.bm25,
                                reader=self.reader, again=again, on_progress=on_progress, cancelled=cancelled)

    def update_clusters(self, *, on_progress: OnProgress = no_progress,
                        cancelled: Callable[[], bool] = lambda: False) -> list[ClusterReport]:
        """Brings every clustering to the present state of the collection; raises as `build_clusters`."""
        searcher, reports = self._current(), []
        for known in clustering.listed(self.folder):
            reports.append(clustering.built(
                self.folder, searcher.snapshot, known.plan, encoder=searcher.encoder, bm25=searcher.bm25, reader=self.reader,
                on_progress=on_progress, cancelled=cancelled))
        return reports

    def clusterings(self) -> list[Clustering]:
        """All that were built, by name. Raises SnapshotCorrupt, SnapshotMismatch: their file cannot be read."""
        self._require()
        return clustering.listed(self.folder)

    def clusters(self, name: str = WHOLE, *, group: str | None = None) -> tuple[Clustering, list[Shown]]:
        """A clustering with its clusters as they may be shown now: without what is of deleted texts. Raises InputError where there
        is none of that name, or no such group."""
        self._require()
        with closing(Snapshot(self.folder)) as snapshot:
            known = Clustered(snapshot)
            clustering = cluster_named(self.folder, name, known=known.clusterings())
            if group is not None and group not in clustering.groups:
                raise InputError(f"The clusters {clustering.name!r} have no group {group!r}.", field="group",
                                 hint=f"There are for instance {', '.join(map(repr, list(clustering.groups)[:5]))}.")
            return clustering, known.shown(clustering.name, group=group)

    def delete_clusters(self, name: str) -> None:
        """Forgets a clustering. Raises InputError where there is none of that name."""
        self._require()
        clustering.deleted(self.folder, name)

    def documents(self) -> list[DocumentInfo]:
        with self._stored() as snapshot:
            return snapshot.documents()

    def document(self, document_id: str) -> Document:
        """A document with its text, by id or source. Raises DocumentMissing."""
        with self._stored() as snapshot:
            return snapshot.document(document_id)

    def chunks_of(self, document_ids: Sequence[str]) -> list[Chunk]:
        """All chunks of these documents, in order."""
        with self._stored() as snapshot:
            return snapshot.chunks_of(document_ids)

    def chunk(self, chunk_id: str) -> Chunk | None:
        """The passage of this id, as traces and citations name it, if there is one."""
        with self._stored() as snapshot:
            return snapshot.chunk(chunk_id)

    def delete(self, *documents: str) -> int:
        """Forgets documents by id or source, all or none; from then on no search finds them.

        Raises:
            DocumentMissing: names every one that is not there; then nothing is deleted.
        """
        with self._stored() as snapshot:
            ids = snapshot.resolve_all(documents)
        with writing(self.folder, options=ingestion.index_options(self.settings)) as writer:
            count = writer.delete(ids)
        self._mirror(no_progress)
        if (self.folder / MEMORY).is_file():
            self.sweep_memory()
        return count

    def info(self) -> CollectionInfo:
        self._require()
        return describe(self.folder)

    def verify(self) -> list[str]:
        """What is broken, by name; empty when the collection is sound."""
        self._require()
        try:
            snapshot = Snapshot(self.folder)
        except SnapshotCorrupt as error:
            return [error.message]
        with closing(snapshot):
            problems = snapshot.problems() + clusters_store.problems(self.folder)
            if self.settings.backend == "qdrant":
                from indexers.qdrant import mirror_of

                with closing(mirror_of(snapshot, settings=self.settings)) as mirror:
                    problems += mirror.problems(snapshot)
            return problems

    def rebuild(self, *, on_progress: OnProgress = no_progress) -> None:
        """Makes every index again from the stored text, with the configured encoder."""
        self._require()
        with self._plugs(on_progress) as (encoder, _):
            ingestion.rebuild(self.folder, encoder=encoder, settings=self.settings, on_progress=on_progress)
        self._mirror(on_progress, anew=True)

    def compact(self) -> int:
        """Merges the index files and drops what was deleted. Returns the bytes freed."""
        self._require()
        with writing(self.folder, options=ingestion.index_options(self.settings)) as writer:
            return writer.compact()

    def export(self, target: str | Path, *, replace: bool = False, on_progress: OnProgress = no_progress,
               cancelled: Callable[[], bool] = lambda: False) -> Manifest | None:
        """Writes the newest published state to one file, while the collection is in use; None if `cancelled` before it was whole.
        `import_collection` is the way back. Raises as `indexers.backup.pack`."""
        self._require()
        return backup.pack(self.folder, Path(target).expanduser().absolute(), replace=replace, on_progress=on_progress,
                           cancelled=cancelled)

    def exists(self) -> bool:
        return (self.folder / store.DATABASE).is_file()

    @property
    def encoder(self) -> Encoder:
        with self._lock:
            if self._encoder is None:
                self._encoder = open_encoder(self.settings.embedder, cache=self._cache, precision=self.settings.precision,
                                             threads=self.settings.threads)
            return self._encoder

    @property
    def reader(self) -> Reader:
        with self._lock:
            if self._reader is None:
                self._reader = open_reader(self.settings, cache=self._cache)
            return self._reader

    def close(self) -> None:
        """Lets go of the models and the snapshot."""
        with self._lock:
            if self._searcher is not None:
                self._searcher.snapshot.close()
            if self._reader is not None:
                self._reader.close()
            if self._memory is not None:
                self._memory.close()
            if self._small_reader is not None:
                self._small_reader.close()
            self._searcher = self._reader = self._small_reader = None
            self._encoder = self._vectors = self._clusters = self._memory = None
            self._crosses.clear()

    def __enter__(self) -> ThriftRAG:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _served(self, selector: str | None = None, changes: Mapping[str, object] | None = None) -> Served:
        settings = configuration.changed(self.settings, changes) if changes else self.settings
        if selector is not None:
            settings = dataclasses.replace(settings, selector=checked_selector(selector))
        searcher = self._current()
        vectors = self._sentence_vectors(searcher)
        with self._lock:
            if self._clusters is None or self._clusters[0] is not searcher:
                self._clusters = searcher, Clustered(searcher.snapshot)
            clusters = self._clusters[1]
        memory = None if settings.memory == settings.answer_cache == "off" else self._remembering(searcher.snapshot)
        reader = self.reader if settings.router == "off" else self._pair(settings)
        return Served(searcher, reader, vectors, settings, self._recent, self._cross(settings), clusters, memory)

    def _sentence_vectors(self, searcher: Searcher) -> SentenceVectors:
        with self._lock:
            if self._vectors is None:
                self._vectors = SentenceVectors(searcher.encoder)
            return self._vectors

    def _pair(self, settings: Settings) -> routing.Pair:
        """Both readers of the router; the small one is opened when it is first needed."""
        return routing.Pair(self.reader, self._small(settings), router.shipped())

    def _small(self, settings: Settings) -> Reader:
        with self._lock:
            if self._small_reader is None:
                self._small_reader = open_reader(routing.small_settings(settings), cache=self._cache)
            return self._small_reader

    def _cross(self, settings: Settings) -> CrossEncoder | None:
        """The cross-encoder that these settings ask for, made once; None where there is none for the embedder or it is off."""
        if settings.cross_encoder == "off" or settings.selector not in BY_CHANCE:
            return None
        if settings.cross_encoder == "auto" and not has_cross_encoder(self.encoder.name):
            return None
        with self._lock:
            if settings.cross_encoder not in self._crosses:
                self._crosses[settings.cross_encoder] = open_cross_encoder(
                    settings.cross_encoder, embedder=settings.embedder, cache=self._cache, precision=settings.precision,
                    threads=settings.threads)
            return self._crosses[settings.cross_encoder]

    def sweep_memory(self) -> int:
        """Forgets what memory holds of passages that are gone, and what has ended. No question needs it: what is gone is never
        served; but what was deleted should leave nothing behind. Returns how many entries went."""
        with self._stored() as snapshot:
            return self._remembering(snapshot).sweep(snapshot)

    def memory(self) -> Memory:
        """What this collection remembers of past answers, whether or not questions use it now."""
        with self._stored() as snapshot:
            return self._remembering(snapshot)

    def _remembering(self, snapshot: Snapshot) -> Memory:
        owner = json.dumps([self.tenant, snapshot.meta["collection"]])
        with self._lock:
            # A collection that was deleted and made again has another id, and no past.
            if self._memory is not None and self._memory.owner != owner:
                self._memory.close()
                self._memory = None
            if self._memory is None:
                self._memory = Memory(self.folder, owner=owner, entries=self.settings.memory_entries,
                                      days=self.settings.memory_days)
            return self._memory

    def _current(self) -> Searcher:
        """The searcher over the newest published state. One still in use by another thread lives until that thread is done."""
        self._require()
        encoder = self.encoder
        with self._lock:
            if self._searcher is None or not self._searcher.snapshot.is_current():
                ingestion.check_encoder(self.folder, encoder, to_write=False)
                reuse = None if self._searcher is None else self._searcher.snapshot
                self._searcher = Searcher(Snapshot(self.folder, reuse=reuse), encoder, settings=self.settings)
            return self._searcher

    @contextmanager
    def _plugs(self, on_progress: OnProgress) -> Iterator[tuple[Encoder, Parsing]]:
        """What encodes and what parses: here, or on the Ray cluster that the settings name. Texts that were encoded before,
        whatever the collection, come from the embedding cache."""
        encoder: Encoder
        parsing: Parsing
        with ExitStack() as stack:
            if self.settings.ray_address:
                from indexers.distributed import cluster

                joined = stack.enter_context(cluster(self.settings, on_progress=on_progress))
                encoder, parsing = joined.encoder, joined.parsing
            else:
                encoder = self.encoder
                parsing = stack.enter_context(Workers(self.settings)) if self.settings.workers else InProcess(self.settings)
            if self.settings.embedding_cache_mb:
                cache = EmbeddingCache(self.settings.home / EMBEDDINGS, limit_mb=self.settings.embedding_cache_mb)
                encoder = CachedEncoder(encoder, stack.enter_context(closing(cache)))
            yield encoder, parsing

    def _mirror(self, on_progress: OnProgress, *, anew: bool = False) -> None:
        """Brings the Qdrant mirror, if the settings name one, to what was just published; `anew` makes it from nothing."""
        if self.settings.backend != "qdrant":
            return
        from indexers.qdrant import mirror_of

        try:
            with closing(Snapshot(self.folder)) as snapshot:
                if anew:
                    with closing(mirror_of(snapshot, settings=self.settings)) as damaged:
                        damaged.drop()
                with closing(mirror_of(snapshot, settings=self.settings)) as mirror:
                    mirror.sync(snapshot, on_progress=on_progress)
        except Locked:
            if anew:
                raise
            # Who holds the embedded shard syncs it itself, when it opens the state that was just published.

    @contextmanager
    def _stored(self) -> Iterator[Snapshot]:
        """The store alone: needs no model and no index."""
        self._require()
        with closing(Snapshot(self.folder, indexes=False)) as snapshot:
            yield snapshot

    def _require(self) -> None:
        if self.exists():
            return
        known = [info.name for info in list_collections(self.settings)]
        what = f"Collections: {', '.join(known)}." if known else "There are none yet."
        raise CollectionMissing(f"There is no collection {self.name!r}.", field="collection",
                                hint=f"{what} Create it with `thriftrag ingest PATH --collection {self.name}`.")


def list_collections(settings: Settings) -> list[CollectionInfo]:
    """All collections under the settings' home, by name. One that cannot be read is left out: `verify` explains it."""
    root = settings.home / COLLECTIONS
    if not root.is_dir():
        return []
    found = []
    for folder in sorted(root.iterdir()):
        if not folder.name.startswith(".") and (folder / store.DATABASE).is_file():
            try:
                found.append(describe(folder))
            except RagError:
                continue
    return found


@contextmanager
def _warming(wanted: bool) -> Iterator[None]:
    """Sparse search is compiled meanwhile, so that the first question need not wait for it."""
    if not wanted:
        yield
        return
    thread = Thread(target=sparse.warm, name="warming", daemon=True)
    thread.start()
    yield
    thread.join()       # after an error nobody waits


def describe(folder: Path) -> CollectionInfo:
    with closing(Snapshot(folder, indexes=False)) as snapshot:
        documents, chunks, tokens = snapshot.totals()
        return CollectionInfo(
            name=folder.name, documents=documents, chunks=chunks, tokens=tokens, bytes=tree_bytes(folder),
            encoder=snapshot.meta["encoder"], dimension=snapshot.dimension, terms=snapshot.terms,
            segments=snapshot.segment_count(),
            snapshot=snapshot.id, created=snapshot.meta["created"])


def delete_collection(name: str, *, settings: Settings) -> None:
    """Removes a collection and everything in it, unless somebody is writing to it."""
    kb = ThriftRAG(name, settings=settings)
    kb._require()
    with writing(kb.folder):
        if settings.qdrant_url:
            from indexers.qdrant import mirror_of

            # What lies on a server would be found by nobody later.
            with closing(Snapshot(kb.folder, indexes=False)) as snapshot, closing(mirror_of(snapshot, settings=settings)) as mirror:
                mirror.drop()
        # Out of sight first, in one step: a crash while removing leaves no half collection.
        aside = kb.folder.with_name(f".{name}.deleted")
        shutil.rmtree(aside, ignore_errors=True)
        kb.folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def import_collection(archive: str | Path, name: str | None = None, *, settings: Settings | None = None,
                      encoder: Encoder | None = None, on_progress: OnProgress = no_progress,
                      cancelled: Callable[[], bool] = lambda: False) -> tuple[str, Manifest] | None:
    """Makes a collection from a file of `ThriftRAG.export`, under its own name or `name`; None if `cancelled` before it was there.
    Returns the name, and what the file said of itself. Raises as `indexers.restore.unpack`, and InputError for a name that cannot
    be a folder's."""
    path = Path(archive).expanduser().absolute()
    chosen = configuration.load() if settings is None else settings
    wanted = name or restore.manifest_of(path).collection
    with ThriftRAG(wanted, settings=chosen, encoder=encoder) as kb:
        made = restore.unpack(path, kb.folder.parent, name=wanted, encoder=(kb.encoder.name, kb.encoder.dimension),
                              on_progress=on_progress, cancelled=cancelled)
        if made is None:
            return None
        kb._mirror(on_progress)
    return wanted, made


def _no_terms(origins: Sequence[str]) -> str:
    return (f"There are no terms to explain: the search was by {' and '.join(origins)}, and the scores of each hit are all there "
            "is. Terms are explained where sparse is searched: --mode sparse, or hybrid with sparse among its origins.")


def folder_of(name: str, *, settings: Settings) -> Path:
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name a collection.", field="collection",
                         hint="Use letters, digits, '-', '_' and '.', starting with a letter or digit, at most 64.")
    return settings.home / COLLECTIONS / name


__all__ = ["CollectionInfo", "ThriftRAG", "delete_collection", "import_collection", "list_collections"]
