"""What one key may use: requests a minute, requests at once, and tokens and money a day.

Daily ceilings bind: before a question is asked its worst case is set aside, and only what fits is admitted. They count what the
ledger holds, so they outlive a restart; what is set aside, like rates, is known to this process alone.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from api.errors import MoneySpent, RateLimited, TokensSpent
from api.keys import Key
from api.usage import Ledger
from retrievers.rewriting.proposal import REPLY_TOKENS

# Of the whole prompt around question and context: instructions, fences and the chat template, with room to spare.
_AROUND_TOKENS = 512
_BUSY_RETRY_S = 1.0


class Rates:
    """A token bucket for each key that has a rate: a minute's worth at once, then as it refills."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}    # what is left, and when that was so
        self._lock = threading.Lock()

    def take(self, key: Key) -> None:
        """Raises RateLimited: the key has used up its minute; says when the next request fits."""
        if not key.per_minute:
            return
        each_s = 60 / key.per_minute
        with self._lock:
            now = self._clock()
            left, since = self._left.get(key.id, (float(key.per_minute), now))
            left = min(float(key.per_minute), left + (now - since) / each_s)
            allowed = left >= 1
            self._left[key.id] = (left - 1 if allowed else left, now)
        if not allowed:
            raise RateLimited(f"This key may send {key.per_minute} requests a minute.", retry_after_s=(1 - left) * each_s,
                              hint="Send fewer, or ask for a key with a higher rate.")


class Places:
    """How many requests of a key are under way: counted while their work runs, not while their client listens."""

    def __init__(self) -> None:
        self._taken: defaultdict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    def take(self, key: Key) -> Callable[[], None]:
        """What gives the place back; calling it again does nothing.

        Raises:
            RateLimited: as many are under way as the key may have.
        """
        with self._lock:
            if key.at_once and self._taken[key.id] >= key.at_once:
                raise RateLimited(f"This key may have {key.at_once} requests under way at once.", retry_after_s=_BUSY_RETRY_S,
                                  code="too_many_at_once", hint="Wait for one to end, or ask for a key with more.")
            self._taken[key.id] += 1
        given = threading.Lock()

        def give_back() -> None:
            if given.acquire(blocking=False):
                with self._lock:
                    self._taken[key.id] -= 1
                    if not self._taken[key.id]:
                        del self._taken[key.id]

        return give_back

    def taken(self, key_id: str) -> int:
        with self._lock:
            return self._taken.get(key_id, 0)


@dataclass(frozen=True, slots=True)
class Cost:
    """The most that one answer can take."""

    tokens: int
    usd: float


def worst_case(*, question: str, budget_tokens: int, answer_tokens: int, price_prompt: float, price_completion: float,
               max_cost_usd: float | None, said: str = "", rewrites: bool = False) -> Cost:
    """No tokenizer makes more tokens of a text than it has bytes. Prices are US dollars per million tokens; an answer's own ceiling
    lowers the money, for the pipeline keeps to it. `said`: the conversation before the question. `rewrites`: the reader may be
    asked for queries first."""
    asked = len(question.encode("utf-8", "replace")) + len(said.encode("utf-8", "replace")) + _AROUND_TOKENS
    prompt = budget_tokens + asked
    if rewrites:
        prompt, answer_tokens = prompt + asked, answer_tokens + REPLY_TOKENS
    usd = (prompt * price_prompt + answer_tokens * price_completion) / 1e6
    return Cost(prompt + answer_tokens, usd if max_cost_usd is None else min(usd, max_cost_usd))


class Ceilings:
    """The tokens and the money that a key may spend a day, in UTC."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.Lock()
        self._aside: defaultdict[str, list[Cost]] = defaultdict(list)

    def take(self, key: Key, cost: Cost) -> Callable[[], None]:
        """Sets `cost` aside while the answer is made, and returns what gives it back: to be called once, after the ledger has what
        was really spent. Blocks on the ledger.

        Raises:
            TokensSpent, MoneySpent: it does not fit into what is left of the day; says how much that is and when the next begins.
        """
        if not (key.tokens_per_day or key.usd_per_day):
            return _nothing
        with self._lock:
            self._check(key, cost)
            self._aside[key.id].append(cost)

        def give_back() -> None:
            with self._lock:
                self._aside[key.id].remove(cost)

        return give_back

    def _check(self, key: Key, cost: Cost) -> None:
        now = self._clock()
        tokens, usd = self._ledger.spent(key.id, day=now.date().isoformat())
        tokens += sum(other.tokens for other in self._aside[key.id])
        usd += sum(other.usd for other in self._aside[key.id])
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


def _nothing() -> None:
    """Gives back what was never taken."""
