"""One training run from data folders to the files that are shipped."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch

from eval.datasets import load
from indexers.encoders import int8
from indexers.encoders.bert import ACTIVATIONS
from indexers.encoders.describe import read_json
from indexers.encoders.term_weights_tokens import kept_tokens, read_vocabulary
from indexers.training.backbones import backbone_files, converted
from indexers.training.tilde.backbone import Published
from optimizers.crossencoder.model import CrossFacts, ranges_of, write
from optimizers.training.crossencoder.card import card, plot
from optimizers.training.crossencoder.corpus import read
from optimizers.training.crossencoder.dev import mean, quality
from optimizers.training.crossencoder.loop import Tick, train
from optimizers.training.crossencoder.network import CrossNetwork, Upper, named
from optimizers.training.crossencoder.plan import Plan
from optimizers.training.crossencoder.prepare import Prepared
from optimizers.training.crossencoder.ranges import fit_ranges
from rag.errors import ConfigError
from rag.types import OnProgress, Progress


def run(options: argparse.Namespace, *, command: str, on_progress: OnProgress) -> None:
    """
    Raises:
        RagError: what the data, the backbone or an earlier run in the same folder has wrong with it.
    """
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    source = backbone_files(options.backbone, options.model, out, on_progress=on_progress)
    start_from = upper(source, tap=options.tap)
    encoder = converted(source, out / source.description.name, on_progress=on_progress)
    plan = Plan(steps=options.steps, seed=options.seed, bf16=options.bf16)
    marked = read(options.data, seed=options.seed, most=options.most, largest=options.largest, limit=options.limit)
    prepared = Prepared(out, encoder, source.description.identity, options, on_progress)
    material = prepared.material(marked)
    slices = [*prepared.held_out(material), *(prepared.other(load(folder)) for folder in options.sanity)]
    torch.manual_seed(plan.seed)
    network = CrossNetwork(start_from)
    vocabulary = read_vocabulary(encoder / "tokenizer.json")
    matching = kept_tokens(vocabulary).astype(np.int64)
    history = _history(out / "history.json")
    since: list[Tick] = []
    start = time.monotonic()

    def look(step: int, parts: dict[str, float]) -> None:
        found = {one.name: quality(network, one, matching=matching, device=options.device, bf16=plan.bf16) for one in slices}
        history[:] = [entry for entry in history if cast(int, entry["step"]) < step]     # of a run that was killed
        history.append({"step": step, "seconds": round(time.monotonic() - start, 1), "parts": parts,
                        "mean": mean(list(found.values())), "slices": {name: each.to_dict() for name, each in found.items()}})
        (out / "history.json").write_text(json.dumps(history, indent=1), encoding="utf-8")
        on_progress(Progress("held out", step, plan.steps, "steps", json.dumps(history[-1]["mean"])))

    network.to(options.device)
    if not history:
        look(0, {})

    def tick(each: Tick) -> None:
        since.append(each)
        done = each.step + 1
        on_progress(Progress("step", done, plan.steps, "steps"))
        if done % options.every == 0 or done == plan.steps:
            look(done, {name: round(float(np.mean([one.parts[name] for one in since])), 4) for name in each.parts})
            since.clear()

    train(network, material, plan, folder=out, matching=matching, device=options.device, every=options.every, on_tick=tick)
    weights = out / f"{source.description.identity.replace('@', '-')}.safetensors"
    model = write(weights, network.exported(), notes={"command": command})
    int8.write(ranges_of(weights), fit_ranges(model, material, matching=matching, seed=plan.seed),
               facts={"cross_encoder": model.name, "seed": str(plan.seed)})
    plot(history, out / "curves.png")
    (out / "card.md").write_text(card(model, history=history, plan=plan, command=command, folders=options.data,
                                      size_bytes=weights.stat().st_size), encoding="utf-8")
    on_progress(Progress("done", 1, 1, "model", f"{weights}: {model.name}"))


def upper(source: Published, *, tap: int) -> Upper:
    """The backbone's layers above the tap.

    Raises:
        ConfigError: it has no layer there.
    """
    config = read_json(source.folder / "config.json")
    layers = int(config["num_hidden_layers"])
    if not 0 <= tap < layers:
        raise ConfigError(f"There is no layer above {tap}: {source.description.identity} has {layers}.", field="tap",
                          hint=f"Use 0 to {layers - 1}.")
    facts = CrossFacts(source.description.identity, tap, int(config["num_attention_heads"]), float(config["layer_norm_eps"]),
                       ACTIVATIONS[config["hidden_act"]])
    prefixes = [f"encoder.layer.{at}." for at in range(tap, layers)]
    return Upper(facts, tuple({name.removeprefix(prefix): source.tensors[name] for name in named(prefix)} for prefix in prefixes))


def _history(path: Path) -> list[dict[str, object]]:
    if not path.is_file():
        return []
    found: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))
    return found


