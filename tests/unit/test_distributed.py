"""What of distributed ingestion can be told without a cluster: addresses, shares, slices, and model files on their way."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from indexers.distributed import Node, connection, parsing
from indexers.distributed.connection import ClusterUnavailable, available_cpus, checked_address, connect
from indexers.distributed.models import Described, EncoderPlan, Receiver, parcel_of, plan_of, shipped_to
from indexers.distributed.placing import shares
from indexers.distributed.remote import _parsing, check_version, own_version, parse_bytes, without_secrets
from indexers.distributed.slices import SLICE_TOKENS, sliced
from indexers.encoders.openvino import PRECISIONS, OpenVinoEncoder, batches
from indexers.loaders import Found, discover
from indexers.loaders import load as load_file
from rag.errors import ConfigError, ModelCorrupt, ModelUnavailable
from rag.models import ModelCache
from rag.models.manifest import check
from rag.settings import Settings, load
from rag.types import FileFailure
from tests.conftest import SAMPLE
from tests.tiny_models import make_bert


@pytest.mark.parametrize("address", ["local", "auto", "head:6379", "10.1.2.3:6379", "ray://head:10001", "[::1]:6379", " auto "])
def test_addresses_that_are_possible(address: str) -> None:
    assert checked_address(address) == address.strip()


@pytest.mark.parametrize("address", ["", "head", "head:", ":6379", "http://head:8265", "head:port", "ray://head", "head:6379/x"])
def test_addresses_that_are_not(address: str) -> None:
    with pytest.raises(ConfigError, match="no address") as caught:
        checked_address(address)
    assert caught.value.field == "ray_address"
    assert "HOST:PORT" in caught.value.hint


def test_without_ray_the_extra_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="needs Ray") as caught, connect(dataclasses.replace(settings, ray_address="local")):
        pass
    assert caught.value.code == "extra_missing"
    assert "thriftrag[ray]" in caught.value.hint


def test_nothing_listens_at_the_address(settings: Settings) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"      # bound, but not listening: refused
        with pytest.raises(ClusterUnavailable, match="Nothing answers") as caught, \
                connect(dataclasses.replace(settings, ray_address=address)):
            pass
    assert address in caught.value.message
    assert caught.value.code == "cluster_unavailable"


def test_a_listener_that_says_nothing_is_given_up(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"ray://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterUnavailable, match=r"does not answer within 0\.5 s"), \
                connect(dataclasses.replace(settings, ray_address=address), answer_s=0.5):
            pass


def test_variables_for_ray_do_not_stay_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SET_ONE", "mine")
    with connection._environment(A_SET_ONE="ours", A_NEW_ONE="1"):
        assert (os.environ["A_SET_ONE"], os.environ["A_NEW_ONE"]) == ("mine", "1")
    assert os.environ["A_SET_ONE"] == "mine"
    assert "A_NEW_ONE" not in os.environ


def test_processors_are_those_that_may_be_used() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("cpus", "count", "each", "threads"), [
    (1, 1, 0.5, 1), (2, 1, 1.5, 2), (4, 1, 3.5, 4), (8, 2, 3.75, 4), (64, 16, 3.96, 4), (0.5, 1, 0.25, 1)])
def test_a_node_is_divided_between_encoders_and_parsing(cpus: float, count: int, each: float, threads: int) -> None:
    found = shares(Node("n", "host", cpus), gpu=False, threads=0)
    assert [(share.cpus, share.gpus, share.threads) for share in found] == [(each, 0, threads)] * count
    assert sum(share.cpus for share in found) <= cpus - min(0.5, cpus / 2) + 1e-9     # the rest is for parsing


def test_graphics_processors_count_only_for_encoders_that_use_them() -> None:
    node = Node("n", "host", 16, gpus=2)
    assert [(share.gpus, share.cpus) for share in shares(node, gpu=True, threads=0)] == [(1, 7.75), (1, 7.75)]
    assert all(share.gpus == 0 for share in shares(node, gpu=False, threads=0))
    assert shares(Node("n", "host", 8), gpu=True, threads=3)[0].threads == 3


@pytest.mark.parametrize("actors", [1, 2, 7, 1000])
@pytest.mark.parametrize("count", [0, 1, 5, 700])
def test_slices_are_whole_batches_of_the_encoder(actors: int, count: int) -> None:
    rng = np.random.default_rng(count + actors)
    lengths = [int(length) for length in rng.integers(3, 257, count)]
    texts = [f"text {i}" for i in range(count)]
    slices = sliced(texts, lengths=lengths, actors=actors)
    assert sorted(position for piece in slices for position in piece.positions) == list(range(count))
    assert all(piece.texts == tuple(texts[i] for i in piece.positions) for piece in slices)
    # What an actor makes of its slice are batches that one machine would have made of all.
    own = [[piece.positions[i] for i in batch] for piece in slices for batch in batches([lengths[p] for p in piece.positions])]
    assert own == batches(lengths)
    assert all(sum(lengths[p] for p in piece.positions) < SLICE_TOKENS + 1280 for piece in slices)


def test_small_neighbours_share_a_task_and_are_taken_no_sooner_than_needed() -> None:
    sizes = [100] * 20 + [parsing.TASK_BYTES - 50, 100, parsing.TASK_BYTES * 3, 1]
    files = [Found(Path(f"/{i}"), str(i), size) for i, size in enumerate(sizes)]
    given = iter(files)
    groups = parsing._grouped(given)
    assert [found.size for found in next(groups)] == [100] * parsing.TASK_FILES
    assert next(given) is files[parsing.TASK_FILES + 1]     # one was looked at, no more were taken
    assert [[found.size for found in group] for group in groups] == [
        [100, 100, 100], [parsing.TASK_BYTES - 50], [100], [parsing.TASK_BYTES * 3], [1]]
    assert list(parsing._grouped([])) == []


def test_another_version_on_a_node_is_refused() -> None:
    check_version(own_version())
    with pytest.raises(ConfigError, match=r"the driver has 0\.0\.0-other"):
        check_version("0.0.0-other")


def test_secrets_stay_at_home() -> None:
    settings = load({"reader_api_key": "sk-1", "qdrant_api_key": "q-1", "chunk_tokens": 99}, environ={})
    travels = without_secrets(settings)
    assert (travels.reader_api_key, travels.qdrant_api_key, travels.chunk_tokens) == ("", "", 99)
    assert "sk-1" not in repr(dataclasses.asdict(travels))


@pytest.mark.parametrize("workers", [0, 1])
def test_bytes_that_were_sent_become_what_the_file_would(settings: Settings, tmp_path: Path, workers: int) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(SAMPLE / "files", docs)
    (docs / "records.jsonl").write_text('{"id": "mine", "text": "One."}\n{"text": "Two."}\n{broken\n', encoding="utf-8")
    (docs / "named \udce9.txt").write_text("A name that is no UTF-8.", encoding="utf-8")
    (docs / "empty.md").write_bytes(b"")
    (docs / "script.py").write_text("def glow():\n    return 1\n", encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "docs" / "all.zip", "w") as archive:
        archive.writestr("inner/guide.md", "# Guide\n\nOtters swim.")
        archive.writestr("records.jsonl", '{"text": "Three."}\n')
    limits = dataclasses.replace(settings, workers=workers)
    files = [found for found in discover([docs], settings=limits) if isinstance(found, Found)]
    assert len(files) == 10
    documents = 0
    for found in files:
        own = list(load_file(found, settings=limits))
        assert list(parse_bytes(found, found.path.read_bytes(), settings=limits)) == own
        documents += sum(not isinstance(item, FileFailure) for item in own)
    assert documents == 11                              # one a file but for records and the zip, two each, and the empty one
    _parsing.cache_clear()


@pytest.fixture
def driver(tmp_path: Path) -> Settings:
    """A driver with a model of the user's own, a BERT that was converted once into its cache."""
    make_bert(tmp_path / "source" / "tiny")
    return load({"home": tmp_path / "home", "models": tmp_path / "driver", "embedder": str(tmp_path / "source" / "tiny"),
                 "precision": "f32"}, environ={})


@pytest.fixture
def plan(driver: Settings, tmp_path: Path) -> EncoderPlan:
    return plan_of(driver, node_models=tmp_path / "node")


def test_the_driver_knows_the_encoder_without_its_model(plan: EncoderPlan) -> None:
    assert plan.folder is not None
    real, known = OpenVinoEncoder(plan.folder, precision="f32"), plan.local()
    assert isinstance(known, Described)
    assert (known.name, known.dimension, known.max_tokens) == (real.name, real.dimension, real.max_tokens)
    assert known.count(["the years", ""]) == real.count(["the years", ""])
    assert known.offsets("the two years") == real.offsets("the two years")


def test_a_plan_carries_what_was_chosen_and_no_more(settings: Settings, model_cache: ModelCache) -> None:
    chosen = plan_of(dataclasses.replace(settings, models=model_cache.root))
    assert (chosen.models, chosen.registered, chosen.shipped) == (model_cache.root, True, "")
    assert chosen.precision in PRECISIONS[1:]           # never auto: all nodes compute alike
    by_default = dataclasses.replace(settings, models=model_cache.root, origin={})
    assert plan_of(by_default).models is None           # each node has a default of its own
    with pytest.raises(ModelUnavailable):
        plan_of(settings)                               # the driver's cache is empty


def send(plan: EncoderPlan, *, spoil: str = "") -> None:
    parcel = plan.parcel()
    assert parcel is not None
    receiver = plan.receiver(parcel)
    if receiver.begin() == "wanted":
        for file, piece in parcel.pieces():
            receiver.write(file, b"\0" * len(piece) if file == spoil else piece)
        receiver.finish()


def test_a_bare_node_opens_what_was_sent(plan: EncoderPlan, tmp_path: Path) -> None:
    (tmp_path / "source").rename(tmp_path / "gone")     # the node has no disk in common with the driver
    with pytest.raises(ModelUnavailable, match="not on this node"):
        plan.open(threads=1)
    send(plan)
    folder = tmp_path / "node" / plan.shipped
    assert check(folder, sources=None, deep=True) == []
    assert plan.folder is not None
    sent, real = plan.open(threads=1), OpenVinoEncoder(plan.folder, precision="f32")
    assert sent.name == real.name
    assert np.array_equal(sent.encode(["the two years"]), real.encode(["the two years"]))
    assert not list((tmp_path / "node" / ".staging").iterdir())


def test_what_came_damaged_is_not_kept(plan: EncoderPlan, tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match=r"openvino_model\.bin .* wrong checksum"):
        send(plan, spoil="openvino_model.bin")
    assert not (tmp_path / "node" / plan.shipped).exists()
    assert not list((tmp_path / "node" / ".staging").iterdir())
    send(plan)                                          # and the lock is free again
    assert (tmp_path / "node" / plan.shipped).is_dir()


def test_what_is_there_is_not_sent_again_and_what_is_damaged_is(plan: EncoderPlan, tmp_path: Path) -> None:
    parcel = plan.parcel()
    assert parcel is not None
    send(plan)
    assert plan.receiver(parcel).begin() == "there"
    weights = tmp_path / "node" / plan.shipped / "openvino_model.bin"
    weights.write_bytes(bytes(byte ^ 1 for byte in weights.read_bytes()))
    send(plan)
    assert check(tmp_path / "node" / plan.shipped, sources=None, deep=True) == []


def test_a_registry_model_goes_where_a_pull_would_put_it(settings: Settings, model_cache: ModelCache, tmp_path: Path) -> None:
    plan = plan_of(dataclasses.replace(settings, models=model_cache.root), node_models=tmp_path / "node")
    with pytest.raises(ModelUnavailable, match="is not in"):
        plan.open(threads=1)
    send(plan)
    node = ModelCache(tmp_path / "node")
    assert node.state("all-minilm-l6-v2") == "ready"
    assert node.verify("all-minilm-l6-v2") == []


def test_an_ir_folder_without_manifest_is_sent_with_what_describes_it(plan: EncoderPlan, tmp_path: Path) -> None:
    assert plan.folder is not None
    own = tmp_path / "own-encoder"
    plan.folder.rename(own)
    (own / "manifest.json").unlink()
    parcel = parcel_of(own, registered=False)
    assert set(parcel.files) == {"openvino_model.xml", "openvino_model.bin", "config.json", "tokenizer.json"}
    assert parcel.size == sum((own / file).stat().st_size for file in parcel.files)
    receiver = Receiver(parcel, ModelCache(tmp_path / "node"))
    assert receiver.begin() == "wanted"
    assert Receiver(parcel, ModelCache(tmp_path / "node")).begin() == "busy"
    for file, piece in parcel.pieces():
        receiver.write(file, piece)
    receiver.finish()
    assert {path.name for path in (tmp_path / "node" / shipped_to(parcel)).iterdir()} == {*parcel.files, "manifest.json"}
