"""A Qdrant server that is down, slow, failing, forgetful or no Qdrant at all; and an embedded shard whose process is killed, whose
files are damaged, whose disk is full or which another process has open. Whatever happens, the next run completes the mirror."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexers import qdrant_edge, qdrant_home
from indexers.qdrant import Mirror
from indexers.qdrant_edge import EdgePoints
from indexers.qdrant_server import PATIENT_PAUSES_S, PAUSES_S, ServerPoints, connect
from indexers.qdrant_terms import Bm25Terms
from indexers.snapshot import Snapshot
from rag.errors import Locked, SnapshotCorrupt, SnapshotMismatch, StorageError, UpstreamError
from retrievers.qdrant import QdrantBackend
from tests.qdrant_collections import Collection, mirror_on, settings_of, units
from tests.qdrant_server import FaultyQdrant, dropped, fine, garbage, lost, stalled, status

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    found = Collection(tmp_path / "kb")
    found.add([f"d{i}" for i in range(20)])
    return found


@pytest.fixture
def server() -> Iterator[FaultyQdrant]:
    with FaultyQdrant() as found:
        yield found


class Asleep:
    """Stands in for sleeping and remembers for how long."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)


def mirror_at(url: str, collection: Collection, sleep: Asleep | None = None, **flags: object) -> Mirror:
    settings = settings_of(collection.folder.parent, qdrant_url=url, qdrant_timeout_s=1, **flags)
    points: ServerPoints = connect(settings, name="kb", sleep=sleep or Asleep())
    return Mirror(points, dimension=collection.dimension, weights=Bm25Terms())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_server_that_is_down_is_an_error_that_names_it_and_no_secret(collection: Collection) -> None:
    port, sleep = free_port(), Asleep()
    mirror = mirror_at(f"http://user:hidden@127.0.0.1:{port}", collection, sleep, qdrant_api_key="s3cret")
    with pytest.raises(UpstreamError, match=f"http://127.0.0.1:{port} cannot be reached") as caught:
        mirror.sync(collection.snapshot())
    assert (caught.value.code, "hidden" in str(caught.value), "s3cret" in str(caught.value)) == ("qdrant_unavailable", False, False)
    assert "goes on where it stopped" in caught.value.hint
    assert sleep.pauses == list(PATIENT_PAUSES_S)


@pytest.mark.parametrize("fault", [status(500), status(502), status(503), status(429), status(408), dropped, lost])
def test_what_passes_is_waited_for(server: FaultyQdrant, collection: Collection, fault: object) -> None:
    sleep = Asleep()
    server.faults = [*[fault] * 3, fine, fault, fine, fine, *[fault] * 5]  # type: ignore[list-item]  # all are faults
    mirror = mirror_at(server.url, collection, sleep)
    mirror.sync(collection.snapshot())
    assert (mirror.problems(collection.snapshot()), server.faults) == ([], [])
    assert len(sleep.pauses) == 9


def test_a_server_says_how_long_to_wait(server: FaultyQdrant, collection: Collection) -> None:
    sleep = Asleep()
    server.faults = [status(429, headers={"Retry-After": "7"})]
    mirror_at(server.url, collection, sleep).sync(collection.snapshot())
    assert sleep.pauses == [7.0]


def test_a_server_that_keeps_failing_is_named_with_its_own_words(server: FaultyQdrant, collection: Collection) -> None:
    server.faults = [status(503, said="no leader elected")] * 100
    with pytest.raises(UpstreamError, match="status 503: no leader elected"):
        mirror_at(server.url, collection).sync(collection.snapshot())
    assert len(server.requests) == 0
    assert len(server.faults) == 100 - 1 - len(PATIENT_PAUSES_S)


@pytest.mark.parametrize("seed", range(4))
def test_any_mixture_of_failures_ends_with_exactly_the_live_rows(server: FaultyQdrant, collection: Collection, seed: int) -> None:
    rng = random.Random(seed)
    mirror = mirror_at(server.url, collection)
    for _ in range(4):
        server.faults = [fault for _ in range(4)
                         for fault in (*rng.choices([dropped, lost, status(503)], k=rng.randrange(4)), fine)]
        mirror.sync(collection.snapshot())
        assert mirror.problems(collection.snapshot()) == []
        name = f"more{rng.random()}"
        collection.add([name])
        collection.delete([rng.choice(collection.snapshot().documents()).id])


def test_a_run_that_was_given_up_goes_on_where_it_stopped(server: FaultyQdrant, collection: Collection,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.qdrant._POINTS", 16)
    mirror = mirror_at(server.url, collection)
    # Found by counting requests: the mirror is created and its first batch is in when the server goes away.
    before = None
    for healthy in range(1, 60):
        mirror.drop()
        server.upserted.clear()
        server.faults = [*[fine] * healthy, *[status(503)] * (1 + len(PATIENT_PAUSES_S))]
        with pytest.raises(UpstreamError):
            mirror.sync(collection.snapshot())
        before = {row for row in server.upserted if row < 1000}
        if len(before) == 16:
            break
    assert before is not None
    assert len(before) == 16
    server.upserted.clear()
    mirror.sync(collection.snapshot())
    assert mirror.problems(collection.snapshot()) == []
    assert before.isdisjoint(server.upserted)


def test_a_refused_key_is_not_tried_again(server: FaultyQdrant, collection: Collection) -> None:
    sleep = Asleep()
    server.faults = [status(401)]
    with pytest.raises(UpstreamError, match="refuses the key") as caught:
        mirror_at(server.url, collection, sleep, qdrant_api_key="s3cret").sync(collection.snapshot())
    assert (caught.value.code, caught.value.field) == ("qdrant_forbidden", "qdrant_api_key")
    assert (sleep.pauses, server.keys, "s3cret" in str(caught.value)) == ([], {"s3cret"}, False)


def test_a_server_that_is_no_qdrant_is_told_apart(server: FaultyQdrant, collection: Collection) -> None:
    server.faults = [garbage]
    with pytest.raises(UpstreamError, match="answered what Qdrant would not") as caught:
        mirror_at(server.url, collection).sync(collection.snapshot())
    assert caught.value.code == "qdrant_refused"


def test_a_slow_server_is_asked_again_by_a_run_and_given_up_by_a_search(server: FaultyQdrant, collection: Collection) -> None:
    sleep, snapshot = Asleep(), collection.snapshot()
    mirror = mirror_at(server.url, collection, sleep)
    server.faults = [stalled]
    mirror.sync(snapshot)
    assert sleep.pauses == [PATIENT_PAUSES_S[0]]
    backend = QdrantBackend(snapshot, mirror)
    server.faults = [stalled]
    with pytest.raises(UpstreamError, match="did not answer within 1 s") as caught:
        backend.dense(units(np.random.default_rng(0), 1, 16)[0], k=3)
    assert (caught.value.code, len(sleep.pauses)) == ("qdrant_timeout", 1)


def test_a_search_survives_one_failure_and_then_says_so(server: FaultyQdrant, collection: Collection) -> None:
    sleep, snapshot = Asleep(), collection.snapshot()
    mirror = mirror_at(server.url, collection, sleep)
    mirror.sync(snapshot)
    backend = QdrantBackend(snapshot, mirror)
    server.faults = [dropped]
    assert len(backend.lexical("otter river lamp", k=3)) == 3
    server.faults = [dropped] * 10
    with pytest.raises(UpstreamError, match="cannot be reached"):
        backend.lexical("otter", k=3)
    assert sleep.pauses == [PAUSES_S[0], *PAUSES_S]


def test_a_server_that_lost_everything_is_filled_again(server: FaultyQdrant, collection: Collection) -> None:
    mirror, snapshot = mirror_at(server.url, collection), collection.snapshot()
    mirror.sync(snapshot)
    backend = QdrantBackend(snapshot, mirror)
    server.client.delete_collection("kb")
    with pytest.raises(UpstreamError, match="status 404") as caught:
        backend.lexical("otter", k=3)
    assert caught.value.code == "qdrant_refused"
    mirror.sync(snapshot)
    assert mirror.problems(snapshot) == []


@pytest.mark.parametrize("what", ["some points", "all points", "the record"])
def test_what_vanished_from_the_server_is_named_and_put_back(server: FaultyQdrant, collection: Collection, what: str) -> None:
    from qdrant_client import models

    mirror, snapshot = mirror_at(server.url, collection), collection.snapshot()
    mirror.sync(snapshot)
    everything = models.FilterSelector(filter=models.Filter(must=[models.FieldCondition(key="row", range=models.Range(gte=0))]))
    chosen = {"some points": [3, 7], "all points": everything, "the record": [(1 << 53) - 1]}[what]
    server.client.delete("kb", chosen)
    if what == "the record":
        with pytest.raises(SnapshotMismatch, match="no mirror of ours"):
            mirror.sync(snapshot)
        return
    assert f"{2 if what == 'some points' else 40} chunks are missing" in mirror.problems(snapshot)[-1]
    mirror.sync(snapshot)
    assert mirror.problems(snapshot) == []


CHILD = """
import os, signal, sys
from pathlib import Path
folder, fatal = Path(sys.argv[1]), int(sys.argv[2])
seen = 0
def tick():
    global seen
    seen += 1
    if seen == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
def counted(function):
    def call(*args, **kwargs):
        tick()
        result = function(*args, **kwargs)
        tick()
        return result
    return call
from indexers import qdrant, qdrant_edge, qdrant_home
from indexers.snapshot import Snapshot
from rag.settings import load
for name in ("replace", "fsync", "mkdir", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
import qdrant_edge as edge
class Counted:
    def __init__(self, shard): self.shard = shard
    def __getattr__(self, name):
        found = getattr(self.shard, name)
        return counted(found) if name in ("update", "flush", "close") else found
class Opening:
    create = staticmethod(lambda *args: counted(edge_class.create)(*args))
    load = staticmethod(lambda *args: Counted(counted(edge_class.load)(*args)))
edge_class, edge.EdgeShard = edge.EdgeShard, Opening
qdrant_home.subprocess.run = counted(qdrant_home.subprocess.run)
qdrant_home.shutil.copytree = counted(qdrant_home.shutil.copytree)
qdrant_edge.GRAPHS_FROM_BYTES = 1000
qdrant._POINTS = 16
settings = load({"home": folder.parent, "models": folder.parent}, environ={})
snapshot = Snapshot(folder)
mirror = qdrant.open_mirror(folder, settings=settings, name="kb", dimension=snapshot.dimension)
mirror.sync(snapshot)
assert mirror.problems(snapshot) == []
print(seen)
"""


def sync_in_child(folder: Path, fatal: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CHILD, str(folder), str(fatal)], capture_output=True, text=True, check=False,
                          timeout=120)


def test_killed_at_any_write_the_shard_opens_and_a_rerun_completes(tmp_path: Path, collection: Collection) -> None:
    """The child syncs a mirror that is one generation behind: rows to add, rows to delete, graphs to build."""
    first = collection.snapshot()
    mirror = mirror_on("edge", collection, settings=settings_of(tmp_path))
    mirror.sync(first)
    mirror.close()
    first.close()
    collection.add([f"new{i}" for i in range(20)])
    collection.delete([f"d{i}" for i in range(0, 20, 3)])
    whole = tmp_path / "whole"
    shutil.copytree(collection.folder, whole)
    done = sync_in_child(whole, 0)
    assert done.returncode == 0, done.stderr
    points = int(done.stdout)
    assert points > 20
    for fatal in sorted({*range(1, points + 1, max(1, points // 7)), points}):
        folder = tmp_path / f"at-{fatal}"
        shutil.copytree(collection.folder, folder)
        assert sync_in_child(folder, fatal).returncode == -9, fatal
        check_completes(folder, fatal)


def test_killed_at_any_write_of_the_first_run(tmp_path: Path, collection: Collection) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(collection.folder, whole)
    done = sync_in_child(whole, 0)
    assert done.returncode == 0, done.stderr
    points = int(done.stdout)
    for fatal in sorted({*range(1, points + 1, max(1, points // 7)), points}):
        folder = tmp_path / f"at-{fatal}"
        shutil.copytree(collection.folder, folder)
        assert sync_in_child(folder, fatal).returncode == -9, fatal
        check_completes(folder, fatal)


def check_completes(folder: Path, fatal: int) -> None:
    settings, snapshot = settings_of(folder.parent), Snapshot(folder)
    mirror = Mirror(EdgePoints(folder, settings=settings, name="kb"), dimension=snapshot.dimension, weights=Bm25Terms())
    vector = units(np.random.default_rng(1), 1, snapshot.dimension)[0]
    live = set(snapshot.rows().tolist())
    if mirror.held() is not None:
        halfway = [row for row, _ in QdrantBackend(snapshot, mirror).dense(vector, k=100)]
        assert set(halfway) <= live, fatal
    mirror.sync(snapshot)
    assert mirror.problems(snapshot) == [], fatal
    assert {row for row, _ in QdrantBackend(snapshot, mirror).dense(vector, k=100)} == live, fatal
    assert len(list((folder / "qdrant" / "shards").iterdir())) == 1, f"left behind by a kill at {fatal}"
    mirror.close()


HOLDER = """
import sys
from pathlib import Path
from indexers.qdrant_edge import EdgePoints
from rag.settings import load
folder = Path(sys.argv[1])
points = EdgePoints(folder, settings=load({"home": folder.parent, "models": folder.parent}, environ={}), name="kb")
print(points.count({}), flush=True)
sys.stdin.read()
"""


def test_a_shard_that_another_process_has_open_is_refused_by_name(tmp_path: Path, collection: Collection) -> None:
    settings, snapshot = settings_of(tmp_path), collection.snapshot()
    mirror = mirror_on("edge", collection, settings=settings)
    mirror.sync(snapshot)
    mirror.close()
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(collection.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "41\n"
        refused = Mirror(EdgePoints(collection.folder, settings=settings, name="kb", patience_s=0), dimension=16,
                         weights=Bm25Terms())
        for use in (lambda: refused.sync(snapshot), lambda: QdrantBackend(snapshot, refused), refused.drop):
            with pytest.raises(Locked, match=f"is open in process {other.pid} on ") as caught:
                use()
            assert (caught.value.code, "qdrant_url" in caught.value.hint) == ("mirror_locked", True)
        other.kill()
    assert refused.problems(snapshot) == []     # a killed process holds nothing


def test_damaged_files_are_named_and_the_mirror_can_be_made_again(tmp_path: Path, collection: Collection) -> None:
    settings, snapshot = settings_of(tmp_path), collection.snapshot()
    for damage in (lambda home: (home / "current.json").write_text("{"),
                   lambda home: (home / "current.json").write_text(json.dumps({"shard": "gone", "dimension": 16})),
                   lambda home: next(home.glob("shards/*/segments/*/segment.json")).write_text("{"),
                   lambda home: shutil.rmtree(home / "shards")):
        mirror = mirror_on("edge", collection, settings=settings)
        mirror.sync(snapshot)
        mirror.close()
        damage(collection.folder / "qdrant")
        broken = mirror_on("edge", collection, settings=settings)
        with pytest.raises((SnapshotCorrupt, StorageError), match="qdrant"):
            broken.problems(snapshot)
        broken.drop()
        broken.sync(snapshot)
        assert broken.problems(snapshot) == []
        broken.close()


def test_a_full_disk_is_a_clean_error_before_anything_breaks(tmp_path: Path, collection: Collection,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, mirror = collection.snapshot(), mirror_on("edge", collection, settings=settings_of(tmp_path))
    monkeypatch.setattr(qdrant_home, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(StorageError, match="No space left") as caught:
        mirror.sync(snapshot)
    assert caught.value.code == "disk_full"
    monkeypatch.undo()
    mirror.sync(snapshot)
    assert mirror.problems(snapshot) == []


def test_without_room_for_a_copy_the_graphs_stay_as_they_are(tmp_path: Path, collection: Collection,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, mirror = collection.snapshot(), mirror_on("edge", collection, settings=settings_of(tmp_path))
    monkeypatch.setattr(qdrant_edge, "GRAPHS_FROM_BYTES", 1)
    monkeypatch.setattr(qdrant_home, "tree_bytes", lambda _: 1 << 60)
    mirror.sync(snapshot)
    assert json.loads((collection.folder / "qdrant" / "current.json").read_text())["graphs_to"] == -1
    assert mirror.problems(snapshot) == []


def test_a_graph_builder_that_dies_leaves_the_shard_in_use(tmp_path: Path, collection: Collection,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, mirror = collection.snapshot(), mirror_on("edge", collection, settings=settings_of(tmp_path))
    monkeypatch.setattr(qdrant_edge, "GRAPHS_FROM_BYTES", 1)
    monkeypatch.setattr(qdrant_home.sys, "executable", shutil.which("false"))
    with pytest.raises(StorageError, match="graphs"):
        mirror.sync(snapshot)
    assert mirror.problems(snapshot) == []
    assert len(os.listdir(collection.folder / "qdrant" / "shards")) == 1


def test_a_copy_is_the_same_and_keeps_the_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    content = b"start" + bytes(3_000_000) + b"middle" + bytes(3_000_000)
    source.write_bytes(content)
    qdrant_home.copy_sparsely(str(source), str(target))
    assert target.read_bytes() == content
    assert target.stat().st_blocks < source.stat().st_blocks / 4
    source.write_bytes(b"")
    qdrant_home.copy_sparsely(str(source), str(target))
    assert target.read_bytes() == b""


def test_pauses_grow() -> None:
    assert list(PATIENT_PAUSES_S) == sorted(set(PATIENT_PAUSES_S))
    assert sum(PAUSES_S) <= 1
