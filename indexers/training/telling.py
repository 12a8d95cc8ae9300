"""Progress and commands of training runs, as people read them."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rag.types import OnProgress, Progress

_EVERY_S = 20.0


def as_command(module: str, arguments: Sequence[str]) -> str:
    """As it can be run elsewhere: of paths only the names are kept."""
    return shlex.join(["python", "-m", module, *(Path(each).name if "/" in each else each for each in arguments)])


def telling() -> OnProgress:
    """A line of progress for each stage on standard error, now and then."""
    last: dict[str, float] = {}

    def tell(progress: Progress) -> None:
        now = time.monotonic()
        if progress.note or progress.done == progress.total or now - last.get(progress.stage, 0.0) > _EVERY_S:
            last[progress.stage] = now
            print(f"{progress.stage} {progress.done}/{progress.total} {progress.unit} {progress.note}".rstrip(), file=sys.stderr,
                  flush=True)

    return tell
