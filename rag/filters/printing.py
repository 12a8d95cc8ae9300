"""A filter as the text that `parse` reads back to an equal one."""

from __future__ import annotations

import json
import re

from rag.filters.terms import And, Equals, Exists, Filter, In, Not, Or, Range
from rag.filters.values import Value

KEYWORDS = ("and", "or", "not", "in", "between", "exists", "all", "any", "true", "false")
NAME = re.compile(r"[^\W\d][\w.-]*", re.UNICODE)


def text(where: Filter) -> str:
    """The filter in the form of `--where`. Names and strings are quoted where that is needed to read them back."""
    match where:
        case Equals(field=name, value=value):
            return f"{name_text(name)} = {value_text(value)}"
        case In(field=name, values=values):
            return f"{name_text(name)} in ({', '.join(value_text(value) for value in values)})"
        case Range():
            return _range(where)
        case Exists(field=name):
            return f"exists({name_text(name)})"
        case Not(part=Equals(field=name, value=value)):
            return f"{name_text(name)} != {value_text(value)}"
        case Not(part=In(field=name, values=values)):
            return f"{name_text(name)} not in ({', '.join(value_text(value) for value in values)})"
        case Not(part=Exists() as part):
            return f"not {text(part)}"
        case Not(part=part):
            return f"not ({text(part)})"
        case And(parts=parts):
            return _joined("and", "all", parts)
        case Or(parts=parts):
            return _joined("or", "any", parts)


def name_text(name: str) -> str:
    """A field name, in backticks unless it is a plain word."""
    if NAME.fullmatch(name) and name.lower() not in KEYWORDS:
        return name
    return "`" + name.replace("`", "``") + "`"


def value_text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return json.dumps(value)


def _range(where: Range) -> str:
    name = name_text(where.field)
    lower, upper = ([(sign, bound) for sign, bound in pair if bound is not None] for pair in (
        ((">", where.gt), (">=", where.gte)), (("<", where.lt), ("<=", where.lte))))
    if not lower or not upper:
        sign, bound = (lower or upper)[0]
        return f"{name} {sign} {value_text(bound)}"
    (low_sign, low), (high_sign, high) = lower[0], upper[0]
    return f"{value_text(low)} {low_sign.replace('>', '<')} {name} {high_sign} {value_text(high)}"


def _joined(word: str, function: str, parts: tuple[Filter, ...]) -> str:
    if len(parts) == 1:
        return f"{function}({text(parts[0])})"
    nested = [isinstance(part, And | Or) and len(part.parts) > 1 for part in parts]
    return f" {word} ".join(f"({text(part)})" if inside else text(part) for part, inside in zip(parts, nested, strict=True))
