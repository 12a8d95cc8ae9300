"""What surrounds a command in a process of its own: its streams, and how it ends.

The runtimes below us print to file descriptor 1 from C++. Our own output goes to a private copy of it and the
descriptor itself points at stderr, so that `--json` puts one object on stdout and nothing else.
"""

from __future__ import annotations

import io
import os
import sys
import threading

from rag.cli import edge


def run() -> int:
    """Runs `sys.argv` and returns the exit code; leaves at once when a stopped command still computes in a thread."""
    _prepare_streams()
    from rag.cli.root import app, command

    try:
        command(app).main()
        code = edge.OK
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else edge.FAILED
    code = _flushed(code)
    if any(thread.name == edge.WORKER and thread.is_alive() for thread in threading.enumerate()):
        os._exit(code)  # Tearing the interpreter down under a running model crashes; what is on disk is complete anyway.
    return code


def _prepare_streams() -> None:
    """UTF-8 whatever the locale says, stdout apart from the libraries' own prints, and never a missing stream."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # lives as long as the process
        elif descriptor == 2 and isinstance(sys.stderr, io.TextIOWrapper):
            sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    if _descriptor(sys.stdout) == 1 and _descriptor(sys.stderr) == 2:
        sys.stdout.flush()
        private = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = os.fdopen(private, "w", encoding="utf-8", errors="backslashreplace")


def _descriptor(stream: object) -> int | None:
    try:
        return stream.fileno() if isinstance(stream, io.TextIOWrapper) else None
    except (OSError, ValueError):
        return None


def _flushed(code: int) -> int:
    """The exit code after the last byte is out: a reader that left is no event, a full disk is a failure."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
        return code or edge.FAILED
    except OSError as error:
        _discard_stdout()
        print(f"Error: the output could not be written: {error.strerror}.", file=sys.stderr)
        return edge.FAILED
    return code


def _discard_stdout() -> None:
    """Points what is still buffered at nothing, so that the interpreter has no failure left to report."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
