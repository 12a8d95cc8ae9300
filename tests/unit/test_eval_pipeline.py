"""The evaluation against the real pipeline, with a fake encoder and reader: both keep to the same contract."""

from __future__ import annotations

import json
from pathlib import Path

from eval.corpus import opened
from eval.datasets import load
from eval.retrieval import MODES, measure, with_evidence
from eval.runner import Plan, run
from eval.systems import SYSTEMS, KnowledgeBase
from rag.llm import Reader
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from tests.eval_fakes import ScriptedReader, World, dataset_folder
from tests.term_fakes import WeighingEncoder


def open_real(name: str, *, settings: Settings, reader: Reader | None, cold: bool = True) -> KnowledgeBase:
    return ThriftRAG.open(name, settings=settings, reader=reader, encoder=WeighingEncoder(), keep_pools=0 if cold else 8)


def test_every_system_answers_through_the_pipeline_within_its_budget(tmp_path: Path, settings: Settings) -> None:
    reader = ScriptedReader()
    names = tuple(name for name, system in SYSTEMS.items() if system.reply is not None)
    plan = Plan(folders=(dataset_folder(tmp_path / "tiny"),), systems=names, budgets=(12, 30), out=tmp_path / "out", timed=1,
                parallel=3)
    outcome = run(plan, settings=settings, open_reader=lambda *, prefix_cache: reader, open_collection=open_real,
                  open_peer=World().peer)
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["error"] for row in rows] == [None] * (4 * (3 + (len(names) - 3) * 2))
    assert outcome.failed == 0
    assert all(row["context_tokens"] <= row["budget"] for row in rows if row["budget"])
    shown = {(row["system"], row["question"]): row["shown"] for row in rows if row["budget"] is None}
    assert (shown["closed_book", "q1"], shown["gold", "q1"], shown["gold_sentences", "q2"]) == ([], ["d1"], ["d2"])
    assert reader.closed


def test_retrieval_finds_the_documents_of_the_corpus_by_their_own_ids(tmp_path: Path, settings: Settings) -> None:
    dataset = load(dataset_folder(tmp_path / "tiny"))
    kb = opened(dataset, settings=settings, open_collection=open_real, reader=None)
    assert kb is not None
    for mode in MODES:
        found = measure(with_evidence(dataset, limit=None), kb, mode=mode)
        assert found is not None
        assert (found.n, found.recall_at_10) == (3, 1)
    kb.close()
