"""Fits `retrievers/trigger.json`: when remembered passages, or the answer to another question, may serve a question.

    python -m retrievers.training.trigger --data DATASET_DIR... [--fill 100] [--ask 600] [--error 0.02] [--write]

Each data set is ingested into a collection of its own under --home. Its first questions fill a memory, as answered questions do,
with the passages that the knowledge filter keeps; then questions like them are asked (`eval.traffic`). A case of remembered
passages is right if the gold passage is among what memory offers, and no case if a search does not find that passage either; a
case of two questions, of which there are ten times as many, is right if both have the same gold answer. So the questions must say
what they are about by themselves: in sets whose questions lean on a passage ("What is the brand?") other answers are gold to the
same words.
Neither needs a reader. How they are fitted: `rag.calibration`. Prints, by the kind of question, what would be served and how much
of it wrongly, over all cases.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.corpus import opened
from eval.datasets import SEED, load
from eval.metrics import f1
from eval.traffic import Asked, Traffic, traffic
from indexers import lexical
from optimizers import relevance
from optimizers.knowledge_filter import filtered
from optimizers.training.relevance import open_alone
from rag import calibration
from rag import settings as configuration
from rag.calibration import Case
from rag.memory import Memory
from rag.recall import compared, offered, seen
from rag.thriftrag import ThriftRAG
from retrievers import trigger, veto
from retrievers.trigger import WEIGHTS, Model

_SAME_ANSWER = 0.6
# Pairs of questions are compared by the thousand, for next to none of them is forbidden and yet wrong.
_TIMES = 10
# Of paraphrases and of questions from the same passages: what memory gets wrong is mostly among the rest.
_SHARES = (0.3, 0.3)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A case, which model it is for, and what kind of question it comes from."""

    kind: str
    case: Case
    part: str


def cases_of(kb: ThriftRAG, made: Traffic, *, folder: Path) -> list[Labelled]:
    """Fills a memory in `folder` and asks it."""
    memory = Memory(folder, owner="training", entries=1_000_000, days=1)
    for number, each in enumerate(made.fill, 1):
        asking, pool = kb.asking(each.text), kb.pool(each.text)
        memory.keep(asking, filtered(pool, relevance.chances(pool), below=asking.settings.filter_below,
                                     floor=asking.settings.filter_floor))
        _tell(number, len(made.fill), "filled")
    cases: list[Labelled] = []
    for number, asked in enumerate(made.asked, 1):
        cases += _cases(memory, kb, asked)
        _tell(number, len(made.asked), "asked")
    memory.close()
    return cases


def _tell(done: int, of: int, what: str) -> None:
    if done % 50 == 0:
        print(f"{done} of {of} {what}", file=sys.stderr)


def pairs_of(kb: ThriftRAG, made: Traffic) -> list[Labelled]:
    """Each question with the one most like it that filled, unless that is forbidden or has the same words: these get the same
    answer from the index too, whatever a data set meant by them."""
    searcher = kb.asking("What is it?").searcher
    vectors = kb.encoder.encode([each.text for each in made.fill])
    found: list[Labelled] = []
    for asked, vector in zip(made.asked, kb.encoder.encode([each.text for each in made.asked]), strict=True):
        cosines = vectors @ vector
        at = int(cosines.argmax())
        past = made.fill[at]
        if _words(asked.text) == _words(past.text) or veto.against_question(asked.text, past.text) is not None:
            continue
        idf = searcher.bm25.idf(lexical.words(f"{asked.text} {past.text}"))
        right = any(f1(answer, asked.question.answers) >= _SAME_ANSWER for answer in past.answers)
        found.append(Labelled("questions", Case(asked.question.text, compared(asked.text, past.text, cosine=float(cosines[at]),
                                                                              idf=idf), right), asked.kind))
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _cases(memory: Memory, kb: ThriftRAG, asked: Asked) -> list[Labelled]:
    asking = kb.asking(asked.text)
    [vector], _ = asking.vectors.get([asking.question])
    past = memory.past(asking, vector)
    found: list[Labelled] = []

    def add(kind: str, values: tuple[float, ...], *, right: bool) -> None:
        found.append(Labelled(kind, Case(asked.question.text, values, right), asked.kind))

    offer, _ = offered(asking, vector, memory.nearest(asking, vector, past))
    if offer is None:
        return found
    gold = set(asked.question.evidence)
    right = bool({each.chunk.doc_id for each in offer.pool.candidates} & gold)
    if not right and not {hit.chunk.doc_id for hit in kb.search(asked.text, k=asking.settings.candidates)} & gold:
        return found
    for way in (asking, dataclasses.replace(asking, cross=None))[0 if asking.cross is not None else 1:]:
        looked = seen(way, offer, past[0] if past else None)
        if looked is not None:
            add(looked[1], looked[2], right=right)
    return found


def served(model: Model, cases: Sequence[Labelled], *, error: float) -> dict[str, object]:
    """By the kind of question: how many there were, how many would be served, and how many of these wrongly."""
    found: dict[str, object] = {"least": model.least, "t": round(model.sigmoid.t, 3), "g": round(model.sigmoid.g, 3),
                                "se": round(model.sigmoid.se, 3)}
    for part in sorted({each.part for each in cases}):
        own = [each.case for each in cases if each.part == part]
        hits = [case for case in own if trigger.calibrated(model, case.values, error=error).decision == "memory"]
        found[part] = {"n": len(own), "right": sum(case.right for case in own), "served": len(hits),
                       "wrong": sum(not case.right for case in hits)}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--home", type=Path, default=Path("trigger-home"))
    parser.add_argument("--fill", type=int, default=100)
    parser.add_argument("--ask", type=int, default=600)
    parser.add_argument("--error", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--cases", type=Path, help="write every case as JSON lines")
    parser.add_argument("--write", action="store_true", help="write retrievers/trigger.json")
    options = parser.parse_args()
    settings = configuration.load({"home": options.home})
    cases: list[Labelled] = []
    embedder = ""
    for path in options.data:
        dataset = load(path)
        kb = opened(dataset, settings=settings, open_collection=open_alone, reader=None)
        assert isinstance(kb, ThriftRAG)  # what open_alone gave: None comes only of cancelling
        with kb, tempfile.TemporaryDirectory() as aside:
            embedder = kb.encoder.name
            made = traffic(dataset, fill=options.fill, ask=options.ask, seed=options.seed, encode=kb.encoder.encode, shares=_SHARES)
            cases += cases_of(kb, made, folder=Path(aside))
            cases += pairs_of(kb, traffic(dataset, fill=_TIMES * options.fill, ask=_TIMES * options.ask, seed=options.seed,
                                          encode=kb.encoder.encode, shares=_SHARES))
    if options.cases:
        options.cases.write_text("".join(json.dumps({"kind": each.kind, "part": each.part, **dataclasses.asdict(each.case)}) + "\n"
                                         for each in cases), encoding="utf-8")
    models: dict[str, object] = {}
    for kind in calibration.FEATURES:
        own = [each for each in cases if each.kind == kind]
        model = calibration.fit(kind, [each.case for each in own], error=options.error)
        print(json.dumps({"kind": kind, "cases": len(own), "right": sum(each.case.right for each in own),
                          **({} if model is None else served(model, own, error=options.error))}))
        if model is not None:
            models[kind] = model.to_dict()
    if options.write:
        facts = {"embedder": embedder, "data": [path.name for path in options.data], "fill": options.fill, "ask": options.ask,
                 "seed": options.seed, "models": models}
        WEIGHTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
