"""Checkpoints of a training run: a network, its optimiser, and what they belong to, in one safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rag.errors import ConfigError, ModelCorrupt

CHECKPOINT = "checkpoint.safetensors"


def save(path: Path, network: nn.Module, steps: torch.optim.Optimizer, *, step: int, told: Mapping[str, object]) -> None:
    """`told`: what the run is made with, JSON values, of which `plan` is a mapping; a checkpoint of other ones is refused."""
    from safetensors.torch import save_file

    tensors = {f"network.{name}": tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    for at, state in steps.state_dict()["state"].items():
        tensors |= {f"optimiser.{at}.{name}": torch.as_tensor(value).detach().cpu().contiguous() for name, value in state.items()}
    aside = path.with_suffix(".part")
    save_file(tensors, aside, metadata={"step": str(step), "told": json.dumps(told, sort_keys=True)})
    os.replace(aside, path)


def restore(path: Path, network: nn.Module, steps: torch.optim.Optimizer, *, told: Mapping[str, object]) -> int:
    """The step to go on from; 0 without a checkpoint.

    Raises:
        ConfigError: the checkpoint is of another plan or other data.
        ModelCorrupt: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}     # noqa: SIM118  # no mapping
        then, step = json.loads(header["told"]), int(header["step"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelCorrupt(f"{path} is no checkpoint: {error}.", hint="Delete it to start again.") from error
    now = json.loads(json.dumps(told))
    if then != now:
        differ = [f"{name} {then['plan'].get(name)}, not {value}" for name, value in now["plan"].items()
                  if then["plan"].get(name) != value] or [f"data {then['data']}, not {now['data']}"]
        raise ConfigError(f"{path} is of a run with {', '.join(differ)}.", hint="Name another --out, or delete the checkpoint.",
                          field="out")
    prefix = "network."
    network.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)})
    restored: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, at, key = name.split(".")
            restored.setdefault(int(at), {})[key] = tensor
    steps.load_state_dict({**steps.state_dict(), "state": restored})
    return step
