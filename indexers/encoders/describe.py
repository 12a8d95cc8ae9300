"""What a folder says about its encoder: one we converted, a sentence-transformers folder, or a plain Hugging Face one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rag.errors import ConfigError, ModelCorrupt

Pooling = Literal["mean", "cls"]
FORMAT = 1
_MARK = "thriftrag_encoder"
_NO_LIMIT = 1_000_000           # tokenizers say 1e30 when they mean none


@dataclass(frozen=True, slots=True)
class Description:
    """`source_sha256`: of the published weights, so that every conversion of them has the same name."""

    name: str
    dimension: int
    max_tokens: int
    pooling: Pooling
    normalise: bool
    pad_token_id: int
    source_sha256: str

    @property
    def identity(self) -> str:
        return f"{self.name}@{self.source_sha256[:8]}"


def write_description(folder: Path, description: Description) -> None:
    (folder / "config.json").write_text(json.dumps({_MARK: FORMAT, **asdict(description)}, indent=1), encoding="utf-8")


def describe(folder: Path, *, name: str, weights: Path) -> Description:
    """Ours as written; otherwise from the files that sentence-transformers and Hugging Face leave beside a model.

    Raises:
        ConfigError: no `config.json`, or it asks for something that is not supported.
        ModelCorrupt: `config.json` is ours and of another format, or not JSON.
    """
    config = read_json(folder / "config.json")
    if _MARK in config:
        if config.pop(_MARK) != FORMAT:
            raise ModelCorrupt(f"{folder} was converted by another version of thriftrag.",
                               hint="Delete it and pull it again.")
        return Description(**config)
    normalise = "Normalize" in module_kinds(folder) if (folder / "modules.json").is_file() else True
    return Description(name, int(config["hidden_size"]), _max_tokens(folder, config), pooling_of(folder), normalise,
                       int(config.get("pad_token_id") or 0), _sha256(weights))


def source_files(folder: Path) -> list[str]:
    """Paths of the files of a sentence-transformers folder that decide what its vectors are."""
    names = ["config.json", "modules.json", "sentence_bert_config.json", "tokenizer_config.json", "tokenizer.json",
             "model.safetensors"]
    names += [f"{path.name}/config.json" for path in folder.glob("*_Pooling")]
    return [name for name in names if (folder / name).is_file()]


def module_kinds(folder: Path) -> list[str]:
    """Class names of the modules of a sentence-transformers folder, in order."""
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    return [str(module["type"]).rsplit(".", 1)[-1] for module in modules]


def pooling_of(folder: Path) -> Pooling:
    """How token vectors become one; the mean where nothing is said.

    Raises:
        ConfigError: neither the mean nor the first token.
    """
    found = sorted(folder.glob("*_Pooling/config.json"))
    if not found:
        return "mean"
    config = read_json(found[0])
    prefix = "pooling_mode_"
    modes = {key.removeprefix(prefix) for key, on in config.items() if key.startswith(prefix) and on is True}
    modes |= {str(config["pooling_mode"])} if "pooling_mode" in config else set()
    if modes <= {"mean_tokens", "mean"} and modes:
        return "mean"
    if modes <= {"cls_token", "cls"} and modes:
        return "cls"
    raise ConfigError(f"{found[0]} asks for pooling {sorted(modes)}; only mean and cls are supported.",
                      hint="Name another embedder.")


def read_json(path: Path) -> dict[str, Any]:
    """
    Raises:
        ConfigError: the file is missing.
        ModelCorrupt: it is not a JSON object.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing.", hint="Name a complete model folder.") from None
    except ValueError as error:
        raise ModelCorrupt(f"{path} is not JSON: {error}.", hint="Pull or copy the model again.") from error
    if not isinstance(table, dict):
        raise ModelCorrupt(f"{path} is not a JSON object.", hint="Pull or copy the model again.")
    return table


def _max_tokens(folder: Path, config: dict[str, Any]) -> int:
    limits = [int(config["max_position_embeddings"])] if "max_position_embeddings" in config else [512]
    for file, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        if (folder / file).is_file():
            limit = read_json(folder / file).get(key)
            if limit is not None and limit < _NO_LIMIT:
                limits.append(int(limit))
    return min(limits)


def _sha256(weights: Path) -> str:
    with weights.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
