"""What every search over sets of sentences shares: which sets are allowed, what each is worth, how many were asked about, and the
best so far. A set is bits (see `packed`).

A search is a function of a `Space`: it asks for the worth of sets until it is done or `open()` is False, and returns nothing; the
space remembers the best. So every search is anytime, never asks about a set twice, and is compared with others in one unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from optimizers.packed import Ints
from optimizers.utility import NEVER, SetUtility, Worth

NONE = -math.inf


@dataclass(slots=True)
class Space:
    """`worth` None: the set function itself. `calls`: sets whose worth was computed; `limit` is a ceiling for them."""

    utility: SetUtility
    stop: Callable[[], bool]
    worth: Worth | None = None
    limit: int | None = None
    banned: frozenset[int] = frozenset()    # sets whose rendering was over the budget, whatever the estimate says
    known: dict[int, float] = field(default_factory=dict)
    spent: dict[int, int] = field(default_factory=dict)     # tokens of those that are allowed
    calls: int = 0
    best: int = 0               # never a worse set than the empty one unless it is the best that is not empty
    value: float = NONE
    proven: bool = False        # no allowed set is worth more
    cut: bool = False           # it was stopped or met its limit
    stopped: bool = False       # by `stop`

    @property
    def rows(self) -> int:
        return len(self.utility.prepared.tokens)

    def open(self) -> bool:
        """Whether the search may go on. Asks `stop`."""
        if not self.cut:
            self.stopped = self.stop()
            self.cut = self.stopped or (self.limit is not None and self.calls >= self.limit)
        return not self.cut

    def score(self, sets: Sequence[int]) -> list[float]:
        """Worth of each set; NONE for one that the budget does not hold, that has near-duplicates, or that there was no room to
        ask for. The best is remembered; of equals, the one with fewer tokens, then the lower bits."""
        new = [bits for bits in dict.fromkeys(sets) if bits not in self.known]
        if new:
            self._ask(new)
        return [self.known.get(bits, NONE) for bits in sets]

    def _ask(self, new: Sequence[int]) -> None:
        values, tokens = self.utility.measured(new)
        budget = self.utility.prepared.budget
        fits = (tokens <= budget) & (values > NEVER)
        if self.banned:
            fits &= np.asarray([bits not in self.banned for bits in new])
        room = len(new) if self.limit is None else max(0, self.limit - self.calls)
        places = np.flatnonzero(fits)
        if len(places) > room:
            self.cut = True
            unasked = {new[i] for i in places[room:].tolist()}
            places = places[:room]
        else:
            unasked = set()
        if self.worth is not None and len(places):
            values = values.copy()
            values[places] = self.worth([new[i] for i in places.tolist()])
        self.calls += len(places)
        self.known.update((bits, NONE) for bits in new if bits not in unasked)
        found = values[places].tolist()
        for i, value, size in zip(places.tolist(), found, tokens[places].tolist(), strict=True):
            self.known[new[i]] = value
            self.spent[new[i]] = size
        self._remember(new, places, found)

    def _remember(self, new: Sequence[int], places: Ints, found: Sequence[float]) -> None:
        highest = max(found, default=NONE)
        if highest < self.value or highest == NONE:
            return
        for i, value in zip(places.tolist(), found, strict=True):
            if value == highest and new[i] and self._better(new[i], value):
                self.best, self.value = new[i], value

    def _better(self, bits: int, value: float) -> bool:
        if value != self.value or not self.best:
            return value > self.value
        return (self.spent[bits], bits) < (self.spent[self.best], self.best)

    def take(self, bits: int, value: float) -> None:
        """A set found elsewhere, of that worth."""
        self.known[bits] = value
        [self.spent[bits]] = self.utility.tokens([bits]).tolist()
        if bits and self._better(bits, value):
            self.best, self.value = bits, value
