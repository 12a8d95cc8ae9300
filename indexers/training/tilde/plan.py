"""The numbers that a run is made with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from rag.errors import ConfigError

_OWN_OPTIONS = ("steps", "seed", "bf16")


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides what a run learns, beside its data. `*_weight`: of the parts of the loss."""

    steps: int = 1500
    seed: int = 13
    queries: int = 16
    group: int = 8
    real_share: float = 0.5
    layer_rate: float = 1e-4
    head_rate: float = 5e-4
    table_rate: float = 1e-3
    warm_up: float = 0.1
    contrast_weight: float = 1.0
    divergence_weight: float = 1.0
    likelihood_weight: float = 0.01
    flops_weight: float = 1e-3
    added_weight: float = 1e-3
    dense_sharpness: float = 20.0       # what its own training divided cosines by, .05
    dense_teaches: float = 1.0          # how much the dense vectors say against each of the other teachers
    bf16: bool = False


def changed(plan: Plan, pairs: Sequence[str]) -> Plan:
    """The plan with these `NAME=VALUE` pairs.

    Raises:
        ConfigError: no such number, or the value is none.
    """
    numbers = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan) if field.name not in _OWN_OPTIONS}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in numbers:
            raise ConfigError(f"There is no number {name!r} to set.", hint=f"Use one of {', '.join(sorted(numbers))}.", field="set")
        try:
            numbers[name] = int(value) if isinstance(numbers[name], int) else float(value)
        except ValueError:
            raise ConfigError(f"{pair!r} sets no number.", hint="Write NAME=VALUE.", field="set") from None
    return dataclasses.replace(plan, **numbers)
