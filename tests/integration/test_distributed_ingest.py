"""Ingestion on a real two-node Ray cluster: whatever happens to it, the collection ends exactly as on one machine."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest

from indexers import store
from indexers.distributed import Connection, EncodingFailed, RayEncoder, RayParsing, connect
from indexers.distributed.models import plan_of
from indexers.encoders import Encoder, Vectors, open_encoder
from indexers.ingest import ingest
from indexers.snapshot import Snapshot
from rag.models import ModelCache
from rag.settings import Settings, load
from rag.thriftrag import ThriftRAG
from rag.types import Chunk, Document, IngestReport, Progress
from tests.cluster_fakes import TwoNodes, WordPlan, two_nodes, write_files
from tests.conftest import SAMPLE
from tests.fakes import WordEncoder
from tests.tiny_models import make_bert

PROCESS = Path("/proc")


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with two_nodes() as both:
        yield both


@pytest.fixture(scope="module")
def there(nodes: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    with connect(settings_for(tmp_path_factory.mktemp("home"), ray_address=nodes.address)) as connection:
        yield connection


def settings_for(home: Path, **values: object) -> Settings:
    return load({"home": home, "embedding_cache_mb": 0, **values}, environ={})


def new_collection(folder: Path, encoder: Encoder) -> Path:
    store.create(folder, encoder=encoder.name, dimension=encoder.dimension, chunk_tokens=200)
    return folder


def weights(snapshot: Snapshot) -> list[tuple[list[int], list[float]]]:
    """The term weights of every live chunk, none where the collection has none."""
    passages = [segment.sparse.passage(int(at)) for segment in snapshot.segments if segment.sparse for at in segment.kept]
    return [(ids.tolist(), values.tolist()) for ids, values in passages]


def content(folder: Path) -> tuple[list[Document], list[Chunk], Vectors, list[tuple[list[int], list[float]]]]:
    """All that a collection holds, in its order."""
    with closing(Snapshot(folder)) as snapshot:
        assert snapshot.problems() == []
        rows = snapshot.rows()
        documents = [snapshot.document(info.id) for info in snapshot.documents()]
        return documents, snapshot.chunks(rows), snapshot.vectors(rows), weights(snapshot)


def assert_same(one: Path, other: Path) -> None:
    (documents, chunks, vectors, terms), (documents2, chunks2, vectors2, terms2) = content(one), content(other)
    assert terms == terms2
    assert documents == documents2
    assert chunks == chunks2
    assert np.array_equal(vectors, vectors2)


def alone(folder: Path, docs: Path, settings: Settings) -> IngestReport:
    """The run on one machine, in one process."""
    encoder = WordEncoder()
    return ingest(new_collection(folder, encoder), [docs], encoder=encoder, settings=settings)


def test_the_real_encoder_gives_the_same_collection(nodes: TwoNodes, there: Connection, tmp_path: Path,
                                                    model_cache: ModelCache) -> None:
    assert not there.started                # the program is connected already, and stays so
    docs = tmp_path / "docs"
    shutil.copytree(SAMPLE / "files", docs)
    with (SAMPLE / "corpus.jsonl").open(encoding="utf-8") as lines:
        (docs / "corpus.jsonl").write_text("".join(line for line, _ in zip(lines, range(30), strict=False)), encoding="utf-8")
    on_cluster = settings_for(tmp_path / "home", ray_address=nodes.whole().address, models=model_cache.root, batch_chunks=24)
    with ThriftRAG.open("cluster", settings=on_cluster) as kb:
        report = kb.ingest(docs)
        assert (report.failures, report.unchanged) == ((), 0)
        again = kb.ingest(docs)
    with ThriftRAG.open("here", settings=dataclasses.replace(on_cluster, ray_address="")) as kb:
        here = kb.ingest(docs)
    assert (report.added, report.chunks, report.tokens) == (here.added, here.chunks, here.tokens)
    assert (again.added, again.changed, again.chunks) == (0, 0, 0)
    assert_same(on_cluster.home / "collections" / "cluster", on_cluster.home / "collections" / "here")


def test_a_node_killed_midway_changes_nothing(nodes: TwoNodes, there: Connection, tmp_path: Path,
                                              capfd: pytest.CaptureFixture[str]) -> None:
    docs = write_files(tmp_path / "docs", 120, words=130)
    settings = settings_for(tmp_path / "home", batch_chunks=40)
    watched = dataclasses.replace(there, on_progress=lambda tick: watch(tick))
    nodes.whole()
    lost: list[str] = []

    def watch(tick: Progress) -> None:
        # With the first slice of a batch: both nodes have more of it.
        if tick.stage == "encode" and 0 < tick.done % 40 < 15 and not lost and len(encoder.shares) == len(parsing.shares) == 2:
            lost.append(nodes.kill_second())

    with closing(RayEncoder(watched, settings=settings, plan=WordPlan(delay_s=0.02))) as encoder:
        parsing = RayParsing(watched, settings=settings)
        report = ingest(new_collection(tmp_path / "cluster", encoder), [docs], encoder=encoder, parsing=parsing, settings=settings,
                        on_progress=watch)
        assert min(encoder.shares[lost[0]], parsing.shares[lost[0]]) > 0    # it did do work
    assert capfd.readouterr().out == ""     # stdout is for results, whatever Ray has to say
    here = alone(tmp_path / "here", docs, settings)
    assert (report.added, report.chunks, report.failures) == (120, here.chunks, ())
    assert_same(tmp_path / "cluster", tmp_path / "here")


DRIVER = """
import sys
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from tests.cluster_fakes import WordPlan
from indexers.distributed import RayEncoder, RayParsing, connect
from indexers.ingest import ingest
from rag.settings import load
folder, docs, address = sys.argv[1:]
settings = load({"ray_address": address, "batch_chunks": 20, "embedding_cache_mb": 0}, environ={})
with connect(settings) as there:
    with closing(RayEncoder(there, settings=settings, plan=WordPlan(delay_s=0.05))) as encoder:
        ingest(Path(folder), [docs], encoder=encoder, parsing=RayParsing(there, settings=settings), settings=settings)
"""


def test_a_driver_killed_midway_goes_on_where_it_was(nodes: TwoNodes, there: Connection, tmp_path: Path) -> None:
    docs = write_files(tmp_path / "docs", 80)
    folder = new_collection(tmp_path / "cluster", WordEncoder())
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(folder), str(docs), nodes.whole().address])
    held = wait_for(lambda: published(folder))
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert 0 < held <= published(folder) < 80
    with closing(Snapshot(folder)) as snapshot:
        assert snapshot.problems() == []
    settings = settings_for(tmp_path / "home", batch_chunks=20)
    with closing(RayEncoder(there, settings=settings, plan=WordPlan())) as encoder:
        report = ingest(folder, [docs], encoder=encoder, parsing=RayParsing(there, settings=settings), settings=settings)
    assert report.unchanged >= held
    assert report.added + report.unchanged == 80
    alone(tmp_path / "here", docs, settings)
    assert_same(folder, tmp_path / "here")


def published(folder: Path) -> int:
    with closing(Snapshot(folder, indexes=False)) as snapshot:
        return snapshot.totals()[0]


def wait_for(value: object, *, seconds: float = 40.0) -> int:
    """What `value` returns once it is not 0."""
    assert callable(value)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := int(value())) > 0:
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


def test_what_was_published_before_a_fatal_passage_stays(there: Connection, tmp_path: Path) -> None:
    docs = write_files(tmp_path / "docs", 40)
    (docs / "z-last.txt").write_text("This passage is poisoned.", encoding="utf-8")
    settings = settings_for(tmp_path / "home", batch_chunks=10)
    folder = new_collection(tmp_path / "cluster", WordEncoder())
    with closing(RayEncoder(there, settings=settings, plan=WordPlan(fatal="poisoned"))) as encoder, \
            pytest.raises(EncodingFailed):
        ingest(folder, [docs], encoder=encoder, parsing=RayParsing(there, settings=settings), settings=settings)
    assert published(folder) == 40
    with closing(RayEncoder(there, settings=settings, plan=WordPlan())) as encoder:
        report = ingest(folder, [docs], encoder=encoder, parsing=RayParsing(there, settings=settings), settings=settings)
    assert (report.added, report.unchanged) == (1, 40)
    alone(tmp_path / "here", docs, settings)
    assert_same(folder, tmp_path / "here")


def test_nodes_without_the_model_are_sent_it(nodes: TwoNodes, there: Connection, tmp_path: Path) -> None:
    """Both nodes have one model cache here, as on a shared disk: one is served and the other waits for it."""
    make_bert(tmp_path / "tiny")
    nodes.whole()
    settings = settings_for(tmp_path / "home", models=tmp_path / "driver", embedder=str(tmp_path / "tiny"), precision="f32")
    texts = [f"the warranty lasts {'two ' * (i % 9)}years." for i in range(120)]
    plan = plan_of(settings, node_models=tmp_path / "node")
    (tmp_path / "tiny").rename(tmp_path / "not-shared")
    sent: list[Progress] = []
    watched = dataclasses.replace(there, on_progress=sent.append)
    with closing(RayEncoder(watched, settings=settings, plan=plan)) as encoder:
        vectors = encoder.encode(texts)
        assert not any("without" in tick.note for tick in sent)     # no node was left out
    assert [tick.done for tick in sent if tick.stage == "send"][-1] == next(t.total for t in sent if t.stage == "send")
    assert (tmp_path / "node" / plan.shipped / "openvino_model.bin").is_file()
    here = open_encoder(str(plan.folder), cache=ModelCache(tmp_path / "driver"), precision="f32")
    assert encoder.name == here.name
    assert np.array_equal(vectors, here.encode(texts))


LOCAL = """
import json, sys
from indexers.distributed import connect
from rag.settings import load
for _ in range(2):
    with connect(load({"ray_address": "local", "threads": 1}, environ={})) as there:
        import ray
        folder = ray._private.worker._global_node.get_temp_dir_path()
        print(json.dumps({"cpus": [node.cpus for node in there.nodes()], "started": there.started, "folder": folder}), flush=True)
        sys.stdin.readline()
"""


def test_a_local_cluster_is_for_this_machine_alone_and_leaves_nothing_running(tmp_path: Path) -> None:
    """A home of its own, because Ray keeps a token there."""
    with subprocess.Popen([sys.executable, "-c", LOCAL], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env={**os.environ, "HOME": str(tmp_path)}, start_new_session=True) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        facts = json.loads(driver.stdout.readline())
        assert (facts["cpus"], facts["started"]) == ([1.0], True)
        started = with_argument(facts["folder"])
        assert len(started) >= 3
        exposed = {address for pid in [driver.pid, *started] for address in listens_on(pid)}
        assert {ip for ip in exposed if not ip_address(ip).is_loopback} == set()
        assert exposed
        driver.stdin.write("\n")
        driver.stdin.flush()
        second = json.loads(driver.stdout.readline())
        assert not Path(facts["folder"]).exists()               # left in order, all is gone
        assert with_argument(facts["folder"]) == []
        assert with_argument(second["folder"])
        driver.kill()                                           # and if not, the processes go all the same
    wait_for(lambda: not with_argument(second["folder"]))
    shutil.rmtree(second["folder"])


def with_argument(text: str) -> list[int]:
    """Processes with this text in their command line."""
    found = []
    for entry in PROCESS.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in command:
                found.append(int(entry.name))
    return found


def listens_on(pid: int) -> set[str]:
    """Addresses on which a process accepts connections."""
    inodes = set()
    for descriptor in (PROCESS / str(pid) / "fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for name in ("tcp", "tcp6"):
        for line in (PROCESS / "net" / name).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(readable(fields[1].split(":")[0]))
    return found


def readable(address: str) -> str:
    """As the kernel writes it: words of four bytes, each in the machine's order."""
    raw = b"".join(bytes.fromhex(address[i:i + 8])[::-1] for i in range(0, len(address), 8))
    parsed = ip_address(raw)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
