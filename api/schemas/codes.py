"""The codes of errors by their status, for the API's description. They are stable: programs may rely on them."""

from __future__ import annotations

CODES: dict[int, tuple[str, ...]] = {
    400: ("json_invalid", "body_not_utf8", "multipart_invalid", "body_invalid"),
    401: ("key_missing", "key_invalid"),
    402: ("daily_cost_spent",),
    403: ("scope_missing", "origin_refused", "host_refused"),
    404: ("collection_missing", "document_missing", "chunk_missing", "job_missing", "answer_missing", "not_found"),
    405: ("method_not_allowed",),
    408: ("body_timeout",),
    409: ("collection_exists", "collection_locked", "snapshot_mismatch", "no_term_weights", "model_mismatch", "mirror_locked"),
    413: ("body_too_large", "file_too_large"),
    415: ("media_type_unsupported",),
    422: ("question_empty", "question_too_long", "question_invalid", "budget_too_small", "budget_invalid", "cost_exceeded",
          "unknown_field", "field_repeated", "filter_invalid", "history_invalid", "model_unknown", "no_clusters",
          "file_name_invalid", "file_name_repeated", "too_many_files", "json_too_deep", "input_invalid"),
    429: ("overloaded", "rate_limited", "too_many_at_once", "daily_tokens_spent"),
    500: ("internal_error", "budget_exceeded"),
    502: ("model_refused", "upstream_failed", "qdrant_refused", "qdrant_forbidden", "qdrant_unavailable", "qdrant_timeout",
          "qdrant_overloaded"),
    503: ("model_unavailable", "model_corrupt", "model_unfit", "no_cross_encoder", "snapshot_corrupt", "clusters_corrupt",
          "config_invalid", "extra_missing", "shutting_down"),
    504: ("model_timeout", "deadline_exceeded"),
    507: ("storage_failed", "disk_full", "mirror_missing"),
}


def told(status: int) -> str:
    """The codes of a status, as a sentence."""
    return f"Codes: {', '.join(f'`{code}`' for code in CODES[status])}."
