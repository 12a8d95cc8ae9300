"""Term weights beside the dense vector: the model file, what a question becomes, and the protocol that ingestion codes against.

The method is TILDEv2 (Zhuang and Zuccon 2021, arXiv 2108.08513, sections 3 and 4) with what newer work adds (section numbers
are those of the papers named): a passage is scored by the sum, over the tokens of the question that it holds, of

    weight of the token in questions  *  greatest weight of its occurrences in the passage
    weight in questions = softplus(a table (Li-LSR, arXiv 2505.01452) + from_idf * idf (arXiv 2411.04403))

where idf is that of the collection which is searched, drawn towards that of the training passages while it is small
(`TermModel.weights`), words of one stem are one token, and repetition and length act as in BM25 (`saturation`).
Departures: the backbone is a dense encoder that stays as it is, so that one pass gives the dense vector and, through one
transformer layer of its own that reads the backbone's hidden states after layer `tap`, the term weights; expansion tokens get
their weight from the same pass, instead of being appended and encoded together with the passage in a second one; and where
the expansion is cut is a probability, never a rank among vocabulary ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from indexers.encoders import Encoder, Vectors
from indexers.encoders.term_weights_tokens import Mask, read_vocabulary, vocabulary_digest
from indexers.encoders.tokenizing import EncoderTokenizer
from indexers.impacts import Impacts, Query, Statistics, Weighed
from rag.errors import ModelCorrupt, SnapshotMismatch

Floats = NDArray[np.float32]
FORMAT = 1
FILE = "term_weights.safetensors"   # in a model's own folder
RANGES = ".int8.safetensors"        # of the 8-bit ranges beside a weights file, in place of its suffix
SHIPPED = Path(__file__).parent / "tilde"
LEVELS = 255                    # of an 8-bit impact
# How many passages' worth of idf the training passages are. Of 500, 2,000 and 5,000 the best on CACM, TAT-QA and RGB.
TRAINING_COUNTS = 2000
_MARK = "thriftrag_term_weights"
_TRAIN = "Train weights for this encoder with `python -m indexers.training.tilde`, or search with another mode."
LINEAR = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "intermediate.dense",
          "output.dense")
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


@dataclass(frozen=True, slots=True)
class TermFacts:
    """What a weights file says about itself.

    `encoder`: identity of the backbone, as its `name`. `vocabulary`: digest of the backbone's tokens. `tap`: backbone layers
    that the hidden states have passed. `scale`: the greatest weight met in training, which is the impact 255. `expanded`:
    how many of the likeliest tokens are looked at, before those that the passage holds and stop words are dropped.
    `k1`, `b`, `mean_length`: how repetition and length of a passage act, see `saturation`. `steepness`, `cut`: an expansion
    token of logit z weighs steepness * (z - cut); up to the cut it is not added. `from_idf`: see `TermModel.weights`.
    """

    encoder: str
    vocabulary: str
    tap: int
    heads: int
    epsilon: float
    activation: str
    scale: float
    expanded: int
    steepness: float
    cut: float
    k1: float
    b: float
    mean_length: float
    from_idf: float

    @property
    def cut_probability(self) -> float:
        """The chance, as TILDE's likelihood training makes it, from which on a missing token is added."""
        return float(1 / (1 + np.exp(-self.cut)))


@dataclass(frozen=True, slots=True, eq=False)
class TermModel:
    """One trained model. `name` changes with any byte of its file; equal names mean comparable weights.

    `layer`: tensors of the own BERT layer by their usual names. `expansion`: dense.weight (H, H), dense.bias (H,), norm.weight,
    norm.bias (H,), low.into (H, R), low.out (R, V), bias (V,). `asked`, `idf`: of each token, (V,), see `weights`.
    `kept`, `addable`: tokens that may carry a weight, and that expansion may add (V,). `folds`: the token that each counts as.
    """

    name: str
    facts: TermFacts
    layer: Mapping[str, Floats]
    weight: Floats              # (H,)
    bias: float
    expansion: Mapping[str, Floats]
    asked: Floats
    idf: Floats
    kept: Mask
    addable: Mask
    folds: NDArray[np.int32]

    @property
    def size(self) -> int:
        """Tokens of the vocabulary."""
        return len(self.asked)

    def weights(self, tokens: NDArray[np.int32], *, statistics: Statistics | None = None) -> Floats:
        """The weight of each of these tokens in questions to the collection of these statistics: softplus(asked + from_idf * idf).
        Without statistics idf is that of the training passages."""
        idf = self.idf[tokens] if statistics is None else drawn_idf(self.idf[tokens], statistics, tokens)
        return np.logaddexp(0, self.asked[tokens] + self.facts.from_idf * idf).astype(np.float32)

    @property
    def least(self) -> float:
        """Weights below are less than half of the smallest impact and are left out."""
        return self.facts.scale / LEVELS / 2


def drawn_idf(trained: Floats, statistics: Statistics, tokens: NDArray[np.integer]) -> Floats:
    """The idf of these tokens in a collection, ln(1 + (N - n + 0.5) / (n + 0.5)) as BM25 has it, drawn towards that of the
    training passages: with N passages it counts N times, the other `TRAINING_COUNTS` times. A table of question weights alone
    does not know that a word is common here, and the idf of ten passages knows nothing else."""
    count, held = statistics.passages, statistics.holding[tokens]
    own = np.log1p((count - held + 0.5) / (held + 0.5))
    found: Floats = ((count * own + TRAINING_COUNTS * trained) / (count + TRAINING_COUNTS)).astype(np.float32)
    return found


class TermWeights(Encoder, Protocol):
    """A dense encoder that gives the term weights of each text in the same pass."""

    terms: TermModel

    def encode_with_terms(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None
                          ) -> tuple[Vectors, list[Impacts]]:
        """Vectors as `encode` gives them, and for each text its distinct tokens, ascending, with positive weights. A text
        without any word gives empty arrays. What is beyond `max_tokens` is not read."""

    def query(self, text: str, *, statistics: Statistics | None = None) -> Query:
        """What a question to the collection of these statistics becomes, without the network: see `query_of`."""


def of(encoder: object) -> TermWeights | None:
    """The encoder, or what it wraps, that gives term weights; None if nothing does."""
    while encoder is not None and not isinstance(getattr(encoder, "terms", None), TermModel):
        encoder = getattr(encoder, "inner", None)
    return cast("TermWeights | None", encoder)


def encoded(encoder: Encoder, texts: Sequence[str], *, wanted: bool, on_batch: Callable[[int], None] | None = None
            ) -> tuple[Vectors, Weighed | None]:
    """Vectors, and term weights where they are `wanted`; the encoder then gives some (see `of`)."""
    weighing = of(encoder) if wanted else None
    if weighing is None:
        return encoder.encode(texts, on_batch=on_batch), None
    vectors, impacts = weighing.encode_with_terms(texts, on_batch=on_batch)
    return vectors, Weighed(impacts, weighing.terms.size, weighing.terms.facts.scale)


def find(encoder: str, *, folder: Path | None = None) -> Path | None:
    """The weights for an encoder of this name: in the model's own folder, or shipped with us; None if there are none."""
    names = [] if folder is None else [folder / FILE]
    for path in (*names, SHIPPED / f"{encoder.replace('@', '-')}.safetensors"):
        if path.is_file():
            return path
    return None


def ranges_of(weights: Path) -> Path:
    """Where the 8-bit ranges of the branch lie."""
    return weights.with_name(weights.stem + RANGES)


def opened(folder: Path, *, encoder: str) -> TermModel | None:
    """The term weights for the encoder in this folder, whose name is `encoder`; None if there are none. Raises as `read`."""
    path = find(encoder, folder=folder)
    if path is None:
        return None
    return read(path, encoder=encoder, vocabulary=vocabulary_digest(read_vocabulary(folder / "tokenizer.json")))


def read(path: Path, *, encoder: str, vocabulary: str) -> TermModel:
    """
    Raises:
        SnapshotMismatch: the weights belong to another encoder or another vocabulary; both are named.
        ModelCorrupt: no weights file, one of another format, or one that lacks something.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            told = json.loads((file.metadata() or {})[_MARK])
            told.pop("notes", None)
            tensors = {name: file.get_tensor(name) for name in file.keys()}     # noqa: SIM118  # no mapping
        if told.pop("format") != FORMAT:
            raise ModelCorrupt(f"{path} was written by another version of thriftrag.", hint=_TRAIN)
        facts = TermFacts(**told)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelCorrupt(f"{path} does not hold term weights: {error}.", hint=_TRAIN) from error
    if facts.encoder != encoder:
        raise SnapshotMismatch(f"{path} has term weights for {facts.encoder}, not for {encoder}.", hint=_TRAIN,
                               code="model_mismatch")
    if facts.vocabulary != vocabulary:
        raise SnapshotMismatch(f"{path} has term weights over vocabulary {facts.vocabulary}; {encoder} has {vocabulary}.",
                               hint=_TRAIN, code="model_mismatch")
    return _model(path, facts, tensors)


def write(path: Path, model: TermModel, *, notes: Mapping[str, str]) -> None:
    """Floats in half precision. `notes`: further facts for the file's header, such as the command that made it."""
    from safetensors.numpy import save_file

    half = {f"layer.{name}": tensor for name, tensor in model.layer.items()}
    half |= {f"expansion.{name}": tensor for name, tensor in model.expansion.items()}
    half |= {"weight": model.weight, "bias": np.asarray([model.bias], np.float32), "asked": model.asked,
             "idf": model.idf}
    tensors = {name: np.ascontiguousarray(tensor, np.float16) for name, tensor in half.items()}
    masks = {"kept": model.kept.astype(np.uint8), "addable": model.addable.astype(np.uint8), "folds": model.folds}
    # One entry: the library writes several in no fixed order, and the same model should be the same file.
    told = json.dumps({"format": FORMAT, "notes": dict(notes), **asdict(model.facts)}, sort_keys=True)
    save_file({**tensors, **masks}, path, metadata={_MARK: told})


def query_of(text: str, model: TermModel, *, tokenizer: EncoderTokenizer, statistics: Statistics | None = None) -> Query:
    """Distinct tokens, ascending, with their weights (see `TermModel.weights`); a repeated token counts again, a piece of a word
    less (`_shares`). Both empty for a question of stop words or of a script that the vocabulary does not spell out: answer it by
    another mode, and say so."""
    ids = np.asarray(tokenizer.encode([text])[0], np.int32)
    kept = model.kept[ids]
    found, where = np.unique(model.folds[ids[kept]], return_inverse=True)
    times = np.zeros(len(found), np.float32)
    np.add.at(times, where, _shares(kept, tokenizer.continues(ids.tolist())))
    return found, (model.weights(found, statistics=statistics) * times).astype(np.float32)


def _shares(kept: Mask, continues: Mask) -> Floats:
    """How often each kept token of a question counts: once, but 1 / sqrt(k) as one of k pieces of a word. If it counted as often as
    it has pieces a name would outweigh everything else in the question, and fragments of other names would match it."""
    word = np.cumsum(~continues)
    pieces = np.bincount(word[kept], minlength=len(word) + 1)
    found: Floats = (1 / np.sqrt(pieces[word[kept]])).astype(np.float32)
    return found


def saturation(times: Floats, length: float, *, facts: TermFacts) -> Floats:
    """What a weight is multiplied with for how often its token occurs in a passage of `length` words: BM25's factor (Robertson
    and Zaragoza 2009, section 3), 1 for one occurrence in a passage of mean length. Training starts from BM25 and departs from
    it by context; TILDEv2 takes the greatest weight alone."""
    k1 = np.float32(facts.k1)
    norm = np.float32(1 - facts.b + facts.b * length / facts.mean_length)
    found: Floats = times * (k1 + 1) / (times + k1 * norm)
    return found


def impacts_of(ids: NDArray[np.int64], weights: Floats, *, added: NDArray[np.int32], logits: Floats, model: TermModel) -> Impacts:
    """The weights of one passage: of each token the greatest of its occurrences, times `saturation`; and those of expansion
    tokens it does not hold.

    `ids`, `weights`: of its tokens in order, (T,), padding left out. `added`, `logits`: the likeliest tokens, (m,), each once.
    """
    present = model.kept[ids]
    tokens, where, times = np.unique(model.folds[ids[present]], return_inverse=True, return_counts=True)
    best = np.zeros(len(tokens), np.float32)
    np.maximum.at(best, where, weights[present])
    best *= saturation(times.astype(np.float32), len(where), facts=model.facts)
    new = model.addable[added] & (logits > model.facts.cut) & ~np.isin(added, tokens)
    every = np.concatenate([tokens.astype(np.int32), added[new].astype(np.int32)])
    values = np.concatenate([best, np.float32(model.facts.steepness) * (logits[new] - np.float32(model.facts.cut))])
    order = np.argsort(every, kind="stable")
    order = order[values[order] >= max(model.least, np.finfo(np.float32).tiny)]
    return every[order], values[order].astype(np.float32)


def _model(path: Path, facts: TermFacts, tensors: Mapping[str, NDArray[np.generic]]) -> TermModel:
    def part(prefix: str) -> dict[str, Floats]:
        return {name.removeprefix(prefix): tensor.astype(np.float32) for name, tensor in tensors.items()
                if name.startswith(prefix)}

    try:
        model = TermModel(f"tilde@{_digest(path)}", facts, part("layer."), tensors["weight"].astype(np.float32).reshape(-1),
                          float(tensors["bias"].astype(np.float32)[0]), part("expansion."), tensors["asked"].astype(np.float32),
                          tensors["idf"].astype(np.float32),
                          tensors["kept"].astype(bool), tensors["addable"].astype(bool), tensors["folds"].astype(np.int32))
    except KeyError as error:
        raise ModelCorrupt(f"{path} has no tensor {error}.", hint=_TRAIN) from error
    wrong = _first_wrong_shape(model)
    if wrong is not None:
        raise ModelCorrupt(f"{path}: {wrong}.", hint=_TRAIN)
    return model


def _first_wrong_shape(model: TermModel) -> str | None:
    width, size = len(model.weight), model.size
    inner = len(model.layer.get("intermediate.dense.bias", ()))
    wide = {"intermediate.dense": (inner, width), "output.dense": (width, inner)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name in LINEAR:
        shapes[f"{name}.weight"] = wide.get(name, (width, width))
        shapes[f"{name}.bias"] = shapes[f"{name}.weight"][:1]
    for name in NORMS:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)
    rank = model.expansion.get("low.into", np.zeros((0, 0))).shape[-1]
    expansion = {"dense.weight": (width, width), "dense.bias": (width,), "norm.weight": (width,), "norm.bias": (width,),
                 "low.into": (width, rank), "low.out": (rank, size), "bias": (size,)}
    for held, wanted in ((model.layer, shapes), (model.expansion, expansion)):
        for name, shape in wanted.items():
            found = held[name].shape if name in held else None
            if found != shape:
                return f"tensor {name} has shape {found}, not {shape}"
    every = {**model.layer, **model.expansion, "weight": model.weight, "asked": model.asked, "idf": model.idf}
    broken = [name for name, tensor in every.items() if not np.isfinite(tensor).all()]
    if broken:
        return f"tensor {broken[0]} holds numbers that are not finite"
    if not model.idf.shape == model.kept.shape == model.addable.shape == (size,) or not model.kept.any():
        return "its masks do not fit its table of question weights"
    if model.folds.shape != (size,) or ((model.folds < 0) | (model.folds >= size)).any():
        return f"its folds name tokens beyond {size}"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:8]
