"""Figures as a reader wants them: "-" for what there is none of, a true minus, intervals in brackets."""

from __future__ import annotations

import re
from collections.abc import Sequence

NONE = "-"
# Controls except tab and newline, marks that reorder the text around them, halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """Text from data that can be shown: what could steer a page or a terminal, or cannot be encoded, becomes U+FFFD."""
    return _UNSAFE.sub("\ufffd", text)


def number(value: float | None, digits: int = 1, *, times: float = 1, sign: str = "") -> str:
    """With a separator for thousands. `sign="+"` tells the sign of positive figures too."""
    if value is None:
        return NONE
    text = f"{times * value:{sign},.{digits}f}"
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")  # nothing is left of it at this precision, so no sign either
    return text.replace("-", "\u2212")


def interval(bounds: Sequence[float] | None, digits: int = 1, *, times: float = 1, sign: str = "") -> str:
    if bounds is None:
        return ""
    low, high = bounds
    return f"[{number(low, digits, times=times, sign=sign)}, {number(high, digits, times=times, sign=sign)}]"


def significant(value: float | None, digits: int = 3) -> str:
    """So many significant digits and no exponent: for money and seconds, which span magnitudes."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    places = max(0, digits - 1 - _magnitude(value))
    return number(value, places)


def _magnitude(value: float) -> int:
    return int(f"{abs(value):e}".split("e")[1])


def count(number_of: int, noun: str) -> str:
    """"1 data set", "1,200 questions"."""
    return f"{number_of:,} {noun}{'' if number_of == 1 else 's'}"
