"""Amounts in words for people: counts, bytes, seconds, money."""

from __future__ import annotations

from rag.types import Progress


def amount(tick: Progress) -> str:
    """`1,024 of 5,000 chunks (20%)`, or megabytes where the unit is bytes."""
    if tick.unit == "bytes":
        done, total, unit = f"{tick.done / 1e6:,.1f}", f"{(tick.total or 0) / 1e6:,.1f}", "MB"
    else:
        done, total, unit = f"{tick.done:,}", f"{tick.total or 0:,}", tick.unit
    if not tick.total:
        return f"{done} {unit}"
    return f"{done} of {total} {unit} ({min(100, 100 * tick.done // tick.total)}%)"


def short_amount(tick: Progress) -> str:
    """`1,024/5,000 chunks 20%` or `432/478 MB 90%`, for a line that has little room."""
    scale, unit = (1_000_000, "MB") if tick.unit == "bytes" else (1, tick.unit)
    if not tick.total:
        return f"{tick.done // scale:,} {unit}"
    return f"{tick.done // scale:,}/{tick.total // scale:,} {unit} {min(100, 100 * tick.done // tick.total)}%"


def rate(per_second: float | None, unit: str) -> str:
    """`177 chunks/s`, `12.3 MB/s`; empty while unknown, and for work that counts its own seconds."""
    if not per_second or unit == "s":
        return ""
    if unit == "bytes":
        return f"{per_second / 1e6:,.1f} MB/s"
    return f"{per_second:,.0f} {unit}/s" if per_second >= 10 else f"{per_second:,.1f} {unit}/s"


def duration(seconds: float) -> str:
    """`8 s`, `2 min 05 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def money(usd: float) -> str:
    """Enough digits to tell small amounts apart: `$0`, `$0.000012`, `$1.25`."""
    if usd == 0:
        return "$0"
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.6f}"


def size(count: int) -> str:
    """Bytes in decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
