"""The edge of the command line: every outcome becomes one exit code and, when something failed, one clear message.

| exit | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | the command was not understood, or a value in it cannot be used |
| 3 | partly done: some files failed, others are in |
| 130 | stopped with Ctrl-C |
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TextIO

import typer

from rag.cli import terminal
from rag.errors import BudgetError, BudgetExceeded, ConfigError, InputError, RagError

OK, FAILED, USAGE, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 130
WORKER = "thriftrag-work"
UNCHANGED = "Nothing was changed."
# The parser's own errors, found without naming its package: newer typer carries the parser inside.
_PARSER_ERROR: type[Exception] = typer.BadParameter.__mro__[2]

Problem = dict[str, str | None]


class Stopped(Exception):
    """The user stopped the command. `kept` says in one line what stays."""

    def __init__(self, kept: str) -> None:
        super().__init__(kept)
        self.kept = kept


def exit_code(error: RagError) -> int:
    """2 for what the caller can correct in the command itself, 1 for everything else."""
    if isinstance(error, BudgetExceeded):
        return FAILED
    return USAGE if isinstance(error, (InputError, BudgetError, ConfigError)) else FAILED


def guarded(work: Callable[[], object], *, argv: Sequence[str]) -> int:
    """Runs `work` and returns the exit code. Failures are told on stderr, or on stdout as JSON when `argv` asks for it."""
    as_json = asked(argv, "--json")
    try:
        with terminal.json_only() if as_json and not asked(argv, "--help") else nullcontext():
            result = work()
    except RagError as error:
        _tell({**error.to_dict()}, as_json=as_json)
        _trace_if(argv)
        return exit_code(error)
    except Stopped as stopped:
        return _stopped(stopped.kept, as_json=as_json)
    except typer.Abort:  # Ctrl-C, or the end of stdin, at a question
        return _stopped(UNCHANGED, as_json=as_json)
    except _PARSER_ERROR as error:
        return _misused(error, as_json=as_json)
    except BrokenPipeError:
        return FAILED
    except OSError as error:
        _tell({"code": "system_error", "message": f"{error.strerror or error}{_named(error)}.",
               "hint": "Check the path and the disk, then run the command again.", "field": None}, as_json=as_json)
        _trace_if(argv)
        return FAILED
    except Exception as error:  # the last line of defence: a defect must still leave an exit code and a readable message
        _tell({"code": "internal_error", "message": f"This is a defect of ThriftRAG: {type(error).__name__}: {error}.",
               "hint": "Run the command again with --verbose and report what it prints.", "field": None}, as_json=as_json)
        _trace_if(argv)
        return FAILED
    return result if isinstance(result, int) else OK


def asked(argv: Sequence[str], flag: str) -> bool:
    """Whether the flag stands among the options; looked up before parsing, because parsing itself may fail."""
    options = argv[:argv.index("--")] if "--" in argv else argv
    return flag in options


def _stopped(kept: str, *, as_json: bool) -> int:
    if as_json:
        terminal.print_json({"error": {"code": "interrupted", "message": "Stopped.", "hint": kept, "field": None}})
    else:
        print(f"Stopped. {terminal.clean(kept)}", file=sys.stderr)
    return INTERRUPTED


def _misused(error: Exception, *, as_json: bool) -> int:
    """The parser's complaint in our words; a group called without a command just shows its help."""
    context = getattr(error, "ctx", None)
    message = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        return USAGE
    path = context.command_path if context is not None else "thriftrag"
    field = getattr(getattr(error, "param", None), "name", None)
    hint = f"`{path} --help` shows what it takes."
    _tell({"code": "usage", "message": message, "hint": hint, "field": field}, as_json=as_json)
    return USAGE


def _tell(problem: Problem, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json({"error": problem})
        return
    _write(sys.stderr, "Error: ", str(problem["message"]))
    if problem["hint"]:
        _write(sys.stderr, "  Fix: ", str(problem["hint"]))


def _write(stream: TextIO, label: str, text: str) -> None:
    console = terminal.console(stream)
    from rich.text import Text

    style = "bold red" if label.startswith("Error") else "bold"
    console.print(Text.assemble((label, style), terminal.clean(text)), soft_wrap=True)


def _named(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""


def _trace_if(argv: Sequence[str]) -> None:
    if asked(argv, "--verbose"):
        print(terminal.clean(traceback.format_exc()), file=sys.stderr)
