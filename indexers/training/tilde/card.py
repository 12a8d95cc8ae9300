"""What a run leaves for people: curves of loss and quality, and the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from indexers.encoders.term_weights import TermModel
from indexers.training.tilde.dev import Quality
from indexers.training.tilde.plan import Plan
from rag.errors import ConfigError


@dataclass(slots=True)
class History:
    """Means of loss parts since the last entry, and quality on each slice, by step; `peers`: BM25 and dense on the same."""

    peers: dict[str, dict[str, float]] = field(default_factory=dict)
    entries: list[dict[str, object]] = field(default_factory=list)

    def add(self, step: int, losses: Mapping[str, float], qualities: Mapping[str, tuple[Quality, Quality]], *, seconds: float
            ) -> None:
        """`qualities`: with expansion and without. An entry of the same step, from a run that was killed, is replaced."""
        self.entries = [entry for entry in self.entries if entry["step"] != step and _step(entry) < step]
        self.entries.append({"step": step, "seconds": round(seconds, 1),
                             "loss": {name: round(value, 5) for name, value in losses.items()},
                             "dev": {name: full.to_dict() for name, (full, _) in qualities.items()},
                             "dev_without_expansion": {name: bare.to_dict() for name, (_, bare) in qualities.items()}})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({"format": 1, "peers": self.peers, "entries": self.entries}, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> History:
        """Empty where there is none."""
        if not path.is_file():
            return cls()
        told = json.loads(path.read_text(encoding="utf-8"))
        return cls(told["peers"], told["entries"])


def plot(history: History, path: Path) -> None:
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
    figure = Figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    steps = [_step(entry) for entry in history.entries]
    for name in _names(history, "loss"):
        left.plot(steps, [_table(entry, "loss").get(name, float("nan")) for entry in history.entries], label=name)
    left.set(yscale="log", xlabel="step", title="parts of the loss, unweighted")
    for at, name in enumerate(_names(history, "dev")):
        values = [_table(_table(entry, "dev"), name).get("ndcg@10") for entry in history.entries]
        right.plot(steps, values, color=f"C{at}", label=name)
        for peer, style in (("bm25", ":"), ("dense", "--")):
            if name in history.peers.get(peer, {}):
                right.axhline(history.peers[peer][name], color=f"C{at}", linestyle=style, linewidth=0.8)
    right.set(xlabel="step", title="nDCG@10 held out (dotted: BM25, dashed: dense)")
    for plotted in (left, right):
        plotted.legend(fontsize=7)
        plotted.grid(alpha=0.3)
    figure.savefig(path, format="png", metadata={"Software": None})


def card(model: TermModel, *, history: History, plan: Plan, command: str, data: Sequence[str], licences: Mapping[str, str],
         size_bytes: int) -> str:
    """The model card in Markdown."""
    facts = model.facts
    lines = [f"# Term weights {model.name} for {facts.encoder}", "",
             "Learned sparse weights after TILDEv2 on a frozen dense encoder: one pass gives the dense vector, unchanged, and the "
             "weight of each token; questions need a tokenizer and a table only.", "",
             f"- file: {size_bytes:,} bytes, half precision; one transformer layer over the hidden states after layer {facts.tap}",
             f"- expansion: tokens with a chance above {facts.cut_probability:.3f} among the {facts.expanded} likeliest",
             f"- impacts: 8 bits, scale {facts.scale:.4f}", "- licence of the weights: Apache-2.0; of the data, see below", "",
             "## Made by", "", "```", command, "```", "", f"Settings: `{json.dumps(asdict(plan))}`", "", "## Data", "",
             "| data set | licence |", "|---|---|"]
    lines += [f"| {name} | {licences.get(name, 'see its README')} |" for name in data]
    lines += ["", "Never evaluate on these.", "", "## Quality on held-out slices", "",
              "nDCG@10 over part of each corpus; slices of the training sets are easier than other sets.", "",
              "| slice | BM25 | dense | term weights | without expansion | tokens a passage | of these added |",
              "|---|---|---|---|---|---|---|"]
    if history.entries:
        last = history.entries[-1]
        for name in _names(history, "dev"):
            full, bare = _table(_table(last, "dev"), name), _table(_table(last, "dev_without_expansion"), name)
            peers = [f"{history.peers[peer][name]:.3f}" for peer in ("bm25", "dense")]
            lines.append(f"| {name} | {peers[0]} | {peers[1]} | {full['ndcg@10']:.3f} | {bare['ndcg@10']:.3f} | "
                         f"{full['postings']:.0f} | {full['added']:.0f} |")
    lines += ["", "![curves](curves.png)", "", "## Limits", "",
              "- English. Words of other Latin scripts are matched piece by piece, other scripts not at all: use BM25 for them.",
              f"- Belongs to the vectors of {facts.encoder}; other encoders are refused.",
              "- Text beyond the encoder's window carries no weight.", ""]
    return "\n".join(lines)


def _names(history: History, part: str) -> list[str]:
    return list(dict.fromkeys(name for entry in history.entries for name in _table(entry, part)))


def _table(entry: Mapping[str, object], part: str) -> dict[str, float]:
    found = entry.get(part, {})
    assert isinstance(found, dict)      # written by `add`
    return found


def _step(entry: Mapping[str, object]) -> int:
    step = entry["step"]
    assert isinstance(step, int)        # written by `add`
    return step
