"""A run folder with plausible rows, drawn from a seed: data for tests of reports and comparisons, never a measurement."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from random import Random

from eval.summary import summarise

Row = dict[str, object]
# How far each is above topk, in shares of F1; None: not bound by a budget.
STRENGTH = {"closed_book": -0.35, "gold": 0.25, "gold_sentences": 0.2, "topk": 0.0, "topk_whole": -0.12, "topk_dense": -0.04,
            "topk_bm25": -0.06, "topk_dense_whole": -0.15, "topk_bm25_whole": -0.17, "sentences": 0.02, "mmr": 0.01,
            "knapsack": 0.03, "adagres": 0.02, "carrot": -0.03, "greedy": 0.07, "thrift": 0.1, "llamaindex": -0.13,
            "haystack": -0.14, "txtai": -0.16}
FREE = frozenset({"closed_book", "gold", "gold_sentences"})
TYPES = ("bridge", "comparison", "unanswerable")
STAGES = ("trigger", "retrieve", "filter", "select", "render", "generate", "check")


def row(**changes: object) -> Row:
    """A whole row of results.jsonl, read and right."""
    base: Row = {
        "dataset": "alpha", "system": "topk", "budget": 128, "question": "q1", "type": "bridge", "unanswerable": False,
        "language": "en", "read": True, "answer": "Rollo", "verdict": "answered", "reason": None, "shown": ["d1"], "context": None,
        "citations": None, "context_tokens": 120, "prompt_tokens": 180, "completion_tokens": 6, "cached_tokens": 0,
        "naive_tokens": 900, "llm_calls": 1, "encoder_passes": 2, "cost_usd": 0.0001, "energy_wh": 0.0, "water_ml": 0.0,
        "timed": False, "seconds": None, "stages": None, "em": 1.0, "f1": 1.0, "rouge_l": 1.0, "contains": 1.0, "yes_no": None,
        "answer_in_context": 1.0, "evidence_recall": 1.0, "evidence_precision": 0.5, "near_duplicates": 0.0,
        "citation_quote": None, "citation_support": None, "judge": None, "remembered": False, "error": None}
    return base | changes


def unread(**changes: object) -> Row:
    """A row of which only the context was made."""
    return row(**{"read": False, "answer": None, "verdict": None, "em": None, "f1": None, "rouge_l": None, "contains": None,
                  "prompt_tokens": 0, "completion_tokens": 0, "cost_usd": 0.0, **changes})


def folder(path: Path, rows: Iterable[Mapping[str, object]], *, summary: Mapping[str, object] | None = None,
           questions: Iterable[Mapping[str, object]] = (), contexts: Mapping[str, str] | None = None,
           run: Mapping[str, object] | None = None) -> Path:
    """Writes a run folder; `contexts` by key."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    asked = "".join(json.dumps(one) + "\n" for one in questions)
    if asked:
        (path / "questions.jsonl").write_text(asked, encoding="utf-8")
    if summary is not None:
        (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    made = {"run": dict(run or {"reader": "scripted"}), "datasets": {"alpha": "0"}}
    (path / "run.json").write_text(json.dumps(made), encoding="utf-8")
    if contexts is not None:
        with closing(sqlite3.connect(path / "contexts.sqlite")) as store:
            store.execute("CREATE TABLE contexts(key TEXT PRIMARY KEY, text BLOB)")
            store.executemany("INSERT INTO contexts VALUES (?, ?)",
                              [(key, zlib.compress(text.encode())) for key, text in contexts.items()])
            store.commit()
    return path


def drawn(path: Path, *, datasets: Sequence[str] = ("alpha", "beta", "gamma"), systems: Sequence[str] = tuple(STRENGTH),
          budgets: Sequence[int] = (64, 128, 256, 512, 1024), questions: int = 40, read: int = 25, seed: int = 7,
          cost: float = 1e-7) -> Path:
    """A folder of every kind of row."""
    rng = Random(seed)
    rows: list[Row] = []
    asked: list[dict[str, object]] = []
    contexts: dict[str, str] = {}
    for name in datasets:
        level = rng.uniform(-0.1, 0.15)
        for place in range(questions):
            kind = TYPES[place % len(TYPES)]
            answer = rng.choice(["Rollo", "the Seine", "10 April 1912", "Marie Curie"])
            asked.append({"dataset": name, "id": f"{name}-{place}", "text": f"Who, in case {place} of {name}, is meant?",
                          "answers": [] if kind == "unanswerable" else [answer], "all_answers_needed": False,
                          "evidence": [{"id": f"d{place}", "title": f"Passage {place}"}, {"id": f"e{place}", "title": ""}]})
            luck = rng.gauss(0, 0.25)
            for system in systems:
                for budget in (None,) if system in FREE else budgets:
                    rows.append(_drawn(rng, name, system, budget, f"{name}-{place}", kind, answer, level + luck, contexts,
                                       read=place < read, cost=cost))
    path = folder(path, rows, questions=asked, contexts=contexts, summary=summary(rows, systems, budgets))
    return path


def _drawn(rng: Random, name: str, system: str, budget: int | None, identifier: str, kind: str, answer: str, base: float,
           contexts: dict[str, str], *, read: bool, cost: float) -> Row:
    size = {"closed_book": 0, "gold": 240, "gold_sentences": 45}.get(system, round((budget or 0) * rng.uniform(0.8, 1.0)))
    chance = base + STRENGTH.get(system, 0.0) + (0.5 if budget is None else 0.2 + 0.12 * (budget // 64).bit_length() ** 0.8)
    right, held = float(rng.random() < chance), float(rng.random() < chance + 0.15 and size > 0)
    text = f"[1] Passage. {'Some words that stand around it. ' * (size // 8)}It was {answer if held else 'somebody'}, they say."
    key = sha256(text.encode()).hexdigest()[:16]
    spent: Row = {"context_tokens": size, "seconds": None, "stages": None,
                  "answer_in_context": None if kind == "unanswerable" else held, "evidence_recall": held,
                  "shown": [f"d{identifier.split('-')[1]}"] if held else ["x1", "x2"]}
    place: Row = {"dataset": name, "system": system, "budget": budget, "question": identifier, "type": kind,
                  "unanswerable": kind == "unanswerable"}
    if not read:
        return unread(**place, **spent)
    contexts[key] = text
    stages = {stage: rng.uniform(0.001, 0.02) * (10 if stage == "generate" else 1) * (1 + size / 200) for stage in STAGES}
    if int(identifier.split("-")[1]) < 12:
        spent |= {"timed": True, "seconds": sum(stages.values()) + 0.002, "stages": stages}
    f1 = right if rng.random() < 0.8 else right * rng.choice([0.4, 0.5, 0.67])
    declined = kind == "unanswerable" and right == 1
    said = "I don't know." if declined else answer if right else "Somebody else <b>entirely</b>"
    if rng.random() < 0.004:
        return row(**place, **{**spent, "answer_in_context": None, "evidence_recall": None}, answer=None, verdict=None,
                   em=0.0, f1=0.0, error={"code": "model_unavailable", "message": "The reader is gone. Start it."})
    return row(**place, **spent, context=key, prompt_tokens=size + 74, completion_tokens=rng.randint(2, 14), answer=said,
               verdict="abstained" if declined else "answered", em=float(f1 == 1), f1=f1, cost_usd=cost * (size + 74),
               judge=None if rng.random() < 0.3 else float(rng.random() < 0.1 + 0.8 * f1),
               citation_quote=float(rng.random() < 0.95), citation_support=float(rng.random() < 0.7))


def summary(rows: Sequence[Row], systems: Sequence[str], budgets: Sequence[int]) -> dict[str, object]:
    """summary.json of the rows, as the runner writes it."""
    return {
        **summarise(rows, systems={name: name not in FREE for name in systems}, budgets=budgets, seed=13),
        "plan": {"systems": list(systems), "budgets": list(budgets), "limit": None, "sample": 25, "timed": 12, "answerable": False,
                 "seed": 13},
        "run": {"reader": "scripted", "embedder": "counting", "config": "abc"},
        "machine": {"processor": "none", "cores": 2}, "versions": {"python": "3.11", "thriftrag": "0.1.0"}}
