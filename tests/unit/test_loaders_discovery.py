"""Which files the given paths mean, and every reason why one is left out."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from indexers.loaders import Found, discover
from rag.settings import Settings
from rag.types import FileFailure, Skipped


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small tree, from inside its parent."""
    names = ("docs/b.md", "docs/a.txt", "docs/sub/c.txt", "docs/.hidden.txt", "docs/.git/config", "docs/~$a.docx", "outside.txt")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "docs"


def found(settings: Settings, *paths: str | Path) -> list[Found]:
    return [item for item in discover(paths, settings=settings) if isinstance(item, Found)]


def failures(settings: Settings, *paths: str | Path) -> list[FileFailure]:
    return [item for item in discover(paths, settings=settings) if isinstance(item, FileFailure)]


def test_a_folder_is_walked_in_sorted_order_without_hidden_files(docs: Path, settings: Settings) -> None:
    assert found(settings, "docs") == [Found(docs / "a.txt", "docs/a.txt", 10, named=False),
                                       Found(docs / "b.md", "docs/b.md", 9, named=False),
                                       Found(docs / "sub/c.txt", "docs/sub/c.txt", 14, named=False)]


def test_a_source_is_the_path_as_typed(docs: Path, settings: Settings) -> None:
    assert [item.source for item in found(settings, "docs/sub", docs / "a.txt")] == ["docs/sub/c.txt", str(docs / "a.txt")]


def test_a_hidden_file_can_be_named(docs: Path, settings: Settings) -> None:
    assert [item.source for item in found(settings, "docs/.hidden.txt")] == ["docs/.hidden.txt"]


def test_a_file_reached_twice_counts_once(docs: Path, settings: Settings) -> None:
    assert [item.source for item in found(settings, "docs/sub/c.txt", "docs", "docs/*.txt")] == [
        "docs/sub/c.txt", "docs/a.txt", "docs/b.md"]


def test_globs(docs: Path, settings: Settings) -> None:
    assert [item.source for item in found(settings, "docs/*.txt")] == ["docs/a.txt"]
    assert [item.source for item in found(settings, "docs/**/*.txt")] == ["docs/a.txt", "docs/sub/c.txt"]
    assert [item.source for item in found(settings, "doc?")] == ["docs/a.txt", "docs/b.md", "docs/sub/c.txt"]


def test_a_name_with_brackets_is_a_name_first(docs: Path, settings: Settings) -> None:
    (docs / "a[1].txt").write_text("x")
    assert [item.source for item in found(settings, "docs/a[1].txt")] == ["docs/a[1].txt"]


@pytest.mark.parametrize("path", ["docs/none.txt", "docs/*.pdf", "https://example.org/a.pdf", "", "a\0b", "\ud800"])
def test_what_is_not_there_is_a_failure(docs: Path, settings: Settings, path: str) -> None:
    [failure] = failures(settings, path)
    assert failure.code == "file_missing"
    assert failure.hint
    failure.message.encode()


def test_a_missing_path_does_not_hide_the_others(docs: Path, settings: Settings) -> None:
    assert [type(item) for item in discover(["none", "docs/a.txt"], settings=settings)] == [FileFailure, Found]


def test_links_inside_the_folder_are_followed_once_and_files_keep_their_names(docs: Path, settings: Settings) -> None:
    (docs / "0-alias.txt").symlink_to("sub/c.txt")
    (docs / "0-folder").symlink_to("sub")
    assert [item.source for item in found(settings, "docs")] == ["docs/a.txt", "docs/b.md", "docs/sub/c.txt"]
    assert failures(settings, "docs") == []


@pytest.mark.parametrize(("link", "target", "reason"), [
    ("out.txt", "../outside.txt", "leaves"), ("sub/up", "..", "loop"), ("out", "..", "leaves"), ("etc", "/etc", "leaves"),
    ("self", "self", "nowhere"), ("gone", "nothing-here", "nowhere")])
def test_links_out_of_the_folder_and_loops_are_refused(docs: Path, settings: Settings, link: str, target: str, reason: str) -> None:
    (docs / link).symlink_to(target)
    [failure] = failures(settings, "docs")
    assert failure.code == "link_refused"
    assert failure.source == f"docs/{link}"
    assert reason in failure.message
    assert len(found(settings, "docs")) == 3


def test_a_link_in_a_glob_may_not_leave_its_folder(docs: Path, settings: Settings) -> None:
    (docs / "out.txt").symlink_to("../outside.txt")
    assert [failure.code for failure in failures(settings, "docs/*.txt")] == ["link_refused"]


def test_a_link_that_the_user_names_is_followed(docs: Path, settings: Settings) -> None:
    (docs.parent / "current").symlink_to("docs")
    (docs.parent / "one.txt").symlink_to("docs/a.txt")
    assert found(settings, "current")[0] == Found(docs.parent / "current/a.txt", "current/a.txt", 10, named=False)
    assert found(settings, "one.txt")[0].path == docs.parent / "one.txt"


def test_pipes_sockets_and_devices_are_refused_unopened(docs: Path, settings: Settings) -> None:
    os.mkfifo(docs / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("docs/socket.txt")
        assert [(failure.source, failure.code) for failure in failures(settings, "docs", "/dev/null")] == [
            ("docs/pipe.txt", "file_unsupported"), ("docs/socket.txt", "file_unsupported"), ("/dev/null", "file_unsupported")]


def test_a_folder_that_cannot_be_read_is_told(docs: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: str | Path) -> object:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    [failure] = failures(settings, "docs")
    assert (failure.source, failure.code) == ("docs/sub", "file_unreadable")
    assert "Permission denied" in failure.message
    assert len(found(settings, "docs")) == 2


def test_a_name_that_is_not_utf8_can_be_stored_and_printed(docs: Path, settings: Settings) -> None:
    with open(os.fsencode(docs) + b"/\xff.txt", "wb") as stream:
        stream.write(b"x")
    [odd] = [item for item in found(settings, "docs") if "xff" in item.source]
    assert odd.source == "docs/\\xff.txt"
    assert odd.path.read_text() == "x"


def test_a_kind_that_is_not_read_is_skipped_in_a_folder_and_a_failure_where_it_is_named(docs: Path, settings: Settings) -> None:
    for name in ("logo.png", "old.DOC", "backup.tar.gz", "notes.txt.gz", "README"):
        (docs / name).write_bytes(b"x")
    items = list(discover(["docs"], settings=settings))
    skips = [item for item in items if isinstance(item, Skipped)]
    assert [(item.source, item.code) for item in skips] == [
        ("docs/backup.tar.gz", "file_skipped"), ("docs/logo.png", "file_skipped"), ("docs/old.DOC", "file_skipped")]
    assert "'.png'" in skips[1].message
    assert skips[1].hint
    assert [item.source for item in items if isinstance(item, Found)] == [
        "docs/README", "docs/a.txt", "docs/b.md", "docs/notes.txt.gz", "docs/sub/c.txt"]
    assert found(settings, docs / "logo.png") == [Found(docs / "logo.png", str(docs / "logo.png"), 1, named=True)]


def test_a_pattern_that_ends_in_an_extension_names_it(docs: Path, settings: Settings) -> None:
    (docs / "logo.png").write_bytes(b"x")
    assert found(settings, "docs/*.png") == [Found(docs / "logo.png", "docs/logo.png", 1, named=True)]
    assert [item.source for item in failures(settings, "docs/*")] == ["docs/logo.png"]
    assert isinstance(failures(settings, "docs/*.*")[0], Skipped)


def test_depth_is_no_limit(docs: Path, settings: Settings) -> None:
    deep = docs / "/".join(["d"] * 400)
    deep.mkdir(parents=True)
    (deep / "x.txt").write_text("deep")
    assert deep / "x.txt" in [item.path for item in found(settings, "docs")]
