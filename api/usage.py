"""The ledger: one row for each answer and search, with who asked, what it took and how it ended. Never a question or an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from api.database import Cell, Database
from api.keys import Key
from rag.types import Receipt

# What rows can be summed by, and the columns of that name.
GROUPS = ("key", "day", "collection", "model", "endpoint", "outcome")
_SUMS = ("prompt_tokens", "completion_tokens", "cached_tokens", "saved_tokens", "llm_calls", "encoder_passes", "cost_usd",
         "seconds")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a request apart from its receipt. `outcome`: a verdict, `found`, `cancelled`, or the code of an error."""

    key: Key
    collection: str
    model: str
    endpoint: str
    request_id: str
    outcome: str
    answer_id: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Lost:
    """What a reader took that gave no answer; counted here, for it has not said."""

    prompt_tokens: int
    completion_tokens: int
    cost_usd: float


class Ledger:
    """Blocks on the disk: for worker threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, entry: Entry, receipt: Receipt | None, *, lost: Lost | None = None) -> None:
        """Adds a row. Without a receipt nothing but what was `lost` was spent on models, as far as anybody can tell."""
        now = datetime.now(UTC)
        spent: tuple[Cell, ...] = (0, 0, 0, 0, 0, 0, 0.0)
        if lost is not None:
            spent = (lost.prompt_tokens, lost.completion_tokens, 0, 0, 1, 0, lost.cost_usd)
        elif receipt is not None:
            spent = (receipt.prompt_tokens, receipt.completion_tokens, receipt.cached_tokens, receipt.saved_tokens,
                     receipt.llm_calls, receipt.encoder_passes, receipt.cost_usd)
        self._database.write(
            "INSERT INTO usage (at, day, key, tenant, collection, model, endpoint, request, answer, outcome, prompt_tokens, "
            "completion_tokens, cached_tokens, saved_tokens, llm_calls, encoder_passes, cost_usd, seconds) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (now.isoformat(timespec="milliseconds").replace("+00:00", "Z"), now.date().isoformat(), entry.key.id, entry.key.tenant,
             entry.collection, entry.model, entry.endpoint, entry.request_id, entry.answer_id, entry.outcome, *spent,
             entry.seconds))

    def spent(self, key_id: str, *, day: str) -> tuple[int, float]:
        """Prompt and completion tokens, and US dollars, of a key on a day (YYYY-MM-DD, UTC)."""
        [row] = self._database.rows("SELECT coalesce(sum(prompt_tokens + completion_tokens), 0) AS tokens, "
                                    "coalesce(sum(cost_usd), 0) AS usd FROM usage WHERE day = ? AND key = ?", (day, key_id))
        return int(row["tokens"] or 0), float(row["usd"] or 0)

    def summed(self, *, by: Sequence[str], key: Key, since: str | None = None, until: str | None = None) -> list[dict[str, object]]:
        """Sums by these of `GROUPS`, in their order. Days are inclusive. Who is no admin sees the own key's rows; an admin of a
        tenant sees the tenant's, and one of none sees all."""
        chosen = [group for group in GROUPS if group in by]
        conditions: list[tuple[str, Cell]] = []
        if not key.may("admin"):
            conditions.append(("key = ?", key.id))
        elif key.tenant:
            conditions.append(("tenant = ?", key.tenant))
        conditions += [(f"day {sign} ?", day) for sign, day in ((">=", since), ("<=", until)) if day is not None]
        where = " WHERE " + " AND ".join(text for text, _ in conditions) if conditions else ""
        names = ", ".join(chosen)
        sums = ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in _SUMS)
        sql = f"SELECT {names + ', ' if chosen else ''}count(*) AS requests, {sums} FROM usage{where}"
        if chosen:
            sql += f" GROUP BY {names} ORDER BY {names}"
        return [dict(row) for row in self._database.rows(sql, [value for _, value in conditions])]

    def answered(self, answer_id: str, *, key: Key) -> bool:
        """Whether this key was given the answer of this id; an admin of no tenant may speak of any."""
        rows = self._database.rows("SELECT key, tenant FROM usage WHERE answer = ? AND answer != ''", (answer_id,))
        return any(row["key"] == key.id or (key.may("admin") and key.tenant in ("", row["tenant"])) for row in rows)
