"""The audit log: who changed what and who was refused, one JSON object a line in `audit.jsonl`. Appended, never rewritten.

A line holds names and ids, never document text, questions or keys. The server and `thriftrag keys` both write it: a line is one
append, which the system does not tear.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from rag.errors import StorageError

FILE = "audit.jsonl"


def record(home: Path, action: str, *, key: str, target: str = "", outcome: str = "done", request_id: str = "") -> None:
    """Adds a line. Blocks on the disk. Raises StorageError: what cannot be recorded should not be done."""
    line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"), "action": action,
                       "key": key, "target": target, "outcome": outcome, "request_id": request_id})
    path = home / FILE
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, line.encode() + b"\n")
        finally:
            os.close(handle)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.", hint="Check the disk.") from error
