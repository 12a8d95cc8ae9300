"""Optimisation steps and checkpoints. Nothing but the tensors has to survive a kill: batches follow from seed and step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from indexers.training.checkpoints import CHECKPOINT, restore, save
from indexers.training.tilde import losses
from indexers.training.tilde.batches import Batch, Material, drawn
from indexers.training.tilde.network import Encoded, TermNetwork, matched
from indexers.training.tilde.plan import Plan
from rag.errors import ModelCorrupt

# Groups of like length that the passages of a step are computed in.
_LENGTHS = 4


@dataclass(frozen=True, slots=True)
class Tick:
    """One step of the log. `parts`: of the loss, unweighted."""

    step: int
    loss: float
    parts: Mapping[str, float]


def optimiser(network: TermNetwork, plan: Plan) -> torch.optim.AdamW:
    own = list(network.layer.parameters())
    tables = [network.delta, network.prior, network.low_out]
    named = {id(parameter) for parameter in (*own, *tables)}
    heads = [parameter for parameter in network.parameters() if id(parameter) not in named]
    return torch.optim.AdamW([{"params": own, "lr": plan.layer_rate, "weight_decay": 0.01},
                              {"params": heads, "lr": plan.head_rate, "weight_decay": 0.0},
                              {"params": [network.prior, network.low_out], "lr": plan.head_rate, "weight_decay": 0.0},
                              {"params": [network.delta], "lr": plan.table_rate, "weight_decay": 0.1}], fused=True)


def loss_of(network: TermNetwork, material: Material, batch: Batch, *, step: int, plan: Plan, device: str
            ) -> tuple[Tensor, dict[str, float]]:
    """The weighted sum of the parts, and the parts."""
    encoded, places = _encoded(network, material, batch, plan=plan, device=device)
    held, added = network.placed(encoded.tokens, places), network.added(encoded.logits, places)
    weights = network.questions()
    asked = _asked(material, batch, size=len(weights)).to(device)
    wanted = asked * weights
    scores = matched(wanted, held, places) + wanted @ added.T
    mean_held = torch.zeros_like(weights).index_add(0, places.clamp(min=0).flatten(), held.flatten()) / len(places)
    with torch.no_grad():
        teacher = _teachers(network, material, batch, asked=asked, places=places, plan=plan)
    allowed, own = torch.from_numpy(batch.allowed).to(device), torch.from_numpy(batch.own).to(device)
    targets, counted = _targets(material, batch, size=len(weights)).to(device), (network.addable & ~network.present(places)).float()
    parts = {"contrast": losses.contrast(scores, own, allowed=allowed),
             "divergence": losses.divergence(scores, teacher),
             "likelihood": losses.likelihood(encoded.logits, targets, counted=counted),
             "flops": losses.flops(mean_held, network.idf), "added": losses.flops(added.mean(0), network.idf)}
    pressed = losses.ramp(step, over=plan.steps // 3)
    factors = {"contrast": plan.contrast_weight, "divergence": plan.divergence_weight, "likelihood": plan.likelihood_weight,
               "flops": plan.flops_weight * pressed, "added": plan.added_weight * pressed}
    total = torch.stack([factors[name] * part for name, part in parts.items()]).sum()
    return total, {name: part.item() for name, part in parts.items()}


def train(network: TermNetwork, material: Material, plan: Plan, *, folder: Path, device: str, every: int,
          on_tick: Callable[[Tick], None]) -> None:
    """From the last checkpoint in `folder`, or from the start; a checkpoint each `every` steps and at the end.

    Raises:
        ConfigError: the checkpoint is of another plan or other data.
        ModelCorrupt: it cannot be read, or the loss is no longer finite.
    """
    network.to(device).train()
    steps = optimiser(network, plan)
    told = {"plan": asdict(plan), "data": material.corpus.digest}
    first = restore(folder / CHECKPOINT, network, steps, told=told)
    for step in range(first, plan.steps):
        for group, base in zip(steps.param_groups, (plan.layer_rate, plan.head_rate, plan.head_rate, plan.table_rate), strict=True):
            group["lr"] = base * _rate(step, plan)
        batch = drawn(material, step=step, seed=plan.seed, queries=plan.queries, group=plan.group, real_share=plan.real_share)
        loss, parts = loss_of(network, material, batch, step=step, plan=plan, device=device)
        if not bool(torch.isfinite(loss)):
            raise ModelCorrupt(f"The loss of step {step} is not finite ({parts}).", hint="Lower the learning rates.")
        steps.zero_grad(set_to_none=True)
        torch.autograd.backward([loss])
        clip_grad_norm_(network.parameters(), 1.0)
        steps.step()
        on_tick(Tick(step, loss.item(), parts))
        if (step + 1) % every == 0 or step + 1 == plan.steps:
            save(folder / CHECKPOINT, network, steps, step=step + 1, told=told)


def _rate(step: int, plan: Plan) -> float:
    """Share of the learning rates: up in a line to 1, down in a line to 0."""
    warm = max(1.0, plan.warm_up * plan.steps)
    return min((step + 1) / warm, (plan.steps - step) / max(1.0, plan.steps - warm))


def _encoded(network: TermNetwork, material: Material, batch: Batch, *, plan: Plan, device: str) -> tuple[Encoded, Tensor]:
    """The passages and their ids, (P, T). Those of like length are computed together: padding would cost as much as text."""
    lengths = np.diff(material.states.starts)[batch.passages]
    order, longest = np.argsort(lengths, kind="stable"), int(lengths.max())
    tokens, means, places = [], [], []
    for some in np.array_split(order, min(_LENGTHS, len(order))):
        hidden, numbers = material.states.batch(batch.passages[some])
        ids = torch.from_numpy(numbers).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=plan.bf16):
            weights, mean = network.read(torch.from_numpy(hidden).to(device).float(), ids)
        tokens.append(functional.pad(weights, (0, longest - weights.shape[1])))
        places.append(functional.pad(ids, (0, longest - ids.shape[1]), value=-1))
        means.append(mean)
    back = torch.from_numpy(np.argsort(order, kind="stable")).to(device)
    return Encoded(torch.cat(tokens)[back], network.likely(torch.cat(means)[back])), torch.cat(places)[back]


def _asked(material: Material, batch: Batch, *, size: int) -> Tensor:
    """How often each query has each token, (Q, V)."""
    table = torch.zeros((len(batch.queries), size))
    for at, query in enumerate(batch.queries):
        ids, counts = material.tokens.of(int(query))
        table[at, torch.from_numpy(ids.astype(np.int64))] = torch.from_numpy(counts.astype(np.float32))
    return table


def _teachers(network: TermNetwork, material: Material, batch: Batch, *, asked: Tensor, places: Tensor, plan: Plan) -> Tensor:
    """The weighted mean of what the dense model, BM25 and SPLADE say, (Q, P), each with the spread of the first. Together they
    rank better than any of them, and BM25 keeps exact names from being forgotten."""
    dense = (torch.from_numpy(batch.similarity) * plan.dense_sharpness).to(places.device)
    once = network.saturation(places, fixed=True) * network.first(places)
    told = [matched(asked * network.idf, once, places)]
    if material.taught_passages is not None and material.taught_queries is not None:
        told.append((material.taught_queries.dense(batch.queries, folds=material.folds)
                     @ material.taught_passages.dense(batch.passages, folds=material.folds).T).to(places.device))
    spread = dense.std()
    said = plan.dense_teaches * dense
    for each in told:
        said = said + each * (spread / each.std().clamp(min=1e-6))
    return said / (plan.dense_teaches + len(told))


def _targets(material: Material, batch: Batch, *, size: int) -> Tensor:
    """Chances of tokens, (P, V): 1 for those of a passage's questions, up to a half for what SPLADE would add."""
    wanted = torch.zeros((len(batch.passages), size))
    if material.taught_passages is not None:
        wanted = (material.taught_passages.dense(batch.passages, folds=material.folds) / 4).clamp(max=0.5)
    for at, row in enumerate(batch.passages):
        wanted[at, torch.from_numpy(material.targets[row].astype(np.int64))] = 1.0
    return wanted
