"""A BERT of two layers with random weights in sentence-transformers layout, a model of mere bytes, and wheels and
registries that carry them."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag.models import ModelCache, Role, load_registry
from rag.models.convert import Converter
from rag.models.registry import MirrorPackage, ModelEntry, SourceFile
from rag.types import OnProgress, Progress

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS), ".", ",", "?",
         "the", "warranty", "lasts", "two", "years"]
WIDTH, HEADS, LAYERS, INNER, POSITIONS = 32, 4, 2, 64, 64
NAME = "tiny-bert"
ROLES: tuple[Role, ...] = ("embedder", "reader")


def make_bert(folder: Path, *, seed: int = 0, pooling: str = "mean_tokens", normalise: bool = True, activation: str = "gelu",
              max_tokens: int = 24, prefix: str = "", dtype: type = np.float32) -> Path:
    """A folder that sentence-transformers reads as it is."""
    from safetensors.numpy import save_file

    (folder / "1_Pooling").mkdir(parents=True)
    _write(folder / "config.json", {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": activation, "hidden_size": WIDTH,
        "intermediate_size": INNER, "layer_norm_eps": 1e-12, "max_position_embeddings": POSITIONS,
        "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "pad_token_id": 0, "type_vocab_size": 2,
        "vocab_size": len(WORDS), "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1})
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")] + ([("2_Normalize", "Normalize")] if normalise else [])
    _write(folder / "modules.json", [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(modules)])
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH}
           | {f"pooling_mode_{mode}": mode == pooling for mode in modes})
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    _write(folder / "tokenizer_config.json",
           {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64})
    (folder / "tokenizer.json").write_text(_tokenizer(), encoding="utf-8")
    tensors: dict[str, np.ndarray] = {prefix + name: tensor.astype(dtype) for name, tensor in _weights(seed).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def bert_entry(folder: Path, packages: tuple[MirrorPackage, ...] = ()) -> ModelEntry:
    """A registry entry for a folder of `make_bert`; in the wheels its files are below `tiny/model/`."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = tuple(source_file(path, (folder / path).read_bytes(), member=f"tiny/model/{path}") for path in paths)
    return ModelEntry(NAME, "embedder", "Apache-2.0", "For tests.", "tests/tiny-bert", "main", 100_000, 100_000, files,
                      packages)


def source_file(path: str, content: bytes, *, member: str) -> SourceFile:
    return SourceFile(path, len(content), hashlib.sha256(content).hexdigest(), member)


def make_wheel(index: Path, name: str, *, members: dict[str, bytes], version: str = "1.0") -> MirrorPackage:
    """A wheel that pip accepts, in the folder `index`."""
    index.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    wheel = index / f"{stem}-py3-none-any.whl"
    info = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n", "RECORD": ""}
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        for member, text in info.items():
            archive.writestr(f"{stem}.dist-info/{member}", text)
    content = wheel.read_bytes()
    return MirrorPackage(name, version, len(content), hashlib.sha256(content).hexdigest())


def bert_wheel(index: Path, folder: Path, *, name: str = "tiny-bert-weights") -> MirrorPackage:
    return make_wheel(index, name, members={f"tiny/model/{path.relative_to(folder).as_posix()}": path.read_bytes()
                                            for path in folder.rglob("*") if path.is_file()})


BLOB = "blob"
SMALL, LARGE = b'{"small": true}', np.random.default_rng(7).bytes(900_000)


def blob_entry(packages: tuple[MirrorPackage, ...] = (), *, large: bytes = LARGE) -> ModelEntry:
    """A model of two files that mean nothing; `copy_files` converts it."""
    files = (source_file("small.json", SMALL, member="blob/small.json"),
             source_file("sub/large.bin", large, member="*/part*.bin"))
    return ModelEntry(BLOB, "embedder", "Apache-2.0", "For tests.", "tests/blob", "main", 1_000_000, 1_000_000, files,
                      packages)


def blob_wheels(index: Path, *, pieces: int, wheels: int) -> tuple[MirrorPackage, ...]:
    """The pieces of the large file dealt out over the wheels in turn; the small file is in the first."""
    size = -(-len(LARGE) // pieces)
    held: list[dict[str, bytes]] = [{} for _ in range(wheels)]
    held[0]["blob/small.json"] = SMALL
    for at in range(pieces):
        held[at % wheels][f"blob/part{at + 1}.bin"] = LARGE[at * size:(at + 1) * size]
    return tuple(make_wheel(index, f"blob-piece{at}", members=members) for at, members in enumerate(held, 1))


def copy_files(source: Path, out: Path, name: str, on_progress: OnProgress) -> None:
    """The converter of `blob_entry`."""
    on_progress(Progress("convert", 0, 1, "bytes", name))
    shutil.copytree(source, out, dirs_exist_ok=True)


def blob_cache(root: Path, entry: ModelEntry, converter: Converter = copy_files) -> ModelCache:
    return ModelCache(root, registry={entry.name: entry}, converters=dict.fromkeys(ROLES, converter))


def write_registry(path: Path, entries: Sequence[ModelEntry]) -> Path:
    """The entries as a registry file, which other processes can load."""
    lines = ["format = 1"]
    for entry in entries:
        lines.append("[[model]]")
        lines += [f"{key} = {json.dumps(getattr(entry, key))}" for key in (
            "name", "role", "licence", "description", "repo", "revision", "installed_bytes", "convert_bytes")]
        rows = [", ".join(f"{key} = {json.dumps(getattr(package, key))}" for key in ("name", "version", "bytes", "sha256"))
                for package in entry.packages]
        lines.append(f"packages = [{', '.join(f'{{ {row} }}' for row in rows)}]")
        for file in entry.files:
            lines.append("[[model.file]]")
            lines += [f"{key} = {json.dumps(getattr(file, key))}" for key in ("path", "bytes", "sha256", "member")]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert list(load_registry(path).values()) == list(entries)
    return path


def _tokenizer() -> str:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(WORDS[:5])
    tokenizer.enable_padding(length=16)                 # as published tokenizers often have: both must be undone
    tokenizer.enable_truncation(8)
    return str(tokenizer.to_str())


def _weights(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}

    def dense(name: str, out: int, into: int) -> None:
        tensors[f"{name}.weight"] = rng.normal(0, into**-0.5, (out, into))
        tensors[f"{name}.bias"] = rng.normal(0, 0.1, out)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = rng.normal(1, 0.1, WIDTH), rng.normal(0, 0.1, WIDTH)

    for name, rows in (("word", len(WORDS)), ("position", POSITIONS), ("token_type", 2)):
        tensors[f"embeddings.{name}_embeddings.weight"] = rng.normal(0, 1, (rows, WIDTH))
    norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            dense(f"{at}.attention.self.{part}", WIDTH, WIDTH)
        dense(f"{at}.attention.output.dense", WIDTH, WIDTH)
        norm(f"{at}.attention.output.LayerNorm")
        dense(f"{at}.intermediate.dense", INNER, WIDTH)
        dense(f"{at}.output.dense", WIDTH, INNER)
        norm(f"{at}.output.LayerNorm")
    return tensors


def _write(path: Path, table: object) -> None:
    path.write_text(json.dumps(table), encoding="utf-8")
