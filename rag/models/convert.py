"""From the files a model is published in to the form it runs in (OpenVINO IR, tokenizer.json, config.json), once.

Converters take the source (a folder, or the file where the model is one file), an empty folder to write into, the
model's name and a progress callback. They leave the source alone; the cache deletes it once the result is published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from rag.models.registry import Role
from rag.types import OnProgress

Converter = Callable[[Path, Path, str, OnProgress], None]


def convert_embedder(source: Path, out: Path, name: str, on_progress: OnProgress) -> None:
    from indexers.encoders.bert import convert_bert

    convert_bert(source, out, name=name, on_progress=on_progress)


def convert_reader(source: Path, out: Path, name: str, on_progress: OnProgress) -> None:
    from rag.llm.convert import convert_gguf

    convert_gguf(source, out, name=name, on_progress=on_progress)


CONVERTERS: Mapping[Role, Converter] = {"embedder": convert_embedder, "reader": convert_reader}
