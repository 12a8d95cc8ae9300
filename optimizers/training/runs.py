"""Logs what readers answer under several configurations: what the router and the configuration agent learn from.

    python -m optimizers.training.runs --data DATASET_DIR... --readers NAME... --configurations default,sentences --out runs.jsonl

A seeded sample of each dataset's questions is answered by the pipeline under each configuration (`CONFIGURATIONS`). One line per
question, reader and configuration: what could be seen before reading (`optimizers.routing.seen`, the question's vector), what was
said (`optimizers.routing.said`), and what it was worth and cost (F1, tokens, seconds of the reader). Reader calls are remembered
by content in the evaluation home; lines that are in the file already are not made again, so that a run may be stopped at any
time. Seconds are those of calls made side by side: for telling people use `thriftrag bench router`, which times calls alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from eval.cache import CachingReader
from eval.corpus import FOLDER, opened
from eval.datasets import Question, chosen, load
from eval.reply import of_answer
from eval.scoring import score
from indexers.encoders import Encoder, open_encoder
from optimizers import relevance
from optimizers.routing import Reading, said, seen
from rag import settings as configuration
from rag.llm import Generation, Message, Reader
from rag.llm.open import open_reader
from rag.models import ModelCache
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.tokens import TokenCounter
from rag.types import Answer, Extract

DIGITS = 4
PATIENCE_S = 600.0          # for a reader that went away, before a long run is given up


@dataclass(frozen=True, slots=True)
class Configuration:
    """How a question is answered: a budget and changed settings, or by heart (`budget` 0)."""

    budget: int = 128
    changes: Mapping[str, object] = field(default_factory=dict)


CONFIGURATIONS: Mapping[str, Configuration] = MappingProxyType({
    "default": Configuration(),
    "closed_book": Configuration(0),
    "greedy-64": Configuration(64),
    "greedy-256": Configuration(256),
    "lazy": Configuration(128, {"selector": "lazy"}),
    "lazy-256": Configuration(256, {"selector": "lazy"}),
    "mcts": Configuration(128, {"selector": "mcts"}),
    "sentences": Configuration(128, {"selector": "sentences"}),
    "topk": Configuration(128, {"selector": "topk"}),
    "topk-256": Configuration(256, {"selector": "topk"}),
    "one-look": Configuration(128, {"second_look": "off"}),
    "unread": Configuration(128, {"cross_encoder": "off"}),
    "unfiltered": Configuration(128, {"filter_below": 0.0}),
})


@dataclass(frozen=True, slots=True)
class Line:
    """One logged answer. `seen` and `said` by name, empty by heart and where nothing was read; `f1` from 0 to 1."""

    dataset: str
    question: str
    reader: str
    configuration: str
    f1: float
    verdict: str
    context_tokens: int
    prompt_tokens: int
    completion_tokens: int
    reader_s: float
    seen: Mapping[str, float]
    said: Mapping[str, float]
    vector: Sequence[float]
    context: str                # a digest: equal ones are the same prompt
    answer: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.dataset, self.question, self.reader, self.configuration


def read(path: Path) -> list[Line]:
    """The lines of a log; none where there is no file. The last line may be half written, by a run that was killed."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [Line(**json.loads(line)) for line in lines[:-1] if line]


def asked(kb: ThriftRAG, question: Question, *, dataset: str, name: str) -> Line:
    """One question under one configuration."""
    how = CONFIGURATIONS[name]
    if how.budget:
        answer = kb.ask(question.text, budget=how.budget, changes=how.changes)
    else:
        answer = kb.answer_from(question.text, (), budget=1)
    worth = score(question, of_answer(answer))["f1"]
    [vector] = kb.encoder.encode([question.text])
    return Line(
        dataset=dataset, question=question.id, reader=kb.reader.name, configuration=name, f1=worth or 0.0, verdict=answer.verdict,
        context_tokens=answer.context.tokens, prompt_tokens=answer.receipt.prompt_tokens,
        completion_tokens=answer.receipt.completion_tokens, reader_s=round(answer.receipt.seconds.get("generate", 0.0), DIGITS),
        seen=_rounded(looked_at(kb, answer, changes=how.changes)) if how.budget else {}, said=_rounded(heard(answer)),
        vector=[round(float(value), DIGITS) for value in vector], context=_digest(answer.context.text), answer=answer.text)


def looked_at(kb: ThriftRAG, answer: Answer, *, changes: Mapping[str, object]) -> dict[str, float]:
    """What `optimizers.routing.seen` makes of the choice that the answer was read from."""
    pool = kb.pool(answer.question, changes=changes)
    extracts = [Extract(passage.chunk, passage.sentences) for passage in answer.context.passages]
    return seen(pool, relevance.chances(pool), extracts, tokens=answer.context.tokens)


def heard(answer: Answer) -> dict[str, float]:
    """What `optimizers.routing.said` makes of the answer; empty where no reader was asked."""
    facts = {step.stage: step.facts for step in answer.trace}
    if "check" not in facts:
        return {}
    return said(answer.question, Reading(
        answer.text, bool(facts["check"]["said_unknown"]) or not answer.text, str(facts["check"]["support"]),
        facts["generate"]["finish"] != "stop", _number(facts["generate"]["mean_logprob"]),
        _number(facts["generate"]["least_logprob"])))


def gathered(folder: Path, names: Sequence[str], *, limit: int, seed: int, settings: Settings, readers: Sequence[Reader],
             parallel: int, known: set[tuple[str, str, str, str]], keep: Callable[[Line], None], answerable: bool = True,
             encoder: Encoder | None = None, tell: Callable[[str], None] = lambda line: None) -> None:
    """Gives `keep` every line of one dataset that is not `known`, `parallel` questions at a time, one reader after another."""
    dataset = load(folder)
    questions = [each for each in chosen(dataset, answerable=answerable, seed=seed) if each.language == "en"][:limit]
    lock = threading.Lock()

    def open_collection(name: str, *, settings: Settings, reader: Reader | None, cold: bool) -> ThriftRAG:
        return ThriftRAG.open(name, settings=settings, reader=reader, encoder=encoder, keep_pools=limit * len(names))

    def work(kb: ThriftRAG, question: Question, missing: Sequence[str]) -> None:
        for name in missing:
            line = asked(kb, question, dataset=dataset.name, name=name)
            with lock:
                keep(line)

    turns = Turns(readers)
    kb = opened(dataset, settings=settings, open_collection=open_collection, reader=turns)
    assert isinstance(kb, ThriftRAG)  # what open_collection gave: None comes only of cancelling
    with closing(kb), ThreadPoolExecutor(parallel) as pool:
        for reader in readers:
            turns.now = reader
            todo = {each: [name for name in names if (dataset.name, each.id, reader.name, name) not in known] for each in questions}
            for task in [pool.submit(work, kb, question, missing) for question, missing in todo.items() if missing]:
                task.result()
            tell(f"{dataset.name}: {len(questions)} questions, {reader.name}")


class Turns:
    """Several readers of which one answers at a time, so that a collection keeps its candidates when the reader changes."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.now = readers[0]

    @property
    def name(self) -> str:
        return self.now.name

    @property
    def local(self) -> bool:
        return self.now.local

    @property
    def tokenizer(self) -> TokenCounter:
        return self.now.tokenizer

    @property
    def context_window(self) -> int:
        return self.now.context_window

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return self.now.prompt_tokens(messages)

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        return self.now.generate(messages, max_tokens=max_tokens, stop=stop, on_token=on_token, deadline=deadline,
                                 cancelled=cancelled)

    def close(self) -> None:
        """Does nothing: who made the readers closes them."""


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in values.items()}


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def collected(folders: Iterable[Path], names: Sequence[str], *, readers: Sequence[str], home: Path, out: Path, limit: int,
              seed: int, parallel: int, answerable: bool) -> None:
    """Adds to the log `out` what is missing there."""
    known = {line.key for line in read(out)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        settings = configuration.load({"home": home, "deadline_s": 0.0})
        opened_readers = []
        for reader in readers:
            plain = open_reader(replace(settings, reader=reader), cache=ModelCache(settings.models))
            opened_readers.append(CachingReader(plain, home / FOLDER / "reader-calls.sqlite", identity=reader,
                                                patience_s=PATIENCE_S))
            stack.callback(opened_readers[-1].end)
        log = stack.enter_context(out.open("a", encoding="utf-8"))
        encoder = open_encoder(settings.embedder, cache=ModelCache(settings.models), precision=settings.precision,
                               threads=settings.threads)

        def keep(line: Line) -> None:
            log.write(json.dumps(asdict(line)) + "\n")
            log.flush()

        for folder in folders:
            gathered(folder, names, limit=limit, seed=seed, settings=settings, readers=opened_readers, parallel=parallel,
                     known=known, keep=keep, answerable=answerable, encoder=encoder,
                     tell=lambda line: print(line, file=sys.stderr, flush=True))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m optimizers.training.runs", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--readers", nargs="+", default=["qwen2.5-coder-0.5b-instruct"])
    parser.add_argument("--configurations", default="default", help=f"of {', '.join(CONFIGURATIONS)}, separated by commas")
    parser.add_argument("--limit", type=int, default=60, help="questions per dataset (default 60)")
    parser.add_argument("--all", action="store_true", help="questions without an answer too")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--parallel", type=int, default=8, help="questions at a time (default 8)")
    parser.add_argument("--home", type=Path, default=Path("runs/routing"), help="where collections and reader calls go")
    parser.add_argument("--out", type=Path, default=Path("runs/routing/runs.jsonl"), help="the log, which is added to")
    options = parser.parse_args(arguments)
    names = options.configurations.split(",")
    unknown = [name for name in names if name not in CONFIGURATIONS]
    if unknown:
        parser.error(f"no configuration is named {', '.join(unknown)}; there are: {', '.join(CONFIGURATIONS)}")
    collected(options.data, names, readers=options.readers, home=options.home, out=options.out, limit=options.limit,
              seed=options.seed, parallel=options.parallel, answerable=not options.all)
    return 0


if __name__ == "__main__":
    sys.exit(main())
