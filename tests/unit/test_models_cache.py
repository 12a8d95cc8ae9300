"""The cache: states, verification, repair, and what a user's own names lead to."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from indexers.encoders import open_encoder
from indexers.encoders.openvino import OpenVinoEncoder
from rag.errors import ConfigError, ModelCorrupt, ModelUnavailable, StorageError
from rag.models import ModelCache, resolve
from rag.models.files import append_checked, require_space
from rag.types import OnProgress, Progress
from tests.hub_server import Hub
from tests.tiny_models import (
    BLOB,
    LARGE,
    NAME,
    SMALL,
    bert_entry,
    blob_cache,
    blob_entry,
    make_bert,
)

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    """With the blob pulled."""
    ready = blob_cache(tmp_path / "cache", blob_entry())
    pull(ready)
    return ready


def pull(cache: ModelCache) -> str:
    with Hub({"small.json": SMALL, "sub/large.bin": LARGE}) as hub:
        return cache.pull(BLOB, source="hub", hub_url=hub.url).source


def flip_byte(path: Path, *, at: int = 1000, keep_time: bool) -> None:
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# --- states ----------------------------------------------------------------------------------------------------------


def test_a_model_is_missing_then_ready(tmp_path: Path) -> None:
    cache = blob_cache(tmp_path, blob_entry())
    assert cache.state(BLOB) == "missing"
    assert cache.installed_bytes(BLOB) == 0
    with pytest.raises(ModelUnavailable, match="blob") as caught:
        cache.path(BLOB)
    assert caught.value.hint == "Run `thriftrag models pull blob`."
    with pytest.raises(ModelUnavailable):
        cache.verify(BLOB)
    assert pull(cache) == "hub"
    assert cache.state(BLOB) == "ready"
    assert cache.installed_bytes(BLOB) == len(SMALL) + len(LARGE)
    assert cache.path(BLOB) == tmp_path / BLOB
    assert cache.verify(BLOB) == []
    assert pull(cache) == "cache"
    assert [entry.name for entry in cache.entries()] == [BLOB]


@pytest.mark.parametrize("method", ["state", "path", "verify", "pull", "installed_bytes"])
def test_every_question_about_an_unknown_model_names_it(cache: ModelCache, method: str) -> None:
    with pytest.raises(ConfigError, match="'blub'") as caught:
        getattr(cache, method)("blub")
    assert "'blob'" in caught.value.hint


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_is_found_even_if_the_time_did_not_change(cache: ModelCache) -> None:
    large = cache.path(BLOB) / "sub" / "large.bin"
    flip_byte(large, keep_time=True)
    assert cache.state(BLOB) == "ready"                 # what looks untouched is not read at every start
    [problem] = cache.verify(BLOB)
    assert problem.file == "sub/large.bin"
    assert problem.expected == f"sha256 {cache.registry[BLOB].files[1].sha256}"
    assert problem.found.startswith("sha256 ")
    assert problem.found != problem.expected
    assert str(problem) == f"sub/large.bin: expected {problem.expected}, found {problem.found}"
    assert pull(cache) == "hub"                         # a pull reads everything, and repairs
    assert cache.verify(BLOB) == []


def test_a_flipped_byte_with_a_new_time_is_found_on_opening(cache: ModelCache) -> None:
    flip_byte(cache.path(BLOB) / "sub" / "large.bin", keep_time=False)
    assert cache.state(BLOB) == "corrupt"
    with pytest.raises(ModelCorrupt, match=r"sub/large\.bin: expected sha256 \w+, found sha256 \w+") as caught:
        cache.path(BLOB)
    assert "thriftrag models pull blob" in caught.value.hint


def test_a_copied_cache_is_checked_once_and_then_trusted(cache: ModelCache, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    copied = blob_cache(tmp_path / "copy", blob_entry())
    shutil.copytree(cache.root, copied.root, copy_function=shutil.copyfile)
    assert copied.path(BLOB) == tmp_path / "copy" / BLOB
    monkeypatch.setattr("rag.models.manifest.sha256_of", lambda path: pytest.fail(f"{path} was read again"))
    assert copied.state(BLOB) == "ready"


@pytest.mark.parametrize(("damage", "file", "found"), [
    (lambda folder: (folder / "small.json").unlink(), "small.json", "No such file"),
    (lambda folder: os.truncate(folder / "sub" / "large.bin", 5), "sub/large.bin", "5 bytes"),
    (lambda folder: (folder / "manifest.json").unlink(), "manifest.json", "nothing"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json", "JSONDecodeError"),
    (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json", "TypeError"),
    (lambda folder: (folder / "manifest.json").write_text('{"format": 9}'), "manifest.json", "format 9")])
def test_damage_is_named_refused_and_repaired(cache: ModelCache, damage: object, file: str, found: str) -> None:
    damage(cache.path(BLOB))                            # type: ignore[operator]
    assert cache.state(BLOB) == "corrupt"
    [problem] = cache.verify(BLOB)
    assert problem.file == file
    assert found in problem.found
    with pytest.raises(ModelCorrupt, match=file):
        cache.path(BLOB)
    assert pull(cache) == "hub"
    assert cache.state(BLOB) == "ready"


def test_a_model_made_from_other_weights_than_the_registry_now_names_is_refused(cache: ModelCache) -> None:
    entry = cache.registry[BLOB]
    files = (entry.files[0], dataclasses.replace(entry.files[1], sha256="0" * 64))
    newer = ModelCache(cache.root, registry={BLOB: dataclasses.replace(entry, files=files)})
    [problem] = newer.verify(BLOB)
    assert problem.file == "source sub/large.bin"
    assert problem.expected == "sha256 " + "0" * 64
    assert newer.state(BLOB) == "corrupt"


def test_a_tokenizer_that_is_not_the_registrys_is_found_even_if_the_manifest_agrees(tmp_path: Path) -> None:
    source = make_bert(tmp_path / "source")
    cache = ModelCache(tmp_path / "cache", registry={NAME: bert_entry(source)})
    files = {file.path: (source / file.path).read_bytes() for file in bert_entry(source).files}
    with Hub(files) as hub:
        folder = cache.pull(NAME, source="hub", hub_url=hub.url).path
    from rag.models.manifest import seal

    (folder / "tokenizer.json").write_text("{}")
    seal(folder, name=NAME, role="embedder", sources=bert_entry(source).sources)
    assert [problem.file for problem in cache.verify(NAME)] == ["tokenizer.json"]


def test_a_ready_model_on_a_read_only_disk_can_be_pulled(cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.models.cache.make_folder", lambda path: pytest.fail(f"{path} was written to"))
    assert cache.pull(BLOB, source="hub", hub_url=NOBODY).source == "cache"


# --- files -----------------------------------------------------------------------------------------------------------


def test_bytes_beyond_the_size_are_refused_without_being_written(tmp_path: Path) -> None:
    written: list[int] = []
    part = tmp_path / "x.part"
    with pytest.raises(ModelCorrupt, match="more than 10 bytes"):
        append_checked(part, tmp_path / "x", pieces=iter([b"12345678", b"12345678"]), size=10, sha256="0" * 64,
                       on_bytes=written.append)
    assert written == [8]
    assert not part.exists()
    assert not (tmp_path / "x").exists()


def test_space_is_compared_with_what_is_needed(tmp_path: Path) -> None:
    require_space(tmp_path, needed=1)
    with pytest.raises(StorageError, match="1,000,000,000,000,000 are needed"):
        require_space(tmp_path, needed=10**15)


# --- names that are not in the registry ------------------------------------------------------------------------------


def count_conversions(calls: list[str]) -> object:
    def convert(source: Path, out: Path, name: str, on_progress: OnProgress) -> None:
        calls.append(name)
        on_progress(Progress("convert", 0))
        (out / "openvino_model.xml").write_bytes(source.read_bytes())

    return convert


def test_a_registry_name_leads_to_its_folder(cache: ModelCache) -> None:
    found = resolve(BLOB, cache=cache, role="embedder")
    assert (found.name, found.location, found.backend) == (BLOB, str(cache.root / BLOB), "openvino")
    with pytest.raises(ConfigError, match="role embedder, not reader"):
        resolve(BLOB, cache=cache, role="reader")


def test_a_gguf_file_is_converted_once_and_again_when_it_changes(tmp_path: Path) -> None:
    calls: list[str] = []
    cache = blob_cache(tmp_path / "cache", blob_entry(), count_conversions(calls))    # type: ignore[arg-type]
    gguf = tmp_path / "Own Model.gguf"
    gguf.write_bytes(b"one")
    first = resolve(str(gguf), cache=cache, role="reader")
    assert resolve(str(gguf), cache=cache, role="reader") == first
    assert (Path(first.location) / "openvino_model.xml").read_bytes() == b"one"
    assert first.name == "Own Model"
    gguf.write_bytes(b"three")
    second = resolve(str(gguf), cache=cache, role="reader")
    assert second.location != first.location
    assert (Path(second.location) / "openvino_model.xml").read_bytes() == b"three"
    assert calls == ["Own Model", "Own Model"]
    upper = gguf.rename(tmp_path / "OWN.GGUF")
    assert resolve(str(upper), cache=cache, role="reader").name == "OWN"
    assert not list((cache.root / ".staging").iterdir())


def test_a_converted_file_that_was_damaged_is_refused(tmp_path: Path) -> None:
    cache = blob_cache(tmp_path / "cache", blob_entry(), count_conversions([]))       # type: ignore[arg-type]
    gguf = tmp_path / "own.gguf"
    gguf.write_bytes(b"one")
    folder = Path(resolve(str(gguf), cache=cache, role="reader").location)
    (folder / "openvino_model.xml").write_bytes(b"two")
    with pytest.raises(ModelCorrupt, match=r"openvino_model\.xml") as caught:
        resolve(str(gguf), cache=cache, role="reader")
    assert "Delete that folder" in caught.value.hint


def test_an_openvino_folder_is_taken_as_it_is(tmp_path: Path, cache: ModelCache) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "openvino_model.xml").write_text("<net/>")
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        resolve(str(folder), cache=cache, role="reader")
    (folder / "tokenizer.json").write_text("{}")
    assert resolve(str(folder), cache=cache, role="reader").location == str(folder)


@pytest.mark.parametrize(("name", "role", "why"), [
    ("blab", "embedder", "no model, file or folder named 'blab'"), ("nobody/nothing", "reader", "no model, file or folder"),
    ("EMPTY", "embedder", "no model that can be used"), ("EMPTY", "reader", "no model that can be used"),
    ("own.gguf", "embedder", "GGUF"), ("notes.txt", "reader", "no model that can be used")])
def test_names_that_lead_nowhere_say_so(tmp_path: Path, cache: ModelCache, monkeypatch: pytest.MonkeyPatch, name: str,
                                        role: str, why: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "own.gguf").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=why) as caught:
        resolve(name, cache=cache, role=role)           # type: ignore[arg-type]
    assert caught.value.hint


def test_a_hub_id_is_left_to_the_library(cache: ModelCache) -> None:
    found = resolve("intfloat/e5-small-v2", cache=cache, role="embedder")
    assert (found.location, found.backend) == ("intfloat/e5-small-v2", "sentence-transformers")


def test_a_bert_folder_is_converted_once_and_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_bert(tmp_path / "My BERT")
    cache = ModelCache(tmp_path / "cache", registry={})
    encoder = open_encoder(str(source), cache=cache, precision="f32")
    assert isinstance(encoder, OpenVinoEncoder)
    assert encoder.name.startswith("My BERT@")
    first = encoder.encode(["the warranty"])
    monkeypatch.setattr("indexers.encoders.bert.convert_bert", lambda *_, **__: pytest.fail("it was converted again"))
    assert (open_encoder(str(source), cache=cache, precision="f32").encode(["the warranty"]) == first).all()
    monkeypatch.undo()
    (source / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    other = open_encoder(str(source), cache=cache, precision="f32")
    assert abs(other.encode(["the warranty"]) - first).max() > 1e-3


def test_another_architecture_goes_to_the_library(tmp_path: Path, cache: ModelCache) -> None:
    source = make_bert(tmp_path / "roberta")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"model_type": "roberta"}))
    assert resolve(str(source), cache=cache, role="embedder").backend == "sentence-transformers"


def test_forgotten_checksums_are_computed_again(tmp_path: Path) -> None:
    calls: list[str] = []
    cache = blob_cache(tmp_path / "cache", blob_entry(), count_conversions(calls))    # type: ignore[arg-type]
    gguf = tmp_path / "own.gguf"
    gguf.write_bytes(b"one")
    first = resolve(str(gguf), cache=cache, role="reader")
    for broken in ("{", "[]"):
        (cache.root / "imported" / "checksums.json").write_text(broken)
        assert resolve(str(gguf), cache=cache, role="reader") == first
    assert len(calls) == 1
