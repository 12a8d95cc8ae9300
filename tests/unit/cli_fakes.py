"""A product without models for the command line: the facade and the model cache by hand, and a way to run commands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from eval import bench, bench_all
from indexers.backup import Manifest
from indexers.clusters import Clustering, Group, Plan
from indexers.clusters_build import Report as ClusterReport
from rag.cli import session
from rag.cli.root import app
from rag.conversation import Turn
from rag.errors import CollectionMissing, DocumentMissing, RagError
from rag.filters import Filter
from rag.memory import Memory
from rag.types import (
    Answer,
    Block,
    Chunk,
    Citation,
    Considered,
    Context,
    Document,
    FileFailure,
    Hit,
    IngestReport,
    OnProgress,
    Progress,
    Receipt,
    SearchPath,
    SearchResult,
    Step,
    TermMatch,
    no_progress,
)
from retrievers.clustered import Shown

CLUSTERING = Clustering(Plan(), "s1", "words@1", "2024-05-01T00:00:00Z", {"": Group("", 12, 0.3)}, ())
GOLDEN = Path(__file__).parent.parent / "golden" / "cli"
RECEIPT = Receipt(
    budget_tokens=256, context_tokens=231, prompt_tokens=312, completion_tokens=18, cached_tokens=40, llm_calls=1,
    encoder_passes=25, model="qwen2.5-coder-1.5b-instruct", cost_usd=0.000012,
    seconds={"retrieve": 0.0123, "filter": 0.0001, "select": 0.0311, "generate": 1.7049, "total": 1.9012},
    naive_tokens=1024, saved_tokens=712, energy_wh=0.0343, water_ml=0.145, co2_g=0.0193,
    estimates=("energy_wh", "water_ml", "co2_g"))
CHUNK = Chunk(id="d1-0-aa", doc_id="d1", ordinal=0, text="The warranty lasts two years. It covers parts.", span=(0, 46),
              sentences=((0, 29), (30, 46)), tokens=12, title="Guide", heading="Guide > Warranty", page=3,
              source="guide.pdf")
HIT = Hit(CHUNK, score=0.0325, origins={"dense": 0.71, "bm25": 12.3})
MATCHES = (TermMatch("warranty", 3.2, 2.5, 1.0), TermMatch("guarantee", 3.0, 0.25, 0.0), TermMatch("refurbished", 2.0, 0.125, 0.4),
           TermMatch("long", 1.25, 0.0, 0.0))
DOCUMENT = Document(id="d1", source="guide.pdf", uri="/data/guide.pdf", title="Guide",
                    text="The warranty lasts two years.\nIt covers parts.", content_hash="ab12",
                    blocks=(Block((0, 46), page=3),), media_type="application/pdf", metadata={"author": "Ada"})
STEPS = (
    Step("retrieve", 0.0123, {"mode": "hybrid", "candidates": 3}),
    Step("select", 0.0311, {"selector": "greedy", "utility": 0.912345, "considered": [
        Considered("d1-0-aa", "guide.pdf", 1, 0.0325, 0.71, 120, True, "covers warranty", (0, 2), 5).to_dict(),
        Considered("d2-0-bb", "notes.md", 2, 0.0164, 0.55, 80, True, "covers years", (0, 1), 2).to_dict(),
        Considered("d3-0-cc", "old.txt", 3, 0.0161, 0.21, 300, False, "repeats guide.pdf", (), 9).to_dict()]}),
    Step("generate", 1.7049, {"model": "qwen2.5-coder-1.5b-instruct", "finish": "stop"}),
)
ANSWER = Answer(
    id="a1", question="How long is the warranty?", text="Two years [1].", verdict="answered", reason=None,
    citations=(Citation(1, "d1-0-aa", "d1", "guide.pdf", 3, 0, 29, "The warranty lasts two years."),), receipt=RECEIPT,
    snapshot="s1", config="c0ffee", trace=STEPS, context=Context("", 0, ()))
WAY = SearchPath(budget=256, asked=((12, 0.1), (90, 0.7), (30, 0.3), (231, 0.912345), (250, 0.9)), chosen=(231, 0.912345),
                 next_best=(250, 0.9), greedy=(90, 0.7))
MANIFEST = Manifest(collection="handbook", snapshot="s1", encoder="minilm@53aa5117", dimension=384, terms="", store_format=2,
                    documents=3, chunks=12, created="2025-01-02T03:04:05Z", made_by="thriftrag 0.1.0", files={})
FAILURE = FileFailure("bad.pdf", "file_encrypted", "bad.pdf is protected with a password.", "Save it without one.")


@dataclass(frozen=True)
class Row:
    """Any row with a `to_dict`: a document's, a collection's."""

    values: dict[str, object]

    def __getattr__(self, name: str) -> object:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def to_dict(self) -> dict[str, object]:
        return dict(self.values)


DOCUMENT_ROW = Row({"id": "d1", "source": "guide.pdf", "title": "Guide", "chunks": 4, "tokens": 1512,
                    "added": "2025-01-02T03:04:05Z"})
COLLECTION_ROW = Row({"name": "default", "documents": 1, "chunks": 4, "tokens": 1512, "bytes": 2_500_000,
                      "encoder": "minilm@53aa5117", "dimension": 384, "segments": 1, "snapshot": "s1",
                      "created": "2025-01-02T03:04:05Z"})


@dataclass
class FakeKB:
    """The facade. Every call is recorded in `calls`; `error` is raised by the next one that does work."""

    answer: Answer = ANSWER
    report: IngestReport = IngestReport(added=3, chunks=412, tokens=61_200, seconds=3.4, snapshot="s1")  # frozen
    hits: list[Hit] = field(default_factory=lambda: [HIT])
    notes: tuple[str, ...] = ()
    way: SearchPath | None = WAY
    rows: list[Row] = field(default_factory=lambda: [DOCUMENT_ROW])
    problems: list[str] = field(default_factory=list)
    tokens: tuple[str, ...] = ("Two ", "years", " [1].")
    error: RagError | Exception | None = None
    calls: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    closed: int = 0

    def ingest(self, *paths: str, lines: Iterable[str] | None = None, prune: bool = False, dry_run: bool = False,
               on_progress: OnProgress = no_progress, cancelled: Callable[[], bool] = lambda: False) -> IngestReport:
        self._called("ingest", paths=paths, lines=None if lines is None else list(lines), prune=prune, dry_run=dry_run)
        on_progress(Progress("encode", 1, 2))
        return self.report.with_(dry_run=dry_run)

    def build_clusters(self, group_by: str = "", *, on_progress: OnProgress = no_progress,
                       cancelled: Callable[[], bool] = lambda: False, **plan: object) -> ClusterReport:
        self._called("build_clusters", group_by=group_by, **plan)
        on_progress(Progress("summarise", 1, 2, "clusters"))
        return ClusterReport(groups=1, clusters=2, texts=12, divided=1, refreshed=2, seconds=0.4)

    def update_clusters(self, *, on_progress: OnProgress = no_progress,
                        cancelled: Callable[[], bool] = lambda: False) -> list[ClusterReport]:
        self._called("update_clusters")
        return []

    def clusterings(self) -> list[Clustering]:
        self._called("clusterings")
        return [CLUSTERING]

    def clusters(self, name: str = "all", *, group: str | None = None) -> tuple[Clustering, list[Shown]]:
        self._called("clusters", which=name, group=group)
        return CLUSTERING, [Shown("", 1, 4, 12, ("noise", "kettle"), "extractive", "It is loud.", ("d1-0-aa",))]

    def delete_clusters(self, name: str) -> None:
        self._called("delete_clusters", which=name)

    def watch(self, *paths: str, on_report: Callable[[IngestReport], None], on_progress: OnProgress = no_progress,
              cancelled: Callable[[], bool] = lambda: False) -> None:
        self._called("watch", paths=paths)
        on_report(self.report)
        on_report(IngestReport(added=2, moved=1, removed=1, chunks=5, seconds=0.4, failures=(FAILURE,)))

    def ask(self, question: str, *, budget: int | None = None, max_cost: float | None = None, deadline: float | None = None,
            selector: str | None = None, where: Filter | None = None, on_token: Callable[[str], None] | None = None,
            on_step: Callable[[Step], None] | None = None, cancelled: Callable[[], bool] | None = None,
            on_search: Callable[[SearchPath], None] | None = None, changes: Mapping[str, object] | None = None,
            history: Sequence[Turn] = ()) -> Answer:
        self._called("ask", question=question, budget=budget, max_cost=max_cost, deadline=deadline, selector=selector,
                     where=where, **({"changes": changes} if changes else {}), **({"history": list(history)} if history else {}))
        for step in self.answer.trace:
            if on_step:
                on_step(step)
        if on_search and self.way is not None:
            on_search(self.way)
        for token in self.tokens:
            if on_token:
                on_token(token)
        return self.answer

    def find(self, query: str, *, mode: str = "hybrid", k: int = 10, where: Filter | None = None, explain: bool = False,
             changes: Mapping[str, object] | None = None) -> SearchResult:
        self._called("find", query=query, mode=mode, k=k, where=where, explain=explain, changes=changes)
        return SearchResult(tuple(self.hits), ("dense", "bm25"), self.notes)

    def documents(self) -> list[Row]:
        self._called("documents")
        return self.rows

    def document(self, document_id: str) -> Document:
        self._called("document", document_id=document_id)
        if document_id not in ("d1", "guide.pdf"):
            raise DocumentMissing(f"No document {document_id!r}.", hint="List them.")
        return DOCUMENT

    def delete(self, *document_ids: str) -> int:
        self._called("delete", document_ids=document_ids)
        return len(document_ids)

    def info(self) -> Row:
        self._called("info")
        return COLLECTION_ROW

    def verify(self) -> list[str]:
        self._called("verify")
        return self.problems

    def rebuild(self, *, on_progress: OnProgress = no_progress) -> None:
        self._called("rebuild")
        on_progress(Progress("encode", 1, 1))

    def compact(self) -> int:
        self._called("compact")
        return 1_234_567

    def export(self, file: Path, *, replace: bool = False, on_progress: OnProgress = no_progress,
               cancelled: Callable[[], bool] = lambda: False) -> Manifest:
        self._called("export", file=file, replace=replace)
        on_progress(Progress("export", 1, 2, "bytes"))
        file.write_bytes(b"archive")
        return MANIFEST

    def memory(self) -> Memory:
        """A real one, empty, in the folder of the test."""
        return Memory(Path.cwd(), owner="test", entries=100, days=1)

    def sweep_memory(self) -> int:
        return 0

    def __enter__(self) -> FakeKB:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    def called(self, name: str) -> dict[str, object]:
        """The arguments of the only call of this name."""
        (found,) = [arguments for called, arguments in self.calls if called == name]
        return found

    def _called(self, name: str, **arguments: object) -> None:
        self.calls.append((name, arguments))
        if self.error is not None:
            raise self.error


@dataclass
class FakeModels:
    """The model cache, with two models of which one is there."""

    root: Path = Path("/models")
    states: dict[str, str] = field(default_factory=lambda: {
        "all-minilm-l6-v2": "ready", "qwen2.5-coder-1.5b-instruct": "missing", "qwen2.5-coder-0.5b-instruct": "missing"})
    problems: dict[str, list[str]] = field(default_factory=dict)
    pulls: list[dict[str, object]] = field(default_factory=list)
    error: RagError | None = None

    def entries(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, to_dict=lambda name=name: {
            "name": name, "role": "embedder" if "minilm" in name else "reader", "licence": "Apache-2.0",
            "description": "A model.", "hub": "org/model@main", "download_bytes": 91_335_827,
            "installed_bytes": 90_900_000}) for name in self.states]

    def state(self, name: str) -> str:
        return self.states[name]

    def pull(self, name: str, *, source: str, hub_url: str, on_progress: OnProgress) -> SimpleNamespace:
        self.pulls.append({"name": name, "source": source})
        if self.error is not None:
            raise self.error
        on_progress(Progress("download", 1, 2, "bytes"))
        facts = {"name": name, "path": str(self.root / name), "source": "hub", "bytes_received": 91_335_827,
                 "seconds": 12.0, "note": ""}
        return SimpleNamespace(**facts, to_dict=lambda: facts)

    def verify(self, name: str) -> list[str]:
        return self.problems.get(name, [])


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        """The one object on stdout; fails when there is anything else."""
        assert self.out.count("\n") == 1
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> dict[str, object]:
        value = self.json
        assert list(value) == ["error"]
        assert list(value["error"]) == ["code", "message", "hint", "field"]
        return value["error"]


class Cli:
    """Runs commands in this process against the fakes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self.kb = FakeKB()
        self.models = FakeModels()
        self.collections = {"default": self.kb}
        self.opened: list[tuple[str, bool]] = []
        self.workers: list[int] = []
        self.deleted: list[str] = []
        self.benches: list[tuple[str, bench.Options]] = []
        self.settings = None
        for name in [name for name in os.environ if name.startswith("THRIFTRAG_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("THRIFTRAG_HOME", str(home))
        monkeypatch.setenv("THRIFTRAG_MODELS", str(home / "models"))
        monkeypatch.setenv("COLUMNS", "100")
        for folder in ("docs", "empty"):
            (home / "work" / folder).mkdir(parents=True)
        monkeypatch.chdir(home / "work")
        monkeypatch.setattr(session, "open_kb", self._open)
        monkeypatch.setattr(session, "list_collections", lambda settings: [COLLECTION_ROW] if self.collections else [])
        monkeypatch.setattr(session, "delete_collection", lambda name, chosen: self.deleted.append(name))
        monkeypatch.setattr(session, "import_collection", lambda archive, name, **_: (name or MANIFEST.collection, MANIFEST))
        monkeypatch.setattr(session, "model_cache", lambda settings: self.models)
        monkeypatch.setattr(bench, "load", lambda name: lambda options, *, on_progress: self._measured(name, options))
        monkeypatch.setattr(bench_all, "in_own_process", lambda arguments, *, cancelled: {
            "results": [row.to_dict() for row in self._measured("all", bench.Options(settings=self.settings, scratch=home))]})

    def run(self, *args: str, stdin: str | bytes | None = None) -> Outcome:
        result = CliRunner().invoke(app, list(args), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    def _measured(self, name: str, options: bench.Options) -> list[bench.Measurement]:
        self.benches.append((name, options))
        return [bench.Measurement("ours", 150.0, "passages/s", 512, 5.0, "theirs"),
                bench.Measurement("theirs", 30.0, "passages/s", 512)]

    def _open(self, settings: object, *, create: bool) -> FakeKB:
        self.settings = settings
        self.opened.append((settings.collection, create))
        self.workers.append(settings.workers)
        if not create and settings.collection not in self.collections:
            raise CollectionMissing(f"There is no collection {settings.collection!r}.", field="collection",
                                    hint=f"Collections: {', '.join(self.collections)}.")
        return self.kb


def check_golden(name: str, text: str) -> None:
    """Compares with the file of this name. UPDATE_GOLDEN=1 writes it instead, for a diff that a person reviews."""
    path = GOLDEN / f"{name}.txt"
    # Trailing blanks are padding of table cells: they show nowhere, and editors remove them.
    text = "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text
