"""Small models and data for tests of term weights: a random backbone, random term weights, data sets of its few words."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import torch

from indexers.encoders.bert import convert_bert
from indexers.training.tilde.backbone import backbone, published
from indexers.training.tilde.network import Backbone, TermNetwork
from rag.types import no_progress
from tests.tiny_models import WORDS, make_bert

TELLING = ["warranty", "lasts", "two", "years", "b", "c", "e", "f", "g", "h", "k"]


def make_backbone(root: Path, *, tap: int = 1) -> tuple[Path, Path, Backbone]:
    """The published folder, the converted one, and what training reads of it. Their name is `tiny`."""
    source, converted = make_bert(root / "source", max_tokens=48), root / "tiny"
    converted.mkdir()
    convert_bert(source, converted, name="tiny", on_progress=no_progress)
    return source, converted, backbone(published(source, name="tiny"), tap=tap)


def random_network(base: Backbone, *, seed: int = 0) -> TermNetwork:
    """Every part does something: weights of both signs before the ReLU, expansions, question weights."""
    torch.manual_seed(seed)
    size = len(base.words)
    network = TermNetwork(base, np.linspace(1, 4, size, dtype=np.float32), mean_length=5.0, asked=np.full(size, 0.1, np.float32))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        network.weight.weight.mul_(0.3)
        network.weight.bias.fill_(1.0)
        network.cut.fill_(-1.0)
    return network.eval()


def make_data(folder: Path, *, passages: int = 40, seed: int = 0) -> Path:
    """Passages of a few words, and two questions on most of them: half of their words, and a word more."""
    rng = random.Random(seed)
    corpus, queries = [], []
    for at in range(passages):
        words = rng.sample(TELLING, 6)
        corpus.append({"id": f"p{at}", "title": f"{words[0]} {words[1]}" if at % 3 == 0 else "", "text": " ".join(words) + "."})
        for number in range(2):
            asked = [*rng.sample(words, 3), "the", rng.choice(TELLING)]
            queries.append({"id": f"q{at}-{number}", "question": " ".join(asked), "answers": [], "evidence": [f"p{at}"],
                            "type": "pair"})
    folder.mkdir(parents=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def token(word: str) -> int:
    return WORDS.index(word)
