"""The collection that holds a data set's passages: made once, found again by what is in it, apart from the user's own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from eval.datasets import Dataset
from eval.results import write_text
from eval.systems import KnowledgeBase
from rag.errors import InputError
from rag.llm import Reader
from rag.settings import Settings
from rag.types import OnProgress, no_progress

FOLDER = "evaluation"


class OpenCollection(Protocol):
    def __call__(self, name: str, *, settings: Settings, reader: Reader | None, cold: bool) -> KnowledgeBase:
        """The collection of that name in `settings.home`, made if it is not there. `cold`: nothing is remembered between
        questions, so that times are those of a first question; else vectors and candidates may come from earlier ones."""


def opened(dataset: Dataset, *, settings: Settings, open_collection: OpenCollection, reader: Reader | None,
           cold: bool = True, on_progress: OnProgress = no_progress,
           cancelled: Callable[[], bool] = lambda: False) -> KnowledgeBase | None:
    """The data set's collection, ingested if it is not there yet; None if `cancelled` before it was whole.

    Close it after use. `reader` may be None for search alone. It lives in `settings.home / FOLDER` and is keyed by the
    passages and by every setting that shapes the index. An ingestion that was cut short goes on where it stopped.

    Raises:
        InputError: ingestion did not take every passage that is not blank.
    """
    private = replace(settings, home=settings.home / FOLDER)
    name = collection_name(dataset, settings)
    complete = private.home / f"{name}.json"
    kb = open_collection(name, settings=private, reader=reader, cold=cold)
    try:
        if not complete.is_file():
            if not _ingest(dataset, kb, on_progress, cancelled):
                kb.close()
                return None
            facts = {"dataset": dataset.name, "passages": len(dataset.passages), "corpus": dataset.corpus_digest}
            write_text(complete, json.dumps(facts) + "\n")
    except BaseException:
        kb.close()
        raise
    return kb


def collection_name(dataset: Dataset, settings: Settings) -> str:
    shaping = f"{dataset.corpus_digest} {settings.embedder} {settings.chunk_tokens} {settings.sparse}"
    key = hashlib.sha256(shaping.encode()).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", dataset.name).strip("-_")[:40]
    return f"{readable or 'data'}-{key}"


def _ingest(dataset: Dataset, kb: KnowledgeBase, on_progress: OnProgress, cancelled: Callable[[], bool]) -> bool:
    """Whether every passage went in."""
    # A passage without text cannot be found by anyone: leaving it out changes no comparison.
    lines = (passage.line() for passage in dataset.passages if passage.text.strip())
    report = kb.ingest(lines=lines, on_progress=on_progress, cancelled=cancelled)
    if report.failures and not report.interrupted:
        first = report.failures[0]
        raise InputError(f"{len(report.failures)} of the {len(dataset.passages)} passages of {dataset.name} could not be "
                         f"ingested; the first: {first.message}", code="dataset_invalid", hint=first.hint)
    return not report.interrupted
