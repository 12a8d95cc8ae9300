"""What a reader's folder says about itself: window, chat template, end tokens.

A folder converted here carries `reader.json`. Any other OpenVINO folder (for instance from `optimum-cli export openvino`)
carries the files of its Hugging Face original, which say the same things in several places.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rag.errors import ModelCorrupt, ModelUnavailable

FILE = "reader.json"
FORMAT = 1
NEEDED = ("openvino_model.xml", "openvino_model.bin", "tokenizer.json")
# A window nobody states must not be guessed too large: an overflow is cut in silence by some models.
UNSTATED_WINDOW = 4096


@dataclass(frozen=True, slots=True)
class ReaderCard:
    """`eos_ids` end an answer. `bos_token` and `eos_token` are for the chat template only."""

    name: str
    context_window: int
    chat_template: str
    eos_ids: tuple[int, ...]
    bos_token: str = ""
    eos_token: str = ""
    source: str = ""            # name of the file that was converted


def write_card(folder: Path, card: ReaderCard) -> None:
    table = {"format": FORMAT, **asdict(card)}
    (folder / FILE).write_text(json.dumps(table, ensure_ascii=False, indent=1), encoding="utf-8")


def read_card(folder: Path) -> ReaderCard:
    """The card of a folder that holds a reader.

    Raises:
        ModelUnavailable: a file that a reader needs is missing, or no chat template or end token is stated.
        ModelCorrupt: a file cannot be read.
    """
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise ModelUnavailable(f"{folder} is not a reader: it lacks {', '.join(missing)}.",
                               hint="Name a folder made by `optimum-cli export openvino`, or run `thriftrag models pull`.")
    card = _own(folder) if (folder / FILE).is_file() else _foreign(folder)
    if not card.chat_template or not card.eos_ids:
        lack = "chat template" if not card.chat_template else "end token"
        raise ModelUnavailable(f"{folder} states no {lack}.", hint="Use an instruction-tuned model, with its "
                               "tokenizer_config.json and generation_config.json beside it.")
    return card


def read_chat(folder: Path) -> ReaderCard | None:
    """The card of a folder that holds a tokenizer, perhaps no model; None if it states no chat template."""
    card = _own(folder) if (folder / FILE).is_file() else _foreign(folder)
    return card if card.chat_template else None


def _own(folder: Path) -> ReaderCard:
    table = _table(folder / FILE)
    if table.pop("format", None) != FORMAT:
        raise ModelCorrupt(f"{folder / FILE} has another format than {FORMAT}.", hint="Convert the model again.")
    try:
        return ReaderCard(**{**table, "eos_ids": tuple(table["eos_ids"])})
    except (KeyError, TypeError) as error:
        raise ModelCorrupt(f"{folder / FILE} lacks or misspells a key: {error}", hint="Convert the model again.") from error


def _foreign(folder: Path) -> ReaderCard:
    config, tokenizer = _table(folder / "config.json"), _table(folder / "tokenizer_config.json")
    generation = _table(folder / "generation_config.json")
    eos = generation.get("eos_token_id", config.get("eos_token_id"))
    apart = folder / "chat_template.jinja"
    template = apart.read_text(encoding="utf-8") if apart.is_file() else _template(tokenizer.get("chat_template"))
    window = config.get("max_position_embeddings", UNSTATED_WINDOW)
    return ReaderCard(
        name=folder.name, context_window=window if isinstance(window, int) else UNSTATED_WINDOW, chat_template=template,
        eos_ids=tuple(number for number in (eos if isinstance(eos, list) else [eos]) if isinstance(number, int)),
        bos_token=_content(tokenizer.get("bos_token")), eos_token=_content(tokenizer.get("eos_token")))


def _template(value: object) -> str:
    """Some models carry several templates; the one named `default` is the chat one."""
    if isinstance(value, list):
        named = {row.get("name"): row.get("template") for row in value if isinstance(row, Mapping)}
        value = named.get("default")
    return value if isinstance(value, str) else ""


def _content(token: object) -> str:
    """A special token, written as a string or as a table."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _table(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelCorrupt(f"{path} cannot be read: {error}", hint="Fetch the model again.") from error
    if not isinstance(table, dict):
        raise ModelCorrupt(f"{path} is not a JSON object.", hint="Fetch the model again.")
    return table
