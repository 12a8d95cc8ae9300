"""What training minimises: contrast, distillation, the likelihood of question tokens, and the number of postings.

Contrast: cross-entropy of a question's passage among all passages of the batch (TILDEv2, arXiv 2108.08513, section 4).
Distillation: Kullback-Leibler divergence of the ranking over those passages from the teachers' (as OpenSearch's sparse
encoders, arXiv 2411.04403; and Li-LSR, arXiv 2505.01452). Likelihood: binary cross-entropy of the tokens of a passage's
questions (TILDE, Zhuang and Zuccon 2021, SIGIR). Sparsity: FLOPS (Paria et al. 2020, "Minimizing FLOPs to Learn Efficient
Sparse Representations"), divided by idf, so that rare tokens are pressed less (arXiv 2411.04403).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def contrast(scores: Tensor, own: Tensor, *, allowed: Tensor) -> Tensor:
    """`scores`: (Q, P); `own`: the column of each question's passage, -1 for none; `allowed`: (Q, P), False where a passage may
    answer as well and must not be pushed away. 0 without any question that has a passage."""
    real = own >= 0
    if not bool(real.any()):
        return scores.sum() * 0
    return functional.cross_entropy(scores.masked_fill(~allowed, float("-inf"))[real], own[real])


def divergence(scores: Tensor, teacher: Tensor) -> Tensor:
    """Mean over questions of KL(teacher || student), both (Q, P) before the softmax."""
    wanted = functional.log_softmax(teacher, -1)
    return functional.kl_div(functional.log_softmax(scores, -1), wanted, reduction="batchmean", log_target=True)


def likelihood(logits: Tensor, targets: Tensor, *, counted: Tensor) -> Tensor:
    """Binary cross-entropy summed over the tokens in `counted`, mean over passages. All (P, V); `targets`: chances from 0 to 1."""
    every = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (every * counted).sum(1).mean()


def flops(mean: Tensor, idf: Tensor) -> Tensor:
    """Sum over tokens of the squared mean weight, each over its idf. Both (V,), `mean` over the passages of a batch."""
    return (mean.square() / idf.clamp(min=1.0)).sum()


def ramp(step: int, *, over: int) -> float:
    """0 at first, 1 from step `over` on, quadratic between, as SPLADE raises its penalty."""
    return min(1.0, (step / max(over, 1)) ** 2)
