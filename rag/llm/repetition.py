"""Noticing that a reader loops.

Small models now and then repeat a short cycle of tokens until the limit. A cycle counts as a loop when it came at least
`REPEATS` times in a row and fills at least `STRETCH` tokens: a number such as 1000000000 or a row of dashes does not.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable

LONGEST_CYCLE = 24
REPEATS = 4
STRETCH = 24

# Pieces of text that stand for tokens where the server sends none; bounded, so that an endless word has pieces too.
_PIECE = re.compile(r"[A-Za-z0-9_]{1,8}|\s{1,4}|.", re.DOTALL)


class LoopGuard:
    """Watches a stream of tokens, of any hashable kind."""

    def __init__(self) -> None:
        self._last: deque[Hashable] = deque(maxlen=LONGEST_CYCLE)
        self._run = [0] * (LONGEST_CYCLE + 1)   # by length of cycle: how many tokens in a row equal the one a cycle ago

    def add(self, token: Hashable) -> bool:
        """Whether the stream loops with this token."""
        for cycle in range(1, len(self._last) + 1):
            self._run[cycle] = self._run[cycle] + 1 if self._last[-cycle] == token else 0
        self._last.append(token)
        return any(run + cycle >= max(REPEATS * cycle, STRETCH) for cycle, run in enumerate(self._run) if run)


class TextLoopGuard:
    """The same for text that comes in stretches of any length: cut into pieces the same way however it was split."""

    def __init__(self) -> None:
        self._guard = LoopGuard()
        self._rest = ""

    def add(self, text: str) -> bool:
        """Whether the text loops by now."""
        pieces = _PIECE.findall(self._rest + text)
        if not pieces:
            return False
        self._rest = pieces.pop()       # may go on with the next stretch
        return any(self._guard.add(piece) for piece in pieces)
