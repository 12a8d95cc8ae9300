"""GGUF to OpenVINO with a network of two layers: the real converter, the real runtime, a second or two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rag.errors import ModelCorrupt, ModelUnavailable, RagError
from rag.llm import Message
from rag.llm.card import read_card
from rag.llm.convert import convert_gguf
from rag.llm.embedded import EmbeddedReader
from rag.llm.gguf_file import open_gguf, rewrite, unreadable
from rag.llm.gguf_tokenizer import eos_ids, tokenizer_json
from rag.types import Progress, no_progress
from tests.tiny_reader import CHATML, END, TEXT_END, tiny_vocabulary, write_tiny_gguf

PROMPT = [Message("system", "the"), Message("user", "the cat in the hat")]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convert")
    ticks: list[Progress] = []
    convert_gguf(write_tiny_gguf(folder / "tiny-q5.gguf"), folder / "out", on_progress=ticks.append)
    assert {tick.note for tick in ticks} >= {"rewriting Q5_0 as Q8_0", "writing the OpenVINO model"}
    return folder / "out"


@pytest.fixture(scope="module")
def reader(converted: Path) -> EmbeddedReader:
    return EmbeddedReader(converted)


def test_the_folder_holds_what_a_reader_needs_and_nothing_else(converted: Path) -> None:
    assert sorted(path.name for path in converted.iterdir()) == sorted([
        "generation_config.json", "openvino_detokenizer.bin", "openvino_detokenizer.xml", "openvino_model.bin",
        "openvino_model.xml", "openvino_tokenizer.bin", "openvino_tokenizer.xml", "reader.json", "tokenizer.json"])
    card = read_card(converted)
    assert (card.name, card.context_window, card.eos_ids, card.chat_template) == ("tiny-q5", 512, (END, TEXT_END), CHATML)
    assert (card.bos_token, card.eos_token, card.source) == ("<|endoftext|>", "<|im_end|>", "tiny-q5.gguf")
    assert json.loads((converted / "generation_config.json").read_text()) == {"eos_token_id": [END, TEXT_END]}


def test_the_converted_model_runs_and_counts_what_it_was_sent(reader: EmbeddedReader) -> None:
    pieces: list[str] = []
    first = reader.generate(PROMPT, max_tokens=20, on_token=pieces.append)
    assert first.finish == "length"
    assert first.completion_tokens == 20
    assert first.prompt_tokens == reader.prompt_tokens(PROMPT)
    assert first.text == "".join(pieces)
    again = reader.generate(PROMPT, max_tokens=20)
    assert (again.text, again.prompt_tokens) == (first.text, first.prompt_tokens)


def test_the_network_is_that_of_the_file(tmp_path: Path, reader: EmbeddedReader) -> None:
    """Weights that GenAI reads as they are, rounded alike, must give the same tokens as the rewritten ones."""
    other = tmp_path / "rounded.gguf"
    model = open_gguf(write_tiny_gguf(tmp_path / "q5.gguf"))
    rewrite(model, other, on_tensor=lambda *_: None)
    convert_gguf(other, tmp_path / "out", on_progress=no_progress, name="rounded")
    same = EmbeddedReader(tmp_path / "out")
    assert same.name == "rounded"
    assert same.generate(PROMPT, max_tokens=20).text == reader.generate(PROMPT, max_tokens=20).text
    same.close()


@pytest.mark.parametrize("weights", ["Q5_0", "Q5_1", "BF16"])
def test_tensors_that_cannot_be_read_are_rewritten_and_the_rest_is_kept(tmp_path: Path, weights: str) -> None:
    from gguf.quants import dequantize

    model = open_gguf(write_tiny_gguf(tmp_path / "a.gguf", weights=weights))
    assert unreadable(model) == [weights]
    rewrite(model, tmp_path / "b.gguf", on_tensor=lambda *_: None)
    after = open_gguf(tmp_path / "b.gguf")
    assert unreadable(after) == []
    assert after.vocabulary == model.vocabulary
    assert (after.chat_template, after.context_window) == (model.chat_template, model.context_window)
    for old, new in zip(model.reader.tensors, after.reader.tensors, strict=True):
        assert (old.name, list(old.shape)) == (new.name, list(new.shape))
        before, now = dequantize(old.data, old.tensor_type), dequantize(new.data, new.tensor_type)
        assert np.abs(before - now).max() <= np.abs(before).max() / 127


def test_a_readable_file_is_linked_and_left_alone(tmp_path: Path) -> None:
    source = write_tiny_gguf(tmp_path / "q8.gguf", weights="Q8_0")
    content = source.read_bytes()
    convert_gguf(source, tmp_path / "out", on_progress=no_progress)
    assert source.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "q8.gguf"]


@pytest.mark.parametrize(("options", "said"), [
    ({"architecture": "gpt2"}, "'gpt2'"), ({"cut": "unheard-of"}, "'unheard-of'"), ({"template": None}, "chat_template")])
def test_what_cannot_be_read_is_named_before_any_work(tmp_path: Path, options: dict[str, str], said: str) -> None:
    source = write_tiny_gguf(tmp_path / "m.gguf", **options)
    with pytest.raises(ModelUnavailable, match=said) as caught:
        convert_gguf(source, tmp_path / "out", on_progress=no_progress)
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["empty", "text", "no tensors", "half", "header"])
def test_a_broken_file_is_an_error_and_never_a_crash(tmp_path: Path, damage: str) -> None:
    whole = write_tiny_gguf(tmp_path / "m.gguf", weights="Q8_0").read_bytes()
    broken = {"empty": b"", "text": b"this is no model" * 100, "no tensors": whole[:2000], "half": whole[:len(whole) // 2],
              "header": b"GGUF" + b"\xff" * 200}[damage]
    (tmp_path / "m.gguf").write_bytes(broken)
    with pytest.raises(RagError) as caught:
        convert_gguf(tmp_path / "m.gguf", tmp_path / "out", on_progress=no_progress)
    assert isinstance(caught.value, (ModelCorrupt, ModelUnavailable))
    assert "m.gguf" in caught.value.message


def test_a_watcher_that_stops_the_conversion_leaves_no_process_and_no_scratch(tmp_path: Path) -> None:
    def stop(tick: Progress) -> None:
        if tick.note == "writing the OpenVINO model":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_gguf(write_tiny_gguf(tmp_path / "m.gguf"), tmp_path / "out", on_progress=stop)
    assert list((tmp_path / "out").iterdir()) == []


# The rules of the tokenizer.

def test_end_tokens_are_the_stated_one_and_those_known_by_name() -> None:
    assert eos_ids(tiny_vocabulary()) == (END, TEXT_END)


@pytest.mark.parametrize(("cut", "number"), [("qwen2", 5), ("llama-bpe", 2)])
def test_each_cut_has_its_rules(tmp_path: Path, cut: str, number: int) -> None:
    from tokenizers import Tokenizer

    table = tokenizer_json(tiny_vocabulary(cut=cut))
    tokenizer = Tokenizer.from_str(json.dumps(table))
    words = tokenizer.pre_tokenizer.pre_tokenize_str("12345")
    assert len(words) == number
    assert (table["normalizer"] is not None) is (cut == "qwen2")


# What several callers do to one running model.

def test_requests_at_once_get_their_own_answers(reader: EmbeddedReader) -> None:
    prompts = [[Message("user", text)] for text in ("the", "cat", "in the hat", "a", "imim", "the cat" * 20)]
    alone = [reader.generate(prompt, max_tokens=24).text for prompt in prompts]
    together: dict[int, str] = {}

    def ask(index: int) -> None:
        together[index] = reader.generate(prompts[index], max_tokens=24).text

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[index] for index in range(len(prompts))] == alone
    assert len(set(alone)) > 1


def test_cancelling_frees_the_place(reader: EmbeddedReader) -> None:
    seen: list[str] = []
    answer = reader.generate(PROMPT, max_tokens=400, on_token=seen.append, cancelled=lambda: len(seen) > 2)
    assert answer.finish == "cancelled"
    assert 0 < answer.completion_tokens < 400
    assert reader.generate(PROMPT, max_tokens=5).finish == "length"


def test_the_process_ends_with_the_reader(converted: Path) -> None:
    reader = EmbeddedReader(converted)
    reader.load()
    reader.generate(PROMPT, max_tokens=2)
    engine = reader._engine
    assert engine is not None
    os.kill(engine.pid, 0)
    reader.close()
    with pytest.raises(OSError, match="No such process"):
        os.kill(engine.pid, 0)


def test_no_process_outlives_a_program_that_is_killed(converted: Path) -> None:
    code = ("import sys, time, pathlib\nfrom rag.llm import Message\nfrom rag.llm.embedded import EmbeddedReader\n"
            f"reader = EmbeddedReader(pathlib.Path({str(converted)!r}))\n"
            "reader.generate([Message('user', 'the')], max_tokens=2)\n"
            "print(reader._engine.pid, flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                          cwd=Path(__file__).parents[2]) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        os.kill(pid, 0)
        program.kill()
    until = time.monotonic() + 10
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not runs(pid)


def runs(pid: int) -> bool:
    """Whether a process is there and not merely waiting for its parent to notice its end."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_neither_conversion_nor_answering_reports_its_use_to_anyone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """openvino sends an event over the network when it is imported, if it finds its telemetry package; this one tells us."""
    mark = tmp_path / "imported"
    package = tmp_path / "path" / "openvino_telemetry"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(mark)!r}, 'w').close()\nraise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    subprocess.run([sys.executable, "-c", "import openvino"], check=True, timeout=60)
    assert mark.exists(), "the trap must work"
    mark.unlink()
    convert_gguf(write_tiny_gguf(tmp_path / "m.gguf"), tmp_path / "out", on_progress=no_progress)
    reader = EmbeddedReader(tmp_path / "out")
    reader.generate(PROMPT, max_tokens=2)
    reader.close()
    assert not mark.exists()


def test_a_killed_process_costs_one_answer_at_most(reader: EmbeddedReader) -> None:
    import signal

    reader.generate(PROMPT, max_tokens=2)
    engine = reader._engine
    assert engine is not None
    os.kill(engine.pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while engine.alive and time.monotonic() < until:
        time.sleep(0.01)
    assert reader.generate(PROMPT, max_tokens=5).finish == "length"
