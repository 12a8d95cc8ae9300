"""Fits the 8-bit ranges of an encoder on sample texts: `python -m indexers.training.int8 --texts DATASET_DIR --out FILE`.

For each input of linear layers, smoothing factors and a range are chosen from a grid by the error that they leave in the
layers' output: every channel as it is; channels above a threshold brought down to it; and the square-root rule of SmoothQuant
with three strengths. No gradient, no labels; 150 passages and 100 questions, about a minute on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexers.encoders.bert import IR
from indexers.encoders.int8 import LEVELS, Floats, Site, integer_weight, linear_groups, weight, write
from indexers.encoders.openvino import OpenVinoEncoder
from indexers.encoders.tokenizing import EncoderTokenizer
from rag.models.runtime import core

if TYPE_CHECKING:
    from openvino import Model

Feed = Mapping[str, NDArray[np.generic]]
PASSAGES, QUESTIONS = 150, 100
_ODD = ("", "a", "?!", "量子 猫 保修期", "🙂 " * 20, "1234567890 " * 20, "the " * 300, "Łódź ½ № ∑ → " * 10, "a\nb\tc " * 10)
_TOKENS_KEPT = 24               # of each text, for the errors; extremes are taken over all
_THRESHOLDS = 8
_STRENGTHS = (0.3, 0.5, 0.7)
_CLIPS = (1.0, 0.85, 0.7)
# A range that reaches below zero by less than this part is left lopsided, as behind a GELU.
_LOPSIDED = 0.2


def fit(folder: Path, texts: Sequence[str], *, seed: int = 13) -> list[Site]:
    """One site for each group of linear layers of the encoder in `folder`, in order of execution. Odd texts join the sample: what
    no passage reaches, an emoji or an empty text may."""
    limit = OpenVinoEncoder(folder, precision="f32").max_tokens
    tokenizer = EncoderTokenizer.from_file(folder / "tokenizer.json", max_tokens=limit)
    model = core().read_model(folder / IR)
    names = {port.any_name for port in model.inputs}

    def feeds() -> Iterator[Feed]:
        for row in tokenizer.encode([*texts, *_ODD]):
            ids = np.array([row], np.int64)
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            yield {name: array for name, array in feed.items() if name in names}

    return fit_graph(model, feeds(), seed=seed)


def fit_graph(model: Model, feeds: Iterable[Feed], *, seed: int) -> list[Site]:
    """The same for any graph of ours over these inputs, each of one text."""
    matrices = [np.concatenate([weight(layer) for layer in group]) for group in linear_groups(model)]
    inputs, extremes = _collected(model, feeds, seed=seed)
    return [_best(*fitted) for fitted in zip(inputs, extremes, matrices, strict=True)]


def _collected(model: Model, feeds: Iterable[Feed], *, seed: int) -> tuple[list[Floats], list[Floats]]:
    """What enters each site: some tokens of each text, (tokens, channels), and the extremes of all, (2, channels)."""
    import openvino
    from openvino import opset13 as opset

    sources = [group[0].input_value(0) for group in linear_groups(model)]
    tapped = openvino.Model([opset.result(source) for source in sources], model.get_parameters(), "tapped")
    compiled = core().compile_model(tapped, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rng = np.random.default_rng(seed)
    kept: list[list[Floats]] = [[] for _ in sources]
    extremes: list[list[Floats]] = [[] for _ in sources]
    for feed in feeds:
        found = compiled(feed)
        entering = [found[i].reshape(-1, found[i].shape[-1]) for i in range(len(sources))]
        chosen = np.unique([0, *rng.permutation(len(entering[0]))[:_TOKENS_KEPT]])
        for i, each in enumerate(entering):
            kept[i].append(each[chosen].copy())
            extremes[i].append(np.stack([each.min(0), each.max(0)]))
    spans = [np.stack([np.min([e[0] for e in each], axis=0), np.max([e[1] for e in each], axis=0)]) for each in extremes]
    return [np.concatenate(each) for each in kept], spans


def _best(entering: Floats, extremes: Floats, matrix: Floats) -> Site:
    exact = entering @ matrix.T
    candidates = (_site(extremes, smoothing, clip) for smoothing, clip in product(_smoothings(extremes, matrix), _CLIPS))
    return min(candidates, key=lambda site: float(((_computed(entering, matrix, site) - exact) ** 2).mean()))


def _smoothings(extremes: Floats, matrix: Floats) -> Iterator[Floats]:
    reach, weights = np.maximum(np.abs(extremes).max(0), 1e-6), np.maximum(np.abs(matrix).max(0), 1e-6)
    yield np.ones_like(reach)
    for threshold in np.geomspace(0.08, 0.8, _THRESHOLDS) * reach.max():
        yield np.maximum(1, reach / threshold).astype(np.float32)
    for strength in _STRENGTHS:
        yield np.maximum(reach ** strength / weights ** (1 - strength), 1e-4).astype(np.float32)


def _site(extremes: Floats, smoothing: Floats, clip: float) -> Site:
    low, high = float((extremes[0] / smoothing).min()) * clip, float((extremes[1] / smoothing).max()) * clip
    if -low >= _LOPSIDED * high:
        high = max(-low, high)
        low = -high * LEVELS / (LEVELS - 2)     # zero falls on a level
    return Site(smoothing, min(low, 0.0), high)


def _computed(entering: Floats, matrix: Floats, site: Site) -> Floats:
    """What the layers give with rounded inputs and weights."""
    step = (site.high - site.low) / (LEVELS - 1)
    rounded = np.round((np.clip(entering / site.smoothing, site.low, site.high) - site.low) / step) * step + site.low
    integers, scale = integer_weight(matrix * site.smoothing)
    found: Floats = rounded @ (integers * scale).T
    return found


def main() -> None:
    from eval.datasets import load
    from rag import settings as configuration
    from rag.models import ModelCache, resolve

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="all-minilm-l6-v2", help="registry name or folder of an OpenVINO encoder")
    parser.add_argument("--texts", type=Path, required=True, help="data set folder whose passages are the sample")
    parser.add_argument("--out", type=Path, required=True, help="where to write, for instance MODEL_FOLDER/int8.safetensors")
    parser.add_argument("--seed", type=int, default=13)
    given = parser.parse_args()
    folder = Path(resolve(given.model, cache=ModelCache(configuration.load().models), role="embedder").location)
    data, rng = load(given.texts), np.random.default_rng(given.seed)
    texts = [f"{data.passages[i].title}\n{data.passages[i].text}".strip() for i in rng.permutation(len(data.passages))[:PASSAGES]]
    texts += [data.questions[i].text for i in rng.permutation(len(data.questions))[:QUESTIONS]]
    sites = fit(folder, texts, seed=given.seed)
    name = OpenVinoEncoder(folder, precision="f32").name
    write(given.out, sites, facts={"encoder": name, "texts": str(len(texts)), "data": given.texts.name, "seed": str(given.seed)})
    print(f"{given.out}: {len(sites)} sites of {name}")


if __name__ == "__main__":
    main()
