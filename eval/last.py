"""The frontier of the last evaluation, kept where a server finds it: what quality each budget bought.

`eval run` keeps its own in the home, `tune` that of a collection's own documents in the collection. Both have one shape: `kind`
(evaluation or tuning), `made` (when, UTC), `reader`, `command`, `recommended` (settings and a sentence, or null) and `groups`, each
with a `name` and `curves` of a `system` with `points`: `budget` (null where none binds), `tokens` of context a question, `f1` and
`f1_ci` in percent, over `n` questions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from eval.results import write_text

FORMAT = 1
EVALUATION = "evaluation.json"
TUNING = Path("tune") / "frontier.json"
_MOST_BYTES = 8_000_000
Table = Mapping[str, object]


def of_summary(summary: Table) -> dict[str, object]:
    """From the summary of `eval run`. Where data sets were averaged, the average comes first."""
    fronts = [one for one in _rows(summary.get("frontiers", ())) if (one["x"], one["y"]) == ("context_tokens", "f1")]
    groups = [{"name": str(one["dataset"]), "curves": [
        {"system": row["system"], "points": [
            {"budget": point["budget"], "tokens": point["x"], "f1": point["y"], "f1_ci": point["y_ci"], "n": point["n"]}
            for point in _rows(row["points"])]} for row in _rows(one["systems"])]} for one in fronts]
    run, plan = cast(Table, summary.get("run", {})), cast(Table, summary.get("plan", {}))
    # The average is told last in a summary.
    return _table("evaluation", groups[-1:] + groups[:-1], reader=run.get("reader"), command=plan.get("command"), recommended=None)


def of_tuning(found: Table, *, collection: str, reader: str, sentence: str | None) -> dict[str, object]:
    """From what `tune` found. Configurations that differ in more than the budget are systems of their own."""
    read = [row for row in _rows(found["frontier"]) if row["f1"] is not None]
    varied = [name for name in ("candidates", "mode", "abstain_below") if len({str(row[name]) for row in read}) > 1]
    curves: dict[str, list[dict[str, object]]] = {}
    for row in sorted(read, key=lambda row: cast(int, row["budget"])):
        system = ", ".join([str(row["selector"]), *(f"{name} {row[name]}" for name in varied)])
        curves.setdefault(system, []).append(
            {"budget": row["budget"], "tokens": row["context_tokens"], "f1": row["f1"], "f1_ci": row["f1_ci"], "n": row["n"]})
    chosen = cast("Table | None", found["recommendation"])
    group = {"name": collection, "curves": [{"system": system, "points": points} for system, points in curves.items()]}
    return _table("tuning", [group], reader=reader, command=f"thriftrag tune -c {collection}",
                  recommended=None if chosen is None else {"settings": chosen["settings"], "sentence": sentence})


def keep(path: Path, table: Table) -> None:
    """Raises StorageError: the disk refused."""
    write_text(path, json.dumps(table, ensure_ascii=False, allow_nan=False) + "\n")


def read(path: Path) -> dict[str, object] | None:
    """What was kept; None where nothing was, or nothing that this version can read."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(table, dict) or table.pop("format", None) != FORMAT:
        return None
    return table


def _table(kind: str, groups: Sequence[object], *, reader: object, command: object, recommended: object) -> dict[str, object]:
    made = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"format": FORMAT, "kind": kind, "made": made, "reader": reader, "command": command, "recommended": recommended,
            "groups": list(groups)}


def _rows(value: object) -> Sequence[Table]:
    return cast("Sequence[Table]", value)
