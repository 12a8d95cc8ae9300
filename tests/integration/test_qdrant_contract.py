"""What a mirror and searches in it promise, on every kind of Qdrant at hand: the embedded shard, the server's code on
qdrant-client's own imitation, and a real server where THRIFTRAG_TEST_QDRANT_URL names one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexers.qdrant import RECORD, Mirror, mirror_of, open_mirror
from indexers.qdrant_points import Point, between
from indexers.qdrant_terms import Bm25Terms
from indexers.snapshot import Snapshot
from rag.errors import CollectionMissing, InputError, SnapshotMismatch
from rag.filters import And, Equals, Exists, Filter, In, Not, Or, Range, matches
from rag.settings import Settings
from rag.types import Progress
from retrievers.backend import Backend
from retrievers.qdrant import QdrantBackend
from tests.qdrant_collections import KINDS, SERVER, Collection, exact, mirror_on, settings_of, units

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect", "ignore:Local mode")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, qdrant_url=SERVER)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """120 chunks of 60 documents: ten years, three tenants, some with a list of tags, some without."""
    found = Collection(tmp_path / "kb")
    found.add([f"d{i:02}" for i in range(60)], metadata={
        f"d{i:02}": {"year": 2000 + i % 10, "tenant": f"t{i % 3}", **({"tags": ("even", i)} if i % 2 == 0 else {})}
        for i in range(60)})
    return found


@pytest.fixture(params=KINDS)
def mirror(request: pytest.FixtureRequest, collection: Collection, settings: Settings) -> Iterator[Mirror]:
    found = mirror_on(request.param, collection, settings=settings)
    found.drop()
    yield found
    found.drop()
    found.close()


@pytest.fixture
def vector() -> np.ndarray:
    return units(np.random.default_rng(1), 1, 16)[0]


def synced(mirror: Mirror, collection: Collection) -> tuple[Snapshot, QdrantBackend]:
    snapshot = collection.snapshot()
    mirror.sync(snapshot)
    return snapshot, QdrantBackend(snapshot, mirror)


def cosines(snapshot: Snapshot, vector: np.ndarray, found: list[tuple[int, float]]) -> list[float]:
    return [float(snapshot.vectors([row])[0] @ vector) for row, _ in found]


def test_dense_returns_the_rows_of_exact_products_with_their_scores(mirror: Mirror, collection: Collection) -> None:
    snapshot, backend = synced(mirror, collection)
    rows = snapshot.rows().tolist()
    for vector in units(np.random.default_rng(2), 20, 16):
        found = backend.dense(vector, k=7)
        assert [row for row, _ in found] == exact(snapshot, vector, rows, 7)
        assert [score for _, score in found] == pytest.approx(cosines(snapshot, vector, found), abs=1e-6)


def test_lexical_returns_what_bm25_of_the_definition_does(mirror: Mirror, collection: Collection) -> None:
    import math
    from collections import Counter

    from indexers.lexical import words
    from indexers.qdrant_terms import K1, B
    from indexers.store import passage_text

    snapshot, backend = synced(mirror, collection)
    rows = snapshot.rows().tolist()
    counts = {row: Counter(words(passage_text(chunk.title, chunk.heading, chunk.text)))
              for row, chunk in zip(rows, snapshot.chunks(rows), strict=True)}
    average = sum(found.total() for found in counts.values()) / len(counts)
    for question in ("otter", "lamp lamp river", "on velvet thunder stone", "nowhere", "?"):
        scores = dict.fromkeys(rows, 0.0)
        for word in words(question):
            holding = sum(word in found for found in counts.values())
            idf = math.log(1 + (len(rows) - holding + 0.5) / (holding + 0.5))
            for row, found in counts.items():
                scores[row] += idf * found[word] / (found[word] + K1 * (1 - B + B * found.total() / average))
        expected = sorted((row for row in rows if scores[row]), key=lambda row: (-round(scores[row], 5), row))[:9]
        got = backend.lexical(question, k=9)
        assert [row for row, _ in sorted(got, key=lambda pair: (-round(pair[1], 5), pair[0]))] == expected
        assert [score for _, score in got] == pytest.approx([scores[row] for row, _ in got], rel=1e-5)


@pytest.mark.parametrize("where", [
    Equals("tenant", "t1"), Not(Equals("tenant", "t1")), Range("year", gte=2003, lt=2005), Range("year", gt=2008.5),
    In("tags", (4, 8, "none")), Exists("tags"), Not(Exists("tags")), Equals("source", "d07.txt"), Equals("metadata.year", 2004.0),
    Range("source", gte="d10", lt="d13"), Not(Range("source", gte="d10", lt="d58")), Equals("id", "d03"),
    And((Equals("tenant", "t0"), Or((Range("year", lt=2002), Equals("tags", "even"))))), Equals("tenant", 1), Exists("unseen"),
    Or((Equals("unseen", 1), Range("title", gte="On d5")))])
def test_filters_mean_what_the_reference_says_and_k_results_come_back(mirror: Mirror, collection: Collection, where: Filter,
                                                                      vector: np.ndarray) -> None:
    snapshot, backend = synced(mirror, collection)
    rows = snapshot.rows().tolist()
    allowed = [row for row, fields in zip(rows, snapshot.fields(rows), strict=True) if matches(where, fields)]
    assert [row for row, _ in backend.dense(vector, k=5, where=where)] == exact(snapshot, vector, allowed, 5)
    assert {row for row, _ in backend.dense(vector, k=500, where=where)} == set(allowed)
    holding = {row for row, _ in backend.lexical("river otter on", k=500)}
    assert {row for row, _ in backend.lexical("river otter on", k=500, where=where)} == holding & set(allowed)


def test_a_range_of_strings_that_matches_too_many_rows_to_name_still_answers(
        mirror: Mirror, collection: Collection, vector: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrievers.qdrant._NAMED", 3)
    snapshot, backend = synced(mirror, collection)
    rows = snapshot.rows().tolist()
    for where in (Range("source", gte="d10", lt="d13"), Not(Range("source", gte="d10", lt="d55")),
                  And((Range("source", lt="d30"), Not(Range("title", lt="On d28"))))):
        allowed = [row for row, fields in zip(rows, snapshot.fields(rows), strict=True) if matches(where, fields)]
        assert [row for row, _ in backend.dense(vector, k=4, where=where)] == exact(snapshot, vector, allowed, 4)


def test_deleted_rows_never_come_back_and_k_results_still_do(mirror: Mirror, collection: Collection, vector: np.ndarray) -> None:
    """Before and after the mirror hears of it: the snapshot decides."""
    before, old = synced(mirror, collection)
    doomed = [f"d{i:02}" for i in range(0, 60, 2)]
    collection.delete(doomed)
    after = collection.snapshot()
    behind = QdrantBackend(after, mirror)
    rows = after.rows().tolist()
    assert [row for row, _ in behind.dense(vector, k=20)] == exact(after, vector, rows, 20)
    assert {row for row, _ in behind.lexical("on", k=500)} == set(rows)
    mirror.sync(after)
    assert mirror.problems(after) == []
    assert [row for row, _ in QdrantBackend(after, mirror).dense(vector, k=20)] == exact(after, vector, rows, 20)
    assert {row for row, _ in old.dense(vector, k=500)} == set(rows)        # the held snapshot finds what is left of it
    assert before.size == 120


def test_rows_newer_than_the_snapshot_take_no_places(mirror: Mirror, collection: Collection, vector: np.ndarray) -> None:
    snapshot, backend = synced(mirror, collection)
    expected = backend.dense(vector, k=6)
    words = backend.lexical("otter river", k=6)
    collection.add([f"new{i}" for i in range(80)])
    newer = collection.snapshot()
    mirror.sync(newer)
    assert backend.dense(vector, k=6) == expected
    # The idf has changed with the mirror, so scores differ; what may be found has not.
    assert len(backend.lexical("otter river", k=6)) == len(words) == 6
    assert {row for row, _ in backend.lexical("on", k=500)} == set(snapshot.rows().tolist())


def test_a_second_sync_sends_nothing(mirror: Mirror, collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, _ = synced(mirror, collection)
    for name in ("upsert", "delete", "create", "index", "rows"):
        monkeypatch.setattr(mirror.points, name, lambda *_: pytest.fail("nothing has changed"))
    mirror.sync(snapshot)


def test_work_is_in_proportion_to_the_change(mirror: Mirror, collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    synced(mirror, collection)
    monkeypatch.setattr("indexers.qdrant._LEAF", 8)
    sent: list[int] = []
    removed: list[int] = []
    read: list[int] = []
    upsert, delete, rows = mirror.points.upsert, mirror.points.delete, mirror.points.rows

    def counted_rows(where: object) -> np.ndarray:
        found = rows(where)  # type: ignore[arg-type]  # handed on as it came
        read.extend(found.tolist())
        return found

    monkeypatch.setattr(mirror.points, "upsert", lambda points: (sent.extend(point.id for point in points), upsert(points)))
    monkeypatch.setattr(mirror.points, "delete", lambda rows: (removed.extend(rows), delete(rows)))
    monkeypatch.setattr(mirror.points, "rows", counted_rows)
    collection.add(["extra"])
    collection.delete(["d31"])
    mirror.sync(collection.snapshot())
    assert (sorted(sent), removed, len(read) < 20) == ([120, 121, RECORD], [62, 63], True)
    assert mirror.problems(collection.snapshot()) == []


def test_an_older_snapshot_is_mirrored_as_it_is(mirror: Mirror, collection: Collection) -> None:
    """As after a backup was put back."""
    old, _ = synced(mirror, collection)
    collection.delete(["d00"])
    collection.add(["extra"])
    newer = collection.snapshot()
    mirror.sync(newer)
    assert mirror.problems(old) != []
    mirror.sync(old)
    assert mirror.problems(old) == []
    mirror.sync(newer)
    assert mirror.problems(newer) == []


def test_rows_that_vanished_behind_our_back_are_put_back(mirror: Mirror, collection: Collection) -> None:
    snapshot, _ = synced(mirror, collection)
    mirror.points.delete([5, 80])
    assert mirror.problems(snapshot) == [f"Qdrant mirror {mirror.points.name!r}: 2 chunks are missing: rows 5, 80"]
    mirror.sync(snapshot)
    assert mirror.problems(snapshot) == []
    # One lost and one too many: equal counts, which only the next change of the collection brings to light.
    mirror.points.delete([5])
    mirror.points.upsert([Point(999, {"row": 999}, units(np.random.default_rng(0), 1, 16)[0])])
    assert len(mirror.problems(snapshot)) == 2
    assert 999 not in {row for row, _ in QdrantBackend(snapshot, mirror).dense(snapshot.vectors([0])[0], k=500)}
    collection.add(["extra"])
    mirror.sync(collection.snapshot())
    assert mirror.problems(collection.snapshot()) == []


def test_an_empty_collection_and_one_that_was_emptied(mirror: Mirror, tmp_path: Path, settings: Settings, collection: Collection,
                                                      vector: np.ndarray) -> None:
    collection.delete([f"d{i:02}" for i in range(60)])
    empty, backend = synced(mirror, collection)
    assert (backend.dense(vector, k=3), backend.lexical("otter", k=3), mirror.problems(empty)) == ([], [], [])
    collection.add(["one"])
    snapshot, backend = synced(mirror, collection)
    assert len(backend.dense(vector, k=3)) == 2
    collection.delete(["one"])
    emptied, backend = synced(mirror, collection)
    assert (backend.dense(vector, k=3), mirror.problems(emptied), snapshot.size) == ([], [], 2)


def test_wrong_dimensions_are_refused(mirror: Mirror, collection: Collection, tmp_path: Path, settings: Settings) -> None:
    snapshot, _ = synced(mirror, collection)
    other = Mirror(mirror.points, dimension=24, weights=Bm25Terms())
    with pytest.raises(SnapshotMismatch, match="vectors of dimension 16, not 24"):
        other.sync(snapshot)
    wider = Collection(tmp_path / "wider", dimension=24)
    wider.add(["one"])
    assert any("of dimension 16 compared by dot, not 24" in problem for problem in other.problems(wider.snapshot()))


def test_questions_that_cannot_be_asked_are_refused(mirror: Mirror, collection: Collection, vector: np.ndarray) -> None:
    _, backend = synced(mirror, collection)
    for wrong, said in ((vector[:5], r"shape \(5,\) does not fit vectors of dimension 16"), (vector[None], "does not fit"),
                        (vector * np.nan, "not finite")):
        with pytest.raises(InputError, match=said):
            backend.dense(wrong, k=3)
    for ask in (lambda: backend.dense(vector, k=0), lambda: backend.lexical("otter", k=-1)):
        with pytest.raises(InputError, match="asks for no results"):
            ask()


def test_the_mirror_of_another_collection_is_refused(mirror: Mirror, collection: Collection, tmp_path: Path) -> None:
    synced(mirror, collection)
    other = Collection(tmp_path / "other")
    other.add(["one"])
    with pytest.raises(SnapshotMismatch, match="mirrors collection"):
        mirror.sync(other.snapshot())
    assert mirror.problems(collection.snapshot()) == []


def test_a_collection_of_somebody_else_is_left_alone(mirror: Mirror, collection: Collection) -> None:
    mirror.points.create(16)
    mirror.points.upsert([Point(1, {"theirs": True}, units(np.random.default_rng(0), 1, 16)[0])])
    with pytest.raises(SnapshotMismatch, match="no mirror of ours"):
        mirror.sync(collection.snapshot())
    assert mirror.points.count({}) == 1


@pytest.mark.parametrize("what", ["encoder", "weights"])
def test_another_encoder_or_other_weights_make_the_mirror_anew(mirror: Mirror, collection: Collection, what: str) -> None:
    snapshot, _ = synced(mirror, collection)
    held = mirror.held()
    assert held is not None
    older = replace(held, encoder="old@0") if what == "encoder" else replace(held, weights="old")
    mirror.points.upsert([Point(RECORD, older.to_payload())])
    assert "no record of this collection and its encoder" in mirror.problems(snapshot)[0]
    mirror.sync(snapshot)
    assert (mirror.problems(snapshot), mirror.held()) == ([], held)


def test_a_record_of_another_format_is_refused_with_the_command_to_run(mirror: Mirror, collection: Collection) -> None:
    snapshot, _ = synced(mirror, collection)
    mirror.points.upsert([Point(RECORD, {"thriftrag": {"format": 99}})])
    with pytest.raises(SnapshotMismatch, match=r"has format 99.*collections rebuild"):
        mirror.sync(snapshot)


def test_progress_ends_with_everything_done(mirror: Mirror, collection: Collection) -> None:
    heard: list[Progress] = []
    mirror.sync(collection.snapshot(), on_progress=heard.append)
    assert [(tick.stage, tick.done, tick.total) for tick in heard] == [("mirror", 0, 120), ("mirror", 120, 120)]


def test_the_payload_has_filterable_fields_and_no_text(mirror: Mirror, collection: Collection) -> None:
    synced(mirror, collection)
    found = mirror.points.payload(0)
    assert found is not None
    added = found["string"]["added"]  # type: ignore[index]  # a mapping, as written
    assert found == {"row": 0, "generation": 1, "integer": {"metadata.year": 2000, "metadata.tags": 0}, "string": {
        "id": "d00", "source": "d00.txt", "title": "On d00", "language": "en", "media_type": "text/plain", "added": added,
        "metadata.tenant": "t0", "metadata.tags": "even"}}
    assert mirror.points.count(between(0, None)) == 120
    assert mirror.points.payload(500) is None


def test_equal_scores_come_by_row(mirror: Mirror, collection: Collection) -> None:
    collection.delete([f"d{i:02}" for i in range(60)])
    collection.rng = _Same()  # type: ignore[assignment]  # every chunk gets the same text and vector
    collection.add([f"same{i:02}" for i in range(40)], chunks=1)
    snapshot, backend = synced(mirror, collection)
    first = snapshot.rows()[:5].tolist()
    assert [row for row, _ in backend.dense(np.eye(16, dtype=np.float32)[0], k=5)] == first
    assert [row for row, _ in backend.lexical("otter", k=5)] == first


class _Same:
    def normal(self, *, size: tuple[int, int]) -> np.ndarray:
        return np.eye(16)[np.zeros(size[0], int)]

    def choice(self, *_: object) -> list[str]:
        return ["otter", "bridge"]

    def integers(self, *bounds: int) -> int:
        return bounds[0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "local"])      # the imitation is for one thread
def test_many_readers_while_the_mirror_changes(kind: str, collection: Collection, settings: Settings,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reader's answers are rows of its own snapshot, whatever a sync in another thread does meanwhile, and while search
    graphs are built."""
    monkeypatch.setattr("indexers.qdrant_edge.GRAPHS_FROM_BYTES", 1)
    monkeypatch.setattr("indexers.qdrant_edge.GRAPHS_FROM_SHARE", 0)
    mirror = mirror_on(kind, collection, settings=settings)
    mirror.drop()
    snapshot, backend = synced(mirror, collection)
    known, done = set(snapshot.rows().tolist()), threading.Event()

    def read(seed: int) -> int:
        rng, searches = np.random.default_rng(seed), 0
        while not done.wait(0.005):
            found = backend.dense(units(rng, 1, 16)[0], k=5, where=Equals("tenant", "t1"))
            assert (len(found), {row for row, _ in found} <= known) == (5, True)
            searches += 1
        return searches

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read, seed) for seed in range(3)]
        try:
            for i in range(3):
                collection.add([f"more{i}-{j}" for j in range(10)], metadata={f"more{i}-{j}": {"tenant": "t1"} for j in range(10)})
                mirror.sync(collection.snapshot())
        finally:
            done.set()
        assert all(reader.result() for reader in readers)
    assert mirror.problems(collection.snapshot()) == []
    mirror.drop()


def test_open_brings_an_embedded_mirror_up_to_date_and_fulfils_the_protocol(collection: Collection, tmp_path: Path,
                                                                            vector: np.ndarray) -> None:
    settings, first = settings_of(tmp_path, backend="qdrant"), collection.snapshot()
    backend: Backend = QdrantBackend.open(first, settings=settings)
    assert [row for row, _ in backend.dense(vector, k=4)] == exact(first, vector, first.rows().tolist(), 4)
    collection.add(["extra"])
    second = collection.snapshot()
    newer: Backend = QdrantBackend.open(second, settings=settings)
    assert {row for row, _ in newer.dense(vector, k=500)} == set(second.rows().tolist())
    assert {row for row, _ in backend.dense(vector, k=500)} == set(first.rows().tolist())


def test_a_mirror_on_a_server_is_called_after_its_collection_and_its_id(collection: Collection, tmp_path: Path) -> None:
    settings, snapshot = settings_of(tmp_path, qdrant_url="http://localhost:1"), collection.snapshot()
    name = open_mirror(collection.folder, settings=settings, name="our docs/2", dimension=16).points.name
    assert name == f"thriftrag-our_docs_2-{snapshot.meta['collection']}"
    assert mirror_of(snapshot, settings=settings).points.name == f"thriftrag-kb-{snapshot.meta['collection']}"
    with pytest.raises(CollectionMissing):
        open_mirror(tmp_path / "none", settings=settings, name="none", dimension=16)


@pytest.mark.parametrize("quantization", ["none", "scalar"])
def test_search_graphs_are_built_aside_and_searches_stay_right(tmp_path: Path, quantization: str, vector: np.ndarray,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.qdrant_edge.GRAPHS_FROM_BYTES", 1000)
    settings, collection = settings_of(tmp_path, qdrant_quantization=quantization), Collection(tmp_path / "kb")
    collection.add([f"d{i}" for i in range(400)])
    mirror = mirror_on("edge", collection, settings=settings)
    snapshot, backend = synced(mirror, collection)
    assert (collection.folder / "qdrant" / "current.json").read_text().endswith('"graphs_to": 799}')
    assert [row for row, _ in backend.dense(vector, k=5)] == exact(snapshot, vector, snapshot.rows().tolist(), 5)
    collection.add(["few"])
    snapshot, backend = synced(mirror, collection)     # a few more do not build graphs again
    assert (collection.folder / "qdrant" / "current.json").read_text().endswith('"graphs_to": 799}')
    assert [row for row, _ in backend.dense(vector, k=5)] == exact(snapshot, vector, snapshot.rows().tolist(), 5)
    assert mirror.problems(snapshot) == []


def test_binary_vectors_find_roughly_and_score_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.qdrant_edge.GRAPHS_FROM_BYTES", 1000)
    collection = Collection(tmp_path / "kb", dimension=64)
    collection.add([f"d{i}" for i in range(200)])
    mirror = mirror_on("edge", collection, settings=settings_of(tmp_path, qdrant_quantization="binary"))
    snapshot, backend = synced(mirror, collection)
    for vector in units(np.random.default_rng(3), 10, 64):
        found = backend.dense(vector, k=10)
        assert [score for _, score in found] == pytest.approx(cosines(snapshot, vector, found), abs=1e-6)
        assert len({row for row, _ in found} & set(exact(snapshot, vector, snapshot.rows().tolist(), 10))) >= 5


def test_a_closed_shard_lets_go_of_its_lock(collection: Collection, settings: Settings) -> None:
    mirror = mirror_on("edge", collection, settings=settings)
    synced(mirror, collection)
    held = collection.folder / "qdrant" / "holder.json"
    assert held.exists()
    mirror.close()
    assert not held.exists()
    assert mirror.problems(collection.snapshot()) == []     # and opens again when asked
