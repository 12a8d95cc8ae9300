"""Losses, optimisation steps and checkpoints. Nothing but the tensors has to survive a kill: batches follow from seed and step.

Span: -log of the share that the tokens of the answer have in the softmax over all tokens of the query's passages; the answer is
as fine as the data set tells (its characters, its sentence, its passage). Chance: binary cross-entropy of each sentence, so that
its score means the same in every passage. Divergence: of the softmax over passages from that of the dense vectors' cosines, for
made-up queries too: what questions of one style do not teach, the encoder has learnt from others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from indexers.training.checkpoints import CHECKPOINT, restore, save
from indexers.training.tilde.states import States
from optimizers.training.crossencoder.batches import Batch, Ints, Material, drawn
from optimizers.training.crossencoder.network import UNSEEN, CrossNetwork, pooled
from optimizers.training.crossencoder.plan import Plan
from rag.errors import ModelCorrupt

# Groups of like length that the passages of a step are computed in.
_LENGTHS = 4


@dataclass(frozen=True, slots=True)
class Tick:
    """One step of the log. `parts`: of the loss, unweighted."""

    step: int
    loss: float
    parts: Mapping[str, float]


def scored(network: CrossNetwork, *, passages: States, queries: States, rows: Ints, asked: Ints, matching: Ints, device: str,
           bf16: bool) -> tuple[Tensor, Ints]:
    """z of the tokens of each pair, (P, T), 0 behind the shorter, and the lengths. `asked`: the query of each passage of `rows`;
    `matching`: ids of tokens that may match are 1, by id."""
    lengths = np.diff(passages.starts)[rows]
    order, longest = np.argsort(lengths, kind="stable"), int(lengths.max())
    found = []
    for some in np.array_split(order, min(_LENGTHS, len(order))):
        read, ids = passages.batch(rows[some])
        words, word_ids = queries.batch(asked[some])
        held = (ids[:, :, None] == word_ids[:, None, :]).any(2) & (ids >= 0) & matching[np.maximum(ids, 0)].astype(bool)
        tensors = (torch.from_numpy(words).to(device).float(), torch.from_numpy(word_ids >= 0).to(device),
                   torch.from_numpy(read).to(device).float(), torch.from_numpy(ids >= 0).to(device),
                   torch.from_numpy(held).to(device).float())
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            tokens = network(*tensors)
        found.append(functional.pad(tokens, (0, longest - tokens.shape[1])))
    return torch.cat(found)[torch.from_numpy(np.argsort(order, kind="stable")).to(device)], lengths


def places(passages: States, place: NDArray[np.int32], rows: Ints) -> Ints:
    """The sentence of each token of these passages, (P, T), below 0 outside; `place` as in `Material`."""
    starts = passages.starts
    found = np.full((len(rows), int((starts[rows + 1] - starts[rows]).max())), -1, np.int64)
    for at, row in enumerate(rows):
        own = place[starts[row]:starts[row + 1]]
        found[at, :len(own)] = own
    return found


def loss_of(network: CrossNetwork, material: Material, batch: Batch, *, plan: Plan, matching: Ints, device: str
            ) -> tuple[Tensor, dict[str, float]]:
    """The weighted sum of the parts, and the parts."""
    count, size = len(batch.queries), plan.group
    tokens, _ = scored(network, passages=material.passages, queries=material.queries, rows=batch.passages,
                       asked=np.repeat(batch.queries, size), matching=matching, device=device, bf16=plan.bf16)
    where = torch.from_numpy(places(material.passages, material.place, batch.passages)).to(device)
    inside = where >= 0
    seen = torch.where(inside, tokens, UNSEEN).view(count, size, -1)
    right = torch.zeros_like(where, dtype=torch.bool)
    for at, query in enumerate(batch.queries):
        if batch.own[at]:
            right[at * size, torch.from_numpy(material.right[query].astype(np.int64)).to(device)] = True
    right &= inside
    own = torch.from_numpy(batch.own).to(device) & right.view(count, -1).any(1)
    parts = {"span": _span(seen.view(count, -1), right.view(count, -1), own),
             "chance": _chance(network, tokens, where, right, own, size=size),
             "divergence": _divergence(seen.logsumexp(-1), torch.from_numpy(batch.similarity).to(device) * plan.sharpness)}
    factors = {"span": plan.span_weight, "chance": plan.chance_weight, "divergence": plan.divergence_weight}
    total = torch.stack([factors[name] * part for name, part in parts.items()]).sum()
    return total, {name: part.item() for name, part in parts.items()}


def _span(seen: Tensor, right: Tensor, own: Tensor) -> Tensor:
    if not bool(own.any()):
        return seen.sum() * 0
    return (seen.logsumexp(1) - torch.where(right, seen, UNSEEN).logsumexp(1))[own].mean()


def _chance(network: CrossNetwork, tokens: Tensor, where: Tensor, right: Tensor, own: Tensor, *, size: int) -> Tensor:
    """Over the sentences of the passages of real queries, right and wrong ones half each."""
    count = int(where.max()) + 1
    scores = pooled(tokens, where, count=count) - network.bias
    there = (where.unsqueeze(1) == torch.arange(count, device=where.device)[None, :, None]).any(2)
    there &= own.repeat_interleave(size).unsqueeze(1)
    wanted = ((where.unsqueeze(1) == torch.arange(count, device=where.device)[None, :, None]) & right.unsqueeze(1)).any(2)
    every = functional.binary_cross_entropy_with_logits(scores, wanted.float(), reduction="none")
    yes, no = every[there & wanted], every[there & ~wanted]
    if not len(yes) or not len(no):
        return scores.sum() * 0
    return (yes.mean() + no.mean()) / 2


def _divergence(scores: Tensor, teacher: Tensor) -> Tensor:
    """Mean over queries of KL(teacher || student), both (Q, G) before the softmax."""
    return functional.kl_div(functional.log_softmax(scores, -1), functional.log_softmax(teacher, -1), reduction="batchmean",
                             log_target=True)


def optimiser(network: CrossNetwork, plan: Plan) -> torch.optim.AdamW:
    own = list(network.layers.parameters())
    heads = [network.sides, network.matches, *network.head.parameters(), network.bias]
    return torch.optim.AdamW([{"params": own, "lr": plan.layer_rate, "weight_decay": 0.01},
                              {"params": heads, "lr": plan.head_rate, "weight_decay": 0.0}], fused=True)


def train(network: CrossNetwork, material: Material, plan: Plan, *, folder: Path, matching: Ints, device: str, every: int,
          on_tick: Callable[[Tick], None]) -> None:
    """From the last checkpoint in `folder`, or from the start; a checkpoint each `every` steps and at the end.

    Raises:
        ConfigError: the checkpoint is of another plan or other data.
        ModelCorrupt: it cannot be read, or the loss is no longer finite.
    """
    network.to(device).train()
    steps = optimiser(network, plan)
    told = {"plan": asdict(plan), "data": material.marked.corpus.digest}
    first = restore(folder / CHECKPOINT, network, steps, told=told)
    for step in range(first, plan.steps):
        warm = max(1.0, plan.warm_up * plan.steps)
        rate = min((step + 1) / warm, (plan.steps - step) / max(1.0, plan.steps - warm))
        for group, base in zip(steps.param_groups, (plan.layer_rate, plan.head_rate), strict=True):
            group["lr"] = base * rate
        batch = drawn(material, step=step, seed=plan.seed, queries=plan.queries, group=plan.group, real_share=plan.real_share)
        loss, parts = loss_of(network, material, batch, plan=plan, matching=matching, device=device)
        if not bool(torch.isfinite(loss)):
            raise ModelCorrupt(f"The loss of step {step} is not finite ({parts}).", hint="Lower the learning rates.")
        steps.zero_grad(set_to_none=True)
        torch.autograd.backward([loss])
        clip_grad_norm_(network.parameters(), 1.0)
        steps.step()
        on_tick(Tick(step, loss.item(), parts))
        if (step + 1) % every == 0 or step + 1 == plan.steps:
            save(folder / CHECKPOINT, network, steps, step=step + 1, told=told)
