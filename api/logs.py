"""Logs as one JSON object a line on stderr, each with the request it belongs to. No document text, no questions, no keys.

An exception is logged as its type and where it arose: its message may quote what a caller sent.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime

REQUEST: ContextVar[str] = ContextVar("request", default="")
_access = logging.getLogger("api.access")
_errors = logging.getLogger("api.errors")
_FRAMES = 12


class JsonLines(logging.Formatter):
    """`{"at", "level", "logger", "message", "request_id", ...}`; what a record carries as `facts` comes after."""

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if request := REQUEST.get():
            row["request_id"] = request
        facts = getattr(record, "facts", None)
        if isinstance(facts, dict):
            row.update(facts)
        if record.exc_info and record.exc_info[1] is not None:
            row["error"] = where(record.exc_info[1])
        return json.dumps(row, default=str)


def where(error: BaseException) -> dict[str, object]:
    """The type of an exception and the frames that it passed, innermost last."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return {"type": type(error).__name__, "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]}


def install(*, verbose: bool) -> None:
    """Sends every log of this process to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("api", "uvicorn"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose and name == "api" else logging.INFO)


def access(**facts: object) -> None:
    """One line for one request that ended."""
    _access.info("request", extra={"facts": facts})


def defect(error: BaseException, what: str) -> None:
    """An exception that nobody foresaw."""
    _errors.error(what, exc_info=error)
