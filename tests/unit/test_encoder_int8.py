"""Eight-bit linear layers on a tiny BERT: fitted, written, found, applied; and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from indexers.encoders import int8, openvino
from indexers.encoders.bert import IR, convert_bert
from indexers.encoders.int8 import FILE, Site, find, integer_weight, linear_groups, quantised, read, write
from indexers.encoders.openvino import OpenVinoEncoder, precision_of
from indexers.training.int8 import fit
from rag.errors import ConfigError, ModelCorrupt
from rag.models.runtime import core
from rag.types import no_progress
from tests.tiny_models import LAYERS, make_bert

TEXTS = ["the warranty lasts two years.", "years two lasts warranty the?", "the years", "two a the warranty", "lasts"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny") / "tiny"
    out.mkdir()
    convert_bert(make_bert(out.parent / "source"), out, name="tiny", on_progress=no_progress)
    return out


@pytest.fixture(scope="module")
def fitted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in another folder, with ranges."""
    out = tmp_path_factory.mktemp("fitted") / "tiny"
    shutil.copytree(folder, out)
    write(out / FILE, fit(out, TEXTS), facts={"encoder": "tiny"})
    return out


def test_a_model_with_ranges_runs_in_eight_bits_and_stays_close(folder: Path, fitted: Path) -> None:
    exact = OpenVinoEncoder(folder, precision="f32")
    rounded = OpenVinoEncoder(fitted, precision="int8")
    assert (exact.precision, rounded.precision) == ("f32", "int8")
    assert rounded.name == exact.name
    cosines = (exact.encode(TEXTS) * rounded.encode(TEXTS)).sum(1)
    assert cosines.min() > 0.99
    assert not np.array_equal(exact.encode(TEXTS), rounded.encode(TEXTS))


def test_each_input_of_linear_layers_is_one_site(folder: Path, fitted: Path) -> None:
    groups = linear_groups(core().read_model(folder / IR))
    assert [len(group) for group in groups] == [3, 1, 1, 1] * LAYERS     # query, key and value share theirs
    assert len(read(fitted / FILE)) == len(groups)


def test_integer_weights_are_within_half_a_step() -> None:
    scales = np.array([[1], [100], [1e-3], [0], [5]], np.float32)
    matrix = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32) * scales
    integers, scale = integer_weight(matrix)
    assert integers.dtype == np.int8
    assert np.abs(integers).max() == 127
    assert (np.abs(integers * scale - matrix) <= scale / 2 + 1e-7).all()


def test_an_outlying_channel_is_brought_down_where_that_helps() -> None:
    from indexers.training.int8 import _best, _computed, _site

    rng = np.random.default_rng(1)
    entering = rng.standard_normal((200, 16)).astype(np.float32)
    entering[:, 3] *= 60
    matrix = rng.standard_normal((8, 16)).astype(np.float32)
    matrix[:, 3] /= 60
    extremes = np.stack([entering.min(0), entering.max(0)])
    exact = entering @ matrix.T
    plain = _site(extremes, np.ones(16, np.float32), 1.0)
    chosen = _best(entering, extremes, matrix)
    assert chosen.smoothing[3] > 5 * np.delete(chosen.smoothing, 3).max()
    error = {site: float(((_computed(entering, matrix, which) - exact) ** 2).mean())
             for site, which in (("plain", plain), ("chosen", chosen))}
    assert error["chosen"] < error["plain"] / 10


@pytest.mark.parametrize(("capabilities", "has_ranges", "expected"), [
    (["FP32", "INT8", "BF16"], True, "int8"), (["FP32", "INT8", "BF16"], False, "bf16"), (["FP32", "BF16"], True, "bf16"),
    (["FP32", "INT8"], False, "f32"), (["FP32"], True, "f32")])
def test_auto_takes_the_fastest_that_is_real(monkeypatch: pytest.MonkeyPatch, capabilities: list[str], has_ranges: bool,
                                             expected: str) -> None:
    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            return capabilities

    monkeypatch.setattr(openvino, "core", Core)
    assert precision_of("auto", has_ranges=has_ranges) == expected
    assert precision_of("f32", has_ranges=has_ranges) == "f32"


def test_a_model_without_ranges_says_how_to_get_them(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no 8-bit ranges") as caught:
        OpenVinoEncoder(folder, precision="int8")
    assert "indexers.training.int8" in caught.value.hint


def test_ranges_of_another_model_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="another model"):
        quantised(core().read_model(folder / IR), [Site(np.ones(3, np.float32), -1, 1)])


def test_damaged_ranges_are_refused_by_name(fitted: Path, tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes((fitted / FILE).read_bytes()[:100])
    with pytest.raises(ModelCorrupt, match=FILE):
        read(path)


def test_a_models_own_ranges_come_before_those_that_are_shipped(folder: Path, fitted: Path) -> None:
    assert find(fitted, identity="all-minilm-l6-v2@53aa5117") == fitted / FILE
    shipped = find(folder, identity="all-minilm-l6-v2@53aa5117")
    assert shipped is not None
    assert shipped.parent == Path(int8.__file__).parent / "ranges"
    assert find(folder, identity="tiny@00000000") is None
