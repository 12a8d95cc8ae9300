"""From a trained network to the files that ingestion reads: weights, and 8-bit ranges of the own layer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from indexers.encoders import int8, term_weights
from indexers.encoders.bert import IR
from indexers.encoders.term_weights import TermModel
from indexers.encoders.term_weights_graph import branch_sites, extend
from indexers.training import int8 as fitting
from indexers.training.tilde.batches import Rows
from indexers.training.tilde.network import Backbone, TermNetwork
from indexers.training.tilde.states import States
from rag.models.runtime import core, import_openvino

EXPANDED = 64
_TOGETHER = 64


def greatest_weight(network: TermNetwork, states: States, rows: Rows, *, device: str) -> float:
    """Of all tokens of these passages, expansion included: what 8 bits must hold."""
    greatest = 0.0
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), _TOGETHER):
            hidden, ids = states.batch(rows[start:start + _TOGETHER])
            places = torch.from_numpy(ids).to(device)
            both = network.matrix(network(torch.from_numpy(hidden).to(device).float(), places), places)
            greatest = max(greatest, *(float(weights.max()) for weights in both))
    return greatest


def export(network: TermNetwork, backbone: Backbone, *, path: Path, scale: float, notes: Mapping[str, str]) -> TermModel:
    """Writes the weights and reads them back, as ingestion would."""
    term_weights.write(path, network.exported(backbone, scale=scale, expanded=EXPANDED), notes=notes)
    return term_weights.read(path, encoder=backbone.name, vocabulary=backbone.vocabulary)


def fit_ranges(model: TermModel, *, encoder: Path, weights: Path, texts: Sequence[str], scratch: Path, seed: int) -> Path:
    """The 8-bit ranges of the own layer beside its weights, fitted on these texts as those of the backbone were.

    `encoder`: the folder of the converted backbone. Takes about a minute for 250 passages on two cores.
    """
    folder = scratch / "extended"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "config.json"):
        shutil.copyfile(encoder / name, folder / name)
    import_openvino().save_model(extend(core().read_model(encoder / IR), model), str(folder / IR), compress_to_fp16=False)
    sites = branch_sites(core().read_model(folder / IR), fitting.fit(folder, texts, seed=seed))
    out = term_weights.ranges_of(weights)
    int8.write(out, sites, facts={"term_weights": model.name, "texts": str(len(texts)), "seed": str(seed)})
    shutil.rmtree(folder)
    return out


def sampled(texts: Sequence[str], rows: Rows, *, count: int, seed: int) -> list[str]:
    return [texts[row] for row in np.random.default_rng(seed).permutation(rows)[:count]]
