"""What a run leaves for people: curves of loss and quality, and the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from indexers.training.licences import licences
from optimizers.crossencoder.model import CrossModel
from optimizers.training.crossencoder.plan import Plan
from rag.errors import ConfigError

Entry = Mapping[str, object]
COLUMNS = ("passage", "dense", "both", "sentence", "sentences")


def plot(history: Sequence[Entry], path: Path) -> None:
    """
    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("Plots need matplotlib, which is not installed.", hint="pip install 'thriftrag[plots]'",
                          field="plots") from error
    figure = Figure(figsize=(13, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    steps = [cast(int, entry["step"]) for entry in history]
    for name in _names(history, "parts"):
        left.plot(steps, [_table(entry, "parts").get(name, float("nan")) for entry in history], label=name)
    left.set(yscale="log", xlabel="step", title="parts of the loss, unweighted")
    for at, name in enumerate(_names(history, "slices")):
        of_slice = [_table(_table(entry, "slices"), name) for entry in history]
        middle.plot(steps, [each["passage"] for each in of_slice], color=f"C{at}", label=name)
        middle.axhline(of_slice[0]["dense"], color=f"C{at}", linestyle="--", linewidth=0.8)
        right.plot(steps, [each["sentence"] for each in of_slice], color=f"C{at}", label=name)
    middle.set(xlabel="step", title="right passage first (dashed: dense)")
    right.set(xlabel="step", title="right sentence first")
    for plotted in (left, middle, right):
        plotted.legend(fontsize=7)
        plotted.grid(alpha=0.3)
    figure.savefig(path, format="png", metadata={"Software": None})


def card(model: CrossModel, *, history: Sequence[Entry], plan: Plan, command: str, folders: Sequence[Path], size_bytes: int) -> str:
    """The model card in Markdown."""
    told = licences(folders)
    lines = [f"# Cross-encoder {model.name} for {model.facts.encoder}", "",
             "Scores each sentence of a passage by how well it answers a question. Question and passage pass the dense encoder's "
             f"first {model.facts.tap} layers apart and the {len(model.layers)} layers of this file together.", "",
             f"- file: {size_bytes:,} bytes, half precision", "- licence of the weights: Apache-2.0; of the data, see below", "",
             "## Made by", "", "```", command, "```", "", f"Settings: `{json.dumps(asdict(plan))}`", "", "## Data", "",
             "| data set | licence |", "|---|---|"]
    lines += [f"| {folder.name} | {told.get(folder.name, 'see its README')} |" for folder in folders]
    lines += ["", "Never evaluate on these.", "", "## Quality on held-out questions and on other sets", "",
              "Share of questions; candidates: the best 8 of BM25 and of the dense vectors, where the right passage is among them. "
              "Both: sum of z-scores of cross-encoder and dense.", "",
              "| slice | right passage first | dense alone | both | right sentence first | among the first three |",
              "|---|---|---|---|---|---|"]
    if history:
        for name in _names(history, "slices"):
            row = _table(_table(history[-1], "slices"), name)
            lines.append(f"| {name} | " + " | ".join(f"{row[column]:.3f}" for column in COLUMNS) + " |")
    lines += ["", "![curves](curves.png)", "", "## Limits", "", "- English.",
              f"- Belongs to {model.facts.encoder}; other encoders are refused.", ""]
    return "\n".join(lines)


def _names(history: Sequence[Entry], part: str) -> list[str]:
    return list(dict.fromkeys(name for entry in history for name in _table(entry, part)))


def _table(entry: Entry, part: str) -> dict[str, float]:
    return cast("dict[str, float]", entry.get(part, {}))
