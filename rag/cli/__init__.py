"""The command line. `main` is the installed `thriftrag`; everything else is imported when it is needed."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> int:
    """Runs one command from `sys.argv` and returns its exit code."""
    try:
        from rag.cli.process import run

        return run()
    except KeyboardInterrupt:
        # Before the command had begun: there is nothing to keep or to explain.
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
