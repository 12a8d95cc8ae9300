"""A reader small enough to make on the spot: a byte-level vocabulary of 300 tokens and, as GGUF, a network of two layers."""

from __future__ import annotations

from pathlib import Path

from rag.llm.card import ReaderCard, write_card
from rag.llm.gguf_tokenizer import Vocabulary

CHATML = ("{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
END, START, TEXT_END = 299, 298, 297
_MERGES = ("t h", "th e", "Ġ a", "Ġ the", "i n", "i m")


def byte_symbols() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in shown}
    hidden = iter(range(256, 512))
    return [table[byte] if byte in table else chr(next(hidden)) for byte in range(256)]


def tiny_vocabulary(*, cut: str = "qwen2") -> Vocabulary:
    merged = ["th", "the", "Ġa", "Ġthe", "in", "im"]
    tokens = byte_symbols() + merged
    tokens += [f"[PAD{number}]" for number in range(len(tokens), TEXT_END)] + ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    types = [1] * (256 + len(merged)) + [5] * (TEXT_END - 256 - len(merged)) + [3, 3, 3]
    return Vocabulary(model="gpt2", cut=cut, tokens=tokens, types=types, merges=list(_MERGES), eos_id=END)


def write_tiny_folder(folder: Path, *, window: int = 4096) -> Path:
    """All that opening a reader looks at; the network itself is empty."""
    import json

    from rag.llm.gguf_tokenizer import tokenizer_json

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (folder / name).touch()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(tiny_vocabulary())), encoding="utf-8")
    write_card(folder, ReaderCard(name="tiny", context_window=window, chat_template=CHATML, eos_ids=(END, TEXT_END)))
    return folder


def write_tiny_gguf(path: Path, *, architecture: str = "qwen2", weights: str = "Q5_0", cut: str = "qwen2",
                    template: str | None = CHATML) -> Path:
    """A Qwen2 network of two layers with random weights in the named format."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    vocabulary = tiny_vocabulary(cut=cut)
    width, hidden, heads, layers = 64, 128, 2, 2
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(7)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.cut)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.types))
    writer.add_token_merges(list(vocabulary.merges))
    writer.add_eos_token_id(vocabulary.eos_id)
    writer.add_bos_token_id(TEXT_END)
    writer.add_pad_token_id(TEXT_END)
    if template is not None:
        writer.add_chat_template(template)
    rng = np.random.default_rng(7)

    def matrix(name: str, rows: int, columns: int) -> None:
        kind = GGMLQuantizationType[weights]
        values = rng.normal(0, 0.05, (rows, columns)).astype(np.float32)
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)

    def vector(name: str, size: int, value: float) -> None:
        writer.add_tensor(name, np.full(size, value, np.float32))

    matrix("token_embd.weight", len(vocabulary.tokens), width)
    matrix("output.weight", len(vocabulary.tokens), width)
    vector("output_norm.weight", width, 1.0)
    for layer in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}.weight", width, width)
        for name in ("attn_q", "attn_k", "attn_v"):
            vector(f"blk.{layer}.{name}.bias", width, 0.0)
        matrix(f"blk.{layer}.ffn_gate.weight", hidden, width)
        matrix(f"blk.{layer}.ffn_up.weight", hidden, width)
        matrix(f"blk.{layer}.ffn_down.weight", width, hidden)
        vector(f"blk.{layer}.attn_norm.weight", width, 1.0)
        vector(f"blk.{layer}.ffn_norm.weight", width, 1.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
