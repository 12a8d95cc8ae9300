"""A peer over one data set: its index on disk, its endpoint, and what each answer showed and cost, measured at the wire."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path

from eval.datasets import Dataset
from eval.endpoint import Endpoint, Recording
from eval.peers.wiring import CountedEncoder, Engine, Library, Said, Wiring
from eval.reply import Reply
from indexers.encoders import Encoder
from rag import ledger, prompts
from rag.durable import sync_tree
from rag.errors import BudgetError, BudgetExceeded, QuestionTooLong, RagError, StorageError
from rag.llm import Message, Reader
from rag.settings import Settings
from rag.types import OnProgress, Receipt, Usage, Verdict

FOLDER = "peers"
_FORMAT = 1                     # of our use of the libraries: raise it when an index must be made again
# Kept free in the reader's window: LlamaIndex packs so that its longer prompt for refining would fit too.
_RESERVE = 400


class Peer:
    """Calls wait for one another: the libraries are not made for several threads at once."""

    def __init__(self, name: str, engine: Engine, endpoint: Endpoint, *, encode: CountedEncoder, settings: Settings) -> None:
        self.name = name
        self._engine = engine
        self._endpoint = endpoint
        self._reader = endpoint.reader
        self._encode = encode
        self._settings = settings

    def answer(self, question: str, *, budget: int, read: bool) -> Reply:
        """What the library shows its reader within `budget` context tokens and, if `read`, what that answers.

        The library runs the same way in both cases. Unless `read`, its reader says nothing and costs nothing: `text` and
        `verdict` are None, `llm_calls` is 0, `prompt_tokens` is what the prompt would have been. `seconds` has "generate",
        the time at the endpoint (of a remembered call: what it took when it was made), "retrieve", all the rest, and "total".

        Raises:
            BudgetError: the budget is under 1.
            QuestionTooLong: it leaves no room for a context in the reader's window.
            BudgetExceeded: more than the budget arrived at the endpoint: a defect of ours.
            UpstreamError, StorageError: as the reader raised them.
        """
        if budget < 1:
            raise BudgetError(f"A budget of {budget} tokens is not possible.", hint="Use 1 or more.", field="budget")
        with self._endpoint.recording(read=read) as recording:
            limit, passes, since = min(budget, self._room(question)), self._encode.passes, time.monotonic()
            said = self._ask(question, limit, recording)
            seconds = time.monotonic() - since
            passes = self._encode.passes - passes
        context = self._context(question, recording)
        bill = self._bill(recording, context, budget=budget, seconds=seconds, passes=passes)
        text, verdict, reason = judged(said, recording) if read else (None, None, None)
        return Reply(
            context=context, context_tokens=bill.context_tokens, passages=said.passages, text=text, verdict=verdict, reason=reason,
            prompt_tokens=recording.prompt_tokens, completion_tokens=bill.completion_tokens, cached_tokens=bill.cached_tokens,
            llm_calls=bill.llm_calls, encoder_passes=bill.encoder_passes, cost_usd=bill.cost_usd, energy_wh=bill.energy_wh,
            water_ml=bill.water_ml, seconds=bill.seconds)

    def ahead(self, question: str, *, budget: int) -> None:
        """Has the reader answer what `answer` will ask it, without holding the library meanwhile: with a reader that remembers,
        several questions are then at the reader at once, though the library takes one at a time. Raises as `answer` does."""
        with self._endpoint.recording(read=False) as recording:
            self._ask(question, min(budget, self._room(question)), recording)
        for call in recording.calls:
            self._reader.generate(call.messages, max_tokens=call.max_tokens, stop=call.stop)

    def close(self) -> None:
        self._engine.close()
        self._endpoint.close()

    def _room(self, question: str) -> int:
        """The longest context that the reader's window holds beside the prompt around it and the longest answer."""
        around = "".join(self._engine.frame(question))
        fixed = self._reader.prompt_tokens([Message("system", prompts.SYSTEM), Message("user", around)])
        room = self._reader.context_window - fixed - self._settings.reader_max_tokens - _RESERVE
        if room < 1:
            raise QuestionTooLong(f"The question leaves no room in the reader's window of {self._reader.context_window} tokens.",
                                  hint="Shorten it.", field="question")
        return room

    def _ask(self, question: str, limit: int, recording: Recording) -> Said:
        try:
            said = self._engine.ask(question, budget=limit)
        except Exception as error:  # libraries wrap what the endpoint says in errors of their own
            if recording.failure is not None:
                raise recording.failure from error
            raise
        if recording.failure is not None:
            raise recording.failure
        return said

    def _context(self, question: str, recording: Recording) -> str:
        """As it came over the wire; empty where the library did not ask."""
        if not recording.calls:
            return ""
        [call, *more] = recording.calls
        before, after = self._engine.frame(question)
        prompt = call.messages[-1].content
        if more or not (prompt.startswith(before) and prompt.endswith(after) and len(prompt) >= len(before) + len(after)):
            raise RagError(f"{self.name} sent {len(recording.calls)} prompts that are not its template with one context.",
                           hint="Another version of it may ask in another way.", code="peer_prompt")
        return prompt[len(before):len(prompt) - len(after)]

    def _bill(self, recording: Recording, context: str, *, budget: int, seconds: float, passes: int) -> Receipt:
        tokens = self._reader.tokenizer.count(context)
        if tokens > budget:
            raise BudgetExceeded(f"{self.name} showed {tokens} tokens within a budget of {budget}.")
        retrieve = seconds - recording.waited_s
        stages = {"retrieve": round(retrieve, 6), "generate": round(recording.seconds, 6),
                  "total": round(retrieve + recording.seconds, 6)}
        return ledger.receipt(
            recording.usage + Usage(encoder_passes=passes), settings=self._settings, local=self._reader.local,
            exact_tokens=self._reader.tokenizer.exact, counted=recording.counted, budget_tokens=budget, context_tokens=tokens,
            model=self._reader.name, seconds=stages, encoder_s=retrieve, naive_tokens=recording.prompt_tokens)


def judged(said: Said, recording: Recording) -> tuple[str, Verdict, str | None]:
    """The answer, what to make of it, and why. By the rules that hold for our own answers, as far as they apply."""
    if not recording.calls:
        return "", "abstained", "nothing_shown: it does not ask its reader without a passage"
    text = said.text.strip()
    if not any(call.generation and call.generation.text.strip() for call in recording.calls) or not text:
        return "", "abstained", "empty_answer: the reader said nothing"
    if prompts.abstains(text):
        return text, "abstained", "reader_declined: the reader found no answer in the context"
    if recording.finish in ("deadline", "cancelled"):
        return text, "degraded", f"{recording.finish}: the answer was cut short"
    if recording.finish == "repetition":
        return text, "degraded", "repetition: the reader repeated itself and was stopped"
    return text, "answered", None if said.passages else "closed_book: no document was read"


def indexed(name: str, dataset: Dataset, library: Library, *, version: str, encoder: Encoder, home: Path,
            on_progress: OnProgress) -> Path:
    """The folder of the peer's index, built aside and published by one rename if it is not there."""
    key = hashlib.sha256(f"{_FORMAT} {version} {encoder.name} {dataset.corpus_digest}".encode()).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", dataset.name).strip("-_")[:40]
    folder = home / FOLDER / f"{name}-{readable or 'data'}-{key}"
    if folder.is_dir():
        return folder
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        encode = CountedEncoder(encoder, on_progress=on_progress, note=f"{name} on {dataset.name}")
        # A passage without text cannot be found by anyone: leaving it out changes no comparison.
        library.build([passage for passage in dataset.passages if passage.text.strip()], aside, encode=encode)
        sync_tree(aside)
        if not folder.is_dir():     # another process may have been faster
            os.replace(aside, folder)
    except OSError as error:
        raise StorageError(f"The index {folder} of {name} cannot be written: {error}.", hint="Check the disk.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def opened(name: str, dataset: Dataset, library: Library, *, folder: Path, settings: Settings, encoder: Encoder,
           reader: Reader) -> Peer:
    endpoint = Endpoint(reader, max_tokens=settings.reader_max_tokens, deadline_s=settings.deadline_s)
    encode = CountedEncoder(encoder)
    wiring = Wiring(encode, reader.tokenizer, endpoint.url, reader.name, settings.reader_max_tokens, reader.context_window,
                    {passage.id: passage.title for passage in dataset.passages if passage.title})
    try:
        engine = library.open_engine(folder, wiring)
    except Exception as error:  # each library has its own ways of saying that a file is damaged
        endpoint.close()
        raise StorageError(f"The index {folder} of {name} cannot be read: {type(error).__name__}: {error}.",
                           hint="Delete that folder: it is made again.") from error
    return Peer(name, engine, endpoint, encode=encode, settings=settings)
