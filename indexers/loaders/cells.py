"""Spreadsheet values as a person sees them: a number by its number format, a date by its own.

The format language is that of ECMA-376 part 1, section 18.8.31, as far as it changes what is read: decimals, thousands,
percent, scaling, exponents, literal text (currencies), sections for negative numbers and zero. Colours, conditions and
fractions are passed over. Dates of digits alone are written as in ISO 8601, because 03/04/2024 is two days to two readers;
those that name a month or leave out its day are written as formatted.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal

_TOKEN = re.compile(r'"([^"]*)"?|\\(.)|_.|\*.|\[\$([^\]-]*)[^\]]*\]|\[[^\]]*\]'
                    r"|(E[+-]0+)|(General)|([0#?][0#?,.]*|\.[0#?]+)|(%)|(.)", re.IGNORECASE | re.DOTALL)
_DATE_TOKEN = re.compile(r'"([^"]*)"?|\\(.)|_.|\*.|\[[^\]]*\]|(y+|m+|d+|h+|s+(?:\.0+)?|am/pm|a/p)|(.)', re.IGNORECASE | re.DOTALL)
_SECTIONS = re.compile(r'((?:"[^"]*"?|\\.|\[[^\]]*\]|[^;"\\\[])*)(?:;|$)', re.DOTALL)
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_LONGEST = 1e15                 # beyond it Excel has no digits to show


def shown(value: object, number_format: str) -> str:
    """"" for an empty cell. What the format cannot show is written plainly, never left out."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return _number(value, number_format)
    if isinstance(value, datetime | date):
        return _date(value, number_format)
    if isinstance(value, time):
        return value.isoformat("seconds" if value.second else "minutes")
    if isinstance(value, timedelta):
        return _duration(value)
    return str(value)


def _number(value: float, number_format: str) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    sections = _SECTIONS.findall(number_format)[:-1] or ["General"]     # the last match is the empty end
    section = sections[0]
    signed = value < 0
    if signed and len(sections) > 1 and sections[1]:
        section, signed = sections[1], False
    elif value == 0 and len(sections) > 2 and sections[2]:
        section = sections[2]
    return ("-" if signed else "") + _formatted(abs(value), section)


def _formatted(value: float, section: str) -> str:
    """A number that is not negative, in one section of a format."""
    before, after, digits, exponent, percent = "", "", "", "", 0
    for quoted, escaped, currency, power, general, places, per_cent, other in _TOKEN.findall(section):
        literal = quoted or escaped or currency or per_cent or other
        percent += bool(per_cent)
        exponent = exponent or power
        if (places or general) and not digits:
            digits = places or "General"
        elif places or literal == "@":
            return _plain(value)        # telephone numbers, fractions, text: not a number in one piece
        elif digits:
            after += literal
        else:
            before += literal
    if value >= _LONGEST:
        digits = "General"
    if not digits:
        return f"{before}{after}".strip() or _plain(value)
    if digits == "General":
        return f"{before}{_plain(value)}{after}".strip()
    return f"{before}{_digits(value * 100 ** percent, digits, scientific=bool(exponent))}{after}".strip()


def _digits(value: float, places: str, *, scientific: bool) -> str:
    whole, _, fraction = places.partition(".")
    scaling = len(places) - len(places.rstrip(","))
    fraction = fraction.rstrip(",")
    least = len(re.findall("0", fraction))
    if scientific:
        return f"{value:.{len(fraction)}E}"
    if value == 0 and "0" not in places:
        return ""               # the format has a sign for nothing, or shows nothing
    exact = (Decimal(repr(value)) / Decimal(1000) ** scaling).quantize(Decimal(1).scaleb(-len(fraction)), ROUND_HALF_UP)
    text = f"{exact:,f}" if "," in whole.rstrip(",") else f"{exact:f}"
    body, point, decimals = text.partition(".")
    decimals = decimals[:least] + decimals[least:].rstrip("0")
    width = whole.count("0")
    return body.zfill(width) + (point + decimals if decimals else "")


def _plain(value: float) -> str:
    if value < _LONGEST and value == int(value):
        return str(int(value))
    return f"{value:.11g}"


def _date(value: date, number_format: str) -> str:
    section = number_format.partition(";")[0]
    tokens = [(match.group(3) or "").lower() for match in _DATE_TOKEN.finditer(section)]
    kinds = {token[0] for token in tokens if token}
    named = any(len(token) > 2 for token in tokens if token.startswith("m"))
    if named or (not kinds >= {"y", "d"} and kinds & {"y", "m", "d"}):
        return _as_formatted(value, section)
    if isinstance(value, datetime) and value.time() != time() and (kinds & {"h", "s"} or not kinds):
        return value.isoformat(" ", "seconds" if value.second else "minutes")
    return value.isoformat()[:10]


def _as_formatted(value: date, section: str) -> str:
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    twelve = re.search("am/pm|a/p", section, re.IGNORECASE) is not None
    parts: list[str] = []
    previous = ""
    for match in _DATE_TOKEN.finditer(section):
        quoted, escaped, token, other = match.groups()
        if token:
            parts.append(_part(moment, token.lower(), minutes=previous == "h", twelve=twelve))
            previous = token[0].lower()
        else:
            parts.append(quoted or escaped or other or "")
    return " ".join("".join(parts).split())


def _part(moment: datetime, token: str, *, minutes: bool, twelve: bool) -> str:
    size = len(token)
    if token[0] == "y":
        return f"{moment.year:04d}" if size > 2 else f"{moment.year % 100:02d}"
    if token[0] == "m" and not minutes:
        name = _MONTHS[moment.month - 1]
        return {1: str(moment.month), 2: f"{moment.month:02d}", 3: name[:3], 5: name[0]}.get(size, name)
    if token[0] == "d":
        name = _DAYS[moment.weekday()]
        return {1: str(moment.day), 2: f"{moment.day:02d}", 3: name[:3]}.get(size, name)
    if token[0] == "a":
        return "AM" if moment.hour < 12 else "PM"
    number = {"h": (moment.hour - 1) % 12 + 1 if twelve else moment.hour, "m": moment.minute, "s": moment.second}[token[0]]
    return f"{number:02d}" if size > 1 else str(number)


def _duration(value: timedelta) -> str:
    seconds = round(abs(value.total_seconds()))
    sign = "-" if value < timedelta() else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02d}" + (f":{seconds % 60:02d}" if seconds % 60 else "")
