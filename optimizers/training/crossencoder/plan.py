"""The numbers that a run is made with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides what a run learns, beside its data. `*_weight`: of the parts of the loss."""

    steps: int = 1500
    seed: int = 13
    queries: int = 16
    group: int = 4                      # passages of a query
    real_share: float = 0.8             # of the queries; the others are made up and have teachers only
    layer_rate: float = 7e-5
    head_rate: float = 1e-3
    warm_up: float = 0.1
    span_weight: float = 1.0
    chance_weight: float = 0.5
    divergence_weight: float = 0.3
    sharpness: float = 20.0             # of the teacher's cosines
    bf16: bool = False
