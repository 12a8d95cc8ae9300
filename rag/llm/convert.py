"""GGUF to an OpenVINO folder, once: afterwards the model loads in seconds from memory-mapped files.

    openvino_model.xml, .bin                       the network, written by OpenVINO GenAI itself
    openvino_tokenizer.*, openvino_detokenizer.*   what GenAI wants to see beside it
    tokenizer.json                                 the tokenizer that we count and encode with
    reader.json, generation_config.json            window, chat template, end tokens

Also runnable (`python convert.py GGUF`, by path): that is the child process which loads the model, because loading takes
two to four times its size in memory, which a process of its own gives back, and because a broken file makes native code
abort.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag.llm.gguf_file import GGUFModel
    from rag.llm.gguf_tokenizer import Vocabulary
    from rag.types import OnProgress

_WRITTEN = ("openvino_model", "openvino_tokenizer", "openvino_detokenizer")
_POLL_S = 0.5
_LIMIT_S = 1800.0
_FULL_DISK = 64 << 20           # less than this left after a failure means that the disk was the cause
# Plain text, so that our tokenizer and GenAI's, both made from the same file, must agree on every id.
_SAMPLES = ("The capital of France is Paris.", "  def f(x):\n\treturn x**2  # 12345, don't\n\n\n",
            "Straße, 中文测试，مرحبا 🙂")


def convert_gguf(gguf: Path, out: Path, *, on_progress: OnProgress, name: str | None = None) -> None:
    """Fills the folder `out`, which is made if needed. Not atomic: publish the folder only after this has returned.

    Takes half a minute for a model of 1.5 billion weights. Tensors that GenAI cannot read are rewritten as Q8_0 first,
    into a temporary file inside `out`.

    Raises:
        ModelUnavailable: an architecture, tokenizer or tensor format that cannot be read; the message names it.
        ModelCorrupt: the file is broken, or the model made from it disagrees with its own tokenizer.
        StorageError: the disk is full. OSError: it refuses for another reason.
    """
    from rag.llm.card import ReaderCard, write_card
    from rag.llm.gguf_file import open_gguf
    from rag.llm.gguf_tokenizer import eos_ids, tokenizer_json
    from rag.types import Progress

    on_progress(Progress("convert", 0, None, "s", "reading the file"))
    model = open_gguf(gguf)
    tokenizer = tokenizer_json(model.vocabulary)
    ends = eos_ids(model.vocabulary)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".gguf-") as scratch:
        source = _readable_copy(model, gguf, Path(scratch), on_progress=on_progress)
        samples = _write_ir(source, on_progress=on_progress)
        for stem in _WRITTEN:
            for suffix in (".xml", ".bin"):
                shutil.move(Path(scratch) / f"{stem}{suffix}", out / f"{stem}{suffix}")
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (out / "generation_config.json").write_text(json.dumps({"eos_token_id": list(ends)}), encoding="utf-8")
    _require_agreement(out / "tokenizer.json", samples, model.vocabulary)
    write_card(out, ReaderCard(
        name=name or model.name, context_window=model.context_window, chat_template=model.chat_template, eos_ids=ends,
        bos_token=model.bos_token, eos_token=model.vocabulary.tokens[ends[0]], source=gguf.name))


def _readable_copy(model: GGUFModel, gguf: Path, scratch: Path, *, on_progress: OnProgress) -> Path:
    """The file under a name in `scratch`, because GenAI writes its output beside its input; rewritten where it must be."""
    from rag.llm.gguf_file import rewrite, unreadable
    from rag.types import Progress

    target = scratch / "model.gguf"
    formats = unreadable(model)
    if formats:
        note = f"rewriting {', '.join(formats)} as Q8_0"
        rewrite(model, target, on_tensor=lambda done, total: on_progress(Progress("convert", done, total, "tensors", note)))
    else:
        _link(gguf, target)
    return target


def _link(source: Path, target: Path) -> None:
    for link in (os.link, os.symlink):
        with contextlib.suppress(OSError):      # another disk, or a system without links
            link(source.resolve(), target)
            return
    shutil.copyfile(source, target)


def _write_ir(source: Path, *, on_progress: OnProgress) -> list[list[int]]:
    """Runs the child. Returns what GenAI's tokenizer makes of the samples."""
    from rag.errors import ModelCorrupt
    from rag.types import Progress

    with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as answer:
        started = time.monotonic()
        with subprocess.Popen([sys.executable, "-P", __file__, str(source)], stdin=subprocess.DEVNULL, stdout=answer,
                              stderr=log) as child:
            try:
                while child.poll() is None and time.monotonic() - started < _LIMIT_S:
                    passed = int(time.monotonic() - started)
                    on_progress(Progress("convert", passed, None, "s", "writing the OpenVINO model"))
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(_POLL_S)
            finally:
                child.kill()
        log.seek(0)
        answer.seek(0)
        if child.returncode == 0:
            return list(json.loads(answer.read()))
        said = log.read().decode(errors="replace").strip().splitlines()
    _raise_if_full(source.parent)
    why = said[-1][:300] if said else f"exit code {child.returncode}"
    raise ModelCorrupt(f"OpenVINO cannot convert {source.name}: {why}",
                       hint="Fetch the file again; if it is whole, check the memory that is free (four times its size).")


def _raise_if_full(folder: Path) -> None:
    from rag.errors import StorageError

    free = shutil.disk_usage(folder).free
    if free < _FULL_DISK:
        raise StorageError(f"No space left in {folder.parent} while converting: {free:,} bytes are free.",
                           hint="Free space, or set THRIFTRAG_MODELS to a larger disk.")


def _require_agreement(tokenizer: Path, samples: list[list[int]], vocabulary: Vocabulary) -> None:
    from rag.errors import ModelCorrupt
    from rag.tokens import FileTokenizer

    ours = FileTokenizer(tokenizer)
    differing = [text for text, theirs in zip(_SAMPLES, samples, strict=True) if ours.encode(text) != theirs]
    differing += [name for name, number in ours.added.items() if vocabulary.tokens[number] != name]
    if differing:
        raise ModelCorrupt(f"The tokenizer made from the file disagrees with OpenVINO's on {differing[0]!r}.",
                           hint="The file's tokenizer metadata is broken: use another file of the same model.")


def _load_and_save(source: str) -> None:
    """In the child: loading with this property writes the model beside the file."""
    sys.modules["openvino_telemetry"] = None    # type: ignore[assignment]  # see rag.llm.worker
    import openvino_genai

    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                   # the library prints
    pipeline = openvino_genai.LLMPipeline(source, "CPU", enable_save_ov_model=True)
    tokenizer = pipeline.get_tokenizer()
    json.dump([tokenizer.encode(text, add_special_tokens=False).input_ids.data[0].tolist() for text in _SAMPLES], answer)
    answer.close()


if __name__ == "__main__":
    _load_and_save(sys.argv[1])
