"""The process that runs a reader: requests as JSON lines on stdin, tokens as JSON lines on stdout.

    in   {"id": 1, "ids": [..], "max_tokens": 64}      begin          {"cancel": 1}      stop caring
         {.., "schema": ".."}    and keep to this JSON schema
    out  {"ready": true}   {"step": true}   {"id": 1, "ids": [..], "logprobs": [..]}   {"id": 1, "end": "stop" | "length" | "full"}
         {"id": 1, "refused": "why"}   {"fatal": "why"}

A process of its own, because `ContinuousBatchingPipeline.step` holds Python's interpreter lock while it computes: in the
caller's process every other thread would stand still during each prompt. It also means that a crash in native code costs
one answer and not the program, and that closing a reader gives all of its memory back.

Started by path (`rag.llm.engine`), so it must not import anything of this project.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import Any, TextIO

# Prompt tokens computed in one step: a step bounds how late a cancelled request stops and how long others wait for their
# next token. Throughput is within 10 % of that of unbounded steps.
STEP_TOKENS = 128
MAX_RUNNING = 8
_WARM_UP_TOKENS = 32


def main(argv: list[str]) -> int:
    """Arguments: the model's folder, the cache's size in GiB, the end tokens' ids separated by commas, and `prefix` to begin
    a prompt from the cached part of an earlier one, or `no-prefix`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is for the parent; we end when it closes our stdin
    # A plain import of openvino forks a process that sends an event over the network; without this package it does not.
    sys.modules["openvino_telemetry"] = None        # type: ignore[assignment]  # documented: the import then fails
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)                                   # native libraries may print: keep that out of the protocol
    inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(inbox,), daemon=True).start()
    folder, cache_gb, eos, prefix = argv
    try:
        pipeline = _load(folder, cache_gb=int(cache_gb), prefix_cache=prefix == "prefix")
        _warm_up(pipeline)
        _say(out, {"ready": True})
        _serve(pipeline, inbox, out, eos={int(number) for number in eos.split(",")})
    except BrokenPipeError:
        return 1
    except (RuntimeError, MemoryError, ValueError) as error:
        _say(out, {"fatal": str(error)[:500]})
        return 1
    return 0


def _load(folder: str, *, cache_gb: int, prefix_cache: bool) -> Any:
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = cache_gb
    scheduler.enable_prefix_caching = prefix_cache
    scheduler.dynamic_split_fuse = True
    scheduler.max_num_batched_tokens = STEP_TOKENS
    scheduler.max_num_seqs = MAX_RUNNING
    return openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU")


def _warm_up(pipeline: Any) -> None:
    """The first steps make the kernels, which would otherwise be charged to the first question."""
    handle = _begin(pipeline, 0, [1] * _WARM_UP_TOKENS, max_tokens=2, eos=set())
    while pipeline.has_non_finished_requests():
        pipeline.step()
    del handle


def _begin(pipeline: Any, number: int, ids: list[int], *, max_tokens: int, eos: set[int], schema: str | None = None) -> Any:
    import numpy as np
    import openvino
    import openvino_genai

    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = max_tokens
    config.do_sample = False
    config.logprobs = 1                             # that of the chosen token
    config.apply_chat_template = False
    config.stop_token_ids = eos
    config.ignore_eos = not eos
    if schema is not None:
        config.structured_output_config = openvino_genai.StructuredOutputConfig(json_schema=schema)
    return pipeline.add_request(number, openvino.Tensor(np.array([ids], dtype=np.int64)), config)


def _serve(pipeline: Any, inbox: queue.SimpleQueue[dict[str, Any] | None], out: TextIO, *, eos: set[int]) -> None:
    """Until stdin closes."""
    running: dict[int, Any] = {}
    while True:
        while not running or not inbox.empty():
            order = inbox.get()
            if order is None:
                os._exit(0)                         # nobody is left to read: do not finish what is running
            _obey(order, pipeline, running, out, eos=eos)
        pipeline.step()
        _say(out, {"step": True})
        for number in list(running):
            if _report(number, running[number], out):
                del running[number]


def _obey(order: dict[str, Any], pipeline: Any, running: dict[int, Any], out: TextIO, *, eos: set[int]) -> None:
    if "cancel" in order:
        handle = running.pop(order["cancel"], None)
        if handle is not None:
            handle.cancel()
            pipeline.step()                         # frees its place even if nothing else is running
        _say(out, {"step": True})
        return
    try:
        running[order["id"]] = _begin(pipeline, order["id"], order["ids"], max_tokens=order["max_tokens"], eos=eos,
                                     schema=order.get("schema"))
    except (RuntimeError, TypeError, ValueError) as error:
        _say(out, {"id": order["id"], "refused": str(error)[:500]})


def _report(number: int, handle: Any, out: TextIO) -> bool:
    """Passes on what is new; whether that was all."""
    from openvino_genai import GenerationFinishReason, GenerationStatus

    reason = GenerationFinishReason.NONE
    ids: list[int] = []
    logprobs: list[float] = []
    while handle.can_read():
        for output in handle.read().values():
            ids += output.generated_ids
            logprobs += output.generated_log_probs
            reason = output.finish_reason
    if ids:
        _say(out, {"id": number, "ids": ids, "logprobs": logprobs})
    status = handle.get_status()
    if status == GenerationStatus.RUNNING:
        return False
    full = status == GenerationStatus.IGNORED
    _say(out, {"id": number, "end": "full" if full else "length" if reason == GenerationFinishReason.LENGTH else "stop"})
    return True


def _read(inbox: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        inbox.put(json.loads(line))
    inbox.put(None)


def _say(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
