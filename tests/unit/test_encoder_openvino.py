"""The OpenVINO encoder on a tiny BERT: order, batching, truncation, empty input, threads, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexers.encoders.bert import convert_bert, why_not
from indexers.encoders.openvino import BATCH_ROWS, BATCH_TOKENS, OpenVinoEncoder, batches, padded_length, precision_of
from rag.errors import ConfigError, ModelCorrupt
from rag.models.runtime import core, import_openvino
from rag.types import no_progress
from tests.tiny_models import WIDTH, make_bert

TEXTS = ["the warranty lasts two years.", "", "a", "the " * 60, "wärranty, ½ 🙂 量子", "years two lasts warranty the?",
         "\x00\ud83d x"]


def convert(source: Path, out: Path) -> Path:
    out.mkdir()
    convert_bert(source, out, name="tiny", on_progress=no_progress)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("encoder")
    return convert(make_bert(root / "source"), root / "converted")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> OpenVinoEncoder:
    return OpenVinoEncoder(folder, precision="f32")


def test_vectors_are_unit_and_one_per_text(encoder: OpenVinoEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), WIDTH)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_results_come_in_the_order_given_whatever_the_batches(encoder: OpenVinoEncoder) -> None:
    many = [TEXTS[at % len(TEXTS)] + " x" * (at % 13) for at in range(90)]
    together = encoder.encode(many)
    alone = np.concatenate([encoder.encode([text]) for text in many])
    assert np.allclose(together, alone, atol=1e-5)
    assert np.allclose(encoder.encode(many[::-1])[::-1], together, atol=1e-5)
    assert len({row.tobytes() for row in together.round(3)}) > 20     # or the check above says nothing


def test_nothing_in_nothing_out(encoder: OpenVinoEncoder) -> None:
    assert encoder.encode([]).shape == (0, WIDTH)
    assert encoder.count([]) == []
    assert encoder.offsets("") == []


def test_count_is_honest_about_what_truncation_cuts(encoder: OpenVinoEncoder) -> None:
    assert encoder.max_tokens == 24
    assert encoder.count(["", "the warranty", "the " * 60]) == [2, 4, 62]
    assert np.array_equal(encoder.encode(["the " * 60]), encoder.encode(["the " * 22]))
    assert not np.allclose(encoder.encode(["the " * 22]), encoder.encode(["the " * 21]), atol=1e-4)


def test_offsets_are_characters_of_the_text_without_truncation(encoder: OpenVinoEncoder) -> None:
    text = "Wärranty  lasts\ud800 " + "two " * 40
    spans = encoder.offsets(text)
    assert len(spans) > 40
    assert [text[a:b] for a, b in spans if b - a > 1][:3] == ["Wärranty", "lasts", "two"]
    assert all(0 <= a < b <= len(text) for a, b in spans)


def test_batches_hold_every_text_once_and_stay_in_bounds() -> None:
    lengths = [int(n) for n in np.random.default_rng(3).integers(2, 257, 500)] + [1, 256, 256]
    found = batches(lengths)
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[index] for index in batch)
        assert len(batch) <= BATCH_ROWS[1]
        assert len(batch) <= BATCH_ROWS[0] or longest * len(batch) <= BATCH_TOKENS
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in found)
    assert padded < 1.03 * sum(lengths)
    assert batches([]) == []


def test_few_shapes_are_ever_asked_for() -> None:
    rng = np.random.default_rng(5)
    calls = [[int(n) for n in rng.integers(2, 257, count)] for count in range(1, 400)]
    shapes = {(len(batch), padded_length(max(lengths[i] for i in batch), limit=256))
              for lengths in calls for batch in batches(lengths)}
    assert len(shapes) < 80
    assert {padded_length(n, limit=250) for n in range(1, 251)} == {*range(16, 241, 16), 250}
    assert all(n <= padded_length(n, limit=250) for n in range(1, 251))


def test_progress_counts_texts_to_the_end(encoder: OpenVinoEncoder) -> None:
    heard: list[int] = []
    encoder.encode(["the"] * 70, on_batch=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 70
    assert len(heard) > 1


def test_concurrent_calls_give_what_single_calls_give(encoder: OpenVinoEncoder) -> None:
    inputs = [[f"{'the two years ' * (at % 7)}{chr(97 + at)}"] * (1 + at % 5) for at in range(24)]
    expected = [encoder.encode(texts) for texts in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(encoder.encode, inputs))
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(expected, found, strict=True))


def test_a_result_is_the_callers_own(encoder: OpenVinoEncoder) -> None:
    first = encoder.encode(["the"])
    kept = first.copy()
    encoder.encode(["warranty"])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_precision_changes_neither_the_name_nor_much_of_the_vectors(folder: Path, encoder: OpenVinoEncoder,
                                                                    precision: str) -> None:
    other = OpenVinoEncoder(folder, precision=precision)
    assert other.name == encoder.name
    assert (other.encode(TEXTS) * encoder.encode(TEXTS)).sum(1).min() > 0.99


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="int4"):
        precision_of("int4", has_ranges=True)


def test_the_name_is_the_models_and_its_weights(tmp_path: Path, folder: Path, encoder: OpenVinoEncoder) -> None:
    import hashlib

    weights = (folder.parent / "source" / "model.safetensors").read_bytes()
    assert encoder.name == f"tiny@{hashlib.sha256(weights).hexdigest()[:8]}"
    other = convert(make_bert(tmp_path / "source", seed=1), tmp_path / "out")
    assert OpenVinoEncoder(other, precision="f32").name != encoder.name


def test_a_vector_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = make_bert(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][5] = np.nan        # the letter a
    save_file(tensors, source / "model.safetensors")
    encoder = OpenVinoEncoder(convert(source, tmp_path / "out"), precision="f32")
    assert np.isfinite(encoder.encode(["b"])).all()
    with pytest.raises(ModelCorrupt, match="not finite"):
        encoder.encode(["b", "a"])


@pytest.mark.parametrize(("options", "same"), [
    ({"prefix": "bert."}, True), ({"normalise": False}, True), ({"dtype": np.float16}, True),
    ({"pooling": "cls_token"}, False), ({"activation": "gelu_new"}, False), ({"seed": 1}, False)])
def test_variants_of_the_layout(tmp_path: Path, encoder: OpenVinoEncoder, options: dict[str, Any], same: bool) -> None:
    other = OpenVinoEncoder(convert(make_bert(tmp_path / "source", **options), tmp_path / "out"), precision="f32")
    vectors = other.encode(TEXTS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors, encoder.encode(TEXTS), atol=5e-3 if options.get("dtype") else 2e-5) == same


def test_an_ir_without_pooling_gets_what_its_folder_says(tmp_path: Path, folder: Path, encoder: OpenVinoEncoder) -> None:
    foreign = make_foreign(tmp_path / "foreign", folder)
    named = OpenVinoEncoder(foreign, precision="f32")
    assert named.name.startswith("foreign@")
    assert named.max_tokens == 24
    assert np.allclose(named.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)


def make_foreign(target: Path, folder: Path) -> Path:
    """What an exporter writes: three inputs, token vectors only, the configuration of the framework."""
    openvino = import_openvino()
    make_bert(target)
    (target / "model.safetensors").unlink()
    model = core().read_model(folder / "openvino_model.xml")
    model.remove_result(model.output("sentence_embedding").get_node())
    from openvino import opset13 as opset

    segments = opset.parameter([-1, -1], np.int64, name="token_type_ids")
    segments.output(0).get_tensor().set_names({"token_type_ids"})
    model.add_parameters([segments])
    openvino.save_model(model, target / "openvino_model.xml", compress_to_fp16=False)
    return target


def test_a_graph_that_is_no_text_encoder_is_refused(tmp_path: Path, folder: Path) -> None:
    openvino = import_openvino()
    foreign = make_foreign(tmp_path / "foreign", folder)
    model = core().read_model(folder / "openvino_model.xml")
    for port in model.outputs:
        port.get_tensor().set_names({f"out_{port.index}_{port.get_node().get_friendly_name()}"})
    openvino.save_model(model, foreign / "openvino_model.xml")
    with pytest.raises(ConfigError, match="not last_hidden_state"):
        OpenVinoEncoder(foreign)


@pytest.mark.parametrize(("file", "content", "error"), [
    ("openvino_model.xml", "<net", ModelCorrupt), ("tokenizer.json", "{}", ModelCorrupt),
    ("config.json", "nothing", ModelCorrupt),
    ("config.json", "[]", ModelCorrupt), ("config.json", '{"thriftrag_encoder": 99}', ModelCorrupt),
    ("config.json", None, ConfigError), ("tokenizer.json", None, ModelCorrupt)])
def test_broken_folders_are_named(tmp_path: Path, folder: Path, file: str, content: str | None,
                                  error: type[Exception]) -> None:
    import shutil

    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    (broken / file).unlink()
    if content is not None:
        (broken / file).write_text(content)
    with pytest.raises(error, match=str(broken)):
        OpenVinoEncoder(broken, precision="f32")


@pytest.mark.parametrize(("file", "change", "why"), [
    ("config.json", {"model_type": "roberta"}, "roberta"),
    ("config.json", {"position_embedding_type": "relative_key"}, "bert"),
    ("config.json", {"hidden_act": "silu"}, "silu"),
    ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}, "max_tokens"),
    ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "cls_token")])
def test_models_that_cannot_be_built_say_why(tmp_path: Path, file: str, change: dict[str, object], why: str) -> None:
    source = make_bert(tmp_path / "source")
    assert why_not(source) is None
    table = json.loads((source / file).read_text())
    (source / file).write_text(json.dumps(table | change))
    assert why in (why_not(source) or "")
    with pytest.raises(ConfigError, match=why):
        convert(source, tmp_path / "out")


def test_a_module_that_we_do_not_know_is_left_to_the_library(tmp_path: Path) -> None:
    source = make_bert(tmp_path / "source")
    modules = json.loads((source / "modules.json").read_text())
    (source / "modules.json").write_text(json.dumps([*modules, {"type": "sentence_transformers.models.Dense", "path": "3"}]))
    assert "Dense" in (why_not(source) or "")


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = make_bert(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(ModelCorrupt, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        convert(source, tmp_path / "out")


def test_a_written_model_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = import_openvino()
    save = openvino.save_model

    def lossy(model: object, path: str, **options: object) -> None:
        save(model, path, **options)
        binary = Path(path).with_suffix(".bin")
        binary.write_bytes(bytes(binary.stat().st_size))           # a disk that lost the blocks

    monkeypatch.setattr(openvino, "save_model", lossy)
    with pytest.raises(ModelCorrupt, match="openvino_model"):
        convert(make_bert(tmp_path / "source"), tmp_path / "out")


def test_openvino_is_imported_without_its_telemetry(tmp_path: Path) -> None:
    script = ("import sys; from rag.models.runtime import import_openvino; import_openvino(); import openvino\n"
              "print([name for name in sys.modules if name.startswith('openvino_telemetry')])")
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                           env={"HOME": str(tmp_path), "PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[2])})
    assert found.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_a_signal_after_encoders_were_freed_does_not_end_the_process(folder: Path) -> None:
    script = ("import gc, os, signal, sys; from pathlib import Path\n"
              "from indexers.encoders.openvino import OpenVinoEncoder\n"
              "first, second = (OpenVinoEncoder(Path(sys.argv[1])) for _ in range(2))\n"
              "del first; gc.collect(); del second; gc.collect()\n"
              "signal.signal(signal.SIGINT, lambda *_: print('heard'))\n"
              "os.kill(os.getpid(), signal.SIGINT); print('alive')")
    found = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False,
                           cwd=Path(__file__).parents[2])
    assert (found.returncode, found.stdout.split()) == (0, ["heard", "alive"])
