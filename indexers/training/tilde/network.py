"""What is trained: one BERT layer over frozen hidden states, the weight of each token, likely missing tokens, question weights.

    w_i = ReLU(a . h_i + b)                                     TILDEv2 (arXiv 2108.08513), section 3
    weight of a token = max w_i over its occurrences * BM25's factor of repetition and length
    z   = E' norm(gelu(W mean(h) + c)) + d,  E' = E + (A B)^T   likelihood of tokens as in TILDE (Zhuang and Zuccon 2021, SIGIR)
    weight of a missing token t = s * ReLU(z_t - cut)           one pass; TILDEv2 appends the tokens and encodes again
    weight in questions  q_t = softplus(u . E_t + v * idf_t + f + delta_t)      Li-LSR (arXiv 2505.01452) with idf added

E are the backbone's word embeddings, which no gradient changes. `delta` is kept small, so that tokens which no training
question asked for get their weight from their embedding and idf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from indexers.encoders.term_weights import LINEAR, NORMS, TermFacts, TermModel
from indexers.encoders.term_weights_tokens import Mask

Floats = NDArray[np.float32]
RANK = 32


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """What training needs of the frozen encoder. `layer`: the tensors that the own layer starts from."""

    name: str
    vocabulary: str
    words: Floats               # (V, H)
    layer: Mapping[str, Floats]
    tap: int
    heads: int
    epsilon: float
    activation: str             # erf or tanh
    kept: Mask
    addable: Mask
    folds: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch of passages, with gradients. `tokens`: (P, T), 0 at padding and stop words; `logits`: (P, V)."""

    tokens: Tensor
    logits: Tensor


class TermNetwork(nn.Module):
    """Starts as BM25 over the tokens: every weight about 1, next to no expansion. Ids that come in are folded ones."""

    words: Tensor
    idf: Tensor
    kept: Tensor
    addable: Tensor

    def __init__(self, backbone: Backbone, idf: Floats, *, mean_length: float, asked: Floats) -> None:
        """`idf`: of each token over the training passages, (V,); `mean_length`: of these, in kept tokens. `asked`: share of the
        passages whose questions hold each token that they lack, (V,): where likelihood training starts."""
        super().__init__()
        size, width = backbone.words.shape
        self.mean_length = mean_length
        self._facts = (backbone.heads, backbone.epsilon, backbone.activation)
        for name, value in (("words", backbone.words), ("idf", idf), ("kept", backbone.kept), ("addable", backbone.addable)):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value)), persistent=False)
        self.layer = nn.ParameterDict({_flat(name): nn.Parameter(torch.from_numpy(backbone.layer[name].copy()))
                                       for linear in (*LINEAR, *NORMS) for name in (f"{linear}.weight", f"{linear}.bias")})
        self.weight = nn.Linear(width, 1)
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.low_into = nn.Parameter(torch.randn(width, RANK) * width ** -0.5)
        self.low_out = nn.Parameter(torch.zeros(RANK, size))
        share = np.clip(asked, 1e-5, 0.5)
        self.prior = nn.Parameter(torch.from_numpy(np.log(share / (1 - share)).astype(np.float32)))
        self.steepness = nn.Parameter(torch.tensor(-1.0))       # its softplus is s
        self.cut = nn.Parameter(torch.tensor(-2.0))
        self.k1 = nn.Parameter(torch.tensor(0.84))              # its softplus is 1.2, the sigmoid of b .75: Lucene's numbers
        self.b = nn.Parameter(torch.tensor(1.1))
        self.from_words = nn.Linear(width, 1)
        self.from_idf = nn.Parameter(torch.tensor(1.0))
        self.delta = nn.Parameter(torch.zeros(size))
        with torch.no_grad():
            self.weight.weight.mul_(0.02)
            self.weight.bias.fill_(1.0)
            self.from_words.weight.zero_()
            self.from_words.bias.zero_()
            # Embeddings are of unit scale in many encoders and not in others: the first logits should be near the prior.
            self.norm.weight.fill_(float(0.05 / max(float(self.words.std()), 1e-6)))

    def forward(self, hidden: Tensor, ids: Tensor) -> Encoded:
        """`hidden`: (P, T, H), of the backbone after its layer `tap`; `ids`: (P, T), -1 at padding, which comes last."""
        tokens, mean = self.read(hidden, ids)
        return Encoded(tokens, self.likely(mean))

    def read(self, hidden: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The weight of each token, (P, T), and the mean state of each passage, (P, H)."""
        attendable = ids >= 0
        states = self._encoded(hidden, attendable)
        kept = self.kept[ids.clamp(min=0)] & attendable
        tokens = torch.relu(self.weight(states).squeeze(-1)) * kept
        weight = attendable.unsqueeze(-1).to(states.dtype)
        mean = (states * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return tokens.float(), mean.float()

    def likely(self, mean: Tensor) -> Tensor:
        """Logits of all tokens of the vocabulary, (P, V)."""
        topic = self.norm(functional.gelu(self.dense(mean)))
        logits: Tensor = functional.linear(topic, self.words) + (topic @ self.low_into) @ self.low_out + self.prior
        return logits

    def matrix(self, encoded: Encoded, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of all tokens of the vocabulary, (P, V): of those the passages hold, and of those that are added."""
        held = torch.zeros_like(encoded.logits).scatter_add(1, ids.clamp(min=0), self.placed(encoded.tokens, ids))
        return held, self.added(encoded.logits, ids)

    def placed(self, tokens: Tensor, ids: Tensor) -> Tensor:
        """The weight of each token that a passage holds, at the first of its places, 0 at all others, (P, T). A table of all
        tokens of the vocabulary says no more and takes a hundred times the room."""
        best = tokens.unsqueeze(1).masked_fill(~self._alike(ids), 0.0).amax(2)
        return best * self.saturation(ids) * self.first(ids)

    def first(self, ids: Tensor) -> Tensor:
        """Whether no earlier place of the passage holds the same token, (P, T)."""
        alike = self._alike(ids)
        return ~(alike & torch.ones_like(alike[0]).tril(-1)).any(2)

    def added(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Weights of the tokens that expansion adds, (P, V)."""
        absent = self.addable & ~self.present(ids)
        return functional.softplus(self.steepness) * torch.relu(logits - self.cut) * absent

    def saturation(self, ids: Tensor, *, fixed: bool = False) -> Tensor:
        """`term_weights.saturation` of the token at each place, (P, T), 0 where none is kept. `fixed`: with Lucene's k1 and b."""
        k1, b = (torch.tensor(1.2), torch.tensor(0.75)) if fixed else (functional.softplus(self.k1), torch.sigmoid(self.b))
        times = self._alike(ids).sum(2).float()
        norm = 1 - b + b * (times > 0).sum(1, keepdim=True) / self.mean_length
        return times * (k1 + 1) / (times + k1 * norm)

    def _alike(self, ids: Tensor) -> Tensor:
        """Whether two places hold the same token, one that is kept, (P, T, T)."""
        kept = self.kept[ids.clamp(min=0)] & (ids >= 0)
        return (ids.unsqueeze(1) == ids.unsqueeze(2)) & kept.unsqueeze(1)

    def present(self, ids: Tensor) -> Tensor:
        """Which tokens each passage holds, (P, V)."""
        found = torch.zeros((len(ids), len(self.words) + 1), dtype=torch.bool, device=ids.device)
        return found.scatter(1, torch.where(ids >= 0, ids, len(self.words)), True)[:, :-1]

    def questions(self) -> Tensor:
        """The weight of each token in questions to the training passages, (V,); 0 for stop words."""
        return functional.softplus(self.asked() + self.from_idf * self.idf) * self.kept

    def asked(self) -> Tensor:
        """What of that does not depend on idf, before the softplus, (V,)."""
        found: Tensor = self.from_words(self.words).squeeze(-1) + self.delta
        return found

    def exported(self, backbone: Backbone, *, scale: float, expanded: int, name: str = "") -> TermModel:
        """As numpy, for a file. `scale`: see `TermFacts`."""
        def array(tensor: Tensor) -> Floats:
            return np.ascontiguousarray(tensor.detach().float().cpu().numpy())

        facts = TermFacts(backbone.name, backbone.vocabulary, backbone.tap, backbone.heads, backbone.epsilon, backbone.activation,
                          scale, expanded, functional.softplus(self.steepness).item(), self.cut.item(),
                          functional.softplus(self.k1).item(), torch.sigmoid(self.b).item(), self.mean_length, self.from_idf.item())
        expansion = {"dense.weight": self.dense.weight, "dense.bias": self.dense.bias, "norm.weight": self.norm.weight,
                     "norm.bias": self.norm.bias, "low.into": self.low_into, "low.out": self.low_out, "bias": self.prior}
        return TermModel(name, facts, {linear: array(self.layer[_flat(linear)]) for linear in backbone.layer},
                         array(self.weight.weight)[0], self.weight.bias.item(), {key: array(t) for key, t in expansion.items()},
                         array(self.asked()), array(self.idf), backbone.kept, backbone.addable, backbone.folds)

    def _encoded(self, hidden: Tensor, attendable: Tensor) -> Tensor:
        heads, epsilon, activation = self._facts
        size, length, width = hidden.shape
        query, key, value = (self._linear(hidden, f"attention.self.{part}").view(size, length, heads, -1).transpose(1, 2)
                             for part in ("query", "key", "value"))
        # Written out: with a mask the library's own takes twice the time on a CPU in bf16.
        likeness = query @ key.transpose(2, 3) * (width // heads) ** -0.5
        mixed = likeness.masked_fill(~attendable[:, None, None, :], -1e9).softmax(-1).to(value.dtype) @ value
        joined = mixed.transpose(1, 2).reshape(size, length, width)
        attended = self._normed(self._linear(joined, "attention.output.dense") + hidden, "attention.output.LayerNorm", epsilon)
        raised = self._linear(attended, "intermediate.dense")
        inner = functional.gelu(raised, approximate="tanh" if activation == "tanh" else "none")
        return self._normed(self._linear(inner, "output.dense") + attended, "output.LayerNorm", epsilon)

    def _linear(self, entering: Tensor, name: str) -> Tensor:
        return functional.linear(entering, self.layer[_flat(f"{name}.weight")], self.layer[_flat(f"{name}.bias")])

    def _normed(self, hidden: Tensor, name: str, epsilon: float) -> Tensor:
        weight, bias = self.layer[_flat(f"{name}.weight")], self.layer[_flat(f"{name}.bias")]
        return functional.layer_norm(hidden, weight.shape, weight, bias, epsilon)


def matched(wanted: Tensor, placed: Tensor, ids: Tensor) -> Tensor:
    """Scores of passages for queries, (Q, P): `wanted` the weights of tokens in queries, (Q, V); `placed` and `ids` (P, T)."""
    return (wanted[:, ids.clamp(min=0)] * placed).sum(-1)


def _flat(name: str) -> str:
    """Parameter names may hold no dots."""
    return name.replace(".", "-")
