"""The embedder that ships, and the sentence-transformers backend, against what sentence-transformers itself computes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from indexers.encoders import Encoder, Vectors, open_encoder
from indexers.encoders.bert import convert_bert
from indexers.encoders.openvino import OpenVinoEncoder
from indexers.encoders.sentence_transformers import SentenceTransformersEncoder
from rag.errors import ConfigError, ModelUnavailable
from rag.models import ModelCache
from rag.types import no_progress
from tests.minilm_texts import minilm_texts
from tests.tiny_models import WIDTH, make_bert

TEXTS = ["the warranty lasts two years.", "", "a", "the " * 60, "wärranty, ½ 🙂 量子", "years two lasts, the?", "\ud83d x"]


@pytest.fixture(scope="module")
def minilm(model_cache: ModelCache) -> Encoder:
    return open_encoder("all-minilm-l6-v2", cache=model_cache, precision="f32")


def cosines(ours: Vectors, theirs: Vectors) -> np.ndarray:
    return (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)


@pytest.mark.parametrize(("precision", "least"), [("f32", 0.9999), ("bf16", 0.999)])
def test_minilm_agrees_with_sentence_transformers(model_cache: ModelCache, precision: str, least: float) -> None:
    published = np.load(Path(__file__).parents[1] / "golden" / "minilm_vectors.npy").astype(np.float32)
    ours = open_encoder("all-minilm-l6-v2", cache=model_cache, precision=precision).encode(minilm_texts())
    assert len(ours) == 64
    assert cosines(ours, published).min() >= least
    shifted = cosines(ours, np.roll(published, 1, axis=0))
    assert np.median(shifted) < 0.6                     # or the threshold would say nothing


def test_eight_bits_keep_what_is_near_and_what_is_far(model_cache: ModelCache, minilm: Encoder) -> None:
    eight = open_encoder("all-minilm-l6-v2", cache=model_cache, precision="int8")
    assert isinstance(eight, OpenVinoEncoder)
    assert (eight.precision, eight.name) == ("int8", minilm.name)
    exact, rounded = minilm.encode(minilm_texts()), eight.encode(minilm_texts())
    found = cosines(rounded, exact)
    assert found.min() > 0.97
    assert found.mean() > 0.994
    assert np.abs(rounded @ rounded.T - exact @ exact.T).mean() < 0.01
    assert np.abs(rounded - exact).max() > 1e-3         # or it was not 8 bits that computed


def test_minilm_is_what_the_registry_says(minilm: Encoder) -> None:
    assert minilm.name == "all-minilm-l6-v2@53aa5117"
    assert (minilm.dimension, minilm.max_tokens) == (384, 256)


def test_minilm_counts_and_cuts_at_256_tokens(minilm: Encoder) -> None:
    assert minilm.count(["", "the " * 254, "the " * 1000]) == [2, 256, 1002]
    whole, more, less = minilm.encode(["the " * 254, "the " * 1000, "the " * 253])
    assert np.allclose(whole, more, atol=1e-6)
    assert not np.allclose(whole, less, atol=1e-4)


def test_minilm_finds_the_passage_that_answers(minilm: Encoder) -> None:
    passages = minilm.encode(["The warranty lasts two years from purchase.", "Returns are free within 30 days.",
                              "The battery charges in ninety minutes."])
    [question] = minilm.encode(["How long am I covered if the device breaks?"])
    assert int(np.argmax(passages @ question)) == 0


@pytest.mark.parametrize("options", [
    {}, {"normalise": False}, {"pooling": "cls_token"}, {"activation": "gelu_new"}, {"prefix": "bert."}])
def test_both_backends_agree_on_any_bert(tmp_path: Path, options: dict[str, object]) -> None:
    source = make_bert(tmp_path / "source", **options)  # type: ignore[arg-type]
    (tmp_path / "out").mkdir()
    convert_bert(source, tmp_path / "out", name="source", on_progress=no_progress)
    ours = OpenVinoEncoder(tmp_path / "out", precision="f32")
    theirs = SentenceTransformersEncoder(str(source), name="source", precision="f32")
    assert cosines(ours.encode(TEXTS), theirs.encode(TEXTS)).min() > 0.9999
    assert (theirs.name, theirs.dimension, theirs.max_tokens) == (ours.name, WIDTH, 24)
    assert theirs.count(TEXTS) == ours.count(TEXTS)
    assert [theirs.offsets(text) for text in TEXTS] == [ours.offsets(text) for text in TEXTS]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformersEncoder:
    """By the sentence-transformers backend, through the factory: a module that we do not build."""
    root = tmp_path_factory.mktemp("other")
    source = make_bert(root / "source")
    pooling = source / "1_Pooling" / "config.json"
    modes = {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | modes))
    encoder = open_encoder(str(source), cache=ModelCache(root / "cache"), precision="f32")
    assert isinstance(encoder, SentenceTransformersEncoder)
    return encoder


def test_the_library_backend_keeps_the_contract(other: SentenceTransformersEncoder) -> None:
    assert other.encode([]).shape == (0, WIDTH)
    heard: list[int] = []
    many = [f"{'two ' * (at % 9)}{chr(97 + at % 26)}" for at in range(600)]
    vectors = other.encode(many, on_batch=heard.append)
    assert heard == [512, 600]
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[[5, 599]], other.encode([many[5], many[599]]), atol=1e-5)


def test_bf16_keeps_the_name(tmp_path: Path, other: SentenceTransformersEncoder) -> None:
    source = make_bert(tmp_path / "source")
    full = SentenceTransformersEncoder(str(source), name="source", precision="f32")
    half = SentenceTransformersEncoder(str(source), name="source", precision="bf16")
    assert half.name == full.name
    assert cosines(half.encode(TEXTS[:1]), full.encode(TEXTS[:1])).min() > 0.99


def test_a_batch_that_does_not_fit_is_halved_and_at_last_computed_on_the_cpu(
        other: SentenceTransformersEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.cuda import OutOfMemoryError

    tried: list[tuple[str, int]] = []
    encode, place = other._model.encode, ["cuda"]

    def small(texts: list[str], *, batch_size: int, **options: object) -> object:
        tried.append((place[0], batch_size))
        if place[0] == "cuda":
            raise OutOfMemoryError("no room")
        return encode(texts, batch_size=batch_size, **options)

    monkeypatch.setattr(other._model, "encode", small)
    monkeypatch.setattr(other._model, "to", lambda device: place.__setitem__(0, device))
    assert other.encode(TEXTS).shape == (len(TEXTS), WIDTH)
    assert tried == [("cuda", 32), ("cuda", 16), ("cuda", 8), ("cuda", 4), ("cuda", 2), ("cuda", 1), ("cpu", 32)]


def test_a_folder_without_weights_is_refused_by_name(tmp_path: Path) -> None:
    source = make_bert(tmp_path / "source")
    (source / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=str(source)):
        open_encoder(str(source), cache=ModelCache(tmp_path / "cache"))


def test_a_hub_that_is_not_there_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"nobody/nothing is no folder.*127\.0\.0\.1:9"):
        open_encoder("nobody/nothing", cache=ModelCache(tmp_path / "cache"))
    assert time.monotonic() - start < 20


def test_without_the_extra_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    source = make_bert(tmp_path / "source")
    with pytest.raises(ConfigError, match="not installed") as caught:
        SentenceTransformersEncoder(str(source), name="source")
    assert "pip install 'thriftrag[torch]'" in caught.value.hint


def test_readers_and_unknown_names_are_no_encoders(model_cache: ModelCache) -> None:
    with pytest.raises(ConfigError, match="role reader"):
        open_encoder("qwen2.5-coder-0.5b-instruct", cache=model_cache)
    with pytest.raises(ConfigError) as caught:
        open_encoder("all-minilm-l6", cache=model_cache)
    assert "'all-minilm-l6-v2'" in caught.value.hint
