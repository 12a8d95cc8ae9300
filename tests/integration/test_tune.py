"""Tuning on the shipped sample with the real 0.5B reader: pairs that hold what they promise, and a frontier within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.metrics import contains
from eval.tune import pairs as files
from eval.tune.tuning import Options, Plan, Tuning
from rag.llm import Reader
from rag.llm.open import open_reader
from rag.models import ModelCache
from rag.settings import Settings, load
from rag.thriftrag import ThriftRAG
from tests.conftest import SAMPLE

CALLS = 40


@pytest.mark.timeout(900)
def test_the_sample_is_tuned_within_bounds(tmp_path: Path, model_cache: ModelCache) -> None:
    settings = load({"home": tmp_path / "home", "models": model_cache.root, "reader": "qwen2.5-coder-0.5b-instruct",
                     "collection": "sample"}, environ={})
    with ThriftRAG.open("sample", settings=settings) as kb:
        assert kb.ingest(SAMPLE / "corpus.jsonl").failures == ()
    plans: list[Plan] = []

    def open_collection(chosen: Settings, reader: Reader, keep_pools: int) -> ThriftRAG:
        return ThriftRAG.open(chosen.collection, create=False, settings=chosen, reader=reader, keep_pools=keep_pools)

    options = Options(questions=3, budgets=(64, 256), selectors=("sentences",), candidates=(24,), max_calls=CALLS)
    with Tuning(settings, options, folder=tmp_path / "tune", pairs_file=tmp_path / "pairs.jsonl",
                open_reader=lambda chosen: open_reader(chosen, cache=model_cache), open_collection=open_collection) as tuning:
        made = tuning.generate(on_plan=plans.append).pairs
        kept = [pair for pair in made if pair.keep]
        found = tuning.search(on_plan=plans.append)

    assert kept
    with ThriftRAG.open("sample", settings=settings) as kb:
        for pair in kept:
            chunk = next(chunk for chunk in kb.chunks_of([pair.doc_id]) if chunk.id == pair.chunk_id)
            assert contains(chunk.text, pair.answers)
            assert not contains(pair.question, pair.answers)
            assert pair.quote in " ".join(chunk.text.split())
    assert files.read(tmp_path / "pairs.jsonl") == list(made)
    assert found.calls <= CALLS
    assert [plan.what for plan in plans] == ["pairs", "search"]
    assert plans[1].seconds is not None
    assert plans[1].seconds > 0
    by_budget = {row.configuration.budget: row for row in found.rows if not row.role}
    assert by_budget[64].context_tokens <= 64 < by_budget[256].context_tokens <= 256
    naive = next(row for row in found.rows if row.role == "naive")
    assert naive.prompt_tokens > by_budget[256].prompt_tokens
