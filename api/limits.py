"""What one key may use: requests a minute, requests at once, and tokens and money a day.

Daily ceilings bind: before a question is asked its worst case is set aside, and only what fits is admitted. They count what the
ledger holds, so they outlive a restart. All of it is kept in the database, so that it holds for any number of processes that serve
one home; what a process held that died is given back at the next look (`api.presence`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from api.database import Cell, Database
from api.errors import MoneySpent, RateLimited, TokensSpent
from api.keys import Key
from api.presence import Presence
from api.usage import Ledger
from retrievers.rewriting.proposal import REPLY_TOKENS

# Of the whole prompt around question and context: instructions, fences and the chat template, with room to spare.
_AROUND_TOKENS = 512
_BUSY_RETRY_S = 1.0


class Rates:
    """A token bucket for each key that has a rate: a minute's worth at once, then as it refills. In memory, of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}    # what is left, and when that was so
        self._lock = threading.Lock()

    def take(self, key: Key) -> None:
        """Raises RateLimited: the key has used up its minute; says when the next request fits."""
        if not key.per_minute:
            return
        with self._lock:
            now = self._clock()
            left = _refilled(self._left.get(key.id), now=now, per_minute=key.per_minute)
            self._left[key.id] = (left - 1 if left >= 1 else left, now)
        _require_one(left, key)


class SharedRates:
    """As `Rates`, for all processes that serve the home. Blocks on the disk.

    The clock is the machine's monotonic one, which its processes share and a restart of the machine sets back: what was noted in
    its future is of before, and counts as none.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock

    def take(self, key: Key) -> None:
        """Raises RateLimited, as `Rates.take`."""
        if not key.per_minute:
            return
        with self._database.transaction():
            now = self._clock()
            noted = [(float(row["left"] or 0), float(row["since"] or 0))
                     for row in self._database.rows("SELECT left, since FROM rates WHERE key = ?", (key.id,))]
            before = noted[0] if noted and noted[0][1] <= now else None
            left = _refilled(before, now=now, per_minute=key.per_minute)
            self._database.write("INSERT OR REPLACE INTO rates VALUES (?, ?, ?)", (key.id, left - 1 if left >= 1 else left, now))
        _require_one(left, key)


def _refilled(before: tuple[float, float] | None, *, now: float, per_minute: int) -> float:
    left, since = (float(per_minute), now) if before is None else before
    return min(float(per_minute), left + (now - since) * per_minute / 60)


def _require_one(left: float, key: Key) -> None:
    if left < 1:
        raise RateLimited(f"This key may send {key.per_minute} requests a minute.", retry_after_s=(1 - left) * 60 / key.per_minute,
                          hint="Send fewer, or ask for a key with a higher rate.")


class Places:
    """How many requests of a key are under way in all processes: counted while their work runs, not while their client listens.
    Keys without such a limit are not counted."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._database = database
        self._presence = presence

    def take(self, key: Key) -> Callable[[], None]:
        """What gives the place back; calling it again does nothing. Blocks on the disk where the key has a limit.

        Raises:
            RateLimited: as many are under way as the key may have.
        """
        if not key.at_once:
            return _nothing
        found = self._taken(key)
        if found is None and self._presence.sweep_sometimes():
            found = self._taken(key)
        if found is None:
            raise RateLimited(f"This key may have {key.at_once} requests under way at once.", retry_after_s=_BUSY_RETRY_S,
                              code="too_many_at_once", hint="Wait for one to end, or ask for a key with more.")
        return partial(_deleted, self._database, "places", found, self._presence.id)

    def _taken(self, key: Key) -> int | None:
        """The number of the new place, or None: there is none left."""
        with self._database.transaction():
            if self.taken(key.id) >= key.at_once:
                return None
            return _inserted(self._database, "places (key, owner)", (key.id, self._presence.id))

    def taken(self, key_id: str) -> int:
        [row] = self._database.rows("SELECT count(*) AS n FROM places WHERE key = ?", (key_id,))
        return int(row["n"] or 0)


@dataclass(frozen=True, slots=True)
class Cost:
    """The most that one answer can take."""

    tokens: int
    usd: float


def worst_case(*, question: str, budget_tokens: int, answer_tokens: int, price_prompt: float, price_completion: float,
               max_cost_usd: float | None, said: str = "", rewrites: bool = False, calls: int = 1) -> Cost:
    """No tokenizer makes more tokens of a text than it has bytes. Prices are US dollars per million tokens, summed over the readers
    that may be asked for the answer, which are `calls`; an answer's own ceiling lowers the money, for the pipeline keeps to it.
    `said`: what a conversation before it adds. `rewrites`: the reader may be asked for queries first."""
    asked = len(question.encode("utf-8", "replace")) + len(said.encode("utf-8", "replace")) + _AROUND_TOKENS
    prompt = budget_tokens + asked
    if rewrites:
        prompt, answer_tokens = prompt + asked, answer_tokens + REPLY_TOKENS
    usd = (prompt * price_prompt + answer_tokens * price_completion) / 1e6
    return Cost(calls * (prompt + answer_tokens), usd if max_cost_usd is None else min(usd, max_cost_usd))


class Ceilings:
    """The tokens and the money that a key may spend a day, in UTC, in all processes that serve the home."""

    def __init__(self, ledger: Ledger, database: Database, presence: Presence,
                 clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._ledger = ledger
        self._database = database
        self._presence = presence
        self._clock = clock

    def take(self, key: Key, cost: Cost) -> Callable[[], None]:
        """Sets `cost` aside while the answer is made, and returns what gives it back: to be called once, after the ledger has what
        was really spent. Blocks on the disk.

        Raises:
            TokensSpent, MoneySpent: it does not fit into what is left of the day; says how much that is and when the next begins.
        """
        if not (key.tokens_per_day or key.usd_per_day):
            return _nothing
        try:
            number = self._put_aside(key, cost)
        except (TokensSpent, MoneySpent):
            if not self._presence.sweep_sometimes():
                raise
            number = self._put_aside(key, cost)
        return partial(_deleted, self._database, "aside", number, self._presence.id)

    def _put_aside(self, key: Key, cost: Cost) -> int:
        with self._database.transaction():
            self._check(key, cost)
            return _inserted(self._database, "aside (key, tokens, usd, owner)", (key.id, cost.tokens, cost.usd, self._presence.id))

    def _check(self, key: Key, cost: Cost) -> None:
        now = self._clock()
        tokens, usd = self._ledger.spent(key.id, day=now.date().isoformat())
        [aside] = self._database.rows("SELECT coalesce(sum(tokens), 0) AS tokens, coalesce(sum(usd), 0) AS usd FROM aside "
                                      "WHERE key = ?", (key.id,))
        tokens += int(aside["tokens"] or 0)
        usd += float(aside["usd"] or 0)
        midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
        wait_s = (midnight - now).total_seconds()
        resets = f"It resets at {midnight.isoformat().replace('+00:00', 'Z')}."
        if key.tokens_per_day and tokens + cost.tokens > key.tokens_per_day:
            raise TokensSpent(f"This answer may take {cost.tokens} tokens, and of the {key.tokens_per_day} a day of this key "
                              f"{max(0, key.tokens_per_day - tokens)} are left.", retry_after_s=wait_s, field="budget_tokens",
                              hint=f"{resets} A smaller budget or a shorter question may fit.")
        if key.usd_per_day and usd + cost.usd > key.usd_per_day:
            raise MoneySpent(f"This answer may cost ${cost.usd:.6f}, and of the ${key.usd_per_day:g} a day of this key "
                             f"${max(0.0, key.usd_per_day - usd):.6f} are left.", retry_after_s=wait_s, field="max_cost_usd",
                             hint=f"{resets} A smaller budget or a lower max_cost_usd may fit.")


def _inserted(database: Database, what: str, values: Sequence[Cell]) -> int:
    """The number of a new row. Within a transaction."""
    database.write(f"INSERT INTO {what} VALUES ({', '.join('?' * len(values))})", values)
    [row] = database.rows("SELECT last_insert_rowid() AS number")
    return int(row["number"] or 0)


def _deleted(database: Database, table: str, number: int, owner: str) -> None:
    database.write(f"DELETE FROM {table} WHERE number = ? AND owner = ?", (number, owner))


def _nothing() -> None:
    """Gives back what was never taken."""
