"""One training run from data folders to the files that are shipped."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from eval.datasets import load
from indexers.training.backbones import backbone_files, converted
from indexers.training.checkpoints import CHECKPOINT
from indexers.training.licences import licences
from indexers.training.tilde.backbone import backbone
from indexers.training.tilde.batches import Material, idf, mean_length
from indexers.training.tilde.card import History, card, plot
from indexers.training.tilde.corpus import read
from indexers.training.tilde.dev import Quality, Slice, dense_quality, quality, ranked_quality
from indexers.training.tilde.export import export, fit_ranges, greatest_weight, sampled
from indexers.training.tilde.loop import Tick, train
from indexers.training.tilde.network import Floats, TermNetwork
from indexers.training.tilde.plan import Plan, changed
from indexers.training.tilde.prepare import Prepared
from rag.types import OnProgress, Progress

_RANGE_TEXTS = 100


def run(options: argparse.Namespace, *, command: str, on_progress: OnProgress) -> None:
    """
    Raises:
        RagError: what the data, the backbone, the teacher or an earlier run in the same folder has wrong with it.
    """
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    source = backbone_files(options.backbone, options.model, out, on_progress=on_progress)
    base = backbone(source, tap=options.tap)
    encoder = converted(source, out / source.description.name, on_progress=on_progress)
    plan = changed(Plan(steps=options.steps, seed=options.seed, bf16=options.bf16), options.set)
    corpus = read(options.data, seed=options.seed, most=options.most, limit=options.limit)
    prepared = Prepared(out, encoder, base, options, on_progress)
    material = prepared.material(corpus)
    size = len(base.words)
    torch.manual_seed(plan.seed)
    rows = np.flatnonzero(~corpus.held)
    network = TermNetwork(base, idf(material.states, rows, size=size), asked=_asked(material, size),
                          mean_length=mean_length(material.states, rows, kept=base.kept))
    slices = [*prepared.held_out(corpus, material), *(prepared.other(load(folder)) for folder in options.sanity)]
    history = History.read(out / "history.json")
    history.peers = {"dense": {each.name: dense_quality(each).ndcg for each in slices},
                     "bm25": {each.name: ranked_quality(each, prepared.words(each)).ndcg for each in slices}}
    _train(network, material, plan, slices=slices, history=history, options=options, on_progress=on_progress)
    scale = greatest_weight(network, material.states, np.arange(len(corpus.texts)), device=options.device)
    weights = out / f"{base.name.replace('@', '-')}.safetensors"
    model = export(network, base, path=weights, scale=scale, notes={"command": command})
    texts = sampled(corpus.texts, rows, count=_RANGE_TEXTS, seed=plan.seed)
    fit_ranges(model, encoder=encoder, weights=weights, texts=[*texts, *corpus.queries[:_RANGE_TEXTS // 2]], scratch=out,
               seed=plan.seed)
    plot(history, out / "curves.png")
    (out / "card.md").write_text(card(model, history=history, plan=plan, command=command, data=corpus.names,
                                      licences=licences(options.data), size_bytes=weights.stat().st_size), encoding="utf-8")
    on_progress(Progress("done", 1, 1, "model", f"{weights}: {model.name}"))


def _train(network: TermNetwork, material: Material, plan: Plan, *, slices: Sequence[Slice], history: History,
           options: argparse.Namespace, on_progress: OnProgress) -> None:
    out: Path = options.out
    since: list[Tick] = []
    start = time.monotonic()
    network.to(options.device)
    if not history.entries and not (out / CHECKPOINT).is_file():    # where it starts: matching by idf
        history.add(0, {}, {one.name: quality(network, one, device=options.device) for one in slices}, seconds=0.0)
        history.write(out / "history.json")

    def tick(each: Tick) -> None:
        since.append(each)
        done = each.step + 1
        on_progress(Progress("step", done, plan.steps, "steps"))
        if done % options.every == 0 or done == plan.steps:
            means = {name: float(np.mean([one.parts[name] for one in since])) for name in each.parts}
            found = {one.name: quality(network, one, device=options.device) for one in slices}
            history.add(done, means | {"loss": float(np.mean([one.loss for one in since]))}, found,
                        seconds=time.monotonic() - start)
            history.write(out / "history.json")
            on_progress(Progress("held out", done, plan.steps, "steps", _line(found)))
            since.clear()

    train(network, material, plan, folder=out, device=options.device, every=options.every, on_tick=tick)
    if not history.entries or history.entries[-1]["step"] != plan.steps:
        history.add(plan.steps, {}, {one.name: quality(network, one, device=options.device) for one in slices},
                    seconds=time.monotonic() - start)
        history.write(out / "history.json")


def _line(found: dict[str, tuple[Quality, Quality]]) -> str:
    return " ".join(f"{name} {full.ndcg:.3f}/{bare.ndcg:.3f} ({full.postings:.0f}+{full.added:.0f})"
                    for name, (full, bare) in found.items())


def _asked(material: Material, size: int) -> Floats:
    """Share of the passages with training questions whose questions hold each token that they lack."""
    counted = np.zeros(size, np.float32)
    with_questions = 0
    for targets in material.targets:
        counted[targets] += 1
        with_questions += len(targets) > 0
    return (counted / max(1, with_questions)).astype(np.float32)
