"""The tokenizer inside a GGUF file, written out as a Hugging Face `tokenizer.json`.

GGUF names the way text is cut into words (`tokenizer.ggml.pre`) and carries tokens and merges. The cutting patterns and
normalisers below are those of the models' own `tokenizer.json` files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag.errors import ModelUnavailable

# Token types of the GGUF format.
_CONTROL, _USER_DEFINED = 3, 4

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, slots=True)
class _Cut:
    pattern: str
    normalizer: str | None
    ignore_merges: bool


_CUTS = {
    "qwen2": _Cut(rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}", "NFC", False),
    "llama-bpe": _Cut(rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}", None, True),
}
# Tokens that end a turn, by name, whatever the file says: some files state only one of the two that a model uses.
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokenizer part of a GGUF file's metadata, tokens in the order of their ids."""

    model: str
    cut: str
    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str]
    eos_id: int


def eos_ids(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Ids that end an answer, the stated one first."""
    named = [number for number, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
             if kind == _CONTROL and token in _ENDS]
    return tuple(dict.fromkeys([vocabulary.eos_id, *named]))


def tokenizer_json(vocabulary: Vocabulary) -> Mapping[str, object]:
    """The content of `tokenizer.json`.

    Raises:
        ModelUnavailable: a kind of tokenizer whose rules we do not have.
    """
    cut = _CUTS.get(vocabulary.cut) if vocabulary.model == "gpt2" else None
    if cut is None:
        kind = f"{vocabulary.model!r} with pre-tokenizer {vocabulary.cut!r}"
        raise ModelUnavailable(f"The file's tokenizer is of a kind that is not supported: {kind}.",
                               hint=f"Supported: gpt2 with {' or '.join(_CUTS)}. Otherwise name an OpenVINO folder made by "
                               "`optimum-cli export openvino`.")
    added = [number for number, kind in enumerate(vocabulary.types) if kind in (_CONTROL, _USER_DEFINED)]
    inside = range(_tail(added, total=len(vocabulary.tokens)))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": cut.pattern}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": number, "content": vocabulary.tokens[number], "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True} for number in added],
        "normalizer": {"type": cut.normalizer} if cut.normalizer else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": cut.ignore_merges,
                  "vocab": {vocabulary.tokens[number]: number for number in inside}, "merges": list(vocabulary.merges)},
    }


def _tail(added: Sequence[int], *, total: int) -> int:
    """Where the added tokens at the end of the vocabulary begin. The format numbers added tokens from there on, without
    holes; one that lies before has to be part of the vocabulary proper."""
    start = added[-1] + 1 if added else total
    for number in reversed(added):
        if number == start - 1:
            start = number
    return start
