"""Every bench in turn: `OUT/bench.json` with all figures, and `OUT/bench.md`, a dated table with the machine and the versions.

Each runs in a process of its own, as `thriftrag bench NAME --json` would: what one leaves behind (memory, threads, a Java
machine) is not in the figures of the next, and one that dies takes nobody with it. The files are replaced after every bench, so
that a run that was cut short goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from eval.machine import machine, versions
from eval.results import write_text
from rag.errors import InputError
from rag.types import OnProgress, Progress, no_progress

JSON, TABLE = "bench.json", "bench.md"
_POLL_S = 0.2
_GRACE_S = 5.0
_INTERRUPTED = 130

Record = Mapping[str, object]
# The object that `bench NAME --json` prints for a name, {"error": {...}} included; None if it was stopped.
Measure = Callable[[str], Record | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`report`: what bench.json holds. Names of the benches that ran now, were kept from before, or failed."""

    report: Record
    ran: tuple[str, ...]
    kept: tuple[str, ...]
    failed: tuple[str, ...]
    stopped: bool


def run_all(names: Sequence[str], out: Path, *, measure: Measure, options: Record, summaries: Mapping[str, str],
            again: bool = False, on_progress: OnProgress = no_progress, now: Callable[[], datetime] = lambda: datetime.now(UTC),
            clock: Callable[[], float] = time.perf_counter) -> Outcome:
    """Runs each bench once and writes the files after each. `options`: whatever changes the figures, as plain JSON values.

    What OUT has of the same versions, machine and options is kept, unless `again` or unless it is an error. Whatever else it
    has goes: the table is that of this call.

    Raises:
        InputError: bench.json in OUT is not what this wrote.
        StorageError: OUT cannot be written.
    """
    facts: dict[str, object] = {"machine": machine(), "versions": versions(), "options": dict(options)}
    rows: dict[str, Record] = {} if again else _finished(out / JSON, {name: _key(name, facts) for name in names})
    kept, ran, stopped = tuple(name for name in names if name in rows), [], False
    wanted = [name for name in names if name not in rows]
    for number, name in enumerate(wanted):
        on_progress(Progress("benches", number, len(wanted), "benches", name))
        date, since = now().isoformat(timespec="seconds"), clock()
        found = measure(name)
        if found is None:
            stopped = True
            break
        ran.append(name)
        rows[name] = {"bench": name, "summary": summaries[name], "date": date, "seconds": round(clock() - since, 3),
                      "key": _key(name, facts), "results": found.get("results", []), "error": found.get("error")}
        _write(out, _report(facts, rows, names))
    report = _report(facts, rows, names)
    if not stopped and not ran:
        _write(out, report)
    return Outcome(report, tuple(ran), kept, tuple(name for name in names if name in rows and rows[name]["error"] is not None),
                   stopped)


def _report(facts: Record, rows: Mapping[str, Record], names: Sequence[str]) -> Record:
    """In the order of the names; dated by the bench that was begun last."""
    listed = [rows[name] for name in names if name in rows]
    return {"date": max((str(row["date"]) for row in listed), default=None), **facts, "benches": listed}


def in_own_process(arguments: Sequence[str], *, cancelled: Callable[[], bool] = lambda: False) -> Record | None:
    """What a command prints as one JSON object on stdout; its stderr is ours. None if `cancelled`, which ends it.

    A command that ends without such an object gives {"error": {"code", "message", "hint"}}.
    """
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as child:
        while True:
            try:
                printed, _ = child.communicate(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                if cancelled():
                    _end(child)
                    return None
    if cancelled() or child.returncode == _INTERRUPTED:
        return None
    try:
        found = json.loads(printed)
    except ValueError:
        found = None
    if isinstance(found, dict) and ("error" in found or (child.returncode == 0 and isinstance(found.get("results"), list))):
        return found
    return {"error": {"code": "bench_failed", "message": f"It {_how(child.returncode)} without figures.",
                      "hint": "Run the bench alone to see why."}}


def command(name: str, *, data: Sequence[Path], sizes: str | None, seed: int, plots: Path | None, home: Path | None) -> list[str]:
    """The arguments of Python that run one bench by itself."""
    found = ["-m", "rag.cli", "bench", name, "--json", "--seed", str(seed)]
    for folder in data:
        found += ["--data", str(folder)]
    for flag, value in (("--sizes", sizes), ("--plots", plots), ("--home", home)):
        found += [flag, str(value)] if value is not None else []
    return found


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE_S)
        return
    child.kill()


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _key(name: str, facts: Record) -> str:
    """What figures of a bench depend on, in sixteen hex digits."""
    return hashlib.sha256(json.dumps([name, facts], sort_keys=True).encode()).hexdigest()[:16]


def _finished(path: Path, keys: Mapping[str, str]) -> dict[str, Record]:
    """The benches of an earlier run that have these keys by name, and no error; none without a file."""
    if not path.is_file():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["benches"]
        return {row["bench"]: row for row in rows if row["error"] is None and row["key"] == keys.get(row["bench"])}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a file of `bench all`.", field="out",
                         hint="Name another folder, or measure everything anew with --again.") from error


def _write(out: Path, report: Record) -> None:
    write_text(out / JSON, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    write_text(out / TABLE, markdown(report))


def markdown(report: Mapping[str, object]) -> str:
    """The report for people: the day, the machine, the versions, every figure, and when each bench ran."""
    parts = [f"# Benchmarks of {str(report['date'])[:10]}",
             "Compare the ratios, each of which is from one run: seconds differ between machines and moments.",
             _facts("machine", report["machine"]), _facts("version", report["versions"]), _facts("option", report["options"])]
    benches = report["benches"]
    assert isinstance(benches, list)
    figures = [line for row in benches for line in _figures(row)]
    parts.append(_table(["bench", "measured", "value", "unit", "n", "ratio", "to"], figures, right={2, 4, 5}))
    ran = [[row["bench"], row["summary"], str(row["date"])[:16].replace("T", " "), f"{row['seconds']:,.0f}"] for row in benches]
    parts.append(_table(["bench", "what", "begun (UTC)", "seconds"], ran, right={3}))
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(row: Mapping[str, object]) -> list[list[object]]:
    """The lines of one bench, or the one that says why there are none."""
    error, results = row["error"], row["results"]
    if isinstance(error, dict):
        return [[row["bench"], f"failed: {error.get('message', '')}", "", "", "", "", ""]]
    assert isinstance(results, list)
    return [[row["bench"], found["name"], _value(found["value"], found.get("interval")), found["unit"], f"{found['n']:,}",
             "" if found["ratio"] is None else f"{found['ratio']:.2f}", found["ratio_to"] or ""] for found in results]


def _value(value: float, interval: Sequence[float] | None) -> str:
    """With its interval where there is one."""
    return amount(value) if interval is None else f"{amount(value)} [{amount(interval[0])}, {amount(interval[1])}]"


def amount(value: float) -> str:
    """Four digits that count."""
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _facts(name: str, values: object) -> str:
    assert isinstance(values, dict)
    return _table([name, ""], [[key, value] for key, value in values.items()], right=set()) if values else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: set[int]) -> str:
    lines = [list(header), ["--:" if column in right else "---" for column in range(len(header))], *rows]
    return "\n".join("| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in line) + " |" for line in lines)
