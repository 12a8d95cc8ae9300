"""Every error a caller may meet: a stable code, what happened with the value that caused it, and what to do next.

Exit codes and HTTP statuses are mapped from the class at the edges (`rag.cli`, `api`), never here.
Messages never carry document text or secrets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag.types import Usage


class RagError(Exception):
    """`code` is stable and machine-readable, `message` names the value, `hint` says how to fix it."""

    code = "error"

    def __init__(self, message: str, *, hint: str = "", field: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def to_dict(self) -> dict[str, str | None]:
        """The contract's error body, without the request id that only the HTTP edge knows."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "field": self.field}


class InputError(RagError):
    """The caller sent something that cannot be used as it is."""

    code = "input_invalid"


class QuestionEmpty(InputError):
    code = "question_empty"


class QuestionTooLong(InputError):
    code = "question_too_long"


class UnknownField(InputError):
    code = "unknown_field"


class UnsupportedFile(InputError):
    """One file cannot be ingested; the run goes on without it."""

    code = "file_unsupported"


class FileUnreadable(UnsupportedFile):
    code = "file_unreadable"


class DocumentMissing(InputError):
    code = "document_missing"


class BudgetError(RagError):
    code = "budget_invalid"


class BudgetTooSmall(BudgetError):
    code = "budget_too_small"


class BudgetExceeded(BudgetError):
    """A rendered context came out over its budget. Always a defect of ours, never of the caller."""

    code = "budget_exceeded"


class SnapshotError(RagError):
    code = "snapshot_error"


class CollectionMissing(SnapshotError):
    code = "collection_missing"


class SnapshotCorrupt(SnapshotError):
    code = "snapshot_corrupt"


class SnapshotMismatch(SnapshotError):
    """The collection was written by another encoder, dimension or format."""

    code = "snapshot_mismatch"


class Locked(RagError):
    """Another process is writing to the collection."""

    code = "collection_locked"


class StorageError(RagError):
    """The disk refused: full, read-only, or gone. What was published before still serves."""

    code = "storage_failed"


class UpstreamError(RagError):
    """`passing`: the server was at fault, whatever it was asked; it may be back later. `retry_after_s`: when to try again, where
    that is known. `spent`: tokens that it took all the same, counted on our side."""

    code = "upstream_failed"
    passing = False
    retry_after_s: float | None = None
    spent: Usage | None = None


class ModelUnavailable(UpstreamError):
    code = "model_unavailable"
    passing = True


class ModelCorrupt(UpstreamError):
    """A model file does not have the checksum the registry names."""

    code = "model_corrupt"


class ModelTimeout(UpstreamError):
    code = "model_timeout"


class ModelRefused(UpstreamError):
    """The model server answered with an error of its own."""

    code = "model_refused"


class DeadlineExceeded(RagError):
    code = "deadline_exceeded"


class CostExceeded(BudgetError):
    """The cheapest possible answer would cost more than the caller allows."""

    code = "cost_exceeded"


class ConfigError(RagError):
    code = "config_invalid"
