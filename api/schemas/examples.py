"""What every response looks like and every parameter may be, for the API's description. By the name of the schema."""

from __future__ import annotations

from typing import Any

from api.schemas.responses import ANSWER_EXAMPLE

_COLLECTION = {"name": "handbook", "documents": 12, "chunks": 340, "tokens": 61200, "bytes": 1843200, "encoder": "all-minilm-l6-v2",
               "dimension": 384, "terms": "", "segments": 2, "snapshot": "9b1deb4d-7", "created": "2030-01-01T08:00:00Z"}
_MODEL = {"id": "thriftrag/handbook", "object": "model", "created": 1893484800, "owned_by": "thriftrag", "documents": 12,
          "chunks": 340}
_CHUNK_ID, _DOCUMENT_ID = "3f2a9c1be07d-0-aa", "3f2a9c1be07d"
_TEXT = "The Zeta 4 pump is sold with a warranty of 27 months."
_JOB = {"id": "6f1c2b7a90de4c0bb1f0f6f0a3d5e812", "collection": "handbook", "state": "running", "files": ["guide.pdf"],
        "created": "2030-01-01T08:00:00Z", "started": "2030-01-01T08:00:01Z", "ended": None,
        "progress": {"stage": "encode", "done": 128, "total": None, "unit": "chunks"}, "report": None, "error": None}
_POINT = {"budget": 256, "tokens": 231.4, "f1": 61.2, "f1_ci": [57.9, 64.4], "n": 500}

RESPONSES: dict[str, Any] = {
    "Answer": ANSWER_EXAMPLE,
    "SearchResult": {"query": "warranty period", "origins": ["dense", "bm25"], "notes": [], "hits": [{
        "chunk_id": _CHUNK_ID, "doc_id": _DOCUMENT_ID, "score": 0.82, "source": "guide.pdf", "page": 3, "text": _TEXT,
        "origins": {"dense": 0.71, "bm25": 9.4}}]},
    "Collection": _COLLECTION,
    "Collections": {"collections": [_COLLECTION]},
    "Documents": {"next": None, "documents": [{"id": _DOCUMENT_ID, "source": "guide.pdf", "title": "Zeta 4", "chunks": 31,
                                               "tokens": 5210, "added": "2030-01-01T08:00:09Z"}]},
    "Document": {"id": _DOCUMENT_ID, "source": "guide.pdf", "title": "Zeta 4", "media_type": "application/pdf", "language": "en",
                 "pages": 12, "characters": 20840, "content_hash": "b94d27b9934d3e08", "metadata": {"year": 2030}, "text": _TEXT},
    "Chunk": {"id": _CHUNK_ID, "doc_id": _DOCUMENT_ID, "ordinal": 0, "source": "guide.pdf", "title": "Zeta 4",
              "heading": "Warranty", "page": 3, "start": 120, "end": 173, "tokens": 14, "sentences": [[0, 53]], "text": _TEXT},
    "Job": _JOB,
    "Jobs": {"jobs": [_JOB]},
    "Feedback": {"id": "c1d0a4f27c6b4d1ea0f25c9a6a1f8b30"},
    "Settings": {
        "version": "0.1.0", "collection": "handbook",
        "ask": {"budget_tokens": 256, "max_budget_tokens": 100000, "max_cost_usd": None, "deadline_s": 600.0,
                "max_deadline_s": 600.0, "selector": "greedy", "selectors": ["greedy", "topk"],
                "rewriter": "off", "rewriters": ["off", "feedback", "bridge", "auto", "llm"], "fallback": "none", "memory": False,
                "models": ["qwen2.5-coder-1.5b-instruct"], "max_question_chars": 8000, "answer_tokens": 256,
                "instruction_chars": 812, "naive_k": 5},
        "prices": {"prompt": 0.0, "cached": 0.0, "completion": 0.0, "kwh": 0.3},
        "upload": {"files": 100, "mb": 200, "file_mb": 100},
        "key": {"name": "web", "scopes": ["read"], "collections": [], "needed": True}},
    "Frontiers": {"tuning": None, "evaluation": {
        "kind": "evaluation", "made": "2030-01-01T08:00:00Z", "reader": "qwen2.5-coder-1.5b-instruct",
        "command": "thriftrag eval run --data sample", "recommended": None,
        "groups": [{"name": "sample", "curves": [{"system": "ours", "points": [_POINT]}]}]}},
    "Completion": {
        "id": "chatcmpl-0f8fad5bd9cb469fa16570867728950e", "object": "chat.completion", "created": 1893484800,
        "model": "thriftrag/handbook:256", "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": {
            "role": "assistant", "content": "27 months [1].", "refusal": None}}],
        "usage": {"prompt_tokens": 312, "completion_tokens": 18, "total_tokens": 330,
                  "prompt_tokens_details": {"cached_tokens": 0}},
        "thriftrag": {**ANSWER_EXAMPLE, "carried": [], "ignored": ["temperature"]}},
    "Model": _MODEL,
    "ModelList": {"object": "list", "data": [_MODEL]},
}
PARAMETERS: dict[str, Any] = {
    "name": "handbook", "collection": "handbook", "document_id": "guide.pdf", "chunk_id": _CHUNK_ID, "job_id": _JOB["id"],
    "model": "thriftrag/handbook:256", "limit": 100, "after": _DOCUMENT_ID, "group_by": "day,model", "since": "2030-01-01",
    "until": "2030-01-31", "under_way": True,
}
METRICS = ('# HELP thriftrag_budget_violations_total Contexts over their budget: a defect.\n'
           '# TYPE thriftrag_budget_violations_total counter\nthriftrag_budget_violations_total 0.0\n')
