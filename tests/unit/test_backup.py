"""Export and import of collections: what comes back is what went in, and nothing that is not."""

from __future__ import annotations

import json
import sqlite3
import threading
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from indexers import backup, restore
from rag.errors import InputError, Locked, RagError, SnapshotCorrupt, SnapshotMismatch, StorageError
from rag.settings import load
from rag.thriftrag import ThriftRAG, import_collection, list_collections
from rag.types import Progress
from tests.fakes import ScriptedReader, WordEncoder

QUERIES = ("otters", "herons in the reeds", "file number 3")


def open_kb(home: Path, name: str = "kb", *, encoder: WordEncoder | None = None) -> ThriftRAG:
    settings = load({"home": home, "batch_chunks": 2, "workers": 0}, environ={})
    return ThriftRAG.open(name, settings=settings, encoder=encoder or WordEncoder(), reader=ScriptedReader())


def lines(first: int, last: int) -> list[str]:
    return [json.dumps({"id": f"d{n}", "text": f"File number {n} speaks of otters. Herons stand in the reeds of pond {n}."})
            for n in range(first, last)]


@pytest.fixture
def kb(tmp_path: Path) -> ThriftRAG:
    made = open_kb(tmp_path / "home")
    made.ingest(lines=lines(0, 9))
    made.delete("d4")
    (made.folder / "settings.toml").write_text("budget_tokens = 99\n")
    return made


def found(kb: ThriftRAG) -> list[list[tuple[str, float]]]:
    return [[(hit.chunk.id, round(hit.score, 6)) for hit in kb.search(query, k=5)] for query in QUERIES]


def brought(archive: Path, home: Path, name: str | None = None, *, encoder: WordEncoder | None = None) -> ThriftRAG:
    settings = load({"home": home, "workers": 0}, environ={})
    done = import_collection(archive, name, settings=settings, encoder=encoder or WordEncoder())
    assert done is not None
    return open_kb(home, done[0], encoder=encoder)


def rewritten(archive: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of an archive whose members went through `change`."""
    with zipfile.ZipFile(archive) as source:
        members = {name: source.read(name) for name in source.namelist()}
    change(members)
    target = archive.with_name("changed.zip")
    with zipfile.ZipFile(target, "w") as written:
        for name, content in members.items():
            written.writestr(name, content)
    return target


def told(members: dict[str, bytes], **changes: object) -> None:
    members["manifest.json"] = json.dumps({**json.loads(members["manifest.json"]), **changes}).encode()


def nothing_was_made(home: Path) -> bool:
    root = home / "collections"
    return not root.exists() or [path.name for path in root.iterdir() if path.name != ".import.lock"] == []


def test_what_comes_back_is_what_went_in(kb: ThriftRAG, tmp_path: Path) -> None:
    ticks: list[Progress] = []
    manifest = kb.export(tmp_path / "kb.zip", on_progress=ticks.append)
    assert manifest is not None
    assert (manifest.documents, manifest.collection, manifest.encoder) == (8, "kb", "words@1")
    assert ticks[-1].done == ticks[-1].total
    assert (tmp_path / "kb.zip").stat().st_mode & 0o077 == 0
    copy = brought(tmp_path / "kb.zip", tmp_path / "elsewhere")
    assert found(copy) == found(kb)
    assert copy.verify() == []
    assert [row.id for row in copy.documents()] == [row.id for row in kb.documents()]
    assert copy.document("d3").text == kb.document("d3").text
    assert copy.settings.budget_tokens == 99
    # It goes on living: what is unchanged is known, what is new is added.
    report = copy.ingest(lines=lines(0, 11))
    assert report.added == 3
    assert copy.verify() == []


def test_a_copy_beside_the_original_has_an_identity_of_its_own(kb: ThriftRAG, tmp_path: Path) -> None:
    kb.export(tmp_path / "kb.zip")
    copy = brought(tmp_path / "kb.zip", tmp_path / "home", "copy")
    assert [info.name for info in list_collections(kb.settings)] == ["copy", "kb"]
    assert copy.info().snapshot != kb.info().snapshot
    copy.delete("d1")
    assert len(kb.documents()) == 8


def test_an_export_holds_one_state_while_others_write(kb: ThriftRAG, tmp_path: Path) -> None:
    """Documents come in tens, each ten in one transaction of its file: an export never holds a part of one."""
    folder = tmp_path / "docs"
    folder.mkdir()
    stop, failures = threading.Event(), list[BaseException]()

    def write() -> None:
        try:
            for number in range(30):
                if stop.is_set():
                    return
                other = open_kb(tmp_path / "home")
                if number % 5 == 4:
                    other.compact()
                else:
                    other.ingest(lines=[json.dumps({"id": f"new{number}-{n}", "text": f"Pond {number} has otter {n}."})
                                        for n in range(2)])
        except BaseException as error:  # told below
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    counts = []
    for number in range(5):
        kb.export(tmp_path / f"{number}.zip")
        copy = brought(tmp_path / f"{number}.zip", tmp_path / f"home{number}")
        assert copy.verify() == []
        counts.append(len(copy.documents()))
    stop.set()
    thread.join()
    assert failures == []
    assert counts == sorted(counts)
    assert all(count % 2 == 0 for count in counts)


def test_a_file_that_is_there_is_not_replaced_unasked(kb: ThriftRAG, tmp_path: Path) -> None:
    target = tmp_path / "kb.zip"
    target.write_text("mine")
    with pytest.raises(InputError) as refused:
        kb.export(target)
    assert refused.value.code == "file_exists"
    assert target.read_text() == "mine"
    kb.export(target, replace=True)
    assert zipfile.is_zipfile(target)
    with pytest.raises(InputError):
        kb.export(tmp_path, replace=True)


def test_a_cancelled_export_leaves_nothing(kb: ThriftRAG, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert kb.export(tmp_path / "out" / "kb.zip", cancelled=lambda: True) is None
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(StorageError):
        kb.export(tmp_path / "nowhere" / "kb.zip")


def test_a_cancelled_import_leaves_nothing(kb: ThriftRAG, tmp_path: Path) -> None:
    kb.export(tmp_path / "kb.zip")
    settings = load({"home": tmp_path / "other"}, environ={})
    assert import_collection(tmp_path / "kb.zip", settings=settings, encoder=WordEncoder(), cancelled=lambda: True) is None
    assert nothing_was_made(tmp_path / "other")


def test_damage_is_not_passed_on(kb: ThriftRAG, tmp_path: Path) -> None:
    vectors = next(kb.folder.glob("segments/*/vectors.npy"))
    content = bytearray(vectors.read_bytes())
    content[-1] ^= 1
    vectors.write_bytes(content)
    with pytest.raises(SnapshotCorrupt, match=r"vectors\.npy is damaged"):
        kb.export(tmp_path / "kb.zip")
    vectors.unlink()
    with pytest.raises(SnapshotCorrupt, match=r"vectors\.npy is missing"):
        kb.export(tmp_path / "kb.zip")
    assert not (tmp_path / "kb.zip").exists()


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/cron.d/x", "segments/../../x/y", "segments/a/../../../b",
                                  "store.sqlite-wal", "segments\\..\\x", "writer.lock", "segments/a/.hidden", "segments/C:/x"])
def test_a_member_that_no_collection_has_is_refused(kb: ThriftRAG, tmp_path: Path, name: str) -> None:
    kb.export(tmp_path / "kb.zip")

    def forge(members: dict[str, bytes]) -> None:
        members[name] = b"evil"
        files = json.loads(members["manifest.json"])["files"]
        # What zipfile makes of the name is what an archive can hold.
        files[zipfile.ZipInfo(name).filename] = {"bytes": 4, "sha256": restore.hashlib.sha256(b"evil").hexdigest()}
        told(members, files=files)

    with pytest.raises(SnapshotCorrupt) as refused:
        brought(rewritten(tmp_path / "kb.zip", forge), tmp_path / "other")
    assert refused.value.code == "backup_invalid"
    assert nothing_was_made(tmp_path / "other")
    assert not (tmp_path / "outside.txt").exists()


@pytest.mark.parametrize(("changes", "error", "code"), [
    ({"version": 2}, SnapshotMismatch, "backup_version"),
    ({"store_format": 1}, SnapshotMismatch, "backup_version"),
    ({"format": "tar"}, SnapshotCorrupt, "backup_invalid"),
    ({"files": {}}, SnapshotCorrupt, "backup_invalid"),
    ({"files": []}, SnapshotCorrupt, "backup_invalid"),
    ({"documents": "many"}, SnapshotCorrupt, "backup_invalid"),
    ({"encoder": "other@2"}, SnapshotMismatch, "snapshot_mismatch"),
    ({"dimension": 65}, SnapshotMismatch, "snapshot_mismatch"),
    ({"collection": "../kb"}, InputError, "input_invalid"),
])
def test_a_manifest_that_says_otherwise_is_refused(kb: ThriftRAG, tmp_path: Path, changes: dict[str, object],
                                                   error: type[RagError], code: str) -> None:
    kb.export(tmp_path / "kb.zip")
    with pytest.raises(error) as refused:
        brought(rewritten(tmp_path / "kb.zip", lambda members: told(members, **changes)), tmp_path / "other")
    assert refused.value.code == code
    assert nothing_was_made(tmp_path / "other")


def test_another_encoder_is_named(kb: ThriftRAG, tmp_path: Path) -> None:
    kb.export(tmp_path / "kb.zip")
    with pytest.raises(SnapshotMismatch) as refused:
        brought(tmp_path / "kb.zip", tmp_path / "other", encoder=WordEncoder("others@3"))
    assert "words@1 (64 dimensions)" in refused.value.message
    assert "others@3" in refused.value.message
    assert "THRIFTRAG_EMBEDDER" in refused.value.hint


def test_any_flipped_byte_is_found_or_changes_nothing(kb: ThriftRAG, tmp_path: Path) -> None:
    kb.export(tmp_path / "kb.zip")
    whole = (tmp_path / "kb.zip").read_bytes()
    places = sorted({*range(0, len(whole), len(whole) // 25), *range(2, 30, 9), *range(len(whole) - 30, len(whole), 9)})
    refused = 0
    for number, place in enumerate(places):
        flipped = bytearray(whole)
        flipped[place] ^= 0x5a
        archive = tmp_path / "flipped.zip"
        archive.write_bytes(flipped)
        home = tmp_path / f"other{number}"
        try:
            copy = brought(archive, home)
        except RagError:
            refused += 1
            assert nothing_was_made(home)
        else:       # a date or an attribute of a member: nothing that is read
            assert found(copy) == found(kb)
    assert refused > len(places) * 0.6


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_refused(kb: ThriftRAG, tmp_path: Path, share: float) -> None:
    kb.export(tmp_path / "kb.zip")
    whole = (tmp_path / "kb.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:int(len(whole) * share)])
    with pytest.raises(SnapshotCorrupt):
        brought(tmp_path / "cut.zip", tmp_path / "other")
    with pytest.raises(InputError):
        brought(tmp_path / "missing.zip", tmp_path / "other")


def test_a_store_with_more_than_ours_is_refused(kb: ThriftRAG, tmp_path: Path) -> None:
    """A trigger would run when somebody deletes a document."""
    kb.export(tmp_path / "kb.zip")

    def forge(members: dict[str, bytes]) -> None:
        path = tmp_path / "forged.sqlite"
        path.write_bytes(members["store.sqlite"])
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("CREATE TRIGGER t AFTER DELETE ON documents BEGIN DELETE FROM chunks; END")
        members["store.sqlite"] = path.read_bytes()
        files = json.loads(members["manifest.json"])["files"]
        files["store.sqlite"] = {"bytes": path.stat().st_size, "sha256": restore.hashlib.sha256(path.read_bytes()).hexdigest()}
        told(members, files=files)

    with pytest.raises(SnapshotCorrupt, match="other tables"):
        brought(rewritten(tmp_path / "kb.zip", forge), tmp_path / "other")


def test_a_member_may_not_unpack_to_more_than_it_says(kb: ThriftRAG, tmp_path: Path) -> None:
    kb.export(tmp_path / "kb.zip")

    def forge(members: dict[str, bytes]) -> None:
        files = json.loads(members["manifest.json"])["files"]
        files["settings.toml"]["bytes"] += 1_000_000_000_000
        told(members, files=files)

    with pytest.raises(SnapshotCorrupt, match="where the manifest says"):
        brought(rewritten(tmp_path / "kb.zip", forge), tmp_path / "other")


def test_a_disk_without_room_is_told_before_anything_is_written(kb: ThriftRAG, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    kb.export(tmp_path / "kb.zip")
    monkeypatch.setattr(restore.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(StorageError) as refused:
        brought(tmp_path / "kb.zip", tmp_path / "other")
    assert refused.value.code == "disk_full"


def test_a_name_that_is_taken_and_a_second_import_are_refused(kb: ThriftRAG, tmp_path: Path) -> None:
    kb.export(tmp_path / "kb.zip")
    with pytest.raises(InputError) as refused:
        brought(tmp_path / "kb.zip", tmp_path / "home")
    assert refused.value.code == "collection_exists"
    with restore._alone(tmp_path / "home" / "collections"), pytest.raises(Locked):
        brought(tmp_path / "kb.zip", tmp_path / "home", "copy")


def test_what_a_killed_import_left_is_removed(kb: ThriftRAG, tmp_path: Path) -> None:
    kb.export(tmp_path / "kb.zip")
    left = tmp_path / "home" / "collections" / ".import-0badcafe"
    left.mkdir()
    (left / "store.sqlite").write_bytes(b"half")
    brought(tmp_path / "kb.zip", tmp_path / "home", "copy")
    assert not left.exists()


def test_an_empty_collection_comes_back_empty(tmp_path: Path) -> None:
    kb = open_kb(tmp_path / "home")
    kb.ingest(lines=[])
    assert kb.export(tmp_path / "kb.zip") is not None
    copy = brought(tmp_path / "kb.zip", tmp_path / "other")
    assert copy.documents() == []
    assert copy.ingest(lines=lines(0, 2)).added == 2


def test_the_manifest_vouches_for_every_member(kb: ThriftRAG, tmp_path: Path) -> None:
    kb.export(tmp_path / "kb.zip")
    manifest = restore.manifest_of(tmp_path / "kb.zip")
    with zipfile.ZipFile(tmp_path / "kb.zip") as archive:
        assert set(archive.namelist()) == {*manifest.files, backup.MANIFEST}
        assert archive.testzip() is None
        for name, member in manifest.files.items():
            assert restore.hashlib.sha256(archive.read(name)).hexdigest() == member.sha256
