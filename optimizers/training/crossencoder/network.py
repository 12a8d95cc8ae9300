"""What is trained: BERT layers over the frozen states of a question and a passage, and one number for each token of the passage.

    h   = [layers up to the tap of the question; of the passage], computed apart     PreTTR (arXiv 2004.14255)
    h'  = h + a of its side + m where the passage's token stands in the question
    z_t = w . layers above the tap (h')_t + b                        how well token t answers
    sentence: s = log sum exp of z_t over its tokens; passage: the same over all of its sentences

Question and passage meet in the upper layers only, so what a passage costs below the tap is paid once for all questions. The
tokens of all passages of a question compete in one softmax, as the answer spans of extractive readers do (Clark and Gardner
2018, "Simple and Effective Multi-Paragraph Reading Comprehension"), so passages and sentences of different texts compare.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from indexers.encoders.term_weights import LINEAR, NORMS
from indexers.training.tilde.states import Floats
from optimizers.crossencoder.model import CrossFacts, CrossModel

UNSEEN = -1e4


@dataclass(frozen=True, slots=True, eq=False)
class Upper:
    """What training needs of the frozen encoder: its layers from the tap on, as the network starts from."""

    facts: CrossFacts
    layers: tuple[dict[str, Floats], ...]


class CrossNetwork(nn.Module):
    """Starts as the backbone's own upper layers."""

    def __init__(self, upper: Upper) -> None:
        super().__init__()
        self.upper, self._facts = upper, upper.facts
        self.layers = nn.ModuleList(nn.ParameterDict({_flat(name): nn.Parameter(torch.from_numpy(tensor.copy()))
                                                      for name, tensor in layer.items()}) for layer in upper.layers)
        width = upper.layers[0]["output.LayerNorm.weight"].shape[0]
        self.sides = nn.Parameter(torch.zeros(2, width))
        self.matches = nn.Parameter(torch.zeros(width))
        self.head = nn.Linear(width, 1)
        self.bias = nn.Parameter(torch.tensor(2.0))     # what a sentence's s must exceed to be likely to answer
        with torch.no_grad():
            self.sides.normal_(std=0.02)
            self.matches.normal_(std=0.02)
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()

    def forward(self, asked: Tensor, asked_there: Tensor, read: Tensor, read_there: Tensor, matched: Tensor) -> Tensor:
        """z of each token of the passages, (P, T). `asked`: states of each passage's question (P, L, H), `read`: of the passage
        (P, T, H); `*_there`: which are no padding; `matched`: (P, T), 1 where the token stands in the question."""
        hidden = torch.cat([asked + self.sides[0], read + self.sides[1] + matched.unsqueeze(-1) * self.matches], 1)
        there = torch.cat([asked_there, read_there], 1)
        for layer in self.layers:
            hidden = self._layer(hidden, there, layer)
        found: Tensor = self.head(hidden[:, asked.shape[1]:]).squeeze(-1)
        return found.float()

    def exported(self, *, name: str = "") -> CrossModel:
        def array(tensor: Tensor) -> Floats:
            return np.ascontiguousarray(tensor.detach().float().cpu().numpy())

        layers = tuple({name.replace("-", "."): array(tensor) for name, tensor in layer.named_parameters()}
                       for layer in self.layers)
        biases = [float(array(tensor).reshape(-1)[0]) for tensor in (self.head.bias, self.bias)]
        return CrossModel(name, self._facts, layers, array(self.sides), array(self.matches), array(self.head.weight)[0], *biases)

    def _layer(self, hidden: Tensor, there: Tensor, own: nn.Module) -> Tensor:
        assert isinstance(own, nn.ParameterDict)
        heads, epsilon = self._facts.heads, self._facts.epsilon
        size, length, width = hidden.shape

        def linear(entering: Tensor, name: str) -> Tensor:
            return functional.linear(entering, own[_flat(f"{name}.weight")], own[_flat(f"{name}.bias")])

        def normed(entering: Tensor, name: str) -> Tensor:
            return functional.layer_norm(entering, (width,), own[_flat(f"{name}.weight")], own[_flat(f"{name}.bias")], epsilon)

        query, key, value = (linear(hidden, f"attention.self.{part}").view(size, length, heads, -1).transpose(1, 2)
                             for part in ("query", "key", "value"))
        # Written out: with a mask the library's own takes twice the time on a CPU in bf16.
        likeness = query @ key.transpose(2, 3) * (width // heads) ** -0.5
        mixed = likeness.masked_fill(~there[:, None, None, :], UNSEEN).softmax(-1).to(value.dtype) @ value
        joined = mixed.transpose(1, 2).reshape(size, length, width)
        attended = normed(linear(joined, "attention.output.dense") + hidden, "attention.output.LayerNorm")
        raised = linear(attended, "intermediate.dense")
        inner = functional.gelu(raised, approximate="tanh" if self._facts.activation == "tanh" else "none")
        return normed(linear(inner, "output.dense") + attended, "output.LayerNorm")


def named(prefix: str) -> tuple[str, ...]:
    """The tensors of one layer of a BERT."""
    return tuple(f"{prefix}{linear}.{part}" for linear in (*LINEAR, *NORMS) for part in ("weight", "bias"))


def pooled(tokens: Tensor, place: Tensor, *, count: int) -> Tensor:
    """s of each sentence, (P, count), far below zero for those without tokens. `place`: (P, T), below 0 outside of sentences."""
    inside = place.unsqueeze(1) == torch.arange(count, device=place.device)[None, :, None]
    return torch.where(inside, tokens.unsqueeze(1), UNSEEN).logsumexp(-1)


def _flat(name: str) -> str:
    """Parameter names may hold no dots."""
    return name.replace(".", "-")
