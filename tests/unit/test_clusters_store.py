"""The file of clusters: what is stored comes back, what is damaged is told, and nothing of deleted texts is kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexers import clusters_store as stored
from indexers.clusters import Cluster, Clustering, Group, Plan
from rag.errors import Locked, SnapshotCorrupt, SnapshotMismatch


def made(name: str = "", *, summary: str = "Most liked it.") -> Clustering:
    cluster = Cluster("kettle é", 1, np.asarray([7, 3, 9]), np.asarray([0.5, 0.5, 0.5, 0.5], np.float32), ("cap", "tea"), summary,
                      "reader/1" if summary else "", ((7, 0), (3, 2)), np.asarray([3, 7]), 3)
    group = Group("kettle é", 3, 0.25, None, (9,))
    return Clustering(Plan(name), "c-4", "words@1", "2024-05-01T00:00:00Z", {"kettle é": group}, (cluster,), 1.5, 10, 4)


def saved(folder: Path, *clusterings: Clustering) -> None:
    with stored.building(folder) as db:
        for each in clusterings or (made(),):
            stored.save(db, each)


def read(folder: Path, name: str = "all") -> Clustering | None:
    with stored.reading(folder) as db:
        return stored.load(db, name, folder=folder)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    saved(tmp_path, made(), made("metadata.product", summary=""))
    found = read(tmp_path)
    assert found is not None
    assert found.plan == Plan()
    assert found.groups == made().groups
    assert (found.snapshot, found.encoder, found.seconds) == ("c-4", "words@1", 1.5)
    assert (found.prompt_tokens, found.completion_tokens) == (10, 4)
    [one], [wanted] = found.clusters, made().clusters
    assert (one.rows.tolist(), one.written.tolist(), one.centroid.tolist()) == ([7, 3, 9], [3, 7], [0.5] * 4)
    for name in ("group", "number", "labels", "summary", "by", "sentences", "size"):
        assert getattr(one, name) == getattr(wanted, name)
    assert one.method == "llm"
    assert read(tmp_path, "metadata.product").clusters[0].method == "extractive"
    assert read(tmp_path, "nothing") is None
    assert stored.problems(tmp_path) == []


def test_each_change_is_a_new_revision_and_the_last_deletion_forgets_the_summaries(tmp_path: Path) -> None:
    saved(tmp_path, made(), made("metadata.product"))
    with stored.building(tmp_path) as db:
        before = stored.revision(db)
        stored.keep_summary(db, b"key", "said", rows=[3])
        assert stored.drop(db, "all")
        assert not stored.drop(db, "all")
        assert stored.revision(db) > before
        assert stored.summary(db, b"key") == "said"
        stored.drop(db, "metadata.product")
        assert stored.summary(db, b"key") is None
        assert stored.names(db) == []


def test_summaries_of_texts_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    with stored.building(tmp_path) as db:
        for key, rows in ((b"a", [1, 2]), (b"b", [2, 3])):
            stored.keep_summary(db, key, "said", rows=rows)
        assert stored.prune_summaries(db, np.asarray([1, 2])) == 1
        assert stored.summary(db, b"a") == "said"
        assert stored.summary(db, b"b") is None


@pytest.mark.parametrize("column", ["clusterings.facts", "clusters.facts", "clusters.members", "clusters.centroid",
                                    "summaries.value"])
def test_a_flipped_bit_in_any_value_is_found_and_building_starts_anew(tmp_path: Path, column: str) -> None:
    with stored.building(tmp_path) as db:
        stored.save(db, made())
        stored.keep_summary(db, b"key", "said", rows=[1])
    table, name = column.split(".")
    with closing(sqlite3.connect(tmp_path / stored.FILE)) as db:
        (value,) = db.execute(f"SELECT {name} FROM {table}").fetchone()
        db.execute(f"UPDATE {table} SET {name} = ?", (bytes([value[0] ^ 1]) + value[1:],))
        db.commit()
    assert len(stored.problems(tmp_path)) == 1
    assert stored.FILE in stored.problems(tmp_path)[0]
    with stored.reading(tmp_path) as db:
        if table == "summaries":
            assert stored.summary(db, b"key") is None       # never a summary that nobody wrote
        else:
            with pytest.raises(SnapshotCorrupt, match=r"clusters\.sqlite.*clusters build"):
                stored.load(db, "all", folder=tmp_path)
    with stored.building(tmp_path) as db:
        assert stored.names(db) == []
    assert stored.problems(tmp_path) == []


@pytest.mark.parametrize("keep", [0.1, 0.4, 0.7])
def test_a_file_cut_short_or_overwritten_is_told_by_name(tmp_path: Path, keep: float) -> None:
    saved(tmp_path)
    path = tmp_path / stored.FILE
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * keep)])
    assert stored.problems(tmp_path)
    path.write_bytes(b"no database at all, " * 40)
    assert "clusters.sqlite" in stored.problems(tmp_path)[0]
    with pytest.raises(SnapshotCorrupt), stored.reading(tmp_path):
        pass
    saved(tmp_path)
    assert read(tmp_path) is not None


def test_a_clustering_that_lost_a_cluster_is_no_clustering(tmp_path: Path) -> None:
    saved(tmp_path)
    with closing(sqlite3.connect(tmp_path / stored.FILE)) as db:
        db.execute("DELETE FROM clusters")
        db.commit()
    with pytest.raises(SnapshotCorrupt, match="0 of 1 clusters"):
        read(tmp_path)


def test_an_older_format_is_made_again_and_a_newer_one_is_left_alone(tmp_path: Path) -> None:
    saved(tmp_path)
    for version, hint in ((stored.FORMAT - 1, "clusters build"), (stored.FORMAT + 1, "update thriftrag")):
        with closing(sqlite3.connect(tmp_path / stored.FILE)) as db:
            db.execute(f"PRAGMA user_version={version}")
        with pytest.raises(SnapshotMismatch, match=f"format {version}.*{hint}"):
            read(tmp_path)
    with pytest.raises(SnapshotMismatch), stored.building(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / stored.FILE)) as db:
        db.execute(f"PRAGMA user_version={stored.FORMAT - 1}")
    saved(tmp_path)
    assert read(tmp_path) is not None


def test_two_builds_at_once_are_refused(tmp_path: Path) -> None:
    with stored.building(tmp_path), pytest.raises(Locked, match="builds clusters"), stored.building(tmp_path):
        pass


def test_a_transaction_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    saved(tmp_path)
    broken = made(summary="other")
    object.__setattr__(broken.clusters[0], "labels", ({"no": "json"}, {1}))
    with stored.building(tmp_path) as db, pytest.raises(TypeError):
        stored.save(db, broken)
    found = read(tmp_path)
    assert found is not None
    assert found.clusters[0].summary == "Most liked it."
